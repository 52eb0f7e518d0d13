"""`--overlay` where the kernel refuses one to a user: fuse-overlayfs serves the container's rootfs instead.

Theory of operation. rt-init has mounted a filesystem of type fuse in the container, and sends its other
end. A second rt-init joins the container's user namespace, so that owners are numbered as inside, makes a
mount namespace of its own with the layers in it, and runs the program there, in the host's pid namespace:
nothing of it is seen inside. It ends with the container's first process, and by itself when the mount is
gone. Should it be killed, every access to the rootfs fails (ENOTCONN), and nothing hangs. What is written
to memory is in that mount namespace, and ends with it. See fuse(4), fuse-overlayfs(1).
"""

from __future__ import annotations

import errno
import posix

from rootless_rt.container.helper import ENVIRON, Helper
from rootless_rt.container.report import failure
from rootless_rt.errors import RtError
from rootless_rt.init.launch import Message
from rootless_rt.plan.model import Degradation
from rootless_rt.plan.ops import NO_SLOT, Op
from rootless_rt.spec.names import NAMESPACES, PROPAGATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.container.create import Container

PROGRAM = "fuse-overlayfs"
_LAYERS = "lowerdir=lower,upperdir=kept/upper,workdir=kept/work"
_SAID_MAX = 4096


class Served:
    """The program at work; `undo` ends it, `failure` tells why it has ended."""

    __slots__ = ("_helper", "_said")

    def __init__(self, helper: Helper, said: int) -> None:
        self._helper = helper
        self._said = said

    def undo(self) -> None:
        """End it. Never raises."""
        self._helper.undo()
        self.let_go()

    def let_go(self) -> None:
        """The container is made: nobody will ask what the program has said."""
        if self._said >= 0:
            posix.close(self._said)
            self._said = -1

    def failure(self) -> RtError:
        """The error of a program that has ended before it answered."""
        self._helper.undo()
        lines = posix.read(self._said, _SAID_MAX).decode("utf-8", "replace").split("\n")
        lines = [line.strip() for line in lines if line.strip() and "argument ignored" not in line]
        return RtError(f"--overlay: {PROGRAM} has ended: {lines[-1][:300] if lines else 'it said nothing'}")


def because(degradation: Degradation, number: int) -> Degradation:
    """The note that the kernel refuses, with the kernel's reason."""
    why = f"{degradation.why}: {posix.strerror(number).lower()}"
    return Degradation(
        degradation.field, degradation.asked, degradation.got, why, degradation.fix, id=degradation.id
    )


def serve(container: Container, device: int) -> Served:
    """Start the program for the filesystem whose other end is `device`, which is closed. Raises RtError."""
    from idmap.helpers import find_helper

    fds = [device]
    said = -1
    try:
        program = find_helper(PROGRAM)
        if program is None:
            why = next(item.why for item in container.plan.degradations if item.field == "--overlay")
            raise RtError(
                f"--overlay: {why}, and {PROGRAM} is not installed", hint=f"sudo apt install {PROGRAM}"
            )
        fds.append(posix.open(f"/proc/{container.pid}/ns/user", posix.O_RDONLY | posix.O_CLOEXEC))
        said, far = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        fds.append(far)
        ops = _ops(program, container)
        helper = Helper(ops, [container.pidfd, *fds], f"--overlay: cannot start {program}")
    except BaseException:
        if said >= 0:
            posix.close(said)
        raise
    finally:
        for fd in fds:
            posix.close(fd)
    return Served(helper, said)


def _ops(program: str, container: Container) -> list[Op]:
    """Slots: 0 the container's process, 1 the filesystem, 2 the user namespace, 3 what the program says."""
    kept = container.options.overlay
    lower, directory, place = 4, 5 if kept else NO_SLOT, 6
    user, mount = NAMESPACES["user"][0], NAMESPACES["mount"][0]
    words = [program, "-f", "-o", _LAYERS, "/dev/fd/3"]
    return [
        Op("join", 2, user, "user"),
        Op("unshare", mount),
        Op("propagation", PROPAGATION["private"][0]),
        # With the caller's own ids, as for the kernel's overlay.
        Op("source", lower, container.spec.rootfs, 1, 0, NO_SLOT, ""),
        *([Op("directory", directory, kept)] if kept else []),
        Op("become", 0, 0, 1 if container.plan.set_groups else 0),
        Op("layers", lower, directory, place),
        Op("attend", 0, place, [NO_SLOT, NO_SLOT, 3, 1], words, ENVIRON),
    ]


def explained(container: Container, message: Message) -> RtError:
    """The error for a report on the overlay's op, whoever is to blame."""
    if container.served is not None and message.call == "fuse":
        return container.served.failure()
    error = failure(container.plan, message)
    if message.text != "/dev/fuse":
        return error
    why = next((item.why for item in container.plan.degradations if item.field == "--overlay"), "")
    closed = message.err in (errno.EACCES, errno.EPERM)
    return RtError(
        f"--overlay: {why}, and {PROGRAM} needs /dev/fuse: {posix.strerror(message.err).lower()}",
        hint="sudo chmod 0666 /dev/fuse" if closed else "sudo modprobe fuse; in a container: pass it on",
    )
