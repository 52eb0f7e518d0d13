"""What a sandbox makes before the next run is known: as if made for that run, and leaving nothing."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest
from conftest import MakeBundle
from lab.inside import own_mounts
from lab.programs import Programs, end_and_leave_nothing
from lab.ranges import map_ranges
from lab.users import User
from lab.waiting import PATIENCE

# Of the sandbox's keeper, those that wait for a run.
WAITING = """
import select
def waiting(sandbox):
    keeper = sandbox._keeper._pid
    with open(f"/proc/{keeper}/task/{keeper}/children") as children:
        return children.read().split()

mounts = os.open("/proc/self/mountinfo", os.O_RDONLY)
changes = select.poll()
changes.register(mounts, select.POLLPRI)

def one_waiting(sandbox):
    patience = time.monotonic() + 50
    while len(found := waiting(sandbox)) != 1:
        assert time.monotonic() < patience, found
        if not found and changes.poll(10):  # it ends when somebody mounts something: other tests may
            sandbox.run()
    return found[0]

def kill(pid):
    try:
        os.kill(int(pid), signal.SIGKILL)
    except ProcessLookupError:
        pass  # mounts have changed just now

def see_the_end_of(keeper):
    end = select.poll()  # and of nothing else
    end.register(keeper._sock, 0)
    assert end.poll(50_000)
"""


def test_one_waits_from_the_second_run_on_and_ends_with_the_sandbox(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("true").path,
        WAITING
        + """
with Sandbox(bundle) as sandbox:
    sandbox.run().check()
    assert waiting(sandbox) == []  # who runs one thing has nothing made in vain
    for _ in range(3):
        sandbox.run().check()
        one_waiting(sandbox)
    fds = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        sandbox.run().check()
    assert len(os.listdir("/proc/self/fd")) == fds
    pid = one_waiting(sandbox)
assert not os.path.exists(f"/proc/{pid}")
""",
    )


def test_none_is_made_while_several_run(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("sleep 1000").path,
        WAITING
        + """
with Sandbox(bundle) as sandbox:
    processes = [sandbox.popen() for _ in range(4)]
    assert sorted(waiting(sandbox)) == sorted(str(process.pid) for process in processes)
    for process in processes:
        process.close()
""",
    )


def test_containers_of_a_pool_are_no_runs(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("true").path,
        """
        with Sandbox(bundle) as sandbox, Pool(sandbox, 2) as pool:
            pool.fill()
            for _ in range(3):
                sandbox.run().check()
            assert sandbox._keeper._next is not None
            assert pool.run().ok and pool.fill()
            assert sandbox._keeper._next is not None  # what waits for a run is no container of the pool
        """,
    )


def test_it_ends_with_the_program_that_is_killed(program: Programs, bundle: MakeBundle) -> None:
    process = program.popen(
        bundle("true").path,
        """
        sandbox = Sandbox(bundle)
        for _ in range(3):
            sandbox.run().check()
        print("ready", flush=True)
        time.sleep(1000)
        """,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    end_and_leave_nothing(process, program.user.uid, "rt-init")


# All that a container can say of itself and where it is, but numbers of mounts, processes and times, and what
# other programs change: the network, where that is the host's.
LOOK = """
look = (
    "cut -d' ' -f4- /proc/self/mountinfo | sed 's/inode64.*//' | sort; ls -lR /dev | grep -v ^total;"
    "grep -E '^(Cap|NoNew|Seccomp|Groups|Uid|Gid|NSpid|Sig)' /proc/self/status; ls -l /proc/self/fd;"
    "hostname; id; pwd; umask; env; ulimit -a; cat /proc/self/uid_map /proc/self/oom_score_adj;"
    "wc -c /proc/keys /proc/timer_list; ls /sys/firmware; touch /proc/sys/x /sys/x 2>&1; echo $$;"
    f"[ \\"$(readlink /proc/self/ns/net)\\" = '{os.readlink('/proc/self/ns/net')}' ] || ip addr"
)
def seen():
    text = sandbox.run(["sh", "-c", look]).check().text
    return [" ".join(word for word in line.split() if ":" not in word or "/" in word)
            for line in text.splitlines()]
