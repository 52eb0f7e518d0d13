"""Pools of the API, by an ordinary user: containers that wait, and are told late what to execute."""

from __future__ import annotations

import subprocess

from conftest import MakeBundle
from lab.programs import Programs, end_and_leave_nothing


def test_a_ready_container_is_told_late_what_to_execute(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("echo config; exit 4").path,
        """
        with Sandbox(bundle, env={"A": "1"}) as sandbox, Pool(sandbox, 3) as pool:
            assert pool.fill(30) and pool.ready == 3
            assert pool.run().returncode == 4
            for number in range(8):
                done = pool.run(["sh", "-c", "echo $A $B; pwd; cat; exit 5"], env={"B": str(number)},
                                cwd="/tmp", stdin=b"given")
                assert (done.returncode, done.text) == (5, f"1 {number}\\n/tmp\\ngiven"), done
            assert pool.run(["sh", "-c", "echo out; echo err >&2"], stderr=STDOUT).text == "out\\nerr\\n"
            with pool.popen(["cat"], stdin=PIPE) as process:
                assert process.communicate(b"talk").stdout == b"talk"
            assert pool.fill(30)
        """,
    )


def test_errors_come_in_the_words_of_the_command_and_cost_one_container(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("true").path,
        """
        with Sandbox(bundle) as sandbox, Pool(sandbox, 2) as pool:
            for args, cwd, words in (
                (["no-such"], None, 'exec: "no-such": executable file not found in $PATH'),
                (["/etc/passwd"], None, "permission denied"),
                (["true"], "/no/such/place", "process.cwd"),
            ):
                try:
                    pool.run(args, cwd=cwd)
                except RtError as error:
                    assert words in error.message, error.message
                else:
                    raise AssertionError
            assert pool.run().ok
            assert pool.run(["sleep", "1000"], timeout=0.2).timed_out
        """,
    )


def test_a_waiting_container_that_was_killed_is_passed_over(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("true").path,
        """
        with Sandbox(bundle) as sandbox, Pool(sandbox, 2) as pool:
            pool.fill(30)
            for run in list(pool._ready):
                os.kill(run.pid, signal.SIGKILL)
                while run.waits:
                    time.sleep(0.01)
            assert pool.run().ok and pool.fill(30)
        """,
    )


def test_another_is_made_once_the_program_runs_and_not_while_it_starts(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("true").path,
        """
        with Sandbox(bundle) as sandbox, Pool(sandbox, 1) as pool:
            pool.fill(30)
            start = pool._ready[0].go
            def slowly(*given):
                time.sleep(0.3)
                assert pool.ready == 0
                start(*given)
            pool._ready[0].go = slowly
            assert pool.run().ok and pool.fill(30)
            try:
                pool.run(["no-such"])
            except RtError:
                assert pool.fill(30)
            else:
                raise AssertionError
        """,
    )


def test_many_threads_can_share_a_pool(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("true").path,
        """
        from concurrent.futures import ThreadPoolExecutor
        with Sandbox(bundle) as sandbox, Pool(sandbox, 3) as pool, ThreadPoolExecutor(6) as threads:
            def one(number):
                return pool.run(["sh", "-c", f"exit {number}"]).returncode
            assert list(threads.map(one, range(50))) == list(range(50))
        """,
    )


def test_a_closed_pool_leaves_no_container_and_no_thread(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("true").path,
        """
        def count():
            return len(os.listdir("/proc/self/fd")), threading.active_count()
        with Sandbox(bundle) as sandbox:
            sandbox.run()
            before = count()
            for _ in range(3):
                with Pool(sandbox, 3) as pool:
                    pool.fill(30)
                    pool.run()
                try:
                    pool.run()
                except Closed:
                    pass
                else:
                    raise AssertionError
            assert count() == before
            with open(f"/proc/{sandbox._keeper._pid}/task/{sandbox._keeper._pid}/children") as children:
                assert not children.read()
        """,
    )


def test_what_waits_holds_nothing_of_the_program_and_little_memory(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("true").path,
        """
        secret = os.open(bundle + "/config.json", os.O_RDONLY)
        os.set_inheritable(secret, True)
        with Sandbox(bundle) as sandbox, Pool(sandbox, 1) as pool:
            pool.fill(30)
            [run] = pool._ready
            opened = sorted(int(name) for name in os.listdir(f"/proc/{run.pid}/fd"))
            assert len(opened) == 4 and opened[:3] == [0, 1, 2], opened
            assert {os.readlink(f"/proc/{run.pid}/fd/{number}") for number in range(3)} == {"/dev/null"}
        """,
    )


def test_nothing_is_left_of_a_pool_when_the_program_is_killed(program: Programs, bundle: MakeBundle) -> None:
    made = bundle("exec sleep 4321")
    process = program.popen(
        made.path,
        """
        sandbox = Sandbox(bundle)
        pool = Pool(sandbox, 4)
        pool.fill(30)
        running = pool.popen()
        print("ready", flush=True)
        time.sleep(60)
        """,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    end_and_leave_nothing(process, program.user.uid, "sleep", "rt-init")
