"""An OCI container runtime for people without root: the command `rt`, and this API.

>>> import rootless_rt
>>> with rootless_rt.Sandbox("/path/to/bundle") as sandbox:      # doctest: +SKIP
...     sandbox.run(["echo", "hello"]).check().text
'hello\\n'

Importing the package loads nothing: a name is loaded when it is first used. docs/api.md is the guide.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.api.aio import AsyncPool, AsyncProcess, AsyncSandbox
    from rootless_rt.api.config import Limits
    from rootless_rt.api.container import Container
    from rootless_rt.api.errors import (
        Closed,
        ConfigError,
        ContainerNotFound,
        Expired,
        MappingFailed,
        ProcessFailed,
    )
    from rootless_rt.api.pool import Pool
    from rootless_rt.api.presets import hardened_config, host_config, small_rootfs
    from rootless_rt.api.process import Process
    from rootless_rt.api.result import Result
    from rootless_rt.api.runtime import Runtime
    from rootless_rt.api.sandbox import Sandbox
    from rootless_rt.api.streams import DEVNULL, PIPE, STDOUT
    from rootless_rt.errors import RtError
    from rootless_rt.plan.model import Degradation

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "AsyncPool",
    "AsyncProcess",
    "AsyncSandbox",
    "Closed",
    "ConfigError",
    "Container",
    "ContainerNotFound",
    "Degradation",
    "Expired",
    "Limits",
    "MappingFailed",
    "Pool",
    "Process",
    "ProcessFailed",
    "Result",
    "RtError",
    "Runtime",
    "Sandbox",
    "hardened_config",
    "host_config",
    "small_rootfs",
]

_HOME = {
    "DEVNULL": "api.streams",
    "PIPE": "api.streams",
    "STDOUT": "api.streams",
    "AsyncPool": "api.aio",
    "AsyncProcess": "api.aio",
    "AsyncSandbox": "api.aio",
    "Closed": "api.errors",
    "ConfigError": "api.errors",
    "Container": "api.container",
    "ContainerNotFound": "api.errors",
    "Degradation": "plan.model",
    "Expired": "api.errors",
    "Limits": "api.config",
    "MappingFailed": "api.errors",
    "Pool": "api.pool",
    "Process": "api.process",
    "ProcessFailed": "api.errors",
    "Result": "api.result",
    "RtError": "errors",
    "Runtime": "api.runtime",
    "Sandbox": "api.sandbox",
    "hardened_config": "api.presets",
    "host_config": "api.presets",
    "small_rootfs": "api.presets",
}


def __getattr__(name: str) -> object:
    """Load the module of a public name when the name is first used (PEP 562)."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # __import__ and not importlib: importlib itself costs more than all of this package.
    value: object = getattr(__import__(f"{__name__}.{home}", fromlist=(name,)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, those not loaded yet among them."""
    return sorted({*globals(), *__all__})
