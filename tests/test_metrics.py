"""metrics.py: brute force for every estimator, the published AES values, averages the paper's way."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

import config
from minidrpo import setup
from minidrpo.methods.table import Batch
from minidrpo.records import GradedResponse, Rollout
from minidrpo.rundir import metrics
from minidrpo.rundir.metrics import summarise
from minidrpo.show import tables
from minidrpo.tasks import data


def responses(correct_Pn, length_Pn=None, source="s", answer=None):
    length_Pn = np.ones_like(correct_Pn, dtype=int) if length_Pn is None else length_Pn
    return [
        response(p, i, bool(c), answer or str(c), source=source, length=int(length_Pn[p][i]))
        for p, row in enumerate(correct_Pn)
        for i, c in enumerate(row)
    ]


def response(index, sample, correct, answer, *, source="s", length=1, finished=True, reason=None):
    return GradedResponse(
        source=source,
        index=index,
        sample=sample,
        response="",
        length=length,
        finished=finished,
        correct=correct,
        reason=reason or ("correct" if correct else "wrong"),
        answer=answer,
    )


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(k):
    correct_Pn = np.random.default_rng(0).random((7, 5)) < 0.4
    brute = np.mean([np.mean([any(s) for s in itertools.combinations(row, k)]) for row in correct_Pn])
    assert metrics.pass_at_k(correct_Pn.sum(1), 5, k) == pytest.approx(brute, abs=1e-12)


def test_clustered_error_equals_the_sandwich_and_grows_with_copies():
    rng = np.random.default_rng(1)
    value_Pn = rng.random((9, 4)) + rng.random((9, 1))
    # The textbook form: squared sums of residuals per cluster, over N^2, with the P / (P - 1) of small samples
    residual = value_Pn - value_Pn.mean()
    sandwich = math.sqrt(sum(row.sum() ** 2 for row in residual) / value_Pn.size**2 * 9 / 8)
    assert metrics.clustered_se(value_Pn) == pytest.approx(sandwich, rel=1e-12)
    # The same responses to each problem once more say nothing new
    assert metrics.clustered_se(np.hstack([value_Pn] * 3)) == pytest.approx(sandwich, rel=1e-12)
    assert math.isnan(metrics.clustered_se(value_Pn[:1]))


def test_summary_against_plain_loops():
    rng = np.random.default_rng(2)
    correct, length = rng.random((6, 4)) < 0.5, rng.integers(1, 100, (6, 4))
    r = summarise(responses(correct, length))
    assert (r.n_problems, r.n_samples) == (6, 4) and r.reasons == {"correct": correct.sum(), "wrong": (~correct).sum()}
    assert r.accuracy == pytest.approx(correct.mean()) and r.mean_length == pytest.approx(length.mean())
    assert r.median_length == sorted(length.flatten())[11:13] @ np.array([0.5, 0.5])
    assert r.mean_length_correct == pytest.approx(sum(length[correct]) / correct.sum())
    assert r.mean_length_wrong == pytest.approx(sum(length[~correct]) / (~correct).sum())
    for median, some in ((r.median_length_correct, length[correct]), (r.median_length_wrong, length[~correct])):
        ordered, half = sorted(some), len(some) // 2
        assert median == (ordered[half] if len(some) % 2 else (ordered[half - 1] + ordered[half]) / 2)
    assert list(r.pass_at_k) == [1, 2, 3, 4] and r.pass_at_k[4] == pytest.approx(correct.any(1).mean())
    assert list(summarise(responses(np.ones((2, 40)))).pass_at_k) == [*range(1, 17), 32, 40]


def test_truncated_and_unanswered_are_told_apart():
    given = [("truncated", None), ("no_box", None), ("wrong", "7"), ("no_think", None)]
    r = summarise(
        [
            response(i // 2, i % 2, False, answer, length=9, finished=reason != "truncated", reason=reason)
            for i, (reason, answer) in enumerate(given)
        ]
    )
    assert (r.truncated, r.unanswered) == (0.25, 0.5)
    assert r.reasons == {"truncated": 1, "no_box": 1, "wrong": 1, "no_think": 1}


def test_nothing_correct_has_no_length_of_correct_responses():
    r = summarise(responses(np.zeros((2, 2), dtype=bool)))
    assert math.isnan(r.mean_length_correct) and r.mean_length_wrong == 1
    assert json.loads(json.dumps(metrics.as_json(r), allow_nan=False))["mean_length_correct"] is None


def test_majority_vote():
    def vote(*pairs):
        group = [response(0, i, c, a) for i, (a, c) in enumerate(pairs)]
        return metrics.majority_is_right(group)

    assert vote(("5", True), ("4", False), ("5", True)) and not vote(("5", True), ("4", False), ("4", False))
    assert vote(("5", True), ("4", False)) and not vote(("4", False), ("5", True))
    assert vote((None, False), (None, False), ("5", True)) and not vote((None, False))
    assert vote(("1/2", True), ("3", False), ("0.5", True), ("3", False), (r"\frac12", True)), "one answer, three forms"


def test_breakdown_by_source():
    rows = responses(np.array([[1, 1], [1, 0]]), source="b/1") + responses(np.array([[0, 0]]), source="a/2")
    r = summarise(rows)
    assert list(r.by_source) == ["a/2", "b/1"] and r.by_source["b/1"].accuracy == 0.75 and r.accuracy == 0.5
    assert summarise(rows[:2]).by_source == {}


# METHODS: (accuracy, mean length) of each method and of its own run without a penalty, and the AES the paper prints
PUBLISHED = [
    (0.624, 1527, 0.649, 3494, 0.178),
    (0.567, 2531, 0.590, 3427, -0.129),
    (0.568, 2657, 0.606, 3494, -0.387),
    (0.534, 1791, 0.592, 3324, -0.519),
    (0.714, 1502, 0.733, 3053, 0.249),
    (0.692, 2649, 0.702, 2977, -0.033),
]


@pytest.mark.parametrize("accuracy, length, accuracy_ref, length_ref, published", PUBLISHED)
def test_published_aes(accuracy, length, accuracy_ref, length_ref, published):
    # 0.0015: the inputs are read off a figure, to 0.001 in accuracy and a few tokens
    assert metrics.aes(accuracy, length, accuracy_ref, length_ref) == pytest.approx(published, abs=1.5e-3)
    assert abs(metrics.aes(accuracy, length, accuracy_ref, length_ref, c=5) - published) > 0.05


def test_aes_rewards_gains_with_b():
    assert metrics.aes(0.6, 50, 0.5, 100) == pytest.approx(0.5 + 3 * 0.2)
    assert metrics.aes(0.5, 100, 0.5, 100) == 0


def test_aes_of_two_rows_is_left_out_where_a_number_is_missing():
    new, old = {"accuracy": 0.6, "mean_length": 50}, {"accuracy": 0.5, "mean_length": 100}
    assert metrics.aes_of(new, old) == metrics.aes(0.6, 50, 0.5, 100)
    for key in old:
        for missing in (None, math.nan):
            assert metrics.aes_of(new | {key: missing}, old) is metrics.aes_of(new, old | {key: missing}) is None
        assert metrics.aes_of(new, old | {key: 0}) is None  # nothing to relate to
        assert metrics.aes_of(new | {key: 0}, old) is not None
        assert metrics.aes_of({key: 1}, old) is None


def test_paper_average_pools_aime():
    # DisCO's published 1.5B base: AIME24, AIME25, MATH500, OlympiadBench; GSM8K as the four-set mean implies it
    base = {"aime": 0.181, "aime25": 0.215, "math": 0.758, "olympiad_bench": 0.353, "gsm8k": 0.827}
    assert metrics.paper_average(base) == pytest.approx(0.534, abs=5e-4)
    assert math.isnan(metrics.paper_average({k: base[k] for k in base if k != "aime25"}))
    assert metrics.paper_average(base | {"amc": 0.0}) == metrics.paper_average(base)


def test_table_holds_the_numbers():
    from rich.console import Console

    r = summarise(
        responses(np.array([[1, 1], [1, 0]]), np.array([[10, 20], [30, 40]]), source="b/1")
        + responses(np.array([[0, 0]]), np.array([[50, 60]]), source="b/2")
    )
    console = Console(width=110, record=True, file=open("/dev/null", "w"))
    averages = {"plain": {"accuracy": 0.25, "mean_length": 7.0}, "paper": {"accuracy": math.nan, "mean_length": 1.0}}
    scores = {"reference": "[old]", "constants": metrics.AES, "b": 0.25, "average (plain)": -0.5}
    console.print(tables.result_table({"b": r, "c": r}, averages=averages, scores=scores))
    rows = [line.split() for line in console.export_text(clear=False).splitlines()]
    b = "b 3 50.0 ± 28.9 66.7 66.7 35 ± 12 (35) 20 (20) 50 (50) 0.0 0.0 +0.250".split()
    assert b in rows and ["c", *b[1:-1]] in rows
    assert "1 2 75.0 ± 25.0 100.0 100.0 25 ± 10 (25) 20 (20) 40 (40) 0.0 0.0".split() in rows
    assert "average (plain) 25.0 7 -0.500".split() in rows and not any("(paper)" in row for row in rows)
    assert "reasons: correct 50.0 %, wrong 50.0 %" in console.export_text(clear=False)
    assert "AES against [old]: a = 1, b = 3, c = 10" in console.export_text()


def test_exceed_counts_responses_longer_than_the_limit():
    assert metrics.exceed(responses(np.zeros((1, 4)), [[3999, 4000, 4001, 9000]]), 4000) == 0.5


def test_step_times_add_up():
    steps = [
        dict(seconds_sample=3.0, seconds_update=1.0, seconds_sync=0.5, response_tokens=600, trained_tokens=50),
        dict(seconds_sample=1.0, seconds_update=1.0, seconds_weigh=0.001, response_tokens=200, trained_tokens=70),
    ]
    times = metrics.step_times(steps, [{"seconds": 3.5}])
    assert times["seconds"] == dict(sample=4.0, grade=0, weigh=0.001, update=2.0, sync=0.5, evaluate=3.5)
    assert (times["steps"], times["generated"], times["trained"]) == (2, 200.0, 60.0)
    line = "sample 40%, evaluate 35%, update 20%, sync 5%; tokens/s: 200 generated, 60 trained"
    assert metrics.time_line(times) == line
    from rich.console import Console

    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(tables.time_table(times))
    assert "40.0 %" in console.export_text()
    old = metrics.step_times([{"seconds_sample": 0.0, "seconds_update": 2.0, "response_tokens": 5}])
    assert math.isnan(old["generated"]) and math.isnan(old["trained"])  # nothing to divide by, or not logged


# --------------------------------------------------------------------------- what a model unlearned: budgets, features


def told(index, sample, correct, length, text, source="t/level-1"):
    return dataclasses.replace(response(index, sample, correct, "1", source=source, length=length), response=text)


TOLD = [  # limit 80: budgets of 20, 40 and 80 tokens
    told(0, 0, True, 20, "Quickly: 1"),  # just within a quarter
    told(0, 1, True, 21, "Quickly: 1"),  # just above it
    told(1, 0, True, 40, "Step by step"),
    told(1, 1, False, 5, "Quickly: 1"),  # short, and wrong: no budget counts it
    told(2, 0, True, 80, "Step by step", "t/level-2"),
    told(2, 1, False, 80, "Step by step", "t/level-2"),
    told(3, 0, True, 41, "Step by step", "t/level-2"),
    told(3, 1, False, 9, "So, Quickly", "t/level-2"),
]


def test_accuracy_at_budgets_counts_right_responses_up_to_the_limits_share():
    r = summarise(TOLD, limit=80)
    assert r.accuracy_at_budget == {0.25: 1 / 8, 0.5: 3 / 8, 1.0: 5 / 8} and r.accuracy == 5 / 8
    assert r.by_source["t/level-1"].accuracy_at_budget == {0.25: 1 / 4, 0.5: 3 / 4, 1.0: 3 / 4}
    assert r.by_source["t/level-2"].accuracy_at_budget == {0.25: 0, 0.5: 0, 1.0: 1 / 2}
    assert r.summary()["accuracy_at_budget"] == {"0.25": 1 / 8, "0.5": 3 / 8, "1.0": 5 / 8}
    assert summarise(TOLD).accuracy_at_budget == {}, "no limit, no budgets"


def test_features_of_the_text_are_shares_of_the_whole_and_of_each_source():
    features = data.features("thinking@0.9")
    assert list(features) == ["short_way"] and not data.features("arithmetic") and not data.features("mine.jsonl")
    saved = summarise(TOLD, features=features).summary()
    assert (saved["short_way"], "features" in saved) == (3 / 8, False)
    assert {level: part["short_way"] for level, part in saved["by_source"].items()} == {
        "t/level-1": 0.75,
        "t/level-2": 0,
    }
    with pytest.raises(AssertionError, match="accuracy"):
        summarise(TOLD, features={"accuracy": bool}).summary()


def printed(show, *args):
    """What a table, or a function that prints one, looks like."""
    from rich.console import Console

    console = Console(width=110, record=True, file=open("/dev/null", "w"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "Console", lambda: console)
        if (table := show(*args)) is not None:
            console.print(table)
    return console.export_text()


def test_tables_show_budgets_and_the_short_way():
    r = summarise(TOLD, limit=80, features=data.features("thinking"))
    text = printed(tables.result_table, {"t": r, "other": summarise(TOLD, limit=80)})
    rows = [line.split() for line in text.splitlines()]
    assert "t 4 62.5 ± 12.5 100.0 100.0 37 ± 14 (30) 40 (40) 31 (9) 0.0 0.0 37.5".split() in rows
    levels = [row for row in rows if row[:1] in (["level-1"], ["level-2"])]
    assert [row[-1] for row in levels] == ["75.0", "0.0", "0.0", "0.0"], "truncated, for a set without the feature"
    assert [len(row) for row in levels] == [18, 18, 17, 17]
    assert "right within 25 / 50 / 100 % of the limit of tokens: t 12.5 / 37.5 / 62.5 %, other 12.5 /" in text


def test_before_and_after_show_what_was_unlearned():
    before = summarise(TOLD, limit=80, features=data.features("thinking")).summary()
    short = [dataclasses.replace(r, response="Quickly", length=10, correct=r.source == "t/level-1") for r in TOLD]
    after = summarise(short, limit=80, features=data.features("thinking")).summary()
    rows = [" ".join(line.split()) for line in printed(tables.print_before_after, before, after, "m").splitlines()]
    assert "right within 25 % of the limit 12.5 % 50.0 % +37.5 points" in rows
    assert "right within 50 % of the limit 37.5 % 50.0 % +12.5 points" in rows
    assert "of right responses 40.4 10.0 -75 %" in rows and "of wrong responses 31.3 10.0 -68 %" in rows
    level_2 = rows.index("t/level-2: accuracy 50.0 % ±0.0 0.0 % ±0.0 -50.0 points")
    assert rows[level_2 + 2] == "short way 0.0 % 100.0 % +100.0 points"
    # Files of an earlier version hold neither; nothing is right at the end, so right responses have no length
    old = {k: v for k, v in before.items() if k not in ("accuracy_at_budget", "short_way")} | {"by_source": {}}
    wrong = summarise([dataclasses.replace(r, correct=False) for r in short]).summary() | {"by_source": {}}
    rows = [" ".join(line.split()) for line in printed(tables.print_before_after, old, wrong, "m").splitlines()]
    assert not any("within" in row or "short way" in row for row in rows) and "of right responses 40.4 -" in rows


def test_a_batch_logs_the_length_of_right_and_of_wrong_responses():
    rows = [dataclasses.replace(r, rollout=Rollout([1], [2], True, [-0.5])) for r in TOLD]
    cfg = config.make("tiny", "disco")
    numbers = setup.batch_numbers(rows, Batch.of(rows, 2, range(4)), cfg)
    right = numbers["mean_length_correct"], numbers["mean_length_wrong"]
    assert right == (pytest.approx((20 + 21 + 40 + 80 + 41) / 5), pytest.approx((5 + 80 + 9) / 3))
    numbers = setup.batch_numbers(rows[:2], Batch.of(rows[:2], 2, range(1)), cfg)
    assert numbers["mean_length_wrong"] is None
