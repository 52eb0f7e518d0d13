"""Seccomp filters of a container, from a cache when one can be trusted.

Knows: how a compiled filter is kept on disk, and whom to believe about it. A cached filter decides what the
container may call, so whoever can write it can switch it off: only a directory and a file of our own, that
nobody else can write, are read. Anything odd about them means: compile again.
Must not know: BPF and libseccomp (`seccomp_compile`, loaded only when the cache has no answer), or how a
filter is loaded.
"""

from __future__ import annotations

import posix
import sys
from _blake2 import blake2b

from rootless_rt.host.cache import open_directory, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FOLDER = "seccomp"
"""Of the cache; see `cache.default_cache_dir`."""

# Part of every key. Raise it with every change of seccomp_compile.py that can change a program, its flags or
# warnings: filters of an older compiler are then no longer found.
COMPILER_VERSION = 2

INSTRUCTION_SIZE = 8  # bytes of a struct sock_filter
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS: the kernel refuses longer programs

_MAGIC = b"rtbpf\x002\n"
_SUM_SIZE = 32
_HEADER_SIZE = len(_MAGIC) + _SUM_SIZE + 4 + 4  # …, then flags and instruction count, little endian
_MAX_FILE = _HEADER_SIZE + MAX_INSTRUCTIONS * INSTRUCTION_SIZE + 65536
_MAX_ENTRIES = 128
NEW_LISTENER = 8  # SECCOMP_FILTER_FLAG_NEW_LISTENER


class SeccompFilter:
    """A filter ready for seccomp(2).

    `program` is an array of `struct sock_filter` in native byte order; `flags` are SECCOMP_FILTER_FLAG_*
    bits; `instructions` its length; `cached` tells whether it came from the cache; `warnings` say, a line
    each, what is less strict than the profile, and why a cache was not used; `notes`, what of the profile has
    no effect here and is as strict without (unknown system calls, architectures of other machines).
    """

    __slots__ = ("cached", "flags", "instructions", "notes", "program", "warnings")

    def __init__(
        self, program: bytes, flags: int, *, cached: bool, warnings: list[str], notes: list[str] | None = None
    ) -> None:
        self.notes = notes or []
        self.program = program
        self.flags = flags
        self.instructions = len(program) // INSTRUCTION_SIZE
        self.cached = cached
        self.warnings = warnings

    @property
    def notifies(self) -> bool:
        """Whether loading it makes a listener, which an agent must be given."""
        return bool(self.flags & NEW_LISTENER)


def filter_for(profile: Mapping[str, Any], *, cache_dir: str | None) -> SeccompFilter:
    """The filter of `profile`, the checked `linux.seccomp` object of config.json.

    Looked up in `cache_dir` first, compiled and stored there otherwise; without a directory, without a
    libseccomp whose identity can be told, or with a directory that is not safe, compiled each time. Raises
    what `seccomp_compile.compile` raises; never because of the cache.
    """
    library = library_file() if cache_dir is not None else None
    if cache_dir is None or library is None:
        return _compiled(profile)
    try:
        key = _key(profile, library)
    except OSError:  # the library is being replaced under our feet
        return _compiled(profile)
    directory, complaint = open_directory(cache_dir)
    if directory < 0:
        fresh = _compiled(profile)
        if complaint:
            fresh.warnings.append(f"seccomp: {complaint}")
        return fresh
    try:
        found = _read(directory, key)
        if found is None:
            found = _compiled(profile)
            _write(directory, key, found)
        return found
    finally:
        posix.close(directory)


def library_file() -> str | None:
    """The path of libseccomp.so.2 in the system's library directories, or None; it is not loaded.

    LD_LIBRARY_PATH is left out on purpose: the environment has no say in what compiles a filter.
    """
    triplet = getattr(sys.implementation, "_multiarch", "")
    places = [f"/usr/lib/{triplet}", f"/lib/{triplet}"] if triplet else []
    if sys.maxsize > 1 << 32:
        places += ["/usr/lib64", "/lib64"]
    for place in (*places, "/usr/lib", "/lib", "/usr/local/lib"):
        path = place + "/libseccomp.so.2"
        try:
            posix.stat(path)
        except OSError:
            continue
        return path
    return None


