"""metrics.py - numbers over graded answers: accuracy, length, pass@k, votes, AES, and a table of them. No models.

Accuracy is pass@1: the mean over all answers; its standard error treats a problem's answers as one cluster. A length
counts generated tokens, the end token included (the official script leaves it out, so ours are one token longer). An
answer cut off at the limit is wrong.

P problems | n answers a problem
"""

import dataclasses
import math
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

REFLECTION = {  # what a model says when it goes back over its own work; read alike by Python and by the browser
    "wait": "wait", "alternatively": "alternatively", "hmm": "hm+", "check": "(?:re)?check(?:s|ed|ing)?",
    "verify": "verif(?:y|ies|ied|ying)", "actually": "actually", "hold on": "hold on", "reconsider": "reconsider",
}  # fmt: skip
PATTERN = re.compile(rf"\b(?:{'|'.join(f'({p})' for p in REFLECTION.values())})\b", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Answer:
    """One sampled answer and its grade. (source, index) is the problem's, `sample` counts its answers from 0."""

    source: str
    index: int
    sample: int
    correct: bool
    reason: str
    answer: str | None
    length: int
    finished: bool
    text: str


@dataclass(frozen=True)
class EvalResult:
    """Numbers over answers: rates in [0, 1], lengths in generated tokens; nan where there is nothing to average."""

    accuracy: float
    accuracy_se: float
    """Standard error of the accuracy, clustered by problem; nan for one problem."""
    pass_at_k: dict
    """k -> the chance that one of k answers is right, for k up to 16, powers of two above, and n."""
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
    by_source: dict = field(default_factory=dict)
    """source -> EvalResult, where the problems come from more than one."""
    seconds: float = math.nan
    answers: list = field(default_factory=list, repr=False)

    def summary(self) -> dict:
        """Everything but the single answers and the seconds, as JSON can hold it."""
        return as_json(self)


def summarise(answers: list[Answer], *, seconds: float = math.nan, breakdown: bool = True) -> EvalResult:
    """The numbers of a set of answers, the same count for every problem."""
    assert answers, "nothing to summarise"
    problems = {}
    for a in answers:
        problems.setdefault((a.source, a.index), []).append(a)
    n = len(answers) // len(problems)
    assert all(len(group) == n for group in problems.values()), sorted(Counter(map(len, problems.values())))
    correct_Pn = np.array([[a.correct for a in group] for group in problems.values()], dtype=float)
    length_Pn = np.array([[a.length for a in group] for group in problems.values()], dtype=float)
    right = correct_Pn > 0
    ks = sorted({*range(1, min(n, 16) + 1), *(2**i for i in range(n.bit_length())), n})
    sources = list(dict.fromkeys(a.source for a in answers)) if breakdown else []
    return EvalResult(
        accuracy=correct_Pn.mean().item(),
        accuracy_se=clustered_se(correct_Pn),
        pass_at_k={k: pass_at_k(correct_Pn.sum(1).astype(int), n, k) for k in ks},
        majority=float(np.mean([majority_is_right(group) for group in problems.values()])),
        mean_length=length_Pn.mean().item(),
        mean_length_se=clustered_se(length_Pn),
        median_length=float(np.median(length_Pn)),
        mean_length_correct=length_Pn[right].mean().item() if right.any() else math.nan,
        mean_length_wrong=length_Pn[~right].mean().item() if not right.all() else math.nan,
        median_length_correct=float(np.median(length_Pn[right])) if right.any() else math.nan,
        median_length_wrong=float(np.median(length_Pn[~right])) if not right.all() else math.nan,
        truncated=float(np.mean([not a.finished for a in answers])),
        unanswered=float(np.mean([a.finished and a.answer is None for a in answers])),
        n_problems=len(problems),
        n_samples=n,
        reasons=Counter(a.reason for a in answers),
        by_source=group_by(answers, lambda a: a.source) if len(sources) > 1 else {},
        seconds=seconds,
        answers=answers,
    )


def group_by(answers, key) -> dict:
    """key(answer) -> EvalResult of the answers that share it, in sorted order."""
    groups = {}
    for a in answers:
        groups.setdefault(key(a), []).append(a)
    return {name: summarise(groups[name], breakdown=False) for name in sorted(groups)}


def clustered_se(value_Pn) -> float:
    r"""Standard error of the mean over all answers when a problem's n answers move together:
    $\sqrt{\sum_p (\bar v_p - \bar v)^2 / (P (P - 1))}$, the spread of the problem means; nan for P = 1."""
    mean_P = value_Pn.mean(1)
    return float(mean_P.std(ddof=1) / math.sqrt(len(mean_P))) if len(mean_P) > 1 else math.nan


def pass_at_k(n_correct_P, n: int, k: int) -> float:
    r"""Mean over problems of $1 - \binom{n-c}{k} / \binom{n}{k}$: the chance that k of the n answers, drawn without
    replacement, hold a right one (Chen et al. 2107.03374, Eq. 1)."""
    assert 1 <= k <= n, f"{k=} {n=}"
    return float(np.mean([1 - math.comb(n - c, k) / math.comb(n, k) for c in map(int, n_correct_P)]))


def majority_is_right(group: list[Answer]) -> bool:
    """Is the most frequent answer of one problem right? Among equally frequent ones the first sampled decides."""
    votes = Counter(a.answer for a in group if a.answer is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]
    return next(a.correct for a in group if a.answer == winner)


AES = {"a": 1.0, "b": 3.0, "c": 10.0}


def aes(accuracy, length, accuracy_ref, length_ref, *, a=AES["a"], b=AES["b"], c=AES["c"]) -> float:
    r"""Accuracy-efficiency score: $a \Delta L + b \Delta A$ if accuracy rose, else $a \Delta L - c |\Delta A|$, with
    $\Delta L = (L_{ref} - L) / L_{ref}$ and $\Delta A = (A - A_{ref}) / A_{ref}$. DRPO's table has a = 1, c = 10 and
    refers to each method's own run without a length penalty; b = 3 is O1-Pruner's (no published value tests it)."""
    shorter, better = (length_ref - length) / length_ref, (accuracy - accuracy_ref) / accuracy_ref
    return a * shorter + (b if better >= 0 else c) * better


def exceed(answers, limit: int) -> float:
    """GDPO's Exceed: the share of answers longer than `limit` tokens."""
    return float(np.mean([a.length > limit for a in answers]))


PAPER_SETS = (("gsm8k",), ("math",), ("olympiad_bench",), ("aime", "aime25"))


def paper_average(value_by_set: dict) -> float:
    """DRPO's average over four sets, where AIME is the mean of AIME24 and AIME25; nan if one of the five is missing."""
    return float(np.mean([np.mean([value_by_set.get(name, math.nan) for name in pool]) for pool in PAPER_SETS]))


# ---------------------------------------------------------------------------------------------------- tables, files


def result_table(results: dict, title: str = "", averages: dict | None = None, scores: dict | None = None):
    """A rich table, a row for each name -> EvalResult; parts of a set come indented below it. averages: kind of average
    -> its accuracy and mean_length over the sets. scores: results.compare's AES against a reference, by row."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    n = max(r.n_samples for r in results.values())
    reasons = sum((r.reasons for r in results.values()), Counter())
    shares = ", ".join(f"{name} {100 * count / reasons.total():.1f} %" for name, count in reasons.most_common())
    caption = (
        "tokens, right, wrong: mean length (median) of all, right and wrong answers, end token included\n"
        f"none: ended by itself without giving an answer; reasons: {shares}"
    )
    if scores:
        caption += "\nAES against {reference}: a = {a:g}, b = {b:g}, c = {c:g}".format(
            reference=escape(str(scores["reference"])), **scores["constants"]
        )
    table = Table(
        "data set",
        "problems",
        "pass@1 %",
        f"pass@{n}",
        "vote",
        "tokens",
        "right",
        "wrong",
        "cut %",
        "none %",
        *(["AES"] if scores else []),
        title=escape(title) or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        caption_justify="left",
        caption=caption,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name, r in results.items():
        table.add_row(*_row(escape(name), r), *_score(scores, name))
        for part, sub in r.by_source.items():
            table.add_row(*_row(f"  {escape(part.split('/', 1)[-1])}", sub), style="dim")
    for kind, mean in (averages or {}).items():
        if len(results) > 1 and not math.isnan(mean["accuracy"]):
            accuracy, tokens = f"{100 * mean['accuracy']:.1f}", f"{mean['mean_length']:,.0f}"
            row = f"average ({kind})"
            table.add_row(row, "", accuracy, "", "", tokens, *[""] * 4, *_score(scores, row), style="bold")
    return table


def _score(scores, row):
    return [f"{scores[row]:+.3f}" if row in scores else ""] if scores else []


def _row(name, r):
    def pm(mean, se, digits):
        return f"{mean:,.{digits}f}" + ("" if math.isnan(se) else f" ± {se:.{digits}f}")

    def length(mean, median):
        return "-" if math.isnan(mean) else f"{mean:,.0f} ({median:,.0f})"

    return (
        name,
        str(r.n_problems),
        pm(100 * r.accuracy, 100 * r.accuracy_se, 1),
        f"{100 * r.pass_at_k[r.n_samples]:.1f}",
        f"{100 * r.majority:.1f}",
        f"{pm(r.mean_length, r.mean_length_se, 0)} ({r.median_length:,.0f})",
        length(r.mean_length_correct, r.median_length_correct),
        length(r.mean_length_wrong, r.median_length_wrong),
        f"{100 * r.truncated:.1f}",
        f"{100 * r.unanswered:.1f}",
    )


def as_json(value):
    """`value` as JSON can hold it: dataclasses become objects (without single answers and seconds, so that equal
    answers give equal files), nan becomes null."""
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value) if f.name not in ("answers", "seconds")]
        return {name: as_json(getattr(value, name)) for name in names}
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
    "steps", "generated": tokens a second of sampling, "trained": of updating}; a rate is nan where it cannot be told.
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


def time_table(times: dict):
    """step_times as a rich table: seconds, share and seconds a step of each stage, and tokens a second."""
    from rich import box
    from rich.table import Table

    total = sum(times["seconds"].values()) or math.nan
    table = Table(
        "stage",
        "seconds",
        "share",
        "a step",
        "tokens/s",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        title=f"Where the time of {times['steps']} steps went",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for column in table.columns[1:]:
        column.justify = "right"
    rates = {"sample": times["generated"], "update": times["trained"]}
    for stage, s in times["seconds"].items():
        a_step = "" if stage == "evaluate" else f"{s / max(1, times['steps']):.2f}"
        rate = f"{rates[stage]:,.0f}" if not math.isnan(rates.get(stage, math.nan)) else ""
        table.add_row(stage, f"{s:,.1f}", f"{100 * s / total:.1f} %", a_step, rate)
    table.add_row("together", f"{total:,.1f}", style="bold")
    return table


# ------------------------------------------------------------------------------------------------------ reading texts


def reflection_words(text) -> Counter:
    """How often each kind of reflection word occurs."""
    names = tuple(REFLECTION)
    return Counter(names[m.lastindex - 1] for m in PATTERN.finditer(text))
