"""What a program with every capability of its user namespace tries from inside: the old root, devices,
processes and mounts of the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.attack import TEXT, Canary, compiled
from lab.bundles import Bundle, Config
from lab.runtime import Runtime

EVERYTHING = [
    *("CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_MKNOD"),
    *("CAP_SYS_PTRACE", "CAP_CHOWN", "CAP_FOWNER", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"),
]


def powerful(made: Bundle) -> Bundle:
    def change(config: Config) -> None:
        sets = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), EVERYTHING)
        config["process"]["capabilities"] = sets

    return made.change(change)


OLD_ROOT = r"""
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static int look(const char *how, const char *canary)
{
	char path[4096];
	for (const char *up = "../../../../../../../.."; *up; up += up[2] ? 3 : 2) {
		snprintf(path, sizeof path, "%s%s", up, canary);
		if (!access(path, F_OK))
			printf("out by %s: %s\n", how, path);
	}
	return 0;
}

int main(int argc, char **argv)
{
	int root = open("/", O_RDONLY | O_DIRECTORY);

	if (argc < 2)
		return 1;
	/* chroot below the own directory, then up */
	mkdir("/tmp/jail", 0755);
	if (!chroot("/tmp/jail")) {
		fchdir(root);
		look("chroot", argv[1]);
		chroot(".");
	}
	/* what lies below the root mount */
	chdir("/");
	for (int i = 0; i < 5; i++) {
		umount2("/", MNT_DETACH);
		umount2(".", MNT_DETACH);
		look("umount", argv[1]);
	}
	chdir("/proc/1/cwd"), look("cwd of 1", argv[1]);
	chdir("/proc/1/root"), look("root of 1", argv[1]);
	puts("tried");
	return 0;
}
"""


def test_the_old_root_is_gone(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    canary = Canary(place / "canary")
    made = powerful(bundle(["/attack", str(canary.file)]))
    compiled(OLD_ROOT, made.rootfs / "attack")
    done = rt("run", "--bundle", str(made.path), "c")
    assert done.stdout == "tried\n", done
    canary.check()


def test_no_device_of_the_host_can_be_made_or_opened(rt: Runtime, bundle: MakeBundle) -> None:
    made = powerful(
        bundle(
            "for n in '1 1' '1 2' '1 11' '5 1' '8 0' '254 0' '253 0' '10 200'; do"
            " mknod /tmp/c c $n 2>/dev/null && (: </tmp/c) 2>/dev/null && echo char $n;"
            " mknod /dev/b b $n 2>/dev/null && (: </dev/b) 2>/dev/null && echo block $n;"
            " rm -f /tmp/c /dev/b; done; ls /dev | tr '\\n' ' '"
        )
    )
    done = rt("run", "--bundle", str(made.path), "c")
    devices = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero "
    assert done.stdout.removeprefix("core ") == devices, done


def test_no_process_of_the_host_is_in_sight(rt: Runtime, bundle: MakeBundle) -> None:
    assert rt.ok("run", "--bundle", str(powerful(bundle("echo /proc/[0-9]*")).path), "c") == "/proc/1\n"


def test_the_capabilities_are_worth_nothing_outside(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    """A file of another user on a volume, with all of the container's capabilities."""
    if os.getuid() != 0:
        pytest.skip("needs root, to make a file that is not the user's")
    canary = Canary(place / "canary")
    canary.file.chmod(0o600)
    canary.remember()
    made = powerful(bundle("cat /volume/file; echo x >/volume/file; chown 0 /volume/file; rm /volume/file"))

    def volume(config: Config) -> None:
        item = {"destination": "/volume", "type": "bind", "source": str(canary.path), "options": ["bind"]}
        config["mounts"].append(item)

    done = rt("run", "--bundle", str(made.change(volume).path), "c")
    assert TEXT not in done.stdout
    canary.check()


@pytest.mark.parametrize("option", ["ro", "nosuid", "nodev", "noexec"])
def test_a_restriction_of_a_mount_is_there_when_the_program_starts(
    rt: Runtime, bundle: MakeBundle, place: Path, option: str
) -> None:
    canary = Canary(place / "canary")
    made = bundle("grep ' /volume ' /proc/self/mountinfo | cut -d' ' -f6")

    def volume(config: Config) -> None:
        item = {
            "destination": "/volume",
            "type": "bind",
            "source": str(canary.path),
            "options": ["bind", option],
        }
        config["mounts"].append(item)

    assert option in rt.ok("run", "--bundle", str(made.change(volume).path), "c").strip().split(",")


def test_masks_are_on_what_is_mounted_last(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    """A volume of the config cannot uncover what is masked, and reading gives nothing."""
    canary = Canary(place / "canary")
    made = bundle(
        "cat /volume/file /proc/keys /proc/timer_list; ls /volume/empty; echo x >/proc/sysrq-trigger"
    )

    def volume(config: Config) -> None:
        item = {"destination": "/volume", "type": "bind", "source": str(canary.path), "options": ["bind"]}
        config["mounts"].append(item)
        config["linux"]["maskedPaths"] += ["/volume/file", "/volume/empty"]

    done = rt("run", "--bundle", str(made.change(volume).path), "c")
    assert done.stdout == "" and done.returncode != 0, done
    canary.check()
