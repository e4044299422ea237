"""run_report.py - what is left to look at when training ends: the before/after table, the figures, report.html."""

from minidrpo import cli
from minidrpo.rundir import checkpoint, jsonl
from minidrpo.show import html_report, plots, tables


def show(cfg) -> None:
    """Print the tables of the finished run in cfg.directory and write its figures and its page there."""
    directory = cfg.directory
    evaluations = jsonl.read(directory / "evals.jsonl")
    compared = len(evaluations) > 1 and evaluations[0]["step"] == 0  # not with --no-eval-start
    if compared:
        tables.print_before_after(evaluations[0], evaluations[-1], cfg.title)
    tables.print_times(directory)
    if compared:
        plots.training_curves(directory, directory / "curves.png")
        plots.before_after(evaluations[0], evaluations[-1], directory / "before_after.png")
        html_report.write([directory], directory / "report.html")
        cli.say(f"report to open in a browser: {directory / 'report.html'}")
        cli.say(f"plots: {directory / 'before_after.png'}, {directory / 'curves.png'}")
    cli.say(f"model: {checkpoint.newest(directory)}   numbers: {directory / 'metrics.jsonl'}")
