"""Debian roots: built once by mmdebstrap, kept under a name that is the hash of all that went into them.

They lie below $XDG_CACHE_HOME/rt-tests, else /var/cache/rt-tests. Knows nothing of how they are booted.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
CUSTOMIZE = HERE / "image.sh"
WITH_KERNEL = HERE / "kernel.sh"
LIMIT = 400  # seconds for a step of the build; it takes 15 to 60

KEPT = 3 * 86400  # seconds without use
UNFINISHED = ".unfinished"

PACKAGES = [
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "passwd", "uidmap"),
    *("python3", "libseccomp2", "busybox-static", "util-linux", "procps", "iproute2"),
]
# What is never read there, and takes a third of the time.
UNREAD = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale", "info")]
# The initrd is our own (kernel.sh).
NO_INITRD = "--dpkgopt=path-exclude=/etc/kernel/postinst.d/initramfs-tools"
# Suites that say how long they are valid: a mirror may be weeks behind. Signatures are checked all the same.
ROLLING = {"forky"}
OF_ANY_AGE = '--aptopt=Acquire::Check-Valid-Until "false"'
MIRROR = "http://deb.debian.org/debian"


class Unavailable(Exception):
    """Why there can be no such machine here: the reason of a skip."""


class Image:
    """What is built: `name`, the Debian release, further packages, and the size of a disk in MB (0: none).

    One that does not `boot` has those packages alone; one to `unpack` has them and what they depend on, and
    nothing of that is set up. One with a `kernel`, which is the name of a package, gets an initrd for it. Its
    directory holds `root`, `stage` (an empty directory to mount on) and `disk` (a file).
    """

    def __init__(
        self,
        name: str,
        suite: str,
        extra: tuple[str, ...] = (),
        disk: int = 0,
        *,
        boot: bool = True,
        unpack: bool = False,
        kernel: str = "",
    ) -> None:
        self.name = name
        self.suite = suite
        boot = boot and not unpack
        self.packages = [*PACKAGES, *extra] if boot else list(extra)
        if kernel:
            self.packages += [kernel, "kmod", "cpio", "xz-utils"]
        self.disk = disk
        self.boot = boot
        self.variant = "extract" if unpack else "minbase"
        self.kernel = kernel

    def key(self) -> str:
        made_with = CUSTOMIZE.read_text() if self.boot else "packages alone"
        if self.kernel:
            made_with += WITH_KERNEL.read_text()
        if self.variant != "minbase":
            made_with += self.variant
        text = f"{self.suite} {self.packages} {self.disk} {UNREAD} {made_with}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return Path(home if os.path.isabs(home) else "/var/cache") / "rt-tests"


def mirror() -> str:
    """Where this machine takes its Debian packages from; Debian's own place when it is not a Debian."""
    places = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    for place in places:
        if place.suffix in (".list", ".sources") and place.is_file():
            lines = [line for line in place.read_text().splitlines() if not line.lstrip().startswith("#")]
            found = re.search(r"https?://\S+/debian/?(?=\s|$)", "\n".join(lines))
            if found:
                return found[0]
    return MIRROR


@contextmanager
def built(image: Image) -> Iterator[Path]:
    """The directory of an image, which is built when it is not there; nobody removes it meanwhile.

    Raises Unavailable.
    """
    if os.getuid() != 0:
        raise Unavailable("needs root, to make a Debian root")
    if not shutil.which("mmdebstrap"):
        raise Unavailable("needs mmdebstrap: apt install mmdebstrap")
    place = cache()
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    done = place / f"{image.name}-{image.key()}"
    with open(place / f"{done.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # others may use it at the same time
        if not done.is_dir():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.is_dir():  # nobody built it while we waited
                _remove_old(place)
                _build(image, done)
            fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(lock.fileno())  # for _remove_old
        yield done


def _remove_old(place: Path) -> None:
    """Remove images that were not used for some days, finished or not."""
    for path in place.glob("*.lock"):
        if time.time() - path.stat().st_mtime < KEPT:
            continue
        with open(path) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # in use
            for old in (path.with_suffix(""), path.with_suffix(UNFINISHED)):
                shutil.rmtree(old, ignore_errors=True)
            path.unlink()


def _build(image: Image, done: Path) -> None:
    unfinished = done.with_suffix(UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    unfinished.chmod(0o755)
    (unfinished / "stage").mkdir()
    log = unfinished / "log"
    # In namespaces of its own, which end with this process: nothing stays mounted or running.
    contained = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    bootstrap = [
        *(
            "mmdebstrap",
            "--mode=root",
            f"--variant={image.variant}",
            "--dpkgopt=force-unsafe-io",
            f"--include={','.join(image.packages)}",
        ),
        *(*UNREAD, *([f'--customize-hook=sh {CUSTOMIZE} "$1"'] if image.boot else [])),
        *([OF_ANY_AGE] if image.suite in ROLLING else []),
        *([NO_INITRD, f'--customize-hook=sh {WITH_KERNEL} "$1"'] if image.kernel else []),
        *(image.suite, str(unfinished / "root"), mirror()),
    ]
    _logged([*contained, "--mount-proc", *bootstrap], log)
    if image.disk:
        _logged(
            [
                *(*contained, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0"),
                *("-d", str(unfinished / "root"), str(unfinished / "disk"), f"{image.disk}M"),
            ],
            log,
        )
        # The modules are on the disk; what is left starts the kernel.
        shutil.rmtree(unfinished / "root/usr/lib/uml/modules", ignore_errors=True)
    unfinished.rename(done)


def _logged(command: list[str], log: Path) -> None:
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "TMPDIR": "/var/tmp"}
    with open(log, "ab") as output:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                timeout=LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{command[9]} did not end in {LIMIT} s: {log}") from None
        except OSError as error:
            raise Unavailable(str(error)) from None
    if done.returncode != 0:
        lines = log.read_text(errors="replace").splitlines()
        telling = [line for line in lines if line.startswith(("E:", "mke2fs:", "unshare:"))]
        said = (telling or lines[-1:] or ["?"])[0]
        raise Unavailable(f"could not build the Debian root: {said} ({log})")
