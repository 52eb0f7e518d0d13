"""What the runtime does outside of the container: network devices that it moves, the resctrl group.

Nobody but root of the host can do either, and nothing stands in for them: a config that asks is refused
elsewhere, whatever the policy of degradation. Knows capabilities; whether devices and groups are there is for
`container.outside` to look up.
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.plan.model import Draft
from rootless_rt.spec.outside import NET_DEVICES, RDT, final_name, monitored, rdt_asked, schema_lines

_CAP_NET_ADMIN = 12
_CAP_SYS_ADMIN = 21


def outside(draft: Draft) -> None:
    """Refuse what the caller cannot do; write the rest into plan.outside. Raises SpecError."""
    facts = draft.facts
    confined = facts.euid != 0 or not facts.initial_userns
    devices = draft.linux.get("netDevices", {})
    if devices and confined:
        raise SpecError(
            NET_DEVICES,
            "only root of the host can move its network devices: a rootless container has no power over them",
            hint="remove the field; --net pasta gives a rootless container a network of its own",
        )
    missing = [bit for bit in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN) if not facts.capabilities >> bit & 1]
    if devices and missing:
        raise SpecError(
            NET_DEVICES, "moving network devices needs the capabilities CAP_NET_ADMIN and CAP_SYS_ADMIN"
        )
    for host_name, device in devices.items():
        name = final_name(host_name, device)
        called = f" as {name}" if name != host_name else ""
        draft.plan.outside.append(
            (NET_DEVICES, f"move {host_name} into the container's network namespace{called}, and set it up")
        )
    if rdt_asked(draft.linux):
        if confined:
            raise SpecError(
                RDT,
                "only root of the host can write to resctrl: it cannot be given to other users",
                hint="remove the field",
            )
        _rdt(draft)


def _rdt(draft: Draft) -> None:
    rdt = draft.linux["intelRdt"]
    group = rdt.get("closID") or draft.policy.container_id
    draft.plan.outside.append((RDT, f"put the container's processes into the resctrl group {group}"))
    lines = [line for part in schema_lines(rdt) for line in part]
    if lines:
        draft.plan.outside.append((RDT, f"have the schemata {', '.join(lines)} in it"))
    if monitored(rdt):
        text = f"make the monitoring group {draft.policy.container_id} in it"
        draft.plan.outside.append((RDT, text))
