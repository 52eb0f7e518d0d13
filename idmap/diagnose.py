"""From evidence to the cause and its fix. Pure: reads nothing but its argument.

newuidmap says `write to uid_map failed: Operation not permitted` for half a dozen causes, so its words count
only where the evidence shows nothing wrong. `causes` names all that is wrong; `explain` makes one error of
it.
"""

from __future__ import annotations

import os

from idmap.errors import IdmapError
from idmap.evidence import CAP_SETFCAP, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN
from idmap.extents import show
from idmap.subid import FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from idmap.evidence import Evidence
    from idmap.extents import Extent
    from idmap.subid import SubRange

_EPERM, _ENOENT, _EACCES, _ESRCH = 1, 2, 13, 3

# By the first word of os-release's ID and ID_LIKE that is here.
_INSTALL = {
    "debian": "sudo apt install uidmap",
    "ubuntu": "sudo apt install uidmap",
    "fedora": "sudo dnf install shadow-utils",
    "rhel": "sudo dnf install shadow-utils",
    "centos": "sudo dnf install shadow-utils",
    "suse": "sudo zypper install shadow",
    "opensuse": "sudo zypper install shadow",
    "arch": "sudo pacman -S shadow",
    "alpine": "sudo apk add shadow-uidmap",
}


def explain(evidence: Evidence) -> IdmapError:
    """The error for a helper that failed: the first cause, with the fixes of the others after its own."""
    found = causes(evidence)
    if not found:
        helper = evidence.helper or "newuidmap"
        said = evidence.said or f"{os.path.basename(helper)} failed without a word"
        return IdmapError(
            f"{evidence.kind} map {_brief(evidence.asked)}: {said}",
            reason="map-write-refused",
            hint=f"run it by hand to see more: {helper} PID {_arguments(evidence.asked)}",
        )
    first = found[0]
    others = [cause.hint for cause in found[1:] if cause.hint and cause.hint != first.hint]
    if others:
        first.hint = "; then ".join([hint for hint in [first.hint, *others] if hint])
    return first


def causes(evidence: Evidence) -> list[IdmapError]:
    """All that keeps the helper from writing the map, what blocks first being first; empty when nothing is
    seen.

    Serves check-ups too: without a failure, evidence of a healthy system gives an empty list.
    """
    if not evidence.target_exists:
        return [IdmapError(f"process {evidence.pid} is gone", reason="target-gone")]
    found = _powerless(evidence)
    if "user name" in evidence.said:
        found.append(
            IdmapError(
                f"user {evidence.uid} has no name: {_tool(evidence)} serves only users who have one",
                reason="no-user-name",
                hint=f"add user {evidence.uid} to /etc/passwd, or map only the own id",
            )
        )
    found += _not_granted(evidence)
    if not evidence.dumpable:
        found.append(_not_dumpable(evidence))
    if evidence.mapped:
        found.append(_already_mapped(evidence))
    return found


def _tool(evidence: Evidence) -> str:
    return "newuidmap" if evidence.kind == "uid" else "newgidmap"


def _brief(asked: Sequence[Extent]) -> str:
    shown = ", ".join([show(extent) for extent in asked[:3]])
    return f"{shown}, … ({len(asked)} lines)" if len(asked) > 3 else shown


def _arguments(asked: Sequence[Extent]) -> str:
    shown = " ".join([f"{inside} {outside} {count}" for inside, outside, count in asked[:3]])
    return f"{shown} …" if len(asked) > 3 else shown


def helper_missing(tool: str, os_release: str) -> IdmapError:
    """The error for a helper that is nowhere; `os_release` are the words of the distribution's ID and
    ID_LIKE.

    >>> helper_missing("newuidmap", "ubuntu debian").hint
    'sudo apt install uidmap'
    """
    fix = next((_INSTALL[word] for word in os_release.replace("-", " ").split() if word in _INSTALL), None)
    return IdmapError(
        f"{tool} is not installed: it is neither in $PATH nor in /usr/bin, /bin, /usr/sbin or /sbin",
        reason="helper-missing",
        hint=fix or f"install the package that has {tool} (uidmap, shadow-utils or shadow)",
    )


