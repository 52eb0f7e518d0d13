"""From rt-init's report {op, call, errno, text} to the one line and the one hint that a user reads.

Knows the ops and the errnos that users meet; looks at the system only through `host.userns`, and only when a
report calls for it.
"""

from __future__ import annotations

import errno
import posix

from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.init.launch import Message
    from rootless_rt.plan.model import Plan
    from rootless_rt.plan.ops import Op

# The label of ops for a program of the host's that the command line names.
COMMAND = "COMMAND"
# What a call that is not a system call's name means.
_WORDS = {
    "inside-proc": "its destination leads into /proc through a symbolic link of the rootfs",
    "not-proc": "only a proc filesystem can be mounted on /proc",
    "descriptor": "the name of what the descriptor has open now leads elsewhere, or nowhere",
    "tmpcopyup-depth": "tmpcopyup: directories are nested deeper than 256 levels there",
    "cwd-outside": "the working directory is outside of the container's root",
}


def failure(plan: Plan, message: Message) -> RtError:
    """The error for a report of type MSG_ERROR."""
    if message.call in ("plan", "slot", "mmap", "close_range", "proc") and message.op == 0:
        return _before_the_plan(message)
    op = plan.ops[message.op] if message.op < len(plan.ops) else plan.ops[-1]
    number = message.err
    text, _, detail = message.text.partition("\n")
    if op.name in ("find", "exec") and message.call in ("find", "execve"):
        from rootless_rt.plan.program import command_error, program_error

        if op.label == COMMAND:
            return command_error(text, number)
        error = program_error(text, number, detail, posix.uname().machine)
        if op.name == "exec" and number in (errno.EPERM, errno.EACCES):
            error.hint = _label_hint(plan) or error.hint
        return error
    cloned = op.name in ("clone", "clone_mapped") and message.call == "clone3"
    if cloned and number == errno.ENOMEM and any(kind == "pid" for kind, _ in plan.fds):
        return RtError(
            "linux.namespaces (pid): the first process of the joined pid namespace has ended",
            hint="start the container that it belongs to again",
        )
    if cloned or (op.name == "unshare" and number == errno.ENOSPC):
        from rootless_rt.host.userns import clone_failure

        return clone_failure(number, op.args[0])
    if op.name == "ids" and number == errno.EINVAL:
        return _unmapped(op, message.call)
    if op.name == "hook" and message.call == "hook":
        return _hook(op, text, detail, number)
    if op.name == "proc_write":
        from rootless_rt.plan.lsm import refusal

        if refused := refusal(op.label, text, number):
            return refused
    reason = _WORDS.get(message.call) or posix.strerror(number).lower()
    if op.name == "proc_file" and number == errno.EXDEV:
        reason = "something is mounted over it"
    where = op.label or op.describe()
    subject = f"{op.args[2]} on {op.args[1]}" if op.name == "mount_fs" else text
    if op.name == "join":
        where, subject = f"linux.namespaces ({op.args[2]})", plan.fds[op.args[0]][1]
    parts = [where, subject if subject and subject != where else "", f"{message.call}: {reason}"]
    if message.call in _WORDS or op.name == "proc_file":
        parts[2] = reason
    line = ": ".join(part for part in parts if part)
    if detail.strip():
        line += f" ({_kernel_says(detail)})"
    from rootless_rt.container.causes import cause

    found = cause(plan, op, message.call, number, text)
    if found is not None:
        return RtError(": ".join([line, found.why][: 2 if found.why else 1]), hint=found.fix, id=found.id)
    hint = _hint(op, message.call, number) or _root_s_filesystem(plan, op, number)
    if hint is None and (hint := _restricted(plan, number)):
        return RtError(line, hint=hint, id="RT-USERNS-APPARMOR")
    return RtError(line, hint=hint)


def _root_s_filesystem(plan: Plan, op: Op, number: int) -> str | None:
    """The hint for a filesystem that a user namespace may not mount (FS_USERNS_MOUNT, user_namespaces(7))."""
    if op.name != "mount_fs" or number != errno.EPERM or plan.uid_map is None:
        return None
    if op.args[2] in ("tmpfs", "devpts", "mqueue", "overlay", "fuse", "ramfs"):
        return None
    return f"only root may mount {op.args[2]}: have it mounted on the host, and bind it"


