"""Where, when and with what a run was measured. Nothing that names the machine."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from contest import Peer


def environment(peers: Sequence[Peer], rounds: int) -> dict[str, str]:
    """What to know of a run, by name, in the order of the report."""
    found = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "kernel": f"{platform.release().partition('-')[0]} {platform.machine()}",
        "CPUs": f"{os.cpu_count()} {_model()}".strip(),
        "python of the benchmark": platform.python_version(),
        "rounds": str(rounds),
    }
    for peer in peers:
        found[peer.name] = f"{version(peer.path)}{_interpreter(peer.path)}"
    return found


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    models = [line for line in lines if line.startswith("model name")]
    return models[0].split(":", 1)[1].strip() if models else ""


def version(path: str) -> str:
    """The first line of what a program says about itself."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"version unknown ({error})"
    return (done.stdout.strip().splitlines() or ["version unknown"])[0]


def _interpreter(path: str) -> str:
    """The first line of a script, which says what interpreter its time includes; nothing for a binary."""
    with open(path, "rb") as file:
        first = file.readline(200)
    return f" ({first.decode(errors='replace').strip()})" if first.startswith(b"#!") else ""
