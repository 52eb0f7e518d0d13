"""Seccomp profiles compiled to BPF, and the programs run in a machine of our own, and once in the kernel."""

from __future__ import annotations

import ctypes
import errno
import json
import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import seccomp_machine as machine
from lab.seccomp_machine import (
    ALLOW,
    ENOSYS,
    EPERM,
    ERRNO,
    KILL_PROCESS,
    KILL_THREAD,
    X32_BIT,
    X86,
    X86_64,
    run,
)

from rootless_rt.errors import RtError, SpecError
from rootless_rt.host import seccomp_compile, seccomp_enosys
from rootless_rt.host.abilities import seccomp_flags
from rootless_rt.host.seccomp import NEW_LISTENER, library_file
from rootless_rt.host.seccomp_compile import compile as compile_profile
from rootless_rt.spec import names

pytestmark = pytest.mark.skipif(library_file() is None, reason="libseccomp.so.2 is not installed")
x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")

DOCKER_LIKE = json.loads((Path(__file__).parent.parent / "data/seccomp-docker-like.json").read_text())
ALL_X86 = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]


def number(arch: int, name: str) -> int:
    resolve = ctypes.CDLL(library_file() or "").seccomp_syscall_resolve_name_arch
    return int(resolve(ctypes.c_uint32(arch), name.encode()))


def name_of(arch: int, nr: int) -> str:
    resolve = ctypes.CDLL(library_file() or "").seccomp_syscall_resolve_num_arch
    resolve.restype = ctypes.c_char_p
    return (resolve(ctypes.c_uint32(arch), nr) or b"").decode()


def rule(*names, action="SCMP_ACT_ALLOW", **more):
    return {"names": list(names), "action": action, **more}


def arg(index, op, value, second=0):
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second}


def profile(*rules, default="SCMP_ACT_ERRNO", **more):
    return {"defaultAction": default, "syscalls": list(rules), **more}


def program(*rules, **more):
    return compile_profile(profile(*rules, **more))[0]


@pytest.fixture(scope="module")
def docker_like():
    return compile_profile(DOCKER_LIKE)


@x86_only
@pytest.mark.parametrize("arch", [X86_64, X86, 0x4000003E], ids=["x86_64", "x86", "x32"])
def test_every_allowed_name_is_allowed_and_every_other_number_is_not(docker_like, arch):
    named = set(DOCKER_LIKE["syscalls"][0]["names"])
    kernel_arch = X86 if arch == X86 else X86_64
    base = X32_BIT if arch == 0x4000003E else 0
    with_arguments = {"personality", "clone", "clone3", "socket", "socketcall"}
    for nr in range(base, base + 600):
        name = name_of(arch, nr)
        if name not in with_arguments:
            assert (run(docker_like[0], kernel_arch, nr) == ALLOW) == (name in named), name


@x86_only
@pytest.mark.covers("linux.seccomp.defaultErrnoRet")
def test_denied_calls_get_the_default_errno(docker_like):
    assert run(docker_like[0], X86_64, number(X86_64, "ptrace")) == EPERM
    other = program(rule("clone3"), defaultErrnoRet=13)
    assert run(other, X86_64, number(X86_64, "ptrace")) == ERRNO | 13


@x86_only
def test_the_docker_like_profile_is_a_short_walk_for_every_call(docker_like):
    assert docker_like[2:] == ([], [])
    assert len(docker_like[0]) // 8 < 2000


@x86_only
def test_an_unlisted_clone_flag_is_refused_by_its_mask(docker_like):
    clone = number(X86_64, "clone")
    assert run(docker_like[0], X86_64, clone, 0x11) == ALLOW
    assert run(docker_like[0], X86_64, clone, 0x10000011) == EPERM  # CLONE_NEWUSER
    assert run(docker_like[0], X86_64, number(X86_64, "clone3")) == ENOSYS


@x86_only
def test_personality_takes_each_of_its_values_and_no_other(docker_like):
    personality = number(X86_64, "personality")
    for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert run(docker_like[0], X86_64, personality, value) == ALLOW
        assert run(docker_like[0], X86_64, personality, value | 1 << 32) == EPERM
    assert run(docker_like[0], X86_64, personality, 1) == EPERM


