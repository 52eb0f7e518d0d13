"""The table of cases: what is timed, in which kind of container, and as whom."""

from __future__ import annotations

from bundles import Shape
from checks import Doctors
from contest import Case
from curves import Existing, MapLines, Mounts
from lives import Execs, FirstExecs, Lives
from runs import FirstRuns, Runs
from warm import Many, Pools, Warm

CASES = (
    Case("run-own-seccomp", "run: own id, seccomp", Runs, Shape(seccomp=True)),
    Case("run-own", "run: own id", Runs),
    Case("run-range", "run: subuid range", Runs, Shape(id_range=True)),
    Case("run-range-seccomp", "run: subuid range, seccomp", Runs, Shape(id_range=True, seccomp=True)),
    Case("life", "life: own id", Lives),
    Case("exec", "exec of true", Execs),
    Case("run-first", "run: own id, new config", FirstRuns),
    Case("exec-first", "exec of true, new process", FirstExecs),
    Case("api", "API: one container, warm", Warm),
    Case("pool", "pool: ready container to exec", Pools),
    Case("api-many", "API: 200 containers, 8 in flight", Many),
    Case("doctor", "rt doctor", Doctors),
    Case("run-root", "run: root, with cgroups", Runs, Shape(userns=False), as_root=True),
    Case("grow-containers", "existing containers", Existing),
    Case("grow-mounts", "mounts", Mounts),
    Case("grow-maps", "map lines", MapLines),
)
