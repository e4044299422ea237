"""metrics.py - numbers over graded responses: accuracy, length, pass@k, votes, AES; and where a run's time went.

Accuracy is pass@1: the mean over all responses; its standard error treats a problem's responses as one cluster. A
length counts generated tokens, the end token included (the official script leaves it out: ours are one token longer).

P problems | n responses per problem
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from minidrpo.records import GradedResponse

BUDGETS = (0.25, 0.5, 1.0)  # shares of the limit at which accuracy is also counted


@dataclass(frozen=True)
class EvalResult:
    """Numbers over responses: rates in [0, 1], lengths in generated tokens; nan where there is nothing to average."""

    accuracy: float
    accuracy_se: float
    """Standard error of the accuracy, clustered by problem; nan for one problem."""
    accuracy_at_budget: dict
    """Share of the limit (BUDGETS) -> responses that are right and no longer than it; empty without a limit."""
    pass_at_k: dict
    """k -> the chance that one of k responses is right, for k up to 16, powers of two above, and n."""
    majority: float
    """Share of problems whose most frequent answer is right."""
    mean_length: float
    mean_length_se: float
    median_length: float
    mean_length_correct: float
    mean_length_wrong: float
    median_length_correct: float
    median_length_wrong: float
    truncated: float
    unanswered: float
    """Share that ended by itself and yet gives no answer (no box, or an empty one); `reasons` says why."""
    n_problems: int
    n_samples: int
    reasons: Counter
    features: dict = field(default_factory=dict)
    """Name -> share of responses whose text has it: what a task wants to be told (tasks/data.py: features)."""
    scores: dict = field(default_factory=dict)
    """Name -> mean of what the task's own grader measured (Grade.scores)."""
    by_source: dict = field(default_factory=dict)
    """source -> EvalResult, where the problems come from more than one."""
    seconds: float = math.nan
    responses: list = field(default_factory=list, repr=False)

    def summary(self) -> dict:
        """Everything but the single responses and the seconds, as JSON can hold it; each feature under its name."""
        return as_json(self)


def summarise(
    responses: list[GradedResponse],
    *,
    limit: int | None = None,
    features: dict[str, Callable[[str], bool]] | None = None,
    seconds: float = math.nan,
    breakdown: bool = True,
) -> EvalResult:
    """The numbers of a set of responses, the same count for every problem. limit: the most tokens a response could
    have. features: name -> whether a response's text has it. seconds: how long they took; breakdown: also by source."""
    assert responses, "nothing to summarise"
    problems = {}
    for r in responses:
        problems.setdefault((r.source, r.index), []).append(r)
    n = len(responses) // len(problems)
    assert all(len(group) == n for group in problems.values()), sorted(Counter(map(len, problems.values())))
    correct_Pn = np.array([[r.correct for r in group] for group in problems.values()], dtype=float)
    length_Pn = np.array([[r.length for r in group] for group in problems.values()], dtype=float)
    right = correct_Pn > 0
    ks = sorted({*range(1, min(n, 16) + 1), *(2**i for i in range(n.bit_length())), n})
    by_source = {r.source: [] for r in responses}
    for r in responses:
        by_source[r.source].append(r)
    sources = sorted(by_source) if breakdown and len(by_source) > 1 else []
    asked = {"limit": limit, "features": features}
    measured = dict.fromkeys(name for r in responses for name in r.scores)
    return EvalResult(
        accuracy=correct_Pn.mean().item(),
        accuracy_se=clustered_se(correct_Pn),
        accuracy_at_budget={b: float((right & (length_Pn <= b * limit)).mean()) for b in BUDGETS} if limit else {},
        pass_at_k={k: pass_at_k(correct_Pn.sum(1).astype(int), n, k) for k in ks},
        majority=float(np.mean([majority_is_right(group) for group in problems.values()])),
        mean_length=length_Pn.mean().item(),
        mean_length_se=clustered_se(length_Pn),
        median_length=float(np.median(length_Pn)),
        mean_length_correct=length_Pn[right].mean().item() if right.any() else math.nan,
        mean_length_wrong=length_Pn[~right].mean().item() if not right.all() else math.nan,
        median_length_correct=float(np.median(length_Pn[right])) if right.any() else math.nan,
        median_length_wrong=float(np.median(length_Pn[~right])) if not right.all() else math.nan,
        truncated=float(np.mean([not r.finished for r in responses])),
        unanswered=float(np.mean([r.finished and r.answer is None for r in responses])),
        n_problems=len(problems),
        n_samples=n,
        reasons=Counter(r.reason for r in responses),
        features={name: float(np.mean([has(r.response) for r in responses])) for name, has in (features or {}).items()},
        scores={name: float(np.mean([r.scores[name] for r in responses if name in r.scores])) for name in measured},
        by_source={source: summarise(by_source[source], breakdown=False, **asked) for source in sources},
        seconds=seconds,
        responses=responses,
    )


def clustered_se(value_Pn) -> float:
    r"""Standard error of the mean over all responses when a problem's n responses move together:
    $\sqrt{\sum_p (\bar v_p - \bar v)^2 / (P (P - 1))}$, the spread of the problem means; nan for P = 1."""
    mean_P = value_Pn.mean(1)
    return float(mean_P.std(ddof=1) / math.sqrt(len(mean_P))) if len(mean_P) > 1 else math.nan


