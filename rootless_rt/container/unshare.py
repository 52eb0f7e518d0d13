"""A program of the host's, run as root of the user's own id map: it reaches the files of granted ids.

Files that a container with a range of ids has made belong to ids of /etc/subuid: their user cannot remove
them, root of the same map can. Makes a user and a mount namespace and nothing else; knows maps and programs.
"""

from __future__ import annotations

import _signal
import posix
import select

from rootless_rt.container import processes
from rootless_rt.container.report import COMMAND, failure
from rootless_rt.container.supervise import exit_code
from rootless_rt.errors import RtError
from rootless_rt.host.idmaps import Maps
from rootless_rt.init import launch
from rootless_rt.plan.model import Plan
from rootless_rt.plan.ops import NO_SLOT, SYNC_MAPS, Op, encode
from rootless_rt.plan.process import DEFAULT_PATH
from rootless_rt.spec.names import NAMESPACES, PROPAGATION

_SIGHUP, _SIGINT, _SIGQUIT, _SIGTERM = 1, 2, 3, 15


def run_mapped(args: list[str], environ: dict[str, str], maps: Maps | None) -> int:
    """Run a program on the caller's terminal, files and directory; its exit code.

    `maps` None stays in the own user namespace. Raises RtError and IdmapError when it cannot be started.
    """
    plan = _plan(args, environ, maps)
    sock, starter = launch.start(encode(plan.ops), [])
    pid, pidfd = 0, -1
    try:
        waiting = False
        while True:
            message = launch.receive(sock)
            if message.type == launch.MSG_PID:
                pid, pidfd = message.value, message.fd
            elif message.type == launch.MSG_SYNC:
                waiting = True
            elif message.type == launch.MSG_ERROR:
                raise failure(plan, message)
            elif message.type == launch.MSG_GONE:
                break  # the program runs
            if pid and waiting:
                waiting = False
                _write_maps(pid, maps)
                launch.go_on(sock, pid)
        if not pid:
            raise RtError("the process has ended before it could start", hint="was it killed?")
        return _wait(pid, pidfd)
    finally:
        sock.close()
        if pidfd >= 0:
            posix.close(pidfd)
        for child in (starter, pid):
            try:
                posix.waitpid(child, 0) if child else None
            except ChildProcessError:
                pass  # has been waited for


def _plan(args: list[str], environ: dict[str, str], maps: Maps | None) -> Plan:
    flags = NAMESPACES["mount"][0] | (NAMESPACES["user"][0] if maps else 0)
    plan = Plan()
    plan.ops = [
        Op("clone", flags, NO_SLOT),
        Op("sync", SYNC_MAPS),
        Op("propagation", PROPAGATION["slave"][0]),
    ]
    if maps is not None:
        plan.uid_map, plan.gid_map = maps.uids, maps.gids
        plan.ops.append(Op("become", 0, 0, 0))
    plan.ops += [
        Op("find", args[0], environ.get("PATH", DEFAULT_PATH), label=COMMAND),
        Op("keep_fds", []),
        Op("exec", args, [f"{name}={value}" for name, value in environ.items()], label=COMMAND),
    ]
    return plan


def _write_maps(pid: int, maps: Maps | None) -> None:
    if maps is None:
        return
    from idmap.write import write_maps
    from rootless_rt.host.facts import HostFacts, gather

    facts: HostFacts = gather({})
    write_maps(pid, maps.uids, maps.gids, euid=facts.euid, egid=facts.egid, privileged=facts.can_map_all)


def _wait(pid: int, pidfd: int) -> int:
    """What the terminal sends reaches the program by itself; what others send to us is passed on."""
    received: list[int] = []
    for number in (_SIGINT, _SIGQUIT):
        _signal.signal(number, _signal.SIG_IGN)
    for number in (_SIGHUP, _SIGTERM):
        _signal.signal(number, lambda number, frame: received.append(number))
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    far, near = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
    _signal.set_wakeup_fd(near, warn_on_full_buffer=False)
    poll.register(far, select.POLLIN)
    while pidfd not in dict(poll.poll()):
        for number in posix.read(far, 4096):
            if number in (_SIGHUP, _SIGTERM):
                processes.send_signal(pidfd, number)
    return exit_code(posix.waitpid(pid, 0)[1])
