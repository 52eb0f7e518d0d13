"""Labels of security modules: an AppArmor profile's name, an SELinux context. Whether a text can be one.

Pure: which of them this host knows is the plan's question. An empty text asks for nothing, as in runc.
Sources: AppArmor's interface in /proc/PID/attr (proc_pid_attr(5)), selinux(8).
"""

from __future__ import annotations

from rootless_rt.errors import CONTROLS, SpecError
from rootless_rt.spec.jsonio import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COMMAND = "exec "  # what stands before a profile's name in the write
_WRITE_MAX = 4095  # the kernel takes less than a page in one write to attr
_PARAMETER_MAX = 255  # of one value for fsconfig(2)


def check_process_labels(process: dict[str, Any], path: str) -> None:
    """Check the labels of a process object at the JSON path `path`. Raises SpecError."""
    check_profile(process.get("apparmorProfile", ""), f"{path}.apparmorProfile")
    check_context(process.get("selinuxLabel", ""), f"{path}.selinuxLabel")


def check_profile(name: str, path: str) -> None:
    """Check an AppArmor profile's name. Raises SpecError."""
    if not name:
        return
    _check_text(name, path, _WRITE_MAX - len(_COMMAND))
    if name != name.strip():
        raise SpecError(
            path, f"begins or ends with white space: {quote(name)}", hint="a name such as docker-default"
        )


def check_context(label: str, path: str, most: int = _WRITE_MAX) -> None:
    """Check an SELinux context of at most `most` bytes. Raises SpecError."""
    if not label:
        return
    _check_text(label, path, most)
    if label != label.strip() or not all(label.split(":", 3)[:3]) or label.count(":") < 2:
        raise SpecError(
            path,
            f"expected an SELinux context, got {quote(label)}",
            hint="user:role:type, with :level behind where the policy has levels, such as "
            "system_u:system_r:container_t:s0:c1,c2",
        )


def check_mount_context(label: str, path: str = "linux.mountLabel") -> None:
    """Check an SELinux context that is to be a mount option. Raises SpecError."""
    check_context(label, path, _PARAMETER_MAX)


def _check_text(text: str, path: str, most: int) -> None:
    if any(ord(char) in CONTROLS for char in text):
        raise SpecError(path, f"holds a control character: {quote(text)}")
    if len(text.encode("utf-8", "surrogateescape")) > most:
        raise SpecError(path, f"longer than {most} bytes")
