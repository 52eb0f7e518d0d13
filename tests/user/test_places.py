"""Where mounts, devices and links go when their path is in a filesystem that the same plan has mounted.

rt-init makes what goes directly into such a one by its name, without looking the path up again
(init/places.c). The plans here put something else on that path meanwhile, by every way there is: what comes
later must be found under its path, as if each path had been looked up. They are performed as alice, in
namespaces of their own.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from textwrap import dedent

import pytest
from conftest import MakeBundle
from lab.programs import Programs
from lab.runtime import Runtime
from lab.traces import Trace
from lab.users import User
from lab.wrapped import Wrapped

from rootless_rt.spec.names import NAMESPACES, PROPAGATION

NEWNS = NAMESPACES["mount"][0]
SLAVE, SHARED = PROPAGATION["slave"][0], PROPAGATION["shared"][0]

PERFORM = """
import errno
from rootless_rt.init import launch
from rootless_rt.plan.ops import ANY_DEVICE, NO_LINKS, NO_SLOT, Op, encode

rootfs, share = f"{bundle}/rootfs", f"{bundle}/share"
ROOT, SHARE, FILE, OTHER, LINK, TREE = range(1, 7)
SOURCES = [(SHARE, share), (FILE, f"{share}/file"), (OTHER, f"{share}/other"), (LINK, f"{share}/link")]

def tmpfs(dest, root=ROOT, shared=[], attrs=0):
    return Op("mount_fs", root, dest, "tmpfs", "t", [], attrs, shared, 0, 0, NO_SLOT, 0, NO_SLOT, NO_SLOT)

def bind(dest, slot=FILE, root=ROOT, strict=0, links=0):
    return Op("mount_bind", root, slot, dest, *[0] * 6, [], ANY_DEVICE, strict, links)

def script(text):
    words = ["sh", "-c", text, "sh", rootfs]
    return Op("hook", "createContainer", "/bin/sh", words, ["PATH=/bin:/sbin"], "", 0, "", "")

def performed(*ops, begin=(Op("propagation", SLAVE),), show=""):
    '''How the script has ended that sees what the ops have made; or (call, errno) of what has failed.'''
    plan = [Op("dumpable", 1), Op("nest", 0, os.getuid(), 0, os.getgid()), Op("unshare", NEWNS), *begin]
    plan += [Op("source", slot, path, 0, 1, NO_SLOT, "") for slot, path in SOURCES]
    plan += [Op("root", rootfs, ROOT, 0), *ops, Op("close_others", []), Op("find", "/bin/sh", "")]
    plan += [Op("keep_fds", []), Op("exec", ["sh", "-c", show, "sh", rootfs], ["PATH=/bin:/sbin"])]
    sys.stdout.flush()
    sock, pid = launch.start(encode(plan), [])
    message = launch.receive(sock)
    status = os.waitpid(pid, 0)[1]
    sock.close()
    return (message.call, errno.errorcode[message.err]) if message.call else status

def shows(path, *ops, **options):
    '''The file of the host is what is found there, in the end.'''
    got = performed(*ops, show=f'test "$(cat "$1{path}")" = "from the host"', **options)
    assert got == 0, (path, got)
