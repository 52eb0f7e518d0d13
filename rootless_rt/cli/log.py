"""The one place that words and writes errors, warnings, hints and debug lines.

Knows stderr and the file of --log; it must not know what failed. Rules, set by what engines read:

- on stderr every message is one line that begins with the program's name, a hint is the line after it;
- the file of --log gets exactly one record when a command fails. As JSON it gets nothing else:
  podman reads the whole file as one object, and containerd takes its last error.
"""

from __future__ import annotations

import posix
import time
from _json import encode_basestring, encode_basestring_ascii

from rootless_rt.cli.output import printable, write_fd
from rootless_rt.spec.times import rfc3339

# Non-blocking: a FIFO that nobody reads would hold the command for good.
_APPEND = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC | posix.O_NONBLOCK
_LEVELS = ("error", "warning", "info", "debug")


class Log:
    """Where messages go, from the global options (missing ones count as not given)."""

    __slots__ = ("debugging", "level", "path", "prog", "structured")

    def __init__(self, globals: dict[str, object], prog: str = "rt") -> None:
        path = globals.get("log")
        self.path = path if isinstance(path, str) else None
        self.structured = globals.get("log_format") == "json"
        self.debugging = globals.get("debug") is True or globals.get("log_level") == "debug"
        level = globals.get("log_level")
        self.level = "debug" if self.debugging else level if isinstance(level, str) else "warning"
        self.prog = prog

    def error(self, message: str, hint: str | None = None, id: str = "") -> None:
        """Report the error a command ends with: once, as its last word. `id`: what `rt explain` takes."""
        self._say("", message, self._with_id(hint, id))
        self._record("error", message, hint, id)

    def warning(self, message: str, hint: str | None = None, id: str = "") -> None:
        """Report something that differs from what was asked, without failing."""
        self._remark("warning", message, hint, id)

    def info(self, message: str) -> None:
        """Report what is being done, for --log-level info."""
        self._remark("info", message, None)

    def debug(self, message: str) -> None:
        """Report a detail, for --debug."""
        self._remark("debug", message, None)

    def plain(self, text: str) -> None:
        """Write `text` to stderr as it is: help, a traceback."""
        try:
            write_fd(2, text)
        except OSError:
            # Nobody listens on stderr; the exit status and the log still tell.
            return

    def _remark(self, level: str, message: str, hint: str | None, id: str = "") -> None:
        if _LEVELS.index(level) > _LEVELS.index(self.level):
            return
        self._say(level + ": ", message, self._with_id(hint, id))
        if not self.structured:
            self._record(level, message, hint, id)

    def _with_id(self, hint: str | None, id: str) -> str | None:
        more = f"{self.prog} explain {id}"
        return hint if not id else f"{hint} ({more})" if hint else more

    def _say(self, label: str, message: str, hint: str | None) -> None:
        text = f"{self.prog}: {label}{printable(message)}\n"
        if hint:
            # A hint may be a few lines of commands to copy; they are kept apart by indenting.
            text += "hint: " + "\n      ".join(map(printable, hint.split("\n"))) + "\n"
        self.plain(text)

    def _record(self, level: str, message: str, hint: str | None, id: str = "") -> None:
        """Append one record to the file of --log, in one write, so that parallel calls do not mix."""
        if self.path is None:
            return
        now = rfc3339(int(time.time()))
        if self.structured:
            quote = encode_basestring_ascii
            extra = f',"hint":{quote(hint)}' if hint else ""
            extra += f',"id":{quote(id)}' if id else ""
            line = f'{{"level":"{level}","msg":{quote(message)},"time":"{now}"{extra}}}\n'
        else:
            extra = f" hint={encode_basestring(hint)}" if hint else ""
            extra += f" id={id}" if id else ""
            line = f'time="{now}" level={level} msg={encode_basestring(message)}{extra}\n'
        try:
            fd = posix.open(self.path, _APPEND, 0o644)
            try:
                write_fd(fd, line)
            finally:
                posix.close(fd)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._say("warning: ", f"cannot write the log {self.path}: {reason.lower()}", None)
