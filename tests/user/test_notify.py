"""NOTIFY_SOCKET: what a container under a service manager may say, and when `run` and `start` come back."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.inside import mount, mounts_of, with_mounts
from lab.manager import Manager, manager
from lab.ranges import map_ranges
from lab.runtime import Runtime
from lab.say import say_program
from lab.users import User
from lab.waiting import PATIENCE, until

READY = ["READY=1\n", "MAINPID={}\n", "BARRIER=1"]


def under(rt: Runtime, of: Manager | str) -> dict[str, dict[str, str]]:
    """Options of a call of rt as a service's process: its environment."""
    address = of if isinstance(of, str) else of.address
    return {"env": {**rt.user.environment(), "NOTIFY_SOCKET": address}}


@pytest.fixture
def speak(bundle: MakeBundle, place: Path, alice: User) -> Callable[[str], Bundle]:
    """A bundle whose program speaks through NOTIFY_SOCKET: `say TEXT` in its script sends one message."""
    return lambda script: speaking(bundle(), script)


def speaking(box: Bundle, script: str) -> Bundle:
    say_program(box.path).rename(box.rootfs / "bin/say")
    return box.run(script)


def ready(pid: int) -> list[str]:
    return [line.format(pid) for line in READY]


@pytest.mark.covers("NOTIFY_SOCKET", "run --detach")
@pytest.mark.parametrize("abstract", [False, True])
def test_a_detached_run_comes_back_when_the_program_is_ready(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path, abstract: bool
) -> None:
    box = speak("while [ ! -e /tmp/go ]; do sleep 0.05; done; say READY=1; exec sleep 100")
    with manager(place, abstract=abstract) as told:
        process = rt.popen("run", "-d", "-b", str(box.path), "c", stdin=subprocess.DEVNULL, **under(rt, told))
        wait_for_id(rt)
        pid = rt.wait_for("c", "running")["pid"]
        assert process.poll() is None and told.said == []
        (box.rootfs / "tmp/go").touch()
        assert process.wait(PATIENCE) == 0
        assert told.said == ready(pid)


def wait_for_id(rt: Runtime) -> None:
    """Until the container `c` can be asked about."""
    until((rt.root / "c/state.json").exists, "there is a container")


