"""Where a container's cgroup can be, and what the container sees of it, under a whole systemd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab.machines.machine import Machine
from lab.managers import (
    DELEGATED,
    ROOT_FILES,
    USER_FILES,
    USER_SYSTEMD,
    WAYS,
    Way,
    ended,
    limited,
    run,
    started,
)

MEGABYTE = 1 << 20
EACH = pytest.mark.parametrize("way", WAYS, ids=repr)
LIMITS = {"memory": {"limit": 64 * MEGABYTE}, "pids": {"limit": 30}, "cpu": {"shares": 512}}
DISK = [{"major": 98, "minor": 0, "rate": MEGABYTE}]
FOLDER = "/etc/systemd/system/user@.service.d"


@pytest.fixture
def drop_in(machine: Machine) -> Iterator[str]:
    """Delegation to users as the administrator sets it, by what the hint says; taken back afterwards."""
    bundle = limited(machine, USER_SYSTEMD, "true", blockIO={"throttleReadBpsDevice": DISK})
    done = USER_SYSTEMD.rt(machine, "run", "--bundle", bundle.path, "box")
    (hint,) = [line for line in done.stderr.splitlines() if line.startswith("hint: as root: ")]
    advice = hint.removeprefix("hint: as root: ").removesuffix(" (rt explain RT-BUNDLE-LIMITS)")
    commands, _, restart = advice.partition("; then log out and in again, or: ")
    machine.ok(f"{commands}; {restart}")
    machine.ok("systemctl --user is-system-running --wait", user="alice")
    yield hint
    machine.ok(f"rm -r {FOLDER}; systemctl daemon-reload; {restart}")
    machine.ok("systemctl --user is-system-running --wait", user="alice")


@pytest.mark.covers("linux.resources.blockIO.throttleReadBpsDevice")
def test_what_the_hint_says_gives_a_user_the_controller_that_was_missing(
    machine: Machine, drop_in: str
) -> None:
    assert "io" in machine.ok(f"cat {DELEGATED}/cgroup.controllers").split()
    for way in (USER_SYSTEMD, USER_FILES):
        done = run(machine, way, "cat /sys/fs/cgroup/io.max", blockIO={"throttleReadBpsDevice": DISK})
        wanted = f"98:0 rbps={MEGABYTE} wbps=max riops=max wiops=max\n"
        assert (done.code, done.stderr, done.stdout) == (0, "", wanted)


@pytest.mark.parametrize("way", [USER_FILES], ids=repr)
def test_a_unit_without_a_controller_is_named(machine: Machine, way: Way) -> None:
    """A service for which the administrator delegates less."""
    bundle = limited(machine, way, "cat /sys/fs/cgroup/pids.max", **LIMITS)
    unit = "systemd-run --quiet --pipe --wait -u lab-less -p User=alice -p Delegate=pids -E HOME=/home/alice"
    rt = f"{unit} rt --root /home/alice/less --cgroup-manager=cgroupfs run --bundle {bundle.path} less"
    done = machine.run(rt)
    assert (done.code, done.stdout) == (0, "30\n"), done
    assert 'controller "cpu" is not delegated to /system.slice/lab-less.service' in done.stderr
    assert "Delegate=cpu cpuset io memory pids in a unit" in done.stderr
    machine.run("rm -rf /home/alice/less")


@pytest.mark.covers("exec")
def test_another_session_reaches_a_container_through_systemd(machine: Machine) -> None:
    """As by ssh: a process of session A may not write to where the user's manager keeps the container."""
    cgroup = started(machine, USER_SYSTEMD, limited(machine, USER_SYSTEMD, "exec sleep 4000", **LIMITS))
    other = (
        "runuser -l alice -c 'grep -o session-.*scope /proc/self/cgroup >&2;"
        ' rt exec box sh -c "sleep 4001 & cat /proc/self/cgroup"\''
    )
    done = machine.run(other)
    assert (done.code, done.stdout) == (0, "0::/\n"), done
    own = machine.ok("grep -o session-.*scope /proc/self/cgroup", user="alice")
    assert done.stderr.startswith("session-") and done.stderr != own, "it was another session"
    assert len(machine.ok(f"cat {cgroup}/cgroup.procs").split()) == 2
    ended(machine, USER_SYSTEMD, cgroup)


def test_without_a_session_the_manager_of_a_lingering_user_serves(machine: Machine) -> None:
    """As cron starts it: no session, no variables, a cgroup of the system's."""
    bundle = limited(machine, USER_SYSTEMD, "cat /sys/fs/cgroup/memory.max", **LIMITS)
    cron = "setpriv --reuid alice --regid alice --init-groups env -i PATH=$PATH HOME=/home/alice"
    done = machine.run(f"{cron} rt run --bundle {bundle.path} cron")
    assert (done.code, done.stderr, done.stdout) == (0, "", f"{64 * MEGABYTE}\n")


def test_a_user_who_does_not_linger_has_limits_while_logged_in(machine: Machine) -> None:
    assert machine.run("test -e /var/lib/systemd/linger/bare").code != 0
    way = Way("bare", "bare")
    done = run(machine, way, "cat /sys/fs/cgroup/memory.max", **LIMITS)
    assert (done.code, done.stderr, done.stdout) == (0, "", f"{64 * MEGABYTE}\n")


