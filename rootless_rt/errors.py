"""The errors `rt` shows to people: one line that says what is wrong and where, one hint with the fix.

Knows nothing of commands, containers or output; every room may import it. It imports nothing itself, but to
explain an error.
"""

from __future__ import annotations

# For str.translate: each control character as \xNN, so that a text is one line and steers no terminal.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


class RtError(Exception):
    """Something a user can understand and mend.

    `message` is one line without a final full stop; `hint`, when there is one, names the fix;
    `code` is the exit status of the command that fails with it; `id` is what `rt explain` takes to say more,
    or empty. `closed` is a path that the kernel has denied, for who can say why.
    """

    def __init__(self, message: str, *, hint: str | None = None, code: int = 1, id: str = "") -> None:
        # A name out of a config or an image may hold line breaks, or steer a terminal.
        message = message.translate(CONTROLS)
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.id = id
        self.closed = ""

    def explain(self) -> str:
        """The message, the hint, and what `rt explain` says of the id, if there is one; several lines."""
        from rootless_rt.host.doctor.explain import explained

        return explained(self.message, self.hint, self.id)


class SpecError(RtError):
    """A wrong value in config.json: `path` is its JSON path, such as `process.user.uid`."""

    def __init__(self, path: str, problem: str, *, hint: str | None = None, id: str = "") -> None:
        where = f"config.json: {path}" if path else "config.json"
        super().__init__(f"{where}: {problem}", hint=hint, id=id)
        self.path = path
