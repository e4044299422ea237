r"""values.py - what an answer tree (see trees.py) is worth: an exact fraction, values at some points, a proof.

    same_value(truth, answer, budget) -> bool         raises Undecided where a guard stopped it

Everything is limited: every power, factorial and function checks the size of its argument before it computes, the
working precision outgrows the magnitudes met (1 + 10^-200 is not 1), and every step is counted against a budget. Values
decide everything but infinite sums and integrals: there they only say "perhaps", and sympy must prove it
(`budget.prove`, a function of two trees; reward.py runs `prove` below in a process that can be killed).
"""

import math
import random
import threading
import time
import zlib
from fractions import Fraction
from functools import lru_cache

from minidrpo.grader.trees import MINUS_OO, OO, nodes

LARGE = ((0, 45), (0, 90), (150, 50), (0, 10**6))  # whole numbers: the least, and what is drawn above it
INTEGERS = 16  # points where variables are whole numbers
MAX_BITS = 6000  # magnitudes beyond 2^6000 are not computed with
ATOMIC = {"num", "sym", "const", "add", "mul", "div", "pow", "call", "big"}  # trees that have a value


class Undecided(Exception):
    """A guard stopped the comparison: not equal, as far as anybody can tell. args[0] is a reason of reward.REASONS."""


class Budget:
    """What one answer may spend, and how to prove. Steps are counted, not timed: the same verdict on every machine,
    busy or not. The clock is only the net below, and it counts this thread's processor time."""

    def __init__(self, prove, steps=20_000, seconds=1.0):
        self.prove, self.left, self.seconds = prove, steps, seconds
        self.look_at, self.start = time.monotonic() + seconds, None

    def spend(self, steps=1):
        self.left -= steps
        if self.left < 0:
            raise Undecided("undecided")
        if time.monotonic() > self.look_at:  # thread_time is a slow system call on some machines: ask it rarely
            self.start, self.look_at = self.start or time.thread_time(), time.monotonic() + 0.1
            if time.thread_time() - self.start > self.seconds:
                raise Undecided("undecided")


# ------------------------------------------------------------------------------------------------------ exact numbers
def exact(tree):
    """The Fraction a constant tree stands for; None where it is not rational, or not obviously so."""
    kind, *parts = tree
    if kind == "num":
        return parts[0]
    if kind not in ("add", "mul", "div", "pow", "call"):
        return None
    name = parts.pop(0) if kind == "call" else kind
    values = [exact(part) for part in parts]
    if None in values:
        return None
    if kind == "call":
        return exact_call(name, *values)
    if kind == "pow":
        return exact_power(*values)
    result = values[0]
    for value in values[1:]:
        if kind == "div" and value == 0:
            raise Undecided("undecided")
        result = result + value if kind == "add" else result * value if kind == "mul" else result / value
        if bits(result) > 4 * MAX_BITS:
            raise Undecided("undecided")
    return result


def bits(value):
    return value.numerator.bit_length() + value.denominator.bit_length()


def exact_power(base, exponent):
    if exponent.denominator != 1 or abs(exponent) * bits(base) > 4 * MAX_BITS:
        return None
    if base == 0 and exponent <= 0:
        raise Undecided("undecided")
    return base ** int(exponent)


def exact_call(name, *values):
    """Of small whole numbers only."""
    if name in ("floor", "ceil", "abs") and len(values) == 1:
        return Fraction({"floor": math.floor, "ceil": math.ceil, "abs": abs}[name](values[0]))
    if name not in EXACT or any(value.denominator != 1 or abs(value) > 1000 for value in values):
        return None
    try:
        return Fraction(EXACT[name](*map(int, values)))
    except (TypeError, ValueError):  # negative, or not as many as the function takes
        return None


EXACT = {"binom": math.comb, "gcd": math.gcd, "lcm": math.lcm, "max": max, "min": min, "factorial": math.factorial}


# ------------------------------------------------------------------------------------------------------------- values
def same_value(truth, answer, budget):
    """Are two expressions equal? Exactly if both are rational, else by value at several points."""
    left, right = exact(truth), exact(answer)
    if left is not None and right is not None:
        return left == right
    if not all(node[0] in ATOMIC for tree in (truth, answer) for node in nodes(tree)):
        return False  # words, tuples inside sums and the like have no value
    if not all(abs(a - b) <= tolerance for a, b, tolerance in value_pairs(truth, answer, budget, enough=differ)):
        return False
    return budget.prove(truth, answer) if approximate(truth, answer) or not seen_far(truth, answer) else True


