"""containerd through `ctr`: the life of tasks, and what their programs see."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

from lab.containerd import Containerd
from lab.engines import case
from lab.terminal import Session
from lab.waiting import until


@case
def test_output_and_exit_status_come_back(core_ctr: Containerd) -> None:
    done = core_ctr.attempt("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out) == (3, "out\n") and done.err.startswith("err\n"), str(done)


@case
def test_a_program_ended_by_a_signal_tells_so(ctr: Containerd) -> None:
    done = ctr.attempt("sh", "-c", "sh -c 'kill -9 $$'; exit $?")
    assert done.code == 137, str(done)


@case
def test_stdin_is_passed_on(ctr: Containerd) -> None:
    assert ctr.run("sh", "-c", "read line; echo got $line", stdin="word\n") == "got word"


@case
def test_a_missing_program_is_named(core_ctr: Containerd) -> None:
    done = core_ctr.attempt("/nope")
    assert done.code == 1 and 'exec: "/nope": stat /nope: no such file or directory' in done.err, str(done)
    done = core_ctr.attempt("nope")
    assert done.code == 1 and 'exec: "nope": executable file not found in $PATH' in done.err, str(done)


@case
def test_a_program_that_may_not_run_is_named(ctr: Containerd) -> None:
    done = ctr.attempt("/etc/passwd")
    assert done.code == 1 and 'exec: "/etc/passwd": permission denied' in done.err, str(done)


@case
def test_nothing_is_left_of_a_container_that_could_not_be_made(ctr: Containerd) -> None:
    name = ctr.name()
    assert ctr(*ctr.run_words("--rm"), name, "/nope").code == 1
    assert ctr.status(name) == "" and not ctr.state_of(name)
    assert ctr(*ctr.run_words("--rm"), name, "true").code == 0, "the name is free again"


@case
def test_signals_and_descriptors_are_the_programs_own(ctr: Containerd) -> None:
    said = ctr.run("sh", "-c", "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/$$/fd; true")
    assert re.findall(r"Sig(?:Blk|Ign):\s+(\w+)", said) == ["0" * 16] * 2, said
    assert [line for line in said.splitlines() if line.isdigit()] == ["0", "1", "2"], said


@case
def test_a_task_is_listed_while_it_runs_and_after_it_ended(ctr: Containerd) -> None:
    name = ctr.start("sleep", "1000")
    assert ctr.status(name) == "RUNNING"
    ctr.ok("task", "kill", "--signal", "KILL", name)
    until(lambda: ctr.status(name) == "STOPPED", f"{name} stopped")
    assert "non-zero exit code 137" in ctr("task", "delete", name).err
    assert ctr.status(name) == "" and not ctr.state_of(name)
    ctr.ok("container", "delete", name)


@case
def test_a_task_ends_by_the_signal_it_is_sent(ctr: Containerd) -> None:
    name = ctr.start("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done")
    until(lambda: "sleep 0.1" in ctr.exec(name, "ps").out, "the trap is set")
    ctr.ok("task", "kill", name)
    until(lambda: ctr.status(name) == "STOPPED", f"{name} stopped")
    assert "non-zero exit code 7" in ctr("task", "delete", name).err
    ctr.ok("container", "delete", name)


@case
def test_killing_what_has_ended_says_so(ctr: Containerd) -> None:
    name = ctr.start("true")
    until(lambda: ctr.status(name) == "STOPPED", f"{name} stopped")
    done = ctr("task", "kill", name)
    assert done.code == 1 and "process already finished: not found" in done.err, str(done)
    done = ctr("task", "kill", "--all", "--signal", "9", name)
    assert "unknown error" not in done.err, str(done)
    ctr.remove(name)
    done = ctr("task", "kill", name)
    assert done.code == 1 and "not found" in done.err, str(done)


@case
def test_all_processes_of_a_task_can_be_killed(core_ctr: Containerd) -> None:
    name = core_ctr.start("sh", "-c", "sleep 1000 & sleep 1000 & wait")
    until(lambda: len(core_ctr.ok("task", "ps", name).splitlines()) == 4, "three processes")
    core_ctr.ok("task", "kill", "--all", "--signal", "9", name)
    until(lambda: core_ctr.status(name) == "STOPPED", f"{name} stopped")
    core_ctr.remove(name)


@case
def test_processes_are_listed_by_the_hosts_pids(ctr: Containerd) -> None:
    name = ctr.start("sh", "-c", "sleep 1000 & wait")
    until(lambda: len(ctr.ok("task", "ps", name).splitlines()) == 3, "two processes")
    assert str(ctr.pid(name)) in ctr.ok("task", "ps", name).split()
    ctr.remove(name)


@case
def test_a_further_program_runs_in_a_task(core_ctr: Containerd) -> None:
    name = core_ctr.start("sleep", "1000", options=("--env", "GIVEN=1"))
    done = core_ctr.exec(name, "sh", "-c", "echo $GIVEN; cat; exit 4", stdin="fed\n")
    assert (done.code, done.out) == (4, "1\nfed\n"), str(done)
    done = core_ctr.exec(name, "sh", "-c", "pwd; id -u", options=("--cwd", "/tmp", "--user", "1000"))
    assert done.out == "/tmp\n1000\n", str(done)
    done = core_ctr.exec(name, "nope")
    assert done.code == 1 and 'exec: "nope": executable file not found in $PATH' in done.err, str(done)
    core_ctr.remove(name)


@case
def test_a_program_can_be_left_running_in_a_task(ctr: Containerd) -> None:
    name = ctr.start("sleep", "1000")
    ctr.ok("task", "exec", "--detach", "--exec-id", "behind", name, "sleep", "500")
    assert "sleep 500" in ctr.exec(name, "ps").out
    ctr.ok("task", "kill", "--exec-id", "behind", "--signal", "KILL", name)
    until(lambda: "sleep 500" not in ctr.exec(name, "ps").out, "it is gone")
    ctr.remove(name)


@case
def test_a_further_program_of_an_ended_task_is_refused(ctr: Containerd) -> None:
    name = ctr.start("true")
    until(lambda: ctr.status(name) == "STOPPED", f"{name} stopped")
    assert ctr.exec(name, "true").code == 1
    ctr.remove(name)


@case
def test_a_terminal_is_the_containers_own(core_ctr: Containerd) -> None:
    words = [*core_ctr.run_words("--rm", "--tty"), core_ctr.name(), "sh"]
    with Session(core_ctr, *words, rows=33, columns=111) as session:  # type: ignore[arg-type]
        session.expect("# ")
        session.type("tty; until stty size | grep 33.1''11; do sleep 0.1; done\n")
        assert "/dev/" in session.expect("33 111")
        session.type("exit 5\n")
        assert session.wait() == 5


@case
def test_a_further_program_gets_a_terminal(ctr: Containerd) -> None:
    name = ctr.start("sleep", "1000")
    words = ["task", "exec", "--tty", "--exec-id", "shell", name, "sh"]
    with Session(ctr, *words, rows=31, columns=101) as session:  # type: ignore[arg-type]
        session.expect("# ")
        session.type("until stty size | grep 31.1''01; do sleep 0.1; done\n")
        session.expect("31 101")
        session.type("exit 6\n")
        assert session.wait() == 6
    ctr.remove(name)


@case
def test_a_paused_task_stands_still(root_ctr: Containerd) -> None:
    name = root_ctr.start("sleep", "1000")
    root_ctr.ok("task", "pause", name)
    assert root_ctr.status(name) == "PAUSED"
    assert root_ctr.exec(name, "true").code != 0
    root_ctr.ok("task", "resume", name)
    assert root_ctr.status(name) == "RUNNING" and root_ctr.exec(name, "true").code == 0
    root_ctr.remove(name)


@case
def test_metrics_are_read_from_the_cgroup(root_ctr: Containerd) -> None:
    name = root_ctr.start("sleep", "1000", options=("--memory-limit", str(64 << 20)))
    metrics = root_ctr.ok("task", "metrics", name)
    found = dict(re.findall(r"(memory\.\w+|pids\.\w+)\s+(\d+)", metrics))
    assert found["pids.current"] == "1" and int(found["memory.usage_in_bytes"]) > 0, metrics
    root_ctr.remove(name)


@case
def test_limits_are_set_on_the_cgroup(root_ctr: Containerd) -> None:
    limits = ("--memory-limit", str(64 << 20), "--cpus", "0.5")
    cgroup = f"{root_ctr.ward.cgroup}/{root_ctr.name()}"
    mount = "type=bind,src=/sys/fs/cgroup,dst=/cgroups,options=rbind:ro"
    script = f"cd /cgroups; cat memory{cgroup}/memory.limit_in_bytes cpu{cgroup}/cpu.cfs_quota_us"
    options = (*limits, "--cgroup", cgroup, "--mount", mount)
    assert root_ctr.run("sh", "-c", script, options=options) == f"{64 << 20}\n50000"


@case
def test_a_task_can_share_the_hosts_network(ctr: Containerd) -> None:
    assert "lo" in ctr.run("ip", "-o", "link", options=("--net-host",))


@case
def test_mounts_are_made(ctr: Containerd) -> None:
    mount = f"type=bind,src={ctr.ward.base}/rootfs/etc,dst=/given,options=rbind:ro"
    script = "head -1 /given/group; touch /given/x || echo refused"
    assert ctr.run("sh", "-c", script, options=("--mount", mount)) == "root:x:0:\nrefused"


@case
def test_a_read_only_root_cannot_be_written(ctr: Containerd) -> None:
    assert ctr.run("sh", "-c", "touch /x || echo refused", options=("--read-only",)) == "refused"


@case
def test_many_containers_at_once(core_ctr: Containerd) -> None:
    with ThreadPoolExecutor(25) as pool:
        ends = [pool.submit(core_ctr.attempt, "sh", "-c", f"exit {n}", timeout=120) for n in range(1, 26)]
        codes = [end.result().code for end in ends]
    assert codes == list(range(1, 26))


@case
def test_an_image_can_be_tried_with_a_file_of_the_host_as_its_pid_file(ctr: Containerd) -> None:
    file = ctr.base / f"{ctr.name()}.pid"
    name = ctr.start("sleep", "1000", options=("--pid-file", str(file)))
    assert int(file.read_text()) == ctr.pid(name)
    ctr.remove(name)


@case
def test_a_dead_shim_leaves_nothing_that_cannot_be_removed(root_ctr: Containerd) -> None:
    name = root_ctr.start("sleep", "1000")
    shims = root_ctr.ward("pgrep", "-f", f"containerd-shim.*-id {name}").out.split()
    assert root_ctr.ward("kill", "-9", *shims).code == 0
    until(lambda: root_ctr.status(name) in ("", "STOPPED"), f"{name} is seen to be gone")
    root_ctr.remove(name)
    until(lambda: not root_ctr.state_of(name), f"the state of {name} is removed")
    assert not os.path.exists(f"/proc/{root_ctr.ward.init}/root/sys/fs/cgroup/pids/{root_ctr.space}/{name}")


def test_no_state_is_left_behind(root_ctr: Containerd) -> None:
    """Last: after all these lives the runtimes' directories are empty."""
    assert root_ctr.state_of("*") == []
