"""Compiles a seccomp profile of the runtime-spec to a BPF program, with libseccomp. The cold path behind
`seccomp`.

Knows: the profile's words (config-linux.md, "Seccomp"), libseccomp's C interface, and a few BPF instructions.
Must not know: caches, containers, or how a program is loaded (seccomp(2) is called elsewhere, on the exported
bytes: nothing of libseccomp runs near the container).

One loader, through ctypes, for every machine. Of the two Python bindings, the distributions' `seccomp` is not
on PyPI and not visible to other interpreters than the system's, and `pyseccomp` takes 25 ms to import and
finds the library by running the ldconfig and gcc of $PATH. Here ctypes takes 3 ms, and the library that
compiles is the very file whose identity is in the cache's key. The tests compare the outcome with
pyseccomp's.

What the profile leaves open:

- The native architecture is always filtered. Calls through an architecture that is not in the filter kill the
  thread (libseccomp's "bad architecture"), so an architecture libseccomp does not know is dropped with a
  warning: it fails shut.
- A name libseccomp does not know is dropped with a warning, and so are rules that repeat the default action.
- All conditions of a rule must hold (AND). If two of them look at the same argument, each becomes a rule of
  its own (OR), for that is how engines write "one of these values", and what runc made of it.
- When rules of one call contradict each other, libseccomp's order holds: an earlier unconditional rule wins.
  Up to 2.6.0 it can also get several rules of one call wrong that use LT, LE, GE or GT (GHSA-4q85-33p6-j5g6).

Newer system calls. A profile with a default of ERRNO says "denied" also of calls its author never heard of.
But a C library tries a new call first (faccessat2, clone3), and takes only ENOSYS, not EPERM, for "use the
old one". So the program begins with a stub: per architecture, a call with a number above the highest the
profile names (in any rule, of any action) returns ENOSYS. It is there if the default denies (ERRNO, KILL*,
TRAP), and if the profile names a call of that architecture; ALLOW, LOG and TRACE mean to see or permit new
calls, and ENOSYS as default needs no stub. Numbers that stand apart from the growing table are no measure of
age, and are left to the filter: ARM's private calls (0xf0000…), and x32's own (512…547). An x32 number is
known by its bit 30; without x32 in the profile it goes to the filter, which kills. On s390, number 0 means
"the kernel does not know the call in r1", hence ENOSYS too.
"""

from __future__ import annotations

import ctypes
import os
import struct
from errno import EINVAL, ENOSYS, EPERM

from rootless_rt.errors import RtError, SpecError
from rootless_rt.host.seccomp import INSTRUCTION_SIZE, MAX_INSTRUCTIONS, library_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# SECCOMP_RET_* of linux/seccomp.h; the errno goes into the low 16 bits of those that take one.
_ERRNO, _TRACE = 0x00050000, 0x7FF00000
_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_LETS_THROUGH = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
_OPERATORS = {
    f"SCMP_CMP_{name}": number
    for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), start=1)
}
_FLAG_LOG, _FLAG_SPEC_ALLOW = 2, 4  # SECCOMP_FILTER_FLAG_*
_API_LOG, _API_SPEC_ALLOW = 3, 4  # the level of seccomp_api_get(3) from which the kernel takes them

# SCMP_FLTATR_CTL_OPTIMIZE; its value 2 is the binary tree: some 10 comparisons a call instead of some 300.
_OPTIMIZE, _TREE = 8, 2
# Up to here a linear program is as short; and libseccomp up to 2.5.4 makes nonsense of a tree without rules.
_LINEAR_UP_TO = 16

# Architecture tokens of libseccomp; all but x32's are the kernel's AUDIT_ARCH_* too.
_X86_64, _X32, _ARM, _S390, _S390X = 0xC000003E, 0x4000003E, 0x40000028, 0x16, 0x80000016
_X32_BIT = 0x40000000
# Numbers outside the table that grows: [first, end).
_APART = {_ARM: (0xF0000, 0xF0800), _X32: (_X32_BIT + 512, _X32_BIT + 548)}


_NO_CALL = -1  # __NR_SCMP_ERROR; other negative numbers stand for calls that only other architectures have
_INSTALL = "install libseccomp 2.4 or newer (apt install libseccomp2, dnf install libseccomp)"


# More 64-bit comparisons, at two instructions each, cannot fit in a program; and on the way to a far too long
# one, libseccomp up to 2.6.0 corrupts its memory (GHSA-2hqh-5c36-grrm).
_MAX_COMPARISONS = MAX_INSTRUCTIONS // 2


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


