"""What a hostile tester tried of the newer doors: numbers too large for every flag, tasks' files, cards, rewards."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import typing

import pytest
import yaml
from torch.distributed import DistNetworkError

import config
import eval as evaluation
import train
from experiments import compare, corner, credit, lesson_runs, study
from minidrpo import cli
from minidrpo.engine.distributed import DistContext
from minidrpo.methods.table import METHODS
from minidrpo.rundir import card, checkpoint
from minidrpo.rundir.log import RunLog
from minidrpo.show import eval_report, memory, run_report
from minidrpo.tasks import data, graders

HUGE = ["1e308", "nan", "1" + "0" * 400]


def numeric(kind):
    return kind in (int, float) or any(numeric(part) for part in typing.get_args(kind) if not isinstance(part, str))


def flags_of(config_or_class):
    return {cli.flag_of(f.name) for f in dataclasses.fields(config_or_class) if numeric(f.type)}


def commands():
    seen = set()
    for method in METHODS:
        for flag in sorted(flags_of(config.config_class(method)) - seen):
            seen.add(flag)
            yield flag, lambda argv, method=method: config.parse(["tiny", "--method", method, *argv], "train.py", "")
    for owner in (evaluation.Config, compare.Compare, credit.Config, corner.BUDGET, lesson_runs.LessonRuns()):
        for flag in sorted(flags_of(owner)):
            yield flag, lambda argv, owner=owner: cli.parse(owner, argv, prog="it", description="")
    for flag in sorted(flags_of(study.Study)):
        yield flag, lambda argv: cli.parse(study.PRESETS, argv, prog="it", description="")
    for flag in sorted(flags_of(memory.GPUs)):
        yield flag, lambda argv: memory.main(["tiny", *argv])


def test_huge_numbers_of_every_flag_are_taken_or_refused_in_one_line(capsys):
    wrong, found = [], list(commands())
    for flag, parse in found:
        for text in HUGE:
            try:
                asked = parse([flag, text])
            except SystemExit as stop:
                lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("note: ")]
                if stop.code != 2 or len(lines) != 1 or not lines[0].startswith("error: ") or len(lines[0]) > 400:
                    wrong.append((flag, text[:12], lines))
            except Exception as error:
                wrong.append((flag, text[:12], repr(error)))
            else:
                x = getattr(asked, flag[2:].replace("-", "_"), 0)
                values = x if isinstance(x, tuple) else (x,)
                if any(isinstance(v, int) and abs(v) >= 2**63 for v in values) or any(v != v for v in values):
                    wrong.append((flag, text[:12], "taken"))
    assert wrong == [], wrong[:5]
    assert len(found) > 70


HOSTILE = "models/a\n---\nlicense: mit\n| b | `c` \x1b[2J\u202e"


@pytest.mark.parametrize("model", [HOSTILE, "org/na|me", "org/model"])
def test_a_hostile_name_is_no_markdown_and_no_yaml(model):
    cfg = config.make("tiny", model=model, suffix="one\n\n# two | `three`", train_data="org/`x`\n# y")
    nothing = {"step": 1, "accuracy": None, "accuracy_se": None, "mean_length": None, "truncated": None}
    text = card.write(cfg, {}, [nothing], 1)
    _, front, body = text.split("---\n", 2)
    about = yaml.safe_load(front)
    assert about.get("base_model") == (model if model == "org/model" else None) and "license" not in about
    assert sum(line.startswith("# ") for line in body.splitlines()) == 1 and "\x1b" not in text and "\u202e" not in text
    assert all(line.count("|") == 3 for line in body.splitlines() if line.startswith("| suffix") or "| model" in line)
    assert "\n---\n" not in body and "license: mit\n" not in text


@pytest.mark.parametrize("task", graders.GRADERS)
def test_more_problems_than_there_are_is_one_line(task):
    """It only hung: distinct problems were drawn without end."""
    with pytest.raises(ValueError, match="must be between 0 and"):
        data.load_problems(task, split="test", n=10**12)


@pytest.mark.parametrize(
    "calls",
    [
        '{"name": ["a"], "parameters": {}}',
        '{"name": "a", "parameters": [1]}',
        '{"name": "a", "parameters": {"b": NaN}}',
    ],
)
def test_calls_that_no_response_can_match_are_refused_as_truths(calls):
    rows = [{"problem": "p", "answer": f"<think> t </think>\n<tool_call>\n{calls}\n</tool_call>", "grader": "tools"}]
    with pytest.raises(ValueError, match="row 0, column 'answer': the calls of the truth are not equal to themselves"):
        data.rows_to_problems(rows, "own", "own.jsonl")


@pytest.mark.parametrize("rewards", [("correct", "correct"), ("own", "correct")])
def test_a_reward_that_is_named_twice_is_refused(rewards):
    with pytest.raises(ValueError, match="--rewards holds correct twice"):
        config.make("tiny", "gdpo", rewards=rewards)


def test_a_path_that_cannot_be_is_a_mistake_of_the_command(tmp_path, capsys):
    (tmp_path / "file").touch()
    for main, argv in (
        (train.main, ["tiny", "--steps=1", f"--run-dir={tmp_path}/run", f"--model={'a' * 300}/b"]),
        (train.main, ["tiny", "--steps=1", f"--run-dir={tmp_path}/file/run"]),
        (evaluation.main, [f"--output-dir={tmp_path}/out", f"--model={'a' * 5000}"]),
        (evaluation.main, [f"--output-dir={tmp_path}/file/out"]),
        (evaluation.main, [f"--output-dir={tmp_path}/file"]),
    ):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith(("device", "note"))]
        assert stop.value.code == 2 and len(lines) == 1, (argv[-1][:60], stop.value.code, [x[:200] for x in lines])


def test_names_are_printed_with_marks(tmp_path, capsys, monkeypatch):
    directory = tmp_path / "r\x1b[2J"
    directory.mkdir()
    monkeypatch.setattr(checkpoint, "newest", lambda directory: directory)
    (directory / "metrics.jsonl").write_text('{"step": 1, "seconds_sample": 1.0}\n')
    monkeypatch.setattr("minidrpo.show.tables.print_times", lambda directory: None)
    run_report.show(config.make("tiny", run_dir=str(directory)))
    monkeypatch.setattr("minidrpo.show.tables.result_table", lambda sets, title, averages, scores: title)
    eval_report.show(evaluation.Config(output_dir=str(directory), model="m\x1b[2J[bold]"), {}, {}, {}, 1.0)
    said = capsys.readouterr()
    assert "\x1b[2J" not in said.out + said.err and "/r<1b>[2J" in said.out and "m<1b>" in said.out


def test_a_lost_rank_is_named(capsys):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    ctx = DistContext(0, 2, processes=((host, os.getpid()), (host, ended.pid)))
    with pytest.raises(SystemExit) as stop, cli.machine_trouble(0, gone=ctx.gone, goes_on="so"):
        raise DistNetworkError("failed to recv, got 0 bytes")
    assert stop.value.code == 1
    assert capsys.readouterr().err == f"error: rank 1 (process {ended.pid}) is gone; the same command goes on so\n"


def test_a_study_moves_with_its_data(tmp_path):
    """Absolute paths in config.json: the same places, as seen from the run directory, are the same files."""

    def log(study, data="problems.jsonl"):
        cfg = config.make(run_dir=str(study / "study" / "run"), train_data=str(study / data), lam=0.25)
        return RunLog(cfg, DistContext()), cfg

    (tmp_path / "a" / "study" / "run").mkdir(parents=True)
    for name in ("problems.jsonl", "others.jsonl"):
        (tmp_path / "a" / name).write_text('{"problem": "1+1", "answer": 2}\n')
    first, cfg = log(tmp_path / "a")
    (cfg.directory / "config.json").write_text(json.dumps(cfg.numbers() | {"run_dir": cfg.run_dir}))
    log(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    log(tmp_path / "b")
    with pytest.raises(ValueError, match="--train-data was"):
        log(tmp_path / "b", "others.jsonl")
    (tmp_path / "b" / "problems.jsonl").unlink()
    with pytest.raises(ValueError, match="--train-data was"):
        log(tmp_path / "b")


def test_a_penalty_that_float32_cannot_hold_is_refused():
    """1e308 times a length was a traceback at the first step."""
    with pytest.raises(ValueError, match="--alp-beta must be finite"):
        config.make("tiny", "alp", alp_beta=1e308)
