"""The notebooks without running them: their shape, their links, their exercises. `make test-notebooks` runs them.

The exercises: tests/test_exercises.py.
"""

import ast
import importlib
import json
import math
import re
import subprocess
import sys

import pytest

import drpo
from conftest import ROOT
from minidrpo.methods import baselines

FOLDER = ROOT / "notebooks"
sys.path.insert(0, str(FOLDER))
import run  # noqa: E402

PATHS = LESSONS = sorted(FOLDER.glob("*.ipynb"))


def by_name(path):
    return path.stem


def cells(path, kind, tag=None):
    """The sources of a notebook's cells of this kind and tag."""
    found = json.loads(path.read_text("utf-8"))["cells"]
    tagged = [c for c in found if c["cell_type"] == kind and (tag is None or tag in c["metadata"].get("tags", ()))]
    return ["".join(c["source"]) for c in tagged]


# ---------------------------------------------------------------------------------------------------------- shape


@pytest.mark.parametrize("path", PATHS, ids=by_name)
def test_a_notebook_is_small_and_free_of_noise(path):
    notebook = json.loads(path.read_text("utf-8"))
    assert path.stat().st_size < 200_000 and (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["language_info"] == {"name": "python"}, "run notebooks/run.py: versions are noise"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["execution_count"] is None and "execution" not in cell["metadata"], "run notebooks/run.py"
            assert all(out["output_type"] != "error" and out.get("name") != "stderr" for out in cell["outputs"])


@pytest.mark.parametrize("path", PATHS, ids=by_name)
def test_cells_that_show_something_have_their_output(path):
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        shows = re.search(r"print\(|plt\.subplots\(|check\(", "".join(cell["source"]))
        if cell["cell_type"] == "code" and shows and "gap" not in cell["metadata"].get("tags", ()):
            assert cell["outputs"], f"{path.name}, cell {cell['id']}: run notebooks/run.py"
        draws = re.search(r"plt\.subplots\(|credit\.plot\(|study_plots\.\w+\(.*BytesIO", "".join(cell["source"]))
        if cell["cell_type"] == "code" and draws:
            shown = [out for out in cell["outputs"] if "image/png" in out.get("data", {})]
            assert shown, f"{path.name}, cell {cell['id']}: draws, and shows no picture"


@pytest.mark.parametrize("path", LESSONS, ids=by_name)
def test_a_lesson_has_claim_picture_check_and_exercises(path):
    code, text = "\n".join(cells(path, "code")), "\n".join(cells(path, "markdown"))
    assert re.match(rf"# {int(path.name[:2])}\. ", text) and "**Claim.**" in text
    assert "plt.subplots(" in code and code.count("assert ") + code.count("claim(") >= 3
    assert len(cells(path, "code", "exercise") + cells(path, "code", "gap")) >= 2


@pytest.mark.parametrize("path", LESSONS, ids=by_name)
def test_a_lesson_fits_into_a_class(path):
    """Time and prerequisites at its head, "you can now", at most 30 cells, five to seven exercises."""
    text = cells(path, "markdown")
    asked = re.findall(r"\*\*(\d\w) \((\w+)\)", "\n".join(text))
    assert (
        re.search(r"\*\*Time:\*\* \d\d minutes", text[0]) and "**You need:**" in text[0] and "**You get:**" in text[0]
    )
    assert "**You can now**" in text[-1] and "**You can now**" not in "".join(text[:-1])
    assert len(json.loads(path.read_text("utf-8"))["cells"]) <= 30
    grades = {"implement", "experiment"} | ({"compute"} if path.name[:2] != "00" else set())  # there all is written
    assert 5 <= len(asked) <= 7 and {grade for _, grade in asked} == grades


@pytest.mark.parametrize("path", PATHS, ids=by_name)
def test_lessons_import_the_modules_and_never_rewrite_a_function(path):
    for source in cells(path, "code"):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and path.name[:2] != "00":  # there the student builds them
                owners = [m.__name__ for m in (drpo, baselines) if hasattr(m, node.name)]
                assert not owners, f"{path.name} writes {owners[0]}.{node.name} again"
    assert "import drpo\n" in cells(path, "code", "setup")[0] or "from minidrpo" in cells(path, "code", "setup")[0]


def test_the_modules_are_found_from_both_folders():
    heads = {cells(path, "code", "setup")[0].split("\n\n")[1] for path in PATHS}
    assert len(heads) == 1, heads
    program = f"import sys\n{heads.pop()}\nfrom importlib.util import find_spec\nprint(find_spec('drpo').origin)"
    program += "\nprint(find_spec('exercises').origin)"
    for folder in (ROOT, FOLDER):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, check=True)
        found = [(folder / line).resolve() for line in done.stdout.splitlines()]
        assert found == [ROOT / "drpo.py", FOLDER / "exercises.py"]


