"""Containers as `rt spec --hardened` writes them, and the attacks that are tried inside."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from lab.bundles import busybox_rootfs
from lab.runtime import Runtime

# What a run may say: limits that nobody delegated, and a kernel without Landlock.
TOLERATED = ("linux.resources.", 'annotations["org.rootless-rt.landlock"]')

BUILD = """
id -u; bash --version >/dev/null; python3 -c '
import json, multiprocessing, sqlite3, subprocess, tempfile, threading
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
with tempfile.NamedTemporaryFile() as file: file.write(b"x")
with multiprocessing.Pool(2) as pool: print(pool.map(abs, [-1, 2]))
print(json.loads(subprocess.check_output(["echo", "[3]"])))'
git init -q project; cd project; git config user.name n; git config user.email n@localhost
printf 'int main(void) { return 42; }\\n' >answer.c
printf 'answer: answer.c\\n\\tgcc -O2 -o $@ $<\\n' >Makefile
make -s -j2; ./answer || echo "answer $?"
git add answer.c Makefile; git commit -qm first; git clone -q . ../copy; git -C ../copy log --format=%s
"""

# Prints name -> "done", or the name of the errno, as JSON. Numbers of system calls: x86_64 and generic.
ATTACKS = r"""
import ctypes, errno, json, os, platform, socket, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
x86 = platform.machine() == "x86_64"
said = {}

def tried(name, call):
    try:
        value = call()
    except OSError as error:
        said[name] = errno.errorcode.get(error.errno, str(error.errno))
        return
    said[name] = "done"

def call(on_x86, elsewhere, *args):
    number = on_x86 if x86 else elsewhere
    def made():
        ctypes.set_errno(0)
        words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
        if libc.syscall(ctypes.c_long(number), *words) < 0:
            raise OSError(ctypes.get_errno(), "")
    return made

