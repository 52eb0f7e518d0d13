"""A user whose quota of kernel keys is used up (keyrings(7))."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.users import User
from lab.waiting import until

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


def keys_of(user: User) -> int:
    """How many keys count against the user's quota, as /proc/key-users has it."""
    for line in Path("/proc/key-users").read_text().splitlines():
        owner, _, rest = line.partition(":")
        if int(owner) == user.uid:
            return int(rest.split()[2].partition("/")[0])
    return 0


@contextmanager
def no_keys_left(user: User) -> Iterator[None]:
    """While it lasts the kernel gives the user no further key."""
    number = ADD_KEY.get(platform.machine())
    if number is None:
        pytest.skip("the number of add_key(2) is not known for this machine")
    before = keys_of(user)
    ids = {"user": user.uid, "group": user.gid, "extra_groups": []} if os.getuid() != user.uid else {}
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
    # A worker of the kernel gives them back in its own time; until then whoever comes next has none.
    until(lambda: keys_of(user) <= before, lambda: f"{keys_of(user)} keys of {user.name}'s are left")
