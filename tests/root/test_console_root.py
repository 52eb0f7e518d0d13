"""Terminals of root's containers: whose they are, and that they are the container's own."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import map_ids, set_namespace
from lab.runtime import Runtime
from lab.terminal import Master, Session
from lab.waiting import PATIENCE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="these terminals are root's")


def with_terminal(made: Bundle, script: str) -> Bundle:
    made.config["process"]["terminal"] = True
    return made.run(script)


def shown(rt: Runtime, made: Bundle) -> str:
    with Session(rt, "run", "--bundle", str(made.path), "c") as terminal:
        assert terminal.wait() == 0, terminal.seen
        return terminal.rest()


@pytest.mark.covers("process.terminal")
def test_the_terminal_is_of_the_container_s_devpts(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    said = shown(
        root_rt,
        with_terminal(
            root_bundle(), "tty; readlink /proc/self/fd/0; stat -c '%a %u:%g' /dev/pts/0; ls /dev/pts"
        ),
    )
    assert said.split()[:2] == ["/dev/pts/0", "/dev/pts/0"] or said.split()[0] in (
        "/dev/console",
        "/dev/pts/0",
    )
    assert "620 0:5" in said and sorted(said.split()[-2:]) == ["0", "ptmx"]


def test_the_terminal_belongs_to_the_container_s_user(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = with_terminal(root_bundle(), "stat -c %u /dev/pts/0; echo x > /dev/tty; id -u")
    made.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    made.write()
    assert shown(root_rt, made).split() == ["1000", "x", "1000"]


def test_the_terminal_of_a_user_namespace_works(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = with_terminal(
        root_bundle(), "stat -c %u:%g /dev/pts/0; tty -s && echo terminal; echo x > /dev/console"
    )
    map_ids(set_namespace(made, "user"), (0, 100000, 65536))
    subprocess.run(["chown", "-R", "-h", "100000:100000", str(made.rootfs)], check=True)
    assert shown(root_rt, made).split() == ["0:5", "terminal", "x"]


@pytest.mark.covers("create --console-socket")
def test_the_console_socket_of_a_created_container_gets_the_master(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    made = with_terminal(root_bundle(), "echo ready; read line; echo got $line")
    path = str(place / "console")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        server.settimeout(PATIENCE)
        root_rt.ok("create", "--console-socket", path, "--bundle", str(made.path), "c")
        connection, _ = server.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
    terminal = Master(fds[0])
    try:
        root_rt.ok("start", "c")
        terminal.expect("ready")
        terminal.type("typed\n")
        terminal.expect("got typed")
        root_rt.wait_for("c", "stopped")
    finally:
        os.close(fds[0])


def test_a_ptmx_that_the_image_brings_is_not_used(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = with_terminal(root_bundle(), "true")
    made.config["mounts"] = [
        item for item in made.config["mounts"] if item["destination"] not in ("/dev/pts", "/dev")
    ]
    (made.rootfs / "dev/pts").mkdir()
    (made.rootfs / "dev/pts/ptmx").symlink_to("/dev/null")
    made.write()
    with Session(root_rt, "run", "--bundle", str(made.path), "c") as terminal:
        assert terminal.wait() == 1
        assert "devpts" in terminal.seen.decode() + terminal.rest()
