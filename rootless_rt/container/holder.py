"""User namespaces that hold nothing but an id map, for id-mapped mounts.

A namespace file can only be opened while a process is in it: rt-init starts one that waits, and it ends once
its map is written and its file is open. Knows extents; must not know what they are for.
"""

from __future__ import annotations

import posix

from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.plan.ops import NO_SLOT, SYNC_MAPS, Op, encode
from rootless_rt.spec.names import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.host.facts import HostFacts


def open_userns(text: str, facts: HostFacts) -> int:
    """A descriptor of a new user namespace with the map `text`, as `plan.idmapped` writes it.

    That is uid lines and gid lines as in the kernel's files, with ";" between. Raises RtError and IdmapError.
    """
    from idmap.extents import parse_map
    from idmap.write import write_maps

    uids, gids = (parse_map(lines.encode()) for lines in text.split(";"))
    plan = [Op("clone", NAMESPACES["user"][0], NO_SLOT), Op("sync", SYNC_MAPS)]
    sock, starter = launch.start(encode(plan), [])
    pid, pidfd = 0, -1
    try:
        waiting = False
        while not (pid and waiting):
            message = launch.receive(sock)
            if message.type == launch.MSG_PID:
                pid, pidfd = message.value, message.fd
            elif message.type == launch.MSG_SYNC:
                waiting = True
            elif message.type == launch.MSG_ERROR:
                from rootless_rt.host.userns import clone_failure

                raise clone_failure(message.err, NAMESPACES["user"][0])
            else:
                raise RtError("the process that was to hold an id map has ended", hint="was it killed?")
        write_maps(pid, uids, gids, euid=facts.euid, egid=facts.egid, privileged=facts.can_map_all)
        return posix.open(f"/proc/{pid}/ns/user", posix.O_RDONLY | posix.O_CLOEXEC)
    finally:
        sock.close()  # which ends the process
        if pidfd >= 0:
            posix.close(pidfd)
        for child in (starter, pid):
            if child:
                _reap(child)


def _reap(pid: int) -> None:
    try:
        posix.waitpid(pid, 0)
    except ChildProcessError:
        pass  # the caller ignores SIGCHLD: the kernel has reaped it
