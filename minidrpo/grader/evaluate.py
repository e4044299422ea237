r"""evaluate.py - the value of one tree (see trees.py): an exact fraction, or a number at a point. With guards.

    exact(tree) -> Fraction or None           Evaluator(point, budget)(tree) -> an mpmath number

Every power, factorial and function checks the size of its argument before it computes, and every step is counted
against a budget. A guard that stops raises Undecided.
"""

import math
import random
import threading
import time
import zlib
from fractions import Fraction
from functools import lru_cache

from minidrpo.grader.trees import MINUS_OO, OO

MAX_BITS = 6000  # magnitudes beyond 2^6000 are not computed with


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


def constant(tree):
    try:
        return exact(tree)
    except Undecided:
        return None


# ------------------------------------------------------------------------------------------------------------- values
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
    """The value of a tree at one point. `span` adds up the sizes, in bits, of the numbers and powers met; `complex`: a
    root or a function of real numbers was no real number."""

    def __init__(self, point, budget, nested=False):
        self.mp, self.point, self.budget, self.nested, self.span = context(), point, budget, nested, 0
        self.complex = False

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
        return self.sized(self.noted(base**exponent, base, exponent))

    def noted(self, value, *arguments):
        self.complex |= isinstance(value, self.mp.mpc) and not any(isinstance(x, self.mp.mpc) for x in arguments)
        return value

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
        result = self.noted(CALLS[name](self.mp, *near, *values), *values)
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
