"""CVE-2023-25809: without a cgroup namespace the host user's cgroups are below /sys/fs/cgroup, writable."""

from __future__ import annotations

import pytest
from conftest import Either
from lab.bundles import Config

WRITE = """
for d in $(find /sys/fs/cgroup -type d 2>/dev/null | head -200); do
  if (echo $$ >$d/cgroup.procs) 2>/dev/null; then echo "written: $d/cgroup.procs"; fi
  if mkdir $d/attack 2>/dev/null; then echo "made: $d/attack"; rmdir $d/attack; fi
done
(echo 1 >/sys/kernel/mm/ksm/run) 2>/dev/null && echo "written: ksm"
echo tried
"""


@pytest.mark.parametrize("cgroup_namespace", [False, True], ids=["without", "with"])
def test_no_cgroup_of_the_host_can_be_written(either: Either, cgroup_namespace: bool) -> None:
    rt, bundle = either
    made = bundle(WRITE)

    def change(config: Config) -> None:
        kept = [item for item in config["linux"]["namespaces"] if item["type"] != "cgroup"]
        config["linux"]["namespaces"] = kept + ([{"type": "cgroup"}] if cgroup_namespace else [])

    done = rt("run", "--bundle", str(made.change(change).path), "c")
    assert done.stdout == "tried\n", done


def test_the_sysfs_of_the_host_stays_read_only_below_as_well(either: Either) -> None:
    rt, bundle = either
    made = bundle("grep -E ' /sys(/| )' /proc/self/mountinfo | cut -d' ' -f5,6")
    listed = rt.ok("run", "--bundle", str(made.path), "c").splitlines()
    assert listed
    for line in listed:
        assert line.split(" ")[1].split(",")[0] == "ro", line
