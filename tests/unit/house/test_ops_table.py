"""The one table of ops: its C side, and that rt-init knows every op in it."""

from __future__ import annotations

import re

import pytest
from lab.tree import TREE

from rootless_rt.plan.header import header
from rootless_rt.plan.ops import BY_NAME, OPS, Op, blank

INIT = TREE / "rootless_rt/init"


def test_the_header_is_generated_from_the_table():
    hint = "python3 -m rootless_rt.plan.header > rootless_rt/init/ops.h"
    assert (INIT / "ops.h").read_text() == header(), hint


def test_numbers_and_names_are_given_once_and_stay_small():
    numbers = [number for _, number, _, _ in OPS]
    assert len(set(numbers)) == len(OPS) and 1 <= min(numbers) <= max(numbers) < 128
    assert f"#define OP_LAST {max(numbers)}\n" in header()
    assert len(BY_NAME) == len(OPS)


def test_fields_have_known_types_and_names_of_their_own():
    for name, _, schema, _ in OPS:
        assert {kind for _, kind in schema} <= set("USBLV"), name
        assert len({field for field, _ in schema}) == len(schema), name


def test_rt_init_performs_every_op():
    source = (INIT / "main.c").read_text()
    switch = source[source.index("switch (op->code)") :]
    assert set(re.findall(r"case OP_(\w+):", switch)) == {name.upper() for name, _, _, _ in OPS}


def test_rt_init_uses_only_fields_of_the_op_at_hand():
    """F_MASK_NULL in another op's function would read a field of another type."""
    places = set(re.findall(r"^\tF_(\w+) = ", (INIT / "ops.h").read_text(), re.MULTILINE))
    for path in sorted(INIT.glob("*.c")):
        for used in re.findall(r"\bF_([A-Z_]+)\b(?!_SETFD)", path.read_text()):
            if used not in ("OK", "DUPFD_CLOEXEC", "SETFD", "GETFD", "SETFL", "ADD_SEALS"):
                assert used in places, (path.name, used)


def test_every_op_can_be_printed():
    for name, _, schema, _ in OPS:
        op = blank(name, "where")
        assert op.describe() and op.label == "where" and list(op.fields()) == [field for field, _ in schema]


def test_an_op_with_the_wrong_number_of_fields_cannot_be_made():
    with pytest.raises(TypeError, match="hostname takes 1"):
        Op("hostname")
    with pytest.raises(KeyError):
        Op("nonsense")
    assert Op("hostname", "a") == Op("hostname", "a", label="other") != Op("hostname", "b")
    assert len({Op("hostname", "a"), Op("hostname", "a")}) == 1 and "hostname" in repr(Op("hostname", "a"))
