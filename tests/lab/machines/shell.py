"""`make lane-ns`, `make lane-uml`, `make lane-qemu`: a machine of the test lanes for a person.

Each line is run there as a shell would, by root at first; `as alice` or `as root` changes who. The machine
ends with the input. It is the very machine that the tests have, with the source tree's rt on PATH.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager

from lab.machines.boot import qemu_machine, systemd_machine, uml_machine
from lab.machines.debian import Unavailable
from lab.machines.machine import UIDS, Machine
from lab.users import made_user

LIMIT = 600  # seconds for one line


def serve(machine: Machine) -> None:
    """Run line after line, each in a shell of its own."""
    user = "root"
    print(f"users: {', '.join(UIDS)}; change with `as USER`; end with Ctrl-D")
    while True:
        try:
            line = input(f"{user}@machine$ ")
        except EOFError:
            print()
            return
        words = line.split()
        if words[:1] == ["as"] and words[1:] in ([name] for name in UIDS):
            user = words[1]
            continue
        if not words:
            continue
        try:
            done = machine.run(line, user=user, timeout=LIMIT)
        except AssertionError as late:
            print(late)
            continue
        print(done.stdout, end="")
        print(done.stderr, end="", file=sys.stderr)
        if done.code:
            print(f"[{done.code}]")


def main(kind: str) -> int:
    """Boot the machine `kind` ("ns", "uml" or "qemu") and serve it; 1 when there can be none here."""
    try:
        with made_user("lane", ranges=True) as user:
            booted: AbstractContextManager[Machine]
            if kind == "ns":
                booted = systemd_machine()
            else:
                booted = uml_machine(user) if kind == "uml" else qemu_machine(user)
            with booted as machine:
                serve(machine)
    except Unavailable as reason:
        print(f"there can be no such machine here: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
