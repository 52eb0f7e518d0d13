"""What several commands take from the command line: the store, the options of create and run, warnings."""

from __future__ import annotations

import posix

from rootless_rt import paths
from rootless_rt.cli.argv import Invocation, flag, items, number, text
from rootless_rt.cli.log import Log
from rootless_rt.container.store import Store, default_root
from rootless_rt.errors import RtError
from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootless_rt.container.prepare import Options
    from rootless_rt.plan.model import Plan
    from rootless_rt.spec.load import Spec


def log_of(inv: Invocation) -> Log:
    """The log of this call."""
    return Log(inv.globals, inv.prog)


def store_of(inv: Invocation) -> Store:
    """The state root that this call works on."""
    given = text(inv.globals, "root")
    if given is not None:
        return Store(paths.absolute(given), True)
    euid = posix.geteuid()
    initial = True
    if euid == 0:
        from idmap.userns import in_user_namespace

        initial = not in_user_namespace()
    return Store(default_root(paths.environment(), euid, initial), False)


def tell_of_root(log: Log, store: Store) -> None:
    """Say so where new containers are not kept in $XDG_RUNTIME_DIR: other calls may look for them there."""
    runtime = paths.environment().get("XDG_RUNTIME_DIR", "")
    if store.given or not runtime or store.root in (runtime + "/rt", "/run/rt"):
        return
    try:
        owner = posix.stat(runtime).st_uid
        why = f"belongs to uid {owner}, not to you" if owner != posix.geteuid() else "is open to others"
    except OSError as error:
        why = f"cannot be used ({posix.strerror(error.errno or 0).lower()})"
    if not runtime.startswith("/"):
        why = "is not an absolute path"
    usual = f"/run/user/{posix.geteuid()}"
    log.warning(
        f"XDG_RUNTIME_DIR {runtime} {why}: containers are kept in {store.root}",
        f"export XDG_RUNTIME_DIR={usual}" if paths.exists(usual) else "unset XDG_RUNTIME_DIR",
        "RT-SESSION-RUNTIME-DIR",
    )


def is_strict(inv: Invocation) -> bool:
    """The policy of degradation: what --degrade says, else strict for the real root only."""
    chosen = text(inv.globals, "degrade")
    if chosen is not None:
        return chosen == "strict"
    if posix.geteuid() != 0 or text(inv.globals, "rootless") == "true":
        return False
    from idmap.userns import in_user_namespace

    return not in_user_namespace()


def manager_of(inv: Invocation) -> str:
    """Who makes the cgroup."""
    if flag(inv.globals, "systemd_cgroup"):
        return "systemd"
    return text(inv.globals, "cgroup_manager") or "auto"


def container_options(inv: Invocation) -> Options:
    """The options of create, run and exec, with absolute paths: hooks may change the working directory.

    What a command does not have counts as not given.
    """
    from rootless_rt.container.prepare import Options

    given = inv.options
    options = Options()
    options.cgroup_manager = manager_of(inv)
    for name in ("console_socket", "pidfd_socket", "pid_file"):
        path = text(given, name) if name in given else None
        setattr(options, name, paths.absolute(path) if path is not None else None)
    kept = text(given, "overlay_dir") if "overlay_dir" in given else None
    if kept is not None:
        options.overlay = paths.absolute(kept)
    elif given.get("overlay") is True:
        options.overlay = ""
    options.keep_fds = number(given, "preserve_fds") if "preserve_fds" in given else 0
    options.new_keyring = given.get("no_new_keyring") is not True
    options.keep_groups = given.get("keep_groups") is True
    options.pivot = given.get("no_pivot") is not True
    options.strict = is_strict(inv)
    log = log_of(inv)
    if log.debugging:
        options.debug = log.debug
    environ = paths.environment()
    options.listen_fds = listen_fds(environ)
    options.listen_names = environ.get("LISTEN_FDNAMES", "") if options.listen_fds else ""
    options.keep_fds += options.listen_fds
    close_inherited(options.keep_fds)
    return options


