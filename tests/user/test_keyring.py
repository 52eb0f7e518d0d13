"""The session keyring: a new one, the caller's when asked for, and what happens without keys left."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import MakeBundle
from lab.inside import held
from lab.runtime import Runtime
from lab.users import User

ADD_KEY = {"x86_64": 248, "aarch64": 217}
# Takes every key that its user may have, and those that others still give back, until its parent ends.
GREEDY = """
import ctypes, os, sys, time
number, add = int(sys.argv[1]), ctypes.CDLL(None, use_errno=True).syscall
count, parent, told = 0, os.getppid(), False
while os.getppid() == parent:
    if count < 100000 and add(number, b"user", b"rt-test-%d" % count, b"x", 1, -2) > 0:
        count += 1
        continue
    if not told:
        print(count, ctypes.get_errno(), flush=True)
        told = True
    time.sleep(0.01)
"""
NAME = "grep -c _ses.c /proc/keys || true"


@pytest.fixture
def no_keys_left(alice: User) -> Iterator[None]:
    number = ADD_KEY.get(platform.machine())
    if number is None:
        pytest.skip("the number of add_key(2) is not known for this machine")
    ids = {"user": alice.uid, "group": alice.gid, "extra_groups": []} if os.getuid() != alice.uid else {}
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", GREEDY, str(number)],
        stdout=subprocess.PIPE,
        cwd="/",
        **ids,
    ) as process:
        assert process.stdout is not None
        count, reason = process.stdout.readline().split()
        try:
            if int(reason) != 122:  # EDQUOT
                pytest.skip(f"this kernel gave {int(count)} keys, and then errno {int(reason)}")
            yield
        finally:
            process.kill()


@pytest.mark.covers("run", "create --no-new-keyring", "run --no-new-keyring")
def test_without_keys_left_the_caller_s_keyring_is_kept_with_a_warning(
    rt: Runtime, bundle: MakeBundle, no_keys_left: None
) -> None:
    box = bundle(["/bin/true"])
    done = rt("run", "-b", str(box.path), "c")
    line, hint = done.stderr.splitlines()
    assert done.returncode == 0
    assert line.startswith("rt: warning: session keyring: a new one -> the caller's: ")
    assert hint == "hint: more keys: sysctl kernel.keys.maxkeys; none wanted: --no-new-keyring"
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
