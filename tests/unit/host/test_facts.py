"""Facts of the host: read from /proc's own forms, without a guess where a file is missing."""

from __future__ import annotations

import errno
import os
import posix
import resource

import pytest
from lab.plans import root_config, user_config

from rootless_rt.errors import RtError
from rootless_rt.host import facts
from rootless_rt.host.facts import HostFacts, gather

MOUNTINFO = rb"""22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
23 28 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
24 23 0:7 / /sys/kernel/security rw,nosuid shared:8 - securityfs securityfs rw
28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw
99 28 0:55 / /srv/with\040space\134and\012more/proc rw,relatime - proc none rw
100 28 0:21 /sys /srv/part rw,relatime - proc proc rw
101 28 0:56 / /no-optional-fields rw - proc proc rw
broken line
"""

STATUS = b"""Name:\tpython3
Umask:\t0022
CapInh:\t0000000000000000
CapPrm:\t000001ffffffffff
CapEff:\t00000000a80425fb
CapBnd:\t000001ffffffffff
Seccomp:\t0
"""


@pytest.fixture
def proc(monkeypatch):
    """Files of /proc by their paths; a missing one reads as empty."""
    files = {
        "/proc/self/status": STATUS,
        "/proc/self/limits": facts._read("/proc/self/limits"),
        "/proc/sys/kernel/cap_last_cap": b"40\n",
        "/proc/self/oom_score_adj": b"-17\n",
        "/proc/self/mountinfo": MOUNTINFO,
        "/proc/self/setgroups": b"deny\n",
    }
    monkeypatch.setattr(facts, "_read", lambda path: files.get(path, b""))
    return files


def test_complete_proc_and_sysfs_mounts_are_found_deepest_first():
    found = facts._kernel_mounts(MOUNTINFO)
    assert sorted(found) == sorted(
        ["/proc", "/sys", "/srv/with space\\and\nmore/proc", "/no-optional-fields"]
    )
    assert found == sorted(found, key=len, reverse=True)


def test_an_escaped_backslash_does_not_begin_another_escape():
    assert facts._unescape(rb"/a\134040b") == rb"/a\040b"


def test_capabilities_are_the_effective_ones(proc):
    made = gather(root_config())
    assert made.capabilities == 0xA80425FB and made.last_capability == 40
    assert made.can_map_all, "SETUID and SETGID are bits 7 and 6"


def test_who_lacks_one_of_the_two_cannot_map_all():
    made = HostFacts()
    for mask, can in ((0, False), (1 << 6, False), (1 << 7, False), (3 << 6, True)):
        made.capabilities = mask
        assert made.can_map_all is can


def test_what_proc_does_not_say_is_assumed_to_be_the_least(proc):
    limits = proc["/proc/self/limits"]
    proc.clear()
    proc["/proc/self/limits"] = limits  # these are not guessed
    config = root_config()
    config["process"]["oomScoreAdj"] = 0
    made = gather(config)
    assert (made.capabilities, made.last_capability, made.oom_score_adj) == (0, 40, 0)


def test_only_what_the_config_depends_on_is_looked_at(proc):
    config = user_config()
    config["process"]["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    made = gather(config)
    assert set(made.rlimits) == {4, 7, 9}, "descriptors and memory are always of interest"
    assert made.kernel_mounts == [] and made.oom_score_adj == 0
    config["process"]["oomScoreAdj"] = 1
    made = gather(config, pivot=False)
    assert made.oom_score_adj == -17 and "/proc" in made.kernel_mounts


def test_the_scheduling_is_what_a_child_starts_with(proc, monkeypatch):
    config = user_config()
    assert gather(config).scheduling == (0, 0, 0)
    config["process"]["scheduler"] = {"policy": "SCHED_OTHER"}
    monkeypatch.setattr(facts.posix, "getpriority", lambda which, who: -7)
    monkeypatch.setattr(facts.posix, "sched_getparam", lambda pid: os.sched_param(20))
    monkeypatch.setattr(facts.posix, "sched_getscheduler", lambda pid: os.SCHED_FIFO)
    made = gather(config)
    assert made.scheduling == (os.SCHED_FIFO, -7, 20) and {13, 14} <= set(made.rlimits)
    monkeypatch.setattr(facts.posix, "sched_getscheduler", lambda pid: os.SCHED_FIFO | os.SCHED_RESET_ON_FORK)
    assert gather(config).scheduling == (os.SCHED_OTHER, 0, 0)


def test_setgroups_matters_only_inside_a_user_namespace(proc, monkeypatch):
    import idmap.userns

    monkeypatch.setattr(idmap.userns, "own_map", lambda kind: [(0, 0, 0xFFFFFFFF)])
    made = gather(user_config())
    assert made.initial_userns and made.may_set_groups
    monkeypatch.setattr(idmap.userns, "own_map", lambda kind: [(0, 1000, 1)])
    made = gather(user_config())
    assert not made.initial_userns and not made.may_set_groups
    proc["/proc/self/setgroups"] = b"allow\n"
    assert gather(user_config()).may_set_groups


def test_devices_are_known_by_the_path_that_the_plan_uses(proc):
    config = user_config()
    config["linux"]["devices"] = [{"path": "//dev/../dev/./null", "type": "c", "major": 1, "minor": 3}]
    found = gather(config).paths
    assert found["/dev/null"] == os.makedev(1, 3)
    config["linux"]["devices"] = [{"path": "//dev/ptmx", "type": "c", "major": 5, "minor": 2}]
    assert "/dev/ptmx" in gather(config).paths
    config["linux"]["devices"] = [{"path": "/dev/none", "type": "c", "major": 5, "minor": 2}]
    assert "/dev/none" not in gather(config).paths


@pytest.mark.parametrize(
    ("text", "number"),
    [(b"7\n", 7), (b"-1000\n", -1000), (b"0", 0), (b"", 0), (b"+5", 0), (b"1_0", 0), (b"-", 0), (b"x", 0)],
)
def test_numbers_of_proc_are_read_strictly(text, number):
    assert facts._signed(text) == number


def test_a_full_descriptor_table_is_not_taken_for_a_missing_file(monkeypatch):
    def full(*_):
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(posix, "open", full)
    with pytest.raises(OSError, match="too many"):
        facts._read("/proc/self/status")


def test_a_file_is_read_to_its_end_and_a_missing_one_is_empty(tmp_path):
    (tmp_path / "long").write_bytes(b"x" * 200_000)
    assert facts._read(str(tmp_path / "long")) == b"x" * 200_000
    assert facts._read(str(tmp_path / "none")) == b""


def test_the_limits_of_proc_are_those_of_getrlimit():
    table = facts._read("/proc/self/limits")
    for number in range(16):
        told = tuple((1 << 64) - 1 if value < 0 else value for value in resource.getrlimit(number))
        assert facts._limits(table, number) == told


def test_an_unlimited_resource_is_the_kernels_largest_number():
    table = b"Limit\n" + b"Max cpu time".ljust(26) + b"unlimited            5                    seconds   \n"
    assert facts._limits(table, 0) == ((1 << 64) - 1, 5)


def test_without_limits_in_proc_nothing_is_guessed():
    with pytest.raises(RtError, match="/proc/self/limits"):
        facts._limits(b"", 7)
