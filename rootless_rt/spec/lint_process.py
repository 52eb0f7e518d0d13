"""Rules of `lint` on the process: capabilities, user, limits, environment, labels, scheduling."""

from __future__ import annotations

from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.lint_model import HIGH, INFO, LOW, MEDIUM, Hit, View
from rootless_rt.spec.names import KEEP_GROUPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# capability -> (severity with the host's ids, severity in a user namespace, what it allows)
_CAPABILITIES: dict[str, tuple[str, str, str]] = {
    "CAP_SYS_ADMIN": (HIGH, MEDIUM, "mount, change namespaces and devices: as good as root of the host"),
    "CAP_SYS_MODULE": (HIGH, LOW, "load code into the kernel"),
    "CAP_SYS_RAWIO": (HIGH, LOW, "reach memory, ports and disks past the kernel"),
    "CAP_SYS_PTRACE": (HIGH, LOW, "look into and steer other users' processes"),
    "CAP_DAC_READ_SEARCH": (HIGH, LOW, "read any file, on the host too, by its handle (open_by_handle_at)"),
    "CAP_SYS_BOOT": (HIGH, LOW, "reboot the host, or start another kernel"),
    "CAP_BPF": (HIGH, LOW, "load programs into the kernel, and read its memory with them"),
    "CAP_MAC_ADMIN": (HIGH, LOW, "change the policy of security modules"),
    "CAP_MAC_OVERRIDE": (HIGH, LOW, "ignore the policy of security modules"),
    "CAP_NET_ADMIN": (MEDIUM, MEDIUM, "change networks, through code of the kernel that is often exploited"),
    "CAP_PERFMON": (MEDIUM, LOW, "watch the kernel and all processes at work"),
    "CAP_CHECKPOINT_RESTORE": (MEDIUM, LOW, "look into processes and choose their ids"),
    "CAP_SYSLOG": (MEDIUM, LOW, "read the kernel's log and addresses"),
    "CAP_SYS_TIME": (MEDIUM, LOW, "set the host's clock"),
    "CAP_SYS_RESOURCE": (MEDIUM, LOW, "lift limits and quotas"),
    "CAP_AUDIT_CONTROL": (MEDIUM, LOW, "switch the audit log off"),
    "CAP_AUDIT_READ": (MEDIUM, LOW, "read the audit log"),
    "CAP_SYS_TTY_CONFIG": (MEDIUM, LOW, "hang up and configure the host's terminals"),
    "CAP_LINUX_IMMUTABLE": (LOW, LOW, "undo what protects files from changes"),
    "CAP_SYS_NICE": (LOW, LOW, "take processors away from others"),
    "CAP_SYS_PACCT": (LOW, LOW, "switch process accounting"),
    "CAP_IPC_LOCK": (LOW, LOW, "lock memory without a limit"),
    "CAP_WAKE_ALARM": (LOW, LOW, "wake the host up"),
    "CAP_BLOCK_SUSPEND": (LOW, LOW, "keep the host awake"),
    "CAP_NET_RAW": (LOW, LOW, "forge packets on its network"),
    "CAP_MKNOD": (LOW, INFO, "make device nodes; only device rules then protect disks"),
}
_SECRETS = (
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SECRET",
    "TOKEN",
    "APIKEY",
    "API_KEY",
    "PRIVATE_KEY",
    "CREDENTIAL",
)
_REAL_TIME = ("SCHED_FIFO", "SCHED_RR", "SCHED_DEADLINE")
_NO_LIMIT = (1 << 64) - 1


def _capabilities(view: View) -> Iterator[Hit]:
    for name, path in view.capabilities.items():
        if name in _CAPABILITIES:
            on_host, in_userns, allows = _CAPABILITIES[name]
            severity = in_userns if view.in_userns else on_host
            if name == "CAP_NET_ADMIN" and not view.own("network"):
                severity = HIGH
            yield Hit(path, f"{name}: {allows}", severity)


def _inheritable(view: View) -> Iterator[Hit]:
    listed = view.process.get("capabilities", {}).get("inheritable", [])
    if listed:
        yield Hit("process.capabilities.inheritable", ", ".join(map(str, listed))[:200])


def _ambient(view: View) -> Iterator[Hit]:
    listed = view.process.get("capabilities", {}).get("ambient", [])
    if listed:
        yield Hit("process.capabilities.ambient", ", ".join(map(str, listed))[:200])


def _root_user(view: View) -> Iterator[Hit]:
    if view.is_root and not view.in_userns:
        yield Hit("process.user.uid", "root of the container is root of the host")


def _root_group(view: View) -> Iterator[Hit]:
    user = view.process.get("user", {})
    if view.in_userns or view.is_root:
        return
    if user.get("gid", 0) == 0:
        yield Hit("process.user.gid", "the group is root's")
    for index, gid in enumerate(user.get("additionalGids", [])):
        if gid == 0:
            yield Hit(f"process.user.additionalGids[{index}]", "the group is root's")


def _no_new_privs(view: View) -> Iterator[Hit]:
    if not view.process.get("noNewPrivileges"):
        yield Hit("process.noNewPrivileges", "is not set")


