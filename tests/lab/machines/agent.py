"""Runs the commands of the tests inside a machine. Started there by systemd; standard library only.

A request is a line with a number: /lab/share/NUMBER.json is {user, command, timeout, stdin, cwd}; or, where
there is no such directory, the line is that JSON, with the input itself in base64 as `data`. The answer
is a line of JSON: {code, stdout, stderr, late} with the output in base64, or {problem}. Root's commands are
run here, another user's by a second agent in a login session of theirs, which lasts as long as the machine.
"""

import base64
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import tty
from typing import Any, BinaryIO

LAB = "/lab"
SHARE = f"{LAB}/share"
SOCKET = f"{SHARE}/agent.sock"
SERIAL = "/dev/ttyS1"
PORT = "/dev/vport0p1"  # of QEMU

Request = dict[str, Any]
Answer = dict[str, Any]


def perform(request: Request) -> Answer:
    """Run one command in a shell, to its end or for `timeout` seconds."""
    # Files, not pipes: a detached container keeps its output open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with (
            tempfile.TemporaryFile()
            if "data" in request
            else open(request["stdin"] or os.devnull, "rb") as stdin
        ):
            if "data" in request:
                stdin.write(base64.b64decode(request["data"]))
                stdin.seek(0)
            process = subprocess.Popen(
                ["/bin/sh", "-c", request["command"]],
                stdin=stdin,
                stdout=out,
                stderr=err,
                cwd=request["cwd"] or os.path.expanduser("~"),
                start_new_session=True,
            )
        late = False
        try:
            process.wait(request["timeout"])
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(base64.b64encode(file.read()).decode())
    return {"code": process.returncode, "stdout": texts[0], "stderr": texts[1], "late": late}


class Session:
    """A login of an ordinary user, with an agent in it."""

    def __init__(self, user: str) -> None:
        self.process = subprocess.Popen(
            ["runuser", "-l", user, "-c", f"exec /usr/bin/python3 -I {LAB}/agent.py session"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def pass_on(self, line: bytes) -> bytes:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line)
        self.process.stdin.flush()
        return self.process.stdout.readline()


def main_agent(lines: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests for every user until the other end is closed."""
    sessions: dict[str, Session] = {}
    for line in lines:
        try:
            user = request_of(line)["user"]
            if user == pwd.getpwuid(os.getuid()).pw_name:
                answer = answer_to(line)
            else:
                if user not in sessions or sessions[user].process.poll() is not None:
                    sessions[user] = Session(user)
                answer = sessions[user].pass_on(line) or as_line({"problem": f"the session of {user} ended"})
        except (OSError, ValueError) as error:
            answer = as_line({"problem": repr(error)})
        answers.write(answer)
        answers.flush()


def session_agent(lines: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests for the user of this session."""
    for line in lines:
        answers.write(answer_to(line))
        answers.flush()


def request_of(line: bytes) -> Request:
    if line.startswith(b"{"):
        return dict(json.loads(line))
    with open(f"{SHARE}/{line.strip().decode()}.json") as file:
        return dict(json.load(file))


def answer_to(line: bytes) -> bytes:
    try:
        return as_line(perform(request_of(line)))
    except (OSError, ValueError) as error:
        return as_line({"problem": repr(error)})


def as_line(answer: Answer) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def main() -> None:
    if sys.argv[1:] == ["session"]:
        session_agent(sys.stdin.buffer, sys.stdout.buffer)
        return
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ.clear()
    os.environ.update(HOME="/root", USER="root", LOGNAME="root", SHELL="/bin/sh", PATH=path)
    if os.path.exists(SOCKET):
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(SOCKET)
        lines, answers = stream.makefile("rb"), stream.makefile("wb")
    else:
        serial = os.open(PORT if os.path.exists(PORT) else SERIAL, os.O_RDWR | os.O_NOCTTY)
        if os.isatty(serial):
            tty.setraw(serial)
        lines, answers = os.fdopen(serial, "rb"), os.fdopen(os.dup(serial), "wb")
    answers.write(as_line({"ready": True}))
    answers.flush()
    main_agent(lines, answers)


if __name__ == "__main__":
    main()
