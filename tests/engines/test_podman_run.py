"""podman run and exec: what a program gets and what its end tells."""

from __future__ import annotations

import subprocess
import tempfile

from lab.engines import case, finish
from lab.podman import IMAGE, Podman
from lab.terminal import Session


@case
def test_output_comes_back(podman: Podman) -> None:
    assert podman.run("echo", "hello") == "hello"


@case
def test_the_exit_status_is_that_of_the_program(podman: Podman) -> None:
    assert podman("run", "--rm", IMAGE, "sh", "-c", "exit 42").code == 42


@case
def test_a_program_ended_by_a_signal_tells_so(podman: Podman) -> None:
    assert podman("run", "--rm", "--init", IMAGE, "sh", "-c", "kill -9 $$").code == 137


@case
def test_a_missing_program_is_127(podman: Podman) -> None:
    for program in ("/nope", "nope"):
        done = podman("run", "--rm", IMAGE, program)
        assert done.code == 127, str(done)
        assert "OCI runtime attempted to invoke a command that was not found" in done.err, str(done)


@case
def test_a_program_that_may_not_run_is_126(podman: Podman) -> None:
    for program in ("/etc/passwd", "/etc"):
        done = podman("run", "--rm", IMAGE, program)
        assert done.code == 126, str(done)
        assert "OCI permission denied" in done.err, str(done)


@case
def test_a_bad_option_is_125(podman: Podman) -> None:
    assert podman("run", "--rm", "--no-such-option", IMAGE, "true").code == 125


@case
def test_a_missing_directory_to_work_in_is_an_error(podman: Podman) -> None:
    done = podman("run", "--rm", "-w", "/etc/passwd/x", IMAGE, "true")
    assert done.code in (126, 127), str(done)


@case
def test_stdin_is_passed_on(podman: Podman) -> None:
    assert podman.run("-i", "wc", "-c", stdin="12345") == "5"


@case
def test_much_output_comes_whole(podman: Podman) -> None:
    out = podman.run("sh", "-c", "seq 1 100000 | tail -c 400000")
    assert len(out) == 399999 and out.endswith("100000")


@case
def test_run_on_a_terminal(podman: Podman) -> None:
    with Session(podman, "run", "--rm", "-it", IMAGE, "sh") as person:
        person.expect("# ")
        person.type("tty; echo a$((20+22))b\n")
        assert "/dev/pts/0" in person.expect("a42b")
        person.type("exit 7\n")
        assert person.wait() == 7


@case
def test_the_terminal_has_the_size_of_the_persons(podman: Podman) -> None:
    script = "until stty size | grep '33 99'; do sleep 0.1; done"  # podman sets it once the program runs
    with Session(podman, "run", "--rm", "-it", IMAGE, "sh", "-c", script, rows=33, columns=99) as it:
        it.expect("33 99")
        assert it.wait() == 0


@case
def test_a_terminal_without_a_person(podman: Podman) -> None:
    name = podman.start("-t", "sh", "-c", "tty; sleep 100")
    assert "pts" in podman.ok("exec", name, "readlink", "/proc/1/fd/0")
    podman.ok("rm", "-f", "-t", "0", name)


@case
def test_environment_directory_and_user(podman: Podman) -> None:
    script = 'echo "$A $(pwd) $(id -u):$(id -g):$(id -G) $HOME"'
    out = podman.run(
        "-e", "A=b c", "-w", "/usr", "-u", "1000:1000", "--group-add", "7", "--", "sh", "-c", script
    )
    assert out.startswith("b c /usr 1000:1000:1000 7 /"), out


@case
def test_the_umask_is_the_one_asked(podman: Podman) -> None:
    assert podman.run("--umask=0027", "sh", "-c", "umask") == "0027"


@case
def test_an_entrypoint_of_the_command_line(podman: Podman) -> None:
    assert podman.run("--entrypoint=/bin/echo", "--", "x", "y") == "x y"


@case
def test_an_init_process_reaps(podman: Podman) -> None:
    script = "(sleep 0.1 &); sleep 0.5; cat /proc/1/comm"
    script += "; while grep -q 'State:.Z' /proc/[0-9]*/status 2>&-; do sleep 0.1; done"
    assert podman.run("--init", "sh", "-c", script) in ("catatonit", "podman-init")


@case
def test_an_id_file_and_a_pid_file(podman: Podman) -> None:
    files = [podman.base / "work" / f"{podman.name()}.{end}" for end in ("id", "pid")]
    podman.run(f"--cidfile={files[0]}", f"--pidfile={files[1]}", "--", "true")
    assert len(files[0].read_text()) == 64
    assert int(files[1].read_text()) > 1


@case
def test_further_descriptors_are_passed_on(podman: Podman) -> None:
    words = podman.argv("run", "--rm", "--preserve-fds", "1", IMAGE, "sh", "-c", "ls /proc/self/fd; cat <&3")
    passed = ["sh", "-c", 'echo third > third; exec "$@" 3<third', "sh", *words]
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryFile() as said:
        started = subprocess.Popen(passed, cwd=here, env=podman.environment(), stdout=said, stderr=said)
        done = finish(started, [said], 60)
    assert done.code == 0 and done.out.endswith("third\n"), str(done)
    assert "4" in done.out.split() and "5" not in done.out.split(), str(done)


def test_the_runtime_of_containers_conf_is_the_one_that_runs(podman: Podman) -> None:
    """Without --runtime on the command line: no case, runc is not asked."""
    name = podman.name()
    words = podman.argv("run", "--name", name, IMAGE, "true")
    at = words.index("--runtime")
    subprocess.run(words[:at] + words[at + 2 :], env=podman.environment(), check=True, timeout=60)
    assert podman.inspect(name, ".OCIRuntime") == "rt"
    podman.ok("rm", name)
