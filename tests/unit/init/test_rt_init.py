"""rt-init itself, on plans made by hand: what is malformed is refused whole, and nothing makes it crash.

No op here changes anything outside of a temporary directory: these plans run in the namespaces of the test.
"""

from __future__ import annotations

import errno
import os
import signal
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.plan.ops import BY_NAME, MAGIC, NO_SLOT, Op, encode, encode_op

GO = struct.pack("<ii", 100, 4711)


def _missing() -> bool:
    try:
        return not launch.program_path()
    except RtError:
        return True


pytestmark = pytest.mark.skipif(_missing(), reason="rt-init is not built: make build")


class Run:
    """One rt-init on one plan, given as ops or as bytes."""

    def __init__(self, plan, fds=()):
        wire = plan if isinstance(plan, bytes) else encode(plan)
        self.sock, self.pid = launch.start(wire, list(fds))
        self.sock.settimeout(60)

    def next(self):
        return launch.receive(self.sock)

    def go(self, data=GO):
        self.sock.send(data)

    def end(self):
        """The exit status, once it has ended; it never dies of a signal."""
        signal.alarm(30)  # a plan that hangs must not hang the tests
        try:
            _, status = os.waitpid(self.pid, 0)
        finally:
            signal.alarm(0)
        self.sock.close()
        assert not os.WIFSIGNALED(status), signal.Signals(os.WTERMSIG(status))
        return os.WEXITSTATUS(status)


def refused(wire, fds=()):
    """Assert that the bytes are refused as a plan, by one report; returns it."""
    run = Run(wire, fds)
    message = run.next()
    assert (message.type, message.op) == (launch.MSG_ERROR, 0), vars_of(message)
    assert run.next().type == launch.MSG_GONE
    assert run.end() == 1
    return message


def vars_of(message):
    return {name: getattr(message, name) for name in message.__slots__}


def malformed(wire, fds=()):
    message = refused(wire, fds)
    assert (message.call, message.err, message.text) == ("plan", errno.EBADMSG, "the plan is malformed")


def framed(body: bytes, count: int, *, length: int | None = None) -> bytes:
    size = 16 + len(body) if length is None else length
    return MAGIC + struct.pack("<II", size, count) + body


