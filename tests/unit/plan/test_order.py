"""The order of a plan: each relation that the kernel, or safety, forces."""

from __future__ import annotations

import sys

import pytest
from lab.plans import (
    BUNDLE,
    add_namespace,
    compiled,
    decode,
    drop_namespace,
    every,
    fields,
    filter_of,
    map_range,
    names,
    one,
    place,
    root_config,
    root_facts,
    spec_of,
    user_config,
    user_facts,
)

from rootless_rt.host.seccomp import NEW_LISTENER
from rootless_rt.plan.build import plan
from rootless_rt.plan.model import Policy
from rootless_rt.plan.ops import NO_SLOT, SYNC_HOOKS, SYNC_MAPS, encode
from rootless_rt.spec.names import CAPABILITIES, NAMESPACES

SYS_ADMIN = 1 << CAPABILITIES["CAP_SYS_ADMIN"]
SYS_RESOURCE = 1 << CAPABILITIES["CAP_SYS_RESOURCE"]


def with_hooks(config):
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    config["hooks"] = {kind: [{"path": f"/hooks/{kind}"}] for kind in kinds}
    return config


@pytest.fixture
def everything():
    """The plan of a config with hooks, masks, a filter, and limits."""
    facts = user_facts()
    facts.filter = filter_of()
    return compiled(with_hooks(map_range(user_config())), facts)


def test_a_default_rootless_config_does_all_that_a_container_needs():
    made = compiled(user_config())
    found = names(made)
    needed = "clone sync propagation source root become hostname mount_fs mount_bind symlink readonly mask"
    needed += " root_attrs pivot session rlimit chdir home bounding ids caps no_new_privs find wait_start"
    assert [name for name in needed.split() if name not in found] == []
    assert found.index("clone") < found.index("sync") and found[-1] == "exec"
    assert made.uid_map == [(0, 1000, 1)] and made.gid_map == [(0, 1000, 1)]
    assert not made.set_groups and made.own_pid and made.degradations == []


def test_the_sources_of_mounts_are_taken_before_the_ids_change(everything):
    become = names(everything).index("become")
    sources = [index for index, name in enumerate(names(everything)) if name == "source"]
    assert sources and max(sources) < become
    # With its caller's ids, but cut off from the host's mounts and after the id maps are there.
    assert min(sources) > names(everything).index("propagation") > names(everything).index("sync")


def test_each_bound_source_was_taken_and_is_bound_in_the_same_slot(everything):
    taken = {item["slot"] for item in every(everything, "source")}
    assert {item["slot"] for item in every(everything, "mount_bind")} <= taken
    assert everything.ops[place(everything, "root")].args[1] not in taken


def test_slots_are_given_once_and_begin_with_the_descriptors_that_come_along(everything):
    filled = [item["slot"] for item in every(everything, "source")] + [one(everything, "root")["slot"]]
    assert len(set(filled)) == len(filled)
    assert min(filled) >= len(everything.fds) == 1


def test_masks_come_after_the_hooks_that_could_uncover_them(everything):
    hidden = [
        index for index, name in enumerate(names(everything)) if name in ("mask", "readonly", "root_attrs")
    ]
    assert min(hidden) > place(everything, "hook", kind="createContainer")
    assert max(hidden) < place(everything, "pivot")


def test_masked_paths_come_after_read_only_ones():
    # A read-only copy of /proc/fs laid over a mask inside it would show what is masked.
    found = names(compiled(user_config()))
    assert max(i for i, n in enumerate(found) if n == "readonly") < found.index("mask")


def test_hooks_run_at_their_points_and_the_runtimes_own_are_asked_for_by_a_sync(everything):
    assert {item["kind"] for item in every(everything, "hook")} == {"createContainer", "startContainer"}
    mounted = max(i for i, n in enumerate(names(everything)) if n == "mount_fs")
    assert (
        mounted
        < place(everything, "sync", marker=SYNC_HOOKS)
        < place(everything, "hook", kind="createContainer")
    )
    assert place(everything, "pivot") < place(everything, "hook", kind="startContainer")
    assert place(everything, "wait_start") < place(everything, "hook", kind="startContainer")


def test_without_hooks_of_the_runtime_there_is_no_stop_for_them():
    assert [item["marker"] for item in every(compiled(user_config()), "sync")] == [SYNC_MAPS]


def test_the_filter_is_the_last_step_but_exec(everything):
    assert names(everything)[-3:] == ["keep_fds", "seccomp", "exec"]
    assert place(everything, "no_new_privs") < place(everything, "seccomp")


def test_capabilities_are_set_after_the_ids_which_would_clear_them(everything):
    assert place(everything, "bounding") < place(everything, "ids") < place(everything, "caps")
    assert place(everything, "caps") < place(everything, "ambient") < place(everything, "no_new_privs")


