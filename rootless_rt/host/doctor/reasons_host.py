"""Texts on the kernel, user namespaces, and the container around: the same on every host. See `reason`."""

from __future__ import annotations

from rootless_rt.host.doctor.reason import CONTAINER, IDS, NEED, UBUNTU, Reason
from rootless_rt.host.doctor.reason import HOST as MOUNTS

HOST = (
    Reason(
        "RT-KERNEL-VERSION",
        "blocked",
        "kernel version",
        cause="rt builds a container from open descriptors: open_tree, move_mount, mount_setattr. The last of"
        " these came with Linux 5.12.",
        found="the release in /proc/sys/kernel/osrelease",
        fixes=("update the kernel and reboot", "on WSL: wsl --update, and use WSL 2"),
        chapter=NEED,
    ),
    Reason(
        "RT-KERNEL-CALLS",
        "blocked",
        "system calls that rt needs",
        cause="A system call is unknown to this kernel, or a seccomp filter of the surrounding container"
        " hides"
        " it. Old container engines deny calls that are newer than themselves.",
        found="each call is made with arguments that no kernel accepts: EINVAL or EFAULT means that it is"
        " there, ENOSYS or EPERM that it is not",
        fixes=(
            "update the kernel, or the engine that runs the container around rt",
            "Docker, Podman: --security-opt seccomp=unconfined",
            "Kubernetes: securityContext.seccompProfile.type: Unconfined",
        ),
        chapter=NEED,
    ),
    Reason(
        "RT-KERNEL-FEATURES",
        "degraded",
        "kernel features that rt can use",
        cause="Without time namespaces a config that asks for one is refused. Without CLONE_INTO_CGROUP"
        " (5.7) and cgroup.kill (5.14) rt takes slower ways.",
        found="/proc/self/ns, and the kernel's version",
        fixes=("update the kernel",),
        chapter=NEED,
    ),
    Reason(
        "RT-KERNEL-OVERLAY",
        "degraded",
        "overlay mounts without root",
        cause="Engines and shared root file systems lay a writable layer over a read-only one. The"
        " kernel lets"
        " a user namespace do so since 5.11; fuse-overlayfs does it where the kernel does not.",
        found="overlay in /proc/filesystems or as a module, the kernel's version, fuse-overlayfs in $PATH",
        fixes=("update the kernel, or install fuse-overlayfs",),
        thing="fuse-overlayfs",
        chapter=MOUNTS,
    ),
    Reason(
        "RT-PROC-MISSING",
        "blocked",
        "/proc",
        cause="rt reads its own rights there, and writes id maps and labels through it.",
        found="/proc/self/status can be read",
        fixes=("mount -t proc proc /proc, as root", "in a chroot: bind the host's /proc beforehand"),
        chapter=NEED,
    ),
    Reason(
        "RT-USERNS-KERNEL",
        "blocked",
        "user namespaces in the kernel",
        cause="The kernel was built without CONFIG_USER_NS, as on Android, WSL 1 and some NAS systems."
        " Without"
        " them nobody but root can make a container.",
        found="/proc/self/ns/user exists",
        fixes=("use another kernel; no setting helps",),
        chapter=NEED,
    ),
    Reason(
        "RT-USERNS-CLONE",
        "blocked",
        "kernel.unprivileged_userns_clone",
        cause="Debian before 11 and hardened kernels have a switch of their own for user namespaces of"
        " users.",
        found="the sysctl is 0; where there is no such file, there is no such switch",
        fixes=("sudo sysctl kernel.unprivileged_userns_clone=1, and the same line in /etc/sysctl.d/",),
        chapter=NEED,
    ),
    Reason(
        "RT-USERNS-MAX",
        "blocked",
        "user.max_user_namespaces",
        cause="The number of user namespaces that one user may have. 0 switches them off (RHEL 7, hardening"
        " guides); the kernel then answers ENOSPC, `no space left on device`.",
        found="the sysctl of the user namespace that rt runs in",
        fixes=("sudo sysctl user.max_user_namespaces=28633, and the same line in /etc/sysctl.d/",),
        chapter=NEED,
    ),
    Reason(
        "RT-USERNS-APPARMOR",
        "blocked",
        "AppArmor and user namespaces",
        cause="Ubuntu since 23.10: a program without a profile that says `userns,` gets a user namespace, but"
        " no capabilities in it, so that the first mount or id map fails with EPERM or EACCES.",
        found="kernel.apparmor_restrict_unprivileged_userns is 1, and a child of rt could not use the"
        " namespace that it made",
        fixes=(
            "for rt alone: the AppArmor profile contrib/apparmor/rt, see the chapter",
            "for every program: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        chapter=UBUNTU,
    ),
    Reason(
        "RT-USERNS-SECCOMP",
        "blocked",
        "seccomp and user namespaces",
        cause="The profile of an outer container engine, or RestrictNamespaces= of a systemd unit, forbids"
        " unshare, clone and mount without CAP_SYS_ADMIN.",
        found="Seccomp in /proc/self/status is 2, and a child of rt could not make a user namespace",
        fixes=(
            "Docker, Podman: --security-opt seccomp=unconfined, or a profile that allows clone, unshare,"
            " mount",
            "Kubernetes: securityContext.seccompProfile.type: Unconfined",
            "systemd: RestrictNamespaces=no in the unit",
        ),
        chapter=CONTAINER,
    ),
    Reason(
        "RT-USERNS-CHROOT",
        "blocked",
        "chroot",
        cause="The kernel refuses a user namespace to a process whose root directory is not that of its mount"
        " namespace.",
        found="no line of /proc/self/mountinfo has the mount point /; or a child of rt is refused a user"
        " namespace with EPERM, and nothing else that could do so is there",
        fixes=("run rt outside of the chroot", "enter that system with pivot_root: systemd-nspawn, bwrap"),
        chapter=NEED,
    ),
    Reason(
        "RT-USERNS-UNMAPPED",
        "blocked",
        "the own id in the user namespace",
        cause="A process whose own uid or gid does not exist in its user namespace cannot make a further"
        " one.",
        found="the own ids are not in /proc/self/uid_map and gid_map",
        fixes=("map the id in the surrounding container, or run as one that is mapped, such as its root",),
        chapter=IDS,
    ),
    Reason(
        "RT-USERNS-REFUSED",
        "blocked",
        "making a user namespace",
        cause="None of the known switches is off, and it fails all the same: SELinux (user_namespace create),"
        " Landlock, namespaces nested more than 32 deep, or too many of them.",
        found="a child of rt makes a user namespace, maps its own id, and mounts a tmpfs in it",
        fixes=(
            "the kernel's log (dmesg, ausearch -m avc) names a security module that forbade it",
            "end some containers, or raise user.max_user_namespaces",
        ),
        chapter=NEED,
    ),
    Reason(
        "RT-NAMESPACES-MAX",
        "blocked",
        "user.max_*_namespaces",
        cause="Each kind of namespace has such a limit; 0 switches it off, and a container cannot have one.",
        found="/proc/sys/user of the user namespace that rt runs in",
        fixes=("sudo sysctl user.max_mnt_namespaces=28633, and so on for those that are 0",),
        chapter=NEED,
    ),
    Reason(
        "RT-PRIV-NNP",
        "degraded",
        "no_new_privs",
        cause="With no_new_privs newuidmap and newgidmap run without their privilege, so that only your own"
        " ids can be mapped. Kubernetes sets it by allowPrivilegeEscalation: false.",
        found="NoNewPrivs in /proc/self/status",
        fixes=(
            "Docker, Podman: without --security-opt no-new-privileges",
            "Kubernetes: allowPrivilegeEscalation: true",
            "systemd: NoNewPrivileges=no in the unit",
            "or map only the own id: rt spec --rootless --idmap single",
        ),
        chapter=CONTAINER,
    ),
    Reason(
        "RT-PRIV-BOUNDING",
        "degraded",
        "capability bounding set",
        cause="newuidmap needs CAP_SETUID and newgidmap CAP_SETGID; no program gets a capability that is not"
        " in the bounding set.",
        found="CapBnd in /proc/self/status",
        fixes=(
            "Docker, Podman: --cap-add SETUID --cap-add SETGID",
            "Kubernetes: securityContext.capabilities.add: [SETUID, SETGID]",
            "systemd: both in CapabilityBoundingSet=",
        ),
        chapter=CONTAINER,
    ),
    Reason(
        "RT-LSM",
        "degraded",
        "AppArmor and SELinux",
        cause="A profile or domain that rt itself runs in confines its containers too, and may forbid"
        " mounts.",
        found="/proc/self/attr",
        fixes=("run rt unconfined, or allow in its profile what the kernel's log names",),
        chapter=NEED,
    ),
    Reason(
        "RT-NESTED",
        "degraded",
        "the container around",
        cause="In a container rt depends on what its engine left: a whole /proc, cgroups, user namespaces."
        " What is missing has an entry of its own.",
        found="/.dockerenv, /run/.containerenv, /proc/1/cgroup, and variables such as"
        " KUBERNETES_SERVICE_HOST,"
        " GITHUB_ACTIONS, GITLAB_CI, container",
        fixes=("see the other entries",),
        chapter=CONTAINER,
    ),
    Reason(
        "RT-PROC-MASKED",
        "blocked",
        "a whole /proc",
        cause="The kernel lets a user namespace mount a new proc only where it already sees one that nothing"
        " is mounted over (`VFS: Mount too revealing`). Docker, Podman and Kubernetes hide parts of it, and"
        " make /proc/sys read-only, which counts too.",
        found="mounts below /proc in /proc/self/mountinfo, and an attempt of a child of rt",
        fixes=(
            "Docker, Podman: --security-opt systempaths=unconfined (Podman also: unmask=ALL)",
            "Kubernetes: securityContext.procMount: Unmasked, with hostUsers: false",
            "GitHub Actions, GitLab: a job without container:, or options: --privileged for it",
        ),
        chapter=CONTAINER,
    ),
    Reason(
        "RT-SYS-MASKED",
        "degraded",
        "a whole /sys",
        cause="As with /proc: a container with a network namespace of its own gets a new sysfs only where"
        " nothing is mounted over the host's but what belongs there.",
        found="mounts below /sys in /proc/self/mountinfo",
        fixes=(
            "bind /sys instead of mounting a new one, as `rt spec --rootless` does",
            "Docker, Podman: --security-opt systempaths=unconfined",
        ),
        chapter=CONTAINER,
    ),
)