@pytest.fixture
def folder(tmp_path):
    """A directory, open as slot 0, and the op that would leave a trace in it."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path, fd
    os.close(fd)


TRACE = Op("symlink", 0, "trace", "target")


def failing(plan, fds=()):
    """The one report of a plan that fails."""
    run = Run(plan, fds)
    message = run.next()
    assert message.type == launch.MSG_ERROR, vars_of(message)
    assert run.next().type == launch.MSG_GONE
    assert run.end() == 1
    return message


# What a good plan does.


def test_a_plan_is_performed_and_its_program_runs(folder):
    path, fd = folder
    script = [Op("find", "sh", "/usr/bin:/bin"), Op("exec", ["sh", "-c", "exit 7"], [])]
    run = Run([TRACE, Op("keep_fds", []), *script], [fd])
    assert run.next().type == launch.MSG_GONE, "the socket closes as the program starts"
    assert run.end() == 7 and os.readlink(path / "trace") == "target"


def test_every_text_arrives_as_it_was_written(folder):
    path, fd = folder
    text = "é \udcff\n" + "x" * 200
    run = Run([Op("symlink", 0, "a/b", text), Op("sync", 1)], [fd])
    assert run.next().type == launch.MSG_SYNC
    run.sock.close()
    run.end()
    assert os.readlink(path / "a/b") == text


# What is malformed.


def test_a_plan_cut_off_anywhere_is_refused_before_anything_happens(folder):
    path, fd = folder
    ops = [TRACE, Op("exec", ["a", ""], ["B=c"]), Op("keep_fds", [1, 2]), Op("seccomp", 0, b"12345678")]
    wire = encode(ops)
    for end in range(1, len(wire)):
        malformed(wire[:end], [fd])
        if end >= 16:
            malformed(framed(wire[16:end], len(ops)), [fd])
    assert list(path.iterdir()) == []


def test_an_empty_plan_is_refused():
    assert refused(b"").call == "mmap"


def test_a_wrong_beginning_or_length_is_refused():
    wire = encode([Op("loopback")])
    malformed(b"rtplan2\0" + wire[8:])
    malformed(b"rtplan1 " + wire[8:])
    for length in (0, 15, len(wire) - 1, len(wire) + 1, 0xFFFFFFFF):
        malformed(framed(wire[16:], 1, length=length))


def test_bytes_behind_the_last_op_are_refused(folder):
    path, fd = folder
    wire = encode([TRACE])
    malformed(framed(wire[16:] + b"\0", 1), [fd])
    malformed(framed(wire[16:] * 2, 1), [fd])
    assert list(path.iterdir()) == []


def test_a_count_of_ops_that_is_wrong_is_refused(folder):
    path, fd = folder
    body = encode([TRACE, TRACE])[16:]
    for count in (0, 1, 3, 0x7FFFFFFF, 0xFFFFFFFF):
        malformed(framed(body, count), [fd])
    assert list(path.iterdir()) == []


def test_an_unknown_op_is_refused_wherever_it_stands(folder):
    path, fd = folder
    highest = max(row[1] for row in BY_NAME.values())
    for number in (0, highest + 1, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF):
        malformed(framed(encode_op(TRACE) + struct.pack("<II", number, 0), 2), [fd])
    assert list(path.iterdir()) == []


def test_an_op_with_too_few_or_too_many_bytes_is_refused():
    body = encode_op(Op("dumpable", 1))
    for size in (0, 7, 9):
        malformed(framed(body[:4] + struct.pack("<I", size) + body[8:] + b"\0" * max(0, size - 8), 1))


def _op(name: str, body: bytes) -> bytes:
    return framed(struct.pack("<II", BY_NAME[name][1], len(body)) + body, 1)


def test_a_text_with_a_nul_inside_or_none_behind_is_refused():
    malformed(_op("chdir", struct.pack("<I", 3) + b"a\0b\0"))
    malformed(_op("chdir", struct.pack("<I", 3) + b"abcd"))
    malformed(_op("chdir", struct.pack("<I", 3) + b"abc"))
    malformed(_op("keep_fds", b""))


@pytest.mark.parametrize(
    "count", [1, 2, 0x1FFFFFFF, 0x20000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
)
def test_counts_larger_than_the_plan_are_refused_without_looking_further(count):
    number = struct.pack("<I", count)
    for name in ("chdir", "keep_fds"):
        malformed(_op(name, number))
    malformed(_op("exec", number + struct.pack("<I", 0)))
    malformed(_op("exec", struct.pack("<I", 0) + number))
    malformed(_op("seccomp", struct.pack("<Q", 0) + number))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_change_of_bytes_makes_it_crash(data):
    """Every variant has a count that no plan reaches, so that not one is ever performed."""
    body = bytearray(
        encode([TRACE, Op("exec", ["a"], ["B=c"]), Op("keep_fds", [1]), Op("seccomp", 0, b"12345678")])[16:]
    )
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=6)):
        body[place] = data.draw(st.integers(0, 255))
    malformed(framed(bytes(body) + data.draw(st.binary(max_size=20)), 0xFFFFFFFF))


# What cannot be performed.


def test_a_plan_that_ends_without_exec_says_so():
    message = failing([Op("dumpable", 1)])
    assert (message.op, message.err, message.text) == (1, errno.EBADMSG, "the plan ends without exec")
    assert failing([]).text == "the plan ends without exec"


SLOT_USES = [
    Op("join", 1, 0, "network"),
    Op("clone", 0, 1),
    Op("symlink", 1, "a", "b"),
    Op("mount_bind", 0, 1, "a", 0, 0, 0, 0, 0, 0, [], 0, 0, 0),
    Op("mount_bind", 1, 1, "a", 0, 0, 0, 0, 0, 0, [], 0, 0, 0),
    Op("root_attrs", 1, 0),
    Op("readonly", 1, "a"),
    Op("mask", 1, "a", 1, 1),
    Op("pivot", 1, 2),
    Op("home", 1, 0),
    Op("console", 1, 1, 0, 0, 1),
    Op("device", 1, "a", 0o10600, 0, 0, 0),
    Op("remount", 1, "a", 0, 0, 0, 0, 0, 0, [], []),
    Op("keep_fds", [0, 1]),
]


@pytest.mark.parametrize("op", SLOT_USES, ids=lambda op: op.name)
@pytest.mark.parametrize("slot", [1, 4095, 4096, NO_SLOT, 1 << 31, 1 << 32, (1 << 64) - 1])
def test_a_slot_that_nothing_fills_is_an_error_that_names_its_op(folder, op, slot):
    path, fd = folder

    def other(value):
        return slot if value == 1 else value

    args = [[other(item) for item in value] if isinstance(value, list) else other(value) for value in op.args]
    if op.name == "clone" and slot == NO_SLOT:
        pytest.skip("there it means none")
    message = failing([Op("dumpable", 1), Op(op.name, *args)], [fd])
    assert (message.op, message.call, message.err) == (1, "slot", errno.EBADF)
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("slot", [4096, 1 << 31, (1 << 64) - 1])
def test_a_slot_for_the_masks_tmpfs_beyond_the_table_is_an_error(folder, slot):
    path, fd = folder
    (path / "hidden").mkdir()
    message = failing([Op("mask", 0, "hidden", 0, slot)], [fd])
    assert message.op == 0 and message.call in ("slot", "fsopen"), "no root: no tmpfs to put there either"


def test_a_failed_op_is_reported_with_its_place_call_errno_and_path(folder):
    path, fd = folder
    (path / "file").write_text("")
    message = failing([TRACE, Op("symlink", 0, "file/a", "x"), Op("symlink", 0, "later", "x")], [fd])
    assert (message.op, message.call, message.err) == (1, "destination", errno.ENOTDIR)
    assert message.text == "file/a" and not (path / "later").is_symlink()


def test_a_program_that_is_not_there_is_an_error_of_find():
    message = failing([Op("find", "no-such-program", "/usr/bin:/bin")])
    assert (message.call, message.err, message.text) == ("find", errno.ENOENT, "no-such-program")
    assert failing([Op("exec", ["x"], [])]).call == "execve"


# Names in the rootfs.


def test_links_of_the_rootfs_lead_nowhere_outside(folder, tmp_path_factory):
    path, fd = folder
    outside = tmp_path_factory.mktemp("outside")
    (path / "absolute").symlink_to(outside)
    (path / "up").symlink_to("../" * 30 + str(outside))
    for index, name in enumerate(("absolute", "up", "../../..")):
        run = Run([Op("symlink", 0, f"{name}/trace{index}", "x"), Op("sync", 1)], [fd])
        run.next()
        run.sock.close()
        run.end()
    assert list(outside.iterdir()) == []
    assert (path / "trace2").is_symlink()
    assert (path / str(outside)[1:] / "trace0").is_symlink()


def test_magic_links_are_refused(folder):
    path, fd = folder
    (path / "magic").symlink_to("/proc/self/root/tmp")
    os.mkdir(path / "proc")
    run = Run([Op("symlink", 0, "magic/trace", "x"), Op("sync", 1)], [fd])
    assert run.next().type == launch.MSG_SYNC
    run.sock.close()
    run.end()
    assert (path / "proc/self/root/tmp/trace").is_symlink(), (
        "the path below the rootfs, not the kernel's link"
    )


# The hand-shake.


def waiting():
    run = Run([Op("sync", 1), Op("dumpable", 1)])
    message = run.next()
    assert (message.type, message.value, message.op) == (launch.MSG_SYNC, 1, 0)
    return run


def test_it_goes_on_when_told():
    run = waiting()
    run.go()
    assert run.next().text == "the plan ends without exec"
    assert run.end() == 1


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\0" * 8,
        struct.pack("<i", 100),
        struct.pack("<iii", 100, 1, 1),
        struct.pack("<ii", 101, 1),
        struct.pack(">ii", 100, 1),
        b"go on, please",
    ],
)
def test_anything_else_than_go_ends_it(data):
    run = waiting()
    run.go(data)
    assert run.next().type == launch.MSG_GONE
    assert run.end() == 1


def test_it_ends_when_the_runtime_goes_away():
    run = waiting()
    run.sock.close()
    assert run.end() == 1


def test_it_ends_when_the_runtime_goes_away_before_sending_a_plan():
    run = Run.__new__(Run)
    ours, theirs = launch.socketpair(launch.AF_UNIX, launch.SOCK_SEQPACKET | launch.SOCK_CLOEXEC, 0)
    actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)]
    run.pid = os.posix_spawn(launch.program_path(), ["rt-init"], {}, file_actions=actions)
    theirs.close()
    ours.close()
    run.sock = ours
    assert run.end() == 1


@pytest.mark.parametrize("size", [0, 1, 7, 9, 100])
def test_a_first_message_of_another_shape_ends_it(size):
    run = Run.__new__(Run)
    ours, theirs = launch.socketpair(launch.AF_UNIX, launch.SOCK_SEQPACKET | launch.SOCK_CLOEXEC, 0)
    actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)]
    run.pid = os.posix_spawn(launch.program_path(), ["rt-init"], {}, file_actions=actions)
    theirs.close()
    plan = launch._sealed_plan(encode([Op("dumpable", 1)]))
    rights = [(launch.SOL_SOCKET, launch.SCM_RIGHTS, struct.pack("<i", plan))]
    ours.sendmsg([b"\0" * size], rights)
    os.close(plan)
    run.sock = ours
    assert run.next().type == launch.MSG_GONE
    assert run.end() == 1


def test_many_slots_come_in_several_packets(folder):
    path, fd = folder
    run = Run([Op("symlink", 449, "last", "x"), Op("sync", 1)], [fd] * 450)
    assert run.next().type == launch.MSG_SYNC
    run.sock.close()
    run.end()
    assert (path / "last").is_symlink()


def test_it_starts_with_no_descriptor_but_the_socket_and_default_signals(tmp_path):
    """What a careless caller leaks, and the signals that Python ignores, do not reach a container."""
    out = tmp_path / "status"
    leak = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leak, True)
    script = f"exec 9>{out}; ls /proc/self/fd >&9; grep -E 'Sig(Blk|Ign)' /proc/self/status >&9"
    try:
        run = Run(
            [
                Op("keep_fds", []),
                Op("find", "/bin/sh", ""),
                Op("exec", ["sh", "-c", script], ["PATH=/bin:/usr/bin"]),
            ]
        )
    finally:
        os.close(leak)
    assert run.next().type == launch.MSG_GONE and run.end() == 0
    *fds, blocked, ignored = out.read_text().split("\n")[:-1]
    assert set(fds) <= {"0", "1", "2", "3", "9"}, "3 is ls's own"
    assert blocked.split()[1] == ignored.split()[1] == "0" * 16
