"""Hooks: the state they read, and those that rt-init runs in the container's namespaces.

prestart and createRuntime run in the runtime's namespaces at a marked point of the plan; createContainer and
startContainer are ops; poststart and poststop come after (runtime-spec, "POSIX-platform Hooks").
"""

from __future__ import annotations

from rootless_rt.plan.model import Draft
from rootless_rt.plan.ops import Op
from rootless_rt.spec.jsonio import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# poll(2) takes its milliseconds as an int: 24 days stand for any longer time.
_LONGEST_MS = 2**31 - 1


def state_of(
    config: dict[str, Any], bundle: str, container_id: str, status: str, pid: int | None
) -> dict[str, Any]:
    """The state of a container as others are told it (runtime-spec, "State"); no pid when it has ended."""
    state: dict[str, Any] = {"ociVersion": config["ociVersion"], "id": container_id, "status": status}
    if pid is not None:
        state["pid"] = pid
    state["bundle"] = bundle
    if config.get("annotations"):
        state["annotations"] = config["annotations"]
    return state


def hook_state(config: dict[str, Any], bundle: str, container_id: str, status: str, pid: int | None) -> str:
    """The state that a hook reads on stdin."""
    return dumps(state_of(config, bundle, container_id, status, pid))


def hook_ops(draft: Draft, kind: str, status: str) -> list[Op]:
    """The ops of the hooks of one kind. The pid is only known to rt-init: it goes between two halves.

    It is the one that the container sees (runtime-spec, "State"): these hooks run in its namespaces.
    """
    hooks = draft.config.get("hooks", {}).get(kind, [])
    if not hooks:
        return []
    text = hook_state(draft.config, draft.spec.bundle, draft.policy.container_id, status, 0)
    head, _, tail = text.partition('"pid":0')
    ops = []
    for index, hook in enumerate(hooks):
        env = hook.get("env")
        if env is None:
            # De facto (runc): a startContainer hook without env has the process's.
            env = draft.process.get("env", []) if kind == "startContainer" else []
        ops.append(
            Op(
                "hook",
                kind,
                hook["path"],
                hook.get("args") or [hook["path"]],
                env,
                draft.spec.bundle if kind == "createContainer" else "",
                min((hook.get("timeout") or 0) * 1000, _LONGEST_MS),
                head + '"pid":',
                tail,
                label=f"hooks.{kind}[{index}]",
            )
        )
    return ops
