"""The line of CRIU's log that says why, and what helps."""

from __future__ import annotations

import pytest

from rootless_rt.criu import log

TRIALS = """\
(00.027967) PAGEMAP_SCAN is supported
(00.028815) Error (criu/tun.c:85): tun: Unable to create tun: Operation not permitted
"""
UNLIMITED = (
    "(00.14) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
)


@pytest.mark.parametrize(
    "begin",
    [
        "(00.1) Dumping processes (pid: 7 comm: sh)\n",
        "(00.1) Reading image tree\n",
        "(00.1) files stat: fs/nr_open 1048576\n",
    ],
)
def test_what_the_kernel_cannot_do_is_not_why_it_failed(begin):
    text = (
        TRIALS
        + begin
        + UNLIMITED
        + (
            "(00.35)      1: Error (criu/files-reg.c:2353): Can't open file fd/1:  No such\tfile\n"
            "(00.36)      1: Error (criu/files.c:1221): Unable to open fd=1 id=0x3\n"
            "(00.37) Error (criu/cr-restore.c:2320): Restoring FAILED.\n"
        )
    )
    assert log.reason(text.splitlines()) == "Can't open file fd/1: No such file"


def test_without_its_work_begun_the_trials_count():
    assert log.reason(TRIALS.splitlines()) == "tun: Unable to create tun: Operation not permitted"
    assert log.reason([]) == log.reason(["(00.1) Warn  (criu/x.c:1): y\n"]) == ""
    assert log.reason(["Error (criu/cr-check.c:1): Kernel too old.\n"]) == "Kernel too old"


@pytest.mark.parametrize(
    ("said", "option"),
    [
        ("inet: Connected TCP socket, consider using --tcp-established option.", "--tcp-established"),
        ("unix: Unix socket 1 without peer 2", "--ext-unix-sk"),
        ("Some file locks are hold by dumping tasks! You can try --file-locks", "--file-locks"),
        ("Can't lookup mount=29 for fd=0 path=/dev/pts/0", "--shell-job"),
        ("Can't create link remap for /one. Use link-remap option.", "--link-remap"),
        ("Can't fork for 4711: File exists", "process id is taken"),
        ("File fd/2 has bad size 0 (expect 235)", ">> FILE"),
        ("page-xfer: Unable to spice data: No space left on device", "make room"),
        ("sockets: Can't get 1:16 opt: Operation not supported", "4.2"),
        ("something else", ""),
    ],
)
def test_what_criu_asks_for_is_named_as_an_option_of_rt(said, option):
    assert option in log.hint(said)
    assert bool(option) == bool(log.hint(said))
