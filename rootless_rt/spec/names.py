"""The names that config.json and the command line use, with the numbers the kernel knows them by.

Constants, and the two small parsers that belong to them. Sources: capability.h, signal(7), resource.h,
sched.h, mount.h, runtime-spec config-linux.md, namespaces(7). Knows nothing of what a config does with a
name.
"""

from __future__ import annotations

from rootless_rt.errors import RtError
from rootless_rt.spec.jsonio import quote

_CAPABILITY_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
# capability name -> bit number, in the kernel's order
CAPABILITIES: dict[str, int] = {f"CAP_{name}": bit for bit, name in enumerate(_CAPABILITY_NAMES.split())}
CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")

_SIGNAL_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN "
    "TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
SIGRTMIN = 34  # as glibc counts: the kernel's 32 and 33 belong to the threads library
SIGRTMAX = 64
# signal name with SIG -> number (all architectures that rt builds for; MIPS, Alpha and SPARC differ)
SIGNALS: dict[str, int] = {f"SIG{name}": number for number, name in enumerate(_SIGNAL_NAMES.split(), 1)}
SIGNALS.update(SIGIOT=6, SIGPOLL=29, SIGCLD=17, SIGRTMIN=SIGRTMIN, SIGRTMAX=SIGRTMAX)

_RLIMIT_NAMES = (
    "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
)
RLIMITS: dict[str, int] = {f"RLIMIT_{name}": number for number, name in enumerate(_RLIMIT_NAMES.split())}

# config.json type -> (clone flag, name in /proc/PID/ns)
NAMESPACES: dict[str, tuple[int, str]] = {
    "cgroup": (0x02000000, "cgroup"),
    "ipc": (0x08000000, "ipc"),
    "mount": (0x00020000, "mnt"),
    "network": (0x40000000, "net"),
    "pid": (0x20000000, "pid"),
    "time": (0x00000080, "time"),
    "user": (0x10000000, "user"),
    "uts": (0x04000000, "uts"),
}

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

# crun's annotation: with the value "1" the process keeps the caller's supplementary groups.
KEEP_GROUPS = "run.oci.keep_original_groups"
# Our own: "nsresource", when the ids outside are systemd-nsresourced's to choose.
IDMAP = "org.rootless-rt.idmap"
# What must not degrade, whatever --degrade says: JSON paths and device paths, separated by commas.
REQUIRED = "org.rootless-rt.required"
# Our own: the Landlock rules of the container's processes, see `landlock`.
LANDLOCK = "org.rootless-rt.landlock"

MS_REC = 0x4000
# value of linux.rootfsPropagation and mount option -> (MS_* flag, recursive)
PROPAGATION: dict[str, tuple[int, bool]] = {
    "unbindable": (1 << 17, False),
    "runbindable": (1 << 17, True),
    "private": (1 << 18, False),
    "rprivate": (1 << 18, True),
    "slave": (1 << 19, False),
    "rslave": (1 << 19, True),
    "shared": (1 << 20, False),
    "rshared": (1 << 20, True),
}

# sysctl -> the namespace that a container must own before it may set it; prefixes end in a dot
SYSCTLS: dict[str, str] = {
    "kernel.msgmax": "ipc",
    "kernel.msgmnb": "ipc",
    "kernel.msgmni": "ipc",
    "kernel.sem": "ipc",
    "kernel.shmall": "ipc",
    "kernel.shmmax": "ipc",
    "kernel.shmmni": "ipc",
    "kernel.shm_rmid_forced": "ipc",
    "kernel.domainname": "uts",
    "fs.mqueue.": "ipc",
    "net.": "network",
    "user.": "user",
}

SECCOMP_ACTIONS = (
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
)
SECCOMP_OPERATORS = tuple(f"SCMP_CMP_{name}" for name in ("EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"))
SECCOMP_ARCHES = tuple(
    f"SCMP_ARCH_{name}"
    for name in [
        "AARCH64",
        "ARM",
        "LOONGARCH64",
        "M68K",
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "MIPSEL",
        "MIPSEL64",
        "MIPSEL64N32",
        "PARISC",
        "PARISC64",
        "PPC",
        "PPC64",
        "PPC64LE",
        "RISCV64",
        "S390",
        "S390X",
        "SH",
        "SHEB",
        "X32",
        "X86",
        "X86_64",
    ]
)
SECCOMP_FLAGS = (
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
)


def decimal(text: str) -> int | None:
    """The number that ASCII digits write, or None: int() alone also takes "1_0", " 1" and other scripts."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def signal_number(text: str) -> int:
    """The number of a signal given as "9", "KILL", "SIGKILL" (any case), "RTMIN+3" or "RTMAX-1".

    Raises RtError for anything else, and for numbers outside 1..64.
    """
    number = decimal(text)
    if number is None:
        name = text.upper() if text.isascii() else ""
        name = name if name.startswith("SIG") else "SIG" + name
        number = SIGNALS.get(name)
        if number is None and name[:8] in ("SIGRTMIN", "SIGRTMAX"):
            offset = decimal(name[9:])
            if (
                offset is not None
                and name[8] == "+-"[name[:8] == "SIGRTMAX"]
                and offset <= SIGRTMAX - SIGRTMIN
            ):
                number = SIGRTMIN + offset if name[8] == "+" else SIGRTMAX - offset
    if number is None or not 1 <= number <= SIGRTMAX:
        raise RtError(
            f"unknown signal {quote(text)}", hint="give a name such as TERM or SIGKILL, or a number 1 to 64"
        )
    return number


def sysctl_parts(name: str) -> tuple[str, ...] | None:
    """The path of a sysctl below /proc/sys, or None when the name is not a plain one.

    As in sysctl(8), whichever of "." and "/" comes first separates; the other one then stands for itself
    swapped ("net.ipv4.conf.eth0/100.forwarding" is the interface eth0.100). Empty parts, "." and ".." are
    refused.
    """
    dot = name.find(".")
    slash = name.find("/")
    if dot >= 0 and (slash < 0 or dot < slash):
        parts = tuple(part.replace("/", ".") for part in name.split("."))
    else:
        parts = tuple(name.split("/"))
    return None if len(parts) < 2 or any(part in ("", ".", "..") for part in parts) else parts
