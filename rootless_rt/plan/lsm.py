"""Labels of AppArmor and SELinux: of the program, of its session keyring, of new filesystems. Pure.

Nothing here degrades: a label that cannot be given is an error, before anything is made where that can be
known. The program's label is written right before it is executed: from the write on it counts for whatever
the process executes, and startContainer hooks are not to run under it. The files are opened earlier, in the
host's verified /proc, which is closed by then.
"""

from __future__ import annotations

from rootless_rt.errors import RtError, SpecError
from rootless_rt.plan.model import Draft
from rootless_rt.plan.ops import Op
from rootless_rt.spec.jsonio import quote

PROFILE, LABEL, MOUNT_LABEL = "process.apparmorProfile", "process.selinuxLabel", "linux.mountLabel"

# Written below /proc; the kernels that rt runs on (openat2, Linux 5.6) all have AppArmor's own directory.
_APPARMOR_EXEC = "self/attr/apparmor/exec"
_SELINUX_EXEC = "self/attr/exec"
_SELINUX_KEY = "self/attr/keycreate"
_NO_LABEL = "\n"  # takes a label back

_NO_APPARMOR = (
    "boot a kernel with AppArmor (lsm=...,apparmor), or ask the engine for none (--security-opt apparmor=)"
)
_NO_SELINUX = (
    "boot a kernel with SELinux and a policy, or ask the engine for none (--security-opt label=disable)"
)
# Labels that a mount's own options may name: then they are the ones to use.
_OWN_LABELS = ("context=", "fscontext=", "defcontext=", "rootcontext=")
# SELinux takes no label for the first four; a mqueue's comes behind the mount, where that is the container's.
_UNLABELLED = ("proc", "sysfs", "cgroup", "cgroup2", "mqueue")


def program_label(draft: Draft) -> tuple[list[Op], list[int]]:
    """The ops that open what the program's labels are written to, and the slots they fill.

    The writes themselves are put into `draft.last_writes`. Raises SpecError where there is no such module.
    """
    opened, slots = [], []
    profile, label = draft.process.get("apparmorProfile", ""), draft.process.get("selinuxLabel", "")
    for field, path, text in (
        (PROFILE, _APPARMOR_EXEC, _profile_command(draft, profile)),
        (LABEL, _SELINUX_EXEC, _context(draft, label, LABEL)),
    ):
        if text:
            slot = draft.new_slot()
            slots.append(slot)
            opened.append(Op("proc_file", slot, path, label=field))
            draft.last_writes.append(Op("proc_write", slot, text, label=field))
    return opened, slots


def keyring_ops(draft: Draft, keyring: Op) -> list[Op]:
    """The op that makes the session keyring, with the process's SELinux label on what it makes."""
    text = _context(draft, draft.process.get("selinuxLabel", ""), LABEL)
    if not text:
        return [keyring]
    slot = draft.new_slot()
    opened = Op("proc_file", slot, _SELINUX_KEY, label=LABEL)
    before, after = (Op("proc_write", slot, value, label=LABEL) for value in (text, _NO_LABEL))
    return [opened, before, keyring, opened, after]


def mount_data(draft: Draft, kind: str, data: list[str]) -> list[str]:
    """The data of a new filesystem of that kind, with the label that mountLabel gives it.

    A label that the mount's options name stays, without the quotes that protect its commas in /etc/fstab.
    """
    own = [word.startswith(_OWN_LABELS) for word in data]
    if any(own):
        return [_unquoted(word) if labels else word for word, labels in zip(data, own, strict=True)]
    label = mount_label(draft)
    return [*data, f"context={label}"] if label and kind not in _UNLABELLED else data


def after_mount(draft: Draft, kind: str, dest: str, where: str) -> list[Op]:
    """The label of a mqueue, unless its queues are those of others too."""
    label = mount_label(draft) if kind == "mqueue" and "ipc" in draft.new else ""
    return [Op("label_mqueue", draft.root_slot, dest, label, label=where)] if label else []


def mask_ops(draft: Draft, slot: int) -> list[Op]:
    """The filesystem that is to mask directories, made with a label."""
    label = mount_label(draft)
    return [Op("mask_tmpfs", slot, label, label=MOUNT_LABEL)] if label else []


def mount_label(draft: Draft) -> str:
    """linux.mountLabel, "" for none. Raises SpecError without SELinux."""
    return _context(draft, draft.linux.get("mountLabel", ""), MOUNT_LABEL)


def _profile_command(draft: Draft, profile: str) -> str:
    facts = draft.facts.lsm
    if facts is None or not facts.apparmor:
        # What is asked for is so: without AppArmor nothing is confined by it.
        if profile in ("", "unconfined"):
            return ""
        raise SpecError(
            PROFILE, f"{quote(profile)} needs AppArmor, which this kernel does not run", hint=_NO_APPARMOR
        )
    if profile and facts.loaded is False:
        raise _not_loaded(profile)
    return f"exec {profile}" if profile else ""


def _context(draft: Draft, label: str, field: str) -> str:
    if label and not (draft.facts.lsm is not None and draft.facts.lsm.selinux):
        raise SpecError(
            field, f"{quote(label)} needs SELinux, which this kernel does not run", hint=_NO_SELINUX
        )
    return label


def _unquoted(word: str) -> str:
    name, _, value = word.partition("=")
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    return f"{name}={value}"


def _not_loaded(profile: str) -> SpecError:
    return SpecError(
        PROFILE,
        f"no AppArmor profile {quote(profile)} is loaded",
        hint="load it: sudo apparmor_parser -r FILE; the loaded ones: sudo aa-status",
    )


def refusal(field: str, text: str, number: int) -> RtError | None:
    """Why the kernel did not take `text` as the label that `field` asks for; None where the errno says it."""
    import errno

    if field == PROFILE:
        profile = text.removeprefix("exec ")
        if number == errno.ENOENT:
            return _not_loaded(profile)
        if number in (errno.EACCES, errno.EPERM):
            return SpecError(
                field,
                f"AppArmor does not let this process change to {quote(profile)}",
                hint="the profile it runs under itself needs the rule: change_profile -> "
                f"{profile}, (cat /proc/self/attr/apparmor/current names it)",
            )
    if field in (LABEL, MOUNT_LABEL) and number == errno.EINVAL:
        return SpecError(
            field,
            f"the SELinux policy has no context {quote(text)}"
            if text != _NO_LABEL
            else "SELinux took it not back",
            hint="its user, role, type and level must be known to the loaded policy: seinfo lists them",
        )
    if field == LABEL and number in (errno.EACCES, errno.EPERM):
        return SpecError(
            field,
            f"SELinux does not let this process use {quote(text)}",
            hint="sudo ausearch -m avc -ts recent says which rule is missing",
        )
    return None
