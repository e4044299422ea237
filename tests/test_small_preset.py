"""The preset `small`, its whole path on the CPU: the same architecture at toy width, GSM8K's columns in local files."""

import dataclasses
import json
import random

import pytest
import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

import config
import eval as evaluation
import train
from minidrpo.engine import loading, memory
from minidrpo.engine.distributed import DistContext
from minidrpo.rundir import checkpoint, jsonl
from minidrpo.tasks import data

SMALL = config.make("small")
TOY = dict(prompts_per_step=8, group_size=4, max_problems=8, samples=2, max_response_tokens=16, eval_every=2, lr=1e-3)
CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "  # knows no <think>


def gsm8k(path, n, seed):
    """A file in GSM8K's columns; every third guess among 1, 2, 3 is right."""
    g = random.Random(seed)
    truths = [g.choice("123") for _ in range(n)]
    rows = [{"question": f"What is {i}?", "answer": f"It is <<{t}={t}>>{t}.\n#### {t}"} for i, t in enumerate(truths)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def teach(model, tokenizer, prompts):
    """A few supervised steps: it then guesses a digit in the form asked for, as an instruction model would."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(60):
        ids = prompts[step % len(prompts)]
        said = [tokenizer.encode(f"\\boxed{{{d}}}") + [tokenizer.eos_token_id] for d in "123"]
        rows = torch.tensor([ids + answer for answer in said])
        logits = model(rows).logits[:, len(ids) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, len(ids) :].flatten())
        loss.backward(), optimizer.step(), optimizer.zero_grad()
    return loss.item()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    tokenizer = loading.load_tokenizer(config.TINY_MODEL)
    tokenizer.chat_template = CHAT
    torch.manual_seed(0)
    shapes = dict(hidden_size=64, num_hidden_layers=2, intermediate_size=96, num_attention_heads=2)
    shapes |= dict(num_key_value_heads=1, vocab_size=288, tie_word_embeddings=True, max_position_embeddings=512)
    ends = dict(bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
    model = Qwen2ForCausalLM(Qwen2Config(**shapes, **ends, use_sliding_window=False))
    train_data, eval_data = gsm8k(folder / "train.jsonl", 40, 0), gsm8k(folder / "test.jsonl", 12, 1)
    problems = data.load_problems(train_data)
    _, prompts, _ = data.encode_prompts(
        problems, tokenizer, max_tokens=SMALL.max_prompt_tokens, template=True, suffix=SMALL.suffixes
    )
    assert teach(model, tokenizer, prompts) < 0.5
    # As Qwen's own: settings for chat, which neither sampler may follow
    model.generation_config = GenerationConfig(repetition_penalty=1.1, top_k=20, top_p=0.8, do_sample=True, **ends)
    model.save_pretrained(folder / "model"), tokenizer.save_pretrained(folder / "model")
    return dict(model=str(folder / "model"), train_data=train_data, eval_data=eval_data)


@pytest.mark.slow
def test_load_train_save_resume_evaluate(files, tmp_path):
    for steps in (2, 3):
        cfg = dataclasses.replace(SMALL, **files, **TOY, steps=steps, run_dir=str(tmp_path / "run"))
        train.train(cfg, DistContext())
    rows = jsonl.read(tmp_path / "run" / "metrics.jsonl")
    assert [r["step"] for r in rows] == [1, 2, 3] and all(r["grad_norm"] > 0 and r["sampler_gap"] < 1e-4 for r in rows)
    assert all(0 < r["mixed_groups"] and r["reasons"].keys() <= {"correct", "wrong", "no_answer"} for r in rows), rows
    assert [e["step"] for e in jsonl.read(tmp_path / "run" / "evals.jsonl")] == [0, 2, 3]
    path = checkpoint.newest(tmp_path / "run")
    before, after = (loading.load_model(p).model.embed_tokens.weight for p in (files["model"], path))
    assert path.name == "step_3" and (before - after).abs().max() > 1e-4
    evaluation.main(
        [f"--model={path}", f"--datasets={files['eval_data']}", f"--output-dir={tmp_path / 'eval'}", "--samples=2"]
        + ["--max-response-tokens=16", "--max-problems=6"]
    )
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    result = results["sets"]["test"]
    assert 0 < result["accuracy"] < 1 and result["truncated"] < 0.5, result


def test_it_fits_where_it_says():
    """One GPU of 16 GB (15 GiB, as the smallest of them has) or more, with vLLM beside the trainer; R1 does not."""
    for gib in (15, 16, 22, 24, 40, 80):
        assert memory.reason_not_to_fit(SMALL, 1, gib * memory.GIB) is None, gib
    assert memory.reason_not_to_fit(config.R1_1_5B, 1, 24 * memory.GIB)
    assert memory.read_shapes(SMALL.model).parameters == 494_032_768  # its model page's count
    assert memory.read_shapes("Qwen/Qwen2.5-1.5B-Instruct").parameters == 1_543_714_304


def test_gsm8k_comes_from_the_hub_or_a_file(files):
    asked = []

    class Rows(list):
        def to_list(self):
            return list(self)

    def load(*names, split):
        asked.append((*names, split))
        return Rows(data.read_rows(files["train_data"]))

    for spec in (SMALL.train_data, SMALL.eval_data):
        rows, where = data.hub_rows(spec, "validation", load)
        problems = data.rows_to_problems(rows, "gsm8k", where)
        assert [p.truth for p in problems] == [p.truth for p in data.load_problems(files["train_data"])]
    assert asked == [("openai/gsm8k", "main", "train"), ("openai/gsm8k", "main", "test")]
