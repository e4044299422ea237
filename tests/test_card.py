"""rundir/card.py: a checkpoint is a model that others can load, with a card that says what it is."""

import json

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import config
import train
from conftest import ROOT
from minidrpo.engine.distributed import DistContext
from minidrpo.rundir import card, jsonl

SMALL = dict(
    prompts_per_step=2, group_size=2, max_response_tokens=16, max_problems=2, samples=2, micro_batch_tokens=512
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("card") / "secret-folder" / "run"
    cfg = config.make("tiny", "drpo", **SMALL, lam=0.25, steps=1, run_dir=str(directory))
    train.train(cfg, DistContext())
    return cfg


def test_the_card_of_a_checkpoint_says_what_it_is(run):
    found = ModelCard.load(run.directory / "checkpoints" / "step_1" / "README.md")
    assert found.data.library_name == "transformers" and found.data.pipeline_tag == "text-generation"
    assert "drpo" in found.data.tags and found.data.base_model is None  # no Hub id
    measured = {e.metric_type: e.metric_value for e in found.data.eval_results}
    last = jsonl.read(run.directory / "evals.jsonl")[-1]
    assert measured == {key: round(last[key], 4) for key in ("accuracy", "mean_length")}
    for words in (
        "arXiv 2510.04474",
        "| lam | `0.25` |",
        "| 0 | ",
        "| 1 | ",
        "torch 2.",
        "@article{drpo",
        "minidrpo/tiny",
    ):
        assert words in found.text, words


def test_no_folder_of_this_machine_is_on_it(run):
    text = (run.directory / "checkpoints" / "step_1" / "README.md").read_text()
    assert "secret-folder" not in text and str(ROOT) not in text


def test_a_checkpoint_loads_as_any_model_does(run):
    path = run.directory / "checkpoints" / "step_1"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    settings = GenerationConfig.from_pretrained(path)
    assert settings.eos_token_id in (tokenizer.eos_token_id, [tokenizer.eos_token_id])
    out = model.generate(**tokenizer("12+3=?", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert out.shape[-1] > 4


def test_a_base_from_the_hub_and_a_card_before_any_evaluation():
    cfg = config.make("r1-1.5b", "grpo-lp", run_dir="x")
    text = card.write(cfg, {}, [], 20)
    found = ModelCard(text)
    assert found.data.base_model == "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B" and found.data.eval_results is None
    assert "None yet." in text and "# DeepSeek-R1-Distill-Qwen-1.5B-grpo-lp" in text


def test_evaluations_after_the_checkpoint_are_not_its_own():
    row = {"accuracy": 0.5, "accuracy_se": 0.1, "mean_length": 10.0, "truncated": 0.0}
    text = card.write(config.make("tiny"), {}, [row | {"step": 0}, row | {"step": 10}], 5)
    assert "| 0 | 50.0 | 10.0 |" in text and "| 10 |" not in text.split("## Settings")[0]
    assert ModelCard(text).data.eval_results is None


def test_eval_writes_what_readers_of_the_evaluation_harness_know(tmp_path):
    import eval as evaluation

    words = f"--model {ROOT / 'minidrpo/tiny'} --output-dir {tmp_path} --max-problems 4 --samples 2"
    evaluation.main([*words.split(), "--max-response-tokens", "16"])
    found, own = (
        json.loads((tmp_path / "results_lm_eval.json").read_text()),
        json.loads((tmp_path / "results.json").read_text()),
    )
    ours = own["sets"]["arithmetic"]
    theirs = found["results"]["arithmetic"]
    assert theirs["exact_match,none"] == ours["accuracy"] and theirs["exact_match_stderr,none"] == ours["accuracy_se"]
    assert theirs["mean_length,none"] == ours["mean_length"] and found["n-samples"]["arithmetic"]["effective"] == 4
    keys = {"results", "configs", "versions", "n-shot", "n-samples", "higher_is_better", "config"}
    assert keys <= found.keys() and all(found[key].keys() == {"arithmetic"} for key in keys - {"config"})


def test_the_error_of_a_single_problem_is_an_empty_cell():
    row = {"step": 5, "accuracy": 0.5, "accuracy_se": None, "mean_length": 10.0, "truncated": 0.0}
    assert "| 5 | 50.0 |  | 10.0 | 0.0 |" in card.write(config.make("tiny"), {}, [row], 5)
