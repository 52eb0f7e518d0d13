"""Programs of a few bytes (elf(5)): some that no kernel can start, and one of 32 bits."""

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


def i386_chown(path: str, uid: int) -> bytes:
    """For i386: chown32(path, uid, uid) and exit with its errno."""
    base, head = 0x08048000, 52 + 32
    chown = struct.pack("<BIBIBIBI", 0xB8, 212, 0xBB, base + head + 35, 0xB9, uid, 0xBA, uid) + b"\xcd\x80"
    leave = b"\x89\xc3\xf7\xdb" + struct.pack("<BI", 0xB8, 1) + b"\xcd\x80\x90\x90"  # mov ebx, eax; neg ebx
    body = chown + leave + path.encode() + b"\0"
    size = head + len(body)
    ident = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + head, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    return header + struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 5, 0x1000) + body


def foreign() -> bytes:
    """For an IBM mainframe."""
    return _header(">", 2, 22) + bytes(56)
