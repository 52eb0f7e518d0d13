"""`rt run` and `rt exec` of a kept plan, called in odd ways: what Python would do otherwise is Python's."""

from __future__ import annotations

import ctypes
import os
import resource

import pytest
from lab.kept import Kept
from lab.leftovers import Ground
from lab.shortcuts import LONG

PER_LINUX32 = 0x0008


def test_a_limit_on_files_is_explained_by_python(kept: Kept) -> None:
    """The launcher's write is refused with a signal, which must not end what comes after it."""
    kept.keep()
    ground = Ground(kept.rt, "c")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    through = kept.through_python(preexec_fn=limited)
    assert through.returncode == 1
    assert through.stderr.splitlines() == ["rt: file too large", through.stderr.splitlines()[1]]
    assert kept.by_itself(preexec_fn=limited) is None
    both = kept.rt(*kept.argv(), env=kept.environment, preexec_fn=limited)
    assert (both.returncode, both.stderr) == (through.returncode, through.stderr)
    ground.clean()


def test_another_personality_is_python_s(kept: Kept) -> None:
    """A filter for ids that are emulated is one for the machine that uname(2) names."""
    kept.box.change(lambda config: config.setdefault("annotations", {}).update(emulated))
    kept.keep()

    def personality() -> None:
        ctypes.CDLL(None).personality(PER_LINUX32)

    assert kept.by_itself(preexec_fn=personality) is None
    assert kept.by_itself() is not None


emulated = {"org.rootless-rt.uid-emulation": "noop"}


def test_a_bundle_named_by_a_leaked_descriptor_is_python_s(kept: Kept) -> None:
    """Python closes what the caller has leaked before it looks."""
    kept.keep()
    fd = os.open(kept.box.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        words = ["run", "--bundle", f"/proc/self/fd/{fd}", kept.id]
        done = kept.alone(*words, env=kept.environment, pass_fds=[fd])
        assert "rootless_rt" in done.stderr
    finally:
        os.close(fd)


def test_groups_that_a_container_keeps_are_kept_by_python(kept: Kept) -> None:
    """The plan was kept of a container with the same config, which had not been asked to keep them."""
    kept.box.run(["/bin/sleep", "1000"])
    for number, options in enumerate(([], ["--keep-groups"])):
        words = ["create", *options, "--bundle", str(kept.box.path), f"c{number}"]
        kept.rt.ok(*words, env=kept.environment)
        kept.rt.ok("start", f"c{number}")
    kept.rt.ok(*LONG, "exec", "c0", "true", env=kept.environment)
    done = [kept.alone("exec", f"c{number}", "true", env=kept.environment) for number in range(2)]
    assert done[0].returncode == 0 and "rootless_rt" in done[1].stderr


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_program_that_runs_is_served_though_nothing_can_be_kept(kept: Kept, verb: str) -> None:
    """Few descriptors: either nothing has begun, or the code is the program's."""
    if verb == "exec":
        kept.box.run(["/bin/sleep", "1000"])
        kept.rt.ok("create", "--bundle", str(kept.box.path), "c", env=kept.environment)
        kept.rt.ok("start", "c")
        words = ["exec", "c", "sh", "-c", "echo out; exit 7"]
    else:
        words = kept.argv()
    codes = set()
    for count in range(5, 14):

        def few(count: int = count) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, 100))

        done = kept.rt(*LONG, *words, env=kept.environment, preexec_fn=few)
        assert done.returncode == 7 if done.stdout else "too many open files" in done.stderr, (count, done)
        codes.add(done.returncode)
        assert [path.name for path in kept.rt.root.iterdir()] == (["c"] if verb == "exec" else [])
    assert 7 in codes
