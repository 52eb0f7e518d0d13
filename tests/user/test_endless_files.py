"""Files that have no end, where a file of a container is asked for."""

from __future__ import annotations

import pytest
from conftest import MakeBundle
from lab.runtime import Runtime


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/urandom"])
def test_a_file_without_an_end_is_refused(rt: Runtime, bundle: MakeBundle, path: str) -> None:
    rt.ok("run", "--detach", "--bundle", str(bundle(["/bin/sleep", "1000"]).path), "c")
    for words in (
        ["exec", "--process", path, "c"],
        ["run", "--config", path, "d"],
        ["spec", "--from", path, "-f", "new"],
    ):
        done = rt(*words, cwd=str(bundle().path), timeout=20)
        assert done.returncode != 0 and "is larger than 16 MiB" in done.stderr, (words, done.stderr)
