"""Identity maps of Linux user namespaces: which ids a user may map, and writing the map.

The package stands alone: it knows subuid/subgid files, ranges and the kernel's map files, and nothing of
containers.

- `numbers`   strict decimal numbers
- `extents`   the algebra of map lines: check, merge, split, translate, parse, format
- `subid`     what /etc/subuid and /etc/subgid (or another `subid:` provider) grant a user
- `auto`      ready-made maps: the own id alone, or the own id and all granted ranges
- `userns`    the map of the user namespace this process lives in
- `nsresource`, `varlink`   ids that systemd-nsresourced lends, and the protocol it speaks
- `write`     put a map in place, directly or with newuidmap and newgidmap
- `evidence`, `diagnose`   after a failure: collect facts, then name the cause and its fix

A map is a list of extents `(inside, outside, count)`: `count` ids from `inside` on are, seen from the parent
user namespace, the ids from `outside` on. Importing the package loads none of its modules; a name is loaded
when first used.

>>> import idmap
>>> idmap.full(1000, [(100000, 65536, 1)])
[(0, 1000, 1), (1, 100000, 65536)]
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idmap.auto import full, propose_range, single
    from idmap.errors import IdmapError
    from idmap.extents import check, format_map, invert, merge, parse_map, split, to_inside, to_outside
    from idmap.subid import granted, user_name
    from idmap.userns import in_user_namespace, own_map
    from idmap.write import write_maps

__all__ = [
    "IdmapError",
    "check",
    "format_map",
    "full",
    "granted",
    "in_user_namespace",
    "invert",
    "merge",
    "own_map",
    "parse_map",
    "propose_range",
    "single",
    "split",
    "to_inside",
    "to_outside",
    "user_name",
    "write_maps",
]

_HOME = {
    "IdmapError": "errors",
    "check": "extents",
    "format_map": "extents",
    "full": "auto",
    "granted": "subid",
    "in_user_namespace": "userns",
    "invert": "extents",
    "merge": "extents",
    "own_map": "userns",
    "parse_map": "extents",
    "propose_range": "auto",
    "single": "auto",
    "split": "extents",
    "to_inside": "extents",
    "to_outside": "extents",
    "user_name": "subid",
    "write_maps": "write",
}


def __getattr__(name: str) -> object:
    """Load the module of a public name when the name is first used (PEP 562)."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # __import__ and not importlib: importlib itself costs more than all of this package.
    value: object = getattr(__import__(f"{__name__}.{home}", fromlist=(name,)), name)
    globals()[name] = value
    return value
