"""Mount options: what each word in mounts[].options means to the kernel's mount API.

One table (OPTIONS) and the parser that reads a list of words with it. Attributes are those of
mount_setattr(2) and fsmount(2); superblock flags go by the names that fsconfig(2) takes. Knows nothing of
sources, destinations or of what the kernel lets a user do.
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.names import PROPAGATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8
ATTR_ATIME = 0x70  # a field of three values, not flags: always cleared as a whole
ATTR_RELATIME = 0x00
ATTR_NOATIME = 0x10
ATTR_STRICTATIME = 0x20
ATTR_NODIRATIME = 0x80
ATTR_NOSYMFOLLOW = 0x200000

# kinds of OPTIONS' values; the items that follow the kind:
SET = 0  # attribute, superblock flag or "" : both are set
CLEAR = 1  # attribute, superblock flag or "" : the attribute is cleared, the flag is one that clears
ATIME = 2  # value of the atime field
ATIME_UNDO = 3  # value of the atime field that goes back to relatime
PROPAGATE = 4  # MS_* flag, recursive
BIND = 5  # recursive
REMOUNT = 6
NOTHING = 7
RECURSIVE = 8  # the meaning (SET, CLEAR, ATIME …) that the attribute has for the whole tree
EXTENSION = 9  # a name of MountOptions that becomes true: work of the runtime's, unknown to the kernel

# A superblock flag and the flag that takes it back.
_OPPOSITES = {
    "ro": "rw",
    "sync": "async",
    "mand": "nomand",
    "lazytime": "nolazytime",
}
_OPPOSITES.update({back: flag for flag, back in _OPPOSITES.items()})

OPTIONS: dict[str, tuple[Any, ...]] = {
    "defaults": (NOTHING,),
    "ro": (SET, ATTR_RDONLY, "ro"),
    "rw": (CLEAR, ATTR_RDONLY, "rw"),
    "nosuid": (SET, ATTR_NOSUID, ""),
    "suid": (CLEAR, ATTR_NOSUID, ""),
    "nodev": (SET, ATTR_NODEV, ""),
    "dev": (CLEAR, ATTR_NODEV, ""),
    "noexec": (SET, ATTR_NOEXEC, ""),
    "exec": (CLEAR, ATTR_NOEXEC, ""),
    "nodiratime": (SET, ATTR_NODIRATIME, ""),
    "diratime": (CLEAR, ATTR_NODIRATIME, ""),
    "nosymfollow": (SET, ATTR_NOSYMFOLLOW, ""),
    "symfollow": (CLEAR, ATTR_NOSYMFOLLOW, ""),
    "noatime": (ATIME, ATTR_NOATIME),
    "atime": (ATIME_UNDO, ATTR_NOATIME),
    "strictatime": (ATIME, ATTR_STRICTATIME),
    "nostrictatime": (ATIME_UNDO, ATTR_STRICTATIME),
    "relatime": (ATIME, ATTR_RELATIME),
    "norelatime": (NOTHING,),  # relatime is what the kernel does when nothing else is asked
    "sync": (SET, 0, "sync"),
    "async": (CLEAR, 0, "async"),
    "dirsync": (SET, 0, "dirsync"),
    "mand": (SET, 0, "mand"),
    "nomand": (CLEAR, 0, "nomand"),
    "lazytime": (SET, 0, "lazytime"),
    "nolazytime": (CLEAR, 0, "nolazytime"),
    # Filesystems that can count changes of an inode always do; the new mount API has no word for it.
    "iversion": (NOTHING,),
    "noiversion": (NOTHING,),
    "silent": (NOTHING,),  # how much the kernel logs is not a property of the mount
    "loud": (NOTHING,),
    "bind": (BIND, False),
    "rbind": (BIND, True),
    "remount": (REMOUNT,),
    "idmap": (NOTHING,),  # what mapping is meant is read by `idmaps`
    "ridmap": (NOTHING,),
}
OPTIONS.update({word: (PROPAGATE, *meaning) for word, meaning in PROPAGATION.items()})
# The words of attributes with an r before them mean the whole tree below the mount, the superblock excepted.
OPTIONS.update(
    {
        "r" + word: (RECURSIVE, *OPTIONS[word][:2])
        for word in (
            *("ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nodiratime", "diratime"),
            *("relatime", "norelatime", "noatime", "atime", "strictatime", "nostrictatime"),
            *("nosymfollow", "symfollow"),
        )
    }
)
# crun's: superblock flags are the same for the whole tree of a new filesystem anyway.
OPTIONS.update({"r" + word: OPTIONS[word] for word in ("sync", "async", "dirsync", "mand", "nomand")})
OPTIONS.update(
    {
        "tmpcopyup": (EXTENSION, "copy_up"),
        "copy-symlink": (EXTENSION, "copy_symlink"),
        "src-nofollow": (EXTENSION, "source_nofollow"),
        "dest-nofollow": (EXTENSION, "dest_nofollow"),
    }
)

# Where an extension means something: what else the mount must be.
_FOR_BINDS = ("copy-symlink", "src-nofollow", "dest-nofollow")


class MountOptions:
    """What a list of mount options asks for.

    bind         bind-mount the source instead of making a filesystem
    rbind        ... with all that is mounted below it (then bind is true as well)
    remount      change the mount that is already there
    attr_set     MOUNT_ATTR_* to set; alone, what fsmount(2) takes
    attr_clr     MOUNT_ATTR_* to clear; with attr_set, what mount_setattr(2) takes, so a chosen atime mode
                 clears the whole field
    sb_set       flags of the filesystem for fsconfig(2), such as "ro" and "sync"
    sb_clr       those that clear one, such as "rw" and "async": only a remount needs them
    tree_set, tree_clr   the same for the mount and all below it; they win over attr_set and attr_clr
    propagation  (MS_* flag, recursive), to apply one by one after the mount
    data         options for the filesystem itself, in their order
    copy_up      fill a new tmpfs with what it covers (tmpcopyup)
    copy_symlink      make a source that is a symlink anew at the destination, and mount nothing
    source_nofollow   mount a source that is a symlink itself, not what it points to
    dest_nofollow     mount on a destination that is a symlink itself

    A bind mount has no sb_set and sb_clr: it never changes the superblock of its source.
    """

    __slots__ = (
        "attr_clr",
        "attr_set",
        "bind",
        "copy_symlink",
        "copy_up",
        "data",
        "dest_nofollow",
        "propagation",
        "rbind",
        "remount",
        "sb_clr",
        "sb_set",
        "source_nofollow",
        "tree_clr",
        "tree_set",
    )

    def __init__(self) -> None:
        self.bind = False
        self.rbind = False
        self.remount = False
        self.attr_set = 0
        self.attr_clr = 0
        self.tree_set = 0
        self.tree_clr = 0
        self.copy_up = False
        self.copy_symlink = False
        self.source_nofollow = False
        self.dest_nofollow = False
        self.sb_set: tuple[str, ...] = ()
        self.sb_clr: tuple[str, ...] = ()
        self.propagation: tuple[tuple[int, bool], ...] = ()
        self.data: list[str] = []


def parse_options(options: list[str], path: str, fstype: str = "") -> MountOptions:
    """Read the options of one mount; a later word overrides an earlier one that it contradicts.

    `path` is the JSON path of the list, such as "mounts[3].options". A mount of type "bind" is a bind mount
    without the word too. Words that are not in the table are data for the filesystem. Raises SpecError for
    data given to a bind mount and for words that mean nothing for this kind of mount.
    """
    result = MountOptions()
    result.bind = fstype == "bind"
    first_data = 0
    for index, word in enumerate(options):
        meaning = OPTIONS.get(word)
        if meaning is None:
            # crun's idmap=uids=...;gids=... is read by `idmaps`
            if word and not word.startswith(("idmap=", "ridmap=")):
                first_data = first_data if result.data else index
                result.data.append(word)
        else:
            _apply(result, meaning)
    _check_extensions(options, result, path, fstype)
    if result.bind:
        if result.data:
            raise SpecError(f"{path}[{first_data}]", f"a bind mount takes no data: {quote(result.data[0])}")
        result.sb_set = result.sb_clr = ()
    return result


def asks_for_map(mount: dict[str, Any]) -> bool:
    """Whether a mount may ask for mapped ids: then `idmaps` says what it asks."""
    if mount.get("uidMappings") or mount.get("gidMappings"):
        return True
    return any(word.startswith(("idmap", "ridmap")) for word in mount.get("options", []))


def _check_extensions(options: list[str], result: MountOptions, path: str, fstype: str) -> None:
    for index, word in enumerate(options):
        if word in _FOR_BINDS and (not result.bind or result.remount):
            raise SpecError(f"{path}[{index}]", f"{quote(word)} is for bind mounts only")
        if word == "tmpcopyup" and (result.bind or result.remount or fstype != "tmpfs"):
            raise SpecError(f"{path}[{index}]", f"{quote(word)} is for a new mount of type tmpfs only")


def _apply(result: MountOptions, meaning: tuple[Any, ...]) -> None:
    kind = meaning[0]
    if kind in (SET, CLEAR, ATIME, ATIME_UNDO):
        result.attr_set, result.attr_clr = _attribute(result.attr_set, result.attr_clr, kind, meaning[1])
        if kind in (SET, CLEAR):
            _flag(result, meaning[2], kind == SET)
    elif kind == RECURSIVE and meaning[1] != NOTHING:
        result.tree_set, result.tree_clr = _attribute(result.tree_set, result.tree_clr, *meaning[1:])
    elif kind == PROPAGATE:
        result.propagation += ((meaning[1], meaning[2]),)
    elif kind == BIND:
        result.bind = True
        result.rbind = result.rbind or meaning[1]
    elif kind == REMOUNT:
        result.remount = True
    elif kind == EXTENSION:
        setattr(result, meaning[1], True)


def _attribute(to_set: int, to_clear: int, kind: int, value: int) -> tuple[int, int]:
    """What to set and to clear, once the word of this kind and value has been read too."""
    if kind == SET:
        return to_set | value, to_clear & ~value
    if kind == CLEAR:
        return to_set & ~value, to_clear | value
    if kind == ATIME_UNDO:
        if to_clear & ATTR_ATIME and to_set & ATTR_ATIME != value:
            return to_set, to_clear  # another mode was chosen since
        value = ATTR_RELATIME
    return to_set & ~ATTR_ATIME | value, to_clear | ATTR_ATIME


def _flag(result: MountOptions, name: str, sets: bool) -> None:
    """Note a superblock flag, and forget its opposite."""
    if not name:
        return
    opposite = _OPPOSITES.get(name)
    kept_set = tuple(flag for flag in result.sb_set if flag not in (name, opposite))
    kept_clr = tuple(flag for flag in result.sb_clr if flag not in (name, opposite))
    result.sb_set = (*kept_set, name) if sets else kept_set
    result.sb_clr = kept_clr if sets else (*kept_clr, name)
