"""tables.py - numbers as tables on the screen: an evaluation's results, a run before and after, where its time went.

python -m minidrpo.show.tables RUN_DIR        where a run's time went, also while it runs
"""

import math
import sys
from collections import Counter
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from minidrpo import cli
from minidrpo.rundir import jsonl
from minidrpo.rundir.metrics import step_times


def plain(title: str | None, *columns: str, **style) -> Table:
    """A table without frames; all but its first column hold numbers."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, **style)
    for column in columns:
        table.add_column(column, justify="right" if table.columns else "left")
    return table


def result_table(results: dict, title: str = "", averages: dict | None = None, scores: dict | None = None) -> Table:
    """A rich table, one row for each name -> EvalResult; parts of a set come indented below it. averages: its kind
    -> its accuracy and mean_length over the sets. scores: results.compare's AES against a reference, by row."""
    n = max(r.n_samples for r in results.values())
    reasons = sum((r.reasons for r in results.values()), Counter())
    shares = ", ".join(f"{name} {100 * count / reasons.total():.1f} %" for name, count in reasons.most_common())
    caption = (
        "tokens, right, wrong: mean length (median) of all, right and wrong responses, end token included\n"
        f"trunc: truncated at the limit; none: ended by itself without giving an answer\nreasons: {shares}"
    )
    if scores:
        caption += "\nAES against {reference}: a = {a:g}, b = {b:g}, c = {c:g}".format(
            reference=escape(str(scores["reference"])), **scores["constants"]
        )
    columns = ["data set", "problems", "pass@1 %", f"pass@{n}", "vote", "tokens"]
    columns += ["right", "wrong", "trunc\n%", "none %"] + (["AES"] if scores else [])
    table = plain(escape(title) or None, *columns, caption=caption, caption_justify="left")
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


def time_table(times: dict) -> Table:
    """step_times as a rich table: seconds, share and seconds per step of each stage, and tokens per second."""
    total, steps = sum(times["seconds"].values()) or math.nan, times["steps"]
    table = plain(f"Where the time of {steps} steps went", "stage", "seconds", "share", "per step", "tokens/s")
    rates = {"sample": times["generated"], "update": times["trained"]}
    for stage, s in times["seconds"].items():
        per_step = "" if stage == "evaluate" else f"{s / max(1, steps):.2f}"
        rate = f"{rates[stage]:,.0f}" if not math.isnan(rates.get(stage, math.nan)) else ""
        table.add_row(stage, f"{s:,.1f}", f"{100 * s / total:.1f} %", per_step, rate)
    table.add_row("together", f"{total:,.1f}", style="bold")
    return table


def print_times(directory: Path) -> None:
    """Where the time of the run in `directory` went, as a table. ValueError if there is no run."""
    steps = jsonl.read(directory / "metrics.jsonl")
    if not steps:
        raise ValueError(f"{directory} holds no metrics.jsonl of a run")
    evaluations = jsonl.read(directory / "evals.jsonl")
    try:
        times = step_times(steps, evaluations)
    except TypeError as error:
        raise ValueError(f"{directory}: seconds or tokens that are not numbers ({error})") from error
    Console().print(time_table(times))


def print_before_after(before: dict, after: dict, title: str) -> None:
    """One table: accuracy and length on the same held-out problems, and the change, level by level. before, after:
    lines of evals.jsonl."""
    table = plain(f"Held-out problems before and after {escape(title)}", "", "before", "after", "change")

    def row(name, key, old, new):
        if key == "mean_length":
            scale, unit, change = 1, "", f"{100 * (new[key] / old[key] - 1):+.0f} %" if old[key] else ""
        else:
            scale, unit, change = 100, " %", f"{100 * (new[key] - old[key]):+.1f} points"
        table.add_row(name, *(f"{scale * r[key]:.1f}{unit}{_se(r, key, scale)}" for r in (old, new)), change)

    row("accuracy", "accuracy", before, after)
    row("mean length (tokens)", "mean_length", before, after)
    row("truncated at the limit", "truncated", before, after)
    table.add_section()
    for source, old in before["by_source"].items():
        new = after["by_source"].get(source)
        if new and len(before["by_source"]) > 1:
            row(f"{escape(source)}: accuracy", "accuracy", old, new)
            row("   mean length", "mean_length", old, new)
    Console().print(table)


def _se(record, key, scale):
    error = record.get(f"{key}_se")
    return f" ±{scale * error:.1f}" if error is not None else ""


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 1 or argv[0].startswith("-"):
        cli.fail("usage: python -m minidrpo.show.tables RUN_DIR")
    with cli.user_errors():
        print_times(Path(argv[0]).expanduser())


if __name__ == "__main__":
    main()
