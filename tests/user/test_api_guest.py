"""The API is a guest in its program: it changes nothing there, and leaves nothing, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess

from conftest import MakeBundle
from lab.programs import Programs, running
from lab.waiting import until

# How many runs are to leave no trace in the program; the usual run is short.
FLAT = os.environ.get("RT_API_FLAT", "120")


def test_nothing_is_left_when_the_program_is_killed(program: Programs, bundle: MakeBundle) -> None:
    made = bundle("exec sleep 98765")
    process = program.popen(
        made.path,
        """
        sandbox = Sandbox(bundle)
        running = [sandbox.popen() for _ in range(5)]
        if not os.fork():  # it lives on, and keeps nothing alive
            os.read(0, 1)
            os._exit(0)
        print("ready", flush=True)
        time.sleep(1000)
        """,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    # Begun, they may still be shells that have to make way.
    until(lambda: running(program.user.uid).count("sleep 98765") == 5, lambda: running(program.user.uid))
    process.kill()
    process.wait()

    def left() -> list[str]:
        return [line for line in running(program.user.uid) if line.startswith(("sleep", "rt-init"))]

    until(lambda: not left(), left)
    assert process.stdin is not None
    process.stdin.close()
    process.stdout.read()  # up to the end of the copy
    process.stdout.close()


def test_the_state_of_the_process_stays_as_it_is(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("true").path,
        """
        import ctypes
        def state():
            subreaper = ctypes.c_int()
            ctypes.CDLL(None).prctl(37, ctypes.byref(subreaper), 0, 0, 0)
            handlers = [signal.getsignal(number) for number in range(1, 65) if number not in (32, 33)]
            umask = os.umask(0o22)
            os.umask(umask)
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            threads = threading.active_count()
            return subreaper.value, handlers, umask, mask, threads, os.getcwd(), os.environ.copy()
        os.umask(0o007)
        os.chdir("/tmp")
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
        before = state()
        with Runtime(root) as runtime, Sandbox(bundle) as sandbox:
            runtime.run(bundle).check()
            sandbox.run().check()
            with runtime.create(bundle) as container:
                container.start()
            os.kill(os.getpid(), signal.SIGTERM)  # blocked by the program: not let through by us
            runtime.run(bundle).check()
            assert state() == before
        assert state() == before and signal.SIGTERM in signal.sigpending()
        """,
    )


def test_the_programs_own_descriptors_are_not_for_containers(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("ls -l /proc/self/fd").path,
        """
        secret = os.open(bundle + "/config.json", os.O_RDONLY)
        for number in (5, 77, 300):
            os.dup2(secret, number, inheritable=True)
        os.set_inheritable(secret, True)
        with Runtime(root) as runtime, Sandbox(bundle) as sandbox:
            for result in (sandbox.run(), runtime.run(bundle)):
                assert "config.json" not in result.check().text, result.text
                assert len(result.text.splitlines()) <= 5, result.text  # total, 0 to 2, and ls's own
            with runtime.create(bundle, args=["sleep", "1000"]) as container:
                container.start()
                assert "config.json" not in container.exec(["ls", "-l", "/proc/self/fd"]).check().text
                assert "config.json" not in container.exec(["ls", "-l", "/proc/1/fd"]).check().text
        assert os.fstat(77).st_ino == os.fstat(secret).st_ino
        """,
    )


def test_what_the_program_does_with_sigchld_and_children_does_not_matter(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("sleep 0.05; exit 9").path,
        """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with Sandbox(bundle) as sandbox:
            for _ in range(3):
                assert sandbox.run().returncode == 9
        with Sandbox(bundle) as sandbox, Runtime(root) as runtime:
            # The kernel keeps the status with a pidfd since Linux 6.15.
            try:
                assert runtime.run(bundle).returncode == 9
            except RtError as error:
                assert "SIGCHLD" in error.message and "Sandbox" in error.hint
            assert runtime.containers() == []
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            def collect():
                while not done.is_set():
                    try:
                        os.waitpid(-1, os.WNOHANG)
                    except ChildProcessError:
                        pass
                    time.sleep(0.001)
            done = threading.Event()
            thread = threading.Thread(target=collect)
            thread.start()
            for _ in range(5):
                assert sandbox.run().returncode == 9
            done.set()
            thread.join()
        """,
    )


def test_threads_can_share_a_sandbox_and_a_runtime(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("true").path,
        """
        from concurrent.futures import ThreadPoolExecutor
        with Runtime(root) as runtime, Sandbox(bundle) as sandbox, ThreadPoolExecutor(6) as threads:
            def one(number):
                args = ["sh", "-c", f"cat; echo {number}; exit {number % 7}"]
                if number % 4:
                    return sandbox.run(args, stdin=b"in ")
                return runtime.run(bundle, args=args, stdin=b"in ")
            for number, result in enumerate(threads.map(one, range(40))):
                assert (result.returncode, result.text) == (number % 7, f"in {number}\\n")
            assert runtime.containers() == []
        """,
    )


def test_many_runs_leave_no_trace_in_the_program(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("true").path,
        """
        import gc
        def count():
            gc.collect()
            with open(f"/proc/self/task/{os.getpid()}/children") as children:
                pids = children.read().split()
            fds = len(os.listdir("/proc/self/fd"))
            return fds, threading.active_count(), len(pids), len(gc.get_objects())
        with Sandbox(bundle) as sandbox, Runtime(root) as runtime:
            def some(number):
                for _ in range(number):
                    assert sandbox.run(stdin=b"x").ok
                    try:
                        sandbox.run(["/no/such"])
                    except RtError:
                        pass
                assert runtime.run(bundle).ok
            some(10)
            before = count()
            some(int(sys.argv[3]) // 2)
            after = count()
            assert after[:3] == before[:3] and after[3] - before[3] < 100, (before, after)
        assert count()[2] == 0
        """,
        FLAT,
        timeout=600,
    )


def test_a_keeper_that_was_killed_takes_its_runs_along_and_another_is_started(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("exec sleep 1000").path,
        """
        with Sandbox(bundle) as sandbox:
            process = sandbox.popen()
            os.kill(sandbox._keeper._pid, signal.SIGKILL)
            try:
                process.wait(60)
            except RtError as error:
                assert "has been killed" in error.message
            else:
                raise AssertionError
            process.close()
            assert sandbox.run(["true"]).ok
        """,
    )


def test_a_sandbox_that_is_closed_ends_its_runs(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("exec sleep 1000").path,
        """
        with Sandbox(bundle) as sandbox:
            process = sandbox.popen()
        assert process.wait(60).signal == signal.SIGKILL
        process.close()
        """,
    )


def test_ctrl_c_reaches_the_program_and_not_its_containers(program: Programs, bundle: MakeBundle) -> None:
    made = bundle("echo up; sleep 0.5; echo whole")
    process = program.popen(
        made.path,
        """
        with Sandbox(bundle) as sandbox, sandbox.popen() as process:
            assert process.stdout.readline() == b"up\\n"
            try:
                print("up", flush=True)
                time.sleep(60)
            except KeyboardInterrupt:
                pass
            assert process.communicate().check().stdout == b"whole\\n"
        """,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 0
    process.stdout.close()


def test_hooks_run_in_the_bundle_and_the_program_stays_where_it_is(
    program: Programs, bundle: MakeBundle
) -> None:
    made = bundle("true")
    say = "cat >>states; pwd >>places; umask >>umasks; ls -l /proc/self/fd >>opened"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", say], "env": ["PATH=/usr/bin:/bin"]}
    kinds = ("createRuntime", "poststart", "poststop")
    made.change(lambda config: config.update(hooks={kind: [hook] for kind in kinds}))
    program(
        made.path,
        """
        os.chdir("/tmp")
        secret = os.open(bundle + "/config.json", os.O_RDONLY)
        os.set_inheritable(secret, True)
        moved = threading.Event()
        def watch():
            while not done.wait(0.0005):
                if os.getcwd() != "/tmp":
                    moved.set()
        done = threading.Event()
        watcher = threading.Thread(target=watch)
        watcher.start()
        with Runtime(root) as runtime:
            runtime.run(bundle).check()
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            try:
                runtime.run(bundle).check()
            except RtError as error:
                assert "SIGCHLD" in error.message
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            assert runtime.containers() == []
            import json, pathlib
            config = json.loads(pathlib.Path(bundle, "config.json").read_text())
            config["hooks"] = {"createRuntime": [{"path": "/no/such/hook"}]}
            try:
                runtime.run(config, rootfs=bundle + "/rootfs")
            except RtError as error:
                assert error.message == "hooks.createRuntime[0]: /no/such/hook: no such file or directory"
            else:
                raise AssertionError
        done.set()
        watcher.join()
        assert not moved.is_set()
        with open(bundle + "/places") as places, open(bundle + "/opened") as opened:
            assert set(places.read().split()) == {os.path.realpath(bundle)}
            assert "config.json" not in opened.read()
        with open(bundle + "/umasks") as umasks:
            umask = os.umask(0)
            assert set(umasks.read().split()) == {f"{umask:04o}"}
        """,
    )
