"""Id-mapped bind mounts: sources copied with a map of their own before the container's process exists.

The kernel wants CAP_SYS_ADMIN in the user namespace that owns the filesystem (mount_setattr(2)), which the
container's process has lost: so the runtime's own process copies such a source and maps it, and hands the
copy on. The map is that of a user namespace, which the runtime makes for the purpose.
"""

from __future__ import annotations

from rootless_rt.errors import RtError, SpecError
from rootless_rt.plan.model import Draft
from rootless_rt.plan.ops import Op
from rootless_rt.spec.idmaps import idmap_of
from rootless_rt.spec.names import CAPABILITIES, MS_REC, PROPAGATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt.spec.idmaps import Asked, Extent, MountIdmap

_CAP_SYS_ADMIN = 1 << CAPABILITIES["CAP_SYS_ADMIN"]
_UNBINDABLE, _PRIVATE = PROPAGATION["unbindable"][0], PROPAGATION["private"][0]


def take_slots(draft: Draft) -> None:
    """Have the runtime hand over the user namespaces that the mounts need: draft.idmaps. Raises RtError."""
    slots: dict[tuple[str, str], int] = {}
    for index, mount in enumerate(draft.config.get("mounts", [])):
        where = f"mounts[{index}]"
        asked = idmap_of(mount, where)
        if asked is None or not _is_bind(mount):
            continue  # that only a bind mount can have one was checked with the config
        if _changes_nothing(asked.uids, draft.plan.uid_map) and _changes_nothing(
            asked.gids, draft.plan.gid_map
        ):
            continue
        if not draft.facts.capabilities & _CAP_SYS_ADMIN:
            raise RtError(
                f"config.json: {where}: only root can map the ids of a mount: it takes CAP_SYS_ADMIN in the "
                "user namespace that owns the filesystem",
                hint="map the container's ids instead (linux.uidMappings and gidMappings), or change the "
                "files' owner",
            )
        key = _userns(draft, asked, where)
        if key not in slots:
            slots[key] = draft.fd_slot(*key)
        draft.idmaps[index] = slots[key]


def source(
    draft: Draft, index: int, path: str, recursive: bool, where: str, how: dict[str, Any] | None = None
) -> int:
    """The slot of the copied and mapped source of mounts[`index`], which is in draft.idmaps.

    `how` are further words for draft.source.
    """
    asked = idmap_of(draft.config["mounts"][index], where)
    assert asked is not None
    slot = draft.source(path, recursive, where, early=True, **(how or {}))
    flag, _ = PROPAGATION[draft.linux.get("rootfsPropagation") or "rslave"]
    # Copied where the host's mounts are: cut off from them as all others are in the container's namespace.
    flag = _PRIVATE if flag == _UNBINDABLE else flag
    draft.early.append(
        Op("idmap", slot, draft.idmaps[index], 1 if asked.recursive else 0, flag | MS_REC, label=where)
    )
    return slot


def _changes_nothing(asked: Asked, own: list[Extent] | None) -> bool:
    """Whether a map gives every id that the container has as what it is on the file system anyway."""
    if asked is None or own is None or any(relative for _, relative in asked):
        return False
    same = sorted((first, count) for (first, outside, count), _ in asked if first == outside)
    if len(same) != len(asked):
        return False
    for _, at, count in own:
        end = at + count
        for first, size in same:
            if first <= at < first + size:
                at = first + size
        if at < end:
            return False
    return True


def _is_bind(mount: dict[str, Any]) -> bool:
    options = mount.get("options", [])
    return mount.get("type") == "bind" or "bind" in options or "rbind" in options


def _userns(draft: Draft, asked: MountIdmap, where: str) -> tuple[str, str]:
    """What fills the slot: a user namespace to make, or the one that the container joins."""
    if "user" in draft.joined and asked.uids is None and asked.gids is None:
        return "user", draft.joined["user"]
    uids = _lines(draft, asked.uids, draft.plan.uid_map, f"{where}.uidMappings")
    gids = _lines(draft, asked.gids, draft.plan.gid_map, f"{where}.gidMappings")
    return "userns", ";".join("".join(f"{a} {b} {n}\n" for a, b, n in lines) for lines in (uids, gids))


def _lines(draft: Draft, asked: Asked, own: list[Extent] | None, where: str) -> list[Extent]:
    if asked is None:
        if own is None:
            raise SpecError(
                where,
                "without a new user namespace there is no map to take for it",
                hint="give uidMappings and gidMappings with the mount",
            )
        return own
    return [
        (first, _outside(own, second, count, where) if relative else second, count)
        for (first, second, count), relative in asked
    ]


def _outside(own: list[Extent] | None, inside: int, count: int, where: str) -> int:
    """The outside id of a range of the container's ids."""
    for first, outside, size in own or []:
        if first <= inside and inside + count <= first + size:
            return outside + inside - first
    raise SpecError(where, f"ids {inside} to {inside + count - 1} are not one range of the container's map")
