"""The modules of the hot path in one file: a start reads it once, where it would look up and open sixty.

Importing a module from a directory costs Python some stats, an open and a check of the source's time; most
of the start was that. The file is `modules.TAG` beside the package's modules. TAG is the interpreter's cache
tag, since `marshal` is of one Python version. The build makes it:

    PYTHON rootless_rt/cli/archive.py TREE OUT [--checked]

The launcher's first line reads it, and executes the code of this very module, then `install` with the
entries. In a source tree (--checked) an entry counts only while its source has the size and time it had.
Otherwise, and for what is not inside, the import goes on as usual. Whoever can write the archive can write
the modules beside it: it is trusted as they are.
"""

import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

    # name -> (is a package, path below the site, size and mtime_ns of the source or None, marshalled code)
    Entries = dict[str, tuple[bool, str, tuple[int, int] | None, bytes]]

# Loaded by no hot command: they would only make the file longer.
COLD = {
    "rootless_rt._commit",  # another build step writes it
    "rootless_rt.api",  # and all below it
    "rootless_rt.cgroups.below",
    "rootless_rt.cgroups.bus",
    "rootless_rt.cgroups.change",
    "rootless_rt.cgroups.merge",
    "rootless_rt.cgroups.oom",
    "rootless_rt.cgroups.properties",
    "rootless_rt.cgroups.resctrl",
    "rootless_rt.cgroups.resctrl_stats",
    "rootless_rt.cgroups.stats",
    "rootless_rt.cgroups.systemd",
    "rootless_rt.cli.app",
    "rootless_rt.cli.archive",
    "rootless_rt.cli.cmd_chown",
    "rootless_rt.cli.cmd_completion",
    "rootless_rt.cli.cmd_cp",
    "rootless_rt.cli.cmd_events",
    "rootless_rt.cli.cmd_features",
    "rootless_rt.cli.cmd_lint",
    "rootless_rt.cli.cmd_pause",
    "rootless_rt.cli.cmd_plan",
    "rootless_rt.cli.cmd_ps",
    "rootless_rt.cli.cmd_resume",
    "rootless_rt.cli.cmd_rm",
    "rootless_rt.cli.cmd_spec",
    "rootless_rt.cli.cmd_unshare",
    "rootless_rt.cli.cmd_update",
    "rootless_rt.cli.completion",
    "rootless_rt.cli.each",
    "rootless_rt.cli.own_files",
    "rootless_rt.cli.purge",
    "rootless_rt.container.events",
    "rootless_rt.container.holder",
    "rootless_rt.container.members",
    "rootless_rt.container.network",
    "rootless_rt.container.notify",
    "rootless_rt.container.notify_seccomp",
    "rootless_rt.container.outside",
    "rootless_rt.container.pause",
    "rootless_rt.container.remap",
    "rootless_rt.container.report",
    "rootless_rt.container.tuning",
    "rootless_rt.container.unshare",
    "rootless_rt.container.update",
    "rootless_rt.host.abilities",
    "rootless_rt.host.doctor",  # and all below it
    "rootless_rt.host.idmaps",
    "rootless_rt.host.proctable",
    "rootless_rt.host.rootfs",
    "rootless_rt.host.seccomp_compile",
    "rootless_rt.host.seccomp_enosys",
    "rootless_rt.host.top",
    "rootless_rt.host.userns",
    "rootless_rt.net.devices",
    "rootless_rt.net.user_mode",
    "rootless_rt.plan.idmapped",
    "rootless_rt.plan.landlock",
    "rootless_rt.plan.notify",
    "rootless_rt.plan.outside",
    "rootless_rt.plan.tuning",
    "rootless_rt.spec.amounts",
    "rootless_rt.spec.defaults",
    "rootless_rt.spec.features",
    "rootless_rt.spec.idmaps",
    "rootless_rt.spec.hardened",
    "rootless_rt.spec.hardened_calls",
    "rootless_rt.spec.landlock",
    "rootless_rt.spec.lint",
    "rootless_rt.spec.lint_linux",
    "rootless_rt.spec.lint_model",
    "rootless_rt.spec.lint_mounts",
    "rootless_rt.spec.lint_paths",
    "rootless_rt.spec.lint_process",
    "rootless_rt.spec.outside",
    "rootless_rt.spec.tuning",
    "rootless_rt.cli.cmd_doctor",
    "rootless_rt.cli.cmd_explain",
    "rootless_rt.cgroups.checkup",
    "rootless_rt.container.checkup",
    "idmap.auto",
    "idmap.diagnose",
    "idmap.evidence",
}


class ArchiveImporter:
    """Finds and executes the modules of an archive (importlib's meta path finder and loader)."""

    def __init__(self, site: str, entries: "Entries") -> None:
        self.site = site
        self.entries = entries

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The spec of a module in the archive whose source has not changed since."""
        entry = self.entries.get(name)
        if entry is None:
            return None
        package, relative, stamp, _ = entry
        origin = self.site + "/" + relative
        if stamp is not None:
            try:
                status = posix.stat(origin)
            except OSError:
                return None
            if (status.st_size, status.st_mtime_ns) != stamp:
                return None
        spec = ModuleSpec(name, self, origin=origin, is_package=package)  # type: ignore[arg-type]
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [origin.rpartition("/")[0]]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Modules are made as usual."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run the module's code in it."""
        code: CodeType = marshal.loads(self.entries[module.__name__][3])
        exec(code, module.__dict__)  # noqa: S102


def install(site: str, entries: "Entries") -> None:
    """Have imports look into the archive first; `site` is the directory that holds the package."""
    sys.meta_path.insert(0, ArchiveImporter(site, entries))


def build(tree: str, out: str, checked: bool) -> None:
    """Write the archive of the packages below `tree` to the file `out`."""
    entries: Entries = {}
    for package in ("rootless_rt", "idmap"):
        _collect(tree, package, entries, checked)
    with open(__file__, "rb") as file:
        own = compile(file.read(), "rootless_rt/cli/archive.py", "exec", dont_inherit=True)
    with open(out + ".new", "wb") as file:
        file.write(marshal.dumps((own, entries)))
    posix.rename(out + ".new", out)


def _collect(tree: str, relative: str, entries: "Entries", checked: bool) -> None:
    for name in sorted(posix.listdir(f"{tree}/{relative}")):
        path = f"{relative}/{name}"
        package = name == "__init__.py"
        module = (relative if package else path.removesuffix(".py")).replace("/", ".")
        if name.endswith(".py") and module not in COLD:
            status = posix.stat(f"{tree}/{path}")
            with open(f"{tree}/{path}", "rb") as file:
                source = file.read()
            # Without docstrings, which nobody reads there (optimize=2).
            code = compile(source, path, "exec", dont_inherit=True, optimize=2)
            stamp = (status.st_size, status.st_mtime_ns) if checked else None
            entries[module] = (package, path, stamp, marshal.dumps(code))
        elif "." not in name and name != "__pycache__" and path.replace("/", ".") not in COLD:
            _collect(tree, path, entries, checked)


if __name__ == "__main__":
    build(sys.argv[1], sys.argv[2], "--checked" in sys.argv[3:])
