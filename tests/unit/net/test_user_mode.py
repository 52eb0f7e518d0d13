"""User-mode networking without a network: published ports, the helpers' words, the files."""

from __future__ import annotations

import errno
import posix
import socket

import pytest

from rootless_rt.errors import RtError
from rootless_rt.net import user_mode
from rootless_rt.net.user_mode import parse_port, parse_ports

GOOD = {
    "8080:80": ("", 8080, 80, "tcp", 1),
    "8080:80/tcp": ("", 8080, 80, "tcp", 1),
    "1:65535/udp": ("", 1, 65535, "udp", 1),
    "127.0.0.1:8080:80": ("127.0.0.1", 8080, 80, "tcp", 1),
    "0.0.0.0:53:53/udp": ("0.0.0.0", 53, 53, "udp", 1),
    "8000-8010:80-90": ("", 8000, 80, "tcp", 11),
    "127.0.0.1:1-65535:1-65535/udp": ("127.0.0.1", 1, 1, "udp", 65535),
    "80-80:81": ("", 80, 81, "tcp", 1),
    "[::1]:8080:80": ("::1", 8080, 80, "tcp", 1),
    "[::]:8000-8001:80-81/udp": ("::", 8000, 80, "udp", 2),
    "[2001:DB8:0::192.0.2.1]:1:2": ("2001:db8::c000:201", 1, 2, "tcp", 1),
}
WRONG = [
    "", "80", ":", ":80", "80:", "0:80", "80:0", "65536:80", "80:65536", "-1:80", "+80:80", " 80:80",
    "80:80 ", "8_0:80", "८०:80", "0x50:80", "8e1:80", "99999999999999999999999:80", "80:80/",
    "80:80/sctp", "80:80/TCP", "80:80/tcp/udp", "1:2:3:4", "::1:80:80", "localhost:80:80",
    "[::1]", "[::1]:80", "[::1]80:80", "[::1:80:80", "[]:80:80", "[1.2.3.4]:80:80", "[::1]::80:80",
    "::1]:80:80",
    "[::ffff:127.0.0.1]:80:80", "[fe80::1%eth0]:80:80", "[::1]:80:80:80", "[[::1]]:80:80", "[::1\0]:80:80",
    "80-81:80", "80:80-81", "80-82:80-81", "81-80:81-80", "80-:80", "-80:80", "80-81-82:80-82", "0-1:1-2",
    "65535-65536:1-2", "1-2:65535-65536", "80 -81:80-81", "80--81:80-81", "[::é]:80:80",
    "1.2.3:80:80", "1.2.3.4.5:80:80", "256.0.0.1:80:80", "01.2.3.4:80:80", "1.2.3.4,x:80:80",
    "1.2.3.4 :80:80", ":80:80", "80:80\n", "127.0.0.1/8:80:80", "--help", "80:80\x00",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
@pytest.mark.covers("run --publish")
def test_a_published_port_is_address_port_port_and_protocol(text):
    port = parse_port(text)
    assert (port.address, port.host, port.inside, port.protocol, port.count) == GOOD[text]
    again = parse_port(str(port))
    assert (again.address, again.host, again.inside, again.protocol, again.count) == GOOD[text]


def test_a_range_is_as_many_ports():
    singles = parse_port("127.0.0.1:8000-8002:80-82/udp").each()
    shown = ["127.0.0.1:8000:80/udp", "127.0.0.1:8001:81/udp", "127.0.0.1:8002:82/udp"]
    assert [str(port) for port in singles] == shown


@pytest.mark.parametrize("text", WRONG, ids=ascii)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(RtError, match="--publish") as caught:
        parse_port(text)
    assert "8080:80" in (caught.value.hint or "") and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("texts", "wrong"),
    [
        (["80:80", "81:80"], False),
        (["80:80", "80:80/udp"], False),
        (["127.0.0.1:80:80", "127.0.0.2:80:80"], False),
        (["80:80", "80:81"], True),
        (["127.0.0.1:80:80", "80:81"], True),
        (["127.0.0.1:80:80", "127.0.0.1:80:81"], True),
        (["127.0.0.1:80:80", "0.0.0.0:80:81"], True),
        (["80-89:80-89", "90-99:80-89"], False),
        (["80-89:80-89", "85-99:85-99/udp"], False),
        (["80-89:80-89", "85:1"], True),
        (["89-99:89-99", "80-89:80-89"], True),
        (["127.0.0.1:80:80", "[::1]:80:80"], False),
        (["0.0.0.0:80:80", "[::1]:80:80"], False),
        (["[::1]:80:80", "[::2]:80:80"], False),
        (["[::1]:80:80", "[0:0::1]:80:81"], True),
        (["[::]:80:80", "[::1]:80:80"], True),
        (["80:80", "[::1]:80:80"], True),
    ],
)
def test_a_port_of_the_host_goes_to_one_place(texts, wrong):
    if wrong:
        with pytest.raises(RtError, match="twice"):
            parse_ports(texts)
    else:
        assert len(parse_ports(texts)) == len(texts)


