"""rt-init as the keeper of runs, and plans in two parts: made by hand, in the namespaces of the test."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab.waiting import PATIENCE

from rootless_rt.api.keeper import Begun, Keeper, Lost, ending
from rootless_rt.container.report import failure
from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.plan.model import Plan
from rootless_rt.plan.ops import NO_SLOT, SYNC_CREATED, Op, encode


def _missing() -> bool:
    try:
        return not launch.program_path()
    except RtError:
        return True


pytestmark = pytest.mark.skipif(_missing(), reason="rt-init is not built: make build")
LATE = 4000
STDIO = (0, 1, 2)


def program(*words: str) -> list[Op]:
    return [Op("find", words[0], "/usr/bin:/bin"), Op("keep_fds", []), Op("exec", list(words), ["A=1"])]


def child(*words: str) -> bytes:
    return encode([Op("clone", 0, NO_SLOT), *program(*words)])


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    made = Keeper([])
    yield made
    made.close()


def has_no_child(pid: int) -> bool:
    """It puts starters away a moment after it has told of the process itself."""
    patience = time.monotonic() + 60
    while Path(f"/proc/{pid}/task/{pid}/children").read_text():
        if time.monotonic() > patience:
            return False
        time.sleep(0.01)
    return True


def wait_for(status: int) -> None:
    poll = select.poll()
    poll.register(status, select.POLLIN)
    assert poll.poll(PATIENCE * 1000)


def told(keeper: Keeper, wire: bytes) -> int | None:
    """The wait status that the keeper tells of a plan; None when it tells nothing."""
    sock, status = keeper.start(wire, [], STDIO)
    try:
        wait_for(status)
        found = ending(status)
        return found and found.status
    finally:
        sock.close()
        os.close(status)


def test_it_tells_how_each_process_ended(keeper: Keeper) -> None:
    for code in (0, 1, 77):
        assert told(keeper, child("sh", "-c", f"exit {code}")) == code << 8
    assert told(keeper, child("sh", "-c", "kill -9 $$")) == 9
    assert has_no_child(keeper._pid)


def test_it_tells_nothing_of_what_made_no_process(keeper: Keeper) -> None:
    assert told(keeper, encode(program("true"))) is None  # the starter itself, which is nobody's container
    assert told(keeper, b"not a plan at all") is None
    assert told(keeper, child("/no/such/program")) is not None
    assert has_no_child(keeper._pid)


def test_usage_is_of_the_process_and_what_it_waited_for(keeper: Keeper) -> None:
    sock, status = keeper.start(
        child("sh", "-c", "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"), [], STDIO
    )
    wait_for(status)
    found = ending(status)
    assert found is not None and found.rusage is not None
    assert found.rusage.ru_utime + found.rusage.ru_stime > 0 and found.peak_memory >= 4096
    sock.close()
    os.close(status)


def test_closing_it_ends_every_process_however_many(keeper: Keeper) -> None:
    runs = [keeper.start(child("sleep", "1000"), [], STDIO) for _ in range(20)]
    pids = []
    for sock, _ in runs:
        message = launch.receive(sock)
        assert message.type == launch.MSG_PID
        pids.append(message.value)
        os.close(message.fd)
    keeper.close()
    for sock, status in runs:
        found = ending(status)
        assert found is None or found.status == 9
        sock.close()
        os.close(status)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_it_removes_the_directories_it_was_given_but_no_files_and_no_links(tmp_path: Path) -> None:
    """As a cgroup file system has them: rmdir(2) takes a directory with nothing but the kernel's files."""
    (tmp_path / "sandbox/1/deeper").mkdir(parents=True)
    (tmp_path / "sandbox/2").mkdir()
    (tmp_path / "kept/1").mkdir(parents=True)
    (tmp_path / "kept/file").write_text("x")
    (tmp_path / "kept/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/inner").mkdir(parents=True)
    Keeper([str(tmp_path / "sandbox"), str(tmp_path / "kept"), str(tmp_path / "missing")]).close()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "elsewhere",
        "elsewhere/inner",
        "kept",
        "kept/file",
        "kept/link",
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=64), count=st.integers(0, 12))
def test_what_is_no_request_changes_nothing(keeper: Keeper, data: bytes, count: int) -> None:
    if not data or (count == 5 and data == (200).to_bytes(4, "little")):
        return
    fds = [keeper._sock.fileno()] * count
    rights = [(1, 1, struct.pack(f"={count}i", *fds))] if count else []
    keeper._sock.sendmsg([data], rights)
    assert told(keeper, child("true")) == 0
    assert len(os.listdir(f"/proc/{keeper._pid}/fd")) < 16


