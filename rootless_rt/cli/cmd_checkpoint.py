"""`rt checkpoint`: save a running container to disk."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation, flag, text
from rootless_rt.cli.common import log_of, store_of
from rootless_rt.cli.criu import fd_option, wanted_of
from rootless_rt.container import signals
from rootless_rt.container.checkpoint import checkpoint
from rootless_rt.errors import RtError
from rootless_rt.spec.names import decimal


def run(inv: Invocation) -> int:
    """Checkpoint the container ID."""
    signals.catch()
    wanted = wanted_of(inv)
    for name in ("leave_running", "link_remap", "pre_dump", "tcp_skip_in_flight"):
        setattr(wanted, name, flag(inv.options, name))
    wanted.parent = text(inv.options, "parent_path") or ""
    if wanted.parent.startswith("/"):
        raise RtError("--parent-path must be relative", hint="give it as seen from --image-path")
    wanted.page_server = _address(text(inv.options, "page_server"))
    if wanted.lazy_pages and wanted.page_server is None:
        # CRIU would serve the memory on any port, to anybody.
        raise RtError("--lazy-pages needs --page-server", hint="say where it listens: 127.0.0.1:PORT")
    wanted.status_fd = fd_option(inv, "status_fd")
    if wanted.status_fd >= 0 and not wanted.lazy_pages:
        raise RtError("--status-fd goes with --lazy-pages", hint="it tells when pages can be fetched")
    # CRIU has the container's processes in hand: it is never left in the middle of that.
    signals.hold()
    checkpoint(store_of(inv), inv.args[0], wanted, log_of(inv).warning)
    return 0


def _address(given: str | None) -> tuple[str, int] | None:
    if given is None:
        return None
    host, _, port = given.rpartition(":")
    number = decimal(port)
    if not host or number is None or not 0 < number < 65536:
        raise RtError(f"--page-server {given[:80]!r}: is not ADDRESS:PORT", hint="such as 10.0.0.2:27")
    return host.removeprefix("[").removesuffix("]"), number
