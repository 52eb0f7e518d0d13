"""Checks of the ids that a user may map: the helpers, and what /etc/subuid and /etc/subgid grant.

What is wrong with a map is for `idmap.diagnose` to say; here it becomes findings with a script's commands.
"""

from __future__ import annotations

import os

from idmap import auto, nsresource, subid
from idmap import diagnose as map_diagnose
from idmap import evidence as map_evidence
from idmap.errors import IdmapError
from idmap.userns import own_map
from rootless_rt.host.doctor.fixes import install, quote
from rootless_rt.host.doctor.model import Me, Trouble
from rootless_rt.host.doctor.system import FAR, mount_of, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from idmap.evidence import Evidence
    from idmap.subid import SubRange
    from rootless_rt.host.doctor.model import Check
    from rootless_rt.host.doctor.system import FindProgram

KINDS = ("uid", "gid")
TOOLS = {"uid": "newuidmap", "gid": "newgidmap"}
_ROOM = 65536


class IdentityEvidence:
    """of: kind -> evidence on a map of all granted ids. shared: kind -> (start, count, whose) that others
    have too. links: file -> what is odd about it. getsubids: its path or None. room: how many uids exist in
    the user namespace that rt runs in. lender: systemd-nsresourced's version and why it lends no ids
    ("" where it does), or None where it does not listen."""

    __slots__ = ("getsubids", "lender", "links", "of", "room", "shared")

    def __init__(self, of: dict[str, Evidence]) -> None:
        self.of = of
        self.shared: dict[str, list[tuple[int, int, str]]] = {"uid": [], "gid": []}
        self.links: dict[str, str] = {}
        self.getsubids: str | None = None
        self.room = 1 << 32
        self.lender: tuple[str, str] | None = None

    def causes(self) -> list[tuple[str, IdmapError]]:
        """(kind, error) of all that keeps the helpers from their work, without repetition."""
        found: list[tuple[str, IdmapError]] = []
        for kind, evidence in self.of.items():
            found += [(kind, error) for error in map_diagnose.causes(evidence)]
        return found


def gather(root: str, me: Me, find: FindProgram) -> IdentityEvidence:
    """Read files and helpers below `root`."""
    of = {}
    for kind in KINDS:
        own = me.uid if kind == "uid" else me.groups[0]
        # A map that nobody asked for: the own id, and a range that must be granted to be there.
        asked = [(0, own, 1), (1, auto.FIRST_PROPOSED, 1)]
        helper = find(TOOLS[kind])
        found = map_evidence.gather(
            kind, os.getpid(), asked, own, uid=me.uid, name=me.name, helper=helper, root=root
        )
        found.target_exists = found.dumpable = True
        found.mapped = False
        if found.granted:
            found.asked = auto.full(own, found.granted)
        of[kind] = found
    evidence = IdentityEvidence(of)
    evidence.getsubids = find("getsubids")
    if not root and nsresource.is_there():  # a recorded host has nobody to ask
        try:
            evidence.lender = nsresource.look()
        except IdmapError as error:
            evidence.lender = ("", str(error))
    try:
        evidence.room = sum(count for _, _, count in own_map("uid", root + "/proc/self"))
    except OSError:
        pass  # RT-PROC-MISSING
    listed = mounts(root)
    for kind in KINDS:
        file = subid.FILES[kind]
        evidence.shared[kind] = shared(
            of[kind].granted, me, subid.parse_file(subid.read_file(root + file)), _accounts(root, kind)
        )
        mount = mount_of(file, listed)
        if os.path.islink(root + file):
            evidence.links[file] = "is a symbolic link to " + os.readlink(root + file)
        elif mount and mount.kind in FAR:
            evidence.links[file] = f"is on a network file system ({mount.kind})"
    return evidence


def shared(
    mine: Iterable[SubRange],
    me: Me,
    lines: Iterable[tuple[bytes, int, int, int]],
    accounts: Iterable[tuple[str, int]],
) -> list[tuple[int, int, str]]:
    """The parts (start, count, whose) of `mine` that another user's line, or an account, has as well.

    >>> shared([(100000, 10, 1)], Me(), [(b"bob", 100005, 10, 2)], [("www", 100001)])
    [(100005, 5, 'bob (line 2)'), (100001, 1, 'www')]
    """
    own = {os.fsencode(me.who), b"%d" % me.uid}
    others = [(start, count, f"{os.fsdecode(owner)} (line {line})") for owner, start, count, line in lines
              if owner not in own]  # fmt: skip
    others += [(number, 1, name) for name, number in accounts]
    found = []
    for start, count, _ in mine:
        for first, length, whose in others:
            low, high = max(start, first), min(start + count, first + length)
            if low < high:
                found.append((low, high - low, whose))
    return found


