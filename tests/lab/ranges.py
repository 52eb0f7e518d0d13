"""Configs that map a user's whole subuid range."""

from __future__ import annotations

import pytest

from idmap.auto import full
from idmap.subid import granted
from lab.bundles import Bundle, Config
from lab.users import User

# What su, chown and package managers need of root; the default config gives none of them.
TOOLS = [f"CAP_{name}" for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "SETFCAP", "KILL")]


def map_ranges(bundle: Bundle, user: User) -> Bundle:
    """Map the user's own id and all that is granted, and give root what it needs to use them."""
    grants = {kind: granted(kind, user.uid) for kind in ("uid", "gid")}
    if not all(grants.values()):
        pytest.skip(f"needs a subuid and a subgid range for {user.name}")

    def change(config: Config) -> None:
        for kind, own in (("uid", user.uid), ("gid", user.gid)):
            config["linux"][f"{kind}Mappings"] = [
                {"containerID": inside, "hostID": outside, "size": count}
                for inside, outside, count in full(own, grants[kind])
            ]
        config["process"]["capabilities"] = {
            kind: list(TOOLS) for kind in ("bounding", "effective", "permitted")
        }

    return bundle.change(change)
