"""A root file system full of files that a runtime could open, execute or load by mistake.

What is looked up after the change of root (a codec, an import, a name service, a converter) would come from
the image, with the runtime's rights. Every command runs under strace: rt-init names nothing of the image but
what the plan's own ops are about, and the interpreter nothing at all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.inside import map_ids
from lab.runtime import Runtime
from lab.traces import INIT, Traced, read
from lab.users import User

from rootless_rt.cli.table import COMMANDS

EVIL = """
#include <fcntl.h>
__attribute__((constructor)) static void evil(void) { creat("/evil-loaded", 0666); }
int main(void) { return 0; }
"""
LIBRARIES = """
usr/lib/x86_64-linux-gnu/libnss_files.so.2 usr/lib/x86_64-linux-gnu/libnss_evil.so.2 lib/libnss_compat.so.2
lib/x86_64-linux-gnu/libnss_dns.so.2 lib64/ld-linux-x86-64.so.2 lib/ld-musl-x86_64.so.1
lib/x86_64-linux-gnu/libc.so.6 usr/lib/libseccomp.so.2 usr/lib/x86_64-linux-gnu/gconv/EVIL.so
usr/lib/python3.11/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so lib/libgcc_s.so.1
"""
TEXTS = {
    "etc/ld.so.preload": "/usr/lib/x86_64-linux-gnu/libnss_evil.so.2\n",
    "etc/ld.so.cache": "evil",
    "etc/nsswitch.conf": "passwd: evil files\ngroup: evil files\nhosts: evil dns\n",
    "etc/gai.conf": "evil",
    "etc/localtime": "evil",
    "etc/environment": "LD_PRELOAD=/lib/libnss_compat.so.2\n",
    "etc/locale.alias": "evil",
    "etc/resolv.conf": "nameserver 127.0.0.1\n",
    "etc/login.defs": "evil",
    "etc/subuid": "root:0:4294967295\n",
    "etc/subgid": "root:0:4294967295\n",
    "usr/lib/locale/locale-archive": "evil",
    "usr/lib/x86_64-linux-gnu/gconv/gconv-modules": "module EVIL// INTERNAL EVIL 1\n",
    "usr/lib/x86_64-linux-gnu/gconv/gconv-modules.cache": "evil",
    "usr/share/zoneinfo/UTC": "evil",
    "usr/share/locale/locale.alias": "evil",
}
MODULES = """
json re enum os posix site sitecustomize codecs io abc traceback linecache warnings pwd grp
encodings/__init__ encodings/aliases encodings/utf_8 encodings/ascii encodings/latin_1 encodings/cp1252
encodings/idna encodings/unicode_escape
"""


def trap(made: Bundle) -> Bundle:
    """Fill a rootfs with traps; a trap that was stepped on leaves /evil-loaded."""
    root = made.rootfs
    for name, text in TEXTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    python = "import posix; posix.open('/evil-loaded', 0o101, 0o666)\n"
    for folder in ("usr/lib/python3.11", "usr/lib/python3", "usr/local/lib/python3.11", "lib/python3.11"):
        (root / folder / "encodings").mkdir(parents=True, exist_ok=True)
        for module in MODULES.split():
            (root / folder / f"{module}.py").write_text(python)
        (root / folder / "site-packages").mkdir()
        (root / folder / "site-packages/evil.pth").write_text(python)
    library = made.path / "evil.so"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler:
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=EVIL, text=True, check=True
        )
    else:
        library.write_bytes(b"\x7fELF evil")
    for name in LIBRARIES.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / name)
    # What the commands read and write themselves.
    (made.path / "own").mkdir()
    (made.path / "own/jobs").write_text(
        '{"id": "1", "args": ["/bin/true"]}\n{"id": "é", "args": ["no-such"]}\n'
    )
    return made


# What rt-init may name: the host's places that the plan has as sources, /proc, and of the image the
# destinations of mounts, masks and devices, the working directory and passwd. Else nothing of it.
MAY_BE_NAMED = re.compile(
    r"""/ | /proc | /dev/\w+ | /sys(/.*)? | \. | \.\.
    | self/.* | thread-self/.* | sys/net/ipv4/.* | \d+/(uid_map|gid_map|setgroups)
    | (\./)?(proc|sys|dev|tmp|run)(/.*)? | null | zero | full | random | urandom | tty | console | ptmx | pts
    | shm | mqueue | fd | stdin | stdout | stderr | core | cgroup
    | etc/passwd | bin | etc""",
    re.VERBOSE,
)

# What these have rt-init execute: a program of the host's, in the host's root.
TOOLS = {"unshare": "true", "cp": "cp", "chown": "chown", "rm": "rm"}


def check(made: Bundle, traces: list[tuple[list[str], Path]], folder: Path) -> None:
    seen_init = False
    linux = made.config["linux"]
    # Looked for in the mounts of /proc and /sys, by descriptor: no files of the image.
    hidden = {
        path.strip("/").partition("/")[2]
        for path in [*linux.get("maskedPaths", []), *linux.get("readonlyPaths", [])]
        if path.startswith(("/proc/", "/sys/"))
    }
    for words, out in traces:
        trace = read(out)
        named = trace.paths("init")
        seen_init |= bool(named)
        own = {path for path in named if path.startswith(str(folder))}
        # The rootfs itself is opened by its path of the host, and the runtime's own files are bound by it.
        assert own <= {str(made.rootfs), str(made.path)} | {path for path in own if "state" in path}, (
            words,
            own,
        )
        strange = {path for path in named - own - hidden if path and not MAY_BE_NAMED.fullmatch(path)}
        tool = TOOLS.get(words[0], "") or ("rm" if "--purge" in words else "")
        strange -= {
            path for path in strange if tool and re.fullmatch(rf"(/usr)?(/local)?/s?bin/{tool}", path)
        }
        programs = {
            line.split('"')[1] for call, line in trace.init if call.startswith("exec") and '"' in line
        }
        # Looked at before it is executed, which another failure may forestall.
        known = {"/bin/sh", "/bin/true", "/bin/sleep"}
        assert strange <= programs | known, (words, strange)
        assert all(
            path in known or path.startswith(INIT) or (tool and path.endswith(f"/{tool}"))
            for path in programs
        ), (words, programs)
        below = {path for path in trace.paths("runtime") if path.startswith(f"{made.rootfs}/")}
        assert below == set(), (words, below)
    assert seen_init, "the trace has seen rt-init at work"
    assert not (made.rootfs / "evil-loaded").exists() and not Path("/evil-loaded").exists()


def of_a_container(bundle: Path) -> list[tuple[int | None, list[str]]]:
    """The verbs, in an order in which each has something to do; None where the host decides how it ends."""
    here = ["--bundle", str(bundle)]
    named = ["--user", "user", "--cwd", "/tmp", "c", "/bin/true"]
    return [
        (0, ["run", *here, "a"]),
        (0, ["create", *here, "c"]),
        (0, ["state", "c"]),
        (0, ["start", "c"]),
        (0, ["list"]),
        (0, ["exec", "c", "/bin/true"]),
        (0, ["exec", "--user", "0:0", "--cwd", "/tmp", "--env", "A=é", "c", "sh", "-c", "exit 0"]),
        (0, ["exec", "--detach", "c", "/bin/sleep", "1"]),
        (255, ["exec", "c", "no-such-program-é"]),
        (255, ["exec", *named]),
        (255, ["exec", "--additional-gids", "user", *named[2:]]),
        (0, ["ps", "c"]),
        (0, ["ps", "--format", "json", "c"]),
        (None, ["update", "--pids-limit", "100", "c"]),
        (None, ["events", "--stats", "c"]),
        (None, ["pause", "c"]),
        (None, ["resume", "c"]),
        (None, ["checkpoint", "--image-path", f"{bundle}/own/image", "--leave-running", "c"]),
        (None, ["restore", *here, "--image-path", f"{bundle}/own/image", "--detach", "r"]),
        (0, ["delete", "--force", "r"]),
        (0, ["kill", "c", "WINCH"]),
        (0, ["kill", "--all", "c", "KILL"]),
        (0, ["delete", "--force", "c"]),
        (1, ["run", *here, "--pid-file", "/no/such/place", "d"]),
        (0, ["delete", "--force", "nobody"]),
    ]


def without_one(bundle: Path) -> list[tuple[int | None, list[str]]]:
    """The commands that make no container, most of them on the bundle all the same."""
    here = ["--bundle", str(bundle)]
    own = bundle / "own"
    return [
        (0, ["plan", *here]),
        (None, ["batch", *here, f"{own}/jobs"]),
        (None, ["lint", *here]),
        (None, ["doctor", *here]),
        (0, ["explain"]),
        (0, ["features"]),
        (0, ["completion", "bash"]),
        (0, ["help", "run"]),
        (0, ["spec", "--bundle", str(own)]),
    ]


def on_files(bundle: Path) -> list[tuple[int | None, list[str]]]:
    """The commands with a tool of the host's, on what the image holds."""
    return [
        (0, ["unshare", "true"]),
        (0, ["cp", f"{bundle}/rootfs/etc/passwd", f"{bundle}/own"]),
        (0, ["chown", f"{bundle}/rootfs/etc"]),
        (0, ["rm", f"{bundle}/rootfs/usr/share"]),
        (0, ["create", "--bundle", str(bundle), "e"]),
        (0, ["delete", "--force", "--purge", "e"]),
    ]


