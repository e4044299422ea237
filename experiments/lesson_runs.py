"""lesson_runs.py - the training runs that the notebooks read: more seeds than a lesson has minutes for.

    python -m experiments.lesson_runs                           all, half an hour on one core; goes on where it stopped
    python -m experiments.lesson_runs --parts trust --seeds 0

    watch    the first 20 steps of the main job (`make train`)                             notebook 5
    trust    four optimizer steps per rollout batch, with and without the trust region     notebook 4
    floor    DRPO at smaller lambda than the habit study has, under that study's budget    notebook 6

Each run is train.py's loop with the preset `tiny` and one thread, in runs/lessons. All numbers go to one tidy file,
experiments/results/lessons.csv: one row per training step, one per held-out evaluation.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

import config
import train
from experiments import study
from experiments.study_cells import Cell
from minidrpo import cli
from minidrpo.engine.distributed import DistContext
from minidrpo.rundir import jsonl

OUT = Path(__file__).parent / "results" / "lessons.csv"
NUMBERS = ["accuracy", "accuracy_se", "mean_length", "mean_length_se", "mixed_groups", "objective", "kl", "truncated"]
COLUMNS = ["part", "lam", "lr", "beta", "seed", "phase", "step", *NUMBERS]
HELD_OUT = {"max_problems": 256, "samples": 2}
WATCH = {"steps": 20, "eval_every": 20, "save_every": 20, "max_problems": 64, "samples": 1}
TRUST = {"mini_batches": 4, "steps": 12, "eval_every": 12, "save_every": 12} | HELD_OUT


@dataclass(frozen=True)
class LessonRuns:
    parts: tuple[str, ...] = ()
    """Only these; none: all."""
    seeds: tuple[int, ...] = (0, 1, 2)
    dir: str = "runs/lessons"

    def __post_init__(self):
        cli.check(self)
        if min(self.seeds, default=0) < 0:
            raise ValueError(f"--seeds must be 0 or more, got {min(self.seeds)}")
        if wrong := [part for part in self.parts if part not in PARTS]:
            raise ValueError(f"--parts: {wrong[0]!r} is not one of {', '.join(PARTS)}")


def watch(asked, seed):
    yield config.make("tiny", seed=seed, run_dir=f"{asked.dir}/watch/{seed}", eval_start=False, **HELD_OUT | WATCH)


def trust(asked, seed):
    for lr in (2e-4, 4e-4):
        for beta in (0.0, 1e3):
            folder = f"{asked.dir}/trust/lr{lr:g}-beta{beta:g}-{seed}"
            yield config.make("tiny", lr=lr, beta=beta, seed=seed, run_dir=folder, **TRUST)


def floor(asked, seed):
    budget = study.Study(**study.HABIT | {"dir": f"{asked.dir}/floor"})
    study.claim_directory(budget)
    for lam in (0.02, 0.01):
        yield study.run_config(budget, Cell(0, seed, "drpo", lam, None), 2e-4, "study")


PARTS = {"trust": trust, "watch": watch, "floor": floor}


def rows_of(part, cfg):
    """The tidy rows of one run."""
    about = {"part": part, "lam": cfg.lam, "lr": cfg.lr, "beta": cfg.beta, "seed": cfg.seed}
    for phase, name in (("train", "metrics"), ("held out", "evals")):
        for record in jsonl.read(cfg.directory / f"{name}.jsonl"):
            yield about | {"phase": phase} | {key: record.get(key) for key in ("step", *NUMBERS)}


def main(argv=None):
    asked = cli.parse(LessonRuns(), argv, prog="lesson_runs.py", description="The training runs of the notebooks.")
    torch.set_num_threads(1)
    with cli.user_errors(), cli.machine_trouble():
        done = []
        for part in asked.parts or PARTS:
            for seed in asked.seeds:
                for cfg in PARTS[part](asked, seed):
                    train.train(cfg, DistContext())  # returns at once if it has all its steps
                    done.append((part, cfg))
        found = pd.DataFrame([row for part, cfg in done for row in rows_of(part, cfg)], columns=COLUMNS)
        if OUT.exists():  # what this command did not ask for stays
            old, key = pd.read_csv(OUT), ["part", "lam", "lr", "beta", "seed"]
            found = pd.concat([old[~old.set_index(key).index.isin(found.set_index(key).index)], found])
        order = ["part", "lr", "beta", "lam", "seed", "phase", "step"]
        found.sort_values(order, kind="stable").round(6).to_csv(OUT, index=False, lineterminator="\n")


if __name__ == "__main__":
    sys.exit(main())