def words(kind: str, *ports: str, host_loopback: bool = False, own_userns: bool = False) -> list[str]:
    return user_mode.command(
        kind, "/usr/bin/it", 42, parse_ports(ports), host_loopback=host_loopback, own_userns=own_userns
    )


def test_pasta_publishes_what_is_asked_and_nothing_of_its_own_accord():
    """Its own default is to forward every port that is listened on, in both directions."""
    plain = " ".join(words("pasta"))
    for option in ("--tcp-ports none", "--udp-ports none", "--tcp-ns none", "--udp-ns none", "--no-map-gw"):
        assert option in plain
    some = " ".join(words("pasta", "8080:80", "127.0.0.1:81:81", "53:53/udp", host_loopback=True))
    assert "--tcp-ports 8080:80 --tcp-ports 127.0.0.1/81:81 --udp-ports 53:53" in some
    ranges = " ".join(words("pasta", "[::1]:8000-8001:80-81", "1-2:3-4/udp"))
    assert "--tcp-ports ::1/8000-8001:80-81 --udp-ports 1-2:3-4" in ranges
    assert "--tcp-ns none --udp-ns none" in some and "--no-map-gw" not in some


def test_pasta_enters_the_containers_user_namespace_unless_it_is_in_it():
    assert "/proc/42/ns/user" in words("pasta") and "--netns-only" not in words("pasta")
    own = words("pasta", own_userns=True)
    assert "/proc/42/ns/user" not in own and "--netns-only" in own


def test_slirp4netns_is_confined_and_closed_to_the_hosts_loopback():
    plain = words("slirp4netns")
    assert {"--enable-sandbox", "--enable-seccomp", "--disable-host-loopback"} <= set(plain)
    assert not any(word.startswith("--api-socket") for word in plain)
    assert "--disable-host-loopback" not in words("slirp4netns", host_loopback=True)
    assert f"--api-socket={user_mode.API_SOCKET}" in words("slirp4netns", "80:80")


@pytest.mark.parametrize(
    ("said", "shown", "hint"),
    [
        (b"", "it said nothing", None),
        (b"Failed to send 51 bytes to syslog\n", "it said nothing", None),
        (b"hello\nFailed to bind any port for '-t 80:80', exiting\n", "bind any port", "port in use"),
        (b"Failed to bind any port for '-t ::1/8080:80', exiting\n", "bind any port", "ip -6 route"),
        (b"External interface not usable\n", "not usable", "slirp4netns"),
        (b"open(\"/dev/net/tun\"): Permission denied\n", "/dev/net/tun", "chmod 0666"),
        (b"\xff\xfe\x1b[31m" + b"x" * 5000, "x", None),
    ],
)  # fmt: skip
def test_the_last_word_of_a_helper_that_ended_is_told_with_what_mends_it(said, shown, hint):
    error = user_mode.failure("pasta", said)
    assert shown in error.message and len(error.message) < 400 and "\x1b" not in error.message
    assert (hint is None) == (error.hint is None) and (hint or "") in (error.hint or "")


def test_a_missing_helper_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr("idmap.helpers.find_helper", lambda _: None)
    with pytest.raises(RtError, match="pasta is not installed") as caught:
        user_mode.check("pasta", [])
    assert caught.value.hint == "sudo apt install passt"


