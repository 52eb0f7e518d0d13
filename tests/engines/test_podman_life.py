"""The life of podman's containers: made, started, looked at, signalled, stopped, removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from lab.engines import case
from lab.podman import IMAGE, Podman
from lab.terminal import Session
from lab.waiting import until

TRAP = "trap 'echo got TERM; exit 3' TERM; trap 'echo got USR1' USR1; echo up; while :; do sleep 0.1; done"


@contextmanager
def running(podman: Podman, *words: str) -> Iterator[str]:
    """A container in the background, removed afterwards."""
    name = podman.start(*words)
    try:
        yield name
    finally:
        podman("rm", "-f", "-t", "0", name)


def _says(podman: Podman, name: str, text: str) -> None:
    until(lambda: text in podman.ok("logs", name), f"{name} says {text!r}")


@case
def test_create_then_start_then_wait(podman: Podman) -> None:
    name = podman.name()
    podman.ok("create", "--name", name, IMAGE, "sh", "-c", "echo ran; exit 5")
    assert podman.inspect(name, ".State.Status") == "created"
    podman.ok("start", name)
    assert podman.ok("wait", name) == "5"
    assert podman.ok("logs", name) == "ran"
    podman.ok("rm", name)


@case
def test_create_then_init_then_start_attached(podman: Podman) -> None:
    name = podman.name()
    podman.ok("create", "--name", name, IMAGE, "sh", "-c", "echo ran; exit 5")
    podman.ok("init", name)
    assert podman.inspect(name, ".State.Status") == "initialized"
    done = podman("start", "--attach", name)
    assert (done.code, done.out) == (5, "ran\n"), str(done)
    podman.ok("rm", name)


@case
def test_a_container_starts_again(podman: Podman) -> None:
    name = podman.name()
    podman.ok("create", "--name", name, IMAGE, "sh", "-c", "echo x >> /count; wc -l < /count")
    assert [podman.ok("start", "-a", name) for _ in range(3)] == ["1", "2", "3"]
    podman.ok("rm", name)


@case
def test_exec_runs_a_further_program(podman: Podman) -> None:
    with running(podman, "sleep", "100") as name:
        assert podman.ok("exec", name, "cat", "/proc/1/cmdline").startswith("sleep")
        assert podman("exec", name, "sh", "-c", "exit 9").code == 9
        assert podman.ok("exec", "-i", name, "cat", stdin="fed") == "fed"
        script = 'echo "$A $(pwd) $(id -u):$(id -g)"'
        assert (
            podman.ok("exec", "-e", "A=1", "-w", "/etc", "-u", "5:6", name, "sh", "-c", script)
            == "1 /etc 5:6"
        )


@case
def test_exec_of_what_is_not_there(podman: Podman) -> None:
    with running(podman, "sleep", "100") as name:
        for program, code in (("/nope", 127), ("nope", 127), ("/etc/passwd", 126)):
            done = podman("exec", name, program)
            assert done.code == code, str(done)


@case
def test_exec_on_a_terminal(podman: Podman) -> None:
    with running(podman, "sleep", "100") as name, Session(podman, "exec", "-it", name, "sh") as person:
        person.expect("# ")
        person.type("tty; exit 4\n")
        person.expect("/dev/pts/")
        assert person.wait() == 4


@case
def test_exec_in_the_background(podman: Podman) -> None:
    with running(podman, "sleep", "100") as name:
        podman.ok("exec", "-d", name, "sh", "-c", "echo done > /tmp/done; sleep 50")
        until(
            lambda: podman("exec", name, "cat", "/tmp/done").out == "done\n",
            "the program in the background ran",
        )


@case
def test_exec_with_all_rights(podman: Podman) -> None:
    with running(podman, "--cap-drop=all", "sleep", "100") as name:
        show = ("grep", "CapEff", "/proc/self/status")
        assert podman.ok("exec", name, *show).split()[1].strip("0") == ""
        assert podman.ok("exec", "--privileged", name, *show).split()[1].strip("0") != ""


@case
def test_exec_in_a_container_that_has_ended(podman: Podman) -> None:
    name = podman.start("true")
    podman.ok("wait", name)
    assert podman("exec", name, "true").code != 0
    podman.ok("rm", name)


@case
def test_logs_of_both_streams(podman: Podman) -> None:
    name = podman.start("sh", "-c", "echo to out; echo to err >&2")
    podman.ok("wait", name)
    done = podman("logs", name)
    assert (done.out, done.err) == ("to out\n", "to err\n"), str(done)
    podman.ok("rm", name)


@case
def test_attach_shows_and_feeds(podman: Podman) -> None:
    name = podman.name()
    podman.ok(
        "run", "-d", "-i", "--name", name, IMAGE, "sh", "-c", "read line; echo read $line; sleep 1; exit 6"
    )
    assert "read a line" in podman("attach", name, stdin="a line\n").out
    assert podman.ok("wait", name) == "6"
    podman.ok("rm", "-f", name)


@case
def test_attach_and_detach_on_a_terminal(podman: Podman) -> None:
    name = podman.name()
    podman.ok("run", "-d", "-it", "--name", name, IMAGE, "sh", "-c", "read word; echo a${word}b; sleep 100")
    with Session(podman, "attach", "--detach-keys", "ctrl-x,ctrl-y", name) as person:
        person.type("word\n")
        person.expect("awordb")
        for key in "\x18\x19":  # podman takes a detach key only when it comes alone
            person.type(key)
            person.taken()
        assert person.wait() == 0
    assert podman.inspect(name, ".State.Status") == "running"
    podman.ok("rm", "-f", "-t", "0", name)


@case
def test_stop_lets_a_program_end(podman: Podman) -> None:
    with running(podman, "sh", "-c", TRAP) as name:
        _says(podman, name, "up")
        podman.ok("stop", "-t", "50", name)
        assert podman.inspect(name, ".State.ExitCode") == "3"
        assert "got TERM" in podman.ok("logs", name)


@case
def test_stop_kills_what_does_not_end(podman: Podman) -> None:
    with running(podman, "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done") as name:
        _says(podman, name, "up")
        podman.ok("stop", "-t", "1", name)
        assert podman.inspect(name, ".State.ExitCode") == "137"


@case
def test_stop_with_a_signal_of_its_own(podman: Podman) -> None:
    script = "trap 'echo got USR1; exit 3' USR1; echo up; while :; do sleep 0.1; done"
    with running(podman, "--stop-signal=USR1", "sh", "-c", script) as name:
        _says(podman, name, "up")
        podman.ok("stop", "-t", "50", name)
        assert "got USR1" in podman.ok("logs", name)


@case
def test_kill_sends_a_signal(podman: Podman) -> None:
    with running(podman, "sh", "-c", TRAP) as name:
        _says(podman, name, "up")
        podman.ok("kill", "-s", "USR1", name)
        _says(podman, name, "got USR1")
        podman.ok("kill", name)
        assert podman.ok("wait", name) == "137"
        assert podman("kill", name).code != 0


@case
def test_a_container_in_the_pids_of_the_host_is_killed_whole(podman: Podman) -> None:
    with running(podman, "--pid=host", "sh", "-c", "sleep 77.7 & echo $!; wait") as name:
        until(lambda: podman.ok("logs", name), "the program told its child")
        podman.ok("stop", "-t", "0", name)
        assert podman.inspect(name, ".State.Status") == "exited"


@case
def test_pause_and_unpause(podman: Podman) -> None:
    podman.needs_cgroups()
    with running(podman, "sh", "-c", "while :; do echo x >> /n; sleep 0.05; done") as name:
        podman.ok("pause", name)
        assert podman.inspect(name, ".State.Status") == "paused"
        podman.ok("unpause", name)
        assert podman.inspect(name, ".State.Status") == "running"
        podman.ok("exec", name, "true")


@case
def test_a_paused_container_is_removed_by_force(podman: Podman) -> None:
    podman.needs_cgroups()
    with running(podman, "sleep", "100") as name:
        podman.ok("pause", name)
        podman.ok("rm", "-f", "-t", "0", name)
        assert podman("container", "exists", name).code == 1


@case
def test_ps_and_top_and_inspect(podman: Podman) -> None:
    with running(podman, "sleep", "100") as name:
        listed = json.loads(podman.ok("ps", "--format", "json", "--filter", f"name={name}"))
        assert [each["State"] for each in listed] == ["running"]
        assert "sleep 100" in podman.ok("top", name)
        assert podman.inspect(name, ".OCIRuntime") == podman.runtime
        assert int(podman.inspect(name, ".State.Pid")) > 1


@case
def test_stats(podman: Podman) -> None:
    podman.needs_cgroups()
    with running(podman, "sleep", "100") as name:
        assert name in podman.ok("stats", "--no-stream", name)


@case
def test_a_running_container_gets_new_limits(podman: Podman) -> None:
    podman.needs_cgroups()
    with running(podman, "--memory=64m", "sleep", "100") as name:
        podman.ok("update", "--memory", "96m", name)
        shown = podman.ok("exec", name, "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
        assert int(shown) == 96 << 20


@case
def test_rm_refuses_a_running_container_and_force_removes_it(podman: Podman) -> None:
    with running(podman, "sleep", "100") as name:
        assert podman("rm", name).code == 2
        podman.ok("rm", "-f", "-t", "0", name)
        assert podman("container", "exists", name).code == 1


@case
def test_a_container_that_failed_to_start_can_be_removed(podman: Podman) -> None:
    name = podman.name()
    assert podman("run", "--name", name, IMAGE, "/nope").code == 127
    podman.ok("rm", name)


@case
def test_restart_policy(podman: Podman) -> None:
    with running(podman, "--restart=on-failure:2", "sh", "-c", "echo run; exit 1") as name:
        until(lambda: podman.ok("logs", name).count("run") == 3, "it ran three times")
        until(lambda: podman.inspect(name, ".State.Status") == "exited", "and ended")


@case
def test_restart(podman: Podman) -> None:
    with running(podman, "sleep", "100") as name:
        before = podman.inspect(name, ".State.Pid")
        podman.ok("restart", "-t", "0", name)
        assert podman.inspect(name, ".State.Pid") not in (before, "0")


@case
def test_healthcheck(podman: Podman) -> None:
    check = ("--health-cmd=test -e /healthy", "--health-interval=disable", "--health-retries=1")
    with running(podman, *check, "sleep", "100") as name:
        assert podman("healthcheck", "run", name).code == 1
        podman.ok("exec", name, "touch", "/healthy")
        assert podman("healthcheck", "run", name).code == 0
        assert podman.inspect(name, ".State.Health.Status") == "healthy"


@case
def test_copy_in_and_out(podman: Podman) -> None:
    with running(podman, "sleep", "100") as name:
        copy = str(podman.base / "work" / name)
        podman.ok("cp", f"{name}:/etc/passwd", copy)
        podman.ok("cp", copy, f"{name}:/tmp/copy")
        assert "root" in podman.ok("exec", name, "cat", "/tmp/copy")


@case
def test_commit_and_diff(podman: Podman) -> None:
    with running(podman, "sh", "-c", "echo new > /new; sleep 100") as name:
        until(lambda: "A /new" in podman.ok("diff", name), "the file is a difference")
        podman.ok("commit", "-q", name, f"localhost/{name}")
        assert podman.ok("run", "--rm", f"localhost/{name}", "cat", "/new") == "new"
        podman.ok("rmi", f"localhost/{name}")


@case
def test_many_containers_at_once(podman: Podman) -> None:
    names = [podman.start("sleep", "100") for _ in range(5)]
    podman.ok("stop", "-t", "0", *names)
    podman.ok("rm", *names)


@case
def test_info_and_version_of_the_runtime(podman: Podman) -> None:
    info = json.loads(podman.ok("info", "--format", "json"))["host"]["ociRuntime"]
    assert info["name"] == podman.runtime and "version" in info["version"]


@case
def test_flags_for_the_runtime_reach_it(podman: Podman) -> None:
    done = podman("--runtime-flag", "debug", "run", "--rm", IMAGE, "echo", "x")
    assert done.code == 0 and "x" in done.out, str(done)
