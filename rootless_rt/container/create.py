"""Making a container: everything is checked and planned first, then rt-init performs the plan.

Theory of operation. Refusals come from `prepare`, before anything has happened.
`build` has side effects in this order: state directory (locked), cgroup, rt-init. At the plan's sync points
rt-init waits while this process writes the id maps and moves it into its cgroup, runs hooks, and at last
saves the state. Whatever fails, all of it is taken back, and so it is when a signal ends this process: those
strike only while it waits (see `signals`). When it is killed, rt-init reads the end of the socket at its next
sync point and ends; what is then left, `delete --force` removes.
"""

from __future__ import annotations

import posix
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socket

from rootless_rt.container import confine, processes, signals
from rootless_rt.container.prepare import Options, Prepared, open_fds
from rootless_rt.container.record import new_state
from rootless_rt.container.store import CONFIG, START, Handle, Store
from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.plan.ops import SYNC_CREATED, SYNC_HOOKS, SYNC_MAPS, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Later = Callable[[], None] | None

    from rootless_rt.container.served import Served
    from rootless_rt.container.supervise import Wakeup
    from rootless_rt.host.facts import HostFacts
    from rootless_rt.plan.model import Degradation, Plan
    from rootless_rt.spec.load import Spec

_END_SECONDS = 2.0


class Ended(RtError):
    """The new process has ended without a word: somebody has killed it."""


class Container:
    """A made container, as its maker holds it: the locked directory, the state, rt-init and the terminal."""

    __slots__ = (
        "console",
        "facts",
        "handle",
        "options",
        "pid",
        "pid_file",
        "pidfd",
        "plan",
        "served",
        "sock",
        "spec",
        "starter",
        "state",
    )

    def __init__(
        self, handle: Handle, spec: Spec, plan: Plan, state: dict[str, Any], options: Options
    ) -> None:
        self.handle = handle
        self.options = options
        self.spec = spec
        self.plan = plan
        self.state = state
        self.facts: HostFacts | None = None  # of a process that was added: what its plan was made of
        self.served: Served | None = None  # the program that is its overlay
        self.sock: socket | None = None
        self.starter = 0  # the process that makes the container's; 0 once it has been waited for
        self.pid = 0
        self.pidfd = -1
        self.console = -1
        self.pid_file: str | None = None  # once it has been written


def build(store: Store, prepared: Prepared, container_id: str, options: Options) -> Container:
    """Make the container up to where it waits for start. Raises RtError, having taken everything back."""
    with signals.held():
        return _build(store, prepared, container_id, options)


def _build(store: Store, prepared: Prepared, container_id: str, options: Options) -> Container:
    state = new_state(prepared, container_id, options)
    fds = open_fds(prepared.plan, prepared.facts)
    console = pidfd_to = None
    try:
        if options.console_socket:
            console = connect_to(options.console_socket, "--console-socket")
        if options.pidfd_socket:
            pidfd_to = connect_to(options.pidfd_socket, "--pidfd-socket")
        handle = store.create(container_id)
        container = Container(handle, prepared.spec, prepared.plan, state, options)
        try:
            _make(container, prepared, options, fds, console)
            if pidfd_to is not None:
                send(pidfd_to, container.pidfd, "standard")
            if prepared.outside is not None:
                prepared.outside.done()
            if container.served is not None:
                container.served.let_go()
        except BaseException:
            take_back(container, prepared)
            raise
        return container
    finally:
        for connection in (console, pidfd_to):
            if connection is not None:
                connection.close()
        for fd in fds:
            if fd >= 0:
                posix.close(fd)


def connect_to(path: str, option: str) -> socket:
    """Connect to the socket that an option names. Raises RtError."""
    from rootless_rt.container.console import connect

    return connect(path, option)


def send(connection: socket, fd: int, text: str) -> None:
    """Send a descriptor and close the connection. Raises RtError."""
    from rootless_rt.container.console import send_fd

    send_fd(connection, fd, text)


