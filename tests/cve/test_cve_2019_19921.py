"""CVE-2019-19921: /proc of the image is a symlink, or becomes one by a volume that two containers share."""

from __future__ import annotations

import pytest
from conftest import Either
from lab.attack import ROUNDS, TEXT, Canary, compiled, every_target, harmless, trap
from lab.inside import bind, with_mounts

EXCHANGE = r"""
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
	for (;;)
		syscall(SYS_renameat2, AT_FDCWD, "/other/proc", AT_FDCWD, "/other/fake", 2);
}
"""


@every_target
@pytest.mark.parametrize("where", ["proc", "sys"])
def test_a_link_in_place_of_a_directory(either: Either, canary: Canary, where: str, target: str) -> None:
    rt, bundle = either
    made = bundle(f"cat {canary.path}/file /tmp/made 2>/dev/null; exit 0")
    trap(made, where, target, canary)
    assert harmless(rt, made, canary) == 1


def test_a_container_cannot_move_the_proc_of_another(either: Either, canary: Canary) -> None:
    """Nothing of the host is mounted over, read or written, and no masked path comes to light."""
    rt, bundle = either
    made = bundle(
        "cat /proc/file /fake/file; echo x >/proc/file; cat /proc/version /proc/1/../version; exit 0"
    )
    made.change(lambda config: config["linux"]["maskedPaths"].append("/proc/version"))
    (made.rootfs / "fake").symlink_to(canary.path)
    rt.user.owns(made.rootfs)
    attacker = bundle(["/exchange"])
    compiled(EXCHANGE, attacker.rootfs / "exchange")
    with_mounts(attacker, bind("/other", made.rootfs))
    rt.ok("run", "--detach", "--bundle", str(attacker.path), "attacker")
    try:
        for number in range(ROUNDS):
            done = rt("run", "--bundle", str(made.path), f"c{number}")
            canary.check()
            assert done.returncode in (0, 1) and TEXT not in done.stdout, done
            assert "Linux version" not in done.stdout, done
    finally:
        rt("delete", "--force", "attacker")
