"""The program rt-init as it was built, and what it does with a plan it refuses: nothing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
from pathlib import Path

import pytest

from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.plan.ops import Op, encode


@pytest.fixture
def program() -> Path:
    try:
        return Path(launch.program_path())
    except RtError:
        pytest.skip("rt-init is not built: make build")


LOAD, DYNAMIC, INTERP, STACK, RELRO = 1, 2, 3, 0x6474E551, 0x6474E552
EXECUTE, WRITE = 1, 2


def segments(elf: bytes) -> list[tuple[int, int]]:
    """(type, flags) of the program headers (elf(5)) of a 64-bit little-endian file."""
    if elf[:6] != b"\x7fELF\x02\x01":
        pytest.skip("reads 64-bit little-endian files only")
    offset, size, count = struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54)
    return [struct.unpack_from("<II", elf, offset + index * size) for index in range(count)]


def test_no_memory_is_writable_and_executable_and_relocations_are_read_only(program: Path) -> None:
    found = segments(program.read_bytes())
    assert all(not (flags & WRITE and flags & EXECUTE) for _, flags in found)
    assert [flags & EXECUTE for kind, flags in found if kind == STACK] == [0]
    assert [kind for kind, _ in found if kind == RELRO] == [RELRO]


def test_it_loads_nothing_at_its_start(program: Path) -> None:
    kinds = {kind for kind, _ in segments(program.read_bytes())}
    assert LOAD in kinds and not kinds & {DYNAMIC, INTERP}


def test_functions_with_arrays_check_their_stack(program: Path) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("knows the instruction of x86_64 only")
    canary = re.compile(rb"\x64\x48[\x03\x2b\x33\x39\x3b\x8b][\x04-\x3c]\x25\x28\x00\x00\x00")
    assert len(canary.findall(program.read_bytes())) > 50, "reads of %fs:0x28"


# All that may be done before the plan has been read to its end, the start of musl and of glibc included.
HARMLESS = """
    execve brk arch_prctl set_tid_address set_robust_list rseq prlimit64 readlink readlinkat getrandom
    mprotect mmap munmap mremap close_range rt_sigaction rt_sigprocmask umask recvmsg fstat newfstatat close
    sendmsg exit_group
"""
# Of no harm to this machine should it be performed, as it is when the check is taken out.
GOOD = encode(
    [Op("unshare", 0), Op("oom_score_adj", "0"), Op("symlink", 0, "trace", "target"), Op("exec", ["a"], [])]
)
MALFORMED = {
    "a byte less": GOOD[:-1],
    "a byte more": GOOD + b"\0",
    "an op too few": GOOD[:12] + struct.pack("<I", 3) + GOOD[16:],
    "an unknown op at the end": GOOD[:8]
    + struct.pack("<II", len(GOOD) + 8, 5)
    + GOOD[16:]
    + struct.pack("<II", 0xFFFF, 0),
    "another magic": b"rtplan2\0" + GOOD[8:],
}


@pytest.mark.parametrize("wire", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_plan_is_refused_before_any_call_that_changes_something(
    program: Path, tmp_path: Path, wire: bytes
) -> None:
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("needs strace")
    out, place = tmp_path / "calls", tmp_path / "place"
    place.mkdir()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    plan, root = launch._sealed_plan(wire), os.open(place, os.O_RDONLY)
    words = [strace, "-f", "-o", str(out), str(program)]
    actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)]
    process = os.posix_spawn(strace, words, {}, file_actions=actions)
    theirs.close()
    socket.send_fds(ours, [struct.pack("<Q", 1)], [plan, root])
    answer = ours.recv(8192)
    os.waitpid(process, 0)
    ours.close()
    os.close(plan)
    os.close(root)
    calls = re.findall(r"^\d+ +(\w+)\(", out.read_text(), re.MULTILINE)
    if not calls:
        pytest.skip("strace cannot trace here")
    assert b"the plan is malformed" in answer
    assert set(calls) - set(HARMLESS.split()) == set()
    assert list(place.iterdir()) == []
