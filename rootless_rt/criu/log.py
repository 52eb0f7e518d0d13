"""CRIU's log: which of its lines tells why it failed.

CRIU writes `(time) Error (file:line): what`, the cause first and then each level above it that gave up.
Before its work proper it tries out the kernel, with errors that say no more than what that cannot do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_ERROR = re.compile(r"^(?:\(\d+\.\d+\)\s*)?(?:\s*\d+: )?\s*Error \([^)]*\): (?P<what>.*)$")
# Lines that are errors to CRIU and yet not why it stopped, and those that only repeat that it did.
_NOT_WHY = (
    "will skip",
    "rlimit: Can't setup RLIMIT_NOFILE",
    "Can't keep kdat cache",
    "Dumping FAILED",
    "Pre-dumping FAILED",
    "Restoring FAILED",
    "Failed to open log",
)


# The line with which the work proper begins, of a dump and of a restore.
_BEGIN = re.compile(r"\(\d+\.\d+\) (?:files stat: |Dumping processes|Pre-dumping|Reading image tree)")


def reason(lines: Iterable[str], *, trials: bool = True) -> str:
    """The first error of the log as one line without its place; empty when there is none.

    Without `trials` what it said before its work proper does not count.
    """
    begun, trial = False, ""
    for line in lines:
        begun = begun or bool(_BEGIN.match(line))
        what = _what(line)
        if what and begun:
            return what
        trial = trial or what
    return trial if trials else ""


def _what(line: str) -> str:
    found = _ERROR.match(line.rstrip())
    if not found or any(word in found["what"] for word in _NOT_WHY):
        return ""
    return re.sub(r"\s+", " ", found["what"]).strip().rstrip(".")


# What CRIU's own words ask for -> what to do about it with rt.
HINTS = (
    (
        "Can't get 1:16 opt",
        "CRIU before 4.2 cannot save sockets on Linux 6.16 and later: a newer one is needed",
    ),
    ("File fd/", "restore it with the same file as stdin, stdout or stderr, not emptied: >> FILE"),
    ("has bad size", "a file that it has open has changed since the checkpoint"),
    ("has bad mode", "a file that it has open has changed since the checkpoint"),
    ("No space left on device", "make room there, or name another directory: --image-path, --work-path"),
    ("vdso:", "this CRIU does not know this kernel: a newer one is needed"),
    ("tcp-established", "give --tcp-established, to checkpoint and to restore"),
    ("Connected TCP socket", "give --tcp-established, to checkpoint and to restore"),
    ("In-flight connection", "give --tcp-skip-in-flight"),
    ("ext-unix-sk", "give --ext-unix-sk: a socket leads out of the container"),
    ("without peer", "give --ext-unix-sk: a socket leads out of the container"),
    ("External socket is used", "give --ext-unix-sk: a socket leads out of the container"),
    ("file-locks", "give --file-locks, to checkpoint and to restore"),
    ("Some file locks are hold", "give --file-locks, to checkpoint and to restore"),
    ("shell-job", "give --shell-job: it uses a terminal of the host"),
    ("path=/dev/pts/", "give --shell-job: it uses a terminal of the host"),
    ("shell job", "give --shell-job: it uses a terminal of the host"),
    ("link-remap", "give --link-remap: a file is open that has lost its name"),
    ("lazy-pages.socket failed", "start `criu lazy-pages` first, on the same images and --work-path"),
    ("iptables", "criu needs iptables or nftables to hold connections still"),
    ("clock offset", "root needs CAP_SYS_TIME here: what is restored has clocks of its own"),
    ("Can't fork for", "that process id is taken: with no pid namespace of its own it needs the same"),
)


def hint(said: str) -> str:
    """What helps against that error, or empty."""
    return next((fix for word, fix in HINTS if word in said), "")
