"""Plans without a host: configs, facts written by hand, and a reader of a plan's bytes."""

from __future__ import annotations

import json
from typing import Any

from rootless_rt.host.facts import CgroupFacts, HostFacts
from rootless_rt.host.seccomp import SeccompFilter
from rootless_rt.plan.build import plan
from rootless_rt.plan.devices import DEFAULT_DEVICES, rdev
from rootless_rt.plan.model import Plan, Policy
from rootless_rt.plan.ops import MAGIC, OPS, Op
from rootless_rt.spec.defaults import default_spec, rootless
from rootless_rt.spec.load import Spec, from_bytes

Config = dict[str, Any]
Fields = dict[str, Any]

BUNDLE = "/bundle"
ALL_CAPABILITIES = (1 << 41) - 1
UID = 1000
OWN_CGROUP = "/sys/fs/cgroup/user.slice/box"


def user_config(**changes: Any) -> Config:
    """The default config for an ordinary user, own id mapped, without a terminal; `changes` replace parts."""
    return {**rootless(_quiet(default_spec()), UID, UID, cgroup2=False), **changes}


def root_config(**changes: Any) -> Config:
    """The default config without a terminal."""
    return {**_quiet(default_spec()), **changes}


def _quiet(config: Config) -> Config:
    config["process"]["terminal"] = False
    return config


def add_namespace(config: Config, kind: str, path: str = "") -> Config:
    entry = {"type": kind, "path": path} if path else {"type": kind}
    drop_namespace(config, kind)["linux"]["namespaces"].append(entry)
    return config


def drop_namespace(config: Config, kind: str) -> Config:
    config["linux"]["namespaces"] = [item for item in config["linux"]["namespaces"] if item["type"] != kind]
    return config


def map_range(config: Config) -> Config:
    """Map 65536 more ids."""
    lines = [
        {"containerID": 0, "hostID": UID, "size": 1},
        {"containerID": 1, "hostID": 100000, "size": 65536},
    ]
    config["linux"].update(uidMappings=lines, gidMappings=lines)
    return config


def _host(facts: HostFacts) -> HostFacts:
    facts.paths = {device["path"]: rdev(device["major"], device["minor"]) for device in DEFAULT_DEVICES}
    facts.paths.update({"/proc/kcore": 0, "/dev/mqueue": 0})
    facts.rlimits = dict.fromkeys(range(16), (1024, 4096))
    facts.cgroup = CgroupFacts("v2")
    facts.cgroup.container_dirs[""] = OWN_CGROUP
    return facts


def user_facts() -> HostFacts:
    """An ordinary user on a common host."""
    return _host(HostFacts(UID, UID))


def root_facts() -> HostFacts:
    """Root with every capability."""
    facts = _host(HostFacts(0, 0))
    facts.capabilities = ALL_CAPABILITIES
    return facts


def filter_of(instructions: int = 1, flags: int = 0) -> SeccompFilter:
    """A seccomp filter of so many no-operations; only its size matters here, and whether it notifies."""
    return SeccompFilter(bytes(8 * instructions), flags, cached=True, warnings=[])


def spec_of(config: Config) -> Spec:
    return from_bytes(json.dumps(config).encode(), BUNDLE)


def compiled(config: Config, facts: HostFacts | None = None, **policy: Any) -> Plan:
    """The plan of a config, for an ordinary user unless facts are given."""
    return plan(spec_of(config), facts or user_facts(), Policy("box", **policy))


def names(made: Plan) -> list[str]:
    return [op.name for op in made.ops]


def every(made: Plan, name: str, **wanted: Any) -> list[Fields]:
    """The fields of the ops of that name, of those that have the wanted values."""
    found = [fields(op) for op in made.ops if op.name == name]
    return [item for item in found if all(item[key] == value for key, value in wanted.items())]


def one(made: Plan, name: str, **wanted: Any) -> Fields:
    found = every(made, name, **wanted)
    assert len(found) == 1, (name, wanted, found)
    return found[0]


def fields(op: Op) -> Fields:
    schema = next(row[2] for row in OPS if row[0] == op.name)
    return {field: value for (field, _), value in zip(schema, op.args, strict=True)}


def place(made: Plan, name: str, **wanted: Any) -> int:
    """The index of the only such op."""
    found = [
        index
        for index, op in enumerate(made.ops)
        if op.name == name and all(fields(op)[key] == value for key, value in wanted.items())
    ]
    assert len(found) == 1, (name, wanted, found, names(made))
    return found[0]


def degraded(made: Plan) -> dict[str, str]:
    """What is degraded: JSON path -> why."""
    return {item.field: item.why for item in made.degradations}


def decode(wire: bytes) -> list[Op]:
    """The ops of an encoded plan, read by the description in plan/ops.py; AssertionError when malformed."""
    reader = _Reader(wire)
    assert reader.take(8) == MAGIC
    assert reader.number(4) == len(wire)
    ops = [reader.op() for _ in range(reader.number(4))]
    assert reader.at == len(wire)
    return ops


class _Reader:
    def __init__(self, wire: bytes) -> None:
        self.wire = wire
        self.at = 0

    def take(self, count: int) -> bytes:
        assert self.at + count <= len(self.wire)
        self.at += count
        return self.wire[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def text(self) -> str:
        raw = self.take(self.number(4))
        assert b"\0" not in raw and self.take(1) == b"\0"
        return raw.decode("utf-8", "surrogateescape")

    def value(self, kind: str) -> Any:
        if kind == "U":
            return self.number(8)
        if kind == "S":
            return self.text()
        if kind == "B":
            return self.take(self.number(4))
        return [self.text() if kind == "L" else self.number(8) for _ in range(self.number(4))]

    def op(self) -> Op:
        number, end = self.number(4), self.number(4)
        end += self.at
        name, _, schema, _ = next(row for row in OPS if row[1] == number)
        made = Op(name, *[self.value(kind) for _, kind in schema])
        assert self.at == end
        return made
