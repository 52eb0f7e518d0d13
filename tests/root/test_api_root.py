"""The API as root: cgroups of sandboxes, their limits, and what is left of them. Programs run as root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.programs import Programs
from lab.runtime import Runtime
from lab.users import own_user
from lab.waiting import until


@pytest.fixture
def root_program(root_rt: Runtime, place: Path) -> Iterator[Programs]:
    yield Programs(own_user(), place, root_rt.root)


def cgroups_of(name: str) -> list[str]:
    """Cgroups with this in their path, in every hierarchy."""
    return [path for path, _, _ in os.walk("/sys/fs/cgroup") if name in path]


def test_each_run_has_a_cgroup_of_its_own_and_none_is_left(
    root_program: Programs, root_bundle: MakeBundle
) -> None:
    said = root_program(
        root_bundle("cat /proc/self/cgroup").path,
        """
        from concurrent.futures import ThreadPoolExecutor
        with Sandbox(bundle) as sandbox, Pool(sandbox, 2) as pool:
            name = sandbox.compiled.name
            if not sandbox.compiled.dirs:
                print("none")
            else:
                with ThreadPoolExecutor(4) as threads:
                    seen = [result.check().text for result in threads.map(lambda _: sandbox.run(), range(8))]
                seen += [pool.run().check().text for _ in range(4)]
                for text in seen:
                    assert name in text or "/" in text
                with sandbox.popen(["sleep", "1000"]) as process:
                    with open(f"/proc/{process.pid}/cgroup") as file:
                        assert name + "/" in file.read()
                print(name)
        """,
    ).strip()
    if said == "none":
        pytest.skip("no cgroup can be made here")
    assert cgroups_of(said) == []


def test_limits_hold_and_running_out_of_memory_is_told(
    root_program: Programs, root_bundle: MakeBundle
) -> None:
    said = root_program(
        root_bundle("true").path,
        """
        with Sandbox(bundle) as sandbox:
            if not sandbox.compiled.dirs:
                print("none")
                sys.exit()
            forks = "i=0; while [ $i -lt 20 ]; do sleep 100 & i=$((i+1)); done"
            few = sandbox.run(["sh", "-c", forks], limits=Limits(pids=5))
            assert any("pids" in item.field for item in few.degradations) or b"fork" in few.stderr, few
            fill = "x=x; while :; do x=$x$x; done"
            result = sandbox.run(["sh", "-c", fill], limits=Limits(memory=30_000_000), timeout=60)
            if any("memory" in item.field for item in result.degradations):
                print("none")
            else:
                assert result.oom_killed and result.signal == 9, result
                assert 20_000_000 < result.peak_memory <= 30_000_000 + 4096, result.peak_memory
                assert result.why() == "ran out of memory"
        """,
        timeout=120,
    )
    if said:
        pytest.skip("no memory controller is at hand")


def test_cgroups_are_removed_when_the_program_is_killed(
    root_program: Programs, root_bundle: MakeBundle
) -> None:
    process = root_program.popen(
        root_bundle("exec sleep 1000").path,
        """
        sandbox = Sandbox(bundle)
        pool = Pool(sandbox, 2)
        pool.fill(30)
        running = [sandbox.popen() for _ in range(3)]
        print(sandbox.compiled.name, len(sandbox.compiled.dirs), flush=True)
        time.sleep(60)
        """,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    name, count = process.stdout.readline().decode().split()
    assert bool(cgroups_of(name)) == (count != "0")
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: not cgroups_of(name), lambda: f"none is left of {cgroups_of(name)}")


def test_named_containers_of_root_are_measured_too(root_program: Programs, root_bundle: MakeBundle) -> None:
    root_program(
        root_bundle("true").path,
        """
        with Runtime(root) as runtime:
            result = runtime.run(bundle, args=["sh", "-c", "head -c 20000000 /dev/zero | tail -c 1 | wc -c"])
            assert result.check().text.strip() == "1" and result.peak_memory > 100_000
            with runtime.create(bundle, args=["sleep", "1000"]) as container:
                container.start()
                try:
                    container.pause()
                except RtError as error:
                    assert "cgroup" in error.message
                else:
                    assert container.status == "paused"
                    container.resume()
                    assert container.status == "running" and container.stats()["pids"]["current"] == 1
                    container.update(Limits(pids=50))
                    assert container.stats()["pids"]["limit"] == 50
                    try:
                        container.update(Limits(open_files=50))
                    except ValueError as error:
                        assert "while it runs" in str(error)
                    else:
                        raise AssertionError
        """,
    )


def test_root_in_no_user_namespace_and_a_hardened_config(
    root_program: Programs, root_bundle: MakeBundle
) -> None:
    root_program(
        root_bundle("id -u").path,
        """
        with Sandbox(bundle) as sandbox:
            assert sandbox.run().check().text == "0\\n"
        os.makedirs(bundle + "/rootfs/var/tmp")
        for name in ("home", "run"):
            os.mkdir(f"{bundle}/rootfs/{name}")
        with Sandbox(hardened_config(bundle + "/rootfs"), limits=Limits(memory=64 << 20)) as sandbox:
            assert sandbox.run(["id", "-u"]).check().text == "1000\\n"
        import tempfile
        with tempfile.TemporaryDirectory() as folder, Sandbox(host_config(folder)) as sandbox:
            os.chmod(folder, 0o755)
            assert sandbox.run(["python3", "-c", "print(7)"], timeout=60).check().text == "7\\n"
        """,
    )


def test_mounts_made_on_the_host_between_runs_are_seen(
    root_program: Programs, root_bundle: MakeBundle
) -> None:
    made = root_bundle("true")
    share = made.path / "share"
    share.mkdir()
    mount = {"destination": "/share", "type": "bind", "source": str(share), "options": ["rbind", "ro"]}
    made.change(lambda config: config["mounts"].append(mount))
    # On a host of its own: what waits for the next run is given up whenever anybody mounts something.
    alone = ["unshare", "--mount", "--propagation", "private"]
    argv = root_program.argv(
        made.path,
        """
        import pathlib, subprocess
        share = bundle + "/share"
        with Sandbox(bundle, cgroup_manager="disabled") as sandbox:
            for _ in range(3):
                assert sandbox.run(["ls", "/share"]).check().text == ""
            subprocess.run(["mount", "-t", "tmpfs", "share", share], check=True)
            try:
                open(share + "/new", "w").close()
                assert sandbox.run(["ls", "/share"]).check().text == "new\\n"
                assert sandbox.run(["ls", "/share"]).check().text == "new\\n"
            finally:
                subprocess.run(["umount", share], check=True)
            assert sandbox.run(["ls", "/share"]).check().text == ""
            print(sandbox._keeper._runs)
            waiting = pathlib.Path(f"/proc/{sandbox._keeper._pid}/task/{sandbox._keeper._pid}/children")
            while not waiting.read_text():
                time.sleep(0.01)
            subprocess.run(["mount", "-t", "tmpfs", "share", share], check=True)
            while waiting.read_text():  # it would hold what is unmounted now
                time.sleep(0.01)
            subprocess.run(["umount", share], check=True)
            assert sandbox.run(["ls", "/share"]).check().text == ""
        """,
    )
    done = root_program.run([*alone, *argv])
    assert (done.returncode, done.stdout, done.stderr) == (0, "6\n", "")
