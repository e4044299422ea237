"""thinking_tables.py - what the study of the thinking world says: intervals, one table, and statements that can fail.

Easy prompts are those of level 1, hard ones those of levels 2 to 5. A number is a mean over the runs of one cell; its
95 % interval is a bootstrap over both sources of chance: in each of 1,000 draws the runs are drawn anew (first the
bases, where there are several, then the runs on each), and so are the problems, the same for all runs, since all runs
answer the same ones. With three runs, or three bases, such an interval is too narrow (it covers less than 95 %): small
gaps between intervals are no evidence.

Collapsed runs are runs like any other here. One that failed, with no result at all, is counted beside them.

R runs of a cell | P held-out problems | D draws
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments import mode_model
from experiments.study_cells import ABLATION, MIDDLE, STRENGTHS
from experiments.study_rows import problems_path
from minidrpo.files import plain_file
from minidrpo.rundir.metrics import aes
from minidrpo.tasks.thinking import EASY_SHARE

DRAWS = 1000
SURVIVES = 0.6  # accuracy on hard prompts: above the base's 55 %; what falls ends at 7 to 58 %, the rest above 64 %
GROUPS = {"all": lambda level: level > 0, "easy": lambda level: level == 1, "hard": lambda level: level > 1}
NAMES = {
    "drpo": "DRPO",
    "disco": "DisCO",
    "grpo": "GRPO",
    "grpo-lp": "GRPO-LP",
    "grpo-lp-no-std": "GRPO-LP, no std",
    "grpo-lp-mixed-only": "GRPO-LP, mixed groups only",
    "grpo-lp-batch-std": "GRPO-LP, batch std",
    "rloo-lp": "RLOO-LP",
    "alp": "ALP",
    "hapo": "HAPO",
    "ddca": "DDCA",
    "gr3": "GR3",
    "lead": "LEAD",
    "drpo-solved": "DRPO, solved groups too",
}
COMMON = ("disco", None)  # the reference of every method, at the same share
OWN = {  # method -> (method, strength): the paper's convention, each method without its length term
    **dict.fromkeys(("drpo", "drpo-solved"), ("disco", None)),
    **dict.fromkeys(("grpo-lp", "grpo-lp-mixed-only", "alp", "hapo", "gr3", "lead"), ("grpo", None)),
    **dict.fromkeys(("rloo-lp", "ddca", "grpo-lp-no-std"), ("rloo-lp", 0.0)),
}
CELL = ["method", "strength", "share"]

# ------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Results:
    rows: pd.DataFrame
    """Held-out rows of finished runs and of the bases, and rows of failed runs."""
    runs: pd.DataFrame
    """One row per run; level, right and tokens hold arrays over problems. right: share of a problem's responses."""
    tuning: pd.DataFrame
    """Rows of the runs that the learning rates were chosen by, on validation problems."""

    def of(self, method, strength=None, share=EASY_SHARE, bases=(0,)) -> pd.DataFrame:
        """The runs of one cell. strength None: the one of the map."""
        if strength is None:
            strength = MIDDLE.get(method)
        own = self.runs[(self.runs.method == method) & self.runs.base.isin(bases)]
        own = own[own.share.isna() if method == "base" else own.share == share]
        return own[own.strength.isna() if strength is None else np.isclose(own.strength, strength, atol=0)]


def read(path: str | Path) -> Results:
    """Both files of the study. ValueError if they cannot be read or hold no finished run."""
    try:
        rows = pd.read_csv(plain_file(path))
        runs = pd.read_csv(plain_file(problems_path(path)), dtype=dict.fromkeys(("level", "right", "tokens"), str))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if runs[runs.method != "base"].empty:
        raise ValueError(f"{path}: holds no finished run of the study")
    for key in ("level", "right", "tokens"):
        runs[key] = [np.array(text.split(), dtype=float) for text in runs[key]]
    rows = rows[rows.phase.isin(["held out", "failed"])]
    tuning = rows[(rows.role == "lr") & (rows.method != "base")]
    return Results(rows[rows.role == "study"], runs, tuning)


