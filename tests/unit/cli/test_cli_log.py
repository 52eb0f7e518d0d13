"""Errors and warnings: one line each on stderr, and in --log what engines can read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rootless_rt.cli.log import Log

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def log_to(path: Path, form: str = "json", **globals: object) -> Log:
    return Log({"log": str(path), "log_format": form, **globals})


def test_an_error_is_one_line_and_its_hint_the_next(capfd: pytest.CaptureFixture[str]) -> None:
    Log({}).error('exec: "x": executable file not found in $PATH', "check process.args")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == 'rt: exec: "x": executable file not found in $PATH\nhint: check process.args\n'


def test_the_id_of_an_error_stands_behind_its_hint_and_has_a_field_of_its_own_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    for form in ("json", "text"):
        log_to(path, form).error("no room", "make some", "RT-SESSION-HOME")
        assert capfd.readouterr().err == "rt: no room\nhint: make some (rt explain RT-SESSION-HOME)\n"
    structured, plain = path.read_text().splitlines()
    record = json.loads(structured)
    assert (record["msg"], record["hint"], record["id"]) == ("no room", "make some", "RT-SESSION-HOME")
    assert plain.endswith(' msg="no room" hint="make some" id=RT-SESSION-HOME')
    Log({}).warning("less room", None, "RT-SESSION-HOME")
    assert capfd.readouterr().err == "rt: warning: less room\nhint: rt explain RT-SESSION-HOME\n"


def test_an_error_is_exactly_one_json_object_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = log_to(tmp_path / "log", debug=True)
    log.debug("step")
    log.info("doing")
    log.warning("memory limit left out", hint="delegate the controller")
    log.error('bad "quote"\n\u00e9\udcff', hint="mend it")
    record = json.loads((tmp_path / "log").read_bytes())
    assert re.fullmatch(TIME, record.pop("time"))
    assert record == {"level": "error", "msg": 'bad "quote"\n\u00e9\udcff', "hint": "mend it"}
    # The same text is on stderr, for clients that read only that.
    assert 'rt: bad "quote"\\x0a\u00e9' in capfd.readouterr().err


def test_the_text_log_has_warnings_too_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    log_to(path, "text").warning("left out")
    log_to(path, "text").error('bad "one"', hint="mend")
    first, second, third = path.read_text().splitlines()
    assert first == "before"
    assert re.fullmatch(rf'time="{TIME}" level=warning msg="left out"', second)
    assert re.fullmatch(rf'time="{TIME}" level=error msg="bad \\"one\\"" hint="mend"', third)


@pytest.mark.parametrize(
    ("globals", "wanted"),
    [
        ({"log_level": "error"}, ["E"]),
        ({}, ["warning: W", "E"]),
        ({"log_level": "info"}, ["warning: W", "info: I", "E"]),
        ({"log_level": "debug"}, ["warning: W", "info: I", "debug: D", "E"]),
        ({"log_level": "error", "debug": True}, ["warning: W", "info: I", "debug: D", "E"]),
    ],
)
@pytest.mark.covers("--log-level")
def test_the_level_decides_what_is_shown_besides_errors(
    globals: dict[str, object], wanted: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    log = Log(globals)
    log.warning("W")
    log.info("I")
    log.debug("D")
    log.error("E")
    assert capfd.readouterr().err.splitlines() == [f"rt: {line}" for line in wanted]


def test_lines_of_a_long_hint_are_indented(capfd: pytest.CaptureFixture[str]) -> None:
    Log({}).error("E", "first\nsecond")
    assert capfd.readouterr().err == "rt: E\nhint: first\n      second\n"


@pytest.mark.parametrize("path", ["/nonexistent/log", "nul\0inside"])
def test_a_log_that_cannot_be_written_does_not_hide_the_error(
    path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Log({"log": path, "log_format": "json"}).error("the real one")
    first, second = capfd.readouterr().err.splitlines()
    assert first == "rt: the real one"
    assert second.startswith("rt: warning: cannot write the log")


def test_the_log_may_be_a_terminal_like_file(capfd: pytest.CaptureFixture[str]) -> None:
    Log({"log": "/dev/stderr", "log_format": "json"}).error("E")
    assert capfd.readouterr().err.count("E") == 2