def seen_far(truth, answer):
    """False where whole numbers decided, but none so large as to show what vanishes up to some size: the answer has no
    value there and the truth has one, or has none either and the answer a step that the truth lacks."""
    *nearer, far = points(truth, answer)
    try:
        if len(nearer) == INTEGERS - 1:
            values_at(truth, answer, far, Budget(None, seconds=0.25))
    except Undecided:
        steps = [{node[1] for node in nodes(tree)} & {"floor", "ceil", "mod"} for tree in (truth, answer)]
        return steps[1] <= steps[0] and not has_value(truth, far, Budget(None, seconds=0.25))
    return True


def approximate(*trees):
    """Integrals and infinite sums are quadratures: their values agree to ten digits or not, and prove nothing."""
    return any(node[0] == "big" and (node[1] == "int" or OO in node[3:5]) for tree in trees for node in nodes(tree))


def differ(truth_value, answer_value, tolerance):
    return not abs(truth_value - answer_value) <= tolerance


def value_pairs(truth, answer, budget, enough=lambda *pair: False):
    """[(truth's value, answer's value, tolerance)] where both can be computed; only real values if there are two of
    them, and only one pair if it is `enough` to decide."""
    found, candidates = [], points(truth, answer)[: 2 if approximate(truth, answer) else None]
    for point in candidates:
        try:
            far = len(candidates) == INTEGERS and point in candidates[-2:]  # more than the nearer ones need
            found.append(values_at(truth, answer, point, Budget(None, seconds=0.25) if far else budget))
            if context().im(found[-1][0]) == 0 and enough(*found[-1]):
                return found[-1:]
        except Undecided:
            budget.spend()  # raises again if it was the budget that ran out
            if len(candidates) == INTEGERS and point in candidates[-4:-2] and has_value(truth, point, budget):
                raise  # what is nothing at small whole numbers only, and too large elsewhere
        if len(found) == 4 and len(candidates) == 5:  # the fifth is for functions not defined everywhere
            break
    if len(found) < min(2, len(candidates)):
        raise Undecided("undecided")
    real = [pair for pair in found if context().im(pair[0]) == 0]
    return real if len(real) > 1 else found


def has_value(tree, point, budget):
    context().prec = 200
    try:
        return context().isfinite(Evaluator({name: context().mpf(x) for name, x in point.items()}, budget)(tree))
    except Undecided:
        budget.spend()
        return False


def values_at(truth, answer, point, budget):
    """Both values in a precision that covers every magnitude met on the way, and what rounding may have changed."""
    mp, precision = context(), 70 if approximate(truth, answer) else 200
    while True:
        mp.prec = precision
        at = {name: mp.mpf(value) for name, value in point.items()}
        left, right = Evaluator(at, budget), Evaluator(at, budget)
        a, b, span = left(truth), right(answer), left.span + right.span
        if not (mp.isfinite(a) and mp.isfinite(b)):
            raise Undecided("undecided")
        if precision == 70:
            return a, b, mp.mpf(10) ** -10 * (1 + abs(a))
        if precision >= 120 + 2 * span:
            return a, b, mp.mpf(2) ** (40 + span - precision) * (1 + abs(a))
        precision = 140 + 2 * span


def symbols(*trees):
    """Free variables, sorted."""

    def free(tree):
        if tree[0] == "sym":
            return {tree[1]}
        if tree[0] == "big":  # the variable of a sum is free in its limits
            return free(tree[3]) | free(tree[4]) | free(tree[5]) - {tree[2]}
        return set().union(*(free(part) for part in tree[1:] if isinstance(part, tuple)))

    return sorted(set().union(*map(free, trees)))


