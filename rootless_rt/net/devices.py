"""Network devices of the host, moved into a container's network namespace (runtime-spec, "Network Devices").

A device keeps what the kernel keeps with it (MTU, hardware address, queue length, alias); the move shuts it
down and drops its addresses and routes (rtnetlink(7), network_namespaces(7)). Permanent addresses of global
scope are set again, and the device is set up; routes are not: they are for whoever configures the network.

Nothing is taken back at the container's end: with its last network namespace's process the kernel returns
physical devices to the initial namespace, under the name they have then, and destroys virtual ones; in a
namespace that was joined by path they stay. Only a container that cannot be made gives them back itself.

Speaks rtnetlink through pyroute2, which is loaded here alone. Must not know config.json but for the names of
its fields, nor how a container is made. Errors name the device's JSON path.
"""

from __future__ import annotations

import errno
import posix

from rootless_rt.errors import RtError, SpecError
from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.outside import NET_DEVICES, final_name, is_template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OWN_NAMESPACE = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000
_IFF_UP, _IFF_LOOPBACK = 1, 8
_IFA_F_PERMANENT = 0x80
# What an address is asked to be; the other flags are states that the kernel finds out anew: NODAD,
# HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN, STABLE_PRIVACY (linux/if_addr.h).
_ASKED_FLAGS = 0x02 | 0x10 | 0x100 | 0x200 | 0x400 | 0x800
_RT_SCOPE_UNIVERSE = 0
_FOREVER = 0xFFFFFFFF

_NOT_MOVABLE = "it belongs to its network namespace: the kernel moves no such device"
_REASONS = {
    errno.EINVAL: _NOT_MOVABLE,
    errno.EOPNOTSUPP: _NOT_MOVABLE,
    errno.EEXIST: "the name, or another name of the device, is taken there",
    errno.ENODEV: "the device is gone",
    errno.EBUSY: "it is in use",
}


class _Device:
    """One device on its way: what it was, and what it shall be called."""

    __slots__ = ("addresses", "before", "field", "final", "flags", "mtu", "name")

    def __init__(self, name: str, final: str) -> None:
        self.name = name
        self.final = final
        self.field = f"{NET_DEVICES}[{quote(name)}]"
        self.flags = 0
        self.mtu = 0
        self.addresses: list[dict[str, Any]] = []
        self.before: set[int] = set()  # indices that others had in the target


