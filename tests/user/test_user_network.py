"""`--net` and `--publish`: a container's network without an engine, and the end of its helper.

Between namespaces of this machine alone; see lab/user_networks.py for the host that the commands run on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.bundles import Bundle, Config
from lab.inside import map_ids, output, refusal, set_namespace, subordinate, told
from lab.runtime import Runtime
from lab.user_networks import HELPERS, Host, host, need, udp, with_python
from lab.users import User
from lab.waiting import until

from idmap.evidence import os_release
from rootless_rt.container import processes
from rootless_rt.host.doctor.fixes import install
from rootless_rt.host.doctor.system import manager

TCP_SERVER = "while :; do echo from-the-container | nc -l -p 80 >/dev/null; done"
# With its end kept open: pasta of Debian 12 may lose what comes after the other one closed.
QUESTION = "mkfifo /tmp/question; exec 3<>/tmp/question; "
ASK = "echo ask >&3; timeout 60 nc -w 50 <&3"
UDP_SERVER = """
s.bind(("0.0.0.0", 53))
while True:
    _, who = s.recvfrom(100)
    s.sendto(b"from-the-container", who)
"""
UDP_QUESTION = """
s.settimeout(50)
s.sendto(b"query", ("10.0.2.3", 53))
print(open("/etc/resolv.conf").read() + s.recv(100).decode())
"""


@pytest.fixture
def machine(place: Path) -> Iterator[Host]:
    need("ip")
    with host(place) as made:
        yield made


@pytest.fixture
def here(rt: Runtime, machine: Host) -> Iterator[Runtime]:
    """alice's command on the machine."""
    yield machine.runtime(rt)


def helper_of(rt: Runtime, name: str) -> dict[str, object]:
    state: dict[str, object] = json.loads((rt.root / name / "state.json").read_text())["network"]
    return state


def started(
    rt: Runtime, bundle: Bundle, name: str, *options: str, script: str | list[str]
) -> dict[str, object]:
    """Start a container detached; what is written down about its helper."""
    rt.ok("run", "--detach", *options, "--bundle", str(bundle.run(script).path), name)
    record = helper_of(rt, name)
    assert processes.is_alive(record)
    return record


def wait_gone(record: dict[str, object]) -> None:
    until(lambda: not processes.is_alive(record), f"the helper {record} ends")


def keeper_of(record: dict[str, object]) -> int:
    status = Path(f"/proc/{record['pid']}/stat").read_text()
    return int(status.rpartition(")")[2].split()[1])


@pytest.mark.covers("run --net", "linux.namespaces[].type")
def test_net_none_is_a_network_of_loopback_alone(rt, bundle):
    box = bundle()
    assert "network" not in [item["type"] for item in box.config["linux"]["namespaces"]]
    said = output(
        rt, box, "ls /sys/class/net >/dev/null; ip link | grep -c mtu; ip link show lo", "--net", "none"
    )
    count, *link = said.splitlines()
    assert count == "1" and "UP" in link[0]


@pytest.mark.covers("run --net")
def test_net_host_is_the_hosts_network_whatever_the_config_says(rt, bundle):
    box = bundle().change(lambda config: config["linux"]["namespaces"].append({"type": "network"}))
    output_, _ = told(rt, box, "readlink /proc/self/ns/net", "--net", "host")
    assert output_ == os.readlink("/proc/self/ns/net")


@pytest.mark.covers("create --net")
def test_created_containers_have_the_network_and_exec_enters_it(rt, bundle):
    box = bundle("exec sleep 1000")
    rt.ok("create", "--net", "none", "--bundle", str(box.path), "made")
    pid = rt.state("made")["pid"]
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    rt.ok("start", "made")
    assert rt.ok("exec", "made", "readlink", "/proc/self/ns/net").strip() == os.readlink(
        f"/proc/{pid}/ns/net"
    )


