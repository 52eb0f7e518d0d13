"""Runs that the keeper has from their beginning to their end (`api/captured.py`), by an ordinary user."""

from __future__ import annotations

import subprocess
from typing import Protocol

import pytest
from conftest import MakeBundle
from lab.programs import Programs, end_and_leave_nothing, running
from lab.waiting import until

# `both` gives the result of a run as the keeper has it, and as a thread of the program has it.
HEAD = """
import asyncio
def fds():
    return len(os.listdir("/proc/self/fd"))
def read(path):
    with open(path) as file:
        return file.read()
async def never():
    return False
class Counted:
    def __init__(self, sandbox):
        self.sandbox, self.captured = sandbox, sandbox._captured
        self.count, run = 0, self.captured.run
        def counted(*args):
            self.count += 1
            return run(*args)
        self.captured.run = counted
        sandbox._under_way = 1  # as if another were under way: none is alone
async def both(sandbox, *args, **options):
    counted = Counted(sandbox)
    found = []
    for _ in range(2):
        try:
            found.append(await sandbox.run(*args, **options))
        except Exception as error:
            found.append(error)
        sandbox._can_capture = never
    del sandbox._can_capture, counted.captured.run
    assert counted.count == 1, counted.count
    return found
"""


def _main(body: str) -> str:
    return HEAD + "async def main():\n" + body + "\nasyncio.run(main())\n"


class Main(Protocol):
    """Runs the body of an asynchronous `main`, with a bundle of this command."""

    def __call__(self, body: str, command: str = "true", *, timeout: float = 60) -> None: ...


@pytest.fixture
def main(program: Programs, bundle: MakeBundle) -> Main:
    def run(body: str, command: str = "true", *, timeout: float = 60) -> None:
        program(bundle(command).path, _main(body), timeout=timeout)

    return run


def test_a_result_is_the_same_as_a_thread_would_have(main: Main) -> None:
    main(
        """
    async with AsyncSandbox(bundle) as sandbox:
        cases = [
            (["true"], {}),
            (["sh", "-c", "echo out; echo err >&2; exit 7"], {}),
            (["sh", "-c", "echo one; echo two >&2; echo three"], {"stderr": STDOUT}),
            (["sh", "-c", "kill -9 $$"], {}),
            (["sh", "-c", "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2"], {}),
            (["sh", "-c", "head -c 16000 /dev/zero; head -c 384 /dev/zero >&2"], {}),
            (["sh", "-c", "head -c 16000 /dev/zero; head -c 385 /dev/zero >&2"], {}),
            (["cat"], {"stdin": b"x" * 100000}),
            (["cat"], {}),
            (["sh", "-c", "echo $A; pwd; id -u"], {"env": {"A": "b c"}, "cwd": "/tmp"}),
            (["sh", "-c", "head -c 1000 /dev/zero; sleep 1000"], {"max_output": 999}),
            (["sh", "-c", "head -c 1000 /dev/zero"], {"max_output": 1000}),
            (["sh", "-c", "head -c 5000 /dev/zero >&2; sleep 1000"], {"max_output": 0}),
            (["sleep", "1000"], {"timeout": 0.2}),
            (["sh", "-c", "ulimit -n; ulimit -Hn; ls -l /proc/self/fd | wc -l; stat -c %a /dev/stdout"], {}),
            (["sh", "-c", "cat /proc/self/uid_map /proc/self/mountinfo | cut -d' ' -f4- | sort"], {}),
            (["sh", "-c", "grep -E 'Sig|Cap|NoNew|Shd|Groups' /proc/self/status; umask; id; hostname"], {}),
        ]
        for args, options in cases:
            ours, theirs = await both(sandbox, args, **options)
            for name in ("args", "returncode", "stdout", "stderr", "timed_out", "output_exceeded",
                         "oom_killed", "degradations", "signal"):
                one, other = getattr(ours, name), getattr(theirs, name)
                if args[0] == "cat" and name == "stdout":
                    assert one == other == options.get("stdin", b"")
                assert one == other, (args, name, one[-300:], other[-300:])
            assert ours.peak_memory > 0 and ours.rusage and ours.duration > 0
"""
    )


def test_what_was_said_in_time_is_in_the_result_as_a_thread_would_have_it(main: Main) -> None:
    main(
        """
    async with AsyncSandbox(bundle) as sandbox:
        for seconds in (0.5, 5, 30):  # on a busy machine it takes its time to begin
            both_of_them = await both(
                sandbox, ["sh", "-c", "echo said; sleep 1000"], timeout=seconds, max_output=100
            )
            if all(result.stdout for result in both_of_them):
                break
        for result in both_of_them:
            assert (result.timed_out, result.signal, result.stdout) == (True, 9, b"said\\n"), result
            assert not result.output_exceeded
""",
        timeout=120,
    )


