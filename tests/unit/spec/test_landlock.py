"""The annotation org.rootless-rt.landlock: what is accepted, and what is refused with which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lab import configs

from rootless_rt.errors import SpecError
from rootless_rt.spec.landlock import landlock_of
from rootless_rt.spec.load import from_bytes

NAME = "org.rootless-rt.landlock"
FIELD = f'annotations["{NAME}"]'


def loaded(value: str, **process: Any) -> Any:
    config = configs.valid()
    config["annotations"] = {NAME: value}
    config["process"].update(process)
    return landlock_of(from_bytes(configs.as_bytes(config), "/bundle").data)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('{"ro": ["/"], "rw": ["/tmp", "/dev"]}', (["/"], ["/tmp", "/dev"])),
        ('{"ro": ["/usr"]}', (["/usr"], [])),
        (' {"rw": ["/é", "//", "/a/../b", "/a b"]} ', ([], ["/é", "//", "/a/../b", "/a b"])),
        ('{"rw": []}', ([], [])),
        (json.dumps({"ro": ["/" + "x" * 4094]}), (["/" + "x" * 4094], [])),
        (json.dumps({"ro": ["/x"] * 256}), (["/x"] * 256, [])),
    ],
)
def test_paths_are_read_from_the_value(value, expected):
    assert loaded(value) == expected


def test_without_the_annotation_nothing_is_asked():
    assert landlock_of({"annotations": {"org.rootless-rt.land": "x"}}) is None and landlock_of({}) is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "the value: line 1 column 1: the document ends too early"),
        ("ro=/", "the value: line 1 column 1: expected a value"),
        ('{"ro": ["/"]', "the document ends too early"),
        ("[]", "expected an object of ro and rw"),
        ("null", "expected an object of ro and rw"),
        ("{}", "expected an object of ro and rw"),
        ('{"ro": ["/"], "rx": []}', "expected an object of ro and rw"),
        ('{"ro": "/"}', "ro: expected a list of paths"),
        ('{"rw": null}', "rw: expected a list of paths"),
        ('{"rw": [1]}', "rw: expected an absolute path, got int"),
        ('{"rw": [["/"]]}', "rw: expected an absolute path, got list"),
        ('{"rw": [""]}', 'rw: expected an absolute path, got ""'),
        ('{"rw": ["tmp"]}', 'rw: expected an absolute path, got "tmp"'),
        ('{"ro": ["/a\\u0000b"]}', "ro: "),
        ('{"ro": ["/\\ud800"]}', "ro: "),
        (json.dumps({"ro": ["/" + "x" * 4095]}), "is longer than a path can be"),
        (json.dumps({"ro": ["/" + "é" * 2048]}), "is longer than a path can be"),
        (json.dumps({"ro": ["/x"] * 200, "rw": ["/x"] * 57}), "more than 256 paths"),
        ("[" * 100000, "nested too deeply"),
        ('{"ro": ' + "9" * 5000 + "}", "too many digits"),
    ],
)
def test_anything_else_is_refused_with_the_path_of_the_annotation(value, problem):
    with pytest.raises(SpecError) as caught:
        loaded(value)
    assert f"{FIELD}: " in caught.value.message and problem in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("privileges", [False, None])
def test_rules_need_a_process_that_cannot_gain_privileges(privileges):
    with pytest.raises(SpecError, match=r"needs process\.noNewPrivileges"):
        loaded('{"ro": ["/"]}', noNewPrivileges=privileges)
