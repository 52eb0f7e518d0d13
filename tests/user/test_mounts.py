"""Mounts of an ordinary user's container, as its own mountinfo and files show them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import (
    bind,
    held,
    map_ids,
    mount,
    mounts_of,
    output,
    own_mounts,
    read,
    refusal,
    subordinate,
    told,
    with_mounts,
)
from lab.runtime import Runtime
from lab.users import User, can_make_users

MOUNTINFO = "cat /proc/self/mountinfo"
needs_root = pytest.mark.skipif(not can_make_users(), reason="root has to prepare the host's mounts")


@pytest.fixture
def share(alice: User, place: Path) -> Path:
    """A directory of alice's with a file in it, to bind."""
    path = place / "share"
    path.mkdir()
    (path / "file").write_text("from the host\n")
    (path / "run").write_text("#!/bin/sh\necho ran\n")
    (path / "run").chmod(0o755)
    alice.owns(path)
    return path


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
    made = with_mounts(bundle(), mount("/host/sys", "none", "/sys", "rbind", "ro"))
    shown = mounts_of(output(rt, made, MOUNTINFO))
    expected = [
        point for point in mounts_of(Path("/proc/self/mountinfo").read_text()) if point.startswith("/sys/")
    ]
    assert [point for point in expected if "/host" + point not in shown] == []


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
    assert "permission denied" in error and "searchable" in error