def test_a_user_who_is_not_logged_in_has_none_and_is_told_the_fix(machine: Machine) -> None:
    """No linger, no session, no D-Bus: as for a CI runner that is a system service."""
    bundle = limited(machine, Way("bare", "bare"), "echo ran", **LIMITS)
    ids = [{"containerID": 0, "hostID": 4242, "size": 1}]
    bundle.change(lambda config: config["linux"].update(uidMappings=ids, gidMappings=ids))
    machine.ok(f"cp -r {bundle.path} /tmp/nobody && chown -R 4242:4242 /tmp/nobody")
    nobody = "setpriv --reuid 4242 --regid 4242 --clear-groups env -i PATH=$PATH rt --root /tmp/nobody/state"
    done = machine.run(f"{nobody} run --bundle /tmp/nobody nobody")
    assert (done.code, done.stdout) == (0, "ran\n")
    assert "linux.resources.memory.limit: memory.max=67108864 -> no limit" in done.stderr
    assert "systemd-run --user --scope -p Delegate=yes" in done.stderr
    refused = machine.run(f"{nobody} --degrade=strict run --bundle /tmp/nobody nobody")
    assert refused.code == 1 and "linux.resources" in refused.stderr
    machine.ok("rm -rf /tmp/nobody")


def test_a_service_for_a_user_limits_his_containers_when_it_is_delegated(machine: Machine) -> None:
    """What a CI runner's unit needs: Delegate=yes. No session, no linger, no D-Bus is asked."""
    bundle = limited(machine, Way("bare", "bare"), "cat /sys/fs/cgroup/memory.max", **LIMITS)
    unit = "systemd-run --quiet --pipe --wait -p User=bare -p Delegate=yes"
    rt = f"rt --root /home/bare/state --cgroup-manager=cgroupfs run --bundle {bundle.path} ci"
    done = machine.run(f"{unit} {rt}")
    assert (done.code, done.stderr, done.stdout) == (0, "", f"{64 * MEGABYTE}\n")


LOOK = """
cd /sys/fs/cgroup; cat /proc/self/cgroup; ls -d cgroup.procs pids.max; cat pids.max
mkdir own 2>/dev/null && echo writable && rmdir own
ls -d ../cgroup system.slice user.slice 2>/dev/null | wc -l
"""


@EACH
@pytest.mark.covers("mounts[].type", "linux.namespaces[].type")
def test_a_container_sees_its_own_cgroup_as_the_root(machine: Machine, way: Way) -> None:
    for writable in (False, True):
        bundle = limited(machine, way, LOOK, writable=writable, **LIMITS)
        done = way.rt(machine, "run", "--bundle", bundle.path, "box")
        said = ["0::/", "cgroup.procs", "pids.max", "30", *(["writable"] if writable else []), "1"]
        assert (done.code, done.stderr, done.stdout.splitlines()) == (0, "", said)


@EACH
@pytest.mark.covers("mounts[].type", "linux.namespaces[].type")
def test_without_a_cgroup_namespace_it_sees_its_own_read_only(machine: Machine, way: Way) -> None:
    """What it is called tells where it is on the host, but nothing of the host's can be reached."""
    bundle = limited(machine, way, LOOK, writable=True, **LIMITS)
    kinds = bundle.config["linux"]["namespaces"]
    kinds[:] = [item for item in kinds if item["type"] != "cgroup"]
    bundle.write()
    done = way.rt(machine, "run", "--bundle", bundle.path, "box")
    where, *rest = done.stdout.splitlines()
    assert where.startswith("0::/") and "box" in where
    assert (done.code, rest) == (0, ["cgroup.procs", "pids.max", "30", "1"]), done


# What a runtime needs in a container: to make namespaces and devices, and to hand out capabilities.
POWERS = (
    *("SYS_ADMIN", "NET_ADMIN", "MKNOD", "SETUID", "SETGID", "SETFCAP", "SETPCAP", "KILL"),
    *("AUDIT_WRITE", "NET_BIND_SERVICE"),
)


@pytest.mark.parametrize("way", [ROOT_FILES, USER_SYSTEMD], ids=repr)
def test_a_runtime_inside_a_container_limits_containers_of_its_own(machine: Machine, way: Way) -> None:
    """At the root of a cgroup namespace its own cgroup is in the way: what is there moves to a leaf."""
    inner = limited(machine, way, "cat /sys/fs/cgroup/pids.max", pids={"limit": 7}, cpu={"shares": 2})
    ids = [{"containerID": 0, "hostID": 0, "size": 1}]
    if way.user != "root":
        inner.change(lambda config: config["linux"].update(uidMappings=ids, gidMappings=ids))
    rt = f"rt --root /tmp/inner-{way.user} --cgroup-manager=cgroupfs run --bundle {inner.path} inner"
    outer = limited(machine, way, f"{rt}; cat /proc/self/cgroup", writable=True, **LIMITS)

    def whole(config: dict) -> None:  # type: ignore[type-arg]
        config["root"] = {"path": "/"}
        config["process"]["env"] = ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp"]
        for name in ("maskedPaths", "readonlyPaths"):
            config["linux"].pop(name, None)
        caps = config["process"]["capabilities"]
        for kind in ("bounding", "effective", "permitted"):
            caps[kind] = [f"CAP_{name}" for name in POWERS]

    outer.change(whole)
    done = way.rt(machine, "run", "--bundle", outer.path, "box")
    assert (done.code, done.stdout.splitlines()) == (0, ["7", "0::/init"]), done
