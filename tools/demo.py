"""`./try`: from a fresh clone to a container that an ordinary user runs, showing what is isolated in it.

    try                  set up, build, run the demonstration
    try --shell          the same container with a shell on this terminal
    try --remove         take away what it made: .venv, build, demo, and the user it made for root

As root it prepares the machine (setup.packages) and hands over to an ordinary user: the one who called sudo,
when the tree is theirs, else `rt-demo`, made for this, who gets a copy of the tree, for root's may lie where
no one else can look.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import setup
from setup import ROOT, TREE, SetupError, say

USER = "rt-demo"
MADE_HERE = "made by ./try of rt"  # an account without this comment is somebody's, and stays
BUNDLE = TREE / "demo"
# Runs outside and inside, and prints the same facts. The shell's own words where they do, for a root file
# system may have few commands.
SHOW = r"""
fact() { printf '  %-12s %.90s\n' "$@"; }
fact user "$(id -un), uid $(id -u)"
fact "host name" "$(hostname)"
fact "own pid" $$
set -- /proc/[0-9]*
fact processes $#
fact network "$(while IFS=' :' read -r name rest; do
    case $rest in [0-9]*) printf '%s ' "$name" ;; esac
done </proc/net/dev)"
while read -r device where kind rest; do
    [ "$where" = / ] && mount="$kind, ${rest%%,*}"
done </proc/mounts
fact "root dir" "$mount: $(cd / && echo *)"
while read -r inside outside count; do
    case $count in
    4294967295) fact "uid map" "none" ;;
    1) fact "uid map" "$inside inside is $outside outside" ;;
    *) fact "uid map" "$inside-$((inside + count - 1)) inside is $outside-$((outside + count - 1)) outside" ;;
    esac
done </proc/self/uid_map
"""


def ordinary_user() -> tuple[pwd.struct_passwd, Path]:
    """Whom root hands over to, and the tree that they use."""
    sudo_uid = os.environ.get("SUDO_UID", "0")
    if sudo_uid.isdecimal() and int(sudo_uid) != 0 and TREE.stat().st_uid == int(sudo_uid):
        return pwd.getpwuid(int(sudo_uid)), TREE
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        say(f"making the ordinary user {USER}")
        setup.quietly(["useradd", "--create-home", "--shell", "/bin/sh", "--comment", MADE_HERE, USER])
        user = pwd.getpwnam(USER)
    return user, setup.copy_to_home(user)


def hand_over(arguments: list[str]) -> int:
    """Runs this again as an ordinary user; returns the exit status."""
    setup.packages(setup.FOR_RT)
    user, tree = ordinary_user()
    say(f"going on as the ordinary user {user.pw_name}, in {tree}")
    return setup.run_as(user, [str(tree / "try"), *arguments], tree)


def make_bundle(rt: Path) -> None:
    """demo/: a root file system from the host's own programs, and a config.json for an ordinary user."""
    if (BUNDLE / "config.json").exists():
        return
    say("making a bundle in demo/ from this machine's programs")
    shutil.rmtree(BUNDLE, ignore_errors=True)
    BUNDLE.mkdir()
    try:
        setup.quietly([rt, "spec", "--rootless", "--idmap", "auto", "--rootfs-from-host"], cwd=BUNDLE)
    except SetupError:
        shutil.rmtree(BUNDLE, ignore_errors=True)
        raise


def run(rt: Path, arguments: list[str], *, terminal: bool) -> int:
    """Runs a command in the demo bundle; returns its exit status."""
    config_path = BUNDLE / "config.json"
    config = json.loads(config_path.read_text())
    config["hostname"] = "rt-demo"
    config["process"]["terminal"] = terminal
    config["process"]["args"] = arguments
    namespaces = config["linux"]["namespaces"]
    if {"type": "network"} not in namespaces:  # an ordinary user's config shares the host's network
        namespaces.append({"type": "network"})
    config_path.write_text(json.dumps(config, indent="\t") + "\n")
    print(f"\n$ cd {BUNDLE} && {rt} run demo", flush=True)
    stdin = None if terminal else subprocess.DEVNULL
    command = [str(rt), "run", f"demo-{os.getpid()}"]
    return subprocess.run(command, cwd=BUNDLE, stdin=stdin, check=False).returncode


def remove() -> None:
    for name in (".venv", "build", "demo"):
        shutil.rmtree(TREE / name, ignore_errors=True)
    ours = ROOT and any((entry.pw_name, entry.pw_gecos) == (USER, MADE_HERE) for entry in pwd.getpwall())
    if ours:
        setup.quietly(["userdel", "--remove", USER])
    say("removed .venv, build, demo" + (f" and the user {USER}" if ours else ""))


def main(arguments: list[str]) -> int:
    if arguments in (["-h"], ["--help"]) or arguments not in ([], ["--shell"], ["--remove"]):
        print("usage: ./try [--shell | --remove]")
        return 0 if arguments in (["-h"], ["--help"]) else 2
    if arguments == ["--remove"]:
        remove()
        return 0
    if ROOT:
        return hand_over(arguments)
    setup.packages(setup.FOR_RT)
    rt = setup.install()
    make_bundle(rt)
    if arguments:
        return run(rt, ["sh"], terminal=True)
    print("\nOutside:", flush=True)
    subprocess.run(["sh", "-c", SHOW], stdin=subprocess.DEVNULL, check=False)
    status = run(rt, ["sh", "-c", SHOW], terminal=False)
    if status == 0:
        me = pwd.getpwuid(os.getuid()).pw_name
        print(f"\nThat was a container, run by {rt} as {me}, without root.")
        print("A shell in it:     ./try --shell")
        print("Take it all away:  ./try --remove")
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SetupError as problem:
        print(f"rt set-up: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
