"""From a bundle directory to a checked Spec.

Knows where config.json is and in which order it is checked: syntax (`jsonio`), types (`schema`), meaning
(`rules`). Fills in nothing and decides nothing: what is absent stays absent, defaults are the plan's
business.
"""

from __future__ import annotations

import posix

from rootless_rt.errors import RtError, SpecError
from rootless_rt.spec import jsonio, names, rules, schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONFIG_NAME = "config.json"
MOST_BYTES = 16 << 20  # of a JSON file that describes a container: an engine's has some 30 kB

_TYPE_MASK, _DIRECTORY, _SYMLINK = 0o170000, 0o040000, 0o120000  # of st_mode, inode(7)


class Spec:
    """A config.json that passed every check, and the bundle it belongs to.

    bundle  absolute real path of the bundle directory
    data    the parsed document: fields of `schema.CONFIG` have the right type, null ones are gone
    raw     the bytes that were parsed, for the snapshot of a created container
    rootfs  absolute path of root.path (relative ones start at the bundle)
    notes   (JSON path, text) of what was accepted although the runtime-spec discourages it
    changes what the document that was given asked for, and this one does not: the parts of a degradation
    """

    __slots__ = ("bundle", "changes", "data", "notes", "raw", "rootfs")

    def __init__(
        self, bundle: str, data: dict[str, Any], raw: bytes, rootfs: str, notes: tuple[tuple[str, str], ...]
    ) -> None:
        self.bundle = bundle
        self.data = data
        self.raw = raw
        self.rootfs = rootfs
        self.notes = notes
        self.changes: list[dict[str, str]] = []


def load(bundle: str, config_path: str | None = None) -> Spec:
    """Read and check the config of a bundle: `bundle`/config.json, or the file `config_path`.

    Raises RtError for a directory that is not a bundle, an unreadable file, wrong JSON or a missing rootfs,
    SpecError for a wrong value.
    """
    root = _real_directory(bundle)
    spec = from_bytes(_read_config(root, config_path), root)
    check_rootfs(spec.rootfs)
    return spec


def from_bytes(data: bytes, bundle: str) -> Spec:
    """Check a config.json given as bytes; `bundle` is the absolute path that root.path is relative to.

    Opens no file: the rootfs is not looked at. Raises as `load`.
    """
    config = checked(data, CONFIG_NAME, schema.CONFIG)
    _check_version(config["ociVersion"])
    notes = rules.check_config(config)
    path = config["root"]["path"]
    if not path:
        raise SpecError("root.path", "is empty")
    return Spec(bundle, config, data, _joined(bundle, path), notes)


def checked(data: bytes, what: str, table: schema.Node) -> dict[str, Any]:
    """Parse bytes and check the types of an object against a table of `schema`, such as PROCESS or RESOURCES.

    `what` names the document in syntax errors. Raises RtError and SpecError.
    """
    if len(data) > MOST_BYTES:
        raise RtError(f"{what} is larger than {MOST_BYTES >> 20} MiB")
    document: Any = jsonio.parse(data, what)
    # A UTF-8 document can only bring U+0000 and surrogates as these escapes.
    escapes = b"\\u0000" in data or b"\\ud" in data or b"\\uD" in data
    schema.check(document, table, escapes=escapes)
    found: dict[str, Any] = document
    return found


def _real_directory(bundle: str) -> str:
    """The path of the bundle without symbolic links, as the kernel knows it: `os` takes 1.5 ms to import."""
    try:
        fd = posix.open(bundle, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            return posix.readlink(f"/proc/self/fd/{fd}")
        finally:
            posix.close(fd)
    except (OSError, ValueError) as exc:
        raise _denied(RtError(f"bundle {jsonio.quote(bundle)}: {_reason(exc)}"), exc, bundle) from None


def _joined(bundle: str, path: str) -> str:
    """`path` as seen from `bundle`, with "." and ".." resolved by their text as runc does."""
    parts: list[str] = []
    for part in (path if path.startswith("/") else f"{bundle}/{path}").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _read_config(bundle: str, config_path: str | None) -> bytes:
    path = config_path if config_path is not None else f"{bundle}/{CONFIG_NAME}"
    try:
        # A bundle's may be a FIFO that nobody writes to; a file that was named may be a pipe with a writer.
        wait = posix.O_NONBLOCK if config_path is None else 0
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOCTTY | wait)
        try:
            chunks = []
            left = MOST_BYTES + 1  # a device may have no end
            while left > 0 and (chunk := posix.read(fd, 1 << 20)):
                chunks.append(chunk)
                left -= len(chunk)
        finally:
            posix.close(fd)
    except FileNotFoundError:
        if config_path is not None:
            raise RtError(f"config {jsonio.quote(path)}: no such file") from None
        raise RtError(
            f"{jsonio.quote(bundle)} is not a bundle: it has no {CONFIG_NAME}",
            hint="go to a bundle, name one with --bundle, or make a config here with: rt spec",
        ) from None
    except (OSError, ValueError) as exc:
        raise _denied(RtError(f"cannot read {jsonio.quote(path)}: {_reason(exc)}"), exc, path) from None
    return b"".join(chunks)


def _denied(error: RtError, cause: Exception, path: str) -> RtError:
    """The error, with the path for who can say which directory is closed."""
    if isinstance(cause, PermissionError):
        error.closed = path if path.startswith("/") else f"{posix.getcwd()}/{path}"
    return error


def check_rootfs(rootfs: str) -> None:
    """Raise SpecError unless the rootfs is a directory, and no link to one."""
    try:
        mode = posix.lstat(rootfs).st_mode & _TYPE_MASK
    except FileNotFoundError:
        raise SpecError(
            "root.path", f"{jsonio.quote(rootfs)} does not exist", hint="unpack the image's files there"
        ) from None
    except OSError as exc:
        error = SpecError("root.path", f"{jsonio.quote(rootfs)}: {_reason(exc)}")
        raise _denied(error, exc, rootfs) from None
    if mode == _SYMLINK:
        raise SpecError(
            "root.path", f"{jsonio.quote(rootfs)} is a symbolic link", hint="name the directory it points to"
        )
    if mode != _DIRECTORY:
        raise SpecError("root.path", f"{jsonio.quote(rootfs)} is not a directory")


def _check_version(version: str) -> None:
    """Accept every 1.x.y, with a semantic-versioning suffix or without."""
    release = version.split("+", 1)[0].split("-", 1)[0].split(".")
    numbers = [names.decimal(part) for part in release]
    if len(numbers) != 3 or None in numbers:
        raise SpecError("ociVersion", f"{jsonio.quote(version)} is not a version such as 1.3.0")
    if numbers[0] != 1:
        raise SpecError(
            "ociVersion", f"{jsonio.quote(version)} is not supported", hint="rt runs versions 1.0.0 to 1.x"
        )


def _reason(exc: OSError | ValueError) -> str:
    """What went wrong with a file, without the path; ValueError is Python's word for a NUL in a path."""
    return (
        (exc.strerror or "unknown error").lower()
        if isinstance(exc, OSError)
        else "the path holds a NUL character"
    )
