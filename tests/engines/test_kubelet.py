"""The life of a pod as a kubelet leads it, through containerd's CRI with a runtime handler."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from lab.cri import EXITED, NOT_READY, READY, RUNNING, Cri, Pod
from lab.engines import case
from lab.waiting import until

# A server that is well as long as a file is there, and says how it ends.
SERVER = "trap 'echo bye; exit 0' TERM; echo up; touch /tmp/well; while :; do sleep 0.1; done"
STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.1; done"
PROBE = ("test", "-e", "/tmp/well")


def ended(pod: Pod, container: str) -> int:
    """Wait for a container's end; its exit code."""
    until(lambda: pod.container(container)["state"] == EXITED, f"{container} has ended")
    code: int = pod.container(container)["exit_code"]
    return code


def logged(pod: Pod, name: str, *words: str, attempt: int = 0) -> None:
    """Wait until a container's log has just these lines."""
    lines = [f"stdout F {word}" for word in words]
    until(lambda: pod.log(name, attempt) == lines, f"{name}.{attempt} has logged {words}")


def probe(pod: Pod, container: str, *words: str) -> bool:
    """What a kubelet makes of a probe: one that does not end in its time has failed."""
    if words:
        refused = pod.cri.refused("ExecSync", container_id=container, cmd=list(words), timeout=1)
        assert refused.code in ("DEADLINE_EXCEEDED", "UNKNOWN") and "timeout" in refused.text, str(refused)
        return False
    return pod.exec(container, *PROBE).code == 0


@case
def test_a_pod_as_the_kubelet_runs_it(cri: Cri) -> None:
    """Init containers in turn, two containers, probes, a restart, a graceful end."""
    pod = cri.pod(annotations={"kubernetes.io/config.seen": "now"}, labels={"io.kubernetes.pod.name": "web"})
    assert (pod.status()["state"], pod.status()["runtime_handler"]) == (READY, cri.runtime)

    failed = pod.start("sh", "-c", "echo not yet; exit 3", name="init")
    assert ended(pod, failed) == 3
    again = pod.start("sh", "-c", "echo ready", name="init", attempt=1)
    assert ended(pod, again) == 0
    cri("RemoveContainer", container_id=failed)
    logged(pod, "init", "not yet")
    logged(pod, "init", "ready", attempt=1)

    web = pod.start("sh", "-c", SERVER, name="web")
    side = pod.start("sh", "-c", SERVER, name="side")
    until(lambda: probe(pod, web) and probe(pod, side), "the readiness probes are well")
    assert [pod.container(each)["state"] for each in (web, side)] == [RUNNING, RUNNING]

    # The liveness probe fails: the container is stopped with its grace and takes another attempt.
    assert pod.exec(web, "rm", "/tmp/well").code == 0
    assert not probe(pod, web)
    cri("StopContainer", container_id=web, timeout=60)
    assert ended(pod, web) == 0
    logged(pod, "web", "up", "bye")
    second = pod.start("sh", "-c", SERVER, name="web", attempt=1)
    cri("RemoveContainer", container_id=web)
    until(lambda: probe(pod, second), "the probe is well again")
    assert pod.container(side)["state"] == RUNNING

    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda each: cri("StopContainer", container_id=each, timeout=60), (second, side)))
    assert [ended(pod, each) for each in (second, side)] == [0, 0]
    logged(pod, "web", "up", "bye", attempt=1)
    logged(pod, "side", "up", "bye")
    cri("StopPodSandbox", pod_sandbox_id=pod.id)
    assert pod.status()["state"] == NOT_READY
    for each in (again, second, side):
        cri("RemoveContainer", container_id=each)
    pod.remove()
    assert pod.cri.refused("PodSandboxStatus", pod_sandbox_id=pod.id).code == "NOT_FOUND"
    until(lambda: not cri.containerd.state_of(pod.id), "nothing is left of it")


@case
def test_a_probe_that_hangs_has_failed_and_the_container_is_killed_in_the_end(cri: Cri) -> None:
    pod = cri.pod()
    stuck = pod.start("sh", "-c", STUBBORN, name="stuck")
    logged(pod, "stuck", "up")
    assert not probe(pod, stuck, "sleep", "1234")
    assert not probe(pod, stuck, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    # The container outlives its probes, and nothing of them is left in it.
    assert pod.container(stuck)["state"] == RUNNING
    until(lambda: "sleep 1234" not in pod.exec(stuck, "ps").out, "the probe was ended")
    cri("StopContainer", container_id=stuck, timeout=1)
    assert ended(pod, stuck) == 137
    after = pod.start("sh", "-c", SERVER, name="stuck", attempt=1)
    until(lambda: probe(pod, after), "the next attempt is well")
    cri("StopContainer", container_id=after, timeout=60)
    assert ended(pod, after) == 0
    pod.remove()


@case
def test_many_pods_come_and_go(cri: Cri) -> None:
    def churn(_: int) -> int:
        pod = cri.pod()
        code = ended(pod, pod.start("sh", "-c", "exit 3"))
        pod.remove()
        return code

    count = 50 if os.environ.get("RT_ENGINES") == "all" else 10
    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(churn, range(count))) == [3] * count