@x86_only
@pytest.mark.covers("linux.seccomp.syscalls[].args[].valueTwo")
def test_masked_comparison_looks_at_the_high_half():
    # CVE-2019-10063: a filter on 32 of the 64 bits is bypassed with the others.
    ioctl = number(X86_64, "ioctl")
    denies = program(
        rule("ioctl", action="SCMP_ACT_ERRNO", args=[arg(1, "MASKED_EQ", 0xFFFFFFFF, 0x5412)]),
        default="SCMP_ACT_ALLOW",
    )
    assert run(denies, X86_64, ioctl, 0, 0x5412) == EPERM
    assert run(denies, X86_64, ioctl, 0, 0x5412 | 1 << 35) == EPERM
    assert run(denies, X86_64, ioctl, 0, 0x5413) == ALLOW
    high = program(rule("ioctl", "clone3", args=[arg(1, "MASKED_EQ", 0xFF << 32, 0x12 << 32)]))
    assert run(high, X86_64, ioctl, 0, 0x12 << 32 | 0x999) == ALLOW
    assert run(high, X86_64, ioctl, 0, 0x13 << 32) == EPERM
    assert run(high, X86_64, ioctl, 0, 0x12) == EPERM


MATCHES = {
    "NE": lambda a, b, _: a != b,
    "LT": lambda a, b, _: a < b,
    "LE": lambda a, b, _: a <= b,
    "EQ": lambda a, b, _: a == b,
    "GE": lambda a, b, _: a >= b,
    "GT": lambda a, b, _: a > b,
    "MASKED_EQ": lambda a, mask, b: a & mask == b,
}
words = st.one_of(st.integers(0, 3), st.sampled_from([2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1]))


@x86_only
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(MATCHES)), words, words, words)
@pytest.mark.covers("linux.seccomp.syscalls[].args[].op", "linux.seccomp.syscalls[].args[].value")
def test_each_operator_compares_all_64_bits(op, first, second, given_value):
    if op == "MASKED_EQ":
        second &= first
    got = run(
        program(rule("fcntl", "clone3", args=[arg(2, op, first, second)])),
        X86_64,
        number(X86_64, "fcntl"),
        0,
        0,
        given_value,
    )
    assert got == (ALLOW if MATCHES[op](given_value, first, second) else EPERM)


@x86_only
def test_conditions_on_different_arguments_must_all_hold():
    both = program(rule("fcntl", "clone3", args=[arg(0, "EQ", 3), arg(1, "GE", 7)]))
    fcntl = number(X86_64, "fcntl")
    assert run(both, X86_64, fcntl, 3, 7) == ALLOW
    assert run(both, X86_64, fcntl, 3, 6) == EPERM
    assert run(both, X86_64, fcntl, 4, 7) == EPERM


@x86_only
def test_conditions_on_the_same_argument_are_alternatives():
    either = program(rule("fcntl", "clone3", args=[arg(1, "EQ", 1), arg(1, "EQ", 5), arg(0, "EQ", 9)]))
    fcntl = number(X86_64, "fcntl")
    assert run(either, X86_64, fcntl, 0, 1) == ALLOW
    assert run(either, X86_64, fcntl, 0, 5) == ALLOW
    assert run(either, X86_64, fcntl, 9, 0) == ALLOW
    assert run(either, X86_64, fcntl, 0, 0) == EPERM


@x86_only
@pytest.mark.parametrize(
    ("action", "more", "value"),
    [
        ("SCMP_ACT_KILL", {}, KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", {}, KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", {}, KILL_PROCESS),
        ("SCMP_ACT_TRAP", {}, machine.TRAP),
        ("SCMP_ACT_ERRNO", {}, EPERM),
        ("SCMP_ACT_ERRNO", {"errnoRet": 22}, ERRNO | 22),
        ("SCMP_ACT_TRACE", {}, machine.TRACE | 1),
        ("SCMP_ACT_TRACE", {"errnoRet": 7}, machine.TRACE | 7),
        ("SCMP_ACT_LOG", {}, machine.LOG),
    ],
)
@pytest.mark.covers("linux.seccomp.syscalls[].action", "linux.seccomp.defaultAction")
def test_each_action_returns_its_value(action, more, value):
    code = program(rule("mount", action=action, **more), default="SCMP_ACT_ALLOW")
    assert run(code, X86_64, number(X86_64, "mount")) == value
    assert run(code, X86_64, number(X86_64, "read")) == ALLOW


