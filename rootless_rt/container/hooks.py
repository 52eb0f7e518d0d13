"""Hooks of the runtime's namespaces: prestart, createRuntime, poststart, poststop (runtime-spec, "Hooks").

A hook is executed directly, never through a shell; it reads the state from a file in memory and writes to
another, of which an error shows the beginning; when its time is over its process group is killed.
"""

from __future__ import annotations

import posix
import select
import sys

from rootless_rt import paths
from rootless_rt.container import signals
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHOWN = 1024
_ALL_SIGNALS = range(1, 65)


def run_hooks(kind: str, hooks: list[dict[str, Any]], state: str, bundle: str, pidfd: int = -1) -> None:
    """Run the hooks of one kind in order, in the bundle directory. Raises RtError at the first that fails.

    With a pidfd, the end of that process is such a failure too: the hook is killed then.
    """
    if hooks and not _is_shared():
        try:
            posix.chdir(bundle)
        except OSError:
            posix.chdir("/")
    for index, hook in enumerate(hooks):
        _run(f"hooks.{kind}[{index}]", hook, state, pidfd, bundle)


def _is_shared() -> bool:
    """Whether other threads of a program around us may rely on its working directory."""
    return "threading" in sys.modules


def _memory_file(name: str, content: bytes) -> int:
    fd = posix.memfd_create(name, posix.MFD_CLOEXEC)
    posix.write(fd, content)
    posix.lseek(fd, 0, 0)
    return fd


def _run(where: str, hook: dict[str, Any], state: str, container: int, bundle: str) -> None:
    path: str = hook["path"]
    given = _memory_file("state", state.encode("utf-8", "surrogateescape"))
    said = _memory_file("output", b"")
    try:
        try:
            pid = (_start_in if _is_shared() else _start)(hook, given, said, bundle)
        except OSError as error:
            raise RtError(f"{where}: {path}: {posix.strerror(error.errno or 0).lower()}") from None
        try:
            try:
                status = _wait(pid, hook.get("timeout"), container)
            except RtError as error:
                raise RtError(f"{where}: {path}: {error.message}") from None
        except ProcessLookupError:
            raise RtError(
                f"{where}: {path}: the container's process ended while it ran",
                hint="was it killed or deleted?",
            ) from None
        if status != 0:
            text = posix.pread(said, _SHOWN, 0).decode("utf-8", "replace").strip()
            raise RtError(f"{where}: {path}: {_ended(status, hook)}" + (f": {text}" if text else ""))
    finally:
        posix.close(given)
        posix.close(said)


def _start(hook: dict[str, Any], given: int, said: int, bundle: str) -> int:
    """Start a hook in our own working directory; its process id. Raises OSError."""
    return posix.posix_spawn(
        hook["path"],
        hook.get("args") or [hook["path"]],
        dict(item.partition("=")[::2] for item in hook.get("env", [])),
        file_actions=[(posix.POSIX_SPAWN_DUP2, given, 0)]
        + [(posix.POSIX_SPAWN_DUP2, said, number) for number in (1, 2)],
        setpgroup=0,
        setsigmask=[],
        setsigdef=[number for number in _ALL_SIGNALS if number not in (9, 19, 32, 33)],
    )


def _start_in(hook: dict[str, Any], given: int, said: int, bundle: str) -> int:
    """Start a hook in the bundle by rt-init, which goes there and becomes it. Raises OSError and RtError."""
    from rootless_rt.init import launch
    from rootless_rt.plan.ops import NO_SLOT, Op, encode

    place = bundle if paths.is_directory(bundle) else "/"
    plan = [Op("session", NO_SLOT), Op("chdir", place, 0), Op("find", hook["path"], ""), Op("keep_fds", [])]
    plan.append(Op("exec", hook.get("args") or [hook["path"]], hook.get("env", [])))
    sock, pid = launch.start(encode(plan), [], (given, said, said))
    message = launch.receive(sock)
    sock.close()
    if message.type == launch.MSG_GONE:
        return pid
    _reap(pid, -1)
    raise OSError(message.err, message.call)


def _reap(pid: int, pidfd: int) -> int | None:
    """The wait status; None where nobody can tell: a program around us ignores SIGCHLD, or waits for all."""
    try:
        return posix.waitpid(pid, 0)[1]
    except ChildProcessError:
        from rootless_rt.host.pidfd import exit_status

        return exit_status(pidfd)


def _wait(pid: int, timeout: int | None, container: int) -> int | None:
    """The wait status, or None when the hook was killed because its time was over.

    Raises ProcessLookupError when it was killed because the process of the pidfd `container` has ended.
    """
    pidfd = posix.pidfd_open(pid)
    done = False
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if container >= 0:
            poll.register(container, select.POLLIN)
        with signals.let_through():
            ready = dict(poll.poll(timeout * 1000 if timeout else None))
        done = pidfd in ready
        if ready and not done:
            raise ProcessLookupError
    finally:
        if not done:
            posix.killpg(pid, 9)
        status = _reap(pid, pidfd)
        posix.close(pidfd)
    if done and status is None:
        raise RtError("nobody can tell how it ended: this program ignores SIGCHLD, or waits for every child")
    return status if done else None


def _ended(status: int | None, hook: dict[str, Any]) -> str:
    if status is None:
        return f"no end within its timeout of {hook.get('timeout')} s"
    if posix.WIFSIGNALED(status):
        return f"killed by signal {posix.WTERMSIG(status)}"
    return f"exit status {posix.WEXITSTATUS(status)}"