def _accounts(root: str, kind: str) -> list[tuple[str, int]]:
    found = []
    for line in subid.read_file(root + ("/etc/passwd" if kind == "uid" else "/etc/group")).split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit() and len(fields[2]) <= 10:
            found.append((os.fsdecode(fields[0]), int(fields[2])))
    return found


def _first(evidence: IdentityEvidence, *reasons: str) -> list[tuple[str, IdmapError]]:
    return [(kind, error) for kind, error in evidence.causes() if error.reason in reasons]


def check_helper(evidence: IdentityEvidence, me: Me) -> Trouble | str:
    """Are they there?"""
    missing = [TOOLS[kind] for kind, error in _first(evidence, "helper-missing")]
    if me.euid == 0:
        return "not needed by root"
    if not missing:
        return ", ".join(str(found.helper) for found in evidence.of.values())
    fix, commands = install("newuidmap", me.manager)
    verb = "is" if len(missing) == 1 else "are"
    return Trouble(
        f"{' and '.join(missing)} {verb} not installed: only your own ids can be mapped", fix, commands
    )


def check_rights(evidence: IdentityEvidence, me: Me) -> Trouble | str | None:
    """Can they do their work?"""
    found = _first(evidence, "helper-not-setuid", "helper-nosuid", "helper-needs-admin")
    if not found or me.euid == 0:
        return "not needed by root" if me.euid == 0 else None
    commands = []
    for kind, error in found:
        if evidence.of[kind].helper_exposed:
            continue  # a script of root's must not touch what others can change
        helper = quote(str(evidence.of[kind].helper))
        if error.reason == "helper-not-setuid":
            commands.append(f"chmod u+s {helper}")
        elif error.reason == "helper-needs-admin":
            commands.append(map_diagnose.file_caps_command(helper, f"set{kind}"))
        else:
            commands.append(f'mount -o remount,suid "$(findmnt -no TARGET -T {helper})"')
    first = found[0][1]
    return Trouble(str(first), first.hint or "", commands, details=[str(error) for _, error in found[1:]])


def check_grant(evidence: IdentityEvidence, me: Me) -> Trouble | str | None:
    """Is anything granted?"""
    if me.euid == 0:
        return "not needed by root"
    found = _first(evidence, "no-subid-entry", "range-too-small")
    if not found:
        ranges = [f"{kind}s {_shown(evidence.of[kind].granted)}" for kind in KINDS]
        return ", ".join(ranges)
    kind, first = found[0]
    kinds = [kind for kind, _ in found]
    return Trouble(
        f"{first}: only your own ids can be mapped",
        first.hint or "",
        _grants(evidence.of[kind], me, kinds),
        details=[str(error) for _, error in found[1:]],
    )


def _grants(evidence: Evidence, me: Me, kinds: list[str]) -> list[str]:
    """Lines that grant a free range, unless one of that start was granted already."""
    if evidence.provider != "files" or evidence.proposed is None:
        return []
    start, count = evidence.proposed
    commands = []
    for kind in kinds:
        file, line = subid.FILES[kind], quote(f"{me.who}:{start}:{count}")
        there = f"grep -qsxF -e {line} {file}"
        if evidence.name_is_local:
            part = f"{start}-{start + count - 1}"
            commands.append(f"{there} || usermod --add-sub{kind}s {part} {quote(me.who)}")
            continue
        # usermod knows only the users of /etc/passwd.
        commands.append(f"{there} || printf '%s\\n' {line} >> {file}")
    return commands


