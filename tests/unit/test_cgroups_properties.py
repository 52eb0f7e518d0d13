"""linux.resources as properties of a systemd unit, and those that annotations write as text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_rt.cgroups.limits import compile_limits
from rootless_rt.cgroups.properties import (
    INFINITY,
    from_annotations,
    limits_as_properties,
    mask_of,
    parse_value,
)
from rootless_rt.errors import SpecError


@pytest.mark.parametrize(
    ("resources", "properties"),
    [
        ({}, []),
        ({"memory": {"limit": 512}}, [("MemoryMax", "t", 512)]),
        (
            {"memory": {"limit": 512, "swap": 1024, "reservation": -1}},
            [("MemoryMax", "t", 512), ("MemoryLow", "t", INFINITY), ("MemorySwapMax", "t", 512)],
        ),
        (
            {"memory": {"limit": -1}},
            [("MemoryMax", "t", INFINITY), ("MemorySwapMax", "t", INFINITY)],
        ),
        ({"cpu": {"shares": 1024}}, [("CPUWeight", "t", 100)]),
        ({"cpu": {"shares": 1024, "idle": 1}}, [("CPUWeight", "t", 0)]),
        ({"cpu": {"quota": 50000}}, [("CPUQuotaPerSecUSec", "t", 500000)]),
        (
            {"cpu": {"quota": 33333, "period": 100001}},
            [("CPUQuotaPeriodUSec", "t", 100001), ("CPUQuotaPerSecUSec", "t", 340000)],
        ),
        ({"cpu": {"quota": -1}}, [("CPUQuotaPerSecUSec", "t", INFINITY)]),
        (
            {"cpu": {"cpus": "0-1,9", "mems": "0"}},
            [("AllowedCPUs", "ay", b"\x03\x02"), ("AllowedMemoryNodes", "ay", b"\x01")],
        ),
        ({"pids": {"limit": 0}}, [("TasksMax", "t", 1)]),
        ({"pids": {"limit": -1}}, [("TasksMax", "t", INFINITY)]),
        ({"blockIO": {"weight": 1000}}, [("IOWeight", "t", 10000)]),
    ],
)
def test_each_limit_has_its_property(resources: dict[str, Any], properties: list[Any]) -> None:
    assert limits_as_properties(resources, 255) == properties


def test_an_old_systemd_is_not_told_what_it_does_not_know() -> None:
    resources = {"cpu": {"quota": 50000, "period": 100000, "cpus": "0"}}
    assert limits_as_properties(resources, 239) == [("CPUQuotaPerSecUSec", "t", 500000)]
    assert limits_as_properties({"cpu": {"idle": 1}}, 251) == []


def test_on_v1_the_names_are_the_older_ones() -> None:
    resources = {"memory": {"limit": 5, "reservation": 3}, "cpu": {"shares": 512}, "blockIO": {"weight": 10}}
    assert limits_as_properties(resources, 247, v2=False) == [
        ("MemoryLimit", "t", 5),
        ("CPUShares", "t", 512),
        ("BlockIOWeight", "t", 10),
    ]


def test_a_mask_of_cpus_has_no_more_bytes_than_it_needs() -> None:
    assert mask_of("0") == b"\x01" and mask_of("8") == b"\x00\x01" and mask_of("0-15") == b"\xff\xff"
    assert len(mask_of("0-4294967295")) == 1024


@pytest.mark.parametrize(
    ("text", "signature", "value"),
    [
        ("true", "b", True),
        ("'text'", "s", "text"),
        ('"it\'s"', "s", "it's"),
        ("'a\\'b'", "s", "a'b"),
        ("5", "i", 5),
        ("-5", "i", -5),
        ("uint64 18446744073709551615", "t", INFINITY),
        ("byte 255", "y", 255),
        ("1.5", "d", 1.5),
        ("['one', 'two']", "as", ["one", "two"]),
        ("[]", "as", []),
        ("[uint32 1, 2]", "au", [1, 2]),
        ("[byte 1, 2, 3]", "ay", b"\x01\x02\x03"),
        ("[true, false]", "ab", [True, False]),
    ],
)
def test_values_are_read_as_gvariant_writes_them(text: str, signature: str, value: object) -> None:
    assert parse_value(text, "x") == (signature, value)


@pytest.mark.parametrize(
    "text",
    ["", "yes", "'open", "uint8 256", "byte 256", "uint64 -1", "int16 40000", "1_0", "+1", "²", "[1, 'a']",
     "[1",
     "[1 2]", "'a' 'b'", "(1, 2)", "{'a': 1}", "uint32 x", "[,]", "9999999999", "nonsense 5"],
)  # fmt: skip
def test_anything_else_is_an_error_with_its_path(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        from_annotations({"org.systemd.property.Foo": text})
    assert caught.value.path == 'annotations["org.systemd.property.Foo"]'


def test_seconds_become_microseconds() -> None:
    found = from_annotations({"org.systemd.property.TimeoutStopSec": "uint64 7", "other": "x"})
    assert found == [("TimeoutStopUSec", "t", 7000000)]


@pytest.mark.parametrize("text", ["'7'", "-1", "-0.1", "uint64 18446744073709551615", "18446744073710.0"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        from_annotations({"org.systemd.property.TimeoutStopSec": text})


@pytest.mark.parametrize("period", [0, 1000, 100000, 1000000])
@pytest.mark.parametrize("quota", [1000, 50000, (1 << 44) - 1])
def test_systemd_can_reckon_with_every_quota(quota: int, period: int) -> None:
    """It multiplies the two before it divides: what overflows there comes out as next to nothing."""
    cpu = {"quota": quota, "period": period}
    compile_limits({"cpu": cpu}, 2)
    found = {name: value for name, _, value in limits_as_properties({"cpu": cpu}, 255)}
    product = found["CPUQuotaPerSecUSec"] * (period or 100000)
    assert product <= INFINITY and product // 1000000 >= quota


@pytest.mark.parametrize("name", ["PIDs", "Delegate", "Slice", "", "lower", "A B", "A.B", "A/B"])
def test_what_is_the_runtime_s_cannot_be_given(name: str) -> None:
    with pytest.raises(SpecError):
        from_annotations({f"org.systemd.property.{name}": "true"})


@given(st.text(alphabet=list("[]'\",. \\0123456789truefalsbyint-"), max_size=20))
def test_no_text_is_more_than_refused(text: str) -> None:
    try:
        parse_value(text, "x")
    except SpecError:
        pass
