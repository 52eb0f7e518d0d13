"""Checks of the session: directories, environment, and the Python that runs rt."""

from __future__ import annotations

import os
import sys

from idmap.userns import is_foreign
from rootless_rt.host.doctor.access import Who, denied, steps
from rootless_rt.host.doctor.fixes import install, quote
from rootless_rt.host.doctor.model import Me, Trouble
from rootless_rt.host.doctor.system import mount_of, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.host.doctor.access import Step
    from rootless_rt.host.doctor.model import Check

_LOW = 1 << 20  # bytes: a container's state is some 20 kB


class SessionEvidence:
    """runtime: $XDG_RUNTIME_DIR or "". runtime_owner, runtime_mode: of it, -1 when it is not there.
    runtime_free: bytes. runtime_flags: of its mount. usual: whether /run/user/UID is there. systemd: whether
    systemd runs this system. linger: of the user. home: the directories from / to $HOME. bus: the user bus
    or None. client: whether Python has jeepney. locale: its name. python: (major, minor). writable: what of
    the interpreter and rt others can write."""

    __slots__ = (
        "bus", "client", "home", "linger", "locale", "python", "runtime", "runtime_flags", "runtime_free",
        "runtime_mode", "runtime_owner", "systemd", "usual", "writable",
    )  # fmt: skip

    def __init__(self) -> None:
        self.runtime = "/run/user/1000"
        self.runtime_owner = 1000
        self.runtime_mode = 0o700
        self.runtime_free = 1 << 30
        self.runtime_flags: frozenset[str] = frozenset()
        self.usual = True
        self.systemd = True
        self.linger = True
        self.home: list[Step] = []
        self.bus: str | None = "/run/user/1000/bus"
        self.client = True
        self.locale = "C.UTF-8"
        self.python = (3, 11)
        self.writable: list[str] = []


def gather(root: str, me: Me, bus: str | None) -> SessionEvidence:
    """Look at the session; the bus is found by who knows buses."""
    found = SessionEvidence()
    found.bus = bus
    found.client = has_package("jeepney")
    environ = me.environ
    found.runtime = environ.get("XDG_RUNTIME_DIR", "")
    found.runtime_owner, found.runtime_mode = -1, 0
    if found.runtime.startswith("/"):
        try:
            status = os.stat(root + found.runtime)
            room = os.statvfs(root + found.runtime)
        except OSError:
            pass
        else:
            found.runtime_owner, found.runtime_mode = status.st_uid, status.st_mode & 0o7777
            found.runtime_free = room.f_bavail * room.f_frsize
            mount = mount_of(os.path.realpath(found.runtime), mounts(root))
            found.runtime_flags = mount.flags if mount else frozenset()
    found.usual = os.path.isdir(f"{root}/run/user/{me.uid}")
    found.systemd = os.path.isdir(root + "/run/systemd/system")
    found.linger = os.path.exists(f"{root}/var/lib/systemd/linger/{me.who}")
    found.home = steps(environ.get("HOME", ""), root)
    found.locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    found.python = sys.version_info[:2]
    if not root:
        here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        found.writable = _writable([os.path.realpath(sys.executable), here], me)
    return found


def has_package(package: str) -> bool:
    """Whether Python would find a package; it is not imported."""
    from importlib.util import find_spec

    return find_spec(package) is not None


def _writable(places: list[str], me: Me) -> list[str]:
    """Which of the places, or of the directories above them, another user than root or the caller can write.

    A directory with the sticky bit keeps what others own in it."""
    found = []
    for place in places:
        for step in steps(place, ""):
            others = bool(step.mode & 0o002 and not step.mode & 0o1000)
            if step.uid not in (0, me.euid) and not is_foreign(step.uid):
                others = True
            if others and step.path not in found:
                found.append(step.path)
    return found


