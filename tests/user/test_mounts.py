"""Mounts of an ordinary user's container, as its mountinfo and files show them: sources and destinations."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.inside import (
    bind,
    map_ids,
    mount,
    mounts_of,
    output,
    own_mounts,
    refusal,
    subordinate,
    told,
    with_mounts,
)
from lab.runtime import Runtime
from lab.users import User, can_make_users

MOUNTINFO = "cat /proc/self/mountinfo"
needs_root = pytest.mark.skipif(not can_make_users(), reason="root has to prepare the host's mounts")


# Binds


@pytest.mark.covers("mounts[].destination", "mounts[].source", "mounts[].type", "mounts[].options bind")
def test_a_bound_directory_shows_and_takes_files(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = with_mounts(bundle(), bind("/mnt/share", share))
    assert output(rt, made, "cat /mnt/share/file; echo back > /mnt/share/new") == "from the host"
    assert (share / "new").read_text() == "back\n"


def test_a_bound_file_lies_on_a_file_made_for_it(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = with_mounts(bundle(), bind("/etc/new/name", share / "file"))
    assert output(rt, made, "cat /etc/new/name") == "from the host"
    assert (made.rootfs / "etc/new/name").read_text() == ""


def test_a_bound_socket_stays_a_socket(rt: Runtime, bundle: MakeBundle, share: Path, alice: User) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(share / "socket"))
        alice.owns(share)
        made = with_mounts(bundle(), bind("/run/service.sock", share / "socket"))
        assert output(rt, made, "test -S /run/service.sock && echo socket") == "socket"


@pytest.mark.covers("mounts[].source")
def test_a_source_relative_to_the_bundle_is_found_there(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.path / "beside").write_text("beside\n")
    assert output(rt, with_mounts(made, bind("/beside", "beside")), "cat /beside") == "beside"


@pytest.mark.covers("mounts[].type")
def test_the_type_bind_needs_no_option(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = bundle()
    made.config["mounts"].append({"destination": "/mnt", "type": "bind", "source": str(share)})
    assert output(rt, made, "cat /mnt/file") == "from the host"


@pytest.mark.covers("mounts[].options rbind")
def test_rbind_brings_the_mounts_below_and_their_locks(rt: Runtime, bundle: MakeBundle) -> None:
    def below_sys() -> set[str]:
        listed = mounts_of(Path("/proc/self/mountinfo").read_text())
        return {point for point in listed if point.startswith("/sys/")}

    made = with_mounts(bundle(), mount("/host/sys", "none", "/sys", "rbind", "ro"))
    before = below_sys()
    shown = mounts_of(output(rt, made, MOUNTINFO))
    # Others may mount and unmount there meanwhile.
    assert [point for point in before & below_sys() if "/host" + point not in shown] == []


def test_a_bind_that_would_uncover_hidden_files_is_refused_with_the_way_out(
    rt: Runtime, bundle: MakeBundle
) -> None:
    if "/dev/shm" not in mounts_of(Path("/proc/self/mountinfo").read_text()):
        pytest.skip("needs a mount below /dev")
    error = refusal(rt, with_mounts(bundle(), bind("/host/dev", "/dev")))
    assert "mounts[7]: /dev" in error and "rbind" in error


def test_a_missing_source_is_named(rt: Runtime, bundle: MakeBundle) -> None:
    error = refusal(rt, with_mounts(bundle(), bind("/mnt", "/no/such/place")))
    assert "mounts[7]: /no/such/place: open_tree: no such file or directory" in error


@needs_root
def test_a_source_behind_a_closed_directory_is_named(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    (place / "closed").mkdir(mode=0o700)
    (place / "closed/file").touch()
    error = refusal(rt, with_mounts(bundle(), bind("/mnt", place / "closed/file")))
    assert "permission denied" in error and f"{place}/closed (0700" in error and "hint: " in error


def test_a_file_and_a_directory_are_not_mounted_on_each_other(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    for destination, source in (("/etc/passwd", share), ("/etc", share / "file")):
        error = refusal(rt, with_mounts(bundle(), bind(destination, source)))
        assert "mounts[7]" in error and "cannot be mounted on each other" in error


# Destinations


@pytest.mark.covers("mounts[].destination")
def test_missing_destinations_are_made_however_deep(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    deep = "/" + "/".join(f"level{number}" for number in range(150))
    made = with_mounts(bundle(), bind(deep, share), bind(deep + "x/file", share / "file"))
    assert output(rt, made, f"cat {deep}/file {deep}x/file").splitlines() == ["from the host"] * 2


def test_a_destination_undoes_dots_by_name(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = with_mounts(bundle(), bind("/../../mnt/./x/../y", share))
    assert output(rt, made, "cat /mnt/y/file") == "from the host"


@pytest.mark.parametrize(
    "target", ["{host}", "../../../../../../../..{host}", "{host}/missing", "/etc/../..{host}"]
)
def test_a_link_in_the_rootfs_leads_a_mount_nowhere_outside(
    target: str, rt: Runtime, bundle: MakeBundle, share: Path, place: Path
) -> None:
    host = place / "outside"
    host.mkdir(mode=0o777)
    host.chmod(0o777)
    made = bundle()
    (made.rootfs / "link").symlink_to(target.format(host=host))
    with_mounts(made, bind("/link", share), bind("/link/below/it", share / "file"))
    shown = mounts_of(output(rt, made, MOUNTINFO))
    inside = str(host) + ("/missing" if "missing" in target else "")
    assert inside in shown and inside + "/below/it" in shown
    assert list(host.iterdir()) == []


def test_a_loop_of_links_is_an_error(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = bundle()
    (made.rootfs / "loop").symlink_to("loop")
    assert "mounts[7]: /loop/x" in refusal(rt, with_mounts(made, bind("/loop/x", share)))


def test_the_same_destination_twice_shows_the_later_one(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = with_mounts(
        bundle(), mount("/a", "tmpfs", "tmpfs"), bind("/a", share), bind("/etc/passwd", share / "file")
    )
    assert output(rt, made, "cat /a/file /etc/passwd").splitlines() == ["from the host"] * 2


def test_the_root_itself_is_no_destination(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    assert "mounts[7].destination" in refusal(rt, with_mounts(bundle(), bind("/x/..", share)))


def test_five_hundred_binds_fit_in_a_small_table_of_descriptors(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(bundle(), *[bind(f"/m/{number}", share / "file") for number in range(500)])
    made.run("cat /m/499; grep -c ' /m/' /proc/self/mountinfo; ulimit -n")
    said = _Limited(rt.user, rt.root).ok("run", "--bundle", str(made.path), "c")
    assert said.split() == ["from", "the", "host", "500", "1024"]


class _Limited(Runtime):
    """The command from a shell whose soft limit of open files is the usual one."""

    def argv(self, *words: str) -> list[str]:
        return ["/bin/sh", "-c", 'ulimit -Sn 1024; exec "$@"', "sh", *super().argv(*words)]


# What a user namespace changes


def test_a_gid_option_that_is_not_mapped_is_left_out_and_said(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    for item in made.config["mounts"]:
        if item["type"] == "devpts":
            item["options"].append("gid=5")
    made.write()
    said, notice = told(rt, made, MOUNTINFO)
    assert "gid=5" in notice and "not mapped" in notice and "mounts[2].options" in notice
    assert mounts_of(said)["/dev/pts"].kind == "devpts"
    assert "gid=5" in refusal(rt, made, before=("--degrade=strict",))


def test_a_gid_option_that_is_mapped_is_kept(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    made = bundle()
    map_ids(
        made,
        (0, alice.uid, 1),
        (1, subordinate(alice), 65536),
        gids=((0, alice.gid, 1), (1, subordinate(alice, "gid"), 65536)),
    )
    for item in made.config["mounts"]:
        if item["type"] == "devpts":
            item["options"].append("gid=5")
    with_mounts(made, mount("/t", "tmpfs", "tmpfs", "uid=33", "gid=34", "mode=700"))
    said = output(rt, made, "stat -c %u:%g /t; cat /proc/self/mountinfo")
    first, _, rest = said.partition("\n")
    assert first == "33:34"
    assert f"gid={subordinate(alice, 'gid') + 4}" in mounts_of(rest)["/dev/pts"].data


def test_a_uid_of_tmpfs_is_the_container_s(rt: Runtime, bundle: MakeBundle) -> None:
    made = with_mounts(bundle(), mount("/t", "tmpfs", "tmpfs", "uid=0", "gid=0"))
    assert output(rt, made, "stat -c %u:%g /t") == "0:0"
    made = with_mounts(bundle(), mount("/t", "tmpfs", "tmpfs", "uid=33"))
    said, notice = told(rt, made, "stat -c %u:%g /t")
    assert said == "0:0" and "uid=33" in notice


def test_an_overlay_is_mounted_by_its_user(rt: Runtime, bundle: MakeBundle, place: Path, alice: User) -> None:
    layers = place / "layers"
    for name in ("lower", "upper", "work"):
        (layers / name).mkdir(parents=True)
    (layers / "lower/file").write_text("lower\n")
    (layers / "lower/gone").touch()
    alice.owns(layers)
    made = with_mounts(
        bundle(),
        mount(
            "/o",
            "overlay",
            "overlay",
            f"lowerdir={layers}/lower,upperdir={layers}/upper",
            f"workdir={layers}/work",
            "userxattr",
        ),
    )
    script = "cat /o/file; echo upper > /o/file; rm /o/gone; cat /o/file; ls /o"
    assert output(rt, made, script).split() == ["lower", "upper", "file"]
    assert (layers / "lower/file").read_text() == "lower\n" and (
        layers / "upper/file"
    ).read_text() == "upper\n"


@needs_root
def test_flags_locked_by_the_host_stay_and_are_said(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    locked = place / "locked"
    locked.mkdir()
    with own_mounts() as host:
        host.sh('mount -t tmpfs -o nosuid,nodev,noexec,mode=1777 locked "$1"', str(locked))
        there = host.runtime(rt)
        made = with_mounts(
            bundle(), bind("/a", locked, "exec", "suid"), bind("/b", locked, "ro"), bind("/c", locked)
        )
        said, notice = told(there, made, MOUNTINFO)
        shown = mounts_of(said)
        for point in ("/a", "/b", "/c"):
            assert {"nosuid", "nodev", "noexec"} <= shown[point].options
        assert "ro" in shown["/b"].options and "rw" in shown["/a"].options
        assert notice.count("mounts[7].options") == 1 and "mounts[8]" not in notice


@needs_root
def test_a_read_only_host_mount_cannot_be_made_writable(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    locked = place / "locked"
    locked.mkdir()
    with own_mounts() as host:
        host.sh('mount -t tmpfs -o ro locked "$1"', str(locked))
        said, notice = told(
            host.runtime(rt), with_mounts(bundle(), bind("/a", locked, "rw")), "touch /a/x 2>&1; true"
        )
        assert "Read-only" in said and "mounts[7].options" in notice
