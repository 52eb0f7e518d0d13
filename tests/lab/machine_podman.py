"""podman in a machine of tests/lab/machines, whose systemd makes the cgroups: as root, or as alice."""

from __future__ import annotations

import threading
from typing import Any

from lab.engines import Done
from lab.machines.machine import ROOTFS, Machine
from lab.podman import IMAGE, Podman

_CONFIGURATION = """\
[containers]
netns = "none"

[engine]
cgroup_manager = "systemd"
events_logger = "file"
runtime_supports_json = ["rt", "runc"]

[engine.runtimes]
rt = ["/usr/local/bin/rt"]
"""
_IMPORT = f"tar -C {ROOTFS} -c . | podman import --quiet --change 'ENV PATH=/bin:/usr/bin' - {IMAGE}"
_TURN = threading.Lock()  # a machine does one thing at a time, and a case runs on two runtimes at once


def configure(machine: Machine) -> None:
    """What every user's podman goes by."""
    machine.write("/etc/containers/containers.conf", _CONFIGURATION)


class MachinePodman(Podman):
    """podman of one user of the machine, on that user's own storage."""

    def __init__(self, machine: Machine, account: str) -> None:
        self.machine, self.account = machine, account
        self.mode = f"{'root' if account == 'root' else 'rootless'}, systemd"
        self.runtime = "runc"
        machine.ok(_IMPORT, account, timeout=120)

    @property
    def rootless(self) -> bool:
        return self.account != "root"

    def argv(self, *words: str) -> list[str]:
        return ["podman", "--cgroup-manager", "systemd", "--runtime", self.runtime, *words]

    def __call__(self, *words: str, timeout: float = 120, stdin: str = "", **options: Any) -> Done:
        return self.shell(self.argv(*words), timeout=timeout, stdin=stdin or None, **options)

    def shell(self, command: str | list[str], **options: Any) -> Done:
        """Run any command there as the user."""
        with _TURN:
            done = self.machine.run(command, self.account, **options)
        return Done([command] if isinstance(command, str) else command, done.code, done.stdout, done.stderr)

    def files(self, cgroup: str, *names: str) -> list[str]:
        """The lines of these files of a cgroup (its path from the mount point on)."""
        done = self.shell(["cat", *(f"/sys/fs/cgroup{cgroup}/{name}" for name in names)])
        assert done.code == 0, str(done)
        return done.out.splitlines()

    def cgroup(self, name: str) -> str:
        """Where the first process of a running container is."""
        done = self.shell(["sed", "-n", "s/^0:://p", f"/proc/{self.inspect(name, '.State.Pid')}/cgroup"])
        assert done.code == 0 and done.out.startswith("/"), str(done)
        return done.out.strip()

    def systemctl(self, *words: str) -> str:
        """The output of a command of the user's, or root's, service manager."""
        return self.shell(["systemctl", *(["--user"] if self.rootless else []), *words]).out.strip()
