"""Remedies as people type them, and as lines of an administrator's script. Pure.

A remedy is (one line for people, shell lines that may be run twice).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Fix = tuple[str, tuple[str, ...]]

INSTALL = {
    "apt": ("sudo apt install {}", "apt-get install -y {}"),
    "dnf": ("sudo dnf install {}", "dnf install -y {}"),
    "zypper": ("sudo zypper install {}", "zypper --non-interactive install {}"),
    "pacman": ("sudo pacman -S {}", "pacman -S --needed --noconfirm {}"),
    "apk": ("sudo apk add {}", "apk add {}"),
}
# What is wanted -> package by package manager; "" is its name everywhere else.
PACKAGES = {
    "newuidmap": {
        "apt": "uidmap",
        "dnf": "shadow-utils",
        "zypper": "shadow",
        "pacman": "shadow",
        "apk": "shadow-uidmap",
    },
    "libseccomp": {"apt": "libseccomp2", "zypper": "libseccomp2", "": "libseccomp"},
    "jeepney": {"pacman": "python-jeepney", "apk": "py3-jeepney", "": "python3-jeepney"},
    "pasta": {"": "passt"},
    "slirp4netns": {"": "slirp4netns"},
    "fuse-overlayfs": {"": "fuse-overlayfs"},
    "criu": {"": "criu"},
    "user bus": {"apt": "dbus-user-session", "": "dbus"},
}
DISTRIBUTIONS = {
    "apt": "Debian, Ubuntu",
    "dnf": "Fedora, RHEL",
    "zypper": "openSUSE",
    "pacman": "Arch",
    "apk": "Alpine",
}


def install(thing: str, manager: str) -> Fix:
    """How to install something of PACKAGES.

    >>> install("newuidmap", "apk")
    ('sudo apk add shadow-uidmap', ('apk add shadow-uidmap',))
    """
    names = PACKAGES[thing]
    package = names.get(manager) or names.get("")
    if manager not in INSTALL or package is None:
        return f"install {package or 'the package that has ' + thing}", ()
    shown, command = INSTALL[manager]
    return shown.format(package), (command.format(package),)


def sysctl(name: str, value: str) -> Fix:
    """How to set a sysctl now and for good.

    >>> sysctl("user.max_user_namespaces", "28633")[0]
    'sudo sysctl user.max_user_namespaces=28633'
    """
    file = f"/etc/sysctl.d/80-rt-{name.replace('.', '-')}.conf"
    setting = quote(f"{name} = {value}")
    shown = quote(f"{name}={value}")
    return f"sudo sysctl {shown}", (f"printf '%s\\n' {setting} > {file}", f"sysctl -q -p {file}")


def quote(text: str) -> str:
    """A word for sh.

    >>> quote("alice"), quote("it's")
    ('alice', "'it'\\\\''s'")
    """
    if text and all(char.isascii() and (char.isalnum() or char in "/._-=:,@+%") for char in text):
        return text
    return "'" + text.replace("'", "'\\''") + "'"