def _powerless(evidence: Evidence) -> list[IdmapError]:
    """Why the helper, run by this process, does not get the capability it needs."""
    found: list[IdmapError] = []
    helper, tool = evidence.helper, _tool(evidence)
    if helper is None:
        return [helper_missing(tool, evidence.os_release)]
    needs, word = (CAP_SETUID, "setuid") if evidence.kind == "uid" else (CAP_SETGID, "setgid")
    setuid_root = evidence.helper_mode & 0o4000 and evidence.helper_owner == 0
    if not setuid_root and not evidence.helper_caps >> needs & 1:
        if evidence.helper_mode & 0o4000:
            problem = f"is setuid, but owned by user {evidence.helper_owner}, not by root"
            fix = ""
        else:
            problem = f"is neither setuid root nor has the capability cap_{word}"
            fix = f"sudo chmod u+s {helper}, or: sudo setcap cap_{word}=ep {helper}"
        hint = not_to_be_trusted(evidence) or fix
        found.append(IdmapError(f"{helper} {problem}", reason="helper-not-setuid", hint=hint))
    if evidence.nosuid:
        found.append(
            IdmapError(
                f"{helper} is on a file system mounted nosuid, so it runs without its privilege",
                reason="helper-nosuid",
                hint=not_to_be_trusted(evidence)
                or f'sudo mount -o remount,suid "$(findmnt -no TARGET -T {helper})"',
            )
        )
    if evidence.no_new_privs:
        found.append(
            IdmapError(
                f"no_new_privs is set on this process, so {tool} runs without its privilege",
                reason="no-new-privs",
                hint="start this process without it: Docker and Podman without "
                "--security-opt no-new-privileges, Kubernetes with allowPrivilegeEscalation: true, "
                "systemd with NoNewPrivileges=no; or map only the own id",
            )
        )
    if not evidence.bounding >> needs & 1:
        found.append(
            IdmapError(
                f"CAP_{word.upper()} is not in this process's bounding set, so {tool} cannot have it",
                reason="bounding-set",
                hint="Docker and Podman: --cap-add SETUID --cap-add SETGID; Kubernetes: capabilities.add "
                "[SETUID, SETGID]; systemd: both in CapabilityBoundingSet=; or map only the own id",
            )
        )
    elif setuid_root and not evidence.bounding >> CAP_SYS_ADMIN & 1:
        # Run as root it is not the owner of the user namespace, who alone needs nothing but CAP_SETUID.
        found.append(
            IdmapError(
                f"{helper} is setuid root, and so needs CAP_SYS_ADMIN, which the bounding set lacks",
                reason="helper-needs-admin",
                hint=not_to_be_trusted(evidence)
                or f"give it a file capability instead, as root: {file_caps_command(helper, word)}; "
                "or map only the own id",
            )
        )
    return found


def not_to_be_trusted(evidence: Evidence) -> str:
    """The hint where the helper must not be given the right that it lacks, as others than root could put
    anything in its place; else ""."""
    if not evidence.helper_exposed:
        return ""
    return (
        f"others than root can change {evidence.helper_exposed}, so give it no rights: "
        f"install {_tool(evidence)} anew, and take other copies of it out of $PATH"
    )


def file_caps_command(helper: str, word: str) -> str:
    """What has root make a setuid helper one with a file capability; `word` is setuid or setgid."""
    return f"chmod u-s {helper} && setcap cap_{word}=ep {helper}"


def first_not_granted(asked: Sequence[Extent], own: int, granted: Sequence[SubRange]) -> Extent | None:
    """The first extent that a helper would refuse: neither the own id alone nor within granted ranges.

    >>> first_not_granted([(0, 1000, 1), (1, 100000, 65536)], 1000, [(100000, 1000, 1)])
    (1, 100000, 65536)
    """
    for extent in asked:
        _, at, count = extent
        if (at, count) == (own, 1):
            continue
        end = at + count
        # Sorted, so that a line which continues another is met after it.
        for start, length, _ in sorted(granted):
            if start <= at < start + length:
                at = start + length
        if at < end:
            return extent
    return None


