"""The programs world: a language that can only compute, problems whose tests tell mutations apart, a base to train."""

import ast
import inspect
import json
import random
import subprocess
import sys
import time

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import ROOT
from minidrpo.tasks import data, programs, stack_language
from minidrpo.tasks.programs import grade, no_bug, pass_rate, problems
from minidrpo.tasks.stack_language import Bug, ParseError, RunTimeError, parse, run
from minidrpo.tiny import make_programs

# ---- the language ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, value",
    [
        *(("a", 3), ("b", -4), ("c", 10), ("7", 7), ("-7", -7), ("a b +", -1), ("a b -", 7), ("a b *", -12)),
        *(("a b max", 3), ("a b min", -4), ("a neg", -3), ("b abs", 4), ("a dup *", 9), ("a b drop", 3)),
        *(("a b swap -", -7), ("a b over - -", 10), ("b a 2 - max  c\n*", 10), ("a neg neg", 3), ("a 0 +", 3)),
    ],
)  # fmt: skip
def test_each_word_does_what_it_says(text, value):
    assert run(parse(text), (3, -4, 10)) == value


@pytest.mark.parametrize(
    "text, error, says",
    [
        ("", ParseError, "0 words"),
        ("a b plus", ParseError, "unknown word 'plus'"),
        ("a b + ;", ParseError, "unknown word"),
        ("9999999999", ParseError, "unknown word"),
        ("a " * 201, ParseError, "201 words"),
        ("a" * 2001, ParseError, "2001 characters"),
        ("+", RunTimeError, "word 1, +: needs 2 numbers, the stack holds 0"),
        ("a b + +", RunTimeError, "word 4, +: needs 2 numbers, the stack holds 1"),
        ("drop", RunTimeError, "needs 1"),
        ("a b", RunTimeError, "holds 2 numbers, want 1"),
        ("a drop", RunTimeError, "holds 0 numbers, want 1"),
        ("a " * 51, RunTimeError, "more than 50"),
        ("a dup * dup * dup * dup * dup * dup * drop a", RunTimeError, "larger than 1000000000"),
    ],
)  # fmt: skip
def test_bugs_are_named(text, error, says):
    with pytest.raises(error, match=says.replace("+", r"\+")):
        run(parse(text), (3, -4, 10))


def test_the_interpreter_is_small_and_can_only_compute():
    source = inspect.getsource(stack_language)
    assert len(source.splitlines()) <= 150
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    assert not names & {"eval", "exec", "compile", "getattr", "globals", "vars", "open", "__import__"}
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["import re"]


def test_random_programs_end_or_are_bugs_and_never_leave_the_bounds():
    rng, ends = random.Random(0), 0
    words = [*stack_language.WORDS, "a", "b", "c", "9", "999999999"]
    for _ in range(3000):
        try:
            program = parse(" ".join(rng.choices(words, k=rng.randint(1, 60))))
            ends += abs(run(program, (5, -6, 7))) <= stack_language.MAX_NUMBER
        except Bug:
            continue
    assert ends > 20


# ---- the rewards ----------------------------------------------------------------------------------------------------

TRUTH = "a b max ; 3 5 0 -> 5 ; 2 1 0 -> 2 ; 4 4 0 -> 4 ; 1 1000000000 0 -> 1000000000"


@pytest.mark.parametrize(
    "program, rate, bug_free, reason",
    [
        ("a b max", 1, 1, "correct"),
        ("b a max neg neg", 1, 1, "correct"),
        ("a", 0.5, 1, "wrong"),
        ("a b min", 0.25, 1, "wrong"),
        ("0", 0, 1, "wrong"),
        ("a b max b", 0, 0, "runtime_error"),  # leaves two numbers
        ("a b max b b * 0 * +", 0.75, 0, "runtime_error"),  # stops at the fourth test alone
        ("a b plus", 0, 0, "parse_error"),
        ("a , b max", 0, 0, "parse_error"),
        ("", 0, 0, "parse_error"),
    ],
)  # fmt: skip
def test_rewards_of_hand_computed_cases(program, rate, bug_free, reason):
    for response in (program, f"<think>a b min</think> {program}\n", f"x</think>a b max</think>\n{program}"):
        assert pass_rate(response, TRUTH) == pytest.approx(rate, abs=1e-6)
        assert no_bug(response, TRUTH) == bug_free
        found = grade(response, TRUTH)
        assert (found.correct, found.reason) == (reason == "correct", reason)
        assert found.answer == (None if reason == "parse_error" else program)
        assert found.scores == {"pass_rate": rate, "no_bug": bug_free}


def test_a_thought_alone_is_no_program_and_a_semicolon_ends_one():
    assert grade("<think>a b max", TRUTH).reason == "parse_error"
    assert grade("</think> a b max ; or so", TRUTH).answer == "a b max" and grade(TRUTH, TRUTH).correct


