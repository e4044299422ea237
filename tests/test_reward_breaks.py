r"""Functions that change their formula: |x|, max, min, floor, ceiling, remainders, roots of squares. Each branch equals
the function on one side, so a branch must not pass for the function (minidrpo/grader/points.py: beyond)."""

import random

import pytest

import reward

ROWS = [
    # what, function, the same, one of its branches
    ("absolute value", "|x+3|", ["|-3-x|", r"\sqrt{x^2+6x+9}", r"\max(x+3,-x-3)"], ["x+3", "-x-3"]),
    ("root of a square", r"\sqrt{x^2+6x+9}", [r"\sqrt{(-x-3)^2}", r"((x+3)^4)^{1/4}"], ["x+3", "-x-3"]),
    ("in an equation", "y=|x+5|", ["2y=|2x+10|", "y-|x+5|=0"], ["y=x+5", "y=-x-5"]),
    ("in one unknown", "|x+3|=5", ["|-x-3|=5", "2|x+3|-10=0"], ["x+3=5", "-x-3=5"]),
    ("in an inequality", "|x-20|<5", ["|20-x|<5", "5>|x-20|"], ["20-x<5", "x-20<5"]),
    ("a difference", "|x+5|-|x-15|", ["|-5-x|-|15-x|"], ["2x-10", "20", "-20"]),
    ("maximum", r"\max(x,50)", [r"\max(50,x)", r"\frac{x+50+|x-50|}{2}"], ["50", "x"]),
    ("minimum", r"\min(n,100)", [r"n+100-\max(100,n)"], ["n", "100"]),
    ("two letters", "|a-b|", ["|b-a|", r"\max(a,b)-\min(a,b)", r"\sqrt{a^2-2ab+b^2}"], ["a-b", "b-a"]),
    ("maximum of two", r"\max(a,b)", [r"\max(b,a)", r"\frac{a+b+|a-b|}{2}"], ["a", "b"]),
    ("minimum of two", r"\min(a,b)", [r"-\max(-a,-b)"], ["a", "b"]),
    ("maximum of three", r"\max(a,b,c)", [r"\max(c,a,b)"], ["a", "b", "c", r"\max(a,b)", r"\max(b,c)"]),
    ("beside zero", r"\max(x,y,0)", [r"\max(0,\max(x,y))"], [r"\max(x,y)", r"\max(x,0)"]),
    ("a product", "|xy|", ["|x||y|"], ["xy", "-xy", "|x|y"]),
    ("a quotient", r"\left|\frac{x-30}{x+40}\right|", [r"\frac{|x-30|}{|x+40|}"], [r"\frac{30-x}{x+40}"]),
    ("a quadratic", "|x^2-900|", ["|30-x||x+30|"], ["900-x^2", "x^2-900"]),
    ("a cubic", "|x^3-1000|", ["|1000-x^3|"], ["1000-x^3", "x^3-1000"]),
    ("a sine", r"|\sin x|", [r"\sqrt{1-\cos^2 x}"], [r"\sin x"]),
    ("nested", "||x-100|-3|", ["|3-|100-x||"], ["|x-100|-3", "3-|x-100|", "|x-97|"]),
    ("a narrow gap", "|x-10|+|x-10.1|", ["|10-x|+|10.1-x|"], ["|2x-20.1|"]),
    ("terms of a sum", r"\sum_{k=1}^{3}|x+k|", ["|x+1|+|x+2|+|x+3|"], ["3x+6"]),
    ("beside a factorial", r"|x+3| \cdot n!", [r"|-x-3| \cdot n!"], ["(x+3)n!"]),
    ("many", "+".join(f"|x-{k}|" for k in range(12)), ["+".join(f"|{k}-x|" for k in range(12))], ["12x-66"]),
    ("floor", r"\lfloor x\rfloor", [r"-\lceil -x\rceil", r"x-(x \bmod 1)"],
     ["x", r"\lceil x\rceil", r"\lceil x\rceil-1"]),
    ("floor of a multiple", r"\lfloor 2x\rfloor", [r"\lfloor x\rfloor+\lfloor x+\frac12\rfloor"],
     [r"2\lfloor x\rfloor", "2x"]),
    ("floor, nearly another", r"\lfloor a+0.01\rfloor", [r"1+\lfloor a-0.99\rfloor"], [r"\lfloor a\rfloor"]),
    ("fractional part", r"x-\lfloor x\rfloor", [r"x \bmod 1"], ["0"]),
    ("floor of a whole number", r"\lceil n/60\rceil", [r"\lfloor (n+59)/60\rfloor"],
     [r"\lceil (n+1)/60\rceil", "n/60"]),
]  # fmt: skip


@pytest.mark.parametrize("what, function, same, branches", ROWS, ids=[row[0] for row in ROWS])
def test_a_branch_is_not_the_function(what, function, same, branches):
    assert [answer for answer in same if not reward.same_answer(answer, function)] == []
    assert [answer for answer in same if not reward.same_answer(function, answer)] == []
    assert [answer for answer in branches if reward.same_answer(answer, function)] == []
    assert [answer for answer in branches if reward.same_answer(function, answer)] == []


@pytest.mark.parametrize("letter", ["x", "y", "a", "b", "n", "r", r"\theta", "x_1"])
def test_branches_of_drawn_functions(letter):
    rng = random.Random(letter)
    for _ in range(5):
        a, b, c = rng.choice((1, 2, 7)), rng.randint(1, 2000), rng.randint(-500, 500)
        u, minus = f"{a}{letter}-{b}", f"{b}-{a}{letter}"
        for function, *branches in (
            (f"|{u}|", u, minus),
            (rf"\sqrt{{{a * a}{letter}^2-{2 * a * b}{letter}+{b * b}}}", u, minus),
            (rf"\max({u},{c})", u, f"{c}"),
            (rf"\min({c},{minus})", minus, f"{c}"),
        ):
            assert [branch for branch in branches if reward.same_answer(branch, function)] == [], function
        assert reward.same_answer(f"|{minus}|", f"|{u}|")
        assert reward.same_answer(rf"\sqrt{{({minus})^2}}", f"|{u}|")


@pytest.mark.parametrize(
    "truth, answer",
    [(r"\sqrt{n^2}", "n"), (r"a\sqrt{b}", r"\sqrt{a^2b}"), (r"\lfloor n\rfloor", "n"), (r"\lfloor k+1\rfloor", "k+1"),
     (r"\lceil n/2\rceil", r"\lfloor (n+1)/2\rfloor"), (r"\sqrt{x^2-25}", r"\sqrt{x-5}\sqrt{x+5}"),
     (r"\sqrt{2-2\cos\theta}", r"2\sin\frac{\theta}{2}")],
)  # fmt: skip
def test_what_convention_says_of_a_letter(truth, answer):
    """Under a root letters other than x, y, z, t are lengths and masses; beside a floor i to n, p and q count."""
    assert reward.same_answer(answer, truth) and reward.same_answer(truth, answer)
