"""Mount options: what each word in mounts[].options means to the kernel's mount API.

One table (OPTIONS) and the parser that reads a list of words with it. Attributes are those of
mount_setattr(2) and fsmount(2); superblock flags go by the names that fsconfig(2) takes. Knows nothing of
sources, destinations or of what the kernel lets a user do.
"""

from __future__ import annotations

from rootless_rt.errors import NotSupportedYet, SpecError
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
LATER = 8  # a word whose work rt does not do yet

# A superblock flag and the flag that takes it back.
_OPPOSITES = {
    "ro": "rw",
    "sync": "async",
    "mand": "nomand",
    "lazytime": "nolazytime",
    "iversion": "noiversion",
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
    "iversion": (SET, 0, "iversion"),
    "noiversion": (CLEAR, 0, "noiversion"),
    "silent": (NOTHING,),  # how much the kernel logs is not a property of the mount
    "loud": (NOTHING,),
    "bind": (BIND, False),
    "rbind": (BIND, True),
    "remount": (REMOUNT,),
    "idmap": (NOTHING,),  # what mapping is meant is read by `idmaps`
    "ridmap": (NOTHING,),
}
OPTIONS.update({word: (PROPAGATE, *meaning) for word, meaning in PROPAGATION.items()})
OPTIONS.update(
    dict.fromkeys(
        [
            "rro",
            "rrw",
            "rnosuid",
            "rsuid",
            "rnodev",
            "rdev",
            "rnoexec",
            "rexec",
            "rnodiratime",
            "rdiratime",
            "rrelatime",
            "rnorelatime",
            "rnoatime",
            "ratime",
            "rstrictatime",
            "rnostrictatime",
            "rnosymfollow",
            "rsymfollow",
            "rsync",
            "rasync",
            "rdirsync",
            "rmand",
            "rnomand",
            "tmpcopyup",
            "copy-symlink",
            "src-nofollow",
            "dest-nofollow",
        ],
        (LATER,),
    )
)


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
    propagation  (MS_* flag, recursive), to apply one by one after the mount
    data         options for the filesystem itself, in their order

    A bind mount has no sb_set and sb_clr: it never changes the superblock of its source.
    """

    __slots__ = (
        "attr_clr",
        "attr_set",
        "bind",
        "data",
        "propagation",
        "rbind",
        "remount",
        "sb_clr",
        "sb_set",
    )

    def __init__(self) -> None:
        self.bind = False
        self.rbind = False
        self.remount = False
        self.attr_set = 0
        self.attr_clr = 0
        self.sb_set: tuple[str, ...] = ()
        self.sb_clr: tuple[str, ...] = ()
        self.propagation: tuple[tuple[int, bool], ...] = ()
        self.data: list[str] = []


def parse_options(options: list[str], path: str, fstype: str = "") -> MountOptions:
    """Read the options of one mount; a later word overrides an earlier one that it contradicts.

    `path` is the JSON path of the list, such as "mounts[3].options". A mount of type "bind" is a bind mount
    without the word too. Words that are not in the table are data for the filesystem. Raises NotSupportedYet
    for a word whose work comes later, SpecError for data given to a bind mount.
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
        elif meaning[0] == LATER:
            raise NotSupportedYet(f"{path}[{index}]", hint=f"remove the mount option {quote(word)}")
        else:
            _apply(result, meaning)
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


def _apply(result: MountOptions, meaning: tuple[Any, ...]) -> None:
    kind = meaning[0]
    if kind == SET:
        result.attr_set |= meaning[1]
        result.attr_clr &= ~meaning[1]
        _flag(result, meaning[2], True)
    elif kind == CLEAR:
        result.attr_clr |= meaning[1]
        result.attr_set &= ~meaning[1]
        _flag(result, meaning[2], False)
    elif kind == ATIME:
        result.attr_set = result.attr_set & ~ATTR_ATIME | meaning[1]
        result.attr_clr |= ATTR_ATIME
    elif kind == ATIME_UNDO:
        if not result.attr_clr & ATTR_ATIME or result.attr_set & ATTR_ATIME == meaning[1]:
            _apply(result, (ATIME, ATTR_RELATIME))
    elif kind == PROPAGATE:
        result.propagation += ((meaning[1], meaning[2]),)
    elif kind == BIND:
        result.bind = True
        result.rbind = result.rbind or meaning[1]
    elif kind == REMOUNT:
        result.remount = True


def _flag(result: MountOptions, name: str, sets: bool) -> None:
    """Note a superblock flag, and forget its opposite."""
    if not name:
        return
    opposite = _OPPOSITES.get(name)
    kept_set = tuple(flag for flag in result.sb_set if flag not in (name, opposite))
    kept_clr = tuple(flag for flag in result.sb_clr if flag not in (name, opposite))
    result.sb_set = (*kept_set, name) if sets else kept_set
    result.sb_clr = kept_clr if sets else (*kept_clr, name)
