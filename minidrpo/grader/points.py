r"""points.py - where two trees are compared.

points(truth, answer)             what every pair gets: a few points, or whole numbers
beyond(truth, answer, budget)     more, where |x|, max, floor and the like change their formula
"""

import zlib
from fractions import Fraction
from itertools import pairwise

from minidrpo.grader.evaluate import Evaluator, Undecided, constant, context, seeded
from minidrpo.grader.trees import MINUS_ONE, nodes

LARGE = ((0, 45), (0, 90), (150, 50), (0, 10**6))  # whole numbers: the least, and what is drawn above it
INTEGERS = 16  # points where variables are whole numbers
SMALL = {*range(2, 2 + INTEGERS - len(LARGE))}  # of them, for a single variable


def symbols(*trees):
    """Free variables, sorted."""

    def free(tree):
        if tree[0] == "sym":
            return {tree[1]}
        if tree[0] == "big":  # the variable of a sum is free in its limits
            return free(tree[3]) | free(tree[4]) | free(tree[5]) - {tree[2]}
        return set().union(*(free(part) for part in tree[1:] if isinstance(part, tuple)))

    return sorted(set().union(*map(free, trees)))


def draws(trees):
    """The k-th number in (0.2, 1) for a name: points of the pair's own, which no answer can be made to vanish at."""
    pair = zlib.crc32(repr(trees).encode())
    return lambda name, k: seeded(f"{pair} {name}", k)


def points(*trees):
    """Where to compare: dicts from variable to value. Whole numbers where floor, factorial and the like want them; else
    values below, about and above one, and negative ones for the letters that are rarely a length or a mass."""
    names = symbols(*trees)
    if not names:
        return [{}]
    drawn, (every, calls, powers) = draws(trees), parts(trees)
    if calls & STEPS or any(counting(every)):
        small = (lambda name, k: 2 + k) if len(names) == 1 else lambda name, k: 2 + int(drawn(name, k) * 25)
        found = [{name: small(name, k) for name in names} for k in range(INTEGERS - len(LARGE))]
        return found + [{name: least + int(drawn(name, k) * k) for name in names} for least, k in LARGE]
    lengths = positive(names, calls, powers)
    return [
        {name: scale * drawn(name, k) * (-1 if k == 2 and name not in lengths else 1) for name in names}
        for k, scale in enumerate((1, 3, 2, 5, 11))
    ]


def parts(trees):
    """(all nodes, the names of the functions, the powers) of some trees."""
    every = [node for tree in trees for node in nodes(tree)]
    return every, {node[1] for node in every if node[0] == "call"}, [node for node in every if node[0] == "pow"]


def counting(every):
    """What wants its variables whole: factorials, the limits of sums, (-1)^n. Trees."""
    for node in every:
        if node[0] == "big":
            yield from node[3:5]
        elif node[0] == "call" and node[1] in ("factorial", "binom", "gcd", "lcm"):
            yield node
        elif node[0] == "pow" and symbols(node) and (constant(node[1]) or 1) < 0:
            yield node[2]


def positive(names, calls, powers):
    r"""The letters that beside a root or a logarithm are lengths, masses and the like: \sqrt{a^2} is a."""
    if calls & {"ln", "log"} or any((constant(power[2]) or Fraction(1)).denominator != 1 for power in powers):
        return {name for name in names if name not in "xyzt"}
    return set()


# --------------------------------------------------------------------------------------------- where a formula changes
STEPS = {"floor", "ceil", "mod"}
WHOLE = "ijklmnpq"  # letters that count, in either case; beside a floor all others are real numbers


def beyond(truth, answer, budget):
    r"""Yields more points where absolute values, max, min, floor, mod and roots of squares occur: |x+3| is x+3 at all
    points of `points`, and \max(a, b) is a at half of them. Along each variable, the others being drawn, one point in
    each interval between the places where the formula changes; where those are unknown, points of many sizes."""
    every, calls, powers = parts((truth, answer))
    breaks = list(changes(every))
    names = symbols(truth, answer) if breaks else []
    drawn, lengths = draws((answer, truth)), positive(names, calls, powers)
    whole = set(symbols(*counting(every))) if breaks else set()
    if whole or calls & STEPS:
        whole |= {name for name in names if name[0].lower() in WHOLE}
    for side in (3, -3) if len(names) > 1 else (3,):
        home = {name: abs(side) if name in whole else side * drawn(name, side) for name in names}
        home = {name: abs(value) if name in lengths else value for name, value in home.items()}
        for name in names:
            for x in along(name, home, breaks, name in lengths, name in whole, drawn, budget):
                x = context().nint(x) if name in whole else x
                if x > 0 or name not in lengths | whole:
                    yield {**home, name: x}