def points(*trees):
    """Where to compare: dicts from variable to value. Whole numbers where floor, factorial and the like want them; else
    values below, about and above one, and negative ones for the letters that are rarely a length or a mass."""
    names = symbols(*trees)
    if not names:
        return [{}]
    pair = zlib.crc32(repr(trees).encode())  # points of their own, which no answer can be made to vanish at

    def drawn(name, k):
        return seeded(f"{pair} {name}", k)

    every = [node for tree in trees for node in nodes(tree)]
    calls, powers = {node[1] for node in every if node[0] == "call"}, [node for node in every if node[0] == "pow"]
    if (
        calls & {"floor", "ceil", "factorial", "binom", "mod", "gcd", "lcm"}
        or any(node[0] == "big" for node in every)
        or any(symbols(power) and (constant(power[1]) or 1) < 0 for power in powers)
    ):  # (-1)^n
        small = (lambda name, k: 2 + k) if len(names) == 1 else lambda name, k: 2 + int(drawn(name, k) * 25)
        found = [{name: small(name, k) for name in names} for k in range(INTEGERS - len(LARGE))]
        return found + [{name: least + int(drawn(name, k) * k) for name in names} for least, k in LARGE]
    roots = calls & {"ln", "log"} or any((constant(power[2]) or Fraction(1)).denominator != 1 for power in powers)
    signs = {name: -1 if name in "xyzt" or not roots else 1 for name in names}
    return [
        {name: scale * drawn(name, k) * (signs[name] if k == 2 else 1) for name in names}
        for k, scale in enumerate((1, 3, 2, 5, 11))
    ]


def constant(tree):
    try:
        return exact(tree)
    except Undecided:
        return None


@lru_cache(maxsize=4096)
def seeded(name, k=0):
    """The same number in (0.2, 1) for the same name, in every process."""
    return 0.2 + 0.8 * random.Random(zlib.crc32(f"{name}/{k}".encode())).random()


_local = threading.local()


def context():
    """mpmath keeps its precision in its context: one context per thread."""
    if not hasattr(_local, "mp"):
        import mpmath  # 0.1 s that whole-number answers never need

        _local.mp = mpmath.MPContext()
    return _local.mp


class Evaluator:
    """The value of a tree at one point. `span` adds up the sizes, in bits, of the numbers and powers met."""

    def __init__(self, point, budget, nested=False):
        self.mp, self.point, self.budget, self.nested, self.span = context(), point, budget, nested, 0

    def __call__(self, tree):
        price = (10 if tree[0] in ("call", "pow") else 1) * (5 if self.nested else 1)
        self.budget.spend(price * (1 + (self.mp.prec >> 10) ** 2))
        try:
            return getattr(self, tree[0])(*tree[1:])
        except (ArithmeticError, ValueError, TypeError, NotImplementedError, self.mp.NoConvergence):  # 1/0, gamma(-1)
            raise Undecided("undecided") from None

    def sized(self, value):
        if not self.mp.isfinite(value):
            raise Undecided("undecided")
        self.span += abs(int(self.mp.mag(value))) if value else 0
        return self.limit(self.span, value)

    def limit(self, size, value=None, most=MAX_BITS):
        if not size <= most:  # also true of nan
            raise Undecided("undecided")
        return value

    def num(self, value):
        return self.sized(self.mp.mpf(value.numerator) / value.denominator)

    def sym(self, name):
        return self.point[name]

    def const(self, name):
        if name == "oo":  # infinite values are equal as trees or not at all
            raise Undecided("undecided")
        return {"pi": +self.mp.pi, "e": +self.mp.e, "i": self.mp.j}[name]

    def add(self, *terms):
        return sum(map(self, terms), self.mp.zero)

    def mul(self, *factors):
        return math.prod(map(self, factors), start=self.mp.one)

    def div(self, above, below):
        return self(above) / self(below)

    def pow(self, base, exponent):
        mp, base, exponent = self.mp, self(base), self(exponent)
        if base == 0:
            return self.limit(0 if mp.re(exponent) > 0 else MAX_BITS + 1, base)
        self.limit(abs(exponent) * (abs(mp.mag(base)) + 4))
        if not mp.im(base) and not mp.im(exponent) and mp.re(base) < 0:  # odd roots are real: (-8)^(1/3) = -2
            thirds = mp.nint(3 * exponent)
            if thirds % 3 and abs(3 * exponent - thirds) < 1e-15:
                return self.sized(abs(base) ** exponent * (-1) ** int(thirds))
        return self.sized(base**exponent)

    def call(self, name, *args):
        values = [self(arg) for arg in args]
        if name.startswith("@"):  # an unknown function: any fixed smooth one
            return self.mp.sin(seeded(name) + sum(seeded(name, k) * value for k, value in enumerate(values)))
        for value in values:
            self.limit(self.mp.mag(value) if value else 0, most=40)
        if name in ("factorial", "binom"):
            self.limit(max(map(abs, values)), most=2000)
            if name == "binom" or not whole(self.mp, values[0]):  # gamma
                self.limit(self.mp.prec, most=4000)
        if name not in CALLS:
            raise Undecided("undecided")
        if name == "exp":
            self.limit(abs(values[0]))
        # How far rounding may have moved a value: 2.999... is 3 if the magnitudes on the way allow it, and not else
        near = (self.mp.mpf(2) ** (40 + self.span - self.mp.prec),) if name in ("floor", "ceil", "mod") else ()
        result = CALLS[name](self.mp, *near, *values)
        return self.sized(result) if name in ("exp", "factorial", "binom") else result

    def big(self, kind, variable, low, high, body):
        self.limit(MAX_BITS + self.nested)  # a sum of sums costs the product
        low, high = ({OO: self.mp.inf, MINUS_OO: -self.mp.inf}.get(end) or self(end) for end in (low, high))

        def value(x):
            return Evaluator({**self.point, variable: x}, self.budget, nested=True)(body)

        if kind == "int":
            return self.mp.quad(value, [low, high])
        if self.mp.isinf(high):
            return (self.mp.nsum if kind == "sum" else self.mp.nprod)(value, [low, high])
        self.limit(high - low, most=1000)
        if low != self.mp.nint(low) or high != self.mp.nint(high):
            raise Undecided("undecided")
        terms = [value(self.mp.mpf(k)) for k in range(int(low), int(high) + 1)]
        return self.sized(sum(terms, self.mp.zero) if kind == "sum" else math.prod(terms, start=self.mp.one))


