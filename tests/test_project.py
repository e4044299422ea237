"""The house keeps its shape: imports run one way, files stay short, the README says what is true."""

import ast
import re
import subprocess

import pytest

from conftest import ROOT

# A room imports only from those before it, and from itself. "minidrpo/cli" is one file, "minidrpo/engine" a folder.
ROOMS = (
    "minidrpo/records minidrpo/cli minidrpo/files minidrpo/markdown minidrpo/reflection minidrpo/tasks minidrpo/grader "
    "reward minidrpo/engine rollout minidrpo/tiny drpo minidrpo/methods config minidrpo/rundir minidrpo/show eval "
    "minidrpo/setup train experiments"
).split()
DOOR = ["config", "drpo", "eval", "reward", "rollout", "train"]


def files_of(room):
    return sorted((ROOT / room).rglob("*.py")) if (ROOT / room).is_dir() else [ROOT / f"{room}.py"]


FILES = [(room, path) for room in ROOMS for path in files_of(room)]
BY_FILE = pytest.mark.parametrize("room, path", FILES, ids=lambda value: getattr(value, "stem", None))


def imported(path):
    """Dotted names: of `from a import b` both a and a.b, as b may be a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name):
    """The room of a dotted name, or None for a library's."""
    parts = name.split(".")
    return next((r for r in ("/".join(parts[:2]), parts[0]) if r in ROOMS), None)


def test_every_file_stands_in_a_room():
    assert sorted(path.stem for path in ROOT.glob("*.py")) == DOOR
    inside = {path for path in (ROOT / "minidrpo").rglob("*.py") if path != ROOT / "minidrpo" / "__init__.py"}
    assert inside <= {path for _, path in FILES}


def test_the_front_page_is_short():
    shown = subprocess.run(["git", "ls-tree", "--name-only", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    assert len(shown.stdout.splitlines()) <= 18


@BY_FILE
def test_imports_run_one_way(room, path):
    for name in imported(path):
        other = room_of(name)
        assert other is None or ROOMS.index(other) <= ROOMS.index(room), f"{path} imports {name}, which comes later"


def test_the_mathematics_knows_no_models_and_the_grader_no_engine():
    for path in (ROOT / "drpo.py", ROOT / "minidrpo/methods/baselines.py"):
        assert {name.split(".")[0] for name in imported(path)} <= {"math", "torch"}, path
    for room, path in FILES:
        if room in ("reward", "minidrpo/grader", "minidrpo/tasks"):
            assert not {"torch", "transformers", "vllm"} & {name.split(".")[0] for name in imported(path)}, path


def test_training_knows_no_figures():
    """Only the main() of train.py and eval.py looks at pages and plots: `show` is imported inside it."""
    for path in (ROOT / "train.py", ROOT / "eval.py"):
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not any("minidrpo.show" in ast.unparse(node) for node in top), path


@BY_FILE
def test_files_stay_short(room, path):
    assert len(path.read_text().splitlines()) <= 400, path


@BY_FILE
def test_functions_fit_on_a_screen_and_a_half(room, path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 75, f"{path}: {node.name}"


def test_readme_names_every_file_at_the_door_and_only_files_that_exist():
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert all((ROOT / link).exists() for link in links), [link for link in links if not (ROOT / link).exists()]
    missing = [name for name in (*DOOR, "minidrpo", "experiments", "notebooks", "tests", "docs") if name not in readme]
    assert not missing, missing


def test_the_two_commands_of_the_readme_are_make_targets():
    readme = (ROOT / "README.md").read_text()
    for target in ("train", "test"):
        assert f"\nmake {target} " in readme
        shown = subprocess.run(["make", "-n", target], capture_output=True, text=True, cwd=ROOT)
        assert shown.returncode == 0 and ("train.py" if target == "train" else "pytest") in shown.stdout
