"""The profile that lets rt alone make user namespaces where AppArmor restricts them."""

from __future__ import annotations

from lab.machines.machine import Machine
from lab.runtime import TREE

PROFILE = (TREE / "contrib/apparmor/rt").read_text()


def test_it_is_accepted_and_goes_by_the_path_of_the_launcher(machine: Machine) -> None:
    machine.ok("cp -L $(command -v rt) /usr/bin/rt && chmod 755 /usr/bin/rt")
    machine.ok("apparmor_parser --replace", stdin=PROFILE)
    try:
        bundle = machine.bundle("cat /proc/self/attr/apparmor/current")
        done = machine.run(f"/usr/bin/rt run --bundle {bundle.path} named", user="alice")
        assert done.code == 0 and done.stdout.startswith("rt (unconfined)"), done
        # Another program of the same interpreter is not rt.
        said = machine.ok(
            "/usr/bin/python3 -c 'print(open(\"/proc/self/attr/apparmor/current\").read())'", user="alice"
        )
        assert said.startswith("unconfined")
    finally:
        machine.ok("apparmor_parser --remove", stdin=PROFILE)
        machine.ok("rm /usr/bin/rt")
