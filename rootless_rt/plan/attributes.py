"""Ops of mounts by the names of their fields, and how mount options become attributes of a mount.

Attributes that restrict (ro, nosuid, nodev, noexec, nosymfollow) are set or the container fails; those that
only concern access times, or take a restriction back, may be locked by the mount they come from
(mount_namespaces(7)): they are "soft", and stay as they are where they are locked, which is noted. Knows
nothing of sources, destinations and hosts.
"""

from __future__ import annotations

from rootless_rt.plan.model import Draft
from rootless_rt.plan.ops import ANY_DEVICE, NO_SLOT, NOT_IN_PROC, Op
from rootless_rt.spec.mountopts import (
    ATTR_ATIME,
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_NOSYMFOLLOW,
    ATTR_RDONLY,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless_rt.spec.mountopts import MountOptions

    # set, tree_set, soft_set, soft_clear, tree_soft_set, tree_soft_clear: as the ops have them.
    Attributes = tuple[int, int, int, int, int, int]

RESTRICT = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATTR_NOSYMFOLLOW
NONE: Attributes = (0, 0, 0, 0, 0, 0)


def of_existing(options: MountOptions) -> Attributes:
    """What the options change of a mount that exists, which may have attributes of its own."""
    to_set, to_clear = _without_tree(options)
    tree_set, tree_clear = options.tree_set, options.tree_clr
    return (
        to_set & RESTRICT,
        tree_set & RESTRICT,
        to_set & ~RESTRICT,
        to_clear,
        tree_set & ~RESTRICT,
        tree_clear,
    )


def of_new(options: MountOptions) -> int:
    """The attributes of a new mount, as fsmount(2) takes them."""
    return _without_tree(options)[0] | options.tree_set


def _without_tree(options: MountOptions) -> tuple[int, int]:
    """attr_set and attr_clr without what the words for the whole tree say otherwise."""
    to_set, to_clear = options.attr_set & ~options.tree_clr, options.attr_clr & ~options.tree_set
    if options.tree_clr & ATTR_ATIME:
        to_set, to_clear = to_set & ~ATTR_ATIME, to_clear & ~ATTR_ATIME
    return to_set, to_clear


def restricting(attributes: int, *, tree: bool = False) -> Attributes:
    """Restrictions alone, of a mount or of all its tree."""
    attributes &= RESTRICT
    return (0, attributes, 0, 0, 0, 0) if tree else (attributes, 0, 0, 0, 0, 0)


def is_soft(attributes: Attributes) -> bool:
    """Whether some of it may be found locked."""
    return any(attributes[2:])


def bind_op(
    draft: Draft,
    slot: int,
    dest: str,
    attributes: Attributes = NONE,
    *,
    propagation: Sequence[int] = (),
    device: int = ANY_DEVICE,
    in_proc: int = NOT_IN_PROC,
    links: int = 0,
    label: str = "",
) -> Op:
    """Attach the mount in a slot."""
    way = (list(propagation), device, in_proc, links)
    draft.place_at(dest, slot)
    return Op("mount_bind", draft.root_slot, slot, dest, *attributes, *way, label=label)


def filesystem_op(
    draft: Draft,
    dest: str,
    kind: str,
    source: str,
    data: list[str],
    attrs: int,
    *,
    propagation: Sequence[int] = (),
    strict: bool = False,
    in_proc: int = NOT_IN_PROC,
    fallback: int = NO_SLOT,
    from_dest: int = 0,
    descriptor: int = NO_SLOT,
    label: str = "",
) -> Op:
    """Mount a new filesystem, labelled as linux.mountLabel says."""
    if draft.linux.get("mountLabel") or any("context=" in word for word in data):
        from rootless_rt.plan import lsm

        data = lsm.mount_data(draft, kind, data)
    what = (dest, kind, source, data, attrs)
    keep = draft.place_at(dest)
    way = (list(propagation), int(strict), in_proc, fallback, from_dest, descriptor, keep)
    return Op("mount_fs", draft.root_slot, *what, *way, label=label)


def remount_op(
    draft: Draft,
    dest: str,
    attributes: Attributes,
    *,
    propagation: Sequence[int] = (),
    data: Sequence[str] = (),
    label: str = "",
) -> Op:
    """Change the mount at a destination, and with `data` its filesystem."""
    return Op("remount", draft.root_slot, dest, *attributes, list(propagation), list(data), label=label)


def empty_op(draft: Draft, dest: str, propagation: Sequence[int], label: str) -> Op:
    """Mount an empty directory that stays empty, where there is nothing to show."""
    attrs = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC
    data = ["mode=755", "size=0k", "nr_inodes=2"]
    return filesystem_op(draft, dest, "tmpfs", "tmpfs", data, attrs, propagation=propagation, label=label)
