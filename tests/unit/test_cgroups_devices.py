"""The device rules: as v1 lines, and as a BPF program run by a small interpreter."""

from __future__ import annotations

import random
import struct
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from rootless_rt.cgroups.bpf_devices import program
from rootless_rt.cgroups.devices import ALL, DEFAULT, MKNOD, READ, WRITE, compile_rules, v1_lines
from rootless_rt.errors import RtError, SpecError

if TYPE_CHECKING:
    from rootless_rt.cgroups.devices import Rule

DENY_ALL = {"allow": False, "access": "rwm"}
FUSE = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}


def run(code: bytes, kind: str, major: int, minor: int, access: int) -> bool:
    """Interpret the eight instructions in use, as the kernel does; every jump must go forward."""
    context = struct.pack("=III", access << 16 | {"b": 1, "c": 2}[kind], major, minor)
    registers: dict[int, int] = {}
    at = 0
    while True:
        opcode, regs, offset, value = struct.unpack_from("=BBhI", code, at * 8)
        dst, src = regs & 15, regs >> 4
        at += 1
        if opcode == 0x61:
            assert src == 1
            registers[dst] = struct.unpack_from("=I", context, offset)[0]
        elif opcode == 0xBC:
            registers[dst] = registers[src]
        elif opcode == 0xB4:
            registers[dst] = value
        elif opcode == 0x54:
            registers[dst] &= value
        elif opcode == 0x74:
            registers[dst] >>= value
        elif opcode in (0x56, 0x46, 0x05):
            assert offset >= 0
            held = registers.get(dst, 0)
            if {0x56: held != value, 0x46: held & value != 0, 0x05: True}[opcode]:
                at += offset
        else:
            assert opcode == 0x95
            return bool(registers[0])


def means(rules: list[Rule], kind: str, major: int, minor: int, access: int) -> bool:
    """What the rules say, written down plainly: each access by the last rule that speaks of it."""
    for bit in (MKNOD, READ, WRITE):
        if access & bit:
            verdict = False
            for allow, of, its_major, its_minor, bits in rules:
                if of in ("a", kind) and its_major in (-1, major) and its_minor in (-1, minor) and bits & bit:
                    verdict = allow
            if not verdict:
                return False
    return True


def test_deny_all_leaves_the_default_devices() -> None:
    code = program(compile_rules([DENY_ALL]))
    assert run(code, "c", 1, 3, READ | WRITE)
    assert run(code, "c", 136, 77, READ | WRITE)
    assert run(code, "b", 8, 0, MKNOD)
    assert not run(code, "b", 8, 0, MKNOD | READ)
    assert not run(code, "c", 10, 229, READ)


@pytest.mark.covers("linux.resources.devices")
def test_the_program_decides_as_the_rules_mean() -> None:
    dice = random.Random(7)
    for _ in range(300):
        rules = [
            (
                dice.random() < 0.6,
                dice.choice("abc"),
                dice.choice((-1, 1, 2)),
                dice.choice((-1, 1, 2)),
                dice.randint(1, ALL),
            )
            for _ in range(dice.randint(0, 7))
        ]
        code = program(rules)
        for request in product("bc", (1, 2, 4294967295), (1, 2, 3), range(1, ALL + 1)):
            assert run(code, *request) == means(rules, *request), (rules, request)


def test_nothing_after_a_rule_for_everything_is_left_in_the_program() -> None:
    everything = (True, "a", -1, -1, ALL)
    assert program([(False, "c", 1, 3, ALL), everything]) == program([everything])


def test_v1_lists_exceptions_to_deny() -> None:
    default, lines = v1_lines(compile_rules([DENY_ALL, FUSE]))
    assert default is False
    assert lines[0] == "c 10:229 rwm"
    assert "c *:* m" in lines
    assert "b *:* m" in lines
    assert "c 136:* rwm" in lines
    assert len(lines) == 1 + len(DEFAULT)


def test_v1_lists_exceptions_to_allow() -> None:
    rules: list[dict[str, Any]] = [{"allow": True}, {"allow": False, "type": "b", "major": 8, "access": "w"}]
    assert v1_lines(compile_rules(rules)) == (True, ["b 8:* w"])


def test_v1_a_later_rule_takes_accesses_off_an_earlier_one() -> None:
    rules = compile_rules([FUSE, {"allow": False, "type": "c", "major": 10, "access": "w"}])
    assert "c 10:229 rm" in v1_lines(rules)[1]


def test_v1_refuses_a_hole_in_a_wildcard_and_v2_makes_it() -> None:
    wide: dict[str, Any] = {"allow": True, "type": "c", "major": 10, "access": "rw"}
    rules = compile_rules([DENY_ALL, wide, {**FUSE, "allow": False}])
    with pytest.raises(RtError, match=r"cannot except 'c 10:229 rwm' from 'c 10:\* rw'"):
        v1_lines(rules)
    assert run(program(rules), "c", 10, 1, READ)
    assert not run(program(rules), "c", 10, 229, READ)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ({"allow": 1}, "linux.resources.devices[0].allow"),
        ({"type": "p"}, "linux.resources.devices[0].type"),
        ({"access": "rx"}, "linux.resources.devices[0].access"),
        ({"major": "1"}, "linux.resources.devices[0].major"),
        ({"minor": -2}, "linux.resources.devices[0].minor"),
        ({"minor": True}, "linux.resources.devices[0].minor"),
    ],
)
def test_wrong_rules_name_their_path(rule: dict[str, Any], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        compile_rules([rule])
    assert caught.value.path == path
