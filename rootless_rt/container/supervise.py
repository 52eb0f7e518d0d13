"""The foreground of `run`: wait for the container, forward signals, carry its terminal.

Theory of operation: Python's signal handlers only run between bytecodes, so none does any work here. Each
signal's number arrives through a pipe (signal.set_wakeup_fd) in the one poll loop that also watches the
container's pidfd and, with a terminal, its master end and the caller's stdin.
"""

from __future__ import annotations

import _signal
import fcntl
import posix
import select
import sys

from rootless_rt.container import processes, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

    from rootless_rt.container.notify import Proxy

_SIGCHLD, _SIGWINCH, _SIGURG, _SIGPIPE = 17, 28, 23, 13
# Left alone: those that cannot be caught, and those that tell of this process itself; SIGCHLD is wanted.
_NOT_CAUGHT = {9, 19, 32, 33, 4, 5, 6, 7, 8, 11, 31, _SIGPIPE, _SIGURG}
_TIOCGWINSZ, _TIOCSWINSZ = 0x5413, 0x5414
_CHUNK = 1 << 16


def window_size(fd: int) -> tuple[int, int]:
    """Rows and columns of a terminal; (0, 0) when the descriptor is none."""
    try:
        raw = fcntl.ioctl(fd, _TIOCGWINSZ, bytes(8))
    except OSError:
        return 0, 0
    return int.from_bytes(raw[:2], sys.byteorder), int.from_bytes(raw[2:4], sys.byteorder)


def exit_code(status: int) -> int:
    """A wait status as a shell's exit code: 128 + n for signal n."""
    return 128 + posix.WTERMSIG(status) if posix.WIFSIGNALED(status) else posix.WEXITSTATUS(status)


