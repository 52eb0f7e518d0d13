"""What is in a container comes back with it: files, memory, processes, threads, connections, terminals."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.criu import Saver, unmount
from lab.terminal import Master, Session
from lab.waiting import until

BOX = f"content{os.getpid()}"

# Says again and again, in /srv/said, what it still has of what it began with.
HOLDER = """
import fcntl, json, os, secrets, socket, threading, time
token = secrets.token_hex(8)
with open("/tmp/kept", "w") as file:
    file.write(token)
gone = open("/tmp/gone", "w+")
gone.write(token); gone.flush(); os.unlink("/tmp/gone")
growing = open("/srv/growing", "a")
server = socket.create_server(("127.0.0.1", 7000))
near = socket.create_connection(("127.0.0.1", 7000))
far, _ = server.accept()
counts = [0, 0, 0]
def count(index):
    while True:
        counts[index] += 1
        time.sleep(0.01)
for index in range(3):
    threading.Thread(target=count, args=[index], daemon=True).start()
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    while True:
        os.write(writer, token.encode() + b"\\n"); time.sleep(0.01)
os.close(writer)
os.environ["SECRET"] = token
os.chdir("/tmp")
pipe = os.fdopen(reader)
for turn in range(100000):
    far.sendall(token.encode())
    gone.seek(0)
    growing.write(f"{turn}\\n"); growing.flush()
    said = {
        "turn": turn, "token": token, "kept": open("kept").read(), "gone": gone.read(),
        "tcp": near.recv(16).decode(), "pipe": pipe.readline().strip(), "pid": os.getpid(),
        "threads": threading.active_count(), "counts": list(counts), "cwd": os.getcwd(),
        "hostname": socket.gethostname(),
    }
    with open("/srv/said.new", "w") as file:
        json.dump(said, file)
    os.rename("/srv/said.new", "/srv/said")
    time.sleep(0.02)