"""
KINDS = ["own id", "network", "range", "hardened", "cgroup mount"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_made_ahead_is_as_one_made_for_its_run(
    program: Programs, bundle: MakeBundle, alice: User, kind: str
) -> None:
    made = bundle("true")
    if kind == "range":
        map_ranges(made, alice)
    made.change(lambda config: changed(config, kind))
    program(
        made.path,
        LOOK
        + """
config = bundle
if sys.argv[3] == "hardened":
    config = hardened_config(bundle + "/rootfs")
with Sandbox(config) as sandbox:
    assert sandbox.compiled.ahead
    first = seen()
    for _ in range(3):
        assert seen() == first
        assert sandbox._keeper._next is not None
    assert len(first) > 60
""",
        kind,
    )


def changed(config: dict[str, Any], kind: str) -> None:
    """The config with what a kind of container has more, or less."""
    if kind == "network":
        config["linux"]["namespaces"].append({"type": "network"})
        config["mounts"] = [
            mount for mount in config["mounts"] if not mount["destination"].startswith("/sys")
        ]
        options = ["nosuid", "noexec", "nodev", "ro"]
        config["mounts"].append(
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": options}
        )
    elif kind == "cgroup mount":
        for mount in config["mounts"]:
            if mount["type"] == "cgroup":  # to be written, in a /sys that is not
                mount["options"] = ["nosuid", "noexec", "nodev", "rw"]


def test_no_run_sees_anything_of_another(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("true").path,
        """
        write = "ls /dev/shm /dev/mqueue; cat /dev/x; for f in /dev/shm/a /dev/x; do echo $1 >$f; done"
        spaces = "for kind in mnt pid user ipc; do readlink /proc/self/ns/$kind; done; exec cat"
        with Sandbox(bundle) as sandbox:
            said = {sandbox.run(["sh", "-c", write, "sh", str(number)]).check().stdout for number in range(5)}
            assert len(said) == 1, said
            sandbox.run().check()
            kinds = []
            with sandbox.popen(["sh", "-c", spaces], stdin=PIPE) as one:
                with sandbox.popen(["sh", "-c", spaces], stdin=PIPE) as other:
                    for process in (one, other):
                        kinds.append([process.stdout.readline() for _ in range(4)])
                        assert process.communicate(b"").ok
            assert not set(kinds[0]) & set(kinds[1]), kinds
        """,
    )


def test_what_changes_between_runs_is_seen(program: Programs, bundle: MakeBundle) -> None:
    made = bundle("true")
    given = made.path / "given"
    given.write_text("old\n")
    program.user.owns(made.path)
    mount = {"destination": "/given", "type": "bind", "source": str(given), "options": ["bind", "ro"]}
    made.change(lambda config: config["mounts"].append(mount))
    made.change(lambda config: config["linux"]["maskedPaths"].append("/secret"))
    program(
        made.path,
        """
        words = ["sh", "-c", "cat /given /etc/motd /secret/x; echo $HOME"]
        rootfs = bundle + "/rootfs"
        with Sandbox(bundle) as sandbox:
            for _ in range(3):
                assert sandbox.run(words).text == "old\\n/root\\n"
            with open(bundle + "/new", "w") as file:
                file.write("new\\n")
            os.rename(bundle + "/new", bundle + "/given")  # another file under the same name
            with open(rootfs + "/etc/motd", "w") as file:
                file.write("motd\\n")
            with open(rootfs + "/etc/passwd", "w") as file:
                file.write("root:x:0:0::/elsewhere:/bin/sh\\n")
            os.mkdir(rootfs + "/secret")  # masked although it was not there before
            with open(rootfs + "/secret/x", "w") as file:
                file.write("secret\\n")
            assert sandbox.run(words).text == "new\\nmotd\\n/elsewhere\\n"
            os.rename(rootfs, bundle + "/former")
            os.symlink("former", rootfs)
            assert sandbox.run(words).text == "new\\nmotd\\n/elsewhere\\n"
            os.rename(bundle + "/former/dev", bundle + "/former/device")
            os.mkdir(bundle + "/former/dev")
            assert sandbox.run(["sh", "-c", "echo x >/dev/null && ls /device"]).check().text == ""
        """,
    )


def test_one_that_was_killed_is_passed_over_and_so_is_a_killed_keeper(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("exit 7").path,
        WAITING
        + """