WANTED = struct.Struct("=IIIIQ")  # requests.c
ANSWER = struct.Struct("=6I17q")  # captures.c
FIRST = encode([Op("clone", 0, NO_SLOT)])


def answer(keeper: Keeper) -> tuple[int, list[int], bytes]:
    """Of the next run that is told of: its flags, how it ended, and what it said."""
    poll = select.poll()
    poll.register(keeper._sock, select.POLLIN)
    while True:
        assert poll.poll(PATIENCE * 1000)
        data, fds, _, _ = socket.recv_fds(keeper._sock, 65536, 1)
        for fd in fds:
            os.close(fd)
        if len(data) >= ANSWER.size:
            _, _, flags, *rest = ANSWER.unpack_from(data)
            return flags, rest[3:], data[ANSWER.size :]


def test_a_captured_run_is_answered_once(keeper: Keeper) -> None:
    plan = encode(program("sh", "-c", "echo out; echo err >&2; exit 7"))
    for number in range(3):
        head = WANTED.pack(202, number, 0, len(FIRST), 100)
        keeper._sock.send(head + FIRST + plan)
        flags, told, said = answer(keeper)
        assert (flags, told[0], said) == (0, 7 << 8, b"out\nerr\n")
    assert has_no_child(keeper._pid) and len(os.listdir(f"/proc/{keeper._pid}/fd")) < 16


def captured(keeper: Keeper, most: int, *words: str) -> tuple[int, list[int], bytes]:
    """The answer to a run of a program."""
    keeper._sock.send(WANTED.pack(202, 1, 0, len(FIRST), most) + FIRST + encode(program(*words)))
    return answer(keeper)


def test_a_program_that_reads_its_own_output_does_not_make_the_keeper_wait(keeper: Keeper) -> None:
    script = """if True:
        import os
        back = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK)
        for _ in range(3):
            os.fork()
        for _ in range(5000):
            os.write(1, b"x")
            try:
                os.read(back, 1)
            except BlockingIOError:
                pass
    """
    # Meanwhile it has much to take from others: there is a while between its being told and its reading.
    for _ in range(4):
        busy = encode(program("head", "-c", "20000000", "/dev/zero"))
        keeper._sock.send(WANTED.pack(202, 1, 0, len(FIRST), 1 << 30) + FIRST + busy)
    captured(keeper, 1 << 30, sys.executable, "-c", script)
    for _ in range(4):
        answer(keeper)
    assert told(keeper, child("true")) == 0


def test_who_writes_for_ever_after_the_end_of_a_run_is_not_heard_for_ever(keeper: Keeper) -> None:
    """Somebody outside of its namespaces may have been handed its pipe."""
    resource.prlimit(keeper._pid, resource.RLIMIT_AS, (1 << 28, 1 << 28))
    script = "(setsid yes & setsid yes & setsid yes &); sleep 0.05"
    _, told_, _ = captured(keeper, (1 << 64) - 1, "sh", "-c", script)
    assert told_[0] == 0
    assert told(keeper, child("true")) == 0


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flags=st.integers(0, 20),
    first=st.sampled_from([0, 1, len(FIRST), len(FIRST) - 1, 1 << 31, (1 << 32) - 1]),
    cut=st.integers(0, 40),
    garbage=st.binary(max_size=12),
    count=st.integers(0, 6),
    most=st.sampled_from([0, 3, (1 << 64) - 1]),
)
def test_whatever_is_asked_to_be_captured_is_answered(
    keeper: Keeper, flags: int, first: int, cut: int, garbage: bytes, count: int, most: int
) -> None:
    """Or was too short to say for whom. Nothing is left of it, and the keeper goes on."""
    whole = FIRST + encode(program("true"))
    data = WANTED.pack(202, 7, flags, first, most) + whole[: len(whole) - cut] + garbage
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    socket.send_fds(keeper._sock, [data], [null] * count)
    os.close(null)
    answer(keeper)
    assert told(keeper, child("true")) == 0
    assert has_no_child(keeper._pid) and len(os.listdir(f"/proc/{keeper._pid}/fd")) < 16


