"""Docker: containers' lives, what their programs see, and builds."""

from __future__ import annotations

import re
import subprocess
import time

from lab.dockerd import IMAGE, Docker
from lab.engines import RUNTIMES, case
from lab.terminal import Session
from lab.waiting import PATIENCE, until

LIMIT = 64 << 20
CGROUPS = "-v=/sys/fs/cgroup:/cgroups:ro"


@case
def test_output_and_exit_status_come_back(core_docker: Docker) -> None:
    done = core_docker.attempt("sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.code, done.out, done.err) == (42, "out\n", "err\n"), str(done)


@case
def test_a_missing_program_is_127(core_docker: Docker) -> None:
    done = core_docker.attempt("/nope")
    assert done.code == 127 and 'exec: "/nope": stat /nope: no such file or directory' in done.err, str(done)
    done = core_docker.attempt("nope")
    assert done.code == 127 and 'exec: "nope": executable file not found in $PATH' in done.err, str(done)


@case
def test_a_program_that_may_not_run_is_126(docker: Docker) -> None:
    done = docker.attempt("/etc/passwd")
    assert done.code == 126 and 'exec: "/etc/passwd": permission denied' in done.err, str(done)


@case
def test_stdin_is_passed_on(docker: Docker) -> None:
    assert docker.run("-i", "wc", "-c", stdin="12345") == "5"


@case
def test_a_terminal_is_the_containers_own(core_docker: Docker) -> None:
    words = ["run", "--rm", "-it", "--runtime", core_docker.runtime, IMAGE, "sh"]
    with Session(core_docker, *words, rows=33, columns=111) as session:  # type: ignore[arg-type]
        session.expect("# ")
        session.type("tty; until stty size | grep 33.1''11; do sleep 0.1; done\n")
        assert "/dev/" in session.expect("33 111")
        session.type("exit 5\n")
        assert session.wait() == 5


@case
def test_signals_descriptors_and_score_are_the_programs_own(docker: Docker) -> None:
    script = "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/$$/fd; true"
    said = docker.run("sh", "-c", script)
    assert re.findall(r"Sig(?:Blk|Ign):\s+(\w+)", said) == ["0" * 16] * 2, said
    assert [line for line in said.splitlines() if line.isdigit()] == ["0", "1", "2"], said
    assert docker.run("--oom-score-adj=300", "cat", "/proc/self/oom_score_adj") == "300"
    assert docker.run("cat", "/proc/self/oom_score_adj") == "0"


@case
def test_users_groups_and_the_working_directory_are_set(docker: Docker) -> None:
    said = docker.run("-u=1000:1000", "--group-add=5", "-w=/made/for/it", "sh", "-c", "id -u; id -G; pwd")
    assert said == "1000\n1000 5\n/made/for/it"


@case
def test_a_read_only_root_has_writable_places(docker: Docker) -> None:
    script = "touch /x || echo refused; touch /t/x && stat -c %a /t"
    assert docker.run("--read-only", "--tmpfs=/t:mode=1770,size=1m", "sh", "-c", script) == "refused\n1770"


@case
def test_volumes_keep_what_is_written(docker: Docker) -> None:
    volume = docker.name()
    docker.run(f"-v={volume}:/data", "sh", "-c", "echo kept > /data/file")
    read = "cat /data/file; touch /data/x || echo refused"
    assert docker.run(f"-v={volume}:/data:ro", "sh", "-c", read) == "kept\nrefused"
    docker.ok("volume", "rm", volume)


@case
def test_directories_of_the_host_are_bound(docker: Docker) -> None:
    etc = f"{docker.ward.base}/rootfs/etc"
    assert docker.run(f"-v={etc}:/given:ro", "head", "-1", "/given/group") == "root:x:0:"
    assert docker.run(f"-v={etc}:/given:rslave", "head", "-1", "/given/group") == "root:x:0:"


@case
def test_capabilities_are_dropped_and_added(docker: Docker) -> None:
    said = docker.run("--cap-drop=ALL", "--cap-add=NET_RAW", "grep", "Cap", "/proc/self/status")
    assert re.findall(r"Cap(?:Prm|Eff|Bnd):\s+(\w+)", said) == [f"{1 << 13:016x}"] * 3, said


@case
def test_seccomp_and_no_new_privileges_are_as_asked(docker: Docker) -> None:
    read = ("grep", "-E", "Seccomp:|NoNewPrivs", "/proc/self/status")
    assert docker.run(*read).split() == ["NoNewPrivs:", "0", "Seccomp:", "2"]
    plain = docker.run("--security-opt=seccomp=unconfined", "--security-opt=no-new-privileges", *read)
    assert plain.split() == ["NoNewPrivs:", "1", "Seccomp:", "0"]


@case
def test_limits_of_the_process_are_set(docker: Docker) -> None:
    assert docker.run("--ulimit=nofile=100:200", "sh", "-c", "ulimit -n; ulimit -Hn") == "100\n200"


@case
def test_sysctls_are_set(docker: Docker) -> None:
    read = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_unprivileged_port_start"
    assert docker.run("--sysctl=net.ipv4.ip_forward=0", "sh", "-c", read) == "0\n0"


@case
def test_names_are_written_for_the_container(docker: Docker) -> None:
    script = "hostname; grep 192.0.2.1 /etc/hosts; cat /etc/resolv.conf"
    said = docker.run("-h=box", "--add-host=other:192.0.2.1", "--dns=192.0.2.2", "sh", "-c", script)
    assert said.startswith("box\n192.0.2.1\tother\n") and "nameserver 192.0.2.2" in said, said


@case
def test_shared_memory_has_the_size_asked_for(docker: Docker) -> None:
    assert "8192" in docker.run("--shm-size=8m", "df", "-k", "/dev/shm")


@case
def test_an_init_process_of_dockers_comes_first(docker: Docker) -> None:
    assert "docker-init" in docker.run("--init", "ps")


@case
def test_namespaces_of_the_host_can_be_shared(docker: Docker) -> None:
    assert docker.run("--pid=host", "sh", "-c", "test $$ != 1 && echo shared") == "shared"
    assert docker.run("--ipc=host", "echo", "shared") == "shared"
    assert docker.run("--uts=host", "hostname") == docker.ward.ok("hostname")


@case
def test_there_can_be_no_network(docker: Docker) -> None:
    said = docker.run("--network=none", "ip", "-o", "link")
    assert [line.split(":")[1].strip() for line in said.splitlines()] == ["lo"], said


@case
def test_the_hosts_network_can_be_shared(docker: Docker) -> None:
    assert "docker0" in docker.run("--network=host", "ip", "-o", "link")


@case
def test_containers_reach_each_other_over_a_bridge(core_docker: Docker) -> None:
    net = core_docker.name()
    core_docker.ok("network", "create", net)
    server = core_docker.start(f"--network={net}", "sleep", "1000")
    said = core_docker.run(f"--network={net}", "ping", "-c", "1", "-W", "50", server)
    assert "1 packets received" in said, said
    core_docker.ok("network", "connect", "bridge", server)
    assert len(core_docker.ok("exec", server, "ip", "-o", "-4", "addr").splitlines()) == 3
    core_docker.remove(server)
    core_docker.ok("network", "rm", net)


@case
def test_a_port_is_published_on_the_loopback(core_docker: Docker) -> None:
    script = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    name = core_docker.start("-p=127.0.0.1::80", "sh", "-c", script)
    address = core_docker.ok("port", name, "80").split()[-1]
    fetch = ("busybox", "wget", "-q", "-O", "-", f"http://{address}/")
    until(lambda: core_docker.ward(*fetch).out == "page\n", f"the page at {address}")
    core_docker.remove(name)


@case
def test_a_container_joins_anothers_namespaces(docker: Docker) -> None:
    name = docker.start("--ipc=shareable", "sleep", "1234")
    of = f"container:{name}"
    assert "sleep 1234" in docker.run(f"--network={of}", f"--pid={of}", f"--ipc={of}", "ps")
    docker.remove(name)


@case
def test_exec_gives_status_user_environment_and_directory(core_docker: Docker) -> None:
    name = core_docker.start("sleep", "1000")
    script = "id -u; pwd; echo $A; cat; exit 6"
    options = ["-i", "-u", "1000", "-w", "/tmp", "-e", "A=b"]
    done = core_docker("exec", *options, name, "sh", "-c", script, stdin="fed")
    assert (done.code, done.out) == (6, "1000\n/tmp\nb\nfed"), str(done)
    done = core_docker("exec", name, "nope")
    assert done.code == 126, str(done)
    assert 'exec: "nope": executable file not found in $PATH' in done.err + done.out, str(done)
    core_docker.ok("exec", "-d", name, "touch", "/made")
    until(lambda: core_docker("exec", name, "test", "-e", "/made").code == 0, "it was made")
    core_docker.remove(name)


@case
def test_exec_gets_a_terminal(docker: Docker) -> None:
    name = docker.start("sleep", "1000")
    with Session(docker, "exec", "-it", name, "sh", rows=31, columns=101) as session:  # type: ignore[arg-type]
        session.expect("# ")
        session.type("until stty size | grep 31.1''01; do sleep 0.1; done\n")
        session.expect("31 101")
        session.type("exit 6\n")
        assert session.wait() == 6
    docker.remove(name)


@case
def test_stop_lets_the_program_end_and_start_runs_it_again(core_docker: Docker) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done"
    name = core_docker.start("sh", "-c", script)
    for times in (1, 2):
        until(lambda: core_docker.ok("logs", name).count("up") == times, "it is up")  # noqa: B023
        core_docker.ok("stop", "-t", "50", name)
        assert core_docker.inspect(name, ".State.ExitCode") == "5"
        said = ["up", "bye"] * times
        until(lambda: core_docker.ok("logs", name).splitlines() == said, f"it says {said}")  # noqa: B023
        if times == 1:
            core_docker.ok("start", name)
    core_docker.ok("restart", "-t", "0", name)
    assert core_docker.inspect(name, ".State.Status") == "running"
    core_docker.remove(name)


@case
def test_stop_kills_what_does_not_end(docker: Docker) -> None:
    name = docker.start("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    docker.ok("stop", "-t", "1", name)
    assert docker.inspect(name, ".State.ExitCode") == "137"
    docker.remove(name)


@case
def test_kill_sends_the_signal_and_refuses_what_has_ended(docker: Docker) -> None:
    name = docker.start("sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.1; done")
    until(lambda: docker.ok("logs", name) == "up", "it is up")
    docker.ok("kill", "-s", "USR1", name)
    assert docker.ok("wait", name) == "9"
    done = docker("kill", name)
    assert done.code == 1 and "is not running" in done.err, str(done)
    docker.remove(name)


@case
def test_top_lists_the_processes(docker: Docker) -> None:
    name = docker.start("sh", "-c", "sleep 1234 & sleep 1235 & wait")
    until(lambda: len(docker.ok("top", name).splitlines()) == 4, "three processes and a heading")
    assert "sleep 1235" in docker.ok("top", name, "-o", "pid,args")
    docker.remove(name)


@case
def test_logs_attach_and_wait_tell_of_the_program(docker: Docker) -> None:
    name = docker.start("sh", "-c", "until [ -e /seen ]; do echo seen; sleep 0.1; done; exit 3")
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    with docker.popen("attach", name, **pipes) as attached:
        assert attached.stdout is not None and attached.stdout.readline() == b"seen\n"
        docker.ok("exec", name, "touch", "/seen")
        assert set(attached.stdout.read().split()) <= {b"seen"}
        assert attached.wait(PATIENCE) == 3
    assert docker.ok("wait", name) == "3" and "seen" in docker.ok("logs", name).splitlines()
    docker.remove(name)


@case
def test_files_are_copied_and_changes_shown_and_kept(docker: Docker) -> None:
    name, image = docker.name(), f"kept-{docker.name()}"
    docker.ok("run", "--name", name, "--runtime", docker.runtime, IMAGE, "touch", "/made")
    assert docker.ok("diff", name) == "A /made"
    assert "made" in docker.ok("cp", f"{name}:/made", "-")
    docker.ok("commit", name, image)
    assert docker.ok("run", "--rm", "--runtime", docker.runtime, image, "ls", "/made") == "/made"
    docker.remove(name)
    docker.ok("rmi", image)


@case
def test_a_restart_policy_starts_it_again(docker: Docker) -> None:
    name = docker.start("--restart=on-failure:2", "false")
    docker.until(name, ".RestartCount", "2")
    docker.until(name, ".State.Status", "exited")
    docker.remove(name)


@case
def test_health_is_checked(docker: Docker) -> None:
    options = ("--health-cmd=test -e /tmp/well", "--health-interval=1s", "--health-retries=1")
    name = docker.start(*options, "sh", "-c", "touch /tmp/well; exec sleep 1000")
    docker.until(name, ".State.Health.Status", "healthy")
    docker.ok("exec", name, "rm", "/tmp/well")
    docker.until(name, ".State.Health.Status", "unhealthy")
    docker.remove(name)


@case
def test_what_is_removed_when_it_ends_is_gone(docker: Docker) -> None:
    name = docker.start("--rm", "sleep", "0.2")
    until(lambda: docker("inspect", name).code == 1, f"{name} is gone")


@case
def test_a_running_container_is_removed_with_all_its_processes(docker: Docker) -> None:
    name = docker.start("sh", "-c", "sleep 4321 & sleep 4321 & wait")
    long = docker.inspect(name, ".Id")
    docker.remove(name)
    until(lambda: docker.ward("pgrep", "-f", f"id {long}").code == 1, "its shim is gone")


@case
def test_limits_are_set_on_the_cgroup(root_docker: Docker) -> None:
    script = """cd /cgroups; own() { grep ":$1:" /proc/self/cgroup | cut -d: -f3; }
    cat memory$(own memory)/memory.limit_in_bytes cpu$(own cpu)/cpu.cfs_quota_us cpu$(own cpu)/cpu.shares
    cat pids$(own pids)/pids.max cpuset$(own cpuset)/cpuset.cpus"""
    limits = (f"-m={LIMIT}", "--cpus=0.5", "-c=512", "--pids-limit=50", "--cpuset-cpus=0")
    said = root_docker.run(*limits, CGROUPS, "sh", "-c", script)
    assert said.split() == [str(LIMIT), "50000", "512", "50", "0"]


@case
def test_a_program_that_needs_too_much_memory_is_killed(root_docker: Docker) -> None:
    # The shim listens for it from the start on, but not before.
    script = "until [ -e /go ]; do sleep 0.1; done; exec tail /dev/zero"
    name = root_docker.start("-m=20m", "--memory-swap=20m", "sh", "-c", script)
    root_docker.ok("exec", name, "touch", "/go")
    root_docker.until(name, ".State.Status", "exited")
    root_docker.until(name, ".State.OOMKilled", "true")
    root_docker.remove(name)


@case
def test_a_container_is_paused_and_goes_on(root_docker: Docker) -> None:
    name = root_docker.start("sh", "-c", "while :; do date +%s%N > /tmp/now; done")
    read = ("cp", f"{name}:/tmp/now", "-")
    until(lambda: root_docker(*read).code == 0, "it writes")
    root_docker.ok("pause", name)
    assert root_docker.inspect(name, ".State.Status") == "paused"
    before = root_docker.ok(*read)
    time.sleep(0.3)
    assert root_docker.ok(*read) == before, "it stands still"
    root_docker.ok("unpause", name)
    assert root_docker.inspect(name, ".State.Status") == "running"
    until(lambda: root_docker.ok(*read) != before, "it goes on")
    root_docker.remove(name)


@case
def test_stats_come_from_the_cgroup(root_docker: Docker) -> None:
    name = root_docker.start(f"-m={LIMIT}", "sleep", "1000")
    said = root_docker.ok("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", name)
    assert said.endswith("64MiB 1"), said
    root_docker.remove(name)


@case
def test_limits_are_changed_while_it_runs(root_docker: Docker) -> None:
    name = root_docker.start(f"-m={LIMIT}", CGROUPS, "sleep", "1000")
    limits = ["-m=96m", "--memory-swap=96m", "--cpu-shares=300", "--pids-limit=33"]
    root_docker.ok("update", *limits, name)
    script = """cd /cgroups; own() { grep ":$1:" /proc/self/cgroup | cut -d: -f3; }
    cat memory$(own memory)/memory.limit_in_bytes cpu$(own cpu)/cpu.shares pids$(own pids)/pids.max"""
    assert root_docker.ok("exec", name, "sh", "-c", script).split() == [str(96 << 20), "300", "33"]
    root_docker.remove(name)


@case
def test_the_default_runtime_makes_what_names_none(docker: Docker) -> None:
    with docker.as_default():
        name = docker.name()
        docker.ok("run", "-d", "--name", name, IMAGE, "sleep", "1000")
        assert docker.inspect(name, ".HostConfig.Runtime") == docker.runtime
        assert docker.ok("exec", name, "echo", "in it") == "in it"
        docker.remove(name)


def _context(docker: Docker) -> str:
    """A directory to build an image of, with a Dockerfile."""
    place = docker.base / f"context-{docker.name()}"
    place.mkdir()
    (place / "given").write_text("given\n")
    (place / "Dockerfile").write_text(
        f"FROM {IMAGE}\nRUN id -u > /who\nENV A=1\nRUN test $A = 1\n"
        "COPY given /given\nRUN cat /given >> /who\n"
        'USER 1000\nRUN id -u > /tmp/me && cat /tmp/me\nCMD ["cat", "/who", "/tmp/me"]\n'
    )
    docker.user.owns(place)
    return str(place)


@case
def test_images_are_built_the_classic_way(docker: Docker) -> None:
    image = f"built-{docker.name()}"
    with docker.as_default():
        docker.ok("build", "--no-cache", "-t", image, _context(docker), env={"DOCKER_BUILDKIT": "0"})
    assert docker.ok("run", "--rm", "--runtime", docker.runtime, image) == "0\ngiven\n1000"
    docker.ok("rmi", image)


@case
def test_images_are_built_by_buildkit(core_docker: Docker) -> None:
    image, calls = f"built-{core_docker.name()}", core_docker.base / "buildkit.calls"
    with core_docker.as_default():
        calls.write_text("")
        core_docker.user.owns(calls)
        core_docker.ok(
            "build", "--no-cache", "-t", image, _context(core_docker), env={"DOCKER_BUILDKIT": "1"}
        )
        assert set(calls.read_text().split()) == {RUNTIMES[core_docker.runtime]}
    assert core_docker.ok("run", "--rm", "--runtime", core_docker.runtime, image) == "0\ngiven\n1000"
    core_docker.ok("rmi", image)


@case
def test_a_step_of_a_build_that_fails_fails_the_build(docker: Docker) -> None:
    place = docker.base / f"context-{docker.name()}"
    place.mkdir()
    (place / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo before; exit 7\n")
    docker.user.owns(place)
    with docker.as_default():
        for kind in "01":
            done = docker("build", "--no-cache", str(place), env={"DOCKER_BUILDKIT": kind})
            assert done.code == (1 if kind == "1" else 7), str(done)
            assert "before" in done.out + done.err, str(done)


@case
def test_the_version_is_shown(docker: Docker) -> None:
    with docker.as_default():
        said = docker.ok("info")
    assert "Default Runtime: " + docker.runtime in said and "rt" in said, said
