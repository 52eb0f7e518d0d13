"""The error that people see: one line, whatever it names."""

from __future__ import annotations

from rootless_rt.errors import RtError, SpecError


def test_a_message_is_one_line_and_steers_no_terminal() -> None:
    assert RtError("bad path /a\nrt: all is well\x1b[2J").message == "bad path /a\\x0art: all is well\\x1b[2J"
    assert SpecError("mounts[0]", "x\ny").message == "config.json: mounts[0]: x\\x0ay"


def test_names_that_are_not_utf8_come_out_as_they_came_in() -> None:
    assert RtError("no file \udcff").message == "no file \udcff"