def test_without_no_new_privs_cap_sys_admin_stays_until_the_filter_is_loaded_and_no_longer():
    config = user_config()
    del config["process"]["noNewPrivileges"]
    facts = user_facts()
    facts.filter = filter_of()
    made = compiled(config, facts)
    assert names(made)[-4:] == ["keep_fds", "seccomp", "caps", "exec"]
    early, late = every(made, "caps")
    for kind in ("effective", "permitted"):
        assert early[kind] == late[kind] | SYS_ADMIN and not late[kind] & SYS_ADMIN
    assert early["inheritable"] == late["inheritable"] == 0
    assert "no_new_privs" not in names(made)


def test_with_no_new_privs_cap_sys_admin_is_never_kept(everything):
    assert not one(everything, "caps")["effective"] & SYS_ADMIN


@pytest.mark.parametrize("no_new_privs", [True, False])
def test_a_filter_that_notifies_is_loaded_at_the_same_place(no_new_privs):
    config = user_config()
    config["process"]["noNewPrivileges"] = no_new_privs
    facts = user_facts()
    facts.filter = filter_of(flags=NEW_LISTENER | 4)
    made = compiled(config, facts)
    last = ["seccomp_listen", "exec"] if no_new_privs else ["seccomp_listen", "caps", "exec"]
    assert names(made)[-len(last) :] == last
    assert one(made, "seccomp_listen")["flags"] == NEW_LISTENER | 4
    assert made.notifies
    facts.filter = filter_of(flags=4)
    assert not compiled(config, facts).notifies


def test_the_bounding_set_never_gains_what_the_filter_needs():
    config = user_config()
    config["process"]["noNewPrivileges"] = False
    facts = user_facts()
    facts.filter = filter_of()
    assert not one(compiled(config, facts), "bounding")["keep"] & SYS_ADMIN


def test_limits_and_oom_score_are_raised_before_the_process_loses_the_right_to():
    config = root_config()
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 9000, "hard": 9000}]
    config["process"]["oomScoreAdj"] = -500
    made = compiled(config, root_facts())
    found = names(made)
    assert found.index("oom_score_adj") < found.index("clone")
    assert place(made, "rlimit", soft=1024, hard=9000) < found.index("clone")
    assert place(made, "rlimit", soft=9000, hard=9000) > found.index("pivot")


def test_room_for_many_mounts_is_made_and_given_back():
    config = root_config()
    config["process"]["rlimits"] = []
    config["mounts"] += [
        {"destination": f"/m{n}", "type": "bind", "source": "/", "options": ["bind"]} for n in range(1000)
    ]
    made = compiled(config, root_facts())
    limits = [(item["soft"], item["hard"]) for item in every(made, "rlimit", resource=7)]
    assert limits == [(4096, 4096), (1024, 4096)]
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 9000}]
    made = compiled(config, root_facts())
    limits = [(item["soft"], item["hard"]) for item in every(made, "rlimit", resource=7)]
    assert limits == [(1024, 9000), (9000, 9000), (10, 9000)]


def test_a_container_alone_in_its_namespaces_can_be_looked_at_and_one_that_joined_cannot():
    alone = [item["on"] for item in every(compiled(user_config()), "dumpable")]
    assert alone and set(alone) == {1}
    config = add_namespace(root_config(), "network", "/run/netns/x")
    made = compiled(config, root_facts())
    assert {item["on"] for item in every(made, "dumpable")} == {0}
    assert names(made).index("dumpable") < names(made).index("join")


def test_only_while_helpers_write_the_maps_is_a_joining_process_dumpable():
    config = add_namespace(user_config(), "network", "/run/netns/x")
    made = compiled(config)
    on = [(index, fields(op)["on"]) for index, op in enumerate(made.ops) if op.name == "dumpable"]
    assert [value for _, value in on][:4] == [0, 0, 1, 0]
    assert not any(
        value for _, value in on[4:]
    )  # again after each change of ids, whatever fs.suid_dumpable says
    sync = place(made, "sync", marker=SYNC_MAPS)
    assert on[2][0] < names(made).index("clone") < sync < on[3][0]


def test_namespaces_are_joined_user_first_and_all_before_the_clone():
    config = root_config()
    kinds = ("cgroup", "mount", "pid", "network", "uts", "ipc", "user")
    for kind in kinds:
        add_namespace(config, kind, f"/proc/7/ns/{kind}")
    made = compiled(config, root_facts())
    joined = every(made, "join")
    assert [item["kind"] for item in joined] == ["user", "ipc", "uts", "network", "pid", "mount", "cgroup"]
    assert [item["flag"] for item in joined] == [NAMESPACES[item["kind"]][0] for item in joined]
    assert made.fds[:7] == [(item["kind"], f"/proc/7/ns/{item['kind']}") for item in joined]
    assert [item["slot"] for item in joined] == list(range(7))
    assert max(i for i, n in enumerate(names(made)) if n == "join") < place(made, "clone", flags=0)
    assert made.uid_map is None and not made.own_pid


