"""`rt exec`: a further program in a container that runs."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation, flag, items, text
from rootless_rt.cli.common import changes_nothing, container_options, log_of, store_of, tell
from rootless_rt.container import signals
from rootless_rt.container.create import end_process, start_now
from rootless_rt.container.execute import add_process, check_status, saved_spec
from rootless_rt.container.store import check_id
from rootless_rt.container.supervise import Wakeup, supervise, window_size
from rootless_rt.errors import RtError, SpecError
from rootless_rt.spec import names, rules, schema
from rootless_rt.spec.load import MOST_BYTES, checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt.spec.load import Spec

FAILED = 255  # tells an error of rt from the exit codes of programs, as runc does
# What hints call by the field's name came from the command line, unless --process was given.
_ON_THE_LINE = (("process.args", "COMMAND"), ("process.env", "--env"), ("process.cwd", "--cwd"))


def run(inv: Invocation) -> int:
    """Run COMMAND in the container ID; the exit code is its process's, or 255 for an error of rt."""
    try:
        return _run(inv)
    except RtError as error:
        error.code = FAILED
        # The process is not that of config.json, which was checked when the container was made.
        if isinstance(error, SpecError) and error.path.startswith("process"):
            _blame(error, text(inv.options, "process") or "exec")
        if error.hint and text(inv.options, "process") is None:
            for field, word in _ON_THE_LINE:
                error.hint = error.hint.replace(field, word)
        raise


def _run(inv: Invocation) -> int:
    signals.catch()
    container_id = check_id(inv.args[0])
    options = container_options(inv)
    options.foreground = not flag(inv.options, "detach")
    options.start_later = False
    options.below = _below(items(inv.options, "cgroup"))
    handle = store_of(inv).open(container_id)
    state = handle.read_state()
    check_status(handle, state, paused=flag(inv.options, "ignore_paused"))
    spec = saved_spec(handle, state)
    given = text(inv.options, "process")
    document = _read(given) if given is not None else b""
    spec.data["process"] = _process(inv, spec, document)
    signals.hold()
    process = add_process(handle, state, spec, options, window_size(0))
    tell(log_of(inv), process.plan)
    wakeup = Wakeup() if options.foreground else None
    try:
        start_now(process, wakeup)
    except BaseException:
        end_process(process)
        raise
    if wakeup is None:
        return 0
    wakeup.catch()
    signals.release()
    may_keep = process.facts is not None and process.facts.has_memory
    if may_keep and changes_nothing(inv) and not (document and inv.args[1:]):
        try:
            from rootless_rt.container.kept import keep_exec

            keep_exec(process, document)
        except OSError:
            pass  # as in `run`
    return supervise(process.pid, process.pidfd, process.console, wakeup)


def _below(words: tuple[str, ...]) -> dict[str, str]:
    """--cgroup [CONTROLLER[,CONTROLLER]:]PATH as controller -> path; one path alone is for all ("")."""
    found: dict[str, str] = {}
    for word in words:
        names, colon, path = word.partition(":")
        if not colon and len(words) > 1:
            raise RtError(
                f"--cgroup {word}: names no controller", hint="CONTROLLER:PATH, or one PATH for all"
            )
        for name in names.split(",") if colon else [""]:
            if colon and not name:
                raise RtError(f"--cgroup {word}: the name of a controller is empty", hint="CONTROLLER:PATH")
            if name in found:
                raise RtError(f"--cgroup: {name} is given more than once")
            found[name] = path if colon else word
    return found


def _process(inv: Invocation, spec: Spec, document: bytes) -> dict[str, Any]:
    """The process object: the `document` of --process, else the container's own with what the options say."""
    given = text(inv.options, "process")
    if given is not None:
        process = _parsed(document, given)
        if len(inv.args) > 1:
            # As runc has it, which does not say so.
            log_of(inv).warning(f"--process {given} says what to run: the words behind the id are ignored")
        # What the file does not speak of is as for the container; all else comes from the file alone.
        for key in ("capabilities", "scheduler", "ioPriority", "execCPUAffinity"):
            process.setdefault(key, spec.data["process"].get(key, {}))
        for label in ("apparmorProfile", "selinuxLabel"):
            # No program comes in with fewer bounds than the container's own, unless that is asked for.
            process[label] = process.get(label) or spec.data["process"].get(label, "")
        return process
    process = dict(spec.data["process"])
    process["args"] = inv.args[1:]
    if not process["args"]:
        raise RtError("exec needs a program", hint="rt exec ID COMMAND..., or --process FILE")
    process["terminal"] = flag(inv.options, "tty")
    process["env"] = [*process.get("env", []), *items(inv.options, "env")]
    process["cwd"] = text(inv.options, "cwd") or process.get("cwd", "/")
    process["noNewPrivileges"] = process.get("noNewPrivileges", False) or flag(inv.options, "no_new_privs")
    process["apparmorProfile"] = text(inv.options, "apparmor") or process.get("apparmorProfile", "")
    process["selinuxLabel"] = text(inv.options, "process_label") or process.get("selinuxLabel", "")
    process["user"] = _user(inv, process.get("user", {}))
    process["capabilities"] = _capabilities(items(inv.options, "cap"), process.get("capabilities", {}))
    rules.check_process(process)
    return process


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RtError(f"--process {path}: {(error.strerror or 'cannot be read').lower()}") from None


def _parsed(data: bytes, path: str) -> dict[str, Any]:
    try:
        process = checked(data, path, schema.PROCESS)
        rules.check_process(process)
    except SpecError as error:
        _blame(error, path)
        raise
    return process


def _blame(error: SpecError, source: str) -> None:
    """Name `source` as where the wrong value is."""
    error.message = error.message.replace("config.json: ", f"{source}: ", 1)


def _user(inv: Invocation, own: dict[str, Any]) -> dict[str, Any]:
    """--user replaces the user; without it the container's stays. Numbers only, strictly (CVE-2026-30892)."""
    user = dict(own)
    given = text(inv.options, "user")
    if given is not None:
        uid, colon, gid = given.partition(":")
        user = {"uid": _id(uid, "--user"), "gid": _id(gid, "--user") if colon else 0}
        if "umask" in own:
            user["umask"] = own["umask"]
    groups = [_id(word, "--additional-gids") for word in items(inv.options, "additional_gids")]
    if groups:
        user["additionalGids"] = [*user.get("additionalGids", []), *groups]
    return user


def _id(word: str, option: str) -> int:
    number = names.decimal(word)
    if number is None or number >= 0xFFFFFFFF:
        raise RtError(
            f"{option}: {word[:40]!r} is not a number from 0 to 4294967294",
            hint="names are not looked up: give UID or UID:GID",
        )
    return number


def _capabilities(added: tuple[str, ...], own: dict[str, list[str]]) -> dict[str, list[str]]:
    """--cap adds to what the process may have, never to what it passes on (CVE-2022-29162).

    Ambient ones are added only where the container has inheritable ones anyway.
    """
    sets = {name: list(own.get(name, [])) for name in names.CAPABILITY_SETS}
    for word in added:
        capability = word.upper() if word.isascii() else word
        capability = capability if capability.startswith("CAP_") else "CAP_" + capability
        if capability not in names.CAPABILITIES:
            raise RtError(f"--cap: unknown capability {word[:40]!r}", hint="such as CAP_NET_RAW or NET_RAW")
        for name in ("bounding", "effective", "permitted", *(["ambient"] if sets["inheritable"] else [])):
            if capability not in sets[name]:
                sets[name].append(capability)
    return sets
