"""Finding and running the small programs of shadow-utils: newuidmap, newgidmap, getsubids.

posix_spawn and not fork: safe in programs with threads, and fast whatever their size. The programs get no
environment but a safe one, /dev/null as input, and of this process's descriptors none that is close-on-exec,
as all are that Python opens.
"""

from __future__ import annotations

import posix
import sys

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
    for program in places(name, path):
        if posix.access(program, posix.X_OK) and not _is_directory(program):
            return program
    return None


def places(name: str, path: str | None = None) -> list[str]:
    """Where `find_helper` looks for a program, in that order."""
    if path is None:
        path = _path()
    directories = [entry for entry in (*path.split(":"), *SYSTEM_DIRS) if entry.startswith("/")]
    return [f"{directory}/{name}" for directory in directories]


def _path() -> str:
    """$PATH, as `os` has it where that is loaded; loading it only for this costs a millisecond."""
    if "os" in sys.modules:
        found: str = sys.modules["os"].environ.get("PATH", "")
        return found
    return posix.environ.get(b"PATH", b"").decode("utf-8", "surrogateescape")


def _is_directory(path: str) -> bool:
    return posix.stat(path).st_mode & 0o170000 == 0o040000


def start(argv: list[str]) -> Running:
    """Start a program whose standard error is kept for `finish`. Raises OSError when it cannot be executed.

    Both ends of the pipe are non-blocking: the program can be waited for first and read after, and one that
    says more than a pipe holds loses the rest but never hangs.
    """
    source, sink = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
    try:
        # The sink is moved first: it may itself be 0 or 1 when the caller runs with those closed.
        actions = [
            (posix.POSIX_SPAWN_DUP2, sink, 2),
            (posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDONLY, 0),
            (posix.POSIX_SPAWN_OPEN, 1, "/dev/null", posix.O_WRONLY, 0),
        ]
        return posix.posix_spawn(argv[0], argv, _ENVIRONMENT, file_actions=actions), source
    except BaseException:
        posix.close(source)
        raise
    finally:
        posix.close(sink)


def finish(running: Running) -> tuple[int | None, bytes]:
    """Wait for a started program: its exit code (negative: the signal that ended it), and what it said when
    the code is not 0. The code is None when somebody else took it, as when the caller ignores SIGCHLD."""
    pid, source = running
    try:
        code: int | None
        try:
            code = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
        except ChildProcessError:
            code = None
        said = b""
        if code != 0:
            try:
                said = posix.read(source, _MOST)
            except BlockingIOError:
                pass
        return code, said
    finally:
        posix.close(source)


def run_and_read(argv: list[str]) -> tuple[int | None, bytes]:
    """Run a program to its end: its exit code as in `finish` and its standard output. (127, b"") when it
    cannot be executed."""
    source, sink = posix.pipe2(posix.O_CLOEXEC)
    try:
        actions = [
            (posix.POSIX_SPAWN_DUP2, sink, 1),
            (posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDONLY, 0),
            (posix.POSIX_SPAWN_OPEN, 2, "/dev/null", posix.O_WRONLY, 0),
        ]
        try:
            pid = posix.posix_spawn(argv[0], argv, _ENVIRONMENT, file_actions=actions)
        except OSError:
            return 127, b""
        finally:
            posix.close(sink)
        text = b""
        while chunk := posix.read(source, _MOST):
            text += chunk
        try:
            return posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1]), text
        except ChildProcessError:
            return None, text
    finally:
        posix.close(source)
