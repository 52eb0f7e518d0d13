"""The modules of the hot path in one file: a start reads a piece of it, where it would open sixty files.

Importing a module from a directory costs Python some stats, an open and a check of the source's time, and the
steps of importlib; most of the start was that. The file is `modules.TAG` beside the package's modules. TAG is
the interpreter's cache tag, since `marshal` is of one Python version. The build writes it (tools/archive.py):

    4 bytes, little-endian   size of the head
    head                     marshalled: (code of this module, sets, where the entries are)
    the rest                 pieces; each is found by its offset from the end of the head

A *set* is what one command always needs: a piece with a list of modules in the order of their import, which
are executed without importlib. Which set it is, is guessed from the command line; a wrong guess costs time,
no more. An *entry* is a single module, for all that is loaded only at times.

The launcher's first lines read the head and execute the code of this very module, then `install`. In a
source tree a module counts only while its source has the size and time it had. Otherwise, and for what is not
inside, the import goes on as usual. Whoever can write the archive can write the modules beside it: it is
trusted as they are.
"""

import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

    Place = tuple[int, int]  # offset and size
    Stamp = tuple[int, int] | None  # size and mtime_ns of the source; None where it is not to be looked at
    Entries = dict[str, tuple[bool, str, Stamp, Place]]  # name: is it a package, path below the site
    Module = tuple[str, bool, str, Stamp, CodeType]


class ArchiveImporter:
    """Finds and executes the modules of an archive (importlib's meta path finder and loader)."""

    def __init__(self, site: str, path: str, base: int, status: posix.stat_result, entries: "Place") -> None:
        self.site = site
        self.path = path
        self.base = base
        self.status = status
        self._place = entries
        self._entries: Entries | None = None

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The spec of a module in the archive whose source has not changed since."""
        if name.partition(".")[0] not in ("rootless_rt", "idmap"):
            return None
        if self._entries is None:
            self._entries = self._reread(self._place) or {}
        if name not in self._entries:
            return None
        package, relative, stamp, place = self._entries[name]
        code = self._reread(place) if self.is_fresh(relative, stamp) else None
        if code is None:
            return None
        spec = self.spec(name, package, relative)
        spec.loader_state = code
        return spec

    def spec(self, name: str, package: bool, relative: str) -> ModuleSpec:
        """The spec of a module at a path below the site."""
        origin = self.site + "/" + relative
        spec = ModuleSpec(name, self, origin=origin, is_package=package)  # type: ignore[arg-type]
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [origin.rpartition("/")[0]]
        return spec

    def is_fresh(self, relative: str, stamp: "Stamp") -> bool:
        """Whether the source is what it was when the archive was built."""
        if stamp is None:
            return True
        try:
            status = posix.stat(self.site + "/" + relative)
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == stamp

    def _reread(self, place: "Place") -> "Any":
        """What is stored at a place; None when it cannot be had: the archive may be another one by now."""
        try:
            fd = posix.open(self.path, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            return None
        try:
            now, then = posix.fstat(fd), self.status
            if (now.st_ino, now.st_size, now.st_mtime_ns) != (then.st_ino, then.st_size, then.st_mtime_ns):
                return None
            return _piece(fd, self.base, place)
        finally:
            posix.close(fd)

    def create_module(self, spec: ModuleSpec) -> None:
        """Modules are made as usual."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run the module's code in it."""
        spec = module.__spec__
        assert spec is not None
        exec(spec.loader_state, module.__dict__)  # noqa: S102
        spec.loader_state = None

    def load(self, modules: "list[Module]") -> None:
        """Import the modules of a piece, as importlib would, as long as their sources have not changed."""
        loaded = sys.modules
        kind = type(sys)
        for name, package, relative, stamp, code in modules:
            if name in loaded:
                continue
            if not self.is_fresh(relative, stamp):
                return
            module = kind(name)
            spec = self.spec(name, package, relative)
            parent, _, own_name = name.rpartition(".")
            module.__spec__ = spec
            module.__loader__ = self  # type: ignore[assignment]
            module.__file__ = spec.origin
            module.__package__ = name if package else parent
            if package:
                assert spec.submodule_search_locations is not None
                module.__path__ = spec.submodule_search_locations
            loaded[name] = module
            exec(code, module.__dict__)  # noqa: S102
            if parent:
                setattr(loaded[parent], own_name, module)


def install(
    site: str,
    path: str,
    fd: int,
    base: int,
    sets: "dict[str, Place]",
    entries: "Place",
    argv: list[str],
) -> None:
    """Have imports look into the archive first, and import at once what the command line is going to need.

    site: the directory that holds the package.  path, fd: of the archive; the descriptor is closed.  base:
    where its head ends.  argv: the words of the command line. With --debug nothing is imported at once: the
    modules of the sets have no line numbers, and an error's traceback is to have them. And so it is under
    -X importtime, which would not see them.
    """
    importer = ArchiveImporter(site, path, base, posix.fstat(fd), entries)
    sys.meta_path.insert(0, importer)
    for word in argv:
        if word == "--debug" or "importtime" in sys._xoptions:
            break
        if word in sets:
            importer.load(_piece(fd, base, sets[word]) or [])
            break
    posix.close(fd)


def _piece(fd: int, base: int, place: "Place") -> "Any":
    """What is stored at a place, or None for a damaged file."""
    try:
        return marshal.loads(posix.pread(fd, place[1], base + place[0]))
    except (OSError, ValueError, EOFError, TypeError):
        return None
