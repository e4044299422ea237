"""study_rows.py - from the directory of a finished run to rows of the study's two files.

The tidy file (COLUMNS) has one row per training step, and one per group of held-out problems: all, each level, and in
the thinking world easy (level 1) and hard (levels 2 to 5). The other file (PROBLEM_COLUMNS) has one row per run, with
the results of every held-out problem in the same order, as intervals over problems need them.
"""

import csv
import io
from pathlib import Path
from statistics import fmean

from experiments.study_cells import Cell
from minidrpo.methods import rewards
from minidrpo.methods.table import METHODS, Batch
from minidrpo.records import GradedResponse
from minidrpo.rundir import jsonl
from minidrpo.rundir.metrics import exceed, summarise
from minidrpo.rundir.results import FIELDS
from minidrpo.tasks import graders, thinking

HEAD = ("method", "hyperparameter", "strength", "share", "base", "lr", "seed", "rewarded")
COLUMNS = (
    *(*HEAD, "role", "phase", "step", "group", "accuracy", "accuracy_se", "mean_length", "mean_length_se"),
    *("mean_length_correct", "short", "truncated", "mixed_groups", "entropy", "kl", "grad_norm"),
    *("reward_length", "seconds", "exceed", *graders.scores()),
)
PROBLEM_COLUMNS = (*HEAD, "level", "right", "tokens")  # a space between problems
EASY = "thinking/level-1"
RANGES = {"tool_correct": (-3, 3)}  # of rewards that are not between 0 and 1


def responses_file(cfg, when="after") -> Path:
    return Path(cfg.run_dir) / f"responses_{when}.jsonl"


def failure_file(cfg) -> Path:
    """Beside the run: why it has no result."""
    return Path(f"{cfg.run_dir}.failed")


def problems_path(path: str | Path) -> Path:
    """The file with the results by problem, beside the tidy file."""
    return Path(path).with_name(Path(path).stem + "_problems.csv")


def head(cfg, cell: Cell) -> dict:
    knob = "length_weight" if getattr(cfg, "reward_weights", ()) else METHODS[cfg.method].hyperparameter
    about = {"hyperparameter": knob if cell.strength is not None else "", "rewarded": " ".join(cell.rewards)}
    return vars(cell) | about | {"lr": cfg.lr}


def of_run(cfg, cell: Cell, role):
    """The rows of one finished run: dicts with keys of COLUMNS. seconds: of the step; of the whole training so far."""
    total = 0.0
    named = getattr(cfg, "rewards", (rewards.OWN,)) != (rewards.OWN,)  # these are also compared at equal rates
    for record in jsonl.read(Path(cfg.run_dir) / "metrics.jsonl"):
        seconds = sum(v for k, v in record.items() if k.startswith("seconds_"))
        total += seconds
        record |= record.pop("rewards", {})
        if role == "study" or named:
            yield head(cfg, cell) | record | {"role": role, "phase": "train", "group": "all", "seconds": seconds}
    about = head(cfg, cell) | {"role": role, "phase": "held out", "step": cfg.steps, "seconds": total}
    yield from (about | row for row in by_group(read_responses(cfg), getattr(cfg, "length_limit", None)))


def of_base(cfg, base, role):
    """The rows of a base before any step."""
    about = {"method": "base", "base": base, "role": role, "phase": "held out", "step": 0}
    yield from (about | row for row in by_group(read_responses(cfg, "before"), getattr(cfg, "length_limit", None)))


def of_failure(cfg, cell: Cell, role) -> dict:
    """A run that ended without a result stays in the file, without numbers."""
    return head(cfg, cell) | {"role": role, "phase": "failed", "step": cfg.steps, "group": "all"}


def read_responses(cfg, when="after") -> list[GradedResponse]:
    return [GradedResponse(**row) for row in jsonl.lines(responses_file(cfg, when), FIELDS)]


def mean_reward(cfg) -> float:
    """The mean of a run's rewards at its end, each between its least and largest possible value; not their weights'."""
    responses = read_responses(cfg)
    reward_PGK = rewards.several(Batch.of(responses, cfg.samples, range(len(responses) // cfg.samples)), cfg, {})
    low_high = [RANGES.get(name, (0, 1)) for name in rewards.names(cfg)]
    return fmean((reward_PGK[..., k].mean().item() - low) / (high - low) for k, (low, high) in enumerate(low_high))


def by_group(responses: list[GradedResponse], limit=None):
    """A row of numbers per group of problems. limit: the tokens of the length rewards, where there are any."""
    groups = {"all": responses}
    sources = sorted({r.source for r in responses})
    if EASY in sources and len(sources) > 1:
        groups["easy"] = [r for r in responses if r.source == EASY]
        groups["hard"] = [r for r in responses if r.source != EASY]
    for source in sources if len(sources) > 1 else ():
        groups[source] = [r for r in responses if r.source == source]
    for group, own in groups.items():
        numbers = {k: v for k, v in summarise(own, breakdown=False).summary().items() if k in COLUMNS}
        if limit:
            within = fmean(r.correct and r.length <= limit for r in own)
            numbers |= {"exceed": exceed(own, limit), "reward_length": within}
        # the habit world's model begins with the same words, which decide nothing there
        yield numbers | {"group": group, "short": short_share(own) if EASY in sources else None}


def short_share(responses) -> float:
    """Share of the responses that begin the short way."""
    return fmean(thinking.is_short(r.response) for r in responses)


def by_problem(cfg, cell: Cell | None, base=0) -> dict:
    """One row of the other file: per problem its level, how many of its responses are right, and their mean tokens."""
    about = head(cfg, cell) if cell else {"method": "base", "base": base}
    problems = {}
    for r in read_responses(cfg, "after" if cell else "before"):
        problems.setdefault((r.source, r.index), []).append(r)
    ordered = [problems[key] for key in sorted(problems, key=lambda key: key[1])]
    return about | {
        "level": " ".join(own[0].source.rpartition("-")[2] for own in ordered),
        "right": " ".join(f"{fmean(r.correct for r in own):g}" for own in ordered),
        "tokens": " ".join(f"{fmean(r.length for r in own):g}" for own in ordered),
    }


def write(path: Path, columns, rows) -> None:
    """A CSV file, the whole of it or none."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    jsonl.write_text(path, out.getvalue())
