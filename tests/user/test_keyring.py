"""The session keyring: a new one, the caller's when asked for, and what happens without keys left."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from conftest import MakeBundle
from lab import keys
from lab.inside import held
from lab.refusals import named
from lab.runtime import Runtime
from lab.users import User

NAME = "grep -c _ses.c /proc/keys || true"


@pytest.fixture
def no_keys_left(alice: User) -> Iterator[None]:
    with keys.no_keys_left(alice):
        yield


@pytest.mark.covers("run", "create --no-new-keyring", "run --no-new-keyring")
def test_without_keys_left_the_caller_s_keyring_is_kept_with_a_warning(
    rt: Runtime, bundle: MakeBundle, no_keys_left: None
) -> None:
    box = bundle(["/bin/true"])
    done = rt("run", "-b", str(box.path), "c")
    line, hint = done.stderr.splitlines()
    assert done.returncode == 0 and named(done.stderr) == ["RT-QUOTA-KEYS"]
    assert line.startswith("rt: warning: session keyring: a new one -> the caller's: ")
    assert hint.startswith("hint: more keys: sysctl kernel.keys.maxkeys; none wanted: --no-new-keyring (")
    rt.ok("run", "--no-new-keyring", "-b", str(box.path), "c")
    rt.ok("create", "--no-new-keyring", "-b", str(box.path), "c")


@pytest.mark.covers("--degrade")
def test_strict_refuses_to_share_the_caller_s_keyring(
    rt: Runtime, bundle: MakeBundle, no_keys_left: None
) -> None:
    done = rt("--degrade=strict", "run", "-b", str(bundle(["/bin/true"]).path), "c")
    assert done.returncode == 1 and "session keyring: a new one is not possible" in done.stderr
    assert not (rt.root / "c").exists()


def test_what_was_degraded_is_in_the_state_and_exec_says_it_too(
    rt: Runtime, bundle: MakeBundle, no_keys_left: None
) -> None:
    assert rt("run", "-d", "-b", str(bundle(["/bin/sleep", "100"]).path), "c").returncode == 0
    assert [item["field"] for item in rt.state("c")["degraded"]] == ["session keyring"]
    done = rt("exec", "c", "true")
    assert done.returncode == 0 and done.stderr.startswith("rt: warning: session keyring: "), done.stderr


def test_exec_has_a_keyring_of_its_own(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle().change(lambda config: config["linux"].update(maskedPaths=[]))
    held(rt, box, "c")
    if not os.path.exists("/proc/keys"):
        pytest.skip("this kernel shows no keys")
    assert int(rt.ok("exec", "c", "sh", "-c", NAME)) >= 1