def test_what_is_too_long_for_a_request_goes_another_way(main: Main) -> None:
    main(
        """
    async with AsyncSandbox(bundle) as sandbox:
        sandbox._under_way = 1
        for length in (10, 50_000, 58_000, 60_000, 64_000, 100_000):
            result = await sandbox.run(["sh", "-c", "echo ${#1}", "sh", "x" * length])
            assert result.check().text == f"{length}\\n"
"""
    )


def test_errors_are_the_same_as_a_thread_would_have(main: Main) -> None:
    main(
        """
    async with AsyncSandbox(bundle) as sandbox:
        for args, options in (
            (["no-such-program"], {}),
            (["/tmp"], {}),
            (["true"], {"cwd": "/etc/passwd/x"}),
            (["/etc/passwd"], {}),
        ):
            ours, theirs = await both(sandbox, args, **options)
            assert isinstance(ours, RtError) and type(ours) is type(theirs), (args, ours, theirs)
            assert (str(ours), ours.hint, ours.explain()) == (str(theirs), theirs.hint, theirs.explain())
        for options in ({"args": []}, {"args": ["a\\0b"]}, {"stdin": -5}, {"cwd": "relative"}):
            try:
                await sandbox.run(**{"args": ["true"], **options})
            except (ValueError, RtError):
                pass
            else:
                raise AssertionError(options)
        before = fds()
        sandbox._under_way = 1
        for _ in range(5):
            try:
                await sandbox.run(["no-such-program"], stdin=b"some")
            except RtError:
                pass
        assert fds() == before
"""
    )


def test_hundreds_say_much_at_a_time(program: Programs, bundle: MakeBundle) -> None:
    """More than the keeper has room for in its socket, and than it may have descriptors at first."""
    made = bundle("true")
    made.change(lambda config: config["process"].pop("rlimits"))
    program(
        made.path,
        _main(
            """
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    async with AsyncSandbox(bundle) as sandbox:
        await sandbox.run()
        before = fds()
        async def one(number):
            script = f"head -c {number * 200} /dev/zero; echo {number} >&2; ulimit -n >&2"
            result = (await sandbox.run(["sh", "-c", script])).check()
            assert result.stdout == bytes(number * 200)
            assert result.stderr == b"%d\\n600\\n" % number, result.stderr
        await asyncio.gather(*(one(number) for number in range(260)))
        sandbox._under_way += 1
        await sandbox.run()
        assert fds() <= before + 2, (before, fds())
        keeper = sandbox.sandbox._keeper._pid
        assert len(os.listdir(f"/proc/{keeper}/fd")) < 16
"""
        ),
        timeout=120,
    )


def test_a_program_that_does_not_listen_gets_everything_later(main: Main) -> None:
    main(
        """
    async with AsyncSandbox(bundle) as sandbox:
        (await sandbox.run()).check()
        tasks = [asyncio.create_task(sandbox.run(["sh", "-c", "head -c 15000 /dev/zero"])) for _ in range(60)]
        await asyncio.sleep(0.005)
        keeper = sandbox.sandbox._keeper._pid
        children = f"/proc/{keeper}/task/{keeper}/children"
        deadline = time.monotonic() + 30
        time.sleep(0.2)
        while read(children) and time.monotonic() < deadline:
            time.sleep(0.01)  # the event loop does not turn
        for task in tasks:
            assert len((await task).check().stdout) == 15000
"""
    )


def test_a_default_timeout_of_sockets_is_not_for_those_of_the_sandbox(main: Main) -> None:
    main(
        """
    import socket
    async with AsyncSandbox(bundle) as sandbox:
        counted = Counted(sandbox)
        (await sandbox.run()).check()
        await sandbox._captured.close()
        socket.setdefaulttimeout(0.5)
        task = asyncio.create_task(sandbox.run(["sleep", "1"]))
        assert (await task).ok and counted.count == 2
        keeper = sandbox.sandbox._keeper
        assert keeper.lives and keeper._sock.getblocking() and os.get_blocking(keeper._sock.fileno())
"""
    )


def test_output_that_the_program_has_no_memory_for_is_an_error_of_that_run(main: Main) -> None:
    main(
        """
    import resource
    async with AsyncSandbox(bundle) as sandbox:
        (await sandbox.run()).check()
        sandbox._under_way = 1
        (await sandbox.run()).check()
        much = ["head", "-c", "200000000", "/dev/zero"]
        used = int(read("/proc/self/statm").split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, hard))
        for error in await asyncio.wait_for(
            asyncio.gather(sandbox.run(much), sandbox.run(), return_exceptions=True), 60
        ):
            assert isinstance(error, MemoryError) or error.ok, error
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        assert len((await sandbox.run(much)).stdout) == 200_000_000
""",
        timeout=120,
    )


