"""Every mistake in a command is one line and exit code 2, on a terminal as in a pipe, for every program."""

import os
import pty
import signal

import pytest

import eval as evaluation
import train
from experiments import compare, corner, credit, credit_page, lemma, lesson_runs, mode_model, push, study
from experiments.benchmarks import fuzz_grader, grader, sharding
from minidrpo.show import html_report, plots, tables

PROGRAMS = {  # name: (main, a flag with a number, a flag with a choice or a list)
    "train": (train.main, "--steps", "--method"),
    "train r1-7b --method grpo": (lambda argv: train.main(["r1-7b", "--method", "grpo", *argv]), "--lr", "--sampler"),
    "train --dry-run": (lambda argv: train.main(["--dry-run", *argv]), "--gpus", "--method"),
    "eval": (evaluation.main, "--samples", "--sampler"),
    "study": (study.main, "--steps", "--parts"),
    "compare": (compare.main, "--steps", "--methods"),
    "credit": (credit.main, "--step", "--alpha"),
    "corner": (corner.main, "--steps", "--methods"),
    "credit_page": (credit_page.main, None, None),
    "lemma": (lemma.main, None, None),
    "lesson_runs": (lesson_runs.main, "--seeds", "--parts"),
    "mode_model": (mode_model.main, None, None),
    "push": (push.main, None, None),
    "html_report": (html_report.main, None, None),
    "tables": (tables.main, None, None),
    "plots": (plots.main, None, None),
    "benchmarks.grader": (grader.main, None, None),
    "benchmarks.fuzz_grader": (fuzz_grader.main, None, None),
    "benchmarks.sharding": (sharding.main, None, None),
}


def on(terminal, main, argv):
    """(exit code, what was written) of main(argv) in a child whose output is a pseudo-terminal or a pipe."""
    read, write = pty.openpty() if terminal else os.pipe()
    if (child := os.fork()) == 0:
        for descriptor in (1, 2):
            os.dup2(write, descriptor)
        code = 99
        signal.alarm(15)
        try:
            import sys

            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)
            code = main(argv) or 0
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(write)
    text = b""
    while True:
        try:
            part = os.read(read, 4096)
        except OSError:  # a terminal whose other end is closed
            break
        if not part:
            break
        text += part
    os.close(read)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text.decode().replace("\r\n", "\n")


def mistakes(number, choice):
    yield ["--bogus=1"], "--bogus" if number else ""
    yield ["--bogus"], "--bogus" if number else ""
    if number:
        yield [number], "needs a value"
        yield [number, "many"], number
        yield [f"{number}="], number
        yield [number, "nan"], number
        yield [number, "-1"], number
    if choice:
        yield [choice, "bogus-choice"], "bogus-choice"
        yield [choice], "needs a value"


# Half a second each: of those with many flags, train.py and eval.py every time
OFTEN = [name for name, (_, number, _) in PROGRAMS.items() if number is None or name.startswith(("train", "eval"))]


@pytest.mark.parametrize("name", [pytest.param(x, marks=[] if x in OFTEN else pytest.mark.slow) for x in PROGRAMS])
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_one_line_on_a_terminal_and_in_a_pipe(name, terminal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main, number, choice = PROGRAMS[name]
    wrong = []
    for argv, words in mistakes(number, choice):
        code, text = on(terminal, main, argv)
        lines = [line for line in text.splitlines() if not line.startswith("note: ")]
        if code != 2 or len(lines) != 1 or not lines[0].startswith("error: ") or words not in lines[0]:
            wrong.append((argv, code, text[-300:]))
    assert wrong == [] and not os.listdir(tmp_path), "nothing was made"


@pytest.mark.parametrize("name", ["tables", "plots", "html_report", *(name for name in PROGRAMS if "bench" in name)])
def test_help_is_an_answer(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text = on(False, PROGRAMS[name][0], ["--help"])
    assert code == 0 and "usage: " in text and not os.listdir(tmp_path)
