"""User-mode networking: a program of the host carries a network namespace's packets in its own sockets.

Knows the two programs, pasta (passt) and slirp4netns: what they are called with, how they tell that they are
ready, how they publish ports, and the addresses that a container sees, which are the same with both. Must not
know configs, state directories or how the programs are started and ended.

    10.0.2.100/24   the container             10.0.2.3   the host's name server, whatever address that has
    10.0.2.2        the gateway; connections to it reach the host's loopback only where that is allowed

Sources: passt(1), slirp4netns(1); for what happens on port conflicts ip(7), socket(7).
"""

from __future__ import annotations

import errno
import posix
from _socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SHUT_WR,
    SO_REUSEADDR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    inet_ntop,
    inet_pton,
    socket,
)

from rootless_rt.errors import RtError
from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROGRAMS = ("pasta", "slirp4netns")
HELPER = "RT-NET-HELPER"  # for `rt explain`
ADDRESS, GATEWAY, NAME_SERVER = "10.0.2.100", "10.0.2.2", "10.0.2.3"
DEVICE = "eth0"
API_SOCKET = "slirp4netns.sock"
TUN = "/dev/net/tun"
_MTU = "65520"
_ANY, _ANY_V6 = "0.0.0.0", "::"
_V4_MAPPED = bytes(10) + b"\xff\xff"
_PORT_HINT = (
    "such as -p 8080:80, -p 127.0.0.1:8080:80, -p '[::1]:8080:80', -p 8000-8010:80-90 or -p 5353:53/udp"
)
_REPLY_MAX = 65536
_SLIRP_PORTS = 1000  # it is asked for each, and takes the longer for one the more it has
_API_SECONDS = 10.0


class Port:
    """A published port, or a range: the host's address ("": all of them; IPv6 without brackets) and first
    port, the container's first port, tcp or udp, how many ports follow each other."""

    __slots__ = ("address", "count", "host", "inside", "protocol")

    def __init__(self, address: str, host: int, inside: int, protocol: str, count: int = 1) -> None:
        self.address = address
        self.host = host
        self.inside = inside
        self.protocol = protocol
        self.count = count

    def __str__(self) -> str:
        where = f"[{self.address}]:" if self.is_v6 else f"{self.address}:" if self.address else ""
        return f"{where}{self.numbers()}/{self.protocol}"

    @property
    def is_v6(self) -> bool:
        """Whether the address is one of IPv6."""
        return ":" in self.address

    def numbers(self) -> str:
        """HOSTPORT:CONTAINERPORT, each FIRST-LAST when there are several."""
        more = self.count - 1
        return ":".join(
            f"{first}-{first + more}" if more else str(first) for first in (self.host, self.inside)
        )

    def each(self) -> Iterator[Port]:
        """The ports of the range, one by one."""
        for index in range(self.count):
            yield Port(self.address, self.host + index, self.inside + index, self.protocol)

    def overlaps(self, other: Port) -> bool:
        """Whether both have a port of the host with the same number and protocol, on whatever address."""
        apart = self.host >= other.host + other.count or other.host >= self.host + self.count
        return self.protocol == other.protocol and not apart

    def meets(self, other: Port) -> bool:
        """Whether both want a port of the host that only one of them can have."""
        if not self.overlaps(other):
            return False
        if self.address == other.address or not self.address or not other.address:
            return True
        return self.is_v6 == other.is_v6 and bool({self.address, other.address} & {_ANY, _ANY_V6})


