"""Filters for root's containers, without a user namespace."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Config
from lab.runtime import Runtime
from lab.seccomp_agent import agent_of, always

from rootless_rt.host.seccomp import library_file

pytestmark = pytest.mark.skipif(library_file() is None, reason="libseccomp.so.2 is not installed")


@pytest.mark.covers("linux.seccomp.listenerPath", "process.noNewPrivileges")
@pytest.mark.parametrize("no_new_privs", [True, False])
def test_an_agent_answers_and_what_loading_takes_is_gone(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path, no_new_privs: bool
) -> None:
    def change(config: Config) -> None:
        config["process"]["noNewPrivileges"] = no_new_privs
        config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": str(place / "agent.sock"),
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        }

    script = "mkdir /d 2>&1; grep -E '^(NoNewPrivs|Seccomp|CapEff):' /proc/self/status"
    box = root_bundle(script).change(change)
    with agent_of(root_rt.user, place / "agent.sock", always(errno.ENOSPC)) as agent:
        first, *lines = root_rt.ok("run", "-b", str(box.path), "c").splitlines()
        assert first == "mkdir: can't create directory '/d': No space left on device"
        assert len(agent.states(1)) == 1
    found = dict(line.split(":\t") for line in lines)
    assert (found["NoNewPrivs"], found["Seccomp"]) == (str(int(no_new_privs)), "2")
    assert not int(found["CapEff"], 16) >> 21 & 1  # CAP_SYS_ADMIN
