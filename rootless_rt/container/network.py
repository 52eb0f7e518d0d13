"""`--net` and `--publish` of create and run: another network for a container than its config says.

Theory of operation. The config is changed first (`with_net`) and checked again. With pasta or slirp4netns the
container gets a network namespace of its own; once that exists, while rt-init waits for its id maps, a second
rt-init is started, which runs the helper and waits for the end of either: of the helper or of the container's
process (op `attend`). So the helper ends with the container, whatever has become of this process; `delete`
ends one that is left, should that rt-init have been killed.

Files that stand in for /etc/resolv.conf and /etc/hosts lie in the state directory and are bind mounted: the
image's are never written to. `net.user_mode` knows the helpers.
"""

from __future__ import annotations

import posix
import select

from rootless_rt.container import signals
from rootless_rt.container.helper import ENVIRON, Helper
from rootless_rt.errors import RtError
from rootless_rt.host.top import has_directory
from rootless_rt.net import user_mode
from rootless_rt.plan.ops import NO_SLOT, Op
from rootless_rt.spec import jsonio
from rootless_rt.spec.load import Spec, from_bytes
from rootless_rt.spec.names import sysctl_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt.container.store import Handle

RESOLV_CONF, HOSTS = "resolv.conf", "hosts"
_READY_SECONDS = 30.0
_SAID_MAX = 65536
_PING, _PORTS = "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start"


def with_net(
    spec: Spec, kind: str | None, publish: tuple[str, ...], directory: str, *, host_loopback: bool
) -> tuple[Spec, Network | None]:
    """The spec with the network `kind` (none, host, pasta, slirp4netns), and what is done outside for it.

    `publish` are the texts of --publish, `directory` is where the container's state will be. Raises RtError
    and SpecError.
    """
    ports = user_mode.parse_ports(publish)
    if kind not in user_mode.PROGRAMS and (ports or host_loopback):
        option = "--publish" if ports else "--host-loopback"
        raise RtError(f"{option}: needs --net pasta or --net slirp4netns", hint="add one of them")
    config = dict(spec.data)
    linux = dict(config.get("linux", {}))
    linux["namespaces"] = [item for item in linux.get("namespaces", []) if item["type"] != "network"]
    network = None
    notes: list[tuple[str, str]] = []
    if kind != "host":
        linux["namespaces"].append({"type": "network"})
        linux["sysctl"] = _sysctls(linux)
    if kind in user_mode.PROGRAMS:
        files = _files(spec, notes)
        mounts = [_mount(place, f"{directory}/{name}") for name, place in files.items()]
        config["mounts"] = [*config.get("mounts", []), *mounts]
        network = Network(kind, ports, list(files), config.get("hostname", ""), host_loopback)
    config["linux"] = linux
    # The saved config is what exec goes by: it has to say the same.
    changed = from_bytes(jsonio.dumps(config).encode("utf-8", "surrogateescape"), spec.bundle)
    changed.notes += tuple(notes)
    return changed, network


def _sysctls(linux: dict[str, Any]) -> dict[str, str]:
    """The config's, and what an ordinary user expects of a network that is the container's alone."""
    given = linux.get("sysctl", {})
    wanted = {_PORTS: "0"}
    gids = _mapped_gids(linux)
    if gids:
        wanted[_PING] = user_mode.ping_group_range(gids)
    named = {sysctl_parts(key) for key in given}
    return {**{key: value for key, value in wanted.items() if sysctl_parts(key) not in named}, **given}


def _mapped_gids(linux: dict[str, Any]) -> list[tuple[int, int, int]]:
    """The gids of the container's user namespace; empty where they are not known."""
    user = [item for item in linux["namespaces"] if item["type"] == "user"]
    if user and user[0].get("path"):
        return []
    if user:
        lines = linux.get("gidMappings", [])
        return [(line["containerID"], line["hostID"], line["size"]) for line in lines]
    if posix.geteuid() != 0:
        return [(0, posix.getegid(), 1)]  # the plan makes one of the caller's ids
    from idmap.userns import own_map

    return own_map("gid")


def _files(spec: Spec, notes: list[tuple[str, str]]) -> dict[str, str]:
    """Name in the state directory -> place in the container, of the files that are to be mounted."""
    taken = {mount["destination"].rstrip("/") for mount in spec.data.get("mounts", [])}
    if "/etc" not in taken and not has_directory(spec.rootfs, "etc"):
        notes.append(
            ("--net", "the root file system has no /etc: no resolv.conf and no hosts are made in it")
        )
        return {}
    return {name: place for name in (RESOLV_CONF, HOSTS) if (place := f"/etc/{name}") not in taken}


