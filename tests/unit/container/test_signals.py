"""Where the ending signals strike. In processes of their own: handlers and masks are a process's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TREE = str(Path(__file__).parents[3])
HEAD = f"""
import os, signal, sys
sys.path.insert(0, {TREE!r})
from rootless_rt.container import signals
me = os.getpid()
signals.catch()
"""


def outcome(script: str) -> str:
    """What a script says on stdout; it must end with 0."""
    done = subprocess.run([sys.executable, "-c", HEAD + script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.mark.parametrize("number", [1, 2, 3, 15])
def test_a_held_signal_strikes_where_it_is_let_through(number: int) -> None:
    script = f"""
try:
    with signals.held():
        os.kill(me, {number})
        print("held")
        with signals.let_through():
            print("not reached")
except signals.Interrupted as error:
    print(error.number)
"""
    assert outcome(script) == f"held\n{number}\n"


def test_a_signal_held_to_the_end_strikes_behind_it() -> None:
    script = """
try:
    with signals.held():
        os.kill(me, 15)
        print("held")
except KeyboardInterrupt as error:
    print("struck", error.number)
"""
    assert outcome(script) == "held\nstruck 15\n"


def test_several_signals_at_once_strike_once() -> None:
    script = """
signals.hold()
for number in signals.ENDING:
    os.kill(me, number)
try:
    signals.release()
except signals.Interrupted:
    for _ in range(1000):
        pass
    os.kill(me, 15)
    print("taken back")
"""
    assert outcome(script) == "taken back\n"


def test_a_wait_is_broken_off() -> None:
    script = """
import threading, time
source, sink = os.pipe()
threading.Timer(0.1, os.kill, (me, 15)).start()
try:
    with signals.held(), signals.let_through():
        os.read(source, 1)
except signals.Interrupted:
    print("broken off")
"""
    assert outcome(script) == "broken off\n"


def test_what_the_caller_ignores_stays_ignored() -> None:
    script = """
signal.signal(1, signal.SIG_IGN)
signals.catch()
os.kill(me, 1)
print("alive")
"""
    assert outcome(script) == "alive\n"


def test_masks_come_back_as_they_were() -> None:
    script = """
signal.pthread_sigmask(signal.SIG_BLOCK, {15, 10})
with signals.held():
    with signals.let_through():
        print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
    print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
"""
    # What the program has blocked itself is not let through.
    assert outcome(script) == "[10, 15]\n[1, 2, 3, 10, 15]\n[10, 15]\n"


def test_a_command_lets_through_what_its_caller_has_blocked() -> None:
    script = """
signal.pthread_sigmask(signal.SIG_BLOCK, {15, 10})
signals.hold()
with signals.let_through():
    print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
"""
    assert outcome(script) == "[10]\n[1, 2, 3, 10, 15]\n"
