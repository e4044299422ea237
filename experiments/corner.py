r"""corner.py - which rule is short on easy prompts and careful on hard ones, if training is long enough?

    python -m experiments.corner                200 steps each, 80 % easy prompts, two seeds; goes on where it stopped
    python -m experiments.corner --steps 300 --dir runs/study-corner300 --methods drpo-solved rloo-lp \
        --strengths 0.2 0.6 --seeds 0 1 2 3 4

The corner: at most 25 tokens on easy prompts and more than 95 % right on hard ones. mode_model.py predicts who gets
there (LONG_RUNS); this trains the same rows on the embedded base of the thinking world, with the problems of the
study (study.py), at learning rate 2e-4 for all (that of an earlier study), and writes experiments/results/corner.csv
and corner.md (another number of steps: corner_300.csv and .md; the prediction beside it stays that of 200 steps).

The strengths and the number of steps were chosen by looking at the study's test problems. So every run is measured a
second time, on test problems that nothing was chosen by ("fresh", FRESH).
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import rollout
from eval import evaluate
from experiments import mode_model, study, study_rows
from experiments.study_cells import Cell
from minidrpo import cli, markdown
from minidrpo.engine import loading
from minidrpo.records import GradedResponse
from minidrpo.rundir import checkpoint, jsonl, lock
from minidrpo.rundir.results import FIELDS
from minidrpo.tasks import data

OUT = Path(__file__).parent / "results"
SEEDS, SHARE, LR = (0, 1), 0.8, 2e-4
EASY_TOKENS, HARD_ACCURACY = 25, 0.95


@dataclass(frozen=True)
class Corner(study.Study):
    steps: int = 200
    dir: str = "runs/study-corner"
    strengths: tuple[float, ...] = ()
    """Only these; none: all."""

    def __post_init__(self):
        super().__post_init__()
        known = {value for _, settings in mode_model.LONG_RUNS.values() for value in settings.values()}
        if wrong := [x for x in self.strengths if x not in known]:
            raise ValueError(f"--strengths: {wrong[0]:g} is not one of {', '.join(f'{x:g}' for x in sorted(known))}")

    def wants(self, cell) -> bool:
        return super().wants(cell) and (not self.strengths or cell.strength in self.strengths)


BUDGET = Corner()
FRESH = slice(BUDGET.max_problems, BUDGET.max_problems + 1000)
"""Which test problems of the thinking world are fresh: the study's tables stop before them."""


def cells(seeds=SEEDS) -> list[Cell]:
    """One run per row of LONG_RUNS and seed, seed by seed."""
    rows = [(method, next(iter(settings.values()), None)) for method, settings in mode_model.LONG_RUNS.values()]
    return [Cell(0, seed, method, strength, SHARE) for seed in seeds for method, strength in rows]


def fresh_responses(cfg) -> list[GradedResponse]:
    """A finished run's responses to the fresh problems, sampled once and kept beside the run's own."""
    path = Path(cfg.run_dir) / "responses_fresh.jsonl"
    if not path.exists():
        newest = checkpoint.newest(cfg.directory)
        model, tokenizer = loading.load_model(newest), loading.load_tokenizer(newest)
        problems = data.load_problems("thinking", split="test", n=FRESH.stop)[FRESH]
        sizes = {"max_tokens": cfg.max_prompt_tokens, "template": cfg.template, "suffix": cfg.suffixes}
        problems, prompts, _ = data.encode_prompts(problems, tokenizer, **sizes)
        result = evaluate(
            rollout.TransformersSampler(model, tokenizer), problems, prompts, tokenizer=tokenizer, chunk=128,
            samples=cfg.samples, temperature=cfg.temperature, seed=cfg.seed,
            max_response_tokens=cfg.max_response_tokens,
        )  # fmt: skip
        jsonl.write(path, (r.as_dict() for r in result.responses))
    return [GradedResponse(**row) for row in jsonl.lines(path, FIELDS)]


def collect(budget, wanted) -> pd.DataFrame:
    """One row per finished run, set ("chosen by", "fresh") and group of held-out problems."""
    rows = []
    for cell in wanted:
        cfg = study.run_config(budget, cell, LR, "study")
        if study.is_done(cfg):
            for name, responses in (("chosen by", study_rows.read_responses(cfg)), ("fresh", fresh_responses(cfg))):
                rows += [study_rows.head(cfg, cell) | {"set": name} | row for row in study_rows.by_group(responses)]
    columns = ["method", "strength", "seed", "set", "group", "accuracy", "mean_length", "short"]
    return pd.DataFrame(rows, columns=columns)


def table(found: pd.DataFrame) -> str:
    """Markdown: predicted and measured, and who reaches the corner. Numbers of single seeds are separated by commas."""
    predicted = pd.read_csv(OUT / "map_predicted.csv").query("steps == 200 and sharing == @mode_model.MEASURED")
    heads = ("method", "easy: predicted tokens", "measured", "short way, %")
    heads += (
        "hard: predicted, %",
        "measured",
        "tokens",
        "in the corner",
        "problems chosen by: hard, %",
        "in the corner",
    )
    lines = []
    for label, (method, settings) in mode_model.LONG_RUNS.items():
        own = found[(found.method == method) & (found.strength == next(iter(settings.values()), None))]
        if own.empty:
            continue
        said = predicted[predicted.label == label].iloc[0]
        easy, hard, there = of_set(own, "fresh")
        _, hard_before, there_before = of_set(own, "chosen by")
        lines.append([
            label, f"{said.length_easy:.0f}", _each(easy.mean_length), _each(100 * easy.short),
            f"{100 * said.accuracy_hard:.0f}", _each(100 * hard.accuracy, 1), _each(hard.mean_length), there,
            _each(100 * hard_before.accuracy, 1), there_before,
        ])  # fmt: skip
    return markdown.table(heads, lines) + "\n"


def of_set(own: pd.DataFrame, name: str):
    """(rows of easy problems, rows of hard ones, how many runs are in the corner), seed by seed."""
    easy, hard = (own[(own.set == name) & (own.group == group)].sort_values("seed") for group in ("easy", "hard"))
    there = (easy.mean_length.to_numpy() <= EASY_TOKENS) & (hard.accuracy.to_numpy() > HARD_ACCURACY)
    return easy, hard, f"{there.sum()} of {len(there)}"


def _each(values, digits=0) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def main(argv=None):
    budget = cli.parse(BUDGET, argv, prog="corner.py", description="Long runs: who gets easy short and hard right?")
    with cli.user_errors(), cli.machine_trouble(), lock.held(budget.dir, flag="--dir"):
        study.claim_directory(budget)
        wanted = list(filter(budget.wants, cells(budget.seeds or SEEDS)))
        errors = study.run_all([study.run_config(budget, c, LR, "study") for c in wanted], budget, "corner", 0)
        found = collect(budget, wanted)
        name = "corner" if budget.steps == BUDGET.steps else f"corner_{budget.steps}"
        found.round(4).to_csv(OUT / f"{name}.csv", index=False, lineterminator="\n")
        (OUT / f"{name}.md").write_text(table(found), encoding="utf-8")
        print(table(found))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
