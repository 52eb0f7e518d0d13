"""Texts on errors that only a running container meets, so that no check-up can see them. See `reason`."""

from __future__ import annotations

from rootless_rt.host.doctor.reason import HOST, IDS, Reason

ERRORS = (
    Reason(
        "RT-IDS-UNMAPPED",
        "blocked",
        "an id that is not mapped",
        cause="chown, setuid, setgroups and mounts with uid= or gid= fail with EINVAL for an id that the"
        " container's map lacks. apt then says `setgroups 65534 failed`, tar `Cannot change ownership`.",
        found="EINVAL of the call, and /proc/self/uid_map inside",
        fixes=(
            "map more ids: rt spec --rootless --idmap full",
            "with one id: rt run --uid-emulation=noop",
            "apt with one id: -o APT::Sandbox::User=root; tar: --no-same-owner",
        ),
        chapter=IDS,
    ),
    Reason(
        "RT-MOUNT-LOCKED",
        "degraded",
        "locked mount options",
        cause="A bind mount in a user namespace keeps nosuid, nodev, noexec and ro of its source; a remount"
        " that would lift one is EPERM.",
        found="the options of the source",
        fixes=("leave the option in, or mount the source without it on the host",),
        chapter=HOST,
    ),
    Reason(
        "RT-EXEC-MISSING",
        "blocked",
        "a program that is there and cannot be started",
        cause="`no such file or directory` for a file that exists: the interpreter of its first line (#!), or"
        " the dynamic loader that it names, is not in the rootfs. `exec format error`: it is built for"
        " another"
        " machine.",
        found="the first bytes of the program",
        fixes=(
            "file rootfs/PROGRAM and readelf -l rootfs/PROGRAM show machine and loader",
            "use an image for this machine, or install qemu-user and its binfmt entries",
        ),
        chapter="Errors and their causes",
    ),
)
