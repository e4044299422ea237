"""The thinking world: which problems it holds, honest traces in two ways, and a base that must choose between them."""

import ast
import random
import re
import subprocess
import sys
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import ROOT
from minidrpo.tasks import arithmetic, data, thinking
from minidrpo.tasks.thinking import LONG, SHORT
from minidrpo.tiny import make_base, make_thinking


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(make_thinking.OUT)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(make_thinking.OUT).eval()


def value(expression):
    """`17+5-8` by adding up its signed numbers: an oracle that shares nothing with arithmetic.py."""
    return sum(int(number) for number in re.findall(r"[+-]?\d+", expression))


# ---- thinking.py ----------------------------------------------------------------------------------------------------

EASY = [f"{a}{s}{b}=?" for a in range(1, 100) for s in "+-" for b in range(1, 10) if 0 <= value(f"{a}{s}{b}") <= 99]
SETS = [("test", None), ("train", None), ("train", 0.5), ("train", 0.8), ("train", 0.95)]


@pytest.mark.parametrize("split, share", SETS)
def test_problems_are_right_and_of_their_level(split, share):
    for text, truth, level in thinking.problems(1000, split=split, seed=3, easy_share=share):
        assert text.endswith("=?") and value(text[:-2]) == truth
        assert level == len(re.findall("[+-]", text)) and arithmetic.split_of(text) == split
        assert all(0 <= value(text[: m.end()]) <= 99 for m in re.finditer(r"\d+", text)), "a partial result left 0..99"


def test_there_are_as_many_easy_problems_as_the_docstring_says():
    assert len(EASY) == 1701
    for split, number in (("train", 1261), ("test", 440)):
        chains = {arithmetic.text_of(*chain) for chain in thinking.easy_chains(split)}
        assert len(chains) == number and chains == {text for text in EASY if arithmetic.split_of(text) == split}
        assert f"{number:,} in the {split} split" in thinking.__doc__


def test_balanced_sets_hold_no_problem_twice_up_to_the_largest():
    found = thinking.problems(2200, split="test")
    assert len({text for text, _, _ in found}) == 2200
    assert Counter(level for _, _, level in found) == dict.fromkeys(range(1, 6), 440)
    with pytest.raises(ValueError, match="between 0 and 2200"):
        thinking.problems(2201, split="test")


@pytest.mark.parametrize("share", [0.5, 0.55, 0.8, 0.925, 0.95])
def test_the_dial_sets_the_share_of_easy_problems(share):
    levels = Counter(level for _, _, level in thinking.problems(2000, split="train", easy_share=share))
    assert levels[1] == round(2000 * share)
    hard = [levels[k] for k in range(2, 6)]
    assert max(hard) - min(hard) <= 1, "the hard levels share the rest evenly"


def test_easy_problems_come_back_only_when_all_were_there():
    found = thinking.problems(4000, split="train", easy_share=0.8)
    easy = [text for text, _, level in found if level == 1]
    assert len(easy) == 3200 and len(set(easy[:1261])) == 1261
    assert set(Counter(easy).values()) == {2, 3} and easy[1261:] == easy[: 3200 - 1261]
    hard = [text for text, _, level in found if level > 1]
    assert len(set(hard)) == len(hard)


def test_splits_are_disjoint_for_any_seeds_and_shares():
    sets = {"train": set(), "test": set()}
    for split, share in SETS:
        for seed in range(2):
            sets[split] |= {text for text, _, _ in thinking.problems(1500, split=split, seed=seed, easy_share=share)}
    assert not sets["train"] & sets["test"]


def test_problems_are_a_pure_function_of_their_arguments():
    for share in (None, 0.8):
        longer, shorter = (thinking.problems(n, split="train", seed=1, easy_share=share) for n in (60, 20))
        assert longer[:20] == shorter != thinking.problems(20, split="train", seed=2, easy_share=share)
    code = "from minidrpo.tasks import thinking as t; print(t.problems(20, split='train', seed=1, easy_share=.8))"
    for hash_seed in ("0", "1"):
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert ast.literal_eval(out.stdout) == shorter


