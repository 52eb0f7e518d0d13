"""The profile that lets rt alone make user namespaces where AppArmor restricts them."""

from __future__ import annotations

import pytest
from lab.machines.machine import Machine
from lab.runtime import TREE

PROFILE = (TREE / "contrib/apparmor/rt").read_text()
LABEL = "cat /proc/self/attr/apparmor/current"
# Where rt is installed -> the link by which it is called, or "".
PLACES = {
    "/usr/bin/rt": "",  # the distribution's package
    "/usr/local/bin/rt": "",  # pip as root
    "/opt/pipx/venvs/rootless-rt/bin/rt": "/usr/local/bin/rt",  # pipx --global
    "/opt/tools/rootless-rt/bin/rt": "/usr/local/bin/rt",  # uv tool, with UV_TOOL_DIR
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_accepted_and_goes_by_the_path_of_the_launcher(machine: Machine, place: str) -> None:
    called = PLACES[place] or place
    added = place not in PROFILE
    # The machine's own rt may be at one of these places.
    machine.ok(f"for at in {place} {called}; do test ! -e $at || mv $at $at.kept; done")
    machine.ok(f"install -D -m 755 {TREE}/build/rt {place}")
    if called != place:
        machine.ok(f"ln -s {place} {called}")
    if added:
        machine.ok(f"mkdir -p /etc/apparmor.d/tunables/rt.d; echo '@{{rt_launcher}} += {place}' > "
                   "/etc/apparmor.d/tunables/rt.d/own")  # fmt: skip
    machine.ok("apparmor_parser --replace --skip-cache", stdin=PROFILE)
    try:
        bundle = machine.bundle(LABEL)
        done = machine.run(f"{called} run --bundle {bundle.path} named", user="alice")
        assert done.code == 0 and done.stdout.startswith("rt (unconfined)"), done
        # Another program of the same interpreter is not rt, nor is rt from where others can write.
        said = machine.ok(
            "/usr/bin/python3 -c 'print(open(\"/proc/self/attr/apparmor/current\").read())'", user="alice"
        )
        assert said.startswith("unconfined")
        machine.ok(f"cp {place} /home/alice/rt && chown alice /home/alice/rt")
        done = machine.run(f"/home/alice/rt run --bundle {bundle.path} other", user="alice")
        assert done.code == 0 and done.stdout.startswith("unconfined"), done
    finally:
        machine.ok("apparmor_parser --remove", stdin=PROFILE)
        machine.ok(f"rm -rf {place} {called} /home/alice/rt /etc/apparmor.d/tunables/rt.d")
        machine.ok(f"for at in {place} {called}; do test ! -e $at.kept || mv $at.kept $at; done")
