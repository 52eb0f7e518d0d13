"""The socket that stands in for NOTIFY_SOCKET in the container: where it is shown, and its variable."""

from __future__ import annotations

from rootless_rt.plan.attributes import bind_op, restricting
from rootless_rt.plan.model import Draft
from rootless_rt.plan.ops import Op
from rootless_rt.spec.mountopts import ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY

PLACE, FILE = "/run/notify", "notify.sock"
VARIABLE = f"NOTIFY_SOCKET={PLACE}/{FILE}"
_ATTRS = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC


def notify_op(draft: Draft) -> Op:
    """Bind the socket's directory, behind all mounts of the config: one of those may be /run.

    The directory and not the socket, so that `start` can make the socket after `create` has made the mount.
    """
    slot = draft.source(draft.policy.notify, False, label="NOTIFY_SOCKET")
    return bind_op(draft, slot, PLACE, restricting(_ATTRS), label="NOTIFY_SOCKET")