def pass_at_k(n_correct_P, n: int, k: int) -> float:
    r"""Mean over problems of $1 - \binom{n-c}{k} / \binom{n}{k}$: the chance that k of the n responses, drawn without
    replacement, hold a right one (Chen et al. 2107.03374, Eq. 1)."""
    assert 1 <= k <= n, f"{k=} {n=}"
    return float(np.mean([1 - math.comb(n - c, k) / math.comb(n, k) for c in map(int, n_correct_P)]))


def majority_is_right(group: list[GradedResponse]) -> bool:
    """Is the most frequent answer of one problem right? Right ones are one answer, however they are written; wrong ones
    are compared as text. Among equally frequent answers the first sampled decides."""
    votes = Counter((r.correct, None if r.correct else r.answer) for r in group if r.answer is not None)
    return bool(votes) and votes.most_common(1)[0][0][0]


AES = {"a": 1.0, "b": 3.0, "c": 10.0}


def aes(accuracy, length, accuracy_ref, length_ref, *, a=AES["a"], b=AES["b"], c=AES["c"]) -> float:
    r"""Accuracy-efficiency score: $a \Delta L + b \Delta A$ if accuracy rose, else $a \Delta L - c |\Delta A|$, with
    $\Delta L = (L_{ref} - L) / L_{ref}$ and $\Delta A = (A - A_{ref}) / A_{ref}$. DRPO's table has a = 1, c = 10 and
    refers to each method's own run without a length penalty; b = 3 is O1-Pruner's (no published value tests it)."""
    shorter, better = (length_ref - length) / length_ref, (accuracy - accuracy_ref) / accuracy_ref
    return a * shorter + (b if better >= 0 else c) * better


def aes_of(new: dict, old: dict) -> float | None:
    """AES of `new` against `old`, each with accuracy and mean_length; None where one of them is not known."""
    keys = ("accuracy", "mean_length")
    known = all(is_number(r.get(key)) for r in (new, old) for key in keys) and old["accuracy"] and old["mean_length"]
    return aes(*(r[key] for r in (new, old) for key in keys)) if known else None


def exceed(responses: list[GradedResponse], limit: int) -> float:
    """GDPO's Exceed: the share of responses longer than `limit` tokens."""
    return float(np.mean([r.length > limit for r in responses]))


PAPER_SETS = (("gsm8k",), ("math",), ("olympiad_bench",), ("aime", "aime25"))


def paper_average(value_by_set: dict) -> float:
    """DRPO's average over four sets, where AIME is the mean of AIME24 and AIME25; nan if one of the five is missing."""
    return float(np.mean([np.mean([value_by_set.get(name, math.nan) for name in pool]) for pool in PAPER_SETS]))


def is_number(value) -> bool:
    """Is `value` a finite number? Files of runs hold null where there was nothing to average, or no such key."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def as_json(value):
    """`value` as JSON can hold it: dataclasses become objects (without single responses and seconds, so that
    equal responses give equal files), their `features` and `scores` numbers among the others, nan becomes null."""
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value) if f.name not in ("responses", "seconds")]
        record = {name: as_json(getattr(value, name)) for name in names}
        features = record.pop("features", {}) | record.pop("scores", {})
        assert not features.keys() & record.keys(), f"a feature has the name of a number: {sorted(features)}"
        return record | features
    if isinstance(value, dict):
        items = sorted(value.items()) if isinstance(value, Counter) else value.items()
        return {str(k): as_json(v) for k, v in items}
    if isinstance(value, (list, tuple)):
        return [as_json(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ----------------------------------------------------------------------------------------------- where the time goes

STAGES = ("sample", "grade", "weigh", "update", "sync")


def step_times(steps: list[dict], evaluations: list[dict] = ()) -> dict:
    """Where a run's time went, from the records of metrics.jsonl and evals.jsonl: {"seconds": {stage: its total},
    "steps", "generated": tokens per second of sampling, "trained": of updating}; a rate is nan where it cannot be told.
    Saving, logging and the start are not in it."""
    seconds = {stage: sum(r.get(f"seconds_{stage}", 0.0) for r in steps) for stage in STAGES}
    seconds["evaluate"] = sum(e.get("seconds", 0.0) for e in evaluations)

    def rate(tokens, stage):
        return sum(r.get(tokens, math.nan) for r in steps) / seconds[stage] if seconds[stage] else math.nan

    rates = {"generated": rate("response_tokens", "sample"), "trained": rate("trained_tokens", "update")}
    return {"seconds": seconds, "steps": len(steps)} | rates


def time_line(times: dict) -> str:
    """step_times in a line: "sample 61 %, update 35 %, ...; 2,500 tokens/s generated, 9,000 trained"; stages under
    half a percent are left out."""
    total = sum(times["seconds"].values()) or math.nan
    shares = {stage: s / total for stage, s in times["seconds"].items()}
    parts = [f"{stage} {share:.0%}" for stage, share in sorted(shares.items(), key=lambda x: -x[1]) if share >= 0.005]
    rates = [f"{times[key]:,.0f} {key}" for key in ("generated", "trained") if not math.isnan(times[key])]
    return ", ".join(parts) + ("; tokens/s: " + ", ".join(rates) if rates else "")
