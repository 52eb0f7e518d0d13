"""`rt exec` into a container whose root is hostile: it watches, stops and kills who enters, and lies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.attack import Canary, compiled, replace
from lab.bundles import Config
from lab.runtime import Runtime
from lab.waiting import PATIENCE, has_ended, until

# Goes for every process that was not there at the start while its program is not one of the image: opens all
# that /proc has of it, and traces it.
HUNTER = r"""
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const files[] = {"fd/0", "fd/3", "fd/4", "fd/9", "mem", "maps", "environ", "cwd/.",
	"root/.", "exe", "auxv", "io", "syscall", "stack", "ns/mnt"};

static int of_the_image(int pid)
{
	char path[64], name[64] = "";
	int fd;

	snprintf(path, sizeof path, "/proc/%d/comm", pid);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return 1; /* gone */
	if (read(fd, name, sizeof name - 1) < 0)
		name[0] = 0;
	close(fd);
	/* rt-init is executed by descriptor: its name is a number. */
	return name[0] < '0' || name[0] > '9';
}

int main(void)
{
	static char known[4194304];
	int seen = 0;

	for (int round = 0; access("/tmp/stop", F_OK); round++) {
		if (round == 1)
			close(creat("/tmp/ready", 0644));
		DIR *proc = opendir("/proc");
		for (struct dirent *e; (e = readdir(proc));) {
			char path[64];
			int pid = atoi(e->d_name), got = 0;
			const char *what = "";
			if (pid <= 0 || known[pid] == 2)
				continue;
			if (!round || of_the_image(pid)) {
				known[pid] = 2;
				continue;
			}
			if (!known[pid] && !seen++)
				close(creat("/tmp/met", 0644));
			known[pid] = 1;
			for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
				char byte;
				snprintf(path, sizeof path, "/proc/%d/%s", pid, files[i]);
				int fd = open(path, O_RDONLY);
				if (fd < 0)
					continue;
				/* Some ask only when they are read. */
				if ((strcmp(files[i], "environ") && strchr("emcrfn", *files[i])) || read(fd, &byte, 1) > 0)
					got++, what = files[i];
				close(fd);
			}
			/* In a child, whose end lets go: a tracer that stays keeps its prey's end from others. */
			int child = fork(), status = 0;
			if (!child)
				_exit(!ptrace(PTRACE_SEIZE, pid, 0, 0));
			known[child] = 2;
			waitpid(child, &status, 0);
			if (status)
				got++, what = "ptrace";
			int pidfd = syscall(SYS_pidfd_open, pid, 0);
			for (int fd = 0; pidfd >= 0 && fd < 16; fd++) {
				int stolen = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
				if (stolen >= 0)
					got++, what = "pidfd_getfd", close(stolen);
			}
			close(pidfd);
			/* It may have begun its program meanwhile: only then is it ours to look at. */
			if (got && !of_the_image(pid))
				printf("got %s of %d\n", what, pid), fflush(stdout);
		}
		closedir(proc);
	}
	printf("%s\n", seen ? "saw who enters" : "saw none");
	fflush(stdout);
}
"""


def hunt(rt: Runtime, made: Path, *words: str) -> str:
    """Exec until the hunter has had its chances; what it reports."""
    until((made / "tmp/ready").exists, "the hunter hunts")
    for number in range(1000):
        rt("exec", *words, "c", "/bin/true")
        if number >= 9 and (made / "tmp/met").exists():
            break
    (made / "tmp/stop").touch()
    seen = made / "tmp/seen"
    until(lambda: "saw" in seen.read_text(), "the hunter tells what it saw")
    return seen.read_text()


def test_who_enters_cannot_be_looked_into(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle("/hunter >/tmp/seen; sleep 100")
    compiled(HUNTER, made.rootfs / "hunter")
    rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    assert hunt(rt, made.rootfs) == "saw who enters\n"


def test_nor_as_root_without_a_user_namespace(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = root_bundle("/hunter >/tmp/seen; sleep 100")
    compiled(HUNTER, made.rootfs / "hunter")
    root_rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    assert hunt(root_rt, made.rootfs) == "saw who enters\n"


def test_a_state_that_names_a_process_of_the_host_leads_to_no_program_on_the_host(
    rt: Runtime, bundle: MakeBundle, place: Path
) -> None:
    canary = Canary(place / "canary")
    made = bundle(["/bin/sleep", "100"])
    rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    state_file = rt.root / "c/state.json"
    saved = state_file.read_text()
    state = json.loads(saved)
    victim = _sleeper(rt)
    try:
        fields = Path(f"/proc/{victim.pid}/stat").read_text().rpartition(")")[2].split()
        state.update(pid=victim.pid, startTime=fields[19])
        state_file.write_text(json.dumps(state))
        done = rt("exec", "c", "/bin/cat", str(canary.file))
        assert done.returncode == 255 and done.stdout == "" and "mount namespace" in done.stderr, done
    finally:
        victim.kill()
        victim.wait()
        state_file.write_text(saved)
    canary.check()


def _sleeper(rt: Runtime) -> subprocess.Popen[bytes]:
    options = {} if os.getuid() == rt.user.uid else {"user": rt.user.uid, "group": rt.user.gid}
    return subprocess.Popen(["sleep", "100"], **options)


@pytest.mark.parametrize("moment", range(8))
def test_a_container_that_ends_while_it_is_entered_leads_to_no_program_on_the_host(
    rt: Runtime, bundle: MakeBundle, place: Path, moment: int
) -> None:
    canary = Canary(place / "canary")

    def no_pid_namespace(config: Config) -> None:
        spaces = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [item for item in spaces if item["type"] != "pid"]
        config["mounts"] = [item for item in config["mounts"] if item["type"] != "proc"]

    made = bundle(["/bin/sleep", "100"]).change(no_pid_namespace)
    started = rt("run", "--detach", "--bundle", str(made.path), "c")
    assert started.returncode == 0, started
    pid = rt.state("c")["pid"]
    with open(os.devnull, "r+b") as null, (place / "out").open("w+b") as out:
        entering = rt.popen("exec", "c", "/bin/cat", str(canary.file), stdin=null, stdout=out, stderr=out)
        time.sleep(0.02 + moment * 0.004)
        os.kill(pid, signal.SIGKILL)
        entering.wait(PATIENCE)
    assert "untouched" not in (place / "out").read_text()
    canary.check()


STRIKE = r"""
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <stdio.h>