# ----------------------------------------------------------------------------------------------------------- intervals


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, mean: float, draws: np.ndarray):
        return cls(mean, *np.percentile(draws, [2.5, 97.5]))

    def apart_from(self, other) -> bool:
        """Whether the two intervals have no number in common."""
        return self.low > other.high or other.low > self.high

    def text(self, factor=100.0) -> str:
        return f"{factor * self.mean:.1f} [{factor * self.low:.1f}, {factor * self.high:.1f}]"


@functools.cache  # most cells have as many runs, and the same problems
def problem_weights(P: int, draws: int, seed: int) -> np.ndarray:
    """(D, P): how much each problem counts in each draw."""
    return np.random.default_rng([seed, 0]).multinomial(P, np.full(P, 1 / P), size=draws) / P


@functools.cache
def run_weights(bases: tuple, draws: int, seed: int) -> np.ndarray:
    """(D, R): how much each run counts in each draw. Bases are drawn with replacement, then runs on each drawn base.
    bases: the base of each run."""
    rng, base_R = np.random.default_rng([seed, 1]), np.array(bases)
    bases = sorted(set(bases))
    weight_DR = np.zeros((draws, len(base_R)))
    for _ in bases:  # as many slots as bases, each with its own draws
        slot_D = rng.integers(len(bases), size=draws)
        for i, base in enumerate(bases):
            mine_R, drawn_D = np.flatnonzero(base_R == base), np.flatnonzero(slot_D == i)
            n = len(mine_R)
            times = rng.multinomial(n, np.full(n, 1 / n), size=len(drawn_D))
            weight_DR[np.ix_(drawn_D, mine_R)] += times / (n * len(bases))
    return weight_DR


def bootstrap(value_RP, base_R, draws=DRAWS, seed=0) -> np.ndarray:
    """(D,) means, runs and problems drawn anew in each draw, the problems once for all runs. Equal problems and seeds
    give equal draws of problems, so two cells' draws may be subtracted."""
    value_RP = np.asarray(value_RP, dtype=float)
    assert value_RP.ndim == 2 and len(value_RP) == len(base_R), f"{value_RP.shape} vs {len(base_R)} runs"
    weight_DP = problem_weights(value_RP.shape[1], draws, seed)
    weight_DR = run_weights(tuple(base_R), draws, seed)
    return ((weight_DR @ value_RP) * weight_DP).sum(-1)


def estimate(runs: pd.DataFrame, key: str, group: str) -> Estimate:
    """Of `right` or `tokens` on a group of problems."""
    return Estimate.of(*mean_and_draws(runs, key, group))


def mean_and_draws(runs: pd.DataFrame, key: str, group: str) -> tuple[float, np.ndarray]:
    """(mean over the bases, (D,) draws)."""
    value_RP = grouped(runs, key, group)
    by_base = pd.Series(value_RP.mean(1)).groupby(runs.base.to_numpy()).mean()
    return by_base.mean(), bootstrap(value_RP, runs.base)


def difference(results: Results, method: str, other: str, share=EASY_SHARE, bases=(0,)) -> Estimate | None:
    """Accuracy on hard prompts of one method minus that of another, both at their strength in the map; None where one
    has no run."""
    cells = [results.of(name, share=share, bases=bases) for name in (method, other)]
    if any(own.empty for own in cells):
        return None
    (mean, draws), (mean_other, draws_other) = (mean_and_draws(own, "right", "hard") for own in cells)
    return Estimate.of(mean - mean_other, draws - draws_other)


def grouped(runs, key, group) -> np.ndarray:
    """(R, P) values of the problems of a group."""
    chosen_P = GROUPS[group](runs.level.iloc[0])
    return np.stack(list(runs[key]))[:, chosen_P]


# ------------------------------------------------------------------------------------------------------------ the table