def trace(rt: Runtime, made: Bundle, place: Path, commands: list[tuple[int | None, list[str]]]) -> None:
    """Each command, and what it opened and executed."""
    traced = Traced(rt, place / f"traces-{rt.user.name}")
    traces = []
    for status, words in commands:
        if words[0] == "run":
            made.run(["/bin/true"])
        elif words[0] == "create":
            made.run(["/bin/sleep", "1000"])
        out, code, said = traced(*words)
        assert status in (None, code), (words, code, said)
        assert "Traceback" not in said, said
        traces.append((words, out))
    check(made, traces, place)


def test_no_command_touches_what_the_image_lays_out(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    made = trap(bundle())
    rt.user.owns(made.path)
    trace(rt, made, place, of_a_container(made.path) + without_one(made.path))


def test_nor_do_those_with_a_tool_of_the_host_s(
    rt: Runtime, bare: User, bundle: MakeBundle, place: Path
) -> None:
    """Of a user without a range: under strace newuidmap has no rights."""
    made = trap(bundle())
    map_ids(made, (0, bare.uid, 1), gids=((0, bare.gid, 1),))
    bare.owns(made.path)
    bare.owns(rt.root)
    trace(Runtime(bare, rt.root), made, place, on_files(made.path))


def test_nor_does_any_as_root(root_rt: Runtime, root_bundle: MakeBundle, place: Path) -> None:
    made = trap(root_bundle())
    trace(root_rt, made, place, of_a_container(made.path) + without_one(made.path) + on_files(made.path))


def test_every_command_there_is_is_tried() -> None:
    bundle = Path("/")
    tried = {words[0] for _, words in of_a_container(bundle) + without_one(bundle) + on_files(bundle)}
    assert tried == {command.name for command in COMMANDS}


def test_nor_with_hooks_a_terminal_and_failures(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    made = trap(bundle())
    rt.user.owns(made.path)
    traced, traces = Traced(rt, place / "traces"), []

    def hooks(config: Config) -> None:
        config["hooks"] = {
            kind: [{"path": "/bin/true"}]
            for kind in ("createRuntime", "createContainer", "startContainer", "poststart", "poststop")
        }

    def missing(config: Config) -> None:
        config["hooks"] = {}
        config["process"]["args"] = ["no-such-program"]

    def masked(config: Config) -> None:
        config["process"]["args"] = ["/bin/true"]
        config["linux"]["maskedPaths"] = ["/proc/kcore", "/etc/ld.so.preload"]

    for number, change in enumerate((hooks, missing)):
        made.run(["/bin/true"]).change(change)
        words = ["run", "--bundle", str(made.path), f"c{number}"]
        out, code, said = traced(*words)
        assert code == (0 if change is hooks else 1) and "Traceback" not in said, said
        traces.append((words, out))
    check(made, traces, place)


@pytest.mark.parametrize("kind", ["fifo", "sparse", "loop", "kmsg", "directory", "device"])
@pytest.mark.parametrize("name", ["passwd", "group"])
def test_no_form_of_the_image_s_accounts_holds_a_command_or_is_opened_for_reading(
    rt: Runtime, bundle: MakeBundle, place: Path, kind: str, name: str
) -> None:
    made = bundle(["/bin/true"])
    path = made.rootfs / "etc" / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 30)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        if os.getuid() != 0:
            pytest.skip("needs root, to make a device")
        os.mknod(path, 0o020666, os.makedev(1, 5))
    else:
        path.symlink_to({"loop": name, "kmsg": "/proc/kmsg"}[kind])
    rt.user.owns(made.path)
    traced = Traced(rt, place / "traces")
    out, code, said = traced("run", "--bundle", str(made.path), "c")
    assert (code, said) == (0, "")
    lines = [line for _, line in read(out).init]
    named = [line for line in lines if f"etc/{name}" in line]
    assert all("O_PATH" in line for line in named), named
    assert name == "passwd" or named == [], "nobody asked for groups"
    # What has been looked at is opened by its descriptor (O_NOCTTY: of these only passwd).
    if name == "passwd":
        assert [line for line in lines if '"self/fd/' in line and "O_NOCTTY" in line] == []