"""


@pytest.fixture
def places(program: Programs, bundle: MakeBundle, alice: User):
    """Runs such a program: `shows` and `performed` with tmpfs(), bind(), script() and every other op."""
    path = bundle().path
    (path / "share/other").mkdir(parents=True)
    (path / "share/file").write_text("from the host\n")
    (path / "share/link").symlink_to("made")
    for name in ("t", "a/t", "b", "real"):
        (path / "rootfs" / name).mkdir(parents=True)
    alice.owns(path)
    head = f"NEWNS, SLAVE, SHARED = {NEWNS}, {SLAVE}, {SHARED}\n{PERFORM}"

    def run(source: str) -> str:
        return program(path, head + dedent(source))

    return run


def test_what_goes_into_a_new_filesystem_is_found_there(places) -> None:
    places(
        """
        shows("/t/x", tmpfs("/t"), bind("/t/x"))
        shows("/t/d/e/x", tmpfs("/t"), bind("/t/d/e/x"))
        shows("/t/d/file", tmpfs("/t"), bind("/t/d", SHARE))
        shows("/t/l", tmpfs("/t"), Op("symlink", ROOT, "/t/l", "d/file"), bind("/t/d", SHARE))
        shows("/t/u/x", tmpfs("/t"), tmpfs("/t/u"), bind("/t/u/x"))
        many = [op for i in range(12) for op in (tmpfs(f"/t{i}"), tmpfs(f"/t{i}/u"))]
        shows("/t11/u/x", *many, *(bind(f"/t{i}/u/x") for i in range(12)), bind("/t0/x"))
        """
    )


def test_what_covers_it_takes_what_comes_later(places) -> None:
    places(
        """
        shows("/t/x", tmpfs("/t"), bind("/t/y"), tmpfs("/t"), bind("/t/x"))
        shows("/a/t/x", tmpfs("/a/t"), bind("/a", SHARE), bind("/a/t/x"))
        shows("/a/t/l", tmpfs("/a/t"), tmpfs("/a"), Op("symlink", ROOT, "/a/t/l", "x"), bind("/a/t/x"))
        shows("/t/u/x", tmpfs("/t"), tmpfs("/t/u"), tmpfs("/t"), bind("/t/u/x"))
        shows("/t/x", tmpfs("/t"), tmpfs("/a/../t"), bind("/t/x"))
        shows("/t/x", tmpfs("/a//../t"), tmpfs("/t/."), bind("/t/x"))
        shows("/t/x", tmpfs("/t"), tmpfs("//t/"), bind("/t/x"))
        """
    )


def test_a_second_name_by_a_link_of_the_image_covers_it_too(places) -> None:
    places(
        """
        os.symlink("t", f"{rootfs}/other")
        shows("/t/x", tmpfs("/t"), tmpfs("/other"), bind("/t/x"))
        shows("/t/x", tmpfs("/other"), tmpfs("/t"), bind("/other/x"))
        back = Op("symlink", ROOT, "/a/t/back", "../../a")
        shows("/a/t/x", tmpfs("/a/t"), back, tmpfs("/a/t/back"), bind("/a/t/x"))
        shows("/t/s/x", tmpfs("/t"), tmpfs("/t/s"), bind("/other/s", OTHER, links=2), bind("/t/s/x"))
        os.symlink("real", f"{rootfs}/here")
        shows("/real/x", tmpfs("/here"), bind("/here/x"))
        shows("/real/y", tmpfs("/here"), tmpfs("/real"), bind("/here/y"))
        os.symlink("../t", f"{rootfs}/b/t")
        readonly = Op("readonly", ROOT, "/b/t")
        assert performed(tmpfs("/t"), readonly, bind("/t/x")) == ("destination", "EROFS")
        """
    )


def test_a_name_that_is_there_already_is_looked_up(places) -> None:
    places(
        """
        shows("/t/x/file", tmpfs("/t"), bind("/t/x", OTHER), bind("/t/x", SHARE))
        shows("/t/made", tmpfs("/t"), Op("symlink", ROOT, "/t/l", "/t/made"), bind("/t/l"))
        shows("/t/made", tmpfs("/t"), bind("/t/l", LINK, links=1), bind("/t/l"))
        shows("/t/l", tmpfs("/t"), bind("/t/x"), bind("/t/l", LINK, links=1), bind("/t/l", links=2))
        link = tmpfs("/t"), Op("symlink", ROOT, "/t/l", "/t/made")
        assert performed(*link, bind("/t/l", strict=NO_LINKS)) == ("destination", "ELOOP")
        assert performed(tmpfs("/t"), bind("/t/x"), bind("/t/x", SHARE)) == ("destination", "ENOTDIR")
        """
    )


def test_what_makes_it_read_only_holds_for_what_comes_later(places) -> None:
    places(
        """
        readonly = Op("readonly", ROOT, "/t"), Op("remount", ROOT, "/t", 1, *[0] * 5, [], [])
        masked = Op("mask", ROOT, "/t", NO_SLOT, TREE)
        for op in (*readonly, masked):
            assert performed(tmpfs("/t"), op, bind("/t/x")) == ("destination", "EROFS"), op.name
        assert performed(tmpfs("/t", attrs=1), bind("/t/x")) == ("destination", "EROFS")
        """
    )


def test_what_a_program_of_the_host_mounts_meanwhile_takes_what_comes_later(places) -> None:
    places(
        """
        shows("/t/x", tmpfs("/t"), script('mount -t tmpfs h "$1/t"'), bind("/t/x"))
        shows("/t/x", tmpfs("/t"), script('umount "$1/t"'), bind("/t/x"))
        """
    )


def test_where_mounts_tell_each_other_the_path_is_looked_up(places) -> None:
    """Of two mounts of one group, what lies on the one lies on the other."""
    places(
        """
        group = 'mount -t tmpfs p "$1/a" && mount --make-shared "$1/a" && mkdir "$1/a/t"'
        shared = script(group + ' && mount --bind "$1/a" "$1/b"'), Op("propagation", SHARED)
        shows("/a/t/x", tmpfs("/a/t"), tmpfs("/b/t"), bind("/a/t/x"), begin=shared)
        shows("/t/x", tmpfs("/t", shared=[SHARED]), bind("/t/x"))
        """
    )


def test_a_tree_that_has_no_place_yet_is_a_place_of_its_own(places) -> None:
    said = places(
        """
        new = Op("new_fs", TREE, "tmpfs", "t", [], 0)
        if performed(new, bind("/x", root=TREE)) == ("move_mount", "EINVAL"):
            print("refused")
            raise SystemExit
        below, place = tmpfs("/u", root=TREE), bind("/t", TREE)
        shows("/t/x", new, bind("/x", root=TREE), place)
        shows("/t/u/x", new, below, bind("/y", root=TREE), below, bind("/u/x", root=TREE), place)
        shows("/t/x", new, bind("/y", root=TREE), tmpfs("/t"), place, bind("/t/x"))
        shows("/t/u/x", new, below, place, tmpfs("/t/u"), bind("/u/x", root=TREE))
        shows("/t/u/x", tmpfs("/t"), tmpfs("/t/u"), new, bind("/y", root=TREE), bind("/t/u/x"))
        """
    )
    if said:
        pytest.skip("Linux before 6.15 mounts nothing into a tree without a place")


def calls(trace: Path) -> list[str]:
    """What rt-init asked the kernel for, up to the program."""
    lines = [
        line for line in trace.read_text().splitlines() if not re.search(r"<\.\.\. (?!v?fork|clone)", line)
    ]
    return [call for call, _ in Trace("\n".join(lines)).init]


def test_a_run_asks_the_kernel_for_little(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    """Of the usual config, but for cgroups, hidden paths, capabilities and signals: hosts differ in these."""
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    made = bundle()
    made.config["mounts"] = [
        item for item in made.config["mounts"] if item["destination"] != "/sys/fs/cgroup"
    ]
    made.config["linux"].update(maskedPaths=[], readonlyPaths=[])
    made.write()
    folder = place / "traces"
    folder.mkdir()
    folder.chmod(0o777)
    words = ("strace", "-f", "-qq", "-o", str(folder / "trace"))
    done = Wrapped(rt, *words)("run", "--bundle", str(made.path), "c")
    if "ptrace" in done.stderr:
        pytest.skip(f"strace cannot trace here: {done.stderr.strip()[-100:]}")
    assert done.returncode == 0, done
    made_calls = calls(folder / "trace")
    rest = [call for call in made_calls if call not in ("prctl", "rt_sigaction")]
    assert rest.count("execve") == 1 and rest.count("fcntl") == 0
    assert len(rest) <= 160, sorted({(rest.count(call), call) for call in rest})