def changes_nothing(inv: Invocation) -> bool:
    """Whether no option changes what `run` or `exec` does, but those that kept plans are found by.

    The launcher then does the same the next time.
    """
    harmless = ("bundle", "process", "root", "cgroup_manager", "log", "log_format", "log_level")
    given = {name: value for name, value in (inv.options | inv.globals).items() if name not in harmless}
    return given.pop("rootless") == "auto" and not any(given.values())


def notify_socket() -> str:
    """Where the service manager waits to hear that this service is ready (sd_notify(3)); empty if nowhere."""
    return paths.environment().get("NOTIFY_SOCKET", "")


def notify_directory(store: Store, container_id: str) -> str:
    """The directory of the socket that the container gets instead; empty where there is no manager."""
    return f"{store.root}/{container_id}/notify" if notify_socket() else ""


def listen_fds(environ: Mapping[str, str]) -> int:
    """How many sockets the service manager passes to this very process (sd_listen_fds(3))."""
    count = decimal(environ.get("LISTEN_FDS", ""))
    return count or 0 if environ.get("LISTEN_PID") == str(posix.getpid()) else 0


def close_inherited(kept: int) -> None:
    """Close what the caller leaked: engines leave sockets and pipes open, and a hook must not have them.

    Raises RtError when one of the `kept` from 3 on is not open: a descriptor of ours would take its number,
    and then be the container's (CVE-2024-21626). So this comes before anything is opened.
    """
    for fd in range(3, 3 + kept):
        try:
            posix.set_inheritable(fd, False)
        except OSError:
            raise RtError(
                f"--preserve-fds: file descriptor {fd} is not open", hint="give the number of fds from 3 on"
            ) from None
    posix.closerange(3 + kept, 1 << 20)


def load_spec(inv: Invocation) -> Spec:
    """The bundle's checked config, with what --idmap changes in it. Raises RtError."""
    from rootless_rt.spec.load import load

    spec = load(text(inv.options, "bundle") or ".", text(inv.options, "config"))
    asked, emulation = text(inv.options, "idmap"), text(inv.options, "uid_emulation")
    # Not where warn is only the default: nobody expects a container that was given a range to go without.
    lenient = asked is None and text(inv.globals, "degrade") == "warn" and posix.geteuid() != 0
    many = lenient and len(spec.data.get("linux", {}).get("uidMappings", [])) > 1
    if asked is None and emulation is None and not many:
        return spec
    from rootless_rt.container.remap import less_ids, with_emulation, with_idmap, with_what_is_granted

    if emulation is not None:
        spec = with_emulation(spec, emulation)
    if many:
        return with_what_is_granted(spec)
    if asked is None:
        return spec
    spec, maps = with_idmap(spec, asked)
    if maps is not None and maps.reason:
        if is_strict(inv):
            raise RtError(f"--idmap {asked}: {maps.reason}", hint=maps.fix)
        if maps.lent:
            log_of(inv).warning(maps.notice, maps.fix)
        else:
            spec.changes = [less_ids(f"--idmap {asked}", maps.reason, maps.fix)]
    return spec


def with_network(inv: Invocation, store: Store, container_id: str, options: Options, spec: Spec) -> Spec:
    """The spec with what --net changes in it; what is done outside is left in `options`. Raises RtError."""
    kind = text(inv.options, "net")
    ports, host_loopback = items(inv.options, "publish"), flag(inv.options, "host_loopback")
    if kind is None and not ports and not host_loopback:
        return spec
    from rootless_rt.container.network import with_net

    directory = f"{store.root}/{container_id}"
    changes = spec.changes
    spec, options.network = with_net(spec, kind, ports, directory, host_loopback=host_loopback)
    spec.changes = changes
    return spec


def tell(log: Log, plan: Plan) -> None:
    """Announce what differs from what was asked."""
    for degradation in plan.degradations:
        log.warning(degradation.line(), degradation.fix or None, degradation.id)
    for line in plan.warnings:
        log.warning(line)
