"""`rt plan`: what `rt create` would do with a bundle here, without doing it."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation, text
from rootless_rt.cli.common import is_strict, load_spec, manager_of
from rootless_rt.cli.output import write
from rootless_rt.container.prepare import Options, prepare
from rootless_rt.plan.model import Plan
from rootless_rt.spec.jsonio import dumps


def run(inv: Invocation) -> int:
    """Print the ops and degradations of the bundle."""
    options = Options()
    options.cgroup_manager = manager_of(inv)
    options.strict = is_strict(inv)
    # A plan is shown for either way of running; only the terminal's destination would differ.
    options.foreground = True
    spec = load_spec(inv)
    plan = prepare(spec, "plan", options).plan
    write(_json(plan) if text(inv.options, "format") == "json" else _text(plan))
    return 0


def _json(plan: Plan) -> str:
    ops = []
    for op in plan.ops:
        ops.append({"op": op.name, **op.fields(), **({"for": op.label} if op.label else {})})
    whole = {
        "uidMap": _extents(plan.uid_map),
        "gidMap": _extents(plan.gid_map),
        "ops": ops,
        "outside": [{"for": field, "does": text} for field, text in plan.outside],
        "degraded": [item.as_dict() for item in plan.degradations],
        "warnings": plan.warnings,
    }
    return dumps(whole, "  ") + "\n"


def _extents(extents: list[tuple[int, int, int]] | None) -> list[dict[str, int]]:
    return [
        {"containerID": inside, "hostID": outside, "size": count} for inside, outside, count in extents or []
    ]


def _text(plan: Plan) -> str:
    lines = []
    for kind, extents in (("uid", plan.uid_map), ("gid", plan.gid_map)):
        for inside, outside, count in extents or []:
            lines.append(f"{kind} map: {inside} -> {outside}, {count} id{'s' if count > 1 else ''}")
    width = len(str(len(plan.ops)))
    for index, op in enumerate(plan.ops):
        lines.append(f"{index:{width}} {op.describe()}" + (f"  [{op.label}]" if op.label else ""))
    lines += [f"outside: {field}: {text}" for field, text in plan.outside]
    for item in plan.degradations:
        lines.append(f"degraded: {item.line()}" + (f" (fix: {item.fix})" if item.fix else ""))
    lines += [f"warning: {text}" for text in plan.warnings]
    return "\n".join(lines) + "\n"
