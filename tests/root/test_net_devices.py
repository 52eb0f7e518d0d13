"""Network devices of the host that a container gets, and that it does not get when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import BUSYBOX, Bundle, Config
from lab.inside import held, map_ids, output, refusal, set_namespace
from lab.networks import Network, need_devices, network
from lab.runtime import Runtime
from lab.waiting import PATIENCE

FIELD = "linux.netDevices"


@pytest.fixture
def host() -> Iterator[Network]:
    """The network that rt is started in; not the machine's own, whose devices are in use."""
    if not shutil.which("ip"):
        pytest.skip("needs ip: apt install iproute2")
    need_devices()
    with network() as made:
        yield made


@pytest.fixture
def there(root_rt: Runtime, host: Network) -> Runtime:
    return host.runtime(root_rt)


def asking(bundle: Bundle, devices: dict[str, dict[str, str]], **linux: Any) -> Bundle:
    def change(config: Config) -> None:
        config["linux"].update(netDevices=devices, **linux)

    return bundle.change(change)


def addresses(link: dict[str, Any]) -> set[tuple[str, int]]:
    """Those of global scope."""
    return {(item["local"], item["prefixlen"]) for item in link["addr_info"] if item["scope"] == "global"}


def failing_hook(bundle: Bundle) -> Bundle:
    hook = {"path": "/bin/false"}
    return bundle.change(lambda config: config.update(hooks={"createRuntime": [hook]}))