def test_all_new_namespaces_are_made_by_one_clone_but_the_cgroup_namespace_comes_after_the_move():
    made = compiled(add_namespace(user_config(), "cgroup"))
    kinds = ("user", "pid", "ipc", "uts", "mount")
    flags = 0
    for kind in kinds:
        flags |= NAMESPACES[kind][0]
    assert one(made, "clone") == {"flags": flags, "cgroup": NO_SLOT}
    assert place(made, "sync", marker=SYNC_MAPS) < place(made, "unshare", flags=NAMESPACES["cgroup"][0])


def test_run_waits_for_no_start_and_create_listens():
    assert one(compiled(user_config(), start_later=False), "wait_start")["listener"] == NO_SLOT
    made = compiled(user_config(), start_later=True)
    assert made.fds[one(made, "wait_start")["listener"]] == ("listener", "") and made.listens


@pytest.mark.covers("create --preserve-fds", "run --preserve-fds")
def test_preserved_descriptors_are_kept_in_their_order():
    made = compiled(user_config(), keep_fds=3, start_later=True)
    slots = one(made, "keep_fds")["slots"]
    assert [made.fds[slot] for slot in slots] == [("keep", "3"), ("keep", "4"), ("keep", "5")]


def test_the_cgroup_is_entered_by_the_clone_where_the_host_can():
    facts = root_facts()
    facts.cgroup.enter_by_clone = True
    made = compiled(root_config(), facts)
    assert made.fds[one(made, "clone")["cgroup"]][0].endswith("cgroup")


def test_cgroups_of_v1_are_entered_by_the_process_itself_before_the_runtime_is_asked():
    facts = root_facts()
    facts.cgroup.task_files = ["/cpu/box/tasks", "/pids/box/tasks"]
    config = root_config()
    config["linux"]["namespaces"].append({"type": "cgroup"})
    made = compiled(config, facts)
    slots = one(made, "enter_cgroups")["slots"]
    assert [made.fds[slot] for slot in slots] == [("tasks", "/cpu/box/tasks"), ("tasks", "/pids/box/tasks")]
    assert place(made, "clone") < place(made, "enter_cgroups") < place(made, "sync") < place(made, "unshare")


def test_the_program_is_looked_for_before_start_and_as_its_user(everything):
    assert place(everything, "ids") < place(everything, "find") < place(everything, "wait_start")
    assert place(everything, "chdir") > place(everything, "pivot")


def test_a_terminal_is_taken_from_the_containers_devpts_after_all_mounts():
    config = user_config()
    config["process"].update(terminal=True, consoleSize={"height": 30, "width": 100})
    made = compiled(config, rows=5, cols=5)
    console = one(made, "console")
    assert (console["rows"], console["cols"]) == (30, 100)
    assert place(made, "mount_fs", dest="/dev/pts") < place(made, "console") < place(made, "pivot")
    assert one(made, "session")["console"] == console["slot"]
    del config["process"]["consoleSize"]
    assert one(compiled(config, rows=5, cols=6), "console")["cols"] == 6


def test_encoding_keeps_every_value(everything):
    assert decode(encode(everything.ops)) == everything.ops


def test_planning_opens_and_starts_nothing():
    config = with_hooks(map_range(user_config()))
    config["linux"]["rootfsPropagation"] = "shared"
    facts = user_facts()
    facts.filter = filter_of()
    spec, policy = spec_of(config), Policy("box", rows=5, cols=5)
    plan(spec, facts, policy)  # whatever is imported late is imported now
    seen: list[str] = []
    watching = False

    def hook(event: str, _: object) -> None:  # cannot be taken away again, hence the switch
        if watching:
            seen.append(event)

    sys.addaudithook(hook)
    watching = True
    encode(plan(spec, facts, policy).ops)
    watching = False
    assert [event for event in seen if event != "builtins.id"] == []


def test_the_same_input_gives_the_same_plan():
    first, second = compiled(user_config()), compiled(user_config())
    assert first.ops == second.ops and first.fds == second.fds


def test_a_plan_keeps_its_bundle_and_rootfs_paths_absolute():
    assert (
        one(compiled(drop_namespace(user_config(), "ipc") | {"mounts": []}), "root")["path"]
        == f"{BUNDLE}/rootfs"
    )


def test_what_is_hidden_in_a_mount_is_looked_for_in_that_mount():
    made = compiled(user_config())
    kept = {item["dest"]: item["keep"] for item in every(made, "mount_fs") if item["keep"] != NO_SLOT}
    assert set(kept) == {"/proc"}
    slots = {item["root"] for item in every(made, "mask") if item["path"] == "/kcore"}
    assert slots == {kept["/proc"]}
    binds = {item["dest"]: item["slot"] for item in every(made, "mount_bind")}
    assert {item["root"] for item in every(made, "mask") if item["path"] == "/firmware"} == {binds["/sys"]}


def test_hooks_that_may_cover_a_mount_have_it_hidden_from_the_root_too(everything):
    assert {item["path"] for item in every(everything, "mask")} >= {"/kcore", "/proc/kcore"}
