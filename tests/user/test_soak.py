"""A soak: many containers of every kind, eight at a time, as an ordinary user; nothing is left of them.

RT_SOAK says how many, 5000 for the long one; the usual run is short. What it took is printed (pytest -s).
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conftest import MakeBundle
from lab.bundles import Bundle
from lab.leftovers import Ground
from lab.programs import Programs
from lab.runtime import Runtime
from lab.users import User
from lab.waiting import PATIENCE, until

COUNT = int(os.environ.get("RT_SOAK", "96"))
AT_A_TIME = 8
IN_ONE = COUNT // 2  # in the process of one program
GROWTH = 1024  # kB: what an allocator may keep in the end, however many there were
HOOK = {"path": "/bin/sh", "args": ["sh", "-c", "cat >/dev/null"]}
FAILING = {"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}


class Soak:
    """The kinds of containers, each made, used, and put away by one call with a number."""

    def __init__(self, rt: Runtime, bundle: MakeBundle) -> None:
        self.rt = rt
        self.plain = self._made(bundle("exit 7"))
        self.long = self._made(bundle("exec sleep 1000"))
        self.missing = self._made(bundle(["/no/such/program"]))
        self.hooked = self._made(
            bundle("true").change(
                lambda config: config.update(
                    hooks={
                        kind: [HOOK]
                        for kind in ("createRuntime", "createContainer", "startContainer", "poststop")
                    }
                )
            )
        )
        self.refused = self._made(
            bundle("true").change(lambda config: config.update(hooks={"createRuntime": [HOOK, FAILING]}))
        )

    @staticmethod
    def _made(bundle: Bundle) -> str:
        return str(bundle.path)

    def run(self, name: str) -> None:
        done = self.rt("run", "--bundle", self.plain, name)
        assert (done.returncode, done.stderr) == (7, "")

    def run_with_hooks(self, name: str) -> None:
        done = self.rt("run", "--bundle", self.hooked, name)
        assert (done.returncode, done.stderr) == (0, "")

    def fail(self, name: str) -> None:
        done = self.rt("run", "--bundle", self.missing, name)
        assert done.returncode == 1 and "no such file" in done.stderr

    def fail_in_a_hook(self, name: str) -> None:
        done = self.rt("run", "--bundle", self.refused, name)
        assert done.returncode == 1 and "exit status 3" in done.stderr

    def live(self, name: str) -> None:
        self.rt.ok("create", "--bundle", self.long, name)
        self.rt.ok("start", name)
        assert self.rt.ok("exec", name, "echo", "in").strip() == "in"
        assert self.rt("exec", name, "sh", "-c", "exit 5").returncode == 5
        self.rt.ok("kill", name, "KILL")
        self.rt.wait_for(name, "stopped")
        self.rt.ok("delete", name)

    def die(self, name: str) -> None:
        """The runtime is killed at any moment."""
        process = self.rt.popen("run", "--bundle", self.long, name)
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        self.rt.ok("delete", "--force", name)


def keys_of(user: User) -> int:
    """How many keys the kernel keeps for the user (proc_key-users(5))."""
    for line in Path("/proc/key-users").read_text().splitlines():
        number, _, rest = line.partition(":")
        if int(number) == user.uid:
            return int(rest.split()[0])
    return 0


def test_nothing_is_left_of_many_containers(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    soak = Soak(rt, bundle)
    soak.live("soak-warm")  # what is made once, such as the user's own keyrings
    ground, keys = Ground(rt, "soak-"), keys_of(alice)
    kinds = (soak.run, soak.run_with_hooks, soak.fail, soak.fail_in_a_hook, soak.live, soak.die)
    began = time.monotonic()
    counted: Counter[str] = Counter()

    def one(number: int) -> None:
        kind = kinds[number % len(kinds)]
        kind(f"soak-{number}")
        counted[kind.__name__] += 1

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(one, range(COUNT)))
    seconds = time.monotonic() - began
    print(f"\n{COUNT} containers in {seconds:.1f} s: {dict(counted)}; keys {keys} -> {keys_of(alice)}")
    assert rt.ok("list", "-q") == ""
    ground.clean()
    # The kernel collects keys in its own time.
    until(lambda: keys_of(alice) <= keys + AT_A_TIME, lambda: f"{keys} keys; there are {keys_of(alice)}")


IN_PROCESS = """
def state():
    with open("/proc/self/status") as file:
        memory = next(int(line.split()[1]) for line in file if line.startswith("RssAnon:"))
    return len(os.listdir("/proc/self/fd")), threading.active_count(), memory

def once(number):
    kind = number % 6
    if kind == 0:
        assert sandbox.run().returncode == 7
    elif kind == 1:
        assert sandbox.run(["cat"], stdin=b"x" * 100_000).stdout == b"x" * 100_000
    elif kind == 2:
        with sandbox.popen(["sleep", "1000"]) as process:
            process.kill()
            assert process.wait(30).returncode == -9
    elif kind == 3:
        try:
            sandbox.run(["/no/such/program"])
        except RtError:
            pass
        else:
            raise AssertionError("ran")
    elif kind == 4:
        assert runtime.run(bundle).returncode == 7
    else:
        container = runtime.create(bundle, "soak-api", args=["sleep", "1000"])
        container.start()
        assert container.exec(["echo", "in"]).text == "in\\n"
        container.kill("KILL")
        container.wait(30)
        container.delete()

count = int(sys.argv[3])
with Runtime(root) as runtime, Sandbox(bundle) as sandbox:
    for number in range(count // 4):
        once(number)
    early = state()
    for number in range(count):
        once(number)
    late = state()
print(*early, *late)
"""


def test_a_program_that_makes_many_stays_as_it_is(
    rt: Runtime, bundle: MakeBundle, program: Programs, alice: User
) -> None:
    """Its descriptors, threads and memory, of containers in its own process."""
    made = bundle("exit 7").path
    program(made, IN_PROCESS, "6")  # what is made once, such as the user's own keyrings
    ground = Ground(rt, "soak-")
    said = program(made, IN_PROCESS, str(IN_ONE), timeout=60 + IN_ONE)
    fds, threads, memory, *late = map(int, said.split())
    print(
        f"\n{IN_ONE} containers in one process: fds {fds} -> {late[0]}, threads {threads} -> {late[1]},"
        f" memory {memory} -> {late[2]} kB"
    )
    assert late[:2] == [fds, threads]
    assert late[2] <= memory + GROWTH
    ground.clean()