def parse_port(text: str) -> Port:
    """`[IP:]HOSTPORT:CONTAINERPORT[/tcp|/udp]`: IPv6 in brackets, a port may be FIRST-LAST.

    Raises RtError.
    """
    mapping, slash, protocol = text.partition("/")
    if mapping.startswith("["):
        given, bracket, mapping = mapping[1:].partition("]:")
        address = _v6_address(given) if bracket else None
        host, _, inside = mapping.partition(":")
    else:
        *given_v4, host, inside = mapping.split(":") if ":" in mapping else ("", "")
        given = ":".join(given_v4)
        address = given if not given_v4 or _is_address(given) else None
    outer, inner = _range(host), _range(inside)
    problem = ""
    if slash and protocol not in ("tcp", "udp"):
        problem = "the protocol is tcp or udp"
    elif address is None:
        problem = "the address must be one of IPv4, or one of IPv6 in brackets"
    elif outer is None or inner is None:
        problem = "a port of the host and one of the container, from 1 to 65535, are needed"
    elif outer[1] != inner[1]:
        problem = f"{outer[1]} of the host's ports cannot lead to {inner[1]} of the container's"
    else:
        return Port(address, outer[0], inner[0], protocol or "tcp", outer[1])
    raise RtError(f"--publish {text[:80]!r}: {problem}", hint=_PORT_HINT)


def _range(text: str) -> tuple[int, int] | None:
    """(first, count) of a port or FIRST-LAST; None when it is neither."""
    start, dash, end = text.partition("-")
    first, last = decimal(start), decimal(end if dash else start)
    if first is None or last is None or not 1 <= first <= last <= 65535:
        return None
    return first, last - first + 1


def _is_address(text: str) -> bool:
    parts = text.split(".")
    numbers = [decimal(part) for part in parts]
    plain = all(part == str(number) for part, number in zip(parts, numbers, strict=True))
    return len(parts) == 4 and plain and all(number is not None and number <= 255 for number in numbers)


def _v6_address(text: str) -> str | None:
    """The shortest text of an IPv6 address; None when it is none, or one of IPv4 in its clothes."""
    try:
        packed = inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        return None
    return None if packed[:12] == _V4_MAPPED else inet_ntop(AF_INET6, packed)


def parse_ports(texts: Iterable[str]) -> list[Port]:
    """The ports of all `--publish`. Raises RtError, also when two of them want the same port of the host."""
    ports = [parse_port(text) for text in texts]
    for index, port in enumerate(ports):
        for other in ports[:index]:
            if port.meets(other):
                raise RtError(f"--publish {port}: the host's port is published twice")
    return ports


def check(kind: str, ports: list[Port]) -> str:
    """The path of the program, when all that can be seen before is fine. Raises RtError."""
    from idmap.helpers import find_helper

    _check_abilities(kind, ports)
    program = find_helper(kind)
    if program is None:
        from idmap.evidence import os_release
        from rootless_rt.host.doctor.fixes import install
        from rootless_rt.host.doctor.system import manager

        fix, _ = install(kind, manager(os_release()))
        raise RtError(f"--net {kind}: {kind} is not installed", hint=fix, id=HELPER)
    try:
        posix.close(posix.open(TUN, posix.O_RDWR | posix.O_CLOEXEC))
    except OSError as error:
        raise RtError(
            f"--net {kind}: cannot open {TUN}: {posix.strerror(error.errno or 0).lower()}",
            hint=f"sudo chmod 0666 {TUN}"
            if error.errno in (errno.EACCES, errno.EPERM)
            else "sudo modprobe tun",
            id=HELPER,
        ) from None
    for port in ports:
        for each in port.each():
            _check_port(each)
    return program


def _check_abilities(kind: str, ports: list[Port]) -> None:
    count = sum(port.count for port in ports)
    if kind == "slirp4netns" and count > _SLIRP_PORTS:
        raise RtError(
            f"--publish: {count} ports are more than the {_SLIRP_PORTS} that slirp4netns is asked for",
            hint="pasta takes whole ranges: --net pasta",
        )
    for index, port in enumerate(ports):
        if kind == "slirp4netns":
            if port.is_v6:
                raise RtError(
                    f"--publish {port}: slirp4netns publishes on addresses of IPv4 only",
                    hint="pasta can: --net pasta",
                )
            continue
        # It knows one port of the container for a port of the host, whatever the address: the last one given.
        for other in ports[:index]:
            if port.overlaps(other) and port.inside - port.host != other.inside - other.host:
                raise RtError(
                    f"--publish {port}: pasta leads a port of the host to one inside, on all addresses",
                    hint=f"{other} was given before: choose another port of the host",
                )


