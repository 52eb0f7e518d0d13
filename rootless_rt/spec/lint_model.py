"""What the rules of `lint` look at, and what they say."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

HIGH, MEDIUM, LOW, INFO = LEVELS = ("high", "medium", "low", "info")


class Hit:
    """One place where a rule applies: its JSON path and what is there, in a few words without secrets.

    `severity`, `why` and `fix` are those of the rule unless given.
    """

    __slots__ = ("fix", "path", "severity", "what", "why")

    def __init__(self, path: str, what: str, severity: str = "", why: str = "", fix: str = "") -> None:
        self.path = path
        self.what = what
        self.severity = severity
        self.why = why
        self.fix = fix


class Finding:
    """A hit with the id of its rule and all texts."""

    __slots__ = ("fix", "path", "rule", "severity", "what", "why")

    def __init__(self, rule: str, severity: str, path: str, what: str, why: str, fix: str) -> None:
        self.rule = rule
        self.severity = severity
        self.path = path
        self.what = what
        self.why = why
        self.fix = fix

    def as_dict(self) -> dict[str, str]:
        """As `rt lint --format json` prints it."""
        return {
            "id": self.rule,
            **{key: getattr(self, key) for key in ("severity", "path", "what", "why", "fix")},
        }


class Place:
    """What the host says of a file that counts: the config itself, or what root.path names.

    `kind` is "config" or "root", `link` whether the last part of its path is a symbolic link, `mode` that of
    stat(2), and `trusted` whether its owner is root or the caller.
    """

    __slots__ = ("kind", "link", "mode", "name", "trusted")

    def __init__(self, kind: str, name: str, *, link: bool, mode: int, trusted: bool) -> None:
        self.kind = kind
        self.name = name
        self.link = link
        self.mode = mode
        self.trusted = trusted


class View:
    """A config with what many rules ask of it.

    capabilities   name -> JSON path of the first set that has it
    """

    __slots__ = ("capabilities", "config", "linux", "namespaces", "places", "process")

    def __init__(self, config: dict[str, Any], places: Iterable[Place] = ()) -> None:
        self.config = config
        self.process: dict[str, Any] = config.get("process", {})
        self.linux: dict[str, Any] = config.get("linux", {})
        self.places = tuple(places)
        self.namespaces: dict[str, str] = {
            item["type"]: item.get("path", "") for item in self.linux.get("namespaces", [])
        }
        self.capabilities: dict[str, str] = {}
        for kind in ("effective", "permitted", "bounding", "ambient", "inheritable"):
            for index, name in enumerate(self.process.get("capabilities", {}).get(kind, [])):
                self.capabilities.setdefault(name, f"process.capabilities.{kind}[{index}]")

    def own(self, kind: str) -> bool:
        """Whether the container has a namespace of that type that is not the host's own."""
        return kind in self.namespaces and not _host_s(self.namespaces[kind])

    @property
    def in_userns(self) -> bool:
        """Whether its ids are others than the host's: the kernel then holds most privileges back."""
        return self.own("user")

    @property
    def is_root(self) -> bool:
        """Whether the program starts as uid 0 of the container."""
        uid: int = self.process.get("user", {}).get("uid", 0)
        return uid == 0


def _host_s(path: str) -> bool:
    """Whether a namespace's path is that of the host's first process, or of whoever runs the runtime."""
    return path.startswith(("/proc/1/ns/", "/proc/self/ns/", "/proc/thread-self/ns/"))
