"""What unshare, rm, chown and cp share: a program of the host's, run by root of the caller's id map."""

from __future__ import annotations

import posix

from rootless_rt import paths
from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.common import log_of
from rootless_rt.container.unshare import run_mapped
from rootless_rt.errors import RtError
from rootless_rt.host.idmaps import maps_of


def run_tool(inv: Invocation, name: str, args: list[str]) -> int:
    """Run cp, chown or rm as `run_program` does; never one of the working directory's."""
    from idmap.helpers import find_helper

    program = find_helper(name)
    if program is None:
        raise RtError(f"{name} is not on $PATH", hint="install coreutils")
    return run_program(inv, [program, *args])


def run_program(inv: Invocation, args: list[str]) -> int:
    """Run a program with all ids that the caller is granted; its exit code. Raises RtError."""
    from idmap.userns import in_user_namespace

    environ = _environment()
    if posix.geteuid() == 0 and not in_user_namespace():
        return run_mapped(args, environ, None)
    maps = maps_of("auto")
    if maps.reason:
        log_of(inv).warning(maps.notice, maps.fix)
    return run_mapped(args, environ, maps)


def _environment() -> dict[str, str]:
    """The caller's: the interpreter may have added LC_CTYPE, which /proc has not (PEP 538)."""
    environ = paths.environment()
    if "LC_CTYPE" in environ:
        with open("/proc/self/environ", "rb") as file:
            if not any(item.startswith(b"LC_CTYPE=") for item in file.read().split(b"\0")):
                del environ["LC_CTYPE"]
    return environ
