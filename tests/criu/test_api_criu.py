"""The API: Container.checkpoint and Container.restore."""

from __future__ import annotations

import os
from pathlib import Path

from conftest import MakeBundle
from lab.criu import Saver
from lab.programs import Programs

BOX = f"api{os.getpid()}"


def test_a_container_is_saved_and_restored_with_other_streams(
    root_rt: Saver, root_bundle: MakeBundle, place: Path
) -> None:
    box = root_bundle("n=0; while :; do n=$((n + 1)); echo $n; sleep 0.02; done")
    program = Programs(root_rt.user, place, root_rt.root)
    said = program(
        box.path,
        f"""
        images, criu = "{place}/images", "{root_rt.criu}"
        out, far = os.pipe()
        with Runtime(root) as runtime:
            container = runtime.create(bundle, "{BOX}", stdout=far, stderr=DEVNULL)
            container.start()
            os.close(far)
            lines = open(out)
            assert [next(lines) for _ in range(3)] == ["1\\n", "2\\n", "3\\n"]
            container.checkpoint(images, criu=criu)
            assert container.wait() == -9
            last = int(lines.read().split()[-1])
            lines.close()
            try:
                container.state()
                raise AssertionError("it is gone")
            except ContainerNotFound:
                pass
            out, far = os.pipe()
            quiet = dict(stdout=far, stderr=DEVNULL, criu=criu)
            with Container.restore(runtime, bundle, images, "{BOX}-b", **quiet) as restored:
                os.close(far)
                lines = open(out)
                assert [int(next(lines)) for _ in range(2)] == [last + 1, last + 2]
                assert (restored.status, restored.id) == ("running", "{BOX}-b")
                restored.checkpoint(images + "2", criu=criu, leave_running=True)
                assert restored.status == "running"
                try:
                    restored.checkpoint(images, no_such=True)
                except TypeError as error:
                    print(error)
                lines.close()
                restored.kill("KILL")
                assert restored.wait(60) == -9
            try:
                Container.restore(runtime, bundle, images + "3", "{BOX}", criu=criu)
            except RtError as error:
                print(error)
            assert runtime.containers() == []
        """,
        timeout=200,
    )
    unknown, missing = said.splitlines()
    assert unknown.startswith("no option 'no_such': there are auto_dedup, ")
    assert missing == f"--image-path {place}/images3: no such file or directory"
