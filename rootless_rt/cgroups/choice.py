"""Which driver, and which directory, a new container gets: decided from a `CgroupView`, changing nothing.

Where runc would put it, `rt` puts it: an absolute `cgroupsPath` counts from the mount point; a relative one,
or the container's id when there is none, from our own cgroup on v1, and from the parent of our own on v2 (our
own holds processes, and a v2 cgroup with processes cannot give controllers to children), but in a delegated
scope from our own, whose processes then make room. Must not know limits.
"""

from __future__ import annotations

import posix

from rootless_rt import paths
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import Manager
    from .host import CgroupView


def choose(
    view: CgroupView,
    *,
    manager: str,
    cgroups_path: str | None,
    container_id: str,
    euid: int,
    strict: bool,
    rootless: bool,
) -> Manager:
    """The manager for a new container. Nothing is made before its `create()`.

    In: `manager` ("auto", "cgroupfs", "systemd", "disabled"), `linux.cgroupsPath`, whether degradations are
    errors (`strict`), whether we lack the machine's root (`rootless`; as uid 0 of a user
    namespace does).

    Without permission and without `cgroupsPath` the answer is a NoCgroup with a `reason`; with `cgroupsPath`
    too, unless `strict`: then RtError. A rootless v1 manager uses those hierarchies that let it, and names
    the others in `reason`. The caller tells people the reason where a limit was asked for.
    """
    if manager == "systemd" or (manager == "auto" and _systemd_serves(view, cgroups_path, rootless)):
        scope = _scope(view, cgroups_path, container_id, rootless, strict=manager == "systemd")
        if scope is not None:
            return scope
    if manager not in ("auto", "cgroupfs", "disabled"):
        raise RtError(f"unknown cgroup manager: {manager}", hint="one of auto, cgroupfs, systemd, disabled")
    absolute = bool(cgroups_path) and str(cgroups_path).startswith("/")
    relative = normalise(cgroups_path or container_id)
    if manager == "disabled":
        return _none("disabled by --cgroup-manager")
    if view.mode == "v2":
        found, reason = _place_v2(view, relative, absolute, bool(cgroups_path))
        if found is not None:
            from .v2 import V2

            return V2(found)
    elif view.mode == "none":
        reason = "no cgroup file system is mounted"
    else:
        dirs, refused = _places_v1(view, relative, absolute)
        reason = "; ".join(refused[:2]) + (f"; and {len(refused) - 2} more" if len(refused) > 2 else "")
        if dirs and (rootless or not refused):
            from .v1 import V1

            return V1(dirs, reason or None)
    if cgroups_path and strict:
        raise RtError(f"cannot use linux.cgroupsPath {cgroups_path}: {reason}", hint=_hint(view, euid))
    return _none(reason)


def _systemd_serves(view: CgroupView, cgroups_path: str | None, rootless: bool) -> bool:
    """Whether an ordinary user's manager is there to be asked, and nothing speaks for another place.

    The whole v2 tree: of v1 no controller can be left to a user.
    """
    if not rootless or view.mode != "v2" or (cgroups_path and ":" not in cgroups_path):
        return False
    from .bus import USER, find

    return find(USER, paths.environment()) is not None


def _scope(
    view: CgroupView, cgroups_path: str | None, container_id: str, rootless: bool, *, strict: bool
) -> Manager | None:
    """A scope of systemd's; None where it does not answer, or RtError if `strict`."""
    from .bus import SYSTEM, USER
    from .systemd import choose_scope

    try:
        if view.mode == "none":
            raise RtError("systemd manages no cgroups here: none are mounted")
        if rootless and view.mode != "v2":
            raise RtError(
                "without root systemd can leave only cgroup v2 to a container, and this host's is not whole",
                hint="boot with systemd.unified_cgroup_hierarchy=1, or use --cgroup-manager=disabled",
            )
        return choose_scope(view, USER if rootless else SYSTEM, cgroups_path, container_id)
    except RtError:
        if strict:
            raise
        return None


def normalise(path: str) -> str:
    """A cgroup path without ".", empty parts and outer slashes. Raises RtError for what leads elsewhere.

    ".." is refused rather than resolved: nobody who means well needs it. The root itself is refused, since it
    is never a container's. A newline would forge lines of /proc/PID/cgroup.
    """
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            raise RtError(f'cgroup path {path!r}: ".." is not allowed', hint="write the path it leads to")
        if "\0" in part or "\n" in part or len(paths.fsencode(part)) > 255:
            raise RtError(f"cgroup path {path!r}: {part!r} is not a valid name")
        parts.append(part)
    if not parts:
        raise RtError(f"cgroup path {path!r} names the root of the hierarchy", hint="name a cgroup below it")
    joined = "/".join(parts)
    if len(paths.fsencode(joined)) > 3800:
        raise RtError("cgroup path is longer than a path name can be")
    return joined


