"""Which texts can be an AppArmor profile's name or an SELinux context."""

from __future__ import annotations

from typing import Any

import pytest
from lab import configs

from rootless_rt.errors import SpecError
from rootless_rt.spec.load import from_bytes
from rootless_rt.spec.rules import check_process

PROFILE, LABEL, MOUNT_LABEL = "process.apparmorProfile", "process.selinuxLabel", "linux.mountLabel"
CONTEXT = "system_u:system_r:container_t:s0:c1,c2"


def loaded(path: str, value: Any) -> dict[str, Any]:
    config = configs.valid()
    part, _, key = path.partition(".")
    config[part][key] = value
    return from_bytes(configs.as_bytes(config), "/bundle").data


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (PROFILE, "docker-default"),
        (PROFILE, "unconfined"),
        (PROFILE, "/usr/bin/a program"),
        (PROFILE, ":ns:profile//child"),
        (PROFILE, "é"),
        (PROFILE, "x" * 4090),
        (LABEL, CONTEXT),
        (LABEL, "u:r:t"),
        (LABEL, "user_u:user_r:user_t:s0-s0:c0.c1023"),
        (MOUNT_LABEL, "system_u:object_r:container_file_t:s0:c1,c2"),
        (MOUNT_LABEL, "u:r:" + "t" * 251),
    ],
)
def test_labels_of_every_form_are_accepted(path, text):
    part, _, key = path.partition(".")
    assert loaded(path, text)[part][key] == text


@pytest.mark.parametrize("path", [PROFILE, LABEL, MOUNT_LABEL])
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("u:r:t\0", "cannot hold"),
        ("u:r:t\n", "control character"),
        ("u:r:t\nchangehat 0^x", "control character"),
        ("u:r:\x1b[2J", "control character"),
        ("u:r:\x85", "control character"),
        ("u:r:" + "t" * 5000, "longer than"),
        ("é" * 2500, "longer than"),
        (" u:r:t", "white space"),
        ("u:r:t ", "white space"),
    ],
)
def test_what_the_kernel_would_cut_or_take_apart_is_refused(path, text, problem):
    with pytest.raises(
        SpecError, match=f"{problem}|expected an SELinux" if path != PROFILE else problem
    ) as found:
        loaded(path, text)
    assert found.value.path == path and "\n" not in found.value.message


@pytest.mark.parametrize("path", [LABEL, MOUNT_LABEL])
@pytest.mark.parametrize("text", ["x", "u:r", "u::t", ":r:t", "u:r:", "::", "unconfined"])
def test_a_context_has_a_user_a_role_and_a_type(path, text):
    with pytest.raises(SpecError, match="expected an SELinux context") as found:
        loaded(path, text)
    assert found.value.path == path and found.value.hint


def test_a_mount_label_fits_into_one_mount_option():
    with pytest.raises(SpecError, match="longer than 255 bytes"):
        loaded(MOUNT_LABEL, "u:r:" + "t" * 252)


@pytest.mark.parametrize("value", [5, True, ["x"], {"x": "y"}])
@pytest.mark.parametrize("path", [PROFILE, LABEL, MOUNT_LABEL])
def test_a_label_is_a_text(path, value):
    with pytest.raises(SpecError) as found:
        loaded(path, value)
    assert found.value.path == path


def test_the_process_of_exec_is_checked_in_the_same_way():
    process = configs.valid()["process"]
    with pytest.raises(SpecError) as found:
        check_process({**process, "selinuxLabel": "x"})
    assert found.value.path == LABEL
