"""`rt run` of a kept plan (cli/kept*.c) and through Python: the same in every situation.

What the launcher does by itself is what Python would have done; where it does not, nothing is left behind.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.kept import Kept
from lab.leftovers import Ground
from lab.runtime import RT, Runtime
from lab.shortcuts import LONG, rewrite, told
from lab.waiting import PATIENCE

Config = dict[str, Any]


def filtered(config: Config) -> None:
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }


def emulating(config: Config) -> None:
    config.setdefault("annotations", {})["org.rootless-rt.uid-emulation"] = "noop"


# What the launcher does by itself.

CONFIGS: dict[str, tuple[Callable[[Config], None], str]] = {
    "as spec writes it": (lambda config: None, "echo out; echo err >&2; exit 7"),
    "a seccomp filter": (filtered, "mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status"),
    "emulated ids": (emulating, "chown 5:5 /tmp; echo $?"),
    "limits": (
        lambda config: config["process"].update(
            rlimits=[{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}], oomScoreAdj=500
        ),
        "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj",
    ),
    "annotations": (lambda config: config.update(annotations={"a\n": '"c" 0 \u2028'}), "hostname"),
    "a read-only rootfs": (lambda config: config["root"].update(readonly=True), "touch /x; id"),
    "environment and directory": (
        lambda config: config["process"].update(env=["PATH=/bin", "A=b c"], cwd="/tmp"),
        "env | sort; pwd",
    ),
    "mounts and namespaces": (lambda config: None, "cut -d' ' -f 2-4 /proc/self/mounts; ls /proc/self/ns"),
    "descriptors, masks and signals": (
        lambda config: None,
        "ls /proc/self/fd | wc -l; umask; grep -E 'Sig(Blk|Ign|Cgt)|Cap|NoNew|Groups' /proc/self/status",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_kept_plan_gives_the_same(kept: Kept, name: str) -> None:
    change, script = CONFIGS[name]
    kept.box.change(change).run(script)
    ground = Ground(kept.rt, "c")
    first = kept.keep().through_python()
    (file,) = kept.files
    assert file.stat().st_mode & 0o7777 == 0o600 and file.parent.stat().st_mode & 0o7777 == 0o700
    second = kept.by_itself()
    assert second is not None
    assert told(kept.rt, second) == told(kept.rt, first)
    assert list(kept.rt.root.iterdir()) == []
    ground.clean()


def test_a_range_of_ids_is_mapped_by_the_helpers(kept: Kept, box_of_many: Bundle) -> None:
    kept.box = box_of_many
    first = kept.keep().through_python()
    second = kept.by_itself()
    assert second is not None and told(kept.rt, second) == told(kept.rt, first)
    assert len(second.stdout.splitlines()) > 2


@pytest.fixture
def box_of_many(rt: Runtime, bundle: MakeBundle) -> Bundle:
    """A bundle whose config maps the user's range too."""
    box = bundle(
        "cat /proc/self/uid_map /proc/self/gid_map; touch /tmp/x; chown 5:6 /tmp/x; stat -c %u:%g /tmp/x"
    )
    (box.path / "config.json").unlink()
    rt.ok("spec", "--rootless", "--idmap", "full", "--bundle", str(box.path))
    made = json.loads((box.path / "config.json").read_text())
    box.change(
        lambda config: config["linux"].update(
            {key: made["linux"][key] for key in ("uidMappings", "gidMappings")}
        )
    )
    return box


@pytest.mark.parametrize("script", ["exit 0", "exit 255", "kill -TERM $$; sleep 9", "kill -KILL $$"])
def test_the_exit_code_is_the_program_s(kept: Kept, script: str) -> None:
    # The first process of a pid namespace is deaf to signals of its own.
    kept.box.run(script if "kill" not in script else f"sh -c '{script}'; exit $?")
    code = kept.through_python().returncode
    second = kept.by_itself()
    assert second is not None and second.returncode == code


