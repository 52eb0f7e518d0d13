"""`--idmap` and `--uid-emulation` of create, run and plan: other ids for a container than its config says.

Gives a changed copy of a checked config, checked again. Knows what the maps mean for the rest of a config;
must not know how they are come by.
"""

from __future__ import annotations

import posix

from rootless_rt.errors import RtError, SpecError
from rootless_rt.host.idmaps import KINDS, Maps, as_mappings, lent_maps, maps_of
from rootless_rt.spec import jsonio, schema
from rootless_rt.spec.emulation import UID_EMULATION
from rootless_rt.spec.load import MOST_BYTES, Spec, checked, from_bytes
from rootless_rt.spec.names import IDMAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def with_idmap(spec: Spec, asked: str) -> tuple[Spec, Maps | None]:
    """The spec with the maps that `asked` names: one of KINDS, or a file with uidMappings and gidMappings.

    With keep-id a process that was to be root runs as the user. The second is what a name came to. Raises
    RtError and SpecError.
    """
    config = dict(spec.data)
    linux = dict(config.get("linux", {}))
    namespaces = linux.get("namespaces", [])
    if any(item["type"] == "user" and item.get("path") for item in namespaces):
        raise RtError("--idmap: the config joins a user namespace, which has its maps already")
    maps = None
    if asked in KINDS:
        maps = _lent_instead(maps_of(asked), spec) if asked == "auto" else maps_of(asked)
        if maps.lent:
            config["annotations"] = {**config.get("annotations", {}), IDMAP: "nsresource"}
        linux["uidMappings"], linux["gidMappings"] = as_mappings(maps.uids), as_mappings(maps.gids)
    else:
        linux.update(_from_file(asked))
    linux["namespaces"] = [item for item in namespaces if item["type"] != "user"] + [{"type": "user"}]
    config["linux"] = linux
    if asked == "keep-id" and maps is not None:
        user = dict(config["process"].get("user", {}))
        if not user.get("uid") and not user.get("gid"):
            own = {"uid": _kept(maps.uids), "gid": _kept(maps.gids)}
            config["process"] = {**config["process"], "user": {**user, **own}}
    # The saved config is what exec goes by: it has to say the same.
    try:
        changed = from_bytes(jsonio.dumps(config).encode("utf-8", "surrogateescape"), spec.bundle)
    except SpecError as error:
        if asked in KINDS or not error.path.startswith(("linux.uidMappings", "linux.gidMappings")):
            raise
        # What is wrong stands in the file, not in the config.
        said = error.message.removeprefix("config.json: ").replace("linux.", "")
        raise RtError(f"{asked}: {said}", hint=error.hint) from None
    return changed, maps


def with_what_is_granted(spec: Spec) -> Spec:
    """The spec with the caller's own ids alone, where the maps that it asks for cannot be written here."""
    from idmap.subid import user_name
    from rootless_rt.host.doctor.reasons_errors import OF_MAPS
    from rootless_rt.host.idmaps import causes

    linux = spec.data["linux"]
    uids, gids = (
        [(line["containerID"], line["hostID"], line["size"]) for line in linux.get(field, [])]
        for field in ("uidMappings", "gidMappings")
    )
    euid, egid = posix.geteuid(), posix.getegid()
    found = causes(euid, user_name(euid), (uids, gids), (euid, egid))
    if not found:
        return spec
    changed, _ = with_idmap(spec, "single")
    first = found[0]
    total = sum(count for _, _, count in uids)
    changed.changes = [
        less_ids(f"{total} uids", first.message, first.hint or "", OF_MAPS.get(first.reason, ""))
    ]
    return changed


def less_ids(asked: str, why: str, fix: str, id: str = "RT-IDS-SUBID") -> dict[str, str]:
    """The parts of a degradation to the caller's own ids."""
    field, got = "linux.uidMappings", "your own ids alone"
    return {"field": field, "asked": asked, "got": got, "why": why, "fix": fix, "id": id}


def _lent_instead(maps: Maps, spec: Spec) -> Maps:
    """Ids of systemd-nsresourced where nothing is granted: when the caller's own id is not missed.

    That is not among them, so what belongs to the caller could be written by nobody inside.
    """
    from idmap.nsresource import is_there

    if not maps.reason or not is_there():
        return maps
    binds = [
        mount["source"]
        for mount in spec.data.get("mounts", [])
        if mount.get("source", "").startswith("/") and "ro" not in mount.get("options", [])
    ]
    if any(_is_own(path) for path in (spec.rootfs, *binds)):
        maps.fix += "; or see --idmap nsresource"
        return maps
    return lent_maps(maps.reason, maps.fix)


def _is_own(path: str) -> bool:
    try:
        return posix.stat(path).st_uid == posix.geteuid()
    except OSError:
        return False


def with_emulation(spec: Spec, asked: str) -> Spec:
    """The spec with the annotation that says `--uid-emulation`; the saved config is what exec goes by."""
    config = {**spec.data, "annotations": {**spec.data.get("annotations", {}), UID_EMULATION: asked}}
    return from_bytes(jsonio.dumps(config).encode("utf-8", "surrogateescape"), spec.bundle)


def _kept(extents: list[tuple[int, int, int]]) -> int:
    """The id that is the same on both sides."""
    return next((inside for inside, outside, count in extents if inside == outside and count == 1), 0)


def _from_file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RtError(
            f"--idmap {path}: {(error.strerror or 'cannot be read').lower()}",
            hint=f"one of {', '.join(KINDS)}, or a JSON file with uidMappings and gidMappings",
        ) from None
    try:
        maps = checked(data, path, schema.ID_MAPS)
    except SpecError as error:
        error.message = error.message.replace("config.json: ", f"{path}: ", 1)
        raise
    return {"uidMappings": maps["uidMappings"], "gidMappings": maps["gidMappings"]}
