"""Mount options: attributes, superblock flags, propagation and data, and which word wins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_rt.errors import SpecError
from rootless_rt.spec import mountopts
from rootless_rt.spec.mountopts import OPTIONS, MountOptions, parse_options

WORDS = list(OPTIONS)


def parsed(options: str, fstype: str = "tmpfs") -> MountOptions:
    return parse_options(options.split(), "mounts[3].options", fstype)


def test_the_options_of_dev_become_attributes_and_data() -> None:
    options = parsed("nosuid strictatime mode=755 size=65536k")
    assert options.attr_set == 0x2 | 0x20
    assert options.attr_clr == 0x70
    assert options.data == ["mode=755", "size=65536k"]
    assert not options.bind and not options.remount


@pytest.mark.covers(
    "mounts[].options defaults",
    "mounts[].options silent",
    "mounts[].options loud",
    "mounts[].options norelatime",
)
def test_defaults_and_no_options_ask_for_nothing() -> None:
    for words in ("", "defaults", "silent loud norelatime rnorelatime iversion noiversion"):
        options = parsed(words)
        assert (options.attr_set, options.attr_clr, options.sb_set, options.sb_clr) == (0, 0, (), ())
        assert (options.bind, options.rbind, options.remount, options.propagation, options.data) == (
            (False, False, False, (), [])
        )


@pytest.mark.parametrize(
    ("words", "attr_set", "attr_clr"),
    [
        ("ro rw", 0, 0x1),
        ("rw ro", 0x1, 0),
        ("suid nosuid", 0x2, 0),
        ("nodev dev", 0, 0x4),
        ("noexec exec nodiratime", 0x80, 0x8),
        ("nosymfollow", 0x200000, 0),
        ("noatime", 0x10, 0x70),
        ("noatime strictatime", 0x20, 0x70),
        ("strictatime noatime", 0x10, 0x70),
        ("noatime relatime", 0, 0x70),
        ("noatime atime", 0, 0x70),
        ("strictatime atime", 0x20, 0x70),
        ("strictatime nostrictatime", 0, 0x70),
        ("noatime nostrictatime", 0x10, 0x70),
        ("atime", 0, 0x70),
    ],
)
@pytest.mark.covers(
    "mounts[].options ro",
    "mounts[].options rw",
    "mounts[].options suid",
    "mounts[].options nosuid",
    "mounts[].options nodev",
    "mounts[].options dev",
    "mounts[].options noexec",
    "mounts[].options exec",
    "mounts[].options nodiratime",
    "mounts[].options nosymfollow",
    "mounts[].options noatime",
    "mounts[].options strictatime",
    "mounts[].options relatime",
    "mounts[].options atime",
    "mounts[].options nostrictatime",
)
def test_a_later_word_overrides_an_earlier_one(words: str, attr_set: int, attr_clr: int) -> None:
    options = parsed(words)
    assert (options.attr_set, options.attr_clr) == (attr_set, attr_clr)


@pytest.mark.parametrize(
    ("words", "sb_set", "sb_clr"),
    [
        ("ro", ("ro",), ()),
        ("ro rw", (), ("rw",)),
        ("async sync dirsync", ("sync", "dirsync"), ()),
        ("sync sync", ("sync",), ()),
        ("lazytime mand nolazytime", ("mand",), ("nolazytime",)),
        ("rsync rdirsync rmand", ("sync", "dirsync", "mand"), ()),
        ("rsync rasync rmand rnomand", (), ("async", "nomand")),
    ],
)
@pytest.mark.covers(
    "mounts[].options sync",
    "mounts[].options async",
    "mounts[].options dirsync",
    "mounts[].options mand",
    "mounts[].options lazytime",
    "mounts[].options nolazytime",
    "mounts[].options iversion",
    "mounts[].options noiversion",
)
def test_superblock_flags_have_the_names_of_fsconfig(
    words: str, sb_set: tuple[str, ...], sb_clr: tuple[str, ...]
) -> None:
    options = parsed(words)
    assert (options.sb_set, options.sb_clr) == (sb_set, sb_clr)


def test_a_bind_mount_changes_attributes_but_never_the_superblock() -> None:
    options = parsed("rbind ro sync rprivate shared", "")
    assert options.bind and options.rbind
    assert options.attr_set == 0x1
    assert options.sb_set == options.sb_clr == ()
    assert options.propagation == ((1 << 18, True), (1 << 20, False))


def test_the_type_bind_is_a_bind_mount_without_the_word() -> None:
    assert parsed("ro", "bind").bind
    assert not parsed("ro", "bind").rbind
    assert parsed("rbind bind").rbind


def test_data_on_a_bind_mount_is_an_error_with_its_path() -> None:
    with pytest.raises(SpecError) as caught:
        parsed("ro size=1 rbind mode=2")
    assert caught.value.path == "mounts[3].options[1]"
    assert '"size=1"' in caught.value.message


@pytest.mark.parametrize(
    ("words", "tree_set", "tree_clr"),
    [
        ("rro", 0x1, 0),
        ("rrw", 0, 0x1),
        ("rro rrw", 0, 0x1),
        ("rnosuid rsuid", 0, 0x2),
        ("rsuid rnosuid", 0x2, 0),
        ("rnodev", 0x4, 0),
        ("rdev", 0, 0x4),
        ("rnoexec", 0x8, 0),
        ("rexec", 0, 0x8),
        ("rnodiratime", 0x80, 0),
        ("rdiratime", 0, 0x80),
        ("rnosymfollow", 0x200000, 0),
        ("rsymfollow", 0, 0x200000),
        ("rnoatime", 0x10, 0x70),
        ("ratime", 0, 0x70),
        ("rnoatime ratime", 0, 0x70),
        ("rstrictatime", 0x20, 0x70),
        ("rstrictatime ratime", 0x20, 0x70),
        ("rstrictatime rnostrictatime", 0, 0x70),
        ("rnostrictatime", 0, 0x70),
        ("rrelatime", 0, 0x70),
        ("rnorelatime", 0, 0),
    ],
)
def test_a_word_with_an_r_is_for_the_whole_tree(words: str, tree_set: int, tree_clr: int) -> None:
    options = parsed(f"rbind {words}", "")
    assert (options.tree_set, options.tree_clr) == (tree_set, tree_clr)
    assert (options.attr_set, options.attr_clr, options.sb_set, options.sb_clr) == (0, 0, (), ())


def test_attributes_of_the_tree_are_no_flags_of_the_superblock() -> None:
    options = parsed("ro rrw")
    assert (options.attr_set, options.tree_clr, options.sb_set) == (0x1, 0x1, ("ro",))


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("copy-symlink", "copy_symlink"),
        ("src-nofollow", "source_nofollow"),
        ("dest-nofollow", "dest_nofollow"),
    ],
)
def test_words_about_symlinks_are_for_binds(word: str, name: str) -> None:
    assert getattr(parsed(f"bind {word}", ""), name) is True
    assert not any(
        getattr(parsed("bind", ""), other) for other in ("copy_symlink", "source_nofollow", "dest_nofollow")
    )
    for words, kind in ((word, "tmpfs"), (f"bind remount {word}", ""), (word, "")):
        with pytest.raises(SpecError) as caught:
            parsed(words, kind)
        assert caught.value.path == f"mounts[3].options[{len(words.split()) - 1}]"


def test_tmpcopyup_is_for_a_new_tmpfs() -> None:
    assert parsed("size=1m tmpcopyup").copy_up and not parsed("size=1m").copy_up
    for words, kind in (
        ("tmpcopyup", "proc"),
        ("tmpcopyup", ""),
        ("bind tmpcopyup", ""),
        ("remount tmpcopyup", "tmpfs"),
    ):
        with pytest.raises(SpecError):
            parsed(words, kind)


@given(st.lists(st.sampled_from([*WORDS, "size=1", ""])))
def test_attributes_never_contradict_each_other(words: list[str]) -> None:
    try:
        options = parse_options(words, "x")
    except SpecError:
        return
    plain = ~mountopts.ATTR_ATIME
    for to_set, to_clear in ((options.attr_set, options.attr_clr), (options.tree_set, options.tree_clr)):
        assert to_set & to_clear & plain == 0
        mode = to_set & mountopts.ATTR_ATIME
        assert mode in (0, 0x10, 0x20)
        assert to_clear & mountopts.ATTR_ATIME in ((0x70,) if mode else (0, 0x70))
    assert "" not in options.data
