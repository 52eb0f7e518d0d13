"""`checkpoint`: a running container is saved by CRIU, and ends unless it is to go on.

Knows what of a container CRIU must be told: its external mounts, joined namespaces, stdio and cgroup. What is
written beside CRIU's images is in `image`; a restore reads both.
"""

from __future__ import annotations

import os
import time

from rootless_rt.container import image, mounttable, processes, signals, stdio
from rootless_rt.container.lifecycle import config_of, forget, lock_in_time, status_of
from rootless_rt.container.record import has_cgroup, manager
from rootless_rt.container.store import Handle, Store, check_id, missing
from rootless_rt.criu import log, messages, pages, privilege, program, rpc
from rootless_rt.errors import RtError
from rootless_rt.spec.names import NAMESPACES, decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt.container.lifecycle import Warn

CONFIG_FILE, CONFIG_ANNOTATION = "/etc/criu/rt.conf", "org.criu.config"
"""A file whose settings CRIU prefers to all that it is told; the annotation names another, or none."""
EXTERNAL = {"network": "net", "pid": "pid"}
"""Namespaces that can be kept out of the images when joined: type -> CRIU's word."""
_NEWNET = 0x40000000
_LOG = "dump.log"
_UMASK = 0o077  # CRIU makes its files readable for all, and a process's memory is its own
_LOG_LEVEL = 4
_GONE_SECONDS = 2.0


class Wanted:
    """What the options of checkpoint and restore ask of CRIU. Paths are absolute; "" stands for not given."""

    __slots__ = (
        "auto_dedup",
        "cgroup_mode",
        "criu",
        "ext_unix_sk",
        "file_locks",
        "images",
        "lazy_pages",
        "leave_running",
        "link_remap",
        "lsm_mount_context",
        "lsm_profile",
        "page_server",
        "parent",
        "pre_dump",
        "shell_job",
        "status_fd",
        "tcp_established",
        "tcp_skip_in_flight",
        "unprivileged",
        "work",
    )

    def __init__(self, images: str) -> None:
        self.images = images
        self.work = ""
        self.parent = ""  # relative to `images`
        self.criu: str | None = None
        self.cgroup_mode = ""
        self.lsm_profile = ""
        self.lsm_mount_context = ""
        self.page_server: tuple[str, int] | None = None
        self.status_fd = -1
        self.auto_dedup = False
        self.ext_unix_sk = False
        self.file_locks = False
        self.lazy_pages = False
        self.leave_running = False
        self.link_remap = False
        self.pre_dump = False
        self.shell_job = False
        self.tcp_established = False
        self.tcp_skip_in_flight = False
        self.unprivileged = False


def checkpoint(store: Store, container_id: str, wanted: Wanted, warn: Warn) -> None:
    """Save a container that runs or is paused. Raises RtError; it goes on as before then.

    Without `leave_running` and `pre_dump` the container is gone afterwards, as after `delete`.
    """
    wanted.unprivileged = privilege.is_unprivileged()
    path = program.find(wanted.criu)
    version = rpc.version(path)
    handle = store.open(check_id(container_id))
    try:
        if not lock_in_time(handle):
            raise missing(container_id)
        state = handle.read_state()
        status = status_of(handle, state)
        if status not in ("running", "paused"):
            hint = f"rt start {container_id}" if status == "created" else "rt list shows what runs"
            raise RtError(f'cannot checkpoint container "{container_id}": it is {status}', hint=hint)
        _check_features(path, wanted)
        with image.make(wanted.images, "--image-path") as images:
            _check_parent(images, wanted)
            with _log_directory(wanted, images) as logs:
                _tell_of_strangers(state, wanted, warn)
                _dump(handle, state, path, version, wanted, images, logs)
        if not wanted.leave_running and not wanted.pre_dump:
            _wait_gone(state)
            forget(handle, state, warn)
    finally:
        handle.close()


def _tell_of_strangers(state: dict[str, Any], wanted: Wanted, warn: Warn) -> None:
    """Say which processes end with the container without being saved: CRIU goes from parent to child."""
    if wanted.leave_running or wanted.pre_dump or not has_cgroup(state):
        return
    members = set(manager(state).procs())
    strangers = [pid for pid in sorted(members) if not _descends(pid, state["pid"], members)]
    if strangers:
        listed = ", ".join(str(pid) for pid in strangers)
        warn(f"processes that `exec` has added are not saved: {listed}")