NEWUSER, NEWNS, NEWNET = 0x10000000, 0x20000, 0x40000000
tried("unshare user", call(272, 97, NEWUSER))
tried("unshare mount", call(272, 97, NEWNS))
tried("clone user", call(56, 220, NEWUSER | 17, 0, 0, 0, 0))
tried("clone3", call(435, 435, 0, 0))
tried("setns", call(308, 268, 0, 0))
tried("mount", call(165, 40, b"none", b"/tmp", b"tmpfs", 0, 0))
tried("umount", call(166, 39, b"/proc/sys", 2))
tried("fsopen", call(430, 430, b"tmpfs", 0))
tried("open_tree", call(428, 428, -100, b"/", 1))
tried("pivot_root", call(155, 41, b"/", b"/tmp"))
tried("chroot", call(161, 51, b"/tmp"))
tried("ptrace", call(101, 117, 16, os.getppid(), 0, 0))
tried("process_vm_readv", call(310, 270, 1, 0, 0, 0, 0, 0))
tried("pidfd_getfd", call(438, 438, 0, 0, 0))
tried("keyctl", call(250, 219, 0, -3, 0))
tried("add_key", call(248, 217, b"user", b"x", b"y", 1, -3))
tried("bpf", call(321, 280, 0, 0, 0))
tried("perf_event_open", call(298, 241, 0, 0, -1, -1, 0))
tried("io_uring_setup", call(425, 425, 1, 0))
tried("userfaultfd", call(323, 282, 0))
tried("kexec_load", call(246, 104, 0, 0, 0, 0))
tried("init_module", call(175, 105, 0, 0, b""))
tried("open_by_handle_at", call(304, 265, 0, 0, 0))
tried("swapon", call(167, 224, b"/tmp/x", 0))
tried("no address randomization", call(135, 92, 0x40000))
tried("a call of tomorrow", call(4000, 4000))
tried("AF_PACKET", lambda: socket.socket(17, socket.SOCK_RAW, 0))
tried("AF_VSOCK", lambda: socket.socket(40, socket.SOCK_STREAM))
tried("AF_ALG", lambda: socket.socket(38, socket.SOCK_SEQPACKET))
tried("netfilter", lambda: socket.socket(16, socket.SOCK_RAW, 12))
tried("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
tried("route netlink", lambda: socket.socket(16, socket.SOCK_RAW, 0).close())
tried("the outside", lambda: socket.create_connection(("192.0.2.1", 80), 2))
tried("loopback", lambda: socket.create_server(("127.0.0.1", 0)).close())
tried("write /etc", lambda: open("/etc/new", "w"))
tried("write /usr", lambda: open("/usr/bin/env", "r+"))
tried("write /proc/sys", lambda: open("/proc/sys/kernel/core_pattern", "w"))
tried("sysrq", lambda: open("/proc/sysrq-trigger", "w"))
tried("write /sys", lambda: open("/sys/kernel/mm/ksm/run", "w"))
tried("device node", lambda: os.mknod("/home/disk", 0o60666, os.makedev(8, 0)))
tried("become root", lambda: os.setuid(0))
tried("chown", lambda: (open("/home/own", "w").close(), os.chown("/home/own", 0, 0)))
tried("more files", call(160, 164, 7, ctypes.byref((ctypes.c_ulong * 2)(4096, 4096))))
open("/tmp/program", "w").write("#!/bin/sh\n"); os.chmod("/tmp/program", 0o700)
tried("execute in /tmp", lambda: os.execv("/tmp/program", ["x"]))
tried("fill /tmp", lambda: os.posix_fallocate(os.open("/tmp/big", 0o102, 0o600), 0, 1 << 30))
for name in ("kcore", "keys", "kallsyms", "interrupts", "cmdline", "modules"):
    try:
        said["/proc/" + name] = "hidden" if open("/proc/" + name, "rb").read(1) == b"" else "shown"
    except OSError:
        said["/proc/" + name] = "hidden"
said["umask"] = oct(os.umask(0))
said["user namespaces"] = open("/proc/sys/user/max_user_namespaces").read().strip()
said["interfaces"] = [name for _, name in socket.if_nameindex()]
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
said["capabilities"] = sorted({status["Cap" + kind].strip() for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")})
said["no_new_privs"] = status["NoNewPrivs"]
pid = os.fork()
if pid == 0:
    os.abort()
said["core"] = os.WCOREDUMP(os.waitpid(pid, 0)[1])
children = []
try:
    for _ in range(2000):
        pid = os.fork()
        if pid == 0:
            import time
            time.sleep(1000)
        children.append(pid)
    said["fork bomb"] = "done"
except OSError as error:
    said["fork bomb"] = errno.errorcode[error.errno]
said["children"] = len(children)
for pid in children:
    os.kill(pid, 9)
print(json.dumps(said))
"""

DENIED = """unshare user, unshare mount, clone user, setns, mount, umount, fsopen, open_tree, pivot_root,
    chroot, ptrace, process_vm_readv, pidfd_getfd, keyctl, add_key, bpf, perf_event_open, io_uring_setup,
    userfaultfd, kexec_load, init_module, open_by_handle_at, swapon, no address randomization, AF_PACKET,
    AF_VSOCK, AF_ALG, netfilter, more files"""
HIDDEN = ("kcore", "keys", "kallsyms", "interrupts", "cmdline", "modules")
EXPECTED: dict[str, Any] = {
    **dict.fromkeys((" ".join(name.split()) for name in DENIED.split(",")), "EPERM"),
    **dict.fromkeys(("clone3", "a call of tomorrow"), "ENOSYS"),
    **dict.fromkeys(("loopback", "route netlink"), "done"),
    **{f"/proc/{name}": "hidden" for name in HIDDEN},
    "the outside": "ENETUNREACH",
    "raw socket": "EPERM",
    "execute in /tmp": "EACCES",
    "fill /tmp": "ENOSPC",
    "umask": "0o77",
    "user namespaces": "0",
    "interfaces": ["lo"],
    "capabilities": ["0000000000000000"],
    "no_new_privs": "1",
    "core": False,
    "fork bomb": "EAGAIN",
}
# By Landlock or permissions; EINVAL is an id that is not mapped, ENOENT a kernel built without it.
REFUSED = {"EROFS", "EACCES", "EPERM", "EINVAL", "ENOENT"}
ALSO_REFUSED = (
    "device node",
    "become root",
    "chown",
    "write /etc",
    "write /usr",
    "write /proc/sys",
    "sysrq",
    "write /sys",
)


class Hardened:
    """A bundle with that config, for the user of `rt`, on a rootfs of its own or a shared one."""

    def __init__(self, rt: Runtime, path: Path, rootfs: Path | None = None, *options: str) -> None:
        self.rt = rt
        self.path = path
        path.mkdir()
        path.chmod(0o755)
        if rootfs is None:
            made = busybox_rootfs(path / "rootfs")
            for name in ("home", "run", "var/tmp"):
                (made / name).mkdir()
        rt.user.owns(path)
        if rt.user.uid != 0:
            options += ("--rootless",)
        done = rt("spec", "--hardened", "--bundle", str(path), *options)
        assert done.returncode == 0, done.stderr
        self.config = json.loads((path / "config.json").read_text())
        self.config["process"]["terminal"] = False
        if rootfs is not None:
            self.config["root"]["path"] = str(rootfs)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a program in it; of words on stderr only those about limits are fine."""
        self.config["process"]["args"] = list(args)
        (self.path / "config.json").write_text(json.dumps(self.config))
        done = self.rt("run", "--bundle", str(self.path), f"hardened{self.path.name}", timeout=120)
        words = [line for line in done.stderr.splitlines() if not line.startswith("hint: ")]
        strange = [
            line for line in words if not line.startswith(tuple(f"rt: warning: {w}" for w in TOLERATED))
        ]
        assert strange == [], done.stderr
        return done

    def says(self, *args: str) -> str:
        done = self.run(*args)
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done.stdout


def check_build(box: Hardened) -> None:
    """bash, python3, git, make and gcc do what they are for."""
    said = box.says("bash", "-ec", BUILD).splitlines()
    assert said == ["1000", "thread", "[1, 2]", "[3]", "answer 42", "first"], said


def check_attacks(box: Hardened) -> None:
    """None of the attacks comes to anything."""
    said = json.loads(box.says("python3", "-c", ATTACKS))
    found = {name: said.pop(name, None) for name in EXPECTED}
    wrong = {name: got for name, got in found.items() if got != EXPECTED[name]}
    assert wrong == {}, wrong
    for name in ALSO_REFUSED:
        assert (got := said.pop(name)) in REFUSED, (name, got)
    assert said.pop("children") < 256 and said == {}, said