def table(results: Results) -> pd.DataFrame:
    """One row per method, strength and share on base 0: estimates, short shares, AES by two conventions."""
    found, main = [], results.runs[(results.runs.base == 0) & (results.runs.method != "base")]
    rows = results.rows[results.rows.base == 0]
    cells = pd.concat([main[CELL], rows[rows.phase == "failed"][CELL]]).drop_duplicates()
    for method, strength, share in cells.itertuples(index=False):
        own = main[_is(main, method, strength, share)]
        mine = rows[_is(rows, method, strength, share)]
        row = {"method": method, "strength": strength, "share": share, "runs": len(own)}
        row["failed"] = int((mine.phase == "failed").sum())
        if len(own):
            for group in GROUPS:
                row[f"right_{group}"] = estimate(own, "right", group)
                row[f"tokens_{group}"] = estimate(own, "tokens", group)
                row[f"short_{group}"] = mine[mine.group == group].short.mean()
            row["aes"] = _aes(row, results, COMMON)
            row["aes_own"] = _aes(row, results, OWN.get(method))
        found.append(row)
    order = {method: i for i, method in enumerate(NAMES)}
    found.sort(key=lambda row: (row["share"], order.get(row["method"], len(order)), _weak_to_strong(row)))
    return pd.DataFrame(found)


def _is(frame, method, strength, share):
    same = frame.strength.isna() if pd.isna(strength) else frame.strength == strength
    return (frame.method == method) & same & (frame.share == share)


def _weak_to_strong(row):
    return 0 if pd.isna(row["strength"]) else row["strength"] * (-1 if row["method"] == "drpo" else 1)


def _aes(row, results, reference):
    """AES against a cell at the same share; nan where the study has no such cell, or the row is that cell."""
    runs = results.of(*reference, share=row["share"]) if reference else ()
    if not len(runs) or (
        row["method"] == reference[0] and (pd.isna(row["strength"]) or row["strength"] == reference[1])
    ):
        return np.nan
    reference = [grouped(runs, key, "all").mean() for key in ("right", "tokens")]
    return aes(row["right_all"].mean, row["tokens_all"].mean, *reference)


# ----------------------------------------------------------------------------------------------------------- statements


def ablation(results: Results, share=EASY_SHARE) -> pd.DataFrame:
    """Accuracy on hard prompts over all bases, by method: estimate, mean on each base, whether the interval is apart
    from that of GRPO-LP."""
    bases, found = sorted(set(results.runs.base)), []
    for method in ABLATION:
        own = results.of(method, share=share, bases=bases)
        if len(own):
            by_base = {base: grouped(runs, "right", "hard").mean() for base, runs in own.groupby("base")}
            found.append(
                {"method": method, "runs": len(own), "hard": estimate(own, "right", "hard"), "by_base": by_base}
            )
    culprit = next((row["hard"] for row in found if row["method"] == "grpo-lp"), None)
    for row in found:
        row["apart"] = culprit is not None and row["hard"].apart_from(culprit)
    return pd.DataFrame(found, columns=["method", "runs", "hard", "by_base", "apart"])


def survival(cells: pd.DataFrame, share=EASY_SHARE) -> pd.DataFrame:
    """Which strengths each method survives: the longest run of neighbouring tested ones whose accuracy on hard prompts
    is above SURVIVES. Strength 0 is no penalty, and left out."""
    found = []
    for method in STRENGTHS:
        own = cells[(cells.method == method) & (cells.share == share) & (cells.strength > 0)].sort_values("strength")
        best, run = [], []
        for row in own.itertuples():
            alive = row.runs > 0 and not row.failed and row.right_hard.mean > SURVIVES
            run = [*run, row.strength] if alive else []
            best = max(best, run, key=len)
        if len(own) > 1:
            found.append({"method": method, "tested": list(own.strength), "survived": best})
    return pd.DataFrame(found, columns=["method", "tested", "survived"])


def at_measured_sharing(predicted: pd.DataFrame) -> pd.DataFrame:
    """The one column of map_predicted.csv that predicts the study: its steps, and the sharing measured in the base."""
    return predicted[(predicted.sharing == mode_model.MEASURED) & (predicted.steps == mode_model.STEPS)]