@pytest.mark.covers("linux.netDevices", "linux.netDevices[].name")
def test_a_device_goes_into_the_container_with_a_new_name_and_all_that_is_its_own(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.veth("v0", "address 02:00:00:00:00:05", "mtu 1400", "txqueuelen 77", "up")
    host.ip("address add 10.1.2.3/24 broadcast 10.1.2.255 dev v0")
    host.ip("address add 10.1.2.4/24 dev v0")
    host.ip("address add 10.9.9.1 peer 10.9.9.2/32 dev v0")
    host.ip("address add fd00::5/64 dev v0 nodad")
    host.ip("address add 169.254.7.7/16 scope link dev v0")
    host.ip("address add 10.1.2.9/24 dev v0 valid_lft 500 preferred_lft 400")
    script = (
        "ip -o addr show dev eth7; ip link show dev eth7; cat /sys/class/net/eth7/mtu "
        "/sys/class/net/eth7/address /sys/class/net/eth7/tx_queue_len"
    )
    said = output(there, asking(root_bundle(), {"v0": {"name": "eth7"}}), script)
    assert said.splitlines()[-3:] == ["1400", "02:00:00:00:00:05", "77"]
    for kept in ("10.1.2.3/24 brd 10.1.2.255 ", "10.1.2.4/24 ", "10.9.9.1 peer 10.9.9.2/32", "fd00::5/64 "):
        assert kept in said
    for gone in ("169.254.7.7", "10.1.2.9"):
        assert gone not in said, "only permanent addresses of global scope are kept"
    assert ",UP" in said
    host.wait_for(set())  # the kernel destroys the pair with the container's namespace


def test_a_device_that_was_down_is_up_in_the_container_and_keeps_its_name(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.veth("v0")
    said = output(there, asking(root_bundle(), {"v0": {}}), "cat /sys/class/net/v0/flags")
    assert int(said, 16) & 1, "up, as the runtime-spec has it"


def test_packets_reach_the_container_through_its_device(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.veth("v0")
    host.ip("address add 10.1.2.3/24 dev v0")
    held(there, asking(root_bundle(), {"v0": {"name": "eth0"}}))
    assert host.names() == {"v0-p"}
    host.ip("address add 10.1.2.1/24 dev v0-p")
    host.ip("link set v0-p up")
    ping = ["nsenter", f"--net={host.path}", BUSYBOX, "ping", "-c", "1", "-W", "50", "10.1.2.3"]
    done = subprocess.run(ping, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)


def test_names_may_be_swapped_and_numbered_by_the_kernel(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    for name in ("a", "b", "c", "d"):
        host.veth(name, f"address 02:00:00:00:00:0{name}")
    asked = {"d": {"name": "net%d"}, "a": {"name": "b"}, "b": {"name": "a"}, "c": {"name": "net0"}}
    script = "for name in a b net0 net1; do cat /sys/class/net/$name/address; done"
    said = output(there, asking(root_bundle(), asked), script)
    assert [line[-1] for line in said.splitlines()] == ["b", "a", "c", "d"]


def test_hooks_and_sysctls_find_the_device_in_place(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.veth("v0")
    made = asking(root_bundle(), {"v0": {"name": "eth7"}}, sysctl={"net.ipv4.conf.eth7.forwarding": "1"})
    note = made.path / "note"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"ip link show v0 > {note} 2>&1; exit 0"]}
    made.change(lambda config: config.update(hooks={"createRuntime": [hook]}))
    assert output(there, made, "cat /proc/sys/net/ipv4/conf/eth7/forwarding") == "1"
    assert "does not exist" in note.read_text()


def test_a_container_with_a_user_namespace_of_its_own_gets_a_device(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.veth("v0")
    host.ip("address add 10.1.2.3/24 dev v0")
    made = set_namespace(asking(root_bundle(), {"v0": {}}), "user")
    map_ids(made, (0, 500000, 65536))
    os.chown(made.rootfs, 500000, 500000)
    assert "10.1.2.3/24" in output(there, made, "ip -o addr show dev v0")


def test_a_joined_namespace_gets_the_devices_and_keeps_them(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.veth("v0", "mtu 1400")
    host.ip("address add 10.1.2.3/24 dev v0")
    with network() as pod:
        made = set_namespace(asking(root_bundle(), {"v0": {"name": "eth0"}}), "network", pod.path)
        assert "10.1.2.3/24" in output(there, made, "ip -o addr show dev eth0")
        link = pod.link("eth0")
        assert link is not None and link["mtu"] == 1400 and addresses(link) == {("10.1.2.3", 24)}
        assert host.names() == {"v0-p"}
        pod.ip("link delete eth0")


def test_a_failed_create_gives_the_devices_back_as_they_were(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.veth("v0", "address 02:00:00:00:00:05", "mtu 1400", "up")
    host.veth("v1")
    host.ip("address add 10.1.2.3/24 dev v0")
    host.ip("address add fd00::5/64 dev v0 nodad")
    made = failing_hook(asking(root_bundle(), {"v0": {"name": "eth7"}, "v1": {"name": "v0"}}))
    assert "createRuntime" in refusal(there, made)
    v0, v1 = host.link("v0"), host.link("v1")
    assert v0 is not None and v1 is not None and host.link("eth7") is None
    assert (v0["address"], v0["mtu"]) == ("02:00:00:00:00:05", 1400)
    assert addresses(v0) == {("10.1.2.3", 24), ("fd00::5", 64)}
    assert "UP" in v0["flags"] and "UP" not in v1["flags"]


def test_a_create_that_a_signal_ends_gives_the_devices_back(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.veth("v0", "up")
    host.ip("address add 10.1.2.3/24 dev v0")
    hook = {"path": "/bin/sleep", "args": ["sleep", "1000"]}
    made = asking(root_bundle(), {"v0": {"name": "eth7"}})
    made.change(lambda config: config.update(hooks={"createRuntime": [hook]}))
    with there.popen("create", "--bundle", str(made.path), "ended", stderr=subprocess.DEVNULL) as creating:
        host.wait_for({"v0-p"})
        creating.terminate()
        assert creating.wait(PATIENCE) != 0
    v0 = host.link("v0")
    assert v0 is not None and addresses(v0) == {("10.1.2.3", 24)} and "UP" in v0["flags"]
    assert list(there.root.iterdir()) == []


def test_a_device_that_the_kernel_does_not_move_keeps_all_others_at_home(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.veth("v0", "up")
    host.ip("link add br0 type bridge")
    told = refusal(there, asking(root_bundle(), {"v0": {}, "br0": {"name": "eth1"}}))
    assert f'{FIELD}["br0"]: cannot move the device as "eth1"' in told and "namespace" in told
    v0 = host.link("v0")
    assert v0 is not None and "UP" in v0["flags"] and host.link("br0") is not None


def test_a_name_that_is_taken_in_a_joined_namespace_is_refused_before_anything_moves(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.veth("v0", "up")
    host.veth("v1")
    host.ip("address add 10.1.2.3/24 dev v0")
    with network() as pod:
        pod.veth("eth0")
        asked = {"v0": {}, "v1": {"name": "eth0"}}
        made = set_namespace(asking(root_bundle(), asked), "network", pod.path)
        assert f'{FIELD}["v1"]: the container\'s network namespace has a device "eth0"' in refusal(
            there, made
        )
        assert pod.names() == {"eth0", "eth0-p"} and host.names() == {"v0", "v0-p", "v1", "v1-p"}
        asking(made, {"v1": {"name": "eth%d"}})
        assert "eth1" in output(there, made, "ls /sys/class/net")


@pytest.mark.parametrize(
    ("devices", "problem"),
    [
        ({"none": {}}, f'{FIELD}["none"]: there is no such network device'),
        ({"v0": {}, "none": {"name": "x"}}, f'{FIELD}["none"]: there is no such network device'),
        ({"lo": {}}, f'{FIELD}["lo"]: "lo" is the loopback device'),
        ({"v0": {"name": "v0-p"}, "v0-p": {}}, f'{FIELD}["v0-p"]: "v0-p" is the name of'),
        ({"v0": {"name": "a/b"}}, f'{FIELD}["v0"].name: "a/b" is no name'),
    ],
    ids=repr,
)
def test_what_cannot_be_moved_is_refused_with_its_path(
    there: Runtime, root_bundle: MakeBundle, host: Network, devices: dict[str, Any], problem: str
) -> None:
    host.veth("v0")
    assert problem in refusal(there, asking(root_bundle(), devices))
    assert host.names() == {"v0", "v0-p"}


def test_a_loopback_device_by_another_name_is_refused(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.ip("link set lo name mine")
    assert "is a loopback device" in refusal(there, asking(root_bundle(), {"mine": {}}))


def test_the_runtimes_own_namespace_joined_by_path_is_refused(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.veth("v0")
    made = set_namespace(asking(root_bundle(), {"v0": {"name": "x"}}), "network", host.path)
    assert f"{FIELD}: the container shares the network namespace of rt" in refusal(there, made)
    assert host.names() == {"v0", "v0-p"}


def test_a_plan_tells_the_moves_and_moves_nothing(
    there: Runtime, root_bundle: MakeBundle, host: Network
) -> None:
    host.veth("v0")
    made = asking(root_bundle(), {"v0": {"name": "eth7"}})
    text = there.ok("plan", "--bundle", str(made.path))
    assert f"outside: {FIELD}: move v0 into the container's network namespace as eth7, and set it up" in text
    told = json.loads(there.ok("plan", "--format", "json", "--bundle", str(made.path)))
    assert told["outside"][0]["for"] == FIELD and host.names() == {"v0", "v0-p"}


def test_features_say_that_devices_can_be_moved(root_rt: Runtime) -> None:
    pytest.importorskip("pyroute2")
    assert json.loads(root_rt.ok("features"))["linux"]["netDevices"] == {"enabled": True}
