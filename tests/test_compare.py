"""compare.py: the numbers of its table and picture from files with known ones; short runs, and what goes wrong."""

import dataclasses
import functools
import math
import multiprocessing
import os
import signal
from types import SimpleNamespace

import pytest
from rich.console import Console

from experiments import compare
from experiments import compare_report as report
from minidrpo.records import GradedResponse, Problem
from minidrpo.rundir import jsonl
from minidrpo.rundir.metrics import summarise
from minidrpo.tasks import data, thinking

QUICK, SLOW = "Quickly: 1+1=2.</think>\n\\boxed{2}", "Step by step: 1+1=2.</think>\n\\boxed{2}"


def responses(quick):
    """Two problems of each level, two responses each, the first of them `quick` on levels up to `quick`. The short way
    is right on level 1 alone and has 10 tokens per level, the long one 30 per level."""
    made = []
    for i in range(2 * thinking.LEVELS):
        level = i % thinking.LEVELS + 1
        for sample in range(2):
            short = sample == 0 and level <= quick
            right = level == 1 or not short
            text, length = (QUICK, 10 * level) if short else (SLOW, 30 * level + i // thinking.LEVELS)
            verdict = (True, right, "correct" if right else "wrong", "2")
            made.append(GradedResponse(f"thinking/level-{level}", i, sample, text, length, *verdict))
    return made


def evaluation(quick, step):
    return {"step": step} | summarise(responses(quick), features=data.features("thinking")).summary()


@pytest.fixture
def finished(tmp_path):
    """Files as of three finished runs: drpo ends without the short way, grpo-lp takes it in every first response."""
    configs = [compare.run_config(compare.Compare(dir=str(tmp_path), steps=20), name) for name in compare.SETTINGS]
    for cfg, quick in zip(configs, (0, 5, 1), strict=True):
        cfg.directory.mkdir()
        jsonl.write(cfg.directory / "evals.jsonl", [evaluation(3, 0), evaluation(quick, 10), evaluation(quick, 20)])
        steps = [{"step": s, "accuracy": 0.5 + s / 100, "mean_length": 100.0 - s} for s in range(1, 11)]
        jsonl.write(cfg.directory / "metrics.jsonl", steps)
        asked = (Problem(f"{i}+1=?", i + 1, f"thinking/level-{i % 5 + 1}", i) for i in range(10))
        jsonl.write(cfg.directory / "problems.jsonl", map(dataclasses.asdict, asked))
        for name, rows in ("before", responses(3)), ("after", responses(quick)):
            jsonl.write(cfg.directory / f"responses_{name}.jsonl", (r.as_dict() for r in rows))
    return configs


def rows_of(table):
    console = Console(width=110, record=True, file=open(os.devnull, "w"))
    console.print(table)
    return [" ".join(line.split()) for line in console.export_text().splitlines() if line.strip()]


# ---------------------------------------------------------------------------------------------------- numbers


def test_levels_are_pooled_by_their_problems():
    parts = {
        "thinking/level-2": dict(n_problems=1, accuracy=1.0, mean_length=10, short_way=0.5),
        "thinking/level-3": dict(n_problems=3, accuracy=0.2, mean_length=50, short_way=0.1),
    }
    for part, error in zip(parts.values(), (0.4, 0.1), strict=True):
        part |= {"accuracy_se": error, "mean_length_se": 10 * error}
    found = report.pooled({"step": 7, "by_source": parts}, (2, 3))
    assert found == {
        "step": 7,
        "accuracy": pytest.approx(0.4), "mean_length": pytest.approx(40), "short_way": pytest.approx(0.2),
        "accuracy_se": pytest.approx(math.hypot(0.4, 0.3) / 4), "mean_length_se": pytest.approx(math.hypot(4, 3) / 4),
    }  # fmt: skip


def test_the_table_holds_every_level_of_the_base_and_of_every_method(finished):
    rows = rows_of(report.level_table(finished, "after"))
    assert rows[1] == "base DRPO GRPO-LP DisCO"
    accuracy, length, short = (rows.index(words) for words in report.ROWS.values())
    assert rows[accuracy + 1] == "easy (1 operation) 100.0 100.0 100.0 100.0"
    assert rows[accuracy + 2] == "2 operations 50.0 100.0 50.0 100.0"
    assert rows[accuracy + 6] == "hard (2 to 5) 75.0 ±0.0 100.0 ±0.0 50.0 ±0.0 100.0 ±0.0"
    assert rows[length + 1] == "easy (1 operation) 20.2 30.5 20.2 20.2"
    assert rows[short + 1] == "easy (1 operation) 50.0 0.0 50.0 50.0"
    assert rows[short + 4] == "4 operations 0.0 0.0 50.0 0.0"
    assert rows[short + 6] == "hard (2 to 5) 25.0 0.0 50.0 0.0"


def test_the_picture_shows_hard_prompts_over_steps_and_both_kinds_at_the_end(finished, tmp_path):
    fig = report.picture(finished, tmp_path / "c.png")
    accuracy, length, ends = fig.axes
    assert [list(line.get_ydata()) for line in accuracy.lines if len(line.get_xdata()) == 3] == [
        [75, 100, 100], [75, 50, 50], [75, 100, 100]
    ]  # fmt: skip
    points = {c.get_label(): list(c.lines[0].get_xdata()) for c in length.containers}
    assert points == {"DRPO": [10, 20], "GRPO-LP": [10, 20], "DisCO": [10, 20], "base": [0]}
    joined = [line.get_xydata().tolist() for line in ends.lines if len(line.get_xdata()) == 2]
    assert len(joined) == 4 and joined[1] == [[20.25, 100], [pytest.approx(70.25), 50]]  # GRPO-LP: easy, then hard
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"


def test_the_same_hard_problem_is_shown_of_all(finished):
    blocks = report.responses_to_read(finished).split("\n\n")
    assert blocks[0].splitlines()[1] == "3+1=? (truth 4)", "the first problem of level 4"
    heads = [block.splitlines()[0] for block in blocks[1:]]
    assert heads[:2] == ["base: right, 120 tokens"] * 2
    assert heads[4:6] == ["GRPO-LP: wrong, 40 tokens", "GRPO-LP: right, 120 tokens"] and len(heads) == 8
    assert blocks[5].splitlines()[1:] == ["    Quickly: 1+1=2.</think>", "    \\boxed{2}"]


def test_the_reason_is_told_from_the_base(finished):
    assert report.why(finished).endswith('"Quickly" 0 %, "Step by step" 100 %')


# ---------------------------------------------------------------------------------------------------- while it runs


def test_a_pipe_gets_one_line_per_evaluation(finished, capsys):
    with report.Watch(finished, Console(force_terminal=False)) as watch:
        watch.show()
        watch.show()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines[4] == "GRPO-LP   step  10/20   easy: 100 % right,  20 tokens   hard:  50 % right,  70 tokens"


def test_a_terminal_gets_a_line_per_method_also_before_it_begins(finished, tmp_path):
    waits = compare.run_config(compare.Compare(dir=str(tmp_path / "new"), steps=20), "drpo")
    rows = rows_of(report.Watch([*finished, waits], Console(force_terminal=False)).table())
    # mean of steps 6 to 10: accuracy 58 %, length 92
    assert "GRPO-LP 10/20 ━━━━━━━━━━ 58 92 100 20 50 70" in rows and "DRPO 0/20" in rows


# ---------------------------------------------------------------------------------------------------- runs


SHORT = ["--steps=1", "--prompts-per-step=2", "--max-problems=10", "--eval-every=1", "--methods", "drpo", "grpo-lp"]


@pytest.fixture
def forked(monkeypatch):
    """Forked processes: what they need is loaded already."""

    def start(cfg):
        process = multiprocessing.get_context("fork").Process(target=compare.run_one, args=(cfg,), daemon=True)
        process.start()
        return process

    monkeypatch.setattr(compare, "start", start)


def test_two_short_runs_are_compared_and_not_trained_again(forked, tmp_path, capsys, monkeypatch):
    argv = [*SHORT, f"--dir={tmp_path}"]
    compare.main(argv)
    said = capsys.readouterr().out
    assert "GRPO-LP   step   1/1" in said and "hard (2 to 5)" in said and "picture: " in said
    runs = [tmp_path / name for name in ("drpo", "grpo-lp")]
    starts = [jsonl.read(run / "evals.jsonl")[0] | {"seconds": 0} for run in runs]
    assert starts[0] == starts[1], "one base"
    assert (tmp_path / "compare.png").exists()

    monkeypatch.setattr(compare, "start", None)
    compare.main(argv)
    assert "trained" not in capsys.readouterr().out
    for flags, words in ([*argv, "--seed=1"], "--seed was 0, is 1: choose another --dir"), (
        [*argv, "--steps=1", "--eval-every=2"], "--eval-every was 1, is 2"
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            compare.main(flags)
        assert stop.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.slow
def test_processes_of_their_own_go_on_after_a_kill(tmp_path, capsys):
    argv = [*SHORT, f"--dir={tmp_path}"]
    compare.main(argv)
    jsonl.keep_until(tmp_path / "drpo" / "evals.jsonl", 0)  # as if killed between its last step and the evaluation
    first = capsys.readouterr().out
    compare.main(argv)
    second = capsys.readouterr().out
    table = first[first.index("Held-out problems after") : first.index("picture:")]
    assert table in second and "trained in" in second


def failing(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(argv)
    error = capsys.readouterr().err
    assert stop.value.code == 1 and error.count("\n") == 1
    return error


def test_one_line_says_what_was_wrong_in_all_processes(forked, tmp_path, capsys):
    error = failing([*SHORT, f"--dir={tmp_path}", f"--model={tmp_path / 'none'}", "--workers=1"], capsys)
    assert error.startswith("error: drpo, grpo-lp: model directory ") and "none does not exist (see " in error


def test_a_killed_process_and_a_bug_are_told_apart(forked, tmp_path, capsys, monkeypatch):
    def killed(cfg):
        if cfg.method == "drpo":
            os.kill(os.getpid(), signal.SIGKILL)
        run_one(cfg)

    def buggy(cfg, ctx):
        raise ZeroDivisionError("by us")

    import train

    run_one = compare.run_one
    monkeypatch.setattr(train, "train", buggy)
    monkeypatch.setattr(compare, "run_one", killed)
    error = failing([*SHORT, f"--dir={tmp_path}"], capsys)
    assert "drpo: its process was ended by signal 9 (out of memory?)" in error
    assert "grpo-lp: ZeroDivisionError: by us (see " in error
    assert "Traceback" in (tmp_path / "grpo-lp.log").read_text()
    for code in (-signal.SIGTERM, compare.TERMINATED):  # before and after a process can leave tidily
        assert compare.reason_of(None, code) == "its process was ended by signal 15"


def test_processes_end_when_this_one_is_stopped(finished, monkeypatch):
    ended = []

    def start(cfg):
        end = functools.partial(ended.append, cfg.method)
        return SimpleNamespace(sentinel=os.pipe()[0], is_alive=lambda: True, join=lambda: None, terminate=end)

    def stopped():
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "start", start)
    monkeypatch.setattr(compare, "is_done", lambda cfg: False)
    with pytest.raises(KeyboardInterrupt):
        compare.train_all(finished, 2, stopped)
    assert ended == ["drpo", "grpo-lp"], "the third had not begun"


def test_fewer_steps_than_a_run_has_need_another_directory(finished):
    fewer = dataclasses.replace(finished[0], steps=10)
    with pytest.raises(ValueError, match="drpo was trained for 20 steps, not 10: choose another --dir"):
        compare.is_done(fewer)


@pytest.mark.parametrize("flags, words", [
    (["--methods", "dpro"], "unknown method 'dpro' (did you mean"),
    (["--methods", "drpo", "drpo"], "none twice"),
    (["--max-problems=9"], "--max-problems must be 10 or more"),
    (["--workers=0"], "--workers must be 1 or more"),
])  # fmt: skip
def test_mistakes_get_one_line(flags, words, capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(flags)
    assert stop.value.code == 2 and words in capsys.readouterr().err
