"""Cgroups of a test session's own, where lanes run beside each other as root.

On cgroup v1 root's containers get their cgroups below those of whoever starts `rt`, by the container's id; in
a v2 tree beside those, below the parent of it. Two lanes that both have a container "c" would stop, limit and
remove each other's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rootless_rt import cgroups

CPUSET = ("cpuset.cpus", "cpuset.mems")  # which a new cgroup of v1 does not inherit
REAL_TIME = ("cpu.rt_runtime_us", "100000")  # nor this; all together have no more than the one above
NAME = "rt-tests-"  # and the number of the process


def own_directories() -> dict[Path, tuple[Path, Path]]:
    """Of each hierarchy: our own cgroup, and one below it for the session, with the one for this process."""
    view = cgroups.view()
    name = f"{NAME}{os.getpid()}"
    places = {Path(place): Path(name) for controller in view.mounts if (place := view.own_dir(controller))}
    if beside := view.own_dir():
        places[Path(beside)] = Path(name, "session")
    return {above: (above / name, above / below) for above, below in places.items()}


def remove(top: Path) -> None:
    """What can be removed of a cgroup and those below it: the kernel keeps those with processes."""
    for path, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            os.rmdir(path)


def remove_abandoned(above: Path) -> None:
    """Those of sessions that were killed, or ended before their last process: each keeps its real time."""
    for top in above.glob(f"{NAME}[0-9]*"):
        if os.path.exists(f"/proc/{top.name.removeprefix(NAME)}"):
            continue
        with suppress(OSError):
            if not any(file.read_text() for file in top.rglob("cgroup.procs")):
                remove(top)


@contextmanager
def own_cgroups() -> Iterator[None]:
    """Move this process there, with all that it starts from now on. On a v2 host it stays where it is."""
    if os.geteuid() != 0 or cgroups.view().mode == "v2":
        yield
        return
    moved: dict[Path, Path] = {}
    try:
        for above, (top, own) in own_directories().items():
            remove_abandoned(above)
            with suppress(OSError):
                own.mkdir(parents=True, exist_ok=True)
                moved[above] = top
                for name in CPUSET:
                    if (above / name).exists():
                        (own / name).write_text((above / name).read_text())
                if (own / REAL_TIME[0]).exists():
                    (own / REAL_TIME[0]).write_text(REAL_TIME[1])
                (own / "cgroup.procs").write_text("0")
        yield
    finally:
        for above, top in moved.items():
            with suppress(OSError):
                (above / "cgroup.procs").write_text("0")
            remove(top)