@x86_only
def test_calls_newer_than_the_newest_named_return_enosys():
    code = program(rule("read", "openat2"), architectures=ALL_X86)
    newest = number(X86_64, "openat2")
    assert run(code, X86_64, newest) == ALLOW
    assert run(code, X86_64, newest - 1) == EPERM
    for nr in (newest + 1, 500, 0x3FFFFFFF):
        assert run(code, X86_64, nr) == ENOSYS
        assert run(code, X86, nr) == ENOSYS


@x86_only
def test_x32_numbers_have_their_own_newest_and_their_own_table():
    code = program(rule("read", "execve", "openat2"), architectures=ALL_X86)
    newest = X32_BIT + 437
    assert number(0x4000003E, "execve") == X32_BIT + 520  # beyond openat2, but not newer
    assert run(code, X86_64, newest) == ALLOW
    assert run(code, X86_64, newest + 1) == ENOSYS
    assert run(code, X86_64, X32_BIT + 520) == ALLOW
    assert run(code, X86_64, X32_BIT + 521) == EPERM
    assert run(code, X86_64, X32_BIT + 548) == ENOSYS


@x86_only
def test_x32_calls_are_killed_when_the_profile_has_no_x32():
    code = program(rule("read", "openat2"), architectures=["SCMP_ARCH_X86_64"])
    assert run(code, X86_64, X32_BIT) == KILL_THREAD
    assert run(code, X86_64, X32_BIT + 600) == KILL_THREAD


@x86_only
@pytest.mark.covers("linux.seccomp.architectures")
def test_other_architectures_are_killed_and_get_no_enosys():
    code = program(rule("read", "openat2"))
    assert run(code, machine.AARCH64, 9999) == KILL_THREAD
    assert run(code, X86, 9999) == KILL_THREAD