def _make(
    container: Container, prepared: Prepared, options: Options, fds: list[int], console: socket | None
) -> None:
    handle, plan = container.handle, container.plan
    # Its own start goes on beside what follows. It does nothing before it has its plan.
    container.sock, container.starter = launch.begin(options.stdio, options.sealed)
    handle.write(CONFIG, prepared.spec.raw)
    # Written before there is anything to clean up, so that whoever finds it knows what to look for.
    handle.write_state(container.state)
    if options.notify:
        from rootless_rt.container.notify import make_directory

        make_directory(handle)
    confine.make(prepared, options)
    container.state["cgroup"] = prepared.cgroup.to_state()  # with what had to be made above it
    if prepared.outside is not None:
        prepared.outside.create(handle)
    confine.fill(fds, plan, prepared.cgroup)
    if ("listener", "") in plan.fds:
        fds[plan.fds.index(("listener", ""))] = _listener(handle)
    launch.send_plan(container.sock, encode(plan.ops), fds)
    until_created(container, console, lambda marker: _at_sync(container, prepared, marker))
    container.state["degraded"] = [item.as_dict() for item in plan.degradations]
    container.state["phase"] = "created"
    # In the foreground, the one who deletes it is here already.
    handle.write_state(container.state, shortcut=not options.foreground)
    if options.pid_file:
        from rootless_rt.container.pidfile import write_pid_file

        write_pid_file(options.pid_file, container.pid)
        container.pid_file = options.pid_file
    with signals.let_through():
        pass  # the last moment to end with nothing left: what comes from here on finds a container
    if options.start_later:
        launch.go_on(container.sock, container.pid)


def until_created(container: Container, console: socket | None, at_sync: Callable[[int], Later]) -> None:
    """Serve rt-init's messages until it waits for start; `at_sync` does what belongs to the sync points.

    What that returns is called when rt-init has been told to go on, and works beside it.

    The terminal goes to `console`, or stays with the container. Raises RtError.
    """
    assert container.sock is not None
    waiting = 0  # where rt-init waits: the new process may get there before its starter has told its pid
    while True:
        message = receive(container.sock)
        if message.type == launch.MSG_PID:
            container.pid, container.pidfd = message.value, message.fd
            with signals.let_through():
                processes.reap(container.starter)  # somebody may have stopped it
            container.starter = 0
        elif message.type == launch.MSG_SYNC:
            waiting = message.value
        elif message.type == launch.MSG_CONSOLE and console is not None:
            send(console, message.fd, "/dev/ptmx")
            posix.close(message.fd)
        elif message.type == launch.MSG_CONSOLE:
            container.console = message.fd
        else:
            outcome(container, message)
        if waiting and container.pid:
            if waiting == SYNC_CREATED:
                return
            later = at_sync(waiting)
            waiting = 0
            launch.go_on(container.sock, container.pid)
            if later is not None:
                later()


def receive(sock: socket) -> launch.Message:
    """The next message of rt-init; signals may strike while there is none."""
    with signals.let_through():
        return launch.receive(sock)


def outcome(container: Container, message: launch.Message) -> None:
    """Act on a note or a time; raise for a report or for silence."""
    if message.type == launch.MSG_TRACE:
        if container.options.debug is not None:
            op = container.plan.ops[message.op]
            container.options.debug(f"op {message.op}: {message.value} us: {op.describe()}")
        return
    if message.type == launch.MSG_NOTE:
        degradation = container.plan.tolerated.get(message.op)
        if degradation is not None and message.call == "overlay":
            from rootless_rt.container.served import because

            degradation = because(degradation, message.err)
        elif degradation is not None and container.plan.ops[message.op].name == "keyring":
            from rootless_rt.container.causes import no_keyring

            degradation = no_keyring(degradation, message.err)
        if degradation is not None and _must_be_had(container, degradation):
            raise RtError(
                f"{degradation.field}: {degradation.asked} is not possible: {degradation.why}",
                hint=degradation.fix or None,
                id=degradation.id,
            )
        if degradation is not None:
            container.plan.degradations.append(degradation)
        return
    if message.type == launch.MSG_FUSE:
        from rootless_rt.container.served import serve

        container.served = serve(container, message.fd)
        return
    if message.type == launch.MSG_ERROR and message.op and container.plan.ops[message.op].name == "overlay":
        from rootless_rt.container.served import explained

        raise explained(container, message)
    from rootless_rt.container.report import failure

    if message.type == launch.MSG_ERROR:
        raise failure(container.plan, message)
    raise Ended(
        "the container's process ended before it could start", hint="was it killed? (out of memory, a signal)"
    )


def _must_be_had(container: Container, degradation: Degradation) -> bool:
    if degradation.always:
        return False
    from rootless_rt.plan.model import is_required

    return container.options.strict or is_required(container.spec.data, degradation.field, degradation.asked)


