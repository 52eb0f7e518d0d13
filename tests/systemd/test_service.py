"""A container as a service: the unit files of contrib/systemd, of the system and of a user's manager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.machines.machine import Machine
from lab.say import say_program
from lab.waiting import until

UNITS = Path(__file__).parents[2] / "contrib/systemd"
ENDS = "trap 'exit 0' TERM; sleep 1000 & wait"
USERS = pytest.mark.parametrize("user", ["root", "alice"])


class Service:
    """The container NAME as the instance of a unit of that user's manager."""

    def __init__(self, machine: Machine, user: str, template: str) -> None:
        self.machine = machine
        self.user = user
        self.unit = f"{template}@web.service"
        self.systemctl = "systemctl" if user == "root" else "systemctl --user"
        self.place = "/etc/systemd/system" if user == "root" else "/home/alice/.config/systemd/user"
        self.bundles = "/var/lib/rt" if user == "root" else "/home/alice/containers"
        kind = "system" if user == "root" else "user"
        machine.ok(f"mkdir -p {self.place} {self.bundles}", user)
        self.file = f"{self.place}/{template}@.service"
        machine.write(self.file, (UNITS / kind / f"{template}@.service").read_text(), user)
        machine.ok(f"{self.systemctl} daemon-reload", user)

    def given(self, script: str) -> Service:
        """Put a bundle where the unit looks for it."""
        bundle = self.machine.bundle(script, user=self.user)
        self.machine.ok(f"mv {bundle.path} {self.bundles}/web", self.user)
        return self

    def does(self, *words: str) -> None:
        self.machine.ok(f"{self.systemctl} {' '.join(words)} {self.unit}", self.user)

    def shown(self, name: str) -> str:
        return self.machine.ok(f"{self.systemctl} show -P {name} {self.unit}", self.user).strip()

    def until(self, what: Callable[[], bool]) -> None:
        """systemd acts in its own time."""
        status = f"{self.systemctl} status --no-pager {self.unit}"
        until(what, lambda: self.machine.run(status, self.user).stdout)

    def running(self) -> int:
        """The container's process, as rt and systemd know it, once it has a child: its trap is set then."""
        pid = int(self.shown("MainPID"))
        self.until(lambda: self.machine.run(f"pgrep -P {pid}").stdout != "")
        listed = self.machine.rt("list", user=self.user).stdout
        assert f" {pid} " in listed and " running " in listed, (pid, listed)
        return pid

    def nothing_left(self) -> None:
        assert self.machine.rt("list", "--quiet", user=self.user).stdout == ""
        look = "find /sys/fs/cgroup -name 'web' -o -name 'rt*@web*'"
        self.until(lambda: self.machine.run(look).stdout == "")


@pytest.fixture
def service(machine: Machine, user: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    made = Service(machine, user, getattr(request, "param", "rt"))
    yield made
    machine.run(f"{made.systemctl} stop {made.unit}; {made.systemctl} reset-failed {made.unit}", user)
    machine.run(f"rm -rf {made.bundles} {made.file}; {made.systemctl} daemon-reload", user)


@USERS
@pytest.mark.covers("run --pid-file", "delete --force")
def test_a_service_starts_is_restarted_and_stops(service: Service, user: str) -> None:
    service.given(ENDS).does("start")
    first = service.running()
    group = service.machine.ok(f"sed -n s/^0:://p /proc/{first}/cgroup").strip()
    assert group == f"{service.shown('ControlGroup')}/web", "the container is in the unit's own cgroup"
    service.does("restart")
    second = service.running()
    assert second != first
    service.does("stop")
    assert (service.shown("ActiveState"), service.shown("Result")) == ("inactive", "success")
    service.nothing_left()


@USERS
def test_a_service_that_is_killed_comes_back(service: Service, user: str) -> None:
    service.given(ENDS).does("start")
    first = service.running()
    service.machine.ok(f"kill -KILL {first}")
    service.until(lambda: service.shown("NRestarts") == "1" and service.shown("ActiveState") == "active")
    assert service.running() != first


@USERS
def test_a_program_that_fails_is_restarted_and_one_that_ends_well_is_not(service: Service, user: str) -> None:
    """The program fails the first time, and not the second time; it ends once systemd knows of it."""
    waits = "until test -e /tmp/end$n; do sleep 0.05; done"
    service.given(f"echo >>/tmp/runs; n=$(wc -l </tmp/runs); {waits}; test $n = 2 || exit 7").does("start")
    place = f"{service.bundles}/web/rootfs/tmp"
    service.machine.ok(f"touch {place}/end1", user)
    service.until(lambda: service.shown("NRestarts") == "1" and service.shown("ActiveState") == "active")
    service.machine.ok(f"touch {place}/end2", user)
    service.until(lambda: service.shown("ActiveState") == "inactive")
    assert service.shown("Result") == "success"
    assert service.machine.ok(f"wc -l <{place}/runs", user).strip() == "2"
    service.nothing_left()


@USERS
def test_what_does_not_end_is_killed_with_all_its_processes(service: Service, user: str) -> None:
    service.given("trap '' TERM; sleep 1000 & sleep 1001").does("start")
    service.running()
    service.does("kill", "--kill-whom=all", "--signal=KILL")
    service.does("stop")
    service.nothing_left()
    assert service.machine.run("pgrep -x sleep").stdout == ""


@USERS
def test_a_bundle_that_cannot_start_is_a_service_that_failed(service: Service, user: str) -> None:
    service.machine.ok(f"mkdir {service.bundles}/web", user)
    started = service.machine.run(f"{service.systemctl} start {service.unit}", user)
    assert started.code != 0
    service.does("stop")
    service.nothing_left()


@USERS
@pytest.mark.parametrize("service", ["rt-notify"], indirect=True)
@pytest.mark.covers("NOTIFY_SOCKET")
def test_a_service_is_started_when_its_program_says_so(service: Service, user: str, tmp_path: Path) -> None:
    """The program waits for a file: until it is there, the service is not started."""
    trap, waits = ENDS.split("; ")
    service.given(f"{trap}; until test -e /tmp/go; do sleep 0.05; done; say READY=1; {waits}")
    program = f"{service.bundles}/web/rootfs/bin/say"
    service.machine.write(program, say_program(tmp_path).read_bytes(), user, mode=0o755)
    service.does("start", "--no-block")
    service.until(lambda: service.machine.rt("list", user=user).stdout.count(" running ") == 1)
    assert service.shown("ActiveState") == "activating"
    service.machine.ok(f"touch {service.bundles}/web/rootfs/tmp/go", user)
    service.until(lambda: service.shown("ActiveState") == "active")
    service.does("stop")
    assert service.shown("Result") == "success"
    service.nothing_left()
