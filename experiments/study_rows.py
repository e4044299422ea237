"""study_rows.py - from the directory of a finished run to rows of the study's two files.

The tidy file (COLUMNS) has one row per training step, and one per group of held-out problems: all, each level, and in
the thinking world easy (level 1) and hard (levels 2 to 5). The other file (PROBLEM_COLUMNS) has one row per run, with
the results of every held-out problem in the same order, as intervals over problems need them.
"""

from pathlib import Path
from statistics import fmean

from experiments.study_cells import Cell
from minidrpo.methods.table import METHODS
from minidrpo.records import GradedResponse
from minidrpo.rundir import jsonl
from minidrpo.rundir.metrics import summarise
from minidrpo.rundir.results import FIELDS
from minidrpo.tasks import thinking

HEAD = ("method", "hyperparameter", "strength", "share", "base", "lr", "seed")
COLUMNS = (
    *(*HEAD, "role", "phase", "step", "group", "accuracy", "accuracy_se", "mean_length", "mean_length_se"),
    *("mean_length_correct", "short", "truncated", "mixed_groups", "entropy", "kl", "grad_norm"),
    *("reward_length", "seconds"),
)
PROBLEM_COLUMNS = (*HEAD, "level", "right", "tokens")  # a space between problems
EASY = "thinking/level-1"


def responses_file(cfg, when="after") -> Path:
    return Path(cfg.run_dir) / f"responses_{when}.jsonl"


def failure_file(cfg) -> Path:
    """Beside the run: why it has no result."""
    return Path(f"{cfg.run_dir}.failed")


def problems_path(path: str | Path) -> Path:
    """The file with the results by problem, beside the tidy file."""
    return Path(path).with_name(Path(path).stem + "_problems.csv")


def head(cfg, cell: Cell) -> dict:
    name = METHODS[cfg.method].hyperparameter if cell.strength is not None else ""
    return vars(cell) | {"hyperparameter": name, "lr": cfg.lr}


def of_run(cfg, cell: Cell, role):
    """The rows of one finished run: dicts with keys of COLUMNS. seconds: of the step; of the whole training so far."""
    total = 0.0
    for record in jsonl.read(Path(cfg.run_dir) / "metrics.jsonl"):
        seconds = sum(v for k, v in record.items() if k.startswith("seconds_"))
        total += seconds
        if role == "study":
            yield head(cfg, cell) | record | {"role": role, "phase": "train", "group": "all", "seconds": seconds}
    about = head(cfg, cell) | {"role": role, "phase": "held out", "step": cfg.steps, "seconds": total}
    yield from (about | row for row in by_group(read_responses(cfg)))


def of_base(cfg, base, role):
    """The rows of a base before any step."""
    about = {"method": "base", "base": base, "role": role, "phase": "held out", "step": 0}
    yield from (about | row for row in by_group(read_responses(cfg, "before")))


def of_failure(cfg, cell: Cell, role) -> dict:
    """A run that ended without a result stays in the file, without numbers."""
    return head(cfg, cell) | {"role": role, "phase": "failed", "step": cfg.steps, "group": "all"}


def read_responses(cfg, when="after") -> list[GradedResponse]:
    return [GradedResponse(**row) for row in jsonl.lines(responses_file(cfg, when), FIELDS)]


def by_group(responses: list[GradedResponse]):
    """A row of numbers per group of problems."""
    groups = {"all": responses}
    sources = sorted({r.source for r in responses})
    if EASY in sources and len(sources) > 1:
        groups["easy"] = [r for r in responses if r.source == EASY]
        groups["hard"] = [r for r in responses if r.source != EASY]
    for source in sources if len(sources) > 1 else ():
        groups[source] = [r for r in responses if r.source == source]
    for group, own in groups.items():
        numbers = {k: v for k, v in summarise(own, breakdown=False).summary().items() if k in COLUMNS}
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
