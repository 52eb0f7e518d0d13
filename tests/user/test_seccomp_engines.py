"""The default profiles of engines on this kernel, and how a C library gets along with old ones."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import subprocess
from typing import Any

import pytest
from conftest import MakeBundle
from lab import engine_profiles as engines
from lab import seccomp_machine as machine
from lab.bundles import Bundle, Config
from lab.inside import bind, with_mounts
from lab.runtime import Runtime

from rootless_rt.host.seccomp import library_file
from rootless_rt.host.seccomp_compile import compile as compile_profile

PYTHON = "/usr/bin/python3"
# uretprobe and uprobe: the kernel (6.14) asks no filter about them, and SIGILL is for who calls them by hand.
UNFILTERED = (335, 336)
# The highest numbers are those of calls that this kernel may not have either.
HIGHEST = 480
OLD = 334  # rseq: faccessat2, clone3, openat2 and close_range are all newer

pytestmark = [
    pytest.mark.skipif(library_file() is None, reason="libseccomp.so.2 is not installed"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64"),
    pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason=f"needs {PYTHON}"),
]

# Reads [[number, argument...], ...] from its command line, prints the errno of each call, 0 for a success.
CALLS = """
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def errno(call):
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(*map(ctypes.c_long, call)) == -1 else 0
print(json.dumps([errno(call) for call in json.loads(sys.argv[1])]))
"""

# What glibc does with newer calls where it can, and with the old ones else.
NEWER = """
import os, subprocess, sys, threading
done = []
thread = threading.Thread(target=lambda: done.append("thread"))  # clone3
thread.start(); thread.join()
argv = [sys.executable, "-I", "-S", "-c", "print('child')"]
done.append(subprocess.run(argv, capture_output=True, text=True).stdout.strip())  # clone3, close_range
done.append(str(os.access("/proc", os.X_OK, effective_ids=True)))  # faccessat2
print(*done)
"""


def number(name: str) -> int:
    return int(ctypes.CDLL(library_file() or "").seccomp_syscall_resolve_name(name.encode()))


def old_profile(**more: Any) -> dict[str, Any]:
    """Whatever a Linux of 2018 had, as its author would list it."""
    resolve = ctypes.CDLL(library_file() or "").seccomp_syscall_resolve_num_arch
    resolve.restype = ctypes.c_char_p
    names = [(resolve(ctypes.c_uint32(machine.X86_64), nr) or b"").decode() for nr in range(OLD + 1)]
    rules = [{"names": [name for name in names if name], "action": "SCMP_ACT_ALLOW"}]
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules, **more}


def with_python(box: Bundle, profile: dict[str, Any], script: str, *args: str) -> Bundle:
    """A container that executes a script with this machine's Python and C library, under a profile."""
    for place in ("/usr", "/lib", "/lib64"):
        with_mounts(box, bind(place, os.path.realpath(place), "ro", "rbind"))

    def change(config: Config) -> None:
        config["linux"]["seccomp"] = profile

    return box.change(change).run([PYTHON, "-I", "-S", "-c", script, *args])


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_each_call_that_the_interpreter_says_is_denied_is_denied_by_the_kernel(
    rt: Runtime, bundle: MakeBundle, engine: str
) -> None:
    profile = engines.docker() if engine == "docker" else engines.podman()
    program = compile_profile(profile)[0]
    predicted = {
        nr: answer & 0xFFFF
        for nr in range(HIGHEST)
        if nr not in UNFILTERED
        and (answer := machine.run(program, machine.X86_64, nr)) & 0xFFFF0000 == machine.ERRNO
    }
    assert len(predicted) > 60
    calls = json.dumps([[nr, 0, 0, 0, 0, 0, 0] for nr in predicted])
    said = rt.ok("run", "-b", str(with_python(bundle(), profile, CALLS, calls).path), "c")
    assert dict(zip(predicted, json.loads(said), strict=True)) == predicted


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_arguments_decide_in_the_kernel_as_in_the_interpreter(
    rt: Runtime, bundle: MakeBundle, engine: str
) -> None:
    profile = engines.docker() if engine == "docker" else engines.podman()
    denied = errno.EPERM if engine == "docker" else errno.ENOSYS
    docker = engine == "docker"
    new_user = 0x10000000
    cases = [
        ([number("personality"), 0], 0),
        ([number("personality"), 0xFFFFFFFF], 0),
        ([number("personality"), 1], denied),
        ([number("personality"), 1 << 32], denied),
        ([number("socket"), 1, 1, 0], 0),
        ([number("socket"), 16, 3, engines.NETLINK_AUDIT], None if docker else errno.EINVAL),
        ([number("clone"), new_user, 0, 0, 0, 0], errno.EPERM if docker else None),
        ([number("clone3"), 0, 0], errno.ENOSYS if docker else errno.EINVAL),
        ([number("unshare"), 0], errno.EPERM if docker else 0),
        ([number("ptrace"), 0x4200, 1 << 30], errno.ESRCH if docker else errno.EPERM),
        ([HIGHEST + 500, 0], errno.ENOSYS),
    ]
    cases = [case for case in cases if case[1] is not None]
    cases += [([number("socket"), 40, 1, 0], errno.EPERM)] if docker else []
    calls = json.dumps([call for call, _ in cases])
    said = rt.ok("run", "-b", str(with_python(bundle(), profile, CALLS, calls).path), "c")
    assert [(call, got) for (call, _), got in zip(cases, json.loads(said), strict=True)] == cases


@pytest.mark.covers("linux.seccomp.defaultErrnoRet")
@pytest.mark.parametrize(
    "default", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL", "SCMP_ACT_TRAP"]
)
def test_a_c_library_falls_back_to_the_calls_that_an_old_profile_knows(
    rt: Runtime, bundle: MakeBundle, default: str
) -> None:
    profile = old_profile(defaultAction=default)
    said = rt.ok("run", "-b", str(with_python(bundle(), profile, NEWER).path), "c")
    assert said.split() == ["thread", "child", "True"]


def test_calls_newer_than_an_old_profile_are_enosys_and_unnamed_older_ones_are_denied(
    rt: Runtime, bundle: MakeBundle
) -> None:
    profile = old_profile(defaultErrnoRet=errno.EXDEV)
    profile["syscalls"][0]["names"].remove("acct")
    calls = [[number(name), 0, 0, 0, 0] for name in ("openat2", "clone3", "faccessat2", "pidfd_open", "acct")]
    said = rt.ok("run", "-b", str(with_python(bundle(), profile, CALLS, json.dumps(calls)).path), "c")
    assert json.loads(said) == [errno.ENOSYS] * 4 + [errno.EXDEV]


def test_without_such_a_fallback_threads_would_not_start(rt: Runtime, bundle: MakeBundle) -> None:
    """What the tests above show is not simply what glibc does anyway."""
    version = subprocess.run(["ldd", "--version"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )[0]
    if tuple(map(int, version.split()[-1].split("."))) < (2, 34):
        pytest.skip("this glibc does not use clone3")
    profile = old_profile()
    profile["syscalls"].append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1})
    done = rt("run", "-b", str(with_python(bundle(), profile, NEWER).path), "c")
    assert done.returncode == 1 and "can't start new thread" in done.stderr
