"""The root file system as a whole: binding it, hiding parts of it, making it the root."""

from __future__ import annotations

from rootless_rt.errors import RtError
from rootless_rt.plan.model import Degradation, Draft
from rootless_rt.plan.mounts import normal
from rootless_rt.plan.ops import CHROOT, MOVE_ROOT, NO_SLOT, PIVOT_ROOT, Op
from rootless_rt.spec.mountopts import ATTR_RDONLY
from rootless_rt.spec.names import MS_REC, PROPAGATION

MS_UNBINDABLE, MS_PRIVATE = PROPAGATION["unbindable"][0], PROPAGATION["private"][0]
MS_SHARED = PROPAGATION["shared"][0]


def first_ops(draft: Draft) -> list[Op]:
    """Cut the mounts off from the host's, as far as rootfsPropagation says."""
    flag, _ = PROPAGATION[draft.linux.get("rootfsPropagation") or "rslave"]
    # Private ones would keep what the host unmounts; what is covered among shared ones, the host loses too.
    if not draft.policy.pivot and flag in (MS_PRIVATE, MS_SHARED):
        kind = "private" if flag == MS_PRIVATE else "shared"
        raise RtError(
            f"rootfsPropagation of [r]{kind} is not safe without pivot_root", hint="leave out --no-pivot"
        )
    if draft.joined.get("mount"):
        return []  # others live in that namespace: how its mounts propagate is theirs to say
    # Unbindable mounts could not be bound below: that is set at the end.
    return [Op("propagation", MS_PRIVATE if flag == MS_UNBINDABLE else flag)]


def root_op(draft: Draft) -> Op:
    """Bind the rootfs on itself, so that it is a mount."""
    shared = PROPAGATION[draft.linux.get("rootfsPropagation") or "rslave"][0] == MS_SHARED
    return Op("root", draft.spec.rootfs, draft.root_slot, int(shared), label="root.path")


def upper_slot(draft: Draft) -> int:
    """The slot of the directory that takes what is written, for --overlay-dir."""
    if not draft.policy.overlay:
        return NO_SLOT
    slot = draft.new_slot()
    draft.sources.append(Op("directory", slot, draft.policy.overlay, label="--overlay-dir"))
    return slot


def overlay_op(draft: Draft, upper: int) -> Op:
    """The overlay, with a program in the kernel's stead where that refuses one to a user.

    The program is root of the container's user namespace, on the host's files: nobody inside may see it, let
    alone trace it.
    """
    can_serve = {"user", "mount", "pid"} <= set(draft.new) and draft.uid_mapped(0) and draft.gid_mapped(0)
    flags = [1 if said else 0 for said in (draft.in_userns, can_serve)]
    op = Op("overlay", draft.root_slot, upper, *flags, label="--overlay")
    if not can_serve:
        return op
    return draft.tolerate(
        op,
        Degradation(
            "--overlay",
            "an overlay of the kernel's",
            "fuse-overlayfs, which is slower",
            "the kernel refuses one here",
            "Linux 5.11 or newer; no overlay below or above, and extended attributes above (not NFS)",
            id="RT-KERNEL-OVERLAY",
        ),
    )


def hiding_ops(draft: Draft, null_slot: int) -> list[Op]:
    """Masked and read-only paths, and the read-only root."""
    ops: list[Op] = []
    masked = draft.linux.get("maskedPaths", [])
    tmpfs_slot = draft.new_slot() if masked else NO_SLOT
    if masked and draft.linux.get("mountLabel"):
        from rootless_rt.plan import lsm

        ops += lsm.mask_ops(draft, tmpfs_slot)
    for index, path in enumerate(draft.linux.get("readonlyPaths", [])):
        label = f"linux.readonlyPaths[{index}]"
        ops += [Op("readonly", root, rest, label=label) for root, rest in _ways(draft, path)]
    for index, path in enumerate(masked):
        label = f"linux.maskedPaths[{index}]"
        ops += [
            Op("mask", root, rest, null_slot, tmpfs_slot, label=label) for root, rest in _ways(draft, path)
        ]
    if draft.config["root"].get("readonly") and draft.policy.overlay is None:
        ops.append(Op("root_attrs", draft.root_slot, ATTR_RDONLY, label="root.readonly"))
    return ops


def _ways(draft: Draft, path: str) -> list[tuple[int, str]]:
    """Where a path is looked for: (slot, the rest of the path). In the mount that holds it, if there is one.

    Hooks may have mounted something over that, so then from the root as well.
    """
    whole = normal(path)
    dests = [dest for dest in draft.places if whole.startswith(dest + "/")]
    if not dests:
        return [(draft.root_slot, path)]
    dest = max(dests, key=len)
    ways = [(draft.places[dest], whole[len(dest) :])]
    hooks = draft.config.get("hooks", {})
    if any(hooks.get(kind) for kind in ("prestart", "createRuntime", "createContainer")):
        ways.append((draft.root_slot, path))
    return ways


def pivot_ops(draft: Draft) -> list[Op]:
    """Make the rootfs the root."""
    if draft.joined.get("mount"):
        # Others live in that namespace: its root is theirs.
        return [Op("pivot", draft.root_slot, CHROOT)]
    ops = []
    if not draft.policy.pivot:
        ops += [
            Op("cover", path) for path in draft.facts.kernel_mounts if not _below(path, draft.spec.rootfs)
        ]
    ops.append(Op("pivot", draft.root_slot, PIVOT_ROOT if draft.policy.pivot else MOVE_ROOT))
    name = draft.linux.get("rootfsPropagation")
    if name and PROPAGATION[name][0] in (MS_SHARED, MS_UNBINDABLE):
        flag, recursive = PROPAGATION[name]
        ops.append(Op("root_propagation", flag | (MS_REC if recursive else 0)))
    return ops


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")
