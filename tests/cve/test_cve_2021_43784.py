"""CVE-2021-43784: a field longer than 65535 bytes wraps its length, and its end is read as other fields."""

from __future__ import annotations

import os
from hashlib import md5

import pytest
from conftest import Either
from lab.inside import bind, refusal, with_mounts

LENGTHS = [65535, 65536, 65536 + 8, 100_000]
NAMESPACES = ["ipc", "mnt", "pid", "uts"]
LOOK = "; ".join(f"readlink /proc/self/ns/{name}" for name in NAMESPACES)


def filler(length: int) -> str:
    """Text no part of which equals another."""
    return "".join(f"{number:08d}" for number in range(length // 8 + 1))[:length]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_large_variable_arrives_whole_and_takes_no_namespace_away(either: Either, length: int) -> None:
    rt, bundle = either
    made = bundle(f"{LOOK}; printf %s $LARGE | md5sum; printf %s $AFTER")
    made.config["process"]["env"] += [f"LARGE={filler(length)}", "AFTER=intact"]
    made.write()
    *spaces, digest, after = rt.ok("run", "--bundle", str(made.path), "c").splitlines()
    assert digest.split()[0] == md5(filler(length).encode()).hexdigest() and after == "intact"
    own = [os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES]
    assert len(spaces) == len(own) and not set(spaces) & set(own)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_large_argument_arrives_whole(either: Either, length: int) -> None:
    rt, bundle = either
    script = 'printf %s "$1" | md5sum; printf %s "$2"'
    made = bundle(["/bin/sh", "-c", script, "sh", filler(length), "intact"])
    digest, after = rt.ok("run", "--bundle", str(made.path), "c").splitlines()
    assert digest.split()[0] == md5(filler(length).encode()).hexdigest() and after == "intact"


@pytest.mark.parametrize("length", [70_000, 65536 + 8])
@pytest.mark.parametrize("field", ["destination", "source", "options"])
def test_a_large_field_of_a_mount_is_refused_and_not_cut(either: Either, field: str, length: int) -> None:
    rt, bundle = either
    made = bundle("echo ran")
    item = bind("/tmp", made.path)
    if field == "options":
        item.update(type="tmpfs", source="tmpfs", options=[f"context={filler(length)}"])
    else:
        item[field] = "/tmp" + "/aaaaaaa" * (length // 8)
    refusal(rt, with_mounts(made, item))
    assert not list((made.rootfs / "tmp").iterdir())


def test_a_plan_of_thousands_of_fields_arrives_whole(either: Either) -> None:
    rt, bundle = either
    made = bundle("env | grep -c ^V; echo $V0 $V2999")
    made.config["process"]["env"] += [f"V{number}={number}-{filler(200)}" for number in range(3000)]
    made.write()
    expected = f"3000\n0-{filler(200)} 2999-{filler(200)}\n"
    assert rt.ok("run", "--bundle", str(made.path), "c") == expected
