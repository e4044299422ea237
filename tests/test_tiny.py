"""The built-in task and the embedded model: disjoint splits, honest traces, exact text, and a base that overthinks."""

import ast
import random
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from minidrpo.tasks import arithmetic
from minidrpo.tiny import make_base

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "minidrpo" / "tiny"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(TINY).eval()


def value(expression):
    """Python's own parser as the oracle: the integer value of `17+25-8`, by walking its syntax tree."""

    def walk(node):
        if isinstance(node, ast.BinOp):
            left, right = walk(node.left), walk(node.right)
            return {ast.Add: left + right, ast.Sub: left - right}[type(node.op)]
        if isinstance(node, ast.UnaryOp):
            return -walk(node.operand)
        return ast.literal_eval(node)

    return walk(ast.parse(expression, mode="eval").body)


# ---- arithmetic.py --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_problems_are_right_graded_and_distinct(split):
    found = arithmetic.problems(1000, split=split, seed=3)
    assert len({text for text, _, _ in found}) == 1000
    for i, (text, answer, level) in enumerate(found):
        assert text.endswith("=?") and value(text[:-2]) == answer
        assert level + 1 == len(re.findall("[+-]", text)) and level == i % arithmetic.LEVELS + 1
        first, *operands = [int(n) for n in re.findall(r"\d+", text)]
        assert 1 <= first <= 99 and all(1 <= n <= 9 for n in operands)
        for end in (m.end() for m in re.finditer(r"\d+", text)):
            assert 0 <= value(text[:end]) <= 99, f"a partial result of {text} leaves 0..99"


def test_splits_are_disjoint_for_any_seeds():
    train = {t for seed in range(3) for t, _, _ in arithmetic.problems(1500, split="train", seed=seed)}
    test = {t for seed in range(3) for t, _, _ in arithmetic.problems(1500, split="test", seed=seed)}
    assert not train & test


def test_problems_are_a_pure_function_of_the_seed():
    longer, shorter = (arithmetic.problems(n, split="test", seed=1) for n in (60, 20))
    assert longer[:20] == shorter and shorter != arithmetic.problems(20, split="test", seed=2)
    code = "from minidrpo.tasks import arithmetic; print(arithmetic.problems(20, split='test', seed=1))"
    for hash_seed in ("0", "1"):  # a split that rested on Python's salted hash() would differ between processes
        out = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed},
        )
        assert ast.literal_eval(out.stdout) == shorter


@pytest.mark.parametrize("bad", [{"n": 5, "split": "dev"}, {"n": -1, "split": "test"}, {"n": 10**9, "split": "test"}])
def test_problems_refuses_what_it_cannot_give(bad):
    with pytest.raises(ValueError, match="arithmetic"):
        arithmetic.problems(**bad)


# ---- traces ---------------------------------------------------------------------------------------------------------


def test_tempered_probabilities_come_back_when_sampled_at_the_temperature():
    wanted = torch.tensor([0.1, 0.25, 0.65])
    sampled = (torch.tensor(make_base.tempered(wanted.tolist())).log() / make_base.TEMPERATURE).softmax(-1)
    torch.testing.assert_close(sampled, wanted)


def test_every_slip_is_a_mistake():
    for left in range(0, 120):
        for right in range(1, 100):
            assert make_base.slip(left, "+", right) != left + right
            assert make_base.slip(left, "-", right) != left - right
    assert make_base.slip(17, "+", 25) == 32, "the carry forgotten"
    assert make_base.slip(42, "-", 8) == 44, "the borrow forgotten"


def passes_of(response):
    """[(first operand, [(sign, operand, written result), ...]), ...] of a trace, by regular expressions alone."""
    found = []
    for line in response.partition("</think>")[0].split("\n"):
        body = re.search(r"(Quickly|Step by step): (\d+)(.*?)\.(?: |$)", line)
        found.append((int(body[2]), [(s, int(b), int(r)) for s, b, r in re.findall(r"([+-])(\d+)=(-?\d+)", body[3])]))
    return found