def _compiled(profile: Mapping[str, Any]) -> SeccompFilter:
    from rootless_rt.host import seccomp_compile

    program, flags, warnings, notes = seccomp_compile.compile(profile)
    return SeccompFilter(program, flags, cached=False, warnings=warnings, notes=notes)


def _key(profile: Mapping[str, Any], library: str) -> str:
    """The file name of a filter: a hash of all that decides its bytes.

    repr() of parsed JSON is exact (no two different documents have the same) and takes some 50 µs for
    Docker's profile. The kernel release belongs to it because libseccomp asks the kernel which actions and
    flags it knows.
    """
    status = posix.stat(library)
    kernel = posix.uname()
    identity = (
        COMPILER_VERSION,
        _target(library),
        status.st_size,
        status.st_mtime_ns,
        status.st_ino,
        kernel.machine,
        kernel.release,
    )
    return blake2b(repr((identity, profile)).encode(), digest_size=_SUM_SIZE).hexdigest()


def _target(path: str) -> str:
    """What a link says, or the path itself: the name of the library's real file tells its version."""
    try:
        return posix.readlink(path)
    except OSError:
        return path


def _read(directory: int, key: str) -> SeccompFilter | None:
    """The stored filter, or None for every reason not to take it."""
    try:
        # O_NONBLOCK: a FIFO in the place of the file must not hold us.
        flags = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
        fd = posix.open(key, flags, dir_fd=directory)
    except OSError:
        return None
    try:
        status = posix.fstat(fd)
        regular = status.st_mode & 0o170000 == 0o100000
        if not regular or status.st_uid != posix.geteuid() or status.st_mode & 0o022:
            return None
        if not _HEADER_SIZE < status.st_size <= _MAX_FILE:
            return None
        return _decode(posix.read(fd, status.st_size), key)
    except OSError:
        return None
    finally:
        posix.close(fd)


def _decode(data: bytes, key: str) -> SeccompFilter | None:
    body = data[len(_MAGIC) + _SUM_SIZE :]
    if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : -len(body)] != _checksum(key, body):
        return None
    end = 8 + int.from_bytes(body[4:8], "little") * INSTRUCTION_SIZE
    warnings, _, notes = body[end:].decode().partition("\0")
    return SeccompFilter(
        body[8:end],
        int.from_bytes(body[:4], "little"),
        cached=True,
        warnings=warnings.split("\n") if warnings else [],
        notes=notes.split("\n") if notes else [],
    )


def _encode(result: SeccompFilter, key: str) -> bytes:
    body = b"".join(
        (
            result.flags.to_bytes(4, "little"),
            result.instructions.to_bytes(4, "little"),
            result.program,
            "\n".join(result.warnings).encode() + b"\0" + "\n".join(result.notes).encode(),
        )
    )
    return _MAGIC + _checksum(key, body) + body


def _checksum(key: str, body: bytes) -> bytes:
    """Over the key too, so that a file under another's name is as broken as a torn one."""
    return blake2b(key.encode() + body, digest_size=_SUM_SIZE).digest()


def _write(directory: int, key: str, result: SeccompFilter) -> None:
    """Stores a filter whole or not at all; a cache that cannot be written is no error."""
    data = _encode(result, key)
    if len(data) > _MAX_FILE:
        return
    try:
        _prune(directory)
    except OSError:
        return
    store(directory, key, data)


def _prune(directory: int) -> None:
    """Keeps the directory small: new kernels, libraries and profiles leave old filters behind."""
    names = posix.listdir(directory)
    if len(names) < _MAX_ENTRIES:
        return

    def age(name: str) -> int:
        return posix.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns

    for name in sorted(names, key=age)[: len(names) // 2]:
        posix.unlink(name, dir_fd=directory)
