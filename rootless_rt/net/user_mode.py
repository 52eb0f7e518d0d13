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
    AF_UNIX,
    SHUT_WR,
    SO_REUSEADDR,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
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
_ANY = "0.0.0.0"
_PORT_HINT = "such as -p 8080:80, -p 127.0.0.1:8080:80 or -p 5353:53/udp"
_REPLY_MAX = 65536
_API_SECONDS = 10.0


class Port:
    """A published port: the host's address ("": all of them) and port, the container's port, tcp or udp."""

    __slots__ = ("address", "host", "inside", "protocol")

    def __init__(self, address: str, host: int, inside: int, protocol: str) -> None:
        self.address = address
        self.host = host
        self.inside = inside
        self.protocol = protocol

    def __str__(self) -> str:
        where = f"{self.address}:" if self.address else ""
        return f"{where}{self.host}:{self.inside}/{self.protocol}"


def parse_port(text: str) -> Port:
    """`[IP:]HOSTPORT:CONTAINERPORT[/tcp|/udp]` with an IPv4 address. Raises RtError."""
    mapping, slash, protocol = text.partition("/")
    *address, host, inside = mapping.split(":") if ":" in mapping else ("", "")
    numbers = [decimal(host), decimal(inside)]
    problem = ""
    if slash and protocol not in ("tcp", "udp"):
        problem = "the protocol is tcp or udp"
    elif len(address) > 1 or (address and not _is_address(address[0])):
        problem = "the address must be one of IPv4"
    elif any(number is None or not 1 <= number <= 65535 for number in numbers):
        problem = "a port of the host and one of the container, from 1 to 65535, are needed"
    if problem:
        raise RtError(f"--publish {text[:80]!r}: {problem}", hint=_PORT_HINT)
    return Port(address[0] if address else "", numbers[0] or 0, numbers[1] or 0, protocol or "tcp")


def _is_address(text: str) -> bool:
    parts = text.split(".")
    numbers = [decimal(part) for part in parts]
    plain = all(part == str(number) for part, number in zip(parts, numbers, strict=True))
    return len(parts) == 4 and plain and all(number is not None and number <= 255 for number in numbers)


def parse_ports(texts: Iterable[str]) -> list[Port]:
    """The ports of all `--publish`. Raises RtError, also when two of them want the same port of the host."""
    ports = [parse_port(text) for text in texts]
    for index, port in enumerate(ports):
        for other in ports[:index]:
            same = (other.host, other.protocol) == (port.host, port.protocol)
            if same and (
                other.address == port.address or _ANY in (other.address or _ANY, port.address or _ANY)
            ):
                raise RtError(f"--publish {port}: the host's port is published twice")
    return ports


def check(kind: str, ports: Iterable[Port]) -> str:
    """The path of the program, when all that can be seen before is fine. Raises RtError."""
    from idmap.helpers import find_helper

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
        _check_port(port)
    return program


def _check_port(port: Port) -> None:
    """Bind it for a moment. Another may still take it before the program does, which then says so."""
    tried = socket(AF_INET, (SOCK_STREAM if port.protocol == "tcp" else SOCK_DGRAM) | SOCK_CLOEXEC)
    try:
        if port.protocol == "tcp":
            # A port whose last connections are only running out is free; with udp it would mean to share.
            tried.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
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
            words += [option, f"{port.address}/" * bool(port.address) + f"{port.host}:{port.inside}"]
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

    for port in ports:
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
            raise _cannot_publish(port, errno.EADDRINUSE)


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
