"""containerd of the machine, with storage and state of its own: `ctr`, and the kubelet's interface."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from typing import Any

from lab.engines import RUNTIMES, Done
from lab.users import User, own_user
from lab.ward import IMAGE, PAUSE, Ward

_NUMBERS = itertools.count()

# What docs/engines.md shows, with places of our own. What has not answered in 2 to 5 s containerd takes for
# dead and cleans up, in 5 s more: on a busy machine that is too soon.
CONFIG = """\
version = 2
root = "{base}/root"
state = "{base}/state"
disabled_plugins = [{disabled}]

[grpc]
  address = "{base}/c.sock"

[ttrpc]
  address = "{base}/t.sock"

[timeouts]
  "io.containerd.timeout.shim.cleanup" = "60s"
  "io.containerd.timeout.shim.load" = "60s"
  "io.containerd.timeout.shim.shutdown" = "60s"
  "io.containerd.timeout.task.state" = "60s"

[plugins."io.containerd.internal.v1.opt"]
  path = "{base}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{base}/cni"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{runc}"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.rt]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.rt.options]
      BinaryName = "{rt}"
"""

NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "rtpods0",
            "isGateway": True,
            "ipMasq": False,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "172.31.77.0/24"}]]},
        }
    ],
}


class Containerd:
    """A containerd in a ward; called with words it runs `ctr`, `on` sets the runtime."""

    engine = "containerd"

    def __init__(self, ward: Ward, user: User | None = None) -> None:
        self.ward, self.user = ward, user or own_user()
        self.rootless = user is not None
        self.mode = "ctr, rootless" if user else "ctr, root"
        self.base = ward.base / ("cd-user" if user else "cd")
        self.runtime = "runc"
        # Of containerd's own names; ctr's containers have cgroups below one of this name.
        self.space = ward.cgroup.strip("/") + ("-user" if user else "")
        (self.base / "cni").mkdir(parents=True)
        network = json.loads(json.dumps(NETWORK))
        network["plugins"][0]["ipam"]["dataDir"] = str(self.base / "addresses")
        (self.base / "cni/10-pods.conflist").write_text(json.dumps(network))
        config = self.base / "config.toml"
        disabled = '"io.containerd.grpc.v1.cri"' if user else ""
        config.write_text(CONFIG.format(base=self.base, pause=PAUSE, disabled=disabled, **RUNTIMES))
        words = ["containerd", "--config", str(config)]
        if user:
            user.owns(self.base)
            ward.delegate(f"/{self.space}", user)
            kit = ["rootlesskit", f"--state-dir={self.base}/kit", "--copy-up=/etc", "--copy-up=/run"]
            words = [*kit, "sh", "-c", 'rm -rf /run/containerd /run/runc; exec "$@"', "sh", *words]
        self.words = words
        self.serve()
        spaces = [self.space] if user else [self.space, "k8s.io"]
        for space in spaces:
            for image in (ward.image, ward.pause):
                done = self("image", "import", "--no-unpack", str(image), space=space)
                assert done.code == 0, str(done)

    def serve(self) -> None:
        """Start the daemon, again after `kill`."""
        socket = self.base / "c.sock"
        socket.unlink(missing_ok=True)
        self.ward.daemon(self.base.name, *self.words, ready=socket, user=self.user)

    def kill(self) -> None:
        """End the daemon as by an accident; shims and containers go on."""
        self.ward.ok("pkill", "-KILL", "-f", f"containerd --config {self.base}")

    def on(self, runtime: str) -> Containerd:
        """The same engine, with containers made by this runtime."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, runtime=runtime)
        return other

    def name(self) -> str:
        """A name no other container has."""
        return f"{self.runtime}-{os.getpid()}-{next(_NUMBERS)}"

    def beside(self, *words: str) -> list[str]:
        """The words to start so that they run where the daemon does."""
        if not self.rootless:
            return [*words]
        inside = (self.base / "kit/child_pid").read_text().strip()
        return ["nsenter", f"--target={inside}", "--user", "--mount", "--preserve-credentials", *words]

    def argv(self, *words: str, space: str = "") -> list[str]:
        ctr = ["ctr", "--address", f"{self.base}/c.sock", "--namespace", space or self.space]
        return self.beside(*ctr, *words)

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command of ctr and return at once."""
        return self.ward.popen(*self.argv(*words), user=self.user, **options)

    def __call__(self, *words: str, space: str = "", **options: Any) -> Done:
        return self.ward(*self.argv(*words, space=space), user=self.user, **options)

    def ok(self, *words: str, **options: Any) -> str:
        """A command that must succeed; its stdout, without the last newline."""
        done = self(*words, **options)
        assert done.code == 0, str(done)
        return done.out.rstrip("\n")

    def run_words(self, *options: str) -> list[str]:
        """`ctr run` on this runtime with these options; the name, and the words of the program, follow."""
        which = ["--runtime", "io.containerd.runc.v2", "--runc-binary", RUNTIMES[self.runtime]]
        return ["run", *which, *options, IMAGE]

    def attempt(self, *program: str, options: tuple[str, ...] = (), **more: Any) -> Done:
        """`ctr run --rm` of a program, to its end."""
        return self(*self.run_words("--rm", *options), self.name(), *program, **more)

    def run(self, *program: str, options: tuple[str, ...] = (), **more: Any) -> str:
        """The output of a program in a container that is removed afterwards."""
        done = self.attempt(*program, options=options, **more)
        assert done.code == 0, str(done)
        return done.out.rstrip("\n")

    def start(self, *program: str, options: tuple[str, ...] = ()) -> str:
        """Start a container in the background; its name."""
        name = self.name()
        self.ok(*self.run_words("--detach", *options), name, *program)
        return name

    def exec(self, name: str, *program: str, options: tuple[str, ...] = (), **more: Any) -> Done:
        return self("task", "exec", "--exec-id", self.name(), *options, name, *program, **more)

    def status(self, name: str) -> str:
        """RUNNING, PAUSED, STOPPED, or "" when there is no task."""
        rows = [line.split() for line in self.ok("task", "list").splitlines()]
        return next((row[2] for row in rows if row[0] == name), "")

    def pid(self, name: str) -> int:
        """The pid of the container's program, as seen in the ward."""
        rows = [line.split() for line in self.ok("task", "list").splitlines()]
        return next(int(row[1]) for row in rows if row[0] == name)

    def remove(self, name: str) -> None:
        """Remove a container, running or not."""
        self("task", "delete", "--force", name)
        self.ok("container", "delete", name)

    def forget(self, name: str) -> None:
        """What an administrator does about a container that the daemon no longer knows."""
        root = f"/run/containerd/runc/{self.space}"
        self.ward.ok(*self.beside(RUNTIMES[self.runtime], "--root", root, "delete", "--force", name))

    def state_of(self, name: str) -> list[str]:
        """What runtimes keep about a container in the directory of states."""
        script = f"ls -d /run/containerd/runc/*/{name} 2>/dev/null"
        return self.ward(*self.beside("sh", "-c", script), user=self.user).out.split()

    def close(self) -> None:
        """End the daemon of an ordinary user, and all that runs as that user; root's ends with the ward."""
        if self.rootless:
            self.ward.end_all_of(self.user)
