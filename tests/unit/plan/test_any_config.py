"""Any config that passes the checks is planned into bytes that can be read again, or refused by name.

RT_FUZZ says how many of them.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab.plans import ALL_CAPABILITIES, decode, filter_of, root_config, spec_of, user_config, user_facts

from rootless_rt.errors import RtError
from rootless_rt.host.facts import CgroupFacts
from rootless_rt.plan.build import plan
from rootless_rt.plan.model import Policy
from rootless_rt.plan.ops import OPS, encode
from rootless_rt.spec import tuning
from rootless_rt.spec.mountopts import OPTIONS
from rootless_rt.spec.names import CAPABILITIES, NAMESPACES, PROPAGATION, RLIMITS

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
ID = st.integers(0, (1 << 32) - 2)
U64 = st.integers(0, (1 << 64) - 1)
PATH = st.one_of(
    st.sampled_from(["/", "/proc", "/dev", "/sys", "/dev/pts", "/proc/cpuinfo", "/x/../proc/1", "/tmp/a b"]),
    TEXT.map(lambda text: "/" + text),
)
OPTION = st.one_of(
    st.sampled_from(sorted(OPTIONS)), st.sampled_from(["uid=0", "gid=7", "mode=755,size=1k"]), TEXT
)
MOUNT = st.fixed_dictionaries(
    {"destination": PATH},
    optional={
        "type": st.sampled_from(
            ["proc", "sysfs", "tmpfs", "mqueue", "devpts", "cgroup", "bind", "none", "ext4"]
        ),
        "source": PATH,
        "options": st.lists(OPTION, max_size=5),
    },
)
DEVICE = st.fixed_dictionaries(
    {
        "path": PATH,
        "type": st.sampled_from("bcpu"),
        "major": st.integers(0, 4095),
        "minor": st.integers(0, 99999),
    },
    optional={"fileMode": st.integers(0, (1 << 32) - 1), "uid": ID, "gid": ID},
)
HOOK = st.fixed_dictionaries(
    {"path": PATH},
    optional={
        "args": st.lists(TEXT, max_size=3),
        "env": st.lists(TEXT, max_size=3),
        "timeout": st.integers(1, (1 << 63) - 1),
    },
)
RLIMIT = st.builds(
    lambda kind, values: {"type": kind, "soft": min(values), "hard": max(values)},
    st.sampled_from(sorted(RLIMITS)),
    st.tuples(U64, U64),
)
NAMESPACE = st.builds(
    lambda kind, path: {"type": kind, **({"path": path} if path else {})},
    st.sampled_from(sorted(NAMESPACES)),
    st.sampled_from(["", "", "/proc/7/ns/x"]),
)
S64 = st.integers(-(1 << 63), (1 << 63) - 1)
NUMBER_LIST = st.one_of(st.sampled_from(["", "0", "0-3,5", "3-1", "8191", "99999", "0,,1", "-"]), TEXT)
SCHEDULER = st.fixed_dictionaries(
    {"policy": st.sampled_from([*tuning.POLICIES, "SCHED_NEW"])},
    optional={
        "nice": st.integers(-30, 30),
        "priority": st.integers(-1, 120),
        "flags": st.lists(st.sampled_from(["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_NEW"]), max_size=2),
        "runtime": U64,
        "deadline": U64,
        "period": U64,
    },
)
IO_PRIORITY = st.fixed_dictionaries(
    {"class": st.sampled_from(["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE", "IOPRIO_CLASS_X"])},
    optional={"priority": st.integers(-1, 8)},
)
MEMORY_POLICY = st.fixed_dictionaries(
    {"mode": st.sampled_from(["MPOL_DEFAULT", "MPOL_BIND", "MPOL_LOCAL", "MPOL_INTERLEAVE", "MPOL_X"])},
    optional={
        "nodes": NUMBER_LIST,
        "flags": st.lists(
            st.sampled_from(["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES", "MPOL_F_X"]), max_size=2
        ),
    },
)
PERSONALITY = st.fixed_dictionaries(
    {"domain": st.sampled_from(["LINUX", "LINUX32", "OTHER"])}, optional={"flags": st.lists(TEXT, max_size=1)}
)
TIME_OFFSETS = st.dictionaries(
    st.sampled_from(["monotonic", "boottime", "realtime"]),
    st.fixed_dictionaries({}, optional={"secs": S64, "nanosecs": st.integers(0, (1 << 32) - 1)}),
)
NET_DEVICES = st.dictionaries(TEXT, st.fixed_dictionaries({}, optional={"name": TEXT}), max_size=2)
INTEL_RDT = st.fixed_dictionaries(
    {},
    optional={
        "closID": TEXT,
        "schemata": st.lists(st.one_of(st.just("L3:0=ff"), TEXT), max_size=2),
        "l3CacheSchema": TEXT,
        "memBwSchema": TEXT,
        "enableMonitoring": st.booleans(),
    },
)
# Each of these fields is there in about every second config, and wrong in many.
PROCESS_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "scheduler": SCHEDULER,
        "ioPriority": IO_PRIORITY,
        "execCPUAffinity": st.dictionaries(st.sampled_from(["initial", "final"]), NUMBER_LIST),
        "apparmorProfile": TEXT,
        "selinuxLabel": st.one_of(st.just("u:r:t:s0"), TEXT),
        "consoleSize": st.fixed_dictionaries(
            {"height": st.integers(0, 70000), "width": st.integers(0, 70000)}
        ),
    },
)
LINUX_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "memoryPolicy": MEMORY_POLICY,
        "personality": PERSONALITY,
        "timeOffsets": TIME_OFFSETS,
        "netDevices": NET_DEVICES,
        "intelRdt": INTEL_RDT,
        "mountLabel": st.one_of(st.just("u:r:t:s0"), TEXT),
    },
)
CAPABILITY_LIST = st.lists(st.sampled_from([*CAPABILITIES, "CAP_NEW"]), max_size=5)
MAPS = st.sampled_from(
    [
        [],
        [{"containerID": 0, "hostID": 1000, "size": 1}],
        [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 100000, "size": 65536}],
        [{"containerID": 1000, "hostID": 1000, "size": 1}],
    ]
)


@st.composite
def configs(draw):
    config = draw(st.sampled_from([user_config, root_config]))()
    process, linux = config["process"], config["linux"]
    if draw(st.booleans()):
        config["mounts"] = draw(st.lists(MOUNT, max_size=5))
    if draw(st.booleans()):
        linux["namespaces"] = draw(st.lists(NAMESPACE, max_size=7, unique_by=lambda item: item["type"]))
        linux["uidMappings"], linux["gidMappings"] = draw(MAPS), draw(MAPS)
    process["terminal"] = draw(st.booleans())
    process["noNewPrivileges"] = draw(st.booleans())
    process["user"] = draw(
        st.fixed_dictionaries(
            {"uid": st.one_of(st.just(0), ID), "gid": st.one_of(st.just(0), ID)},
            optional={"umask": st.integers(0, 0o777), "additionalGids": st.lists(ID, max_size=3)},
        )
    )
    process["args"] = draw(st.lists(TEXT, min_size=1, max_size=3))
    process["env"] = draw(st.lists(TEXT.map(lambda text: "N=" + text), max_size=3))
    process["rlimits"] = draw(st.lists(RLIMIT, max_size=3, unique_by=lambda item: item["type"]))
    process["oomScoreAdj"] = draw(st.integers(-1000, 1000))
    process["capabilities"] = draw(
        st.fixed_dictionaries(
            dict.fromkeys(("bounding", "effective", "permitted", "ambient"), CAPABILITY_LIST)
        )
    )
    linux["devices"] = draw(st.lists(DEVICE, max_size=2))
    linux["rootfsPropagation"] = draw(st.sampled_from(["", *PROPAGATION]))
    kinds = ("prestart", "createContainer", "startContainer", "poststop")
    if draw(st.booleans()):  # most are wrong, and a wrong one hides what comes after it
        process.update(draw(PROCESS_FIELDS))
        linux.update(draw(LINUX_FIELDS))
    config["hooks"] = draw(st.dictionaries(st.sampled_from(kinds), st.lists(HOOK, max_size=2)))
    return config


@st.composite
def hosts(draw):
    facts = user_facts()
    facts.euid = facts.egid = draw(st.sampled_from([0, 1000]))
    facts.capabilities = draw(st.sampled_from([0, ALL_CAPABILITIES]))
    facts.uid_map = facts.gid_map = draw(st.sampled_from([[(0, 0, 0xFFFFFFFF)], [(0, 1000, 1)]]))
    facts.may_set_groups = draw(st.booleans())
    facts.oom_score_adj = draw(st.integers(-1000, 1000))
    facts.filter = filter_of() if draw(st.booleans()) else None
    facts.kernel_mounts = ["/proc"]
    facts.cgroup = CgroupFacts(draw(st.sampled_from(["v1", "v2", "hybrid", "none"])))
    facts.cgroup.enter_by_clone = draw(st.booleans())
    facts.cgroup.task_files = draw(st.sampled_from([[], ["/c/cpu/tasks"]]))
    if draw(st.booleans()):
        facts.cgroup.container_dirs = {"": "/c", "cpu": "/c/cpu"}
        facts.cgroup.folders = {"cpu": "cpu,cpuacct"}
    return facts


POLICIES = st.builds(
    Policy,
    st.just("box"),
    strict=st.booleans(),
    start_later=st.booleans(),
    pivot=st.booleans(),
    keep_fds=st.integers(0, 3),
)


EXAMPLES = int(os.environ.get("RT_FUZZ", "150"))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(configs(), hosts(), POLICIES)
def test_a_config_becomes_a_plan_that_can_be_read_or_an_error_for_its_user(config, facts, policy):
    try:
        made = plan(spec_of(config), facts, policy)
    except RtError as error:
        assert error.message and "\n" not in error.message
        return
    assert decode(encode(made.ops)) == made.ops
    assert made.ops[-1].name == "exec" and sum(op.name == "clone" for op in made.ops) == 1
    assert all(index < len(made.ops) for index in made.tolerated)
    assert all(op.describe() for op in made.ops)
    if policy.strict:
        assert made.degradations == []
    _check_restrictions(spec_of(config), made)
    _check_slots(made)
    if facts.filter is not None:
        assert [op.name for op in made.ops].count("seccomp") == 1


NEVER_LESS = ("linux.seccomp", "linux.masked", "linux.readonly", "process.noNew", "process.apparmor")


def _check_restrictions(spec, made):
    """What holds the program back is in the plan as it was asked, and nowhere among what is less."""
    lessened = [*made.degradations, *made.tolerated.values()]
    assert not [item for item in lessened if item.field.startswith(NEVER_LESS)]
    done = {(op.name, op.label) for op in made.ops}
    for kind, field in (("mask", "maskedPaths"), ("readonly", "readonlyPaths")):
        for index in range(len(spec.data.get("linux", {}).get(field, []))):
            assert (kind, f"linux.{field}[{index}]") in done
    names = {name for name, _ in done}
    assert "no_new_privs" in names or not spec.data["process"].get("noNewPrivileges")


def _check_slots(made):
    """Each slot is filled once, and only filled ones are used."""
    filled = set(range(len(made.fds)))
    for op in made.ops:
        schema = next(row[2] for row in OPS if row[0] == op.name)
        for (field, _), value in zip(schema, op.args, strict=True):
            if field == "keep" and op.name == "mount_fs":
                filled |= {value} - {0xFFFF}
            elif field == "slot" and op.name in ("source", "root", "console"):
                assert value not in filled
                filled.add(value)
            elif field in ("slot", "root", "cgroup", "null", "listener", "console", "fallback"):
                assert value in filled or value == 0xFFFF, (op, value)