@pytest.mark.parametrize("container_id", ["a", "-._+0", "x" * 255])
def test_any_id_has_its_place(kept: Kept, container_id: str) -> None:
    kept.keep()
    words = ["run", "--bundle", str(kept.box.path), container_id]
    if container_id.startswith("-"):
        words[-1] = container_id = "a-._+0"
    assert kept.alone(*words, env=kept.environment).returncode == 7
    kept.box.run("grep -o '_ses[^ ]*' /proc/keys || true")
    kept.keep()
    done = kept.alone(*words, env=kept.environment)
    assert done.returncode == 0 and done.stderr == ""


def test_stdin_and_stdout_are_the_program_s(kept: Kept) -> None:
    kept.box.run("cat")
    kept.keep()
    process = kept.alone.popen(
        *kept.argv(), env=kept.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    data = os.urandom(1 << 20)
    assert process.communicate(data, timeout=60)[0] == data and process.returncode == 0


def running(kept: Kept, script: str) -> subprocess.Popen[bytes]:
    """The launcher with a program that has said `ready`; the first run, which keeps the plan, just ends."""
    kept.box.run(f"if [ -e /first ]; then rm /first; exit 0; fi; {script}")
    (kept.box.rootfs / "first").touch()
    kept.rt.user.owns(kept.box.rootfs)
    kept.keep()
    process = kept.alone.popen(*kept.argv(), env=kept.environment, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


def test_while_it_runs_it_is_like_any_other(kept: Kept) -> None:
    with running(kept, "echo ready; sleep 1000") as process:
        state = kept.rt.state("c")
        assert state["status"] == "running" and state["bundle"] == str(kept.box.path)
        saved = json.loads((kept.rt.root / "c/state.json").read_text())
        assert saved["phase"] == "created" and saved["maker"]["pid"] == process.pid
        assert sorted(path.name for path in (kept.rt.root / "c").iterdir()) == ["config.json", "state.json"]
        assert kept.rt.ok("exec", "c", "echo", "in") == "in\n"
        assert "running" in kept.rt.ok("list")
        kept.rt.ok("kill", "c", "KILL")
        assert process.wait(PATIENCE) == 137
    assert list(kept.rt.root.iterdir()) == []


def test_its_state_is_what_python_writes(kept: Kept) -> None:
    kept.box.change(lambda config: config.update(annotations={"a": "b"}))
    with running(kept, "echo ready; sleep 1000") as process:
        short = json.loads((kept.rt.root / "c/state.json").read_text())
        process.terminate()
        kept.rt.ok("kill", "c", "KILL")
        process.wait(PATIENCE)
    with kept.rt.popen(*LONG, *kept.argv(), env=kept.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        long = json.loads((kept.rt.root / "c/state.json").read_text())
        kept.rt.ok("kill", "c", "KILL")
        process.wait(PATIENCE)
    assert list(short) == list(long)
    for name in ("pid", "startTime", "created", "maker"):
        assert type(short.pop(name)) is type(long.pop(name))
    assert short == long


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN + 3, signal.SIGINT]
)
def test_signals_reach_the_program(kept: Kept, number: int) -> None:
    with running(
        kept, f"trap 'echo got; exit 9' {int(number)}; echo ready; while :; do sleep 0.05; done"
    ) as process:
        process.send_signal(number)
        assert process.wait(PATIENCE) == 9
        assert process.stdout is not None and process.stdout.read() == b"got\n"


def test_a_container_that_was_deleted_meanwhile_is_no_error(kept: Kept) -> None:
    with running(kept, "echo ready; sleep 1000") as process:
        kept.rt.ok("delete", "--force", "c")
        assert process.wait(PATIENCE) == 137


def test_a_launcher_that_was_killed_leaves_a_container_that_can_be_deleted(kept: Kept) -> None:
    ground = Ground(kept.rt, "c")
    with running(kept, "echo ready; sleep 1000") as process:
        process.kill()
        process.wait(PATIENCE)
    assert kept.rt.state("c")["status"] == "running"
    kept.rt.ok("delete", "--force", "c")
    ground.clean()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_at_any_moment_leaves_nothing_that_delete_does_not_remove(kept: Kept, number: int) -> None:
    kept.box.run("exit 0")
    kept.keep()
    ground = Ground(kept.rt, "c")
    codes = set()
    for step in range(24):
        with kept.alone.popen(*kept.argv(), env=kept.environment, stderr=subprocess.DEVNULL) as process:
            time.sleep(step / 2000)
            process.send_signal(number)
            codes.add(process.wait(PATIENCE))
        if number == signal.SIGKILL:
            kept.rt("delete", "--force", "c")
        assert list(kept.rt.root.iterdir()) == []
    assert codes <= {0, 128 + number, -number}
    ground.clean()


def test_signals_that_the_caller_ignores_end_nothing(kept: Kept) -> None:
    kept.box.run("exit 5")
    kept.keep()
    script = "trap '' HUP; echo ready; read go; exec \"$@\""
    words = ["/bin/sh", "-c", script, "sh", *kept.alone.argv(*kept.argv())]
    with subprocess.Popen(
        words, **as_user(kept), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdin.write(b"\n")
        while process.poll() is None:
            process.send_signal(signal.SIGHUP)
            time.sleep(0.0005)
        # Once the program runs it gets the signal, and as the first of its pid namespace it does not mind.
        assert process.returncode == 5


def as_user(kept: Kept) -> dict[str, Any]:
    ids: dict[str, Any] = {"cwd": "/", "env": kept.environment}
    if os.getuid() != kept.rt.user.uid:
        ids |= {"user": kept.rt.user.uid, "group": kept.rt.user.gid, "extra_groups": []}
    return ids


# What it leaves to Python.


def relimit(number: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(number, (77, 78))


SITUATIONS: dict[str, dict[str, Any]] = {
    "NOTIFY_SOCKET": {"variables": {"NOTIFY_SOCKET": "/run/nobody"}},
    "LISTEN_FDS": {"variables": {"LISTEN_FDS": "1"}},
    "another cache": {"variables": {"XDG_CACHE_HOME": "/nonexistent"}},
    "another limit": {"preexec_fn": relimit(resource.RLIMIT_NOFILE)},
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_another_caller_is_python_s(kept: Kept, name: str) -> None:
    kept.keep()
    options = dict(SITUATIONS[name])
    variables = options.pop("variables", {})
    assert kept.by_itself(env={**kept.environment, **variables}, **options) is None
    assert kept.by_itself() is not None


def test_other_groups_are_python_s(kept: Kept) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a user other groups")
    kept.keep()
    assert kept.by_itself(extra_groups=[kept.rt.user.gid + 1]) is None
    assert kept.by_itself() is not None


def append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


def relinked(path: Path) -> None:
    path.rename(path.with_name("kept"))
    path.symlink_to("kept")


def moved(kept: Kept) -> None:
    other = kept.box.path.with_name("moved")
    shutil.copytree(kept.box.path, other, symlinks=True)
    kept.rt.user.owns(other)
    kept.box.path = other


def boot() -> bytes:
    return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()


def version_of(kept: Kept) -> bytes:
    return kept.rt.ok("--version").split()[2].encode()


def patch(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new.ljust(len(old), b"0")[: len(old)]))


CHANGED: dict[str, Callable[[Kept], object]] = {
    "a byte of the config": lambda kept: kept.box.run("echo other"),
    "a space behind the config": lambda kept: append(kept.box.path / "config.json", b" "),
    "no config": lambda kept: (kept.box.path / "config.json").unlink(),
    "the rootfs is a link": lambda kept: relinked(kept.box.rootfs),
    "the rootfs is gone": lambda kept: kept.box.rootfs.rename(kept.box.path / "other"),
    "another bundle": moved,
    "a torn plan": lambda kept: os.truncate(kept.files[0], kept.files[0].stat().st_size - 1),
    "no plan": lambda kept: kept.files[0].unlink(),
    "a plan that others can write": lambda kept: kept.files[0].chmod(0o622),
    "a plan that is a link": lambda kept: relinked(kept.files[0]),
    "a directory that others can write": lambda kept: kept.files[0].parent.chmod(0o777),
    "a directory behind a link": lambda kept: relinked(kept.cache / "rt"),
    "a directory in one that others can write": lambda kept: (kept.cache / "rt").chmod(0o777),
    "another version": lambda kept: patch(kept.files[0], version_of(kept), b"9.9.9"),
    "another kernel": lambda kept: patch(kept.files[0], boot(), b"0" * 36),
    "another program": lambda kept: (kept.box.rootfs / "bin/sh").unlink(),
    "the id is taken": lambda kept: kept.rt.root.joinpath("c").mkdir(),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_has_changed_is_python_s(kept: Kept, name: str) -> None:
    kept.keep()
    CHANGED[name](kept)
    taken = kept.rt.root / "c"
    before = taken.exists()
    done = kept.alone(*kept.argv(), env=kept.environment)
    assert (
        done.returncode == 1 and done.stderr.startswith("rt: cannot read ") and "rootless_rt" in done.stderr
    )
    assert taken.exists() == before and len(list(kept.rt.root.iterdir())) == before
    through = kept.through_python()
    both = kept.rt(*kept.argv(), env=kept.environment)
    assert told(kept.rt, both) == told(kept.rt, through)


WORDS: dict[str, list[str]] = {
    "detached": ["--detach"],
    "kept": ["--keep"],
    "a pid file": ["--pid-file", "pid"],
    "no pivot": ["--no-pivot"],
    "an id map": ["--idmap", "single"],
    "descriptors": ["--preserve-fds", "0"],
    "an empty bundle": ["--bundle", ""],
}


@pytest.mark.parametrize("name", WORDS)
def test_other_options_are_python_s(kept: Kept, name: str) -> None:
    kept.keep()
    done = kept.alone(*kept.argv(), *WORDS[name], env=kept.environment)
    assert "rootless_rt" in done.stderr and list(kept.rt.root.iterdir()) == []


def test_a_plan_is_kept_for_one_manager_of_cgroups(kept: Kept) -> None:
    kept.keep()
    program, *words = kept.alone.argv(*kept.argv())

    def call(*argv: str) -> int | None:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, **as_user(kept))
        return None if "rootless_rt" in done.stderr else done.returncode

    for option in ("disabled", "cgroupfs", "systemd"):
        assert call(program, "--cgroup-manager", option, *words) is None
    assert call(program, "--cgroup-manager=auto", *words) == 7
    disabled = ("--cgroup-manager", "disabled")
    assert call(RT, *LONG, *disabled, *words) == 7
    assert call(program, *disabled, *words) == 7
    assert kept.by_itself() is None


@pytest.mark.parametrize("option", [["--degrade=strict"], ["--debug"], ["--systemd-cgroup"]])
def test_global_options_that_change_the_plan_are_python_s(kept: Kept, option: list[str]) -> None:
    kept.keep()
    program, *words = kept.alone.argv(*kept.argv())
    done = subprocess.run(
        [program, *option, *words], check=False, capture_output=True, text=True, **as_user(kept)
    )
    assert "rootless_rt" in done.stderr


def test_what_had_something_to_say_is_not_kept(kept: Kept) -> None:
    kept.box.change(lambda config: config["process"].update(oomScoreAdj=-1000))
    assert "warning" in kept.through_python().stderr
    assert kept.files == []


def test_a_program_that_does_not_start_is_not_kept(kept: Kept) -> None:
    kept.box.run(["/nothing"])
    assert kept.through_python().returncode != 0
    assert kept.files == []


def test_nothing_is_kept_where_memory_may_be_short(kept: Kept) -> None:
    limit = (1 << 32, 1 << 32)
    done = kept.through_python(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit))
    assert done.returncode == 7 and kept.files == []


def test_hooks_are_python_s(kept: Kept, place: Path) -> None:
    kept.box.change(lambda config: config.update(hooks={"poststop": [{"path": "/bin/true"}]}))
    kept.keep()
    assert kept.files == []


def test_without_a_place_for_a_cache_all_works(kept: Kept) -> None:
    environment = {**kept.environment, "XDG_CACHE_HOME": "/proc"}
    for _ in range(2):
        done = kept.rt(*kept.argv(), env=environment)
        assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_the_usual_command_uses_what_it_keeps(kept: Kept) -> None:
    """The second run opens nothing of Python's."""
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    kept.rt(*kept.argv(), env=kept.environment)
    trace = kept.cache / "trace"
    words = [
        "strace",
        "-f",
        "-e",
        "trace=execve",
        "-o",
        str(trace),
        RT,
        "--root",
        str(kept.rt.root),
        *kept.argv(),
    ]
    assert subprocess.run(words, check=False, stdin=subprocess.DEVNULL, **as_user(kept)).returncode == 7
    assert "python" not in trace.read_text()


# The same for `rt exec`.


@pytest.fixture
def box(kept: Kept) -> Kept:
    """A created container `c` that runs, into which Python has brought a process before."""
    kept.box.run(["/bin/sleep", "1000"])
    kept.rt.ok("create", "--bundle", str(kept.box.path), "c", env=kept.environment)
    kept.rt.ok("start", "c")
    kept.rt.ok(*LONG, "exec", "c", "true", env=kept.environment)
    assert [path.name[0] for path in kept.files] == ["e"]
    return kept


def through_python(kept: Kept, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return kept.rt(*LONG, "exec", "c", *words, **{"env": kept.environment, **options})


def exec_by_itself(kept: Kept, *words: str, **options: Any) -> subprocess.CompletedProcess[str] | None:
    """What the launcher does; None when it leaves the call to Python."""
    done = kept.alone("exec", "c", *words, **{"env": kept.environment, **options})
    return None if "rootless_rt" in done.stderr else done


@pytest.mark.parametrize(
    "words",
    [
        ["id"],
        ["sh", "-c", "echo out; echo err >&2; exit 7"],
        ["sh", "-c", "ls /proc/self/ns /proc/self/fd | wc -l; cat /proc/self/cgroup | wc -l"],
        [
            "sh",
            "-c",
            "grep -E 'Sig(Blk|Ign|Cgt)|Cap|NoNew|Groups|Seccomp' /proc/self/status; umask; pwd; env",
        ],
        ["echo", "", "é", "\udcff", "a b", "x" * 5000],
        ["sh", "-c", "kill -TERM $$"],
        ["/bin/echo"] + ["word"] * 2000,
    ],
    ids=["id", "code", "namespaces", "status", "words", "signal", "many"],
)
def test_a_kept_exec_gives_the_same(box: Kept, words: list[str]) -> None:
    first = through_python(box, *words)
    second = exec_by_itself(box, *words)
    assert second is not None
    assert (second.returncode, second.stdout, second.stderr) == (first.returncode, first.stdout, first.stderr)


def test_a_filter_is_on_processes_that_are_added(kept: Kept) -> None:
    kept.box.change(filtered)
    kept.box.run(["/bin/sleep", "1000"])
    kept.rt.ok("run", "--detach", "--bundle", str(kept.box.path), "c", env=kept.environment)
    for number in range(2):
        done = (through_python, exec_by_itself)[number](kept, "mkdir", "/tmp/x")
        assert done is not None and done.returncode == 1 and "not supported" in done.stderr


def test_another_container_of_the_config_is_entered_too(box: Kept) -> None:
    box.rt.ok("delete", "--force", "c")
    box.rt.ok("create", "--bundle", str(box.box.path), "c", env=box.environment)
    done = exec_by_itself(box, "echo", "in")
    assert done is not None and done.stdout == "in\n"
    box.rt.ok("start", "c")


def test_stdin_and_signals_reach_the_added_program(box: Kept) -> None:
    script = "trap 'echo got; exit 9' TERM; read line; echo $line; while :; do sleep 0.05; done"
    with box.alone.popen(
        "exec", "c", "sh", "-c", script, env=box.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"ready\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(PATIENCE) == 9 and process.stdout.read() == b"got\n"


@pytest.fixture
def process(box: Kept, place: Path) -> Path:
    """A file for --process, by which Python has brought a process in before."""
    path = place / "process.json"
    args = ["sh", "-c", "echo out; id; exit 7"]
    path.write_text(
        json.dumps({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}})
    )
    path.chmod(0o644)
    done = box.rt(*LONG, "exec", "--process", str(path), "c", env=box.environment)
    assert done.returncode == 7 and len(box.files) == 2
    return path


def test_a_process_of_a_file_is_added_too(box: Kept, process: Path) -> None:
    through = box.rt(*LONG, "exec", "--process", str(process), "c", env=box.environment)
    done = box.alone("exec", "--process", str(process), "c", env=box.environment)
    assert (done.returncode, done.stdout, done.stderr) == (through.returncode, through.stdout, through.stderr)
    assert exec_by_itself(box, "true") is not None


@pytest.mark.parametrize("change", ["another process", "a fifo", "nothing", "words beside it"])
def test_another_file_is_python_s(box: Kept, process: Path, change: str) -> None:
    words = ["exec", "--process", str(process), "c"]
    if change == "another process":
        append(process, b" ")
    elif change == "words beside it":
        words.append("true")
    else:
        process.unlink()
        if change == "a fifo":
            os.mkfifo(process, 0o644)
            process.chmod(0o644)
    assert "rootless_rt" in box.alone(*words, env=box.environment).stderr


EXEC_CHANGED: dict[str, Callable[[Kept], object]] = {
    "stopped": lambda box: (box.rt.ok("kill", "c", "KILL"), box.rt.wait_for("c", "stopped")),
    "gone": lambda box: box.rt.ok("delete", "--force", "c"),
    "no record": lambda box: (box.rt.root / "c/shortcut").unlink(),
    "another config": lambda box: append(box.rt.root / "c/config.json", b" "),
    "no plan": lambda box: box.files[0].unlink(),
    "a plan that others can write": lambda box: box.files[0].chmod(0o666),
    "another version": lambda box: patch(box.files[0], version_of(box), b"9.9.9"),
}


@pytest.mark.parametrize("name", EXEC_CHANGED)
def test_an_exec_in_what_has_changed_is_python_s(box: Kept, name: str) -> None:
    EXEC_CHANGED[name](box)
    assert exec_by_itself(box, "true") is None


@pytest.mark.parametrize("words", [["nosuch"], ["/etc"], ["-x"], ["--", "true"], [""], []])
def test_a_program_that_cannot_be_is_explained_by_python(box: Kept, words: list[str]) -> None:
    assert exec_by_itself(box, *words) is None
    through, both = through_python(box, *words), box.rt("exec", "c", *words, env=box.environment)
    assert (both.returncode, both.stderr) == (through.returncode, through.stderr)


@pytest.mark.parametrize(
    "options", [["-e", "A=b"], ["--cwd", "/tmp"], ["--user", "0"], ["--detach"], ["--cap", "CAP_KILL"]]
)
def test_options_of_exec_are_python_s(box: Kept, options: list[str]) -> None:
    done = box.alone("exec", *options, "c", "true", env=box.environment)
    assert "rootless_rt" in done.stderr
    kept = {path: path.stat().st_ino for path in box.files}
    assert box.rt(*LONG, "exec", *options, "c", "true", env=box.environment).returncode == 0
    assert {path: path.stat().st_ino for path in box.files} == kept


@pytest.mark.parametrize("other", ["a network", "a range of ids"])
def test_a_process_in_other_namespaces_is_python_s(
    box: Kept, bundle: MakeBundle, other: str, request: pytest.FixtureRequest
) -> None:
    """A state of `c` that names the first process of a container of another shape."""
    if other == "a range of ids":
        made = request.getfixturevalue("box_of_many").run(["/bin/sleep", "1000"])
    else:
        made = bundle(["/bin/sleep", "1000"])
        made.change(lambda config: config["linux"]["namespaces"].append({"type": "network"}))
    box.rt.ok("run", "--detach", "--bundle", str(made.path), "d")
    saved = json.loads((box.rt.root / "d/state.json").read_text())
    rewrite(box.rt, pid=saved["pid"], startTime=saved["startTime"])
    assert exec_by_itself(box, "true") is None
