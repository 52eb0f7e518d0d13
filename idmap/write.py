"""Putting the maps of a process in place (user_namespaces(7), "Defining user and group ID mappings").

Knows the kernel's rules for who may write what:
- a map of one line that maps one id, the writer's own, needs nothing; of groups only once setgroups(2) is
  denied;
- a writer with CAP_SETUID and CAP_SETGID in the parent namespace may write any map;
- for all else newuidmap(1) and newgidmap(1) write what /etc/subuid and /etc/subgid grant. Both run at once.

Each of the two maps takes its own way. Knows no causes: when something fails, `evidence` and `diagnose` are
loaded.
"""

from __future__ import annotations

import posix

from idmap.errors import IdmapError
from idmap.extents import IDENTITY, MAX_EXTENTS, check, format_map, merge, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from idmap.extents import Extent

_HELPERS = {"uid": "newuidmap", "gid": "newgidmap"}


def write_maps(
    pid: int,
    uids: Sequence[Extent],
    gids: Sequence[Extent],
    *,
    euid: int,
    egid: int,
    privileged: bool,
    setgroups: Literal["allow", "deny"] | None = None,
    name: str | None = None,
) -> str:
    """Map the ids of the process `pid`, which is in a new user namespace, a child of this process's.

    `uids` and `gids` are in any order and number as long as, merged and split at the own namespace's lines,
    they fit the kernel. `euid` and `egid` are this process's ids; `privileged` says that it holds CAP_SETUID
    and CAP_SETGID in its user namespace. `setgroups` "deny" writes that first; None lets it be denied where
    the kernel insists; "allow" fails where the kernel insists. `name` is the user's, for messages.

    Returns "direct" when both maps were written by this process, else "helpers". Raises IdmapError, with the
    cause found in the state of the system; when both maps fail, the uid map's. A map may be in place after a
    failure: the process is of no further use then.
    """
    chosen = way(uids, gids, euid=euid, egid=egid, privileged=privileged, setgroups=setgroups)
    own = {"uid": euid, "gid": egid}
    commands = {kind: [program, str(pid), *numbers] for kind, (program, *numbers) in chosen.commands.items()}
    process = open_process(pid) if len(commands) < 2 or chosen.denies else -1
    try:
        if chosen.denies:
            failed = _put(process, "setgroups", b"deny")
            if failed:
                raise _refused("gid", pid, chosen.lines["gid"], own["gid"], name, failed, "setgroups")
        return _write_both(pid, process, chosen.lines, commands, own, name)
    finally:
        if process >= 0:
            posix.close(process)


class Way:
    """How two maps are put in place.

    lines     kind -> the lines as the kernel takes them
    commands  kind -> program and lines for newuidmap or newgidmap, without the process id that comes first
    denies    whether "deny" is written to the file setgroups first
    """

    __slots__ = ("commands", "denies", "lines")

    def __init__(
        self, lines: dict[str, Sequence[Extent]], commands: dict[str, list[str]], *, denies: bool
    ) -> None:
        self.lines = lines
        self.commands = commands
        self.denies = denies

    @property
    def texts(self) -> dict[str, str]:
        """Kind -> what is written to the file of a map that this process writes itself."""
        return {
            kind: format_map(lines).decode()
            for kind, lines in self.lines.items()
            if kind not in self.commands
        }


def way(
    uids: Sequence[Extent],
    gids: Sequence[Extent],
    *,
    euid: int,
    egid: int,
    privileged: bool,
    setgroups: Literal["allow", "deny"] | None = None,
) -> Way:
    """How `write_maps` would put these maps in place. Raises IdmapError for what cannot be."""
    wanted = {"uid": uids, "gid": gids}
    own = {"uid": euid, "gid": egid}
    alone = {kind: len(wanted[kind]) == 1 and tuple(wanted[kind][0])[1:] == (own[kind], 1) for kind in wanted}
    lines = {kind: _fitted(kind, wanted[kind], alone[kind]) for kind in wanted}
    by_helper = [kind for kind in lines if not (privileged or alone[kind])]
    if setgroups != "deny" and alone["gid"] and not privileged:
        if setgroups == "allow":
            raise IdmapError(
                "a map of only the own group needs setgroups denied",
                reason="setgroups-denied",
                hint="deny setgroups, or map granted groups too (/etc/subgid)",
            )
        setgroups = "deny"
    return Way(lines, {kind: _command(kind, lines[kind]) for kind in by_helper}, denies=setgroups == "deny")


