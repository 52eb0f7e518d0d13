"""Where containers are remembered: the state root, a directory a container, its lock and its files.

    ROOT/ID/            owned by the runtime's user, 0711; flock(2) on it is the container's lock
    ROOT/ID/state.json  written to a temporary name and renamed
    ROOT/ID/config.json the config as it was at create: used from then on
    ROOT/ID/start       socket that a created container listens on until it is started
    ROOT/ID/shortcut    what the launcher needs to do without Python; see `container.shortcut`

Everything works on descriptors of the two directories; no name is followed through a symbolic link. Must not
know what a state means.
"""

from __future__ import annotations

import _stat as stat
import errno
import fcntl
import posix

from rootless_rt import paths
from rootless_rt.container.record import salvage, wrong_field
from rootless_rt.errors import RtError
from rootless_rt.spec.jsonio import dumps, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

STATE, CONFIG, START = "state.json", "config.json", "start"
_DIR = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_MAX_STATE = 16 << 20
_ID_LIMIT = 255  # NAME_MAX: the id is a directory's name
_ID_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-")


def check_id(container_id: str) -> str:
    """Return a valid container id unchanged; raise RtError for one that is no plain name."""
    plain = _ID_CHARS.issuperset(container_id) and container_id not in ("", ".", "..")
    if not plain or len(container_id) > _ID_LIMIT:
        raise RtError(
            f"invalid container id {container_id[:80]!r}",
            hint="use letters, digits and _ + . -, at most 255 of them",
        )
    return container_id


def missing(container_id: str) -> RtError:
    """The error for a container that nobody knows; engines look for its words."""
    return RtError(
        f'container "{container_id}" does not exist', hint="rt list shows the containers of this --root"
    )


def default_root(environ: Mapping[str, str], euid: int, initial_userns: bool) -> str:
    """The state root when --root is not given.

    root: /run/rt. Others, and root of a user namespace: $XDG_RUNTIME_DIR/rt, /run/user/UID/rt, ~/.rt/run,
    /tmp/rt-UID: the first whose parent is a directory of this user that nobody else can write to.
    """
    if euid == 0 and initial_userns:
        return "/run/rt"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and _is_ours(runtime, euid):
        return runtime + "/rt"
    if _is_ours(f"/run/user/{euid}", euid):
        return f"/run/user/{euid}/rt"
    home = environ.get("HOME", "")
    if home.startswith("/") and home != "/" and _is_ours(home, euid) and posix.access(home, posix.W_OK):
        return home + "/.rt/run"
    return f"/tmp/rt-{euid}"


def _is_ours(path: str, euid: int) -> bool:
    try:
        status = posix.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == euid and not status.st_mode & 0o022


