"""An agent's code interpreter: JSON lines in and out, sessions in containers that come from a warm pool."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from typing import Any

from rootless_rt import PIPE, Limits, Pool, Process, RtError, Sandbox, host_config

TIMEOUT = 5.0  # seconds
MOST = 1 << 20  # characters of an answer
LIMITS = Limits(address_space=1 << 30, processes=32, file_size=64 << 20)

# Runs in the container: code in, what it has printed out. Whatever it does there, here it is a line of text.
LOOP = """
import ast, contextlib, io, json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    said, ok = io.StringIO(), True
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            tree = ast.parse(json.loads(line))
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "code", "exec"), names)
            if last is not None:
                sys.displayhook(eval(compile(ast.Expression(last.value), "code", "eval"), names))
        except BaseException:
            ok = False
            traceback.print_exc()
    print(json.dumps([ok, said.getvalue()]), flush=True)
"""


class Ended(Exception):
    """The session's program is gone; the text says why."""


class Session:
    """One Python that keeps its variables, in a container of the pool."""

    def __init__(self, pool: Pool) -> None:
        args = [sys.executable, "-I", "-u", "-c", LOOP]
        self._process: Process = pool.popen(args, stdin=PIPE)

    def run(self, code: str, timeout: float) -> tuple[bool, str]:
        """Whether the code ran without an exception, and what it printed. Raises Ended."""
        process = self._process
        assert process.stdin and process.stdout
        over = threading.Event()

        def stop() -> None:
            over.set()
            process.kill()

        timer = threading.Timer(timeout, stop)
        timer.start()
        try:
            process.stdin.write(json.dumps(code).encode() + b"\n")
            process.stdin.flush()
            ok, said = json.loads(process.stdout.readline(MOST))
            return bool(ok), str(said)
        except (OSError, ValueError, TypeError):
            process.kill()
            why = f"it took longer than {timeout:g} s" if over.is_set() else process.wait().why()
            raise Ended(f"the session has ended: {why}") from None
        finally:
            timer.cancel()

    def close(self) -> None:
        """End it, and everything that it has started."""
        self._process.close()


class Interpreter:
    """Sessions by name."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sessions: dict[str, Session] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request. Raises RtError when no container can be had."""
        name = str(request.get("session", ""))
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = Session(self._pool)
        try:
            ok, said = session.run(str(request["code"]), float(request.get("timeout", TIMEOUT)))
            return {"session": name, "ok": ok, "output": said}
        except Ended as ended:
            self._sessions.pop(name).close()
            return {"session": name, "ok": False, "ended": str(ended)}

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()


def main() -> int:
    with (
        tempfile.TemporaryDirectory() as folder,
        Sandbox(host_config(folder), limits=LIMITS) as sandbox,
        Pool(sandbox, size=2) as pool,
    ):
        interpreter = Interpreter(pool)
        try:
            for line in sys.stdin:
                try:
                    told = interpreter.answer(json.loads(line))
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    told = {"ok": False, "error": f"not a request: {error}"}
                print(json.dumps(told), flush=True)
        except RtError as error:
            print(f"interpreter.py: {error}", file=sys.stderr)
            return 1
        finally:
            interpreter.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
