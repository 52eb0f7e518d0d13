"""Maps written for real: a kernel, newuidmap and newgidmap, and an ordinary user.

Needs root, to make the user; the writing is done by a forked child that has become the user.
"""

from __future__ import annotations

import ast
import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from lab.users import User, account, made_user
from lab.waiting import until

# Loaded here, since the user may not be able to read the places they are loaded from.
import idmap.diagnose
import idmap.helpers  # noqa: F401
from idmap.auto import full, single
from idmap.errors import IdmapError
from idmap.extents import merge
from idmap.subid import granted
from idmap.userns import in_user_namespace, own_map
from idmap.write import write_maps

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or not (shutil.which("newuidmap") and shutil.which("useradd")),
    reason="needs root, uidmap and useradd",
)

PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38
CAP_SETGID, CAP_SETUID = 6, 7
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MS_NOSUID, MS_REMOUNT = 2, 32
libc = ctypes.CDLL(None, use_errno=True)

Extent = tuple[int, int, int]


def must(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def become(user: User) -> None:
    os.setgroups([])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    # Another user's process is not dumpable, and /proc/self would be root's.
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


@pytest.fixture(scope="module")
def alice() -> Iterator[User]:
    """A user with a range of 65536 ids, for this module alone: its tests change accounts."""
    with made_user("granted", ranges=True) as user:
        yield user


@pytest.fixture(scope="module")
def bare() -> Iterator[User]:
    """A user to whom nothing is granted."""
    with made_user("ungranted", ranges=False) as user:
        yield user


def in_child(work: Callable[[], object], *, user: User, before: Callable[[], None] | None = None) -> object:
    """What `work` returns in a forked child that first runs `before` as root, then becomes `user`.

    An IdmapError comes back as ("error", reason, message, hint).
    """
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer: object
        try:
            os.close(source)
            if before:
                before()
            become(user)
            answer = work()
        except IdmapError as error:
            answer = ("error", error.reason, error.message, error.hint)
        except BaseException as error:
            answer = ("crash", repr(error))
        os.write(sink, repr(answer).encode())
        os._exit(0)
    os.close(sink)
    with open(source, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    result: object = ast.literal_eval(text.decode())
    return result


class Sleeper:
    """A process in a new user namespace that has no maps yet."""

    def __enter__(self) -> int:
        self.process = subprocess.Popen(["unshare", "-U", "sleep", "60"])
        here = os.readlink("/proc/self/ns/user")

        def started() -> bool:
            try:
                # Not unshare any more: the exec of sleep comes after the new namespace.
                runs = Path(f"/proc/{self.process.pid}/comm").read_text() == "sleep\n"
                return runs and os.readlink(f"/proc/{self.process.pid}/ns/user") != here
            except PermissionError:
                return False

        until(started, "it sleeps in a namespace of its own")
        return self.process.pid

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


Outcome = tuple[str, list[Extent], list[Extent], str]


def write(
    uids: list[Extent],
    gids: list[Extent],
    *,
    privileged: bool = False,
    setgroups: Literal["deny"] | None = None,
) -> Outcome:
    """Write the maps of a new sleeper, and read back what the kernel has: (way, uids, gids, setgroups)."""
    with Sleeper() as pid:
        way = write_maps(
            pid, uids, gids, euid=os.geteuid(), egid=os.getegid(), privileged=privileged, setgroups=setgroups
        )
        proc = f"/proc/{pid}"
        return way, own_map("uid", proc), own_map("gid", proc), Path(f"{proc}/setgroups").read_text().strip()


def full_maps(user: User) -> tuple[list[Extent], list[Extent]]:
    return full(user.uid, granted("uid", user.uid)), full(user.gid, granted("gid", user.uid))


def reason(outcome: object) -> str:
    assert isinstance(outcome, tuple) and outcome[0] == "error", outcome
    return str(outcome[1])


def test_a_user_maps_the_own_ids_directly_with_setgroups_denied(alice: User) -> None:
    uids, gids = single(alice.uid), single(alice.gid)
    assert in_child(lambda: write(uids, gids), user=alice) == ("direct", uids, gids, "deny")


def test_a_user_without_grants_maps_the_own_ids_too(bare: User) -> None:
    uids, gids = single(bare.uid), single(bare.gid, 5)
    assert in_child(lambda: write(uids, gids), user=bare) == ("direct", uids, gids, "deny")


def test_a_user_maps_the_whole_grant_through_the_helpers(alice: User) -> None:
    uids, gids = full_maps(alice)
    assert sum(count for _, _, count in uids) == 65537
    assert in_child(lambda: write(uids, gids), user=alice) == ("helpers", uids, gids, "allow")


def test_setgroups_can_be_denied_with_a_whole_grant(alice: User) -> None:
    uids, gids = full_maps(alice)
    assert in_child(lambda: write(uids, gids, setgroups="deny"), user=alice) == (
        "helpers",
        uids,
        gids,
        "deny",
    )


def test_a_granted_user_map_goes_with_the_own_group_alone(alice: User) -> None:
    uids, gids = full_maps(alice)[0], single(alice.gid)
    assert in_child(lambda: write(uids, gids), user=alice) == ("helpers", uids, gids, "deny")


def scattered(base: int, lines: int) -> list[Extent]:
    """As many lines that nothing can merge; short ones, since a map must fit in a page."""
    return [(i, base + 2 * i, 1) for i in range(lines)]


@pytest.mark.parametrize("lines", [6, 100, 300])
def test_many_lines_pass_through_the_helpers(alice: User, lines: int) -> None:
    uids = scattered(granted("uid", alice.uid)[0][0], lines)
    gids = scattered(granted("gid", alice.uid)[0][0], lines)
    assert in_child(lambda: write(uids, gids), user=alice) == ("helpers", uids, gids, "allow")


def test_root_writes_340_lines_directly() -> None:
    extents = scattered(1000, 340)
    way, uids, gids, setgroups = write(extents, extents, privileged=True)
    assert (way, setgroups) == ("direct", "allow")
    assert merge(uids) == merge(gids) == extents


def test_the_kernel_agrees_on_the_limits_of_lines_and_of_bytes() -> None:
    for extents in (scattered(1000, 341), scattered(3000000000, 300)):
        with pytest.raises(IdmapError) as caught:
            write(extents, extents, privileged=True)
        assert caught.value.reason == "too-many-extents"
        text = b"".join(b"%d %d %d\n" % extent for extent in extents)
        with (
            Sleeper() as pid,
            open(f"/proc/{pid}/uid_map", "wb", buffering=0) as file,
            pytest.raises(OSError),
        ):
            file.write(text)


def test_no_new_privs_is_told(alice: User) -> None:
    def forbid() -> None:
        must(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))

    maps = full_maps(alice)
    assert reason(in_child(lambda: write(*maps), user=alice, before=forbid)) == "no-new-privs"


@pytest.mark.parametrize(("capability", "word"), [(CAP_SETUID, "CAP_SETUID"), (CAP_SETGID, "CAP_SETGID")])
def test_a_bounding_set_without_the_capability_is_told(alice: User, capability: int, word: str) -> None:
    def drop() -> None:
        must(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))

    maps = full_maps(alice)
    outcome = in_child(lambda: write(*maps), user=alice, before=drop)
    assert reason(outcome) == "bounding-set"
    assert word in str(outcome)


