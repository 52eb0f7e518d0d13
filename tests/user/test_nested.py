"""Any user, where only one id is mapped: through a further user namespace."""

from __future__ import annotations

import os

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import held, map_ids, output, refusal, set_namespace, subordinate, told
from lab.runtime import Runtime
from lab.users import User


def as_user(bundle: Bundle, uid: int, gid: int, *, capabilities: tuple[str, ...] = ()) -> Bundle:
    def change(config):  # type: ignore[no-untyped-def]
        config["process"]["user"] = {"uid": uid, "gid": gid}
        kinds = ("bounding", "effective", "permitted")
        config["process"]["capabilities"] = {kind: list(capabilities) for kind in kinds}

    return bundle.change(change)


@pytest.mark.covers("process.user.uid", "process.user.gid")
@pytest.mark.parametrize(("uid", "gid"), [(1000, 1000), (0, 7), (7, 0), (65534, 65534), (4294967294, 1)])
def test_the_process_is_that_user_and_its_files_are_the_caller_s(
    uid: int, gid: int, rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    made = as_user(bundle(), uid, gid)
    said = output(rt, made, "id -u; id -g; echo > /tmp/file; stat -c %u:%g /tmp/file; cat /proc/self/uid_map")
    assert said.split() == [str(uid), str(gid), f"{uid}:{gid}", str(uid), "0", "1"]
    status = (made.rootfs / "tmp/file").stat()
    assert (status.st_uid, status.st_gid) == (alice.uid, alice.gid)


def test_its_home_is_that_of_the_container_s_passwd(rt: Runtime, bundle: MakeBundle) -> None:
    assert output(rt, as_user(bundle(), 1000, 1000), "echo $HOME; whoami") == "/home/user\nuser"


def test_it_works_without_a_word_of_user_namespaces_in_the_config(rt: Runtime, bundle: MakeBundle) -> None:
    made = set_namespace(as_user(bundle(), 1000, 1000), "user", absent=True)
    made.change(lambda config: [config["linux"].pop(name) for name in ("uidMappings", "gidMappings")])
    said, notice = told(rt, made, "id -u")
    assert said == "1000" and "linux.namespaces" in notice


def test_a_created_container_and_a_further_program_are_in_it(rt: Runtime, bundle: MakeBundle) -> None:
    made = as_user(bundle(), 1000, 1000)
    pid = held(rt, made, "box")
    assert rt.ok("exec", "box", "id", "-u").strip() == "1000"
    script = "readlink /proc/self/ns/user; readlink /proc/self/ns/mnt"
    inside = rt.ok("exec", "box", "sh", "-c", script).split()
    assert inside == [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("user", "mnt")]
    refused = rt("exec", "--user", "0", "box", "id")
    assert refused.returncode == 255 and "uid 0 is not mapped" in refused.stderr


def test_capabilities_are_over_its_own_only_and_that_is_said(rt: Runtime, bundle: MakeBundle) -> None:
    made = as_user(bundle(), 0, 7, capabilities=("CAP_SYS_ADMIN", "CAP_NET_ADMIN"))
    made.change(lambda config: config["process"].update(noNewPrivileges=False))
    said, notice = told(rt, made, "grep CapEff /proc/self/status; mount -t tmpfs x /tmp || echo refused")
    assert said.split()[1] == "0000000000201000" and said.endswith("refused")
    assert "process.capabilities" in notice
    assert "process.capabilities" in refusal(rt, made, before=("--degrade=strict",))


def test_a_filter_and_no_new_privs_hold_in_it(rt: Runtime, bundle: MakeBundle) -> None:
    made = as_user(bundle(), 1000, 1000)
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]
    made.change(
        lambda config: config["linux"].update(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    )
    for no_new_privs in (True, False):
        made.change(lambda config, on=no_new_privs: config["process"].update(noNewPrivileges=on))
        assert output(rt, made, "mkdir /tmp/d 2>/dev/null || echo refused") == "refused"


def test_a_shared_network_does_not_hinder_it(rt: Runtime, bundle: MakeBundle) -> None:
    first = held(rt, set_namespace(bundle(), "network"), "first")
    made = as_user(bundle(), 1000, 1000)
    set_namespace(made, "network", f"/proc/{first}/ns/net")
    # The network belongs to the first container's user namespace, so that one has to be joined too.
    assert "owner of the user namespace" in refusal(rt, made)


def test_with_a_range_of_ids_a_number_outside_is_an_error(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    made = map_ids(
        bundle(),
        (0, alice.uid, 1),
        (1, subordinate(alice), 10),
        gids=((0, alice.gid, 1), (1, subordinate(alice, "gid"), 10)),
    )
    assert "cannot set uid to unmapped user" in refusal(rt, as_user(made, 11, 0))
