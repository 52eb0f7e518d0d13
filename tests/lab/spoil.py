"""Values of every wrong kind, and documents with some of their own exchanged for them (hypothesis)."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

SCALARS: Any = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 10**400, float("inf"), float("nan"), 1e308])
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["\ud800", "", "/", "..", "../..", "a\0b", "\n", "%d", "%s", "9" * 5000, "-1", "1_0"])
)
ANYTHING: Any = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, found: list[Any] | None = None) -> list[tuple[Any, Any]]:
    """(container, key) of every value inside."""
    found = [] if found is None else found
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], dict | list):
            places(value[key], found)
    return found


def spoiled(data: st.DataObject, given: Any) -> Any:
    """A copy with one to three values exchanged for anything."""
    made = copy.deepcopy(given)
    for _ in range(data.draw(st.integers(1, 3))):
        owner, key = data.draw(st.sampled_from(places(made)))
        owner[key] = data.draw(ANYTHING)
    return made
