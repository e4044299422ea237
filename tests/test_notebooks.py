"""The notebooks without running them: their shape, their links, their exercises. `make test-notebooks` runs them.

Each exercise must accept its solution, from solutions.ipynb, and reject wrong answers: the notebook's own unsolved cell
and those below, each a mistake that a student may well make.
"""

import ast
import importlib
import json
import math
import re
import subprocess
import sys

import pytest
import torch

import drpo
import reward
from conftest import ROOT
from minidrpo.methods import baselines

FOLDER = ROOT / "notebooks"
sys.path.insert(0, str(FOLDER))
import exercises  # noqa: E402
import run  # noqa: E402

PATHS = sorted(FOLDER.glob("*.ipynb"))
LESSONS = [path for path in PATHS if path.name != "solutions.ipynb"]


def by_name(path):
    return path.stem


def cells(path, kind, tag=None):
    """The sources of a notebook's cells of this kind and tag."""
    found = json.loads(path.read_text("utf-8"))["cells"]
    tagged = [c for c in found if c["cell_type"] == kind and (tag is None or tag in c["metadata"].get("tags", ()))]
    return ["".join(c["source"]) for c in tagged]


def run_cells(sources, capsys):
    """Run cells in one namespace, as Jupyter would; what they print."""
    import matplotlib

    capsys.readouterr()
    with matplotlib.rc_context():
        namespace = {}
        for source in sources:
            exec(compile(source, "cell", "exec"), namespace)
    return capsys.readouterr().out


def verdict(check, answer, capsys):
    capsys.readouterr()
    check(answer)
    return capsys.readouterr().out


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
        shows = re.search(r"print\(|plt\.subplots\(|exercises\.check", "".join(cell["source"]))
        if cell["cell_type"] == "code" and shows:
            assert cell["outputs"], f"{path.name}, cell {cell['id']}: run notebooks/run.py"


@pytest.mark.parametrize("path", LESSONS, ids=by_name)
def test_a_lesson_has_claim_picture_check_and_exercises(path):
    code, text = "\n".join(cells(path, "code")), "\n".join(cells(path, "markdown"))
    assert re.match(rf"# {int(path.name[:2])}\. ", text) and "**Claim.**" in text
    assert "plt.subplots(" in code and code.count("assert ") >= 3
    assert 2 <= len(cells(path, "code", "exercise")) <= 3 and "solutions.ipynb" in text


@pytest.mark.parametrize("path", PATHS, ids=by_name)
def test_lessons_import_the_modules_and_never_rewrite_a_function(path):
    for source in cells(path, "code"):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                owners = [m.__name__ for m in (drpo, baselines) if hasattr(m, node.name)]
                assert not owners, f"{path.name} writes {owners[0]}.{node.name} again"
    assert "import drpo\n" in cells(path, "code", "setup")[0] or "from minidrpo." in cells(path, "code", "setup")[0]


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
        file = (FOLDER / target).resolve()
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


# ------------------------------------------------------------------------------------------------------ exercises


@pytest.mark.parametrize("path", LESSONS, ids=by_name)
def test_unsolved_exercises_neither_stop_a_notebook_nor_pass(path, capsys):
    for source in cells(path, "code", "exercise"):
        printed = run_cells(cells(path, "code", "setup") + [source], capsys)
        assert re.fullmatch(r"\w+: not (solved )?yet\..*\n", printed), printed


def test_every_exercise_accepts_its_solution(capsys):
    setup = cells(FOLDER / "solutions.ipynb", "code", "setup")
    solutions = [source for source in cells(FOLDER / "solutions.ipynb", "code") if source not in setup]
    printed = run_cells(setup + solutions, capsys).splitlines()
    assert sorted(printed) == sorted(f"{name.removeprefix('check_')}: right." for name in exercises.CHECKS)
    asked = [c for path in LESSONS for s in cells(path, "code", "exercise") for c in re.findall(r"exercises\.(\w+)", s)]
    assert sorted(asked) == sorted(exercises.CHECKS), "each exercise is asked once"


def padded_mean(logp, old, mask, advantage):
    return baselines.clipped_surrogate(logp, old, mask, advantage, aggregate="constant")


def token_mean(logp, old, mask, advantage):
    return baselines.clipped_surrogate(logp, old, mask, advantage, aggregate="token")


def disco_b(correct):
    scores = torch.zeros(correct.shape, dtype=torch.float64)
    weight = drpo.positive_distribution(scores, correct, math.inf)
    return drpo.drpo_credit(scores, correct, weight, 1.0, "mean")


