"""CVE-2024-21626: a leaked descriptor, and a working directory that names it, lead to the host's files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import Either, MakeBundle
from lab.bundles import Bundle
from lab.runtime import Runtime


def refused(rt: Runtime, made: Bundle, cwd: str) -> None:
    """A run that ends before its program, for its working directory."""
    made.change(lambda config: config["process"].update(cwd=cwd))
    done = rt("run", "--bundle", str(made.path), "c")
    assert done.returncode == 1 and done.stdout == "" and "process.cwd" in done.stderr, done


@pytest.mark.parametrize(
    ("process", "number"),
    [("self", number) for number in (*range(40), 63, 100, 255)]
    + [(process, number) for process in ("1", "thread-self", "self/task/1") for number in (0, 3, 7, 9, 20)],
)
def test_no_descriptor_serves_as_working_directory(
    rt: Runtime, bundle: MakeBundle, process: str, number: int
) -> None:
    refused(rt, bundle("pwd; ls"), f"/proc/{process}/fd/{number}")


@pytest.mark.parametrize("process", ["self", "thread-self", "1"])
def test_nor_as_root(root_rt: Runtime, root_bundle: MakeBundle, process: str) -> None:
    made = root_bundle("pwd; ls")
    for number in (*range(0, 12, 2), 63, 255):
        refused(root_rt, made, f"/proc/{process}/fd/{number}")


@pytest.mark.parametrize("target", ["/proc/self/fd/7", "/proc/self/root", "/proc/self/cwd"])
def test_a_link_to_a_descriptor_does_not_serve_either(either: Either, target: str) -> None:
    rt, bundle = either
    made = bundle("pwd; ls")
    (made.rootfs / "work").symlink_to(target)

    refused(rt, made, "/work/..")


def test_a_descriptor_that_the_caller_leaks_is_not_in_the_container(either: Either) -> None:
    rt, bundle = either
    leaked = os.open("/", os.O_RDONLY)
    high = os.dup2(leaked, 77)
    os.set_inheritable(leaked, True)
    try:
        made = bundle("ls /proc/self/fd/ | tr '\\n' ' '")
        done = rt("run", "--bundle", str(made.path), "c", close_fds=False)
    finally:
        os.close(leaked)
        os.close(high)
    assert done.stdout == "0 1 2 3 ", done  # 3 is the directory that ls reads


@pytest.mark.parametrize("process", ["self", "thread-self", "1"])
def test_no_descriptor_serves_who_enters_either(either: Either, place: Path, process: str) -> None:
    rt, bundle = either
    rt.ok("run", "--detach", "--bundle", str(bundle(["/bin/sleep", "100"]).path), "c")
    file = place / "process.json"
    for number in (0, 3, 4, 5, 7, 9, 77):
        cwd = f"/proc/{process}/fd/{number}"
        done = rt("exec", "--cwd", cwd, "c", "/bin/ls")
        assert done.returncode == 255 and done.stdout == "" and "process.cwd" in done.stderr, done
        file.write_text(json.dumps({"args": ["/bin/ls"], "cwd": cwd + "/..", "user": {"uid": 0, "gid": 0}}))
        done = rt("exec", "--process", str(file), "c")
        assert done.returncode == 255 and done.stdout == "" and "process.cwd" in done.stderr, done


@pytest.mark.parametrize("target", ["/proc/self/fd/7", "/proc/self/root", "/proc/self/cwd", "/proc/1/root"])
def test_nor_does_a_link_that_the_container_made(either: Either, target: str) -> None:
    rt, bundle = either
    made = bundle(["/bin/sleep", "100"])
    rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    (made.rootfs / "work").symlink_to(target)
    done = rt("exec", "--cwd", "/work", "c", "/bin/ls")
    assert done.returncode == 255 and done.stdout == "" and "process.cwd" in done.stderr, done


def test_a_missing_working_directory_is_not_made_by_who_enters(either: Either) -> None:
    rt, bundle = either
    made = bundle(["/bin/sleep", "100"])
    rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    assert rt("exec", "--cwd", "/not/there", "c", "/bin/true").returncode == 255
    assert not (made.rootfs / "not").exists()
