"""Times engines on rt, runc and crun: `podman run --rm` and `ctr run --rm` of true. How to is in README.md.

Everything runs in mount, pid and network namespaces of its own, with storage in a directory of its
own: engines and what they mount end with the benchmark. Their cgroups do not, and are removed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import facts
import report
from contest import Peer
from measure import Failed, LoadMark, Spawner, wait_for_quiet
from results import summary

CHECKOUT = Path(__file__).resolve().parent.parent
PEERS = ("rt", "runc", "crun")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
IMAGE = "docker.io/library/bench:1"
UNIFIED = "/sys/fs/cgroup/unified"

# Some versions of crun refuse hosts with both kinds of cgroups: in here there is only the old one.
SET_UP = f"""set -e
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 shm /dev/shm
ip link set lo up
if mountpoint -q {UNIFIED}; then umount -l {UNIFIED}; fi
exec "$@"
"""
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime_supports_json = ["rt", "runc", "crun"]
"""
CONFIG = """\
version = 2
root = "{base}/root"
state = "{base}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]

[grpc]
  address = "{base}/c.sock"

[ttrpc]
  address = "{base}/t.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "{base}/opt"
"""


def save_image(to: Path) -> None:
    """Write an image with a static busybox, in the form of `docker save`. Raises Failed without one."""
    busybox = shutil.which("busybox", path=PATH)
    if busybox is None:
        raise Failed("needs busybox: apt install busybox-static")
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as packed:
        packed.add(busybox, arcname="bin/busybox")
        link = tarfile.TarInfo("bin/true")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        packed.addfile(link)
        for name in ("proc", "sys", "dev", "etc", "run", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            packed.addfile(folder)
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer.getvalue())}"]},
        "history": [{}],
    }
    text = json.dumps(config).encode()
    names = [{"Config": f"{_digest(text)}.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(to, "w") as image:
        for member, data in (
            (f"{_digest(text)}.json", text),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(names).encode()),
        ):
            entry = tarfile.TarInfo(member)
            entry.size, entry.mode = len(data), 0o644
            image.addfile(entry, io.BytesIO(data))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Podman:
    """podman as root on overlay, without a network."""

    name = "podman"

    def __init__(self, base: Path, spawner: Spawner, image: Path, space: str) -> None:
        (base / "containers.conf").write_text(CONTAINERS_CONF)
        spawner.env["CONTAINERS_CONF"] = str(base / "containers.conf")
        self.words = [_program("podman"), "--root", f"{base}/store", "--runroot", f"{base}/run"]
        self.words += ["--tmpdir", f"{base}/tmp", "--storage-driver", "overlay"]
        spawner.time([*self.words, "load", "--quiet", "--input", str(image)])

    def run(self, runtime: str, number: int) -> list[str]:
        """The command line to time."""
        return [*self.words, "--runtime", runtime, "run", "--rm", "--cgroups", "enabled", IMAGE, "true"]

    def close(self) -> None:
        """Nothing stays of it but files."""


class Ctr:
    """ctr and a containerd of its own, as root."""

    name = "ctr"

    def __init__(self, base: Path, spawner: Spawner, image: Path, space: str) -> None:
        (base / "config.toml").write_text(CONFIG.format(base=base))
        # A namespace of containerd's: ctr makes the cgroups of containers below one of this name.
        self.words = [_program("ctr"), "--address", f"{base}/c.sock", "--namespace", space]
        log = (base / "containerd.log").open("wb")
        argv = [_program("containerd"), "--config", f"{base}/config.toml"]
        self.daemon = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=spawner.env
        )
        end = time.monotonic() + 20
        while not (base / "c.sock").is_socket():
            if self.daemon.poll() is not None or time.monotonic() > end:
                raise Failed("containerd does not listen")
            time.sleep(0.05)
        spawner.time([*self.words, "image", "import", str(image)])

    def run(self, runtime: str, number: int) -> list[str]:
        """The command line to time."""
        return [*self.words, "run", "--rm", "--runc-binary", runtime, IMAGE, f"bench{number}", "true"]

    def close(self) -> None:
        """End the daemon."""
        self.daemon.terminate()
        self.daemon.wait()


