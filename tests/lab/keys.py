"""A user whose quota of kernel keys is used up (keyrings(7))."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

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


@contextmanager
def no_keys_left(user: User) -> Iterator[None]:
    """While it lasts the kernel gives the user no further key."""
    number = ADD_KEY.get(platform.machine())
    if number is None:
        pytest.skip("the number of add_key(2) is not known for this machine")
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
