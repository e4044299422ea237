"""eval.py: lengths, truncation, seeds, one rank equal to two, a restart equal to no restart, user mistakes."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import eval as evaluation
from data import Problem
from metrics import as_json

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class FakeRollout:
    response_ids: list
    finished: bool


class FakeTokenizer:
    """Token ids are characters; 0 ends an answer."""

    def decode(self, ids, **kwargs):
        return "".join(map(chr, ids))


class FakeSampler:
    """Answers `q` prompts with a box of 0 to 3 after a random thought; about one in five is cut off."""

    def __init__(self):
        self.asked = []

    def sample(self, prompt_ids, *, n, temperature, top_p, max_tokens, seeds):
        self.asked.append((tuple(map(tuple, prompt_ids)), tuple(seeds)))
        rollouts = []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            for _ in range(n):
                text = "w" * rng.integers(1, 9) + rf"</think>\boxed{{{rng.integers(4)}}}"
                finished = bool(rng.random() < 0.8)
                rollouts.append(FakeRollout([*map(ord, text)] + [0] * finished, finished))
        return rollouts


PROBLEMS = [Problem("q", i % 4, f"set/level-{i % 2}", i) for i in range(21)]
PROMPTS = [[i + 1] for i in range(21)]


def evaluate(sampler=None, problems=PROBLEMS, prompts=PROMPTS, **kwargs):
    settings = {"n": 3, "temperature": 1.0, "max_tokens": 50, "seed": 0, "tokenizer": FakeTokenizer(), "chunk": 4,
                "progress": False}
    return evaluation.evaluate(sampler or FakeSampler(), problems, prompts, **(settings | kwargs))


def test_numbers_follow_from_the_answers():
    r = evaluate()
    assert (r.n_problems, r.n_samples, len(r.answers)) == (21, 3, 63)
    assert [(a.index, a.sample) for a in r.answers] == [(i, s) for i in range(21) for s in range(3)]
    assert r.accuracy == np.mean([a.correct for a in r.answers]) and list(r.by_source) == ["set/level-0", "set/level-1"]
    for a in r.answers:
        assert a.length == len(a.text) + a.finished  # the end token is counted where there is one
        assert "\0" not in a.text
        if not a.finished:
            assert not a.correct and a.reason == "truncated"
        else:
            assert a.correct == a.text.endswith(f"{{{a.index % 4}}}")
    assert 0 < r.truncated < 1 and r.truncated == np.mean([not a.finished for a in r.answers])
    assert r.reasons["truncated"] == sum(not a.finished for a in r.answers)


def test_a_problem_has_the_same_answers_in_any_company():
    whole = {(a.index, a.sample): a for a in evaluate().answers}
    some = evaluate(problems=PROBLEMS[5:9][::-1], prompts=PROMPTS[5:9][::-1], chunk=3)
    assert all(a == whole[a.index, a.sample] for a in some.answers)
    other = evaluate(seed=1)
    assert [a.text for a in other.answers] != [a.text for a in whole.values()]


def test_a_restart_answers_only_what_is_missing_in_the_same_batches():
    whole, saved = FakeSampler(), []
    expected = evaluate(whole, save=saved.append)
    assert len(saved) == 6 and [a for part in saved for a in part] == expected.answers
    kept = saved[0] + saved[2] + saved[4][:-1]  # the fifth chunk was cut in the middle of writing
    again = FakeSampler()
    result = evaluate(again, done=kept)
    assert again.asked == [whole.asked[i] for i in (1, 3, 4, 5)]
    assert dataclasses.replace(result, seconds=0) == dataclasses.replace(expected, seconds=0)


TWO_RANKS = """
import json, sys
import torch.distributed as dist
from test_eval import evaluate, FakeSampler, as_json
rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=rank, world_size=2)
sampler = FakeSampler()
twice = [evaluate(sampler, rank=rank, world_size=2, seed=seed) for seed in (0, 1)]
with open(f"{sys.argv[1]}/{rank}.json", "w") as f:
    json.dump([len(sampler.asked), *(as_json(r) | {"texts": [a.text for a in r.answers]} for r in twice)], f)
dist.destroy_process_group()
"""


def test_two_ranks_equal_one(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO_RANKS)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path])}
    ranks = [subprocess.Popen([sys.executable, str(script), str(tmp_path), str(rank)], env=env) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    calls, results = zip(*((p[0], p[1:]) for p in (json.loads((tmp_path / f"{r}.json").read_text()) for r in (0, 1))),
                         strict=True)
    one = [json.loads(json.dumps(as_json(r) | {"texts": [a.text for a in r.answers]}))
           for r in (evaluate(seed=0), evaluate(seed=1))]
    assert results[0] == results[1] == one
    assert sum(calls) == 12  # six chunks an evaluation, each answered once


# ---------------------------------------------------------------------------------------------------- files, mistakes


def test_files_are_json_without_nan_and_one_line_an_answer(tmp_path):
    result = evaluate(problems=PROBLEMS[:1], prompts=PROMPTS[:1])
    assert math.isnan(result.accuracy_se)
    sets = evaluation.write_results(evaluation.Config(), result, tmp_path, 50, ["a note"])
    saved = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert list(sets) == list(saved["sets"]) == ["set"] and saved["config"]["max_tokens"] == 50
    assert saved["average"]["accuracy"] == {"plain": result.accuracy, "paper": None}
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [evaluation.Answer(**json.loads(line)) for line in lines] == result.answers
    assert sorted(p.name for p in tmp_path.iterdir()) == ["answers.jsonl", "results.json"]


@pytest.fixture
def plain_file(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"problem": "q", "answer": 1}')
    return str(path)


@pytest.mark.parametrize("flags, message", [
    (["--model", "/no/such/dir"], "/no/such/dir does not exist"),
    (["--model", "{tmp}"], "holds no config.json"),
    (["--samples", "0"], "--samples must be at least 1, got 0"),
    (["--top-p", "1.5"], "--top-p must be above 0 and at most 1, got 1.5"),
    (["--temperature", "-1"], "--temperature must be 0 or more"),
    (["--dataset", "math"], "unknown flag --dataset (did you mean --datasets?)"),
    (["--sampler", "sglang"], "'sglang'"),
    (["--datasets"], "--datasets"),
])
def test_mistakes_get_one_line_and_exit_code_2(capsys, tmp_path, flags, message):
    with pytest.raises(SystemExit) as stop:
        evaluation.main([flag.format(tmp=tmp_path) for flag in flags])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and message in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("datasets, message", [
    (["maths"], "unknown data set 'maths': did you mean math"),
    (["{tmp}/gone.parquet"], "gone.parquet: no such file"),
    (["{tmp}/own.jsonl", "{tmp}/own.jsonl"], "two of the data sets are called 'own'"),
    (["aime"], "nowhere/aime.parquet: no such file"),
])
def test_data_mistakes(plain_file, tmp_path, datasets, message):
    class Words:
        chat_template, bos_token_id = "", None

        def __call__(self, texts, add_special_tokens):
            return {"input_ids": [[1] * len(text) for text in texts]}

    names = tuple(d.format(tmp=tmp_path) for d in datasets)
    cfg = evaluation.Config(datasets=names, data_dir="nowhere", template=False)
    with pytest.raises(ValueError, match=message):
        evaluation.load_sets(cfg, Words())
