"""`restore`: CRIU brings a checkpointed container back to life, as one of a new id if need be.

Theory of operation. All that can be checked is, then things are made as for `create`: the state directory,
the cgroup, what is done outside (network devices, helpers, resctrl). CRIU is put into the cgroup, and makes
the processes, as children of this one, with their namespaces and mounts. It stops for this process
(notifications) when there are namespaces but nothing in them yet, and when all is restored but does not run
yet; what fails up to there is taken back. Must not know how a checkpoint is made, but for what `image` keeps.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

from rootless_rt.cgroups.fs import read_bytes
from rootless_rt.cgroups.host import own_of
from rootless_rt.container import confine, image, processes, signals, standins
from rootless_rt.container.checkpoint import (
    EXTERNAL,
    Wanted,
    failure,
    fill,
    key_of,
    namespaces_of,
    path_of,
)
from rootless_rt.container.create import Container, connect_to, run_hooks_of, send, take_back
from rootless_rt.container.record import new_state
from rootless_rt.container.store import CONFIG, Store
from rootless_rt.criu import messages, mounts, privilege, program, rpc
from rootless_rt.errors import RtError
from rootless_rt.plan.mounts import normal
from rootless_rt.spec.jsonio import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any

    from rootless_rt.container.prepare import Options, Prepared

_LOG = "restore.log"
_ROOT = "criu-root"
_JOINED = {"ipc": "ipc", "uts": "uts", "user": "user", "mount": "mnt"}
"""Namespaces that CRIU joins by itself: type -> its word."""


class Images:
    """A checkpoint that can be restored: the open directory, and what it says. A context manager."""

    __slots__ = ("directory", "record", "stdio")

    def __init__(self, directory: image.Directory) -> None:
        self.directory = directory
        self.record = image.read_record(directory)
        self.stdio = image.read_descriptors(directory)

    def __enter__(self) -> Images:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.directory.fd)


def open_images(wanted: Wanted) -> Images:
    """Open the checkpoint. Raises RtError."""
    directory = image.find(wanted.images, "--image-path")
    try:
        image.check_whole(directory, "--image-path")
        return Images(directory)
    except BaseException:
        os.close(directory.fd)
        raise


def restore(
    store: Store, prepared: Prepared, container_id: str, options: Options, wanted: Wanted
) -> Container:
    """Bring the container back; it runs when this returns. Raises RtError, having taken everything back."""
    wanted.unprivileged = privilege.is_unprivileged()
    path = program.find(wanted.criu)
    rpc.version(path)
    with open_images(wanted) as images:
        _check_same(images, prepared)
        for kind in ("cgroup", "time"):
            if path_of(prepared.spec.data, kind):
                raise RtError(f"linux.namespaces ({kind}): criu cannot restore into one that exists")
        with signals.held():
            return _restore(store, prepared, container_id, options, wanted, images, path)


def _check_same(images: Images, prepared: Prepared) -> None:
    """Whether the checkpoint can be of this bundle's container. Raises RtError."""
    if images.record is None:
        return
    config, then = prepared.spec.data, images.record.data
    where = f"{images.directory.path} is not a checkpoint of this bundle"
    hint = "name the bundle that it was made of, or one that differs in nothing but paths of the host"
    now = namespaces_of(config)
    if then["namespaces"] != now:
        differ = ", ".join(sorted(set(then["namespaces"]) ^ set(now)))
        raise RtError(f"{where}: linux.namespaces differ: {differ}", hint=hint)
    if bool(then.get("terminal")) != bool(config["process"].get("terminal")):
        raise RtError(f"{where}: process.terminal differs", hint=hint)
    there = {normal(mount["destination"]) for mount in config.get("mounts", [])}
    for source in images.record.sources.values():
        if "mount" in source and source["mount"] not in there:
            raise RtError(f"{where}: its config has no mount at {source['mount']}", hint=hint)


def _restore(
    store: Store,
    prepared: Prepared,
    container_id: str,
    options: Options,
    wanted: Wanted,
    images: Images,
    path: str,
) -> Container:
    state = new_state(prepared, container_id, options)
    console = connect_to(options.console_socket, "--console-socket") if options.console_socket else None
    try:
        handle = store.create(container_id)
        container = Container(handle, prepared.spec, prepared.plan, state, options)
        try:
            _make(container, prepared, wanted, images, path, console)
        except BaseException:
            prepared.cgroup.kill()  # what CRIU could not take back, because it was ended
            take_back(container, prepared)
            raise
        return container
    finally:
        if console is not None:
            console.close()


