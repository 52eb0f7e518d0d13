"""rt inside of rt: in an ordinary user's container root runs containers of its own, three levels deep."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import map_ids, output, subordinate
from lab.runtime import RT, TREE, Runtime
from lab.users import User

# What making a container takes: each counts only inside its own user namespace.
_NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID", "SETPCAP", "SETFCAP"),
    *("NET_ADMIN", "SYS_CHROOT", "SYS_ADMIN", "MKNOD"),
)
CAPABILITIES = [f"CAP_{name}" for name in _NAMES]
SCRIPT = """set -e
mkdir -p /run/box && cd /run/box
rt spec --rootless
python3 -c '
import json, sys
outer, inner = json.load(open("/etc/outer.json")), json.load(open("config.json"))
inner["process"].update(outer["process"], args=["sh", "-c", sys.argv[1]])
inner["mounts"] += outer["mounts"]
inner["root"]["readonly"] = False
inner["linux"].update(maskedPaths=[], readonlyPaths=[])
json.dump(inner, open("config.json", "w"))
' "$1"
mkdir rootfs && cd rootfs
mkdir -p tmp proc sys dev run root etc usr
for name in bin lib lib64 sbin; do ln -s usr/$name $name; done
cd .. && exec rt --root /run/state run $2 inner
"""


@pytest.fixture
def outer(bundle: MakeBundle, place: Path) -> Bundle:
    """A container with the host's programs and this tree, in which rt can make others."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("needs the system's Python")
    made = bundle()
    for name in ("bin", "lib", "lib64", "sbin"):
        path = made.rootfs / name
        if path.is_dir():
            path.rename(made.rootfs / f"{name}.old")
        path.symlink_to(f"usr/{name}")
    for name in ("usr", "run", "lab"):
        (made.rootfs / name).mkdir(exist_ok=True)
    places = {"/usr", "/etc/alternatives", str(TREE), os.path.realpath(sysconfig.get_path("purelib"))}
    places |= {os.path.realpath(sys.base_prefix)} - {"/usr"}
    (place / "inner.sh").write_text(SCRIPT)
    mounts = [
        {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}
        for path in sorted(places)
        if os.path.exists(path)
    ]
    sources = {
        "/usr/local/bin": str(Path(RT).parent),
        "/lab": str(place),
        "/etc/outer.json": str(place / "outer.json"),
    }
    mounts += [
        {"destination": path, "type": "bind", "source": source, "options": ["bind", "ro"]}
        for path, source in sources.items()
    ]
    mounts.append({"destination": "/run", "type": "tmpfs", "source": "run", "options": ["mode=755"]})
    process = {
        "terminal": False,
        "env": ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/root", "XDG_RUNTIME_DIR=/run"],
        "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
    }
    # Inside, what was mounted is where it was mounted to.
    inside = [{**item, "source": item["destination"]} for item in mounts]
    (place / "outer.json").write_text(json.dumps({"process": process, "mounts": inside}))
    made.config["mounts"] += mounts
    made.config["process"].update(process)
    made.config["linux"].update(maskedPaths=[], readonlyPaths=[])
    made.write()
    return made


def test_three_levels_with_one_id(rt: Runtime, outer: Bundle) -> None:
    third = "echo three; cat /proc/self/uid_map; hostname"
    second = f"echo two; sh /lab/inner.sh '{third}'"
    said = output(rt, outer, f'echo one; sh /lab/inner.sh "{second}"')
    assert said.split() == ["one", "two", "three", "0", "0", "1", "rt"]


def test_a_range_of_ids_is_there_inside_too(rt: Runtime, outer: Bundle, alice: User) -> None:
    made = map_ids(
        outer,
        (0, alice.uid, 1),
        (1, subordinate(alice), 65536),
        gids=((0, alice.gid, 1), (1, subordinate(alice, "gid"), 65536)),
    )
    change = "touch /tmp/f; chown 33:34 /tmp/f; stat -c %u:%g /tmp/f"
    assert output(rt, made, f"sh /lab/inner.sh '{change}' '--idmap full'") == "33:34"