def _descends(pid: int, from_pid: int, members: set[int]) -> bool:
    while pid in members and pid != from_pid:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                parent = decimal(file.read().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            return True  # it has ended
        pid = parent or 0
    return pid == from_pid


def _wait_gone(state: dict[str, Any]) -> None:
    """Wait until the number of the process is free: without a pid namespace a restore needs that very one."""
    deadline = time.monotonic() + _GONE_SECONDS
    while processes.start_time(state["pid"])[1] == state["startTime"] and time.monotonic() < deadline:
        time.sleep(0.005)  # an ended process waits for its parent, and nothing tells of that


def _check_features(path: str, wanted: Wanted) -> None:
    needed = {}
    if wanted.pre_dump or wanted.parent:
        needed["mem_track"] = (
            "--pre-dump" if wanted.pre_dump else "--parent-path",
            "cannot tell which memory has changed (CONFIG_MEM_SOFT_DIRTY)",
        )
    if wanted.lazy_pages:
        needed["lazy_pages"] = "--lazy-pages", "has no userfaultfd for it (CONFIG_USERFAULTFD)"
    for name in rpc.lacks(path, list(needed)) if needed else ():
        option, what = needed[name]
        raise RtError(f"{option} does not work here: the kernel {what}", hint="do without it")
    if wanted.lazy_pages:
        pages.check_server()


def _check_parent(images: image.Directory, wanted: Wanted) -> None:
    if not wanted.parent:
        return
    if not os.path.isdir(f"/proc/self/fd/{images.fd}/{wanted.parent}"):
        raise RtError(
            f"--parent-path {wanted.parent}: no such directory below {images.path}",
            hint="give it relative to --image-path, such as ../first",
        )
    path = f"{images.path}/{wanted.parent}"
    with image.find(path, "--parent-path", name=wanted.parent, at=images.fd) as parent:
        image.check_whole(parent, "--parent-path")


def _log_directory(wanted: Wanted, images: image.Directory) -> image.Directory:
    """Where CRIU works and writes its log."""
    if wanted.work:
        return image.make(wanted.work, "--work-path")
    return image.Directory(images.path, os.dup(images.fd))


def _dump(
    handle: Handle,
    state: dict[str, Any],
    path: str,
    version: int,
    wanted: Wanted,
    images: image.Directory,
    logs: image.Directory,
) -> None:
    config = config_of(handle)
    paused = has_cgroup(state) and manager(state).frozen()
    pid = state["pid"]
    inside = mounttable.table(pid)
    outside = mounttable.sort_out(inside, mounttable.table("self"), config, handle.path)
    files = stdio.outer_files(pid, inside)
    images.forget(image.RECORD, image.DESCRIPTORS)  # of a checkpoint that was there before
    before = images.names()
    request = messages.PRE_DUMP if wanted.pre_dump else messages.DUMP
    try:
        with rpc.Worker(path, umask=_UMASK) as worker:
            options = worker.options()
            fill(options, wanted, images, logs, config, _LOG)
            _complete(options, wanted, state, config)
            if not wanted.pre_dump:
                for point, name in outside.names.items():
                    options.ext_mnt.add(key=point, val=name)
                options.external.extend(files)
                images.write(image.DESCRIPTORS, _outer_stdio(state))
                record = image.new_record(
                    id=handle.id,
                    criu=version,
                    terminal=bool(config["process"].get("terminal")),
                    namespaces=namespaces_of(config),
                    files=files,
                    points=outside.points,
                    sources=outside.sources,
                )
                images.write(image.RECORD, record.data)
            worker.ask(request, options)
            worker.answer(request, lambda script, _, fd: _notified(wanted, script, fd))
    except BaseException as error:
        _forget_memory(images, before)
        if has_cgroup(state) and not paused and manager(state).frozen():
            manager(state).thaw()  # criu was ended before it could
        if isinstance(error, rpc.Failed):
            raise failure("checkpoint", error, logs, _LOG) from None
        raise
    if not wanted.pre_dump:
        _note_sizes(images, record)


def _note_sizes(images: image.Directory, record: image.Record) -> None:
    """Write down what a restore is to find; that the memory is saved stands also without."""
    try:
        images.write(image.RECORD, {**record.data, "sizes": images.sizes()})
    except (OSError, RtError):
        pass


def _complete(options: Any, wanted: Wanted, state: dict[str, Any], config: dict[str, Any]) -> None:
    """What only a checkpoint says."""
    pid = state["pid"]
    options.root = state["rootfs"]
    options.pid = pid
    options.leave_running = wanted.leave_running
    options.tcp_skip_in_flight = wanted.tcp_skip_in_flight
    options.link_remap = wanted.link_remap
    options.track_mem = wanted.pre_dump or bool(wanted.parent)
    if wanted.parent:
        options.parent_img = wanted.parent
    if wanted.page_server is not None:
        options.ps.address, options.ps.port = wanted.page_server
    freezer = _freezer(state)
    if freezer:
        options.freeze_cgroup = freezer
    for kind, word in EXTERNAL.items():
        if path_of(config, kind):
            inode = os.stat(f"/proc/{pid}/ns/{NAMESPACES[kind][1]}").st_ino
            options.external.append(f"{word}[{inode}]:{key_of(kind)}")


def _outer_stdio(state: dict[str, Any]) -> list[str]:
    names = stdio.links(state["pid"])
    return stdio.outer_pipes(names, manager(state).procs()) if has_cgroup(state) else names


def _forget_memory(images: image.Directory, before: set[str]) -> None:
    """Remove what a checkpoint that failed has written, but for its log."""
    new = images.names() - before
    written = {name for name in new if name.endswith(image.IMAGE) or name == image.PARENT}
    images.forget(image.RECORD, image.DESCRIPTORS, *written)


def _notified(wanted: Wanted, script: str, fd: int) -> None:
    if fd >= 0:
        os.close(fd)
    if script == "status-ready" and wanted.status_fd >= 0:
        # The pages can be fetched from here on: whoever has given the descriptor waits for that.
        number, wanted.status_fd = wanted.status_fd, -1
        try:
            os.write(number, b"\0")
        except OSError as error:
            raise RtError(
                f"--status-fd {number}: nobody is told that pages can be fetched:"
                f" {(error.strerror or '').lower()}"
            ) from None
        finally:
            os.close(number)
    if script == "status-ready":
        signals.release()  # all is saved; nobody may ever come for the pages


def fill(
    options: Any,
    wanted: Wanted,
    images: image.Directory,
    logs: image.Directory,
    config: dict[str, Any],
    log_file: str,
) -> None:
    """Set the options that checkpoint and restore have in common."""
    options.images_dir_fd = images.fd
    options.work_dir_fd = logs.fd
    options.log_level = _LOG_LEVEL
    options.log_file = log_file
    options.notify_scripts = True
    # A terminal of the container's own is handed to whoever restores; one of the host's is inherited.
    options.orphan_pts_master = bool(config["process"].get("terminal"))
    options.manage_cgroups = True  # of old: the mode decides
    options.manage_cgroups_mode = messages.CGROUP_MODES[wanted.cgroup_mode]
    for name in ("shell_job", "tcp_established", "ext_unix_sk", "file_locks", "auto_dedup", "lazy_pages"):
        setattr(options, name, getattr(wanted, name))
    if wanted.unprivileged:
        options.unprivileged = True
    # What is in a network namespace is whoever's has made it: rt's, a hook's or an engine's.
    options.empty_ns = _NEWNET
    chosen = config.get("annotations", {}).get(CONFIG_ANNOTATION, CONFIG_FILE)
    if chosen:
        options.config_file = chosen


def _freezer(state: dict[str, Any]) -> str:
    """The cgroup by which all processes can be stopped; empty when there is none."""
    if not has_cgroup(state):
        return ""
    record = manager(state).to_state()
    record = record.get("inner", record)
    if record["kind"] == "v2":
        return str(record["path"])
    return next((path for names, path in record["paths"].items() if "freezer" in names.split(",")), "")


def key_of(kind: str) -> str:
    """The name by which a joined namespace is known in the images; the same as runc's."""
    return f"extRoot{EXTERNAL[kind].title()}NS"


def path_of(config: dict[str, Any], kind: str) -> str:
    """The file of a joined namespace; empty when the container has its own, or the caller's."""
    listed = config.get("linux", {}).get("namespaces", [])
    return next((item.get("path") or "" for item in listed if item["type"] == kind), "")


def namespaces_of(config: dict[str, Any]) -> list[str]:
    """The types of the namespaces that the container has or joins, sorted; CRIU adds that of time itself."""
    listed = config.get("linux", {}).get("namespaces", [])
    return sorted(item["type"] for item in listed if item["type"] != "time")


def failure(verb: str, error: rpc.Failed, logs: image.Directory, name: str) -> RtError:
    """CRIU's own reason in one line, with what helps."""
    found = log.reason(logs.lines(name), trials=not isinstance(error, rpc.Ended))
    said = found or error.said or error.message
    helps = log.hint(said)
    return RtError(f"criu cannot {verb} it: {said}", hint=helps or f"the whole log: {logs.path}/{name}")


def is_writable(fd: int) -> bool:
    """Whether a descriptor of the caller's is open for writing."""
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return False