def _check_port(port: Port) -> None:
    """Bind it for a moment. Another may still take it before the program does, which then says so."""
    kind = SOCK_STREAM if port.protocol == "tcp" else SOCK_DGRAM
    try:
        tried = socket(AF_INET6 if port.is_v6 else AF_INET, kind | SOCK_CLOEXEC)
    except OSError as error:  # a kernel without IPv6
        raise _cannot_publish(port, error.errno or 0) from None
    try:
        if kind == SOCK_STREAM:
            # A port whose last connections are only running out is free; with udp it would mean to share.
            tried.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        if port.is_v6:
            tried.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        tried.bind((port.address or _ANY, port.host))
    except OSError as error:
        raise _cannot_publish(port, error.errno or 0) from None
    finally:
        tried.close()


def _cannot_publish(port: Port, number: int) -> RtError:
    hints = {
        errno.EADDRINUSE: "choose another port of the host; ss -lntup shows who listens",
        errno.EACCES: "publish a port from 1024 on, or allow lower ones: "
        f"sudo sysctl net.ipv4.ip_unprivileged_port_start={port.host}",
        errno.EADDRNOTAVAIL: "the host has no such address: ip address lists them",
    }
    reason = {errno.EADDRINUSE: "the port is in use"}.get(number) or posix.strerror(number).lower()
    id = "RT-NET-PORTS" if number == errno.EACCES else ""
    return RtError(f"--publish {port}: {reason}", hint=hints.get(number), id=id)


def command(
    kind: str, program: str, pid: int, ports: list[Port], *, host_loopback: bool, own_userns: bool
) -> list[str]:
    """The words that start the program for the network namespace of a process; descriptor 0 is open on it.

    `own_userns`: the namespace belongs to the user namespace that we are in ourselves.

    It stays in the foreground, and tells that it is ready on `ready_descriptor`.
    """
    if kind == "slirp4netns":
        words = ["--configure", f"--mtu={_MTU}", "--enable-sandbox", "--enable-seccomp", "--ready-fd=3"]
        if not host_loopback:
            words.append("--disable-host-loopback")
        if ports:
            words.append(f"--api-socket={API_SOCKET}")
        return [program, *words, str(pid), DEVICE]
    words = ["--foreground", "--stderr", "--config-net", "--pid", "/proc/self/fd/1", "--ns-ifname", DEVICE]
    words += ["--address", ADDRESS, "--netmask", "24", "--gateway", GATEWAY, "--dns-forward", NAME_SERVER]
    # Unless told not to, pasta publishes whatever port is listened on inside, and takes connections to the
    # container's own loopback to the host's.
    words += ["--tcp-ns", "none", "--udp-ns", "none"]
    for protocol, option in (("tcp", "--tcp-ports"), ("udp", "--udp-ports")):
        listed = [port for port in ports if port.protocol == protocol]
        for port in listed:
            words += [option, f"{port.address}/" * bool(port.address) + port.numbers()]
        if not listed:
            words += [option, "none"]
    if not host_loopback:
        words.append("--no-map-gw")
    if posix.geteuid() == 0:
        words += ["--runas", "0:0"]  # another could not enter a namespace of root's
    # Without CAP_SYS_PTRACE, which it gives up first, it may not look at /proc/PID/ns of a process of its own
    # user namespace that has more capabilities.
    users = ["--netns-only"] if own_userns else ["--userns", f"/proc/{pid}/ns/user"]
    return [program, *words, *users, "--no-netns-quit", "--netns", "/proc/self/fd/0"]


