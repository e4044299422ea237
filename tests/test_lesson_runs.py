"""experiments/lesson_runs.py: the committed numbers are whole, and are those of the code."""

import dataclasses

import pandas as pd
import pytest

import train
from experiments import lesson_runs
from minidrpo.engine.distributed import DistContext

ROWS = pd.read_csv(lesson_runs.OUT)
SEEDS = (0, 1, 2)


def test_the_file_holds_every_step_of_every_run():
    assert list(ROWS.columns) == lesson_runs.COLUMNS and set(ROWS.part) == set(lesson_runs.PARTS)
    trained = ROWS[ROWS.phase == "train"]
    for (part, *_), run in trained.groupby(["part", "lam", "lr", "beta", "seed"]):
        last = {"trust": 12, "watch": 20, "floor": 20}[part]
        assert run.step.tolist() == list(range(1, last + 1))
        assert run[["accuracy", "mean_length", "mixed_groups", "objective", "kl"]].notna().all().all()
    for part, cells in (("trust", 4), ("watch", 1), ("floor", 2)):
        runs = trained[trained.part == part].groupby(["lam", "lr", "beta"]).seed.unique()
        assert len(runs) == cells and all(sorted(seeds) == list(SEEDS) for seeds in runs), runs
    held_out = ROWS[ROWS.phase == "held out"]
    assert held_out.groupby(["part", "lam", "lr", "beta", "seed"]).ngroups == 3 * 7 and held_out.accuracy.notna().all()


def test_one_update_per_batch_has_no_kl_and_four_have():
    trained = ROWS[ROWS.phase == "train"]
    assert (trained[trained.part != "trust"].kl == 0).all() and (trained[trained.part == "trust"].kl.abs() > 0).all()


def test_an_unknown_part_is_named_before_anything_runs(capsys):
    with pytest.raises(SystemExit) as error:
        lesson_runs.main(["--parts", "trusty"])
    assert error.value.code == 2 and "'trusty' is not one of trust, watch, floor" in capsys.readouterr().err


@pytest.mark.slow
def test_the_first_step_of_a_committed_run_again(tmp_path):
    asked = lesson_runs.LessonRuns(dir=str(tmp_path))
    cfg = next(cfg for cfg in lesson_runs.trust(asked, 0) if cfg.beta == 0 and cfg.lr == 4e-4)
    train.train(dataclasses.replace(cfg, steps=1, eval_start=False, max_problems=2, samples=1), DistContext())
    new = next(row for row in lesson_runs.rows_of("trust", cfg) if row["phase"] == "train")
    old = ROWS.query("part == 'trust' and lr == 4e-4 and beta == 0 and seed == 0 and phase == 'train' and step == 1")
    for key in ("accuracy", "mean_length", "objective", "kl"):
        assert new[key] == pytest.approx(old[key].item(), rel=1e-3), key