def begun_by(keeper: Keeper, first: bytes, plan: Plan | None = None) -> Begun:
    """A process that the keeper has made, with its number. Raises RtError."""
    begun = keeper.begin(first)
    message = begun.told()
    if message.type != launch.MSG_PID:
        begun.close()
        raise failure(plan, message) if plan and message.type == launch.MSG_ERROR else Lost("")
    return begun


FIRST = encode([Op("clone", 0, NO_SLOT)])
WAIT = encode([Op("wait_start", NO_SLOT), Op("more", LATE)])


def test_a_process_is_made_before_anybody_says_what_for(keeper: Keeper) -> None:
    begun = begun_by(keeper, FIRST)
    assert begun.pid > 0 and os.readlink(f"/proc/{begun.pid}/fd/1") == "/dev/null"
    # Nothing of the keeper's, or of other runs: stdio, the connection, and /proc.
    other = begun_by(keeper, FIRST)
    patience = time.monotonic() + 60
    while sorted(os.listdir(f"/proc/{other.pid}/fd")) != ["0", "1", "2", "3", "4"]:
        assert time.monotonic() < patience, os.listdir(f"/proc/{other.pid}/fd")
        time.sleep(0.01)
    with tempfile.TemporaryFile() as said:
        launch.send_plan(begun.sock, encode(program("echo", "x")), [0, said.fileno(), 2])
        wait_for(begun.status)
        found = ending(begun.status)
        assert found is not None and found.status == 0
        said.seek(0)
        assert said.read() == b"x\n"
    begun.close()
    other.close()
    assert has_no_child(keeper._pid)


def test_one_that_waits_for_more_tells_when_it_has_come_there(keeper: Keeper) -> None:
    begun = keeper.begin(FIRST)
    begun.give(WAIT)
    assert begun.waits() and begun.pid > 0
    launch.send_plan(begun.sock, encode([Op("stdio", [LATE] * 3), *program("true")]), [0], begun.pid)
    wait_for(begun.status)
    found = ending(begun.status)
    assert found is not None and found.status == 0
    begun.close()


def test_one_that_waits_ends_when_what_it_watches_has_news(keeper: Keeper) -> None:
    """Of mountinfo that is urgent data, as that of a socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(listener.getsockname())
    news, _ = listener.accept()
    begun = keeper.begin(FIRST, news.fileno())
    begun.give(WAIT)
    assert begun.waits()
    sender.send(b"!", socket.MSG_OOB)
    wait_for(begun.status)
    found = ending(begun.status)
    assert found is not None and found.status == 1 << 8
    # Who has not seen that yet, and has it go on, is told that it has not.
    launch.send_plan(begun.sock, encode([Op("stdio", [LATE] * 3), *program("true")]), [0], begun.pid)
    assert launch.receive(begun.sock).type == launch.MSG_STALE
    begun.close()
    for one in (news, listener, sender):
        one.close()


def test_what_it_has_said_is_heard_though_it_ended_before_it_read_all() -> None:
    """Then the kernel says ECONNRESET, once, and before that."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    launch.go_on(ours, 1)
    theirs.send(launch.MSG_STALE.to_bytes(4, sys.byteorder) + bytes(40))
    theirs.close()
    assert [launch.receive(ours).type for _ in range(2)] == [launch.MSG_STALE, launch.MSG_GONE]
    ours.close()


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"rubbish" * 20,
        FIRST[:-1],
        encode([]),
        encode([Op("clone", 0, NO_SLOT)] * 2),
        encode(program("true")[:1]),
        encode([Op("keep", 0, [])]),
    ],
)
def test_what_makes_no_process_is_not_begun(keeper: Keeper, wire: bytes) -> None:
    with pytest.raises(Lost):
        begun_by(keeper, wire)
    assert told(keeper, child("true")) == 0
    assert len(os.listdir(f"/proc/{keeper._pid}/fd")) < 16


