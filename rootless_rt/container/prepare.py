"""Before a container is made: its options, its plan for this host, and the descriptors that the plan names.

Nothing here outlives it but descriptors, so every refusal can come from here. Must not know the state root,
nor how a plan is performed.
"""

from __future__ import annotations

import posix

from rootless_rt import cgroups, paths
from rootless_rt.container import confine
from rootless_rt.errors import RtError
from rootless_rt.host.facts import HostFacts, gather
from rootless_rt.plan.build import plan as make_plan
from rootless_rt.plan.model import Policy
from rootless_rt.plan.namespaces import ORDER
from rootless_rt.spec.emulation import UID_EMULATION, noop_profile
from rootless_rt.spec.names import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rootless_rt.cgroups.limits import Limit
    from rootless_rt.container.network import Network
    from rootless_rt.container.outside import Outside
    from rootless_rt.host.seccomp import SeccompFilter
    from rootless_rt.plan.model import Plan
    from rootless_rt.spec.load import Spec

_NS_GET_NSTYPE = 0xB703


class Options:
    """What the command line asks of `create` and `run`. Paths are absolute."""

    __slots__ = (
        "below",
        "cgroup_manager",
        "console_socket",
        "debug",
        "foreground",
        "keep_fds",
        "keep_groups",
        "listen_fds",
        "listen_names",
        "network",
        "new_keyring",
        "notify",
        "overlay",
        "pid_file",
        "pidfd_socket",
        "pivot",
        "sealed",
        "start_later",
        "stdio",
        "strict",
    )

    def __init__(self) -> None:
        self.below: dict[str, str] = {}  # of exec: controller ("": all) -> path below the container's cgroup
        self.cgroup_manager = "auto"
        self.console_socket: str | None = None
        self.pidfd_socket: str | None = None
        self.pid_file: str | None = None
        self.foreground = False
        self.debug: Callable[[str], None] | None = None
        self.keep_fds = 0
        self.keep_groups = False
        self.listen_fds = 0
        self.listen_names = ""
        # The directory for the socket that stands in for NOTIFY_SOCKET, made with the container.
        self.notify = ""
        self.network: Network | None = None  # what --net asks to be done outside
        self.overlay: str | None = None  # where the changes of the rootfs go; "": nowhere that lasts
        self.new_keyring = True
        self.pivot = True
        self.start_later = True
        self.strict = False
        # Of the API: the process's descriptors 0 to 2, and rt-init as `launch.sealed_program` has opened it.
        self.stdio: tuple[int, int, int] | None = None
        self.sealed = -1


class Prepared:
    """A container that can be made: its plan, cgroup and limits, and what is done outside, if any."""

    __slots__ = ("cgroup", "facts", "limits", "outside", "plan", "spec")

    def __init__(
        self, spec: Spec, facts: HostFacts, plan: Plan, cgroup: cgroups.Manager, limits: list[Limit]
    ) -> None:
        self.spec = spec
        self.facts = facts
        self.plan = plan
        self.cgroup = cgroup
        self.outside: Outside | None = None
        self.limits = limits


def prepare(spec: Spec, container_id: str, options: Options, size: tuple[int, int] = (0, 0)) -> Prepared:
    """Compile the container for this host. Raises RtError; nothing has happened then.

    `size` is rows and columns of the caller's terminal.
    """
    facts = gather(spec.data, pivot=options.pivot)
    check_terminal(spec, options)
    cgroup = confine.choose(spec, container_id, options, facts)
    limits = confine.limits_of(spec, cgroup, facts)
    facts.filter = filter_of(spec)
    facts.emulation = emulation_of(spec)
    look_at_joined(facts, _joined(spec))
    policy = Policy(
        container_id,
        strict=options.strict,
        start_later=options.start_later,
        pivot=options.pivot,
        new_keyring=options.new_keyring,
        keep_fds=options.keep_fds,
        listen_fds=options.listen_fds,
        listen_names=options.listen_names,
        keep_groups=options.keep_groups,
        notify=options.notify,
        overlay=options.overlay,
        trace=options.debug is not None,
        rows=size[0],
        cols=size[1],
    )
    plan = make_plan(spec, facts, policy)
    if facts.filter is not None:
        plan.warnings += facts.filter.warnings
        if options.debug is not None:
            for note in facts.filter.notes:
                options.debug(note)
    prepared = Prepared(spec, facts, plan, cgroup, limits)
    if plan.outside or options.network is not None:
        from rootless_rt.container.outside import look

        prepared.outside = look(spec.data["linux"], container_id, options.network)
    return prepared


