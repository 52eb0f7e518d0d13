"""CVE-2026-30892: a user number that is read wrongly makes the process root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.runtime import Runtime

WRONG = [
    ":", "0:", ":0", "0:0:0", " 0", "0 ", "+0", "-1", "-0", "1_0", "0x0", "0b1", "1e3", "1.0", "0\n", "٣",
    "²", "4294967295", "4294967296", "18446744073709551616", "65536x", "root", "user", "0,0", "0:-1", "0:+0",
    "0:root", "0:4294967295", "0: 0", "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("word", WRONG)
def test_what_is_not_plainly_a_number_is_refused(rt: Runtime, bundle: MakeBundle, word: str) -> None:
    rt.ok("run", "--detach", "--bundle", str(bundle(["/bin/sleep", "100"]).path), "c")
    done = rt("exec", f"--user={word}", "c", "/bin/id")
    assert done.returncode == 255 and done.stdout == "" and "Traceback" not in done.stderr, done
    assert len(done.stderr) < 500
    done = rt("exec", f"--additional-gids={word.partition(':')[2] or word}", "c", "/bin/id")
    if word not in (":0", "0:"):
        assert done.returncode == 255 and done.stdout == "" and "Traceback" not in done.stderr, done


@pytest.mark.parametrize("number", ["1", "65536", "65535", "4294967294", "131072"])
def test_a_number_without_a_mapping_is_never_another(rt: Runtime, bundle: MakeBundle, number: str) -> None:
    rt.ok("run", "--detach", "--bundle", str(bundle(["/bin/sleep", "100"]).path), "c")
    done = rt("exec", "--user", number, "c", "/bin/id", "-u")
    assert done.returncode == 255 and done.stdout == "" and "mapped" in done.stderr, done


@pytest.mark.parametrize("number", ["0", "1", "65535", "65536", "131072", "4294967294", "00", "01000"])
def test_as_root_each_number_is_itself(root_rt: Runtime, root_bundle: MakeBundle, number: str) -> None:
    root_rt.ok("run", "--detach", "--bundle", str(root_bundle(["/bin/sleep", "100"]).path), "c")
    done = root_rt(
        "exec",
        "--user",
        f"{number}:{number}",
        "c",
        "/bin/grep",
        "-E",
        "^(Uid|Gid|Groups):",
        "/proc/self/status",
    )
    if done.returncode == 255:
        assert number.startswith("0") and len(number) > 1, done
        return
    assert set(done.stdout.replace("Uid:", "").replace("Gid:", "").replace("Groups:", "").split()) == {
        str(int(number))
    }


@pytest.mark.parametrize(
    "user",
    [
        {"uid": -1},
        {"uid": "0"},
        {"uid": 1.0},
        {"uid": True},
        {"uid": 4294967295},
        {"uid": 2**64},
        {"gid": -1},
        {"additionalGids": [-1]},
    ],
)
def test_a_process_file_is_read_as_strictly(
    rt: Runtime, bundle: MakeBundle, place: Path, user: object
) -> None:
    rt.ok("run", "--detach", "--bundle", str(bundle(["/bin/sleep", "100"]).path), "c")
    file = place / "process.json"
    file.write_text(json.dumps({"args": ["/bin/id"], "cwd": "/", "user": user}))
    done = rt("exec", "--process", str(file), "c")
    assert done.returncode == 255 and done.stdout == "" and "Traceback" not in done.stderr, done
