"""Prepares a machine and this source tree: Debian packages, a virtual environment, the two builds of `rt`.

Knows what each step needs and how to do without it; every step is one line of output, does nothing when it
is done already, and never asks. Standard library only: it runs before anything is installed. Knows nothing of
containers (demo.py) or of tests (lanes.py).
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO

import commit
import sources

TREE = Path(__file__).resolve().parent.parent
VENV = TREE / ".venv"
BUILD = TREE / "build"
BUILD_SH = TREE / "rootless_rt/init/build.sh"
ROOT = os.geteuid() == 0
NOT_SOURCES = {".git", ".venv", "build", "demo", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}


class SetupError(Exception):
    """What stops the set-up, in one line with its fix."""


def reason(error: SetupError) -> str:
    """The line of a failed command's output that says most: its last one about an error, else its last."""
    lines = str(error).splitlines()
    telling = [line for line in lines[1:] if line.lower().lstrip().startswith(("error", "e: ", "build.sh:"))]
    return (telling or lines)[-1].strip()


def say(line: str) -> None:
    print(f"· {line}", flush=True)


def quietly(
    command: Sequence[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> None:
    """Runs a command; its output is shown only when it fails: in a SetupError, the last lines."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
        if done.returncode != 0:
            output.seek(0)
            last = output.read().decode(errors="replace").strip().splitlines()[-15:]
            raise SetupError("\n".join([f"`{' '.join(words)}` failed with {done.returncode}:", *last]))


# --- Debian packages ------------------------------------------------------------------------------


def _python_has(python: str, module: str) -> bool:
    test = [python, "-I", "-c", f"import {module}"]
    return subprocess.run(test, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _system_python_has(module: str) -> bool:
    python = "/usr/bin/python3"
    return not os.path.exists(python) or _python_has(python, module)


def _command(name: str) -> bool:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


def _library(name: str) -> bool:
    return any(Path("/usr/lib").glob(f"*/{name}")) or any(Path("/lib").glob(f"*/{name}"))


def static_busybox() -> bool:
    """Whether the host's busybox is a static one; Debian's package of that name may be the dynamic build."""
    path = shutil.which("busybox")
    return path is not None and b"ld-linux" not in Path(path).read_bytes()[:4096]


FOR_ENGINES = (
    *("podman", "buildah", "fuse-overlayfs", "slirp4netns", "catatonit"),
    *("containerd", "docker.io", "rootlesskit", "containernetworking-plugins"),
)
# Each package with the test for what it is wanted for: a machine may have that from elsewhere.
PRESENT: dict[str, Callable[[], bool]] = {
    "python3-venv": lambda: _system_python_has("ensurepip.__main__"),
    "gcc": lambda: _command("gcc"),
    "libc6-dev": lambda: os.path.exists("/usr/include/stdio.h"),
    "musl-tools": lambda: _command("musl-gcc"),
    "uidmap": lambda: _command("newuidmap"),
    "busybox-static": static_busybox,
    "libseccomp2": lambda: _library("libseccomp.so.2"),
    "procps": lambda: _command("ps"),
    "util-linux": lambda: _command("unshare"),
    **{
        name: (lambda name=name: _command(name))  # type: ignore[misc]
        for name in (
            "bats",
            "clang",
            "runc",
            "crun",
            "strace",
            "mmdebstrap",
            "make",
            "patch",
            "secilc",
            *FOR_ENGINES,
        )
    },
    "docker.io": lambda: _command("dockerd"),
    "containernetworking-plugins": lambda: os.path.exists("/usr/lib/cni/bridge"),
    "debian-archive-keyring": lambda: Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists(),
    "libclang-rt-dev": lambda: any(
        Path("/usr/lib").glob("llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a")
    ),
    "e2fsprogs": lambda: _command("mke2fs"),
    "qemu-system-x86": lambda: _command("qemu-system-x86_64"),
    "bubblewrap": lambda: _command("bwrap"),
    "iproute2": lambda: _command("ip"),
    "iptables": lambda: _command("iptables-restore"),
    "passt": lambda: _command("pasta"),
}
FOR_RT = ("python3-venv", "gcc", "libc6-dev", "musl-tools", "uidmap", "busybox-static", "libseccomp2")
NETWORKS = ("passt", "slirp4netns")
PEERS = ("runc", "crun", "bubblewrap")
FOR_TESTS = (*FOR_RT, *PEERS, "procps", "util-linux", "iproute2", "strace", "make", "patch", *NETWORKS)
# The Debian roots of tests/lab/machines, and a policy for one.
FOR_CRIU = ("mmdebstrap", "debian-archive-keyring", "iptables")  # Debian's, unpacked (tests/lab/criu.py)
FOR_MACHINES = ("mmdebstrap", "debian-archive-keyring", "e2fsprogs", "secilc")


def packages(wanted: Iterable[str]) -> None:
    """Installs the packages whose work nothing on the machine does; without root, says which and how."""
    missing = [name for name in wanted if not PRESENT[name]()]
    if not missing:
        return
    if not ROOT or not _command("apt-get"):
        names = " ".join(missing)
        say(f"going on without what an administrator can add: apt-get install -y {names}")
        return
    say(f"installing {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    try:
        quietly(["apt-get", "update", "-q", "-o", "DPkg::Lock::Timeout=300"], env=environment)
    except SetupError:
        say("apt-get update failed; trying with the package lists there are")
    try:
        quietly([*install, *missing], env=environment)
    except SetupError:
        for name in missing:  # one that this release lacks must not keep the others away
            try:
                quietly([*install, name], env=environment)
            except SetupError as error:
                say(f"could not install {name}: {reason(error)}")


# --- the virtual environment ----------------------------------------------------------------------


def venv_python() -> Path:
    return VENV / "bin/python3"


def site_packages() -> Path:
    return VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def make_venv() -> bool:
    """Makes .venv with pip in it; False, after one line that says why, when this Python cannot."""
    if (site_packages() / "pip").is_dir() and os.access(venv_python(), os.X_OK):
        return True
    if not _python_has(sys.executable, "ensurepip.__main__"):
        say(f"going on without a virtual environment: {sys.executable} lacks it (package python3-venv)")
        return False
    say("making a virtual environment in .venv")
    try:
        quietly([sys.executable, "-I", "-m", "venv", "--clear", VENV])
    except SetupError as error:
        shutil.rmtree(VENV, ignore_errors=True)
        say(f"going on without it: {reason(error)}")
        return False
    return True


def pip_install(
    what: Sequence[str], stamp: str = "", environment: Callable[[], dict[str, str]] = dict, note: str = ""
) -> None:
    """Installs into .venv unless that was done already for the same `stamp` text. Raises SetupError.

    `environment` is asked, only when there is work, for what to add to this process's.
    """
    mark = VENV / f".done-{hashlib.sha256(' '.join(what).encode()).hexdigest()[:12]}"
    if mark.exists() and mark.read_text() == stamp:
        return
    added = environment()
    say(f"installing {' '.join(what)} into .venv{note}")
    pip = [str(venv_python()), "-I", "-m", "pip", "install", "-q", "--no-input", "--retries", "1"]
    quietly([*pip, "--disable-pip-version-check", *what], cwd=TREE, env={**os.environ, **added})
    mark.write_text(stamp)


def _compiler() -> dict[str, str]:
    """What build.sh needs in its environment to compile: nothing, or the compiler that pip brings."""
    try:
        quietly([BUILD_SH, "compiler"], env={**os.environ, "PYTHON": sys.executable})
        return {}
    except SetupError as error:
        if not venv_python().exists():
            raise SetupError(reason(error)) from None
    pip_install(["ziglang"], note=" as the C compiler, for there is none; it takes a minute")
    wrapper = VENV / "bin/zig-cc"  # by name: CC is split at spaces, and the tree's path may have some
    wrapper.write_text(f"#!/bin/sh\nexec '{venv_python()}' -I -m ziglang cc \"$@\"\n")
    wrapper.chmod(0o755)
    return {"CC": "zig-cc", "PATH": f"{wrapper.parent}:{os.environ.get('PATH', '')}"}


# --- the two builds -------------------------------------------------------------------------------


def _source_state() -> str:
    """Changes when a file that a build depends on does."""
    names = [*sources.listing(TREE), "pyproject.toml", "meson.build", str(BUILD_SH)]
    times = [(TREE / name).stat() for name in names]
    state = "\n".join(f"{name} {s.st_mtime_ns} {s.st_size}" for name, s in zip(names, times, strict=True))
    return hashlib.sha256(state.encode()).hexdigest()


def build_in_tree() -> Path:
    """Compiles build/rt and build/rt-init, which run this source tree; returns `rt`. Raises SetupError."""
    rt, init = BUILD / "rt", BUILD / "rt-init"
    folders = (TREE / "rootless_rt/init", TREE / "rootless_rt/cli")
    inputs = [*(path for folder in folders for path in folder.glob("*.[ch]")), BUILD_SH]
    wanted = f"{sys.version_info[:2]} {sys.executable} {TREE} {TREE.stat().st_uid}"
    mark = BUILD / ".done"
    newest = max(path.stat().st_mtime for path in inputs)
    fresh = all(path.exists() and path.stat().st_mtime > newest for path in (rt, init))
    if not (fresh and mark.exists() and mark.read_text() == wanted):
        say("compiling build/rt and build/rt-init")
        environment = {**os.environ, "PYTHON": sys.executable, **_compiler()}
        third_party = [site_packages(), Path("/usr/lib/python3/dist-packages")]
        quietly([BUILD_SH, "rt-init", init], env=environment)
        quietly([BUILD_SH, "launcher", rt, TREE, *third_party], env=environment)
        mark.write_text(wanted)
    commit.write()
    # rt itself never writes bytecode: without this every start would compile its modules again. It is for
    # this interpreter, which is the launcher's too; compileall leaves alone what is newer than its source.
    quietly([sys.executable, "-I", "-m", "compileall", "-q", *(TREE / name for name in sources.PACKAGES)])
    archive = TREE / f"rootless_rt/modules.{sys.implementation.cache_tag}"
    quietly([sys.executable, "-I", TREE / "tools/archive.py", TREE, archive, "--checked"])
    return rt


def install() -> Path:
    """Installs the package into .venv, or where that cannot be builds it in the tree; returns `rt`."""
    if not os.access(TREE, os.W_OK):
        raise SetupError(f"cannot write to {TREE}: clone the repository to a place of your own")
    commit.write()
    if make_venv():
        try:
            pip_install([".[seccomp,net,dbus]"], _source_state(), _compiler)
            return VENV / "bin/rt"
        except SetupError as error:
            say(f"pip could not install it, building in the tree instead ({reason(error)})")
    return build_in_tree()


# --- other users ----------------------------------------------------------------------------------


def reachable_by_others() -> bool:
    """Whether an ordinary user may enter every directory down to the tree."""
    return all(place.stat().st_mode & 0o001 for place in (TREE, *TREE.parents))


def give_back() -> None:
    """What root made in another user's tree becomes theirs, or their next build could not replace it."""
    owner = TREE.stat()
    if ROOT and owner.st_uid != 0:
        quietly(["chown", "-R", "-h", "--from=0", f"{owner.st_uid}:{owner.st_gid}", TREE])


def scratch_copy() -> Path:
    """A copy of the sources where every user can reach it, for the caller to remove."""
    commit.write()  # git's own directory stays behind
    place = Path(tempfile.mkdtemp(prefix="rt-", dir="/var/tmp"))
    shutil.copytree(TREE, place, ignore=_left_out, dirs_exist_ok=True, symlinks=True)
    place.chmod(0o755)
    return place


def _left_out(directory: str, names: list[str]) -> set[str]:
    return {"__pycache__"} | (NOT_SOURCES if Path(directory) == TREE else set())


def copy_to_home(user: pwd.struct_passwd) -> Path:
    """A copy of the sources in the user's home, written as that user: root touches nothing there."""
    commit.write()  # git's own directory stays behind
    names = sorted(set(os.listdir(TREE)) - NOT_SOURCES)
    copy = 'mkdir -p ~/rt && cd ~/rt && rm -rf -- "$@" && tar -xf -'
    with subprocess.Popen(
        ["tar", "-C", TREE, "--exclude=__pycache__", "-cf", "-", *names], stdout=subprocess.PIPE
    ) as source:
        status = run_as(user, ["sh", "-c", copy, "sh", *names], Path("/"), stdin=source.stdout)
    if status or source.returncode:
        raise SetupError(f"could not copy the sources to the home of {user.pw_name}")
    return Path(user.pw_dir) / "rt"


def run_as(user: pwd.struct_passwd, command: Sequence[str], cwd: Path, stdin: IO[bytes] | None = None) -> int:
    """Runs a command with the user's ids and groups; returns its exit status."""
    return subprocess.run(
        command,
        stdin=stdin,
        cwd=cwd,
        env=environment_of(user),
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=os.getgrouplist(user.pw_name, user.pw_gid),
        check=False,
    ).returncode


def environment_of(user: pwd.struct_passwd) -> dict[str, str]:
    """The caller's environment without the caller's own places, for the other user."""
    private = ("XDG_", "SUDO_", "VIRTUAL_ENV", "PYTHON", "DBUS_SESSION_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    return {**kept, "HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "PATH": path}
