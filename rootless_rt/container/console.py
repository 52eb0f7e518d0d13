"""Sockets that an engine listens on: the terminal's master end and the pidfd go to them (SCM_RIGHTS)."""

from __future__ import annotations

import posix
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket

from rootless_rt import paths
from rootless_rt.errors import RtError


def connect(path: str, option: str) -> socket:
    """Connect to the unix socket that a command-line option names. Raises RtError."""
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        # The address holds 107 bytes; the directory's descriptor stands for a longer way.
        path = paths.absolute(path)
        parent, name = paths.dirname(path), paths.basename(path)
        directory = posix.open(parent, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{name}")
        finally:
            posix.close(directory)
    except OSError as error:
        connection.close()
        raise RtError(
            f"{option} {path}: {posix.strerror(error.errno or 0).lower()}",
            hint="it must be a unix stream socket that somebody listens on",
        ) from None
    return connection


def send_fd(connection: socket, fd: int, text: str) -> None:
    """Send a descriptor with a text; closes the connection."""
    try:
        connection.sendmsg([text.encode()], [(SOL_SOCKET, SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))])
    except OSError as error:
        raise RtError(f"cannot send a descriptor: {posix.strerror(error.errno or 0).lower()}") from None
    finally:
        connection.close()
