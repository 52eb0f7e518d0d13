"""Network devices without a network: what is said when means are missing, what is kept of an address."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from rootless_rt.errors import RtError, SpecError
from rootless_rt.net import devices


def test_a_missing_pyroute2_is_told_with_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyroute2", None)
    with pytest.raises(RtError, match="pyroute2") as caught:
        devices.Devices({"eth0": {}}).check(None)
    assert "rootless-rt[net]" in (caught.value.hint or "")
    assert "python3-pyroute2" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["no-such-dev", "tunl-nowhere"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    pytest.importorskip("pyroute2")
    with pytest.raises(SpecError, match="no such network device") as caught:
        devices.Devices({name: {}}).check(None)
    assert caught.value.path == f'linux.netDevices["{name}"]'


def test_loopback_devices_stay_where_they_are() -> None:
    pytest.importorskip("pyroute2")
    with pytest.raises(SpecError, match="loopback"):
        devices.Devices({"lo": {"name": "x"}}).check(None)


def test_the_runtimes_own_namespace_is_nowhere_to_move_to() -> None:
    with pytest.raises(SpecError, match="nowhere to move"):
        devices.Devices({"eth0": {}}).check("/proc/self/ns/net")
    with pytest.raises(RtError, match="no such file"):
        devices.Devices({"eth0": {}}).check("/no/namespace")


def test_patterns_are_moved_last_so_that_their_numbers_take_no_asked_name() -> None:
    asked = {"a": {"name": "eth%d"}, "b": {"name": "eth0"}, "c": {}}
    order = [device.name for device in devices.Devices(asked)._devices]
    assert order == ["b", "c", "a"]


class Message(dict[str, Any]):
    def get_attr(self, name: str) -> Any:
        return self.get(name)


class Kernel:
    def __init__(self, *messages: Message) -> None:
        self.messages = messages

    def get_addr(self, index: int) -> tuple[Message, ...]:
        return self.messages


def address(**changes: Any) -> Message:
    fields = {"family": 2, "prefixlen": 24, "scope": 0, "flags": 0x80, "IFA_FLAGS": 0x80}
    return Message({**fields, "IFA_ADDRESS": "10.0.0.1", "IFA_LOCAL": "10.0.0.1", **changes})


def test_only_permanent_addresses_of_global_scope_are_kept() -> None:
    kernel = Kernel(address(scope=253), address(scope=254), address(IFA_FLAGS=0x01, flags=1), address())
    (kept,) = devices._addresses(kernel, 1)
    assert kept == {
        "family": 2,
        "prefixlen": 24,
        "scope": 0,
        "IFA_FLAGS": 0,
        "IFA_ADDRESS": "10.0.0.1",
        "IFA_LOCAL": "10.0.0.1",
    }


def test_what_an_address_was_asked_to_be_is_asked_again_and_its_state_is_not() -> None:
    times = {"ifa_preferred": 0, "ifa_valid": 0xFFFFFFFF, "cstamp": 5, "tstamp": 6}
    given = address(IFA_FLAGS=0x80 | 0x40 | 0x20 | 0x08 | 0x200 | 0x02, IFA_CACHEINFO=times)
    (kept,) = devices._addresses(Kernel(given), 1)
    assert kept["IFA_FLAGS"] == 0x202
    assert kept["IFA_CACHEINFO"] == {**times, "cstamp": 0, "tstamp": 0}
