"""The causes of a failed op that `rt explain` knows by an id: from rt-init's report and fresh evidence.

Looks at the system through `host`, and only where a report calls for it. What users read is put together in
`report`.
"""

from __future__ import annotations

import errno
import posix

from rootless_rt.host import outer
from rootless_rt.host.userns import Cause
from rootless_rt.plan.model import Degradation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.plan.model import Plan
    from rootless_rt.plan.ops import Op

_SYSFS_OWN = "sysfs needs a network namespace of this user namespace: add one, or bind /sys read-only"


def cause(plan: Plan, op: Op, call: str, number: int, path: str) -> Cause | None:
    """What the failure of an op comes from; `why` may be empty where the error's own words say it."""
    if op.name in ("source", "root") and number == errno.EACCES:
        return _closed(path)
    if number in (errno.EPERM, errno.ENOSYS) and plan.uid_map is not None:
        from rootless_rt.host.filtered import filtered

        if filtered(call):
            fix = outer.fix_here("seccomp")
            return Cause("a seccomp filter of the surrounding container forbids it", fix, "RT-SECCOMP-CALLS")
    if op.name == "mount_fs":
        return _mount(plan, op.args[2], number)
    if op.name == "mount_bind" and number == errno.EPERM and call not in ("destination", "symlinkat"):
        why = "the mount it comes from belongs to another user namespace, which locks its flags"
        return Cause("", why, "RT-MOUNT-LOCKED")
    if op.name == "sysctl" and number in (errno.EROFS, errno.EXDEV):
        return Cause("", f"/proc/sys is read-only here: {outer.fix_here('proc')}", "RT-PROC-MASKED")
    return None


def no_keyring(planned: Degradation, number: int) -> Degradation:
    """What was planned for a refused session keyring, with the cause that the errno tells (keyctl(2))."""
    if number == errno.EDQUOT:
        why = f"your quota of kernel keys is used up{_keys_used()}"
        return Degradation(planned.field, planned.asked, planned.got, why, planned.fix, id=planned.id)
    why = "keyctl(2) is denied here, as by the seccomp filter of a surrounding container"
    if number == errno.ENOSYS:
        why = "there is no keyctl(2) here: a surrounding container's filter hides it, or the kernel lacks it"
    fix = "leave it so (--no-new-keyring), or: " + outer.fix_here("seccomp")
    return Degradation(planned.field, planned.asked, planned.got, why, fix, id="RT-SECCOMP-CALLS")


def _keys_used() -> str:
    from rootless_rt.host.doctor.resources import keys

    try:
        with open("/proc/key-users", encoding="ascii", errors="replace") as file:
            found = keys(file.read(), posix.geteuid())
    except OSError:
        return ""
    return f" ({found[0]} of {found[1]} keys)" if found else ""


def _closed(path: str) -> Cause:
    from rootless_rt.host.reach import ID, closed

    why, fix = closed(path, read=False)
    return Cause(why, fix or "each directory on the way must be searchable (x) for your user", ID)


def _mount(plan: Plan, kind: str, number: int) -> Cause | None:
    if kind == "proc" and number == errno.EPERM:
        return Cause(
            "",
            "the host's /proc is partly hidden, as in most containers, so the kernel refuses a new one: "
            f"{outer.fix_here('proc')}; or leave out the pid namespace: then the container gets this /proc",
            "RT-PROC-MASKED",
        )
    if kind == "sysfs" and number == errno.EPERM:
        own = any(op.name in ("clone", "clone_mapped") and op.args[0] & 0x40000000 for op in plan.ops)
        fix = "the host's /sys is partly hidden, so the kernel refuses a new one: bind /sys read-only"
        return Cause("", fix if own else _SYSFS_OWN, "RT-SYS-MASKED")
    if kind == "devpts" and number == errno.EINVAL:
        fix = "are the ids of its gid= and uid= options mapped into the user namespace?"
        return Cause("", fix, "RT-IDS-UNMAPPED")
    return None
