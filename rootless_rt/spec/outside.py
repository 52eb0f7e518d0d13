"""The fields that reach outside of the container: linux.netDevices and linux.intelRdt.

Pure: knows which names the kernel takes for network devices (netdevice(7), dev_valid_name of the kernel) and
for the groups and lines of resctrl (kernel documentation, "User Interface for Resource Control feature").
Whether devices and groups are there is for `net` and `cgroups` to find out.
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.spec.jsonio import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NET_DEVICES = "linux.netDevices"
RDT = "linux.intelRdt"

_NAME_BYTES = 15  # IFNAMSIZ with its final NUL is 16
_SPACES = b" \t\n\v\f\r\xa0"  # the kernel's isspace() reads Latin-1
_SETTINGS = ("all", "default")  # directories of /proc/sys/net/*/conf: the kernel refuses them as names
_TEMPLATE = "%d"  # the kernel puts the first free number there

_GROUP_BYTES = 255
_OWN_OF_RESCTRL = ("info", "mon_data", "mon_groups")
ROOT_GROUP = "/"


def check_outside(linux: dict[str, Any], namespaces: dict[str, str]) -> None:
    """Check both fields of a `linux` object that `schema.CONFIG` accepted.

    `namespaces` is type -> path of those the container has. Raises SpecError.
    """
    if linux.get("netDevices"):
        _check_devices(linux["netDevices"], namespaces)
    if rdt_asked(linux):
        _check_rdt(linux["intelRdt"])


def final_name(host_name: str, device: dict[str, Any]) -> str:
    """What a device is called inside; with "%d" in it, the kernel chooses a number."""
    return device.get("name") or host_name


def is_template(name: str) -> bool:
    """Whether the kernel completes this name."""
    return _TEMPLATE in name


def _check_devices(devices: dict[str, dict[str, Any]], namespaces: dict[str, str]) -> None:
    if "network" not in namespaces:
        raise SpecError(
            NET_DEVICES, "needs a network namespace", hint='add {"type": "network"} to linux.namespaces'
        )
    taken: dict[str, str] = {}
    for host_name, device in devices.items():
        where = f"{NET_DEVICES}[{quote(host_name)}]"
        _check_device_name(host_name, where)
        if "%" in host_name:
            raise SpecError(where, "no network device is called so: % is for names that the kernel completes")
        if device.get("name"):
            where += ".name"
            _check_device_name(device["name"], where)
        name = final_name(host_name, device)
        if "%" in name and (name.count("%") > 1 or not is_template(name)):
            raise SpecError(where, f"{quote(name)}: % may only stand in one %d, which becomes a number")
        if name in taken and not is_template(name):
            raise SpecError(where, f"{quote(name)} is the name of {taken[name]} already")
        taken[name] = where


def _check_device_name(name: str, where: str) -> None:
    """What the kernel would refuse as a name (EINVAL), told before it is asked."""
    raw = name.encode()
    problem = None
    if not raw:
        problem = "is empty"
    elif len(raw) > _NAME_BYTES:
        problem = f"is longer than {_NAME_BYTES} bytes"
    elif name in (".", "..") or "/" in name or ":" in name or any(byte in _SPACES for byte in raw):
        problem = "is no name: a device is not called . or .. and has no /, : or space in its name"
    elif name in _SETTINGS:
        problem = "is a name that the kernel keeps for its settings"
    elif name == "lo":
        problem = "is the loopback device, which every network namespace has its own of"
    if problem:
        raise SpecError(where, f"{quote(name)} {problem}")


def rdt_asked(linux: dict[str, Any]) -> bool:
    """Whether the config asks for anything of resctrl; an empty object asks for nothing."""
    return any(linux.get("intelRdt", {}).values())


def monitored(rdt: dict[str, Any]) -> bool:
    """Whether a monitoring group is asked for; enableCMT and enableMBM are older names for parts of it."""
    return any(rdt.get(key) for key in ("enableMonitoring", "enableCMT", "enableMBM"))


def group_problem(name: str) -> str | None:
    """Why a directory of resctrl cannot be called so; None for a good name. "/" is the root group."""
    if name == ROOT_GROUP:
        return None
    if not name or name in (".", "..") or "/" in name:
        return 'names no group: expected one name without /, or "/" for the root group'
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in name):
        return "has a control character in it"
    if len(name.encode("utf-8", "surrogatepass")) > _GROUP_BYTES:
        return f"is longer than {_GROUP_BYTES} bytes"
    if name in _OWN_OF_RESCTRL:
        return "is a directory of resctrl's own"
    return None


def _check_rdt(rdt: dict[str, Any]) -> None:
    group = rdt.get("closID", "")
    problem = group_problem(group) if group else None
    if problem:
        raise SpecError(f"{RDT}.closID", f"{quote(group)} {problem}")
    for line in rdt.get("l3CacheSchema", "").split("\n"):
        if line.strip():
            _check_line(line, f"{RDT}.l3CacheSchema")
    bandwidth = rdt.get("memBwSchema", "")
    if bandwidth:
        _check_line(bandwidth, f"{RDT}.memBwSchema")
        if not bandwidth.startswith("MB:"):
            raise SpecError(
                f"{RDT}.memBwSchema", f"expected a line that begins with MB:, got {quote(bandwidth)}"
            )
    for index, line in enumerate(rdt.get("schemata", [])):
        _check_line(line, f"{RDT}.schemata[{index}]")


def _check_line(line: str, where: str) -> None:
    """One line for a schemata file: RESOURCE:DOMAIN=VALUE;…; the values are the kernel's to judge."""
    name, _, domains = line.strip(" ").partition(":")
    parts = domains.split(";")
    if not name.isalnum() or not all(part.count("=") == 1 for part in parts) or not line.isprintable():
        raise SpecError(where, f"expected one line such as L3:0=ff;1=ff, got {quote(line)}")


def schema_lines(rdt: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The lines to write: those of l3CacheSchema and memBwSchema, and those of schemata, to be written last.

    An "MB:" line of l3CacheSchema gives way to memBwSchema (runtime-spec, "IntelRdt").
    """
    first = [line.strip() for line in rdt.get("l3CacheSchema", "").split("\n") if line.strip()]
    bandwidth = rdt.get("memBwSchema", "")
    if bandwidth:
        first = [line for line in first if not line.startswith("MB:")] + [bandwidth.strip()]
    return first, [line.strip() for line in rdt.get("schemata", [])]


def line_parts(line: str) -> tuple[str, dict[str, str]]:
    """A line's resource and its values by domain, in one spelling: "L3:0=0FF" is ("L3", {"0": "ff"}).

    Masks are hexadecimal and bandwidths decimal numbers; leading zeros mean nothing in either.
    """
    name, _, domains = line.strip().partition(":")
    values = {}
    for part in domains.split(";"):
        domain, _, value = part.partition("=")
        values[domain.strip().lstrip("0") or "0"] = value.strip().lower().lstrip("0") or "0"
    return name.strip(), values


def merged(lines: list[str]) -> dict[str, dict[str, str]]:
    """Resource -> domain -> value that lines ask for, the later ones last."""
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        if line.strip():
            name, values = line_parts(line)
            found.setdefault(name, {}).update(values)
    return found
