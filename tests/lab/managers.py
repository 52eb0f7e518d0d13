"""The ways to have a container's cgroup made, as the tests of this lane try each of them."""

from __future__ import annotations

import json
from typing import Any

from lab.machines.machine import Machine, MachineBundle, Result
from lab.waiting import until

DELEGATED = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service"
SCOPE = "systemd-run --user --scope -q -p Delegate=yes"


class Way:
    """A manager: whose containers, what stands before `rt` on the command line, and rt's own options."""

    def __init__(self, name: str, user: str, *options: str, before: str = "") -> None:
        self.name = name
        self.user = user
        self.options = options
        self.before = before

    def __repr__(self) -> str:
        return self.name

    def rt(self, machine: Machine, *words: str, timeout: float = 60) -> Result:
        """Run rt so that a container it makes gets its cgroup this way; what degrades is announced."""
        rt = ["rt", "--degrade=warn", *self.options, *words]
        return machine.run([*self.before.split(), *rt], self.user, timeout=timeout)


ROOT_SYSTEMD = Way("system-bus", "root", "--systemd-cgroup")
ROOT_FILES = Way("root-cgroupfs", "root", "--cgroup-manager=cgroupfs")
USER_SYSTEMD = Way("user-bus", "alice")
USER_FILES = Way("delegated-cgroupfs", "alice", "--cgroup-manager=cgroupfs", before=SCOPE)
WAYS = [ROOT_SYSTEMD, ROOT_FILES, USER_SYSTEMD, USER_FILES]
NONE = Way("disabled", "alice", "--cgroup-manager=disabled")


def limited(
    machine: Machine, way: Way, script: str, *, writable: bool = False, **resources: Any
) -> MachineBundle:
    """A bundle with these linux.resources, in whose container /sys/fs/cgroup is its own."""
    bundle = machine.bundle(script, user=way.user)
    bundle.config["linux"].setdefault("resources", {}).update(resources)
    option = "rw" if writable else "ro"
    own = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
    others = [item for item in bundle.config["mounts"] if item["destination"] != "/sys/fs/cgroup"]
    bundle.config["mounts"] = [*others, {**own, "options": ["nosuid", "noexec", "nodev", option]}]
    kinds = bundle.config["linux"]["namespaces"]
    if "cgroup" not in [item["type"] for item in kinds]:
        kinds.append({"type": "cgroup"})
    bundle.write()
    return bundle


def run(machine: Machine, way: Way, script: str, **resources: Any) -> Result:
    """A container from its beginning to its end."""
    bundle = limited(machine, way, script, **resources)
    return way.rt(machine, "run", "--bundle", bundle.path, "box")


def started(machine: Machine, way: Way, bundle: MachineBundle, name: str = "box") -> str:
    """Have a container run on; the directory of its cgroup."""
    done = way.rt(machine, "run", "--detach", "--bundle", bundle.path, name)
    assert done.code == 0, done
    pid = json.loads(machine.rt("state", name, user=way.user).stdout)["pid"]
    return "/sys/fs/cgroup" + machine.ok(f"sed -n s/^0:://p /proc/{pid}/cgroup").strip()


def ended(machine: Machine, way: Way, cgroup: str, name: str = "box") -> None:
    """Delete a container, and look whether its cgroup and a scope of its own are gone."""
    done = machine.rt("delete", "--force", name, user=way.user)
    assert (done.code, done.stderr) == (0, ""), done
    machine.ok(f"test ! -e {cgroup}")
    nothing_left(machine, way, name)


def nothing_left(machine: Machine, way: Way, name: str = "box") -> None:
    """No container, no cgroup and no scope of that name."""
    assert machine.rt("list", "--quiet", user=way.user).stdout == ""
    assert machine.ok(f"find /sys/fs/cgroup -name '{name}' -o -name 'rt-{name}.scope'") == ""
    words = "--user " if way.user != "root" else ""
    units = f"systemctl {words}list-units --all --plain --no-legend 'rt-{name}.scope'"
    # systemd forgets a scope in its own time.
    until(lambda: machine.ok(units, way.user) == "", lambda: machine.ok(units, way.user))
