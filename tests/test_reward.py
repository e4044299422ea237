"""reward.py: extraction, truths, reasons, properties, attacks. The table of answers: test_reward_cases.py."""

import os
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reward
from reward import REASONS, Grade, grade, grade_all, last_boxed, same_answer

settings.register_profile("reward", deadline=None, max_examples=50)  # a busy machine is no failure
settings.load_profile("reward")


@pytest.mark.parametrize(
    "text, box",
    [
        (r"\boxed{5}", "5"), (r"a \boxed{1} b \boxed{2} c", "2"), (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"), ("5", None),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"), (r"\boxed{5}}", "5"), (r"{{\boxed{5}", "5"), (r"\boxed{5", None),
        (r"\boxed{5} and \boxed{6", "5"), (r"\boxed{a \boxed{b} c}", r"a \boxed{b} c"), (r"\boxed {7}", "7"),
        (r"\boxed{\boxed{5}", "5"), (r"\boxed 5", None), (r"\boxed{}", ""), (r"\\boxed{3}", "3"), (r"\boxed{ \} }",
        r" \} "),
        ("\\boxed{a\nb}", "a\nb"), (r"\boxed{1}\boxed{\text{x{y}z}}", r"\text{x{y}z}"),
    ],
)  # fmt: skip
def test_last_boxed(text, box):
    assert last_boxed(text) == box


def test_extraction_is_linear():
    start = time.perf_counter()
    assert last_boxed(r"\boxed{" * 100_000) is None
    assert last_boxed(r"\boxed{" * 50_000 + "5" + "}" * 50_000).endswith("}")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "response, last, official",
    [
        (r"<think>x</think> \boxed{5}", "correct", "correct"),
        (r"<think>\boxed{5}</think> done", "no_box", "no_box"),
        (r"<think>I think \boxed{5}. Wait", "no_think", "no_think"),
        (r"<think>a</think> \boxed{4} </think> \boxed{5}", "correct", "wrong"),
        (r"<think>a</think> \boxed{5} </think> \boxed{4}", "wrong", "correct"),
        (r"<think>a</think> \boxed{5} </think> none", "no_box", "correct"),
        (r"\boxed{5}", "no_think", "no_think"),
        ("", "no_think", "no_think"),
        (r"</think>\boxed{}", "empty", "empty"),
        (r"</think>\boxed{  }", "empty", "empty"),
        (r"</think>\boxed{4} so \boxed{5}", "correct", "correct"),
        (r"</think>\boxed{5} so \boxed{4}", "wrong", "wrong"),
        (r"</think>\boxed{@#&}", "unreadable", "unreadable"),
        (r"</think>\boxed{" + "1+" * 2000 + "1}", "too_long", "too_long"),
        (r"</think>\boxed{9^{9^{9^9}}}", "undecided", "undecided"),
    ],
)
def test_thinking_and_reasons(response, last, official):
    assert grade(response, "5").reason == last
    assert grade(response, "5", think="official").reason == official
    assert grade(response, "5").correct == (last == "correct")


def test_without_thinking():
    assert grade(r"\boxed{5}", 5, require_think=False) == Grade(True, "correct", "5")
    assert grade(r"<think>\boxed{4}</think>\boxed{5}", 5, require_think=False).correct
    assert grade("five", 5, require_think=False) == Grade(False, "no_box", None)


@pytest.mark.parametrize(
    "truth", [5, 5.0, "5", " 5\n", "5.0", r"\boxed{5}", "$5$", ["5"], ["4", "5"], [4, 5.0], ("x", 5), np.int64(5),
              np.float64(5), np.array(["5"], dtype=object), np.array([4.0, 5.0]), np.str_("5")],
)  # fmt: skip
def test_truth_types(truth):
    assert same_answer("5", truth)
    assert not same_answer("6", truth)


def test_truth_oddities():
    assert same_answer("0.1", 0.1) and same_answer(r"\frac{1}{10}", 0.1)
    assert same_answer("1e22", 1e22)
    assert not same_answer("5", []) and not same_answer("", "") and not same_answer("5", "")
    assert same_answer("None", "None") and not same_answer("None", None) and not same_answer("True", True)
    assert same_answer("9007199254740993", 9007199254740993)
    assert not same_answer("9007199254740992", 9007199254740993)


def test_user_mistakes_are_one_clear_line():
    with pytest.raises(ValueError, match="2 responses but 1 truths"):
        grade_all(["a", "b"], ["a"])
    with pytest.raises(ValueError, match='"last" or "official", got \'first\''):
        grade("x", "x", think="first")


def test_grade_all_keeps_order_and_agrees_with_grade():
    hard = r"\int_0^1 x^2 dx"
    responses = [rf"</think>\boxed{{{a}}}" for a in ["1", hard, "x", hard, "(", "1/3"]] + ["cut off"]
    truths = ["1", "1/3", "y", "1/4", "5", r"\frac13", "5"]
    grades = grade_all(responses, truths, time_limit=60)
    assert [g.reason for g in grades] == ["correct", "correct", "wrong", "wrong", "unreadable", "correct", "no_think"]
    assert grades == [grade(r, t, time_limit=60) for r, t in zip(responses, truths, strict=True)]
    assert grade_all([], []) == []


