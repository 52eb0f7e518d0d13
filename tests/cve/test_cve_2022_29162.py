"""CVE-2022-29162: capabilities that `exec --cap` adds must not become inheritable, nor ambient by that."""

from __future__ import annotations

import pytest
from conftest import Either, MakeBundle
from lab.bundles import Config
from lab.runtime import Runtime

NET_RAW = 1 << 13


def sets(text: str) -> dict[str, int]:
    return {line.split(":")[0]: int(line.split()[1], 16) for line in text.splitlines()}


@pytest.mark.parametrize("word", ["CAP_NET_RAW", "NET_RAW", "net_raw", "cap_net_raw"])
def test_an_added_capability_is_not_inheritable(either: Either, word: str) -> None:
    rt, bundle = either
    rt.ok("run", "--detach", "--bundle", str(bundle(["/bin/sleep", "100"]).path), "c")
    look = ("c", "/bin/grep", "Cap", "/proc/self/status")
    plain, added = sets(rt.ok("exec", *look)), sets(rt.ok("exec", "--cap", word, *look))
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert not plain[name] & NET_RAW and added[name] == plain[name] | NET_RAW, (name, plain, added)
    assert added["CapInh"] == plain["CapInh"] == 0 and added["CapAmb"] == plain["CapAmb"] == 0


def test_not_even_where_the_container_has_inheritable_ones(either: Either) -> None:
    rt, bundle = either

    def inheritable(config: Config) -> None:
        config["process"]["capabilities"]["inheritable"] = ["CAP_KILL"]
        config["process"]["capabilities"]["ambient"] = ["CAP_KILL"]

    made = bundle(["/bin/sleep", "100"]).change(inheritable)
    rt.ok("run", "--detach", "--bundle", str(made.path), "c")
    added = sets(rt.ok("exec", "--cap", "NET_RAW", "c", "/bin/grep", "Cap", "/proc/self/status"))
    assert added["CapEff"] & NET_RAW and not (added["CapInh"] | added["CapAmb"]) & NET_RAW
    assert added["CapInh"] == added["CapAmb"] == 1 << 5


@pytest.mark.parametrize(
    "word", ["ALL", "CAP_", "", " NET_RAW", "NET_RAW\n", "41", "NET_RAW,SYS_ADMIN", "\uff2eET_RAW"]
)
def test_what_is_no_capability_is_refused(rt: Runtime, bundle: MakeBundle, word: str) -> None:
    rt.ok("run", "--detach", "--bundle", str(bundle(["/bin/sleep", "100"]).path), "c")
    done = rt("exec", f"--cap={word}", "c", "/bin/true")
    assert done.returncode == 255 and "--cap" in done.stderr and "Traceback" not in done.stderr, done
