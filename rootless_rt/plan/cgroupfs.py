"""What a mount of type "cgroup" becomes: depends on the host's hierarchy and on who makes it.

cgroup v2 with an own cgroup namespace is mounted afresh. Elsewhere the container gets its own cgroup by bind,
read-only where it is not alone in its cgroup namespace, since above its own cgroup lies the host's tree
(CVE-2023-25809); and an empty read-only tmpfs where there is nothing of its own to show.
"""

from __future__ import annotations

from rootless_rt.plan.model import Draft
from rootless_rt.plan.ops import ANY_DEVICE, NO_SLOT, NOT_IN_PROC, Op
from rootless_rt.spec.mountopts import ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.spec.mountopts import MountOptions

_SAFE = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC


def cgroup_mounts(
    draft: Draft, options: MountOptions, dest: str, where: str, propagation: list[int]
) -> list[Op]:
    """The ops of one mount of type cgroup."""
    attrs = options.attr_set | _SAFE
    cgroup = draft.facts.cgroup
    if cgroup.mode == "v2" and "cgroup" in draft.new:
        return [_fs(draft, dest, "cgroup2", "cgroup", [], attrs, propagation, where)]
    if "cgroup" not in draft.new:
        attrs |= ATTR_RDONLY
    if cgroup.mode == "v2":
        own = cgroup.container_dirs.get("")
        if own:
            return [_bind(draft, own, dest, attrs, propagation, where)]
        return _nothing(draft, dest, propagation, where)
    shown = {name: path for name, path in cgroup.container_dirs.items() if name}
    if not shown:
        return _nothing(draft, dest, propagation, where)
    tree = _fs(draft, dest, "tmpfs", "tmpfs", ["mode=755"], attrs & ~ATTR_RDONLY, propagation, where)
    ops = [tree]
    # Controllers that share one hierarchy share its directory; the other names are links to it.
    homes: dict[str, str] = {}
    for name, path in sorted(shown.items()):
        folder = cgroup.folders[name]
        if folder not in homes:
            homes[folder] = name
            ops.append(_bind(draft, path, f"{dest}/{folder}", attrs | ATTR_RDONLY, [], where))
        plain = name.removeprefix("name=")
        if plain != folder:
            ops.append(Op("symlink", draft.root_slot, f"{dest}/{plain}", folder, label=where))
    if attrs & ATTR_RDONLY:
        ops.append(Op("remount", draft.root_slot, dest, ATTR_RDONLY, 0, [], label=where))
    return ops


def _fs(
    draft: Draft,
    dest: str,
    kind: str,
    source: str,
    data: list[str],
    attrs: int,
    propagation: list[int],
    where: str,
) -> Op:
    if draft.linux.get("mountLabel"):
        from rootless_rt.plan import lsm

        data = lsm.mount_data(draft, kind, data)
    return Op(
        "mount_fs",
        draft.root_slot,
        dest,
        kind,
        source,
        data,
        attrs,
        propagation,
        0,
        NOT_IN_PROC,
        NO_SLOT,
        label=where,
    )


def _bind(draft: Draft, path: str, dest: str, attrs: int, propagation: list[int], where: str) -> Op:
    slot = draft.source(path, False, label=where)
    return Op(
        "mount_bind",
        draft.root_slot,
        slot,
        dest,
        attrs,
        0,
        0,
        0,
        propagation,
        ANY_DEVICE,
        NOT_IN_PROC,
        0,
        label=where,
    )


def _nothing(draft: Draft, dest: str, propagation: list[int], where: str) -> list[Op]:
    draft.degrade(
        where,
        "the container's cgroup",
        "an empty read-only directory",
        draft.facts.cgroup.reason or "no cgroup of its own can be shown",
    )
    attrs = _SAFE | ATTR_RDONLY
    return [
        _fs(draft, dest, "tmpfs", "tmpfs", ["mode=755", "size=0k", "nr_inodes=2"], attrs, propagation, where)
    ]
