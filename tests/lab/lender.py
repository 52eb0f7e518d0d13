"""A service that stands in for systemd-nsresourced: the protocol as systemd 257 speaks it, and real maps.

`python3 -I lender.py SOCKET UID ERROR`, started by root, serves as UID until it is killed, and says a line
when it listens. With an ERROR that is not empty every allocation fails by that name. What it checks and
answers was recorded from systemd 257.13 on Linux 6.12 (`tests/qemu/test_nsresource.py` runs the real one).
"""

import array
import json
import os
import socket
import sys

START = 1879048192 - 65536  # the last range that systemd has for containers
INTERFACE = "io.systemd.NamespaceResource."
SIZE = 65536


def answer(method: str, asked: dict, fds: list[int], error: str) -> dict:
    if method == "org.varlink.service.GetInfo":
        told = {
            "vendor": "The tests of rt",
            "product": "stand-in",
            "version": "257",
            "url": "",
            "interfaces": [],
        }
        return {"parameters": told}
    if method != INTERFACE + "AllocateUserRange":
        return {"error": "org.varlink.service.MethodNotFound", "parameters": {"method": method}}
    if error:
        return {"error": error, "parameters": {}}
    index = asked.get("userNamespaceFileDescriptor")
    if not isinstance(index, int) or index >= len(fds):
        return {"error": "io.systemd.System", "parameters": {"errno": 6}}
    wrong = [name for name in ("name", "size") if name not in asked] + [
        name for name in asked if name not in ("name", "size", "target", "userNamespaceFileDescriptor")
    ]
    if wrong or asked["size"] not in (1, SIZE):
        return {
            "error": "org.varlink.service.InvalidParameter",
            "parameters": {"parameter": [*wrong, "size"][0]},
        }
    write_maps(fds[index], asked.get("target", 0), asked["size"])
    return {"parameters": {}}


def write_maps(userns: int, target: int, size: int) -> None:
    """By a child that is in the namespace, as the service does it."""
    ready, said = os.pipe()
    stay, let_go = os.pipe()
    child = os.fork()
    if not child:
        os.close(let_go)
        os.setns(userns, 0x10000000) if hasattr(os, "setns") else setns(userns)
        os.write(said, b"x")
        os.read(stay, 1)
        os._exit(0)
    os.close(said)
    assert os.read(ready, 1) == b"x"
    for kind in ("uid", "gid"):
        with open(f"/proc/{child}/{kind}_map", "w") as file:
            file.write(f"{target} {START} {size}\n")
    os.close(let_go)
    os.waitpid(child, 0)
    for fd in (ready, stay):
        os.close(fd)


def setns(userns: int) -> None:
    """os.setns, which Python has from 3.12 on."""
    import ctypes

    assert ctypes.CDLL(None).setns(userns, 0x10000000) == 0


def serve(path: str, error: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen()
    print("listens", flush=True)
    while True:
        connection, _ = listener.accept()
        request, fds = b"", array.array("i")
        while not request.endswith(b"\0"):
            part, rights, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(4 * 16))
            for _, _, data in rights:
                fds.frombytes(data)
            request += part
            if not part:
                break
        if request:
            call = json.loads(request[:-1])
            connection.sendall(
                json.dumps(answer(call["method"], call["parameters"], list(fds), error)).encode() + b"\0"
            )
        for fd in fds:
            os.close(fd)
        connection.close()


if __name__ == "__main__":
    os.setuid(int(sys.argv[2]))
    serve(sys.argv[1], sys.argv[3])
