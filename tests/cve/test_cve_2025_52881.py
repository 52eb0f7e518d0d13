"""CVE-2025-52881: what is written to /proc (labels, sysctls) is led to another file there, or of the host."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Either
from lab.attack import ROUNDS, Canary, exchange, racing, replace
from lab.inside import bind, refusal, with_mounts

FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
CORE = Path("/proc/sys/kernel/core_pattern")


@pytest.mark.parametrize(
    "where",
    [
        *("/proc/self/attr/exec", "/proc/thread-self/attr/exec", "/proc/self/attr", "/proc/self"),
        *("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net", "/proc/sys", "/proc/1", "/link/exec"),
    ],
)
def test_nothing_can_be_mounted_where_the_runtime_writes(either: Either, canary: Canary, where: str) -> None:
    rt, bundle = either
    made = bundle("echo ran")
    (made.rootfs / "link").symlink_to("/proc/self/attr")
    directory = not where.endswith(("exec", "ip_forward"))
    with_mounts(made, bind(where, canary.path if directory else canary.file))
    refusal(rt, made)
    canary.check()


@pytest.mark.parametrize("what", ["proc", "proc/sys"])
def test_a_sysctl_gets_to_the_container_s_own_and_to_no_other_file(
    either: Either, canary: Canary, what: str
) -> None:
    """The image has a tree that looks as /proc, with a link, and exchanges it with its /proc meanwhile."""
    rt, bundle = either
    made = bundle("cat /proc/sys/net/ipv4/ip_forward")
    fake = made.rootfs / ("fake" if what == "proc" else "fake/sys")
    (fake / "net/ipv4").mkdir(parents=True) if what != "proc" else (fake / "sys/net/ipv4").mkdir(parents=True)
    file = fake / ("sys/net/ipv4/ip_forward" if what == "proc" else "net/ipv4/ip_forward")
    replace(file, str(canary.file))
    (made.rootfs / what).mkdir(exist_ok=True)
    rt.user.owns(made.rootfs)

    def change(config: dict[str, object]) -> None:
        linux = config["linux"]
        assert isinstance(linux, dict)
        if {"type": "network"} not in linux["namespaces"]:
            linux["namespaces"].append({"type": "network"})
        linux["sysctl"] = {"net.ipv4.ip_forward": "1"}

    made.change(change)
    before = FORWARD.read_text(), CORE.read_text()
    with racing(lambda: exchange(made.rootfs / what, fake)):
        for number in range(ROUNDS):
            done = rt("run", "--bundle", str(made.path), f"c{number}")
            canary.check()
            assert (done.returncode, done.stdout) in ((0, "1\n"), (1, "")), done
    assert (FORWARD.read_text(), CORE.read_text()) == before