/* Sends a signal to every process that was not there at the start. */
int main(int argc, char **argv)
{
	static char known[4194304];

	for (int round = 0; access("/tmp/stop", F_OK); round++) {
		DIR *proc = opendir("/proc");
		for (struct dirent *e; (e = readdir(proc));) {
			int pid = atoi(e->d_name);
			if (pid > 0 && !known[pid]) {
				known[pid] = 1;
				if (round)
					kill(pid, atoi(argv[1]));
			}
		}
		closedir(proc);
		if (!round)
			close(creat("/tmp/ready", 0644));
	}
	return argc;
}
"""


def strikes(rt: Runtime, bundle: MakeBundle, number: int) -> None:
    made = bundle(f"/strike {number}; sleep 100")
    compiled(STRIKE, made.rootfs / "strike")
    rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    until((made.rootfs / "tmp/ready").exists, "the striking program begins")


def test_who_enters_and_is_killed_is_an_error_and_leaves_nothing(rt: Runtime, bundle: MakeBundle) -> None:
    strikes(rt, bundle, signal.SIGKILL)
    for _ in range(10):
        done = rt("exec", "c", "/bin/sleep", "300")
        assert done.returncode in (137, 255), done
    inside = Path(f"/proc/{rt.state('c')['pid']}/task").parent
    assert inside.exists()


def test_who_enters_and_is_stopped_can_be_given_up(rt: Runtime, bundle: MakeBundle) -> None:
    """The container may stop its own processes; the caller must be able to leave."""
    strikes(rt, bundle, signal.SIGSTOP)
    entering = rt.popen("exec", "c", "/bin/true", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    if entering.poll() is None:
        children = Path(f"/proc/{entering.pid}/task/{entering.pid}/children").read_text().split()
        entering.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        rt("kill", "c", "KILL")
        entering.wait(PATIENCE)
        until(lambda: all(map(has_ended, children)), f"{children} end")


def test_deleting_the_container_ends_who_waits_to_enter(rt: Runtime, bundle: MakeBundle) -> None:
    strikes(rt, bundle, signal.SIGSTOP)
    entering = rt.popen("exec", "c", "/bin/true", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    rt.ok("delete", "--force", "c")
    entering.wait(PATIENCE)


@pytest.mark.parametrize("kind", ["fifo", "directory", "link", "sparse", "dangling", "loop"])
def test_the_image_s_passwd_may_be_anything(rt: Runtime, bundle: MakeBundle, kind: str) -> None:
    made = bundle(["/bin/sleep", "100"])
    rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    passwd = made.rootfs / "etc/passwd"
    passwd.unlink()
    if kind == "fifo":
        os.mkfifo(passwd)
    elif kind == "directory":
        passwd.mkdir()
    elif kind == "sparse":
        with passwd.open("wb") as file:
            file.truncate(1 << 40)
    else:
        target = {"link": "/proc/kmsg", "dangling": "/nowhere", "loop": "passwd"}[kind]
        passwd.symlink_to(target)
    assert rt.ok("exec", "c", "/bin/sh", "-c", "echo $HOME") == "/\n"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/stdin", "/proc/1/fd/0", "/proc/self/environ"])
def test_nor_may_it_lead_to_a_device(rt: Runtime, bundle: MakeBundle, device: str) -> None:
    made = bundle(["/bin/sleep", "100"])
    rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    replace(made.rootfs / "etc/passwd", device)
    assert rt.ok("exec", "c", "/bin/sh", "-c", "echo $HOME") == "/\n"


@pytest.mark.parametrize(
    "trick",
    [
        "mount -t tmpfs t /dev/pts && mkfifo /dev/pts/ptmx",
        "mount -t tmpfs t /dev/pts && touch /dev/pts/ptmx",
        "mount -t tmpfs t /dev/pts && ln -s /dev/null /dev/pts/ptmx",
        "mount -t tmpfs t /dev/pts && touch /dev/pts/ptmx && mount --bind /dev/null /dev/pts/ptmx",
        "mount --bind /dev/zero /dev/pts/ptmx",
        "mount -t proc p /dev/pts",
        "umount /dev/pts",
        "mount --bind /proc/self/fd /dev/pts",
    ],
)
def test_a_terminal_comes_from_a_devpts_or_not_at_all(rt: Runtime, bundle: MakeBundle, trick: str) -> None:
    def admin(config: Config) -> None:
        for names in config["process"]["capabilities"].values():
            names.append("CAP_SYS_ADMIN")

    made = bundle(f"({trick}) && touch /tmp/done || touch /tmp/refused; sleep 100").change(admin)
    rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    until(lambda: any((made.rootfs / "tmp" / name).exists() for name in ("done", "refused")), "it has tried")
    if (made.rootfs / "tmp/refused").exists():
        pytest.skip("the container may not do that here")
    done = rt("exec", "--tty", "c", "/bin/true")
    assert done.returncode == 255 and "/dev/pts" in done.stderr, done


def test_another_proc_inside_does_not_matter(rt: Runtime, bundle: MakeBundle) -> None:
    def admin(config: Config) -> None:
        for names in config["process"]["capabilities"].values():
            names.append("CAP_SYS_ADMIN")

    script = "mount -t tmpfs t /proc && mkdir -p /proc/self && mkfifo /proc/self/fd /proc/self/oom_score_adj"
    made = bundle(f"{script}; echo done >/tmp/done; sleep 100").change(admin)
    rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    until((made.rootfs / "tmp/done").exists, "it has mounted")
    done = rt("exec", "c", "/bin/sh", "-c", "echo $HOME")
    assert done.returncode == 0 and done.stdout == "/root\n", done


def test_the_caller_s_descriptors_and_signals_stay_outside(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle(["/bin/sleep", "100"])
    rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    leaked = os.open("/", os.O_RDONLY)
    high = os.dup2(leaked, 77)
    os.set_inheritable(leaked, True)
    try:
        done = rt("exec", "c", "/bin/ls", "/proc/self/fd/", close_fds=False)
        status = rt.ok("exec", "c", "/bin/grep", "Sig[BIC]", "/proc/self/status", restore_signals=False)
    finally:
        os.close(leaked)
        os.close(high)
    assert done.stdout.split() == ["0", "1", "2", "3"], done
    assert {line.split()[1] for line in status.splitlines()} == {"0" * 16}


@pytest.mark.parametrize("option", [(), ("--no-pivot",)])
def test_the_root_of_who_enters_is_the_container_s(
    rt: Runtime, bundle: MakeBundle, place: Path, option: tuple[str, ...]
) -> None:
    canary = Canary(place / "canary")
    made = bundle(["/bin/sleep", "100"])
    rt("run", "--detach", *option, "--bundle", str(made.path), "c")
    done = rt("exec", "c", "/bin/sh", "-c", f"cat {canary.file}; cat /../..{canary.file}; pwd; ls /")
    assert "untouched" not in done.stdout and done.stdout.startswith("/\n") and "proc" in done.stdout, done
