"""What strangers wrote, on the screen and on the page: escapes as marks, long texts cut, averages of equal sets alone;
and runs that have moved."""

import io
import json
import os
import sys

import pytest

import config
from minidrpo import cli
from minidrpo.engine.distributed import DistContext
from minidrpo.rundir import jsonl, results
from minidrpo.rundir.log import RunLog
from minidrpo.show import html_report, tables

ESCAPES = "\x1b]0;title\x07\x1b[2J\u202eevil\u200b\x9b31m"


def test_escapes_are_shown_as_marks(capsys, tmp_path):
    log = RunLog(config.make(run_dir=str(tmp_path)), DistContext())
    log.say(f"a response\n{ESCAPES}\tand more")
    with pytest.raises(SystemExit):
        cli.fail(f"{ESCAPES}: no such file")
    said = capsys.readouterr()
    for text in (said.out, said.err, tables.shown(ESCAPES)):
        assert "<1b>" in text and "<202e>" in text and not {"\x1b", "\x07", "\x9b", "\u202e", "\u200b"} & set(text)
    assert "a response\n" in said.out and "\tand more" in said.out
    assert cli.visible("naïve 数学 ∫") == "naïve 数学 ∫"


def test_a_reader_that_leaves_does_not_end_the_run(tmp_path, monkeypatch):
    """train.py | head -1"""
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.FileIO(write, "w"), write_through=True))
    log = RunLog(config.make(run_dir=str(tmp_path)), DistContext())
    log.say("one")
    log.say("two")


def test_numbers_that_are_not_finite_are_null_in_the_file(tmp_path):
    """NaN and Infinity are not JSON: other readers refuse the line."""
    log = RunLog(config.make(run_dir=str(tmp_path)), DistContext())
    log.progress(range(1))
    log.step(1, {"kl": float("inf"), "objective": float("nan"), "accuracy": 0.5, "mean_length": 1.0, "grad_norm": 1.0})
    written = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert written["kl"] is None and written["objective"] is None and written["accuracy"] == 0.5


def test_averages_over_different_sets_are_not_compared():
    of = {"accuracy": 0.5, "mean_length": 100.0}
    reference = {"sets": {"a": of, "b": of}, "average": {"plain": of, "paper": of}, "config": {"model": "m"}}
    average = {"plain": of, "paper": of}
    assert [name for name in results.compare({}, average, reference) if name.startswith("average")] == []

    def result(*names):
        rows = dict.fromkeys(names, of) | {"average (plain)": of, "average (paper)": of}
        return html_report.Result(".".join(names), rows, "", None, None)

    both, one = result("a", "b"), result("b")
    assert html_report.headline([both, one]) is None and html_report.headline([both, both]) == "average (paper)"
    assert html_report.scores([both, one])[1][0].keys() == {"b"}
    assert "average (plain)" in html_report.scores([both, both])[1][0]


def test_long_prompts_truths_and_answers_are_cut_on_the_page(tmp_path):
    number = {"accuracy": 0.5, "mean_length": 1.0}
    about = {"sets": {"own": number}, "average": {"plain": number, "paper": number}, "config": {"model": "m"}}
    (tmp_path / "results.json").write_text(json.dumps(about))
    long = "\u200b" * 200_000
    jsonl.write(tmp_path / "problems.jsonl", [{"source": "own", "index": 0, "prompt": long, "truth": [long, "5"]}])
    response = {"source": "own", "index": 0, "sample": 0, "response": long, "length": 3, "finished": True}
    jsonl.write(tmp_path / "responses.jsonl", [response | {"correct": False, "reason": "wrong", "answer": long}])
    page = html_report.write([tmp_path], tmp_path / "page.html")
    assert page.stat().st_size < 300_000 and "characters left out" in page.read_text()


def test_a_moved_checkout_goes_on(tmp_path):
    settings = json.loads(json.dumps(config.make().numbers())) | {"run_dir": str(tmp_path)}
    for model, same in (
        ("/elsewhere/minidrpo/tiny", True), (config.TINY_MODEL + "/", True),
        ("/elsewhere/minidrpo/tiny/thinking", False), ("/elsewhere/tiny", False),
    ):  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(settings | {"model": model}))
        if same:
            RunLog(config.make(run_dir=str(tmp_path)), DistContext())
        else:
            with pytest.raises(ValueError, match="--model was "):
                RunLog(config.make(run_dir=str(tmp_path)), DistContext())


def test_settings_without_effect_are_noted(capsys):
    config.parse(["tiny", "--beta", "10", "--kl_estimator=k3"], "train.py", "")
    assert "note: --beta, --kl-estimator do nothing with --mini-batches 1: " in capsys.readouterr().err
    config.parse(["tiny", "--beta", "10", "--mini-batches", "2"], "train.py", "")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("setting", ["group_size", "samples"])
def test_numbers_of_responses_that_no_machine_holds_are_refused(setting):
    """A step with --group-size 1e12 only hung."""
    with pytest.raises(ValueError, match="must be at most 1e"):
        config.make(**{setting: 10**12})
