"""containerd as the kubelet drives it: sandboxes and containers of a runtime handler."""

from __future__ import annotations

from lab.cri import CREATED, EXITED, NODE, NOT_READY, OWN, POD, READY, RUNNING, Cri, Pod, Refused
from lab.engines import case
from lab.waiting import until

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def ended(pod: Pod, container: str) -> int:
    """Wait for a container's end; its exit code."""
    until(lambda: pod.container(container)["state"] == EXITED, f"{container} has ended")
    code: int = pod.container(container)["exit_code"]
    return code


@case
def test_the_runtime_is_a_handler(cri: Cri) -> None:
    assert cri("Version")["runtime_name"] == "containerd"
    pod = cri.pod()
    assert pod.status()["runtime_handler"] == cri.runtime
    config = pod.config | {"metadata": {"name": pod.name, "uid": "x", "namespace": "other"}}
    done = cri.refused("RunPodSandbox", config=config, runtime_handler="none")
    assert "no runtime for" in done.text, str(done)
    pod.remove()


@case
def test_a_sandbox_lives_until_it_is_stopped_and_removed(cri: Cri) -> None:
    pod = cri.pod(labels={"a": "b"}, annotations={"note": "kept as it is: ü"})
    status = pod.status()
    assert (status["state"], status["labels"]) == (READY, {"a": "b"})
    assert status["annotations"] == {"note": "kept as it is: ü"}
    for _ in range(2):  # the kubelet asks more than once
        cri("StopPodSandbox", pod_sandbox_id=pod.id)
        assert pod.status()["state"] == NOT_READY
    for _ in range(2):
        cri("RemovePodSandbox", pod_sandbox_id=pod.id)
    assert cri.refused("PodSandboxStatus", pod_sandbox_id=pod.id).code == "NOT_FOUND"


@case
def test_a_container_is_created_started_and_ends(cri: Cri) -> None:
    pod = cri.pod()
    name = "once"
    container = pod.create("sh", "-c", "echo out; echo err >&2; exit 7", name=name)
    assert pod.container(container)["state"] == CREATED
    cri("StartContainer", container_id=container)
    assert ended(pod, container) == 7
    until(lambda: sorted(pod.log(name)) == ["stderr F err", "stdout F out"], "both lines are logged")
    cri("RemoveContainer", container_id=container)
    assert cri.refused("ContainerStatus", container_id=container).code == "NOT_FOUND"
    pod.remove()