def _make(
    container: Container,
    prepared: Prepared,
    wanted: Wanted,
    images: Images,
    path: str,
    console: socket | None,
) -> None:
    handle, options = container.handle, container.options
    handle.write(CONFIG, prepared.spec.raw)
    handle.write_state(container.state)
    if options.notify:
        from rootless_rt.container.notify import make_directory

        make_directory(handle)
    if wanted.cgroup_mode == "strict":
        _check_new(prepared)
    confine.make(prepared, options)
    container.state["cgroup"] = prepared.cgroup.to_state()
    if prepared.outside is not None:
        prepared.outside.create(handle)
    sources = standins.find(images.record, prepared, handle)
    standins.make_points(images.record, prepared, sources)
    joined, fds = _external_namespaces(prepared.spec.data)
    os.mkdir(_ROOT, 0o700, dir_fd=handle.fd)
    root = f"{handle.path}/{_ROOT}"
    try:
        with _log_directory(wanted, images) as logs:

            def waiting() -> AbstractContextManager[object]:
                # Once it runs, signals are for it: whoever serves it passes on what has been held back. But
                # with its memory still to be fetched it may never come so far.
                runs = container.state["phase"] == "created" and not wanted.lazy_pages
                return nullcontext() if runs else signals.let_through()

            def start() -> tuple[image.Directory, rpc.Worker]:
                return logs.again(), rpc.Worker(path, fds, options.stdio or (0, 1, 2), waiting)

            work_dir, worker = mounts.with_root(prepared.spec.rootfs, root, start)
            with work_dir, worker, _readable(images.directory, prepared) as image_dir:
                request = worker.options()
                fill(request, wanted, image_dir, work_dir, prepared.spec.data, _LOG)
                request.root = root
                _complete(request, wanted, images, sources, joined, prepared)
                _enter_cgroup(container, prepared, worker.pid, request)
                worker.ask(messages.RESTORE, request)
                try:
                    worker.answer(messages.RESTORE, Steps(container, prepared, console))
                except rpc.Failed as error:
                    raise failure("restore", error, logs, _LOG) from None
    finally:
        for fd in fds:
            os.close(fd)
        os.rmdir(_ROOT, dir_fd=handle.fd)


def _readable(images: image.Directory, prepared: Prepared) -> image.Directory:
    """The images as the container's own root can read them too."""
    plan = prepared.plan
    if plan.uid_map is None or plan.gid_map is None:
        return images.with_ids(-1)
    from rootless_rt.container.holder import open_userns

    # CRIU reads them as the host's root, without its privileges, and as the container's: by group and owner.
    images.let_group_read()
    lines = "".join(f"{inside} {here} {count}\n" for inside, here, count in plan.uid_map)
    userns = open_userns(f"{lines};0 0 1\n", prepared.facts)
    try:
        return images.with_ids(userns)
    finally:
        os.close(userns)


def _check_new(prepared: Prepared) -> None:
    """For CRIU's strict mode. Raises RtError."""
    record = prepared.cgroup.to_state()
    record = record.get("inner", record)
    for path in record.get("paths", {}).values() or [record.get("path", "")]:
        if path and os.path.lexists(path):
            raise RtError(
                f"--manage-cgroups-mode strict: the cgroup {path} is there already",
                hint="remove it, or take another mode",
            )


def _enter_cgroup(container: Container, prepared: Prepared, pid: int, request: Any) -> None:
    """Put CRIU, and so all that it restores, into the container's cgroup, and tell it so."""
    confine.add(prepared, container.options, pid)
    container.state["cgroup"] = prepared.cgroup.to_state()  # where systemd makes it only now
    container.handle.write_state(container.state)
    for name, place in own_of(read_bytes(f"/proc/{pid}/cgroup") or b"").items():
        request.cg_root.add(ctrl=name, path=place)