# ---------------------------------------------------------------------------------------------------------- properties
NUMBERS = st.one_of(st.integers(-(10**30), 10**30), st.fractions(max_denominator=10**6))


def latex(value):
    value = Fraction(value)
    return str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


@given(NUMBERS)
def test_a_number_equals_itself_in_every_wrapper(value):
    text = latex(value)
    for wrapped in (
        "${}$",
        r"\({}\)",
        " {} ",
        "x={}",
        r"\left({}\right)",
        "{}.",
        r"\text{{{}}}" if "\\" not in text else "{}",
        r"{}\text{{ cm}}",
        r"{}^\circ",
        r"\boxed{{{}}}",
        "+{}" if value >= 0 else "{}",
        r"\,{}\;",
    ):
        assert same_answer(wrapped.format(text), text), wrapped
    assert same_answer(f"{Fraction(value).numerator}/{Fraction(value).denominator}", text)


@given(NUMBERS, NUMBERS)
def test_different_numbers_are_different(a, b):
    assert same_answer(latex(a), latex(b)) == (a == b)
    assert same_answer(latex(a), latex(-a)) == (a == 0)


@given(NUMBERS, st.integers(1, 40))
def test_no_perturbation_is_small_enough(value, digits):
    for perturbed in (
        Fraction(value) + Fraction(1, 10**digits),
        Fraction(value) * (1 + Fraction(1, 10**digits)) + (value == 0),
    ):
        assert not same_answer(latex(perturbed), latex(value))
    assert not same_answer(rf"{latex(value)}+10^{{-{digits}}}\pi", latex(value))


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=6), st.randoms())
def test_lists_in_any_order_and_tuples_in_theirs(values, rng):
    shuffled = rng.sample(values, len(values))
    text, other = (", ".join(map(str, v)) for v in (values, shuffled))
    assert same_answer(other, text) and same_answer(rf"\{{{other}\}}", text)
    assert same_answer(f"({other})", f"({text})") == (values == shuffled)
    assert not same_answer(other + ", 10", text) and not same_answer(f"({text})", other)


def random_expression(rng, depth=3):
    """A sympy expression in x and y."""
    import sympy

    x, y = sympy.symbols("x y", real=True)
    if depth == 0:
        return rng.choice([x, y, sympy.Integer(rng.randint(1, 9)), sympy.Rational(rng.randint(1, 9), 7), sympy.pi])
    a, b = random_expression(rng, depth - 1), random_expression(rng, depth - 1)
    return rng.choice(
        [
            a + b,
            a - b,
            a * b,
            a / (1 + b**2),
            a**2,
            sympy.sqrt(1 + a**2),
            sympy.sin(a),
            sympy.exp(-(b**2)),
            sympy.Abs(a),
        ]
    )


@pytest.mark.parametrize("seed", range(20))
def test_expressions_as_sympy_prints_them(seed):
    """sympy is the oracle twice over: it prints one expression in two forms, and two expressions that differ."""
    import random

    import sympy

    rng = random.Random(seed)
    expression = random_expression(rng)
    for form in (sympy.expand, sympy.factor, sympy.together):
        assert same_answer(sympy.latex(form(expression)), sympy.latex(expression)), (form, expression)
    for other in (
        expression + sympy.Rational(1, 10**12),
        -expression - 1,
        expression.subs(sympy.Symbol("x", real=True), sympy.Symbol("z", real=True) + 2) + 1,
    ):
        at = dict(zip(sympy.symbols("x y z", real=True), (0.3, 1.7, -1.9), strict=True))
        if abs(sympy.N((other - expression).subs(at), 30)) > 1e-15:
            assert not same_answer(sympy.latex(other), sympy.latex(expression)), (other, expression)


PIECES = list(r"\{}()[]^_$&|,;:!%'~<>=+-*/. 0123456789abefhinorstxy½²√π∞≤") + [
    r"\frac", r"\sqrt", r"\text{", r"\left", r"\boxed{", r"\begin{pmatrix}", r"\end{pmatrix}", r"\sum_{k=1}^",
    r"\infty", r"\cup",
    r"\sin", r"\log", r"\pm", r"\{", r"\}", r"\lfloor", r"\choose", r"\overline{", r"\in", "and", "million", r"\%",
    r"^\circ"]  # fmt: skip
TRUTHS = ["5", r"\frac12", "x+1", "(1,2)", "1,2", "x<5", "y=2x", r"\text{east}", r"\sqrt{2}"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.sampled_from(TRUTHS))
def test_any_text_gets_a_reason(text, truth):
    answer = reward.grade_answer(text, truth, lambda truth, answer: False)
    assert answer.reason in REASONS and answer.correct == (answer.reason == "correct")
    assert reward.grade_answer(truth, text, lambda truth, answer: False).reason in REASONS
    assert grade(text, truth).reason in REASONS


