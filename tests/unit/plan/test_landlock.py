"""Landlock in a plan: when the rules are made, when they come into force, and what is said without them."""

from __future__ import annotations

from lab.plans import compiled, fields, filter_of, names, one, place, spec_of, user_config, user_facts

from rootless_rt.plan.execute import exec_plan
from rootless_rt.plan.model import Policy

RULES = {"org.rootless-rt.landlock": '{"ro": ["/"], "rw": ["/tmp"]}'}


def test_the_rules_are_made_before_privileges_go_and_count_behind_the_hooks():
    facts = user_facts()
    facts.filter = filter_of()
    hooks = {"startContainer": [{"path": "/bin/true"}]}
    made = compiled(user_config(annotations=RULES, hooks=hooks), facts)
    rules = one(made, "landlock_rules")
    assert (rules["ro"], rules["rw"]) == (["/"], ["/tmp"])
    assert one(made, "landlock")["slot"] == rules["slot"]
    order = ("pivot", "close_others", "landlock_rules", "bounding", "caps", "wait_start", "hook", "landlock")
    order += ("keep_fds", "seccomp", "exec")  # keep_fds may give the number of the rules to another
    places = [place(made, name) for name in order]
    assert places == sorted(places)


def test_a_further_process_has_the_same_rules():
    made = exec_plan(spec_of(user_config(annotations=RULES)), user_facts(), Policy("box"), {"mount": "/x"})
    assert names(made).index("join") < names(made).index("landlock_rules") < names(made).index("landlock")


def test_a_kernel_without_it_is_named_as_a_degradation():
    made = compiled(user_config(annotations=RULES))
    said = made.tolerated[place(made, "landlock_rules")]
    assert "annotations" in said.field and "no Landlock" in said.why and not said.always
    assert "lsm=" in said.fix


def test_nothing_is_done_without_the_annotation():
    made = compiled(user_config(annotations={"a": "b"}))
    assert not {"landlock", "landlock_rules"} & set(names(made))
    assert all("landlock" not in str(fields(op)) for op in made.ops)