@pytest.mark.parametrize(
    "truth", ["", "a", "a ; 1 2 -> 3", "a ; 1 2 x -> 3", "a ; 1 2 3", "a ; 1 2 3 -> " + "9" * 5000]
)
def test_a_truth_in_another_form_is_refused(truth):
    with pytest.raises(ValueError, match="not a truth of the programs task"):
        grade("a", truth)


HOSTILE = {
    "1 MB of one word": "a " * 500_000,
    "1 MB without a space": "9" * 1_000_000,
    "1 MB of white space": " \n\t" * 333_333,
    "1 MB of think tags": "</think>" * 125_000,
    "deep": "(" * 100_000 + ")" * 100_000,
    "a full stack": "a " * 200,
    "many products": "999999999 " + "dup * " * 99,
    "huge numbers": "1" + "0" * 1500 + " a *",
    "a number of 9 digits, squared and squared": "999999999 dup * dup * dup *",
    "Python": "__import__('os').system('touch /tmp/x') a",
    "attributes": "().__class__.__bases__[0].__subclasses__()",
    "other digits": "\u0663 \uff11 \u00b2",
    "odd spaces": "a\u3000b\u2028max\x1f",
    "surrogate": "a \ud800 +",
    "NUL": "a\x00b max",
    "many words of no language": "zz " * 600,
    "quadratic?": "a b swap " * 60 + "drop",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_does_no_harm(name):
    for response in (HOSTILE[name], "</think>" + HOSTILE[name], HOSTILE[name] + "</think> a b max"):
        start = time.process_time()
        found = grade(response, TRUTH)
        assert 0 <= pass_rate(response, TRUTH) <= 1 and no_bug(response, TRUTH) in (0, 1)
        assert time.process_time() - start < 0.1
        assert found.correct == (response.endswith("a b max") or name == "odd spaces")


def test_the_grader_keeps_no_large_text():
    programs._results.cache_clear()
    grade("a " * 500_000, TRUTH)
    assert programs._results.cache_info().currsize == 0


# ---- the problems ---------------------------------------------------------------------------------------------------


def meaning(text, inputs):
    """A formula's value by Python's own grammar: an oracle that shares nothing with the interpreter."""
    known = {"max": max, "min": min, "abs": abs, "neg": lambda x: -x}
    operators = {ast.Add: int.__add__, ast.Sub: int.__sub__, ast.Mult: int.__mul__}

    def value(node):
        if isinstance(node, ast.Call):
            return known[node.func.id](*map(value, node.args))
        if isinstance(node, ast.BinOp):
            return operators[type(node.op)](value(node.left), value(node.right))
        return node.value if isinstance(node, ast.Constant) else inputs["abc".index(node.id)]

    return value(ast.parse(text, mode="eval").body)


def mutation(reference, rng):
    """The reference with one word changed so that it fails by construction: exchanged for one with the same use of the
    stack (problems where this changes nothing are left out), left out, or unknown. Insertions are no mutations: some
    change nothing (`abs abs`), and neither are `dup` and `over` in the place of an input (`a dup *` is `a a *`)."""
    words = reference.split()
    i = rng.randrange(len(words))
    kinds = (["+", "-", "*", "max", "min", "drop"], ["neg", "abs"], [*"abc123456789"])
    same = next(kind for kind in kinds if words[i] in kind)
    words[i] = rng.choice([*(w for w in same if w != words[i]), "", "add"])
    return " ".join(words)


def check(split, n, mutations):
    rng = random.Random(split)
    for text, truth, level in problems(n, split=split):
        reference, tests = programs.read_truth(truth)
        assert (
            grade(truth, truth).correct
            and grade(reference, truth).correct
            and pass_rate(reference, truth) == no_bug(reference, truth) == 1
        )
        assert all(meaning(text, inputs) == value for inputs, value in tests)
        assert sum(word in {*programs.BINARY, *programs.UNARY} for word in reference.split()) == level + 1
        for _ in range(mutations):
            other = mutation(reference, rng)
            assert not grade(other, truth).correct, (text, other)


@pytest.mark.parametrize("split", ["train", "test"])
def test_references_are_right_and_mutations_of_them_wrong(split):
    check(split, 200, 20)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_all_of_them(split):
    check(split, programs.MAX_PROBLEMS, 20)


def test_a_changed_word_of_another_kind_is_a_bug():
    """What `changed` says of the exchanges that it does not list, but for dup, over and swap."""
    for _, truth, _ in problems(20, split="train"):
        words = programs.read_truth(truth)[0].split()
        for i, word in enumerate(words):
            for kind in (["+", "-", "*", "max", "min", "drop"], ["neg", "abs", ""], [*"abc123456789"]):
                if word not in kind:
                    for other in kind:
                        text = " ".join([*words[:i], other, *words[i + 1 :]])
                        if other or word not in kind:
                            assert not grade(text, truth).correct and not no_bug(text, truth), (words, text)


def test_splits_share_no_text_and_no_function():
    texts, functions = {}, {}
    for split in ("train", "test"):
        found = [problem for seed in range(2) for problem in problems(200, split=split, seed=seed)]
        texts[split] = {text for text, _, _ in found}
        functions[split] = {truth.partition(";")[2] for _, truth, _ in found}
        assert len({text for text, _, _ in found[:200]}) == 200
    assert not texts["train"] & texts["test"] and not functions["train"] & functions["test"]


def test_problems_are_a_pure_function_of_their_arguments():
    longer, shorter = problems(60, split="train", seed=1), problems(20, split="train", seed=1)
    assert longer[:20] == shorter != problems(20, split="train", seed=2)
    code = "from minidrpo.tasks import programs as p; print(p.problems(20, split='train', seed=1))"
    for hash_seed in ("0", "1"):
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert ast.literal_eval(out.stdout) == shorter


def test_the_task_is_loaded_by_name_and_from_a_file(tmp_path):
    built_in = data.load_problems("programs", split="test", n=8)
    assert [p.source for p in built_in] == [f"programs/level-{k}" for k in (1, 2, 3, 4)] * 2
    assert {p.grader for p in built_in} == {"programs"}
    rows = [{"problem": "max(a,b)", "answer": TRUTH, "grader": "programs"} for _ in range(2)]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [p.truth for p in data.load_problems(str(path))] == [TRUTH] * 2
    rows[1]["answer"] = "a b max ; 1 2 -> 2"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="row 1, column 'answer': not a truth of the programs task: it needs tests"):
        data.load_problems(str(path))