class Store:
    """The containers below one state root. `root` is absolute; `given` tells that the user named it."""

    __slots__ = ("given", "root")

    def __init__(self, root: str, given: bool) -> None:
        # POSIX lets two slashes at the beginning stand for themselves, and so does normpath.
        if not paths.normal(root).strip("/"):
            raise RtError(
                "--root: / cannot be the state root", hint="name a directory of its own, such as /run/rt"
            )
        self.root = root
        self.given = given

    def _open_root(self, make: bool) -> int:
        """A descriptor of the state root. Raises FileNotFoundError when it is missing and not to be made."""
        made = False
        if make and not paths.is_directory(self.root):
            try:
                paths.make_directories(self.root, 0o700)
                made = True
            except OSError as error:
                raise _cannot("make the state root", self.root, error) from None
        try:
            # A root that nobody named may lie in /tmp: a link there is somebody else's idea.
            fd = posix.open(self.root, _DIR if not self.given else _DIR & ~posix.O_NOFOLLOW)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _cannot("open the state root", self.root, error) from None
        try:
            self._check_root(posix.fstat(fd))
            if made:
                # Sticky: systemd-tmpfiles leaves such directories alone (XDG base directory specification).
                posix.fchmod(fd, 0o1700)
        except BaseException:
            posix.close(fd)
            raise
        return fd

    def _check_root(self, status: posix.stat_result) -> None:
        link = posix.lstat(self.root)
        if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, posix.geteuid()):
            problem = f"is a link of uid {link.st_uid}"
        elif status.st_uid != posix.geteuid():
            problem = f"belongs to uid {status.st_uid}"
        elif status.st_mode & 0o022:
            problem = "can be written by other users"
        else:
            return
        raise RtError(
            f"state root {self.root} {problem}",
            hint="name a directory of your own with --root, or: chmod go-w " + self.root,
        )

    def create(self, container_id: str) -> Handle:
        """Make the directory of a new container and lock it. Raises RtError when the id is taken."""
        root = self._open_root(make=True)
        try:
            posix.mkdir(container_id, 0o711, dir_fd=root)
            handle = self._handle(root, container_id)
        except FileExistsError:
            raise RtError(
                f'container with id "{container_id}" exists: container with given ID already exists',
                hint=f"choose another id, or remove it: rt delete {container_id}",
            ) from None
        except FileNotFoundError:
            raise RtError(f'container "{container_id}" was deleted while it was made') from None
        except OSError as error:
            raise _cannot("make the state directory", f"{self.root}/{container_id}", error) from None
        finally:
            posix.close(root)
        # Whoever got the lock first sees that nothing is here yet, and gives it back or removes it at once.
        if not handle.lock():
            handle.close()
            raise RtError(f'container "{container_id}" was deleted while it was made')
        return handle

    def open(self, container_id: str) -> Handle:
        """The container's directory, not locked. Raises RtError when there is none."""
        handle = self.find(container_id)
        if handle is None:
            raise missing(container_id)
        return handle

    def find(self, container_id: str) -> Handle | None:
        """The container's directory, not locked; None when there is none. Raises RtError."""
        try:
            root = self._open_root(make=False)
        except FileNotFoundError:
            return None
        try:
            return self._handle(root, container_id)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise RtError(
                    f"{self.root}/{container_id} is not a directory that rt made", hint="remove it by hand"
                ) from None
            raise _cannot("open the state directory", f"{self.root}/{container_id}", error) from None
        finally:
            posix.close(root)

    def _handle(self, root: int, container_id: str) -> Handle:
        fd = posix.open(container_id, _DIR, dir_fd=root)
        if posix.fstat(fd).st_uid != posix.geteuid():
            posix.close(fd)
            raise RtError(f"{self.root}/{container_id} belongs to another user")
        return Handle(self.root, container_id, fd)

    def ids(self) -> list[str]:
        """The ids of all containers, sorted. A missing root is empty, but an error when the user named it."""
        try:
            root = self._open_root(make=False)
        except FileNotFoundError:
            if self.given:
                raise RtError(f"state root {self.root}: no such directory") from None
            return []
        try:
            with posix.scandir(root) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise _cannot("read the state root", self.root, error) from None
        finally:
            posix.close(root)
        return sorted(name for name in names if _ID_CHARS.issuperset(name))