"""


def said(data: Path, beyond: int = -1) -> dict[str, Any]:
    """What the program says, once it has come beyond that turn."""

    def found() -> dict[str, Any]:
        text = (data / "said").read_text() if (data / "said").exists() else '{"turn": -1}'
        return dict(json.loads(text))

    until(lambda: found()["turn"] > beyond, f"it comes beyond turn {beyond}")
    return found()


@pytest.fixture
def data(place: Path) -> Path:
    path = place / "data"
    path.mkdir()
    return path


@pytest.fixture
def box(root_bundle: MakeBundle, toolbox: Path, data: Path) -> Bundle:
    """A Debian that runs Python, read-only, with a tmpfs and a directory of the host."""
    made = root_bundle(["/usr/bin/python3", "-c", HOLDER])
    made.config["root"] = {"path": str(toolbox), "readonly": True}
    made.config["hostname"] = "saved"
    made.config["mounts"] += [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]},
        {"destination": "/srv", "type": "bind", "source": str(data), "options": ["rbind", "rw"]},
    ]
    made.write()
    return made


@pytest.mark.covers("checkpoint --tcp-established", "restore --tcp-established")
def test_all_that_a_program_has_comes_back(root_rt: Saver, box: Bundle, data: Path, images: Path) -> None:
    root_rt.start(BOX, box.path)
    before = said(data, 3)
    root_rt.save(BOX, images, "--tcp-established")
    before = said(data)
    root_rt.bring_back(BOX, images, box.path, "--tcp-established")
    after = said(data, before["turn"] + 3)
    for name in ("token", "pid", "threads", "cwd", "hostname"):
        assert after[name] == before[name]
    for name in ("kept", "gone", "tcp", "pipe"):
        assert after[name] == before["token"], name
    assert all(new > old for new, old in zip(after["counts"], before["counts"], strict=True))
    turns = (data / "growing").read_text().split()
    assert turns == [str(number) for number in range(len(turns))]


def test_connections_are_refused_with_the_option_that_takes_them_along(
    root_rt: Saver, box: Bundle, data: Path, images: Path
) -> None:
    root_rt.start(BOX, box.path)
    turn = said(data, 3)["turn"]
    done = root_rt("checkpoint", "--image-path", str(images), BOX)
    assert done.returncode == 1
    line, hint = done.stderr.splitlines()
    assert "Connected TCP socket" in line and "hint: give --tcp-established" in hint
    said(data, turn + 3)  # it goes on
    assert root_rt.state(BOX)["status"] == "running"
    assert (
        root_rt("restore", "--image-path", str(images), "-b", str(box.path), "-d", f"{BOX}b").returncode == 1
    )
    assert root_rt.ok("list", "-q").split() == [BOX]


def on_terminal(box: Bundle, script: str = "exec sh") -> Bundle:
    box.config["process"] |= {"terminal": True, "env": ["PATH=/bin", "PS1=> "]}
    return box.run(script)


def restoring(images: Path, box: Bundle, *options: str) -> list[str]:
    return ["restore", "--image-path", str(images), "--bundle", str(box.path), *options, BOX]


def test_a_shell_on_a_terminal_goes_on_at_another_terminal(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    box = on_terminal(root_bundle())
    with Session(root_rt, "run", "--bundle", str(box.path), BOX) as first:
        first.expect("> ")
        first.type("kept=$((6 * 7))\r")
        first.expect("> ")
        root_rt.save(BOX, images)
        assert first.wait() == 128 + 9
        assert first.mode() == first.before
    with Session(root_rt, *restoring(images, box), rows=31, columns=91) as second:
        second.type("echo [$kept]; stty size\r")
        second.expect("[42]\r\n31 91\r\n> ")
        second.type("exit 9\r")
        assert second.wait() == 9
        assert second.mode() == second.before


@pytest.mark.covers("restore --console-socket", "restore --no-pivot")
def test_the_terminal_of_a_detached_one_is_sent(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, place: Path
) -> None:
    box = on_terminal(root_bundle())
    with socket.socket(socket.AF_UNIX) as listener:
        path = str(place / "console")
        listener.bind(path)
        listener.listen()

        def received(*words: str) -> Master:
            root_rt.quiet(*words[:-1], "--console-socket", path, words[-1])
            with listener.accept()[0] as connection:
                return Master(socket.recv_fds(connection, 100, 1)[1][0])

        first = received("run", "--detach", "--bundle", str(box.path), BOX)
        first.expect("> ")
        first.type("kept=42\r")
        first.expect("> ")
        root_rt.save(BOX, images)
        os.close(first.fd)
        second = received(*restoring(images, box, "--detach", "--no-pivot"))
        second.type("echo [$kept]\r")
        second.expect("[42]\r\n> ")
        os.close(second.fd)


@pytest.mark.covers("checkpoint --shell-job", "restore --shell-job")
def test_a_program_on_the_host_s_terminal_takes_the_next_one(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    box = root_bundle("kept=42; echo up; read word; echo [$kept $word]")
    with Session(root_rt, "run", "--bundle", str(box.path), BOX) as first:
        first.expect("up")
        done = root_rt("checkpoint", "--image-path", str(images), BOX)
        assert "--shell-job" in done.stderr
        root_rt.save(BOX, images, "--shell-job")
        assert first.wait() == 128 + 9
    with Session(root_rt, *restoring(images, box, "--shell-job")) as second:
        second.type("word\r")
        second.expect("[42 word]")
        assert second.wait() == 0


def test_a_mount_behind_a_link_of_the_image_and_one_in_another_mount_come_back(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, place: Path
) -> None:
    outer, inner = place / "outer", place / "inner"
    for path in (outer, inner):
        path.mkdir()
        (path / "name").write_text(path.name)
    script = "while :; do cat /link/name /link/in/name > /out.new && mv /out.new /out; sleep 0.05; done"
    box = root_bundle(script)
    (box.rootfs / "place").mkdir()
    (box.rootfs / "link").symlink_to("place")
    box.config["mounts"] += [
        {"destination": "/link", "type": "bind", "source": str(outer), "options": ["bind"]},
        {"destination": "/link/in", "type": "bind", "source": str(inner), "options": ["bind"]},
    ]
    box.write()
    root_rt.start(BOX, box.path)
    root_rt.save(BOX, images)
    (inner / "name").write_text("changed")
    (box.rootfs / "out").unlink(missing_ok=True)
    root_rt.bring_back(BOX, images, box.path)
    # What it had read before it was saved may still be written first.
    out = box.rootfs / "out"
    until(lambda: out.exists() and out.read_text() == "outerchanged", "the new name is read")


@pytest.mark.parametrize("kind", ["network", "ipc", "uts"])
def test_a_joined_namespace_is_joined_again(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, kind: str
) -> None:
    flag, file = {"network": ("-n", "net"), "ipc": ("-i", "ipc"), "uts": ("-u", "uts")}[kind]
    with subprocess.Popen(
        ["unshare", flag, "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.read(1) == b"\n"
        path = f"/proc/{holder.pid}/ns/{file}"
        box = root_bundle("while :; do sleep 0.05; done")
        for item in box.config["linux"]["namespaces"]:
            if item["type"] == kind:
                item["path"] = path
        if kind == "uts":
            del box.config["hostname"]
        box.write()
        root_rt.start(BOX, box.path)
        root_rt.save(BOX, images)
        pid = root_rt.bring_back(BOX, images, box.path)
        assert os.readlink(f"/proc/{pid}/ns/{file}") == os.readlink(path)
        holder.kill()


def test_without_namespaces_of_its_own_it_is_restored_among_the_host_s(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    box = root_bundle("while :; do sleep 0.05; done")
    box.config["linux"]["namespaces"] = [{"type": "mount"}]
    del box.config["hostname"]
    box.config["mounts"] = [mount for mount in box.config["mounts"] if mount["type"] != "mqueue"]
    box.config["linux"].pop("sysctl", None)
    box.write()
    pid = root_rt.start(BOX, box.path)
    root_rt.save(BOX, images, "--leave-running")
    done = root_rt("restore", "-d", "--image-path", str(images), "-b", str(box.path), f"{BOX}b")
    assert done.returncode == 1 and f"Can't fork for {pid}: File exists" in done.stderr
    assert "hint: that process id is taken" in done.stderr
    root_rt.save(BOX, images)
    assert root_rt.bring_back(BOX, images, box.path) == pid, "the process id is the host's"
    for file in ("pid", "net", "uts", "ipc"):
        assert os.readlink(f"/proc/{pid}/ns/{file}") == os.readlink(f"/proc/self/ns/{file}")


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """The directory mounted read-only at its own place."""
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        yield
    finally:
        unmount(path)


def test_a_container_with_a_user_namespace_comes_back_with_its_ids(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, place: Path
) -> None:
    box = root_bundle("while :; do id -u > /tmp/id.new; mv /tmp/id.new /tmp/id; sleep 0.05; done")
    box.config["linux"]["namespaces"].append({"type": "user"})
    line = {"containerID": 0, "hostID": 100000, "size": 65536}
    box.config["linux"].update(uidMappings=[line], gidMappings=[line])
    box.write()
    for path in [box.rootfs, *box.rootfs.rglob("*")]:
        os.chown(path, 100000, 100000, follow_symlinks=False)
    root_rt.start(BOX, box.path)
    root_rt.save(BOX, images)
    with read_only(images):
        words = ["--image-path", str(images), "--work-path", str(place / "work"), "-b", str(box.path)]
        done = root_rt("restore", "-d", *words, BOX)
        assert done.returncode == 1 and "the container's own root has to read it" in done.stderr
        assert "hint: " in done.stderr and root_rt.ok("list", "-q") == ""
    pid = root_rt.bring_back(BOX, images, box.path)
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Uid:\t100000\t100000" in status
    assert root_rt.ok("exec", BOX, "id", "-u") == "0\n"
