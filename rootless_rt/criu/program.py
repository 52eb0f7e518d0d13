"""Where the program criu is, which version it has, and whether it works with this kernel."""

from __future__ import annotations

import os
import subprocess

from rootless_rt.errors import RtError

OLDEST = 31500
"""CRIU 3.15 (2020): the first that knows external pid namespaces, and tells by notification that pages can be
fetched."""

INSTALL = "apt install criu (or the like), or name the program: --criu PATH"
# For root it is not the caller's environment that chooses the program.
_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHECK_SECONDS = 30


def find(given: str | None) -> str:
    """The path of the `given` program, or of the one on PATH (root: of the usual places). Raises RtError."""
    if given is not None:
        path = os.path.abspath(given) if "/" in given else _search(given)
        if path is None or not os.access(path, os.X_OK) or os.path.isdir(path):
            raise RtError(f"--criu {given}: is not a program", hint="name the file of criu")
        return path
    path = _search("criu")
    if path is None:
        raise RtError("checkpoint and restore need the program criu, which is not installed", hint=INSTALL)
    return path


def _search(name: str) -> str | None:
    places = _PLACES if os.geteuid() == 0 else os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for place in places.split(":"):
        path = os.path.join(place, name)
        if place.startswith("/") and os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return None


def environment() -> dict[str, str]:
    """What criu gets to see: neither a config file of the caller's nor the caller's own settings.

    It starts programs such as ip, tar and iptables by their names.
    """
    return {"PATH": _PLACES}


def text(version: int) -> str:
    """31500 as 3.15."""
    major, minor, sub = version // 10000, version // 100 % 100, version % 100
    return f"{major}.{minor}" + (f".{sub}" if sub else "")


def check(program: str) -> str:
    """What `criu check` has to complain of on this host; empty when it can save and restore here."""
    status, said = _checked(program)
    return said or (f"criu check ended with status {status}" if status else "")


def complaint(program: str) -> str:
    """The same in CRIU's own words only: empty as well for a program that is none."""
    return _checked(program)[1]


def _checked(program: str) -> tuple[int, str]:
    try:
        done = subprocess.run(
            [program, "check"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
            timeout=_CHECK_SECONDS,
            check=False,
        )
    except OSError as error:
        return 1, f"{program}: {(error.strerror or str(error)).lower()}"
    except subprocess.TimeoutExpired:
        return 1, f"criu check did not end in {_CHECK_SECONDS} s"
    if done.returncode == 0:
        return 0, ""
    from rootless_rt.criu.log import reason

    return done.returncode, reason(done.stdout.decode("utf-8", "replace").splitlines())