def test_a_user_without_grants_is_told_the_command_that_grants(bare: User) -> None:
    outcome = in_child(lambda: write([(0, 100000, 65536)], single(bare.gid)), user=bare)
    assert reason(outcome) == "no-subid-entry"
    assert "sudo usermod --add-subuids" in str(outcome) and bare.name in str(outcome)


def test_the_command_in_the_hint_is_the_fix(bare: User) -> None:
    outcome = in_child(lambda: write([(0, 100000, 65536)], single(bare.gid)), user=bare)
    assert isinstance(outcome, tuple)
    account(*str(outcome[3]).split()[1:])
    try:
        maps = full_maps(bare)
        assert len(maps[0]) == len(maps[1]) == 2
        assert in_child(lambda: write(*maps), user=bare) == ("helpers", *maps, "allow")
    finally:
        for kind in ("uid", "gid"):
            start, count, _ = granted(kind, bare.uid)[0]
            account("usermod", f"--del-sub{kind}s", f"{start}-{start + count - 1}", bare.name)


def test_a_range_beyond_the_grant_is_told_with_the_line(alice: User, tmp_path: Path) -> None:
    replace = own_grants(tmp_path, "root:100000:10", f"{alice.name}:700000:1000")
    outcome = in_child(lambda: write([(0, 700000, 1001)], single(alice.gid)), user=alice, before=replace)
    assert reason(outcome) == "range-too-small"
    assert "700000:1000 (line 3)" in str(outcome)