@x86_only
@pytest.mark.parametrize("default", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"])
def test_a_default_that_lets_calls_through_hides_no_newer_call(default):
    code = program(rule("mount", action="SCMP_ACT_KILL"), default=default)
    assert run(code, X86_64, 5000) not in (ENOSYS, EPERM)


@x86_only
def test_the_stub_comes_with_killing_defaults_and_not_with_an_empty_profile():
    assert run(program(rule("read"), default="SCMP_ACT_KILL_PROCESS"), X86_64, 5000) == ENOSYS
    assert run(program(), X86_64, 5000) == EPERM


@x86_only
def test_a_rule_that_repeats_the_default_counts_as_named():
    code = program(rule("read"), rule("openat2", action="SCMP_ACT_ERRNO"))
    assert run(code, X86_64, number(X86_64, "openat2")) == EPERM
    assert run(code, X86_64, number(X86_64, "openat2") + 1) == ENOSYS


def stub(newest):
    """The stub alone, in front of a filter that allows all."""
    return seccomp_enosys.stub(newest) + struct.pack("=HBBI", 0x06, 0, 0, ALLOW)


def test_private_calls_of_arm_are_not_newer_calls():
    newest = seccomp_compile._newest(seccomp_compile._load(), [machine.ARM], {"openat2", "set_tls"})
    assert newest == {machine.ARM: 437}
    assert run(stub(newest), machine.ARM, 0xF0005) == ALLOW
    assert run(stub(newest), machine.ARM, 438) == ENOSYS
    assert run(stub(newest), machine.ARM, 0xF0800) == ENOSYS


def test_number_zero_of_s390_means_unknown():
    code = stub({machine.S390X: 437})
    assert run(code, machine.S390X, 0) == ENOSYS
    assert run(code, machine.S390X, 1) == ALLOW
    assert run(code, X86_64, 0) == ALLOW


def test_the_stub_holds_with_many_architectures():
    newest = dict.fromkeys(range(1, 20), 437)
    for arch in newest:
        assert run(stub(newest), arch, 437) == ALLOW
        assert run(stub(newest), arch, 438) == ENOSYS
    assert run(stub(newest), 99, 438) == ALLOW


def test_x32_without_its_brother_leaves_64_bit_numbers_alone():
    code = stub({0x4000003E: X32_BIT + 437})
    assert run(code, X86_64, 9999) == ALLOW
    assert run(code, X86_64, X32_BIT + 438) == ENOSYS


def test_unknown_names_are_named_in_one_note_or_a_warning_if_that_lets_them_through():
    _, _, warnings, notes = compile_profile(
        profile(rule("read", "no_such_call", "re\nad", "read\0x", "\udc80"))
    )
    (line,) = notes
    assert warnings == []
    assert "no_such_call, 're\\nad', 'read\\x00x', '\\udc80'" in line
    assert line.endswith("they stay denied")
    assert "NOT restricted" in compile_profile(profile(rule("no_such_call"), default="SCMP_ACT_ALLOW"))[2][0]


def test_unknown_architectures_are_dropped_with_a_note():
    _, _, warnings, notes = compile_profile(profile(rule("read"), architectures=["SCMP_ARCH_VAX"]))
    assert "SCMP_ARCH_VAX" in notes[0] and warnings == []


@pytest.mark.parametrize(
    ("flags", "bits"),
    [
        ({}, 4),
        ({"flags": None}, 4),
        ({"flags": []}, 0),
        ({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]}, 2),
        ({"flags": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, 4),
    ],
)
@pytest.mark.covers("linux.seccomp.flags")
def test_flags_become_bits(flags, bits):
    assert compile_profile(profile(rule("read"), **flags))[1] == bits


NOTIFY = rule("mount", action="SCMP_ACT_NOTIFY")


@x86_only
def test_a_notifying_rule_asks_for_a_listener_and_returns_its_action():
    code, flags, warnings, notes = compile_profile(profile(NOTIFY, default="SCMP_ACT_ALLOW", flags=[]))
    assert (flags, warnings, notes) == (NEW_LISTENER, [], [])
    assert run(code, X86_64, number(X86_64, "mount")) == 0x7FC00000
    assert run(code, X86_64, number(X86_64, "umount2")) == ALLOW


@x86_only
def test_a_notifying_rule_counts_for_the_age_of_a_profile():
    code = program(rule("read"), rule("openat2", action="SCMP_ACT_NOTIFY"))
    assert run(code, X86_64, number(X86_64, "openat2")) == 0x7FC00000
    assert run(code, X86_64, number(X86_64, "openat2") - 1) == EPERM
    assert run(code, X86_64, number(X86_64, "openat2") + 1) == ENOSYS


@pytest.mark.covers("linux.seccomp.flags")
def test_with_a_listener_waiting_can_be_killable_and_tsync_stays_without_effect():
    every = [f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")]
    if every[-1] not in seccomp_flags():
        pytest.skip("this kernel has no WAIT_KILLABLE_RECV")
    assert compile_profile(profile(NOTIFY, flags=every))[1] == 2 | 4 | NEW_LISTENER | 32
    assert compile_profile(profile(NOTIFY, flags=None))[1] == 4 | NEW_LISTENER


def test_a_flag_that_the_kernel_lacks_is_refused_and_is_not_the_default(monkeypatch):
    monkeypatch.setattr(seccomp_compile, "seccomp_flags", lambda: ())
    assert compile_profile(profile(rule("read")))[1] == 0
    assert compile_profile(profile(rule("read"), flags=["SECCOMP_FILTER_FLAG_TSYNC"]))[1] == 0
    for name in ("LOG", "SPEC_ALLOW"):
        with pytest.raises(SpecError, match="this kernel does not have"):
            compile_profile(profile(rule("read"), flags=[f"SECCOMP_FILTER_FLAG_{name}"]))
    with pytest.raises(SpecError, match="WAIT_KILLABLE_RECV"):
        compile_profile(profile(NOTIFY, flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]))


def known_architectures():
    """Those that this libseccomp can add to a filter on this machine: name -> token."""
    library = seccomp_compile._load()
    found = {}
    for name in names.SECCOMP_ARCHES:
        token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
        context = library.seccomp_init(ALLOW)
        added = token and library.seccomp_arch_add(context, token) in (0, -errno.EEXIST)
        library.seccomp_release(context)
        if added:
            found[name] = token
    return found


@pytest.mark.covers("linux.seccomp.architectures")
@pytest.mark.parametrize("name", names.SECCOMP_ARCHES)
def test_each_architecture_is_filtered_by_its_own_numbers_or_noted(name):
    code, _, warnings, notes = compile_profile(
        profile(rule("read", "openat2"), rule("close", action="SCMP_ACT_KILL"), architectures=[name])
    )
    token = known_architectures().get(name)
    if token is None:
        assert warnings == [] and name in notes[0]
        return
    arch = X86_64 if token == 0x4000003E else token
    newest = number(token, "openat2")
    assert run(code, arch, number(token, "read")) == ALLOW
    assert run(code, arch, number(token, "write")) == EPERM
    assert run(code, arch, number(token, "close")) == KILL_THREAD
    assert run(code, arch, newest) == ALLOW
    assert run(code, arch, newest + 1) == ENOSYS


def test_all_architectures_together_fit_in_a_program():
    every = profile(rule("read", "openat2"), architectures=list(names.SECCOMP_ARCHES))
    code = compile_profile(every)[0]
    for token in known_architectures().values():
        arch = X86_64 if token == 0x4000003E else token
        assert run(code, arch, number(token, "openat2")) == ALLOW
        assert run(code, arch, number(token, "openat2") + 1) == ENOSYS


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (profile(defaultErrnoRet=65536), "linux.seccomp.defaultErrnoRet"),
        (profile(default="SCMP_ACT_KILL", defaultErrnoRet=1), "linux.seccomp.defaultErrnoRet"),
        (profile(rule("read", errnoRet=1)), "linux.seccomp.syscalls[0].errnoRet"),
        (profile(rule("read", args=[arg(6, "EQ", 0)])), "linux.seccomp.syscalls[0].args[0].index"),
        (profile(rule("read", args=[arg(0, "EQ", 2**64)])), "linux.seccomp.syscalls[0].args[0]"),
        (profile(rule("read", args=[arg(0, "LIKE", 0)])), "linux.seccomp.syscalls[0].args[0].op"),
        (profile(flags=["X"]), "linux.seccomp.flags[0]"),
    ],
)
def test_what_cannot_be_compiled_is_named_by_its_path(wrong, path):
    with pytest.raises(SpecError) as caught:
        compile_profile(wrong)
    assert caught.value.path == path