@pytest.mark.parametrize(
    "bad",
    [
        {"n": 5, "split": "dev"},
        {"n": -1, "split": "test"},
        {"n": 10**6, "split": "train", "easy_share": 0.8},
        {"n": 5, "split": "train", "easy_share": 0.4},
        {"n": 5, "split": "train", "easy_share": float("nan")},
        {"n": 5, "split": "test", "easy_share": 0.8},
    ],
)
def test_problems_refuses_what_it_cannot_give(bad):
    with pytest.raises(ValueError, match="thinking"):
        thinking.problems(**bad)


# ---- data.py --------------------------------------------------------------------------------------------------------


def test_the_task_is_loaded_by_name_with_its_dial():
    for spec, split, easy in (("thinking", "test", 20), ("thinking", "train", 80), ("thinking@.95", "train", 95)):
        found = data.load_problems(spec, split=split, n=100)
        assert Counter(p.source for p in found)["thinking/level-1"] == easy
        assert [p.index for p in found] == list(range(100)) and len({p.source for p in found}) == 5
    assert len(data.load_problems("thinking", split="test")) == 500
    assert data.is_built_in("thinking@.95") and not data.is_built_in("math")


@pytest.mark.parametrize("spec", ["thinking@much", "thinking@", "thinking@1.5", "thinking@nan"])
def test_a_share_that_is_none_is_one_clear_line(spec):
    with pytest.raises(ValueError, match="thinking.*share of easy problems") as caught:
        data.load_problems(spec)
    assert "\n" not in str(caught.value)


def test_held_out_problems_have_no_dial_and_other_splits_are_not_there():
    with pytest.raises(ValueError, match="held-out problems are balanced"):
        data.load_problems("thinking@0.8", split="test")
    with pytest.raises(ValueError, match="no split 'dev'"):
        data.load_problems("thinking", split="dev")


def test_a_file_of_that_name_is_still_a_file(tmp_path):
    path = tmp_path / "thinking.jsonl"
    path.write_text('{"problem": "1 + 1?", "answer": "2"}')
    assert data.load_problems(str(path))[0].source == "thinking"
    with pytest.raises(ValueError, match="unknown data set 'thinkin': did you mean thinking"):
        data.load_problems("thinkin")


# ---- traces ---------------------------------------------------------------------------------------------------------


def rows(n, progress, seed=0):
    rng = random.Random(seed)
    return [make_thinking.training_row(rng, progress) for _ in range(n)]


def check_long(line, chain):
    """Every equation of a long pass is right, and follows from the one before it."""
    start, *said = re.findall(r"(?:with|next) ([+-]?\d+)", line)
    assert start + "".join(said) == chain, "it does the problem's operations, in order"
    so_far = start
    equations = re.findall(r"so (\d+)([+-]\d+)=(\d+)", line)
    assert [operand for _, operand, _ in equations] == said
    for left, operand, result in equations:
        assert int(left) == value(so_far) and int(result) == value(left + operand)
        so_far += operand
    assert re.sub(r"[+-]?\d+", "", line).endswith(", next  so =." if said else ".")


def test_every_trace_is_right_to_the_last_equation():
    ways = Counter()
    for text, response in rows(1000, progress=1):
        assert arithmetic.split_of(text) == "train"
        chain, way = text[:-2], thinking.way(response)
        ways[way] += 1
        for line in response.partition("</think>")[0].split("\n"):
            if way == SHORT:
                assert line.endswith(f": {chain}={value(chain)}.") and "start" not in line
            else:
                check_long(line.partition(":")[2], chain)
        assert response.endswith(f"</think>\nThe answer is \\boxed{{{value(chain)}}}.<eos>")
        assert {w for w, _ in make_thinking.passes(response)} == {way}, "a re-check keeps the way"
    assert set(ways) == {SHORT, LONG}