def test_traces_do_what_they_say():
    rng = random.Random(0)
    slipped = checked = 0
    for _ in range(500):
        first, steps = make_base.training_chain(rng)
        assert arithmetic.split_of(arithmetic.text_of(first, steps)) == "train"
        response, checks = make_base.trace(first, steps, rng)
        passes, results = passes_of(response), []
        assert len(passes) == checks + 1
        for start, lines in passes:
            assert start == first and [(s, b) for s, b, _ in lines] == steps, "a pass is about the problem"
            total = start
            for sign, right, result in lines:
                slipped += result != value(f"{total}{sign}{right}")
                total = result  # a slip is carried on
            results.append(total)
        verdicts = re.findall(r"(Same|Hmm, no)\.", response)
        assert verdicts == ["Same" if a == b else "Hmm, no" for a, b in zip(results, results[1:], strict=False)]
        answer = int(re.search(r"</think>\nThe answer is \\boxed\{(-?\d+)\}\.<eos>$", response)[1])
        assert results.count(answer) == max(map(results.count, results)), "the answer is what most passes say"
        checked += checks
    assert slipped > 100 and checked > 500, "traces must slip and check, or there is nothing to learn"


# ---- tokenizer ------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_text_comes_back_exactly(text):
    """Every text in Unicode's composed form (NFC, which Qwen's tokenizers bring their input to)."""
    text = unicodedata.normalize("NFC", text)
    tokenizer = make_base.make_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    if not any(marker in text for marker in make_base.MARKERS):
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_traces_come_back_exactly_from_the_committed_tokenizer(tokenizer):
    rng = random.Random(1)
    for _ in range(50):
        response, _ = make_base.trace(*make_base.training_chain(rng), rng)
        ids = tokenizer(response, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == response
        assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == response.removesuffix("<eos>"), "</think> stays"
        assert ids == make_base.make_tokenizer()(response)["input_ids"], "tiny/ is what make_base.py makes"


def test_chat_template_is_in_the_style_of_r1(tokenizer):
    chat = [{"role": "user", "content": "17+5-8=?"}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == "<|user|>17+5-8=?<|assistant|><think>\n"
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"] == tokenizer(text)["input_ids"]
    assert len(ids) == 2 + len("17+5-8=?") + 2, "a marker is one token, a character is one token, nothing is added"


# ---- model ----------------------------------------------------------------------------------------------------------


def test_model_is_small_untied_and_servable(model, tokenizer):
    config = model.config
    assert config.model_type == "qwen2" and not config.tie_word_embeddings
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()
    assert config.hidden_size // config.num_attention_heads in (32, 64), "vLLM's CPU build refuses 16"
    assert 3e5 <= sum(p.numel() for p in model.parameters()) <= 1e6
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert (TINY / "model.safetensors").stat().st_size <= 4e6 and not list(TINY.glob("*.bin"))
    assert config.vocab_size >= len(tokenizer)
    assert config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id


@pytest.mark.slow  # and the weights are committed
def test_base_overthinks(model, tokenizer):
    """The promises of the model card on 40 problems x 4, with room for so small a sample."""
    numbers, texts = make_base.measure(model, tokenizer, n_problems=40, n=4, seed=1)
    assert 0.35 < numbers["accuracy"] < 0.80
    assert numbers["accuracy_by_level"][5] < 0.55 < numbers["accuracy_by_level"][1]
    assert numbers["truncated"] < 0.03
    assert numbers["mixed_groups"] > 0.5
    assert numbers["length_std_in_group"] > 30 and abs(numbers["length_correct_correlation_in_group"]) < 0.3
    assert sum("Wait" in t or "Alternatively" in t or "Hmm" in t for t in texts) > 0.5 * len(texts)


def test_training_is_seeded_and_learns_only_the_response(tokenizer):
    def weights(seed):
        torch.manual_seed(seed)
        fresh = make_base.make_model(tokenizer, 32, 1)
        make_base.train(fresh, tokenizer, steps=2, batch=4, lr=1e-3, seed=seed)
        return torch.cat([p.detach().flatten() for p in fresh.parameters()])

    assert torch.equal(weights(0), weights(0)) and not torch.equal(weights(0), weights(1))
    ids, labels = next(make_base.training_batches(tokenizer, 1, 4, random.Random(0)))
    for row, target in zip(ids.tolist(), labels.tolist(), strict=True):
        start = len(row) - row[::-1].index(tokenizer.convert_tokens_to_ids("<think>")) + 1  # after `<think>\n`
        assert all(t == -100 for t in target[:start])
        assert [t for t in target[start:] if t != -100] == [t for t in row[start:] if t != tokenizer.pad_token_id]
