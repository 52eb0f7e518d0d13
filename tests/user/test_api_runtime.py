"""Named containers of the API, by an ordinary user: the same containers as those of the command."""

from __future__ import annotations

import json

from conftest import MakeBundle
from lab.programs import Programs
from lab.runtime import Runtime


def test_run_makes_starts_and_deletes_a_container(program: Programs, bundle: MakeBundle, rt: Runtime) -> None:
    program(
        bundle("echo $WHO; exit 3").path,
        """
        with Runtime(root) as runtime:
            result = runtime.run(bundle, "c", env={"WHO": "me"})
            assert (result.returncode, result.stdout) == (3, b"me\\n")
            assert runtime.run(bundle, args=["cat"], stdin=b"in").stdout == b"in"
            assert runtime.containers() == [] and runtime.list() == []
        """,
    )
    assert json.loads(rt.ok("list", "--format", "json")) is None


def test_the_command_sees_what_the_api_makes(program: Programs, bundle: MakeBundle, rt: Runtime) -> None:
    program(
        bundle("exec sleep 1000").path,
        """
        with Runtime(root) as runtime:
            container = runtime.create(bundle, "c")
            assert container.status == "created" and container.pid > 0
            container.start()
            assert container.status == "running"
        """,
    )
    assert rt.state("c")["status"] == "running"
    rt.ok("kill", "c", "KILL")
    rt.wait_for("c", "stopped")
    rt.ok("delete", "c")


def test_the_api_sees_what_the_command_makes(program: Programs, bundle: MakeBundle, rt: Runtime) -> None:
    made = bundle("exec sleep 1000")
    rt.ok("create", "--bundle", str(made.path), "c")
    program(
        made.path,
        """
        with Runtime(root) as runtime:
            [container] = runtime.containers()
            assert container.id == "c" and [state["id"] for state in runtime.list()] == ["c"]
            container.start()
            assert container.exec(["echo", "inside"], cwd="/tmp").check().text == "inside\\n"
            container.kill("KILL")
            assert container.wait(60) is None  # a child of somebody else
            container.delete()
            try:
                container.start()
            except ContainerNotFound as error:
                assert 'container "c" does not exist' == error.message and error.hint
            else:
                raise AssertionError
        """,
    )
    assert rt("state", "c").returncode == 1


def test_a_container_can_be_led_through_its_life(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("trap 'exit 7' TERM; touch /tmp/ready; while :; do sleep 0.02; done").path,
        """
        with Runtime(root) as runtime:
            with runtime.create(bundle) as container:
                container.start()
                ready = os.path.join(bundle, "rootfs/tmp/ready")
                while not os.path.exists(ready):
                    time.sleep(0.01)
                with container.popen(["cat"], stdin=PIPE) as cat:
                    assert cat.communicate(b"to an exec").stdout == b"to an exec"
                assert container.exec(["sh", "-c", "echo $A; exit 4"], env={"A": "b"}).exit_code == 4
                container.kill("TERM")
                assert container.wait(60) == 7 and container.status == "stopped"
            assert runtime.containers() == []
        """,
    )


def test_a_container_that_runs_is_deleted_at_the_end_of_its_block(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("exec sleep 1000").path,
        """
        with Runtime(root) as runtime:
            with runtime.create(bundle, "c") as container:
                container.start()
            assert runtime.containers() == []
            with runtime.popen(bundle, "d") as process:
                assert [state["status"] for state in runtime.list()] == ["running"]
            assert process.poll() == -9 and runtime.containers() == []
        try:
            runtime.create(bundle)
        except RtError as error:
            assert "closed" in error.message
        else:
            raise AssertionError
        """,
    )


def test_nothing_is_left_of_one_that_cannot_start(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle(["/no/such"]).path,
        """
        with Runtime(root) as runtime:
            for call in (runtime.run, runtime.create):
                try:
                    call(bundle)
                except RtError as error:
                    assert error.message.startswith('exec: "/no/such"')
                else:
                    raise AssertionError
            assert runtime.containers() == []
            runtime.create(bundle, "c", args=["true"])
            try:
                runtime.create(bundle, "c")
            except RtError as error:
                assert "exists" in error.message
            else:
                raise AssertionError
            runtime.delete("c", force=True)
        """,
    )


def test_every_method_of_a_container_is_one_of_the_runtime_by_id(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("exec sleep 1000").path,
        """
        with Runtime(root, degrade="warn") as runtime:
            made = runtime.create(bundle, "c", limits=Limits(memory=1 << 26))
            assert [item["field"] for item in made.degradations] in ([], ["linux.resources.memory.limit"])
            runtime.start("c")
            assert runtime.state("c")["status"] == "running"
            assert runtime.exec("c", ["echo", "x"], user=(0, 0)).check().text == "x\\n"
            runtime.kill("c", 9)
            assert made.wait(30) == -9 and made.pid == 0
            runtime.delete("c")
            for call in (runtime.state, runtime.start, runtime.get, runtime.kill, runtime.delete):
                try:
                    call("c")
                except ContainerNotFound:
                    pass
                else:
                    raise AssertionError(call)
            runtime.delete("c", force=True)  # fine, as with the command
            for wrong in ("", "../c", "a b"):
                try:
                    runtime.get(wrong)
                except RtError as error:
                    assert "invalid container id" in error.message
                else:
                    raise AssertionError
        try:
            Runtime(root, degrade="maybe")
        except ValueError:
            pass
        else:
            raise AssertionError
        """,
    )