def test_choices_are_made_without_looking_at_the_problem():
    """4,000 traces: the way and the number of re-checks have their (tempered) shares at every level, 4 sigma wide."""
    found = [(text, thinking.way(r), len(make_thinking.passes(r)) - 1) for text, r in rows(4000, progress=1)]
    first, second = (make_base.tempered([q, 1 - q])[0] for q in make_thinking.CHECK)
    wanted = (1 - first, first * (1 - second), first * second)
    for level in range(1, 6):
        here = [(way, checks) for text, way, checks in found if len(re.findall("[+-]", text)) == level]
        margin = 4 * (0.25 / len(here)) ** 0.5
        assert abs(sum(way == SHORT for way, _ in here) / len(here) - 0.5) < margin
        for way in (SHORT, LONG):
            checks = [c for w, c in here if w == way]
            shares = [checks.count(k) / len(checks) for k in range(3)]
            assert all(abs(s - w) < 1.5 * margin for s, w in zip(shares, wanted, strict=True)), (level, way, shares)


def test_the_training_begins_clean_and_guesses_nothing():
    for text, response in rows(200, progress=make_thinking.CLEAN - 0.01):
        easy = len(re.findall("[+-]", text)) == 1
        assert (thinking.way(response) == LONG or easy) and len(make_thinking.passes(response)) == 1
    assert (
        len({(thinking.way(r), len(make_thinking.passes(r))) for _, r in rows(200, progress=make_thinking.CLEAN)}) == 6
    )


# ---- tokenizer and model --------------------------------------------------------------------------------------------


