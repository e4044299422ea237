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
from minidrpo.markdown import table
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
    shares = sorted(set(cells.share))
    decided = "\n".join(
        f"- {'holds' if ok else '**does not hold**'}: {words}"
        for words, ok in statements(results, cells, predicted).items()
    )
    parts = [
        "# The study of the thinking world",
        (thinking_tables.__doc__ or "").split("\n\n")[1].replace("\n", " "),
        "## What it decides",
        *([decided] if decided else []),
        *(part for share in shares for part in _ablation(results, share)),
        *_differences(results),
        *_learning_rates(results),
        *_survival(cells),
        *_common_lengths(results, cells),
        *(part for share in shares for part in _all_cells(results, cells, share)),
        f"AES ({', '.join(f'{key} = {value:g}' for key, value in AES.items())}): against DisCO at the same share | "
        "against the method's own run without its length term (the paper's convention; only where the study holds "
        "such runs). Short: share of responses that begin the short way. Brackets: 95 % intervals.",
    ]
    return "\n\n".join(parts) + "\n"


# Each yields the paragraphs of its section: none where the study holds no such runs.


def _ablation(results, share):
    decided, bases = ablation(results, share), sorted(set(results.runs.base))
    if share < EASY_SHARE or len(decided) < 2:
        return
    rows = []
    for row in decided.itertuples():
        by_base = [f"{100 * row.by_base[b]:.1f}" if b in row.by_base else "" for b in bases]
        apart = "" if row.method == "grpo-lp" else "yes" if row.apart else "no"
        rows.append((NAMES[row.method], row.runs, row.hard.text(), *by_base, apart))
    yield f"## Is it the std? Share of easy prompts {share:g}"
    yield table(("method", "runs", "hard prompts, %", *(f"base {b}" for b in bases), "apart from GRPO-LP"), rows)


def _differences(results):
    """Those that docs/thinking.md speaks of: of which the intervals of both methods say little."""
    rows = []
    for method, other, share, bases in DIFFERENCES:
        bases = [base for base in bases if base in set(results.runs.base)]
        if gap := difference(results, method, other, share, bases):
            rows.append((NAMES[method], NAMES.get(other, "before training"), f"{share:g}", len(bases), gap.text()))
    if rows:
        yield "## Differences on hard prompts"
        yield table(("method", "minus", "share of easy prompts", "bases", "points"), rows)


def _learning_rates(results):
    """Every rate of the grid on validation problems; the one that the study has used in bold."""
    used = results.rows.dropna(subset="lr").groupby("method").lr.first()
    rates, rows = sorted(set(results.tuning.lr)), []
    for method in NAMES:
        own = results.tuning[results.tuning.method == method].set_index("lr")
        if len(own):
            ends = {lr: (own.accuracy.get(lr), own.mean_length.get(lr)) for lr in rates}
            texts = {
                lr: "failed" if pd.isna(right) else f"{100 * right:.1f} ({tokens:.0f})"
                for lr, (right, tokens) in ends.items()
            }
            marked = (f"**{text}**" if lr == used.get(method) else text for lr, text in texts.items())
            rows.append((NAMES[method], *marked))
    if rows:
        yield "## Learning rates, on validation problems"
        yield "One run each; all levels together: accuracy, % (tokens). In bold: used in all other tables."
        yield table(("method", *(f"{lr:g}" for lr in rates)), rows)


def _survival(cells):
    ranges = survival(cells)
    if len(ranges):
        yield f"## Strengths that a method survives (hard prompts above {100 * SURVIVES:.0f} %)"
        yield "Weaker strengths were not tried. Towards 0 a penalty without std becomes none (DRPO: λ = inf)."
        rows = ((row.method, (row.tested, row.survived)) for row in ranges.itertuples())
        yield table(
            ("method", "tested", "survived"),
            ((NAMES[method], *(", ".join(f"{s:g}" for s in own) for own in both)) for method, both in rows),
        )


def _common_lengths(results, cells):
    shared = common_lengths(results, cells)
    if len(shared):
        yield "## At the same length on hard prompts as DRPO"
        yield (
            "Read off the straight line between two neighbouring strengths; share of easy prompts 0.8, base 0. The\n"
            "intervals leave out the error of length, and this many differences will hold one that is chance."
        )
        yield table(
            ("method", "tokens, hard", "hard prompts, %", "DRPO", "difference, points"),
            (
                (NAMES[row.method], row.tokens, row.other.text(), row.drpo.text(), row.difference.text())
                for row in shared.itertuples()
            ),
        )


def _all_cells(results, cells, share):
    rows, base = [], results.of("base")
    if len(base):
        numbers = [estimate(base, "right", group).text() for group in GROUPS]
        short = results.rows[(results.rows.method == "base") & (results.rows.base == 0)].set_index("group").short
        ways = f"{100 * short['easy']:.0f} / {100 * short['hard']:.0f}"
        rows.append(("base", "", "", *numbers, estimate(base, "tokens", "all").text(1), ways, "", ""))
    for row in cells[cells.share == share].itertuples():
        runs = f"{row.runs}" + (f" ({row.failed} failed)" if row.failed else "")
        strength = "" if pd.isna(row.strength) else f"{row.strength:g}".replace("e-0", "e-")
        if not row.runs:
            rows.append((NAMES[row.method], strength, runs, *[""] * 7))
            continue
        numbers = [row.right_all.text(), row.right_easy.text(), row.right_hard.text(), row.tokens_all.text(1)]
        scores = ["" if pd.isna(score) else f"{score:+.2f}" for score in (row.aes, row.aes_own)]
        ways = f"{100 * row.short_easy:.0f} / {100 * row.short_hard:.0f}"
        rows.append((NAMES[row.method], strength, runs, *numbers, ways, *scores))
    yield f"## All cells, share of easy prompts {share:g}, base 0"
    yield table(
        "method|strength|runs|all, %|easy, %|hard, %|tokens|short, easy / hard, %|AES|AES, own".split("|"), rows
    )
