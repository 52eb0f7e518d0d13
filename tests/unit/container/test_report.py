"""From a report of rt-init to the one line and the one hint."""

from __future__ import annotations

import errno
import sys

import pytest

from rootless_rt.container.report import failure
from rootless_rt.host import userns
from rootless_rt.init.launch import MSG_ERROR, Message
from rootless_rt.plan.model import Plan
from rootless_rt.plan.ops import NO_SLOT, Op


def report(op: Op, call: str, number: int, text: str = "", *, mapped: bool = True):
    """The error for a plan in which this op failed."""
    plan = Plan()
    plan.ops = [Op("trace"), op]
    plan.uid_map = [(0, 1000, 1)] if mapped else None
    head = b"".join(value.to_bytes(4, sys.byteorder) for value in (MSG_ERROR, 1, 0, number, 0))
    return failure(plan, Message(head + call.encode().ljust(24, b"\0") + text.encode(), -1))


def filesystem(kind: str, dest: str) -> Op:
    return Op(
        "mount_fs", 0, dest, kind, kind, [], 0, [], 0, 0, NO_SLOT, 0, NO_SLOT, NO_SLOT, label="mounts[3]"
    )


def test_a_mount_is_named_by_its_place_in_the_config_its_type_and_its_destination() -> None:
    error = report(filesystem("tmpfs", "/data"), "fsconfig-create", errno.EINVAL)
    assert error.message == "mounts[3]: tmpfs on /data: fsconfig-create: invalid argument"


def test_the_words_of_the_kernel_are_passed_on() -> None:
    log = "/data\ne tmpfs: Bad value for 'mode'\n"
    error = report(filesystem("tmpfs", "/data"), "fsconfig", errno.EINVAL, log)
    assert error.message.endswith("(tmpfs: Bad value for 'mode')")


def test_only_a_container_s_own_program_has_its_working_directory_made() -> None:
    hints = [report(Op("chdir", "/no", made), "chdir", errno.ENOENT, "/no").hint or "" for made in (0, 1)]
    assert "must be there" in hints[0] and "can be made" in hints[1]


def test_a_hidden_proc_is_explained_with_the_options_of_outer_containers() -> None:
    error = report(filesystem("proc", "/proc"), "fsconfig-create", errno.EPERM, "/proc")
    assert error.hint and "systempaths=unconfined" in error.hint


@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("x", errno.ENOENT, 'exec: "x": executable file not found in $PATH'),
        ("/x", errno.ENOENT, 'exec: "/x": stat /x: no such file or directory'),
        ("/x", errno.EACCES, 'exec: "/x": permission denied'),
        ("/x", errno.ENOEXEC, 'exec: "/x": exec format error'),
    ],
)
def test_a_program_that_cannot_be_executed_is_told_in_the_words_that_engines_read(
    name: str, number: int, said: str
) -> None:
    assert report(Op("find", name, "/bin"), "find", number, name).message == said


def test_what_fails_first_without_capabilities_is_explained_by_apparmor(monkeypatch) -> None:
    monkeypatch.setattr(userns.UsernsEvidence, "__init__", lambda self: setattr(self, "apparmor", "1"))
    refused = Op("propagation", 1 << 19)
    hint = report(refused, "mount_setattr", errno.EPERM, "/").hint
    assert hint and "apparmor_restrict_unprivileged_userns=0" in hint
    assert report(refused, "mount_setattr", errno.EINVAL, "/").hint is None
    assert report(refused, "mount_setattr", errno.EPERM, "/", mapped=False).hint is None


def test_elsewhere_apparmor_is_not_blamed(monkeypatch) -> None:
    monkeypatch.setattr(userns.UsernsEvidence, "__init__", lambda self: setattr(self, "apparmor", None))
    assert report(Op("propagation", 1 << 19), "mount_setattr", errno.EPERM, "/").hint is None