def whole(mp, z):
    """Is it a number to count with?"""
    return mp.im(z) == 0 and mp.re(z) >= 0 and mp.isint(z)


def floor(mp, near, z):
    """Of a value that rounding left a hair below an integer: that integer."""
    whole = mp.nint(mp.re(z))
    return whole if abs(z - whole) < near else mp.floor(z)


CALLS = {
    "floor": floor, "ceil": lambda mp, near, z: -floor(mp, near, -z),
    "mod": lambda mp, near, a, b: a - b * floor(mp, near, a / b),
    "abs": lambda mp, z: abs(z), "max": lambda mp, *v: max(v), "min": lambda mp, *v: min(v),
    "factorial": lambda mp, n: mp.mpf(math.factorial(int(n))) if whole(mp, n) else mp.gamma(n + 1),
    "binom": lambda mp, n, k: mp.binomial(n, k),
    "log": lambda mp, z, base=None: mp.log(z) if base is None else mp.log(z) / mp.log(base),
    "log10": lambda mp, z: mp.log(z) / mp.log(10),
    **{name: (lambda mp, z, short=short: getattr(mp, short)(z)) for name, short in {
        "exp": "exp", "ln": "log", "cbrt": "cbrt", "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec",
        "csc": "csc", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "sinh": "sinh",
        "cosh": "cosh", "tanh": "tanh", "coth": "coth", "Re": "re", "Im": "im", "arg": "arg"}.items()},
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ algebra
def prove(truth, answer):
    """Is the difference identically zero, says sympy. May take any time and memory: only for processes one can kill."""
    import sympy

    return sympy.simplify(to_sympy(truth, sympy) - to_sympy(answer, sympy)) == 0


def to_sympy(tree, sympy):
    """Built node by node: no text ever reaches sympify."""
    kind, *parts = tree
    parts = [to_sympy(part, sympy) if isinstance(part, tuple) else part for part in parts]
    if kind == "num":
        return sympy.Rational(parts[0].numerator, parts[0].denominator)
    if kind == "sym":
        return sympy.Symbol(parts[0], positive=True)
    if kind == "const":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}[parts[0]]
    if kind == "big":
        how, name, low, high, body = parts
        operator = {"int": sympy.integrate, "sum": sympy.summation, "prod": sympy.product}[how]
        return operator(body, (sympy.Symbol(name, positive=True), low, high))
    if kind == "call":
        renamed = {"ln": "log", "ceil": "ceiling", "abs": "Abs", "binom": "binomial"}
        return getattr(sympy, renamed.get(parts[0], parts[0].replace("arc", "a")))(*parts[1:])
    return {"add": sympy.Add, "mul": sympy.Mul, "div": lambda a, b: a / b, "pow": sympy.Pow}[kind](*parts)