def _fitted(kind: str, extents: Sequence[Extent], alone: bool) -> Sequence[Extent]:
    """The lines as the kernel takes them: checked, merged, cut at the own namespace's lines, few, short."""
    check(extents, kind)
    if alone:
        return extents
    from idmap.userns import own_map

    lines = merge(extents)
    parent = own_map(kind)
    if parent != [IDENTITY]:
        # Split as given first: only so does an error name the caller's line.
        lines = split(merge(split(extents, parent, kind)), parent, kind)
    # The kernel takes a map in one write of less than a page, whichever of the two limits is met first.
    size, room = len(format_map(lines)), posix.sysconf("SC_PAGE_SIZE") - 1
    if len(lines) > MAX_EXTENTS or size > room:
        raise IdmapError(
            f"{kind} map: {len(lines)} lines of {size} bytes; the kernel takes at most {MAX_EXTENTS} lines "
            f"and {room} bytes",
            reason="too-many-extents",
            hint="map longer ranges: lines that continue each other on both sides count as one",
        )
    return lines


def _command(kind: str, lines: Sequence[Extent]) -> list[str]:
    from idmap.helpers import find_helper

    program = find_helper(_HELPERS[kind])
    if program is None:
        from idmap.diagnose import helper_missing
        from idmap.evidence import os_release

        raise helper_missing(_HELPERS[kind], os_release())
    argv = [program]
    for extent in lines:
        argv += map(str, extent)
    return argv


def _write_both(
    pid: int,
    process: int,
    lines: dict[str, Sequence[Extent]],
    commands: dict[str, list[str]],
    own: dict[str, int],
    name: str | None,
) -> str:
    """Start the helpers, write the other maps while they run, wait for all; raise the first map's failure."""
    running = {}
    unstarted = {}
    refused = {}
    ended = {}
    if commands:
        from idmap.helpers import finish, start
    try:
        for kind, argv in commands.items():
            try:
                running[kind] = start(argv)
            except OSError as error:
                unstarted[kind] = str(error).encode()
        for kind in lines:
            if kind not in commands:
                refused[kind] = _put(process, f"{kind}_map", format_map(lines[kind]))
    finally:
        for kind, helper in running.items():
            ended[kind] = finish(helper)
    # Causes are looked for only now, when nothing is running any more.
    for kind in lines:
        if refused.get(kind):
            raise _refused(kind, pid, lines[kind], own[kind], name, refused[kind], f"{kind}_map")
        if kind in commands:
            code, said = ended.get(kind, (127, unstarted.get(kind, b"")))
            if code != 0 and not (code is None and _is_mapped(pid, kind)):
                raise _failed(kind, commands[kind][0], pid, lines[kind], own[kind], name, said)
    return "helpers" if commands else "direct"


def open_process(pid: int) -> int:
    """A descriptor of /proc/PID, from a procfs that shows this process's own pid namespace.

    Something else mounted on /proc, or a procfs of another pid namespace, would have the map written to
    another process's file, or to any file. One descriptor for all files also rules out that the pid changes
    hands between them.
    """
    flags = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC | posix.O_NOFOLLOW
    proc = -1
    try:
        proc = posix.open("/proc", flags)
        # 1 is the inode number of every procfs root (PROC_ROOT_INO).
        if posix.fstat(proc).st_ino != 1 or posix.readlink("self", dir_fd=proc) != str(posix.getpid()):
            raise OSError
        try:
            process = posix.open(str(pid), flags, dir_fd=proc)
        except (FileNotFoundError, ProcessLookupError):
            raise IdmapError(f"process {pid} is gone", reason="target-gone") from None
        if posix.fstat(process).st_dev != posix.fstat(proc).st_dev:
            posix.close(process)
            raise OSError
        return process
    except OSError:
        raise IdmapError(
            "/proc is not the procfs of this process's pid namespace",
            reason="proc-mismatch",
            hint="mount a procfs of this pid namespace on /proc (unshare --mount-proc does)",
        ) from None
    finally:
        if proc >= 0:
            posix.close(proc)


def _put(process: int, file: str, text: bytes) -> int:
    """Write a file of /proc/PID in one write, as the kernel demands; 0, or the errno."""
    try:
        fd = posix.open(file, posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW, dir_fd=process)
        try:
            posix.write(fd, text)
        finally:
            posix.close(fd)
    except OSError as error:
        return error.errno or -1
    return 0


def _is_mapped(pid: int, kind: str) -> bool:
    from idmap.userns import own_map

    try:
        return bool(own_map(kind, f"/proc/{pid}"))
    except OSError:
        return False


def _failed(
    kind: str, program: str, pid: int, lines: Sequence[Extent], own: int, name: str | None, said: bytes
) -> IdmapError:
    from idmap.diagnose import explain
    from idmap.evidence import gather

    return explain(gather(kind, pid, lines, own, name=name, helper=program, said=said))


def _refused(
    kind: str, pid: int, lines: Sequence[Extent], own: int, name: str | None, errno: int, file: str
) -> IdmapError:
    from idmap.diagnose import explain_direct
    from idmap.evidence import gather

    return explain_direct(gather(kind, pid, lines, own, name=name, errno=errno, file=file))