@case
def test_a_program_that_cannot_start_is_told_with_its_reason(cri: Cri) -> None:
    pod = cri.pod()
    for program, why in (
        ("/nope", 'exec: "/nope": stat /nope: no such file or directory'),
        ("nope", 'exec: "nope": executable file not found in $PATH'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ):
        container = pod.create(program)
        assert why in cri.refused("StartContainer", container_id=container).text
        status = pod.container(container)
        assert (status["state"], status["exit_code"], status["reason"]) == (EXITED, 128, "StartError"), status
        assert why in status["message"], status
        cri("RemoveContainer", container_id=container)
    pod.remove()


@case
def test_stop_gives_the_program_its_grace(cri: Cri) -> None:
    pod = cri.pod()
    container = pod.start("sh", "-c", "trap 'sleep 0.5; exit 5' TERM; touch /up; while :; do sleep 0.1; done")
    until(lambda: pod.exec(container, "test", "-e", "/up").code == 0, "it is up")
    cri("StopContainer", container_id=container, timeout=60)
    assert ended(pod, container) == 5
    cri("StopContainer", container_id=container, timeout=60)
    pod.remove()


@case
def test_stop_kills_what_does_not_end_in_time(cri: Cri) -> None:
    pod = cri.pod()
    container = pod.start("sh", "-c", "trap '' TERM; sleep 1000 & while :; do sleep 0.1; done")
    cri("StopContainer", container_id=container, timeout=1)
    assert ended(pod, container) == 137
    other = pod.start("sleep", "1000")
    cri("StopContainer", container_id=other)  # no grace at all
    assert ended(pod, other) == 137
    pod.remove()


@case
def test_removing_a_pod_ends_what_runs_in_it(cri: Cri) -> None:
    pod = cri.pod()
    for _ in range(3):
        pod.start("sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000")
    pod.remove()
    listed = cri("ListContainers")["containers"]
    assert pod.id not in [each["pod_sandbox_id"] for each in listed], listed


@case
def test_exec_gives_output_and_status(cri: Cri) -> None:
    pod = cri.pod()
    envs = [{"key": "GIVEN", "value": "1"}]
    container = pod.start("sh", "-c", FOREVER, envs=envs, working_dir="/tmp")
    done = pod.exec(container, "sh", "-c", "echo $GIVEN; pwd; echo err >&2; exit 4")
    assert (done.code, done.out, done.err) == (4, "1\n/tmp\n", "err\n"), str(done)
    refused = cri.refused("ExecSync", container_id=container, cmd=["nope"], timeout=60)
    assert 'exec: "nope": executable file not found in $PATH' in refused.text, str(refused)
    pod.remove()


@case
def test_exec_ends_at_its_timeout(cri: Cri) -> None:
    pod = cri.pod()
    container = pod.start("sh", "-c", FOREVER)
    refused = cri.refused("ExecSync", container_id=container, cmd=["sleep", "321"], timeout=1)
    assert refused.code == "DEADLINE_EXCEEDED" or "timeout" in refused.text, str(refused)
    until(lambda: "sleep 321" not in pod.exec(container, "ps").out, "it was killed")
    assert pod.container(container)["state"] == RUNNING
    pod.remove()


@case
def test_exec_in_what_has_ended_is_refused(cri: Cri) -> None:
    pod = cri.pod()
    container = pod.start("true")
    assert ended(pod, container) == 0
    refused = cri.refused("ExecSync", container_id=container, cmd=["true"])
    assert "CONTAINER_EXITED state" in refused.text, str(refused)
    pod.remove()


@case
def test_stats_are_read_from_the_cgroup(cri: Cri) -> None:
    pod = cri.pod()
    container = pod.start("sh", "-c", FOREVER)
    stats = cri("ContainerStats", container_id=container)["stats"]
    assert stats["cpu"]["usage_core_nano_seconds"]["value"] > 0, stats
    assert stats["memory"]["working_set_bytes"]["value"] > 0, stats
    pod.remove()


@case
def test_limits_are_set_and_changed(cri: Cri) -> None:
    pod = cri.pod()
    resources = {
        "memory_limit_in_bytes": 64 << 20,
        "cpu_shares": 512,
        "cpu_period": 100000,
        "cpu_quota": 50000,
    }
    container = pod.start("sh", "-c", FOREVER, linux={"resources": resources})
    own = f"{pod.parent}/{container}"
    read = [
        *("cat", f"/sys/fs/cgroup/memory{own}/memory.limit_in_bytes"),
        *(f"/sys/fs/cgroup/cpu{own}/cpu.shares", f"/sys/fs/cgroup/cpu{own}/cpu.cfs_quota_us"),
    ]
    assert cri.ward.ok(*read).split() == [str(64 << 20), "512", "50000"]
    changed = {"memory_limit_in_bytes": 96 << 20, "cpu_shares": 256, "cpu_quota": 70000, "cpu_period": 100000}
    cri("UpdateContainerResources", container_id=container, linux=changed)
    assert cri.ward.ok(*read).split() == [str(96 << 20), "256", "70000"]
    pod.remove()


@case
def test_a_program_that_needs_too_much_memory_is_told_so(cri: Cri) -> None:
    pod = cri.pod()
    resources = {"memory_limit_in_bytes": 20 << 20, "cpu_shares": 2}
    # The shim listens for it from the start on, but not before.
    script = "until [ -e /go ]; do sleep 0.1; done; exec tail /dev/zero"
    container = pod.start("sh", "-c", script, linux={"resources": resources})
    assert pod.exec(container, "touch", "/go").code == 0
    assert ended(pod, container) == 137
    until(lambda: pod.container(container)["reason"] == "OOMKilled", "the reason is known")
    pod.remove()


@case
def test_containers_of_a_pod_share_its_network(cri: Cri) -> None:
    pod = cri.pod()
    server = pod.start("sh", "-c", "echo page > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")
    client = pod.start("sh", "-c", FOREVER)
    fetch = ("wget", "-q", "-O", "-", "http://127.0.0.1:8080/")
    until(lambda: pod.exec(client, *fetch).out == "page\n", "the page over the loopback")
    address = pod.status()["network"]["ip"]
    assert address.startswith("172.31.77."), address
    assert cri.ward.ok("busybox", "wget", "-q", "-O", "-", f"http://{address}:8080/") == "page"
    other = cri.pod()
    stranger = other.start("sh", "-c", FOREVER)
    done = other.exec(stranger, "wget", "-q", "-O", "-", f"http://{address}:8080/")
    assert done.out == "page\n", str(done)
    assert pod.container(server)["state"] == RUNNING
    other.remove()
    pod.remove()


@case
def test_a_pod_can_share_its_processes_or_not(cri: Cri) -> None:
    for mode, seen in ((POD, True), (OWN, False)):
        options = {"namespace_options": {"pid": mode}}
        pod = cri.pod(linux={"security_context": options})
        pod.start("sleep", "4242", linux={"security_context": options})
        looker = pod.start("sh", "-c", FOREVER, linux={"security_context": options})
        assert ("sleep 4242" in pod.exec(looker, "ps").out) is seen
        pod.remove()


@case
def test_a_pod_can_use_the_namespaces_of_the_node(cri: Cri) -> None:
    options = {"namespace_options": {"network": NODE, "pid": NODE, "ipc": NODE}}
    pod = cri.pod(linux={"security_context": options}, hostname="")
    container = pod.start("sh", "-c", FOREVER, linux={"security_context": options})
    assert "containerd" in pod.exec(container, "ps").out
    links = pod.exec(container, "ls", "/sys/class/net").out
    assert "rtpods0" in links or links.split() == ["lo"], links
    cri("StopContainer", container_id=container, timeout=5)
    pod.remove()


@case
def test_security_is_as_asked(cri: Cri) -> None:
    pod = cri.pod()
    context = {
        "capabilities": {"drop_capabilities": ["ALL"], "add_capabilities": ["NET_RAW"]},
        "run_as_user": {"value": 1000},
        "run_as_group": {"value": 1000},
        "supplemental_groups": [7],
        "readonly_rootfs": 1,
        "no_new_privs": 1,
        "seccomp": {"profile_type": 0},
        "masked_paths": ["/proc/kcore"],
        "readonly_paths": ["/proc/sys"],
    }
    container = pod.start("sh", "-c", FOREVER, linux={"security_context": context})
    script = "id -u; id -G; grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; touch /x || echo refused"
    said = pod.exec(container, "sh", "-c", script).out.split()
    assert said[:3] == ["1000", "1000", "7"] and said[-1] == "refused", said
    assert said[3:-1] == ["CapBnd:", f"{1 << 13:016x}", "NoNewPrivs:", "1", "Seccomp:", "2"], said
    pod.remove()


@case
def test_mounts_names_and_sysctls_are_the_pods(cri: Cri) -> None:
    pod = cri.pod(
        linux={"sysctls": {"net.ipv4.ip_forward": "0"}},
        dns_config={"servers": ["192.0.2.9"]},
    )
    etc = {"container_path": "/given", "host_path": f"{cri.ward.base}/rootfs/etc", "readonly": 1}
    container = pod.start("sh", "-c", FOREVER, mounts=[etc])
    script = (
        "hostname; cat /proc/sys/net/ipv4/ip_forward; head -1 /given/group; touch /given/x || echo refused"
    )
    said = pod.exec(container, "sh", "-c", f"{script}; cat /etc/resolv.conf").out
    assert said.startswith("pod\n0\nroot:x:0:\nrefused\n") and "192.0.2.9" in said, said
    pod.remove()


@case
def test_a_sandbox_that_died_is_replaced(cri: Cri) -> None:
    pod = cri.pod()
    container = pod.start("sh", "-c", FOREVER)
    cri.containerd.ok("task", "kill", "--signal", "KILL", pod.id, space="k8s.io")
    until(lambda: pod.status()["state"] == NOT_READY, "the kubelet sees it")
    first = pod.id

    def stopped() -> bool:
        try:
            cri("StopContainer", container_id=container, timeout=1)
        except Refused as refused:
            # Of its own side: containerd may just be giving up the sandbox's connection to the shim of both.
            assert "ttrpc: closed" in str(refused), refused
            return False
        return True

    until(stopped, "the kubelet, which tries again, has stopped it")
    cri("StopPodSandbox", pod_sandbox_id=first)
    pod.run()
    assert pod.status()["state"] == READY and pod.exec(pod.start("sh", "-c", FOREVER), "true").code == 0
    cri("RemovePodSandbox", pod_sandbox_id=first)
    pod.remove()
