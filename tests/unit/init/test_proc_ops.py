"""rt-init's writes to its own files in /proc: opened early, written late, and never what lies over them."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.plan.ops import NO_SLOT, Op, encode

GO = struct.pack("<ii", 100, 4711)
TREE = Path(__file__).parents[3]
FIRST, SECOND = Op("sync", 1), Op("sync", 2)


def _missing() -> bool:
    try:
        return not launch.program_path()
    except RtError:
        return True


pytestmark = pytest.mark.skipif(_missing(), reason="rt-init is not built: make build")


class Run:
    """One rt-init on a plan without descriptors; it is gone when the block ends."""

    def __init__(self, *ops: Op) -> None:
        self.sock, self.pid = launch.start(encode(list(ops)), [])
        self.sock.settimeout(60)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        _, status = os.waitpid(self.pid, 0)
        assert not os.WIFSIGNALED(status)

    def next(self) -> launch.Message:
        return launch.receive(self.sock)

    def go(self) -> launch.Message:
        self.sock.send(GO)
        return self.next()

    def name(self) -> str:
        return Path(f"/proc/{self.pid}/comm").read_text().strip()

    def files(self) -> list[str]:
        folder = f"/proc/{self.pid}/fd"
        return [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)]


def failed(message: launch.Message) -> tuple[int, str, int, str]:
    assert message.type == launch.MSG_ERROR
    return message.op, message.call, message.err, message.text


def test_a_file_of_proc_is_opened_early_and_written_late():
    opened = Op("proc_file", 5, "self/comm")
    with Run(opened, Op("close_others", [5]), FIRST, Op("proc_write", 5, "written"), SECOND) as run:
        assert run.next().type == launch.MSG_SYNC
        assert run.name() != "written" and f"/proc/{run.pid}/comm" in run.files()
        assert run.go().type == launch.MSG_SYNC
        assert run.name() == "written" and f"/proc/{run.pid}/comm" not in run.files()


def test_a_program_does_not_inherit_the_file(tmp_path):
    out = tmp_path / "files"
    script = ["sh", "-c", f"exec ls -l /proc/self/fd > {out}"]
    program = [
        Op("find", "sh", "/usr/bin:/bin"),
        Op("keep_fds", []),
        Op("exec", script, ["PATH=/usr/bin:/bin"]),
    ]
    with Run(Op("proc_file", 0, "self/comm"), *program) as run:
        assert run.next().type == launch.MSG_GONE
    assert "comm" not in out.read_text() and "->" in out.read_text()


def test_a_slot_can_be_written_once():
    again = [Op("proc_write", 0, "once"), Op("proc_write", 0, "twice")]
    with Run(Op("proc_file", 0, "self/comm"), *again) as run:
        assert failed(run.next()) == (2, "slot", errno.EBADF, "")


def test_the_kernels_refusal_of_what_is_written_is_reported():
    with Run(Op("proc_file", 0, "self/oom_score_adj"), Op("proc_write", 0, "much")) as run:
        assert failed(run.next()) == (1, "write", errno.EINVAL, "much")


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("self/attr/no-such-file", errno.ENOENT),
        ("self/cwd/x", errno.ELOOP),
        ("self/fd/0", errno.ELOOP),
        ("self/exe", errno.ELOOP),
        ("../etc/passwd", errno.EXDEV),
        ("/etc/passwd", errno.EXDEV),
        ("self/../../etc/passwd", errno.EXDEV),
        ("self", errno.ELOOP),
        ("self/attr", errno.EISDIR),
    ],
)
def test_only_what_is_in_proc_itself_can_be_opened(path, number):
    with Run(Op("proc_file", 0, path)) as run:
        assert failed(run.next()) == (0, "open", number, path)


@pytest.mark.parametrize("slot", [4096, NO_SLOT, 1 << 31, (1 << 64) - 1])
def test_a_slot_beyond_the_table_is_an_error(slot):
    with Run(Op("proc_file", slot, "self/comm")) as run:
        assert failed(run.next()) == (0, "slot", errno.EBADF, "")
    with Run(Op("proc_write", slot, "x")) as run:
        assert failed(run.next()) == (0, "slot", errno.EBADF, "")


COVERED = """
import os, struct, subprocess, sys
from rootless_rt.init import launch
from rootless_rt.plan.ops import Op, encode

what, over, path = sys.argv[1:]
sock, pid = launch.start(encode([Op("sync", 1), Op("proc_file", 0, path)]), [])
launch.receive(sock)
subprocess.run(["mount", "--bind", over, f"/proc/{pid}/{what}"], check=True)
sock.send(struct.pack("<ii", 100, 1))
message = launch.receive(sock)
print(message.type, message.call, message.err, message.text)
"""


@pytest.mark.parametrize(
    ("what", "over"),
    [
        ("attr/exec", "/proc/self/comm"),
        ("attr/exec", "/proc/sys/kernel/hostname"),
        ("attr/exec", "/dev/null"),
        ("attr", "/tmp"),
        ("attr", "/proc/self/net"),
    ],
)
def test_a_mount_over_the_file_or_its_directory_is_not_written_to(what, over):
    """Whatever somebody mounts there, the label would be lost (CVE-2019-16884, CVE-2025-52881)."""
    if not Path("/proc/self/attr/exec").exists():
        pytest.skip("this kernel has no /proc/self/attr")
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs user namespaces")
    script = [*unshare, sys.executable, "-c", COVERED, what, over, "self/attr/exec"]
    found = subprocess.run(script, capture_output=True, text=True, cwd=TREE, check=False)
    assert found.stdout.split() == [str(launch.MSG_ERROR), "open", str(errno.EXDEV), "self/attr/exec"], found
