"""The documentation against the code: what it names exists, what a run writes is explained, its examples run."""

import contextlib
import importlib.util
import inspect
import io
import json
import re
import shlex

import pytest
import torch

import config
import drpo
import eval as evaluation
from conftest import ROOT
from minidrpo import cli
from minidrpo.methods import baselines
from minidrpo.methods.table import METHODS, Batch
from minidrpo.show.memory import GPUs
from minidrpo.tasks import data

PAGES = sorted((ROOT / "docs").glob("*.md"))


def read(name):
    return (ROOT / "docs" / f"{name}.md").read_text()


def headings(path):
    """The headings of a page as a web host makes anchors of them."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line) for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in plain}


FOLDERS = (".", "docs", "docs/slides", "experiments/results", "notebooks", "notebooks/teacher", "minidrpo/tiny/*")
LINKED = sorted(page for folder in FOLDERS for end in ("md", "ipynb") for page in ROOT.glob(f"{folder}/*.{end}"))


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_a_file_and_to_a_heading_in_it(page):
    text = page.read_text("utf-8")
    if page.suffix == ".ipynb":
        texts = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n".join("".join(lines) for lines in texts)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert "://" in link or target.exists(), link
        assert "://" in link or not heading or target.suffix != ".md" or heading in headings(target), link


def test_every_page_is_linked_from_the_readme_or_the_reading_map():
    entrances = (ROOT / "README.md").read_text() + read("reading").replace("](", "](docs/")
    orphans = [
        page.name for page in [*PAGES, *(ROOT / "docs").glob("*.html")] if f"](docs/{page.name}" not in entrances
    ]
    assert not orphans, orphans


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
        train.main([*command.split(), *short])
    promised = [re.search(r"print\(.*?\)  # (.*)", code)[1], re.search(r"say what it read: `(.*?)`", page)[1]]
    return said.getvalue(), promised, folder / "run"


def test_the_worked_example_of_your_own_data(example):
    said, promised, run = example
    assert all(words in said for words in promised)
    assert (run / "report.html").exists()


def explained(name):
    """The keys that docs/metrics.md explains for a file: the first column of the first table of its section."""
    section = next(part for part in read("metrics").split("\n## ")[1:] if name in part.splitlines()[0])
    rows = [line.split("|")[1] for line in section.split("\n### ")[0].splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def written(path):
    return {key for line in path.read_text().splitlines() for key in json.loads(line)}


@pytest.mark.parametrize(
    "name", ["evals.jsonl", "samples.jsonl", "responses_before.jsonl", "responses_after.jsonl", "problems.jsonl"]
)
def test_the_glossary_has_a_row_for_every_key_and_none_besides(example, name):
    of_tasks = set(data.features("thinking")) if name == "evals.jsonl" else set()  # the example's data have none
    assert explained(name) == written(example[2] / name) | of_tasks


def test_the_glossary_of_metrics_has_also_the_numbers_of_single_methods(example):
    batch = Batch(torch.ones(2, 2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.long), ["a"] * 4, torch.arange(2))
    own = {key for name, method in METHODS.items() for key in method.numbers(batch, config.make("tiny", name))}
    assert explained("metrics.jsonl") == written(example[2] / "metrics.jsonl") | own


def test_other_trainers_names_are_given_for_metrics_that_exist():
    table = read("metrics").split("### What TRL and verl call them")[1].split("\n## ")[0]
    named = {line.split("|")[1].strip().strip("`") for line in table.splitlines() if line.startswith("| `")}
    assert len(named) > 10 and named <= explained("metrics.jsonl")


# ----------------------------------------------------------------------------------------------- commands that start

TOLD = [page for page in PAGES if page.stem != "extend"]  # extend.md's method must be built first: test_extend.py
TOLD += [ROOT / "README.md", ROOT / "BENCHMARKS.md", ROOT / "minidrpo" / "tiny" / "README.md"]
PARSERS = {  # command: what reads its flags, without doing anything else
    "train.py": lambda argv: config.parse(argv, "train.py", ""),
    "eval.py": lambda argv: cli.parse(evaluation.Config, argv, prog="eval.py", description=""),
    "minidrpo.show.memory": lambda argv: config.parse(argv, "memory", "", extra=GPUs),
}


def commands(page):
    """(script or module, its arguments) of every python and torchrun command that a page tells to type."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    for line in lines:
        line = line.split("  #")[0].strip()
        if re.match(r"(srun .*)?(\.venv/bin/)?(python|torchrun) ", line):
            found = re.search(r"(?:-m )?((?:[\w/]+\.py|(?:minidrpo|experiments)[\w.]+))(.*)", line)
            if found:
                yield found[1], shlex.split(found[2])


@pytest.mark.parametrize("page", TOLD, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_scripts_and_flags_that_exist(page):
    for name, argv in commands(page):
        is_file = name.endswith(".py")
        assert (ROOT / name).exists() if is_file else importlib.util.find_spec(name), f"{page.name}: {name}"
        if name in PARSERS and not {"...", "--help"} & set(argv):
            if "--dry-run" in argv:
                name, argv = "minidrpo.show.memory", [word for word in argv if word != "--dry-run"]
            PARSERS[name](argv)


def test_the_commands_of_the_pages_are_found():
    found = {name for page in TOLD for name, _ in commands(page)}
    assert found >= {"train.py", "eval.py", "minidrpo.show.memory", "experiments.study", "minidrpo.tiny.make_base"}