def own_grants(place: Path, *lines: str) -> Callable[[], None]:
    """Has a process see an /etc with these lines, behind a comment, in its subuid and subgid."""
    etc = place / "etc"
    etc.mkdir(mode=0o755)
    for name in ("passwd", "group", "nsswitch.conf", "ld.so.cache", "login.defs"):
        shutil.copyfile(f"/etc/{name}", etc / name)
    for name in ("subuid", "subgid"):
        (etc / name).write_text("# comment\n" + "\n".join(lines))

    def replace() -> None:
        private_mounts()
        # The whole directory: a mount on a file ends when useradd elsewhere renames a new file over it.
        put_over(str(etc), "/etc")

    return replace


def private_mounts() -> None:
    must(libc.unshare(CLONE_NEWNS))
    must(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))


def put_over(source: str, target: str) -> None:
    must(libc.mount(source.encode(), target.encode(), None, MS_BIND, None))


def test_a_missing_helper_is_told_even_with_a_path(alice: User) -> None:
    def hide() -> None:
        private_mounts()
        # Not executable, so as good as not there.
        put_over("/dev/null", os.path.realpath(shutil.which("newuidmap") or ""))
        os.environ["PATH"] = "/nowhere:/usr/bin"

    maps = full_maps(alice)
    outcome = in_child(lambda: write(*maps), user=alice, before=hide)
    assert reason(outcome) == "helper-missing"
    assert "newuidmap" in str(outcome)


def test_no_path_at_all_is_no_hindrance(alice: User) -> None:
    maps = full_maps(alice)

    def unset() -> None:
        del os.environ["PATH"]

    assert in_child(lambda: write(*maps), user=alice, before=unset) == ("helpers", *maps, "allow")


def test_a_copy_of_the_helper_without_setuid_is_told(alice: User) -> None:
    directory = Path("/tmp") / f"idmap-copy-{os.getpid()}"
    directory.mkdir(mode=0o755)
    try:
        shutil.copyfile(shutil.which("newuidmap") or "", directory / "newuidmap")
        (directory / "newuidmap").chmod(0o755)

        def prefer() -> None:
            os.environ["PATH"] = f"{directory}:/usr/bin:/bin"

        maps = full_maps(alice)
        outcome = in_child(lambda: write(*maps), user=alice, before=prefer)
        assert reason(outcome) == "helper-not-setuid"
        assert f"{directory}/newuidmap" in str(outcome)
    finally:
        shutil.rmtree(directory)


def test_a_helper_on_a_nosuid_mount_is_told(alice: User) -> None:
    def remount() -> None:
        private_mounts()
        program = os.path.realpath(shutil.which("newuidmap") or "")
        put_over(program, program)
        must(libc.mount(None, program.encode(), None, MS_REMOUNT | MS_BIND | MS_NOSUID, None))

    maps = full_maps(alice)
    assert reason(in_child(lambda: write(*maps), user=alice, before=remount)) == "helper-nosuid"


