"""Docker of the machine: a daemon with storage and state of its own in a ward, as root or rootless."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab.engines import RUNTIMES, Done
from lab.users import User, own_user
from lab.waiting import until
from lab.ward import Ward

IMAGE = "busybox:1"
_NUMBERS = itertools.count()

# BuildKit inside dockerd calls whatever `runc` is first in the daemon's PATH, and no other runtime.
_FRONT = """#!/bin/sh
read which < {base}/buildkit
echo "$which" >> {base}/buildkit.calls
exec "$which" "$@"
"""
# What Debian's dockerd-rootless.sh does, with a state directory of our own.
_KIT = [
    *("--net=slirp4netns", "--mtu=65520", "--slirp4netns-sandbox=auto", "--slirp4netns-seccomp=auto"),
    *("--disable-host-loopback", "--port-driver=builtin", "--copy-up=/etc", "--copy-up=/run"),
    "--propagation=rslave",
]


class Docker:
    """A dockerd in a ward; called with words it runs `docker`, `on` sets the runtime."""

    engine = "docker"

    def __init__(self, ward: Ward, user: User | None = None) -> None:
        self.ward, self.user = ward, user or own_user()
        self.rootless = user is not None
        self.mode = "rootless" if user else "root"
        self.base = ward.base / ("docker-user" if user else "docker")
        self.runtime = "runc"
        self.one_default = threading.Lock()
        (self.base / "bin").mkdir(parents=True)
        (self.base / "bin/runc").write_text(_FRONT.format(base=self.base))
        (self.base / "bin/runc").chmod(0o755)
        self.configure("runc")
        words = self._daemon()
        if user:
            user.owns(self.base)
            kit = ["rootlesskit", f"--state-dir={self.base}/kit", *_KIT]
            clear = 'rm -rf /run/docker /run/containerd /run/xtables.lock; exec "$@"'
            words = [*kit, "sh", "-c", clear, "sh", *words]
        path = f"{self.base}/bin:{ward.environment()['PATH']}"
        ready = self.base / "d.sock"
        ward.daemon(self.base.name, *words, ready=ready, user=user, env={"PATH": path})
        self.ok("load", "--input", str(ward.image))

    def _daemon(self) -> list[str]:
        base = self.base
        words = ["dockerd", "--config-file", f"{base}/daemon.json", "--host", f"unix://{base}/d.sock"]
        words += ["--data-root", f"{base}/data", "--exec-root", f"{base}/exec", "--pidfile", f"{base}/pid"]
        if not self.rootless:
            words += ["--cgroup-parent", self.ward.cgroup]
        return words

    def configure(self, default: str) -> None:
        """Write the daemon's configuration: what docs/engines.md shows."""
        config = {
            "default-runtime": default,
            "runtimes": {"rt": {"path": RUNTIMES["rt"]}},
        }
        (self.base / "daemon.json").write_text(json.dumps(config))
        (self.base / "buildkit").write_text(RUNTIMES[default] + "\n")

    @contextmanager
    def as_default(self) -> Iterator[None]:
        """Meanwhile this runtime is the daemon's default one, and BuildKit's."""
        with self.one_default:
            self.configure(self.runtime)
            self.reload()
            try:
                yield
            finally:
                self.configure("runc")

    def reload(self) -> None:
        """Have the daemon read its configuration again."""
        self.ward.ok("sh", "-c", f"kill -{int(signal.SIGHUP)} $(cat {self.base}/pid)")
        until(lambda: self.info("DefaultRuntime") == self.runtime, f"{self.runtime} is the default")

    def info(self, field: str) -> str:
        return self.ok("info", "--format", "{{." + field + "}}")

    def on(self, runtime: str) -> Docker:
        """The same engine, with containers made by this runtime."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, runtime=runtime)
        return other

    def argv(self, *words: str) -> list[str]:
        return ["docker", "--host", f"unix://{self.base}/d.sock", *words]

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command and return at once."""
        return self.ward.popen(*self.argv(*words), user=self.user, **options)

    def __call__(self, *words: str, **options: Any) -> Done:
        return self.ward(*self.argv(*words), user=self.user, **options)

    def ok(self, *words: str, **options: Any) -> str:
        """A command that must succeed; its stdout, without the last newline."""
        done = self(*words, **options)
        assert done.code == 0, str(done)
        return done.out.rstrip("\n")

    def attempt(self, *words: str, **options: Any) -> Done:
        """`docker run --rm` with these words: options, then a program (behind "--" where that is unclear)."""
        return self("run", "--rm", "--runtime", self.runtime, *_with_image(words), **options)

    def run(self, *words: str, **options: Any) -> str:
        """The output of a program that must succeed."""
        done = self.attempt(*words, **options)
        assert done.code == 0, str(done)
        return done.out.rstrip("\n")

    def start(self, *words: str) -> str:
        """Start a container in the background; its name."""
        name = self.name()
        self.ok("run", "-d", "--name", name, "--runtime", self.runtime, *_with_image(words))
        return name

    def name(self) -> str:
        """A name no other container has."""
        return f"{self.runtime}-{os.getpid()}-{next(_NUMBERS)}"

    def inspect(self, name: str, form: str) -> str:
        return self.ok("inspect", "--format", "{{" + form + "}}", name)

    def until(self, name: str, form: str, value: str) -> None:
        """Wait until a field of `docker inspect` has this value."""
        until(lambda: self.inspect(name, form) == value, f"{name}: {form} is {value}")

    def remove(self, *names: str) -> None:
        self.ok("rm", "--force", *names)

    def close(self) -> None:
        """End the daemon of an ordinary user, and all that runs as that user; root's ends with the ward."""
        if self.rootless:
            self.ward.end_all_of(self.user)


def _with_image(words: tuple[str, ...]) -> list[str]:
    """The image put behind the options: before "--", or before the first word without a dash."""
    if "--" in words:
        cut = words.index("--")
        return [*words[:cut], IMAGE, *words[cut + 1 :]]
    cut = next((n for n, word in enumerate(words) if not word.startswith("-")), len(words))
    return [*words[:cut], IMAGE, *words[cut:]]