def changes(every):
    """(kind, tree): "sign", whose sign decides; "step", which jumps at whole numbers; "square" under an even root."""
    for node in every:
        if node[:2] == ("call", "abs"):
            yield from (("sign", factor) for factor in factors(node[2]))
        elif node[0] == "call" and node[1] in ("max", "min"):
            for i, one in enumerate(node[2:]):
                yield from (("sign", ("add", one, ("mul", MINUS_ONE, other))) for other in node[2:][i + 1 :])
        elif node[0] == "call" and node[1] in STEPS:
            yield "step", node[2] if node[1] != "mod" else ("div", *node[2:])
        elif node[0] == "pow" and (constant(node[2]) or Fraction(1)).denominator % 2 == 0:
            for factor in factors(node[1]):
                if factor[0] == "pow" and (constant(factor[2]) or 1) % 2 == 0:
                    yield from (("sign", base) for base in factors(factor[1]))
                elif factor[0] == "add":
                    yield "square", factor


def factors(tree):
    """Of a product or quotient; of any other tree itself."""
    if tree[0] in ("mul", "div"):
        return [factor for part in tree[1:] for factor in factors(part)]
    return [tree]


def along(name, home, breaks, length, whole, drawn, budget):
    """Values of one variable, on all sides of what breaks along it. Roots of what is no polynomial of degree one or two
    are unknown, and steps go on and on: then there are values of many sizes."""
    context().prec = 1000
    ends, many, steps = [], False, False
    for kind, tree in breaks:
        if name in symbols(tree):
            found = crossings(kind, tree, name, home, budget)
            many |= found is None and not (length and kind == "square")
            steps |= kind == "step" and not whole
            ends += found or ()
    ends = sorted(ends)
    ends = [end for k, end in enumerate(ends) if k == 0 or end - ends[k - 1] > 1e-99 * abs(end)]  # two names of one
    if whole:
        near = {int(context().nint(end)) + k for end in ends for k in (-1, 0, 1)}
        values = sorted(near if len(home) > 1 else near - SMALL)
    else:
        values = [low + (high - low) * (drawn(name, 30 + k) - 0.1) for k, (low, high) in enumerate(pairwise(ends))]
        for k, end in enumerate((*ends[:1], *ends[-1:])):
            values.append(end + (k or -1) * (1 + abs(end)) * drawn(name, 28 + k))
        if length and ends:
            values.append(ends[0] * drawn(name, 27))
    if steps:
        values += [(-1) ** k * (2 * k + (k + drawn(name, 50 + k) - 0.1) / 6) for k in range(6)]
    if many:
        values += [sign * scale * drawn(name, scale) for scale in (1, 4, 16, 100, 10**4) for sign in (1, -1)]
    return values


def crossings(kind, tree, name, home, budget):
    """Where along a variable a tree of degree one or two changes sign, has a double root, or reaches the whole numbers
    next to it; None for any other tree."""
    mp, at = context(), [-17 / 8, -3 / 8, 9 / 8, 29 / 8, home[name]]

    def value(x):
        result = Evaluator({**home, name: mp.mpf(x)}, budget)(tree)
        return mp.re(result) if mp.im(result) == 0 else mp.nan

    try:
        y = [value(x) for x in at]
    except (Undecided, KeyError):  # KeyError: the variable of a sum
        budget.spend()
        return None
    if not all(map(mp.isfinite, y)):
        return None
    slope, other = ((y[k + 1] - y[k]) / (at[k + 1] - at[k]) for k in (0, 1))
    a = (other - slope) / (at[2] - at[0])
    b, small = slope - a * (at[0] + at[1]), mp.mpf(2) ** -500 * (1 + max(map(abs, y)))
    c = y[0] - at[0] * (b + a * at[0])
    if not abs(a * at[3] ** 2 + b * at[3] + c - y[3]) < small:
        return None
    found = []
    for level in (mp.floor(y[4]), mp.floor(y[4]) + 1) if kind == "step" else (0,):
        discriminant = b * b - 4 * a * (c - level)
        if abs(a) > small and abs(discriminant) < small * (1 + b * b):
            found.append(-b / (2 * a))
        elif kind == "square":
            continue
        elif abs(a) > small and discriminant > 0:
            found += [(-b + sign * mp.sqrt(discriminant)) / (2 * a) for sign in (1, -1)]
        elif abs(a) <= small < abs(b):
            found.append((level - c) / b)
    return found