def check_runtime(found: SessionEvidence, me: Me) -> Trouble | str:
    """Where state is kept."""
    usual = f"/run/user/{me.uid}"
    instead = usual if found.usual else "a directory of your home"
    if me.privileged:
        return "root's state is in /run/rt"
    if not found.runtime:
        if found.usual:
            return f"not set; rt takes {usual}"
        why, fix = f"not set, and there is no {usual}: rt takes {instead}, which outlives a reboot", ""
    elif found.runtime_owner == -1:
        why, fix = f"{found.runtime} cannot be seen: rt takes {instead}", ""
    elif found.runtime_owner != me.euid:
        why, fix = f"{found.runtime} belongs to uid {found.runtime_owner}, not to you: rt takes {instead}", ""
    elif found.runtime_mode & 0o022:
        mode = f"{found.runtime_mode:04o}"
        why, fix = f"others can write to {found.runtime} (mode {mode})", f"chmod 700 {quote(found.runtime)}"
    elif found.runtime_free < _LOW:
        why, fix = f"{found.runtime} is full", f"see what is there: du -sh {quote(found.runtime)}/*"
    else:
        noexec = "noexec, which rt does not mind" if "noexec" in found.runtime_flags else ""
        return ", ".join(part for part in (found.runtime, noexec) if part)
    commands: list[str] = []
    if not fix and found.usual:
        fix = f"export XDG_RUNTIME_DIR={usual}"
    elif not fix and found.systemd:
        commands = [f"loginctl enable-linger {quote(me.who)}"]
        fix = f"sudo {commands[0]}; export XDG_RUNTIME_DIR={usual}"
    elif not fix:
        commands = [f"install -d -m 700 -o {me.uid} {usual}"]
        fix = f"sudo {commands[0]}; export XDG_RUNTIME_DIR={usual}"
    return Trouble(why, fix, commands)


def check_bus(found: SessionEvidence, me: Me) -> Trouble | str:
    """The way to a cgroup with limits."""
    if me.privileged:
        return "not needed by root"
    if found.bus:
        return found.bus
    if not found.systemd:
        return "no systemd here"
    if not found.usual:
        line = f"loginctl enable-linger {quote(me.who)}"
        return Trouble(
            f"no user manager runs for you: there is no /run/user/{me.uid}, so that limits cannot be set",
            f"sudo {line}; or log in by ssh or `machinectl shell {me.who}@`, not by su",
            (line,),
        )
    fix, commands = install("user bus", me.manager)
    return Trouble(f"/run/user/{me.uid}/bus is missing: limits cannot be set", fix, commands)


def check_client(found: SessionEvidence, me: Me) -> Trouble | str:
    """jeepney, where there is a systemd to speak to."""
    if found.client:
        return "jeepney"
    if not found.systemd:
        return "not installed, and no systemd here"
    fix, commands = install("jeepney", me.manager)
    return Trouble("jeepney is not installed: rt cannot ask systemd for a cgroup", fix, commands)


def check_linger(found: SessionEvidence, me: Me) -> Trouble | str | None:
    """What becomes of containers at logout."""
    if me.privileged or not found.systemd:
        return "not needed by root" if me.privileged else "no systemd here"
    if found.linger:
        return "on"
    line = f"loginctl enable-linger {quote(me.who)}"
    return Trouble("off: containers and their state end with your last logout", line, (line,))


def check_home(found: SessionEvidence, me: Me) -> Trouble | str:
    """What the caller can reach."""
    if not found.home:
        return "HOME is not set"
    mine = denied(found.home, Who(me.euid, me.groups, powerful=me.privileged))
    if mine is not None:
        return Trouble(
            f"{mine.shown()} is closed to you", f"have its owner do: setfacl -m u:{me.uid}:x {mine.path}"
        )
    return "open"


def check_path(found: SessionEvidence, me: Me) -> Trouble | str:
    """PATH and locale."""
    path = me.environ.get("PATH", "")
    odd = [entry for entry in path.split(":") if not entry.startswith("/")]
    if not path:
        return "PATH is not set; rt looks in /usr/bin, /bin, /usr/sbin, /sbin"
    if odd:
        shown = repr(odd[0]) if odd[0] else "an empty one"
        return Trouble(
            f"PATH has entries that depend on the working directory: {shown}", "export PATH without them"
        )
    utf8 = "utf-8" in found.locale.lower() or "utf8" in found.locale.lower()
    return "locale " + (found.locale or "not set") + ("" if utf8 else ": names in other scripts are escaped")


def check_python(found: SessionEvidence, me: Me) -> Trouble | str:
    """The interpreter."""
    version = ".".join(map(str, found.python))
    if found.python < (3, 11):
        return Trouble(f"Python {version} is older than 3.11", "install Python 3.11 or newer")
    if found.writable:
        path = found.writable[0]
        return Trouble(
            f"others than you and root can change {path}, from which rt runs",
            f"sudo chown root {quote(path)} && sudo chmod o-w {quote(path)}, or install rt elsewhere",
            status="degraded",
            details=found.writable[1:],
        )
    return f"Python {version}"


CHECKS: tuple[Check, ...] = (
    ("RT-SYSTEMD-BUS", check_bus),
    ("RT-SYSTEMD-CLIENT", check_client),
    ("RT-SYSTEMD-LINGER", check_linger),
    ("RT-SESSION-RUNTIME-DIR", check_runtime),
    ("RT-SESSION-HOME", check_home),
    ("RT-SESSION-PATH", check_path),
    ("RT-PYTHON", check_python),
)
