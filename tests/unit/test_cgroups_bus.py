"""The bus as an enemy: others on it send signals that are not systemd's, and it may say anything at all."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rootless_rt.cgroups import bus, systemd
from rootless_rt.errors import RtError

low = pytest.importorskip("jeepney.low_level", reason="needs jeepney")
SYSTEMD, STRANGER = ":1.3", ":1.99"
Answer = Callable[[Any], list[bytes]]


def message(kind: Any, sender: str, signature: str, body: tuple[Any, ...], **fields: Any) -> bytes:
    """The bytes of a message as a bus would pass it on."""
    listed = {low.HeaderFields.sender: sender, **{low.HeaderFields[name]: fields[name] for name in fields}}
    if signature:
        listed[low.HeaderFields.signature] = signature
    header = low.Header(low.Endianness.little, kind, 0, 1, -1, 1, listed)
    made: bytes = low.Message(header, body).serialise()
    return made


def reply(call: Any, signature: str = "", *body: Any) -> bytes:
    kind = low.MessageType.method_return
    return message(kind, "org.freedesktop.DBus", signature, body, reply_serial=call.header.serial)


def job_removed(sender: str, job: str, result: str = "done", signature: str = "uoss") -> bytes:
    body: tuple[Any, ...] = (7, job, "rt-c.scope", result)[: len(signature)]
    kind = low.MessageType.signal
    fields = {"path": "/org/freedesktop/systemd1", "interface": bus.MANAGER, "member": "JobRemoved"}
    return message(kind, sender, signature, body, **fields)


def usual(call: Any) -> list[bytes]:
    member = call.header.fields[low.HeaderFields.member]
    if member == "Hello":
        return [reply(call, "s", ":1.50")]
    if member == "GetNameOwner":
        return [reply(call, "s", SYSTEMD)]
    return [reply(call)]


@contextmanager
def served(place: Path, answer: Answer) -> Iterator[str]:
    """The socket of a bus with one client, every call of which is answered so."""
    path = place / "bus"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        far, _ = listener.accept()
        parser = low.Parser()
        with far:
            far.recv(1000)
            far.sendall(b"OK 0123\r\n")
            left = far.recv(1000).removeprefix(b"BEGIN\r\n")
            try:
                while True:
                    for call in parser.feed(left):
                        for part in answer(call):
                            far.sendall(part)
                    left = far.recv(4096)
                    if not left:
                        return
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield str(path)
    finally:
        listener.close()
        thread.join(10)


def test_the_signal_of_another_client_is_not_taken_for_systemd_s(tmp_path: Path) -> None:
    """The system's bus lets every local user send a signal to root's rt: it would go on too early, and take
    the cgroup it is in itself for the container's."""

    def answer(call: Any) -> list[bytes]:
        forged = [job_removed(STRANGER, "/job/1"), job_removed("", "/job/1"), job_removed(SYSTEMD, "/job/2")]
        forged += [job_removed(SYSTEMD, "/job/1", signature="uo"), job_removed(SYSTEMD, "/job/1", "failed")]
        if call.header.fields[low.HeaderFields.member] == "Subscribe":
            return [*forged[:4], *usual(call), *forged]
        return usual(call)

    with served(tmp_path, answer) as path:
        connection = bus.Bus(bus.USER, path)
        connection.watch("JobRemoved")
        found = connection.wait("JobRemoved", "uoss", lambda body: body[1] == "/job/1")
        connection.close()
    assert found == (7, "/job/1", "rt-c.scope", "failed")


def test_a_process_that_is_not_in_the_unit_gets_no_driver(tmp_path: Path) -> None:
    import os

    with pytest.raises(RtError, match=r"has not put the container into rt-c\.scope"):
        systemd._inner_of(os.getpid(), "rt-c.scope")


def garbage(seed: int) -> bytes:
    dice = random.Random(seed)
    whole = bytearray(job_removed(SYSTEMD, "/job/1"))
    if seed % 3 == 0:
        return dice.randbytes(200)
    for _ in range(dice.randint(1, 8)):
        whole[dice.randrange(len(whole))] = dice.randrange(256)
    return bytes(whole[: dice.randint(1, len(whole))] if seed % 3 == 1 else whole) + b"\0" * 200


@pytest.mark.parametrize("seed", range(60))
def test_whatever_a_bus_says_is_at_most_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(bus, "_SECONDS", 0.3)

    def answer(call: Any) -> list[bytes]:
        calm = call.header.fields[low.HeaderFields.member] in ("Hello", "AddMatch")
        return usual(call) if calm and seed % 2 else [garbage(seed)]

    with served(tmp_path, answer) as path, pytest.raises((RtError, bus.BusError)) as told:
        connection = bus.Bus(bus.USER, path)
        try:
            connection.watch("JobRemoved")
            connection.property("Version")
            connection.wait("JobRemoved", "uoss", lambda body: body[1] == "/job/1")
        finally:
            connection.close()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("flood", [b"l\x04\x01\x01" + b"\xff" * 12, job_removed(STRANGER, "/job/1")])
def test_a_bus_that_talks_without_end_is_not_listened_to_without_end(tmp_path: Path, flood: bytes) -> None:
    def answer(call: Any) -> list[bytes]:
        return [flood, *([flood * 1000] * 1200)]

    with served(tmp_path, answer) as path, pytest.raises(RtError, match=r"too long|too much|not D-Bus"):
        bus.Bus(bus.USER, path)
