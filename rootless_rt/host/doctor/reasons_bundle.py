"""Texts on what one bundle needs (`rt doctor --bundle`): the same on every host. See `reason`."""

from __future__ import annotations

from rootless_rt.host.doctor.reason import CGROUPS, HOST, IDS, Reason

_LIMITS = "Limits of the process, keyring, seccomp"

BUNDLE = (
    Reason(
        "RT-BUNDLE-CONFIG",
        "blocked",
        "config.json",
        cause="The config cannot be read, has a wrong value, or asks for what cannot be had here and has no"
        " safe substitute.",
        found="it is checked and planned for this host, as `rt plan` does",
        fixes=("the field is named by its JSON path; `rt spec` writes a config that is right",),
        chapter="Errors and their causes",
    ),
    Reason(
        "RT-BUNDLE-LIMITS",
        "degraded",
        "limits (linux.resources)",
        cause="A limit needs a cgroup that rt may write to, in which the limit's controller is enabled.",
        found="the cgroup that the container would get, and its controllers",
        fixes=("see RT-CGROUP-DELEGATED and RT-CGROUP-CONTROLLERS",),
        chapter=CGROUPS,
    ),
    Reason(
        "RT-BUNDLE-RLIMITS",
        "degraded",
        "limits of the process",
        cause="Hard limits, scores and priorities beyond yours need root; they are cut to yours.",
        found="getrlimit(2) and the like against process.rlimits, oomScoreAdj, scheduler",
        fixes=("/etc/security/limits.d, systemctl edit user@.service",),
        chapter=_LIMITS,
    ),
    Reason(
        "RT-BUNDLE-DEVICES",
        "degraded",
        "devices",
        cause="Without root the host's device nodes are bound. One that the host lacks is left out; one that"
        " you may not open outside cannot be opened inside.",
        found="linux.devices and binds of /dev against the host's nodes, their modes and your groups",
        fixes=("load the driver, or remove the device", "join its group, and use --keep-groups"),
        chapter="Devices",
    ),
    Reason(
        "RT-BUNDLE-IDS",
        "blocked",
        "id maps",
        cause="linux.uidMappings and gidMappings may name your own id and what /etc/subuid and /etc/subgid"
        " grant you, nothing else.",
        found="the maps of the plan against the grants, and the helpers' rights",
        fixes=("rt spec --rootless --idmap auto writes maps that are granted", "or have a range granted"),
        chapter=IDS,
    ),
    Reason(
        "RT-BUNDLE-PATH",
        "blocked",
        "the way to the rootfs and to bind sources",
        cause="rt opens them as you, so you must be able to search every directory on the way. The rootfs"
        " itself must be open to the container's root and to its user: ids of your range are strangers to the"
        " host, whom mode 0700 shuts out.",
        found="owner, mode and access control list of each directory, for the host's id that stands behind",
        fixes=("chmod o+x DIRECTORY, or setfacl -m u:ID:x DIRECTORY", "or move the bundle"),
        chapter=HOST,
    ),
    Reason(
        "RT-BUNDLE-FILESYSTEM",
        "degraded",
        "file system of the rootfs",
        cause="Network file systems do not know your subordinate ids and refuse chown (NFS, Lustre, GPFS);"
        " vfat, exfat, 9p and Windows drives have no owners and modes of their own.",
        found="the type in /proc/self/mountinfo",
        fixes=("put the bundle on a local disk (ext4, xfs, btrfs), or use --idmap single",),
        chapter=HOST,
    ),
    Reason(
        "RT-BUNDLE-MOUNT-FLAGS",
        "blocked",
        "mount options below the rootfs",
        cause="No program can be executed from a file system mounted noexec. With nosuid, su and sudo inside"
        " do not work; with nodev, devices in the image do not, which users cannot have anyway.",
        found="the options in /proc/self/mountinfo",
        fixes=("move the bundle, or: sudo mount -o remount,exec MOUNT",),
        chapter=HOST,
    ),
    Reason(
        "RT-BUNDLE-PLAN",
        "degraded",
        "what would differ from the config",
        cause="Where the host cannot give what is asked, rt goes on with a safe substitute, or with"
        " --degrade=strict stops.",
        found="the plan of the container for this host, without running it (`rt plan`)",
        fixes=("each has its own: `rt plan --bundle DIR`",),
        chapter="What degrades",
    ),
)
