"""rt-init's op `seccomp_listen`: how the listener leaves a thread that may make no system call."""

from __future__ import annotations

import errno
import os
import select
import signal
import struct

import pytest
from lab import seccomp_machine as machine
from lab.waiting import PATIENCE

from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.plan.ops import Op, encode

NEW_LISTENER, TSYNC = 8, 1
GO = struct.pack("=ii", 100, 4711)
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06


def _missing() -> bool:
    try:
        return not launch.program_path()
    except RtError:
        return True


pytestmark = pytest.mark.skipif(_missing(), reason="rt-init is not built: make build")


def program(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *item) for item in instructions)


def only(number: int, action: int) -> bytes:
    """A filter that does this with one call and kills the thread for every other."""
    return program(
        (_LOAD, 0, 0, 0),
        (_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, action),
        (_RETURN, 0, 0, machine.KILL_PROCESS),
    )


ALLOW_ALL = program((_RETURN, 0, 0, machine.ALLOW))
RUN = [Op("find", "sh", "/usr/bin:/bin"), Op("no_new_privs")]


class Run:
    """One rt-init that loads a filter and then executes `exit 7`; it is gone when the block ends."""

    def __init__(self, code: bytes, flags: int = NEW_LISTENER, before: list[Op] | None = None) -> None:
        ops = [
            *(RUN if before is None else before),
            Op("seccomp_listen", flags, code),
            Op("exec", ["sh", "-c", "exit 7"], []),
        ]
        self.sock, self.pid = launch.start(encode(ops), [])
        self.sock.settimeout(60)
        self.status: int | None = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def end(self) -> int:
        """The wait status, once it has ended."""
        pidfd = os.pidfd_open(self.pid)
        assert select.select([pidfd], [], [], PATIENCE)[0], "it goes on"
        os.close(pidfd)
        _, self.status = os.waitpid(self.pid, 0)
        return self.status

    def listener(self) -> int:
        message = launch.receive(self.sock)
        assert message.type == launch.MSG_LISTENER, (message.type, message.call, message.err)
        assert "seccomp notify" in os.readlink(f"/proc/self/fd/{message.fd}")
        return message.fd


def test_the_program_starts_when_the_listener_has_been_taken() -> None:
    with Run(ALLOW_ALL) as run:
        fd = run.listener()
        assert len(os.listdir(f"/proc/{run.pid}/task")) == 2
        run.sock.send(GO)
        assert launch.receive(run.sock).type == launch.MSG_GONE
        assert run.end() == 7 << 8
        os.close(fd)


def test_under_a_filter_that_kills_for_anything_but_execve_it_still_gets_to_execve() -> None:
    # The agent answers ENOSYS to it by going away; the report that follows is killed for.
    number = {"x86_64": 59, "aarch64": 221}.get(os.uname().machine)
    if number is None:
        pytest.skip("no number of execve here for this machine")
    with Run(only(number, 0x7FC00000)) as run:
        fd = run.listener()
        run.sock.send(GO)
        assert select.select([fd], [], [], PATIENCE)[0]
        os.close(fd)
        assert os.WTERMSIG(run.end()) == signal.SIGSYS


def test_with_one_processor_and_a_realtime_policy_the_listener_still_leaves() -> None:
    with Run(ALLOW_ALL, before=[*RUN, Op("sync", 1)]) as run:
        assert launch.receive(run.sock).type == launch.MSG_SYNC
        try:
            os.sched_setaffinity(run.pid, {min(os.sched_getaffinity(0))})
            os.sched_setscheduler(run.pid, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            pytest.skip("needs CAP_SYS_NICE")
        run.sock.send(GO)
        fd = run.listener()
        assert os.sched_getscheduler(run.pid) == os.SCHED_FIFO
        run.sock.send(GO)
        assert run.end() == 7 << 8
        os.close(fd)


@pytest.mark.parametrize("how", ["it closes its end", "it sends something else"])
def test_it_ends_when_the_runtime_does_not_say_to_go_on(how: str) -> None:
    with Run(ALLOW_ALL) as run:
        os.close(run.listener())
        if how == "it closes its end":
            run.sock.close()
        else:
            run.sock.send(b"x" * 8)
        assert run.end() == 1 << 8


def test_it_can_be_killed_while_it_waits() -> None:
    with Run(ALLOW_ALL) as run:
        fd = run.listener()
        os.kill(run.pid, signal.SIGKILL)
        assert run.end() == signal.SIGKILL
        assert select.select([fd], [], [], PATIENCE)[0]  # nobody is under the filter any more
        os.close(fd)


@pytest.mark.parametrize(
    ("code", "flags", "number"),
    [
        (ALLOW_ALL, NEW_LISTENER | 1 << 20, errno.EINVAL),
        (ALLOW_ALL, NEW_LISTENER | TSYNC, errno.EINVAL),
        (ALLOW_ALL * 5000, NEW_LISTENER, errno.E2BIG),
        (ALLOW_ALL[:-1], NEW_LISTENER, errno.E2BIG),
        (program((_LOAD, 0, 0, 1)), NEW_LISTENER, errno.EINVAL),
    ],
    ids=["unknown flag", "TSYNC", "too long", "torn", "no program"],
)
def test_what_the_kernel_refuses_is_reported(code: bytes, flags: int, number: int) -> None:
    with Run(code, flags) as run:
        message = launch.receive(run.sock)
        assert (message.type, message.call, message.err) == (launch.MSG_ERROR, "seccomp", number)
        assert run.end() == 1 << 8


def test_without_room_for_a_second_thread_it_says_so() -> None:
    # RLIMIT_AS: less than it has already, so there is no stack for one.
    with Run(ALLOW_ALL, before=[*RUN, Op("rlimit", 9, 1 << 12, 1 << 12)]) as run:
        message = launch.receive(run.sock)
        assert message.type == launch.MSG_ERROR and message.call in ("thread", "malloc"), message.call
        assert run.end() == 1 << 8
