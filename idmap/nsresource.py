"""Ids lent by systemd-nsresourced: 65536 of them for one user namespace, without an entry in any file.

Knows the interface io.systemd.NamespaceResource (systemd-nsresourced.service(8), systemd 256 and newer). The
service picks a range that nobody uses, writes both maps itself, and takes the range back with the namespace.
The caller's own id is not part of it. It needs the kernel's BPF LSM, and says so by an error where that is
missing.
"""

from __future__ import annotations

import posix

from idmap.errors import IdmapError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idmap.extents import Extent

SOCKET = "/run/systemd/io.systemd.NamespaceResource"
SIZE = 65536
FIRST_UID = 524288
"""Where systemd's ids for containers begin (systemd's UIDS-GIDS page): stands for a range not yet known."""
_INTERFACE = "io.systemd.NamespaceResource."
_UNSUPPORTED = _INTERFACE + "UserNamespaceInterfaceNotSupported"
_ERRORS = {
    _UNSUPPORTED: (
        "this kernel runs without the BPF LSM, which it needs",
        "boot with bpf in the kernel parameter lsm=, as in lsm=landlock,lockdown,yama,integrity,apparmor,bpf",
    ),
    _INTERFACE + "DynamicRangeUnavailable": ("it has no ids for containers itself", None),
    _INTERFACE + "NoDynamicRange": ("all its ranges are taken", "end containers that are not needed"),
    "org.varlink.service.PermissionDenied": ("polkit does not allow it", None),
    "io.systemd.InteractiveAuthenticationRequired": (
        "polkit wants to ask you first",
        "have an administrator allow io.systemd.namespace-resource.allocate-user-namespace in polkit",
    ),
}


def is_there(path: str = SOCKET) -> bool:
    """Whether the service's socket is there. Asks nobody."""
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o140000
    except OSError:
        return False


def look(path: str = SOCKET, *, owner: int = 0) -> tuple[str, str]:
    """The service's version, and why it gives no ids ("" where it does). Raises IdmapError.

    The question is put without a namespace: a service that gives ids refuses that for another reason.
    """
    from idmap.varlink import VarlinkError, call

    try:
        told = call(path, "org.varlink.service.GetInfo", {}, owner=owner).get("version")
        asked = {"name": "rt", "size": SIZE, "userNamespaceFileDescriptor": 0}
        version = told if isinstance(told, str) and told.isprintable() else ""
        try:
            call(path, _INTERFACE + "AllocateUserRange", asked, owner=owner)
        except VarlinkError as error:
            return version, _ERRORS[_UNSUPPORTED][0] if error.name == _UNSUPPORTED else ""
        return version, ""
    except VarlinkError as error:
        raise IdmapError(f"systemd-nsresourced: {error}", reason="nsresource-refused") from None


def lend(pid: int, path: str = SOCKET, *, owner: int = 0) -> tuple[list[Extent], list[Extent]]:
    """Have both maps of the process `pid` written, which is in a new user namespace of the caller's.

    The uid and gid extents that it has then: ids from 0 to 65535 inside. Raises IdmapError.
    """
    from idmap.userns import own_map
    from idmap.varlink import VarlinkError, call
    from idmap.write import open_process

    name = f"rt{posix.urandom(4).hex()}"  # in front of it comes the uid, and in a user's name little has room
    asked = {"name": name, "size": SIZE, "target": 0, "userNamespaceFileDescriptor": 0}
    fds = [open_process(pid)]
    try:
        fds.append(posix.open("ns/user", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=fds[0]))
        call(path, _INTERFACE + "AllocateUserRange", asked, fds[1:], owner=owner, seconds=30)
        uids, gids = (own_map(kind, f"/proc/self/fd/{fds[0]}") for kind in ("uid", "gid"))
    except VarlinkError as error:
        why, hint = _ERRORS.get(error.name, (str(error), None))
        raise IdmapError(
            f"systemd-nsresourced lends no ids: {why}", reason="nsresource-refused", hint=hint
        ) from None
    except OSError as error:
        raise IdmapError(
            f"process {pid}: {posix.strerror(error.errno or 0).lower()}", reason="target-gone"
        ) from None
    finally:
        for fd in fds:
            posix.close(fd)
    if any([(first, count) for first, _, count in lines] != [(0, SIZE)] for lines in (uids, gids)):
        raise IdmapError(
            "systemd-nsresourced has written other maps than it was asked for", reason="nsresource-refused"
        )
    return uids, gids
