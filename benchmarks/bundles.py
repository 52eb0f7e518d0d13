"""What the peers run: a root file system, one config.json per case that they all accept, a seccomp profile.

Knows the runtime-spec; knows nothing of timing or of the peers' command lines.
"""

from __future__ import annotations

import copy
import ctypes
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import User
from measure import Unable

SYSCALLS = Path(__file__).with_name("data") / "syscalls.txt"
HOSTNAME = "rtbench"
APPLETS = ("true", "sh", "sleep", "id", "grep", "wc", "hostname")
# Shows from inside what was set up; `expected_probe` has the answer.
PROBE = (
    "echo $$; id -u; wc -l </proc/self/uid_map; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; hostname"
)
NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag that clone(2) takes
ENOSYS = 38
BIND = ["bind", "ro", "nosuid", "nodev"]
MANY = 500  # mount points in the root file system for binds


@dataclass(frozen=True)
class Shape:
    """One kind of container: who it runs as, and what encloses it."""

    userns: bool = True
    id_range: bool = False  # a subordinate range beside the own id
    seccomp: bool = False
    mounts: int = 0  # binds beside the usual mounts, at most MANY
    map_lines: int = 0  # of the id maps, which no tool can merge; 0: as few as do


def make_rootfs(directory: Path) -> None:
    """Fills `directory` with a static busybox and the mount points. Raises `Unable` without one."""
    busybox = shutil.which("busybox")
    if not busybox:
        raise Unable("no busybox on PATH (Debian: busybox-static)")
    if _needs_loader(busybox):
        raise Unable(f"{busybox} is not static (Debian: busybox-static)")
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (directory / name).mkdir(parents=True)
    shutil.copy(busybox, directory / "bin/busybox")
    for applet in APPLETS:
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    for number in range(MANY):
        (directory / "many" / str(number)).mkdir(parents=True)


def _needs_loader(path: str) -> bool:
    """Whether a program names a dynamic loader or an interpreter: such a path stands in its first page."""
    with open(path, "rb") as file:
        head = file.read(4096)
    return head.startswith(b"#!") or b"/ld-linux" in head or b"/ld-musl" in head


def base_config(generator: str, scratch: Path) -> dict[str, Any]:
    """The config.json that `GENERATOR spec --rootless` writes, as the common ground of all cases."""
    scratch.mkdir()
    done = subprocess.run(
        [generator, "spec", "--rootless"], cwd=scratch, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Unable(f"{generator} spec --rootless: {done.stderr.strip()}")
    config: dict[str, Any] = json.loads((scratch / "config.json").read_text())
    return {**config, "ociVersion": "1.0.2"}  # some refuse versions that they do not know


def write_bundle(
    directory: Path,
    base: dict[str, Any],
    rootfs: Path,
    shape: Shape,
    args: list[str],
    user: User,
) -> None:
    """Writes `directory`/config.json: `base` with the arguments and the shape of one case."""
    config = copy.deepcopy(base)
    config["process"].update(terminal=False, args=args)
    config["root"] = {"path": str(rootfs), "readonly": True}
    config["hostname"] = HOSTNAME
    config["mounts"] += [
        {"destination": f"/many/{number}", "type": "none", "source": str(rootfs / "tmp"), "options": BIND}
        for number in range(shape.mounts)
    ]
    linux = config["linux"]
    linux["uidMappings"] = _mappings(user.uid, user.subuid, shape)
    linux["gidMappings"] = _mappings(user.gid, user.subgid, shape)
    if not shape.userns:
        del linux["uidMappings"], linux["gidMappings"]
        linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "user"]
        linux["cgroupsPath"] = f"/rtbench-{os.getpid()}"
    linux.pop("seccomp", None)
    if shape.seccomp:
        linux["seccomp"] = seccomp_profile()
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config, indent=1))


def _mappings(own: int, subordinate: tuple[int, int] | None, shape: Shape) -> list[dict[str, int]]:
    lines = [{"containerID": 0, "hostID": own, "size": 1}]
    if not shape.id_range and shape.map_lines <= 1:
        return lines
    if subordinate is None:
        raise Unable("this user has no subordinate ids in /etc/subuid and /etc/subgid")
    first, size = subordinate
    if not shape.map_lines:
        return [*lines, {"containerID": 1, "hostID": first, "size": size}]
    # Every second id of the range: lines that follow each other inside, but not outside.
    more = range(1, shape.map_lines)
    return lines + [{"containerID": line, "hostID": first + 2 * line, "size": 1} for line in more]


def expected_probe(shape: Shape) -> list[str]:
    """The words that PROBE prints in a container of this shape: a peer that says otherwise did other work."""
    lines = "2" if shape.id_range else "1"
    seccomp = "2" if shape.seccomp else "0"
    return ["1", "0", lines, "NoNewPrivs:", "1", "Seccomp:", seccomp, HOSTNAME]


def seccomp_profile() -> dict[str, Any]:
    """A `linux.seccomp` of the size and form that engines pass: an allow-list, some of it conditional."""
    personalities = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
    rules: list[dict[str, Any]] = [
        {"names": SYSCALLS.read_text().split(), "action": "SCMP_ACT_ALLOW"},
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        },
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
    ]
    for value in personalities:
        condition = {"index": 0, "value": value, "op": "SCMP_CMP_EQ"}
        rules.append({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [condition]})
    profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules}
    if platform.machine() == "x86_64":
        profile["architectures"] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    return profile


class _Condition(ctypes.Structure):
    """libseccomp's `struct scmp_arg_cmp`, seccomp_rule_add(3)."""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def export_filter(path: Path) -> None:
    """Writes the profile as BPF, for bwrap, which takes nothing else. Raises `Unable` without libseccomp."""
    try:
        lib = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise Unable(f"bwrap takes only a compiled filter, and libseccomp does not load: {error}") from None
    lib.seccomp_init.restype = ctypes.c_void_p
    allow, errno_base = 0x7FFF0000, 0x00050000
    operators = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}
    extra_arches = {"SCMP_ARCH_X86": 0x40000003, "SCMP_ARCH_X32": 0x4000003E}
    profile = seccomp_profile()
    context = ctypes.c_void_p(lib.seccomp_init(errno_base | profile["defaultErrnoRet"]))
    for arch in profile.get("architectures", []):
        if arch in extra_arches:
            lib.seccomp_arch_add(context, ctypes.c_uint32(extra_arches[arch]))
    for rule in profile["syscalls"]:
        action = allow if rule["action"] == "SCMP_ACT_ALLOW" else errno_base | rule["errnoRet"]
        conditions = [
            _Condition(one["index"], operators[one["op"]], one["value"], one.get("valueTwo", 0))
            for one in rule.get("args", [])
        ]
        array = (_Condition * len(conditions))(*conditions)
        for name in rule["names"]:
            number = lib.seccomp_syscall_resolve_name(name.encode())
            if number != -1:
                lib.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(conditions), array)
    with path.open("wb") as output:
        failed = lib.seccomp_export_bpf(context, output.fileno())
    lib.seccomp_release(context)
    if failed:
        raise Unable(f"libseccomp could not export the filter: error {failed}")
