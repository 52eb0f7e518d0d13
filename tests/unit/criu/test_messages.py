"""The messages on the wire, as protobuf's own rules have them."""

from __future__ import annotations

import pytest

pytest.importorskip("google.protobuf")

from rootless_rt.criu import messages


def test_a_request_has_the_numbers_of_rpc_proto():
    known = messages.load()
    request = known.request(type=messages.DUMP)
    request.opts.images_dir_fd = 5
    request.opts.unprivileged = True
    request.opts.ext_mnt.add(key="/a", val="b")
    # type = 1; opts = 2 { images_dir_fd = 1, ext_mnt = 23 { key = 1, val = 2 }, unprivileged = 67 }
    expected = "0801 120f 0805 ba01070a022f61120162 980401"
    assert request.SerializeToString() == bytes.fromhex(expected.replace(" ", ""))


def test_what_the_table_leaves_out_is_skipped_in_an_answer():
    known = messages.load()
    response = known.response.FromString(bytes.fromhex("0803 1001 320310ff01".replace(" ", "")))
    assert (response.type, response.success, response.cr_errmsg) == (messages.CHECK, True, "")


def test_the_classes_can_be_made_twice_in_one_program():
    assert messages.load().request is not messages.load().request
