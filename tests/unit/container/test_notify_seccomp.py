"""Agents for seccomp listeners that do not do their part."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rootless_rt.container import notify_seccomp
from rootless_rt.container.notify_seccomp import Agent, check_socket
from rootless_rt.errors import RtError, SpecError

Connect = Callable[..., Agent]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "agent.sock"))
        made.listen(1)
        yield made


@pytest.fixture
def connect(tmp_path: Path) -> Connect:
    def made(**profile: Any) -> Agent:
        profile.setdefault("listenerPath", str(tmp_path / "agent.sock"))
        config = {"ociVersion": "1.2.0", "linux": {"seccomp": profile}}
        return Agent(config, "/bundle", "box", status="created", container_pid=7, pid=7)

    return made


@pytest.fixture
def fd() -> int:
    """Stands for a listener; hand_over closes it."""
    return os.open("/dev/null", os.O_RDONLY)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_an_agent_that_does_not_receive_is_given_up(
    listener: socket.socket, connect: Connect, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_seccomp, "_PATIENCE", 0.05)
    agent = connect(listenerMetadata="x" * (4 << 20))
    with pytest.raises(RtError, match="did not take the listener: it does not receive"):
        agent.hand_over(fd)
    assert not is_open(fd)


def test_an_agent_that_hangs_up_is_an_error(listener: socket.socket, connect: Connect, fd: int) -> None:
    agent = connect()
    listener.accept()[0].close()
    with pytest.raises(RtError, match="did not take the listener: broken pipe"):
        agent.hand_over(fd)
    assert not is_open(fd)


def test_the_connection_ends_with_the_one_state(listener: socket.socket, connect: Connect, fd: int) -> None:
    agent = connect(listenerMetadata="lone \udc80")
    taken, _ = listener.accept()
    agent.hand_over(fd)
    assert not is_open(fd)
    data, fds, _, _ = socket.recv_fds(taken, 1 << 16, 4)
    assert taken.recv(1) == b"" and len(fds) == 1
    assert data.decode().startswith('{"ociVersion":"1.2.0","fds":["seccompFd"],"pid":7,"metadata":"lone ')
    os.close(fds[0])
    taken.close()


def test_an_address_longer_than_the_kernel_takes_is_reached(tmp_path: Path, connect: Connect) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    place = os.open(folder, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{place}/s")
        made.listen(1)
        connect(listenerPath=str(folder / "s")).close()
    os.close(place)


def test_a_datagram_socket_is_no_agent_s(tmp_path: Path, connect: Connect) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "agent.sock"))
        check_socket(str(tmp_path / "agent.sock"))
        with pytest.raises(RtError, match=r"linux\.seccomp\.listenerPath .*: protocol wrong type for socket"):
            connect()


@pytest.mark.parametrize("path", ["/nonexistent/socket", "/dev/null", "/", "/\udc80", "/" + "x" * 300])
def test_what_is_no_socket_is_refused_with_its_field(path: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_socket(path)
    assert caught.value.path == "linux.seccomp.listenerPath"
