"""Finding and running the small programs of shadow-utils: newuidmap, newgidmap, getsubids.

posix_spawn and not fork: safe in programs with threads, and fast whatever their size. The programs get no
environment but a safe one, /dev/null as input, and of this process's descriptors none that is close-on-exec,
as all are that Python opens.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    Running = tuple[int, int]  # (pid, descriptor that its messages come from)

SYSTEM_DIRS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
_ENVIRONMENT = {"PATH": ":".join(SYSTEM_DIRS), "LC_ALL": "C"}  # C: their messages are read in English
_MOST = 65536  # bytes of output that are of interest


def find_helper(name: str, path: str | None = None) -> str | None:
    """The absolute path of a program: from `path` (default: $PATH), else from the system's own directories,
    since engines may call with no PATH at all. Entries that are not absolute are passed over: the working
    directory is not to be trusted. None when it is nowhere."""
    if path is None:
        path = os.environ.get("PATH", "")
    for directory in (*path.split(":"), *SYSTEM_DIRS):
        if directory.startswith("/"):
            program = f"{directory}/{name}"
            if os.access(program, os.X_OK) and not os.path.isdir(program):
                return program
    return None


def start(argv: list[str]) -> Running:
    """Start a program whose standard error is kept for `finish`. Raises OSError when it cannot be executed.

    Both ends of the pipe are non-blocking: the program can be waited for first and read after, and one that
    says more than a pipe holds loses the rest but never hangs.
    """
    source, sink = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        # The sink is moved first: it may itself be 0 or 1 when the caller runs with those closed.
        actions = [
            (os.POSIX_SPAWN_DUP2, sink, 2),
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        ]
        return os.posix_spawn(argv[0], argv, _ENVIRONMENT, file_actions=actions), source
    except BaseException:
        os.close(source)
        raise
    finally:
        os.close(sink)


def finish(running: Running) -> tuple[int | None, bytes]:
    """Wait for a started program: its exit code (negative: the signal that ended it), and what it said when
    the code is not 0. The code is None when somebody else took it, as when the caller ignores SIGCHLD."""
    pid, source = running
    try:
        code: int | None
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            code = None
        said = b""
        if code != 0:
            try:
                said = os.read(source, _MOST)
            except BlockingIOError:
                pass
        return code, said
    finally:
        os.close(source)


def run_and_read(argv: list[str]) -> tuple[int | None, bytes]:
    """Run a program to its end: its exit code as in `finish` and its standard output. (127, b"") when it
    cannot be executed."""
    source, sink = os.pipe2(os.O_CLOEXEC)
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, sink, 1),
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
        ]
        try:
            pid = os.posix_spawn(argv[0], argv, _ENVIRONMENT, file_actions=actions)
        except OSError:
            return 127, b""
        finally:
            os.close(sink)
        text = b""
        while chunk := os.read(source, _MOST):
            text += chunk
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text
        except ChildProcessError:
            return None, text
    finally:
        os.close(source)
