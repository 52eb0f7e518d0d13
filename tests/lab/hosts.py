"""Recorded hosts: a directory with the files that a check-up reads, as a healthy Debian has them."""

from __future__ import annotations

from pathlib import Path

from rootless_rt.host.doctor.model import Finding, Me
from rootless_rt.host.doctor.system import caller

CAPS = "000001ffffffffff"
MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
24 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 0:30 / /run/user/1000 rw,nosuid,nodev - tmpfs tmpfs rw,mode=700
"""
HEALTHY = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
    "etc/group": "root:x:0:\nalice:x:1000:\nkvm:x:104:\n",
    "etc/subuid": "alice:100000:65536\n",
    "etc/subgid": "alice:100000:65536\n",
    "proc/sys/kernel/osrelease": "6.1.0-44-amd64\n",
    "proc/sys/user/max_user_namespaces": "31000\n",
    "proc/sys/fs/inotify/max_user_instances": "128\n",
    "proc/sys/net/ipv4/ping_group_range": "0\t2147483647\n",
    "proc/sys/net/ipv4/ip_unprivileged_port_start": "1024\n",
    "proc/filesystems": "nodev\tproc\nnodev\toverlay\n\text4\n",
    "proc/key-users": "    0:    18 17/17 12/1000000 267/25000000\n 1000:     4 4/4 4/200 46/20000\n",
    "proc/self/status": f"Name:\tpython\nCapBnd:\t{CAPS}\nNoNewPrivs:\t0\nSeccomp:\t0\n",
    "proc/self/mountinfo": MOUNTS,
    "proc/self/cgroup": "0::/user.slice/user-1000.slice/session-3.scope\n",
    "proc/self/uid_map": "         0          0 4294967295\n",
    "proc/self/gid_map": "         0          0 4294967295\n",
    "proc/1/cgroup": "0::/init.scope\n",
    **{f"proc/self/ns/{name}": "" for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"]},
    "usr/bin/newuidmap": "",
    "usr/bin/newgidmap": "",
    "var/lib/systemd/linger/alice": "",
    "run/systemd/system/x": "",
    "run/user/1000/x": "",
    "home/alice/x": "",
    "dev/fuse": "",
    "dev/net/tun": "",
}
ENVIRON = {
    "HOME": "/home/alice",
    "PATH": "/usr/bin:/bin",
    "XDG_RUNTIME_DIR": "/run/user/1000",
    "LANG": "C.UTF-8",
}


def host(place: Path, **changes: str | None) -> str:
    """A healthy host below `place`, some of its files otherwise (None: without); keys have `__` for `/`."""
    place.mkdir(exist_ok=True)
    place.chmod(0o755)
    files: dict[str, str | None] = {
        **HEALTHY,
        **{name.replace("__", "/"): text for name, text in changes.items()},
    }
    for name, text in files.items():
        if text is not None:
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
    for tool in ("newuidmap", "newgidmap"):
        if (place / "usr/bin" / tool).exists():
            (place / "usr/bin" / tool).chmod(0o4755)
    (place / "run/user/1000").chmod(0o700)
    return str(place)


def alice(root: str, **environ: str) -> Me:
    """Alice, whoever runs the tests."""
    me = caller(root, {**ENVIRON, **environ})
    me.uid = me.euid = 1000
    me.groups = (1000,)
    me.name = "alice"
    return me


def by_id(findings: list[Finding]) -> dict[str, Finding]:
    found = {finding.id: finding for finding in findings}
    assert len(found) == len(findings), "an id is used once"
    return found
