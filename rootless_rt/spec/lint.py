"""`rt lint`: what in a config is dangerous, as a table of rules.

Pure: the config has passed every check (`load`), and what must be known of the host comes as `Place`s. A rule
looks for one thing and yields a Hit for each place where it is; it must not raise, whatever the values are.
The rules are in lint_process, lint_linux and lint_mounts.
"""

from __future__ import annotations

from rootless_rt.spec import lint_linux, lint_mounts, lint_process
from rootless_rt.spec.lint_model import LEVELS, Finding, Place, View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from rootless_rt.spec.lint_model import Hit

    Rule = tuple[str, str, Callable[[View], Iterable[Hit]], str, str]

__all__ = ["LEVELS", "RULES", "Finding", "Place", "lint"]

# (id, severity, what finds it, why it is dangerous, what mends it); a hit may say the last three better.
RULES: tuple[Rule, ...] = (
    *lint_process.RULES,
    *lint_linux.RULES,
    *lint_mounts.RULES,
)
_WORST_FIRST = {level: place for place, level in enumerate(LEVELS)}


def lint(config: dict[str, Any], places: Iterable[Place] = ()) -> list[Finding]:
    """The findings in a checked config, the worst first, else in the order of RULES.

    `places` are facts of the host on files that the config names, and on its own file.
    """
    view = View(config, places)
    found = [
        Finding(name, hit.severity or severity, hit.path, hit.what, hit.why or why, hit.fix or fix)
        for name, severity, find, why, fix in RULES
        for hit in find(view)
    ]
    return sorted(found, key=lambda finding: _WORST_FIRST[finding.severity])