@pytest.mark.covers("run --net", "linux.sysctl")
def test_a_network_of_its_own_lets_root_ping_and_take_low_ports(rt, alice, bundle):
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range"
    assert output(rt, bundle(), script, "--net", "none").split() == ["0", "0", "0"]
    if os.getuid() != 0:
        return
    box = map_ids(
        bundle(), (0, alice.uid, 1), (1, subordinate(alice), 65535),
        gids=((0, alice.gid, 1), (1, subordinate(alice, "gid"), 65535)),
    )  # fmt: skip
    assert output(rt, box, script, "--net", "none").split() == ["0", "0", "65535"]


@pytest.mark.covers("run --net", "linux.sysctl")
def test_what_the_config_says_of_those_sysctls_counts(rt, bundle):
    box = set_namespace(bundle(), "network").change(
        lambda config: config["linux"].update(sysctl={"net/ipv4/ip_unprivileged_port_start": "80"})
    )
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
    assert output(rt, box, script, "--net", "none") == "80"


@pytest.mark.covers("run --publish", "run --net")
@pytest.mark.parametrize("helper", HELPERS)
def test_a_server_in_the_container_is_reached_through_the_published_port(here, machine, bundle, helper):
    need(helper)
    record = started(here, bundle(), "box", "--net", helper, "-p", "8080:80", script=TCP_SERVER)
    assert record["kind"] == helper
    assert machine.ask("tcp", "127.0.0.1", 8080) == "from-the-container"
    here.ok("delete", "--force", "box")
    wait_gone(record)


@pytest.mark.covers("run --publish")
@pytest.mark.parametrize("helper", HELPERS)
def test_a_range_of_ports_leads_to_as_many(here, machine, bundle, helper):
    need(helper)
    script = "for n in 0 1 2; do (while :; do echo from-8$n | nc -l -p 8$n >/dev/null; done) & done; wait"
    started(here, bundle(), "box", "--net", helper, "-p", "127.0.0.1:8080-8082:80-82", script=script)
    for number in range(3):
        assert machine.ask("tcp", "127.0.0.1", 8080 + number) == f"from-8{number}"
    with machine.server("192.0.2.77", 9001, "taken"):
        said = refusal(here, bundle(), "--net", helper, "-p", "9000-9002:80-82")
    assert "--publish 9001:81/tcp: the port is in use" in said


@pytest.mark.covers("run --publish")
def test_a_port_is_published_on_an_address_of_ipv6(here, machine, bundle):
    need("pasta")
    need("slirp4netns")
    if not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this kernel has no IPv6")
    said = refusal(here, bundle(), "--net", "slirp4netns", "-p", "[::1]:8080:80")
    assert "slirp4netns publishes on addresses of IPv4 only" in said and "--net pasta" in said
    # pasta goes by the host's route, and by the link-local address, which a device without carrier lacks.
    for words in ("address add 2001:db8::77/64", "address add fe80::77/64"):
        assert machine.sh(f"ip -6 {words} dev uplink nodad").returncode == 0
    assert machine.sh("ip -6 route add default via fe80::1 dev uplink").returncode == 0
    ports = ("-p", "[::1]:8080-8081:80-81", "-p", "[2001:db8::77]:8090:80")
    started(here, bundle(), "box", "--net", "pasta", *ports, script=TCP_SERVER)
    assert machine.ask("tcp", "::1", 8080) == "from-the-container"
    assert machine.ask("tcp", "2001:db8::77", 8090) == "from-the-container"
    assert machine.ask("tcp", "127.0.0.1", 8080, 0) == ""
    with machine.server("::1", 9000, "taken"):
        said = refusal(here, bundle(), "--net", "pasta", "-p", "[::1]:9000:80")
    assert "--publish [::1]:9000:80/tcp: the port is in use" in said


