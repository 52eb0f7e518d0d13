"""The files that docs/engines.md shows are those with which the tests of engines run them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from lab import containerd, podman
from lab.dockerd import Docker
from lab.runtime import RT, TREE

PAGE = (TREE / "docs/engines.md").read_text(encoding="utf-8")
PATH = "/usr/local/bin/rt"


def blocks(section: str, language: str) -> list[str]:
    """The files of this language below a headline, up to the next one of its level."""
    below = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    text = next(each for each in below if each.startswith(section))
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def inside(part: Any, whole: Any) -> bool:
    """Whether everything in `part` is in `whole`, with the same values."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(inside(part[key], whole.get(key)) for key in part)
    return bool(part == whole)


def test_podman_is_configured_as_shown() -> None:
    (shown,) = blocks("podman", "toml")
    used = podman.CONTAINERS_CONF.format(base="/tests", rt=PATH, runc="/usr/sbin/runc")
    assert inside(tomllib.loads(shown), tomllib.loads(used))


def test_containerd_is_configured_as_shown() -> None:
    shown = blocks("containerd", "toml")[0]
    places = {"base": "/tests", "pause": "pause", "disabled": "", "rt": PATH, "runc": "/usr/sbin/runc"}
    used = containerd.CONFIG.format(**places)
    assert inside(tomllib.loads(shown), tomllib.loads(used))


def test_docker_is_configured_as_shown(tmp_path: Path) -> None:
    (shown,) = blocks("Docker", "json")
    docker = object.__new__(Docker)
    docker.base = tmp_path
    docker.configure("rt")
    used = (tmp_path / "daemon.json").read_text()
    assert json.loads(shown.replace(PATH, RT)) == json.loads(used)


def test_a_runtime_class_names_the_handler_of_the_config() -> None:
    (manifest,) = blocks("containerd", "yaml")
    assert "metadata:\n  name: rt\nhandler: rt\n" in manifest and "\n  runtimeClassName: rt\n" in manifest


@pytest.mark.parametrize("section", ["podman", "containerd", "Docker", "Runners"])
def test_every_file_shown_can_be_read(section: str) -> None:
    for text in blocks(section, "toml"):
        assert tomllib.loads(text)
    for text in blocks(section, "json"):
        assert json.loads(text)


@pytest.mark.parametrize("name", ["CRI-O", "nerdctl", "GitHub", "GitLab"])
def test_what_is_not_run_is_said_to_be_so(name: str) -> None:
    said = PAGE[PAGE.index("CRI-O, nerdctl") : PAGE.index("has not been run")]
    assert name in said
