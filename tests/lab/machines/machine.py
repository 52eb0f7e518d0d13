"""A machine as tests use it: commands run there by its agent, files handed over in a shared directory."""

from __future__ import annotations

import base64
import itertools
import json
import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from lab.bundles import Change, plain_config
from rootless_rt.spec.defaults import rootless

SHARE = "/lab/share"
UIDS = {"root": 0, "alice": 1000, "bare": 1001}
GRACE = 30  # seconds more than a command's own limit, for a machine that is slow or gone
ROOTFS = "/usr/share/rt-lab/rootfs"  # busybox with links for all its applets (image.sh)


class Result:
    """What a command came to: exit `code` (negative: the ending signal); `stdout` and `stderr`, text."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr

    def __repr__(self) -> str:
        return f"Result(code={self.code}, stdout={self.stdout!r}, stderr={self.stderr!r})"


class MachineBundle:
    """A bundle in a machine: `path` there, and the config, of which `write` puts what was changed."""

    def __init__(self, machine: Machine, path: str, user: str, config: dict[str, Any]) -> None:
        self.machine = machine
        self.path = path
        self.user = user
        self.config = config
        self.write()

    def write(self) -> None:
        self.machine.write(f"{self.path}/config.json", json.dumps(self.config), user=self.user)

    def change(self, change: Change) -> MachineBundle:
        change(self.config)
        self.write()
        return self


def last_words(console: IO[bytes]) -> list[str]:
    """The last lines of what a machine said."""
    console.seek(0)
    return console.read().decode("utf-8", "replace").splitlines()[-40:]


class Machine:
    """One booted machine with the users root, alice (with a subuid range) and bare (without one).

    `stream` leads to its agent, `share` is the host's side of /lab/share (None: input goes through the stream
    as well), `console` is the file of what it said. A command has `patience` times the time that is given for
    it. One that has ended fails the test that meets this; `again`, where there is one, boots another for the
    next.
    """

    def __init__(
        self, stream: socket.socket, share: Path | None, console: IO[bytes], patience: float = 1
    ) -> None:
        self.again: Callable[[], None] | None = None
        self.patience = patience
        self.speak_with(stream, share, console)

    def speak_with(self, stream: socket.socket, share: Path | None, console: IO[bytes]) -> None:
        """From now on this object stands for the machine behind these."""
        self._stream = stream
        self._lines = stream.makefile("rb")
        self.share = share
        self.console = console
        self._numbers = itertools.count(1)
        self._used: set[str] = set()
        self._gone = ""

    def wait_ready(self, seconds: float) -> None:
        """Until the agent runs, the boot has ended and the user managers are up."""
        assert "ready" in self._answer(seconds * self.patience), "not the agent"
        for user, words in (("root", ""), ("alice", "--user ")):
            self.run(f"systemctl {words}is-system-running --wait", user=user, timeout=seconds)

    def run(
        self,
        command: str | list[str],
        user: str = "root",
        timeout: float = 60,
        stdin: str | bytes | None = None,
        cwd: str | None = None,
    ) -> Result:
        """Run a command (a string in sh) in the user's home, to its end.

        An ordinary user's run in one login session, with XDG_RUNTIME_DIR and the address of the user bus;
        root's in a system service. What does not end in `timeout` seconds is killed: AssertionError.
        """
        self._used.add(user)
        timeout *= self.patience
        text = command if isinstance(command, str) else shlex.join(command)
        request = {"user": user, "command": text, "timeout": timeout, "stdin": None, "cwd": cwd}
        data = stdin.encode() if isinstance(stdin, str) else stdin
        if self.share:
            answer = self._ask_by_file(self.share, request, data)
        else:
            if data is not None:
                request["data"] = base64.b64encode(data).decode()
            self._stream.sendall(json.dumps(request).encode() + b"\n")
            answer = self._answer(timeout + GRACE)
        assert "problem" not in answer, answer["problem"]
        out, err = (
            base64.b64decode(answer[name]).decode("utf-8", "replace") for name in ("stdout", "stderr")
        )
        assert not answer["late"], f"{text} did not end in {timeout} s: {out}{err}"
        return Result(answer["code"], out, err)

    def _ask_by_file(self, share: Path, request: dict[str, Any], data: bytes | None) -> dict[str, Any]:
        """The agent's answer to a request of which only the number goes through the stream."""
        number = next(self._numbers)
        if data is not None:
            (share / f"{number}.stdin").write_bytes(data)
            request["stdin"] = f"{SHARE}/{number}.stdin"
        (share / f"{number}.json").write_text(json.dumps(request))
        self._stream.sendall(f"{number}\n".encode())
        answer = self._answer(request["timeout"] + GRACE)
        for name in ("json", "stdin"):
            (share / f"{number}.{name}").unlink(missing_ok=True)
        return answer

    def ok(self, command: str | list[str], user: str = "root", **options: Any) -> str:
        """Run a command that must succeed; its stdout."""
        result = self.run(command, user, **options)
        assert result.code == 0, (command, result)
        return result.stdout

    def rt(self, *words: str, user: str = "alice", **options: Any) -> Result:
        """Run the `rt` command as this user, on the user's default state root."""
        return self.run(["rt", *words], user, **options)

    def write(self, path: str, data: str | bytes, user: str = "root", mode: int = 0o644) -> None:
        """Put a file of this user's there."""
        self.ok(f"cat >{shlex.quote(path)} && chmod {mode:o} {shlex.quote(path)}", user, stdin=data)

    def bundle(self, args: list[str] | str = ["/bin/true"], user: str = "alice") -> MachineBundle:  # noqa: B006
        """A bundle in the user's home with a busybox rootfs; an ordinary user's own id alone is mapped."""
        home = "/root" if user == "root" else f"/home/{user}"
        path = f"{home}/bundle{next(self._numbers)}"
        self.ok(f"mkdir {path} && cp -r --preserve=mode,links {ROOTFS} {path}/rootfs", user)
        config = plain_config(args=args)
        uid = UIDS[user]
        return MachineBundle(
            self, path, user, config if uid == 0 else rootless(config, uid, uid, cgroup2=True)
        )

    def clean(self) -> None:
        """Remove the containers and the bundles that there are: what a test left."""
        if self._gone and self.again:
            self.again()
            return
        for user in sorted(self._used):
            self.run("rt list --quiet | xargs -r -n 1 rt delete --force", user)
        self.run("rm -rf /root/bundle* /home/*/bundle*")
        self._used.clear()

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert not self._gone, self._gone
        self._stream.settimeout(seconds)
        line = b""
        try:
            line = self._lines.readline()
        except TimeoutError:
            self._gone = f"the machine said nothing for {seconds} s"
        if not self._gone and not line:
            self._gone = "\n".join(["the machine has ended; it said:", *last_words(self.console)])
        assert not self._gone, self._gone
        answer: dict[str, Any] = json.loads(line)
        return answer
