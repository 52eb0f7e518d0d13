"""The keywords of Container.checkpoint and Container.restore."""

from __future__ import annotations

import os

import pytest

from rootless_rt.api.saving import wanted_of


def test_they_become_what_criu_is_asked():
    wanted = wanted_of("images", {"parent": "../first", "work": "logs", "cgroup_mode": "full", "pre_dump": 1})
    assert (wanted.images, wanted.work) == (os.path.abspath("images"), os.path.abspath("logs"))
    assert (wanted.parent, wanted.cgroup_mode, wanted.pre_dump) == ("../first", "full", True)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"no_such": True}, TypeError, "no option 'no_such': there are auto_dedup, "),
        ({"cgroup_mode": "none"}, ValueError, "cgroup_mode 'none': there are full, ignore, soft, strict"),
        ({"parent": "/first"}, ValueError, "parent must be relative"),
    ],
)
def test_what_is_none_is_named(options, error, said):
    with pytest.raises(error, match=said):
        wanted_of("images", options)
