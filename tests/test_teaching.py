"""What teachers and learners are told: the FAQ's examples run, class plans add up, the slides are what they say."""

import doctest
import importlib.util
import json
import math
import re
import subprocess

import pytest
import torch

import drpo
from conftest import ROOT
from minidrpo.methods import baselines


def table_after(page, heading):
    """The rows of the first table below a heading, as lists of cells."""
    part = page.split(heading)[1].split("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def whole(cell):
    return [int(number) for number in re.findall(r"\d+", cell)]


def run_examples(path):
    result = doctest.testfile(str(ROOT / path), module_relative=False)
    return result.attempted if result.failed == 0 else 0


def test_the_answers_of_the_faq_hold():
    assert run_examples("docs/faq.md") > 15


def test_the_written_test_has_right_answers_and_marks_that_add_up():
    assert run_examples("notebooks/teacher/class_test.md") > 8
    text = (ROOT / "notebooks/teacher/class_test.md").read_text()
    total = 0
    for question in text.split("\n## ")[1:]:
        promised = int(re.match(r"\d+ \((\d+) marks\)", question)[1])
        prose = re.sub(r"```.*?```", "", question, flags=re.DOTALL)
        assert sum(map(int, re.findall(r"\((\d)\)", prose))) == promised, question[:20]
        total += promised
    assert f"{total} marks" in text.split("\n## ")[0]


@pytest.mark.parametrize("heading, minutes", [("## 90 minutes", 90), ("## Half a day", 240)])
def test_the_class_plans_add_up(heading, minutes):
    rows = table_after((ROOT / "docs/teaching.md").read_text(), heading)
    times = [(int(row[0]), int(row[1])) for row in rows]
    assert times[0][0] == 0 and times[-1][1] == minutes
    assert all(before[1] == after[0] and after[0] < after[1] for before, after in zip(times, times[1:], strict=False))


def test_a_lesson_gets_the_minutes_that_it_says_it_takes():
    """Of the plan for half a day, against "45 minutes" in each lesson's first cell, where it says so."""
    for start, end, what in table_after((ROOT / "docs/teaching.md").read_text(), "## Half a day"):
        for number in re.findall(r"lesson (\d)", what):
            for path in (ROOT / "notebooks").glob(f"0{number}_*.ipynb"):
                head = "".join(json.loads(path.read_text())["cells"][0]["source"])
                said = re.search(r"(\d+) minutes", head)
                assert said is None or int(end) - int(start) == int(said[1]), path.name


def test_talk_is_what_the_slides_say_and_every_slide_is_shown_once():
    slides = builder().read()
    minutes = [int(re.match(r"Minutes: (\d+)\.", note)[1]) for _, note in slides]
    shown = []
    for row in table_after((ROOT / "docs/teaching.md").read_text(), "## 90 minutes"):
        start, end, talk, do = map(int, row[:4])
        assert end - start == talk + do and talk == sum(minutes[n - 1] for n in whole(row[4])), row
        shown += whole(row[4])
    assert shown == list(range(1, len(slides) + 1)) and 10 <= len(slides) <= 12


# ------------------------------------------------------------------------------------------------------------ slides


def builder():
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs/slides/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_slides_hold_their_pictures_and_load_nothing():
    build = builder()
    slides = build.read()
    for notes in (False, True):
        page = build.page(slides, notes)
        assert page.count("<section>") == len(slides) and page.count('src="data:image/png;base64,') == 4
        outside = re.sub(r'src="data:[^"]*"', "", page)
        assert not re.search(r"https?://|\bsrc=|<link|@import|url\(", outside)
        assert all(note.split()[5] in page for _, note in slides)


def test_the_numbers_on_the_slides_are_those_of_the_code_and_the_study():
    slides = [text.replace("−", "-").replace("**", "") for text, _ in builder().read()]
    right = torch.tensor([[True] * 3 + [False] * 3])
    reward = baselines.length_penalty_reward(right, torch.tensor([[0.27, 0.4, 0.8, 0.5, 0.5, 0.5]]), 1, alpha=1.0)
    said = next(line for line in slides[2].splitlines() if line.startswith("| advantage"))
    assert [float(x) for x in re.findall(r"-?\d\.\d\d", said)] == [
        round(a, 2) for a in baselines.grpo_advantage(reward)[0].tolist()
    ]
    assert f"The mean is {reward.mean():.3f}" in slides[2]
    rows = [line for line in slides[6].splitlines() if line.startswith("| λ")]
    for row, lam in zip(rows, (0.02, 0.1, 0.5, math.inf), strict=True):
        preference = drpo.length_preference(torch.tensor([[1000, 2000, 4000]]), 8192)
        weight = drpo.positive_distribution(preference, right[:, :3], lam)[0]
        assert [float(x) for x in re.findall(r"\d\.\d{3}", row)] == [round(w, 3) for w in weight.tolist()], row
        size = float(re.search(r"([\d.]+) of 3", row)[1])
        assert size == pytest.approx(1 / weight.square().sum().item(), abs=0.051)
    study = (ROOT / "docs/thinking.md").read_text()
    for row in (line.split("|") for line in slides[11].splitlines() if line.startswith("| ")):
        for number in re.findall(r"\d+\.\d", row[2]):
            assert f"| {number} [" in study or f"is {number} %" in study, number


def test_make_slides_says_so_where_no_browser_can_print(tmp_path, monkeypatch, capsys):
    build = builder()
    monkeypatch.setattr(build, "BROWSERS", ())
    build.main(["--out", str(tmp_path / "out")])
    assert capsys.readouterr().out.count("no PDF: no Chromium or Chrome here") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["slides.html", "slides_with_notes.html"]


def test_a_slide_without_a_note_is_refused(tmp_path):
    (tmp_path / "slides.md").write_text("# a\n<!-- Minutes: 1. x -->\n\n---\n\n# b\n")
    with pytest.raises(ValueError, match="slide 2 has 0 notes"):
        builder().read(tmp_path / "slides.md")


@pytest.mark.browser
def test_the_slides_fit_and_print_one_page_each(browser, tmp_path):
    build = builder()
    build.main(["--out", str(tmp_path)])
    n = len(build.read())
    for name in ("slides", "slides_with_notes"):
        assert len(re.findall(rb"/Type /Page\b", (tmp_path / f"{name}.pdf").read_bytes())) == n
    size = {"width": 1280, "height": 720, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((tmp_path / "slides_with_notes.html").as_uri())
    boxes = "return [...document.querySelectorAll('.slide, aside')].map(b => b.scrollHeight - b.clientHeight)"
    assert max(browser.execute_script(boxes)) <= 0
    low = """return [...document.querySelectorAll('.slide')].map(s => Math.max(...[...s.children].filter(
        c => !c.matches('.number')).map(c => c.getBoundingClientRect().bottom)) - s.getBoundingClientRect().bottom)"""
    assert max(browser.execute_script(low)) < 0


# ------------------------------------------------------------------------------------------------------ what failed


def test_the_ledger_of_failures_names_commits_that_exist():
    named = set(re.findall(r"\b[0-9a-f]{7}\b", (ROOT / "docs/failed.md").read_text()))
    if subprocess.run(["git", "cat-file", "-e", "82da6e8"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("the history is not here (a shallow clone, or no git)")
    lost = [c for c in named if subprocess.run(["git", "cat-file", "-e", c], cwd=ROOT, capture_output=True).returncode]
    assert len(named) > 8 and not lost, lost
