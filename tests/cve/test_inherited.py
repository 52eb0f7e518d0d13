"""What a container's program and its hooks inherit: three files and what was asked, and their environment.

No signal is blocked or ignored. With every feature on that opens descriptors or starts helpers on the way,
and a caller that leaks what it can.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Either, MakeBundle
from lab.bundles import Bundle, Config
from lab.inside import set_namespace
from lab.networks import need_devices, network
from lab.programs import Programs
from lab.runtime import Runtime
from lab.seccomp_agent import agent_of
from lab.waiting import until

from rootless_rt.host.seccomp import library_file

LOOK = """#!/bin/sh
for fd in /proc/$$/fd/*; do n=${fd##*/}; case $n in 10|255) ;; *) [ -h $fd ] && echo "fd $n";; esac; done
grep -E '^(SigBlk|SigIgn|SigCgt|NoNewPrivs)' /proc/self/status
tr '\\0' '\\n' </proc/$$/environ | grep -v '^$' | sed 's/^/env /'
"""


def hostile() -> None:
    """What a careless engine leaves to its runtime: signals, and descriptors on the host's root."""
    for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, signal.SIGALRM})
    for number in (4, 5, 9, 30, 77, 200):
        os.dup2(os.open("/", os.O_RDONLY), number)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 3)  # the one that is asked for


def seen(text: str) -> tuple[set[str], set[str], list[str]]:
    """(descriptors, signal masks that are not empty, environment) of what LOOK printed."""
    lines = text.splitlines()
    fds = {line[3:] for line in lines if line.startswith("fd ")}
    masks = {line for line in lines if line.startswith("Sig") and int(line.split()[1], 16)}
    return fds, masks, [line[4:] for line in lines if line.startswith("env ")]


def looking(made: Bundle, more: Any = None) -> Bundle:
    """A container that looks at itself, and with its hooks at them."""
    (made.rootfs / "look").write_text(LOOK)
    (made.rootfs / "look").chmod(0o755)
    (made.rootfs / "hook").write_text(LOOK.replace("\n", "\nexec >/tmp/hook\n", 1))
    (made.rootfs / "hook").chmod(0o755)

    def change(config: Config) -> None:
        config["process"]["args"] = ["/look"]
        config["process"]["env"] = ["PATH=/bin", "ONE=1", "HOME=/root", "EMPTY="]
        config["hooks"] = {"startContainer": [{"path": "/hook", "env": ["HOOK=yes", "PATH=/bin"]}]}
        if more is not None:
            more(config)

    return made.change(change)


def call(rt: Runtime, *words: str, **environment: str) -> str:
    done = rt(
        *words,
        preexec_fn=hostile,
        close_fds=False,
        env={**rt.user.environment(), "LEAK": "x", "LD_BIND_NOW": "1", "LC_ALL": "C", **environment},
    )
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


ENVIRONMENT = ["PATH=/bin", "ONE=1", "HOME=/root", "EMPTY="]


def check(
    rt: Runtime,
    made: Bundle,
    *options: str,
    more: tuple[str, ...] = (),
    before: Callable[[], None] = lambda: None,
    **environment: str,
) -> None:
    """run, create with start, and exec: what each program sees."""
    here = ["--bundle", str(made.path)]
    expected = {"0", "1", "2", "3"}
    before()
    said = call(rt, "run", "--preserve-fds", "1", *options, *here, "a", **environment)
    assert seen(said) == (expected, set(), [*ENVIRONMENT, *more]), said
    hook = (made.rootfs / "tmp/hook").read_text()
    assert seen(hook) == ({"0", "1", "2"}, set(), ["HOOK=yes", "PATH=/bin"]), hook
    made.run("/look >/tmp/looked; mv /tmp/looked /tmp/seen; exec sleep 1000")
    before()
    call(rt, "create", "--preserve-fds", "1", *options, *here, "b", **environment)
    environment.pop("NOTIFY_SOCKET", None)
    call(rt, "start", "b", **environment)
    said = call(rt, "exec", "--preserve-fds", "1", "b", "/look", **environment)
    assert seen(said) == (expected, set(), ENVIRONMENT), said
    waited = made.rootfs / "tmp/seen"
    until(waited.exists, "the program has looked at itself")
    # The shell above adds its own to what it gives on.
    fds, masks, given = seen(waited.read_text())
    assert fds == expected and not masks and set(ENVIRONMENT) <= set(given), waited.read_text()
    known = {"PATH", "ONE", "HOME", "EMPTY", "PWD", "OLDPWD", "SHLVL", "_", "NOTIFY_SOCKET"}
    assert {item.split("=")[0] for item in given} <= known


def test_a_plain_container(rt: Runtime, bundle: MakeBundle) -> None:
    check(rt, looking(bundle()))


