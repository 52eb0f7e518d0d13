"""What a mount of type "cgroup" becomes: depends on the host's hierarchy and on who makes it.

cgroup v2 with an own cgroup namespace is mounted afresh. Elsewhere the container gets its own cgroup by bind,
read-only where it is not alone in its cgroup namespace, since above its own cgroup lies the host's tree
(CVE-2023-25809); and an empty read-only tmpfs where there is nothing of its own to show.
"""

from __future__ import annotations

from rootless_rt.plan.attributes import bind_op, empty_op, filesystem_op, of_new, remount_op, restricting
from rootless_rt.plan.model import Draft
from rootless_rt.plan.ops import Op
from rootless_rt.spec.mountopts import ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.spec.mountopts import MountOptions

_SAFE = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC


def cgroup_mounts(
    draft: Draft, options: MountOptions, dest: str, where: str, propagation: list[int]
) -> list[Op]:
    """The ops of one mount of type cgroup."""
    attrs = of_new(options) | _SAFE
    cgroup = draft.facts.cgroup
    if cgroup.mode == "v2" and "cgroup" in draft.new:
        return [
            filesystem_op(draft, dest, "cgroup2", "cgroup", [], attrs, propagation=propagation, label=where)
        ]
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
    # Its own directories are made before it becomes read-only.
    data, writable = ["mode=755"], attrs & ~ATTR_RDONLY
    ops = [filesystem_op(draft, dest, "tmpfs", "tmpfs", data, writable, propagation=propagation, label=where)]
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
        ops.append(remount_op(draft, dest, restricting(ATTR_RDONLY), label=where))
    return ops


def _bind(draft: Draft, path: str, dest: str, attrs: int, propagation: list[int], where: str) -> Op:
    slot = draft.source(path, False, label=where)
    return bind_op(draft, slot, dest, restricting(attrs), propagation=propagation, label=where)


def _nothing(draft: Draft, dest: str, propagation: list[int], where: str) -> list[Op]:
    draft.degrade(
        where,
        "the container's cgroup",
        "an empty read-only directory",
        draft.facts.cgroup.reason or "no cgroup of its own can be shown",
        id="RT-CGROUP-DELEGATED",
    )
    return [empty_op(draft, dest, propagation, where)]