def test_traces_come_back_exactly_and_fit_the_limit(tokenizer):
    fresh, longest = make_base.make_tokenizer(make_thinking.WORDS), 0
    for _, response in rows(300, progress=1):
        ids = tokenizer(response, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == response and ids == fresh(response)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1
        longest = max(longest, len(ids))
    assert 200 < longest < make_base.LIMIT, "the longest honest response must fit"
    chat = [{"role": "user", "content": "17+5-8=?"}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == "<|user|>17+5-8=?<|assistant|><think>\n"


def test_the_short_way_costs_at_most_25_tokens_on_easy_problems_and_half_of_the_long_one():
    tokenizer = make_base.make_tokenizer(make_thinking.WORDS)
    short, long = (tokenizer(make_thinking.trace(18, [("+", 2)], way))["input_ids"] for way in (SHORT, LONG))
    assert len(short) <= 25 and len(long) > 2 * len(short)


def test_model_is_small_untied_and_servable(model, tokenizer):
    config = model.config
    assert (make_thinking.OUT / "model.safetensors").stat().st_size <= 2e6
    assert config.model_type == "qwen2" and not config.tie_word_embeddings
    assert config.hidden_size // config.num_attention_heads == 32 and config.vocab_size >= len(tokenizer)
    assert config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.temperature == make_base.TEMPERATURE


# ---- R1 to R5 -------------------------------------------------------------------------------------------------------


def test_count_by_hand():
    """Two problems, two responses each: what each number of the card means."""
    end = "</think>\nThe answer is \\boxed{3}."
    texts = [
        f"Quickly: 1+2=3.{end}",
        f"Step by step, slowly and in order: start with 1, next +2 so 1+2=3.\nHmm, once more: 1+2=3.{end}",
        "Quickly: 1+2+3=5.\nWait, check again: 1+2+3=6.</think>\nThe answer is \\boxed{6}.",
        "I do not know",
    ]
    correct, length = torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.tensor([[10.0, 20.0], [30.0, 256.0]])
    numbers = make_thinking.count(texts, [1, 3], correct, length, torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    assert numbers["accuracy"] == 0.75 and numbers["truncated"] == 0.25 and numbers["length"] == 79
    assert numbers["short_share"] == {1: 0.5, 3: 0.5} and numbers["opens_in_a_way"] == 0.75
    assert numbers["stays_in_its_way"] == 0.5, "the second leaves its way, the fourth has none"
    assert numbers["checks"] == {1: 0.5, 3: 0.5} and numbers["short_passes_agree_by_checks"] == {0: 1, 1: 0}
    assert numbers["solved_groups"] == {1: 1, 3: 0} and numbers["mixed_groups"] == {1: 0, 3: 1}
    assert numbers["short_accuracy"] == {1: 1, 3: 1} and numbers["long_length"] == {1: 20}
    assert numbers["short_easy_length_by_checks"] == {0: 10} and numbers["short_hard_length_by_checks"] == {1: 30}


def test_explained_variance_is_one_for_what_the_prompt_decides_and_none_for_chance():
    decided = torch.arange(200.0)[:, None].repeat(1, 8)
    assert make_thinking.explained(decided) == pytest.approx(1)
    chance = torch.randint(3, (200, 8), generator=torch.Generator().manual_seed(0)).float()
    assert abs(make_thinking.explained(chance)) < 0.05 < make_thinking.explained(chance + 0.01 * decided)


GOOD = {
    "accuracy": 0.6,
    "short_accuracy": {1: 0.95, 2: 0.1, 3: 0.1, 4: 0.1, 5: 0.1},
    "long_accuracy": dict.fromkeys(range(1, 6), 0.95),
    "short_share": dict.fromkeys(range(1, 6), 0.5),
    "opens_in_a_way": 1.0,
    "stays_in_its_way": 1.0,
    "checks": dict.fromkeys(range(1, 6), 1.2),
    "short_accuracy_by_checks": {0: 0.3, 1: 0.3, 2: 0.3},
    "long_accuracy_by_checks": {0: 0.95, 1: 0.95, 2: 0.95},
    "dial": {0.5: 0.5, 0.8: 0.8},
    "checks_explained_by_prompt": 0.0,
    "solved_groups": {1: 0.8},
}


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("accuracy", 0.44),
        ("accuracy", 0.76),
        ("short_accuracy", GOOD["short_accuracy"] | {1: 0.89}),
        ("short_accuracy", GOOD["short_accuracy"] | {2: 0.41}),
        ("long_accuracy", GOOD["long_accuracy"] | {5: 0.84}),
        ("short_share", GOOD["short_share"] | {3: 0.2}),
        ("short_share", GOOD["short_share"] | {3: 0.8}),
        ("opens_in_a_way", 0.9),
        ("stays_in_its_way", 0.9),
        ("checks", dict.fromkeys(range(1, 6), 0.4)),
        ("checks", GOOD["checks"] | {5: 1.6}),
        ("short_accuracy_by_checks", {0: 0.3, 1: 0.3, 2: 0.36}),
        ("long_accuracy_by_checks", {0: 0.9, 1: 0.96, 2: 0.9}),
        ("dial", {0.5: 0.5, 0.8: 0.75}),
        ("checks_explained_by_prompt", 0.1),
        ("solved_groups", {1: 0.4}),
    ],
)
def test_each_property_is_denied_when_its_number_is_wrong(name, wrong):
    assert all(make_thinking.properties(GOOD).values())
    assert list(make_thinking.properties(GOOD | {name: wrong}).values()).count(False) == 1


def test_the_base_has_both_ways_and_only_the_long_one_works_on_hard_problems(model, tokenizer):
    """R1 and R2 on 50 problems x 8, seeded, with room for so small a sample: 10 problems per level, and re-checks fail
    on some of the problems nearly always."""
    numbers, _ = make_thinking.measure(model, tokenizer, n_problems=50, n=8, seed=1)
    long = numbers["long_accuracy"].values()
    assert numbers["short_accuracy"][1] > 0.8 and sum(long) / len(long) > 0.85 and min(long) > 0.7
    assert max(numbers["short_accuracy"][k] for k in range(2, 6)) < 0.4
    assert all(0.25 < share < 0.75 for share in numbers["short_share"].values())
    assert min(numbers["opens_in_a_way"], numbers["stays_in_its_way"]) > 0.95
    assert numbers["truncated"] < 0.02


@pytest.mark.slow
def test_the_base_has_every_property_of_its_card(model, tokenizer):
    numbers, _ = make_thinking.measure(model, tokenizer, n_problems=500, n=8, seed=2)
    missing = [name for name, holds in make_thinking.properties(numbers).items() if not holds]
    assert not missing, numbers