@pytest.mark.parametrize(
    ("field", "text", "number", "said"),
    [
        ("process.apparmorProfile", "exec box", errno.ENOENT, 'no AppArmor profile "box" is loaded'),
        ("process.apparmorProfile", "exec box", errno.EACCES, 'does not let this process change to "box"'),
        ("process.apparmorProfile", "exec box", errno.EPERM, 'does not let this process change to "box"'),
        ("process.selinuxLabel", "u:r:t", errno.EINVAL, 'the SELinux policy has no context "u:r:t"'),
        ("process.selinuxLabel", "u:r:t", errno.EACCES, 'does not let this process use "u:r:t"'),
    ],
)
def test_a_label_that_the_kernel_does_not_take_is_explained(field, text, number, said) -> None:
    error = report(Op("proc_write", 3, text, label=field), "write", number, text)
    assert error.message.startswith(f"config.json: {field}: ") and said in error.message and error.hint


def test_a_covered_file_of_labels_is_named() -> None:
    error = report(
        Op("proc_file", 3, "self/attr/exec", label="process.selinuxLabel"),
        "open",
        errno.EXDEV,
        "self/attr/exec",
    )
    assert error.message.startswith("process.selinuxLabel: self/attr/exec: something is mounted over it")
    assert error.hint and "umount" in error.hint


def test_another_errno_of_a_write_is_said_as_it_is() -> None:
    error = report(Op("proc_write", 3, "1", label="process.x"), "write", errno.EIO, "1")
    assert error.message == "process.x: 1: write: input/output error"


FILTER = Op("seccomp_listen", 8, b"", label="linux.seccomp")


@pytest.mark.parametrize(
    ("call", "number", "message", "hint"),
    [
        ("seccomp", errno.EINVAL, "linux.seccomp: seccomp: invalid argument", "linux.seccomp.flags"),
        ("seccomp", errno.EBUSY, "linux.seccomp: seccomp: device or resource busy", "one listener"),
        ("seccomp", errno.ENOMEM, "linux.seccomp: seccomp: cannot allocate memory", "32768 instructions"),
        ("seccomp", errno.ENOSYS, "linux.seccomp: seccomp: function not implemented", "no seccomp filters"),
        ("seccomp", errno.EPERM, "linux.seccomp: seccomp: operation not permitted", "surrounding container"),
        ("seccomp", errno.EACCES, "linux.seccomp: seccomp: permission denied", "noNewPrivileges"),
        (
            "thread",
            errno.EAGAIN,
            "linux.seccomp: thread: resource temporarily unavailable",
            "a limit on processes",
        ),
    ],
)
def test_a_filter_that_cannot_be_loaded_is_explained(call: str, number: int, message: str, hint: str) -> None:
    for op in (FILTER, Op("seccomp", 0, b"", label="linux.seccomp")):
        error = report(op, call, number, mapped=False)
        assert error.message == message and hint in (error.hint or "")


def test_a_filter_that_keeps_its_own_capability_from_being_dropped_is_explained() -> None:
    error = report(Op("caps", 0, 0, 0, label="linux.seccomp"), "capset", errno.EPERM)
    assert error.message == "linux.seccomp: capset: operation not permitted"
    assert "noNewPrivileges" in (error.hint or "")


def test_a_program_that_a_label_may_forbid_is_told_with_the_label() -> None:
    plan = Plan()
    plan.ops = [Op("proc_write", 3, "u:r:t", label="process.selinuxLabel"), Op("exec", ["/x"], [])]
    head = b"".join(value.to_bytes(4, sys.byteorder) for value in (MSG_ERROR, 1, 0, errno.EPERM, 0))
    error = failure(plan, Message(head + b"execve".ljust(24, b"\0") + b"/x", -1))
    assert error.message == 'exec: "/x": operation not permitted'
    assert error.hint and error.hint.startswith("process.selinuxLabel may forbid it")


def test_a_mount_label_that_the_policy_does_not_know_is_asked_about() -> None:
    op = filesystem("tmpfs", "/a")
    op.args[4].append("context=u:r:t")
    assert "SELinux policy" in (report(op, "fsconfig", errno.EINVAL).hint or "")
    assert report(filesystem("tmpfs", "/a"), "fsconfig", errno.EINVAL).hint is None
