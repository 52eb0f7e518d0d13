"""CVE-2019-16884: something else lies on /proc, so that the LSM's label is written to a file of the image."""

from __future__ import annotations

import pytest
from conftest import Either
from lab.inside import bind, mount, refusal, with_mounts


@pytest.mark.parametrize("kind", ["volume", "tmpfs", "image"])
@pytest.mark.parametrize("label", [False, True], ids=["plain", "labelled"])
def test_nothing_but_procfs_can_lie_on_proc(either: Either, kind: str, label: bool) -> None:
    rt, bundle = either
    made = bundle("echo ran")
    fake = made.path / "fake" if kind == "volume" else made.rootfs / "proc"
    for where in ("self/attr/apparmor", "thread-self/attr/apparmor"):
        (fake / where).mkdir(parents=True)
        for name in ("exec", "../exec", "current"):
            (fake / where / name).write_text("fake\n")
    rt.user.owns(made.path)
    if kind == "image":
        made.config["mounts"] = [item for item in made.config["mounts"] if item["destination"] != "/proc"]
    elif kind == "volume":
        with_mounts(made, bind("/proc", fake))
    else:
        with_mounts(made, mount("/proc", "tmpfs", "tmpfs"))
    if label:
        made.config["process"]["apparmorProfile"] = "unconfined-by-the-image"
    made.write()
    if kind == "image" and not label:
        # An image without /proc is allowed where nothing has to be written there.
        rt("run", "--bundle", str(made.path), "c")
    else:
        assert "ran" not in refusal(rt, made)
    for file in (item for item in fake.rglob("*") if item.is_file()):
        assert file.read_text() == "fake\n", file
