"""The programs of examples/, run by an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lab.runtime import TREE
from lab.users import User

EXAMPLES = TREE / "examples"


class Example:
    """One program of examples/, run by alice in a directory of hers."""

    def __init__(self, user: User, home: Path) -> None:
        self.user = user
        self.home = home

    def write(self, name: str, text: str) -> str:
        """A file of alice's; its path."""
        path = self.home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.user.owns(self.home)
        return str(path)

    def __call__(self, script: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        options: dict[str, Any] = {}
        if os.getuid() != self.user.uid:
            options = {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}
        argv = [sys.executable, "-P", "-B", str(EXAMPLES / script), *words]
        env = {**self.user.environment(), "PYTHONPATH": str(TREE)}
        return subprocess.run(
            argv, env=env, cwd=self.home, input=stdin, text=True, capture_output=True, timeout=200,
            check=False, **options,
        )  # fmt: skip


@pytest.fixture
def example(alice: User, place: Path) -> Example:
    home = place / "home"
    home.mkdir()
    alice.owns(home)
    return Example(alice, home)


SUM_C = """
#include <stdio.h>
int main(void) { long n, s = 0; while (scanf("%ld", &n) == 1) s += n; printf("%ld\\n", s); }
"""
SUBMISSIONS = [
    ("good.py", "import sys\nprint(sum(map(int, sys.stdin.read().split())))", "accepted", 3),
    ("wrong.py", "print(6)", "wrong answer", 1),
    ("broken.py", "print(1 / 0)", "runtime error", 0),
    ("endless.py", "while True: pass", "time limit exceeded", 0),
    ("greedy.py", "print(len('x' * 10**9))", "memory limit exceeded", 0),
    ("loud.py", "while True: print('x' * 1000)", "output limit exceeded", 0),
    ("peek.py", "print(open('/home/work/../work/1.out').read())", "runtime error", 0),
    ("cheat.py", "open('/home/work/main.py', 'w')", "runtime error", 0),
    ("good.c", SUM_C, "accepted", 3),
    ("broken.c", "int main(void) { return *(int *)8; }", "runtime error", 0),
    ("wrong.c", "int main(void) { oops }", "compile error", 0),
    ("reads.c", '#include "/etc/passwd"\n', "compile error", 0),
]


@pytest.mark.parametrize("name, source, verdict, passed", SUBMISSIONS, ids=[one[0] for one in SUBMISSIONS])
def test_the_judge_gives_each_submission_its_verdict(
    example: Example, name: str, source: str, verdict: str, passed: int
) -> None:
    if name.endswith(".c") and not shutil.which("gcc"):
        pytest.skip("needs gcc")
    done = example("judge/judge.py", str(EXAMPLES / "judge/sum"), example.write(name, source))
    assert done.stderr == "" and done.returncode == (0 if verdict == "accepted" else 1)
    told = json.loads(done.stdout)
    assert (told["verdict"], told["passed"], told["of"]) == (verdict, passed, 3), told
    if name == "reads.c":
        assert "No such file" in told["said"]


def test_steps_of_ci_share_a_copy_in_a_clean_root_up_to_the_first_that_fails(
    example: Example, toolbox: Path
) -> None:
    hello = '#include <stdio.h>\nint main(void) { puts("hello"); }\n'
    example.write("project/hello.c", hello)
    example.write("project/Makefile", "hello: hello.c\n\tcc -o $@ $<\ncheck: hello\n\t./hello\n")
    steps = ["make", "make check", "touch /usr/mark || echo read-only", "id -u; exit 3", "echo never"]
    done = example("ci_step/ci.py", str(toolbox), "project", *steps, "--keep", "kept")
    assert done.returncode == 3, (done.stdout, done.stderr)
    lines = done.stdout.splitlines()
    for line in ("cc -o hello hello.c", "hello", "read-only", "1000"):
        assert line in lines
    assert lines[-1].startswith("-- id -u; exit 3: exit status 3, ") and "never" not in done.stdout
    assert os.access(example.home / "kept/hello", os.X_OK) and not (example.home / "project/hello").exists()


def test_a_step_of_ci_that_does_not_end_is_stopped(example: Example, toolbox: Path) -> None:
    example.write("project/file", "")
    for seconds in (1, 5, 30):
        words = [str(toolbox), "project", "ls; sleep 98764", "--timeout", str(seconds)]
        done = example("ci_step/ci.py", *words)
        assert done.returncode == 124, (done.stdout, done.stderr)
        lines = done.stdout.splitlines()
        if "file" in lines:  # on a busy machine it takes its time to begin
            break
    assert lines[1] == "file"
    assert lines[2].startswith(f"-- ls; sleep 98764: stopped after {seconds} s, ")


def test_sessions_of_the_interpreter_keep_their_variables_and_see_no_other(example: Example) -> None:
    requests: list[Any] = [
        {"session": "a", "code": "x = 6 * 7\nopen('/tmp/mine', 'w').close()"},
        {"session": "a", "code": "print(x)\nx + 1"},
        {"session": "b", "code": "import os; os.path.exists('/tmp/mine')"},
        {"session": "b", "code": "x"},
        {"session": "a", "code": "while True: pass", "timeout": 0.5},
        {"session": "b", "code": "import os; os._exit(3)"},
        {"session": "a", "code": "x"},
        [],
        {"session": "a", "code": "import urllib.request as u; u.urlopen('http://192.0.2.1', timeout=9)"},
    ]
    # Unless its time is what matters, each has enough of it, on a busy machine, too.
    patient = [{"timeout": 60, **request} if request else request for request in requests]
    stdin = "".join(json.dumps(request) + "\n" for request in patient)
    done = example("interpreter/interpreter.py", stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told[:3] == [
        {"session": "a", "ok": True, "output": ""},
        {"session": "a", "ok": True, "output": "42\n43\n"},
        {"session": "b", "ok": True, "output": "False\n"},
    ]
    assert not told[3]["ok"] and told[3]["output"].endswith("NameError: name 'x' is not defined\n")
    assert told[4] == {
        "session": "a",
        "ok": False,
        "ended": "the session has ended: it took longer than 0.5 s",
    }
    assert told[5] == {"session": "b", "ok": False, "ended": "the session has ended: exit status 3"}
    assert "NameError" in told[6]["output"]  # a new session of the old name
    assert told[7] == {"ok": False, "error": "not a request: 'list' object has no attribute 'get'"}
    assert "Network is unreachable" in told[8]["output"]
