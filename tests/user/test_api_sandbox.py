"""Sandboxes of the API, by an ordinary user: what a run gets, what it gives back, and what it leaves."""

from __future__ import annotations

import pytest
from conftest import MakeBundle
from lab.programs import Programs
from lab.ranges import map_ranges
from lab.users import User


def test_a_run_gives_back_what_the_program_said_and_how_it_ended(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("echo out; echo err >&2; exit 3").path,
        """
        with Sandbox(bundle) as sandbox:
            result = sandbox.run()
        assert (result.returncode, result.exit_code, result.signal) == (3, 3, None)
        assert (result.stdout, result.stderr, result.text) == (b"out\\n", b"err\\n", "out\\n")
        assert result.args[0] == "/bin/sh" and not result.ok and result.duration > 0
        assert result.rusage.ru_maxrss > 0 and result.peak_memory >= 1024
        """,
    )


def test_each_run_may_have_another_program_environment_and_directory(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("false").path,
        """
        with Sandbox(bundle, env={"KEPT": "1", "DROPPED": "1"}) as sandbox:
            for number in range(5):
                done = sandbox.run(["sh", "-c", "echo $KEPT $DROPPED $N; pwd"],
                                   env={"N": str(number), "DROPPED": None}, cwd="/tmp")
                assert done.check().text == f"1 {number}\\n/tmp\\n", done
            assert sandbox.run().returncode == 1  # the config's own, as before
            assert sandbox.run(["pwd"]).text == "/\\n"
        """,
    )


@pytest.mark.parametrize("kind", ["bytes", "file", "descriptor", "PIPE", "DEVNULL"])
def test_stdin_comes_from_wherever_it_is_said(program: Programs, bundle: MakeBundle, kind: str) -> None:
    program(
        bundle("exec cat").path,
        """
        import tempfile
        data = os.urandom(300_000)
        with Sandbox(bundle) as sandbox, tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            kind = sys.argv[3]
            if kind == "PIPE":
                with sandbox.popen(stdin=PIPE) as process:
                    result = process.communicate(data)
            else:
                given = {"bytes": data, "file": file, "descriptor": file.fileno(), "DEVNULL": DEVNULL}[kind]
                result = sandbox.run(stdin=given)
        assert result.returncode == 0
        assert result.stdout == (b"" if kind == "DEVNULL" else data)
        """,
        kind,
    )


def test_output_goes_to_wherever_it_is_said(program: Programs, bundle: MakeBundle) -> None:
    said = program(
        bundle("echo out; echo err >&2").path,
        """
        with Sandbox(bundle) as sandbox:
            assert sandbox.run(stderr=STDOUT).stdout == b"out\\nerr\\n"
            assert sandbox.run(stderr=DEVNULL).stderr == b""
            assert sandbox.run(stdout=None).stdout == b""
        """,
    )
    assert said == "out\n"


def test_a_pipe_can_be_talked_to_while_the_program_runs(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle('while read word; do echo "got $word"; done').path,
        """
        with Sandbox(bundle) as sandbox, sandbox.popen(stdin=PIPE) as process:
            for word in (b"one", b"two"):
                process.stdin.write(word + b"\\n")
                process.stdin.flush()
                assert process.stdout.readline() == b"got " + word + b"\\n"
            process.stdin.write(b"three\\n")
            process.stdin.close()
            assert list(process) == [b"got three\\n"]
            assert process.wait().returncode == 0 and process.poll() == 0
        """,
    )


def test_one_whose_time_is_over_is_killed_with_all_that_it_started(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("sleep 1000 & echo begun; sleep 1000").path,
        """
        with Sandbox(bundle) as sandbox:
            for seconds in (0.5, 5, 30):
                result = sandbox.run(timeout=seconds)
                if result.stdout:  # on a busy machine it takes its time to begin
                    break
            assert result.timed_out and result.signal == 9 and result.stdout == b"begun\\n"
            try:
                result.check()
            except ProcessFailed as error:
                assert "time was over" in error.message and error.result is result
            else:
                raise AssertionError
            with sandbox.popen() as process:
                try:
                    process.wait(0.1)
                except Expired:
                    pass
                else:
                    raise AssertionError
                assert process.poll() is None
            assert process.poll() == -9
        """,
    )


def test_one_that_writes_without_end_is_killed(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("exec yes").path,
        """
        with Sandbox(bundle) as sandbox:
            result = sandbox.run(max_output=100_000)
        assert result.output_exceeded and len(result.stdout) == 100_000 and not result.ok
        """,
    )