ENGINES = (Podman, Ctr)


def _program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        raise Failed(f"no {name} here")
    return found


def measure(
    engine: type[Podman | Ctr], peers: dict[str, str], rounds: int, base: Path, space: str
) -> dict[str, Any]:
    """Times each peer once a round, in turns, after one run of each that does not count."""
    cells: dict[str, dict[str, Any]] = {}
    load = 0.0
    spawner = Spawner({"PATH": PATH, "HOME": str(base), "LC_ALL": "C"}, base)
    save_image(base / "image.tar")
    at_work = engine(base, spawner, base / "image.tar", space)
    number = 0
    try:
        wait_for_quiet(10)
        mark = LoadMark.now()
        for turn in range(rounds + 1):
            for peer, path in peers.items():
                cell = cells.setdefault(peer, {"ms": []})
                if "reason" in cell:
                    continue
                number += 1
                try:
                    took = spawner.time(at_work.run(path, number))
                except Failed as error:
                    cells[peer] = {"reason": str(error)}
                    continue
                if turn:
                    cell["ms"].append(took)
        load = mark.since()
    finally:
        at_work.close()
    row = {"measure": f"{engine.name} run --rm true", "peers": cells}
    return {"case": engine.name, "rows": [row], "memory": [], "curves": [], "load": load}


def inside(options: argparse.Namespace, peers: dict[str, str]) -> None:
    """Print the table; in the namespaces."""
    results = []
    for engine in ENGINES:
        if engine.name in options.only:
            # Below the new /run: it is gone with the namespace, whatever an engine leaves mounted in it.
            base = Path(tempfile.mkdtemp(prefix="bench-", dir="/run"))
            try:
                results.append(measure(engine, peers, options.rounds, base, options.inside))
            except Failed as error:
                cells = {peer: {"reason": str(error)} for peer in PEERS}
                row = {"measure": engine.name, "peers": cells}
                results.append({"case": engine.name, "rows": [row], "memory": [], "curves": []})
    for result in results:
        for name in set(PEERS) - set(peers):
            result["rows"][0]["peers"].setdefault(name, {"reason": f"no {name} on PATH"})
    programs = [*peers.values(), *map(_path, options.only)]
    known = facts.environment([Peer(Path(path).name, path) for path in programs], options.rounds)
    print(report.render(summary(known, results), PEERS, markdown=options.markdown))


def _path(name: str) -> str:
    return shutil.which(name, path=PATH) or name


def _cgroups(name: str) -> list[Path]:
    """Where cgroups of this name would be, in every hierarchy."""
    top = Path("/sys/fs/cgroup")
    return [top / name, *(path / name for path in top.iterdir() if path.is_dir())]


def remove_cgroups(tops: list[Path]) -> None:
    """Remove these cgroups and those below them; what somebody is in stays."""
    for top in tops:
        for where, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(where)
            except OSError:
                continue


def main() -> int:
    names = [engine.name for engine in ENGINES]
    parser = argparse.ArgumentParser(description="Times engines on rt, runc and crun.")
    parser.add_argument("--rt", default=str(CHECKOUT / "build/rt"), metavar="PATH", help="the rt to time")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="goes of each peer (default 20)")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--markdown", action="store_true", help="tables as for a README")
    parser.add_argument("--inside", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    if os.getuid() != 0:
        print("not measured: needs root", file=sys.stderr)
        return 1
    if not options.inside:
        unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        space = f"rtbench-{os.getpid()}"
        again = [sys.executable, *sys.argv, "--inside", space]
        mine = [*_cgroups(space), *(path for path in _cgroups("libpod_parent") if not path.exists())]
        try:
            return subprocess.run([*unshare, "sh", "-c", SET_UP, "sh", *again], check=False).returncode
        finally:
            remove_cgroups(mine)
    found = {name: shutil.which(name, path=PATH) for name in PEERS} | {"rt": shutil.which(options.rt)}
    inside(options, {name: os.path.abspath(path) for name, path in found.items() if path})
    return 0


if __name__ == "__main__":
    sys.exit(main())
