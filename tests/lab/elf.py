"""Programs that no kernel can start: bare ELF headers (elf(5))."""

from __future__ import annotations

import struct
from pathlib import Path

from lab.bundles import BUSYBOX

LOADER = b"/lib/ld-nosuch.so.1\0"


def _header(order: str, data: int, machine: int) -> bytes:
    ident = b"\x7fELF" + bytes([2, data, 1]) + bytes(9)
    return ident + struct.pack(order + "HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)


def without_loader() -> bytes:
    """For this machine, with a dynamic loader that is nowhere."""
    head = Path(BUSYBOX).read_bytes()[:20]
    order, data = ("<", 1) if head[5] == 1 else (">", 2)
    [machine] = struct.unpack(order + "H", head[18:20])
    entry = struct.pack(order + "IIQQQQQQ", 3, 4, 120, 0, 0, len(LOADER), len(LOADER), 1)
    return _header(order, data, machine) + entry + LOADER


def foreign() -> bytes:
    """For an IBM mainframe."""
    return _header(">", 2, 22) + bytes(56)
