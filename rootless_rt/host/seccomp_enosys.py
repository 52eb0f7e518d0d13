"""The beginning of a seccomp program: ENOSYS for system calls that are newer than the profile.

Knows a few BPF instructions and how system calls are numbered. Must not know libseccomp, nor profiles.

A profile with a default of ERRNO says "denied" also of calls its author never heard of. But a C library tries
a new call first (faccessat2, clone3), and takes only ENOSYS, not EPERM, for "use the old one". So a stub goes
before the program: per architecture, a call with a number above the highest the profile names (in any rule,
of any action) returns ENOSYS. It is there if the default denies (ERRNO, KILL*, TRAP), and if the profile
names a call of that architecture; ALLOW, LOG and TRACE mean to see or permit new calls, and ENOSYS as default
needs no stub. Numbers that stand apart from the growing table are no measure of age, and are left to the
filter: ARM's private calls (0xf0000…), and x32's own (512…547). An x32 number is known by its bit 30; without
x32 in the profile it goes to the filter, which kills. On s390, number 0 means "the kernel does not know the
call in r1", hence ENOSYS too.
"""

from __future__ import annotations

import struct
from errno import ENOSYS

# Architecture tokens of libseccomp; all but x32's are the kernel's AUDIT_ARCH_* too.
_X86_64, _X32, _ARM, _S390, _S390X = 0xC000003E, 0x4000003E, 0x40000028, 0x16, 0x80000016
_X32_BIT = 0x40000000
# Numbers outside the table that grows: [first, end).
_APART = {_ARM: (0xF0000, 0xF0800), _X32: (_X32_BIT + 512, _X32_BIT + 548)}
_ERRNO = 0x00050000  # SECCOMP_RET_ERRNO


def highest(arch: int, numbers: list[int]) -> int | None:
    """The highest of these numbers of calls that tells the age of a profile; None when none does.

    Negative ones stand for calls that the architecture does not have.
    """
    first, end = _APART.get(arch, (0, 0))
    known = [number for number in numbers if number >= 0 and not first <= number < end]
    return max(known) if known else None


# Opcodes of linux/bpf_common.h, and offsets in struct seccomp_data.
_LOAD, _RETURN = 0x20, 0x06
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL, _JUMP_BITS = 0x15, 0x25, 0x35, 0x45
_OFFSET_NUMBER, _OFFSET_ARCH = 0, 4
# Opcode, label if true, label if false, operand. No label: the next instruction.
_Instruction = tuple[int, str, str, int]
# A string between instructions is a label.
_Code = list[_Instruction | str]
_TO_FILTER: _Instruction = (_JUMP_BITS, "filter", "filter", 0)  # whatever the bits


def stub(newest: dict[int, int]) -> bytes:
    """Instructions that return ENOSYS for numbers above the newest, and fall through to the filter otherwise.

    Only loads of number and architecture, jumps and returns: the kernel (5.11) can still see which calls are
    always allowed and skip the filter for those.
    """
    if not newest:
        return b""
    code: _Code = [(_LOAD, "", "", _OFFSET_ARCH)]
    kernel_archs = dict.fromkeys(_X86_64 if arch == _X32 else arch for arch in newest)
    code += [(_JUMP_EQUAL, f"arch {arch}", "", arch) for arch in kernel_archs]
    code.append(_TO_FILTER)
    for arch in kernel_archs:
        code += [f"arch {arch}", (_LOAD, "", "", _OFFSET_NUMBER)]
        if arch in (_S390, _S390X):
            code.append((_JUMP_EQUAL, "enosys", "", 0))
        if arch == _X86_64:
            code.append((_JUMP_BITS, "x32" if _X32 in newest else "filter", "", _X32_BIT))
        code += _check(arch, newest)
        if arch == _X86_64 and _X32 in newest:
            code += ["x32", *_check(_X32, newest)]
    code += ["enosys", (_RETURN, "", "", _ERRNO | ENOSYS), "filter"]
    return _assemble(code)


def _check(arch: int, newest: dict[int, int]) -> _Code:
    """The comparisons for one architecture; the number is already loaded."""
    if arch not in newest:
        return [_TO_FILTER]
    highest = newest[arch]
    first, end = _APART.get(arch, (0, 0))
    if highest >= end:
        return [(_JUMP_GREATER, "enosys", "filter", highest)]
    return [
        (_JUMP_GREATER, "", "filter", highest),
        (_JUMP_GREATER_EQUAL, "", "enosys", first),
        (_JUMP_GREATER_EQUAL, "enosys", "filter", end),
    ]


def _assemble(code: _Code) -> bytes:
    """A struct sock_filter for each instruction. Jumps count from the next one, in 8 bits: enough here."""
    labels: dict[str, int] = {}
    instructions: list[_Instruction] = []
    for item in code:
        if isinstance(item, str):
            labels[item] = len(instructions)
        else:
            instructions.append(item)
    return b"".join(
        struct.pack(
            "=HBBI",
            opcode,
            labels[true] - position - 1 if true else 0,
            labels[false] - position - 1 if false else 0,
            operand,
        )
        for position, (opcode, true, false, operand) in enumerate(instructions)
    )
