"""Checkpoints of containers, and containers made from them: the commands checkpoint and restore, as root.

Loaded only when one of them is asked for. What can be saved at all is CRIU's to say; see docs/checkpoint.md.
"""

from __future__ import annotations

import os
from typing import Any

from rootless_rt.api.config import Bundle, changed, spec_of
from rootless_rt.api.errors import found, told
from rootless_rt.api.streams import Source, Streams, Target
from rootless_rt.container import create as making
from rootless_rt.container.checkpoint import Wanted, checkpoint
from rootless_rt.container.prepare import Options, prepare
from rootless_rt.container.restore import restore
from rootless_rt.container.store import Store, check_id
from rootless_rt.criu.messages import CGROUP_MODES

_FLAGS = (
    *("auto_dedup", "ext_unix_sk", "file_locks", "leave_running", "link_remap", "pre_dump"),
    *("shell_job", "tcp_established", "tcp_skip_in_flight"),
)
_TEXTS = ("cgroup_mode", "criu", "parent", "work")


def wanted_of(images: str | os.PathLike[str], options: dict[str, Any]) -> Wanted:
    """What the keywords ask of CRIU. Raises TypeError for an unknown one, ValueError for a value."""
    wanted = Wanted(os.path.abspath(images))
    for name, value in options.items():
        if name in _FLAGS:
            setattr(wanted, name, bool(value))
        elif name in _TEXTS:
            setattr(wanted, name, os.fspath(value))
        else:
            raise TypeError(f"no option {name!r}: there are {', '.join(sorted((*_FLAGS, *_TEXTS)))}")
    if wanted.cgroup_mode not in CGROUP_MODES:
        known = ", ".join(sorted(filter(None, CGROUP_MODES)))
        raise ValueError(f"cgroup_mode {wanted.cgroup_mode!r}: there are {known}")
    if wanted.parent.startswith("/"):
        raise ValueError("parent must be relative: as seen from the directory of images")
    if wanted.work:
        wanted.work = os.path.abspath(wanted.work)
    return wanted


def save(store: Store, container_id: str, images: str | os.PathLike[str], options: dict[str, Any]) -> None:
    """Checkpoint a container. Raises RtError."""
    found(store, container_id).close()
    checkpoint(store, container_id, wanted_of(images, options), _no_warning)


def bring_back(
    store: Store,
    options: Options,
    bundle: Bundle,
    images: str | os.PathLike[str],
    container_id: str,
    streams: tuple[Source, Target, Target],
    asked: dict[str, Any],
) -> making.Container:
    """Restore a container; it runs. Raises RtError; then nothing is left of it."""
    opened = Streams(*streams)
    try:
        if max(opened.ours) >= 0:
            raise ValueError("PIPE: restore gives no process to read from")
        options.stdio = opened.stdio
        options.start_later = False
        name = check_id(container_id)
        with told():
            spec = changed(spec_of(bundle, None), args=None, env=None, cwd=None, limits=None, mounts=())
            return restore(store, prepare(spec, name, options), name, options, wanted_of(images, asked))
    finally:
        opened.close()


def _no_warning(text: str) -> None:
    """What a poststop hook has to complain of changes nothing any more."""
