"""Texts on errors that only a running container meets, so that no check-up can see them. See `reason`."""

from __future__ import annotations

from rootless_rt.host.doctor.reason import CONTAINER, HOST, IDS, Reason

# Word of an IdmapError -> the id that says more.
OF_MAPS = {
    "helper-missing": "RT-IDS-HELPER",
    "helper-not-setuid": "RT-IDS-HELPER-RIGHTS",
    "helper-nosuid": "RT-IDS-HELPER-RIGHTS",
    "no-new-privs": "RT-PRIV-NNP",
    "bounding-set": "RT-PRIV-BOUNDING",
    "no-user-name": "RT-IDS-NAME",
    "no-subid-entry": "RT-IDS-SUBID",
    "range-too-small": "RT-BUNDLE-IDS",
    "overlap": "RT-BUNDLE-IDS",
    "too-many-extents": "RT-BUNDLE-IDS",
    "not-in-parent": "RT-BUNDLE-IDS",
    "nsresource-refused": "RT-IDS-NSRESOURCE",
    "missing-capability": "RT-BUNDLE-IDS",
    "map-write-refused": "RT-BUNDLE-IDS",
    "setgroups-denied": "RT-IDS-GROUPS",
    "apparmor-userns": "RT-USERNS-APPARMOR",
    "proc-mismatch": "RT-PROC-MISSING",
}

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
        "RT-IDS-GROUPS",
        "degraded",
        "supplementary groups",
        cause="setgroups(2) is denied where only your own group is mapped, and takes mapped groups elsewhere;"
        " so additionalGids cannot be given, and files and devices of those groups stay closed.",
        found="/proc/self/setgroups, linux.gidMappings, the config's additionalGids",
        fixes=(
            "map a range of groups: rt spec --rootless --idmap full",
            "groups that you have yourself: rt run --keep-groups",
        ),
        chapter=IDS,
    ),
    Reason(
        "RT-MOUNT-OWNER",
        "degraded",
        "a mount that belongs to a namespace",
        cause="proc belongs to a pid namespace, sysfs to a network namespace, mqueue to an ipc namespace:"
        " only the owner of that namespace may mount it anew. Where the container shares it with its caller,"
        " it gets the caller's mount instead.",
        found="linux.namespaces, and the kernel's answer",
        fixes=('add {"type": "pid"}, "network" or "ipc" to linux.namespaces',),
        chapter=HOST,
    ),
    Reason(
        "RT-SECCOMP-CALLS",
        "blocked",
        "system calls that a filter forbids",
        cause="The seccomp profile of a surrounding container, or SystemCallFilter= of a systemd unit,"
        " answers EPERM or ENOSYS to a call that a container is made with (mount, fsopen, unshare),"
        " or to one that rt can do without (keyctl).",
        found="Seccomp in /proc/self/status is 2, and a child with every right is refused the call too",
        fixes=(
            "Docker, Podman: --security-opt seccomp=unconfined, or a profile that allows the call",
            "Kubernetes: securityContext.seccompProfile.type: Unconfined",
            "systemd: SystemCallFilter= of the unit",
        ),
        chapter=CONTAINER,
    ),
    Reason(
        "RT-EXEC-DENIED",
        "blocked",
        "a program that may not be executed",
        cause="`permission denied` for a file that is there: it has no x bit for the container's user, or"
        " it is on a file system mounted noexec, which the container cannot lift.",
        found="mode and owner of the program, and the flags of its mount, inside the container",
        fixes=(
            "chmod +x, or another process.user",
            "take noexec out of the mount's options; a bundle on noexec: move it, or remount that with exec",
        ),
        chapter="Errors and their causes",
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