def test_a_missing_device_is_named_with_the_module(monkeypatch, tmp_path):
    monkeypatch.setattr("idmap.helpers.find_helper", lambda _: "/usr/bin/pasta")
    monkeypatch.setattr(user_mode, "TUN", str(tmp_path / "tun"))
    with pytest.raises(RtError, match="no such file") as caught:
        user_mode.check("pasta", [])
    assert caught.value.hint == "sudo modprobe tun"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_is_looked_at_before(monkeypatch, tmp_path, protocol):
    monkeypatch.setattr("idmap.helpers.find_helper", lambda _: "/usr/bin/pasta")
    monkeypatch.setattr(user_mode, "TUN", str(tmp_path / "tun"))
    (tmp_path / "tun").write_text("")
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            taken.listen()
        number = taken.getsockname()[1]
        for address in ("", "127.0.0.1:", "0.0.0.0:"):
            with pytest.raises(RtError, match="the port is in use"):
                user_mode.check("pasta", parse_ports([f"{address}{number}:80/{protocol}"]))
    user_mode.check("pasta", parse_ports([f"127.0.0.1:{number}:80/{protocol}"]))
    with pytest.raises(RtError, match="cannot assign") as caught:
        user_mode.check("pasta", parse_ports([f"192.0.2.250:{number}:80/{protocol}"]))
    assert "ip address" in (caught.value.hint or "")
    assert posix.strerror(errno.EADDRNOTAVAIL).lower() in caught.value.message


@pytest.mark.parametrize(
    ("extents", "wanted"),
    [
        ([(0, 1000, 1)], "0 0"),
        ([(0, 1000, 1), (1, 100000, 65536)], "0 65536"),
        ([(1000, 1000, 1), (0, 100000, 1000), (1001, 101000, 64536)], "0 65536"),
        ([(0, 200000, 1), (1, 100000, 65536)], "1 65536"),  # the other way round on the host
        ([(5, 5, 1)], "5 5"),
        ([(0, 0, 4294967295)], "0 2147483647"),
    ],
)
def test_all_mapped_groups_may_ping(extents, wanted):
    assert user_mode.ping_group_range(extents) == wanted


def test_resolv_conf_names_the_helpers_server_and_keeps_the_hosts_search():
    host = b"nameserver 1.1.1.1\nsearch  a.example\tb.example\noptions ndots:2\n# search no\nsearch\n\xff\n"
    made = user_mode.resolv_conf(host)
    assert made == b"search a.example b.example\noptions ndots:2\nnameserver 10.0.2.3\n"
    assert user_mode.resolv_conf(b"") == b"nameserver 10.0.2.3\n"
    assert len(user_mode.resolv_conf(b"search " + b"x" * 100000 + b"\n")) < 1200


@pytest.mark.parametrize("name", ["", "two words", "line\nbreak"])
def test_hosts_takes_no_name_that_is_none(name):
    assert user_mode.hosts(name, host_loopback=False) == user_mode.hosts("", host_loopback=False)
    assert b"10.0.2.100\tbox\n" in user_mode.hosts("box", host_loopback=False)


def test_each_port_of_a_range_is_looked_at(monkeypatch, tmp_path):
    monkeypatch.setattr("idmap.helpers.find_helper", lambda _: "/usr/bin/pasta")
    monkeypatch.setattr(user_mode, "TUN", str(tmp_path / "tun"))
    (tmp_path / "tun").write_text("")
    with socket.socket(socket.AF_INET6) as taken:
        try:
            taken.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        taken.listen()
        last = taken.getsockname()[1]
        with pytest.raises(RtError, match="the port is in use") as caught:
            user_mode.check("pasta", [user_mode.Port("::1", last - 1, 80, "tcp", 2)])
        assert (
            f"[::1]:{last}:81/tcp" in caught.value.message or f"[::1]:{last - 1}:80" in caught.value.message
        )


def test_one_port_on_two_addresses_leads_to_one_place_with_pasta():
    """Debian 12's would take the last for both."""
    ports = parse_ports(["127.0.0.1:8080-8082:80-82", "[::1]:8081:90"])
    with pytest.raises(RtError, match=r"--publish \[::1\]:8081:90/tcp: pasta leads") as caught:
        user_mode.check("pasta", ports)
    assert "127.0.0.1:8080-8082:80-82/tcp" in (caught.value.hint or "")


def test_slirp4netns_is_not_asked_for_thousands_of_ports_one_by_one():
    with pytest.raises(RtError, match="1001 ports are more than") as caught:
        user_mode.check("slirp4netns", parse_ports(["2000-2999:1-1000", "80:80"]))
    assert "--net pasta" in (caught.value.hint or "")


def test_slirp4netns_says_that_it_has_no_ipv6_and_who_has():
    with pytest.raises(RtError, match=r"--publish \[::1\]:8080:80/tcp: slirp4netns publishes") as caught:
        user_mode.check("slirp4netns", parse_ports(["[::1]:8080:80"]))
    assert caught.value.hint == "pasta can: --net pasta"