def _label_hint(plan: Plan) -> str | None:
    """The hint where a label may be what forbids to execute the program."""
    labels = [op.label for op in plan.ops if op.name == "proc_write"]
    if not labels:
        if any(op.name == "landlock" for op in plan.ops):
            return (
                "the Landlock rules may forbid it: the program and its loader need to be below a path of ro"
            )
        return None
    return (
        f"{labels[-1]} may forbid it, for this program or with no_new_privs: the kernel's log names the rule"
    )


def _restricted(plan: Plan, number: int) -> str | None:
    """The hint where AppArmor leaves a user namespace without capabilities: whatever is first in it fails."""
    if plan.uid_map is None or number not in (errno.EPERM, errno.EACCES):
        return None
    from rootless_rt.host.userns import UsernsEvidence, apparmor_fix

    return apparmor_fix(UsernsEvidence())


def _unmapped(op: Op, call: str) -> RtError:
    """The maps of a joined user namespace are only known inside: a number they lack is EINVAL there."""
    uid, gid, groups = op.args[:3]
    field, what = {
        "setresuid": ("uid", f"uid {uid}"),
        "setresgid": ("gid", f"gid {gid}"),
    }.get(call, ("additionalGids", "one of " + ", ".join(map(str, groups))))
    return RtError(
        f"process.user.{field}: {what} is not mapped in the user namespace that was joined",
        hint="/proc/self/uid_map and gid_map in the container say which ids it has",
    )


def _before_the_plan(message: Message) -> RtError:
    if message.call == "proc":
        return RtError(
            "/proc is not the proc filesystem",
            hint="mount it: mount -t proc proc /proc (rt works through it)",
        )
    return RtError(f"rt-init: {message.call}: {message.text}: {posix.strerror(message.err).lower()}")


def _kernel_says(detail: str) -> str:
    """The kernel's words from the log of a mount context, such as `e tmpfs: Bad value for 'mode'`."""
    lines = [line[2:] if line[1:2] == " " else line for line in detail.strip().split("\n")]
    return "; ".join(line for line in lines if line)


def _hook(op: Op, path: str, detail: str, number: int) -> RtError:
    how, _, output = detail.partition("\n")
    word, _, value = how.partition(" ")
    said = {
        "exec": posix.strerror(number).lower(),
        "timeout": f"no end within its timeout of {value} ms",
        "signal": f"killed by signal {value}",
        "exit": f"exit status {value}",
    }.get(word, how)
    output = " ".join(output.split())
    return RtError(f"{op.label}: {path}: {said}" + (f": {output}" if output else ""))