def compared(cells: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """The map: accuracy on hard prompts, predicted at the measured sharing and measured, per method and share."""
    predicted = at_measured_sharing(predicted)
    middle = {method: np.nan if strength is None else strength for method, strength in MIDDLE.items()}
    at_middle = [
        row.runs > 0 and np.array_equal([row.strength], [middle.get(row.method, np.nan)], equal_nan=True)
        for row in cells.itertuples()
    ]
    both = predicted.merge(cells[at_middle], on=["method", "share"])
    both["predicted"], both["measured"] = both.accuracy_hard, [e.mean for e in both.right_hard]
    return both[["method", "share", "predicted", "measured"]]


def statements(results: Results, cells: pd.DataFrame, predicted: pd.DataFrame) -> dict[str, bool]:
    """What the study was made to decide, each by its numbers: true or false."""
    found, decided = {}, ablation(results).set_index("method")
    for method in ("drpo", "grpo-lp-no-std", "grpo-lp-mixed-only"):
        if {method, "grpo-lp"} <= set(decided.index):
            words = f"{NAMES[method]} is more accurate on hard prompts than GRPO-LP, and the intervals are apart"
            better = decided.hard[method].mean > decided.hard["grpo-lp"].mean
            found[words] = bool(better and decided.apart[method])
    ranges = survival(cells)
    ranges = {row.method: row for row in ranges.itertuples()}
    if "drpo" in ranges:
        found["DRPO keeps its accuracy on hard prompts at every strength tried"] = (
            ranges["drpo"].survived == ranges["drpo"].tested
        )
    if {"drpo", "grpo-lp"} <= ranges.keys():
        found["GRPO-LP keeps it at none"] = not ranges["grpo-lp"].survived
    both = compared(cells, predicted)
    if len(both):
        same = ((both.predicted > 0.5) == (both.measured > 0.5)).sum()
        words = "The mode model is on the right side of 50 % in at least nine of ten cells of the map"
        found[f"{words} ({same} of {len(both)})"] = bool(same >= 0.9 * len(both))
    return found


def at_length(results: Results, cells: pd.DataFrame, method: str, tokens: float, share=EASY_SHARE) -> np.ndarray | None:
    """(D,) draws of the accuracy on hard prompts where the method's line through its strengths has that length on hard
    prompts; None where it does not reach it. The best, where the line passes there more than once."""
    own = cells[(cells.method == method) & (cells.share == share) & (cells.runs > 0)]
    points = [(row.tokens_hard.mean, row.right_hard.mean, row.strength) for row in own.itertuples()]
    found = []
    for (x0, y0, s0), (x1, y1, s1) in zip(points, points[1:], strict=False):
        if min(x0, x1) <= tokens <= max(x0, x1) and x0 != x1:
            part = (tokens - x0) / (x1 - x0)
            found.append((y0 + (y1 - y0) * part, part, s0, s1))
    if not found:
        return None
    _, part, *ends = max(found)
    runs = [results.of(method, strength, share) for strength in ends]
    draws = [bootstrap(grouped(own, "right", "hard"), own.base) for own in runs]
    return (1 - part) * draws[0] + part * draws[1]


def common_lengths(results: Results, cells: pd.DataFrame, share=EASY_SHARE, every=10) -> pd.DataFrame:
    """Each method's line beside DRPO's, at the lengths that both have (multiples of `every` tokens): both accuracies
    on hard prompts and their difference, as estimates."""
    found = []
    lengths = range(every, 260, every)
    lines = {method: [at_length(results, cells, method, n, share) for n in lengths] for method in STRENGTHS}
    for method in STRENGTHS:
        for tokens, theirs, ours in zip(lengths, lines[method], lines["drpo"], strict=True):
            if method != "drpo" and theirs is not None and ours is not None:
                numbers = {"drpo": ours, "other": theirs, "difference": theirs - ours}
                numbers = {key: Estimate.of(draws.mean(), draws) for key, draws in numbers.items()}
                found.append({"method": method, "tokens": tokens} | numbers)
    return pd.DataFrame(found, columns=["method", "tokens", "drpo", "other", "difference"])