class Handle:
    """The open directory of one container."""

    __slots__ = ("_staged", "fd", "id", "path", "root")

    def __init__(self, root: str, container_id: str, fd: int) -> None:
        self.root = root
        self.id = container_id
        self.path = f"{root}/{container_id}"
        self._staged: tuple[str, bytes] | None = None
        self.fd = fd

    def lock(self, *, wait: bool = True) -> bool:
        """Take the container's lock; False when somebody holds it (wait=False) or the directory is gone."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return self.exists()

    def unlock(self) -> None:
        """Let others have the lock; the directory stays open."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def exists(self) -> bool:
        """Whether this directory is still the one of that name."""
        try:
            status = posix.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        mine = posix.fstat(self.fd)
        return (status.st_dev, status.st_ino) == (mine.st_dev, mine.st_ino)

    def close(self) -> None:
        """Give up the lock and the descriptor; harmless when done already."""
        if self.fd >= 0:
            posix.close(self.fd)
            self.fd = -1

    def place(self, name: str) -> str:
        """A path to a file of this directory, short enough for a socket's address."""
        return f"/proc/self/fd/{self.fd}/{name}"

    def has(self, name: str) -> bool:
        """Whether a file of that name is there."""
        try:
            posix.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """A file's content. Raises RtError when it is no plain file of ours, FileNotFoundError if missing."""
        flags = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
        fd = posix.open(name, flags, dir_fd=self.fd)
        try:
            status = posix.fstat(fd)
            if (
                not stat.S_ISREG(status.st_mode)
                or status.st_uid != posix.geteuid()
                or status.st_mode & 0o022
                or status.st_size > _MAX_STATE
            ):
                raise RtError(
                    f"{self.path}/{name} is not a file that rt wrote",
                    hint=f"remove the container: rt delete --force {self.id}",
                )
            parts = []
            while part := posix.read(fd, 1 << 20):
                parts.append(part)
            return b"".join(parts)
        finally:
            posix.close(fd)

    def write(self, name: str, data: bytes, *, staged: bool = False) -> None:
        """Replace a file in one step. Raises RtError (a full disk, for example).

        With `staged` the new one is laid ready only; the next `write` of the same data needs no more than
        to give it its name.
        """
        temporary = f".{name}.{posix.getpid()}"
        try:
            if self._staged == (name, data):
                self._staged = None
                posix.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
                return
            self._staged = None
            flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_CLOEXEC
            fd = posix.open(temporary, flags, 0o600, dir_fd=self.fd)
            try:
                view = memoryview(data)
                while view:
                    view = view[posix.write(fd, view) :]
            finally:
                posix.close(fd)
            if staged:
                self._staged = (name, data)
                return
            posix.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            try:
                posix.unlink(temporary, dir_fd=self.fd)
            except OSError:
                pass
            raise _cannot("write", f"{self.path}/{name}", error) from None

    def unlink(self, name: str) -> None:
        """Remove a file; fine when it is gone."""
        try:
            posix.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            pass

    def read_state(self) -> dict[str, Any]:
        """state.json as a dict. Raises RtError when it is missing, torn or not ours."""
        broken = f"remove the container: rt delete --force {self.id}"
        try:
            state = parse(self.read(STATE), STATE)
        except FileNotFoundError:
            if not self.exists():
                raise missing(self.id) from None
            raise RtError(f"{self.path} has no {STATE}: it was never finished", hint=broken) from None
        except RtError as error:
            raise RtError(f"{self.path}: {error.message}", hint=broken) from None
        except OSError as error:
            raise RtError(
                f"cannot read {self.path}/{STATE}: {posix.strerror(error.errno or 0).lower()}", hint=broken
            ) from None
        wrong = wrong_field(state)
        if wrong is None and isinstance(state, dict) and state["id"] == self.id:
            return state
        raise RtError(f"{self.path}/{STATE} is damaged: {wrong or 'id'}", hint=broken)

    def salvage_state(self) -> dict[str, Any]:
        """What can be believed of a damaged state.json; see `record.salvage`."""
        try:
            state = parse(self.read(STATE), STATE)
        except (OSError, RtError):
            state = None
        return salvage(state, self.id)

    def write_state(self, state: dict[str, Any], *, shortcut: bool = True) -> None:
        """Replace state.json and, unless told not to, the launcher's record of it. Raises RtError."""
        self.write(STATE, _encoded(state))
        if shortcut and state["phase"] == "created":
            try:
                self._write_shortcut(state)
            except (OSError, RtError):
                pass  # the one of before is void now, and without one all goes the long way

    def stage_state(self, state: dict[str, Any]) -> None:
        """Lay state.json ready for a `write_state` of the same. Raises RtError."""
        self.write(STATE, _encoded(state), staged=True)

    def _write_shortcut(self, state: dict[str, Any]) -> None:
        from rootless_rt.container.shortcut import NAME, compiled

        record = compiled(state, posix.stat(STATE, dir_fd=self.fd, follow_symlinks=False))
        self.unlink(NAME)
        if record is None:
            return
        # Not by way of a temporary name, which costs as much again: one that is not whole counts as none.
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
        fd = posix.open(NAME, flags, 0o600, dir_fd=self.fd)
        try:
            posix.write(fd, record)
        finally:
            posix.close(fd)

    def remove(self) -> None:
        """Remove the directory with everything in it; links are removed, never followed."""
        try:
            for name in posix.listdir(self.fd):
                try:
                    posix.unlink(name, dir_fd=self.fd)
                except IsADirectoryError:
                    self._remove_tree(name)
                except FileNotFoundError:
                    pass
            if self.exists():
                posix.rmdir(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _cannot("remove", self.path, error) from None

    def _remove_tree(self, name: str) -> None:
        import shutil

        shutil.rmtree(name, dir_fd=self.fd)


def _encoded(state: dict[str, Any]) -> bytes:
    return dumps(state).encode("utf-8", "surrogateescape")


def _cannot(verb: str, path: str, error: OSError) -> RtError:
    hints = {
        errno.EROFS: "name a writable directory with --root",
        errno.EACCES: "name a directory of your own with --root",
        errno.ENOSPC: "make room there, or name another place with --root",
        errno.EDQUOT: "make room there, or name another place with --root",
    }
    reason = posix.strerror(error.errno or 0).lower()
    return RtError(f"cannot {verb} {path}: {reason}", hint=hints.get(error.errno or 0))