def _none(reason: str) -> Manager:
    from .none import NoCgroup

    return NoCgroup(reason)


def _hint(view: CgroupView, euid: int) -> str:
    if view.mode == "none":
        return "mount cgroups on /sys/fs/cgroup, or leave linux.cgroupsPath out"
    if euid == 0:
        return "give the surrounding container writable cgroups, or use --cgroup-manager=disabled"
    return (
        "start it where systemd delegates a cgroup: systemd-run --user --scope -p Delegate=yes COMMAND, "
        "or leave linux.cgroupsPath out"
    )


def _place_v2(view: CgroupView, relative: str, absolute: bool, given: bool) -> tuple[str | None, str]:
    """(directory, "") or (None, why not)."""
    mount = view.unified or ""
    own = view.own_dir()
    base = mount if own is None or own == mount else paths.dirname(own)
    if absolute:
        bases = [mount]
    elif not given and own is not None and _delegated(own):
        bases = [own]  # beside it the tree is systemd's
    elif given or own is None or own == base:
        bases = [base]
    else:
        # A service with Delegate=yes owns its own cgroup, not its parent: good for all but controllers.
        bases = [base, own]
    reason = ""
    for place in bases:
        path = place + "/" + relative
        refused = _refused(path) or (own is not None and _join_refused(own, path)) or ""
        if not refused:
            return path, ""
        reason = reason or refused
    return None, reason


def _delegated(path: str) -> bool:
    """Whether systemd leaves a cgroup to what runs in it (Delegate=yes): below it one does as one likes.

    The system's manager marks it. A user's own manager did not always: there any unit counts.
    """
    above, _, unit = path.rpartition("/")
    if "/user@" in above and unit.endswith((".scope", ".service")):
        return True
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if posix.getxattr(path, name) == b"1":
                return True
        except OSError:
            continue  # not there, not ours to see, or no such attributes at all
    return False


def hierarchies(view: CgroupView) -> dict[str, list[str]]:
    """The v1 hierarchies: mount point -> controllers."""
    names: dict[str, list[str]] = {}
    for controller, mount in view.mounts.items():
        names.setdefault(mount, []).append(controller)
    return names


def _places_v1(view: CgroupView, relative: str, absolute: bool) -> tuple[dict[str, str], list[str]]:
    """({hierarchy: directory}, why not in the others). Controllers mounted together make one hierarchy."""
    names = hierarchies(view)
    dirs: dict[str, str] = {}
    refused: list[str] = []
    for mount, controllers in names.items():
        base = mount if absolute else view.own_dir(controllers[0]) or mount
        path = base + "/" + relative
        why = _refused(path)
        if why:
            refused.append(why)
        else:
            dirs[",".join(controllers)] = path
    if view.unified is not None:
        # No controllers of ours live here: the tree serves to kill and to freeze, and can be done without.
        found, _ = _place_v2(view, relative, absolute, True)
        if found is not None:
            from .v1 import UNIFIED

            dirs[UNIFIED] = found
    return dirs, refused


def _refused(path: str) -> str:
    """Why we cannot make (or, if it is there, fill) the cgroup `path`; "" when we can."""
    here = path
    while not paths.exists(here):
        here = paths.dirname(here)
        if here == "/":
            break
    # A mount point that something else covers: directories made there would be no cgroups.
    if not paths.exists(here + "/cgroup.procs"):
        return f"{here} is not a cgroup"
    target = here + "/cgroup.procs" if here == path else here
    return "" if _writable(target) else f"no write permission in {here}"


def _join_refused(own: str, path: str) -> str:
    """A v2 process moves only if the mover may write to the cgroup.procs of the nearest common ancestor."""
    ancestor = own
    while path != ancestor and not path.startswith(ancestor + "/"):
        ancestor = paths.dirname(ancestor)
        if ancestor == "/":
            return ""
    if _writable(ancestor + "/cgroup.procs"):
        return ""
    return f"no permission to move processes from {own}: {ancestor} belongs to somebody else"


def _writable(path: str) -> bool:
    """access(2) for the effective ids; also says no to a read-only mount."""
    return posix.access(path, posix.W_OK, effective_ids=True)
