"""The exercises of the notebooks: each accepts its solution, praises a near miss for what is right, gives nothing away.

Solutions and marks: notebooks/teacher/lessonN.md. Near misses and other mistakes: notebooks/teacher/mistakesN.py.
"""

import importlib
import json
import re
import sys

import pytest

from conftest import ROOT

FOLDER = ROOT / "notebooks"
sys.path.insert(0, str(FOLDER))
import exercises  # noqa: E402
import run  # noqa: E402

LESSONS = sorted(path for path in FOLDER.glob("[0-9]*.ipynb"))
TEACHER = sorted((FOLDER / "teacher").glob("lesson*.md"))
MISTAKES = {}
for path in sorted((FOLDER / "teacher").glob("mistakes*.py")):
    MISTAKES |= importlib.import_module(f"teacher.{path.stem}").MISTAKES
SEEDED = [name for name in MISTAKES if "bug" in MISTAKES[name]]


def cells(path, tag):
    """[(source, what the text before says)] of a notebook's code cells of this tag."""
    found, before = [], ""
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            before = source
        elif tag in cell["metadata"].get("tags", ()):
            found.append((source, before))
    return found


def run_cells(sources, capsys):
    """Run cells in one namespace, as Jupyter would; what they print."""
    import matplotlib

    capsys.readouterr()
    with matplotlib.rc_context():
        namespace = {}
        for source in sources:
            exec(compile(source, "cell", "exec"), namespace)
    return capsys.readouterr().out


def asked(path):
    """Exercise names in the order of a lesson, each with its cell and the text before it."""
    found = {}
    for tag in ("exercise", "gap"):
        for source, before in cells(path, tag):
            for name in re.findall(r'check\("(\w+)"', source):
                assert name not in found and name[0] == str(int(path.name[:2])), f"{path.name}: {name}"
                found[name] = source, before
    return found


ASKED = {name: (path, *rest) for path in LESSONS for name, rest in asked(path).items()}


def test_notebook_check_solution_and_mistakes_agree_on_what_is_asked():
    for path in LESSONS:
        exercises_of = {name for name in ASKED if ASKED[name][0] == path}
        if exercises_of:
            exercises.find(min(exercises_of))
    assert set(exercises.CHECKS) == set(ASKED) == set(MISTAKES)
    marks = {}
    for path in TEACHER:
        marks |= dict(re.findall(r"^## (\w+) \((\d+) marks?\)$", path.read_text(), re.MULTILINE))
    assert set(marks) == set(ASKED), "each exercise has a solution with its marks"
    table = (FOLDER / "teacher" / "README.md").read_text()
    for number, count, total in re.findall(r"^\| \[(\d)\].* \| (\d+) \| (\d+) \|$", table, re.MULTILINE):
        own = [int(mark) for name, mark in marks.items() if name[0] == number]
        assert (len(own), sum(own)) == (int(count), int(total)), f"lesson {number} in teacher/README.md"
    assert table.count("](lesson") == len(LESSONS)


@pytest.mark.parametrize("name", ASKED)
def test_an_exercise_says_its_grade(name):
    text = ASKED[name][2]
    assert re.search(rf"\*\*{name} \((compute|implement|experiment)\)\.", text), text[-200:]


def test_what_is_in_the_students_folder_gives_nothing_away():
    for path in LESSONS:
        assert "teacher/" not in path.read_text("utf-8"), path.name
    assert not (FOLDER / "solutions.ipynb").exists()


@pytest.mark.parametrize("path", TEACHER, ids=lambda path: path.stem)
def test_every_solution_is_right(path, capsys):
    lesson = next(p for p in LESSONS if str(int(p.name[:2])) == path.stem[-1])
    printed = run_cells([source for source, _ in cells(lesson, "setup")] + list(run.solutions(lesson).values()), capsys)
    names = [name for name in ASKED if name[0] == path.stem[-1]]
    assert sorted(re.findall(r"^\w+: right\.$", printed, re.MULTILINE)) == sorted(f"{name}: right." for name in names)
    assert "not " not in printed, printed


