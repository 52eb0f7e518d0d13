"""Id maps by name, for this user on this host: the own id alone, all that is granted, the own id kept.

Looks at the subuid and subgid files and for the helpers; knows nothing of configs. Raises RtError.
"""

from __future__ import annotations

import posix

from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idmap.errors import IdmapError

    Extent = tuple[int, int, int]

KINDS = ("auto", "single", "full", "keep-id", "nsresource")


class Maps:
    """What a name came to: extents (inside, outside, count); why it is less than could be, and the fix.

    When they are `lent`, systemd-nsresourced picks the ids outside, once the user namespace is there.
    """

    __slots__ = ("fix", "gids", "lent", "reason", "uids")

    def __init__(
        self, uids: list[Extent], gids: list[Extent], reason: str = "", fix: str = "", *, lent: bool = False
    ) -> None:
        self.uids = uids
        self.gids = gids
        self.reason = reason
        self.fix = fix
        self.lent = lent

    @property
    def notice(self) -> str:
        """What is less than could be, in a line; "" when nothing is."""
        if not self.reason:
            return ""
        if self.lent:
            return f"systemd-nsresourced lends the ids, and your files are nobody's inside: {self.reason}"
        return f"only your own ids are mapped: {self.reason}"


def maps_of(kind: str) -> Maps:
    """The maps for the user who runs this.

    single   the own id is the container's root, and no other id exists
    full     beside it all granted ids, from 1 up; RtError where none are, or where the helpers are missing
    auto     full where that works, else single with the reason
    keep-id  as auto, but the own id keeps its number
    nsresource  ids that systemd-nsresourced lends, the own not among them; RtError where it does not run
    """
    if kind == "nsresource":
        return lent_maps()
    euid, egid = posix.geteuid(), posix.getegid()
    kept = kind == "keep-id"
    inside = (euid, egid) if kept else (0, 0)
    alone = Maps([(inside[0], euid, 1)], [(inside[1], egid, 1)])
    if kind == "single":
        return alone
    from idmap.auto import full
    from idmap.helpers import find_helper
    from idmap.subid import granted, user_name
    from idmap.userns import in_user_namespace, own_map

    if euid == 0 and in_user_namespace():
        # Root of a user namespace has what that has: no file grants it more.
        uids, gids = (
            [(first, first, count) for first, _, count in own_map(which)] for which in ("uid", "gid")
        )
        return Maps(uids, gids)
    name = user_name(euid)
    ranges = {which: granted(which, euid, name) for which in ("uid", "gid")}
    missing = [f"/etc/sub{which}" for which in ranges if not ranges[which]]
    helpers = [tool for tool in ("newuidmap", "newgidmap") if euid != 0 and find_helper(tool) is None]
    if missing or helpers:
        who = name or str(euid)
        what = f"{' and '.join(missing)} grant {who} nothing" if missing else f"{helpers[0]} is not installed"
        fix = grant_hint(who) if missing else "sudo apt install uidmap"
        if kind == "full":
            raise RtError(f"--idmap full: {what}", hint=fix)
        alone.reason, alone.fix = what, fix
        return alone
    maps = Maps(full(euid, ranges["uid"], inside[0]), full(egid, ranges["gid"], inside[1]))
    found = [] if euid == 0 else causes(posix.getuid(), name, (maps.uids, maps.gids), (euid, egid))
    if not found:
        return maps
    if kind == "full":
        raise RtError(f"--idmap full: {found[0]}", hint=found[0].hint)
    alone.reason, alone.fix = str(found[0]), found[0].hint or ""
    return alone


def causes(
    uid: int, name: str | None, maps: tuple[list[Extent] | None, list[Extent] | None], own: tuple[int, int]
) -> list[IdmapError]:
    """What would keep newuidmap and newgidmap from writing a user's uid and gid map, as far as can be seen.

    A map of the own id alone needs neither.
    """
    from idmap import diagnose, evidence
    from idmap.helpers import find_helper

    found: list[IdmapError] = []
    for kind, extents, own_id in zip(("uid", "gid"), maps, own, strict=True):
        if extents and [extent[1:] for extent in extents] != [(own_id, 1)]:
            helper = find_helper(f"new{kind}map")
            seen = evidence.gather(kind, posix.getpid(), extents, own_id, uid=uid, name=name, helper=helper)
            seen.mapped, seen.dumpable = False, True  # of the process that will have the map
            found += diagnose.causes(seen)
    return found


def lent_maps(reason: str = "", fix: str = "") -> Maps:
    """What systemd-nsresourced will lend: all that is known now are the ids inside. Raises RtError."""
    from idmap.nsresource import FIRST_UID, SIZE, is_there

    if not is_there():
        raise RtError(
            "--idmap nsresource: systemd-nsresourced does not listen here",
            hint="with systemd 256 or newer: sudo apt install systemd-container; "
            "sudo systemctl enable --now systemd-nsresourced.socket",
        )
    lines = [(0, FIRST_UID, SIZE)]
    return Maps(lines, list(lines), reason, fix, lent=True)


def grant_hint(name: str) -> str:
    """The command that grants a user a free range."""
    from idmap.auto import propose_range
    from idmap.subid import read_file

    try:
        found = propose_range([read_file("/etc/subuid"), read_file("/etc/subgid")])
    except OSError:
        found = None
    start, count = found or (100000, 65536)
    last = start + count - 1
    return f"sudo usermod --add-subuids {start}-{last} --add-subgids {start}-{last} {name}"


def range_of_nobody() -> tuple[int, int, bool]:
    """Start and count of ids that no account has, for a container of root; whether they are granted to root.

    Raises RtError when there is no room for them.
    """
    from idmap.auto import RANGE_SIZE, propose_range
    from idmap.subid import granted, read_file

    uids, gids = ([line[:2] for line in granted(kind, 0, "root")] for kind in ("uid", "gid"))
    for start, count in uids:
        if (start, count) in gids and count >= RANGE_SIZE:
            return start, RANGE_SIZE, True
    import grp
    import pwd

    taken = [(entry.pw_uid, 1) for entry in pwd.getpwall()]
    taken += [(entry.gr_gid, 1) for entry in grp.getgrall()]
    found = propose_range([read_file("/etc/subuid"), read_file("/etc/subgid")], taken)
    if found is None:
        raise RtError("there is no free range of ids", hint="see /etc/subuid and /etc/subgid")
    return (*found, False)


def as_mappings(extents: list[Extent]) -> list[dict[str, int]]:
    """The extents as config.json writes them."""
    return [{"containerID": inside, "hostID": outside, "size": count} for inside, outside, count in extents]
