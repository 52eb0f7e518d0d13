"""What the API raises: all of it is `RtError`, with the command line's own texts.

Knows which error of the rooms below is which class here. Must not know how containers are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from idmap.errors import IdmapError
from rootless_rt.container.store import Handle, Store, check_id, missing
from rootless_rt.errors import RtError, SpecError
from rootless_rt.host.doctor.reasons_errors import OF_MAPS
from rootless_rt.host.outer import fix_here
from rootless_rt.host.reach import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.api.result import Result

ConfigError = SpecError


class ContainerNotFound(RtError):
    """There is no container of that id below the state root."""


class MappingFailed(RtError):
    """The ids of the container cannot be mapped; `reason` is a word for the cause, as of `idmap`."""

    def __init__(self, error: IdmapError) -> None:
        hint, id = fix_here(error.reason) or error.hint, OF_MAPS.get(error.reason, "")
        super().__init__(error.message, hint=hint, id=id)
        self.reason = error.reason


class Expired(RtError, TimeoutError):
    """A process has not ended in the time that was given to wait for it; it still runs."""


class Closed(RtError):
    """The sandbox, pool or process has been closed."""


class ProcessFailed(RtError):
    """What `Result.check` raises; `result` is the result."""

    def __init__(self, message: str, result: Result, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.result = result


@contextmanager
def told() -> Iterator[None]:
    """Everything that leaves is RtError, or an error of the caller's own arguments."""
    try:
        yield
    except IdmapError as error:
        raise MappingFailed(error) from None
    except RtError as error:
        if not error.closed:
            raise
        raise explained(error) from None


def found(store: Store, container_id: str) -> Handle:
    """The container's open directory. Raises ContainerNotFound, or RtError for an id that is none."""
    handle = store.find(check_id(container_id))
    if handle is None:
        error = missing(container_id)
        raise ContainerNotFound(error.message, hint=error.hint)
    return handle
