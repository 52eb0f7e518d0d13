"""The kubelet's side of the Container Runtime Interface (runtime.v1), as far as tests speak it.

A message is a dict; MESSAGES says which number and kind each field has in protocol buffers (the numbers are
those of Kubernetes' api.proto): "i" a number, "s" text, "m" a map of texts, else another message's name; with
a "*" in front any number of it. Fields that are not listed are passed over.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

from lab.containerd import Containerd
from lab.engines import RUNTIMES, Done
from lab.waiting import PATIENCE, until
from lab.ward import IMAGE, PAUSE

Message = dict[str, Any]
_NUMBERS = itertools.count()
READY, NOT_READY = 0, 1
CREATED, RUNNING, EXITED = 0, 1, 2
POD, OWN, NODE = 0, 1, 2

MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "VersionRequest": {},
    "VersionResponse": {"runtime_name": (2, "s"), "runtime_version": (3, "s")},
    "RunPodSandboxRequest": {"config": (1, "PodSandboxConfig"), "runtime_handler": (2, "s")},
    "RunPodSandboxResponse": {"pod_sandbox_id": (1, "s")},
    "StopPodSandboxRequest": {"pod_sandbox_id": (1, "s")},
    "RemovePodSandboxRequest": {"pod_sandbox_id": (1, "s")},
    "PodSandboxStatusRequest": {"pod_sandbox_id": (1, "s")},
    "PodSandboxStatusResponse": {"status": (1, "PodSandboxStatus")},
    "PodSandboxStatus": {
        "id": (1, "s"),
        "state": (3, "i"),
        "network": (5, "PodSandboxNetworkStatus"),
        "labels": (7, "m"),
        "annotations": (8, "m"),
        "runtime_handler": (9, "s"),
    },
    "PodSandboxNetworkStatus": {"ip": (1, "s")},
    "ListPodSandboxRequest": {},
    "ListPodSandboxResponse": {"items": (1, "*PodSandbox")},
    "PodSandbox": {"id": (1, "s"), "state": (3, "i")},
    "PodSandboxConfig": {
        "metadata": (1, "PodSandboxMetadata"),
        "hostname": (2, "s"),
        "log_directory": (3, "s"),
        "dns_config": (4, "DNSConfig"),
        "labels": (6, "m"),
        "annotations": (7, "m"),
        "linux": (8, "LinuxPodSandboxConfig"),
    },
    "PodSandboxMetadata": {"name": (1, "s"), "uid": (2, "s"), "namespace": (3, "s"), "attempt": (4, "i")},
    "DNSConfig": {"servers": (1, "*s")},
    "LinuxPodSandboxConfig": {
        "cgroup_parent": (1, "s"),
        "security_context": (2, "LinuxSandboxSecurityContext"),
        "sysctls": (3, "m"),
    },
    "LinuxSandboxSecurityContext": {"namespace_options": (1, "NamespaceOption")},
    "NamespaceOption": {"network": (1, "i"), "pid": (2, "i"), "ipc": (3, "i")},
    "CreateContainerRequest": {
        "pod_sandbox_id": (1, "s"),
        "config": (2, "ContainerConfig"),
        "sandbox_config": (3, "PodSandboxConfig"),
    },
    "CreateContainerResponse": {"container_id": (1, "s")},
    "ContainerConfig": {
        "metadata": (1, "ContainerMetadata"),
        "image": (2, "ImageSpec"),
        "command": (3, "*s"),
        "args": (4, "*s"),
        "working_dir": (5, "s"),
        "envs": (6, "*KeyValue"),
        "mounts": (7, "*Mount"),
        "labels": (9, "m"),
        "annotations": (10, "m"),
        "log_path": (11, "s"),
        "tty": (14, "i"),
        "linux": (15, "LinuxContainerConfig"),
    },
    "ContainerMetadata": {"name": (1, "s"), "attempt": (2, "i")},
    "ImageSpec": {"image": (1, "s")},
    "KeyValue": {"key": (1, "s"), "value": (2, "s")},
    "Mount": {"container_path": (1, "s"), "host_path": (2, "s"), "readonly": (3, "i")},
    "LinuxContainerConfig": {
        "resources": (1, "LinuxContainerResources"),
        "security_context": (2, "LinuxContainerSecurityContext"),
    },
    "LinuxContainerResources": {
        "cpu_period": (1, "i"),
        "cpu_quota": (2, "i"),
        "cpu_shares": (3, "i"),
        "memory_limit_in_bytes": (4, "i"),
        "oom_score_adj": (5, "i"),
        "cpuset_cpus": (6, "s"),
    },
    "LinuxContainerSecurityContext": {
        "capabilities": (1, "Capability"),
        "namespace_options": (3, "NamespaceOption"),
        "run_as_user": (5, "Int64Value"),
        "run_as_group": (12, "Int64Value"),
        "readonly_rootfs": (7, "i"),
        "supplemental_groups": (8, "*i"),
        "no_new_privs": (11, "i"),
        "masked_paths": (13, "*s"),
        "readonly_paths": (14, "*s"),
        "seccomp": (15, "SecurityProfile"),
    },
    "Capability": {"add_capabilities": (1, "*s"), "drop_capabilities": (2, "*s")},
    "Int64Value": {"value": (1, "i")},
    "SecurityProfile": {"profile_type": (1, "i")},
    "StartContainerRequest": {"container_id": (1, "s")},
    "StopContainerRequest": {"container_id": (1, "s"), "timeout": (2, "i")},
    "RemoveContainerRequest": {"container_id": (1, "s")},
    "ListContainersRequest": {},
    "ListContainersResponse": {"containers": (1, "*Container")},
    "Container": {"id": (1, "s"), "pod_sandbox_id": (2, "s"), "state": (6, "i")},
    "ContainerStatusRequest": {"container_id": (1, "s")},
    "ContainerStatusResponse": {"status": (1, "ContainerStatus")},
    "ContainerStatus": {
        "id": (1, "s"),
        "state": (3, "i"),
        "exit_code": (7, "i"),
        "reason": (10, "s"),
        "message": (11, "s"),
        "annotations": (13, "m"),
    },
    "UpdateContainerResourcesRequest": {"container_id": (1, "s"), "linux": (2, "LinuxContainerResources")},
    "ExecSyncRequest": {"container_id": (1, "s"), "cmd": (2, "*s"), "timeout": (3, "i")},
    "ExecSyncResponse": {"stdout": (1, "s"), "stderr": (2, "s"), "exit_code": (3, "i")},
    "ContainerStatsRequest": {"container_id": (1, "s")},
    "ContainerStatsResponse": {"stats": (1, "ContainerStats")},
    "ContainerStats": {"cpu": (2, "CpuUsage"), "memory": (3, "MemoryUsage")},
    "CpuUsage": {"usage_core_nano_seconds": (2, "Int64Value")},
    "MemoryUsage": {"working_set_bytes": (2, "Int64Value")},
    "PodSandboxStatsRequest": {"pod_sandbox_id": (1, "s")},
    "PodSandboxStatsResponse": {"stats": (1, "PodSandboxStats")},
    "PodSandboxStats": {"linux": (2, "LinuxPodSandboxStats")},
    "LinuxPodSandboxStats": {"memory": (2, "MemoryUsage"), "containers": (5, "*ContainerStats")},
}


def encode(kind: str, message: Message) -> bytes:
    """The bytes of a message. Numbers may be negative, as int64 and int32 are."""
    out = b""
    for name, value in message.items():
        number, inner = MESSAGES[kind][name]
        values = value if inner.startswith("*") else value.items() if inner == "m" else [value]
        for each in values:
            out += _field(number, inner.lstrip("*"), each)
    return out


def _field(number: int, kind: str, value: Any) -> bytes:
    if kind == "i":
        return _varint(number << 3) + _varint(int(value) & (1 << 64) - 1)
    if kind == "s":
        data = value.encode()
    elif kind == "m":
        data = _field(1, "s", value[0]) + _field(2, "s", value[1])
    else:
        data = encode(kind, value)
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def decode(kind: str, data: bytes) -> Message:
    """The message of these bytes; what is not in them is 0, "" or empty."""
    fields = MESSAGES.get(kind, {})
    by_number = {number: (name, inner) for name, (number, inner) in fields.items()}
    message: Message = {name: _absent(inner) for name, (_, inner) in fields.items()}
    for number, value in _wire(data):
        if number not in by_number:
            continue
        name, inner = by_number[number]
        if inner == "m":
            pair = dict(_wire(value))
            message[name][pair.get(1, b"").decode()] = pair.get(2, b"").decode()
        elif inner.startswith("*"):
            message[name].append(_value(inner[1:], value))
        else:
            message[name] = _value(inner, value)
    return message


def _absent(kind: str) -> Any:
    if kind.startswith("*"):
        return []
    if kind in ("i", "s", "m"):
        return {"i": 0, "s": "", "m": {}}[kind]
    return decode(kind, b"")


def _value(kind: str, value: Any) -> Any:
    if kind == "i":
        return value - (1 << 64) if value >> 63 else value
    return value.decode("utf-8", "replace") if kind == "s" else decode(kind, value)


def _wire(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
        elif key & 7 == 2:
            length = number()
            yield key >> 3, data[at : at + length]
            at += length
        else:  # of a fixed size
            at += 8 if key & 7 == 1 else 4


class Refused(AssertionError):
    """A call that was answered with an error: `code` as gRPC names it."""

    def __init__(self, method: str, code: str, text: str) -> None:
        super().__init__(f"{method}: {code}: {text}")
        self.code, self.text = code, text


class Cri:
    """A containerd asked as the kubelet asks it; `on` sets the runtime handler."""

    engine, mode = "containerd", "CRI, root"

    def __init__(self, containerd: Containerd) -> None:
        import grpc  # type: ignore[import-untyped]

        self.containerd, self.ward = containerd, containerd.ward
        self.errors = grpc.RpcError
        self.channel = grpc.insecure_channel(f"unix:{containerd.base}/c.sock")
        self.runtime = "runc"
        (containerd.base / "logs").mkdir()
        until(self._has_images, "the images are known")

    def _has_images(self) -> bool:
        """Whether it serves, and has heard of the images: what `ctr` imports it learns in its own time."""
        ask = self.channel.unary_unary("/runtime.v1.ImageService/ListImages")
        try:
            answer = ask(b"", timeout=PATIENCE)
        except self.errors:
            return False
        return all(name.encode() in answer for name in (IMAGE, PAUSE))

    def on(self, runtime: str) -> Cri:
        """The same engine, with pods of this handler."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, runtime=runtime)
        return other

    def __call__(self, method: str, **fields: Any) -> Message:
        """Call a method of the RuntimeService. Raises Refused."""
        call = self.channel.unary_unary(f"/runtime.v1.RuntimeService/{method}")
        try:
            answer = call(encode(f"{method}Request", fields), timeout=2 * PATIENCE)
        except self.errors as error:
            raise Refused(method, error.code().name, error.details()) from None
        return decode(f"{method}Response", answer)

    def refused(self, method: str, **fields: Any) -> Refused:
        """The error with which a call is answered."""
        try:
            answer = self(method, **fields)
        except Refused as refused:
            return refused
        raise AssertionError(f"{method} was answered with {answer}")

    def pod(self, **changes: Any) -> Pod:
        """Start a pod."""
        return Pod(self, changes)

    def close(self) -> None:
        self.channel.close()

    def binary(self) -> str:
        return RUNTIMES[self.runtime]