def compile(profile: Mapping[str, Any]) -> tuple[bytes, int, list[str]]:
    """The BPF program (`struct sock_filter`, native byte order), SECCOMP_FILTER_FLAG_* bits and warnings.

    `profile` is the checked `linux.seccomp` object of config.json. Absent or null `flags` mean SPEC_ALLOW
    where the kernel has it. TSYNC has no effect (the loading process has one thread), nor has
    WAIT_KILLABLE_RECV, which the kernel takes only along with a listener. Raises SpecError for a word or
    number that cannot be compiled, RtError without libseccomp or when it refuses a rule.
    """
    library = _load()
    default_name = profile["defaultAction"]
    default = _action(default_name, profile.get("defaultErrnoRet"), "defaultAction", "defaultErrnoRet")
    flags = _flags(profile.get("flags"), library.seccomp_api_get())
    warnings: list[str] = []
    context = library.seccomp_init(default)
    if not context:
        raise RtError(f"seccomp: libseccomp does not take {default_name} as default action on this kernel")
    try:
        archs = _add_architectures(library, context, profile.get("architectures") or (), warnings)
        named: set[str] = set()
        unknown, rules, comparisons = [], 0, 0
        for position, entry in enumerate(profile.get("syscalls") or ()):
            where = f"syscalls[{position}]"
            action = _action(entry["action"], entry.get("errnoRet"), f"{where}.action", f"{where}.errnoRet")
            alternatives = _conditions(entry.get("args") or (), where)
            comparisons += len(entry.get("args") or ()) * len(entry["names"])
            if comparisons > _MAX_COMPARISONS:
                raise _too_long(f"more than {_MAX_COMPARISONS} comparisons")
            for name in entry["names"]:
                number = _number(library, archs[0], name)
                if number == _NO_CALL:
                    unknown.append(_shown(name))
                    continue
                named.add(name)
                if action == default:
                    continue
                for conditions in alternatives:
                    status = library.seccomp_rule_add_array(
                        context, action, number, len(conditions), conditions
                    )
                    if status < 0:
                        problem = f"libseccomp refuses the rule for {name}: {os.strerror(-status)}"
                        raise SpecError(f"linux.seccomp.{where}", problem)
                    rules += 1
        if unknown:
            warnings.append(_unknown_calls(unknown, default_name))
        if rules > _LINEAR_UP_TO:
            # libseccomp before 2.5 has no tree: its linear program does the same, more slowly.
            library.seccomp_attr_set(context, _OPTIMIZE, _TREE)
        program = _export(library, context)
    finally:
        library.seccomp_release(context)
    if default_name not in _LETS_THROUGH and default != _ERRNO | ENOSYS:
        program = _enosys_stub(_newest(library, archs, named)) + program
    if len(program) > MAX_INSTRUCTIONS * INSTRUCTION_SIZE:
        raise _too_long(f"{len(program) // INSTRUCTION_SIZE} instructions")
    return program, flags, warnings


def _too_long(what: str) -> RtError:
    return RtError(
        f"seccomp: the profile makes {what}, and the kernel takes {MAX_INSTRUCTIONS} BPF instructions",
        hint="name fewer architectures or conditions in linux.seccomp",
    )


def _load() -> ctypes.CDLL:
    path = library_file()
    try:
        library = ctypes.CDLL(path or "libseccomp.so.2")
    except OSError as error:
        raise RtError(
            f"seccomp: cannot load libseccomp: {error}",
            hint=_INSTALL,
        ) from None
    u32, pointer, signed = ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int
    comparisons = ctypes.POINTER(_Comparison)
    signatures: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
        ("seccomp_api_get", ctypes.c_uint, ()),
        ("seccomp_init", pointer, (u32,)),
        ("seccomp_release", None, (pointer,)),
        ("seccomp_arch_native", u32, ()),
        ("seccomp_arch_resolve_name", u32, (ctypes.c_char_p,)),
        ("seccomp_arch_add", signed, (pointer, u32)),
        ("seccomp_attr_set", signed, (pointer, signed, u32)),
        ("seccomp_syscall_resolve_name_arch", signed, (u32, ctypes.c_char_p)),
        ("seccomp_rule_add_array", signed, (pointer, u32, signed, ctypes.c_uint, comparisons)),
        ("seccomp_export_bpf", signed, (pointer, signed)),
    )
    for name, result, arguments in signatures:
        try:
            function = getattr(library, name)
        except AttributeError:
            raise RtError(f"seccomp: this libseccomp is too old: no {name}", hint=_INSTALL) from None
        function.restype = result
        function.argtypes = arguments
    return library


def _action(name: str, errno: int | None, where: str, errno_where: str) -> int:
    """A SECCOMP_RET_* value. The spec has a runtime fail on an errno for an action that takes none."""
    try:
        value = _ACTIONS[name]
    except KeyError:
        raise SpecError(f"linux.seccomp.{where}", f"{name} is not an action rt can compile") from None
    if value not in (_ERRNO, _TRACE):
        if errno is not None:
            raise SpecError(f"linux.seccomp.{errno_where}", f"{name} returns no errno")
        return value
    if errno is None:
        errno = EPERM
    # Beyond 16 bits it would be cut: 65536 would become ERRNO(0), a call that is skipped and reports success.
    if not 0 <= errno <= 0xFFFF:
        raise SpecError(f"linux.seccomp.{errno_where}", f"{errno} is not an errno")
    return value | errno


