"""Rules of the house that syntax can show: strict numbers, no shell, no paths below the rootfs, sizes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from lab.tree import TREE, called, calls, modules, parsed

# (module, function) -> why a bare int() is right there
INT_ALLOWED = {
    ("rootless_rt.spec.names", "decimal"): "the strict parser itself",
    ("rootless_rt.cli.argv", "_value"): "ASCII digits of a bounded length were checked before",
    ("rootless_rt.plan.ops", "encode_op"): "an integer of the plan's own",
    ("rootless_rt.container.prepare", "open_fds"): "a number that the plan wrote",
}
# module -> why a fixed name in a directory of everybody's is right there
FIXED_NAMES_ALLOWED = {
    "rootless_rt/container/store.py": {"/tmp/rt-"},  # the last fall-back; its owner and mode are checked
}
PYTHON = sorted(modules().items())
SOURCES = [path for _, path in PYTHON] + sorted((TREE / "tools").glob("*.py"))
MOST_LINES = {".py": 420, ".c": 600, ".h": 600}


def relative(path: Path) -> str:
    return str(path.relative_to(TREE))


def in_rooms(*rooms: str) -> list[tuple[str, Path]]:
    return [(name, path) for name, path in PYTHON if name.split(".")[1:2] and name.split(".")[1] in rooms]


def converts_a_truth_or_a_number(call: ast.Call) -> bool:
    """int() of a comparison, a truth, arithmetic or a time: no text."""
    value = call.args[0] if call.args else None
    if isinstance(value, ast.Compare | ast.BoolOp | ast.BinOp | ast.Constant):
        return not isinstance(value, ast.Constant) or not isinstance(value.value, str)
    return isinstance(value, ast.Call) and called(value) == "time.time"


def test_text_from_outside_becomes_a_number_only_by_the_strict_parser():
    known_truths = {"recursive", "nofollow", "shared", "set_groups", "drop", "strict"}
    found = []
    for name, path in in_rooms("cli", "container", "plan", "spec"):
        for function, call in calls(path):
            if called(call) != "int" or converts_a_truth_or_a_number(call) or (name, function) in INT_ALLOWED:
                continue
            if isinstance(call.args[0], ast.Name) and call.args[0].id in known_truths:
                continue
            found.append(f"{name}:{call.lineno}: {ast.unparse(call)}")
    assert found == [], "use spec.names.decimal, or add the place and its reason to INT_ALLOWED"


def test_the_list_of_exceptions_is_not_longer_than_needed():
    used = {
        (name, function) for name, path in PYTHON for function, call in calls(path) if called(call) == "int"
    }
    assert set(INT_ALLOWED) <= used


# A module's own code, run as any importer does.
EXEC_ALLOWED = {("rootless_rt/cli/archive.py", "exec")}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_command_goes_through_a_shell(path):
    for _, call in calls(path):
        assert not any(word.arg == "shell" for word in call.keywords), call.lineno
        if (relative(path), called(call)) in EXEC_ALLOWED:
            continue
        assert called(call) not in ("os.system", "os.popen", "subprocess.getoutput", "eval", "exec"), (
            call.lineno
        )


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_temporary_files_have_names_that_nobody_can_guess_or_none(path):
    for _, call in calls(path):
        assert called(call) not in ("tempfile.mktemp", "os.tempnam", "os.tmpnam"), call.lineno
    fixed = {
        node.value
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.match(r"/(tmp|var/tmp|dev/shm)/\w", node.value)
    }
    assert fixed == FIXED_NAMES_ALLOWED.get(relative(path), set())


# container/, plan/ and init/ work on a container: nothing there may open, make or join a path in its rootfs,
# which its image controls. The rooms that make a rootfs, or only name it, are others.
PATH_WORK = {"open", "io.open", "os.open", "posix.open", "os.makedirs", "os.mkdir", "os.symlink", "os.mknod"}
PATH_WORK |= {"os.path.join", "os.stat", "os.lstat", "os.readlink", "os.listdir", "os.chmod", "os.chown"}
PATH_WORK |= {
    "os.path.exists",
    "os.path.isdir",
    "os.path.isfile",
    "os.path.realpath",
    "os.walk",
    "os.scandir",
}


def names_the_rootfs(node: ast.AST) -> bool:
    return any(
        (isinstance(inner, ast.Name | ast.Attribute) and "rootfs" in ast.unparse(inner).lower())
        or (isinstance(inner, ast.Constant) and inner.value == "rootfs")
        for inner in ast.walk(node)
    )


def below_the_rootfs(path: Path) -> list[str]:
    """Calls that use a path with the rootfs in it, and joins of strings with it."""
    found = []
    for _, call in calls(path):
        if called(call) in PATH_WORK and any(names_the_rootfs(value) for value in call.args):
            found.append(ast.unparse(call))
    for node in ast.walk(parsed(path)):
        parts = []
        if isinstance(node, ast.JoinedStr):
            parts = [item.value for item in node.values if isinstance(item, ast.FormattedValue)]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Div):
            parts = [node.left, node.right]
        if any(isinstance(item, ast.Name | ast.Attribute) and names_the_rootfs(item) for item in parts):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", [path for _, path in in_rooms("container", "plan", "init")], ids=relative)
def test_nothing_below_the_rootfs_is_touched_by_its_path(path):
    assert below_the_rootfs(path) == []


def test_the_test_sees_a_path_below_the_rootfs(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        'os.makedirs(os.path.join(spec.rootfs, "dev"))\nopen(f"{rootfs}/etc/passwd")\nx = rootfs + "/a"\n'
    )
    assert len(below_the_rootfs(wrong)) >= 4


def test_rt_init_resolves_names_below_the_rootfs_in_one_file_only():
    """paths.c alone calls openat2; the others take paths of the host, or names in an open directory."""
    for path in sorted((TREE / "rootless_rt/init").glob("*.c")):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        assert path.name == "paths.c" or "SYS_openat2" not in text, path.name
        for call in re.findall(r"\b(mkdir|mknod|symlink|rename|link|chmod|chown|lchown|mount)\(", text):
            raise AssertionError(f"{path.name}: {call}() takes a path, not a descriptor")


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for folder in ("rootless_rt", "idmap", "tools")
        for path in (TREE / folder).rglob("*")
        if path.suffix in MOST_LINES
    ),
    ids=relative,
)
def test_files_stay_short_and_finished(path):
    text = path.read_text()
    assert text.count("\n") < MOST_LINES[path.suffix], "split it by subject"
    unfinished = re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b", text)
    assert unfinished == []


@pytest.mark.parametrize(("name", "path"), PYTHON, ids=[name for name, _ in PYTHON])
def test_a_module_opens_with_what_it_is_for(name, path):
    if path.stat().st_size:
        assert ast.get_docstring(parsed(path)), name


@pytest.mark.parametrize(("name", "path"), PYTHON, ids=[name for name, _ in PYTHON])
def test_public_functions_and_classes_are_documented(name, path):
    missing = [
        node.name
        for node in parsed(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert missing == []


@pytest.mark.parametrize(("name", "path"), PYTHON, ids=[name for name, _ in PYTHON])
def test_modules_hold_no_state(name, path):
    """No `global` but one reason: constants are all that a module keeps."""
    assert not [node.lineno for node in ast.walk(parsed(path)) if isinstance(node, ast.Global)]
