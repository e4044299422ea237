"""The house keeps its shape: imports run one way, files stay short, the README says what is true."""

import ast
import re
import subprocess

import pytest

from conftest import ROOT

# A file imports only from those before it.
ROOMS = [
    "cli", "world", "shard", "arithmetic", "data", "answer", "reward", "metrics", "drpo", "baselines", "methods",
    "decoding", "rollout", "policy", "update", "checkpoint", "plots", "results", "html_report", "config", "memory",
    "eval", "report", "train", "credit", "study_plots", "study",
]  # fmt: skip


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def test_every_file_is_a_known_room_and_packaged():
    files = sorted(path.stem for path in ROOT.glob("*.py"))
    assert files == sorted(room for room in ROOMS if room != "answer")
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert all(f'"{room}"' in pyproject for room in ROOMS)


def files_of(room):
    return sorted((ROOT / room).glob("*.py")) if (ROOT / room).is_dir() else [ROOT / f"{room}.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room):
    before = ROOMS[: ROOMS.index(room)] + [room] * (ROOT / room).is_dir()
    for path in files_of(room):
        for name in imported(path):
            assert name not in ROOMS or name in before, f"{path.name} imports {name}, which comes later"


def test_the_mathematics_knows_no_models_and_the_grader_no_engine():
    for room in ("drpo", "baselines"):
        assert set(imported(ROOT / f"{room}.py")) == {"math", "torch"}, room
    for path in [path for room in ("reward", "answer", "data", "arithmetic") for path in files_of(room)]:
        assert not {"torch", "transformers", "vllm"} & set(imported(path)), path


@pytest.mark.parametrize("room", ROOMS)
def test_files_stay_short(room):
    for path in files_of(room):
        assert len(path.read_text().splitlines()) <= 400, path


def test_readme_names_every_file_and_only_files_that_exist():
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert all((ROOT / link).exists() for link in links), [link for link in links if not (ROOT / link).exists()]
    missing = [room for room in ROOMS if f"{room}.py" not in links and room not in links]
    assert not missing, missing


def test_the_two_commands_of_the_readme_are_make_targets():
    readme = (ROOT / "README.md").read_text()
    for target in ("train", "test"):
        assert f"\nmake {target} " in readme
        shown = subprocess.run(["make", "-n", target], capture_output=True, text=True, cwd=ROOT)
        assert shown.returncode == 0 and ("train.py" if target == "train" else "pytest") in shown.stdout
