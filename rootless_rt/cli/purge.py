"""`rt delete --purge`: the container's root file system goes too, whatever ids its files belong to.

Only one that lies inside the bundle, by its real path: anything else was not made for this container alone.
"""

from __future__ import annotations

import os

from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.own_files import run_tool
from rootless_rt.container.store import Store, check_id
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def purge(inv: Invocation, store: Store, container_id: str, delete: Callable[[], None]) -> None:
    """Delete the container, then its rootfs. Raises RtError, before anything when the rootfs may not go."""
    handle = store.find(check_id(container_id))
    if handle is None:
        delete()  # which says what there is to say
        return
    try:
        state = handle.read_state()
    finally:
        handle.close()
    rootfs, bundle = state["rootfs"], state["bundle"]
    real = os.path.realpath(rootfs)
    if real != os.path.normpath(rootfs) or not real.startswith(os.path.realpath(bundle) + "/"):
        raise RtError(
            f"--purge: {rootfs} does not lie in the bundle {bundle}",
            hint="remove it by hand if nothing else uses it: rt rm " + rootfs,
        )
    delete()
    code = run_tool(inv, "rm", ["-rf", "--", real])
    if code:
        raise RtError(f"--purge: rm ended with {code}: {real} is not removed whole")