WRONG = {
    "check_longest_safe": [
        lambda others, n_wrong, C, alpha: (sum(others) + n_wrong * C) / (len(others) + n_wrong),  # forgets alpha
        lambda others, n_wrong, C, alpha: (sum(others) + n_wrong * C / alpha) / (len(others) + n_wrong + 1),
        lambda others, n_wrong, C, alpha: sum(others) / len(others),
        lambda others, n_wrong, C, alpha: 1 / 0,
    ],
    "check_alpha_star": [1.0, 0.6125, -3, math.nan],
    "check_surrogate_bug": [padded_mean, token_mean, lambda *args: torch.tensor(0.0), lambda *args: 0.0],
    "check_lam_of_doubling": [1000 / 8192, 0.1, 0.0],
    "check_effective_sample_size": [
        lambda weight: 1 / weight.square().sum(-1),  # inf where no response is correct
        lambda weight: weight.square().sum(-1),
        lambda weight: 1 / weight.amax(-1).clamp(min=1e-9) * weight.any(-1),
        lambda weight: 1 / weight.square().sum(),
    ],
    "check_weights_bug": [
        lambda preference, correct, lam: (preference / lam).masked_fill(~correct, -torch.inf).softmax(-1),  # NaN
        lambda preference, correct, lam: drpo.positive_distribution(preference, correct, 2 * lam),
        lambda preference, correct, lam: drpo.positive_distribution(-preference, correct, lam),
    ],
    "check_tau_of_half": [0.3, 10.0, 0.3 * math.log(2), 0],
    "check_credit_bug": [
        lambda *args: drpo.drpo_objective(*args),  # the sign
        lambda score, *args: -(drpo.drpo_credit(score, *args) * score.detach()).sum(),  # stopped in the wrong place
        lambda score, *args: -(drpo.drpo_credit(score, *args) * score).detach().sum(),
    ],
    "check_disco_b_credit": [
        lambda correct: disco_b(correct) * len(correct),
        lambda correct: disco_b(correct) * len(correct) / drpo.mixed_groups(correct).sum(),
        lambda correct: -disco_b(correct),
        lambda correct: disco_b(correct).sum(-1),
        lambda correct: torch.where(correct, 1 / correct.sum(-1, keepdim=True), 0.0) / len(correct),
    ],
    "check_tokens_needed": [40_000, 20_000, 8e-4, 0],
    "check_kl_bug": [
        lambda *args: drpo.kl_estimate(*args, "k1"),
        lambda logp, old, mask: -drpo.kl_estimate(logp, old, mask, "k3"),
        lambda logp, old, mask: drpo.kl_per_token(logp, old, mask, "k3").mean(),  # over the padded width
        lambda logp, old, mask: drpo.kl_per_token(logp, old, torch.ones_like(mask), "k3").mean(),  # no mask at all
    ],
    "check_resting_kl": [
        lambda pull, beta, delta: delta,
        lambda pull, beta, delta: delta + pull / (2 * beta),  # the paper's factor
        lambda pull, beta, delta: pull / beta - delta,
    ],
    "check_times_heavier": [math.exp(-40 / 25.6), 40 / 25.6, 4, 0],
    "check_lam_for_20_tokens": [20 / 256, 0.1, math.log(2) * 20 / 256, -1.0],
    "check_standard_error": [
        lambda value_Pn: value_Pn.std(ddof=1) / value_Pn.size**0.5,  # responses as if they were independent
        lambda value_Pn: value_Pn.mean(1).std() / len(value_Pn) ** 0.5,
        lambda value_Pn: value_Pn.mean(1).std(ddof=1),
        lambda value_Pn: 0.0,
    ],
    "check_collapsed": [
        ([(0, 0), (0, 0), (0, 1)], [(0, 0), (0, 1), (0, 1)]),  # GRPO tells them apart
        ([(0, 0), (0, 0), (0, 1)], [(0, 0), (0, 0), (1, 0)]),  # the same to both
        ([(0, 0), (0, 1)], [(0, 0), (1, 1)]),
        ([(0, 0), (0, 0), (0, 1)], [(0, 0), (0, 0), (2, 2)]),
    ],
    "check_no_better_than_wrong": [0.002, 1000, 2001 * 8],
    "check_gdpo_bug": [
        lambda reward, weight: baselines.gdpo_advantage(reward),  # no weights
        lambda reward, weight: baselines.gdpo_advantage(reward * weight),
        lambda reward, weight: baselines.gdpo_advantage(reward, weight, batch_norm=False),
        lambda reward, weight: baselines.grpo_advantage((reward * weight).sum(-1)),
    ],
    "check_smallest_f": [0.6, 0.5, 0.9, 0],
    "check_cheat": [
        "42",
        r"\boxed{17}, not 42",
        r"</think> \boxed{42}",
        r"</think> 42",
        r"</think> \boxed{17}",
        r"</think> \boxed{(} 42",
    ],
    "check_extract": [
        lambda response: reward.last_boxed(response),  # also while thinking
        lambda response: reward.last_boxed(response.split("</think>")[-1]),  # also without thinking
        lambda response: response.split("\\boxed{")[-1].split("}")[0] if "</think>" in response else None,
        lambda response: 1 / 0,
    ],
}


@pytest.mark.parametrize("name", exercises.CHECKS)
def test_every_exercise_rejects_wrong_answers(name, capsys):
    assert verdict(exercises.CHECKS[name], ..., capsys).endswith(": not solved yet.\n")
    assert verdict(exercises.CHECKS[name], None, capsys).endswith(": not solved yet.\n")
    assert WRONG[name]
    for wrong in WRONG[name]:
        assert ": not yet. Hint: " in verdict(exercises.CHECKS[name], wrong, capsys), wrong