def test_whatever_is_cancelled_is_killed_first(main: Main) -> None:
    main(
        """
    async with AsyncSandbox(bundle) as sandbox:
        sandbox._under_way = 1
        (await sandbox.run(["true"])).check()
        before = fds()
        for rest in (0, 0.001, 0.003, 0.1):
            tasks = [asyncio.create_task(sandbox.run(stdin=b"some")) for _ in range(40)]
            await asyncio.sleep(rest)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(error, asyncio.CancelledError) for error in ended), ended
            assert not sandbox._captured._runs and not sandbox._captured._queue
            assert fds() == before
            keeper = sandbox.sandbox._keeper._pid
            assert not read(f"/proc/{keeper}/task/{keeper}/children")
        assert (await sandbox.run(["true"])).ok
        assert sandbox.sandbox._keeper._under_way == 0
""",
        "sleep 1000",
    )


def test_runs_end_with_their_keeper_and_the_next_has_another(main: Main) -> None:
    main(
        """
    async with AsyncSandbox(bundle) as sandbox:
        sandbox._under_way = 1
        (await sandbox.run(["true"])).check()
        before = fds()
        tasks = [asyncio.create_task(sandbox.run()) for _ in range(5)]
        keeper = sandbox.sandbox._keeper._pid
        children = f"/proc/{keeper}/task/{keeper}/children"
        while len(pids := read(children).split()) < 5 or len(tasks) > sum(
            run.pidfd >= 0 for run in sandbox._captured._runs.values()
        ):
            await asyncio.sleep(0.01)
        os.kill(keeper, signal.SIGKILL)
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(error, RtError) and "has been killed" in str(error), error
        for pid in pids:  # dead, if init has not waited for it yet
            try:
                assert read(f"/proc/{pid}/stat").split()[2] in "ZX"
            except (FileNotFoundError, ProcessLookupError):
                pass
        assert (await sandbox.run(["true"])).ok and sandbox.sandbox._keeper._pid != keeper
        assert fds() == before
        # And one that was killed while nobody looked.
        keeper = sandbox.sandbox._keeper._pid
        os.kill(keeper, signal.SIGKILL)
        while read(f"/proc/{keeper}/stat").split()[2] != "Z":
            time.sleep(0.01)
        assert (await sandbox.run(["true"])).ok and sandbox.sandbox._keeper._pid != keeper
        assert fds() <= before
""",
        "sleep 1000",
    )


def test_a_program_without_descriptors_can_still_end_them(main: Main) -> None:
    main(
        """
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with AsyncSandbox(bundle) as sandbox:
        sandbox._under_way = 1
        (await sandbox.run(["true"])).check()
        before = fds()
        tasks = [asyncio.create_task(sandbox.run(timeout=limit)) for limit in (None, None, 1)]
        await asyncio.sleep(0)  # all are asked for
        runs = list(sandbox._captured._runs.values())
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        while any(run.request for run in runs):
            await asyncio.sleep(0.01)
        assert [run.pidfd for run in runs] == [-1] * 3  # the last one may be over already
        tasks[0].cancel()
        ended = await asyncio.gather(tasks[0], return_exceptions=True)
        assert isinstance(ended[0], asyncio.CancelledError), ended
        assert (await tasks[2]).timed_out
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert fds() == before
    assert (await tasks[1]).signal == 9
""",
        "sleep 1000",
    )


def test_a_file_that_is_closed_before_its_turn_is_an_error_of_that_run(main: Main) -> None:
    main(
        """
    async with AsyncSandbox(bundle) as sandbox:
        sandbox._under_way = 1
        (await sandbox.run(["true"])).check()
        captured = sandbox._captured
        captured._unborn = 1 << 30  # as if many were waiting before it
        given = os.open("/dev/null", os.O_RDONLY)
        tasks = [asyncio.create_task(sandbox.run(["true"], stdin=given)) for _ in range(2)]
        tasks.append(asyncio.create_task(sandbox.run(["true"], max_output=-1)))
        tasks.append(asyncio.create_task(sandbox.run(["true"], max_output=1 << 70)))
        await asyncio.sleep(0.01)
        os.close(given)
        captured._unborn = 0
        captured._send()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in found] == [OSError, OSError, Result, Result], found
        assert sandbox.sandbox._keeper._under_way == 0 and (await sandbox.run(["true"])).ok
"""
    )