def _umask(view: View) -> Iterator[Hit]:
    umask = view.process.get("user", {}).get("umask")
    if umask is not None and not umask & 0o002:
        yield Hit("process.user.umask", f"{umask:#o}: new files can be written by everybody")


def _oom_score(view: View) -> Iterator[Hit]:
    score = view.process.get("oomScoreAdj", 0)
    if score < 0:
        yield Hit("process.oomScoreAdj", str(score), MEDIUM if score <= -500 else LOW)


def _rlimits(view: View) -> Iterator[Hit]:
    for index, limit in enumerate(view.process.get("rlimits", [])):
        path = f"process.rlimits[{index}]"
        if limit["type"] == "RLIMIT_CORE" and limit["hard"] == _NO_LIMIT:
            yield Hit(path, "core files of any size")
        elif (
            limit["type"] in ("RLIMIT_NPROC", "RLIMIT_MEMLOCK", "RLIMIT_NOFILE")
            and limit["hard"] == _NO_LIMIT
        ):
            yield Hit(path, f"{limit['type']} is unlimited")


def _environment(view: View) -> Iterator[Hit]:
    for index, entry in enumerate(view.process.get("env", [])):
        name, _, value = entry.partition("=")
        upper = name.upper()
        if value and any(word in upper for word in _SECRETS):
            yield Hit(f"process.env[{index}]", f"{quote(name)} looks like a secret")


def _apparmor(view: View) -> Iterator[Hit]:
    if view.process.get("apparmorProfile") == "unconfined":
        yield Hit("process.apparmorProfile", "unconfined")


def _selinux(view: View) -> Iterator[Hit]:
    label = view.process.get("selinuxLabel", "")
    kind = label.split(":")[2] if label.count(":") >= 2 else ""
    if kind in ("spc_t", "unconfined_t", "init_t", "kernel_t"):
        yield Hit("process.selinuxLabel", f"the type {kind} is not confined")


def _scheduling(view: View) -> Iterator[Hit]:
    policy = view.process.get("scheduler", {}).get("policy", "")
    if policy in _REAL_TIME:
        yield Hit("process.scheduler.policy", policy)
    if view.process.get("ioPriority", {}).get("class") == "IOPRIO_CLASS_RT":
        yield Hit("process.ioPriority.class", "IOPRIO_CLASS_RT", LOW)


def _kept_groups(view: View) -> Iterator[Hit]:
    if view.config.get("annotations", {}).get(KEEP_GROUPS) == "1":
        yield Hit(f"annotations[{quote(KEEP_GROUPS)}]", "the process keeps the caller's groups")


RULES = (
    (
        "capability",
        HIGH,
        _capabilities,
        "whoever takes the container over can do this too",
        "remove it from all five sets of process.capabilities",
    ),
    (
        "root-user",
        MEDIUM,
        _root_user,
        "a mistake anywhere in the isolation gives the host away",
        'add {"type": "user"} to linux.namespaces with mappings (rt spec --rootless), or set another uid',
    ),
    (
        "root-group",
        LOW,
        _root_group,
        "files that root's group can write are open to it",
        "set gid and additionalGids to groups that own nothing on the host",
    ),
    (
        "no-new-privileges",
        MEDIUM,
        _no_new_privs,
        "set-user-ID programs and file capabilities of the image raise privileges",
        "set process.noNewPrivileges to true",
    ),
    (
        "inheritable-capabilities",
        MEDIUM,
        _inheritable,
        "programs with inheritable file capabilities gain them without being root (CVE-2022-24769)",
        "leave process.capabilities.inheritable empty",
    ),
    (
        "ambient-capabilities",
        LOW,
        _ambient,
        "every program that is started has them, of any user",
        "leave process.capabilities.ambient empty, or give one program file capabilities",
    ),
    (
        "umask",
        LOW,
        _umask,
        "other users can change what it makes",
        "set process.user.umask to 18 (0022) or 63 (0077)",
    ),
    (
        "oom-score",
        LOW,
        _oom_score,
        "when memory runs out, processes of the host are killed before it",
        "set process.oomScoreAdj to 0 or more",
    ),
    ("rlimit", LOW, _rlimits, "one container can use up what all share", "set a limit in process.rlimits"),
    (
        "secret-in-environment",
        INFO,
        _environment,
        "the environment is inherited, logged, and stands in config.json and /proc",
        "mount a file with it",
    ),
    (
        "apparmor-unconfined",
        MEDIUM,
        _apparmor,
        "AppArmor confines nothing of it",
        "name a profile, or leave the field out to keep the caller's",
    ),
    (
        "selinux-unconfined",
        MEDIUM,
        _selinux,
        "SELinux confines nothing of it",
        "use container_t with categories",
    ),
    (
        "real-time",
        MEDIUM,
        _scheduling,
        "it can keep a processor or a disk from everybody else",
        "leave the field out, or limit linux.resources.cpu.realtimeRuntime",
    ),
    (
        "kept-groups",
        LOW,
        _kept_groups,
        "what those groups may open on the host, the container may too, where it is mounted",
        "remove the annotation",
    ),
)
