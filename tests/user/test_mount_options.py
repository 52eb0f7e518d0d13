"""Options of an ordinary user's mounts, as the container's own mountinfo shows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.inside import (
    bind,
    held,
    mount,
    mounts_of,
    output,
    own_mounts,
    read,
    refusal,
    told,
    with_mounts,
)
from lab.runtime import Runtime
from lab.users import can_make_users

MOUNTINFO = "cat /proc/self/mountinfo"
needs_root = pytest.mark.skipif(not can_make_users(), reason="root has to prepare the host's mounts")


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
@pytest.mark.parametrize("word", ["slave", "rslave", "rshared", "rprivate"])
@pytest.mark.covers(
    "mounts[].options slave",
    "mounts[].options rslave",
    "mounts[].options rshared",
    "mounts[].options rprivate",
)
def test_a_host_mount_appears_in_a_bind_unless_it_is_private(
    word: str, rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(bundle(), mount("/a", "none", share, "rbind", word))
    with own_mounts("shared") as host:
        pid = held(host.runtime(rt), made)
        host.sh('mkdir "$1/sub"; mount -t tmpfs late "$1/sub"', str(share))
        assert ("/a/sub" in mounts_of(read(pid, "mountinfo"))) == (word != "rprivate")
        assert mounts_of(read(pid, "mountinfo"))["/a"].propagation >= (
            {"master"} if word in ("slave", "rslave") else set()
        )
        host.sh('umount "$1/sub"', str(share))
        host.runtime(rt).ok("delete", "--force", "held")


# The whole tree below a mount

ON = {
    "rro": "ro",
    "rnosuid": "nosuid",
    "rnodev": "nodev",
    "rnoexec": "noexec",
    "rnosymfollow": "nosymfollow",
}
OFF = {"rrw": "ro", "rsuid": "nosuid", "rdev": "nodev", "rexec": "noexec", "rsymfollow": "nosymfollow"}
TIMES = ("rnoatime", "rnodiratime", "rstrictatime", "rrelatime", "ratime", "rdiratime", "rnostrictatime")


@needs_root
@pytest.mark.covers(*(f"mounts[].options {word}" for word in ON))
@pytest.mark.parametrize("word", ON)
def test_a_restriction_of_the_tree_reaches_what_is_mounted_below(
    word: str, rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    with own_mounts() as host:
        host.sh('mkdir "$1/sub"; mount -t tmpfs t "$1/sub"', str(share))
        made = with_mounts(
            bundle(),
            mount("/a", "none", share, "rbind", word),
            mount("/b", "none", share, "rbind"),
            mount("/c", "none", share, "rbind", word.removeprefix("r")),
        )
        shown = mounts_of(output(host.runtime(rt), made, MOUNTINFO))
        flag = ON[word]
        assert flag in shown["/a"].options and flag in shown["/a/sub"].options
        assert flag not in shown["/b"].options and flag not in shown["/b/sub"].options
        assert flag in shown["/c"].options and flag not in shown["/c/sub"].options


@needs_root
@pytest.mark.covers(*(f"mounts[].options {word}" for word in OFF))
@pytest.mark.parametrize("word", OFF)
def test_what_is_locked_below_stays_and_is_said(
    word: str, rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    with own_mounts() as host:
        flag = OFF[word]
        host.sh('mkdir "$1/sub"; mount -t tmpfs -o "$2" t "$1/sub"', str(share), flag)
        made = with_mounts(bundle(), mount("/a", "none", share, "rbind", word))
        if flag == "nosymfollow":  # which the kernel locks for nobody
            shown = mounts_of(output(host.runtime(rt), made, MOUNTINFO))
            assert flag not in shown["/a/sub"].options
            return
        said, notice = told(host.runtime(rt), made, MOUNTINFO)
        assert flag in mounts_of(said)["/a/sub"].options
        assert f"mounts[7].options: rbind,{word}" in notice and "locked" in notice
        assert "mounts[7].options" in refusal(host.runtime(rt), made, before=("--degrade=strict",))


@needs_root
def test_one_locked_flag_keeps_no_other_from_being_taken_back(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    """nosuid is locked by the host's mount, nosymfollow is not: each is tried for itself."""
    with own_mounts() as host:
        host.sh('mount -t tmpfs -o nosuid,nosymfollow,mode=777 t "$1"', str(share))
        made = with_mounts(bundle(), bind("/a", share, "suid", "symfollow", "ro"))
        said, notice = told(host.runtime(rt), made, MOUNTINFO)
        options = mounts_of(said)["/a"].options
        assert {"nosuid", "ro"} <= options and "nosymfollow" not in options
        assert notice.count("mounts[7].options") == 1


