"""The way in and the way out: parse, load one command's module, run it, report, exit.

Knows how an error of any kind becomes an exit status. It must not know what any command does. The path of a
well-formed command imports only the parser and the command's own module; help, versions and
errors load what they need when they need it.
"""

from __future__ import annotations

import _signal
import posix
import sys

from rootless_rt.cli.argv import Invocation, UsageError, parse
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rootless_rt.cli.log import Log

PIPE_CLOSED = 128 + 13  # as a shell reports SIGPIPE


def main(argv: list[str], prog: str = "rt", held: str = "") -> NoReturn:
    """Run the command line `argv` (without the program's name) and end the process with its status.

    `held` tells of what the launcher has begun: see `Invocation`.
    """
    try:
        _occupy_standard_fds()
        # What is made is the user's to read and to remove, whatever the caller's mask says of the user.
        posix.umask(posix.umask(0o077) & 0o077)
        # A caller that ignores SIGCHLD passes that on, and the kernel would keep all exit statuses from us.
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        status = _flush(run(argv, prog, held))
    except KeyboardInterrupt as interrupt:
        status = _interrupted(interrupt)
    # Nothing of value is left to tear down, and an interpreter's orderly end costs milliseconds.
    posix._exit(status)


def run(argv: list[str], prog: str = "rt", held: str = "") -> int:
    """Run the command line `argv` and return the exit status; every error is reported, none is raised."""
    globals: dict[str, object] = {}
    try:
        inv = parse(argv, prog)
        inv.held = held
        globals = inv.globals
        _anchor_log(globals)
        return _dispatch(inv)
    except KeyboardInterrupt as interrupt:
        return _interrupted(interrupt)
    except UsageError as error:
        globals = error.globals
        _anchor_log(globals)
        return _report(error, globals, prog)
    except BaseException as error:
        return _report(error, globals, prog)


def _interrupted(interrupt: KeyboardInterrupt) -> int:
    """The status as a shell reports the signal; those of `container.signals` say which it was."""
    number: int = getattr(interrupt, "number", 2)
    return 128 + number


def _dispatch(inv: Invocation) -> int:
    if inv.command in ("help", "version"):
        from rootless_rt.cli import app, output

        if inv.command == "version":
            output.write(app.version_text(inv.prog))
        else:
            output.write(app.help_text(inv.prog, inv.args[0] if inv.args else None))
        return 0
    module = "rootless_rt.cli.cmd_" + inv.command.replace("-", "_")
    try:
        __import__(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise RtError(f"not supported yet: command {inv.command}") from None
    status: int = sys.modules[module].run(inv)
    return status


def _report(error: BaseException, globals: dict[str, object], prog: str) -> int:
    """Tell the user about `error` and return the exit status for it."""
    from rootless_rt.cli.log import Log
    from rootless_rt.cli.output import OutputClosed

    if isinstance(error, OutputClosed):
        return PIPE_CLOSED
    log = Log(globals, prog)
    if isinstance(error, UsageError) and error.command is not None:
        from rootless_rt.cli.app import help_text

        log.plain(f"Incorrect Usage.\n\n{help_text(prog, error.command)}\n")
    if isinstance(error, RtError):
        if error.closed:
            from rootless_rt.host.reach import explained

            error = explained(error)
        log.error(error.message, error.hint, error.id)
        return error.code
    return _report_other(error, log)


def _report_other(error: BaseException, log: Log) -> int:
    """Report an error that is none of ours: of the id-mapping library, or a mistake in this program."""
    from idmap.errors import IdmapError

    if isinstance(error, IdmapError):
        from rootless_rt.host.doctor.reasons_errors import OF_MAPS
        from rootless_rt.host.outer import fix_here

        log.error(error.message, fix_here(error.reason) or error.hint, OF_MAPS.get(error.reason, ""))
        return 1
    exhausted = _exhausted(error)
    if exhausted is not None:
        log.error(*exhausted)
        return 1
    if log.debugging:
        import traceback

        log.plain("".join(traceback.format_exception(error)))
    log.error(
        f"internal error: {type(error).__name__}: {error}",
        None if log.debugging else "run it again with --debug before the command, and report what it prints",
    )
    return 1


def _exhausted(error: BaseException) -> tuple[str, str] | None:
    """(message, hint) where the system has run out of something: that can strike at any call."""
    import errno

    if isinstance(error, MemoryError):
        return "out of memory", "raise the limit (ulimit -v, or memory.max of the cgroup)"
    if not isinstance(error, OSError):
        return None
    hints = {
        errno.EMFILE: "raise the limit on descriptors: ulimit -n 1024",
        errno.ENFILE: "the whole system is out of descriptors: sysctl fs.file-max",
        errno.ENOMEM: "raise the limit (ulimit -v, or memory.max of the cgroup)",
        errno.ENOSPC: "make room on that file system",
        errno.EDQUOT: "make room within the quota",
        errno.EFBIG: "raise the limit on the size of files: ulimit -f unlimited",
        errno.EAGAIN: "raise the limit on processes: ulimit -u, or pids.max of the cgroup",
    }
    hint = hints.get(error.errno or 0)
    if hint is None:
        return None
    where = f"{error.filename}: " if isinstance(error.filename, str) else ""
    return where + posix.strerror(error.errno or 0).lower(), hint


def _occupy_standard_fds() -> None:
    """Put /dev/null on whichever of fds 0-2 the caller left closed.

    Otherwise the next file opened, a state file or a socket, would become somebody's stdout.
    """
    for fd in (0, 1, 2):
        try:
            posix.fstat(fd)
        except OSError:
            # The lowest free number is the one just found closed.
            posix.open("/dev/null", posix.O_RDWR)
            posix.set_inheritable(fd, True)


def _anchor_log(globals: dict[str, object]) -> None:
    """Make --log absolute, so that it stays the same file if a command changes directory."""
    path = globals.get("log")
    if isinstance(path, str) and not path.startswith("/"):
        try:
            globals["log"] = posix.getcwd() + "/" + path
        except OSError:
            # The working directory is gone: the log's own open will say so, after the real error.
            return


def _flush(status: int) -> int:
    """Write out what Python still holds; a reader that went away is reported as a shell would."""
    for stream in (sys.stdout, sys.stderr):
        # None when the descriptor was closed as the interpreter started.
        if stream is not None:
            try:
                stream.flush()
            except BrokenPipeError:
                status = status or PIPE_CLOSED
            except (OSError, ValueError):
                status = status or 1
    return status
