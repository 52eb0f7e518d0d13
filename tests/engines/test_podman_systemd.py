"""podman with systemd's cgroups and limits that hold, in a machine with a kernel and a systemd of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from lab.engines import ALL, case
from lab.machine_podman import MachinePodman, configure
from lab.machines.boot import PODMAN_IMAGE, uml_machine
from lab.machines.debian import Unavailable
from lab.machines.machine import Machine
from lab.podman import IMAGE
from lab.users import User
from lab.waiting import until

MEGABYTE = 1 << 20
FULL = ["--memory=64m", "--pids-limit=20", "--cpus=0.5"]
EAT = "dd if=/dev/zero of=/dev/null bs=80M count=1 iflag=fullblock"

# The Debian root is built in the first test, and everything takes its time there.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def podman_machine(alice: User) -> Iterator[Machine]:
    if not ALL:
        pytest.skip("a machine of its own takes minutes: make engines")
    try:
        with uml_machine(alice, image=PODMAN_IMAGE) as machine:
            configure(machine)
            yield machine
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module", params=["root", "alice"])
def podman(request: pytest.FixtureRequest, podman_machine: Machine) -> MachinePodman:
    return MachinePodman(podman_machine, request.param)


@contextmanager
def running(podman: MachinePodman, *words: str) -> Iterator[str]:
    """A container in the background, removed afterwards."""
    name = podman.start(*words)
    try:
        yield name
    finally:
        podman("rm", "-f", "-t", "0", name)


def limits(podman: MachinePodman, cgroup: str) -> list[str]:
    return podman.files(cgroup, "memory.max", "pids.max", "cpu.max")


@case
def test_limits_are_those_of_a_scope_of_the_containers_own(podman: MachinePodman) -> None:
    with running(podman, *FULL, "sleep", "1000") as name:
        cgroup = podman.cgroup(name)
        scope = f"libpod-{podman.inspect(name, '.Id')}.scope"
        above = "/user.slice/user-1000.slice/user@1000.service/" if podman.rootless else "/machine.slice/"
        assert cgroup.startswith(above) and scope in cgroup.split("/"), cgroup
        assert limits(podman, cgroup[: cgroup.index(scope)] + scope) == [
            str(64 * MEGABYTE),
            "20",
            "50000 100000",
        ]
        shown = podman.systemctl("show", "-p", "ActiveState,MemoryMax,TasksMax,CPUQuotaPerSecUSec", scope)
        wanted = {"ActiveState=active", f"MemoryMax={64 * MEGABYTE}", "TasksMax=20"}
        assert sorted(shown.splitlines()) == sorted({*wanted, "CPUQuotaPerSecUSec=500ms"})


@case
def test_the_container_reads_its_limits(podman: MachinePodman) -> None:
    words = ["cat", *(f"/sys/fs/cgroup/{name}" for name in ("memory.max", "pids.max", "cpu.max"))]
    assert podman.run(*FULL, "--", *words).split() == [str(64 * MEGABYTE), "20", "50000", "100000"]


@case
def test_softer_limits_are_set_too(podman: MachinePodman) -> None:
    more = ["--memory-reservation=32m", "--cpu-shares=512"]
    with running(podman, "--memory=64m", *more, "sleep", "1000") as name:
        low, weight = podman.files(podman.cgroup(name), "memory.low", "cpu.weight")
        assert low == str(32 * MEGABYTE) and int(weight) < 100


@case
def test_who_takes_more_memory_than_allowed_is_killed(podman: MachinePodman) -> None:
    name = podman.name()
    script = f"echo begun; exec {EAT}"
    done = podman("run", "--name", name, "--memory=32m", "--memory-swap=32m", IMAGE, "sh", "-c", script)
    assert done.code == 137 and "begun" in done.out, str(done)
    assert podman.inspect(name, ".State.OOMKilled") == "true"
    podman.ok("rm", name)


@case
def test_no_more_processes_than_allowed(podman: MachinePodman) -> None:
    script = "for n in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all"
    done = podman("run", "--rm", "--pids-limit", "5", IMAGE, "sh", "-c", script)
    assert done.code != 0 and "fork" in done.err and "all" not in done.out, str(done)


@case
def test_pause_and_unpause(podman: MachinePodman) -> None:
    with running(podman, "sh", "-c", "while :; do date >/now; usleep 100000; done") as name:
        cgroup = podman.cgroup(name)
        podman.ok("pause", name)
        assert podman.inspect(name, ".State.Status") == "paused"
        assert "frozen 1" in podman.files(cgroup, "cgroup.events")
        podman.ok("unpause", name)
        assert podman.inspect(name, ".State.Status") == "running"
        assert "frozen 0" in podman.files(cgroup, "cgroup.events")
        assert podman.ok("exec", name, "echo", "here") == "here"


@case
def test_stats_are_of_the_container(podman: MachinePodman) -> None:
    with running(podman, *FULL, "sh", "-c", "sleep 1000 & exec sleep 1000") as name:

        def told() -> dict[str, str]:
            (shown,) = json.loads(podman.ok("stats", "--no-stream", "--format", "json", name))
            return {str(key): str(value) for key, value in shown.items()}

        until(lambda: told()["pids"] == "2", "two processes are counted")
        assert told()["mem_usage"].endswith("/ 67.11MB"), told()


@case
def test_update_of_the_limits(podman: MachinePodman) -> None:
    with running(podman, *FULL, "sleep", "1000") as name:
        cgroup = podman.cgroup(name)
        podman.ok("update", "--memory", "48m", "--cpus", "0.25", "--pids-limit", "10", name)
        assert limits(podman, cgroup) == [str(48 * MEGABYTE), "10", "25000 100000"]
        podman.ok("update", "--cpu-shares", "256", name)
        assert limits(podman, cgroup) == [str(48 * MEGABYTE), "10", "25000 100000"]


@case
def test_exec_is_held_to_the_limits(podman: MachinePodman) -> None:
    with running(podman, "--memory=32m", "--memory-swap=32m", "sleep", "1000") as name:
        own = podman.ok("exec", name, "cat", "/proc/self/cgroup")
        assert own == podman.ok("exec", name, "cat", "/proc/1/cgroup")
        assert podman("exec", name, "sh", "-c", "exit 7").code == 7
        assert podman("exec", name, *EAT.split()).code == 137
        assert podman.inspect(name, ".State.Status") == "running"


@case
def test_stop_and_rm_leave_no_scope(podman: MachinePodman) -> None:
    name = podman.start(*FULL, "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done")
    identity, cgroup = podman.inspect(name, ".Id"), podman.cgroup(name)
    podman.ok("stop", "-t", "20", name)
    assert podman.inspect(name, ".State.ExitCode") == "3"
    podman.ok("rm", name)
    until(lambda: podman.shell(["test", "-e", f"/sys/fs/cgroup{cgroup}"]).code == 1, "the cgroup is gone")
    # The scope of conmon is podman's, and ends with conmon.
    until(lambda: identity not in podman.systemctl("list-units", "--all", "--full"), "no scope is left")


@case
def test_a_container_starts_again_with_its_limits(podman: MachinePodman) -> None:
    with running(podman, *FULL, "sleep", "1000") as name:
        for _ in range(2):
            podman.ok("restart", "-t", "0", name)
            assert limits(podman, podman.cgroup(name))[:2] == [str(64 * MEGABYTE), "20"]


@case
def test_killed_from_outside_it_goes_without_a_trace(podman: MachinePodman) -> None:
    with running(podman, "sleep", "1000") as name:
        identity = podman.inspect(name, ".Id")
        podman.ok("kill", "-s", "KILL", name)
        assert podman.ok("wait", name) == "137"
    until(lambda: identity not in podman.systemctl("list-units", "--all", "--full"), "no scope is left")


@case
def test_a_cgroup_parent_is_a_slice(podman: MachinePodman) -> None:
    with running(podman, "--cgroup-parent=lab-engines.slice", "--memory=64m", "sleep", "1000") as name:
        cgroup = podman.cgroup(name)
        assert "/lab.slice/lab-engines.slice/libpod-" in cgroup
        assert podman.files(cgroup, "memory.max") == [str(64 * MEGABYTE)]


@case
def test_a_pod_and_its_containers(podman: MachinePodman) -> None:
    pod = podman.name()
    podman.ok("pod", "create", "--name", pod, "--network", "none", "--memory", "96m", "--cpus", "0.5")
    try:
        one, two = (podman.name() for _ in range(2))
        for name in (one, two):
            options = ["-d", "--pod", pod, "--name", name, "--memory", "48m"]
            podman.ok("run", *options, IMAGE, "sleep", "1000")
        cgroups = [podman.cgroup(name) for name in (one, two)]
        identity = podman.ok("pod", "inspect", "--format", "{{.ID}}", pod)
        slices = {cgroup[: cgroup.index("/libpod-")] for cgroup in cgroups}
        assert len(slices) == 1 and identity in slices.copy().pop(), cgroups
        above = slices.pop()
        assert podman.files(above, "memory.max", "cpu.max") == [str(96 * MEGABYTE), "50000 100000"]
        for cgroup in cgroups:
            assert podman.files(cgroup, "memory.max") == [str(48 * MEGABYTE)]
        podman.ok("pod", "pause", pod)
        assert podman.inspect(two, ".State.Status") == "paused"
        podman.ok("pod", "unpause", pod)
        assert podman.ok("exec", two, "echo", "here") == "here"
        podman.ok("pod", "stop", "-t", "0", pod)
        assert podman.inspect(one, ".State.Status") == "exited"
        podman.ok("pod", "rm", pod)
        until(lambda: identity not in podman.systemctl("list-units", "--full"), "no slice is left")
    finally:
        podman("pod", "rm", "-f", "-t", "0", pod)


@case
def test_an_init_process_and_a_user_namespace_of_its_own(podman: MachinePodman) -> None:
    words = ["--init", "--userns=keep-id"] if podman.rootless else ["--init", "--uidmap=0:100000:1000"]
    assert podman.run(*FULL, *words, "--", "cat", "/sys/fs/cgroup/pids.max") == "20"


@case
def test_a_missing_program_is_told_as_such_and_leaves_no_scope(podman: MachinePodman) -> None:
    name = podman.name()
    done = podman("run", "--name", name, *FULL, IMAGE, "/nope")
    assert done.code == 127, str(done)
    identity = podman.inspect(name, ".Id")
    podman.ok("rm", name)
    until(lambda: identity not in podman.systemctl("list-units", "--all", "--full"), "no scope is left")
