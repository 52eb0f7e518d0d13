"""Podman on each kind of storage: what differs for a runtime is how the rootfs is mounted."""

from __future__ import annotations

from lab.engines import case
from lab.podman import IMAGE, Podman


@case
def test_run_and_exit_status(stored_podman: Podman) -> None:
    assert stored_podman.run("cat", "/proc/self/comm") == "cat"
    assert stored_podman("run", "--rm", IMAGE, "sh", "-c", "exit 3").code == 3
    assert stored_podman("run", "--rm", IMAGE, "nope").code == 127


@case
def test_files_written_stay_until_removed(stored_podman: Podman) -> None:
    name = stored_podman.start("sh", "-c", "echo kept >> /kept; chown 5:6 /kept; touch /done; sleep 100")
    waits = "until [ -e /done ]; do sleep 0.1; done; rm /done; "
    stored_podman.ok("exec", name, "sh", "-c", waits)
    stored_podman.ok("stop", "-t", "0", name)
    stored_podman.ok("start", name)
    shown = stored_podman.ok("exec", name, "sh", "-c", waits + "cat /kept; stat -c %u:%g /kept")
    assert shown == "kept\nkept\n5:6"
    stored_podman.ok("rm", "-f", "-t", "0", name)


@case
def test_read_only_volumes_and_own_ids(stored_podman: Podman) -> None:
    volume = stored_podman.name()
    options = ("--read-only", "-v", f"{volume}:/data", "--uidmap=0:1000:500", "--gidmap=0:1000:500")
    assert stored_podman.run(*options, "--", "sh", "-c", "touch /x; touch /data/x && ls /data") == "x"
    stored_podman.ok("volume", "rm", volume)