def _hint(op: Op, call: str, number: int) -> str | None:
    """What mends it, for the cases that users meet (reference: error table of docs/rootless.md)."""
    if op.name == "mount_fs":
        kind = op.args[2]
        if call == "tmpcopyup":
            return _copy_hint(number)
        if kind == "fuse" and number == errno.EINVAL:
            return (
                "a fuse mount needs fd=N,rootmode=40000,user_id=N,group_id=N, and an fd that was opened in "
                "the container's own user namespace"
            )
        if kind in ("cgroup", "cgroup2") and number in (errno.EPERM, errno.EBUSY):
            return 'give the mount the type "cgroup": it then shows what there is of the container\'s cgroup'
        if number == errno.ENODEV:
            return f"the kernel has no filesystem called {kind}"
        if call == "destination":
            return _destination_hint(number)
        if call == "fsconfig" and number == errno.EINVAL and any("context=" in word for word in op.args[4]):
            return "is the label (linux.mountLabel, or its own context=) one of the loaded SELinux policy?"
    if op.name == "overlay" and number == errno.EINVAL:
        return "overlays want extended attributes above, and nothing mounted inside of the rootfs"
    if op.name == "overlay" and number in (errno.EPERM, errno.ENODEV):
        return "the kernel has no overlay for user namespaces (Linux 5.11)"
    if op.name == "idmap":
        if number == errno.EPERM:
            return "the filesystem belongs to another user namespace: only its owner can map its ids"
        if number == errno.EINVAL:
            return "does the filesystem support mapped ids, and is it not mapped already?"
    if op.label == "linux.namespaces (time)" and number == errno.EINVAL:
        return "the kernel has no time namespaces (Linux 5.6, CONFIG_TIME_NS)"
    if op.label == "linux.timeOffsets":
        if number == errno.ERANGE:
            return "no clock may start below zero, or further ahead than 146 years"
        if number in (errno.EPERM, errno.EACCES):
            return "it takes CAP_SYS_TIME in the user namespace"
    if op.name == "mount_bind":
        if call == "destination":
            return _destination_hint(number)
        if call == "symlinkat" and number == errno.EEXIST:
            return "copy-symlink makes a symlink there: the rootfs has something else at that place"
        if call == "device":
            return "the host's node is not the device that was asked for"
    if op.name == "source" and number == errno.EINVAL:
        return "mounts lie below it, and what they cover must stay so in a user namespace: use rbind"
    if op.name == "source" and call == "descriptor":
        return "give the path itself as the source"
    if op.name == "source" and number == errno.ENOENT:
        return "make it on the host first, or remove the mount"
    if op.name == "join":
        if number == errno.EPERM:
            return (
                "a namespace can be joined by root, or by the owner of the user namespace that it belongs to"
            )
        from rootless_rt.spec.names import NAMESPACES

        return f"is the path a namespace file such as /proc/PID/ns/{NAMESPACES[op.args[2]][1]}?"
    if op.name == "proc_file" and number == errno.EXDEV:
        return "labels are only written to /proc itself: umount what lies below it (see /proc/self/mountinfo)"
    if op.name == "sysctl" and number == errno.EINVAL and "ping_group_range" in op.args[0]:
        return "are all its groups mapped into the user namespace?"
    if op.name == "chdir":
        if not op.args[1]:
            return "the working directory must be there: only a container's own program has it made"
        return "process.cwd must be a directory of the rootfs, or one that can be made in it"
    if op.name == "caps" and op.label == "linux.seccomp":
        return "without process.noNewPrivileges, capset(2) comes after the filter, which must allow it"
    if op.name == "caps" and number == errno.EPERM:
        return "process.capabilities asks for more than the caller has itself"
    if op.name == "rlimit" and number == errno.EPERM:
        return "raising a hard limit takes CAP_SYS_RESOURCE"
    if op.name in ("seccomp", "seccomp_listen"):
        return _seccomp_hint(call, number)
    if op.name in ("landlock_rules", "landlock"):
        return _landlock_hint(call, number)
    if op.name in ("scheduler", "io_priority", "affinity", "memory_policy", "personality"):
        from rootless_rt.container.tuning import hint

        return hint(op, number)
    return None


def _seccomp_hint(call: str, number: int) -> str | None:
    if call == "thread":
        return "a second thread hands the listener over: is there a limit on processes, or SCHED_DEADLINE?"
    return {
        errno.EACCES: "a filter needs process.noNewPrivileges, or CAP_SYS_ADMIN in the user namespace",
        errno.EINVAL: "does this kernel have all of linux.seccomp.flags? null takes what there is",
        errno.EBUSY: "a process has one listener: the surrounding container's filter has an agent already",
        errno.ENOMEM: "there is room for 32768 instructions of filters: is a surrounding one long?",
        errno.EPERM: "the filter of the surrounding container forbids seccomp(2)",
        errno.ENOSYS: "this kernel has no seccomp filters, or the surrounding container hides them",
    }.get(number)


def _landlock_hint(call: str, number: int) -> str | None:
    if call == "open" and number == errno.ENOENT:
        return "its paths must be there in the container, mounts included"
    return {
        errno.E2BIG: "the surrounding sandboxes have put all the rules into force that the kernel takes (16)",
        errno.EBADFD: "files of that file system cannot be named in Landlock rules",
    }.get(number)


def _copy_hint(number: int) -> str | None:
    if number in (errno.ENOSPC, errno.EFBIG):
        return "tmpcopyup needs a tmpfs that is large enough: raise its size=, or leave out tmpcopyup"
    if number in (errno.EACCES, errno.EPERM):
        return "tmpcopyup has to read it: is its owner mapped into the user namespace?"
    if number == errno.EMFILE:
        return "raise the limit on open files (ulimit -n)"
    return None


def _destination_hint(number: int) -> str | None:
    if number in (errno.EACCES, errno.EROFS):
        return "the mount point does not exist in the rootfs and cannot be made: make it there beforehand"
    if number == errno.ELOOP:
        return "a symbolic link stands there (proc and sysfs are never mounted through one)"
    if number in (errno.ENOTDIR, errno.EISDIR):
        return "a file and a directory cannot be mounted on each other"
    return None