def test_closing_ends_them(main: Main) -> None:
    main(
        """
    before = fds()
    sandbox = AsyncSandbox(bundle)
    sandbox._under_way = 1
    (await sandbox.run(["true"])).check()
    tasks = [asyncio.create_task(sandbox.run()) for _ in range(10)]
    while any(run.pidfd < 0 for run in sandbox._captured._runs.values()) or not sandbox._captured._runs:
        await asyncio.sleep(0.01)
    await sandbox.close()
    assert [result.signal for result in await asyncio.gather(*tasks)] == [9] * 10
    assert fds() == before, fds()
    try:
        await sandbox.run()
    except RtError as error:
        assert "closed" in str(error)
    else:
        raise AssertionError
    # By another hand: the sandbox within.
    sandbox = AsyncSandbox(bundle)
    sandbox._under_way = 1
    task = asyncio.create_task(sandbox.run())
    while not any(run.pidfd >= 0 for run in sandbox._captured._runs.values()):
        await asyncio.sleep(0.01)
    sandbox.sandbox.close()
    try:
        await task
    except RtError:
        pass
    else:
        raise AssertionError
    await sandbox.close()
    assert fds() == before, fds()
""",
        "sleep 1000",
    )


def test_event_loops_one_after_the_other_and_at_a_time(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("true").path,
        HEAD
        + """
sandbox = AsyncSandbox(bundle)
counted = Counted(sandbox)
async def some():
    results = await asyncio.gather(*(sandbox.run(["echo", str(n)]) for n in range(20)))
    assert [result.text for result in results] == [f"{n}\\n" for n in range(20)]
for _ in range(3):
    asyncio.run(some())
assert counted.count == 60, counted.count
errors = []
def other():
    try:
        for _ in range(3):
            asyncio.run(some())
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=other) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not errors, errors
async def broken_off():
    asyncio.create_task(sandbox.run(["sleep", "1000"]))
    await asyncio.sleep(0.1)
asyncio.run(broken_off())
asyncio.run(some())
asyncio.run(sandbox.close())
""",
    )


def test_they_do_not_outlive_the_program(program: Programs, bundle: MakeBundle) -> None:
    process = program.popen(
        bundle("exec sleep 98764").path,
        _main(
            """
    sandbox = AsyncSandbox(bundle)
    tasks = [asyncio.create_task(sandbox.run()) for _ in range(5)]
    await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.sleep(1000)
"""
        ),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    until(lambda: running(program.user.uid).count("sleep 98764") == 5, lambda: running(program.user.uid))
    end_and_leave_nothing(process, program.user.uid, "sleep", "rt-init")


def test_what_cannot_be_made_says_why(main: Main) -> None:
    """The keeper has no descriptors left for so many; those that it has begun go on."""
    main(
        """
    import resource
    async with AsyncSandbox(bundle) as sandbox:
        (await sandbox.run()).check()
        keeper = sandbox.sandbox._keeper._pid
        hard = resource.prlimit(keeper, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(keeper, resource.RLIMIT_NOFILE, (100, hard))
        gate, open_gate = os.pipe()
        tasks = [asyncio.create_task(sandbox.run(["cat"], stdin=gate)) for _ in range(60)]
        while sum(task.done() for task in tasks) <= 5:
            await asyncio.sleep(0.05)
        os.close(open_gate)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [one for one in found if not isinstance(one, Result)]
        assert failed and all(isinstance(one, RtError) for one in failed), failed
        resource.prlimit(keeper, resource.RLIMIT_NOFILE, (hard, hard))
        assert (await sandbox.run()).ok
"""
    )


def test_a_copy_of_the_program_goes_its_own_way(main: Main) -> None:
    main(
        """
    def as_a_copy():
        async def run():
            same = [sandbox.run(["sh", "-c", "echo copy"]) for n in range(4)]
            for found in await asyncio.gather(*same):
                assert found.stdout == b"copy\\n", found
            assert sandbox._captured.serves()
            await sandbox.close()
        asyncio.run(run())
        codes.append(0)
    codes = []
    async with AsyncSandbox(bundle) as sandbox:
        short = [asyncio.create_task(sandbox.run(["echo", str(n)])) for n in range(6)]
        long = asyncio.create_task(sandbox.run(["sh", "-c", "cat; echo late"], stdin=(pipe := os.pipe())[0]))
        while not any(run.pidfd >= 0 for run in sandbox._captured._runs.values()):
            await asyncio.sleep(0)
        copy = os.fork()
        if not copy:
            os.close(pipe[1])
            thread = threading.Thread(target=as_a_copy)
            thread.start()
            thread.join()
            os._exit(0 if codes else 1)
        assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, copy, 0))[1]) == 0
        assert [each.stdout for each in await asyncio.gather(*short)] == [b"%d\\n" % n for n in range(6)]
        os.close(pipe[1])
        assert (await long).stdout == b"late\\n"
        assert (await sandbox.run(["echo", "after"])).stdout == b"after\\n"
"""
    )
