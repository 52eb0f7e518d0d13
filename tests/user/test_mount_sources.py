"""Sources of an ordinary user's mounts: files of every kind, symlinks themselves, descriptors, long names."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import (
    bind,
    mount,
    mounts_of,
    output,
    own_mounts,
    refusal,
    set_namespace,
    told,
    with_mounts,
)
from lab.runtime import Runtime
from lab.users import User, can_make_users

MOUNTINFO = "cat /proc/self/mountinfo"


# Files of every kind


@pytest.mark.covers("mounts[].source")
def test_a_fifo_a_device_and_a_socket_stay_what_they_are(
    rt: Runtime, bundle: MakeBundle, share: Path, alice: User
) -> None:
    os.mkfifo(share / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(share / "socket"))
        server.listen()
        alice.owns(share)
        made = with_mounts(
            bundle(),
            bind("/f", share / "fifo", "ro"),
            bind("/s", share / "socket"),
            bind("/d", "/dev/zero"),
            bind("/dev/urandom2", "/dev/urandom", "ro"),
        )
        script = (
            "test -p /f && test -S /s && test -c /d && head -c 3 /d | wc -c; head -c 2 /dev/urandom2 | wc -c"
        )
        assert output(rt, made, script).split() == ["3", "2"]


@pytest.mark.covers("mounts[].destination")
def test_a_relative_destination_is_below_the_root_and_said(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    said, notice = told(rt, with_mounts(bundle(), bind("mnt/here", share)), "cat /mnt/here/file")
    assert said == "from the host" and "mounts[7].destination" in notice and "relative" in notice


# Symlinks as they are


@pytest.fixture
def links(share: Path) -> Path:
    """In alice's directory: a link to a file, one to a directory, and one to nothing."""
    (share / "inner").mkdir()
    (share / "to-file").symlink_to("file")
    (share / "to-inner").symlink_to("inner")
    (share / "to-nothing").symlink_to("/no/such")
    return share


@pytest.mark.covers("mounts[].options copy-symlink")
@pytest.mark.parametrize("name", ["to-file", "to-inner", "to-nothing"])
def test_copy_symlink_makes_the_link_anew(name: str, rt: Runtime, bundle: MakeBundle, links: Path) -> None:
    made = with_mounts(bundle(), bind("/a/new/link", links / name, "copy-symlink"))
    said = output(rt, made, f"readlink /a/new/link; {MOUNTINFO}")
    assert said.splitlines()[0] == os.readlink(links / name) and " /a/new/link " not in said
    assert output(rt, made, "readlink /a/new/link").startswith(os.readlink(links / name)), "it may be there"
    (made.rootfs / "a/new/link").unlink()
    (made.rootfs / "a/new/link").touch()
    error = refusal(rt, made)
    assert "mounts[7]: /a/new/link" in error and "file exists" in error


@pytest.mark.covers("mounts[].options copy-symlink")
def test_copy_symlink_binds_what_is_no_link(rt: Runtime, bundle: MakeBundle, links: Path) -> None:
    made = with_mounts(
        bundle(), bind("/a", links / "file", "copy-symlink"), bind("/b", links, "copy-symlink")
    )
    said = output(rt, made, f"cat /a /b/file; {MOUNTINFO}")
    assert said.splitlines()[:2] == ["from the host"] * 2
    assert {"/a", "/b"} <= set(mounts_of("\n".join(said.splitlines()[2:])))


@pytest.mark.covers("mounts[].options src-nofollow")
def test_src_nofollow_mounts_the_link_itself(rt: Runtime, bundle: MakeBundle, links: Path) -> None:
    made = with_mounts(
        bundle(),
        bind("/etc/link", links / "to-nothing", "src-nofollow"),
        bind("/followed", links / "to-file"),
        bind("/file", links / "file", "src-nofollow"),
    )
    said = output(rt, made, "readlink /etc/link; cat /followed /file; test -e /etc/link || echo dangling")
    assert said.split("\n") == ["/no/such", "from the host", "from the host", "dangling"]
    assert (made.rootfs / "etc/link").read_text() == "" and not (made.rootfs / "etc/link").is_symlink()


