"""linux.netDevices and linux.intelRdt: which names and lines are refused before anything happens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.plans import drop_namespace, root_config, spec_of

from rootless_rt.errors import SpecError
from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.outside import line_parts, merged, schema_lines


def problem(**linux: Any) -> SpecError:
    config = root_config()
    config["linux"].update(linux)
    with pytest.raises(SpecError) as caught:
        spec_of(config)
    assert "\n" not in caught.value.message
    return caught.value


def accepted(**linux: Any) -> None:
    config = root_config()
    config["linux"].update(linux)
    spec_of(config)


BAD_NAMES = [
    ".",
    "..",
    "a/b",
    "/",
    "a b",
    " ",
    "a\tb",
    "a\nb",
    "a\vb",
    "\xa0",
    "à",  # its second byte is a space to the kernel
    "eth0:1",
    ":",
    "x" * 16,
    "é" * 8,
    "lo",
    "all",
    "default",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_name_that_no_device_can_have_is_refused_on_either_side(name: str) -> None:
    assert problem(netDevices={name: {}}).path == f"linux.netDevices[{quote(name)}]"
    error = problem(netDevices={"eth0": {"name": name}})
    assert error.path == 'linux.netDevices["eth0"].name'


@pytest.mark.parametrize("name", ["", "eth%d", "%", "eth%s"])
def test_a_device_of_the_host_has_a_name_and_no_pattern(name: str) -> None:
    assert problem(netDevices={name: {}}).path == f"linux.netDevices[{json.dumps(name)}]"


@pytest.mark.parametrize("name", ["%", "eth%", "%s", "%%d", "eth%d%d", "a%db%s", "x" * 14 + "%d"])
def test_a_pattern_is_one_number_or_nothing(name: str) -> None:
    assert problem(netDevices={"eth0": {"name": name}}).path == 'linux.netDevices["eth0"].name'


@pytest.mark.parametrize("name", ["", "eth1", "x" * 15, "é" * 7, "eth%d", "%d", "...", "a.b", "-", "\x01"])
def test_other_names_are_the_kernels_to_judge(name: str) -> None:
    accepted(netDevices={"eth0": {"name": name}})


def test_two_devices_cannot_have_one_name_inside() -> None:
    for devices in (
        {"eth0": {"name": "eth1"}, "eth1": {}},
        {"eth1": {}, "eth0": {"name": "eth1"}},
        {"a": {"name": "x"}, "b": {"name": "x"}},
    ):
        error = problem(netDevices=devices)
        assert "already" in error.message and error.path.startswith("linux.netDevices[")
    accepted(netDevices={"a": {"name": "b"}, "b": {"name": "a"}})
    accepted(netDevices={"a": {"name": "eth%d"}, "b": {"name": "eth%d"}})


def test_devices_need_a_network_namespace() -> None:
    config = drop_namespace(root_config(mounts=[]), "network")
    config["linux"]["netDevices"] = {"eth0": {}}
    with pytest.raises(SpecError) as caught:
        spec_of(config)
    assert caught.value.path == "linux.netDevices" and "network namespace" in caught.value.message
    config["linux"]["netDevices"] = {}
    spec_of(config)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20))
def test_any_name_is_accepted_or_refused_with_a_path(name: str) -> None:
    for devices in ({name: {}}, {"eth0": {"name": name}}):
        try:
            accepted(netDevices=devices)
        except SpecError as error:
            assert error.path.startswith("linux.netDevices[")


@pytest.mark.parametrize(
    "group",
    [".", "..", "a/b", "//", "/a", "a/", "a\nb", "a\x7f", "\t", "g" * 256, "info", "mon_groups", "mon_data"],
)
def test_a_class_of_service_is_the_name_of_one_directory(group: str) -> None:
    assert problem(intelRdt={"closID": group}).path == "linux.intelRdt.closID"


@pytest.mark.parametrize("group", ["/", "gold", "a b", "...", "g" * 255])
def test_other_classes_are_accepted(group: str) -> None:
    accepted(intelRdt={"closID": group})


WRONG_LINES = [
    "",
    "L3",
    "L3:",
    "L3:0",
    ":0=f",
    "L3:0=f\nMB:0=1",
    "L3:0=f;",
    "L3:0=f;;1=f",
    "L 3:0=f",
    "L3:0=f\x01",
]


@pytest.mark.parametrize("line", WRONG_LINES, ids=repr)
def test_schemata_are_single_lines_of_the_kernels_form(line: str) -> None:
    assert problem(intelRdt={"schemata": ["L3:0=f", line]}).path == "linux.intelRdt.schemata[1]"


def test_the_older_fields_have_their_own_rules() -> None:
    assert problem(intelRdt={"memBwSchema": "L3:0=f"}).path == "linux.intelRdt.memBwSchema"
    assert problem(intelRdt={"memBwSchema": "MB:0=1\nL3:0=f"}).path == "linux.intelRdt.memBwSchema"
    assert problem(intelRdt={"l3CacheSchema": "L3:0=f\nx"}).path == "linux.intelRdt.l3CacheSchema"
    accepted(intelRdt={"l3CacheSchema": "L3:0=f\nMB:0=20\n", "memBwSchema": "MB:0=30"})


def test_an_empty_object_asks_for_nothing() -> None:
    for empty in ({}, {"closID": ""}, {"enableMonitoring": False, "schemata": []}):
        accepted(intelRdt=empty)


def test_a_line_for_bandwidth_gives_way_to_its_own_field() -> None:
    cache = {"l3CacheSchema": "L3:0=f\nMB:0=20"}
    assert schema_lines(cache) == (["L3:0=f", "MB:0=20"], [])
    assert schema_lines({**cache, "memBwSchema": "MB:0=30"}) == (["L3:0=f", "MB:0=30"], [])
    assert schema_lines({"schemata": ["L2:0=1"], "memBwSchema": "MB:0=30"}) == (["MB:0=30"], ["L2:0=1"])


def test_lines_are_compared_by_what_they_mean() -> None:
    assert line_parts("    L3:00=0FF; 1=f ") == ("L3", {"0": "ff", "1": "f"})
    assert line_parts("MB:0=000") == ("MB", {"0": "0"})
    assert merged(["L3:0=f;1=f", "", "L3:1=3"]) == {"L3": {"0": "f", "1": "3"}}