# ------------------------------------------------------------------------------------------------------------- attacks
FUZZED = [  # crashes that benchmarks/fuzz_grader.py found: digits that are no decimals, nesting not counted
    r"2x \neq 42", r"\max(x,ii)", r"|x+i^2|", r"\lfloor xi \rfloor", r"\sqrt{(x+ii)^2+i}",
    "➅", "᧚V", "x^{⓿", "1,❽4", "4(-\\infty,1)፪", "ᾓ3" * 100, "10^{12um_{k=1}^" * 60 + "2",
    r"\sum_{k=1}^{10^{12" * 60 + "}" * 60,
    "|x" * 30 + "|" * 30, "½" * 300,
    r"\gcd\ln{i \pi}{3}", r"\sum_{k=1}^{k} k", r"\sum_{k=1}^{10^{12" * 30 + "}" * 60, r"\frac" * 60 + "1",
]  # fmt: skip
ATTACKS = FUZZED + [
    "9**9**9**9", "9^{9^{9^{9}}}", "(10^9)!", "1e999999999", "1e-999999999", "10^{10^{10}}", "((((5!)!)!)!)",
    "!" * 1900,
    "(" * 1900, "{" * 1900, "-" * 1900 + "1", "2^" * 600 + "2", "2^-" * 600 + "2", "1/" * 900 + "1", "5" + "%" * 1900,
    r"\sqrt{" * 300 + "2" + "}" * 300, r"\sin" * 300 + "x", "f(" * 400 + "x" + ")" * 400, "x_" * 500,
    "+".join(["x^2"] * 480),
    r"\sum_{k=1}^{10^{12}} k^k", r"\prod_{k=1}^{10^9} k", r"\sum_{k=1}^{999}\sum_{j=1}^{999} jk", "(x+y)^{100000}-1",
    "(a+b+c+d+e+f)^{60}", "x^{x^{x^{x^{x}}}}", "e^{e^{e^{e^{e}}}}", r"\binom{10^9}{10^8}", "999!^{999}",
    r"\sin(10^{100})",
    r"\gcd()", r"\max(x,i)", "1/0", "0/0", "0^0", r"\log_1 5", r"\sqrt[0]{5}", ",".join(["1"] * 990), "x=" * 500 + "5",
    ",".join(rf"\sqrt{{{k}}}" for k in range(180)), r"\binom{x}{y}" * 150, r"x^{1/3}" * 200, "1.5!^{1.5!}",
    "5" + " cm" * 600,
    " " * 1999, "\\" * 1999, "x" + "'" * 1000, "|" * 1000, "|x" * 500, "\x00" * 500, "½" * 300, "²" * 500, "\ud800",
    "1\n" * 900,
    r"10^{1700}\pi+\sin(x)^{1500}", "5" * 50_000, r"\begin{pmatrix}" + "1&" * 500 + r"1\end{pmatrix}", r"\frac" * 400,
    "lambda x: x", "{{7*7}}", r"\verb|x|", "5 if x else 6", "5]", "(5", "5)", r"\text{" * 300 + "a" + "}" * 300,
]  # fmt: skip


@pytest.mark.parametrize(
    "truth", ["5", r"\frac{1}{2}", "x+1", r"\sqrt{2}", "1,2,3", "y=2x+1", "x<5", r"\lfloor n/2\rfloor"]
)
def test_attacks_are_wrong_and_quick(truth):
    for attack in ATTACKS:
        start = time.process_time()
        assert not same_answer(attack, truth), attack[:60]
        same_answer(truth, attack)  # and as the truth: any verdict, no crash
        assert time.process_time() - start < 2, attack[:60]


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in (
        "__import__('os').system('touch canary')",
        "open('canary','w')",
        "exec(\"open('canary','w')\")",
        "sympify(\"__import__('os').system('touch canary')\")",
        "`touch canary`",
        "$(touch canary)",
        "Symbol('x').__class__.__mro__[-1].__subclasses__()",
        "Interval(__import__('os').system('touch canary'),1)",
        "__import__('os').system('touch canary')_2",
        r"\write18{touch canary}",
        "{''.__class__}",
    ):
        for truth in ("5", "x+1", r"\frac{1}{2}", "(1,2)", code + "1"):
            assert not same_answer(code, truth)
    assert os.listdir(tmp_path) == []


def test_deep_call_stacks_and_recursion_limits():
    def deep(levels):
        return same_answer(r"\frac{1}{" * 38 + "x" + "}" * 38, "x") if levels == 0 else deep(levels - 1)

    assert deep(sys.getrecursionlimit() - 700) in (True, False)


@pytest.mark.parametrize("text", ["\ufdfa" * 1990, "5" + "\ufdfb" * 1500, "\u332c" * 1990])
def test_characters_that_stand_for_many_cost_nothing(text):
    """NFKC makes 18 letters of U+FDFA; the product of 36,000 took 20 s."""
    start = time.thread_time()
    grade = reward.grade(rf"</think>\boxed{{{text}}}", ["5", "x+1", r"\int_0^1 x dx"])
    assert grade.reason == "too_long" and time.thread_time() - start < 0.5
