"""eval.py: lengths, truncation, seeds, one rank equal to two, a restart equal to no restart, user mistakes."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import eval as evaluation
from minidrpo import cli
from minidrpo.records import GradedResponse, Problem
from minidrpo.rundir import results
from minidrpo.rundir.metrics import as_json

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class FakeRollout:
    response_ids: list
    finished: bool


class FakeTokenizer:
    """Token ids are characters; 0 ends a response."""

    def decode(self, ids, **kwargs):
        return "".join(map(chr, ids))


class FakeSampler:
    """Responds to every prompt with a box of 0 to 3 after a random thought; about one in five is truncated."""

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
    settings = {
        "samples": 3,
        "temperature": 1.0,
        "max_response_tokens": 50,
        "seed": 0,
        "tokenizer": FakeTokenizer(),
        "chunk": 4,
        "progress": False,
    }
    return evaluation.evaluate(sampler or FakeSampler(), problems, prompts, **(settings | kwargs))


def test_numbers_follow_from_the_responses():
    result = evaluate()
    assert (result.n_problems, result.n_samples, len(result.responses)) == (21, 3, 63)
    assert [(r.index, r.sample) for r in result.responses] == [(i, s) for i in range(21) for s in range(3)]
    assert result.accuracy == np.mean([r.correct for r in result.responses])
    assert list(result.by_source) == ["set/level-0", "set/level-1"]
    short = np.mean([r.correct and r.length <= 22 for r in result.responses])
    assert evaluate(max_response_tokens=88).accuracy_at_budget[0.25] == short and 0 < short < result.accuracy
    for r in result.responses:
        assert r.length == len(r.response) + r.finished  # the end token is counted where there is one
        assert "\0" not in r.response
        if not r.finished:
            assert not r.correct and r.reason == "truncated"
        else:
            assert r.correct == r.response.endswith(f"{{{r.index % 4}}}")
    assert 0 < result.truncated < 1 and result.truncated == np.mean([not r.finished for r in result.responses])
    assert result.reasons["truncated"] == sum(not r.finished for r in result.responses)


def test_a_problem_has_the_same_responses_in_any_company():
    whole = {(r.index, r.sample): r for r in evaluate().responses}
    some = evaluate(problems=PROBLEMS[5:9][::-1], prompts=PROMPTS[5:9][::-1], chunk=3)
    assert all(r == whole[r.index, r.sample] for r in some.responses)
    other = evaluate(seed=1)
    assert [r.response for r in other.responses] != [r.response for r in whole.values()]


def test_a_restart_samples_only_what_is_missing_in_the_same_batches():
    whole, saved = FakeSampler(), []
    expected = evaluate(whole, save=saved.append)
    assert len(saved) == 6 and [r for part in saved for r in part] == expected.responses
    kept = saved[0] + saved[2] + saved[4][:-1]  # the fifth chunk was cut in the middle of writing
    again = FakeSampler()
    result = evaluate(again, done=kept)
    assert again.asked == [whole.asked[i] for i in (1, 3, 4, 5)]
    assert dataclasses.replace(result, seconds=0) == dataclasses.replace(expected, seconds=0)


TWO_RANKS = """
import json, sys
import torch.distributed as dist
from minidrpo.engine.distributed import DistContext
from test_eval import evaluate, FakeSampler, as_json
rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=rank, world_size=2)
sampler = FakeSampler()
twice = [evaluate(sampler, ctx=DistContext(rank, 2), seed=seed) for seed in (0, 1)]
with open(f"{sys.argv[1]}/{rank}.json", "w") as f:
    json.dump([len(sampler.asked), *(as_json(r) | {"texts": [x.response for x in r.responses]} for r in twice)], f)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO_RANKS)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path])}
    ranks = [subprocess.Popen([sys.executable, str(script), str(tmp_path), str(rank)], env=env) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    calls, results = zip(
        *((p[0], p[1:]) for p in (json.loads((tmp_path / f"{r}.json").read_text()) for r in (0, 1))), strict=True
    )
    one = [
        json.loads(json.dumps(as_json(r) | {"texts": [x.response for x in r.responses]}))
        for r in (evaluate(seed=0), evaluate(seed=1))
    ]
    assert results[0] == results[1] == one
    assert sum(calls) == 12  # six chunks per evaluation, each sampled once


# ---------------------------------------------------------------------------------------------------- files, mistakes


def test_files_are_json_without_nan_and_one_line_per_response(tmp_path):
    result = evaluate(problems=PROBLEMS[:1], prompts=PROMPTS[:1])
    assert math.isnan(result.accuracy_se)
    counted = {"set": {"thought_of_w": lambda text: text.startswith("w")}, "another": {"x": len}}
    sets, _, scores = results.write_results(evaluation.Config(), result, tmp_path, 50, ["a note"], features=counted)
    saved = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert (
        scores is None and list(sets) == list(saved["sets"]) == ["set"] and saved["config"]["max_response_tokens"] == 50
    )
    assert saved["sets"]["set"]["thought_of_w"] == 1.0 and saved["sets"]["set"]["accuracy_at_budget"]["1.0"] > 0
    assert saved["average"]["plain"]["accuracy"] == result.accuracy and saved["average"]["paper"]["accuracy"] is None
    lines = (tmp_path / "responses.jsonl").read_text().splitlines()
    assert [GradedResponse(**json.loads(line)) for line in lines] == result.responses
    assert sorted(p.name for p in tmp_path.iterdir()) == ["responses.jsonl", "results.json", "results_lm_eval.json"]


@pytest.fixture
def plain_file(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"problem": "q", "answer": 1}')
    return str(path)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--model", "/no/such/dir"], "/no/such/dir does not exist"),
        (["--model", "{tmp}"], "holds no config.json"),
        (["--samples", "0"], "--samples must be 1 or more, got 0"),
        (["--top-p", "1.5"], "--top-p must be in (0, 1], got 1.5"),
        (["--temperature", "-1"], "--temperature must be 0 or more"),
        (["--dataset", "math"], "unknown flag --dataset (did you mean --datasets?)"),
        (["--sampler", "sglang"], "'sglang'"),
        (["--datasets"], "--datasets"),
        (["--datasets", "math", "--datasets", "aime"], "--datasets is given twice"),
        (["--output-dir", ""], "--output-dir must be a name, got ''"),
        (["--reference="], "--reference must be a name, got ''"),
        (["--exceed", "-5"], "--exceed must be 0 or more, got -5"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(capsys, tmp_path, flags, message):
    with pytest.raises(SystemExit) as stop:
        evaluation.main([flag.format(tmp=tmp_path) for flag in flags])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and message in err and err.startswith("error: ") and err.count("\n") == 1


def test_older_names_of_flags_still_work_with_a_note(capsys):
    old = ["--max-tokens", "70", "--limit=3", "--eval-samples", "2", "--eval_top_p=0.5"]
    new = ["--max-response-tokens", "70", "--max-problems=3", "--samples", "2", "--top-p=0.5"]
    assert cli.parse(evaluation.Config, old) == cli.parse(evaluation.Config, new)
    assert capsys.readouterr().err.splitlines() == [
        "note: --max-tokens is called --max-response-tokens now",
        "note: --limit is called --max-problems now",
        "note: --eval-samples is called --samples now",
        "note: --eval_top_p is called --top-p now",
    ]
    known = {cli.flag_of(field.name) for field in dataclasses.fields(evaluation.Config)}
    of_train = {"--track=tensorboard"}
    assert set(cli.RENAMED.values()) - of_train <= known and not set(cli.RENAMED) & known


@pytest.mark.parametrize(
    "datasets, message",
    [
        (["maths"], "unknown data set 'maths': did you mean math"),
        (["{tmp}/gone.parquet"], "gone.parquet: no such file"),
        (["{tmp}/own.jsonl", "{tmp}/own.jsonl"], "two of the data sets are called 'own'"),
        (["aime"], "nowhere/aime.parquet: no such file"),
    ],
)
def test_data_mistakes(plain_file, tmp_path, datasets, message):
    names = tuple(d.format(tmp=tmp_path) for d in datasets)
    cfg = evaluation.Config(datasets=names, data_dir="nowhere", template=False)
    with pytest.raises(ValueError, match=message):
        evaluation.load_sets(cfg, Words())


class Words:
    chat_template, bos_token_id = "", None

    def __call__(self, texts, add_special_tokens):
        return {"input_ids": [[1] * len(text) for text in texts]}


def test_rows_without_a_truth_stop_the_run_or_are_left_out_and_counted(tmp_path):
    rows = [{"problem": "q", "answer": a} for a in (1, None, 2, "", 3)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cfg = evaluation.Config(datasets=(str(tmp_path / "own.jsonl"),), template=False)
    with pytest.raises(ValueError, match="row 1, column 'answer': no truth .*--skip-unanswered"):
        evaluation.load_sets(cfg, Words())
    problems, _, (note,) = evaluation.load_sets(dataclasses.replace(cfg, skip_unanswered=True), Words())
    assert [p.truth for p in problems] == [1, 2, 3] and "2 rows without a truth" in note


def test_progress_in_a_log_file_is_a_line_now_and_then(capsys):
    evaluate(progress=True, chunk=1)
    err = capsys.readouterr().err  # pytest's is no terminal
    assert err.count("evaluate") <= 2


# ---------------------------------------------------------------------------------------------------- the whole command


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A random two-layer Llama with a character tokenizer and a chat template, saved as a Hugging Face directory."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    vocab = {"<end>": 0, "?": 1} | {c: i for i, c in enumerate("0123456789+-*= ABU", start=2)}
    core = Tokenizer(models.WordLevel(vocab, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    template = "{% for m in messages %}U{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}A{% endif %}"
    path = tmp_path_factory.mktemp("model")
    PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<end>", unk_token="?", chat_template=template
    ).save_pretrained(path)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocab),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=1,
            num_key_value_heads=1,
            max_position_embeddings=48,
            tie_word_embeddings=False,
            eos_token_id=0,
            bos_token_id=None,
        )
    ).save_pretrained(path)
    return str(path)


def command(tiny_model, tmp_path, *flags):
    rows = [{"problem": f"{i}+{i}=", "answer": 2 * i} for i in range(7)]
    for name in ("own", "gsm8k"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return [
        "--model",
        tiny_model,
        "--datasets",
        str(tmp_path / "own.jsonl"),
        str(tmp_path / "gsm8k.jsonl"),
        "--suffix",
        "",
        "--samples",
        "3",
        "--chunk",
        "2",
        "--output-dir",
        str(tmp_path / "out"),
        *flags,
    ]


def files(directory):
    return {p.name: p.read_text() for p in directory.iterdir()}


def test_command_from_end_to_end_and_after_a_kill(tiny_model, tmp_path, capsys):
    argv = command(tiny_model, tmp_path)
    evaluation.main(argv)
    out, err = capsys.readouterr()
    whole = files(tmp_path / "out")
    results = {"results.json", "results_lm_eval.json"}
    assert set(whole) == {"config.json", "problems.jsonl", "responses.jsonl", "report.html"} | results
    assert "own" in out and "pass@1" in out and "responses end at 42 tokens, not 8192" in err
    results = json.loads(whole["results.json"], parse_constant=pytest.fail)
    assert results["config"]["max_response_tokens"] == 42 and list(results["sets"]) == ["own", "gsm8k"]
    assert results["sets"]["own"]["n_problems"] == 7 and results["average"]["paper"]["accuracy"] is None

    # As a kill leaves it: two ranks' parts, one with a torn line, a chunk of two problems half there, no results
    lines = whole["responses.jsonl"].splitlines()
    (tmp_path / "out" / "responses.jsonl").unlink()
    (tmp_path / "out" / "results.json").unlink()
    (tmp_path / "out" / "responses.part-0.jsonl").write_text("\n".join([*lines[:9], lines[9][:50]]))
    (tmp_path / "out" / "responses.part-1.jsonl").write_text("\n".join(lines[12:18]) + "\n")
    evaluation.main(argv)
    assert files(tmp_path / "out") == whole
    assert "15 of 42 responses are there already" in capsys.readouterr().err

    # Strangers among the responses, and one whose grade is no grade: neither counts, and only that one is sampled again
    good = [json.loads(line) for line in lines]
    strange = [{"sample": 99}, {"index": 77}, {"source": "math"}, {"sample": True}, {"length": -1}, {"answer": 4}]
    records = [good[0] | {"correct": "no"}, *good[1:], *(good[3] | change for change in strange)]
    (tmp_path / "out" / "responses.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    evaluation.main(argv)
    assert files(tmp_path / "out") == whole
    assert "41 of 42 responses are there already" in capsys.readouterr().err

    # Everything is there: the model is not even loaded
    records = [*good, *(good[3] | change for change in strange)]
    (tmp_path / "out" / "responses.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    moved = command(tiny_model, tmp_path, "--reference", str(tmp_path / "out"), "--exceed", "10")
    evaluation.main(moved)
    again = json.loads(files(tmp_path / "out")["results.json"])
    lengths = [r["length"] for r in map(json.loads, lines) if r["source"] == "own"]
    assert again["exceed"]["own"] == np.mean([n > 10 for n in lengths]) and again["exceed"]["tokens"] == 10
    assert "AES against" in capsys.readouterr().out
    assert again["aes"]["constants"] == {"a": 1, "b": 3, "c": 10} and again["sets"] == results["sets"]


def test_another_question_in_the_same_directory_is_refused(tiny_model, tmp_path, capsys):
    out = tmp_path / "out"
    evaluation.main(command(tiny_model, tmp_path))
    other_model = tmp_path / "other"
    shutil.copytree(tiny_model, other_model)
    weights = bytearray((other_model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other_model / "model.safetensors").write_bytes(weights)
    capsys.readouterr()
    for flags, message in [
        (["--seed", "1"], "holds responses with --seed 0 (now 1)"),
        (["--top-p", "1", "--samples", "4"], "holds responses with --samples 3 (now 4), --top-p 0.95 (now 1.0)"),
        (["--max-problems", "3"], "holds responses of other prompts"),
        (["--model", str(other_model)], "holds responses of other weights"),
    ]:
        before = files(out)
        with pytest.raises(SystemExit) as stop:
            evaluation.main(command(tiny_model, tmp_path, *flags))
        err = capsys.readouterr().err
        assert stop.value.code == 2 and message in err and err.count("\n") == 1, err
        assert files(out) == before


def test_output_and_reference_mistakes(tiny_model, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "responses.jsonl").write_text("")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "results.json").write_text('{"sets": {}}')
    (tmp_path / "words").mkdir()
    row = {"accuracy": "most", "mean_length": 3}
    words = {"sets": {"a": row}, "average": {"plain": row, "paper": row}, "config": {"model": "m"}}
    (tmp_path / "words" / "results.json").write_text(json.dumps(words))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text("3")
    (tmp_path / "model").mkdir()
    shutil.copy(Path(tiny_model) / "config.json", tmp_path / "model")
    for flags, message in [
        (["--output-dir", str(tmp_path / "file")], "file cannot be used"),
        (["--output-dir", str(tmp_path / "strange")], "holds responses but no config.json"),
        (["--reference", str(tmp_path / "gone")], "gone: no results.json there"),
        (["--reference", str(tmp_path / "half")], "not the results of an evaluation"),
        (["--reference", str(tmp_path / "words")], "not the results of an evaluation"),
        (["--output-dir", str(tmp_path / "odd")], "config.json is not a configuration"),
        (["--output-dir", str(tmp_path / "model")], "config.json is not of an evaluation: take another"),  # it was lost
        (["--max-prompt-tokens", "2"], "none of 7 prompts fits in 2 tokens, the shortest has 6"),
        (["--model", str(tmp_path / "model")], "no tokenizer at"),
    ]:
        with pytest.raises(SystemExit) as stop:
            evaluation.main(command(tiny_model, tmp_path, *flags))
        err = capsys.readouterr().err
        assert stop.value.code == 2 and message in err and err.count("\n") == 1, err


# ---------------------------------------------------------------------------------------------------- starting again


def test_a_start_that_came_to_nothing_claims_nothing(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # vLLM is not installed
    with pytest.raises(SystemExit):
        evaluation.main(command(tiny_model, tmp_path, "--sampler", "vllm"))
    assert "vLLM is not installed" in capsys.readouterr().err
    monkeypatch.undo()
    for flags in (["--temperature", "0.9"], []):  # another setting, and nothing was sampled with the first
        with monkeypatch.context() as broken:
            broken.setattr(evaluation, "evaluate", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(SystemExit):
                evaluation.main(command(tiny_model, tmp_path, *flags))
    evaluation.main(command(tiny_model, tmp_path))
    with pytest.raises(SystemExit):
        evaluation.main(command(tiny_model, tmp_path, "--temperature", "0.9"))
    assert "holds responses with --temperature 0.6 (now 0.9)" in capsys.readouterr().err


def test_a_home_directory_behind_an_equals_sign(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = evaluation.Config(model="~/m", output_dir="~/e", reference="~/r", data_dir="~/d")
    assert [asked.model, asked.output_dir, asked.reference, asked.data_dir] == [f"{tmp_path}/{x}" for x in "merd"]
    argv = [word for word in command(tiny_model, tmp_path)]
    argv[argv.index("--output-dir") : argv.index("--output-dir") + 2] = ["--output-dir=~/e"]
    evaluation.main(argv)
    assert (tmp_path / "e" / "results.json").exists() and not (tmp_path / "~").exists()


def test_an_evaluation_goes_on_the_next_day_with_the_first_days_prompts(tiny_model, tmp_path, capsys):
    model = tmp_path / "dated"
    shutil.copytree(tiny_model, model)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    dated = "{{ strftime_now('%d%m%Y') }}{{ messages[0]['content'] }}"
    (model / "chat_template.jinja").unlink(missing_ok=True)
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": dated}))
    argv = [word for word in command(str(model), tmp_path) if word != "--no-template"]
    evaluation.main(argv)
    output = Path(argv[argv.index("--output-dir") + 1])
    asked = json.loads((output / "config.json").read_text())
    (output / "responses.jsonl").rename(output / "responses.part-0.jsonl")
    evaluation.main(argv)  # on the same day
    capsys.readouterr()
    asked["date"] = "2001-02-03T00:00:00"  # as if all had begun then: the prompts are others, and it is noticed
    (output / "config.json").write_text(json.dumps(asked))
    with pytest.raises(SystemExit):
        evaluation.main(argv)
    assert "other prompts" in capsys.readouterr().err
