"""A pytest plugin: the fixture `rt_sandbox`, for test suites that run code which nobody trusts.

    def test_a_submission(rt_sandbox):
        result = rt_sandbox().run(["python3", "-c", "print(6 * 7)"], timeout=10)
        assert result.check().text == "42\\n"

Without a config a sandbox has this host's programs, read-only (`rootless_rt.host_config`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rootless_rt.api.config import Bundle
from rootless_rt.api.presets import host_config
from rootless_rt.api.sandbox import Sandbox


@pytest.fixture
def rt_sandbox(tmp_path: Any) -> Iterator[Callable[..., Sandbox]]:
    """Makes sandboxes that are closed with the test: rt_sandbox(bundle, ...) has the arguments of Sandbox."""
    made: list[Sandbox] = []

    def make(bundle: Bundle | None = None, *args: Any, **options: Any) -> Sandbox:
        config = host_config(tmp_path / f"rt-rootfs{len(made)}") if bundle is None else bundle
        made.append(Sandbox(config, *args, **options))
        return made[-1]

    yield make
    for sandbox in reversed(made):
        sandbox.close()
