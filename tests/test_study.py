"""study.py: which runs there are, a study of two methods, small, killed and gone on with, and its two files."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

import pytest

import config
from experiments import mode_model, study_cells, study_rows
from experiments import study as studies
from experiments.study_cells import WORLDS, Cell, World
from minidrpo.engine import loading
from minidrpo.rundir import jsonl
from minidrpo.tasks import data, thinking

SMALL = ["--steps=1", "--prompts-per-step=2", "--train-problems=5", "--max-problems=10", "--samples=1", "--workers=1"]
SMALL += ["--lrs", "1e-3"]


# ------------------------------------------------------------------------------------------------------------ the cells


def test_every_cell_has_its_own_directory_and_settings(tmp_path):
    for preset, (_, study) in studies.PRESETS.items():
        study = dataclasses.replace(study, dir=str(tmp_path))
        configs = [studies.run_config(study, cell, lr, "study") for cell in WORLDS[preset].cells() for lr in study.lrs]
        assert len({cfg.run_dir for cfg in configs}) == len(configs)
        assert {cfg.method for cfg in configs} == set(WORLDS[preset].middle), "each method is tuned, and used"


def test_the_thinking_study_measures_what_was_predicted_and_decides_with_five_seeds_and_three_bases():
    world = WORLDS["thinking"]
    assert list(world.parts) == ["decide", "map", "sweep"] and len(world.cells()) == 242
    at_middle = {(c.method, c.share) for c in world.parts["map"] if c.strength == world.middle[c.method]}
    assert at_middle == {(m, share) for m, _ in mode_model.METHODS.values() for share in mode_model.SHARES}
    usual = [c for c in world.parts["decide"] if c.share == thinking.EASY_SHARE]
    for method in ("drpo", "grpo-lp", "grpo-lp-no-std", "grpo-lp-mixed-only"):
        assert {(c.base, c.seed) for c in usual if c.method == method} == {(b, s) for b in range(3) for s in range(5)}
        assert {c.seed for c in world.parts["decide"] if (c.method, c.share) == (method, 0.95)} == set(range(5))
    assert {c.share for c in world.parts["decide"]} == {0.8, 0.95}
    assert {c.strength for c in world.parts["sweep"] if c.method == "drpo"} == {0.001, 0.01, 0.1, 0.5}


def test_a_part_that_is_stopped_is_a_smaller_study():
    for world in WORLDS.values():
        for cells in world.parts.values():
            order = [(cell.base, cell.seed) for cell in cells]
            assert order == sorted(order) and len(set(cells)) == len(cells)


def test_a_command_may_ask_for_less():
    study = studies.Study(methods=("drpo", "grpo-lp"), seeds=(0,), bases=(0, 2))
    assert {(c.method, c.base, c.seed) for c in study.cells("decide")} == {
        (method, base, 0) for method in ("drpo", "grpo-lp") for base in (0, 2)
    }
    assert {c.base for c in studies.Study().cells("decide")} == {0, 1, 2}


def test_the_map_s_sharing_was_measured_not_fitted():
    assert mode_model.MEASURED in mode_model.SHARINGS
    header, *lines = (Path(mode_model.OUT) / "map_predicted.csv").read_text().splitlines()
    rows = csv.DictReader([header, *lines])
    ours = mode_model.MEASURED, studies.Study().steps
    predicted = {(r["method"], float(r["share"])) for r in rows if (float(r["sharing"]), int(r["steps"])) == ours}
    assert predicted == {(m, share) for m, _ in mode_model.METHODS.values() for share in mode_model.SHARES}


# --------------------------------------------------------------------------------------------------------- the problems


@pytest.mark.parametrize("preset", WORLDS)
def test_problems_are_used_for_one_purpose_each(preset, tmp_path):
    study = dataclasses.replace(studies.PRESETS[preset][1], dir=str(tmp_path), train_problems=40, max_problems=50)
    studies.claim_directory(study)
    files = {path.stem: path.read_text().splitlines() for path in tmp_path.glob("*.jsonl")}
    texts = {name: {json.loads(line)["problem"] for line in lines} for name, lines in files.items()}
    validation = texts.pop("validation")
    test = {p.prompt for p in data.load_problems(config.PRESETS[study.rules.preset][1]["eval_data"], split="test")}
    assert len(validation) == 50 and len(texts) == len(WORLDS[preset].shares)
    for name, train in texts.items():
        assert len(files[name]) == len(train) == 40 and not (train | validation) & test and not train & validation


def test_validation_is_balanced_and_training_has_its_share(tmp_path):
    sets = study_cells.problem_sets(WORLDS["thinking"], 40, 50)
    operations = {name: [sum(text.count(sign) for sign in "+-") for text, _ in own] for name, own in sets.items()}
    assert [operations["validation"].count(level) for level in range(1, 6)] == [10] * 5
    assert [operations[f"train-{share}"].count(1) for share in ("0.5", "0.8", "0.95")] == [20, 32, 38]


# ------------------------------------------------------------------------------------------------------------- the runs


def small_world(preset):
    share = WORLDS[preset].share
    strengths = {"drpo": (0.2,), "grpo-lp": (0.3,)}
    cells = study_cells.product(strengths, strengths, (share,), seeds=1)
    middle = {method: own[0] for method, own in strengths.items()}
    return World(WORLDS[preset].preset, middle, share, {"decide": cells, "sweep": cells[:1]})


WITH_MODEL = [
    pytest.param("habit", marks=pytest.mark.slow),
    pytest.param("thinking", marks=[
        pytest.mark.slow,
        pytest.mark.skipif(not Path(config.THINKING_MODEL).exists(), reason="the thinking world's base is not here"),
    ]),
]  # fmt: skip


@pytest.mark.parametrize("preset", WITH_MODEL)
def test_a_study_leaves_tidy_files_and_goes_on(preset, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(WORLDS, preset, small_world(preset))
    out = tmp_path / "out" / "study.csv"
    argv = [preset, *SMALL, f"--dir={tmp_path}", f"--out={out}", "--figure="]
    with pytest.raises(SystemExit):
        studies.main([*argv, "--parts", "sweep"])
    assert "no learning rate of drpo is chosen yet" in capsys.readouterr().err
    assert studies.main([*argv, "--parts", "lr"]) == 0 and not list(tmp_path.glob("**/*.png"))
    assert studies.main(argv) == 0
    assert list(out.parent.glob("*.png")), "without --figure all figures lie beside the file"
    rows = list(csv.DictReader(open(out)))
    assert tuple(rows[0]) == study_rows.COLUMNS
    held_out = [r for r in rows if r["phase"] == "held out" and r["role"] == "study" and r["group"] == "all"]
    assert [(r["method"], r["strength"], r["step"], r["base"]) for r in held_out] == [
        ("base", "", "0", "0"), ("drpo", "0.2", "1", "0"), ("grpo-lp", "0.3", "1", "0")
    ]  # fmt: skip
    assert all(0 <= float(r["accuracy"]) <= 1 and float(r["mean_length"]) > 0 for r in held_out)
    groups = {r["group"] for r in rows if r["phase"] == "held out" and r["role"] == "study"}
    name = "thinking" if preset == "thinking" else "arithmetic"
    assert groups == {"all", *(f"{name}/level-{i}" for i in range(1, 6))} | (
        {"easy", "hard"} if name == "thinking" else set()
    )
    assert all((r["short"] != "") == (preset == "thinking") for r in held_out)
    train = [r for r in rows if r["phase"] == "train" and r["method"] == "drpo"]
    assert train and all(r["mixed_groups"] and r["seconds"] for r in train)
    by_problem = list(csv.DictReader(open(study_rows.problems_path(out))))
    assert [r["method"] for r in by_problem] == ["base", "drpo", "grpo-lp"]
    for row, run in zip(held_out, by_problem, strict=True):
        right = [float(x) for x in run["right"].split()]
        assert len(right) == 10 and sum(right) / 10 == pytest.approx(float(row["accuracy"]), abs=1e-4)

    before = out.read_bytes()
    assert studies.main([*argv, "--parts", "sweep"]) == 0, "everything is done: nothing is trained again"
    assert out.read_bytes() == before, "and no row of another part is lost"
    (responses,) = tmp_path.glob("study/drpo-*/responses_after.jsonl")
    (responses.parent / "evals.jsonl").unlink()  # as if it had been killed before its end
    assert studies.main(argv) == 0 and (responses.parent / "evals.jsonl").exists()


def test_another_budget_needs_another_directory(tmp_path, capsys):
    studies.claim_directory(studies.Study(dir=str(tmp_path), steps=3))
    studies.claim_directory(studies.Study(dir=str(tmp_path), steps=3, seeds=(7,)))
    with pytest.raises(SystemExit) as stop:
        studies.main([f"--dir={tmp_path}", "--steps=4"])
    assert stop.value.code == 2 and "choose another --dir" in capsys.readouterr().err


def test_a_failed_run_says_why_and_stays_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setitem(WORLDS, "habit", small_world("habit"))
    study = dataclasses.replace(
        studies.PRESETS["habit"][1], dir=str(tmp_path), out=str(tmp_path / "s.csv"), steps=1, prompts_per_step=2,
        train_problems=2, max_problems=2,
    )  # fmt: skip
    studies.claim_directory(study)
    jsonl.write_text(tmp_path / "lr.json", json.dumps({"drpo": 1e-3}))
    cfg = studies.run_config(study, Cell(0, 0, "drpo", 0.2, None), 1e-3, "study")
    error = studies.run_one(dataclasses.replace(cfg, prompts_per_step=3))
    assert "2 problems are fewer than one step's 3" in error and not studies.is_done(cfg)
    (row,) = csv.DictReader(open(studies.collect(study)))
    assert (row["method"], row["phase"], row["accuracy"]) == ("drpo", "failed", "")


def test_learning_rates_are_judged_by_length_and_accuracy_together(tmp_path):
    study = studies.Study(dir=str(tmp_path), lrs=(1e-4, 2e-4, 4e-4))
    runs = {"drpo": [(0.9, 80), (0.9, 60), (0.2, 10)], "grpo-lp": [(0.2, 10), None, (0.3, 20)]}
    write_evaluation(studies.base_config(study, "lr"), (0.5, 90))
    for method, results in runs.items():
        for (cfg, _), result in zip(studies.tuning(study, [method]), results, strict=True):
            if result:
                write_evaluation(cfg, result)
    assert studies.choose_lr(study, "drpo") == 2e-4, "shorter at the same accuracy; a collapsed run loses"
    assert studies.choose_lr(study, "grpo-lp") == 4e-4, "all collapsed: the least bad; a run that diverged loses"


def write_evaluation(cfg, result):
    directory = Path(cfg.run_dir)
    directory.mkdir(parents=True)
    jsonl.write(directory / "evals.jsonl", [{"step": cfg.steps, "accuracy": result[0], "mean_length": result[1]}])
    (directory / "responses_after.jsonl").touch()


def test_bases_are_made_once_and_whole(tmp_path):
    study = studies.Study(dir=str(tmp_path))
    make = (sys.executable, "-c", "import pathlib, sys; pathlib.Path(sys.argv[4]).mkdir(); print('seed', sys.argv[2])")
    studies.make_bases(study, [0, 1, 2], make)
    assert sorted(path.name for path in (tmp_path / "bases").iterdir()) == ["1", "1.log", "2", "2.log"]
    assert (tmp_path / "bases" / "2.log").read_text() == "seed 2\n"
    fails = (sys.executable, "-c", "raise SystemExit(3)")
    studies.make_bases(study, [0, 1, 2], fails)  # they are there: nothing is started
    with pytest.raises(ChildProcessError, match="3.log says why"):
        studies.make_bases(study, [3], fails)
    assert not (tmp_path / "bases" / "3").exists()


@pytest.mark.parametrize("flags, words", [
    (["--methods", "grpo-xl"], "'grpo-xl' is not one of"),
    (["--parts", "all"], "'all' is not one of lr, decide, map, sweep"),
    (["--workers=0"], "--workers must be 1 or more"),
    (["--out", "train.py"], "--out names a .csv file, got train.py"),
    (["--figure", "a.csv"], "--figure names a .png file"),
    (["--lrs", "-1"], "--lrs must be positive"),
    (["--lrs", "1e-4", "1e-4"], "none twice"),
    (["--train-problems=3"], "fewer than --prompts-per-step"),
    (["habit", "--world=flat"], "'flat' is not one of"),
])  # fmt: skip
def test_mistakes_get_one_line(flags, words, capsys):
    with pytest.raises(SystemExit) as stop:
        studies.main(flags)
    assert stop.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not Path(config.THINKING_MODEL).exists(), reason="the thinking world's base is not here")
def test_the_sharing_that_predicts_the_study_is_the_base_s():
    """A base made anew needs `python -m experiments.mode_model --measure`, and the map predicted anew."""
    model, tokenizer = loading.load_model(config.THINKING_MODEL), loading.load_tokenizer(config.THINKING_MODEL)
    assert mode_model.measured_sharing(model, tokenizer) == pytest.approx(mode_model.MEASURED, abs=5e-4)
