"""tables.py - numbers as tables on the screen: an evaluation's results, a run before and after, where its time went.

python -m minidrpo.show.tables RUN_DIR        where a run's time went, also while it runs
"""

import math
from collections import Counter
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from minidrpo import cli
from minidrpo.rundir import jsonl
from minidrpo.rundir.metrics import BUDGETS, is_number, step_times
from minidrpo.tasks import graders


def shown(text: str) -> str:
    """A name from a file: neither markup nor escapes of the terminal."""
    return escape(cli.visible(text))


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
            reference=shown(str(scores["reference"])), **scores["constants"]
        )
    budgets = {name: r.accuracy_at_budget for name, r in results.items() if r.accuracy_at_budget}
    if budgets:
        caption += f"\nright within {_shares(BUDGETS)} % of the limit of tokens: "
        caption += ", ".join(f"{shown(name)} {_shares(of.values(), 1)} %" for name, of in budgets.items())
    for name, r in results.items():
        if r.scores:
            means = ", ".join(f"{score} {mean:.3f}" for score, mean in r.scores.items())
            caption += f"\n{shown(name)}, means of what its grader measured: {means}"
    features = list(dict.fromkeys(name for r in results.values() for name in r.features))
    columns = ["data set", "problems", "pass@1 %", f"pass@{n}", "vote", "tokens"]
    columns += ["right", "wrong", "trunc\n%", "none %"]
    columns += [f"{name} %".replace("_", "\n") for name in features] + (["AES"] if scores else [])
    table = plain(shown(title) or None, *columns, caption=caption, caption_justify="left")
    for name, r in results.items():
        table.add_row(*_row(shown(name), r, features), *_score(scores, name))
        for part, sub in r.by_source.items():
            table.add_row(*_row(f"  {shown(part.split('/', 1)[-1])}", sub, features), style="dim")
    for kind, mean in (averages or {}).items():
        if len(results) > 1 and not math.isnan(mean["accuracy"]):
            accuracy, tokens = f"{100 * mean['accuracy']:.1f}", f"{mean['mean_length']:,.0f}"
            row = f"average ({kind})"
            empty = [""] * (4 + len(features))
            table.add_row(row, "", accuracy, "", "", tokens, *empty, *_score(scores, row), style="bold")
    return table


def _score(scores, row):
    return [f"{scores[row]:+.3f}" if row in scores else ""] if scores else []


def _shares(values, digits=0):
    return " / ".join(f"{100 * value:.{digits}f}" for value in values)


def _row(name, r, features=()):
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
        *(f"{100 * r.features[name]:.1f}" if name in r.features else "" for name in features),
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
    lines of evals.jsonl; what neither holds (a task's features, a number of a later version) has no row."""
    table = plain(f"Held-out problems before and after {shown(title)}", "", "before", "after", "change")

    def row(name, key, old, new):
        known = [r for r in (old, new) if is_number(r.get(key))]
        if not known:
            return
        scale, unit = (1, "") if key.startswith("mean_length") else (100, " %")
        cells = [f"{scale * r[key]:.1f}{unit}{_se(r, key, scale)}" if r in known else "-" for r in (old, new)]
        table.add_row(name, *cells, _change(old[key], new[key], scale) if len(known) == 2 else "")

    row("accuracy", "accuracy", before, after)
    cut = [r | (r.get("accuracy_at_budget") or {}) for r in (before, after)]
    for share in BUDGETS[:-1]:  # the last is the whole limit: accuracy
        row(f"   right within {100 * share:.0f} % of the limit", str(share), *cut)
    row("mean length (tokens)", "mean_length", before, after)
    row("   of right responses", "mean_length_correct", before, after)
    row("   of wrong responses", "mean_length_wrong", before, after)
    row("truncated at the limit", "truncated", before, after)
    row("short way", "short_way", before, after)
    for name in graders.scores():
        if is_number(before.get(name)) and is_number(after.get(name)):
            change = f"{after[name] - before[name]:+.3f}"
            table.add_row(f"mean {name}", f"{before[name]:.3f}", f"{after[name]:.3f}", change)
    table.add_section()
    for source, old in before["by_source"].items():
        new = after["by_source"].get(source)
        if new and len(before["by_source"]) > 1:
            row(f"{shown(source)}: accuracy", "accuracy", old, new)
            row("   mean length", "mean_length", old, new)
            row("   short way", "short_way", old, new)
    Console().print(table)


def _change(old, new, scale):
    if scale == 1:
        return f"{100 * (new / old - 1):+.0f} %" if old else ""
    return f"{scale * (new - old):+.1f} points"


def _se(record, key, scale):
    error = record.get(f"{key}_se")
    return f" ±{scale * error:.1f}" if error is not None else ""


def main(argv=None):
    (run,) = cli.words(argv, "python -m minidrpo.show.tables RUN_DIR", 1, 1)
    with cli.user_errors():
        print_times(Path(run).expanduser())


if __name__ == "__main__":
    main()