@pytest.mark.parametrize("bad", [{"n": 5, "split": "dev"}, {"n": -1, "split": "test"}, {"n": 20_001, "split": "test"}])
def test_problems_refuses_what_it_cannot_give(bad):
    with pytest.raises(ValueError, match="programs"):
        problems(**bad)


# ---- the base -------------------------------------------------------------------------------------------------------


def rows(progress, n=400):
    rng = random.Random(1)
    for _ in range(n):
        text, response = make_programs.training_row(rng, progress)
        assert response.startswith("</think> ") and response.endswith("<eos>")
        yield text, response.removesuffix("<eos>")


def test_the_first_traces_are_right_and_later_ones_have_bugs_and_needless_words():
    def graded(progress):
        for text, response in rows(progress):
            tests = (f"{a} {b} {c} -> {meaning(text, (a, b, c))}" for a, b, c in programs.TEST_INPUTS)
            yield response, grade(response, " ; ".join(["", *tests]))

    clean, late = list(graded(0.0)), list(graded(1.0))
    assert all(g.correct for _, g in clean)
    assert not any(make_programs.needless(g.answer) for response, g in clean if "neg neg" not in response)
    assert {g.reason for _, g in late} == {"correct", "wrong", "parse_error", "runtime_error"}
    pairs = [make_programs.needless(g.answer) for _, g in late if g.correct]
    assert sum(n > 0 for n in pairs) > len(pairs) / 2, "right programs with needless words"


def test_no_function_of_the_test_split_is_trained_on():
    test = {truth.split(" ; ", 1)[1] for _, truth, _ in problems(400, split="test")}
    for text, _ in rows(1.0):
        tests = (f"{a} {b} {c} -> {meaning(text, (a, b, c))}" for a, b, c in programs.TEST_INPUTS)
        assert " ; ".join(tests) not in test


def test_needless_words_change_nothing():
    for pair in make_programs.PAIRS:
        for x in (-3, 0, 5):
            assert run(parse(f"a {pair}"), (x, 1, 2)) == x


@pytest.mark.slow
def test_the_committed_base_can_be_mended_and_shortened():
    tokenizer = AutoTokenizer.from_pretrained(make_programs.OUT)
    model = AutoModelForCausalLM.from_pretrained(make_programs.OUT).eval()
    numbers, _ = make_programs.measure(model, tokenizer, n_problems=120, n=4)
    assert 0.25 < numbers["accuracy"] < 0.75 and numbers["mixed_groups"] > 0.4
    assert numbers["reasons"]["parse_error"] > 0.05 and numbers["reasons"]["runtime_error"] > 0.03
    assert numbers["exceed"] > numbers["shortest_right_exceeds"] + 0.1, "some right programs are longer than need be"
    assert (make_programs.OUT / "model.safetensors").stat().st_size < 2 * 2**20
