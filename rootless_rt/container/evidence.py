"""What a plan was made from, written down so that somebody else can see whether it is still so.

The counterpart of `host.facts` and `cgroups.choice`: for each thing that those look at, an item says where
to look and what was found. `cli/kept_evidence.c` compares. Whoever makes them look at more adds an item here:
a test demands one for every field of HostFacts. Must not know what a plan is.

The form: items of u32 kind (the place in KINDS), u32 and u32 lengths, then two texts, each ended by a NUL:

    file     a path; the whole content of that small file
    lines    a path; a word, a line break, and the lines of that file which hold the word
    code     a path; device, inode, size and ctime in ns of the file there, links followed, each u64
    node     a path; device, inode, mode, uid, gid and device number of what is there, as u64, links followed
    missing  a path where nothing is; nothing
    room     a directory in which the container's id names nothing; nothing
    variable the name of an environment variable; "=" and its value, or nothing where it is not set
    limit    nothing; number of a resource limit, soft and hard limit, each u64
    ids      nothing; effective uid, gid and capabilities, then the supplementary groups, each u64
"""

from __future__ import annotations

import posix
import sys

from rootless_rt import cgroups, paths
from rootless_rt.host import facts as host_facts
from rootless_rt.spec.emulation import UID_EMULATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless_rt.host.facts import HostFacts

CPUSET = ("cpuset.cpus", "cpuset.mems")
"""What a new cgroup of v1 gets from the one above it."""
HELPERS = ("newuidmap", "newgidmap")
KINDS = ("file", "lines", "code", "node", "missing", "room", "variable", "limit", "ids")


def gather(
    config: dict[str, Any],
    facts: HostFacts,
    *,
    helpers: bool = False,
    added: bool = False,
    cgroups_at: Sequence[str] = (),
    asks_systemd: bool = True,
) -> bytes | None:
    """The evidence for the plan of a plain config; None where something cannot be told for sure.

    `helpers`: whether newuidmap or newgidmap write the maps. `added`: it is for a process that is added to a
    container, which is in no cgroup. `cgroups_at`: where the container's cgroups are made. `asks_systemd`:
    whether the user's systemd is asked for one, where it serves. Raises OSError for what has gone meanwhile.
    """
    code = _own_code()
    if code is None:
        return None
    items = [
        _file("/proc/sys/kernel/random/boot_id"),  # the kernel, and what it was told at boot
        _numbers("ids", "", facts.euid, facts.egid, facts.capabilities, *sorted(posix.getgroups())),
        _file("/proc/self/uid_map"),
        _file("/proc/self/gid_map"),
        *(_numbers("limit", "", number, *found) for number, found in facts.rlimits.items()),
        *(_there(path) for path in host_facts.candidates(config)),
        *code,
    ]
    if not added:
        found = _of_cgroups(config, facts, cgroups_at, asks_systemd)
        if found is None:
            return None
        items += found
    if not facts.initial_userns:
        items.append(_file("/proc/self/setgroups"))
    if config["process"].get("oomScoreAdj") is not None:
        items.append(_file("/proc/self/oom_score_adj"))
    if config.get("linux", {}).get("seccomp") or config.get("annotations", {}).get(UID_EMULATION):
        from rootless_rt.host.seccomp import library_file

        library = library_file()
        if library is None:
            return None
        items += [_code(library), _file("/proc/self/personality")]  # that has a say in uname(2)
    if helpers:
        items += [_variable("PATH"), *(_there(path) for path in _looked_at(HELPERS))]
    return b"".join(items)


def _own_code() -> list[bytes] | None:
    """Ours: the archive of modules and, since that is passed over in a source tree, the modules' sources."""
    importer = next((one for one in sys.meta_path if type(one).__name__ == "ArchiveImporter"), None)
    if importer is None:
        return None
    from rootless_rt.init.launch import program_path

    files = {str(getattr(importer, "path", "")), program_path()}
    for name, module in sys.modules.items():
        if name.partition(".")[0] in ("rootless_rt", "idmap") and module.__file__:
            files.add(module.__file__)
    return [_code(path) for path in sorted(files)]


def _looked_at(programs: Sequence[str]) -> list[str]:
    """Where programs were looked for, up to where each is."""
    from idmap.helpers import find_helper, places

    looked = []
    for name in programs:
        found = find_helper(name)
        for path in places(name):
            looked.append(path)
            if path == found:
                break
    return looked


def _of_cgroups(
    config: dict[str, Any], facts: HostFacts, made: Sequence[str], asks_systemd: bool
) -> list[bytes] | None:
    """Where the container's cgroups are made, or what speaks against any."""
    view = cgroups.view()
    items = [_file("/proc/self/cgroup"), _lines("/proc/self/mountinfo", " - cgroup")]
    places = {view.own_dir(controller) or mount for controller, mount in view.mounts.items()}
    if view.unified is not None:
        own = view.own_dir()
        above = view.unified if own in (None, view.unified) else paths.dirname(own)
        places |= {above, own or above}
    if config.get("linux", {}).get("cgroupsPath"):
        items += [_item("missing", path, b"") for path in made]
    else:
        items += [_item("room", place, b"") for place in sorted(places)]
    for place in sorted(places.union(paths.dirname(path) for path in made)):
        items += [_there(place), _there(place + "/cgroup.procs")]
        items += [_file(f"{place}/{name}") for name in CPUSET if paths.exists(f"{place}/{name}")]
    if view.mode == "v2" and (facts.euid != 0 or not facts.initial_userns):
        from rootless_rt.cgroups.bus import USER, candidates, find

        if asks_systemd and find(USER, paths.environment()) is not None:
            return None  # it has given none this time
        items += [_variable("DBUS_SESSION_BUS_ADDRESS"), _variable("XDG_RUNTIME_DIR")]
        items += [_there(path) for path in candidates(paths.environment())]
    return items


def _file(path: str) -> bytes:
    return _item("file", path, read(path))


def _lines(path: str, word: str) -> bytes:
    sought = word.encode()
    kept = [line + b"\n" for line in read(path).split(b"\n") if sought in line]
    return _item("lines", path, sought + b"\n" + b"".join(kept))


def read(path: str) -> bytes:
    """The whole of a small file of /proc. Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return paths.read_all(fd)
    finally:
        posix.close(fd)


def _code(path: str) -> bytes:
    # ctime, which nobody can set: with it the content is what it was when the directory was trusted.
    status = posix.stat(path)
    return _numbers("code", path, status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)


def _there(path: str) -> bytes:
    try:
        found = posix.stat(path)
    except OSError:
        return _item("missing", path, b"")
    return _numbers(
        "node", path, found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_rdev
    )


def _variable(name: str) -> bytes:
    value = posix.environ.get(name.encode())
    return _item("variable", name, b"" if value is None else b"=" + value)


def _numbers(kind: str, name: str, *numbers: int) -> bytes:
    return _item(kind, name, b"".join([number.to_bytes(8, sys.byteorder) for number in numbers]))


def _item(kind: str, name: str, found: bytes) -> bytes:
    first = paths.fsencode(name)
    head = (KINDS.index(kind), len(first), len(found))
    return b"".join([number.to_bytes(4, sys.byteorder) for number in head]) + first + b"\0" + found + b"\0"
