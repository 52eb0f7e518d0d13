"""Whether checkpoints can be made here, and why not: for `rt doctor` and `rt features`."""

from __future__ import annotations

from importlib.util import find_spec

from rootless_rt.criu import privilege, program
from rootless_rt.errors import RtError
from rootless_rt.host.doctor.fixes import install
from rootless_rt.host.doctor.model import Me, Trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.host.doctor.model import Check


class CriuEvidence:
    """program: the path of criu, or "". refused: why this user may not, or "". library: whether protobuf is
    there. problem: why that program is of no use here, or "" (not looked at where `refused`)."""

    __slots__ = ("library", "problem", "program", "refused")

    def __init__(self, path: str = "/usr/sbin/criu") -> None:
        self.program = path
        self.refused = ""
        self.library = True
        self.problem = ""


def gather(given: str | None) -> CriuEvidence:
    """Look for the program, and have it check the kernel; `given` is what --criu names."""
    found = CriuEvidence("")
    try:
        found.program = program.find(given)
    except RtError:
        pass
    try:
        privilege.is_unprivileged()
    except RtError as error:
        found.refused = error.message
    found.library = _has_protobuf()
    if found.program and not found.refused:
        found.problem = _problem(found.program, found.library)
    return found


def _problem(path: str, library: bool) -> str:
    said = program.check(path)
    if said:
        return f"{path} does not work on this kernel: {said}"
    if not library:
        return ""
    from rootless_rt.criu.rpc import version

    try:
        version(path)
    except RtError as error:
        return error.message
    return ""


def _has_protobuf() -> bool:
    try:
        return find_spec("google.protobuf") is not None
    except ModuleNotFoundError:
        return False


def reason(found: CriuEvidence) -> str:
    """Why no checkpoint can be made here, in one line; empty when one can."""
    if found.refused:
        return found.refused
    if not found.program:
        return "criu is not installed"
    if not found.library:
        return "the Python package protobuf is not installed"
    return found.problem


def check_criu(found: CriuEvidence, me: Me) -> Trouble | str:
    """For checkpoints. Nobody needs them to run containers: what is not installed is no trouble."""
    if found.refused:
        return found.refused
    if not found.program:
        return f"not installed; for checkpoints: {install('criu', me.manager)[0]}"
    if not found.library:
        return Trouble(
            "Python has no protobuf: rt cannot speak to criu",
            "pip install 'rootless-rt[criu]', or the distribution's python3-protobuf",
        )
    if found.problem:
        return Trouble(found.problem, "a newer criu, or kernel")
    return found.program


CHECKS: tuple[Check, ...] = (("RT-TOOL-CRIU", check_criu),)
