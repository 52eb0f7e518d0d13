"""Overlay mounts: options longer than the new mount API takes."""

from __future__ import annotations

import pytest
from lab.plans import compiled, every, user_config

from rootless_rt.errors import SpecError

LONG = [f"/layers/{letter * 150}" for letter in "abc"]


def data_of(*options):
    config = user_config()
    item = {"destination": "/over", "type": "overlay", "source": "overlay", "options": list(options)}
    config.setdefault("mounts", []).append(item)
    return next(op["data"] for op in every(compiled(config), "mount_fs") if op["dest"] == "/over")


def test_a_short_list_of_layers_stays_one_option():
    assert data_of("lowerdir=/a:/b", "upperdir=/u") == ["lowerdir=/a:/b", "upperdir=/u"]


def test_a_list_of_layers_that_the_kernel_takes_no_more_is_given_layer_by_layer():
    assert data_of("lowerdir=" + ":".join(LONG)) == ["lowerdir+=" + layer for layer in LONG]


def test_a_colon_behind_a_backslash_is_part_of_a_layer_s_name():
    """`lowerdir+` takes the name as it is: nothing is escaped there."""
    one, two, three = LONG
    assert data_of(f"lowerdir={one}\\:{two}:{three}") == [f"lowerdir+={one}:{two}", f"lowerdir+={three}"]


def test_layers_behind_two_colons_are_for_data_only():
    one, two, three = LONG
    assert data_of(f"lowerdir={one}::{two}::{three}") == [
        f"lowerdir+={one}",
        f"datadir+={two}",
        f"datadir+={three}",
    ]


def test_a_long_upper_directory_is_left_to_its_descriptor():
    long = "/" + "u" * 300
    assert data_of("lowerdir=/a", f"upperdir={long}") == ["lowerdir=/a", f"upperdir={long}"]


@pytest.mark.parametrize("word", ["x=" + "v" * 256, "k" * 256, "k" * 256 + "=1", "x=" + "ü" * 128])
def test_a_value_that_the_mount_api_does_not_take_is_refused_by_the_plan(word):
    with pytest.raises(SpecError) as caught:
        data_of(word)
    assert caught.value.path.endswith(".options") and "255 bytes" in caught.value.message