@pytest.mark.parametrize("by_number", [False, True])
def test_several_ranges_by_name_or_number_are_one_map(alice: User, tmp_path: Path, by_number: bool) -> None:
    owner = str(alice.uid) if by_number else alice.name
    lines = (f"{owner}:700000:1000", "x:710000:10", f"{owner}:800000:500", f"{owner}:800500:500")
    replace = own_grants(tmp_path, *lines)
    expected: list[Extent] = [(1, 700000, 1000), (1001, 800000, 1000)]
    outcome = in_child(lambda: write(*full_maps(alice)), user=alice, before=replace)
    assert outcome == ("helpers", [(0, alice.uid, 1), *expected], [(0, alice.gid, 1), *expected], "allow")


def test_a_second_map_is_refused_and_told(alice: User) -> None:
    def twice() -> None:
        with Sleeper() as pid:
            for _ in range(2):
                write_maps(
                    pid,
                    single(alice.uid),
                    single(alice.gid),
                    euid=alice.uid,
                    egid=alice.gid,
                    privileged=False,
                )

    assert reason(in_child(twice, user=alice)) == "already-mapped"


def test_a_process_that_is_not_dumpable_is_told(alice: User) -> None:
    def hidden() -> None:
        source, sink = os.pipe()
        child = os.fork()
        if child == 0:
            libc.unshare(CLONE_NEWUSER)
            libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
            os.write(sink, b"x")
            time.sleep(60)
            os._exit(0)
        os.read(source, 1)
        try:
            write_maps(
                child, single(alice.uid), single(alice.gid), euid=alice.uid, egid=alice.gid, privileged=False
            )
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)

    assert reason(in_child(hidden, user=alice)) == "target-not-dumpable"


def test_a_mapped_root_maps_nested_namespaces_directly_split_at_its_own_lines(alice: User) -> None:
    uids, gids = full_maps(alice)

    def nest() -> object:
        ready, go = os.pipe(), os.pipe()
        answer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                must(libc.unshare(CLONE_NEWUSER))
                os.write(ready[1], b"x")
                os.read(go[0], 1)
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
                libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
                nested = write([(0, 0, 70)], [(0, 0, 70)], privileged=True)
                os.write(answer[1], repr((in_user_namespace(), nested)).encode())
            except BaseException as error:
                os.write(answer[1], repr(("crash", repr(error))).encode())
            os._exit(0)
        os.read(ready[0], 1)
        write_maps(child, uids, gids, euid=alice.uid, egid=alice.gid, privileged=False)
        os.write(go[1], b"x")
        text = os.read(answer[0], 65536)
        os.waitpid(child, 0)
        return ast.literal_eval(text.decode())

    # Read from the outermost namespace, the kernel would show its ids; the nested writer reads its own.
    lines = [(0, 0, 1), (1, 1, 69)]
    assert in_child(nest, user=alice) == (True, ("direct", lines, lines, "allow"))


def test_something_else_on_proc_is_told(alice: User) -> None:
    def cover() -> None:
        private_mounts()
        must(libc.mount(b"none", b"/proc", b"tmpfs", 0, None))

    def work() -> str:
        own = single(alice.uid), single(alice.gid)
        return write_maps(os.getpid(), *own, euid=alice.uid, egid=alice.gid, privileged=False)

    assert reason(in_child(work, user=alice, before=cover)) == "proc-mismatch"


def test_a_user_that_no_database_knows_is_told(alice: User) -> None:
    nobody_knows = User(alice.name)
    nobody_knows.uid = nobody_knows.gid = 54321
    outcome = in_child(lambda: write([(0, 100000, 10)], [(0, 54321, 1)]), user=nobody_knows)
    assert reason(outcome) == "no-user-name"