def test_a_host_without_ipv6_to_the_outside_says_what_pasta_lacks_for_it(here, machine, bundle):
    need("pasta")
    if not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this kernel has no IPv6")
    box = bundle(TCP_SERVER)
    done = here("run", "--detach", "--net", "pasta", "-p", "[::1]:8080:80", "--bundle", str(box.path), "box")
    if done.returncode == 0:  # newer ones do without
        assert machine.ask("tcp", "::1", 8080) == "from-the-container"
    else:
        assert "ip -6 route" in done.stderr and not (here.root / "box").exists()


@pytest.mark.covers("run --publish")
@pytest.mark.parametrize("helper", HELPERS)
def test_a_udp_port_is_published(here, machine, bundle, helper):
    need(helper)
    box = with_python(bundle())
    started(here, box, "box", "--net", helper, "-p", "5353:53/udp", script=udp(UDP_SERVER))
    assert machine.ask("udp", "192.0.2.77", 5353) == "from-the-container"


@pytest.mark.covers("run --publish")
@pytest.mark.parametrize(
    ("helper", "options"),
    [("pasta", ("-p", "53:53/udp")), ("slirp4netns", ("-p", "5353:53/udp", "--host-loopback"))],
)
def test_a_udp_port_is_reached_from_the_hosts_loopback_with_what_the_helper_wants_for_that(
    here, machine, bundle, helper, options
):
    """Debian 12's pasta sends no answers there when the ports differ, slirp4netns none without the flag."""
    need(helper)
    assert machine.sh("echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start").returncode == 0
    started(here, with_python(bundle()), "box", "--net", helper, *options, script=udp(UDP_SERVER))
    assert machine.ask("udp", "127.0.0.1", int(options[1].split(":")[0])) == "from-the-container"


@pytest.mark.covers("run --publish")
@pytest.mark.parametrize("helper", HELPERS)
def test_a_port_published_on_one_address_is_not_on_others(here, machine, bundle, helper):
    need(helper)
    started(here, bundle(), "box", "--net", helper, "-p", "192.0.2.77:8080:80", script=TCP_SERVER)
    assert machine.ask("tcp", "192.0.2.77", 8080) == "from-the-container"
    assert machine.ask("tcp", "127.0.0.1", 8080, seconds=0) == ""


@pytest.mark.covers("run --host-loopback")
@pytest.mark.parametrize("helper", HELPERS)
def test_the_hosts_loopback_is_reached_at_the_gateway_only_when_asked(here, machine, bundle, helper):
    need(helper)
    closing = "nc -w 5 10.0.2.2 9000 </dev/null 2>&1 || echo closed; cat /etc/hosts"
    opening = f"{QUESTION}{ASK} 10.0.2.2 9000 2>&1; cat /etc/hosts"
    with machine.server("127.0.0.1", 9000, "from-the-host\n"):
        closed = output(here, bundle(), closing, "--net", helper)
        assert "\nclosed\n" in closed and "host.containers.internal" not in closed
        opened = output(here, bundle(), opening, "--net", helper, "--host-loopback")
    assert opened.startswith("from-the-host") and "10.0.2.2\thost.containers.internal" in opened


@pytest.mark.covers("run --net")
@pytest.mark.parametrize("helper", HELPERS)
def test_the_container_reaches_addresses_of_the_host_and_not_its_loopback_ports(
    here, machine, bundle, helper
):
    need(helper)
    script = f"{QUESTION}{ASK} 192.0.2.77 9000; {ASK} 127.0.0.1 9001 2>/dev/null || echo own"
    with (
        machine.server("192.0.2.77", 9000, "from-the-host\n"),
        machine.server("127.0.0.1", 9001, "must-not-be-seen\n"),
    ):
        assert output(here, bundle(), script, "--net", helper).split() == ["from-the-host", "own"]