def ready_descriptor(kind: str) -> int:
    """Where the program says that the network is there."""
    return 3 if kind == "slirp4netns" else 1


def failure(kind: str, said: bytes) -> RtError:
    """The error of a program that has ended before it was ready; `said` is what it wrote to its stderr."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line and "bytes to syslog" not in line]
    last = lines[-1] if lines else "it said nothing"
    hint = None
    if "bind any port" in last:
        hint = "is the port in use? ss -lntup shows who listens"
        if last.count(":") > 2:  # an address of IPv6
            hint = "pasta publishes on IPv6 only where the host has a default route of it: see ip -6 route"
    elif "xternal interface" in last or "outable interface" in last:
        hint = "pasta needs a default route on the host; slirp4netns does not: --net slirp4netns"
    elif "/dev/net/tun" in last:
        hint = f"sudo chmod 0666 {TUN}"
    return RtError(f"--net {kind}: {kind} has ended: {last[:300]}", hint=hint)


def publish(kind: str, socket_path: str, ports: list[Port]) -> None:
    """Publish ports, for a program that is told only once it runs. Raises RtError."""
    if kind != "slirp4netns":
        return
    from rootless_rt.spec.jsonio import dumps, parse

    for port in (each for given in ports for each in given.each()):
        arguments = {
            "proto": port.protocol,
            "host_addr": port.address or _ANY,
            "host_port": port.host,
            "guest_addr": ADDRESS,
            "guest_port": port.inside,
        }
        try:
            answer = _ask(socket_path, dumps({"execute": "add_hostfwd", "arguments": arguments}).encode())
        except OSError as error:
            reason = posix.strerror(error.errno).lower() if error.errno else "no answer"
            raise RtError(f"--publish {port}: slirp4netns does not answer: {reason}") from None
        reply = parse(answer, "slirp4netns")
        if not isinstance(reply, dict) or "error" in reply:
            _check_port(port)  # taken in the meantime
            raise RtError(
                f"--publish {port}: slirp4netns refuses", hint="many ports need many files: ulimit -n"
            )


def _ask(path: str, request: bytes) -> bytes:
    """One request of slirp4netns' API: a connection each, and its end ends the request."""
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        connection.settimeout(_API_SECONDS)
        connection.connect(path)
        connection.sendall(request)
        connection.shutdown(SHUT_WR)
        answer = b""
        while (part := connection.recv(4096)) and len(answer) < _REPLY_MAX:
            answer += part
        return answer
    finally:
        connection.close()


def resolv_conf(host: bytes) -> bytes:
    """The container's resolv.conf: the helper's name server; search list and options as on the host."""
    return b"".join([*_kept(host), f"nameserver {NAME_SERVER}\n".encode()])


def _kept(host: bytes) -> Iterator[bytes]:
    for line in host.splitlines()[:100]:
        words = line.split()
        if len(words) > 1 and words[0] in (b"search", b"domain", b"options"):
            yield b" ".join(words)[:1024] + b"\n"


def hosts(hostname: str, *, host_loopback: bool) -> bytes:
    """The container's hosts file."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    if hostname.split() == [hostname]:
        lines.append(f"{ADDRESS}\t{hostname}")
    if host_loopback:
        lines.append(f"{GATEWAY}\thost.containers.internal")
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def ping_group_range(extents: list[tuple[int, int, int]]) -> str:
    """The widest range of mapped gids for net.ipv4.ping_group_range; `extents` are (inside, outside, count).

    The kernel compares the ends as the host's gids, and silently allows nobody when they are the other way
    round (ipv4_ping_group_range(), net/ipv4/sysctl_net_ipv4.c).
    """
    first = min(extents)
    last = max(extents)
    if last[1] + last[2] - 1 < first[1]:
        first = last = max(extents, key=lambda extent: extent[2])
    # The sysctl is an int, whatever a gid is.
    return f"{first[0]} {min(last[0] + last[2] - 1, 2**31 - 1)}"
