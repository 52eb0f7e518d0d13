"""What mount options become in the ops of a plan: what must hold, what may be locked, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from lab.plans import compiled, every, one, place, root_config, root_facts, user_config

from rootless_rt.errors import RtError, SpecError
from rootless_rt.plan.ops import COPY_SYMLINK, DEST_CONTENT, DEST_MODE, DEST_OWNER, NO_SLOT, ON_SYMLINK

RO, NOSUID, NODEV, NOEXEC, NOATIME, ATIME, NOSYMFOLLOW = 0x1, 0x2, 0x4, 0x8, 0x10, 0x70, 0x200000


def made_of(*items: dict[str, Any], **policy: Any) -> Any:
    config = user_config()
    config["mounts"] += items
    return compiled(config, **policy)


def item(dest: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": dest, "type": kind, "source": source, "options": list(options)}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ro nosuid", (RO | NOSUID, 0, 0, 0, 0, 0)),
        ("rro rnosymfollow", (0, RO | NOSYMFOLLOW, 0, 0, 0, 0)),
        ("rw exec", (0, 0, 0, RO | NOEXEC, 0, 0)),
        ("rrw rsuid", (0, 0, 0, 0, 0, RO | NOSUID)),
        ("noatime", (0, 0, NOATIME, ATIME, 0, 0)),
        ("rnoatime", (0, 0, 0, 0, NOATIME, ATIME)),
        ("relatime", (0, 0, 0, ATIME, 0, 0)),
        # What is for the tree wins, whatever comes first.
        ("rw rro", (0, RO, 0, 0, 0, 0)),
        ("rro rw", (0, RO, 0, 0, 0, 0)),
        ("ro rrw", (0, 0, 0, 0, 0, RO)),
        ("noatime rstrictatime nodev", (NODEV, 0, 0, 0, 0x20, ATIME)),
    ],
)
def test_restrictions_are_hard_and_all_else_is_soft(words: str, expected: tuple[int, ...]) -> None:
    for options, name in (([], "mount_bind"), (["remount"], "remount")):
        made = made_of(item("/a", "bind", "/srv", *options, *words.split()))
        op = one(made, name, dest="/a")
        fields = ("set", "tree_set", "soft_set", "soft_clear", "tree_soft_set", "tree_soft_clear")
        assert tuple(op[field] for field in fields) == expected
        tolerated = place(made, name, dest="/a") in made.tolerated
        assert tolerated == any(expected[2:])


def test_words_about_symlinks_become_bits() -> None:
    made = made_of(
        item("/a", "bind", "/srv", "copy-symlink"),
        item("/b", "bind", "/srv", "src-nofollow"),
        item("/c", "bind", "/srv", "dest-nofollow"),
        item("/d", "bind", "/srv"),
    )
    links = [one(made, "mount_bind", dest=dest) for dest in ("/a", "/b", "/c", "/d")]
    assert [op["links"] for op in links] == [COPY_SYMLINK, 0, ON_SYMLINK, 0]
    assert [one(made, "source", slot=op["slot"])["nofollow"] for op in links] == [1, 1, 0, 0]
    assert all(one(made, "source", slot=op["slot"])["descriptor"] == NO_SLOT for op in links)


@pytest.mark.parametrize(
    ("words", "bits"),
    [
        ("", DEST_MODE),
        ("mode=755", 0),
        ("size=1m,mode=1777", 0),
        ("tmpcopyup", DEST_CONTENT | DEST_MODE | DEST_OWNER),
        ("tmpcopyup mode=700", DEST_CONTENT | DEST_OWNER),
        ("tmpcopyup uid=0", DEST_CONTENT | DEST_MODE),
    ],
)
def test_a_tmpfs_takes_from_its_destination_what_is_not_given(words: str, bits: int) -> None:
    assert one(made_of(item("/a", "tmpfs", "t", *words.split())), "mount_fs", dest="/a")["from_dest"] == bits


def test_a_tmpfs_to_be_filled_is_not_read_only_from_the_start() -> None:
    op = one(made_of(item("/a", "tmpfs", "t", "tmpcopyup", "ro", "sync")), "mount_fs", dest="/a")
    assert op["data"] == ["sync"] and op["attrs"] & RO


def test_no_other_filesystem_takes_anything() -> None:
    config = root_config()
    config["mounts"].append(item("/a", "ramfs", "t"))
    found = every(compiled(config, root_facts()), "mount_fs")
    assert not [op for op in found if op["fstype"] != "tmpfs" and op["from_dest"]]


def test_a_descriptor_is_a_source_by_its_slot() -> None:
    made = made_of(
        item("/a", "bind", "/proc/self/fd/4"), item("/b", "bind", "/dev/fd/3/below/it"), keep_fds=2
    )
    first, second = (
        one(made, "source", slot=one(made, "mount_bind", dest=dest)["slot"]) for dest in ("/a", "/b")
    )
    assert made.fds[first["descriptor"]] == ("keep", "4") and first["below"] == ""
    assert made.fds[second["descriptor"]] == ("keep", "3") and second["below"] == "below/it"


@pytest.mark.parametrize("number", ["", "2", "5", "x", "-3", "+3", " 3", "1_0", "٣", "3" * 30])
def test_a_number_that_is_not_kept_is_refused(number: str) -> None:
    for mount in (
        item("/a", "bind", f"/dev/fd/{number}"),
        item("/a", "fuse", "f", f"fd={number}"),
    ):
        with pytest.raises(SpecError) as caught:
            made_of(mount, keep_fds=2)
        assert caught.value.path.startswith("mounts[") and "keeps 3 to 4" in caught.value.message


def test_fuse_takes_its_device_from_a_slot_and_tells_its_subtype() -> None:
    made = made_of(item("/f", "fuse.sshfs", "me@there", "fd=3,rootmode=40000", "user_id=0"), keep_fds=1)
    op = one(made, "mount_fs", dest="/f")
    assert op["fstype"] == "fuse" and op["data"] == ["rootmode=40000", "user_id=0", "subtype=sshfs"]
    assert made.fds[op["descriptor"]] == ("keep", "3")


def test_a_remount_changes_the_filesystem_only_where_the_config_made_it() -> None:
    words = ("remount", "ro", "size=1m")
    assert one(made_of(item("/a", "tmpfs", "t"), item("/a/.", "tmpfs", "t", *words)), "remount", dest="/a")[
        "data"
    ] == ["ro", "size=1m"]
    assert one(made_of(item("/a", "none", "t", "remount", "ro")), "remount", dest="/a")["data"] == []
    for before in ([], [item("/a", "tmpfs", "t"), item("/a", "bind", "/srv")]):
        with pytest.raises(SpecError) as caught:
            made_of(*before, item("/a", "tmpfs", "t", *words))
        assert '"size=1m"' in caught.value.message
    with pytest.raises(RtError):
        made_of(item("/sys", "sysfs", "sysfs", *words))