def test_a_file_and_a_directory_are_not_mounted_on_each_other(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    for destination, source in (("/etc/passwd", share), ("/etc", share / "file")):
        error = refusal(rt, with_mounts(bundle(), bind(destination, source)))
        assert "mounts[7]" in error and "cannot be mounted on each other" in error


# Options

RESTRICTIONS = ["ro", "nosuid", "nodev", "noexec", "nosymfollow"]
ACCESS_TIMES = ["noatime", "nodiratime", "strictatime"]


@pytest.mark.parametrize("word", RESTRICTIONS)
@pytest.mark.covers(
    "mounts[].options ro",
    "mounts[].options nosuid",
    "mounts[].options nodev",
    "mounts[].options noexec",
    "mounts[].options nosymfollow",
)
def test_a_restriction_reaches_binds_and_filesystems(
    word: str, rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(bundle(), bind("/a", share, word), mount("/b", "tmpfs", "tmpfs", word))
    shown = mounts_of(output(rt, made, MOUNTINFO))
    assert word in shown["/a"].options and word in shown["/b"].options


@pytest.mark.parametrize("word", ACCESS_TIMES)
@pytest.mark.covers("mounts[].options noatime", "mounts[].options nodiratime", "mounts[].options strictatime")
def test_access_times_are_as_asked_where_nobody_has_locked_them(
    word: str, rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    shown = mounts_of(output(rt, with_mounts(bundle(), mount("/b", "tmpfs", "tmpfs", word)), MOUNTINFO))
    assert word in shown["/b"].options or (word == "strictatime" and "relatime" not in shown["/b"].options)
    # Every mount of the host's has its access times locked for a user namespace.
    said, notice = told(rt, with_mounts(bundle(), bind("/a", share, word)), MOUNTINFO)
    assert "relatime" in mounts_of(said)["/a"].options
    assert f"mounts[7].options: bind,{word}" in notice and "locked" in notice


def test_what_is_locked_does_not_keep_the_restrictions_away(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    said, _ = told(rt, with_mounts(bundle(), bind("/a", share, *RESTRICTIONS, *ACCESS_TIMES)), MOUNTINFO)
    assert set(RESTRICTIONS) <= mounts_of(said)["/a"].options


def test_read_only_and_noexec_are_enforced(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = with_mounts(bundle(), bind("/a", share, "ro", "noexec"), bind("/b", share))
    script = "/b/run; /a/run 2>&1; touch /a/x 2>&1; true"
    lines = output(rt, made, script).splitlines()
    assert lines[0] == "ran" and "Permission denied" in lines[1] and "Read-only" in lines[2]


def test_a_read_only_tmpfs_takes_nothing(rt: Runtime, bundle: MakeBundle) -> None:
    made = with_mounts(bundle(), mount("/t", "tmpfs", "tmpfs", "ro"))
    assert "Read-only" in output(rt, made, "touch /t/x 2>&1; true")


@pytest.mark.covers("mounts[].options rw")
def test_a_later_word_wins(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = with_mounts(bundle(), bind("/a", share, "ro", "rw", "nodev", "noexec"))
    assert output(rt, made, "touch /a/x && echo made") == "made"


@pytest.mark.covers("mounts[].options remount")
def test_remount_changes_what_is_there(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = with_mounts(
        bundle(),
        bind("/a", share),
        mount("/a", "none", share, "bind", "remount", "ro", "nosuid"),
        mount("/b", "tmpfs", "tmpfs"),
        mount("/b", "tmpfs", "tmpfs", "remount", "noexec"),
    )
    shown = mounts_of(output(rt, made, MOUNTINFO))
    assert {"ro", "nosuid"} <= shown["/a"].options and "noexec" in shown["/b"].options


def test_remount_follows_no_link_of_the_image_to_another_mount(rt: Runtime, bundle: MakeBundle) -> None:
    made = with_mounts(bundle(), mount("/data", "none", "/data", "bind", "remount", "rw"))
    (made.rootfs / "data").symlink_to("/sys")
    assert "too many levels of symbolic links" in refusal(rt, made)


def test_remount_of_what_is_no_mount_is_refused(rt: Runtime, bundle: MakeBundle) -> None:
    error = refusal(rt, with_mounts(bundle(), mount("/etc", "none", "/etc", "bind", "remount", "ro")))
    assert "mounts[7]: /etc: mount_setattr: invalid argument" in error


@pytest.mark.covers("mounts[].options")
def test_a_tmpfs_has_its_size_mode_and_owner(rt: Runtime, bundle: MakeBundle) -> None:
    made = with_mounts(
        bundle(),
        mount("/a", "tmpfs", "tmpfs", "size=128k", "mode=0711"),
        mount("/b", "tmpfs", "tmpfs", "size=64k,mode=1700"),
    )
    script = "stat -c '%a %u:%g' /a /b; df -k /a /b | awk 'NR > 1 { print $2 }'"
    assert output(rt, made, script).split() == ["711", "0:0", "1700", "0:0", "128", "64"]


def test_wrong_data_is_answered_in_the_kernel_s_words(rt: Runtime, bundle: MakeBundle) -> None:
    error = refusal(rt, with_mounts(bundle(), mount("/t", "tmpfs", "tmpfs", "mode=zz")))
    assert "mounts[7]: tmpfs on /t" in error and "Bad value for 'mode'" in error
    error = refusal(rt, with_mounts(bundle(), mount("/t", "tmpfs", "tmpfs", "colour=red")))
    assert "mounts[7]: tmpfs on /t" in error and "Unknown parameter 'colour'" in error


def test_an_unknown_filesystem_is_named(rt: Runtime, bundle: MakeBundle) -> None:
    error = refusal(rt, with_mounts(bundle(), mount("/t", "nosuchfs", "none")))
    assert "mounts[7]: nosuchfs on /t" in error and "no filesystem called nosuchfs" in error


def test_data_on_a_bind_is_refused(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    assert "mounts[7].options" in refusal(rt, with_mounts(bundle(), bind("/t", share, "size=1k")))


def test_a_filesystem_of_the_admin_s_is_refused(rt: Runtime, bundle: MakeBundle) -> None:
    error = refusal(rt, with_mounts(bundle(), mount("/t", "ext4", "/dev/null")))
    assert "mounts[7]: ext4 on /t" in error and "not permitted" in error


@pytest.mark.parametrize(
    ("word", "tags"),
    [
        ("private", set()),
        ("rprivate", set()),
        ("shared", {"shared"}),
        ("rshared", {"shared"}),
        ("unbindable", {"unbindable"}),
        ("runbindable", {"unbindable"}),
    ],
)
@pytest.mark.covers(
    "mounts[].options private",
    "mounts[].options rprivate",
    "mounts[].options shared",
    "mounts[].options rshared",
    "mounts[].options unbindable",
    "mounts[].options runbindable",
)
def test_the_propagation_of_a_mount_is_set(
    word: str, tags: set[str], rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(bundle(), bind("/a", share, word), mount("/b", "tmpfs", "tmpfs", word))
    shown = mounts_of(output(rt, made, MOUNTINFO))
    assert shown["/a"].propagation == shown["/b"].propagation == tags


def test_a_mount_below_a_shared_one_has_a_peer_group_of_its_own(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(bundle(), bind("/a", share, "shared"), mount("/a/b", "tmpfs", "t", "shared"))
    shown = mounts_of(output(rt, made, MOUNTINFO))
    assert shown["/a"].propagation == shown["/a/b"].propagation == {"shared"}
    assert shown["/a"].tags != shown["/a/b"].tags


@needs_root
@pytest.mark.parametrize("word", ["rslave", "rshared", "rprivate"])
@pytest.mark.covers("mounts[].options rslave", "mounts[].options rshared", "mounts[].options rprivate")
def test_a_host_mount_appears_in_a_bind_unless_it_is_private(
    word: str, rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(bundle(), mount("/a", "none", share, "rbind", word))
    with own_mounts("shared") as host:
        pid = held(host.runtime(rt), made)
        host.sh('mkdir "$1/sub"; mount -t tmpfs late "$1/sub"', str(share))
        assert ("/a/sub" in mounts_of(read(pid, "mountinfo"))) == (word != "rprivate")
        assert mounts_of(read(pid, "mountinfo"))["/a"].propagation >= (
            {"master"} if word == "rslave" else set()
        )
        host.sh('umount "$1/sub"', str(share))
        host.runtime(rt).ok("delete", "--force", "held")


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


# /proc, /sys, /dev


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_a_link_for_proc_or_sys_is_not_followed(
    name: str, rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    made = bundle()
    made.config["mounts"] = [mount("/proc", "proc", "proc")]
    if name == "sys":
        made.config["linux"]["namespaces"].append({"type": "network"})
        made.config["mounts"].append(mount("/sys", "sysfs", "sysfs"))
    made.write()
    (made.rootfs / name).rmdir()
    (made.rootfs / name).symlink_to("tmp")
    error = refusal(rt, made)
    assert f"/{name}" in error and "symbolic link" in error


def test_a_link_for_dev_stays_in_the_rootfs(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    made = bundle()
    (made.rootfs / "dev").rmdir()
    (made.rootfs / "dev").symlink_to("/run/dev")
    assert output(rt, made, "ls /run/dev/null && echo x > /dev/null && test -L /dev && echo ok").endswith(
        "ok"
    )


def test_a_link_into_proc_is_refused_as_a_destination(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = bundle()
    (made.rootfs / "trick").symlink_to("/proc/self/attr")
    error = refusal(rt, with_mounts(made, bind("/trick/exec", share / "file")))
    assert "mounts[7]: /trick/exec" in error
    assert "into /proc" in error or "No such" in error


@pytest.mark.parametrize(
    "place_in_proc", ["/proc/self/attr/exec", "/proc/sys", "/proc/1/mem", "/proc/../proc/sys"]
)
def test_a_destination_in_proc_is_refused(
    place_in_proc: str, rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    error = refusal(rt, with_mounts(bundle(), bind(place_in_proc, share / "file")))
    assert "mounts[7].destination" in error and "/proc/cpuinfo" in error


def test_only_proc_lies_on_proc(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    assert "only a proc filesystem" in refusal(rt, with_mounts(bundle(), bind("/proc", share)))
    assert "only a proc filesystem" in refusal(rt, with_mounts(bundle(), mount("/proc", "tmpfs", "tmpfs")))


def test_what_lxcfs_stands_in_for_can_be_bound(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    names = ["cpuinfo", "meminfo", "uptime", "loadavg"]
    made = with_mounts(bundle(), *[bind(f"/proc/{name}", share / "file") for name in names])
    files = " ".join(f"/proc/{name}" for name in names)
    assert output(rt, made, f"cat {files}").splitlines() == ["from the host"] * len(names)


def test_the_host_s_sys_is_read_only_all_the_way_down(rt: Runtime, bundle: MakeBundle) -> None:
    shown = mounts_of(output(rt, bundle(), MOUNTINFO))
    below = [made for point, made in shown.items() if (point + "/").startswith("/sys/")]
    assert below and all("ro" in made.options for made in below)
    script = "for dir in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $dir/x 2>/dev/null && echo MADE; done; "
    said = output(rt, bundle(), script + "mount -o remount,rw /sys 2>&1; true")
    assert "MADE" not in said and ("denied" in said or "permitted" in said)


@pytest.mark.covers("mounts[].type cgroup")
def test_a_mount_of_type_cgroup_shows_own_cgroups_read_only(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    made.config["mounts"] = [made.config["mounts"][0], mount("/cg", "cgroup", "cgroup", "ro", "nosuid")]
    made.write()
    said, _ = told(rt, made, "cat /proc/self/mountinfo; mkdir /cg/x /cg/*/x 2>/dev/null && echo MADE; true")
    assert "MADE" not in said
    shown = mounts_of(said)
    assert all(
        {"ro", "nosuid", "nodev", "noexec"} <= item.options for point, item in shown.items() if "/cg" in point
    )


# Masked and read-only paths


@pytest.mark.covers("linux.maskedPaths")
def test_masked_files_read_empty_and_masked_directories_are_empty(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.rootfs / "secret").mkdir()
    (made.rootfs / "secret/inner").write_text("hidden")
    (made.rootfs / "password").write_text("hidden")
    made.config["linux"]["maskedPaths"] += ["/secret", "/password", "/not/there", "/etc/passwd/not"]
    script = "cat /password; ls -A /secret; echo x > /password; cat /password; touch /secret/x 2>&1; "
    script += "umount /password 2>&1; umount -l /secret 2>&1; true"
    lines = output(rt, made, script).splitlines()
    assert len(lines) == 3 and "Read-only" in lines[0]
    assert all("not permitted" in line or "nvalid" in line for line in lines[1:])
    assert (made.rootfs / "password").read_text() == "hidden"


def test_masks_cannot_be_taken_off_even_with_every_capability(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.rootfs / "password").write_text("hidden")
    made.config["linux"]["maskedPaths"] = ["/password"]
    capabilities = made.config["process"]["capabilities"]
    for kind in capabilities:
        capabilities[kind] = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]
    script = "umount -l /password 2>/dev/null; cat /password; "
    # A new mount namespace below: there the mask is locked to what it covers.
    script += "unshare -rm sh -c 'umount -l /password 2>/dev/null; cat /password'; true"
    said, _ = told(rt, made, script)
    assert "hidden" not in said.splitlines()[1:]


@pytest.mark.covers("linux.readonlyPaths")
def test_read_only_paths_keep_their_content(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.rootfs / "data").mkdir()
    (made.rootfs / "data/file").write_text("kept\n")
    made.config["linux"]["readonlyPaths"] += ["/data", "/not/there"]
    lines = output(
        rt, made, "cat /data/file; touch /data/x 2>&1; echo x 2>&1 >/proc/sys/kernel/x; true"
    ).splitlines()
    assert lines[0] == "kept" and "Read-only" in lines[1]


def test_a_link_named_null_in_the_image_does_not_become_the_mask(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.rootfs / "password").write_text("hidden\n")
    (made.rootfs / "dev/null").symlink_to("/password")
    made.config["mounts"] = [
        item for item in made.config["mounts"] if not item["destination"].startswith("/dev")
    ]
    made.config["linux"]["maskedPaths"] = ["/password"]
    made.write()
    done = rt("run", "--bundle", str(made.run("cat /password; stat -c %t:%T /password").path), "c")
    assert done.returncode != 0 or done.stdout.strip() == "1:3", (done.stdout, done.stderr)
    assert "hidden" not in done.stdout


def test_a_masked_link_hides_what_it_points_to_inside(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.rootfs / "password").write_text("hidden\n")
    (made.rootfs / "link").symlink_to("/password")
    made.config["linux"]["maskedPaths"] = ["/link"]
    assert output(rt, made, "cat /password") == ""


@pytest.mark.covers("root.readonly")
def test_a_read_only_root_is_read_only_but_for_its_mounts(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(bundle(), bind("/mnt", share), mount("/tmp", "tmpfs", "tmpfs"))
    made.config["root"]["readonly"] = True
    lines = output(rt, made, "touch /x 2>&1; touch /mnt/x /tmp/x /dev/shm/x && echo made").splitlines()
    assert "Read-only" in lines[0] and lines[1] == "made"


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


# Without pivot_root


@pytest.mark.covers("run --no-pivot")
def test_no_pivot_leaves_no_proc_or_sys_of_the_host_behind(rt: Runtime, bundle: MakeBundle) -> None:
    script = "cat /proc/self/mountinfo; ls / | tr '\\n' ' '"
    said = output(rt, bundle(), script, "--no-pivot")
    assert said.splitlines()[-1].split() == sorted(path.name for path in bundle().rootfs.iterdir())
    listed, last = said.rsplit("\n", 1)
    assert last
    shown = mounts_of(listed)
    assert shown["/proc"].root == "/"


@needs_root
def test_no_pivot_covers_the_host_s_proc(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("run", "--no-pivot", "--detach", "--bundle", str(bundle("exec sleep 1000").path), "c")
    pid = rt.state("c")["pid"]
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    own = [line for line in lines if " - proc " in line or " - sysfs " in line]
    # The root is the rootfs; of the host's own mounts none that is a whole proc or sysfs can be reached.
    assert all(line.split()[4].startswith(("/proc", "/sys")) for line in own)


@pytest.mark.covers("linux.rootfsPropagation")
def test_no_pivot_with_private_propagation_is_refused(rt: Runtime, bundle: MakeBundle) -> None:
    made: Bundle = bundle()
    made.config["linux"]["rootfsPropagation"] = "private"
    made.write()
    assert "not safe without pivot_root" in refusal(rt, made, "--no-pivot")