def test_a_process_that_cannot_be_made_is_explained(keeper: Keeper) -> None:
    impossible = 0x200 | 0x20000  # CLONE_FS with CLONE_NEWNS: EINVAL
    plan = Plan()
    plan.ops = [Op("clone", impossible, NO_SLOT)]
    with pytest.raises(RtError, match="namespaces"):
        begun_by(keeper, encode(plan.ops), plan)
    maps = ("0 12345 1\n0 12346 1\n", "0 12345 1\n", 1)  # overlapping lines: EINVAL for anybody
    plan.ops = [Op("clone_mapped", 0x10000000, NO_SLOT, *maps)]
    with pytest.raises(RtError):
        begun_by(keeper, encode(plan.ops), plan)
    assert has_no_child(keeper._pid)


def test_closing_the_keeper_ends_what_waits(keeper: Keeper) -> None:
    begun = [begun_by(keeper, FIRST) for _ in range(5)]
    keeper.close()
    assert not [one for one in begun if Path(f"/proc/{one.pid}").exists()]
    for one in begun:
        one.close()


class Waiting:
    """An rt-init that waits for the rest of its plan."""

    def __init__(self, first: int = LATE) -> None:
        plan = [Op("wait_start", NO_SLOT), Op("more", first)]
        self.sock, self.pid = launch.start(encode(plan), [])
        assert launch.receive(self.sock).value == SYNC_CREATED
        launch.go_on(self.sock, self.pid)

    def end(self) -> int:
        self.sock.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_the_rest_of_a_plan_brings_its_descriptors() -> None:
    waiting = Waiting()
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(b"given")
        given.seek(0)
        slots = [LATE, LATE + 1, LATE + 1]
        wire = encode([Op("stdio", slots), *program("cat")])
        launch.send_plan(waiting.sock, wire, [given.fileno(), said.fileno()])
        assert launch.receive(waiting.sock).type == launch.MSG_GONE
        assert waiting.end() == 0
        said.seek(0)
        assert said.read() == b"given"


@pytest.mark.parametrize(
    ("wire", "call", "number"),
    [
        (b"", "mmap", None),
        (b"rubbish" * 100, "plan", errno.EBADMSG),
        (encode(program("true"))[:-1], "plan", errno.EBADMSG),
        (encode([]), "plan", errno.EBADMSG),
        (encode([Op("stdio", [LATE + 3])]), "slot", errno.EBADF),
        (encode([Op("stdio", [1 << 40])]), "slot", errno.EBADF),
    ],
)
def test_a_wrong_rest_is_refused(wire: bytes, call: str, number: int | None) -> None:
    waiting = Waiting()
    launch.send_plan(waiting.sock, wire, [])
    message = launch.receive(waiting.sock)
    assert message.type == launch.MSG_ERROR and message.call == call
    assert number is None or message.err == number
    assert waiting.end() == 1


@pytest.mark.parametrize("first", [4096, 4097, 1 << 32, (1 << 64) - 1])
def test_descriptors_beyond_the_table_are_refused(first: int) -> None:
    waiting = Waiting(first)
    launch.send_plan(waiting.sock, encode(program("true")), [0])
    assert launch.receive(waiting.sock).type == launch.MSG_GONE
    assert waiting.end() == 1


def test_one_that_waits_ends_with_the_program() -> None:
    assert Waiting().end() == 1
