"""`rt lint`: what in a bundle's config is dangerous, for people and for CI."""

from __future__ import annotations

import os
import stat

from rootless_rt.cli.argv import Invocation, text
from rootless_rt.cli.output import write
from rootless_rt.errors import CONTROLS, RtError
from rootless_rt.spec.jsonio import dumps
from rootless_rt.spec.lint import LEVELS, Finding, Place, lint
from rootless_rt.spec.load import CONFIG_NAME, Spec, from_bytes

UNREADABLE = 2
_MAX_CONFIG = 64 << 20


def run(inv: Invocation) -> int:
    """Print the findings; 0 when none is as severe as --fail-on says, 1 otherwise.

    Raises RtError with status 2 for a config that cannot be read, or that `rt` would not run.
    """
    bundle = text(inv.options, "bundle")
    if inv.args and bundle is not None:
        raise RtError("give a config or --bundle, not both", code=UNREADABLE)
    path = inv.args[0] if inv.args else os.path.join(bundle or "", CONFIG_NAME)
    try:
        spec, places = _read(path)
    except RtError as error:
        message = error.message
        if message.startswith(CONFIG_NAME + ": "):
            message = path + message[len(CONFIG_NAME) :]  # of several files, CI wants to know which
        raise RtError(message, hint=error.hint, code=UNREADABLE) from None
    findings = lint(spec.data, places)
    fail_on = text(inv.options, "fail_on") or LEVELS[0]
    counted = LEVELS[: LEVELS.index(fail_on) + 1] if fail_on in LEVELS else ()
    failed = any(finding.severity in counted for finding in findings)
    as_json = text(inv.options, "format") == "json"
    write(_json(path, findings, failed) if as_json else _text(path, findings))
    return 1 if failed else 0


def _read(path: str) -> tuple[Spec, list[Place]]:
    bundle = os.path.dirname(os.path.abspath(path))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise RtError(f"{path} is not a regular file")
            data = file.read(_MAX_CONFIG + 1) or b""  # None: a file of /proc that has nothing to say yet
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "not a path"
        raise RtError(f"cannot read {path}: {reason}", hint="name a config.json, or a --bundle") from None
    if len(data) > _MAX_CONFIG:
        raise RtError(f"{path} is larger than {_MAX_CONFIG >> 20} MiB")
    spec = from_bytes(data, bundle)
    places = [_place("config", path, status, link=False)]
    try:
        link = stat.S_ISLNK(os.lstat(spec.rootfs).st_mode)
        places.append(_place("root", spec.rootfs, os.stat(spec.rootfs), link=link))
    except OSError:
        pass  # where it will be run it may be there
    return spec, places


def _place(kind: str, path: str, status: os.stat_result, *, link: bool) -> Place:
    return Place(kind, path, link=link, mode=status.st_mode, trusted=status.st_uid in (0, os.geteuid()))


def _counts(findings: list[Finding]) -> dict[str, int]:
    return {level: sum(finding.severity == level for finding in findings) for level in LEVELS}


def _json(path: str, findings: list[Finding], failed: bool) -> str:
    whole = {
        "config": path,
        "failed": failed,
        "counts": _counts(findings),
        "findings": [finding.as_dict() for finding in findings],
    }
    return dumps(whole, "  ") + "\n"


def _text(path: str, findings: list[Finding]) -> str:
    lines = []
    for finding in findings:
        lines += [
            f"{finding.severity}: {finding.path}: {finding.what} [{finding.rule}]",
            f"    why: {finding.why}",
            f"    fix: {finding.fix}",
        ]
    counts = ", ".join(f"{count} {level}" for level, count in _counts(findings).items() if count)
    lines.append(f"{path}: {counts or 'nothing dangerous found'}")
    # Names out of the config may hold line breaks, or steer a terminal.
    return "".join(line.translate(CONTROLS) + "\n" for line in lines)
