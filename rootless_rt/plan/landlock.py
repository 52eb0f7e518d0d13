"""Landlock: the rules of the annotation org.rootless-rt.landlock, for the program and what it starts. Pure.

Made with the ids of the container's root, before `create` is done; in force from right before the seccomp
filter on, so that hooks are not bound by them.
"""

from __future__ import annotations

from rootless_rt.plan.model import Degradation, Draft
from rootless_rt.plan.ops import Op
from rootless_rt.spec.landlock import FIELD, landlock_of


def rule_ops(draft: Draft) -> list[Op]:
    """The op that makes the rules; the one that puts them into force goes to `draft.last_writes`."""
    asked = landlock_of(draft.config)
    if asked is None:
        return []
    slot = draft.new_slot()
    made = Op("landlock_rules", slot, *asked, label=FIELD)
    draft.last_writes.append(Op("landlock", slot, label=FIELD))
    missing = Degradation(
        FIELD,
        "Landlock rules",
        "none: mounts and permissions alone protect files",
        "this kernel has no Landlock (Linux 5.13), it is not among the modules of lsm= at boot, or a"
        " surrounding container's filter hides it",
        "boot with landlock in lsm=",
        id="RT-BUNDLE-PLAN",
    )
    return [draft.tolerate(made, missing)]