def test_a_plain_container_of_root(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    check(root_rt, looking(root_bundle()))


HOSTS = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")


@pytest.mark.parametrize("kind", HOSTS)
def test_a_hook_on_the_host(either: Either, place: Path, kind: str) -> None:
    """Three files, its own environment, the caller's umask."""
    rt, bundle = either
    made = bundle(["/bin/true"])
    seen_by = place / "seen"
    seen_by.mkdir()
    rt.user.owns(seen_by)
    # In the container's pid namespace, with the host's /proc, $$ is another process.
    own = f"exec >{seen_by}/hook\numask\nread -r pid rest </proc/self/stat"
    look = LOOK.replace("$$", "$pid").replace("\n", f"\n{own}\n", 1)
    (place / "look").write_text(look)
    (place / "look").chmod(0o755)
    hook = {"path": str(place / "look"), "env": ["HOOK=yes", "PATH=/bin:/usr/bin"]}
    made.change(lambda config: config.update(hooks={kind: [hook]}))

    def careless() -> None:
        hostile()
        os.umask(0o027)

    here = ["--preserve-fds", "1", "--bundle", str(made.path)]
    rt.ok("run", *here, "a", preexec_fn=careless, close_fds=False)
    umask, *lines = (seen_by / "hook").read_text().splitlines()
    # The C library has its two own signals ignored in what posix_spawn(3) starts.
    text = "\n".join(lines).replace("SigIgn:\t0000000180000000", "SigIgn:\t0000000000000000")
    text = text.replace("SigCgt:\t0000000000000400", "")  # grep's own handler
    assert seen(text) == ({"0", "1", "2"}, set(), ["HOOK=yes", "PATH=/bin:/usr/bin"]), text
    assert umask == "0027"


API = """
for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
for number in (9, 30, 77, 200):
    os.dup2(os.open("/", os.O_RDONLY), number, inheritable=True)
os.environ["LEAK"] = "x"
with Sandbox(bundle) as sandbox, Runtime(root) as runtime:
    print(sandbox.run().text, "next", sandbox.run().text, "next", runtime.run(bundle).text, sep="")
    with Pool(sandbox, size=2) as pool:
        print("next", pool.run().text, "next", pool.run(["/look"]).text, sep="")
"""


def test_containers_in_a_program_of_many(program: Programs, bundle: MakeBundle) -> None:
    made = looking(bundle()).change(lambda config: config.pop("hooks"))
    for text in program(made.path, API).split("next"):
        assert seen(text) == ({"0", "1", "2"}, set(), ENVIRONMENT), text


@contextmanager
def listening(rt: Runtime, path: Path, kind: socket.SocketKind) -> Iterator[str]:
    """A socket of somebody who takes what comes."""
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(str(path))
        rt.user.owns(path)
        if kind == socket.SOCK_STREAM:
            listener.listen(16)
        yield str(path)


def everything(
    rt: Runtime,
    made: Bundle,
    place: Path,
    stack: ExitStack,
    more: Any = None,
    before: Callable[[], None] = lambda: None,
) -> None:
    if library_file() is None:
        pytest.skip("libseccomp.so.2 is not installed")
    stack.enter_context(agent_of(rt.user, place / "agent.sock"))
    pidfds = stack.enter_context(listening(rt, place / "pidfd.sock", socket.SOCK_STREAM))
    manager = stack.enter_context(listening(rt, place / "notify.sock", socket.SOCK_DGRAM))

    def features(config: Config) -> None:
        config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": str(place / "agent.sock"),
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        }
        config["linux"]["timeOffsets"] = {"boottime": {"secs": 1000}}
        config["mounts"].append({"destination": "/up", "type": "tmpfs", "options": ["tmpcopyup"]})
        config["process"]["scheduler"] = {"policy": "SCHED_BATCH"}
        config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 5}
        if more is not None:
            more(config)

    set_namespace(looking(made, features), "time")
    notify = "NOTIFY_SOCKET=/run/notify/notify.sock"
    check(rt, made, "--pidfd-socket", pidfds, more=(notify,), before=before, NOTIFY_SOCKET=manager)


def test_with_everything_on(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    with ExitStack() as stack:
        everything(rt, bundle(), place, stack)


def test_with_everything_on_as_root(root_rt: Runtime, root_bundle: MakeBundle, place: Path) -> None:
    if not shutil.which("ip"):
        pytest.skip("needs ip: apt install iproute2")
    need_devices()
    volume = place / "volume"
    volume.mkdir()

    def more(config: Config) -> None:
        line = [{"containerID": 1234, "hostID": 0, "size": 1}]
        item = {"destination": "/v", "type": "bind", "source": str(volume), "options": ["bind"]}
        config["mounts"].append({**item, "uidMappings": line, "gidMappings": line})
        config["linux"]["netDevices"] = {"v0": {"name": "eth0"}}

    with ExitStack() as stack:
        host = stack.enter_context(network())

        def before() -> None:
            host.wait_for(set())  # with a container its device ends
            host.veth("v0")

        everything(host.runtime(root_rt), root_bundle(), place, stack, more, before)