def _at_sync(container: Container, prepared: Prepared, marker: int) -> Later:
    if marker == SYNC_MAPS:
        container.state.update(processes.identity(container.pid))
        confine.enter(prepared, container.options, container.pid)
        container.state["cgroup"] = prepared.cgroup.to_state()  # where systemd makes it only now
        if container.plan.tuning:
            from rootless_rt.container.tuning import set_from_outside

            set_from_outside(container)
        write_maps_of(container.plan, container.pid, prepared.facts)
        if prepared.outside is not None:
            prepared.outside.at_maps(container.handle, container.pid, container.pidfd)
            prepared.outside.note(container.state)
        if not prepared.spec.data.get("hooks"):
            return lambda: _save(container)
        # A hook may hang, when this process has been killed: `delete` must know whom to kill.
        container.handle.write_state(container.state)
    elif marker == SYNC_HOOKS:
        hooks = prepared.spec.data.get("hooks", {})
        for kind in ("prestart", "createRuntime"):
            run_hooks_of(container, hooks, kind, "creating")
    return None


def _save(container: Container) -> None:
    """Save the state, and lay ready what it is going to be when rt-init has come to the end of its plan."""
    container.handle.write_state(container.state)
    container.handle.stage_state({**container.state, "phase": "created"})


def write_maps_of(plan: Plan, pid: int, facts: HostFacts) -> None:
    """Write the id maps of the new process `pid`, if it has a user namespace of its own.

    Raises IdmapError.
    """
    if plan.uid_map is None or plan.gid_map is None:
        return
    if plan.lent:
        from idmap.nsresource import lend

        plan.uid_map, plan.gid_map = lend(pid)
        return
    from idmap.write import write_maps

    write_maps(
        pid,
        plan.uid_map,
        plan.gid_map,
        euid=facts.euid,
        egid=facts.egid,
        privileged=facts.can_map_all,
        setgroups=None if plan.set_groups else "deny",
    )


def run_hooks_of(container: Container, hooks: dict[str, Any], kind: str, status: str) -> None:
    """Run the hooks of one kind, if there are any, for a container that this process holds."""
    if hooks.get(kind):
        from rootless_rt.container.hooks import run_hooks
        from rootless_rt.plan.hooks import hook_state

        spec = container.spec
        pid = container.pid
        text = hook_state(spec.data, spec.bundle, container.handle.id, status, pid)
        # Before it runs, the end of the container's process means that somebody wants all of this to end.
        run_hooks(kind, hooks[kind], text, spec.bundle, container.pidfd if status == "creating" else -1)


def _listener(handle: Handle) -> int:
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    try:
        listener.bind(handle.place(START))
        posix.chmod(START, 0o600, dir_fd=handle.fd)
        listener.listen(16)
    except OSError as error:
        listener.close()
        raise RtError(
            f"cannot make {handle.path}/{START}: {posix.strerror(error.errno or 0).lower()}"
        ) from None
    return listener.detach()


def take_back(container: Container, prepared: Prepared) -> None:
    """Undo what was made, as far as it was made; the error that is under way is the one that counts."""
    if prepared.outside is not None:
        prepared.outside.undo()
    end_process(container)
    if container.served is not None:
        container.served.undo()
    if container.pid_file:
        try:
            posix.unlink(container.pid_file)
        except OSError:
            pass
    prepared.cgroup.undo()
    try:
        container.handle.remove()
    except RtError:
        pass  # the disk may be full or gone: `delete` tells, and tries again
    container.handle.close()


def end_process(container: Container) -> None:
    """End a process that is not going to execute its program."""
    if container.sock is not None:
        container.sock.close()
    if container.pidfd >= 0:
        processes.send_signal(container.pidfd, 9)
    if container.starter and processes.is_child(container.starter):
        posix.kill(container.starter, 9)  # somebody may have stopped it
    # By number: a program that calls us, or that became us, may have other children.
    if container.starter:
        processes.reap(container.starter)
    # One that `exec` put into a paused container dies when that is resumed: not waited for.
    if container.pid and (container.pidfd < 0 or processes.wait_end(container.pidfd, _END_SECONDS)):
        processes.reap(container.pid)
    if container.console >= 0:
        posix.close(container.console)


def start_now(container: Container, wakeup: Wakeup | None) -> None:
    """Let a container made by this very process go on to exec. Raises RtError when it does not get there.

    With `wakeup`, signals that come when the program runs already are kept there, to be forwarded.
    """
    if container.sock is None:
        raise RtError("the container's process has ended")
    agent = None
    if container.plan.notifies:
        from rootless_rt.container.notify_seccomp import agent_of

        agent = agent_of(container)
    launch.go_on(container.sock, container.pid)
    # rt-init's last messages: its end of the socket closes when the program starts.
    while True:
        if wakeup is not None:
            with signals.let_through():
                wakeup.until(container.sock.fileno())
        message = receive(container.sock)
        if message.type == launch.MSG_GONE:
            return
        if agent is not None and message.type == launch.MSG_LISTENER:
            with signals.let_through():
                agent.hand_over(message.fd)
            launch.go_on(container.sock, container.pid)
        else:
            outcome(container, message)