@pytest.mark.covers("NOTIFY_SOCKET")
def test_start_waits_for_the_program_that_create_was_told_of(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    box = speak("sleep 0.3; say READY=1; exec sleep 100")
    with manager(place) as told:
        rt.ok("create", "-b", str(box.path), "c", **under(rt, told))
        assert told.said == []
        rt.ok("start", "c", **under(rt, told))
        assert told.said == ready(rt.state("c")["pid"])


@pytest.mark.covers("NOTIFY_SOCKET")
def test_a_start_without_the_variable_does_not_wait(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    box = speak("say READY=1; exec sleep 100")
    with manager(place) as told:
        rt.ok("create", "-b", str(box.path), "c", **under(rt, told))
        rt.ok("start", "c")
        assert told.said == []


@pytest.mark.covers("NOTIFY_SOCKET")
def test_a_container_made_without_the_variable_is_not_waited_for(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    box = speak('echo "${NOTIFY_SOCKET-none}"; exec sleep 100')
    with manager(place) as told:
        rt.ok("create", "-b", str(box.path), "c")
        rt.ok("start", "c", **under(rt, told))
        assert told.said == []


@pytest.mark.covers("NOTIFY_SOCKET")
def test_the_foreground_passes_it_on_and_stays_the_main_process(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    box = speak("say READY=1; exec sleep 100")
    with manager(place) as told:
        process = rt.popen("run", "-b", str(box.path), "c", stdin=subprocess.DEVNULL, **under(rt, told))
        assert told.wait_for(3) == ready(process.pid)
        assert process.poll() is None
        rt.ok("kill", "c", "KILL")
        assert process.wait(PATIENCE) == 137


@pytest.mark.covers("NOTIFY_SOCKET")
def test_only_the_line_of_readiness_is_passed_on(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    words = [
        "STATUS=loading",
        "MAINPID=1",
        "READY=0",
        "XREADY=1",
        "READY=1x",
        "FDSTORE=1",
        "STOPPING=1",
        "READY=",
    ]
    script = "".join(f"say {word}; " for word in words) + "say ''; sleep 0.3; "
    box = speak(script + "say 'STATUS=up\nREADY=1\nMAINPID=1'; say READY=1 2>/dev/null; exec sleep 100")
    with manager(place) as told:
        rt.ok("run", "-d", "-b", str(box.path), "c", **under(rt, told))
        assert told.said == ready(rt.state("c")["pid"])


@pytest.mark.covers("NOTIFY_SOCKET")
def test_it_waits_at_the_barrier_until_the_manager_has_taken_it_in(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    box = speak("say READY=1; exec sleep 100")
    with manager(place, hold=True) as told:
        process = rt.popen("run", "-d", "-b", str(box.path), "c", stdin=subprocess.DEVNULL, **under(rt, told))
        told.wait_for(3)
        time.sleep(0.2)
        assert process.poll() is None
        told.release()
        assert process.wait(PATIENCE) == 0


@pytest.mark.covers("NOTIFY_SOCKET")
def test_a_container_that_ends_first_is_not_waited_for(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    with manager(place) as told:
        done = rt("run", "-d", "-b", str(speak("exit 3").path), "c", **under(rt, told))
        assert (done.returncode, told.said) == (0, [])
        assert "the container ended before it said that it is ready" in done.stderr
        assert rt.state("c")["status"] == "stopped"


@pytest.mark.covers("NOTIFY_SOCKET")
def test_what_is_said_last_before_the_end_still_counts(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    with manager(place) as told:
        assert (
            rt("run", "-d", "-b", str(speak("exec say READY=1").path), "c", **under(rt, told)).returncode == 0
        )
        assert [line[:6] for line in told.said] == ["READY=", "MAINPI", "BARRIE"]


@pytest.mark.covers("NOTIFY_SOCKET")
def test_a_signal_ends_the_wait_and_the_container(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    box = speak("exec sleep 100")
    with manager(place) as told:
        process = rt.popen(
            "run", "-d", "-b", str(box.path), "c", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            **under(rt, told),
        )  # fmt: skip
        wait_for_id(rt)
        rt.wait_for("c", "running")
        process.terminate()
        assert process.wait(PATIENCE) == 128 + 15
        assert not (rt.root / "c").exists()


@pytest.mark.covers("NOTIFY_SOCKET")
def test_the_container_sees_a_read_only_directory_with_one_socket(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    def tmpfs(config: Config) -> None:
        config["root"]["readonly"] = True
        config["process"]["env"].append("NOTIFY_SOCKET=/elsewhere")

    box = with_mounts(speak(""), mount("/run", "tmpfs", "tmpfs", "mode=755")).change(tmpfs)
    box.run(
        "echo $NOTIFY_SOCKET; ls -A /run/notify; touch /run/notify/x; cat /proc/self/mountinfo; say READY=1"
    )
    with manager(place) as told:
        done = rt("run", "-b", str(box.path), "c", **under(rt, told))
        variable, names, mountinfo = done.stdout.split("\n", 2)
        assert (variable, names) == ("/run/notify/notify.sock", "notify.sock"), done
        assert "Read-only file system" in done.stderr
        assert {"ro", "nosuid", "nodev", "noexec"} <= mounts_of(mountinfo)["/run/notify"].options
        assert told.wait_for(1)[0] == "READY=1\n"
        assert not (rt.root / "c").exists()


@pytest.mark.covers("NOTIFY_SOCKET", "process.user.uid")
def test_a_user_other_than_root_may_speak(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path, alice: User
) -> None:
    def user(config: Config) -> None:
        config["process"]["user"] = {"uid": 1000, "gid": 1000}

    box = map_ranges(speak("say READY=1; exec sleep 100"), alice).change(user)
    with manager(place) as told:
        rt.ok("run", "-d", "-b", str(box.path), "c", umask=0o077, **under(rt, told))
        assert told.said == ready(rt.state("c")["pid"])


@pytest.mark.covers("NOTIFY_SOCKET")
@pytest.mark.parametrize("address", ["/nobody/listens", "@rt-test-nobody", "vsock:2:1234", "x", "@", "/"])
def test_an_address_where_nobody_listens_holds_nothing_up(
    rt: Runtime, bundle: MakeBundle, address: str
) -> None:
    done = rt("run", "-d", "-b", str(bundle(["/bin/sleep", "100"]).path), "c", **under(rt, address))
    assert done.returncode == 0
    assert done.stderr.startswith(f"rt: warning: NOTIFY_SOCKET: {address}"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.covers("NOTIFY_SOCKET")
def test_floods_descriptors_and_huge_messages_do_no_harm(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    script = (
        "say STATUS=x 3000; say READY=1 1 100000; say STATUS=fd 50 0 250; sleep 0.1; touch /tmp/through; "
    )
    box = speak(script + "while [ ! -e /tmp/go ]; do sleep 0.05; done; say READY=1; sleep 100")
    with manager(place) as told:
        process = rt.popen("run", "-b", str(box.path), "c", stdin=subprocess.DEVNULL, **under(rt, told))
        until((box.rootfs / "tmp/through").exists, "all is sent")
        # What came along is closed: rt holds no more than its own.
        until(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) < 20, "what came along is closed")
        assert told.said == []
        (box.rootfs / "tmp/go").touch()
        told.wait_for(3)
        rt.ok("kill", "c", "KILL")
        assert process.wait(PATIENCE) == 137


@pytest.mark.covers("NOTIFY_SOCKET")
def test_who_only_floods_is_not_listened_to_any_more(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    box = speak("say STATUS=x 70000; say STATUS=x; exec sleep 100")
    with manager(place) as told:
        done = rt("run", "-d", "-b", str(box.path), "c", **under(rt, told))
        assert (done.returncode, told.said) == (0, [])
        assert "no READY=1 in 65536 messages" in done.stderr


@pytest.mark.covers("NOTIFY_SOCKET")
def test_a_long_path_to_the_manager_is_reached(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    deep = place / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    box = speak("say READY=1; exec sleep 100")
    with manager(place) as told:
        os.rename(told.address, deep / "s")
        rt.ok("run", "-d", "-b", str(box.path), "c", **under(rt, str(deep / "s")))
        assert told.said == ready(rt.state("c")["pid"])


@pytest.mark.covers("NOTIFY_SOCKET")
def test_exec_has_no_part_in_it(rt: Runtime, speak: Callable[[str], Bundle], place: Path) -> None:
    box = speak("say READY=1; exec sleep 100")
    with manager(place) as told:
        rt.ok("run", "-d", "-b", str(box.path), "c", **under(rt, told))
        assert rt.ok("exec", "c", "sh", "-c", "echo ${NOTIFY_SOCKET-none}", **under(rt, told)) == "none\n"
        assert len(told.said) == 3


@pytest.mark.covers("NOTIFY_SOCKET")
def test_a_container_killed_while_start_waits_ends_the_wait(
    rt: Runtime, speak: Callable[[str], Bundle], place: Path
) -> None:
    box = speak("exec sleep 100")
    with manager(place) as told:
        rt.ok("create", "-b", str(box.path), "c", **under(rt, told))
        start = rt.popen("start", "c", stderr=subprocess.DEVNULL, **under(rt, told))
        rt.wait_for("c", "running")
        rt.ok("delete", "--force", "c")
        assert start.wait(PATIENCE) == 0