class Pod:
    """A sandbox of the kubelet's, and the containers in it."""

    def __init__(self, cri: Cri, changes: Message) -> None:
        self.cri = cri
        self.name = f"{cri.runtime}-{os.getpid()}-{next(_NUMBERS)}"
        self.parent = f"{cri.ward.cgroup}-pods/{self.name}"
        self.logs = cri.containerd.base / "logs" / self.name
        self.attempt = 0
        self.changes = changes
        self.run()

    def run(self) -> None:
        """Start its sandbox, again after the last one was stopped."""
        linux: Message = {"cgroup_parent": self.parent, **self.changes.get("linux", {})}
        metadata = {"name": self.name, "uid": self.name, "namespace": "tests", "attempt": self.attempt}
        self.config: Message = {"metadata": metadata, "hostname": "pod", "log_directory": str(self.logs)}
        self.config |= {**self.changes, "linux": linux}
        self.attempt += 1
        answer = self.cri("RunPodSandbox", config=self.config, runtime_handler=self.cri.runtime)
        self.id = answer["pod_sandbox_id"]

    def create(self, *command: str, name: str = "", attempt: int = 0, **changes: Any) -> str:
        """Create a container that runs a program; its id."""
        name = name or f"c{next(_NUMBERS)}"
        config: Message = {
            "metadata": {"name": name, "attempt": attempt},
            "image": {"image": IMAGE},
            "command": list(command),
            "log_path": f"{name}.{attempt}.log",
            "linux": {"resources": {"cpu_shares": 2}},
        }
        asked: Message = {
            "pod_sandbox_id": self.id,
            "config": config | changes,
            "sandbox_config": self.config,
        }
        container: str = self.cri("CreateContainer", **asked)["container_id"]
        return container

    def start(self, *command: str, **changes: Any) -> str:
        """Create a container and start it; its id."""
        container = self.create(*command, **changes)
        self.cri("StartContainer", container_id=container)
        return container

    def exec(self, container: str, *command: str, timeout: int = 60) -> Done:
        said = self.cri("ExecSync", container_id=container, cmd=list(command), timeout=timeout)
        return Done(command, said["exit_code"], said["stdout"], said["stderr"])

    def container(self, container: str) -> Message:
        status: Message = self.cri("ContainerStatus", container_id=container)["status"]
        return status

    def status(self) -> Message:
        status: Message = self.cri("PodSandboxStatus", pod_sandbox_id=self.id)["status"]
        return status

    def log(self, name: str, attempt: int = 0) -> list[str]:
        """The lines a container wrote, without the time before each."""
        file = self.logs / f"{name}.{attempt}.log"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.split(" ", 1)[1] for line in lines]

    def remove(self) -> None:
        """Stop and remove all of it."""
        self.cri("StopPodSandbox", pod_sandbox_id=self.id)
        self.cri("RemovePodSandbox", pod_sandbox_id=self.id)