def _flags(names: list[str] | None, level: int) -> int:
    if names is None:
        return _FLAG_SPEC_ALLOW if level >= _API_SPEC_ALLOW else 0
    flags = 0
    for position, name in enumerate(names):
        if name == "SECCOMP_FILTER_FLAG_LOG":
            bit, needed = _FLAG_LOG, _API_LOG
        elif name == "SECCOMP_FILTER_FLAG_SPEC_ALLOW":
            bit, needed = _FLAG_SPEC_ALLOW, _API_SPEC_ALLOW
        elif name in ("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"):
            continue
        else:
            raise SpecError(f"linux.seccomp.flags[{position}]", f"{name} is not a flag rt knows")
        if level < needed:
            problem = f"this kernel or libseccomp does not have {name}"
            raise SpecError(f"linux.seccomp.flags[{position}]", problem)
        flags |= bit
    return flags


def _add_architectures(
    library: ctypes.CDLL, context: int, names: Sequence[str], warnings: list[str]
) -> list[int]:
    """Adds the profile's architectures to the native one; returns the tokens of all, the native first."""
    archs = [library.seccomp_arch_native()]
    refused = []
    for name in names:
        plain = name.removeprefix("SCMP_ARCH_").lower()
        token = library.seccomp_arch_resolve_name(plain.encode("ascii", "replace"))
        if token in archs:
            continue
        # Refused: unknown here, or of the other byte order than this machine.
        if token == 0 or library.seccomp_arch_add(context, token) < 0:
            refused.append(_shown(name))
        else:
            archs.append(token)
    if refused:
        warnings.append(
            f"seccomp: libseccomp cannot filter {', '.join(refused)} on this machine: "
            "calls through them are killed"
        )
    return archs


def _conditions(args: Sequence[Mapping[str, Any]], where: str) -> list[ctypes.Array[_Comparison]]:
    """The conditions of a rule as libseccomp takes them: arrays to AND, each for a rule of its own."""
    comparisons = []
    for position, arg in enumerate(args):
        path = f"linux.seccomp.{where}.args[{position}]"
        index, first, second = arg["index"], arg["value"], arg.get("valueTwo") or 0
        if not 0 <= index <= 5:
            raise SpecError(f"{path}.index", f"{index} is not one of the six arguments 0 to 5")
        if not (0 <= first < 1 << 64 and 0 <= second < 1 << 64):
            raise SpecError(path, "a value does not fit in 64 bits")
        try:
            operator = _OPERATORS[arg["op"]]
        except KeyError:
            raise SpecError(f"{path}.op", f"{arg['op']} is not a comparison") from None
        comparisons.append(_Comparison(index, operator, first, second))
    if len({comparison.arg for comparison in comparisons}) < len(comparisons):
        return [(_Comparison * 1)(comparison) for comparison in comparisons]
    return [(_Comparison * len(comparisons))(*comparisons)]


def _number(library: ctypes.CDLL, arch: int, name: str) -> int:
    # C would see only what stands before a NUL.
    if not name.isascii() or not name.isprintable():
        return _NO_CALL
    number: int = library.seccomp_syscall_resolve_name_arch(arch, name.encode())
    return number


def _shown(name: str) -> str:
    """A name fit for a line of a warning, whatever config.json has in it."""
    return name if name.isprintable() else ascii(name)


def _unknown_calls(names: list[str], default_name: str) -> str:
    end = "they are NOT restricted" if default_name in _LETS_THROUGH else "they stay denied"
    return f"seccomp: system calls libseccomp does not know: {', '.join(dict.fromkeys(names))}: {end}"


def _export(library: ctypes.CDLL, context: int) -> bytes:
    # A memfd, for a pipe can be as small as a page. With vm.memfd_noexec=2 only a sealed one is allowed,
    # and kernels before 6.3 do not know that flag (MFD_NOEXEC_SEAL, 8).
    try:
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC | 8)
    except OSError as error:
        if error.errno != EINVAL:
            raise
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        status = library.seccomp_export_bpf(context, fd)
        if status < 0:
            raise RtError(f"seccomp: libseccomp cannot compile the profile: {os.strerror(-status)}")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _newest(library: ctypes.CDLL, archs: list[int], names: set[str]) -> dict[int, int]:
    """The highest number the profile names, for each architecture that has one."""
    newest = {}
    for arch in archs:
        first, end = _APART.get(arch, (0, 0))
        numbers = [_number(library, arch, name) for name in names]
        known = [number for number in numbers if number >= 0 and not first <= number < end]
        if known:
            newest[arch] = max(known)
    return newest


# Opcodes of linux/bpf_common.h, and offsets in struct seccomp_data.
_LOAD, _RETURN = 0x20, 0x06
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL, _JUMP_BITS = 0x15, 0x25, 0x35, 0x45
_OFFSET_NUMBER, _OFFSET_ARCH = 0, 4
# Opcode, label if true, label if false, operand. No label: the next instruction.
_Instruction = tuple[int, str, str, int]
# A string between instructions is a label.
_Code = list[_Instruction | str]
_TO_FILTER: _Instruction = (_JUMP_BITS, "filter", "filter", 0)  # whatever the bits


def _enosys_stub(newest: dict[int, int]) -> bytes:
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
