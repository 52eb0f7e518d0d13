"""`rt exec` as root, into containers without a user namespace."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import held, read
from lab.leftovers import Ground
from lab.runtime import Runtime
from lab.terminal import Session
from lab.users import User
from lab.waiting import PATIENCE, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="these containers are root's")

# Cgroups of root's containers are named after them: others may work on this machine.
NAME = f"exec-{os.getpid()}"
NAMESPACES = ("user", "pid", "mnt", "uts", "ipc", "cgroup", "net")
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@pytest.fixture
def c(root_rt: Runtime, root_bundle: MakeBundle) -> int:
    """The container `c`; the pid of its first process."""
    return held(root_rt, root_bundle(), NAME)


def sh(rt: Runtime, script: str, *options: str) -> str:
    return rt.ok("exec", *options, NAME, "sh", "-c", script).strip()


def fields(text: str, *names: str) -> dict[str, str]:
    """Some lines of proc_pid_status(5)."""
    table = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: table[name].strip() for name in names}


def sleeping(rt: Runtime, *options: str) -> int:
    """A detached program in `c`; its pid."""
    file = rt.root.parent / "pid"
    rt.ok("exec", "-d", "--pid-file", str(file), *options, NAME, "sleep", "876")
    return int(file.read_text())


@pytest.mark.covers("exec")
def test_exit_codes_are_the_program_s(root_rt: Runtime, c: int) -> None:
    assert root_rt("exec", NAME, "sh", "-c", "exit 7").returncode == 7
    assert root_rt("exec", NAME, "sh", "-c", "kill -TERM $$").returncode == 143
    done = root_rt("exec", NAME, "nothing-such")
    assert done.returncode == 255 and "executable file not found in $PATH" in done.stderr


def test_all_namespaces_are_the_container_s(root_rt: Runtime, c: int) -> None:
    listed = " ".join(f"/proc/self/ns/{name}" for name in NAMESPACES)
    said = sh(root_rt, f"for file in {listed}; do readlink $file; done").split()
    assert said == [os.readlink(f"/proc/{c}/ns/{name}") for name in NAMESPACES]
    assert os.readlink(f"/proc/{c}/ns/user") == os.readlink("/proc/self/ns/user")


@pytest.mark.covers("exec --user", "exec --additional-gids")
def test_any_user_and_groups_can_be_chosen(root_rt: Runtime, c: int) -> None:
    said = sh(root_rt, "id -u; id -g; id -G", "-u", "70000:70001", "-g", "70002")
    assert said.splitlines() == ["70000", "70001", "70001 70002"]
    assert sh(root_rt, "id -G") == "0"


def test_every_cgroup_is_the_container_s(root_rt: Runtime, c: int) -> None:
    pid = sleeping(root_rt)
    assert read(pid, "cgroup") == read(c, "cgroup")
    if read(c, "cgroup") == read(os.getpid(), "cgroup"):
        pytest.skip("no cgroup can be made here")
    for line in read(pid, "cgroup").splitlines():
        number, _, path = line.split(":", 2)
        if number != "0":
            assert path.endswith(f"/{NAME}"), line


def test_the_devices_of_the_container_s_cgroup_are_all_there_are(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    def change(config: dict[str, object]) -> None:
        sets = {name: ["CAP_MKNOD"] for name in ("bounding", "effective", "permitted")}
        config["process"]["capabilities"] = sets  # type: ignore[index]

    pid = held(root_rt, root_bundle().change(change), NAME)
    if ":devices:/" not in read(pid, "cgroup") or ":devices:/\n" in read(pid, "cgroup"):
        pytest.skip("the container has no cgroup v1 for devices here")
    done = root_rt("exec", NAME, "sh", "-c", "mknod /tmp/mem c 1 1; cat /tmp/mem | head -c 1")
    assert "Operation not permitted" in done.stderr


@pytest.mark.covers("process.capabilities")
def test_capabilities_are_those_of_the_config(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    def change(config: dict[str, object]) -> None:
        config["process"]["capabilities"] = {  # type: ignore[index]
            "bounding": ["CAP_KILL", "CAP_CHOWN"],
            "permitted": ["CAP_KILL", "CAP_CHOWN"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_CHOWN"],
            "ambient": ["CAP_CHOWN"],
        }

    pid = held(root_rt, root_bundle().change(change), NAME)
    # Of the first process and of this one: execve(2) treats both alike.
    other = read(sleeping(root_rt), "status")
    assert fields(other, *SETS) == fields(read(pid, "status"), *SETS)
    assert fields(other, "CapBnd", "CapInh") == {"CapBnd": f"{0x21:016x}", "CapInh": f"{0x1:016x}"}


@pytest.mark.covers("exec --cap")
def test_added_capabilities_are_never_inheritable(root_rt: Runtime, c: int) -> None:
    before, after = (read(pid, "status") for pid in (c, sleeping(root_rt, "--cap", "CAP_SYS_CHROOT")))
    assert fields(after, "CapInh", "CapAmb") == fields(before, "CapInh", "CapAmb")
    added = int(fields(after, "CapBnd")["CapBnd"], 16) ^ int(fields(before, "CapBnd")["CapBnd"], 16)
    assert added == 1 << 18


@pytest.mark.covers("exec --tty")
def test_a_terminal_is_the_container_s(root_rt: Runtime, c: int) -> None:
    with Session(root_rt, "exec", "-t", NAME, "sh", "-c", "tty; exit 6") as terminal:
        assert terminal.wait() == 6
        assert terminal.rest().split() == ["/dev/pts/0"]


def test_another_user_cannot_execute_in_it(
    root_rt: Runtime, root_bundle: MakeBundle, alice: User, place: Path
) -> None:
    box: Bundle = root_bundle()
    held(root_rt, box, NAME)
    stranger = Runtime(alice, root_rt.root)
    root_rt.root.chmod(0o755)  # not even where the state can be read
    done = stranger("exec", NAME, "touch", "/made")
    assert (done.returncode, done.stdout) == (255, "") and done.stderr.startswith("rt: "), done
    assert not (box.rootfs / "made").exists()


def test_root_can_execute_in_a_user_s_container(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    pid = held(rt, bundle(), NAME)
    done = subprocess.run(
        rt.argv("exec", NAME, "sh", "-c", "id -u; readlink /proc/self/ns/user"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode == 0:
        assert done.stdout.split() == ["0", os.readlink(f"/proc/{pid}/ns/user")]
    else:
        assert done.returncode == 255 and done.stderr.startswith("rt: "), done


def freeze(pid: int) -> Path:
    """Freeze the cgroup of a process through the v1 freezer; the file to thaw it with."""
    for line in read(pid, "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        file = Path(f"/sys/fs/cgroup/freezer{path}/freezer.state")
        if controllers == "freezer" and path.endswith(f"/{NAME}") and file.exists():
            file.write_text("FROZEN")
            until(lambda file=file: file.read_text() == "FROZEN\n", "all of it has stopped")
            return file
    pytest.skip("needs a container in a cgroup v1 freezer")


@pytest.mark.covers("exec --ignore-paused")
def test_a_paused_container_is_refused_unless_told_otherwise(root_rt: Runtime, c: int) -> None:
    file = freeze(c)
    try:
        done = root_rt("exec", NAME, "id")
        assert done.returncode == 255
        assert f'cannot exec in a paused container (use --ignore-paused to override): "{NAME}"' in done.stderr
        with root_rt.popen("exec", "--ignore-paused", NAME, "echo", "on", stdout=subprocess.PIPE) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            file.write_text("THAWED")
            assert (process.communicate(timeout=PATIENCE)[0], process.returncode) == (b"on\n", 0)
    finally:
        file.write_text("THAWED")


def test_nothing_is_left_behind(root_rt: Runtime, c: int) -> None:
    names = {path.name for path in (root_rt.root / NAME).iterdir()}
    ground = Ground(root_rt, "nothing-of-this-name")
    root_rt.ok("exec", NAME, "true")
    root_rt("exec", NAME, "nothing-such")
    assert {path.name for path in (root_rt.root / NAME).iterdir()} == names
    ground.clean()