def test_what_cannot_start_is_an_error_in_the_words_of_the_command(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("true").path,
        """
        with Sandbox(bundle) as sandbox:
            try:
                sandbox.run(["no-such-program"])
            except RtError as error:
                assert 'exec: "no-such-program": executable file not found in $PATH' in error.message
                assert "name a program of the rootfs" in error.hint
            else:
                raise AssertionError
            try:
                sandbox.run(["sh", "nul\\0"])
            except ConfigError as error:
                assert error.path == "process.args[1]"
            else:
                raise AssertionError
            assert sandbox.run().ok  # and it goes on
        try:
            sandbox.run()
        except Closed:
            pass
        else:
            raise AssertionError
        """,
    )


def test_mounts_and_limits_can_differ_from_run_to_run(program: Programs, bundle: MakeBundle) -> None:
    made = bundle("cat /tmp/data/file; ulimit -n")
    program(
        made.path,
        """
        import pathlib, tempfile
        with tempfile.TemporaryDirectory() as folder, Sandbox(bundle) as sandbox:
            pathlib.Path(folder, "file").write_text("given\\n")
            mount = {"destination": "/tmp/data", "type": "bind", "source": folder, "options": ["bind", "ro"]}
            done = sandbox.run(mounts=[mount], limits=Limits(open_files=77))
            assert done.check().text == "given\\n77\\n"
            assert "No such file" in sandbox.run().stderr.decode()
        """,
    )


def test_a_config_can_be_given_as_a_dict(program: Programs, bundle: MakeBundle) -> None:
    made = bundle("true")
    program(
        made.path,
        """
        import json, pathlib
        config = json.loads(pathlib.Path(bundle, "config.json").read_text())
        os.chdir(bundle)
        for sandbox in (Sandbox(config), Sandbox(config, bundle + "/rootfs")):
            with sandbox:
                assert sandbox.run(["echo", "here"]).text == "here\\n"
        config["process"]["cwd"] = 7
        try:
            Sandbox(config)
        except ConfigError as error:
            assert error.path == "process.cwd"
        else:
            raise AssertionError
        """,
    )


def test_a_range_of_ids_is_mapped_once_for_all_runs(
    program: Programs, bundle: MakeBundle, alice: User
) -> None:
    """By a user namespace around those of the runs: what is in them is as with the command."""
    made = map_ranges(bundle("cat /proc/self/uid_map; cat /proc/self/setgroups; id -G"), alice)
    user = {"uid": 1000, "gid": 1000, "additionalGids": [7]}
    made.change(lambda config: config["process"].update(user=user))
    program(
        made.path,
        """
        with Sandbox(bundle) as sandbox, Pool(sandbox, 2) as pool, Runtime(root) as runtime:
            assert sandbox.compiled.outer
            theirs = runtime.run(bundle).check().text.splitlines()
            assert theirs[-2:] == ["allow", "1000 7"]
            for run in (sandbox.run, pool.run):
                assert run().check().text.splitlines()[-2:] == ["allow", "1000 7"]
                script = "id -u; touch /tmp/$$; chown 5:6 /tmp/$$ 2>&1; readlink /proc/self/ns/user"
                seen = [run(["sh", "-c", script]).text for _ in range(2)]
                assert seen[0] != seen[1]  # each in a user namespace of its own
                inner = [line.split() for line in run(["cat", "/proc/self/uid_map"]).text.splitlines()]
                outer = [line.split() for line in theirs[:-2]]
                assert [(line[0], line[2]) for line in inner] == [(line[0], line[2]) for line in outer]
            with sandbox.popen(["sleep", "1000"]) as process:
                assert os.stat(f"/proc/{process.pid}").st_uid not in (0, os.getuid())  # 1000 of the range
        """,
    )


def test_an_overlay_forgets_what_a_run_has_written(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("echo new >/file && cat /file; ls / | grep -c file").path,
        """
        with Sandbox(bundle, overlay=True) as sandbox:
            try:
                first = sandbox.run()
            except RtError as error:
                assert "overlay" in error.message  # not in a user namespace before Linux 5.11
            else:
                assert first.text == "new\\n1\\n" and sandbox.run(["cat", "/file"]).returncode == 1
        assert not os.path.exists(bundle + "/rootfs/file")
        """,
    )


def test_limits_that_come_again_are_compiled_once(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("ulimit -n").path,
        """
        with Sandbox(bundle) as sandbox:
            for number in (50, 51, 50, 51):
                assert sandbox.run(limits=Limits(open_files=number)).text == f"{number}\\n"
            assert len(sandbox._variants) == 2
            for number in range(60, 80):
                sandbox._variant(Limits(open_files=number), ())
            assert len(sandbox._variants) <= 16
        """,
    )
