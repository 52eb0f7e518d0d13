"""What checkpoint and restore both take from the command line for CRIU."""

from __future__ import annotations

from rootless_rt import paths
from rootless_rt.cli.argv import Invocation, flag, items, text
from rootless_rt.container.checkpoint import Wanted, is_writable
from rootless_rt.container.image import DEFAULT
from rootless_rt.errors import RtError
from rootless_rt.spec.names import decimal


def wanted_of(inv: Invocation) -> Wanted:
    """The options that both commands have. Raises RtError."""
    given = inv.options
    wanted = Wanted(paths.absolute(text(given, "image_path") or DEFAULT))
    work = text(given, "work_path")
    wanted.work = paths.absolute(work) if work else ""
    wanted.criu = text(inv.globals, "criu")
    wanted.cgroup_mode = text(given, "manage_cgroups_mode") or ""
    for name in ("tcp_established", "ext_unix_sk", "shell_job", "file_locks", "auto_dedup", "lazy_pages"):
        setattr(wanted, name, flag(given, name))
    for kind in items(given, "empty_ns"):
        if kind != "network":
            raise RtError(f"--empty-ns {kind[:80]!r}: only network can be left empty")
    return wanted


def fd_option(inv: Invocation, name: str) -> int:
    """A descriptor that the caller has given for writing; -1 for none. Raises RtError."""
    given = text(inv.options, name)
    if given in (None, "-1"):
        return -1
    number = decimal(given or "")
    option = "--" + name.replace("_", "-")
    if number is None:
        raise RtError(f"{option} {given!r}: is not a number")
    if not is_writable(number):
        raise RtError(f"{option} {number}: is not open for writing")
    return number
