"""CVE-2019-5736: the image has the runtime execute itself, and overwrites the program of the host."""

from __future__ import annotations

import hashlib
from pathlib import Path

from conftest import Either
from lab.attack import compiled
from lab.bundles import Config
from lab.runtime import RT, TREE

OVERWRITE = r"""
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int fd = open(argv[i], O_WRONLY | O_TRUNC);
		if (fd < 0)
			fd = open(argv[i], O_RDWR | O_APPEND);
		if (fd >= 0)
			printf("%s: %zd\n", argv[i], write(fd, "#!/bin/false\n", 13));
	}
	puts("tried");
}
"""


def digest() -> str:
    found = hashlib.sha256()
    for path in (RT, TREE / "build/rt-init"):
        found.update(Path(path).read_bytes())
    return found.hexdigest()


def test_an_entry_point_that_is_the_runtime_itself_harms_nothing(either: Either) -> None:
    rt, bundle = either
    before = digest()
    made = bundle(["/entry"])
    (made.rootfs / "entry").write_text("#!/proc/self/exe\n")
    (made.rootfs / "entry").chmod(0o755)
    done = rt("run", "--bundle", str(made.path), "c")
    assert done.returncode != 0 and done.stdout == ""
    made.run(["/proc/self/exe"])
    done = rt("run", "--bundle", str(made.path), "d")
    assert done.returncode != 0 and done.stdout == ""
    assert digest() == before


def test_the_program_of_a_waiting_container_cannot_be_written(either: Either) -> None:
    rt, bundle = either
    before = digest()
    made = bundle("cat /tmp/seen")
    compiled(OVERWRITE, made.rootfs / "overwrite")
    (made.rootfs / "hook").write_text(
        "#!/bin/sh\n/overwrite /proc/1/exe /proc/[0-9]*/exe >/tmp/seen\nreadlink /proc/1/exe >>/tmp/seen\n"
    )
    (made.rootfs / "hook").chmod(0o755)

    def add_hook(config: Config) -> None:
        config["hooks"] = {"startContainer": [{"path": "/hook"}]}

    made.change(add_hook)
    seen = rt.ok("run", "--bundle", str(made.path), "c")
    assert seen == "tried\n/memfd:rt-init (deleted)\n"
    assert digest() == before


def test_who_enters_by_exec_cannot_be_written_either(either: Either) -> None:
    """The container's root goes for /proc/PID/exe of all who enter, and has them execute themselves."""
    rt, bundle = either
    before = digest()
    script = "while [ ! -e /tmp/stop ]; do /overwrite /proc/[0-9]*/exe; done >/tmp/seen 2>&1; sleep 100"
    made = bundle(script)
    compiled(OVERWRITE, made.rootfs / "overwrite")
    (made.rootfs / "entry").write_text("#!/proc/self/exe\n")
    (made.rootfs / "entry").chmod(0o755)
    rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    for _ in range(10):
        for program in ("/entry", "/proc/self/exe"):
            done = rt("exec", "c", program)
            assert done.returncode != 0 and done.stdout == "", done
        rt("exec", "c", "/bin/true")
    (made.rootfs / "tmp/stop").touch()
    assert digest() == before
    rt.ok("exec", "c", "/bin/true")
