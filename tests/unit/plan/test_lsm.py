"""Labels in a plan: where they are written, what is labelled, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from lab.plans import (
    Config,
    Fields,
    add_namespace,
    compiled,
    drop_namespace,
    every,
    fields,
    filter_of,
    names,
    one,
    place,
    root_config,
    root_facts,
    spec_of,
    user_config,
    user_facts,
)

from rootless_rt.errors import SpecError
from rootless_rt.host.facts import HostFacts
from rootless_rt.host.lsm import LsmFacts
from rootless_rt.plan.execute import exec_plan
from rootless_rt.plan.model import Plan, Policy

LABEL = "system_u:system_r:container_t:s0:c1,c2"
FILE_LABEL = "system_u:object_r:container_file_t:s0:c1,c2"
APPARMOR, SELINUX = LsmFacts(apparmor=True), LsmFacts(selinux=True)
FILES = {kind: f"/proc/7/ns/{kind}" for kind in ("user", "ipc", "uts", "network", "pid", "mount", "cgroup")}


def on(lsm: LsmFacts | None, facts: HostFacts | None = None) -> HostFacts:
    facts = facts or user_facts()
    facts.lsm = lsm
    return facts


def confined(config: Config, **labels: str) -> Config:
    config["process"].update(labels)
    return config


def with_hooks(config: Config) -> Config:
    config["hooks"] = {kind: [{"path": "/hook"}] for kind in ("createContainer", "startContainer")}
    return config


def writes(made: Plan) -> list[tuple[str, str]]:
    """(file, text) of every write, in order."""
    files: dict[int, str] = {}
    found = []
    for op in made.ops:
        values = fields(op)
        if op.name == "proc_file":
            files[values["slot"]] = values["path"]
        if op.name == "proc_write":
            found.append((files.pop(values["slot"]), values["text"]))
    assert not files, "each file that is opened is written"
    return found


def executed(config: Config, facts: HostFacts, **policy: Any) -> Plan:
    return exec_plan(spec_of(config), facts, Policy("box", **policy), FILES)


EITHER = [
    pytest.param(compiled, id="create"),
    pytest.param(executed, id="exec"),
]


@pytest.mark.covers("process.apparmorProfile")
@pytest.mark.parametrize("make", EITHER)
def test_an_apparmor_profile_is_written_right_before_the_program(make):
    facts = on(LsmFacts(apparmor=True, loaded=True))
    facts.filter = filter_of()
    made = make(with_hooks(confined(user_config(), apparmorProfile="box-profile")), facts)
    assert writes(made) == [("self/attr/apparmor/exec", "exec box-profile")]
    order = names(made)
    opened, written = place(made, "proc_file"), place(made, "proc_write")
    assert order.index("clone") < opened < order.index("close_others"), (
        "the kernel wants it from the same memory"
    )
    assert written == order.index("keep_fds") - 1, "whose descriptors may take its number"
    assert order[written + 1 :] in (["keep_fds", "seccomp", "exec"], ["keep_fds", "seccomp", "caps", "exec"])
    # What a hook executes would run under it.
    assert written > max(index for index, name in enumerate(order) if name in ("hook", "wait_start"))
    assert made.ops[written].label == "process.apparmorProfile"
    assert made.degradations == [] and made.tolerated.keys().isdisjoint({opened, written})


@pytest.mark.covers("process.selinuxLabel")
@pytest.mark.parametrize("make", EITHER)
def test_an_selinux_label_is_for_the_session_keyring_and_the_program(make):
    made = make(with_hooks(confined(user_config(), selinuxLabel=LABEL)), on(SELINUX))
    key = "self/attr/keycreate"
    assert writes(made) == [(key, LABEL), (key, "\n"), ("self/attr/exec", LABEL)]
    order = names(made)
    keyring = order.index("keyring")
    assert order[keyring - 2 : keyring + 3] == [
        "proc_file",
        "proc_write",
        "keyring",
        "proc_file",
        "proc_write",
    ]
    assert max(index for index, name in enumerate(order) if name == "hook" or name == "wait_start") < len(
        order
    ) - 1 - order[::-1].index("proc_write")


def test_without_a_new_keyring_none_is_labelled():
    made = compiled(confined(user_config(), selinuxLabel=LABEL), on(SELINUX), new_keyring=False)
    assert writes(made) == [("self/attr/exec", LABEL)]


@pytest.mark.parametrize("make", EITHER)
def test_what_is_written_late_stays_open_and_nothing_else(make):
    facts = on(LsmFacts(apparmor=True, selinux=True))
    made = make(confined(user_config(), apparmorProfile="x", selinuxLabel=LABEL), facts)
    late = [item["slot"] for item in every(made, "proc_file") if "keycreate" not in item["path"]]
    kept = one(made, "close_others")["keep"]
    assert len(set(late)) == 2 and set(late) <= set(kept)
    assert set(kept) - set(late) <= set(range(len(made.fds)))
    assert one(made, "keep_fds")["slots"] == []


@pytest.mark.parametrize("make", EITHER)
def test_empty_labels_ask_for_nothing(make):
    config = confined(user_config(), apparmorProfile="", selinuxLabel="")
    config["linux"]["mountLabel"] = ""
    for facts in (on(None), on(LsmFacts(apparmor=True, selinux=True))):
        made = make(config, facts)
        assert writes(made) == [] and made.ops == make(user_config(), facts).ops


def test_unconfined_is_so_without_apparmor_and_is_asked_for_with_it():
    config = confined(user_config(), apparmorProfile="unconfined")
    for lsm in (None, LsmFacts(), SELINUX):
        assert writes(compiled(config, on(lsm))) == []
    wanted = [("self/attr/apparmor/exec", "exec unconfined")]
    assert writes(compiled(config, on(LsmFacts(apparmor=True, loaded=True)))) == wanted


def test_whether_a_profile_is_loaded_is_left_to_the_kernel_where_it_cannot_be_seen():
    assert writes(compiled(confined(user_config(), apparmorProfile="x"), on(APPARMOR)))


def mount_labelled() -> Config:
    config = user_config()
    config["linux"]["mountLabel"] = FILE_LABEL
    return config


MISSING = [
    (confined(user_config(), apparmorProfile="x"), LsmFacts(), "process.apparmorProfile", "needs AppArmor"),
    (confined(user_config(), apparmorProfile="x"), SELINUX, "process.apparmorProfile", "needs AppArmor"),
    (
        confined(user_config(), apparmorProfile="x"),
        LsmFacts(apparmor=True, loaded=False),
        "process.apparmorProfile",
        'no AppArmor profile "x" is loaded',
    ),
    (confined(user_config(), selinuxLabel=LABEL), LsmFacts(), "process.selinuxLabel", "needs SELinux"),
    (confined(user_config(), selinuxLabel=LABEL), APPARMOR, "process.selinuxLabel", "needs SELinux"),
    (mount_labelled(), LsmFacts(), "linux.mountLabel", "needs SELinux"),
    (mount_labelled(), APPARMOR, "linux.mountLabel", "needs SELinux"),
    (mount_labelled(), None, "linux.mountLabel", "needs SELinux"),
]


@pytest.mark.parametrize(("config", "lsm", "path", "problem"), MISSING)
@pytest.mark.parametrize("strict", [False, True])
def test_a_label_that_cannot_be_given_is_an_error_under_every_policy(config, lsm, path, problem, strict):
    with pytest.raises(SpecError) as found:
        compiled(config, on(lsm), strict=strict)
    assert found.value.path == path and problem in found.value.message and found.value.hint


def test_a_mount_label_is_wrong_without_selinux_even_where_nothing_is_mounted():
    config = mount_labelled()
    config["mounts"] = []
    config["linux"]["maskedPaths"] = []
    with pytest.raises(SpecError):
        compiled(config, on(LsmFacts()))


def contexts(made: Plan) -> dict[str, list[str]]:
    """destination -> its options that name a label"""
    return {
        item["dest"]: [word for word in item["data"] if "context=" in word]
        for item in every(made, "mount_fs")
    }


def no_cgroup(facts: HostFacts) -> HostFacts:
    facts.cgroup.container_dirs = {}
    return facts


@pytest.mark.covers("linux.mountLabel")
@pytest.mark.parametrize(
    ("config", "facts"), [(user_config, user_facts), (root_config, root_facts)], ids=["user", "root"]
)
def test_new_filesystems_get_the_mount_label_but_those_that_selinux_labels_itself(config, facts):
    asked = config()
    asked["linux"]["mountLabel"] = FILE_LABEL
    found = contexts(compiled(asked, on(SELINUX, facts())))
    label = [f"context={FILE_LABEL}"]
    assert {found["/dev"][0], found["/dev/pts"][0], found["/dev/shm"][0]} == set(label)
    assert not found["/proc"] and not found["/dev/mqueue"] and not found.get("/sys")
    assert not contexts(compiled(config(), on(SELINUX, facts())))["/dev"]


def test_what_stands_in_for_the_cgroups_is_labelled():
    asked = mount_labelled()
    asked["mounts"] = [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}]
    made = compiled(asked, on(SELINUX, no_cgroup(user_facts())))
    assert contexts(made) == {"/sys/fs/cgroup": [f"context={FILE_LABEL}"]}


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ('context="u:r:t:s0:c1,c2"', "context=u:r:t:s0:c1,c2"),
        ("context=u:r:t", "context=u:r:t"),
        ("rootcontext=u:r:t", "rootcontext=u:r:t"),
        ('fscontext="u:r:t"', "fscontext=u:r:t"),
        ('defcontext="', 'defcontext="'),
    ],
)
@pytest.mark.parametrize("lsm", [SELINUX, None])
def test_a_label_among_a_mounts_own_options_wins_and_loses_its_quotes(option, wanted, lsm):
    asked = mount_labelled() if lsm else user_config()
    asked["mounts"] = [
        {"destination": "/a", "type": "tmpfs", "source": "tmpfs", "options": [f"mode=755,{option}"]}
    ]
    data = one(compiled(asked, on(lsm)), "mount_fs")["data"]
    assert data == ["mode=755", wanted]


def queue_labels(made: Plan) -> list[Fields]:
    return every(made, "label_mqueue")


def test_the_message_queues_are_labelled_behind_their_mount_when_they_are_the_containers():
    made = compiled(mount_labelled(), on(SELINUX))
    mounted = place(made, "mount_fs", dest="/dev/mqueue")
    assert place(made, "label_mqueue", path="/dev/mqueue", label=FILE_LABEL) == mounted + 1
    others = add_namespace(mount_labelled(), "ipc", "/proc/7/ns/ipc")
    assert queue_labels(compiled(others, on(SELINUX))) == []
    hosts = drop_namespace(mount_labelled(), "ipc")
    assert queue_labels(compiled(hosts, on(SELINUX))) == [], "they are the host's"


def test_what_masks_directories_is_labelled():
    made = compiled(mount_labelled(), on(SELINUX))
    slot = one(made, "mask_tmpfs", label=FILE_LABEL)["slot"]
    assert {item["tmpfs"] for item in every(made, "mask")} == {slot}
    assert place(made, "mask_tmpfs") < names(made).index("mask")
    unmasked = mount_labelled()
    unmasked["linux"]["maskedPaths"] = []
    assert "mask_tmpfs" not in names(compiled(unmasked, on(SELINUX)))
    assert "mask_tmpfs" not in names(compiled(user_config(), on(SELINUX)))


def test_an_exec_labels_nothing_but_its_program_and_keyring():
    made = executed(confined(mount_labelled(), selinuxLabel=LABEL), on(SELINUX))
    assert {"label_mqueue", "mask_tmpfs", "mount_fs"}.isdisjoint(names(made))
