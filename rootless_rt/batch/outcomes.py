"""What became of a job, as a line of JSON; and the results that a file holds from before.

Knows the form of a result; must not know how jobs are run.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from dataclasses import dataclass
from typing import Any

from rootless_rt.api.result import Result
from rootless_rt.batch.jobs import BAD_INPUT
from rootless_rt.errors import RtError


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job's end: a result, or the error because of which it did not start.

    `degradations` are those that its own limits have brought, a line each.
    """

    id: str
    result: Result | None = None
    error: RtError | None = None
    degradations: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it ran, and ended by itself with status 0."""
        return self.result is not None and self.result.ok

    def line(self) -> str:
        """One line of JSON, its line break included; docs/batch.md names the fields."""
        fields: dict[str, Any] = {"id": self.id, "ok": self.ok}
        if self.error is not None:
            fields["error"] = self.error.message
            if self.error.hint:
                fields["hint"] = self.error.hint
        if self.result is not None:
            fields |= _told(self.result)
        if self.degradations:
            fields["degradations"] = list(self.degradations)
        return json.dumps(fields, ensure_ascii=False) + "\n"


def _told(result: Result) -> dict[str, Any]:
    usage = result.rusage
    told = {
        "exit_code": result.exit_code,
        "signal": result.signal,
        "timed_out": result.timed_out,
        "oom_killed": result.oom_killed,
        "output_exceeded": result.output_exceeded,
        "duration": round(result.duration, 6),
        "cpu_time": round(usage.ru_utime + usage.ru_stime, 6) if usage is not None else None,
        "peak_memory": result.peak_memory,
    }
    return told | _output("stdout", result.stdout) | _output("stderr", result.stderr)


def _output(name: str, data: bytes) -> dict[str, str]:
    """Text as it is; what is no UTF-8 under another name, so that no byte is lost."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


class ResultsFile:
    """A file that results are appended to, one `write` each. `done` are those from before: id -> ok.

    With `resume` a file that exists is gone on with: a last line that was cut off is taken away. Without, it
    must be empty or not exist. Raises RtError, also while another process writes to it.
    """

    def __init__(self, path: str, *, resume: bool) -> None:
        self.path = path
        self.done: dict[str, bool] = {}
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY, 0o666)
        except (OSError, ValueError) as error:
            raise RtError(f"cannot write {path}: {_reason(error)}", code=BAD_INPUT) from None
        try:
            self._take(resume)
        except BaseException:
            self.close()
            raise

    def _take(self, resume: bool) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RtError(f"{self.path}: another process writes results to it", code=BAD_INPUT) from None
        with open(self._fd, "rb", closefd=False) as file:
            whole = 0  # bytes of whole lines
            for number, line in enumerate(file, 1):
                if not resume:
                    raise RtError(
                        f"{self.path} is there already",
                        hint="--resume runs only the jobs that have no result in it",
                        code=BAD_INPUT,
                    )
                if line.endswith(b"\n"):
                    self._remember(line, number)
                    whole += len(line)
        if whole < os.fstat(self._fd).st_size and resume:
            os.ftruncate(self._fd, whole)

    def _remember(self, line: bytes, number: int) -> None:
        try:
            value = json.loads(line)
            name, ok = value["id"], value["ok"]
        except (ValueError, TypeError, KeyError, RecursionError):
            name = ok = None
        if not isinstance(name, str) or not isinstance(ok, bool):
            raise RtError(f"{self.path}:{number}: not a result of a job", code=BAD_INPUT)
        self.done[name] = ok

    def write(self, line: str) -> None:
        """Append one line. Raises RtError when the disk is full, and then the line is not there."""
        data = line.encode("utf-8", "surrogatepass")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise RtError(f"cannot write {self.path}: {_reason(error)}") from None

    def close(self) -> None:
        """Let others have the file."""
        os.close(self._fd)


def _reason(error: OSError | ValueError) -> str:
    return os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "not a path"
