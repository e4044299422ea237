"""study.py: a study of two methods, small, killed and gone on with, into one tidy file."""

import csv
import dataclasses
import json

import pytest

from experiments import study as studies
from minidrpo.tasks import data

TINY_STUDY = [
    "--methods", "drpo", "grpo-lp", "--seeds", "0", "--lrs", "1e-3", "--steps=1", "--prompts-per-step=2",
    "--train-problems=2",
    "--max-problems=5", "--samples=1", "--workers=1",
]  # fmt: skip


@pytest.mark.slow
def test_a_study_leaves_one_tidy_file_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "STRENGTHS", studies.STRENGTHS | {"drpo": (0.2,), "grpo-lp": (0.3,)})
    argv = [*TINY_STUDY, f"--dir={tmp_path}", f"--out={tmp_path / 'study.csv'}"]
    assert studies.main(argv) == 0
    rows = list(csv.DictReader(open(tmp_path / "study.csv")))
    assert tuple(rows[0]) == studies.COLUMNS
    held_out = [r for r in rows if r["phase"] == "held out" and r["role"] == "study" and r["group"] == "all"]
    assert [(r["method"], r["strength"], r["step"]) for r in held_out] == [
        ("base", "", "0"), ("drpo", "0.2", "1"), ("grpo-lp", "0.3", "1")
    ]  # fmt: skip
    assert all(0 <= float(r["accuracy"]) <= 1 and float(r["mean_length"]) > 0 for r in held_out)
    train = [r for r in rows if r["phase"] == "train" and r["method"] == "drpo"]
    assert all(r["mixed_groups"] and r["seconds"] and r["reward_length"] for r in train)

    before = (tmp_path / "study.csv").read_bytes()
    assert studies.main(argv) == 0, "everything is done: nothing is trained again"
    assert (tmp_path / "study.csv").read_bytes() == before

    evals = tmp_path / "study" / "drpo-lam0.2-lr0.001-seed0" / "evals.jsonl"
    evals.unlink()  # as if it had been killed before its end
    assert studies.main(argv) == 0 and evals.exists()


def test_another_budget_needs_another_directory(tmp_path, capsys):
    studies.claim_directory(studies.Study(dir=str(tmp_path), steps=3))
    studies.claim_directory(studies.Study(dir=str(tmp_path), steps=3, seeds=(7,)))
    with pytest.raises(SystemExit) as stop:
        studies.main([f"--dir={tmp_path}", "--steps=4"])
    assert stop.value.code == 2 and "choose another --dir" in capsys.readouterr().err


def test_a_failed_cell_says_why_and_the_others_go_on(tmp_path, monkeypatch):
    study = studies.Study(dir=str(tmp_path), steps=1, prompts_per_step=2, train_problems=2, max_problems=2)
    studies.write_problems(study)
    cfg = studies.run_config(study, "drpo", 0.2, 1e-3, 0, "study")
    error = studies.run_one(dataclasses.replace(cfg, prompts_per_step=3))
    assert "2 problems are fewer than one step's 3" in error and not studies.is_done(cfg)


def test_problems_are_used_for_one_purpose_each(tmp_path):
    study = studies.Study(dir=str(tmp_path), train_problems=40, max_problems=50)
    studies.write_problems(study)
    rows = {n: (tmp_path / f"{n}.jsonl").read_text().splitlines() for n in ("train", "validation")}
    train, validation = ({json.loads(line)["problem"] for line in rows[n]} for n in ("train", "validation"))
    test = {p.prompt for p in data.load_problems("arithmetic", split="test")}
    assert (len(train), len(validation)) == (40, 50) and not (train | validation) & test and not train & validation


def test_every_cell_has_its_own_directory_and_settings(tmp_path):
    study = studies.Study(dir=str(tmp_path))
    cells = [
        studies.run_config(study, m, s, lr, seed, "study")
        for m in study.methods for s in studies.STRENGTHS[m] for lr in study.lrs for seed in study.seeds
    ]  # fmt: skip
    assert len({cfg.run_dir for cfg in cells}) == len(cells)
    assert all(studies.MIDDLE[m] in studies.STRENGTHS[m] for m in study.methods)


@pytest.mark.parametrize("flags, words", [
    (["--methods", "grpo-xl"], "'grpo-xl' is not one of"),
    (["--workers=0"], "--workers must be 1 or more"),
    (["--lrs", "-1"], "--lrs must be positive"),
    (["--seeds", "0", "0"], "none twice"),
    (["--train-problems=3"], "fewer than --prompts-per-step"),
])  # fmt: skip
def test_mistakes_get_one_line(flags, words, capsys):
    with pytest.raises(SystemExit) as stop:
        studies.main(flags)
    assert stop.value.code == 2 and words in capsys.readouterr().err
