"""Which of the security modules that label processes this kernel runs, and whether AppArmor has a profile.

Evidence only: it reads files below a root directory that tests can replace, and decides nothing.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_POLICY = "/sys/kernel/security/apparmor"


class LsmFacts:
    """What can be seen of AppArmor and SELinux.

    apparmor   whether the kernel runs AppArmor
    loaded     whether the profile that was asked about is loaded; None when that cannot be seen (the list is
               root's to read, and a namespace's or a child's profile stands elsewhere)
    selinux    whether the kernel runs SELinux with a policy
    """

    __slots__ = ("apparmor", "loaded", "selinux")

    def __init__(self, apparmor: bool = False, loaded: bool | None = None, selinux: bool = False) -> None:
        self.apparmor = apparmor
        self.loaded = loaded
        self.selinux = selinux


def look(profile: str = "", root: str = "") -> LsmFacts:
    """Look at the kernel that has its /proc and /sys below `root`, and for an AppArmor profile in it."""
    facts = LsmFacts()
    # Only a module that runs answers there: the file itself is in every kernel that has its code.
    facts.apparmor = bool(_read(f"{root}/proc/self/attr/apparmor/current"))
    # Registered by SELinux as it starts; until a policy is loaded every process is "kernel".
    if b"selinuxfs" in (_read(f"{root}/proc/filesystems") or b"").split():
        facts.selinux = (_read(f"{root}/proc/self/attr/current") or b"").strip(b"\0\n") not in (
            b"",
            b"kernel",
        )
    if facts.apparmor and profile:
        facts.loaded = _loaded(root + _POLICY, profile.encode("utf-8", "surrogateescape"))
    return facts


def _loaded(policy: str, profile: bytes) -> bool | None:
    if profile == b"unconfined":
        return True
    if profile.startswith((b":", b"&")) or b"//&" in profile:
        return None  # in another policy namespace, or a stack of several
    listed = _read(f"{policy}/profiles")
    if listed is not None:
        # NAME (MODE), a child as PARENT//CHILD
        return profile in {line.rpartition(b" (")[0] for line in listed.splitlines()}
    if b"//" in profile:
        return None
    return _among(f"{policy}/policy/profiles", profile)


def _among(folder: str, profile: bytes) -> bool | None:
    """The same from the directory that everybody may read: one below it a profile, its name in a file."""
    start = profile.decode("utf-8", "surrogateescape") + "."
    try:
        # The directory is most often called NAME.NUMBER.
        entries = sorted(posix.listdir(folder), key=lambda entry: not entry.startswith(start))
    except OSError:
        return None
    unseen = False
    for name in _names(folder, entries):
        if name == profile:
            return True
        unseen = unseen or name is None
    return None if unseen else False


def _names(folder: str, entries: list[str]) -> Iterator[bytes | None]:
    for entry in entries:
        text = _read(f"{folder}/{entry}/name")
        yield None if text is None else text.removesuffix(b"\n")


def _read(path: str) -> bytes | None:
    """A small file; None when it cannot be opened or read."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while part := posix.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return None
    finally:
        posix.close(fd)
