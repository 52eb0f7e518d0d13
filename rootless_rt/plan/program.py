"""Why a program cannot be executed: from an errno and what rt-init saw of the file, in words. Pure.

The words up to the errno's own text are those that engines look for (Go's exec package). Only loaded after a
failure.
"""

from __future__ import annotations

import errno

from rootless_rt.errors import RtError
from rootless_rt.spec.names import decimal

# e_machine of elf(5) -> as uname(2) has it.
_MACHINES = {
    2: "sparc", 3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 43: "sparc64",
    62: "x86_64", 183: "aarch64", 243: "riscv64", 258: "loongarch64",
}  # fmt: skip
_REASONS = {
    errno.ENOENT: "no such file or directory",
    errno.EACCES: "permission denied",
    errno.EISDIR: "is a directory: permission denied",  # engines know the second half alone, as 126
    errno.ENOTDIR: "not a directory",
    errno.ENOEXEC: "exec format error",
    errno.ELOOP: "too many levels of symbolic links",
    errno.E2BIG: "argument list too long",
    errno.ETXTBSY: "text file busy",
}
_X = "make it executable for the container's user (chmod +x), on a mount without noexec"
# What differs for a command of the host's.
_COMMAND_HINTS = {
    errno.ENOENT: "is its path right, and are the interpreter of its #! line or its dynamic loader there?",
    errno.EACCES: "make it executable (chmod +x), on a mount without noexec",
    errno.ENOEXEC: "is it for this machine? A script without its #! line needs its interpreter named",
}


def program_error(name: str, number: int, seen: str = "", machine: str = "") -> RtError:
    """The error for a program that cannot be found or executed.

    `seen` is what rt-init says of the file: "MACHINE [!]INTERPRETER", or "MODE [noexec]" after EACCES (see
    program.c); `machine` is this one's name.
    """
    if number == errno.ENOENT and "/" not in name:
        return RtError(
            f'exec: "{name}": executable file not found in $PATH',
            hint="name a program of the rootfs in process.args, or set PATH in process.env",
        )
    why, hint, id = _cause(number, seen, machine)
    return RtError(_line(name, number) + (f" ({why})" if why else ""), hint=hint, id=id)


def command_error(name: str, number: int) -> RtError:
    """The same for a program of the host's that the command line named."""
    if number == errno.ENOENT and "/" not in name:
        return RtError(
            f'exec: "{name}": executable file not found in $PATH',
            hint="is the command spelt right and installed? Outside of $PATH it needs its whole path",
        )
    return RtError(_line(name, number), hint=_COMMAND_HINTS.get(number))


def _line(name: str, number: int) -> str:
    reason = _REASONS.get(number)
    if reason is None:
        import os

        reason = os.strerror(number).lower()
    verb = f"stat {name}: " if number == errno.ENOENT else ""
    return f'exec: "{name}": {verb}{reason}'


def _cause(number: int, seen: str, machine: str) -> tuple[str, str | None, str]:
    """(what rt-init saw that explains it or "", hint, id)."""
    first, _, second = seen.partition(" ")
    if number == errno.EACCES:
        if second == "noexec":
            return (
                "its file system is mounted noexec",
                "take noexec out of that mount's options; if the bundle lies on noexec: move it",
                "RT-EXEC-DENIED",
            )
        return f"its mode is {first}" if first and not second else "", _X, "RT-EXEC-DENIED"
    if number == errno.ENOENT and second.startswith("!"):
        what = "dynamic loader" if first != "0" else "interpreter"
        return (
            f"its {what} {second[1:]} is not in the rootfs",
            "install that in the rootfs, or use a program that does not need it"
            + (" (linked statically, or for this image's C library)" if first != "0" else ""),
            "RT-EXEC-MISSING",
        )
    if number == errno.ENOENT:
        return (
            "",
            "is it in the rootfs, and so are the interpreter of its #! line or its dynamic loader?",
            ("RT-EXEC-MISSING"),
        )
    if number == errno.ENOEXEC:
        kind = decimal(first) or 0
        built = _MACHINES.get(kind, f"machine {kind} of elf(5)")
        if kind and built != machine:
            return (
                f"it is built for {built}, and this machine is {machine}",
                "use an image for this machine, or have an admin install qemu-user and its binfmt entries",
                "RT-EXEC-MISSING",
            )
        if first == "0":
            return (
                "",
                "is it a script without its #! line? Name its interpreter in process.args",
                "RT-EXEC-MISSING",
            )
        return "", "is it a program for this machine, or a script without its #! line?", "RT-EXEC-MISSING"
    if number == errno.ENOTCONN:
        return (
            "",
            "fuse-overlayfs, which served the rootfs, has ended: delete the container",
            "RT-KERNEL-OVERLAY",
        )
    return "", None, ""
