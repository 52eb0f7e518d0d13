"""The C programs' readers of bytes under libFuzzer, with ASan and UBSan; their sources under gcc's analyzer.

RT_FUZZ_SECONDS makes the runs longer (each is 20 s at most by default). What a run finds is left as a file
beside its log; put it into tests/fuzz/corpus with the fix.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from fuzz.seeds import CORPUS, HERE, PASSWD, kept_plans, plans, records, write
from lab.tree import TREE

INIT, CLI = TREE / "rootless_rt/init", TREE / "rootless_rt/cli"
SECONDS = os.environ.get("RT_FUZZ_SECONDS", "20")
FLAGS = [
    *("-std=gnu11", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-g", "-O1", f"-I{INIT}", f"-I{CLI}"),
    *("-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
]
WITHOUT_MAIN = sorted(path for path in INIT.glob("*.c") if path.name != "main.c")
TARGETS = {
    "plan_reader": ([INIT / "wire.c"], plans),
    "passwd": (WITHOUT_MAIN, lambda: PASSWD),
    "shortcut_record": ([CLI / "shortcut_record.c"], records),
    "kept_plan": ([CLI / "kept_entry.c", CLI / "shortcut_record.c"], kept_plans),
}
RUNS = 100_000  # a second, at most: the smallest of the readers has seen it all by then
# What the build script defines for the launcher.
DEFINES = [f'-DRT_{name}="x"' for name in ("PYTHON", "VERSION", "RELEASE")]


@pytest.fixture(scope="module")
def clang(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A clang that can build fuzzers."""
    found = shutil.which("clang")
    if not found:
        pytest.skip("needs clang with its sanitizers: apt install clang libclang-rt-dev")
    probe = tmp_path_factory.mktemp("probe")
    (probe / "probe.c").write_text("int LLVMFuzzerTestOneInput(void) { return 0; }\n")
    words = [found, "-fsanitize=fuzzer,address,undefined", "-o", str(probe / "probe"), str(probe / "probe.c")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(
            f"clang cannot build fuzzers (apt install libclang-rt-dev): {done.stderr.splitlines()[-1:]}"
        )
    return found


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_make_a_reader_misbehave(name: str, clang: str, tmp_path: Path) -> None:
    sources, seeds = TARGETS[name]
    program = tmp_path / name
    sanitizers = "-fsanitize=fuzzer,address,undefined"
    subprocess.run([clang, *FLAGS, sanitizers, "-o", program, HERE / f"{name}.c", *sources], check=True)
    corpus = tmp_path / "corpus"
    shutil.copytree(CORPUS / name, corpus)
    write(corpus / "today", seeds())
    limits = [
        f"-max_total_time={SECONDS}",
        f"-runs={RUNS * int(SECONDS)}",
        "-timeout=60",
        "-rss_limit_mb=2048",
        "-max_len=65536",
    ]
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run(
            [program, *limits, f"-artifact_prefix={tmp_path}/found-", corpus, corpus / "today"],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            timeout=int(SECONDS) + 150,
            check=False,
        )
    said = (tmp_path / "log").read_text(errors="replace")
    assert done.returncode == 0, said[-4000:]
    assert "Done " in said, "it ran to its end"


@pytest.mark.parametrize("path", sorted([*INIT.glob("*.c"), *CLI.glob("*.c")]), ids=lambda path: path.name)
def test_the_analyzer_has_nothing_to_say(path: Path) -> None:
    gcc = shutil.which("gcc")
    if not gcc:
        pytest.skip("needs gcc, for -fanalyzer")
    words = [
        gcc,
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-D_FILE_OFFSET_BITS=64",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        *DEFINES,
    ]
    done = subprocess.run(
        [*words, "-fanalyzer", "-c", "-o", os.devnull, path], capture_output=True, text=True, check=False
    )
    if "unrecognized" in done.stderr:
        pytest.skip("this gcc has no -fanalyzer")
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_the_analyzer_is_awake(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if not gcc:
        pytest.skip("needs gcc, for -fanalyzer")
    wrong = tmp_path / "wrong.c"
    wrong.write_text("#include <stdlib.h>\nvoid f(char *p) { free(p); free(p); }\n")
    words = [gcc, "-O2", "-Werror", "-fanalyzer", "-c", "-o", os.devnull, wrong]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "double-free" in done.stderr
