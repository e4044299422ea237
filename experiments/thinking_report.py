"""thinking_report.py - thinking.md: the statements and tables of thinking_tables.py as one page."""

import pandas as pd

from experiments import thinking_tables
from experiments.thinking_tables import (
    GROUPS,
    NAMES,
    SURVIVES,
    Results,
    ablation,
    common_lengths,
    difference,
    estimate,
    statements,
    survival,
)
from minidrpo.rundir.metrics import AES
from minidrpo.tasks.thinking import EASY_SHARE

DIFFERENCES = [  # (method, the other, share of easy prompts, bases)
    ("drpo", "grpo-lp-no-std", EASY_SHARE, (0, 1, 2)),
    ("grpo-lp-mixed-only", "base", EASY_SHARE, (0, 1, 2)),
    ("rloo-lp", "drpo", 0.5, (0,)),
    ("rloo-lp", "drpo", EASY_SHARE, (0,)),
    ("ddca", "drpo", EASY_SHARE, (0,)),
    ("grpo-lp-no-std", "drpo", 0.95, (0,)),
]


def markdown(results: Results, cells: pd.DataFrame, predicted: pd.DataFrame) -> str:
    """The page. cells: thinking_tables.table(results). predicted: map_predicted.csv."""
    lines = [
        "# The study of the thinking world",
        "",
        (thinking_tables.__doc__ or "").split("\n\n")[1].replace("\n", " "),
        "",
    ]
    lines += ["## What it decides", ""]
    lines += [
        f"- {'holds' if ok else '**does not hold**'}: {words}"
        for words, ok in statements(results, cells, predicted).items()
    ]
    for share in sorted(set(cells.share)):
        decided = ablation(results, share)
        if share >= EASY_SHARE and len(decided) > 1:
            bases = sorted(set(results.runs.base))
            head = ("method", "runs", "hard prompts, %", *(f"base {b}" for b in bases), "apart from GRPO-LP")
            lines += ["", f"## Is it the std? Share of easy prompts {share:g}", "", *_rows(head)]
            for row in decided.itertuples():
                by_base = [f"{100 * row.by_base[b]:.1f}" if b in row.by_base else "" for b in bases]
                apart = "" if row.method == "grpo-lp" else "yes" if row.apart else "no"
                lines += _rows((NAMES[row.method], row.runs, row.hard.text(), *by_base, apart), head=False)
    lines += _differences(results)
    lines += _learning_rates(results)
    ranges = survival(cells)
    if len(ranges):
        lines += ["", f"## Strengths that a method survives (hard prompts above {100 * SURVIVES:.0f} %)", ""]
        lines += ["Weaker strengths were not tried. Towards 0 a penalty without std becomes none (DRPO: λ = inf).", ""]
        lines += _rows(("method", "tested", "survived"))
        for row in ranges.itertuples():
            texts = (", ".join(f"{s:g}" for s in own) for own in (row.tested, row.survived))
            lines += _rows((NAMES[row.method], *texts), head=False)
    shared = common_lengths(results, cells)
    if len(shared):
        lines += ["", "## At the same length on hard prompts as DRPO", ""]
        lines += [
            "Read off the straight line between two neighbouring strengths; share of easy prompts 0.8, base 0. The"
        ]
        lines += [
            "intervals leave out the error of length, and this many differences will hold one that is chance.",
            "",
        ]
        lines += _rows(("method", "tokens, hard", "hard prompts, %", "DRPO", "difference, points"))
        for row in shared.itertuples():
            texts = (row.other.text(), row.drpo.text(), row.difference.text())
            lines += _rows((NAMES[row.method], row.tokens, *texts), head=False)
    for share in sorted(set(cells.share)):
        lines += ["", f"## All cells, share of easy prompts {share:g}, base 0", "", *_all_cells(results, cells, share)]
    constants = ", ".join(f"{key} = {value:g}" for key, value in AES.items())
    lines += [
        "",
        f"AES ({constants}): against DisCO at the same share | against the method's own run without its length term",
    ]
    lines[-1] += " (the paper's convention; only where the study holds such runs). Short: share of responses that begin"
    lines[-1] += " the short way. Brackets: 95 % intervals."
    return "\n".join(lines) + "\n"


def _differences(results):
    """Those that docs/thinking.md speaks of: of which the intervals of both methods say little."""
    found = []
    for method, other, share, bases in DIFFERENCES:
        bases = [base for base in bases if base in set(results.runs.base)]
        gap = difference(results, method, other, share, bases)
        if gap:
            found.append((NAMES[method], NAMES.get(other, "before training"), f"{share:g}", len(bases), gap.text()))
    if found:
        yield from ("", "## Differences on hard prompts", "")
        yield from _rows(("method", "minus", "share of easy prompts", "bases", "points"))
        for row in found:
            yield from _rows(row, head=False)


def _learning_rates(results):
    """Every rate of the grid on validation problems; the one that the study has used in bold."""
    used = results.rows.dropna(subset="lr").groupby("method").lr.first()
    rates = sorted(set(results.tuning.lr))
    if not rates:
        return
    yield from ("", "## Learning rates, on validation problems", "")
    yield from ("One run each; all levels together: accuracy, % (tokens). In bold: used in all other tables.", "")
    yield from _rows(("method", *(f"{lr:g}" for lr in rates)))
    for method in NAMES:
        own = results.tuning[results.tuning.method == method].set_index("lr")
        if len(own):
            ends = {lr: (own.accuracy.get(lr), own.mean_length.get(lr)) for lr in rates}
            texts = {
                lr: "failed" if pd.isna(right) else f"{100 * right:.1f} ({tokens:.0f})"
                for lr, (right, tokens) in ends.items()
            }
            marked = (f"**{text}**" if lr == used.get(method) else text for lr, text in texts.items())
            yield from _rows((NAMES[method], *marked), head=False)


def _all_cells(results, cells, share):
    head = (
        "method",
        "strength",
        "runs",
        "all, %",
        "easy, %",
        "hard, %",
        "tokens",
        "short, easy / hard, %",
        "AES",
        "AES, own",
    )
    yield from _rows(head)
    base = results.of("base")
    if len(base):
        numbers = [estimate(base, "right", group).text() for group in GROUPS]
        short = results.rows[(results.rows.method == "base") & (results.rows.base == 0)].set_index("group").short
        ways = f"{100 * short['easy']:.0f} / {100 * short['hard']:.0f}"
        yield from _rows(("base", "", "", *numbers, estimate(base, "tokens", "all").text(1), ways, "", ""), head=False)
    for row in cells[cells.share == share].itertuples():
        runs = f"{row.runs}" + (f" ({row.failed} failed)" if row.failed else "")
        strength = "" if pd.isna(row.strength) else f"{row.strength:g}".replace("e-0", "e-")
        if not row.runs:
            yield from _rows((NAMES[row.method], strength, runs, *[""] * 7), head=False)
            continue
        numbers = [row.right_all.text(), row.right_easy.text(), row.right_hard.text(), row.tokens_all.text(1)]
        scores = ["" if pd.isna(score) else f"{score:+.2f}" for score in (row.aes, row.aes_own)]
        ways = f"{100 * row.short_easy:.0f} / {100 * row.short_hard:.0f}"
        yield from _rows((NAMES[row.method], strength, runs, *numbers, ways, *scores), head=False)


def _rows(texts, head=True):
    lines = ["| " + " | ".join(map(str, texts)) + " |"]
    return [*lines, "| " + " | ".join(["---"] * len(texts)) + " |"] if head else lines
