"""The plan of a further process: each relation of its order that safety, or the kernel, forces."""

from __future__ import annotations

from typing import Any

import pytest
from lab.plans import (
    Config,
    decode,
    every,
    filter_of,
    map_range,
    names,
    one,
    root_config,
    root_facts,
    spec_of,
    user_config,
    user_facts,
)

from rootless_rt.host.facts import HostFacts
from rootless_rt.plan.execute import exec_plan
from rootless_rt.plan.model import Plan, Policy
from rootless_rt.plan.ops import NO_SLOT, encode
from rootless_rt.spec.names import CAPABILITIES

SYS_ADMIN = 1 << CAPABILITIES["CAP_SYS_ADMIN"]
KINDS = ("user", "ipc", "uts", "network", "pid", "mount", "cgroup")
FILES = {kind: f"/proc/7/ns/{kind}" for kind in KINDS}
# All that a further process may do: a new op is to be thought about before it is added here.
MAKES_NOTHING = """
trace rlimit oom_score_adj dumpable join clone sync become here console session chown_stdio keyring chdir
home close_others affinity memory_policy personality bounding ids caps ambient no_new_privs find wait_start
keep_fds seccomp exec
"""


def executed(
    config: Config, facts: HostFacts | None = None, joined: dict[str, str] | None = None, **policy: Any
) -> Plan:
    return exec_plan(
        spec_of(config), facts or user_facts(), Policy("box", **policy), FILES if joined is None else joined
    )


def with_filter(facts: HostFacts) -> HostFacts:
    facts.filter = filter_of()
    return facts


def on_terminal(config: Config) -> Config:
    config["process"]["terminal"] = True
    return config


def full(config: Config) -> Config:
    """With all that makes something at create."""
    config["hooks"] = {kind: [{"path": "/hook"}] for kind in ("createRuntime", "startContainer", "poststop")}
    config["process"]["oomScoreAdj"] = 100
    config["linux"]["sysctl"] = {"kernel.shmmax": "4096"}
    return config


ROOTS_OWN = {kind: FILES[kind] for kind in KINDS if kind != "user"}
PLANS = {
    "user": lambda: executed(full(user_config()), with_filter(user_facts())),
    "range": lambda: executed(full(map_range(user_config()))),
    "terminal": lambda: executed(on_terminal(full(user_config())), with_filter(user_facts()), trace=True),
    "kept": lambda: executed(full(user_config()), keep_fds=2),
    "root": lambda: executed(root_config(), with_filter(root_facts()), ROOTS_OWN),
}


@pytest.fixture(params=PLANS)
def made(request: pytest.FixtureRequest) -> Plan:
    plan: Plan = PLANS[request.param]()
    return plan


def test_nothing_is_made(made):
    assert set(names(made)) - set(MAKES_NOTHING.split()) == set()
    assert one(made, "clone")["flags"] == 0
    assert one(made, "chdir")["create"] == 0


def test_no_maps_are_written(made):
    assert made.uid_map is None and made.gid_map is None


def test_it_is_not_dumpable_from_before_the_first_join_to_the_program(made):
    found = names(made)
    first = found.index("join")
    assert found[first - 1] == "dumpable"
    assert {op.args[0] for op in made.ops if op.name == "dumpable"} == {0}


def test_it_is_not_dumpable_again_right_after_whatever_changes_its_ids(made):
    # A change of ids resets it to what fs.suid_dumpable says (prctl(2)); caps may as well.
    found = names(made)
    if "become" in found:
        assert found[found.index("become") + 1] == "dumpable"
    after = found[found.index("ids") :]
    assert "dumpable" in after[: after.index("find")]
    assert "dumpable" in found[found.index("clone") : found.index("clone") + 3]


def test_it_waits_not_dumpable(made):
    found = names(made)
    assert found[found.index("wait_start") - 1] == "dumpable"


def test_files_are_closed_before_the_image_s_program_is_looked_for(made):
    found = names(made)
    assert found.index("close_others") < found.index("find") < found.index("keep_fds")
    assert found.index("home") < found.index("close_others") < found.index("bounding")


def test_the_user_namespace_is_joined_first_and_all_before_the_clone(made):
    found = names(made)
    kinds = [item["kind"] for item in every(made, "join")]
    assert kinds == [kind for kind in KINDS if kind in kinds]
    assert kinds == [kind for kind, _ in made.fds if kind in KINDS]
    assert max(index for index, name in enumerate(found) if name == "join") < found.index("clone")


def test_the_root_is_taken_only_inside(made):
    found = names(made)
    assert found.index("clone") < found.index("here") < found.index("session") < found.index("chdir")


@pytest.mark.parametrize("no_new_privs", [True, False])
def test_the_filter_is_the_last_step_but_exec(no_new_privs):
    config = user_config()
    config["process"]["noNewPrivileges"] = no_new_privs
    last = names(executed(config, with_filter(user_facts())))[-4:]
    if no_new_privs:
        assert last[1:] == ["keep_fds", "seccomp", "exec"]
    else:
        assert last == ["keep_fds", "seccomp", "caps", "exec"]


def test_what_the_filter_needs_is_given_up_right_behind_it():
    config = user_config()
    config["process"]["noNewPrivileges"] = False
    before, after = every(executed(config, with_filter(user_facts())), "caps")
    assert before["effective"] & SYS_ADMIN and not after["effective"] & SYS_ADMIN
    assert not after["permitted"] & SYS_ADMIN


def test_a_terminal_is_opened_inside_and_not_bound_on_the_console():
    made = executed(on_terminal(user_config()), rows=5, cols=6)
    found = names(made)
    assert found.index("here") < found.index("console") < found.index("session")
    assert made.ops[found.index("console")].args[-3:] == (5, 6, 0)
    assert made.ops[found.index("session")].args[0] != NO_SLOT


def test_without_a_user_namespace_nobody_becomes_anyone():
    assert "become" not in names(PLANS["root"]())


def test_only_the_kept_descriptors_and_namespaces_are_handed_over():
    made = executed(user_config(), keep_fds=2)
    assert sorted(made.fds) == sorted([*FILES.items(), ("keep", "3"), ("keep", "4")])


def test_it_can_be_encoded(made):
    assert [op.name for op in decode(encode(made.ops))] == names(made)
    assert names(made).index("exec") == len(made.ops) - 1
