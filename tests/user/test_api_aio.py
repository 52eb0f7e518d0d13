"""asyncio variants of the API, by an ordinary user."""

from __future__ import annotations

from conftest import MakeBundle
from lab.programs import Programs

MAIN = """
import asyncio
def fds():
    return len(os.listdir("/proc/self/fd"))
"""


def test_hundreds_run_at_a_time(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("true").path,
        MAIN
        + """
async def main():
    async with AsyncSandbox(bundle) as sandbox:
        gate, open_gate = os.pipe()
        # All of them read from one pipe, which nobody writes to before all have said that they run.
        said, say = os.pipe()
        async def one(number):
            args = ["sh", "-c", f"echo . >&2; cat; echo {number}; exit {number % 100}"]
            return await sandbox.run(args, stdin=gate, stderr=say)
        tasks = [asyncio.create_task(one(number)) for number in range(150)]
        there = b""
        while len(there) < 2 * len(tasks):
            there += await asyncio.to_thread(os.read, said, 4096)
        os.close(open_gate)
        for number, result in enumerate(await asyncio.gather(*tasks)):
            assert (result.returncode, result.stdout) == (number % 100, b"%d\\n" % number)
        for fd in (gate, said, say):
            os.close(fd)
import asyncio
before = fds()
asyncio.run(main())
assert fds() == before and threading.active_count() == 1
""",
    )


def test_cancelling_kills_and_puts_away(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("sleep 1000").path,
        MAIN
        + """
async def main():
    async with AsyncSandbox(bundle) as sandbox:
        await asyncio.gather(sandbox.run(["true"]), sandbox.run(["true"]))
        for _ in range(2):
            await sandbox.run(["true"])
        before = fds()  # with what waits for the next run, and what the keeper answers on
        for seconds in (0.001, 0.002, 0.005, 0.3):  # while it is made, and while it runs
            try:
                async with asyncio.timeout(seconds):
                    await sandbox.run()
            except TimeoutError:
                pass
            else:
                raise AssertionError
        tasks = [asyncio.create_task(sandbox.run()) for _ in range(10)]
        await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, asyncio.CancelledError) for error in ended), ended
        await sandbox.workers.call(lambda: None)
        keeper = sandbox.sandbox._keeper._pid
        while fds() > before:  # those that were cancelled while a thread made them
            await asyncio.sleep(0.02)
        with open(f"/proc/{keeper}/task/{keeper}/children") as children:
            while len(children.read().split()) > 1:
                await asyncio.sleep(0.02)
                children.seek(0)
        result = await sandbox.run(timeout=0.2)
        assert result.timed_out and result.signal == 9
asyncio.run(main())
""",
    )


def test_streams_are_asyncios_own(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("while read word; do echo got $word; echo heard >&2; done; exit 3").path,
        MAIN
        + """
async def main():
    async with AsyncSandbox(bundle) as sandbox:
        async with await sandbox.popen(stdin=PIPE) as process:
            process.stdin.write(b"one\\n")
            assert await process.stdout.readline() == b"got one\\n"
            assert await process.stderr.readline() == b"heard\\n"
            try:
                await process.wait(0.05)
            except Expired:
                pass
            else:
                raise AssertionError
            process.stdin.write(b"two\\n")
            process.stdin.close()
            assert [line async for line in process] == [b"got two\\n"]
            assert (await process.wait()).returncode == 3
        async with await sandbox.popen(stdin=PIPE) as process:
            result = await process.communicate(b"a\\nb\\n")
            assert (result.returncode, result.stdout) == (3, b"got a\\ngot b\\n")
        async with await sandbox.popen(["sleep", "1000"]) as process:
            assert (await process.communicate(timeout=0.1)).timed_out
        async with await sandbox.popen(["sleep", "1000"]) as process:
            pass
        assert (await process.wait()).signal == 9
asyncio.run(main())
""",
    )


def test_a_pool_is_awaited_in_the_same_way(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("true").path,
        MAIN
        + """
async def main():
    async with AsyncSandbox(bundle) as sandbox, AsyncPool(sandbox, 3) as pool:
        assert await pool.fill(30)
        runs = [pool.run(["sh", "-c", f"cat; exit {number}"], stdin=b"x") for number in range(40)]
        results = await asyncio.gather(*runs)
        assert [result.returncode for result in results] == list(range(40))
        try:
            await pool.run(["/no/such"])
        except RtError as error:
            assert error.hint
        else:
            raise AssertionError
        async with await pool.popen(["cat"], stdin=PIPE) as process:
            assert (await process.communicate(b"in")).stdout == b"in"
asyncio.run(main())
""",
    )