def _mount(place: str, source: str) -> dict[str, Any]:
    options = ["bind", "ro", "nosuid", "nodev", "noexec"]
    return {"destination": place, "type": "none", "source": source, "options": options}


class Network:
    """A helper that is to be, or is, a container's network. `check`, `create`, `start`; `undo` on failure."""

    __slots__ = (
        "_files",
        "_helper",
        "_host_loopback",
        "_hostname",
        "_kind",
        "_ports",
        "_program",
    )

    def __init__(
        self, kind: str, ports: list[user_mode.Port], files: list[str], hostname: str, host_loopback: bool
    ) -> None:
        self._kind = kind
        self._ports = ports
        self._files = files
        self._hostname = hostname
        self._host_loopback = host_loopback
        self._program = ""
        self._helper: Helper | None = None

    def check(self) -> None:
        """See whether the helper can do it. Raises RtError; nothing has happened."""
        self._program = user_mode.check(self._kind, self._ports)

    def note(self, state: dict[str, Any]) -> None:
        """Write down what `delete` will have to end."""
        if self._helper is not None:
            state["network"] = {"kind": self._kind, **self._helper.identity}

    def create(self, handle: Handle) -> None:
        """Write the files that are going to be mounted. Raises RtError."""
        content = {
            RESOLV_CONF: user_mode.resolv_conf(_read("/etc/resolv.conf")),
            HOSTS: user_mode.hosts(self._hostname, host_loopback=self._host_loopback),
        }
        for name in self._files:
            handle.write(name, content[name])
            # Other users of the container read them too.
            posix.chmod(name, 0o644, dir_fd=handle.fd)

    def start(self, handle: Handle, pid: int, pidfd: int) -> None:
        """Start the helper for the network namespace of the process, and wait until it is ready.

        `pid` is a child of this process that has not been waited for: the number is its own. Raises RtError.
        """
        netns, own_userns = _namespaces(pid)
        ready, ready_far = posix.pipe2(posix.O_CLOEXEC)
        said, said_far = posix.pipe2(posix.O_CLOEXEC)
        words = user_mode.command(
            self._kind,
            self._program,
            pid,
            self._ports,
            host_loopback=self._host_loopback,
            own_userns=own_userns,
        )
        try:
            try:
                self._launch(words, [pidfd, handle.fd, netns, ready_far, said_far])
            finally:
                for fd in (netns, ready_far, said_far):
                    posix.close(fd)
            self._wait_ready(ready, said)
        finally:
            posix.close(ready)
            posix.close(said)
        user_mode.publish(self._kind, handle.place(user_mode.API_SOCKET), self._ports)

    def _launch(self, words: list[str], fds: list[int]) -> None:
        """Have a second rt-init run the helper; `fds`: container, directory, namespace, ready, errors."""
        numbers = [2, NO_SLOT, 4, NO_SLOT]
        numbers[user_mode.ready_descriptor(self._kind)] = 3
        attend = Op("attend", 0, 1, numbers, words, ENVIRON)
        self._helper = Helper([attend], fds, f"--net {self._kind}: cannot start {self._program}")

    def _wait_ready(self, ready: int, said: int) -> None:
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        poll.register(said, select.POLLIN)
        words = b""
        while True:
            with signals.let_through():
                found = dict(poll.poll(int(_READY_SECONDS * 1000)))
            if not found:
                raise RtError(
                    f"--net {self._kind}: {self._kind} is not ready after {_READY_SECONDS:.0f} seconds"
                )
            if said in found:
                part = posix.read(said, 4096)
                words = (words + part)[-_SAID_MAX:]
                if not part:
                    poll.unregister(said)
            elif ready in found:
                if posix.read(ready, 64):
                    return
                # It has ended, and nothing more is to be read: what it said comes first.
                raise user_mode.failure(self._kind, words)

    def undo(self) -> None:
        """End the helper. Never raises."""
        if self._helper is not None:
            self._helper.undo()


def _namespaces(pid: int) -> tuple[int, bool]:
    """The network namespace of a process, and whether its user namespace is our own. Raises RtError."""
    try:
        users = [posix.stat(f"/proc/{who}/ns/user") for who in (pid, "self")]
        fd = posix.open(f"/proc/{pid}/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        raise RtError(
            f"--net: cannot open the container's namespaces: {posix.strerror(error.errno or 0).lower()}",
            hint="does the config join a user namespace? then only root can give it a network",
        ) from None
    return fd, (users[0].st_dev, users[0].st_ino) == (users[1].st_dev, users[1].st_ino)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(65536)
    except OSError:
        return b""
