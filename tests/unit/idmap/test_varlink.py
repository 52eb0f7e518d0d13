"""The varlink client against services of every kind: what goes out, and what it makes of what comes back."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from lab.waiting import PATIENCE

from idmap.errors import IdmapError
from idmap.nsresource import is_there, lend, look
from idmap.varlink import MOST_BYTES, VarlinkError
from idmap.varlink import call as call_in_time

METHOD = "org.example.Do"
call = partial(call_in_time, seconds=PATIENCE)


class Service:
    """Answers each connection with the next of some bytes (None: not at all); keeps what it was asked."""

    def __init__(self, path: Path, *answers: bytes | None) -> None:
        self.path = str(path)
        self.requests: list[bytes] = []
        self.fds: list[int] = []
        self._answers = answers
        self._done = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                request, fds, _, _ = socket.recv_fds(connection, 65536, 8)
                self.requests.append(request)
                self.fds += fds
                if answer is None:
                    self._done.wait(60)
                    continue
                try:
                    connection.sendall(answer)
                except OSError:
                    pass  # it has heard enough

    def end(self) -> None:
        self._done.set()
        self._thread.join()
        self._listener.close()
        for fd in self.fds:
            os.close(fd)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[object]:
    services: list[Service] = []

    def start(*answers: bytes | None) -> Service:
        services.append(Service(tmp_path / "socket", *answers))
        return services[-1]

    yield start
    for service in services:
        service.end()


def test_a_call_is_one_object_and_passes_descriptors(serve, tmp_path):
    service = serve(b'{"parameters": {"name": "x"}}\0')
    file = tmp_path / "file"
    file.write_text("here")
    with open(file) as opened:
        found = call(service.path, METHOD, {"index": 0}, [opened.fileno()], owner=os.getuid())
    assert found == {"name": "x"}
    assert json.loads(service.requests[0].removesuffix(b"\0")) == {
        "method": METHOD,
        "parameters": {"index": 0},
    }
    assert os.pread(service.fds[0], 10, 0) == b"here"


@pytest.mark.parametrize(
    "answer", [b"{}\0", b'{"parameters": null}\0', b'{"parameters":{},"continues":false}\0']
)
def test_an_answer_may_have_no_parameters(answer, serve):
    assert call(serve(answer).path, METHOD, {}, owner=os.getuid()) == {}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "cut short"),
        (b'{"parameters": {}}', "cut short"),
        (b"\0", "not JSON"),
        (b"[]\0", "not one of varlink"),
        (b'"x"\0', "not one of varlink"),
        (b"\xff\0", "not JSON"),
        (b'{"parameters": {}}{}\0', "not JSON"),
        (b'{"parameters": {}}\0{}\0', "not JSON"),
        (b'{"parameters": {"a": 1, "a": 2}}\0', "not JSON"),
        (b'{"parameters": {"a": NaN}}\0', "not JSON"),
        (b"[" * 60000 + b"\0", "not JSON"),
        (b'{"parameters": []}\0', "not one of varlink"),
        (b'{"parameters": {}, "continues": true}\0', "not one of varlink"),
        (b'{"parameters": {}, "continues": 1}\0', "not one of varlink"),
        (b"x" * (MOST_BYTES + 10), "too long"),
        (b'{"error": 7}\0', "an error without a name"),
        (b'{"error": "\\u001b[31m"}\0', "an error without a name"),
    ],
)
def test_any_other_answer_is_an_error(answer, problem, serve):
    with pytest.raises(VarlinkError, match=problem) as caught:
        call(serve(answer).path, METHOD, {}, owner=os.getuid())
    assert caught.value.name == ""


def test_an_error_has_its_name(serve):
    service = serve(b'{"error": "org.example.No", "parameters": {}}\0')
    with pytest.raises(VarlinkError) as caught:
        call(service.path, METHOD, {}, owner=os.getuid())
    assert caught.value.name == "org.example.No"


def test_a_service_of_another_user_is_not_asked(serve):
    service = serve(b"")
    with pytest.raises(VarlinkError, match="is served by uid"):
        call(service.path, METHOD, {}, owner=os.getuid() + 1)


def test_a_call_is_sent_once_and_nothing_after_it(serve, monkeypatch):
    """To send no bytes at all fails, too, once the other side has answered and closed."""
    sent = []

    class Told(socket.socket):
        def sendall(self, data, *flags):
            sent.append(data)
            super().sendall(data, *flags)

    monkeypatch.setattr("idmap.varlink.socket", Told)
    call(serve(b"{}\0").path, METHOD, {}, owner=os.getuid())
    assert sent == []


def test_a_silent_service_is_not_waited_for(serve):
    with pytest.raises(VarlinkError, match="no answer in time"):
        call(serve(None).path, METHOD, {}, owner=os.getuid(), seconds=0.05)


def test_a_service_that_is_not_there_is_told(tmp_path):
    with pytest.raises(VarlinkError, match="no such file"):
        call(str(tmp_path / "none"), METHOD, {})
    (tmp_path / "file").write_text("")
    assert not is_there(str(tmp_path / "none")) and not is_there(str(tmp_path / "file"))


def test_the_version_and_whether_ids_are_lent_are_asked(serve):
    told = b'{"parameters": {"version": "257"}}\0'
    service = serve(told, b'{"error": "io.systemd.System"}\0')
    assert is_there(service.path) and look(service.path, owner=os.getuid()) == ("257", "")
    service.end()
    os.unlink(service.path)
    refused = b'{"error": "io.systemd.NamespaceResource.UserNamespaceInterfaceNotSupported"}\0'
    version, why = look(serve(told, refused).path, owner=os.getuid())
    assert version == "257" and "BPF LSM" in why


def test_a_service_that_claims_to_have_lent_is_not_believed(serve):
    """The own process has no new namespace: whatever is answered, its maps are not those asked for."""
    service = serve(b'{"parameters": {}}\0')
    with pytest.raises(IdmapError, match="other maps than it was asked for") as caught:
        lend(os.getpid(), service.path, owner=os.getuid())
    assert caught.value.reason == "nsresource-refused"
    assert os.fstat(service.fds[0]).st_ino == os.stat("/proc/self/ns/user").st_ino
    asked = json.loads(service.requests[0].removesuffix(b"\0"))["parameters"]
    assert asked.pop("name").startswith("rt")
    assert asked == {"size": 65536, "target": 0, "userNamespaceFileDescriptor": 0}
