"""CVE-2016-9962: processes of the container look into the runtime's process while it waits or enters.

What it holds open (the host's /proc, mounts, directories) would lead out of the container.
"""

from __future__ import annotations

from pathlib import Path

from conftest import MakeBundle
from lab.attack import Canary, compiled
from lab.bundles import Bundle, Config
from lab.runtime import Runtime
from lab.waiting import until

# For every process that is seen: each descriptor, the working directory, the root and the program, and
# from each the way up to the canary.
LOOK_EVERYWHERE = """
for place in /proc/[0-9]*/fd/* /proc/[0-9]*/cwd /proc/[0-9]*/root; do
  for up in . .. ../.. ../../.. ../../../..; do
    if [ -e "$place/$up{canary}" ]; then echo "out by $place/$up"; fi
  done
  if [ -e "$place/self/status" ] && [ "$place" != "/proc/$$/root" ]; then echo "a /proc by $place"; fi
done
"""


def test_a_waiting_container_holds_nothing_of_the_host(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("create", "--bundle", str(bundle(["/bin/true"]).path), "c")
    state = rt.state("c")
    beyond_stdio = [
        str(link.readlink()) for link in Path(f"/proc/{state['pid']}/fd").iterdir() if int(link.name) > 2
    ]
    assert len(beyond_stdio) == 1 and beyond_stdio[0].startswith("socket:"), beyond_stdio


def test_a_program_of_the_image_that_runs_as_a_hook_finds_no_way_out(
    rt: Runtime, bundle: MakeBundle, place: Path
) -> None:
    canary = Canary(place / "canary")
    made = bundle("cat /tmp/seen")
    (made.rootfs / "look").write_text("#!/bin/sh\n" + LOOK_EVERYWHERE.format(canary=canary.file))
    (made.rootfs / "look").chmod(0o755)
    (made.rootfs / "hook").write_text("#!/bin/sh\n/look >/tmp/seen 2>/dev/null\necho looked >>/tmp/seen\n")
    (made.rootfs / "hook").chmod(0o755)

    def add_hook(config: Config) -> None:
        config["hooks"] = {"startContainer": [{"path": "/hook"}]}

    made.change(add_hook)
    assert rt.ok("run", "--bundle", str(made.path), "c") == "looked\n"


PTRACE = r"""
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <unistd.h>

/* Tries to get hold of every process that was not there at the start, until told to stop. */
int main(void)
{
	static char known[4194304];
	int seen = 0;

	for (int round = 0; access("/tmp/stop", F_OK); round++) {
		if (round == 1)
			close(creat("/tmp/ready", 0644));
		DIR *proc = opendir("/proc");
		for (struct dirent *e; (e = readdir(proc));) {
			char path[64], target[256];
			int pid = atoi(e->d_name);
			if (pid <= 0 || known[pid] == 2)
				continue;
			if (!round) {
				known[pid] = 2;
				continue;
			}
			if (!known[pid] && !seen++)
				close(creat("/tmp/met", 0644));
			known[pid] = 1;
			snprintf(path, sizeof path, "/proc/%d/exe", pid);
			ssize_t n = readlink(path, target, sizeof target - 1);
			if (n < 0)
				continue; /* not (yet) ours to look at */
			target[n] = 0;
			if (!strstr(target, "rt-init")) {
				known[pid] = 2; /* it runs a program of the container now */
				continue;
			}
			printf("looked into %s\n", target);
			if (!ptrace(PTRACE_ATTACH, pid, 0, 0))
				printf("traced\n");
			known[pid] = 2;
		}
		closedir(proc);
	}
	printf("%s\n", seen ? "saw new processes" : "saw none");
}
"""


def test_a_container_cannot_look_into_another_that_joins_its_namespaces(
    rt: Runtime, bundle: MakeBundle, place: Path
) -> None:
    first = bundle("/attack >/tmp/seen; sleep 100")
    compiled(PTRACE, first.rootfs / "attack")
    rt.ok("run", "--detach", "--bundle", str(first.path), "first")
    pid = rt.state("first")["pid"]

    def joined(made: Bundle) -> Bundle:
        def change(config: Config) -> None:
            config["linux"].pop("uidMappings")
            config["linux"].pop("gidMappings")
            for item in config["linux"]["namespaces"]:
                if item["type"] in ("user", "pid", "ipc"):
                    item["path"] = f"/proc/{pid}/ns/{item['type']}"

        return made.change(change)

    second = joined(bundle(["/bin/true"]))
    until((first.rootfs / "tmp/ready").exists, "it looks for others")
    for number in range(1000):
        rt.ok("run", "--bundle", str(second.path), f"second{number}")
        if number >= 9 and (first.rootfs / "tmp/met").exists():
            break
    (first.rootfs / "tmp/stop").touch()
    seen = first.rootfs / "tmp/seen"
    until(lambda: seen.exists() and "saw" in seen.read_text(), "it tells what it saw")
    assert seen.read_text() == "saw new processes\n"


def test_root_s_container_finds_none_either(root_rt: Runtime, root_bundle: MakeBundle, place: Path) -> None:
    """Without a user namespace a writable /proc of the host would be the host (core_pattern)."""
    canary = Canary(place / "canary")
    made = root_bundle("cat /tmp/seen")
    (made.rootfs / "hook").write_text(
        "#!/bin/sh\n(" + LOOK_EVERYWHERE.format(canary=canary.file) + ") >/tmp/seen 2>/dev/null\n"
        "for f in /proc/1/fd/*/sys/kernel/core_pattern; do"
        " (cat $f >$f) 2>/dev/null && echo written $f >>/tmp/seen; done\n"
        "echo looked >>/tmp/seen\n"
    )
    (made.rootfs / "hook").chmod(0o755)

    def add_hook(config: Config) -> None:
        config["hooks"] = {"startContainer": [{"path": "/hook"}]}

    done = root_rt("run", "--bundle", str(made.change(add_hook).path), "c")
    assert done.stdout == "looked\n", done