@pytest.mark.covers("run --net")
@pytest.mark.parametrize("helper", HELPERS)
def test_names_are_asked_of_the_hosts_name_server(here, machine, bundle, helper, place):
    need(helper)
    conf = place / "resolv.conf"
    conf.write_text("nameserver 192.0.2.77\nsearch example.org\n")
    done = machine.sh(f"mount --bind {conf} /etc/resolv.conf")
    assert done.returncode == 0, done.stderr
    with machine.server("192.0.2.77", 53, "from-the-name-server\n", "udp"):
        said = output(here, with_python(bundle(udp(UDP_QUESTION))), None, "--net", helper).splitlines()
    assert said == ["search example.org", "nameserver 10.0.2.3", "from-the-name-server"]


@pytest.mark.covers("run --net", "hostname")
def test_hosts_and_resolv_conf_are_mounted_read_only_and_never_written_to_the_rootfs(here, bundle):
    need("pasta")
    box = bundle()
    for name in ("hosts", "resolv.conf"):
        (box.rootfs / "etc" / name).write_text("of the image\n")
    box.change(lambda config: config.update(hostname="boxed"))
    said = output(
        here, box, "cat /etc/hosts; (echo x >>/etc/hosts) 2>/dev/null || echo refused", "--net", "pasta"
    )
    assert "10.0.2.100\tboxed" in said and said.endswith("refused")
    assert [(box.rootfs / "etc" / name).read_text() for name in ("hosts", "resolv.conf")] == [
        "of the image\n"
    ] * 2


@pytest.mark.covers("run --net")
def test_what_the_config_mounts_there_stays(here, bundle, share):
    need("pasta")
    box = bundle().change(
        lambda config: config["mounts"].append(
            {
                "destination": "/etc/resolv.conf",
                "type": "bind",
                "source": str(share / "file"),
                "options": ["bind"],
            }
        )
    )
    said = output(here, box, "cat /etc/resolv.conf /etc/hosts", "--net", "pasta")
    assert said.startswith("from the host") and "localhost" in said


@pytest.mark.covers("run --net")
def test_a_root_without_etc_goes_without_these_files_and_says_so(here, bundle):
    need("pasta")
    box = bundle()
    for path in (box.rootfs / "etc").iterdir():
        path.unlink()
    (box.rootfs / "etc").rmdir()
    said, warned = told(here, box, "ls /etc || ip address show eth0", "--net", "pasta")
    assert "10.0.2.100/24" in said and "has no /etc" in warned
    assert not (box.rootfs / "etc").exists()


@pytest.mark.covers("run --publish", "create --publish", "create --host-loopback")
@pytest.mark.parametrize("helper", HELPERS)
def test_two_containers_have_their_networks_at_once(here, machine, bundle, helper):
    need(helper)
    records = []
    for port in (8081, 8082):
        box = bundle(TCP_SERVER.replace("from-the-container", f"box-{port}"))
        options = ("--net", helper, "-p", f"{port}:80", "--host-loopback")
        here.ok("create", *options, "--bundle", str(box.path), f"box{port}")
        here.ok("start", f"box{port}")
        records.append(helper_of(here, f"box{port}"))
    assert [machine.ask("tcp", "127.0.0.1", port) for port in (8081, 8082)] == ["box-8081", "box-8082"]
    here.ok("delete", "--force", "box8081")
    wait_gone(records[0])
    assert processes.is_alive(records[1]) and machine.ask("tcp", "127.0.0.1", 8082) == "box-8082"


@pytest.mark.parametrize("helper", HELPERS)
def test_the_helper_ends_with_a_detached_container_that_ends_by_itself(here, bundle, helper):
    need(helper)
    record = started(here, bundle(), "box", "--net", helper, script="exec sleep 1000")
    os.kill(here.state("box")["pid"], signal.SIGKILL)
    wait_gone(record)
    here.wait_for("box", "stopped")
    here.ok("delete", "box")


