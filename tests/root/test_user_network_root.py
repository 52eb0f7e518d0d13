"""`--net` for root: the same, with a network namespace that belongs to the host's user namespace."""

from __future__ import annotations

import json

import pytest
from lab.inside import output
from lab.user_networks import HELPERS, host, need

from rootless_rt.container import processes

SERVER = "while :; do echo from-the-container | nc -l -p 80 >/dev/null; done"


@pytest.mark.covers("run --net", "run --publish")
@pytest.mark.parametrize("helper", HELPERS)
def test_a_published_port_of_roots_container_is_reached(root_rt, root_bundle, place, helper):
    need(helper)
    with host(place) as machine:
        rt = machine.runtime(root_rt)
        box = root_bundle(SERVER)
        rt.ok("run", "--detach", "--net", helper, "-p", "80:80", "--bundle", str(box.path), "box")
        assert machine.ask("tcp", "127.0.0.1", 80) == "from-the-container"
        record = json.loads((rt.root / "box/state.json").read_text())["network"]
        assert processes.is_alive(record)
        rt.ok("delete", "--force", "box")
        assert not processes.is_alive(record)


@pytest.mark.covers("run --net")
@pytest.mark.parametrize("net", ["none", "host"])
def test_none_and_host_are_what_they_say(root_rt, root_bundle, net):
    script = "readlink /proc/self/ns/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
    if net == "none":
        script += " /proc/sys/net/ipv4/ping_group_range"
    import os

    own = os.readlink("/proc/self/ns/net")
    namespace, start, *groups = output(root_rt, root_bundle(), script, "--net", net).split()
    assert (namespace == own) == (net == "host")
    assert net == "host" or [start, *groups] == ["0", "0", "2147483647"]