def test_the_modules_beside_the_notebooks_stay_short():
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 400, path


def test_printed_text_may_round_differently_but_not_change():
    assert run.same_text("lambda 0.1: 3.390 tokens", "lambda 0.1: 3.391 tokens")
    for other in ("lambda 0.1: 3.290 tokens", "lambda 0.1: -3.390 tokens", "lambda 0.1: 3.390 words", "lambda 0.1:"):
        assert not run.same_text("lambda 0.1: 3.390 tokens", other)


def drawn(bar=1.0, bend=0.0, **style):
    """A picture with bars and a curve."""
    import io

    import matplotlib
    from matplotlib.figure import Figure
    from PIL import Image

    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9, 3), dpi=80)
        left, right = figure.subplots(1, 2)
        left.bar(range(4), [1, 2, 3 * bar, 4])
        right.plot([x / 10 for x in range(60)], [math.sin(x / 10 + bend) for x in range(60)])
        left.set_title("words")
        out = io.BytesIO()
        figure.savefig(out)
    return Image.open(out).convert("RGB")


def test_a_picture_may_have_another_hinting_or_a_shift_but_no_other_data():
    from PIL import ImageChops

    old = drawn()
    for same in (
        drawn(),
        ImageChops.offset(old, 1, 1),
        drawn(**{"text.hinting": "none"}),
        drawn(**{"text.antialiased": 0}),
    ):
        assert run.same_picture(old, same)
    for other in (drawn(bar=1.05), drawn(bend=0.1), drawn().resize((640, 240))):
        assert not run.same_picture(old, other)


def test_a_stale_picture_is_a_difference():
    import base64
    import io
    from types import SimpleNamespace

    def notebook(picture, tags=()):
        out = io.BytesIO()
        picture.save(out, "png")
        shown = {"data": {"image/png": base64.b64encode(out.getvalue()).decode(), "text/plain": "<Figure>"}}
        cell = dict(cell_type="code", id="cell-07", metadata={"tags": tags}, outputs=[shown])
        return SimpleNamespace(cells=[NotebookCell(cell)])

    class NotebookCell(dict):
        __getattr__ = dict.__getitem__

    assert run.differences(notebook(drawn()), notebook(drawn())) == []
    (line,) = run.differences(notebook(drawn()), notebook(drawn(bar=1.1)))
    assert "cell-07 draws another picture" in line
    assert run.differences(notebook(drawn(), ["volatile"]), notebook(drawn(bar=1.1), ["volatile"])) == []


def test_the_runner_finds_notebooks_by_their_number():
    assert [path.name[:2] for path in run.find(["02", "01"])] == ["01", "02"] and run.find() == PATHS
    with pytest.raises(ValueError, match="no notebook begins with 99"):
        run.find(["99"])


# ---------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("path", PATHS, ids=by_name)
def test_links_lead_to_functions_and_tests_that_exist(path):
    text = "\n".join(cells(path, "markdown"))
    links = re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", text)
    for label, target in links:
        if "://" in target:
            continue
        file = (FOLDER / target.partition("#")[0]).resolve()  # headings: tests/test_docs.py
        assert file.exists(), f"{path.name}: {target}"
        if named := re.fullmatch(r"`(\w+)\.(\w+)`", label):
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            assert file.stem == named[1] and hasattr(importlib.import_module(module), named[2]), label
        elif re.search(r"\.\w+$", label):  # a file by its name
            assert target.endswith(label), f"{path.name}: {label} is not {target}"
        elif named := re.fullmatch(r"`(test_\w+)`", label):
            assert f"\ndef {named[1]}(" in file.read_text("utf-8"), f"{path.name}: no {named[1]} in {target}"
    if path in LESSONS:
        assert sum(label.startswith("`test_") for label, _ in links) >= 3
