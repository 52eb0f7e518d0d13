"""`rt spec`: write a config.json to start from, and if asked a small rootfs beside it."""

from __future__ import annotations

import os

from rootless_rt import cgroups
from rootless_rt.cli.argv import Invocation, flag, text
from rootless_rt.cli.common import log_of
from rootless_rt.cli.log import Log
from rootless_rt.errors import RtError
from rootless_rt.host.idmaps import as_mappings, maps_of
from rootless_rt.spec.defaults import default_spec, many_users, rootless
from rootless_rt.spec.jsonio import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Lines = list[dict[str, int]]


def run(inv: Invocation) -> int:
    """Write the config; with --rootfs-from-host also make the directory that it names."""
    bundle = text(inv.options, "bundle") or "."
    out = text(inv.options, "file") or os.path.join(bundle, "config.json")
    if out != "-" and os.path.lexists(out):
        raise RtError(f"File {os.path.basename(out)} exists. Remove it first", hint=f"rm {out}")
    config = _config(inv, bundle)
    if flag(inv.options, "rootfs_from_host"):
        from rootless_rt.host.rootfs import make_rootfs

        make_rootfs(os.path.join(bundle, config["root"]["path"]))
    _write(out, dumps(config, "\t") + "\n")
    return 0


def _config(inv: Invocation, bundle: str) -> dict[str, Any]:
    cgroup2 = cgroups.view().mode == "v2"
    source = text(inv.options, "from")
    if flag(inv.options, "hardened"):
        return _hardened(inv, text(inv.options, "idmap"), source)
    if source is None:
        config = default_spec(cgroup2=cgroup2)
    else:
        from rootless_rt.spec.load import MOST_BYTES, from_bytes

        try:
            with open(source, "rb") as file:
                data = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise RtError(f"--from {source}: {os.strerror(error.errno or 0).lower()}") from None
        config = from_bytes(data, os.path.abspath(bundle)).data
    idmap = text(inv.options, "idmap")
    if not flag(inv.options, "rootless"):
        if idmap is not None:
            raise RtError("--idmap goes with --rootless", hint=f"rt spec --rootless --idmap {idmap}")
        return config
    euid, egid = os.geteuid(), os.getegid()
    uids, gids = _maps(idmap or "single", log_of(inv))
    if uids is not None and source is None:
        config = many_users(config)
    return rootless(config, euid, egid, uids, gids, cgroup2=cgroup2)


def _hardened(inv: Invocation, idmap: str | None, source: str | None) -> dict[str, Any]:
    from rootless_rt.spec.hardened import USER, hardened_spec

    if source is not None:
        raise RtError("--hardened and --from exclude each other", hint="rt lint shows what a config lacks")
    log = log_of(inv)
    if not flag(inv.options, "rootless"):
        if idmap is not None:
            raise RtError("--idmap goes with --rootless", hint=f"rt spec --rootless --idmap {idmap}")
        lines = as_mappings([(0, *_range_of_nobody(log))])
        return hardened_spec(lines, lines, devices=True)
    # More ids are worth more here: the program is then somebody else on the host than the caller.
    maps = _maps(idmap or "auto", log)
    if not all(
        lines and any(0 <= USER - line["containerID"] < line["size"] for line in lines) for lines in maps
    ):
        maps = as_mappings([(USER, os.geteuid(), 1)]), as_mappings([(USER, os.getegid(), 1)])
    return hardened_spec(maps[0] or [], maps[1] or [], devices=False)


def _range_of_nobody(log: Log) -> tuple[int, int]:
    from rootless_rt.host.idmaps import grant_hint, range_of_nobody

    start, count, reserved = range_of_nobody()
    if not reserved:
        last = start + count - 1
        log.warning(
            f"ids {start} to {last} are mapped: nobody's now, but may be granted to somebody",
            grant_hint("root"),
        )
    return start, count


def _maps(kind: str, log: Log) -> tuple[Lines | None, Lines | None]:
    """The maps of --idmap; None is the own id alone."""
    if kind == "single":
        return None, None
    maps = maps_of(kind)
    if maps.reason:
        log.warning(maps.notice, maps.fix)
        return None, None
    return as_mappings(maps.uids), as_mappings(maps.gids)


def _write(path: str, content: str) -> None:
    if path == "-":
        from rootless_rt.cli.output import write

        write(content)
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with open(fd, "wb") as file:
            file.write(content.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise RtError(f"cannot write {path}: {os.strerror(error.errno or 0).lower()}") from None
