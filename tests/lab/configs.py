"""Configs for the tests of `spec`: a valid one, and one as large as an engine's with a seccomp profile."""

from __future__ import annotations

import json
from typing import Any

from rootless_rt.spec.defaults import default_spec


def valid() -> dict[str, Any]:
    """The default config with more to get wrong: a user namespace, a device, a hook, a sysctl, a filter."""
    config = default_spec()
    config["linux"]["namespaces"].append({"type": "user"})
    line = {"containerID": 0, "hostID": 1000, "size": 1}
    config["linux"].update(
        uidMappings=[dict(line)],
        gidMappings=[dict(line)],
        sysctl={"net.ipv4.ip_forward": "1"},
        devices=[{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438}],
        seccomp={
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {
                    "names": ["read", "write"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
    )
    config["hooks"] = {"poststop": [{"path": "/bin/true", "args": ["true"], "timeout": 5}]}
    config["annotations"] = {"org.example.key": "value"}
    return config


def large() -> bytes:
    """About 15 KB, indented by tabs, with a profile of 376 system calls in 20 rules."""
    config = valid()
    calls = [f"system_call_{number}" for number in range(376)]
    config["linux"]["seccomp"]["syscalls"] = [
        {"names": calls[:300], "action": "SCMP_ACT_ALLOW"},
        *(
            {
                "names": calls[300 + 4 * rule : 304 + 4 * rule],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": rule, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
            }
            for rule in range(19)
        ),
    ]
    return json.dumps(config, indent=1).encode()


def as_bytes(config: object) -> bytes:
    return json.dumps(config).encode()
