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

- Loading the program of a profile with NOTIFY makes a listener: the flags say so.
- The native architecture is always filtered. Calls through an architecture that is not in the filter kill the
  thread (libseccomp's "bad architecture"), so an architecture libseccomp does not know is dropped with a
  note: it fails shut.
- A name libseccomp does not know is dropped with a note, or a warning if the default action lets it through.
  So are rules that repeat the default action.
- All conditions of a rule must hold (AND). If two of them look at the same argument, each becomes a rule of
  its own (OR), for that is how engines write "one of these values", and what runc made of it.
- When rules of one call contradict each other, libseccomp's order holds: an earlier unconditional rule wins.
  Up to 2.6.0 it can also get several rules of one call wrong that use LT, LE, GE or GT (GHSA-4q85-33p6-j5g6).

The program begins with what `seccomp_enosys` makes for newer system calls.
"""

from __future__ import annotations

import ctypes
import os
from errno import EINVAL, ENOSYS, EPERM

from rootless_rt.errors import RtError, SpecError
from rootless_rt.host import seccomp_enosys
from rootless_rt.host.abilities import SECCOMP_FLAGS, seccomp_flags
from rootless_rt.host.seccomp import INSTRUCTION_SIZE, MAX_INSTRUCTIONS, NEW_LISTENER, library_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# SECCOMP_RET_* of linux/seccomp.h; the errno goes into the low 16 bits of those that take one.
_ERRNO, _TRACE, _NOTIFY = 0x00050000, 0x7FF00000, 0x7FC00000
_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_NOTIFY": _NOTIFY,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_LETS_THROUGH = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
_OPERATORS = {
    f"SCMP_CMP_{name}": number
    for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), start=1)
}
_SPEC_ALLOW, _WAIT_KILLABLE = "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
_TSYNC = "SECCOMP_FILTER_FLAG_TSYNC"
_API_NOTIFY = 5  # the level of seccomp_api_get(3) from which kernel and libseccomp have listeners

# SCMP_FLTATR_CTL_OPTIMIZE; its value 2 is the binary tree: some 10 comparisons a call instead of some 300.
_OPTIMIZE, _TREE = 8, 2
# Up to here a linear program is as short; and libseccomp up to 2.5.4 makes nonsense of a tree without rules.
_LINEAR_UP_TO = 16

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


def compile(profile: Mapping[str, Any]) -> tuple[bytes, int, list[str], list[str]]:
    """The BPF program (`struct sock_filter`, native byte order), SECCOMP_FILTER_FLAG_* bits, warnings, notes.

    `profile` is the checked `linux.seccomp` object of config.json. Absent or null `flags` mean SPEC_ALLOW
    where the kernel has it. TSYNC has no effect: the program starts in a process of one thread. Nor has
    WAIT_KILLABLE_RECV without NOTIFY: the kernel takes it only along with a listener. Raises SpecError for a
    word or number that cannot be compiled, RtError without libseccomp or when it refuses a rule.
    """
    library = _load()
    notifies = any(entry["action"] == "SCMP_ACT_NOTIFY" for entry in profile.get("syscalls") or ())
    if notifies and library.seccomp_api_get() < _API_NOTIFY:
        raise RtError(
            "seccomp: SCMP_ACT_NOTIFY: this kernel or libseccomp has no listeners",
            hint="it takes Linux 5.0 and libseccomp 2.5",
        )
    default_name = profile["defaultAction"]
    default = _action(default_name, profile.get("defaultErrnoRet"), "defaultAction", "defaultErrnoRet")
    flags = _flags(profile.get("flags"), notifies)
    warnings: list[str] = []
    notes: list[str] = []
    context = library.seccomp_init(default)
    if not context:
        raise RtError(f"seccomp: libseccomp does not take {default_name} as default action on this kernel")
    try:
        archs = _add_architectures(library, context, profile.get("architectures") or (), notes)
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
            lets_through = default_name in _LETS_THROUGH
            (warnings if lets_through else notes).append(_unknown_calls(unknown, lets_through))
        if rules > _LINEAR_UP_TO:
            # libseccomp before 2.5 has no tree: its linear program does the same, more slowly.
            library.seccomp_attr_set(context, _OPTIMIZE, _TREE)
        program = _export(library, context)
    finally:
        library.seccomp_release(context)
    if default_name not in _LETS_THROUGH and default != _ERRNO | ENOSYS:
        program = seccomp_enosys.stub(_newest(library, archs, named)) + program
    if len(program) > MAX_INSTRUCTIONS * INSTRUCTION_SIZE:
        raise _too_long(f"{len(program) // INSTRUCTION_SIZE} instructions")
    return program, flags, warnings, notes


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


def _flags(names: list[str] | None, notifies: bool) -> int:
    flags = NEW_LISTENER if notifies else 0
    known = seccomp_flags()
    if names is None:
        return flags | (SECCOMP_FLAGS[_SPEC_ALLOW] if _SPEC_ALLOW in known else 0)
    for position, name in enumerate(names):
        where = f"linux.seccomp.flags[{position}]"
        if name not in SECCOMP_FLAGS:
            raise SpecError(where, f"{name} is not a flag rt knows")
        if name == _TSYNC or (name == _WAIT_KILLABLE and not notifies):
            continue
        if name not in known:
            raise SpecError(where, f"this kernel does not have {name}", hint="remove it")
        flags |= SECCOMP_FLAGS[name]
    return flags


def _add_architectures(
    library: ctypes.CDLL, context: int, names: Sequence[str], notes: list[str]
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
        notes.append(
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


def _unknown_calls(names: list[str], lets_through: bool) -> str:
    end = "they are NOT restricted" if lets_through else "they stay denied"
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
    found = {
        arch: seccomp_enosys.highest(arch, [_number(library, arch, name) for name in names]) for arch in archs
    }
    return {arch: number for arch, number in found.items() if number is not None}
