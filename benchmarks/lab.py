"""The place to measure in: an ordinary user for the duration, a private mount view, a child run as that user.

Knows users, mounts and processes; knows nothing of containers.
"""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Unable

CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
UNIFIED = "/sys/fs/cgroup/unified"


@dataclass(frozen=True)
class User:
    """A user and the first of its subordinate ranges, each (start, count)."""

    name: str
    uid: int
    gid: int
    subuid: tuple[int, int] | None
    subgid: tuple[int, int] | None


def lookup(uid: int) -> User:
    """The user with this id, as the host's files describe it."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(str(uid), uid, os.getgid(), None, None)
    ranges = [_first_range(file, entry.pw_name, uid) for file in ("/etc/subuid", "/etc/subgid")]
    return User(entry.pw_name, uid, entry.pw_gid, ranges[0], ranges[1])


def _first_range(file: str, name: str, uid: int) -> tuple[int, int] | None:
    try:
        lines = Path(file).read_text().splitlines()
    except FileNotFoundError:
        return None
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in (name, str(uid)):
            return int(fields[1]), int(fields[2])
    return None


def add_user() -> User:
    """Makes an ordinary user with subordinate ranges (the default of useradd). Needs root."""
    name = f"rtbench{os.getpid()}"
    home = ["--home-dir", "/nonexistent", "--no-create-home", "--shell", "/usr/sbin/nologin"]
    _insist(["useradd", *home, name])
    return lookup(pwd.getpwnam(name).pw_uid)


def remove_user(user: User) -> None:
    """Removes what `add_user` made, subordinate ranges included."""
    _insist(["userdel", "--force", user.name])


def _insist(command: list[str]) -> None:
    """Runs a shadow tool, again while another one holds its lock (exit status 1 or 10)."""
    for _ in range(20):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (1, 10):
            break
        time.sleep(0.3)
    if done.returncode != 0:
        raise Unable(f"{command[0]}: {done.stderr.strip()}")


def insist_reachable(user: User, script: Path, programs: Sequence[str]) -> None:
    """Raises `Unable` when this user cannot run this interpreter or `programs`, or read `script`. Needs root.

    The measuring process is a fork of this one with the user's ids: the user must be able to read what it
    imports late.
    """
    code = (
        "import sys, os, json, socket, traceback; open(sys.argv[1]).close()\n"
        "for path in sys.argv[2:]:\n"
        " if not os.access(path, os.X_OK): sys.exit('Permission denied: ' + path)"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-B", "-c", code, str(script), *programs],
            user=user.uid,
            group=user.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        why = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
    except OSError as error:
        why = f"{error.strerror}"
    else:
        if done.returncode == 0:
            return
    raise Unable(
        f"the ordinary user that the benchmark makes cannot use {sys.executable} on {script}: {why}\n"
        "hint: take an interpreter, an rt and a directory that everyone can read: "
        "/usr/bin/python3 benchmarks/run.py, not below /root"
    )


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise Unable(f"{what}: {os.strerror(number)}")


def enter_private_view() -> str:
    """Gives this process its own mount namespace without the unified half of a hybrid cgroup host.

    Returns a sentence for the report. The host's mounts stay as they are. Needs root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    _check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "making mounts private")
    if not os.path.ismount(UNIFIED):
        return "private mount namespace, cgroups as on the host"
    _check(libc.umount2(UNIFIED.encode(), MNT_DETACH), f"umount {UNIFIED}")
    return f"private mount namespace without {UNIFIED} (hybrid host)"


def adopt_orphans() -> None:
    """Makes this process the reaper of its descendants, so that it sees the end of detached containers."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def cgroup_view() -> str:
    """`unified`, `hybrid`, `v1` or `none`, as this process sees /sys/fs/cgroup."""
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return "unified"
    if os.path.ismount(UNIFIED):
        return "hybrid"
    return "v1" if os.path.isdir("/sys/fs/cgroup/memory") else "none"


def pss_kb(pid: int) -> int:
    """The proportional set size of a process in kB, proc_pid_smaps(5). Raises OSError if closed to us."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise OSError(f"/proc/{pid}/smaps_rollup has no Pss line")


class RemotePss:
    """`pss_kb` asked of the privileged parent: a runtime's waiting process may be closed to its own user."""

    def __init__(self, channel: socket.socket) -> None:
        self.stream = channel.makefile("rw")

    def __call__(self, pid: int) -> int:
        print(json.dumps({"pss": pid}), file=self.stream, flush=True)
        answer = json.loads(self.stream.readline())
        if "error" in answer:
            raise OSError(answer["error"])
        return int(answer["kb"])


def as_user(user: User, work: Callable[[RemotePss], Any]) -> Any:
    """Runs `work` in a child with the private view and this user's ids; returns its result (JSON values).

    `work` gets a function that reads a process's PSS with the parent's rights. Raises `Unable` when the child
    fails. Needs root; with root as the user only the view changes.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _child(user, work, theirs)
    theirs.close()
    try:
        for line in ours.makefile("r"):
            message = json.loads(line)
            if "pss" not in message:
                break
            ours.sendall(json.dumps(_answer(message["pss"])).encode() + b"\n")
        else:
            raise Unable("the measuring process ended without a result, and says above why")
    except BaseException:
        os.kill(pid, signal.SIGTERM)
        raise
    finally:
        ours.close()
        os.waitpid(pid, 0)
    if "unable" in message:
        raise Unable(message["unable"])
    return message["result"]


def _answer(pid: int) -> dict[str, Any]:
    try:
        return {"kb": pss_kb(pid)}
    except OSError as error:
        return {"error": str(error)}


def _child(user: User, work: Callable[[RemotePss], Any], channel: socket.socket) -> None:
    """The child's side of `as_user`; never returns."""
    status = 1
    try:
        remote = RemotePss(channel)
        try:
            enter_private_view()
            if user.uid != 0:
                os.setgroups([])
                os.setresgid(user.gid, user.gid, user.gid)
                os.setresuid(user.uid, user.uid, user.uid)
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
            answer = {"result": work(remote)}
        except Unable as error:
            answer = {"unable": str(error)}
        print(json.dumps(answer), file=remote.stream, flush=True)
        status = 0
    except (KeyboardInterrupt, SystemExit):
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