@pytest.mark.parametrize("helper", HELPERS)
def test_the_helper_outlives_a_killed_rt_and_ends_with_the_container(here, bundle, helper):
    need(helper)
    box = bundle("exec sleep 1000")
    process = here.popen("run", "--net", helper, "--bundle", str(box.path), "box", stdin=subprocess.DEVNULL)
    try:
        until((here.root / "box/state.json").exists, "there is a container")
        here.wait_for("box", "running")
        record = helper_of(here, "box")
    finally:
        process.kill()
        process.wait()
    assert processes.is_alive(record) and here.state("box")["status"] == "running"
    here.ok("kill", "box", "KILL")
    wait_gone(record)


@pytest.mark.parametrize("helper", HELPERS)
def test_delete_ends_a_helper_whose_keeper_was_killed(here, bundle, helper):
    need(helper)
    record = started(here, bundle(), "box", "--net", helper, script="exec sleep 1000")
    os.kill(keeper_of(record), signal.SIGKILL)
    here.ok("kill", "box", "KILL")
    here.wait_for("box", "stopped")
    assert processes.is_alive(record)
    here.ok("delete", "box")
    assert not processes.is_alive(record)


def test_delete_never_ends_a_process_that_has_only_got_the_helpers_number(here, bundle):
    need("pasta")
    started(here, bundle(), "box", "--net", "pasta", script="exec sleep 1000")
    other = here.popen("--help", stdout=subprocess.PIPE)  # alice's, as far as anyone can tell
    other.communicate()
    bystander = subprocess.Popen(
        ["setpriv", f"--reuid={here.user.uid}", f"--regid={here.user.gid}", "--clear-groups", "sleep", "1000"]
    )
    try:
        place = here.root / "box/state.json"
        state = json.loads(place.read_text())
        state["network"]["pid"] = bystander.pid
        place.write_text(json.dumps(state))
        here.ok("delete", "--force", "box")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("helper", HELPERS)
def test_the_helper_holds_nothing_of_its_caller(here, bundle, helper):
    """A pipe that it held would keep `rt run --detach | cat` from ending; a terminal's keys would end it."""
    need(helper)
    record = started(here, bundle(), "box", "--net", helper, script="exec sleep 1000")
    for pid in (record["pid"], keeper_of(record)):
        files = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        assert not any("/rt-test" in file or file.startswith("/tmp/#") for file in files), files
        assert os.getsid(int(str(pid))) == keeper_of(record)


@pytest.mark.parametrize("helper", HELPERS)
def test_nothing_is_left_when_the_container_cannot_be_made(here, machine, bundle, helper):
    need(helper)
    box = bundle(["/no/such/program"])
    before = machine.sh("ss -lntup").stdout
    done = here("run", "--net", helper, "-p", "8080:80", "--bundle", str(box.path), "box")
    assert done.returncode != 0 and not (here.root / "box").exists()
    until(lambda: machine.sh("ss -lntup").stdout == before, lambda: machine.sh("ss -lntup").stdout)


@pytest.mark.parametrize("helper", HELPERS)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_in_use_is_said_before_anything_happens(here, machine, bundle, helper, protocol):
    need(helper)
    with machine.server("127.0.0.1", 8080, "taken", protocol):
        said = refusal(here, bundle(), "--net", helper, "-p", f"8080:80/{protocol}")
    assert f"--publish 8080:80/{protocol}: the port is in use" in said


@pytest.mark.explains("RT-NET-PORTS")
@pytest.mark.parametrize("helper", HELPERS)
def test_a_low_port_is_refused_with_the_sysctl_that_would_allow_it(here, bundle, helper):
    need(helper)
    said = refusal(here, bundle(), "--net", helper, "-p", "80:80")
    assert "(rt explain RT-NET-PORTS)" in said
    assert "permission denied" in said and "sudo sysctl net.ipv4.ip_unprivileged_port_start=80" in said


def test_a_device_that_cannot_be_opened_is_said_with_the_fix(rt, bundle, place):
    need("pasta")
    if os.stat("/dev/net/tun").st_mode & 0o006:
        pytest.skip("everybody may open /dev/net/tun here")
    with host(place, tun=False) as machine:
        said = refusal(machine.runtime(rt), bundle(), "--net", "pasta")
    assert "cannot open /dev/net/tun: permission denied" in said and "sudo chmod 0666 /dev/net/tun" in said


