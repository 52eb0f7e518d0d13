"""`rt doctor`: what this host lacks for containers without root, why, and what helps."""

from __future__ import annotations

import posix

from rootless_rt import paths
from rootless_rt.cgroups import bus as buses
from rootless_rt.cgroups import checkup as cgroup_checks
from rootless_rt.cli.argv import Invocation, flag, text
from rootless_rt.cli.common import is_strict, load_spec, manager_of
from rootless_rt.cli.output import printable, write
from rootless_rt.criu import checkup as criu_checks
from rootless_rt.host.doctor.examine import examine
from rootless_rt.host.doctor.model import BLOCKED, DEGRADED, OK, RANK, Finding, Me, diagnose, worst
from rootless_rt.host.doctor.reasons import REASONS
from rootless_rt.host.doctor.script import fix_script
from rootless_rt.host.doctor.session import has_package
from rootless_rt.host.doctor.system import caller
from rootless_rt.spec.jsonio import dumps

SCHEMA = 1  # of the JSON; grows when a field changes its meaning


def run(inv: Invocation) -> int:
    """Print the findings, or the script; the exit status is 0 (all is well), 1 (degraded) or 2 (blocked)."""
    environ = paths.environment()
    me = caller("", environ)
    bus = None if me.privileged else buses.find(buses.USER, environ)
    findings = examine(me, bus)
    seen = cgroup_checks.gather("", me, bus, has_package("jeepney"))
    findings += diagnose(cgroup_checks.CHECKS, seen, me)
    findings += diagnose(criu_checks.CHECKS, criu_checks.gather(text(inv.globals, "criu")), me)
    if text(inv.options, "bundle"):
        findings += _bundle(inv, me)
    order = {reason.id: at for at, reason in enumerate(REASONS)}
    findings.sort(key=lambda finding: order[finding.id])
    status = worst(findings)
    if flag(inv.options, "fix_script"):
        write(fix_script(findings, me))
    elif text(inv.options, "format") == "json":
        write(_json(findings, status, me))
    else:
        write(_text(findings, status, inv.prog, everything=flag(inv.options, "all")))
    return RANK[status]


def _bundle(inv: Invocation, me: Me) -> list[Finding]:
    from rootless_rt.container import checkup
    from rootless_rt.container.prepare import Options

    options = Options()
    options.cgroup_manager = manager_of(inv)
    options.strict = is_strict(inv)
    options.foreground = True
    return diagnose(checkup.CHECKS, checkup.gather(lambda: load_spec(inv), options, me), me)


def _json(findings: list[Finding], status: str, me: Me) -> str:
    whole = {
        "schema": SCHEMA,
        "status": status,
        "user": {"uid": me.uid, "name": me.name or "", "root": me.privileged},
        "kernel": posix.uname().release,
        "packages": me.manager,
        "checks": [finding.as_dict() for finding in findings],
    }
    return dumps(whole, "  ") + "\n"


def _text(findings: list[Finding], status: str, prog: str, *, everything: bool) -> str:
    lines = []
    width = max(len(finding.id) for finding in findings)
    for rank in (BLOCKED, DEGRADED, OK):
        for finding in findings:
            if finding.status != rank or (rank == OK and not everything):
                continue
            why = f": {finding.why}" if finding.why else ""
            lines.append(printable(f"{finding.status:9}{finding.id:{width + 2}}{finding.what}{why}"))
            lines += [printable(f"{'':9}{detail}") for detail in finding.details]
            if finding.fix:
                lines.append(printable(f"{'':9}fix: {finding.fix}"))
    count = {rank: sum(finding.status == rank for finding in findings) for rank in RANK}
    lines.append(", ".join(f"{number} {rank}" for rank, number in count.items()))
    if status != OK:
        lines.append(f"`{prog} explain ID` says more; `{prog} doctor --fix-script` prints what needs root")
    return "\n".join(lines) + "\n"
