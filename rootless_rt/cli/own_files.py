"""What unshare, rm, chown and cp share: a tool of the host's, run by root of the caller's id map."""

from __future__ import annotations

import posix

from rootless_rt import paths
from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.common import log_of
from rootless_rt.container.unshare import run_mapped
from rootless_rt.host.idmaps import maps_of


def run_tool(inv: Invocation, args: list[str]) -> int:
    """Run a program with all ids that the caller is granted; its exit code. Raises RtError."""
    from idmap.userns import in_user_namespace

    environ = paths.environment()
    if posix.geteuid() == 0 and not in_user_namespace():
        return run_mapped(args, environ, None)
    maps = maps_of("auto")
    if maps.reason:
        log_of(inv).warning(maps.notice, maps.fix)
    return run_mapped(args, environ, maps)
