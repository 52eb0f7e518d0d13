"""What is done for a container outside of it: network devices moved into it, a program that is its network,
its group of resctrl.

Loaded only when one of them is asked for. Knows when each happens in the making of a container; `net`,
`cgroups` and `container.network` know how.
"""

from __future__ import annotations

from rootless_rt.cgroups import resctrl
from rootless_rt.spec.outside import rdt_asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt.container.network import Network
    from rootless_rt.container.store import Handle
    from rootless_rt.net.devices import Devices


class Outside:
    """What one container needs; made by `look`, when all that can be checked before is fine."""

    __slots__ = ("_devices", "_group", "_network")

    def __init__(self, devices: Devices | None, group: resctrl.Group | None, network: Network | None) -> None:
        self._devices = devices
        self._group = group
        self._network = network

    def note(self, state: dict[str, Any]) -> None:
        """Write down what `delete` will have to remove."""
        if self._group is not None:
            state["rdt"] = self._group.to_state()
        if self._network is not None:
            self._network.note(state)

    def create(self, handle: Handle) -> None:
        """Make what the process will be put into, and what will be mounted in it. Raises RtError."""
        if self._network is not None:
            self._network.create(handle)
        if self._group is not None:
            self._group.create()

    def at_maps(self, handle: Handle, pid: int, pidfd: int) -> None:
        """The process has its namespaces and has done nothing in them yet. Raises RtError.

        So early for the sysctls of devices (net.ipv4.conf.NAME), and for the hooks to find all in place.
        """
        if self._group is not None:
            self._group.add(pid)
        if self._devices is not None:
            self._devices.move(pid)
        if self._network is not None:
            self._network.start(handle, pid, pidfd)

    def undo(self) -> None:
        """Take all of it back; the process still lives, and its network namespace with it. Never raises."""
        if self._network is not None:
            self._network.undo()
        if self._devices is not None:
            self._devices.undo()
        if self._group is not None:
            self._group.undo()

    def done(self) -> None:
        """The container is made: let go of what only `undo` would need."""
        if self._devices is not None:
            self._devices.close()


def look(linux: dict[str, Any], container_id: str, network: Network | None) -> Outside:
    """See whether what `linux` asks for can be done here. Raises RtError; nothing has happened."""
    if network is not None:
        network.check()
    devices = group = None
    if linux.get("netDevices"):
        from rootless_rt.net.devices import Devices

        devices = Devices(linux["netDevices"])
        joined = [item.get("path") for item in linux["namespaces"] if item["type"] == "network"]
        devices.check(joined[0] or None)
    if rdt_asked(linux):
        group = resctrl.choose(linux["intelRdt"], container_id)
    return Outside(devices, group, network)


def enter_group(state: dict[str, Any], container_id: str, pid: int) -> None:
    """Put a further process into the container's groups of resctrl. Raises RtError."""
    group = resctrl.load(state["rdt"], container_id)
    if group is not None:
        group.add(pid)


def remove_groups(state: dict[str, Any], container_id: str) -> None:
    """Remove the groups of resctrl made for a container whose processes have ended. Raises RtError."""
    group = resctrl.load(state["rdt"], container_id)
    if group is not None:
        group.delete()
