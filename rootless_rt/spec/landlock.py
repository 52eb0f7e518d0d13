"""The annotation org.rootless-rt.landlock: which files of the container its processes may read and write.

Its value is JSON: {"ro": ["/"], "rw": ["/tmp", "/home"]}, absolute paths of the container. Below a path of
"ro" files may be read and executed, below one of "rw" also written, made, removed and renamed; what no path
names cannot be opened at all. Pure; whether the kernel can do it is not its question.
"""

from __future__ import annotations

from rootless_rt.errors import RtError, SpecError
from rootless_rt.spec.jsonio import parse, quote
from rootless_rt.spec.names import LANDLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIELD = f"annotations[{quote(LANDLOCK)}]"
_KINDS = ("ro", "rw")
_MOST_PATHS = 256
_PATH_MAX = 4096  # with the NUL at its end
_FORM = 'write it as {"ro": ["/"], "rw": ["/tmp"]}, with absolute paths of the container'


def landlock_of(config: dict[str, Any]) -> tuple[list[str], list[str]] | None:
    """(paths to read, paths to write) that a config's annotation asks for; None without the annotation.

    Raises SpecError for anything but the form above, and where no_new_privs is not asked for: the kernel
    takes rules only from a process that cannot gain privileges (landlock_restrict_self(2)).
    """
    text = config.get("annotations", {}).get(LANDLOCK)
    if text is None:
        return None
    try:
        found = parse(text.encode("utf-8", "surrogatepass"), "the value")
    except RtError as error:
        raise SpecError(FIELD, error.message, hint=_FORM) from None
    if not isinstance(found, dict) or not found or not set(found) <= set(_KINDS):
        raise SpecError(FIELD, f"expected an object of ro and rw, got {quote(text)}", hint=_FORM)
    paths = [_paths(found.get(kind, []), kind) for kind in _KINDS]
    if len(paths[0]) + len(paths[1]) > _MOST_PATHS:
        raise SpecError(FIELD, f"more than {_MOST_PATHS} paths")
    if not config.get("process", {}).get("noNewPrivileges"):
        raise SpecError(FIELD, "needs process.noNewPrivileges", hint="set process.noNewPrivileges to true")
    return paths[0], paths[1]


def _paths(listed: object, kind: str) -> list[str]:
    if not isinstance(listed, list):
        raise SpecError(FIELD, f"{kind}: expected a list of paths", hint=_FORM)
    for path in listed:
        if not isinstance(path, str) or not path.startswith("/"):
            shown = quote(path) if isinstance(path, str) else type(path).__name__
            raise SpecError(FIELD, f"{kind}: expected an absolute path, got {shown}", hint=_FORM)
        if "\0" in path or any("\ud800" <= char <= "\udfff" for char in path):
            raise SpecError(FIELD, f"{kind}: {quote(path)} holds a character that no path can have")
        if len(path.encode()) >= _PATH_MAX:
            raise SpecError(FIELD, f"{kind}: {quote(path)} is longer than a path can be")
    return listed
