"""`linux.resources.devices` on cgroup v2: a BPF_PROG_TYPE_CGROUP_DEVICE program, made and attached here.

Source: bpf(2), Documentation/admin-guide/cgroup-v2.rst "Device controller", include/uapi/linux/bpf.h.
`program` is pure. Only `attach` needs ctypes, which is slow to import and is loaded there.
"""

from __future__ import annotations

import errno
import posix
from _struct import pack

from rootless_rt.errors import RtError

from .devices import ALL, compile_rules
from .fs import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .devices import Rule

# Opcodes: class, operation, source operand (Documentation/bpf/standardization/instruction-set.rst).
# Comparisons are those of 32 bits (Linux 5.1): the others would extend the sign of a large number.
LOAD_WORD = 0x61
MOV_REG, MOV, AND, RSH, JNE, JSET, JA, EXIT = 0xBC, 0xB4, 0x54, 0x74, 0x56, 0x46, 0x05, 0x95
_TYPES = {"b": 1, "c": 2}

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_CGROUP_DEVICE_PROG, _CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_MAX_ATTACHED = 64

_SYSCALL = {
    "x86_64": 321, "i386": 357, "i486": 357, "i586": 357, "i686": 357, "aarch64": 280, "riscv64": 280,
    "loongarch64": 280, "armv6l": 386, "armv7l": 386, "armv8l": 386, "s390x": 351, "ppc64": 361,
    "ppc64le": 361,
}  # fmt: skip


def program(rules: list[Rule]) -> bytes:
    """The instructions (8 bytes each, native byte order) that decide as `rules` say.

    The kernel passes {access << 16 | type, major, minor} and wants 1 (allow) or 0. Registers: r2 type, r3 the
    accesses not yet granted, r4 major, r5 minor. The last rule comes first: an allowing rule takes its
    accesses off r3 and grants when nothing is left; a denying rule refuses when r3 holds one of its accesses.
    """
    code = [
        _op(LOAD_WORD, dst=2, src=1, offset=0),
        _op(MOV_REG, dst=3, src=2),
        _op(RSH, dst=3, value=16),
        _op(AND, dst=2, value=0xFFFF),
        _op(LOAD_WORD, dst=4, src=1, offset=4),
        _op(LOAD_WORD, dst=5, src=1, offset=8),
    ]
    for allow, kind, major, minor, bits in reversed(rules):
        tests: list[tuple[int, int]] = []
        if kind != "a":
            tests.append((2, _TYPES[kind]))
        if major >= 0:
            tests.append((4, major))
        if minor >= 0:
            tests.append((5, minor))
        verdict = _verdict(allow)
        if bits == ALL:
            body = verdict
        elif allow:
            body = [_op(AND, dst=3, value=ALL & ~bits), _op(JNE, dst=3, offset=len(verdict)), *verdict]
        else:
            body = [_op(JSET, dst=3, offset=1, value=bits), _op(JA, offset=len(verdict)), *verdict]
        for number, (register, value) in enumerate(tests):
            code.append(_op(JNE, dst=register, offset=len(tests) - number - 1 + len(body), value=value))
        code += body
        if not tests and bits == ALL:
            # Rules before this one cannot be reached, and the verifier refuses what cannot be reached.
            return b"".join(code)
    return b"".join(code + _verdict(False))


def _verdict(allow: bool) -> list[bytes]:
    return [_op(MOV, dst=0, value=int(allow)), _op(EXIT)]


def _op(opcode: int, *, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    registers = dst | src << 4 if _LITTLE else dst << 4 | src
    return pack("=BBhI", opcode, registers, offset, value)


_LITTLE = pack("=H", 1) == b"\1\0"


def attach(path: str, rules: list[dict[str, Any]]) -> str | None:
    """Put the rules on the cgroup directory `path`, in place of those attached to it before.

    None, or why they are not enforced: no permission (rootless), or a kernel without such programs. The new
    program is there before an old one goes. Raises RtError when the kernel refuses the program itself.
    """
    code = program(compile_rules(rules))
    number = _SYSCALL.get(posix.uname().machine)
    if number is None:
        return f"device access is not limited: bpf(2) of {posix.uname().machine} is not known here"
    bpf = _Bpf(number)
    try:
        cgroup = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError as error:
        raise failure("cannot open the cgroup", path, error) from error
    loaded = -1
    try:
        loaded = bpf.load(code)
        old = bpf.attached(cgroup)
        bpf.attach(cgroup, loaded)
        for program_id in old:
            bpf.detach(cgroup, program_id)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return "device access is not limited: attaching the program needs root (CAP_BPF, CAP_NET_ADMIN)"
        if error.errno == errno.ENOSYS or (error.errno == errno.EINVAL and loaded < 0):
            return "device access is not limited: this kernel lacks CONFIG_BPF_SYSCALL or CONFIG_CGROUP_BPF"
        raise RtError(f"cannot limit device access of the cgroup {path}: {error.strerror}") from error
    finally:
        if loaded >= 0:
            posix.close(loaded)
        posix.close(cgroup)
    return None


class _Bpf:
    """bpf(2) with the four commands used here. Every method raises OSError."""

    def __init__(self, number: int) -> None:
        import ctypes

        self._ctypes = ctypes
        self._number = number
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long

    def load(self, code: bytes) -> int:
        """The verified program's descriptor (the kernel sets close-on-exec)."""
        text = self._ctypes.create_string_buffer(code, len(code))
        # The program calls no helper of the kernel, so any licence will do.
        licence = self._ctypes.create_string_buffer(b"Apache-2.0")
        pointers = (self._ctypes.addressof(text), self._ctypes.addressof(licence))
        attr = pack("=IIQQ", _CGROUP_DEVICE_PROG, len(code) // 8, *pointers) + bytes(48)
        return self._call(_PROG_LOAD, attr)

    def attached(self, cgroup: int) -> list[int]:
        """The ids of the device programs attached to this very cgroup."""
        ids = (self._ctypes.c_uint32 * _MAX_ATTACHED)()
        where = self._ctypes.addressof(ids)
        query = pack("=IIIIQI", cgroup, _CGROUP_DEVICE, 0, 0, where, _MAX_ATTACHED) + bytes(4)
        attr = self._ctypes.create_string_buffer(query, len(query))
        self._call(_PROG_QUERY, attr)
        count = int.from_bytes(attr.raw[24:28], "little" if _LITTLE else "big")
        return list(ids[: min(count, _MAX_ATTACHED)])

    def attach(self, cgroup: int, loaded: int) -> None:
        self._call(_PROG_ATTACH, pack("=IIII", cgroup, loaded, _CGROUP_DEVICE, _ALLOW_MULTI))

    def detach(self, cgroup: int, program_id: int) -> None:
        fd = self._call(_PROG_GET_FD_BY_ID, pack("=III", program_id, 0, 0))
        try:
            self._call(_PROG_DETACH, pack("=IIII", cgroup, fd, _CGROUP_DEVICE, 0))
        finally:
            posix.close(fd)

    def _call(self, command: int, attr: Any) -> int:
        buffer = self._ctypes.create_string_buffer(attr, len(attr)) if isinstance(attr, bytes) else attr
        size = self._ctypes.sizeof(buffer)
        number = self._ctypes.c_long(self._number)
        result = int(self._syscall(number, self._ctypes.c_int(command), buffer, size))
        if result < 0:
            code = self._ctypes.get_errno()
            raise OSError(code, posix.strerror(code))
        return result