class Wakeup:
    """Signals as bytes in a pipe, from the moment this is made."""

    __slots__ = ("_early", "fd")

    def __init__(self) -> None:
        self.fd, far = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        self._early = b""  # came during `until`
        _signal.set_wakeup_fd(far, warn_on_full_buffer=False)
        self.catch()

    def catch(self) -> None:
        """Take the signals, again if others have been given their handlers meanwhile."""
        for number in range(1, 65):
            if number not in _NOT_CAUGHT:
                _signal.signal(number, _nothing)

    def until(self, fd: int) -> None:
        """Wait until `fd` can be read; what comes meanwhile is for `numbers`.

        But a signal that ends a command is raised as Interrupted if it comes before `fd` has anything to say.
        """
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self.fd, select.POLLIN)
        while fd not in dict(poll.poll()):
            fresh = self._read()
            for number in fresh:
                if number in signals.ENDING:
                    raise signals.Interrupted(number)
            self._early += fresh

    def numbers(self) -> bytes:
        """The signals that have come since the last call."""
        found, self._early = self._early + self._read(), b""
        return found

    def _read(self) -> bytes:
        try:
            return posix.read(self.fd, 4096)
        except BlockingIOError:
            return b""


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler must exist for the signal to reach the wake-up pipe."""


def supervise(pid: int, pidfd: int, console: int, wakeup: Wakeup, notify: Proxy | None = None) -> int:
    """Serve the container until its process ends; returns the exit code for `run`.

    `console` is the terminal's master end, or -1: then stdio is the container's own and passes through.
    `notify` carries what the program tells the service manager.
    """
    terminal = Terminal(console) if console >= 0 else None
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(wakeup.fd, select.POLLIN)
    if notify is not None:
        poll.register(notify.fd, select.POLLIN)
    status: int | None = None
    try:
        if terminal is not None:
            terminal.begin(poll)
        while True:
            # Before the first wait: some may have come already.
            for number in wakeup.numbers():
                if number == _SIGCHLD:
                    status = _reap(pid, status)
                elif number == _SIGWINCH and terminal is not None:
                    terminal.resize()
                elif number != _SIGWINCH:
                    processes.send_signal(pidfd, number)
            ready = dict(poll.poll())
            if terminal is not None:
                terminal.carry(ready, poll)
            if notify is not None and (fd := notify.fd) in ready and notify.serve():
                poll.unregister(fd)
                notify = None
            if pidfd in ready:
                if terminal is not None:
                    terminal.drain()
                return exit_code(posix.waitpid(pid, 0)[1] if status is None else status)
    finally:
        if terminal is not None:
            terminal.end()
        if notify is not None:
            notify.close()


def _reap(pid: int, status: int | None) -> int | None:
    """Put away the children that have ended: the container's process, and orphans of it that became ours.

    `status` is that of the container's process if it is known already; the answer is it, or None still.
    """
    while True:
        try:
            found, ended = posix.waitpid(-1, posix.WNOHANG)
        except ChildProcessError:
            return status
        if found == 0:
            return status
        if found == pid:
            status = ended


class Terminal:
    """Carries bytes between the caller's stdin and stdout and the container's terminal."""

    __slots__ = ("_input", "_pending", "_saved", "master")

    def __init__(self, master: int) -> None:
        self.master = master
        self._saved: list[object] | None = None
        self._pending = b""  # typed, not yet taken by the container
        self._input = True

    def begin(self, poll: select.poll) -> None:
        """Put the caller's terminal into raw mode: the container's terminal does all the editing."""
        import termios

        posix.set_blocking(self.master, False)
        try:
            self._saved = termios.tcgetattr(0)
            raw = termios.tcgetattr(0)
        except termios.error:
            self._saved = None
        else:
            _make_raw(raw, termios)
            termios.tcsetattr(0, termios.TCSANOW, raw)
        self.resize()
        poll.register(self.master, select.POLLIN)
        poll.register(0, select.POLLIN)

    def end(self) -> None:
        """Give the caller's terminal back as it was."""
        if self._saved is not None:
            import termios

            # TCSADRAIN: what the container wrote last is shown before the mode changes.
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            self._saved = None

    def resize(self) -> None:
        """Give the container's terminal the size of the caller's."""
        for fd in (0, 1):
            rows, cols = window_size(fd)
            if rows and cols:
                size = rows.to_bytes(2, sys.byteorder) + cols.to_bytes(2, sys.byteorder) + bytes(4)
                fcntl.ioctl(self.master, _TIOCSWINSZ, size)
                return

    def carry(self, ready: dict[int, int], poll: select.poll) -> None:
        """Move what is ready."""
        readable = ready.get(self.master, 0) & (select.POLLIN | select.POLLHUP | select.POLLERR)
        if readable and not self._to_caller():
            poll.unregister(self.master)
            self._stop_input(poll)
            return
        if self._input and 0 in ready and not self._pending:
            try:
                self._pending = posix.read(0, _CHUNK)
            except OSError:
                self._pending = b""
            if not self._pending:
                # The caller's input has ended: say so as a terminal does, with its end-of-file character.
                self._pending = b"\x04"
                self._stop_input(poll)
        if self._pending:
            self._to_container(poll)

    def _stop_input(self, poll: select.poll) -> None:
        if self._input:
            self._input = False
            poll.unregister(0)

    def _to_container(self, poll: select.poll) -> None:
        try:
            self._pending = self._pending[posix.write(self.master, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self._pending = b""
        mask = select.POLLIN | (select.POLLOUT if self._pending else 0)
        try:
            poll.modify(self.master, mask)
            if self._input:
                poll.modify(0, 0 if self._pending else select.POLLIN)
        except FileNotFoundError:
            pass  # the master has been unregistered: the container closed its terminal

    def _to_caller(self) -> bool:
        """Copy one chunk out; False when the container's end is closed for good (EIO)."""
        try:
            data = posix.read(self.master, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        while data:
            try:
                data = data[posix.write(1, data) :]
            except BlockingIOError:
                select.select([], [1], [])
            except OSError:
                return bool(data)  # nobody reads any more; the container is not to block on that
        return True

    def drain(self) -> None:
        """Copy what the container wrote before it ended."""
        while True:
            waiting = select.poll()
            waiting.register(self.master, select.POLLIN)
            ready = waiting.poll(0)
            if not ready or not ready[0][1] & select.POLLIN or not self._to_caller():
                return


def _make_raw(mode: list[object], termios: object) -> None:
    """cfmakeraw(3) on the list of tcgetattr."""
    get = termios.__getattribute__
    off = {
        0: ("IGNBRK", "BRKINT", "PARMRK", "ISTRIP", "INLCR", "IGNCR", "ICRNL", "IXON"),
        1: ("OPOST",),
        2: ("CSIZE", "PARENB"),
        3: ("ECHO", "ECHONL", "ICANON", "ISIG", "IEXTEN"),
    }
    for place, names in off.items():
        value = mode[place]
        assert isinstance(value, int)
        for name in names:
            value &= ~get(name)
        mode[place] = value | (get("CS8") if place == 2 else 0)
    chars = mode[6]
    assert isinstance(chars, list)
    chars[get("VMIN")], chars[get("VTIME")] = 1, 0
