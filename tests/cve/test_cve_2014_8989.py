"""CVE-2014-8989: in a user namespace a user drops, by setgroups(2), the group that keeps him from a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.attack import TEXT, compiled
from lab.bundles import Config
from lab.runtime import Runtime

DROP = r"""
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char text[64] = "";
	int fd;

	if (!setgroups(0, NULL))
		puts("dropped");
	else
		puts(strerror(errno));
	fd = open(argv[argc - 1], O_RDONLY);
	puts(fd < 0 ? strerror(errno) : read(fd, text, sizeof text - 1) > 0 ? text : "empty");
	return 0;
}
"""
GROUP = 64321  # nobody's


@pytest.fixture
def forbidden(place: Path) -> Path:
    """A file that everybody may read but the members of GROUP."""
    if os.getuid() != 0:
        pytest.skip("needs root, to put the user into a group")
    path = place / "forbidden"
    path.write_text(TEXT)
    os.chown(path, 0, GROUP)
    path.chmod(0o604)
    return path


def test_a_group_that_denies_access_cannot_be_dropped(
    rt: Runtime, bundle: MakeBundle, forbidden: Path
) -> None:
    made = bundle(["/drop", "/volume"])
    compiled(DROP, made.rootfs / "drop")

    def change(config: Config) -> None:
        item = {"destination": "/volume", "type": "bind", "source": str(forbidden), "options": ["bind"]}
        config["mounts"].append(item)
        capabilities = config["process"]["capabilities"]
        for kind in capabilities:
            capabilities[kind] = ["CAP_SETGID", "CAP_SETUID"]

    made.change(change)
    # Without the group the file is read: it is the group that denies.
    assert TEXT in rt.ok("run", "--bundle", str(made.path), "c", extra_groups=[])
    done = rt("run", "--bundle", str(made.path), "c", extra_groups=[GROUP])
    assert done.stdout.splitlines() == ["Operation not permitted", "Permission denied"], done


def test_setgroups_is_denied_for_good(rt: Runtime, bundle: MakeBundle) -> None:
    script = "cd /proc/self; cat setgroups; (echo allow >setgroups) 2>/dev/null; cat setgroups"
    assert rt.ok("run", "--bundle", str(bundle(script).path), "c") == "deny\ndeny\n"
