"""Overlay mounts: options longer than the new mount API takes."""

from __future__ import annotations

from lab.plans import compiled, every, user_config

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


def test_a_list_with_escapes_or_data_layers_stays_as_it_is():
    for text in ("lowerdir=" + "\\:".join(LONG), "lowerdir=" + "::".join(LONG)):
        assert data_of(text) == [text]