with Sandbox(bundle) as sandbox:
    for _ in range(3):
        assert sandbox.run().returncode == 7
    for _ in range(3):
        kill(one_waiting(sandbox))
        while waiting(sandbox):
            time.sleep(0.01)
        assert sandbox.run().returncode == 7
    os.kill(sandbox._keeper._pid, signal.SIGKILL)
    see_the_end_of(sandbox._keeper)
    for _ in range(3):
        assert sandbox.run().returncode == 7
""",
    )


def test_other_limits_and_mounts_do_not_get_what_was_made_for_the_config(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("true").path,
        """
        words = ["sh", "-c", "ulimit -n; ls -d /dev/more"]
        more = {"destination": "/dev/more", "type": "tmpfs", "source": "more", "options": ["mode=700"]}
        with Sandbox(bundle) as sandbox:
            for _ in range(3):
                assert sandbox.run(words).text == "1024\\n"
                assert sandbox.run(words, limits=Limits(open_files=64)).text == "64\\n"
                assert sandbox.run(words, mounts=[more]).text == "1024\\n/dev/more\\n"
        """,
    )


def test_where_it_cannot_be_made_runs_go_on_without(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("exit 7").path,
        """
        from rootless_rt.plan.ops import Op, encode
        with Sandbox(bundle) as sandbox:
            sandbox.compiled.ahead = encode([Op("new_fs", 90, "no-such-filesystem", "", [], 0)])
            sandbox.run()
            while sandbox._keeper._can_more:  # the third finds it out, unless mounts change just then
                assert sandbox.run().returncode == 7
            assert sandbox.run().returncode == 7 and sandbox._keeper._next.ahead == b""
        """,
    )


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount something")
def test_one_that_ends_as_it_gets_its_run_because_mounts_change_is_passed_over(
    program: Programs, bundle: MakeBundle
) -> None:
    source = """
        import select
        taken = []
        with Sandbox(bundle) as sandbox:
            sandbox.run()
            made_ahead = sandbox._keeper.made_ahead
            def taken_too_late(*given):
                begun = made_ahead(*given)
                if begun is not None:
                    print("taken", flush=True)
                    select.select([begun.pidfd], [], [])
                    taken.append(begun.pid)
                return begun
            sandbox._keeper.made_ahead = taken_too_late
            while len(taken) < 3:
                result = sandbox.run()
                assert (result.returncode, result.stdout) == (7, b"ran\\n"), result
    """
    user = program.user
    point = program.place / "point"
    point.mkdir()
    argv = program.argv(bundle("echo ran; exit 7").path, source)
    with own_mounts() as host:
        enter = ["nsenter", f"--mount=/proc/{host.pid}/ns/mnt"]
        ids = ["--setuid", str(user.uid), "--setgid", str(user.gid)]
        as_root: dict[str, Any] = {"user": None, "group": None, "extra_groups": None}
        process = program.start([*enter, *ids, *argv], stdout=subprocess.PIPE, **as_root)
        with process:
            assert process.stdout is not None
            while process.stdout.readline():
                host.sh('mount -t tmpfs tmpfs "$1"; umount "$1"', str(point))
            assert process.wait(PATIENCE) == 0