def test_a_host_without_a_default_route_says_what_pasta_lacks(here, machine, bundle):
    need("pasta")
    assert machine.sh("ip route flush table main; ip -6 route flush table main").returncode == 0
    said = refusal(here, bundle(), "--net", "pasta")
    assert "--net pasta: pasta has ended: " in said


@pytest.mark.parametrize(("helper", "package"), [("pasta", "passt"), ("slirp4netns", "slirp4netns")])
def test_a_helper_that_is_not_installed_is_named_with_its_package(
    here, machine, bundle, helper, package, place
):
    need(helper)
    empty = place / "empty"
    empty.write_text("")
    done = machine.sh(f"for d in /usr/bin /bin; do mount --bind {empty} $d/{helper}; done")
    assert done.returncode == 0, done.stderr
    said = refusal(here, bundle(), "--net", helper)
    hint = install(helper, manager(os_release()))[0]
    assert package in hint or manager(os_release()) != "apt"
    assert said == f"rt: --net {helper}: {helper} is not installed\nhint: {hint} (rt explain RT-NET-HELPER)\n"


@pytest.mark.parametrize(
    "options", [("-p", "8080:80"), ("--net", "none", "-p", "8080:80"), ("--host-loopback",)]
)
def test_options_of_a_helper_need_one(rt, bundle, options):
    assert "needs --net pasta or --net slirp4netns" in refusal(rt, bundle(), *options)


@pytest.mark.parametrize("helper", HELPERS)
def test_the_containers_processes_do_not_see_the_helper(here, bundle, helper):
    need(helper)
    assert output(here, bundle(), "ps -o pid= | wc -l; ls /proc/self/fd | wc -l", "--net", helper)
    assert helper not in output(here, bundle(), "ps", "--net", helper)


def test_a_range_of_ids_makes_no_difference(here, machine, alice: User, bundle):
    for helper in HELPERS:
        need(helper)
        options = ("--idmap", "full", "--net", helper, "-p", "8080:80")
        record = started(here, bundle(), "box", *options, script=TCP_SERVER)
        assert machine.ask("tcp", "127.0.0.1", 8080) == "from-the-container"
        here.ok("delete", "--force", "box")
        wait_gone(record)


@pytest.mark.covers("run --net")
@pytest.mark.parametrize("helper", HELPERS)
def test_root_of_a_user_namespace_has_it_too(here, machine, bundle, helper):
    """As inside a container: the namespace belongs to the user namespace that rt itself is in."""
    need(helper)

    def without_users(config: Config) -> None:
        linux = config["linux"]
        linux["namespaces"] = [item for item in linux["namespaces"] if item["type"] != "user"]
        del linux["uidMappings"], linux["gidMappings"]

    box = bundle("ip address show eth0").change(without_users)
    *_, root, _ = words = here.argv("-")
    inner = ["unshare", "--user", "--map-root-user", words[-4], "--root", f"{root}/inner"]
    done = subprocess.run(
        [*words[:-4], *inner, "run", "--net", helper, "--bundle", str(box.path), "inner"],
        env=here.user.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "10.0.2.100/24" in done.stdout, (done.stdout, done.stderr)


@pytest.mark.covers("run --net")
def test_a_resolv_conf_that_links_to_nowhere_is_met_inside(here, bundle):
    """As in images made on a host with systemd-resolved: it leads into the container, not to the host."""
    need("pasta")
    box = bundle()
    (box.rootfs / "etc/resolv.conf").symlink_to("/run/systemd/resolve/stub-resolv.conf")
    assert "nameserver 10.0.2.3" in output(here, box, "cat /etc/resolv.conf", "--net", "pasta")
    assert os.readlink(box.rootfs / "etc/resolv.conf") == "/run/systemd/resolve/stub-resolv.conf"
