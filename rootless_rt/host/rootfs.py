"""A small rootfs from what the host has: its static busybox, or copies of some of its programs.

For trying things out without an image: nothing is downloaded. Only copies are made, so that no file of the
host can be changed from inside.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess

from rootless_rt.errors import RtError

_DIRECTORIES = ("bin", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sys", "tmp", "usr/bin", "var")
_BUSYBOX = ("/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox")
_PROGRAMS = """
    sh cat cp date df echo env false grep head hostname id ip less ln ls mkdir mount mv ps pwd rm sed sleep
    stat stty tail touch tr true tty uname vi wc who yes
"""
_ACCOUNT = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUPS = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"


def make_rootfs(path: str) -> str:
    """Make a rootfs at `path`, which must not exist or be empty; returns where its programs come from.

    Raises RtError when the place is taken, or the host has not even a shell to copy.
    """
    if os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise RtError(f"{path} exists and is not empty", hint="remove it, or leave out --rootfs-from-host")
    made_here = not os.path.lexists(path)
    try:
        for name in _DIRECTORIES:
            os.makedirs(os.path.join(path, name), exist_ok=True)
        os.chmod(os.path.join(path, "tmp"), 0o1777)
        for name, content in (("passwd", _ACCOUNT), ("group", _GROUPS)):
            with open(os.path.join(path, "etc", name), "w", encoding="ascii") as file:
                file.write(content)
        return _from_busybox(path) or _from_programs(path)
    except OSError as error:
        if made_here:
            shutil.rmtree(path, ignore_errors=True)
        raise RtError(f"cannot make {path}: {os.strerror(error.errno or 0).lower()}") from None
    except RtError:
        if made_here:
            shutil.rmtree(path, ignore_errors=True)
        raise


def _from_busybox(path: str) -> str | None:
    for busybox in _BUSYBOX:
        if not os.access(busybox, os.X_OK) or _libraries(busybox):
            continue
        shutil.copyfile(busybox, os.path.join(path, "bin/busybox"))
        os.chmod(os.path.join(path, "bin/busybox"), 0o755)
        listed = subprocess.run([busybox, "--list"], capture_output=True, check=False).stdout.split()
        for name in map(os.fsdecode, listed):
            if name != "busybox" and "/" not in name:
                os.symlink("busybox", os.path.join(path, "bin", name))
        return busybox
    return None


def _from_programs(path: str) -> str:
    taken = []
    for name in _PROGRAMS.split():
        program = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
        if program is None:
            continue
        for file in [program, *_libraries(program)]:
            _copy(file, path)
        target = os.path.join(path, "bin", name)
        if not os.path.lexists(target):
            os.symlink(program, target)
        taken.append(name)
    if "sh" not in taken:
        raise RtError("this host has no shell to copy", hint="apt install busybox-static")
    return "programs of this host"


def _copy(file: str, root: str) -> None:
    """Copy a program or library to the same place below root, without set-id bits."""
    target = root + file
    if os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(file, target)
    os.chmod(target, stat.S_IMODE(os.stat(file).st_mode) & 0o755)


def _libraries(program: str) -> list[str]:
    """The shared libraries and the loader of a program, by its own loader's word (ldd(1)); none if static."""
    shown = subprocess.run(
        ["ldd", program], capture_output=True, check=False, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    )
    if shown.returncode != 0:
        return []
    words = os.fsdecode(shown.stdout).split()
    return sorted({word for word in words if word.startswith("/")})
