"""A machine for seccomp's dialect of classic BPF, in Python: what would the kernel answer to this call?

From linux/filter.h, Documentation/networking/filter.rst and seccomp(2). It knows only the instructions the
kernel's seccomp_check_filter() takes, and fails on all others.
"""

from __future__ import annotations

import struct
import sys

ALLOW, LOG, TRACE, ERRNO, TRAP = 0x7FFF0000, 0x7FFC0000, 0x7FF00000, 0x00050000, 0x00030000
KILL_THREAD, KILL_PROCESS = 0x00000000, 0x80000000
EPERM, ENOSYS = ERRNO | 1, ERRNO | 38

X86_64, X86, AARCH64, ARM, S390X = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028, 0x80000016
X32_BIT = 0x40000000

_ORDER = "<" if sys.byteorder == "little" else ">"


def run(program: bytes, arch: int, number: int, *args: int) -> int:
    """The SECCOMP_RET_* value for a call; arguments that are not given are 0."""
    padded = [*args, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack(_ORDER + "IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator = index = position = 0
    memory = [0] * 16
    while True:
        opcode, jump_true, jump_false, operand = code[position]
        position += 1
        match opcode:
            case 0x20:  # ld [k]
                assert operand % 4 == 0
                (accumulator,) = struct.unpack_from(_ORDER + "I", data, operand)
            case 0x00:  # ld #k
                accumulator = operand
            case 0x01:  # ldx #k
                index = operand
            case 0x60:  # ld M[k]
                accumulator = memory[operand]
            case 0x02:  # st
                memory[operand] = accumulator
            case 0x54:  # and #k
                accumulator &= operand
            case 0x07:  # tax
                index = accumulator
            case 0x87:  # txa
                accumulator = index
            case 0x05:  # ja
                position += operand
            case 0x15:
                position += jump_true if accumulator == operand else jump_false
            case 0x25:
                position += jump_true if accumulator > operand else jump_false
            case 0x35:
                position += jump_true if accumulator >= operand else jump_false
            case 0x45:
                position += jump_true if accumulator & operand else jump_false
            case 0x06:
                return operand
            case _:
                raise AssertionError(f"instruction {position - 1}: opcode {opcode:#x}")
