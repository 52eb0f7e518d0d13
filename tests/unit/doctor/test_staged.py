"""Every id that rt can print is met on the real kernel by some test, or it is said here why it cannot be.

A test shows an id by a row of lab.simulators, or by the mark `explains`.
"""

from __future__ import annotations

import ast
import re

from lab.simulators import ROWS, staged
from lab.tree import TREE, modules

from rootless_rt.host.doctor.reasons import BY_ID
from rootless_rt.host.doctor.reasons_errors import OF_MAPS

_OTHER_KERNEL = "it takes another kernel than the one that the tests have"
# Each of these is shown on evidence made by hand, in tests/unit/doctor.
UNSTAGED = {
    "RT-KERNEL-VERSION": _OTHER_KERNEL,
    "RT-KERNEL-FEATURES": _OTHER_KERNEL,
    "RT-KERNEL-OVERLAY": _OTHER_KERNEL,
    "RT-USERNS-KERNEL": _OTHER_KERNEL,
    "RT-USERNS-APPARMOR": "the sysctl is Ubuntu's own: no other kernel has it",
    "RT-LSM": "profiles of AppArmor are loaded in the lane uml, where doctor is not run under one",
    "RT-CGROUP-VERSION": "v1, hybrid or v2 is the host's own choice at boot",
    "RT-CGROUP-CONTROLLERS": "needs a manager that delegates some controllers: the lane uml shows the limits",
    "RT-CGROUP-LIMITS": "needs limits on the session's own cgroup, which are the host's",
    "RT-SYSTEMD-CLIENT": "the packages of the interpreter that runs rt are not the tests' to remove",
    "RT-PYTHON": "needs another interpreter",
    "RT-QUOTA-INOTIFY": "the sysctl is the whole host's",
    "RT-NET-PING": "the initial network namespace's sysctl is the whole host's",
    "RT-DEV-KVM": "a remark: it is never wrong",
    "RT-TOOL-CRIU": "a kernel on which criu fails, or a Python without protobuf, is not the tests' to make",
    "RT-TOOL-SECCOMP": "the libraries of the host are not the tests' to remove",
    "RT-BUNDLE-FILESYSTEM": "needs a network file system, or one without owners",
}


def marked() -> set[str]:
    """The ids that marks name."""
    found: set[str] = set()
    for path in TREE.glob("tests/*/test_*.py"):
        if path.parent.name != "unit":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.explains":
                    found |= {item.value for item in node.args if isinstance(item, ast.Constant)}
    return found


def printed() -> set[str]:
    """The ids in the code, but for the catalogue itself."""
    found = set()
    for name, path in modules().items():
        if ".doctor.reasons" not in name:
            found |= set(re.findall(r'"(RT-[A-Z-]+[A-Z])"', path.read_text()))
    return found | set(OF_MAPS.values())


def test_every_id_that_is_printed_has_an_explanation_and_all_are_printed() -> None:
    assert printed() - {"RT-"} == set(BY_ID)


def test_every_id_is_staged_or_it_is_said_why_it_is_not() -> None:
    shown = staged() | marked()
    assert set(BY_ID) - shown == set(UNSTAGED)
    assert all(UNSTAGED.values()) and shown <= set(BY_ID)


def test_what_is_not_staged_is_shown_on_evidence() -> None:
    text = "".join(path.read_text() for path in (TREE / "tests/unit/doctor").glob("test_*.py"))
    assert [id for id in UNSTAGED if text.count(f'"{id}"') < 2] == []


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