class Steps:
    """What happens when CRIU says how far it has come; called with (step, pid or 0, descriptor or -1)."""

    __slots__ = ("_console", "_container", "_prepared")

    def __init__(self, container: Container, prepared: Prepared, console: socket | None) -> None:
        self._container = container
        self._prepared = prepared
        self._console = console

    def __call__(self, script: str, pid: int, fd: int) -> None:
        """Raises RtError, which ends the restore."""
        if script == "setup-namespaces":
            self._namespaces_are_made(pid)
        elif script == "orphan-pts-master":
            self._take_terminal(fd)
        elif script == "post-restore":
            self._all_is_restored(pid)
        elif fd >= 0:
            os.close(fd)

    def _hold(self, pid: int) -> None:
        container = self._container
        if container.pidfd < 0:
            # Our child (CLONE_PARENT), not waited for: the number is its own.
            container.pid, container.pidfd = pid, os.pidfd_open(pid)

    def _namespaces_are_made(self, pid: int) -> None:
        container, prepared = self._container, self._prepared
        self._hold(pid)
        linux = prepared.spec.data["linux"]
        if any(item["type"] == "network" and not item.get("path") for item in linux["namespaces"]):
            from rootless_rt.net.loopback import bring_up

            bring_up(pid)
        if prepared.outside is not None:
            prepared.outside.at_maps(container.handle, pid, container.pidfd)
            prepared.outside.note(container.state)
        hooks = prepared.spec.data.get("hooks", {})
        for kind in ("prestart", "createRuntime"):
            run_hooks_of(container, hooks, kind, "creating")

    def _take_terminal(self, fd: int) -> None:
        if self._console is not None:
            send(self._console, fd, "/dev/ptmx")
            os.close(fd)
        else:
            self._container.console = fd

    def _all_is_restored(self, pid: int) -> None:
        container = self._container
        self._hold(pid)
        container.state.update(processes.identity(pid))
        container.state["degraded"] = [item.as_dict() for item in container.plan.degradations]
        _note_time(container)
        container.state["phase"] = "created"
        container.handle.write_state(container.state)
        if container.options.pid_file:
            from rootless_rt.container.pidfile import write_pid_file

            write_pid_file(container.options.pid_file, pid)
            container.pid_file = container.options.pid_file
        with signals.let_through():
            pass  # the last moment to end with nothing left: what comes from here on finds a container


def _note_time(container: Container) -> None:
    """CRIU gives what it restores clocks of its own, which go on where they were: `exec` is to enter them."""
    listed = container.spec.data["linux"]["namespaces"]
    inside, here = (os.stat(f"/proc/{who}/ns/time").st_ino for who in (container.pid, "self"))
    if inside == here or any(item["type"] == "time" for item in listed):
        return
    data = {**container.spec.data, "linux": {**container.spec.data["linux"]}}
    data["linux"]["namespaces"] = [*listed, {"type": "time"}]
    container.handle.write(CONFIG, dumps(data).encode("utf-8", "surrogateescape"))


def _log_directory(wanted: Wanted, images: Images) -> image.Directory:
    if wanted.work:
        return image.make(wanted.work, "--work-path")
    found = image.Directory(images.directory.path, os.dup(images.directory.fd))
    if not found.is_writable():
        os.close(found.fd)
        raise RtError(f"--image-path {found.path}: is not writable, for the log", hint="--work-path DIR")
    return found


def _complete(
    request: Any,
    wanted: Wanted,
    images: Images,
    sources: dict[str, str],
    joined: list[tuple[str, int]],
    prepared: Prepared,
) -> None:
    """What only a restore says."""
    if wanted.cgroup_mode == "strict":
        # It has been made by now, so CRIU would refuse it; that it was not there has been looked at.
        request.manage_cgroups_mode = messages.CGROUP_MODES["full"]
    request.rst_sibling = True
    request.evasive_devices = True
    if wanted.lsm_profile:
        request.lsm_profile = wanted.lsm_profile
    if wanted.lsm_mount_context:
        request.lsm_mount_context = wanted.lsm_mount_context
    for name, place in sources.items():
        request.ext_mnt.add(key=name, val=place)
    for key, fd in joined:
        request.inherit_fd.add(key=key, fd=fd)
    for number, what in enumerate(images.stdio[:3]):
        if what.startswith("pipe:"):
            request.inherit_fd.add(key=what, fd=number)
    for key, number in images.record.files.items() if images.record is not None else ():
        request.inherit_fd.add(key=key, fd=number)
    for kind, word in _JOINED.items():
        place = path_of(prepared.spec.data, kind)
        if place:
            request.join_ns.add(ns=word, ns_file=place)


def _external_namespaces(config: dict[str, Any]) -> tuple[list[tuple[str, int]], list[int]]:
    """The namespaces that CRIU is handed: (their key, descriptor), and the descriptors. Raises RtError."""
    from rootless_rt.container.prepare import namespace_fd

    joined: list[tuple[str, int]] = []
    try:
        for kind in EXTERNAL:
            place = path_of(config, kind)
            if place:
                joined.append((key_of(kind), namespace_fd(kind, place)))
    except BaseException:
        for _, fd in joined:
            os.close(fd)
        raise
    return joined, [fd for _, fd in joined]