def check_size(evidence: IdentityEvidence, me: Me) -> Trouble | str | None:
    """Does it reach to nobody?"""
    if evidence.room < _ROOM:
        return Trouble(
            f"only {evidence.room} uids exist in this user namespace; images use ids up to 65534",
            "give the surrounding container a range of 65536 ids or more",
        )
    small = {}
    for kind in KINDS:
        total = sum(count for _, count, _ in evidence.of[kind].granted)
        if 0 < total < _ROOM:
            small[kind] = total
    if not small or me.euid == 0:
        return None
    kind = next(iter(small))
    numbers = " and ".join(f"{total} {name}s" for name, total in small.items())
    proposed = evidence.of[kind].proposed
    commands = _grants(evidence.of[kind], me, list(small))
    fix = f"ask for a range of {_ROOM}"
    if commands and proposed:
        last = proposed[0] + proposed[1] - 1
        flags = " ".join(f"--add-sub{name}s {proposed[0]}-{last}" for name in small)
        fix = f"sudo usermod {flags} {me.who}"
    return Trouble(f"{numbers} granted; images use ids up to 65534", fix, commands)


def check_overlap(evidence: IdentityEvidence, me: Me) -> Trouble | None:
    """Is it yours alone?"""
    found = [(kind, *part) for kind in KINDS for part in evidence.shared[kind]]
    if not found:
        return None
    shown = [f"{kind}s {start}:{count} are also those of {whose}" for kind, start, count, whose in found]
    return Trouble(
        shown[0] + (f" (and {len(shown) - 1} more)" if shown[1:] else ""),
        "have an administrator give one of the two another range, in /etc/subuid and /etc/subgid",
        details=shown[1:9],
    )


def check_link(evidence: IdentityEvidence, me: Me) -> Trouble | None:
    """Are the files files?"""
    if not evidence.links:
        return None
    shown = [f"{file} {what}" for file, what in evidence.links.items()]
    links = [file for file, what in evidence.links.items() if "link" in what]
    commands = [
        f'if [ -L {file} ]; then cp --remove-destination "$(readlink -f {file})" {file}; fi' for file in links
    ]
    return Trouble(shown[0], "make it a plain file of a local file system", commands, details=shown[1:])


def check_provider(evidence: IdentityEvidence, me: Me) -> Trouble | str:
    """Who grants?"""
    name = evidence.of["uid"].provider
    if name != "files" and evidence.getsubids is None:
        fix, commands = install("newuidmap", me.manager)
        return Trouble(
            f"nsswitch.conf names {name}, and getsubids, by which rt could ask it, is not installed",
            fix,
            commands,
        )
    return "/etc/subuid and /etc/subgid" if name == "files" else f"{name}, by {evidence.getsubids}"


def check_lender(evidence: IdentityEvidence, me: Me) -> Trouble | str:
    """Does systemd-nsresourced lend ids, to one who has none?"""
    if evidence.lender is None:
        return "systemd-nsresourced does not listen"
    version, why = evidence.lender
    said = f"systemd-nsresourced {version}".strip()
    if not why:
        return f"{said}: --idmap nsresource"
    if me.euid == 0 or all(found.granted for found in evidence.of.values()):
        return f"{said} lends none: {why}"
    return Trouble(
        f"{said} lends no ids, and you are granted none: {why}",
        "have ids granted (RT-IDS-SUBID), or boot with bpf in the kernel parameter lsm=",
    )


def check_name(evidence: IdentityEvidence, me: Me) -> Trouble | str | None:
    """newuidmap wants one."""
    if me.name is not None or me.euid == 0:
        return me.name
    return Trouble(
        f"uid {me.uid} has no name, and newuidmap serves only users who have one",
        f"add a line for uid {me.uid} to /etc/passwd, or map only your own ids",
    )


def _shown(ranges: Sequence[SubRange]) -> str:
    return ", ".join(f"{start}:{count}" for start, count, _ in ranges[:3])


CHECKS: tuple[Check, ...] = (
    ("RT-IDS-HELPER", check_helper),
    ("RT-IDS-HELPER-RIGHTS", check_rights),
    ("RT-IDS-SUBID", check_grant),
    ("RT-IDS-SUBID-SIZE", check_size),
    ("RT-IDS-SUBID-OVERLAP", check_overlap),
    ("RT-IDS-SUBID-LINK", check_link),
    ("RT-IDS-PROVIDER", check_provider),
    ("RT-IDS-NSRESOURCE", check_lender),
    ("RT-IDS-NAME", check_name),
)
