"""--uid-emulation: with one id, changes of owner and user come to nothing, successfully."""

from __future__ import annotations

import errno

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.elf import i386_chown
from lab.inside import output, refusal, told
from lab.runtime import Runtime
from lab.users import User

NOOP = ("--uid-emulation", "noop")
CHANGE = "touch /tmp/f && chown 33:34 /tmp/f && chown -h 5 /tmp/f && stat -c %u:%g /tmp/f"


def with_seccomp(bundle: Bundle, **more: object) -> Bundle:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", **more}
    return bundle.change(lambda config: config["linux"].update(seccomp=profile))


@pytest.mark.covers("run --uid-emulation")
def test_a_file_is_given_away_without_an_error_and_stays(rt: Runtime, bundle: MakeBundle) -> None:
    assert rt("run", "--bundle", str(bundle(CHANGE).path), "plain").returncode != 0
    assert output(rt, bundle(), CHANGE, *NOOP) == "0:0"


@pytest.mark.parametrize("no_new_privs", [True, False])
def test_it_works_with_and_without_no_new_privs(no_new_privs: bool, rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle().change(lambda config: config["process"].update(noNewPrivileges=no_new_privs))
    assert output(rt, made, CHANGE, *NOOP) == "0:0"
    said = output(rt, made, "grep -E 'Seccomp:|CapEff' /proc/self/status", *NOOP)
    assert "Seccomp:\t2" in said and "CapEff:\t0000000020000420" in said


def test_changing_the_user_comes_to_nothing_too(rt: Runtime, bundle: MakeBundle) -> None:
    assert output(rt, bundle(), "su -s /bin/sh user -c 'id -u'", *NOOP) == "0"


def test_the_profile_of_the_config_still_holds(rt: Runtime, bundle: MakeBundle) -> None:
    denied = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    made = with_seccomp(bundle(), syscalls=[denied])
    assert output(rt, made, f"mkdir /tmp/d 2>/dev/null || {CHANGE}", *NOOP) == "0:0"


@pytest.mark.covers("create --uid-emulation")
def test_exec_has_it_as_the_container_has(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle("exec sleep 1000")
    rt.ok("create", *NOOP, "--bundle", str(made.path), "box")
    rt.ok("start", "box")
    assert rt.ok("exec", "box", "sh", "-c", CHANGE).strip() == "0:0"


@pytest.mark.covers("plan --uid-emulation")
def test_a_plan_shows_it(rt: Runtime, bundle: MakeBundle) -> None:
    assert "seccomp" in rt.ok("plan", *NOOP, "--bundle", str(bundle().path))


def test_an_annotation_says_the_same(rt: Runtime, bundle: MakeBundle) -> None:
    name = "org.rootless-rt.uid-emulation"
    made = bundle().change(lambda config: config.setdefault("annotations", {}).update({name: "noop"}))
    assert output(rt, made, CHANGE) == "0:0"
    assert name in refusal(rt, made.change(lambda config: config["annotations"].update({name: "yes"})))


def test_where_ids_are_mapped_they_are_changed_for_real(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    kinds = ("bounding", "effective", "permitted")
    made = bundle().change(
        lambda config: config["process"].update(capabilities={kind: ["CAP_CHOWN"] for kind in kinds})
    )
    said, notice = told(rt, made, CHANGE, *NOOP, "--idmap", "full")
    assert said == "5:34" and "has no effect" in notice


def test_a_program_of_32_bits_has_it_too(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    program = made.rootfs / "bin/narrow"
    program.write_bytes(i386_chown("/tmp/f", 33))
    program.chmod(0o755)
    (made.rootfs / "tmp/f").touch()
    rt.user.owns(made.rootfs / "tmp/f")
    plain = rt("run", "--bundle", str(made.run("narrow").path), "plain")
    if plain.returncode != errno.EINVAL:
        pytest.skip("this kernel runs no programs for i386")
    assert output(rt, made, "narrow; echo $?; stat -c %u /tmp/f", *NOOP).split() == ["0", "0"]


def test_an_archive_with_owners_is_extracted(rt: Runtime, bundle: MakeBundle) -> None:
    script = "cd /tmp; tar xf a.tar && stat -c %u:%g file"
    made = bundle()
    import io
    import tarfile

    with tarfile.open(made.rootfs / "tmp/a.tar", "w") as archive:
        entry = tarfile.TarInfo("file")
        entry.uid, entry.gid, entry.size = 33, 34, 2
        archive.addfile(entry, io.BytesIO(b"x\n"))
    assert output(rt, made, script, *NOOP) == "0:0"
