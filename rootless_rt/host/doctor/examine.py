"""The check-up of a host: all subjects of this directory, in the order in which they are shown."""

from __future__ import annotations

from rootless_rt.host.doctor import identity, kernel, resources, session, surroundings, system, userns
from rootless_rt.host.doctor.model import diagnose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.host.doctor.model import Finding, Me


def examine(me: Me, bus: str | None, root: str = "") -> list[Finding]:
    """Look at the host below `root`, and say what is well and what is not.

    `bus` is the socket of the user's bus, or None: who knows buses looks for it.
    """
    find = system.finder(root, me.environ)
    namespaces = userns.gather(root, me)
    return [
        *diagnose(kernel.CHECKS, kernel.gather(root, me, find), me),
        *diagnose(userns.CHECKS, namespaces, me),
        *diagnose(surroundings.CHECKS, surroundings.gather(root, me, namespaces.probe), me),
        *diagnose(identity.CHECKS, identity.gather(root, me, find), me),
        *diagnose(session.CHECKS, session.gather(root, me, bus), me),
        *diagnose(resources.CHECKS, resources.gather(root, me, find), me),
    ]
