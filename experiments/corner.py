"""corner.py - which rule is short on easy prompts and careful on hard ones, if training is long enough?

    python -m experiments.corner                200 steps each, 80 % easy prompts, two seeds; goes on where it stopped
    python -m experiments.corner --steps 300 --dir runs/study-corner300 --methods drpo-solved rloo-lp --seeds 0 1 2

The corner: at most 25 tokens on easy prompts and more than 95 % right on hard ones. mode_model.py predicts who gets
there (LONG_RUNS); this trains the same rows on the embedded base of the thinking world, with the problems and the
learning rate of the study (study.py), and writes experiments/results/corner.csv and corner.md
(another number of steps: corner_300.csv and .md; the prediction beside it stays that of 200 steps).
"""

import sys
from pathlib import Path

import pandas as pd

from experiments import mode_model, study, study_rows
from experiments.study_cells import Cell
from minidrpo import cli

OUT = Path(__file__).parent / "results"
SEEDS, SHARE, LR = (0, 1), 0.8, 2e-4
EASY_TOKENS, HARD_ACCURACY = 25, 0.95
BUDGET = study.Study(dir="runs/study-corner", steps=200)


def cells(seeds=SEEDS) -> list[Cell]:
    """One run per row of LONG_RUNS and seed, seed by seed."""
    rows = [(method, next(iter(settings.values()), None)) for method, settings in mode_model.LONG_RUNS.values()]
    return [Cell(0, seed, method, strength, SHARE) for seed in seeds for method, strength in rows]


def collect(budget, wanted) -> pd.DataFrame:
    """One row per finished run and group of held-out problems."""
    rows = []
    for cell in wanted:
        cfg = study.run_config(budget, cell, LR, "study")
        if study.is_done(cfg):
            rows += [row for row in study_rows.of_run(cfg, cell, "study") if row["phase"] == "held out"]
    columns = ["method", "strength", "seed", "group", "accuracy", "mean_length", "short"]
    return pd.DataFrame(rows, columns=columns)


def table(found: pd.DataFrame) -> str:
    """Markdown: predicted and measured, and who reaches the corner. Numbers of single seeds are separated by commas."""
    predicted = pd.read_csv(OUT / "map_predicted.csv").query("steps == 200 and sharing == @mode_model.MEASURED")
    heads = ("method", "easy: predicted tokens", "measured", "short way, %")
    heads += ("hard: predicted, %", "measured", "tokens", "in the corner")
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for label, (method, settings) in mode_model.LONG_RUNS.items():
        own = found[(found.method == method) & (found.strength == next(iter(settings.values()), None))]
        if own.empty:
            continue
        said = predicted[predicted.label == label].iloc[0]
        easy, hard = own[own.group == "easy"], own[own.group == "hard"]
        there = (easy.mean_length.to_numpy() <= EASY_TOKENS) & (hard.accuracy.to_numpy() > HARD_ACCURACY)
        cells = [
            label, f"{said.length_easy:.0f}", _each(easy.mean_length), _each(100 * easy.short),
            f"{100 * said.accuracy_hard:.0f}", _each(100 * hard.accuracy), _each(hard.mean_length),
            f"{there.sum()} of {len(there)}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _each(values) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def main(argv=None):
    budget = cli.parse(BUDGET, argv, prog="corner.py", description="Long runs: who gets easy short and hard right?")
    with cli.user_errors(), cli.machine_trouble():
        study.claim_directory(budget)
        wanted = [c for c in cells(budget.seeds or SEEDS) if not budget.methods or c.method in budget.methods]
        errors = study.run_all([study.run_config(budget, c, LR, "study") for c in wanted], budget, "corner", 0)
        found = collect(budget, wanted)
        name = "corner" if budget.steps == BUDGET.steps else f"corner_{budget.steps}"
        found.round(4).to_csv(OUT / f"{name}.csv", index=False, lineterminator="\n")
        (OUT / f"{name}.md").write_text(table(found), encoding="utf-8")
        print(table(found))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