@pytest.mark.covers(*(f"mounts[].options {word}" for word in TIMES))
@pytest.mark.parametrize("word", TIMES)
def test_access_times_of_a_locked_tree_stay_and_the_container_runs(
    word: str, rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(bundle(), mount("/a", "none", share, "rbind", word, "rro"))
    said, _ = told(rt, made, MOUNTINFO)
    assert {"ro", "relatime"} <= mounts_of(said)["/a"].options


@pytest.mark.parametrize("word", [*ON, "rnoatime", "rnodiratime", "rstrictatime"])
def test_words_for_the_tree_are_for_a_new_filesystem_as_well(
    word: str, rt: Runtime, bundle: MakeBundle
) -> None:
    item = mounts_of(output(rt, with_mounts(bundle(), mount("/t", "tmpfs", "t", word)), MOUNTINFO))["/t"]
    if word == "rstrictatime":
        assert not {"relatime", "noatime"} & item.options
    else:
        assert word.removeprefix("r") in item.options
    assert "rw" in item.data, "the superblock is as it was"


def test_words_for_the_tree_win_over_those_for_the_mount(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(
        bundle(),
        mount("/a", "none", share, "rbind", "rro", "rw"),
        mount("/b", "none", share, "rbind", "ro", "rrw"),
        mount("/c", "tmpfs", "t", "rnoexec", "exec", "noatime", "rstrictatime"),
    )
    shown = mounts_of(output(rt, made, MOUNTINFO))
    assert "ro" in shown["/a"].options and "rw" in shown["/b"].options
    assert "noexec" in shown["/c"].options and "noatime" not in shown["/c"].options


# Flags of the superblock

SUPERBLOCK = ["sync", "dirsync", "mand", "lazytime", "rsync", "rdirsync", "rmand"]
NOT_SHOWN = ["async", "nomand", "nolazytime", "rasync", "rnomand", "iversion", "noiversion", "silent", "loud"]
NOT_SHOWN += ["defaults", "symfollow", "dev", "suid", "exec", "diratime", "norelatime", "rnorelatime"]


@pytest.mark.covers(*(f"mounts[].options {word}" for word in SUPERBLOCK))
@pytest.mark.parametrize("word", SUPERBLOCK)
def test_a_flag_of_the_superblock_is_set(word: str, rt: Runtime, bundle: MakeBundle) -> None:
    flag = word if word in ("sync", "dirsync", "mand", "lazytime") else word.removeprefix("r")
    shown = mounts_of(output(rt, with_mounts(bundle(), mount("/t", "tmpfs", "t", word)), MOUNTINFO))
    assert flag in shown["/t"].data


@pytest.mark.covers(*(f"mounts[].options {word}" for word in NOT_SHOWN))
@pytest.mark.parametrize("word", NOT_SHOWN)
def test_words_for_what_is_so_already_are_accepted_everywhere(
    word: str, rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(
        bundle(), mount("/t", "tmpfs", "t", word), mount("/u", "tmpfs", "t"), bind("/a", share, word)
    )
    shown = mounts_of(output(rt, made, MOUNTINFO))
    assert shown["/t"].options == shown["/u"].options
    assert shown["/t"].data == shown["/u"].data


@pytest.mark.covers("mounts[].options sync")
def test_flags_of_the_superblock_leave_that_of_a_bind_s_source_alone(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(bundle(), bind("/a", share, "sync", "dirsync", "lazytime", "rmand"))
    shown = mounts_of(output(rt, made, MOUNTINFO))
    assert not {"sync", "dirsync", "lazytime", "mand"} & shown["/a"].data


# Remounts of a filesystem


@pytest.mark.covers("mounts[].options remount", "mounts[].options lazytime")
def test_remount_changes_the_options_of_the_config_s_own_filesystem(rt: Runtime, bundle: MakeBundle) -> None:
    made = with_mounts(
        bundle(),
        mount("/t", "tmpfs", "t", "size=64k", "ro"),
        mount("/t", "tmpfs", "t", "remount", "rw", "size=128k", "lazytime"),
        mount("/u", "tmpfs", "t"),
        mount("/u", "tmpfs", "t", "remount", "ro"),
    )
    said = output(rt, made, f"touch /t/x && echo made; {MOUNTINFO}")
    shown = mounts_of(said.partition("\n")[2])
    assert said.startswith("made") and {"size=128k", "rw", "lazytime"} <= shown["/t"].data
    assert "ro" in shown["/u"].data and "ro" in shown["/u"].options


def test_wrong_data_of_a_remount_is_answered_in_the_kernel_s_words(rt: Runtime, bundle: MakeBundle) -> None:
    made = with_mounts(
        bundle(), mount("/t", "tmpfs", "t"), mount("/t", "tmpfs", "t", "remount", "colour=red")
    )
    error = refusal(rt, made)
    assert "mounts[8]" in error and "Unknown parameter 'colour'" in error


@pytest.mark.parametrize("kind", ["none", "tmpfs"])
def test_data_of_a_remount_is_refused_where_the_filesystem_is_somebody_else_s(
    kind: str, rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(bundle(), bind("/a", share), mount("/a", kind, share, "remount", "size=1m"))
    error = refusal(rt, made)
    assert "mounts[8].options" in error and '"size=1m"' in error


@needs_root
def test_remount_keeps_what_is_locked(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    with own_mounts() as host:
        host.sh('mount -t tmpfs -o nosuid,nodev,mode=777 t "$1"', str(share))
        made = with_mounts(
            bundle(),
            bind("/a", share),
            mount("/a", "none", share, "remount", "bind", "ro", "suid", "rnoexec"),
        )
        said, notice = told(host.runtime(rt), made, MOUNTINFO)
        assert {"nosuid", "nodev", "ro", "noexec"} <= mounts_of(said)["/a"].options
        assert "mounts[8].options" in notice
