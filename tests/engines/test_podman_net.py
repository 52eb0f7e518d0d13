"""Networks, pods and what `podman kube play` makes of a manifest."""

from __future__ import annotations

import json

from lab.engines import NotHere, case
from lab.podman import IMAGE, Podman
from lab.waiting import until

MANIFEST = """\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  annotations:
    run.example/of: cases
spec:
  hostNetwork: true
  restartPolicy: Never
  initContainers:
  - name: first
    image: {image}
    command: ["sh", "-c", "echo first > /shared/first"]
    volumeMounts: [{{name: shared, mountPath: /shared}}]
  containers:
  - name: one
    image: {image}
    command: ["sh", "-c", "cat /shared/first; echo $WORD; sleep 100"]
    env: [{{name: WORD, value: said}}]
    securityContext: {{readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
    volumeMounts: [{{name: shared, mountPath: /shared}}]
  - name: two
    image: {image}
    command: ["sleep", "100"]
    securityContext: {{runAsUser: 1000, allowPrivilegeEscalation: false}}
  volumes:
  - name: shared
    emptyDir: {{}}
"""


@case
def test_no_network(podman: Podman) -> None:
    assert podman.run("--network=none", "--", "ls", "/sys/class/net") in ("lo", "")
    links = podman.run("--network=none", "--", "sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1")
    assert links.split() == ["lo"]


@case
def test_the_network_of_the_host(podman: Podman) -> None:
    def same() -> bool:
        links = podman.run("--network=host", "--", "sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1")
        with open("/proc/net/dev") as host:
            return links.split() == [line.split(":")[0].strip() for line in host.readlines()[2:]]

    until(same, "the host's interfaces are seen; others may make one meanwhile")


@case
def test_user_mode_networking(podman: Podman) -> None:
    if not podman.rootless:
        raise NotHere("for ordinary users")
    shown = podman.run("--network=slirp4netns", "--", "sh", "-c", "ip addr show tap0; cat /etc/resolv.conf")
    assert "inet 10.0.2.100/24" in shown and "nameserver" in shown, shown


@case
def test_user_mode_networking_with_a_published_port(podman: Podman) -> None:
    if not podman.rootless:
        raise NotHere("for ordinary users")
    name = podman.name()
    port = "127.0.0.1::8080"
    serve = ("sh", "-c", "echo page > /tmp/index.html; httpd -f -p 8080 -h /tmp")
    podman.ok("run", "-d", "--name", name, "--network=slirp4netns", "-p", port, IMAGE, *serve)
    where = podman.ok("port", name, "8080/tcp")

    def fetched() -> bool:
        return (
            podman("run", "--rm", "--network=host", IMAGE, "wget", "-qO-", f"http://{where}/").out == "page\n"
        )

    until(fetched, "the page comes through the port")
    podman.ok("rm", "-f", "-t", "0", name)


@case
def test_names_of_hosts_and_servers(podman: Podman) -> None:
    shown = podman.run("--network=host", "--add-host=other:10.1.2.3", "--", "cat", "/etc/hosts")
    assert "10.1.2.3" in shown and "other" in shown


@case
def test_containers_of_a_pod_share_namespaces(podman: Podman) -> None:
    pod = podman.name()
    podman.ok("pod", "create", "--name", pod, "--network=none", "--share=ipc,net,uts", "--infra-image", IMAGE,
              "--infra-command", "/bin/sleep 100")  # fmt: skip
    try:
        first = podman.ok("run", "-d", "--pod", pod, IMAGE, "sleep", "100")
        show = "readlink /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/uts; hostname"
        shown = podman.ok("run", "--rm", "--pod", pod, IMAGE, "sh", "-c", show)
        assert shown == podman.ok("exec", first, "sh", "-c", show)
        assert shown.endswith(pod)
    finally:
        podman("pod", "rm", "-f", "-t", "0", pod)


@case
def test_a_pod_is_stopped_started_and_removed_whole(podman: Podman) -> None:
    pod = podman.name()
    podman.ok("pod", "create", "--name", pod, "--infra=false")
    names = [podman.ok("run", "-d", "--pod", pod, IMAGE, "sleep", "100") for _ in range(2)]
    podman.ok("pod", "stop", "-t", "0", pod)
    assert [podman.inspect(name, ".State.Status") for name in names] == ["exited", "exited"]
    podman.ok("pod", "start", pod)
    assert [podman.inspect(name, ".State.Status") for name in names] == ["running", "running"]
    if not podman.rootless:
        podman.ok("pod", "pause", pod)
        podman.ok("pod", "unpause", pod)
    podman.ok("pod", "rm", "-f", "-t", "0", pod)
    assert podman("pod", "exists", pod).code == 1


@case
def test_kube_play_and_down(podman: Podman) -> None:
    pod = podman.name()
    file = podman.base / "work" / f"{pod}.yaml"
    file.write_text(MANIFEST.format(name=pod, image=IMAGE))
    podman.user.owns(file)
    podman.ok("kube", "play", str(file))
    try:
        until(lambda: "said" in podman.ok("logs", f"{pod}-one"), "the first container speaks")
        assert podman.ok("logs", f"{pod}-one").splitlines() == ["first", "said"]
        status = podman.ok("exec", f"{pod}-two", "cat", "/proc/self/status")
        assert "Uid:\t1000\t1000" in status and "NoNewPrivs:\t1" in status
        assert podman("exec", f"{pod}-one", "touch", "/x").code == 1
        made = json.loads(podman.ok("pod", "inspect", pod))["Containers"]
        assert len(made) == 3, made  # the two, and podman's own
    finally:
        done = podman("kube", "down", str(file))
    assert done.code == 0, str(done)
    assert podman("pod", "exists", pod).code == 1
