"""CVE-2025-52565: the terminal that is bound on /dev/console is exchanged for a symlink of the image."""

from __future__ import annotations

import pytest
from conftest import Either
from lab.attack import ROUNDS, TEXT, Canary, exchange, racing, trap, without_mount
from lab.terminal import Session

LINKS = ["{canary}/file", "{canary}/made", "../../../../../../../..{canary}/file", "/proc/self/attr/exec"]


@pytest.mark.parametrize("target", LINKS)
@pytest.mark.parametrize("where", ["dev/console", "dev/pts", "dev/ptmx", "dev/tty"])
def test_no_link_gets_the_terminal(either: Either, canary: Canary, where: str, target: str) -> None:
    rt, bundle = either
    made = bundle(f"cat /dev/console {canary.file} </dev/null 2>/dev/null & sleep 0.1; kill $!; exit 0")
    trap(without_mount(made, "/dev"), where, target, canary)
    made.change(lambda config: config["process"].update(terminal=True))
    with Session(rt, "run", "--bundle", str(made.path), "c") as session:
        assert session.wait() in (0, 1)
        shown = session.rest()
    assert TEXT.strip() not in shown and "Traceback" not in shown, shown
    canary.check()


@pytest.mark.parametrize("where", ["dev/console", "dev"])
def test_nor_one_that_is_exchanged_with_it_during_the_run(either: Either, canary: Canary, where: str) -> None:
    rt, bundle = either
    made = without_mount(bundle("exit 0"), "/dev")
    real, fake = made.rootfs / where, made.rootfs / "fake"
    if where == "dev/console":
        real.touch()
    fake.symlink_to(canary.file if where == "dev/console" else canary.path)
    rt.user.owns(made.rootfs)
    made.change(lambda config: config["process"].update(terminal=True))
    with racing(lambda: exchange(real, fake)):
        for number in range(ROUNDS):
            with Session(rt, "run", "--bundle", str(made.path), f"c{number}") as session:
                assert session.wait() in (0, 1)
            canary.check()