def filter_of(spec: Spec) -> SeccompFilter | None:
    """The compiled seccomp filter that the config asks for, or None. Raises RtError."""
    profile = spec.data.get("linux", {}).get("seccomp")
    if not profile:
        return None
    found = _filter(profile)
    if found.notifies:
        from rootless_rt.container.notify_seccomp import check_socket

        check_socket(profile["listenerPath"])
    return found


def emulation_of(spec: Spec) -> SeccompFilter | None:
    """The filter for `--uid-emulation=noop`, or None. Raises RtError."""
    asked = spec.data.get("annotations", {}).get(UID_EMULATION, "off")
    if asked == "off":
        return None
    return _filter(noop_profile(asked, posix.uname().machine))


def _filter(profile: dict[str, Any]) -> SeccompFilter:
    from rootless_rt.host import cache, seccomp

    place = cache.default_cache_dir(paths.environment(), seccomp.FOLDER)
    return seccomp.filter_for(profile, cache_dir=place)


def look_at_joined(facts: HostFacts, paths: dict[str, str]) -> None:
    """Find out how the namespaces at `paths` (type -> file) can be joined, if there is a choice."""
    if "user" in paths and len(paths) > 1:
        from rootless_rt.host.namespaces import join_order

        facts.join_order = join_order({kind: paths[kind] for kind in ORDER if kind in paths})


def _joined(spec: Spec) -> dict[str, str]:
    listed = spec.data.get("linux", {}).get("namespaces", [])
    return {item["type"]: item["path"] for item in listed if item.get("path")}


def check_terminal(spec: Spec, options: Options) -> None:
    """Refuse a terminal that nobody would hold, and a socket for none. Raises RtError."""
    terminal = bool(spec.data["process"].get("terminal"))
    if terminal and not options.foreground and not options.console_socket:
        raise RtError(
            "cannot allocate tty if rt will detach without setting console socket",
            hint="set process.terminal to false, or give --console-socket",
        )
    if options.console_socket and (options.foreground or not terminal):
        raise RtError(
            "cannot use console socket if rt will not detach or allocate tty",
            hint="set process.terminal to true, and detach",
        )


def open_fds(plan: Plan, facts: HostFacts) -> list[int]:
    """Open what fills the plan's first slots; -1 for those that come later. Raises RtError."""
    fds: list[int] = []
    try:
        for kind, value in plan.fds:
            if kind == "keep":
                fds.append(posix.dup(int(value)))  # is open: looked at before we opened any
            elif kind in NAMESPACES:
                fds.append(namespace_fd(kind, value))
            elif kind == "owner":
                fds.append(_owner_fd(value))
            elif kind == "userns":
                from rootless_rt.container.holder import open_userns

                fds.append(open_userns(value, facts))
            else:
                fds.append(-1)
    except BaseException:
        for fd in fds:
            if fd >= 0:
                posix.close(fd)
        raise
    return fds


def _owner_fd(path: str) -> int:
    from rootless_rt.host.namespaces import open_owner

    try:
        return open_owner(path)
    except OSError as error:
        reason = posix.strerror(error.errno or 0).lower()
        raise RtError(
            f"linux.namespaces: {path}: cannot open the user namespace that owns it: {reason}"
        ) from None


def namespace_fd(kind: str, path: str) -> int:
    """Open a namespace of that type. Raises RtError."""
    where = f"linux.namespaces ({kind}): {path}"
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
    except OSError as error:
        raise RtError(f"{where}: {posix.strerror(error.errno or 0).lower()}") from None
    import fcntl

    try:
        found = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        found = 0
    if found != NAMESPACES[kind][0]:
        posix.close(fd)
        raise RtError(
            f"{where}: is not a {kind} namespace",
            hint=f"name a file such as /proc/PID/ns/{NAMESPACES[kind][1]}",
        )
    return fd