class Devices:
    """The devices of one container. `check`, then `move`, then `close`, or `undo` when something failed."""

    __slots__ = ("_devices", "_home", "_moved", "_target")

    def __init__(self, asked: dict[str, dict[str, Any]]) -> None:
        devices = [_Device(name, final_name(name, entry)) for name, entry in asked.items()]
        # The kernel's choice of a number must not take a name that is asked for.
        self._devices = sorted(devices, key=lambda device: is_template(device.final))
        self._moved: list[_Device] = []
        self._home = -1
        self._target = -1

    def check(self, joined: str | None) -> None:
        """Look whether the devices are here and movable. Raises RtError; nothing has happened.

        `joined` is the file of the namespace that the container joins, if it does.
        """
        if joined is not None:
            try:
                theirs, ours = posix.stat(joined), posix.stat(_OWN_NAMESPACE)
            except OSError as error:
                raise _failure(f"{NET_DEVICES}: {joined}", error) from None
            if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino):
                raise _same_namespace()
        with _rtnetlink() as here:
            links = _links(here)
        for device in self._devices:
            link = links.get(device.name)
            if link is None:
                raise SpecError(device.field, "there is no such network device", hint="ip link lists them")
            if link["flags"] & _IFF_LOOPBACK:
                raise SpecError(device.field, "is a loopback device: " + _NOT_MOVABLE)

    def move(self, pid: int) -> None:
        """Move them into the network namespace of a process. Raises RtError; `undo` then takes them back."""
        try:
            self._home = posix.open(_OWN_NAMESPACE, posix.O_RDONLY | posix.O_CLOEXEC)
            self._target = posix.open(f"/proc/{pid}/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError as error:
            raise _failure(f"{NET_DEVICES}: cannot open the container's network namespace", error) from None
        if posix.fstat(self._home).st_ino == posix.fstat(self._target).st_ino:
            raise _same_namespace()
        with _Entered(self._home, self._target), _rtnetlink() as there:
            taken = _links(there)
        for device in self._devices:
            if device.final in taken:
                raise SpecError(
                    device.field,
                    f"the container's network namespace has a device {quote(device.final)} already",
                )
        for device in self._devices:
            try:
                self._move(device)
            except (OSError, _netlink_error()) as error:
                raise _refused(device, error) from None

    def _move(self, device: _Device) -> None:
        with _Entered(self._home, self._target), _rtnetlink() as there:
            device.before = {link["index"] for link in _links(there).values()}
        with _rtnetlink() as here:
            link = _links(here).get(device.name)
            if link is None:
                raise SpecError(device.field, "there is no such network device any more")
            device.flags, device.mtu = link["flags"], link.get_attr("IFLA_MTU")
            device.addresses = _addresses(here, link["index"])
            # Before it happens: when the kernel refuses the name, the device has moved already.
            self._moved.append(device)
            here.link("set", index=link["index"], net_ns_fd=self._target, ifname=device.final)
        with _Entered(self._home, self._target), _rtnetlink() as there:
            found = _arrived(there, device)
            if found is None:
                raise RtError(f"{device.field}: the device is not where it was moved to")
            _restore(there, found, device, up=True)

    def undo(self) -> None:
        """Move back what has been moved, with name, addresses and state; routes are lost. Never raises."""
        while self._moved:
            device = self._moved.pop()
            try:
                with _Entered(self._home, self._target), _rtnetlink() as there:
                    link = _arrived(there, device)
                    if link is None:
                        continue
                    there.link("set", index=link["index"], net_ns_fd=self._home, ifname=device.name)
                with _rtnetlink() as here:
                    back = _links(here).get(device.name)
                    if back is not None:
                        _restore(here, back, device, up=bool(device.flags & _IFF_UP))
            except (RtError, OSError, _netlink_error()):
                continue  # the error that is under way is the one that counts
        self.close()

    def close(self) -> None:
        """Let go of the namespaces: there is no way back from here."""
        self._moved.clear()
        for fd in (self._home, self._target):
            if fd >= 0:
                posix.close(fd)
        self._home = self._target = -1


class _Entered:
    """The calling thread is in another network namespace for a while; the rest of the process is not."""

    __slots__ = ("_away", "_home")

    def __init__(self, home: int, away: int) -> None:
        self._home = home
        self._away = away

    def __enter__(self) -> None:
        _set_namespace(self._away)

    def __exit__(self, *_: object) -> None:
        _set_namespace(self._home)


def _set_namespace(fd: int) -> None:
    """setns(2), which Python 3.11 lacks. Raises RtError."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET):
        reason = posix.strerror(ctypes.get_errno()).lower()
        raise RtError(f"{NET_DEVICES}: cannot enter a network namespace: {reason}")


def _rtnetlink() -> Any:
    """A connection to rtnetlink of the namespace that this thread is in. Raises RtError without pyroute2."""
    try:
        from pyroute2 import IPRoute
    except ImportError:
        raise RtError(
            f"{NET_DEVICES}: needs the Python package pyroute2, which is not installed",
            hint="pip install 'rootless-rt[net]', or: apt install python3-pyroute2",
        ) from None
    return IPRoute()


def _netlink_error() -> type[Exception]:
    """The exception by which pyroute2 tells what the kernel said."""
    try:
        from pyroute2 import NetlinkError
    except ImportError:
        return OSError
    kind: type[Exception] = NetlinkError
    return kind


def _links(netlink: Any) -> dict[str, Any]:
    """Name -> message of every device in the namespace."""
    return {link.get_attr("IFLA_IFNAME"): link for link in netlink.get_links()}


def _arrived(there: Any, device: _Device) -> Any:
    """The device in the target, under whatever name it has got there; None when it is not there."""
    new = {name: link for name, link in _links(there).items() if link["index"] not in device.before}
    for name in (device.final, device.name):
        if name in new:
            return new[name]
    head, _, tail = device.final.partition("%d")
    for name, link in new.items():
        if is_template(device.final) and name.startswith(head) and name.endswith(tail):
            return link
    return None


def _addresses(here: Any, index: int) -> list[dict[str, Any]]:
    """The permanent addresses of global scope, as they are to be asked for again, in the kernel's order."""
    found = []
    for message in here.get_addr(index=index):
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        if message["scope"] != _RT_SCOPE_UNIVERSE or not flags & _IFA_F_PERMANENT:
            continue
        asked = {
            "family": message["family"],
            "prefixlen": message["prefixlen"],
            "scope": _RT_SCOPE_UNIVERSE,
            "IFA_FLAGS": flags & _ASKED_FLAGS,
        }
        for name in ("IFA_ADDRESS", "IFA_LOCAL", "IFA_BROADCAST", "IFA_RT_PRIORITY", "IFA_PROTO"):
            value = message.get_attr(name)
            if value is not None:
                asked[name] = value
        times = message.get_attr("IFA_CACHEINFO")
        if times and times["ifa_preferred"] != _FOREVER:
            asked["IFA_CACHEINFO"] = {
                "ifa_preferred": times["ifa_preferred"],
                "ifa_valid": _FOREVER,
                "cstamp": 0,
                "tstamp": 0,
            }
        found.append(asked)
    return found


def _restore(netlink: Any, link: Any, device: _Device, *, up: bool) -> None:
    """Give a device that has just moved what the move took: its addresses; and the state."""
    index = link["index"]
    if link.get_attr("IFLA_MTU") != device.mtu:
        netlink.link("set", index=index, mtu=device.mtu)
    for asked in device.addresses:
        netlink.addr("add", index=index, **asked)
    if up:
        netlink.link("set", index=index, state="up")


def _same_namespace() -> SpecError:
    return SpecError(
        NET_DEVICES,
        "the container shares the network namespace of rt: there is nowhere to move devices to",
        hint='a namespace of its own: {"type": "network"} in linux.namespaces',
    )


def _refused(device: _Device, error: Exception) -> RtError:
    number = getattr(error, "code", None) or getattr(error, "errno", None) or 0
    called = f" as {quote(device.final)}" if device.final != device.name else ""
    reason = _REASONS.get(number) or posix.strerror(number).lower()
    return RtError(f"{device.field}: cannot move the device{called}: {reason}")


def _failure(what: str, error: OSError) -> RtError:
    return RtError(f"{what}: {posix.strerror(error.errno or 0).lower()}")
