"""Ids granted by another provider than the files (nsswitch.conf's `subid:`), as LDAP's and FreeIPA's are.

The provider is a library of the test's that shadow's own tools load; what it grants stands in no file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.inside import OwnMounts, output, own_mounts, refusal
from lab.runtime import Runtime
from lab.users import User

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="needs root, to have another nsswitch.conf"),
    pytest.mark.skipif(not shutil.which("getsubids"), reason="needs getsubids: apt install uidmap"),
    pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc, to build a provider"),
]
FIRST = 1 << 30
# What shadow's libsubid asks of a provider (subid.h, lib/nss.c).
PROVIDER = r"""
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
struct subid_range { unsigned long start, count; };
static bool known(const char *owner) { return !strncmp(owner, "bare", 4); }
int shadow_subid_has_range(const char *owner, unsigned long start, unsigned long count, int t, bool *result)
{
	*result = known(owner) && start >= FIRST && start + count <= FIRST + 70000UL;
	return 0;
}
int shadow_subid_list_owner_ranges(const char *owner, int type, struct subid_range **ranges, int *count)
{
	*count = known(owner);
	*ranges = calloc(1, sizeof **ranges);
	(*ranges)->start = FIRST;
	(*ranges)->count = 70000;
	return 0;
}
int shadow_subid_find_subid_owners(unsigned long id, int type, uid_t **uids, int *count)
{
	*count = 0;
	return 0;
}
"""

IN_PLACE = r"""
cd "$1"
(cat /etc/nsswitch.conf; echo "subid: lab") > nsswitch.conf
chmod 644 nsswitch.conf
mount --bind nsswitch.conf /etc/nsswitch.conf
lib=$(dirname "$(ldd "$(which getsubids)" | sed -n "s/.*libc.so.6 => \([^ ]*\).*/\1/p")")
mkdir layers
mount -t tmpfs tmpfs layers
mkdir layers/upper layers/work
mount -t overlay -o "lowerdir=$lib,upperdir=layers/upper,workdir=layers/work" lib "$lib"
cp libsubid_lab.so "$lib"
"""


@pytest.fixture
def mounts(place: Path) -> Iterator[OwnMounts]:
    """A machine whose nsswitch.conf names the provider `lab`."""
    library = place / "libsubid_lab.so"
    words = ["gcc", "-shared", "-fPIC", f"-DFIRST={FIRST}UL", "-x", "c", "-", "-o", str(library)]
    subprocess.run(words, input=PROVIDER, text=True, check=True)
    with own_mounts() as made:
        made.sh(IN_PLACE, str(place))
        yield made


@pytest.fixture
def here(bare: User, place: Path, mounts: OwnMounts) -> Iterator[Runtime]:
    root = place / "bare-state"
    root.mkdir(mode=0o700)
    bare.owns(root)
    runtime = mounts.runtime(Runtime(bare, root))
    yield runtime
    runtime.clean()


@pytest.mark.covers("run --idmap")
@pytest.mark.parametrize("kind", ["full", "auto"])
def test_its_ids_are_mapped(kind: str, here: Runtime, bundle: MakeBundle, bare: User) -> None:
    made = bundle("true")
    bare.owns(made.path)
    said = output(here, made, "tr -s ' ' < /proc/self/uid_map", "--idmap", kind)
    assert said.splitlines() == [f"0 {bare.uid} 1", f" 1 {FIRST} 70000"]


def test_what_it_does_not_grant_is_refused_in_its_name(here: Runtime, bundle: MakeBundle, bare: User) -> None:
    made = bundle("true")
    lines = [
        {"containerID": 0, "hostID": bare.uid, "size": 1},
        {"containerID": 1, "hostID": FIRST, "size": 70001},
    ]
    made.change(lambda config: config["linux"].update(uidMappings=lines))
    bare.owns(made.path)
    assert "is not granted: the subid provider lab grants " in refusal(here, made)


def test_the_doctor_names_it(here: Runtime) -> None:
    lines = here("doctor", "--all").stdout.splitlines()
    assert any("who grants subordinate ids: lab, by /usr/bin/getsubids" in line for line in lines), lines
