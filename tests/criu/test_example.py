"""examples/warm_start, with the bundle of a Debian that has Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import MakeBundle
from lab.criu import Saver
from lab.runtime import TREE


def test_jobs_find_their_modules_loaded(
    root_rt: Saver, root_bundle: MakeBundle, toolbox: Path, place: Path
) -> None:
    box = root_bundle(["/usr/bin/python3"])
    box.config["root"] = {"path": str(toolbox), "readonly": True}
    box.write()
    words = [str(box.path), str(place / "images"), "decimal,json,http.server", '{"n": 3}', '{"n": 5}']
    done = subprocess.run(
        [sys.executable, "-P", "-B", str(TREE / "examples/warm_start/warm_start.py"), *words],
        env={**os.environ, "CRIU": str(root_rt.criu), "PYTHONPATH": str(TREE)},
        cwd=place,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["sum"] for answer in answers] == [3, 10]
    assert all(answer["modules"] > 50 for answer in answers)
