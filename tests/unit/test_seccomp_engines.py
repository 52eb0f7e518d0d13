"""The default profiles of engines, compiled and asked: what happens to which call."""

from __future__ import annotations

import ctypes
import errno
import platform

import pytest
from lab import engine_profiles as engines
from lab.seccomp_machine import ALLOW, ERRNO, KILL_THREAD, X32_BIT, X86, X86_64, run

from rootless_rt.host.seccomp import MAX_INSTRUCTIONS, library_file
from rootless_rt.host.seccomp_compile import compile as compile_profile

pytestmark = [
    pytest.mark.skipif(library_file() is None, reason="libseccomp.so.2 is not installed"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64"),
]

X32 = 0x4000003E
# Architecture of libseccomp -> what the kernel calls it.
KERNEL = {X86_64: X86_64, X86: X86, X32: X86_64}
EPERM, ENOSYS, EINVAL = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS, ERRNO | errno.EINVAL
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK = 1, 2, 10, 16, 17, 40
SIGCHLD = 17
NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
THREAD = 0x3D0F00  # what pthread_create(3) asks for


def number(arch: int, name: str) -> int:
    """-1, or another negative number, for what the architecture does not have."""
    resolve = ctypes.CDLL(library_file() or "").seccomp_syscall_resolve_name_arch
    return int(resolve(ctypes.c_uint32(arch), name.encode()))


@pytest.fixture(scope="module")
def programs() -> dict[str, bytes]:
    made = {}
    for name, profile in (("docker", engines.docker()), ("podman", engines.podman())):
        made[name], flags, warnings, notes = compile_profile(profile)
        assert flags == 4 and warnings == []
        # What this libseccomp is too old for, and nothing that was mistyped.
        for line in notes:
            assert line.endswith("they stay denied"), line
    return made


def answers(program: bytes, arch: int, names: list[str], *args: int) -> dict[str, int]:
    numbers = {name: number(arch, name) for name in names}
    return {name: run(program, KERNEL[arch], nr, *args) for name, nr in numbers.items() if nr >= 0}


every_arch = pytest.mark.parametrize("arch", [X86_64, X86, X32], ids=["x86_64", "x86", "x32"])


@every_arch
@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_everyday_calls_are_allowed_whatever_their_arguments(
    programs: dict[str, bytes], engine: str, arch: int
) -> None:
    more = engines.DOCKER_MORE if engine == "docker" else engines.PODMAN_MORE
    for args in ((), (2**64 - 1,) * 6, (1 << 32,) * 6):
        got = answers(programs[engine], arch, [*engines.EVERYDAY, *more], *args)
        assert len(got) > 280
        assert {name for name, value in got.items() if value != ALLOW} == set()


@every_arch
def test_what_takes_more_capabilities_is_eperm_under_docker(programs: dict[str, bytes], arch: int) -> None:
    got = answers(programs["docker"], arch, [*engines.DOCKER_WITHHELD, *engines.FOR_NOBODY])
    assert len(got) > 50
    # Newer than all that it names, for this libseccomp.
    assert {name for name, value in got.items() if value != EPERM} <= {"set_mempolicy_home_node"}


@every_arch
def test_podman_names_what_is_eperm_and_has_enosys_for_all_else(
    programs: dict[str, bytes], arch: int
) -> None:
    got = answers(programs["podman"], arch, [*engines.PODMAN_EPERM, *engines.PODMAN_WITHHELD])
    assert {name for name, value in got.items() if value != EPERM} == set()
    got = answers(programs["podman"], arch, ["io_uring_setup", "add_key", "create_module", "afs_syscall"])
    assert set(got.values()) == {ENOSYS} and len(got) >= 3


@pytest.mark.parametrize(
    ("flags", "answer"),
    [
        (SIGCHLD, ALLOW),
        (THREAD, ALLOW),
        (0x4111, ALLOW),  # vfork
        (0, ALLOW),
        *[(flag | SIGCHLD, EPERM) for flag in (NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET)],
        (engines.CLONE_NEW, EPERM),
        (THREAD | NEWUSER, EPERM),
        (SIGCHLD | 1 << 32, ALLOW),  # the kernel's clone(2) does not look there either
        (SIGCHLD | NEWUSER | 1 << 63, EPERM),
        (0x80, ALLOW),  # CLONE_NEWTIME is a part of the signal's number in clone(2)
    ],
)
@every_arch
def test_docker_s_clone_makes_processes_and_threads_but_no_namespaces(
    programs: dict[str, bytes], arch: int, flags: int, answer: int
) -> None:
    given = flags & 0xFFFFFFFF if arch == X86 else flags
    assert run(programs["docker"], KERNEL[arch], number(arch, "clone"), given) == answer
    assert run(programs["docker"], KERNEL[arch], number(arch, "clone3"), given) == ENOSYS
    assert run(programs["podman"], KERNEL[arch], number(arch, "clone"), given) == ALLOW


@pytest.mark.parametrize("engine", ["docker", "podman"])
@pytest.mark.parametrize("value", [*engines.PERSONALITIES, 1, 4, 7, 9, 0x40000, 0x20001, 0x28, 0xFFFFFFFE])
@every_arch
def test_personality_takes_the_documented_values_only(
    programs: dict[str, bytes], arch: int, value: int, engine: str
) -> None:
    nr = number(arch, "personality")
    denied = EPERM if engine == "docker" else ENOSYS
    expected = ALLOW if value in engines.PERSONALITIES else denied
    assert run(programs[engine], KERNEL[arch], nr, value) == expected
    if arch == X86_64:  # the two others have arguments of 32 bits
        assert run(programs[engine], KERNEL[arch], nr, value | 1 << 32) == denied


@pytest.mark.parametrize(
    ("family", "protocol", "docker", "podman"),
    [
        (AF_UNIX, 0, ALLOW, ALLOW),
        (AF_INET, 6, ALLOW, ALLOW),
        (AF_INET6, 17, ALLOW, ALLOW),
        (AF_PACKET, 0x300, ALLOW, ALLOW),
        (AF_VSOCK, 0, EPERM, ALLOW),
        (AF_NETLINK, 0, ALLOW, ALLOW),
        (AF_NETLINK, engines.NETLINK_AUDIT, ALLOW, EINVAL),
        (AF_UNIX, engines.NETLINK_AUDIT, ALLOW, ALLOW),
    ],
)
@pytest.mark.parametrize("arch", [X86_64, X32], ids=["x86_64", "x32"])
def test_socket_is_decided_by_family_and_protocol(
    programs: dict[str, bytes], arch: int, family: int, protocol: int, docker: int, podman: int
) -> None:
    nr = number(arch, "socket")
    assert run(programs["docker"], KERNEL[arch], nr, family, 1, protocol) == docker
    assert run(programs["podman"], KERNEL[arch], nr, family, 1, protocol) == podman


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_calls_of_the_future_are_enosys_and_foreign_ones_kill(
    programs: dict[str, bytes], engine: str
) -> None:
    for nr in (470, 511, 1000, 0x3FFFFFFF):
        assert run(programs[engine], X86_64, nr) == ENOSYS
        assert run(programs[engine], X86, nr) == ENOSYS
        assert run(programs[engine], X86_64, X32_BIT | (nr | 1 << 12)) == ENOSYS
    assert run(programs[engine], 0xC00000B7, 1) == KILL_THREAD  # aarch64


def test_both_fit_in_a_program_of_the_kernel_with_much_room(programs: dict[str, bytes]) -> None:
    for program in programs.values():
        assert len(program) // 8 < MAX_INSTRUCTIONS // 2
