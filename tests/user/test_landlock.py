"""Landlock rules of the annotation org.rootless-rt.landlock on real containers."""

from __future__ import annotations

import json
import os

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import held, output, refusal
from lab.landlock import version, without_landlock
from lab.runtime import Runtime
from lab.waiting import until

NAME = "org.rootless-rt.landlock"
needs_landlock = pytest.mark.skipif(version() == 0, reason="this kernel has no Landlock")
TRY = "echo a >/tmp/file && echo tmp; (echo b >/root/file) 2>&- || echo not-root; cat /etc/group | wc -l"


def with_rules(box: Bundle, ro: list[str], rw: list[str]) -> Bundle:
    value = json.dumps({"ro": ro, "rw": rw})
    return box.change(lambda config: config.setdefault("annotations", {}).update({NAME: value}))


@needs_landlock
@pytest.mark.covers("annotations")
def test_files_are_written_only_below_the_paths_of_rw(rt: Runtime, bundle: MakeBundle) -> None:
    box = with_rules(bundle(TRY), ["/"], ["/tmp"])
    assert output(rt, box).split() == ["tmp", "not-root", "2"]
    assert (box.rootfs / "tmp/file").exists() and not (box.rootfs / "root/file").exists()


@needs_landlock
def test_what_no_path_names_cannot_even_be_read(rt: Runtime, bundle: MakeBundle) -> None:
    box = with_rules(bundle("cat /etc/group; ls /; ls /tmp; echo end"), ["/bin"], ["/tmp"])
    done = rt("run", "-b", str(box.path), "c")
    assert done.stdout == "end\n" and done.stderr.count("Permission denied") == 2


@needs_landlock
def test_a_file_can_be_named_too(rt: Runtime, bundle: MakeBundle) -> None:
    script = "echo a >>/etc/group; (echo b >>/etc/passwd) 2>&- || echo no"
    box = with_rules(bundle(script), ["/"], ["/etc/group"])
    assert output(rt, box) == "no" and (box.rootfs / "etc/group").read_text().endswith("a\n")


@needs_landlock
def test_a_link_of_the_image_leads_a_rule_nowhere_outside(
    rt: Runtime, bundle: MakeBundle, share: object
) -> None:
    """An absolute link is one of the container's root: the host's directory of that name gets no rule."""
    box = bundle(f"echo x >/out/new && ls {share}")
    (box.rootfs / "out").symlink_to(str(share))
    (box.rootfs / str(share)[1:]).mkdir(parents=True)
    with_rules(box, ["/"], ["/out"])
    rt.user.owns(box.path)
    assert output(rt, box) == "new"


@needs_landlock
@pytest.mark.covers("exec")
def test_a_program_that_is_added_is_bound_by_the_same_rules(rt: Runtime, bundle: MakeBundle) -> None:
    held(rt, with_rules(bundle(), ["/"], ["/tmp"]), "c")
    assert rt.ok("exec", "c", "/bin/sh", "-c", TRY).split() == ["tmp", "not-root", "2"]


@needs_landlock
def test_hooks_are_not_bound_and_create_and_start_keep_the_rules(rt: Runtime, bundle: MakeBundle) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo hooked >/root/hook"]}
    box = bundle(["/bin/sh", "-c", TRY + "; cat /root/hook; sleep 1000"])
    with_rules(box, ["/"], ["/tmp"]).change(lambda config: config.update(hooks={"startContainer": [hook]}))
    out = box.path / "out"
    with open(out, "wb") as file:
        done = rt("create", "-b", str(box.path), "c", stdout=file)
    assert done.returncode == 0, done.stderr
    rt.ok("start", "c")
    until(lambda: "hooked" in out.read_text(), "it says all it has to say")
    assert out.read_text().split() == ["tmp", "not-root", "2", "hooked"]


@needs_landlock
def test_kept_descriptors_and_rules_do_not_get_in_each_other_s_way(rt: Runtime, bundle: MakeBundle) -> None:
    """The program finds its descriptors from 3 on, and none of the rules'."""
    box = with_rules(bundle("ls /proc/self/fd | wc -l; cat <&3; " + TRY), ["/"], ["/tmp"])
    with open("/etc/hostname", "rb") as file:
        number = file.fileno()
        done = rt(
            *("run", "--preserve-fds", "1", "-b", str(box.path), "c"),
            pass_fds=(3, number),
            preexec_fn=lambda: os.dup2(number, 3),
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "5" and done.stdout.split()[-3:] == ["tmp", "not-root", "2"]


@needs_landlock
def test_a_path_that_is_not_there_is_an_error_of_create(rt: Runtime, bundle: MakeBundle) -> None:
    said = refusal(rt, with_rules(bundle(), ["/"], ["/nowhere"]))
    assert (
        f'rt: annotations["{NAME}"]: /nowhere: open: no such file or directory\nhint: its paths must' in said
    )


@needs_landlock
def test_a_program_out_of_reach_is_explained(rt: Runtime, bundle: MakeBundle) -> None:
    done = rt("run", "-b", str(with_rules(bundle(), ["/etc"], ["/tmp"]).path), "c")
    assert done.returncode != 0 and 'exec: "/bin/true": permission denied' in done.stderr
    assert "hint: the Landlock rules may forbid it" in done.stderr


def test_without_landlock_the_container_runs_with_a_warning(rt: Runtime, bundle: MakeBundle) -> None:
    done = without_landlock(rt)("run", "-b", str(with_rules(bundle("echo ran"), ["/"], []).path), "c")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert f'warning: annotations["{NAME}"]: Landlock rules -> none' in done.stderr


@pytest.mark.covers("--degrade")
def test_without_landlock_a_strict_run_is_refused(rt: Runtime, bundle: MakeBundle) -> None:
    box = with_rules(bundle("echo ran"), ["/"], [])
    said = refusal(without_landlock(rt), box, before=("--degrade", "strict"))
    assert "Landlock rules is not possible: this kernel has no Landlock" in said