def test_a_missing_libseccomp_is_an_error_with_the_package_to_install(monkeypatch):
    monkeypatch.setattr(seccomp_compile, "library_file", lambda: "/nonexistent/libseccomp.so.2")
    with pytest.raises(RtError) as caught:
        compile_profile(profile())
    assert "libseccomp2" in (caught.value.hint or "")


@pytest.mark.parametrize("count", [2000, 3000])
def test_a_program_longer_than_the_kernel_takes_is_refused(count):
    many = rule("fcntl", args=[arg(0, "EQ", 2 * value + (value << 34)) for value in range(count)])
    with pytest.raises(RtError, match="4096"):
        compile_profile(profile(many))


@x86_only
def test_pyseccomp_makes_the_same_program_after_the_stub(docker_like, tmp_path):
    pyseccomp = pytest.importorskip("pyseccomp")
    theirs = pyseccomp.SyscallFilter(ERRNO | 1)
    for arch in ("X86", "X32"):
        theirs.add_arch(getattr(pyseccomp.Arch, arch))
    for entry in DOCKER_LIKE["syscalls"]:
        action = ALLOW if entry["action"] == "SCMP_ACT_ALLOW" else ERRNO | entry["errnoRet"]
        args = [
            pyseccomp.Arg(a["index"], getattr(pyseccomp, a["op"][9:]), a["value"], a["valueTwo"])
            for a in entry.get("args", ())
        ]
        for name in entry["names"]:
            theirs.add_rule(action, name, *args)
    theirs.set_attr(8, 2)
    with open(tmp_path / "bpf", "w+b") as out:
        theirs.export_bpf(out)
    exported = (tmp_path / "bpf").read_bytes()
    ours = docker_like[0]
    assert ours.endswith(exported)
    assert 0 < len(ours) - len(exported) < 20 * 8


LOADER = """
import ctypes, errno, os, struct, sys
program = bytes.fromhex(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(program, len(program))
fprog = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
status = libc.syscall(int(sys.argv[3]), 1, int(sys.argv[2]), ctypes.create_string_buffer(fprog))
if status:
    os._exit(100 + ctypes.get_errno())
try:
    os.mkdir("/tmp/never-made-by-a-filtered-process")
except OSError as error:
    ctypes.set_errno(0)
    libc.syscall(0x3FFFFFFE)
    os._exit(0 if (error.errno, ctypes.get_errno()) == (errno.EPERM, errno.ENOSYS) else 2)
os._exit(3)
"""


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="no number of seccomp(2) here for this machine"
)
def test_the_kernel_takes_the_program_and_obeys_it():
    names = [name for name in DOCKER_LIKE["syscalls"][0]["names"] if name not in ("mkdir", "mkdirat")]
    code, flags, _, _ = compile_profile(profile(rule(*names)))
    nr = {"x86_64": "317", "aarch64": "277"}[platform.machine()]
    child = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOADER, code.hex(), str(flags), nr], check=False, timeout=30
    )
    assert child.returncode == 0
