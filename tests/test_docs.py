"""The documentation against the code: what it names exists, what a run writes is explained, its examples run."""

import contextlib
import importlib
import inspect
import io
import json
import re
import sys

import pytest

import drpo
from conftest import ROOT
from minidrpo.methods import baselines

PAGES = sorted((ROOT / "docs").glob("*.md"))


def read(name):
    return (ROOT / "docs" / f"{name}.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    lost = [link for link in links if not (page.parent / link).exists()]
    assert not lost, lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_functions_and_tests_named_in_the_documentation_exist(page):
    """[`module.function`](../module.py) and [`test_name`](../tests/test_file.py): the name is in that very file."""
    text = page.read_text()
    for dotted, path in re.findall(r"\[`([\w.]+)`\]\(\.\./(?!tests/)([\w/]+)\.py\)", text):
        assert dotted.split(".")[0] == path.split("/")[-1], f"{dotted} is said to be in {path}.py"
        value = importlib.import_module(path.replace("/", "."))
        for name in dotted.split(".")[1:]:
            value = getattr(value, name, None)
            assert value is not None, f"{page.name}: there is no {dotted}"
    for name, file in re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/\w+\.py)\)", text):
        found = re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)
        assert found, f"{page.name}: no {name} in {file}"


@pytest.mark.parametrize("module", [drpo, baselines])
def test_no_function_is_missing_from_the_map_of_equations(module):
    functions = inspect.getmembers(module, lambda f: inspect.isfunction(f) and f.__module__ == module.__name__)
    public = {f"{module.__name__.split('.')[-1]}.{name}" for name, _ in functions if name[0] != "_"}
    missing = {name for name in public if f"[`{name}`]" not in read("equations")}
    assert not missing, missing


def test_every_equation_is_held_by_a_test():
    rows = [line for line in read("equations").splitlines() if line.startswith("| ") and "](../" in line]
    assert len(rows) > 35
    loose = [row.split("|")[1].strip() for row in rows if "[`test_" not in row]
    assert not loose, loose


# ------------------------------------------------------------------------------- an example to follow, what it writes


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """(what docs/data.md's worked example printed, what it says it prints, its run directory); one short step."""
    import train

    page, folder, said = read("data").split("## A worked example")[1], tmp_path_factory.mktemp("data"), io.StringIO()
    blocks = r"```python\n(.*?)```.*?```\n.venv/bin/python train.py (.*?)\n```"
    code, command = re.search(blocks, page, re.DOTALL).groups()
    short = ["--steps=1", "--prompts-per-step=4", "--group-size=2", "--max-response-tokens=24", "--max-problems=4",
             "--samples=2", "--run-dir=run"]  # fmt: skip
    with contextlib.chdir(folder), contextlib.redirect_stdout(said):
        exec(compile(code, "docs/data.md", "exec"), {})
        sys.stdout.reconfigure = lambda **_: None
        train.main([*command.split(), *short])
    promised = [re.search(r"print\(.*?\)  # (.*)", code)[1], re.search(r"say what it read: `(.*?)`", page)[1]]
    return said.getvalue(), promised, folder / "run"


def test_the_worked_example_of_your_own_data(example):
    said, promised, run = example
    assert all(words in said for words in promised)
    assert (run / "report.html").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "evals.jsonl", "samples.jsonl"])
def test_the_glossary_has_a_row_for_every_key_and_none_besides(example, name):
    section = read("metrics").split(f"## {name}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    explained = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    written = {key for line in (example[2] / name).read_text().splitlines() for key in json.loads(line)}
    assert explained == written