@pytest.mark.parametrize("name", MISTAKES)
def test_a_near_miss_hears_what_is_right_about_it(name):
    answer, words = MISTAKES[name]["near"]
    solved, said = exercises.verdict(name, answer)
    assert not solved and said.startswith(f"{name}: not yet. ") and re.search(words, said, re.IGNORECASE), said


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_rejected(name):
    assert len(MISTAKES[name]["wrong"]) >= 2
    for wrong in MISTAKES[name]["wrong"]:
        solved, said = exercises.verdict(name, wrong)
        assert not solved and said.startswith(f"{name}: not yet. "), (wrong, said)


@pytest.mark.parametrize("name", SEEDED)
def test_a_seeded_bug_is_rejected_and_not_named_before_a_hint_is_asked_for(name, capsys):
    path, source, _ = ASKED[name]
    said = run_cells([s for s, _ in cells(path, "setup")] + [source], capsys)
    assert said.startswith(f"{name}: not yet. "), said
    words = MISTAKES[name]["bug"]
    assert not re.search(words, said, re.IGNORECASE), f"{said} names {words}"
    hints = exercises.find(name)[1]
    assert re.search(words, hints[-1], re.IGNORECASE), "the last hint may name it, or these words are not the bug's"


@pytest.mark.parametrize("name", ASKED)
def test_hints_come_one_at_a_time_and_only_on_demand(name, capsys):
    hints = exercises.find(name)[1]
    assert len(hints) >= 2
    for number, hint in enumerate(hints, start=1):
        exercises.check(name, hint=number)
        assert capsys.readouterr().out == f"{name}, hint {number} of {len(hints)}: {hint}\n"
    exercises.check(name, hint=len(hints) + 1)
    assert capsys.readouterr().out == f"{name} has {len(hints)} hints.\n"
    first = exercises.verdict(name, MISTAKES[name]["near"][0])[1]
    assert not any(hint in first for hint in hints)


@pytest.mark.parametrize("name", ASKED)
def test_nothing_handed_in_is_not_solved(name):
    for nothing in (..., None):
        assert exercises.verdict(name, nothing) == (False, f"{name}: not solved yet.")


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_unsolved_exercises_do_not_stop_a_notebook(path, capsys):
    for source, _ in cells(path, "exercise"):
        said = run_cells([s for s, _ in cells(path, "setup")] + [source], capsys)
        assert re.fullmatch(r"(\w+: not (solved )?yet\..*\n)+", said), said


def test_an_exercise_that_does_not_exist_is_named_as_such():
    with pytest.raises(ValueError, match="there is no exercise .2z.; lesson 2 has 2a, 2b"):
        exercises.check("2z", 1)
    with pytest.raises(ValueError, match="lesson x has no exercises"):
        exercises.check("x1", 1)


def test_a_gap_that_the_next_cells_need_stops_with_one_line():
    with pytest.raises(exercises.Unfinished, match="2a: not solved yet. The cells below need it.") as error:
        exercises.check("2a", ..., needed=True)
    assert error.value._render_traceback_() == ["2a: not solved yet. The cells below need it."]


def test_unfilled_gaps_stop_a_notebook_where_they_are_and_a_filled_one_runs_on(capsys):
    """Each gap by itself; `run.py --check` and the slow test of the claims run the filled notebook to its end."""
    path = LESSONS[0]
    setup, gaps = [source for source, _ in cells(path, "setup")], cells(path, "gap")
    assert len(gaps) >= 5
    for source, _ in gaps:
        with pytest.raises(exercises.Unfinished, match="not solved yet. The cells below need it."):
            run_cells([*setup, source], capsys)
    filled = [dict(source=source, metadata={"tags": ["gap"]}) for source, _ in gaps]
    assert [source for _, source in run.fill(path, filled)] == [source for source, _ in gaps]
    said = run_cells(setup + [cell["source"] for cell in filled], capsys)
    assert said == "".join(f"{run.NAME.search(source)[1]}: right.\n" for source, _ in gaps)