def _not_granted(evidence: Evidence) -> list[IdmapError]:
    refused = first_not_granted(evidence.asked, evidence.own, evidence.granted)
    if refused is None:
        return []
    file = FILES[evidence.kind] if evidence.provider == "files" else f"the subid provider {evidence.provider}"
    who = evidence.name or f"user {evidence.uid}"
    fix = _grant(evidence)
    if not evidence.granted:
        if evidence.malformed and evidence.provider == "files":
            message = f"{file}: line {evidence.malformed[0]} for {who} is malformed and grants nothing"
            fix = f"mend the line (NAME:START:COUNT), or: {fix}"
        else:
            message = f"{file} grants {who} no {evidence.kind}s"
        return [IdmapError(message, reason="no-subid-entry", hint=fix)]
    grants = ", ".join([f"{start}:{count} (line {line})" for start, count, line in evidence.granted[:4]])
    if len(evidence.granted) > 4:
        grants += ", …"
    return [
        IdmapError(
            f"{evidence.kind} map {show(refused)} is not granted: {file} grants {who} only {grants}",
            reason="range-too-small",
            hint=f"map only those, or add a range and map that: {fix}",
        )
    ]


def _grant(evidence: Evidence) -> str:
    """The command that grants a range that nobody has."""
    if evidence.provider != "files":
        return f"ask who runs the subid provider {evidence.provider} for a range of {evidence.kind}s"
    if evidence.proposed is None:
        return f"free 65536 ids in {FILES['uid']} and {FILES['gid']}: none are left"
    start, count = evidence.proposed
    if evidence.name is None or not evidence.name_is_local:
        # usermod knows only the users of /etc/passwd.
        owner = evidence.name or str(evidence.uid)
        return f"echo {owner}:{start}:{count} | sudo tee -a {FILES['uid']} {FILES['gid']}"
    kinds = [evidence.kind] if evidence.other_granted else ["uid", "gid"]
    flags = " ".join([f"--add-sub{kind}s {start}-{start + count - 1}" for kind in kinds])
    return f"sudo usermod {flags} {evidence.name}"


def _not_dumpable(evidence: Evidence) -> IdmapError:
    return IdmapError(
        f"process {evidence.pid} is not dumpable, so its map files belong to root",
        reason="target-not-dumpable",
        hint="have it call prctl(PR_SET_DUMPABLE, 1) before it is mapped",
    )


def _already_mapped(evidence: Evidence) -> IdmapError:
    return IdmapError(
        f"process {evidence.pid} already has a {evidence.kind} map, and a map is written once",
        reason="already-mapped",
    )


def explain_direct(evidence: Evidence) -> IdmapError:
    """The error for a direct write of `evidence.file` that ended with `evidence.errno`."""
    errno, file = evidence.errno, evidence.file
    if not evidence.target_exists or errno in (_ENOENT, _ESRCH):
        return IdmapError(f"process {evidence.pid} is gone", reason="target-gone")
    if errno in (_EPERM, _EACCES):
        if evidence.mapped:
            return _already_mapped(evidence)
        if not evidence.dumpable and evidence.uid != 0:
            return _not_dumpable(evidence)
        if evidence.apparmor_restricts and evidence.uid != 0:
            return IdmapError(
                f"AppArmor gives this program no capabilities in its user namespaces, so {file} is refused",
                reason="apparmor-userns",
                hint="sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, "
                "or an AppArmor profile with `userns,` for this program",
            )
        needs = CAP_SETUID if evidence.kind == "uid" else CAP_SETGID
        alone = len(evidence.asked) == 1 and evidence.asked[0][1:] == (evidence.own, 1)
        if not alone and not evidence.effective >> needs & 1:
            return _capability_missing(evidence, "CAP_SETUID" if evidence.kind == "uid" else "CAP_SETGID")
        # The kernel asks this of whoever maps the parent's root, since 5.12.
        root_mapped = any(outside == 0 for _, outside, _ in evidence.asked)
        if root_mapped and evidence.kind == "uid" and not evidence.effective >> CAP_SETFCAP & 1:
            return _capability_missing(evidence, "CAP_SETFCAP")
    return IdmapError(
        f"/proc/{evidence.pid}/{file}: {os.strerror(errno)} (map {_brief(evidence.asked)})",
        reason="map-write-refused",
    )


def _capability_missing(evidence: Evidence, capability: str) -> IdmapError:
    return IdmapError(
        f"{evidence.kind} map {_brief(evidence.asked)}: this process lacks {capability}",
        reason="missing-capability",
        hint=f"run with {capability} (Docker and Podman: --cap-add {capability[4:]}), or map only the own id",
    )
