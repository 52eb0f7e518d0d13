"""Names of units and slices, and where systemd keeps them; the sockets of its buses."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rootless_rt.cgroups import bus
from rootless_rt.cgroups.systemd import Systemd, is_unit, place, slice_path
from rootless_rt.errors import RtError


@pytest.mark.parametrize(
    ("kind", "path", "expected"),
    [
        (bus.SYSTEM, None, ("system.slice", "rt-box.scope")),
        (bus.USER, None, ("user.slice", "rt-box.scope")),
        (bus.SYSTEM, "machine.slice:podman:abc", ("machine.slice", "podman-abc.scope")),
        (bus.SYSTEM, ":podman:abc", ("system.slice", "podman-abc.scope")),
        (bus.SYSTEM, "a-b.slice::abc", ("a-b.slice", "abc.scope")),
        (bus.SYSTEM, "-.slice:p:n", ("-.slice", "p-n.scope")),
    ],
)
def test_slice_prefix_and_name(kind: str, path: str | None, expected: tuple[str, str]) -> None:
    assert place(kind, path, "box") == expected


def test_a_name_is_written_as_systemd_escapes_it() -> None:
    assert place(bus.SYSTEM, "a.slice:p:x y+é", "box")[1] == "p-x\\x20y\\x2b\\xc3\\xa9.scope"


@pytest.mark.parametrize(
    "path",
    ["/a/b", "a", "a:b", "a:b:c:d", "noslice:p:n", "../x.slice:p:n", "a--b.slice:p:n", "-a.slice:p:n",
     "a/b.slice:p:n", ".slice:p:n", "a.slice:p/q:n", "a.slice:p:" + "n" * 300],
)  # fmt: skip
def test_what_is_no_unit_is_refused(path: str) -> None:
    with pytest.raises(RtError) as caught:
        place(bus.SYSTEM, path, "box")
    assert "linux.cgroupsPath" in caught.value.message
    assert "SLICE:PREFIX:NAME" in caught.value.message + str(caught.value.hint)


def test_a_slice_lies_in_its_parents() -> None:
    assert slice_path("a.slice") == "a.slice"
    assert slice_path("a-b-c.slice") == "a.slice/a-b.slice/a-b-c.slice"
    assert slice_path("-.slice") == ""


@pytest.mark.parametrize("name", ["a/b.scope", "..scope/", ".scope", "a.scope\n", "a b.scope", "a.slice"])
def test_no_path_can_be_made_of_a_unit_s_name(name: str) -> None:
    assert not is_unit(name, ".scope")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"bus": "x", "unit": "a.scope", "slice": "s.slice", "inner": {"kind": "v2", "path": "/x"}},
        {"bus": "user", "unit": "../a.scope", "slice": "s.slice", "inner": {"kind": "v2", "path": "/x"}},
        {"bus": "user", "unit": "a.service", "slice": "s.slice", "inner": {"kind": "v2", "path": "/x"}},
        {"bus": "user", "unit": "a.scope", "slice": "s.slice", "inner": {"kind": "systemd"}},
        {"bus": "user", "unit": "a.scope", "slice": "s.slice", "inner": None},
    ],
)
def test_a_record_of_no_scope_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(RtError):
        Systemd.from_state(state)


def test_the_bus_is_looked_for_where_it_may_be(tmp_path: Path) -> None:
    one, two = tmp_path / "one" / "bus", tmp_path / "with space"
    one.parent.mkdir()
    for path in (one, two):
        socket.socket(socket.AF_UNIX).bind(str(path))
    assert bus.find(bus.USER, {"XDG_RUNTIME_DIR": str(one.parent)}) == str(one)
    address = "unix:path=" + str(two).replace(" ", "%20") + ",guid=0"
    found = bus.find(bus.USER, {"DBUS_SESSION_BUS_ADDRESS": address, "XDG_RUNTIME_DIR": str(one.parent)})
    assert found == str(two)
    (tmp_path / "file").touch()
    for wrong in ("tcp:host=x", "unix:abstract=x", f"unix:path={tmp_path}/file", "unix:path=%zz", ""):
        environ = {"DBUS_SESSION_BUS_ADDRESS": wrong, "XDG_RUNTIME_DIR": str(one.parent)}
        assert bus.find(bus.USER, environ) == str(one)


@pytest.mark.skipif(os.geteuid() != 0, reason="root has to make somebody else's socket")
def test_the_bus_of_somebody_else_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "bus"
    socket.socket(socket.AF_UNIX).bind(str(path))
    os.chown(path, 12345, 12345)
    found = bus.find(bus.USER, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found != str(path)


def test_what_does_not_speak_d_bus_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bus"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    import threading

    def answer() -> None:
        far, _ = listener.accept()
        far.recv(100)
        far.sendall(b"HTTP/1.1 400\r\n")
        far.close()

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(RtError, match="does not let us in: HTTP"):
        bus.Bus(bus.USER, str(path))
    thread.join()
