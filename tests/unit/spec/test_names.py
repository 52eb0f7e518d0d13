"""The kernel's numbers, checked against Python's own tables, and the parsers of names."""

from __future__ import annotations

import resource
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_rt.errors import RtError
from rootless_rt.spec import names


def test_signal_numbers_are_those_of_the_platform() -> None:
    for member in signal.Signals:
        assert names.SIGNALS[member.name] == member.value


def test_rlimit_numbers_are_those_of_the_platform() -> None:
    for name, number in names.RLIMITS.items():
        if hasattr(resource, name):
            assert getattr(resource, name) == number
    assert len(names.RLIMITS) == 16


def test_all_41_capabilities_have_their_bit() -> None:
    assert len(names.CAPABILITIES) == 41
    assert names.CAPABILITIES["CAP_SYS_ADMIN"] == 21
    assert names.CAPABILITIES["CAP_SETFCAP"] == 31
    assert names.CAPABILITIES["CAP_CHECKPOINT_RESTORE"] == 40


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9", 9),
        ("KILL", 9),
        ("sigkill", 9),
        ("SigTerm", 15),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmax-1", 63),
        ("64", 64),
    ],
)
def test_signals_are_read_by_name_and_number(text: str, number: int) -> None:
    assert names.signal_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "65", "-9", "+9", " 9", "9 ", "1_5", "\u0669", "9" * 5000, "SIG", "SIGSIGKILL", "KILL\n"),
        *("RTMIN+31", "RTMAX+1", "RTMIN-1", "RTMIN+", "RTMIN3", "RTMIN+x", "\u017figkill"),
    ],
)
def test_other_signals_are_refused(text: str) -> None:
    with pytest.raises(RtError, match="unknown signal"):
        names.signal_number(text)


@given(st.text())
def test_any_text_is_a_signal_or_an_rt_error(text: str) -> None:
    try:
        assert 1 <= names.signal_number(text) <= 64
    except RtError as error:
        assert error.message.isprintable()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("net.ipv4.ip_forward", ("net", "ipv4", "ip_forward")),
        ("net/ipv4/ip_forward", ("net", "ipv4", "ip_forward")),
        ("net.ipv4.conf.eth0/100.forwarding", ("net", "ipv4", "conf", "eth0.100", "forwarding")),
        ("net/ipv4/conf/eth0.100/forwarding", ("net", "ipv4", "conf", "eth0.100", "forwarding")),
        ("net", None),
        ("", None),
        ("net.", None),
        ("/net/x", None),
        ("net..x", None),
        ("net/../x", None),
        ("net.//.x", None),
        ("net././x", None),
    ],
)
def test_a_sysctl_becomes_a_path_that_cannot_climb(name: str, parts: tuple[str, ...] | None) -> None:
    assert names.sysctl_parts(name) == parts


@given(st.text("a./"))
def test_no_sysctl_leaves_proc_sys(name: str) -> None:
    parts = names.sysctl_parts(name)
    assert parts is None or not {"", ".", ".."} & set(parts)
    assert parts is None or not any("/" in part for part in parts)