@pytest.mark.covers("mounts[].options dest-nofollow")
def test_dest_nofollow_covers_a_link_of_the_rootfs(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = bundle()
    (made.rootfs / "etc/target").write_text("target\n")
    (made.rootfs / "etc/link").symlink_to("target")
    with_mounts(made, bind("/etc/link", share / "file", "dest-nofollow"))
    said = output(rt, made, f"cat /etc/link /etc/target; {MOUNTINFO}")
    assert said.splitlines()[:2] == ["from the host", "target"] and " /etc/link " in said
    assert os.readlink(made.rootfs / "etc/link") == "target"


@pytest.mark.covers("mounts[].options dest-nofollow")
def test_dest_nofollow_makes_what_is_missing(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = with_mounts(
        bundle(), bind("/new/file", share / "file", "dest-nofollow"), bind("/new/dir", share, "dest-nofollow")
    )
    assert output(rt, made, "cat /new/file /new/dir/file").split("\n") == ["from the host"] * 2


def test_both_ends_may_be_links(rt: Runtime, bundle: MakeBundle, links: Path) -> None:
    made = bundle()
    (made.rootfs / "link").symlink_to("/etc")
    with_mounts(made, bind("/link", links / "to-nothing", "src-nofollow", "dest-nofollow", "ro"))
    assert output(rt, made, "readlink /link") == "/no/such"


def test_a_directory_does_not_lie_on_a_link(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = bundle()
    (made.rootfs / "link").symlink_to("/etc")
    error = refusal(rt, with_mounts(made, bind("/link", share, "dest-nofollow")))
    assert "mounts[7]: /link" in error and "cannot be mounted on each other" in error


@pytest.mark.parametrize("place_in_proc", ["/proc/self/exe", "/trick/exec"])
@pytest.mark.parametrize("word", ["dest-nofollow", "copy-symlink"])
def test_words_about_links_open_no_way_into_proc(
    word: str, place_in_proc: str, rt: Runtime, bundle: MakeBundle, links: Path
) -> None:
    made = bundle()
    (made.rootfs / "trick").symlink_to("/proc/self/attr")
    assert "mounts[7]" in refusal(rt, with_mounts(made, bind(place_in_proc, links / "to-file", word)))


# Descriptors


def kept(rt: Runtime, made: Bundle, script: str, *fds: int, count: int | None = None) -> tuple[int, str, str]:
    """Run with descriptors at 3 and up, as an engine passes them."""
    made.run(script)
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 60) for fd in fds]
    there = _Moved(rt.user, rt.root, "; ".join(f"exec {3 + i}<&{fd} {fd}<&-" for i, fd in enumerate(high)))
    words = ["run", "--preserve-fds", str(len(fds) if count is None else count)]
    try:
        done = there(*words, "--bundle", str(made.path), "c", pass_fds=high)
    finally:
        for fd in high:
            os.close(fd)
    return done.returncode, done.stdout.strip(), done.stderr


class _Moved(Runtime):
    """The command behind a shell that puts descriptors where an engine has them."""

    def __init__(self, user: User, root: Path, moves: str) -> None:
        super().__init__(user, root)
        self.moves = moves

    def argv(self, *words: str) -> list[str]:
        return ["/bin/bash", "-c", f'{self.moves}; exec "$@"', "sh", *super().argv(*words)]


@pytest.mark.covers("mounts[].source", "run --preserve-fds")
@pytest.mark.parametrize("source", ["/proc/self/fd/3", "/dev/fd/3", "/proc/thread-self/fd/3"])
def test_a_preserved_descriptor_is_a_source(
    source: str, rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    fd = os.open(share, os.O_PATH)
    try:
        made = with_mounts(bundle(), bind("/a", source, "ro"), bind("/b", source + "/file"))
        code, said, error = kept(rt, made, "cat /a/file /b; touch /a/x 2>&1; true", fd)
    finally:
        os.close(fd)
    assert (code, error) == (0, "") and said.splitlines()[:2] == ["from the host"] * 2
    assert "Read-only" in said


def test_a_descriptor_that_is_not_preserved_is_no_source(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(bundle(), bind("/a", "/proc/self/fd/4"))
    fd = os.open(share, os.O_PATH)
    try:
        code, _, error = kept(rt, made, "true", fd, fd, count=1)
    finally:
        os.close(fd)
    assert code == 1 and "mounts[7].source" in error and "--preserve-fds 1 keeps 3 to 3" in error
    for number in ("0", "3", "-1", "x", "", "99999999999999999999999", "٣"):
        made = with_mounts(bundle(), bind("/a", f"/dev/fd/{number}"))
        assert "mounts[7].source" in refusal(rt, made)


def test_a_descriptor_whose_name_leads_elsewhere_is_refused(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    fd = os.open(share / "file", os.O_PATH)
    try:
        (share / "file").unlink()
        (share / "file").write_text("another\n")
        made = with_mounts(bundle(), bind("/a", "/proc/self/fd/3"))
        code, _, error = kept(rt, made, "cat /a", fd)
    finally:
        os.close(fd)
    assert code == 1 and "mounts[7]" in error and "leads elsewhere" in error


def test_a_pipe_is_no_source(rt: Runtime, bundle: MakeBundle) -> None:
    reading, writing = os.pipe()
    try:
        code, _, error = kept(rt, with_mounts(bundle(), bind("/a", "/dev/fd/3")), "true", reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert code == 1 and "mounts[7]" in error and "descriptor" in error


# Filesystems


@pytest.mark.covers("mounts[].type")
@pytest.mark.parametrize("data", [[], ["rootmode=40000"], ["fd=3"], ["fd=x"]])
def test_a_fuse_mount_without_its_descriptor_is_refused(
    data: list[str], rt: Runtime, bundle: MakeBundle
) -> None:
    error = refusal(rt, with_mounts(bundle(), mount("/t", "fuse.sshfs", "none", *data)))
    assert "mounts[7].options" in error and ("fd=N" in error or "--preserve-fds" in error)


def test_message_queues_without_an_own_namespace(rt: Runtime, bundle: MakeBundle) -> None:
    made = with_mounts(set_namespace(bundle(), "ipc", absent=True), mount("/q", "mqueue", "mqueue"))
    said, notice = told(rt, made, f"touch /q/x 2>&1; {MOUNTINFO}")
    shown = mounts_of("\n".join(line for line in said.splitlines() if " - " in line))
    assert "ro" in shown["/q"].options and "ipc" in notice
    assert shown["/q"].kind == ("mqueue" if Path("/dev/mqueue").exists() else "tmpfs")


@pytest.mark.skipif(not can_make_users(), reason="an overlay needs layers on a filesystem of root's choice")
@pytest.mark.covers("mounts[].type")
def test_an_overlay_takes_directories_with_long_names(
    rt: Runtime, bundle: MakeBundle, place: Path, alice: User
) -> None:
    top = place / "layers"
    top.mkdir()
    with own_mounts() as host:
        host.sh('mount -t tmpfs -o "mode=755,uid=$2,gid=$3" t "$1"', str(top), str(alice.uid), str(alice.gid))
        owner = f"{alice.uid}:{alice.gid}"
        names = {name: f"{top}/{name * 30}/{name * 30}:{'x' * 60}" for name in ("lower", "upper", "work")}
        for path in names.values():
            host.sh('mkdir -p "$1"; chown -R "$2" "$3"', path, owner, str(top))
        host.sh('echo lower > "$1/file"; chown "$2" "$1/file"', names["lower"], owner)
        escaped = {name: path.replace(":", "\\:") for name, path in names.items()}
        data = [f"lowerdir={escaped['lower']}", f"upperdir={names['upper']}", f"workdir={names['work']}"]
        made = with_mounts(bundle(), mount("/o", "overlay", "overlay", *data, "userxattr"))
        assert output(host.runtime(rt), made, "cat /o/file; echo upper > /o/file; cat /o/file").split() == [
            "lower",
            "upper",
        ]
        assert host.sh('cat "$1/file"', names["upper"]) == "upper\n"


def test_a_name_that_is_too_long_is_named_before_anything_is_made(rt: Runtime, bundle: MakeBundle) -> None:
    error = refusal(rt, with_mounts(bundle(), mount("/t", "tmpfs", "s" * 256)))
    assert "mounts[7].source" in error and "255 bytes" in error
    error = refusal(rt, with_mounts(bundle(), mount("/t", "tmpfs", "t", "mpol=" + "a" * 256)))
    assert "mounts[7].options" in error and '"mpol"' in error
