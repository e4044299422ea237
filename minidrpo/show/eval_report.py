"""eval_report.py - what an evaluation shows at its end: one table, and report.html."""

import sys
from pathlib import Path

from rich.console import Console

from minidrpo import cli
from minidrpo.show import html_report, tables


def show(cfg, sets, averages, scores, seconds: float) -> None:
    """Print the table of the evaluation in cfg.output_dir, and write its page there."""
    output = Path(cfg.output_dir)
    screen = Console(width=None if sys.stdout.isatty() else 110)  # a log file has no width to fit in
    title = f"{tables.shown(cfg.model)}: {cfg.samples} responses per problem, {seconds:.0f} s"
    screen.print(tables.result_table(sets, title, averages, scores))
    cli.say(f"results and responses: {output}/")
    try:
        page = html_report.write([*([cfg.reference] if cfg.reference else []), output], output / "report.html")
        cli.say(str(page))
    except ValueError as error:  # of a reference's files; the numbers are safe by now
        cli.say(f"note: no report.html: {error}", file=sys.stderr)
