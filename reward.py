r"""reward.py - is the final answer of a response correct? One yes or no, with its reason, that text cannot cheat or hang.

    grade(response, truth) -> Grade(correct, reason, answer)      same_answer(answer, truth) -> bool
    grade_all(responses, truths) -> [Grade, ...]

A ladder; each rung is cheap and decides what it can:
    1 extract    the text after the last </think>, in it the last \boxed{...} with balanced braces
    2 strings    equal after cleaning
    3 structure  lists, tuples, intervals, matrices, equations, units: item by item
    4 numbers    exact fractions; other expressions at a few points, in a precision that outgrows their magnitudes
    5 algebra    sympy, only where a numeric quadrature agreed and a proof is due, in a process that can be killed

Text is never evaluated: answer.py reads it into a tree of its own, and only such trees are computed with. Rungs 1 to 4
are bounded by construction (length, depth, magnitude, processor time), in any thread. A wrong "yes" teaches the model to cheat while
a wrong "no" only wastes a sample, so whatever stays undecided is wrong, with its reason.
"""

import math
import os
import pickle
import random
import re
import select
import subprocess
import sys
import threading
import time
import zlib
from collections import namedtuple
from fractions import Fraction
from functools import lru_cache

import answer as reader
from answer import Unreadable

Grade = namedtuple("Grade", "correct reason answer")

REASONS = {  # every value Grade.reason can have
    "correct": "equal to the truth",
    "wrong": "read, compared, different",
    "no_think": "no </think>: the response was cut off, or the model does not think aloud (require_think=False)",
    "no_box": r"no balanced \boxed{} in the answer part",
    "empty": "the box is empty",
    "too_long": "the boxed text is longer than any answer",
    "unreadable": "the boxed text is not an answer the grammar knows, and not the truth's string either",
    "undecided": "too large or too slow to compare within the guards",
    "timeout": "sympy did not decide within the time limit, or its process died",
}

TIME_LIMIT = 1.0  # seconds an answer may spend in sympy
CPU_LIMIT = 0.5  # seconds of processor time an answer may spend in rungs 1 to 4
MAX_BITS = 6000  # magnitudes and precisions beyond this are not computed with
MEMORY_LIMIT = 1 << 30  # bytes of address space of a sympy process


class Undecided(Exception):
    """The guards stopped the comparison: not equal as far as we can tell."""

    reason = "undecided"


# ------------------------------------------------------------------------------------------------------- 1 extraction
def last_boxed(text):
    r"""The content of the last balanced \boxed{...} of a text, the outer one where boxes nest, or None."""
    start = text.find("\\boxed")
    if start < 0:
        return None
    open_boxes, found = [], None
    for match in re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL).finditer(text, start):
        token = match[0]
        if token.startswith("\\boxed"):
            open_boxes.append(match.end())
        elif token == "{":
            open_boxes.append(None)
        elif token == "}" and open_boxes:
            begin = open_boxes.pop()
            if begin is not None:  # the box that closes last is the last one, or contains it
                found = text[begin : match.start()]
    return found


def extract(response, think="last", require_think=True):
    """(answer, None) or (None, reason). think="official" grades what stands between the first and the second </think>, as
    DeepScaleR's grader does; "last" what follows the last one."""
    parts = response.split("</think>")
    if len(parts) == 1 and require_think:
        return None, "no_think"
    boxed = last_boxed(parts[min(1, len(parts) - 1)] if think == "official" else parts[-1])
    if boxed is None:
        return None, "no_box"
    return (boxed.strip(), None) if boxed.strip() else (None, "empty")


# ---------------------------------------------------------------------------------------------------------- 4 numbers
def exact(tree):
    """The Fraction a constant tree stands for, or None: not rational, or not obviously so."""
    kind = tree[0]
    if kind == "num":
        return tree[1]
    if kind not in ("add", "mul", "div", "pow", "call"):
        return None
    values = [exact(child) if isinstance(child, tuple) else child for child in tree[1:]]
    if None in values:
        return None
    if kind == "call":
        return exact_call(*values)
    if kind == "pow":
        return exact_power(*values)
    result = values[0]
    for value in values[1:]:
        if kind == "div" and value == 0:
            raise Undecided("division by zero")
        result = result + value if kind == "add" else result * value if kind == "mul" else result / value
        if bits(result) > 4 * MAX_BITS:
            raise Undecided("too large")
    return result


def bits(value):
    return value.numerator.bit_length() + value.denominator.bit_length()


def exact_power(base, exponent):
    if exponent.denominator != 1 or abs(exponent) * bits(base) > 4 * MAX_BITS:
        return None
    if base == 0 and exponent <= 0:
        raise Undecided("0^0")
    return base ** int(exponent)


def exact_call(name, *values):
    if any(value.denominator != 1 or abs(value) > 1000 for value in values):
        return None
    whole = [int(value) for value in values]
    if name == "factorial" and whole[0] >= 0:
        return Fraction(math.factorial(whole[0]))
    if name == "binom" and len(whole) == 2 and min(whole) >= 0:
        return Fraction(math.comb(*whole))
    if name in ("gcd", "lcm", "max", "min"):
        return Fraction({"gcd": math.gcd, "lcm": math.lcm, "max": max, "min": min}[name](*whole))
    return {"abs": abs(Fraction(whole[0])), "floor": Fraction(whole[0]), "ceil": Fraction(whole[0])}.get(name)


_local = threading.local()


def context():
    """mpmath's precision is a global of its context: one context a thread."""
    if not hasattr(_local, "mp"):
        import mpmath

        _local.mp = mpmath.MPContext()
    return _local.mp


class Evaluator:
    """The value of a tree at one point, in mpmath arithmetic whose magnitudes are checked before every step that could
    make them explode. `span` adds up the sizes (in bits) of all numbers met: the precision needed."""

    def __init__(self, point, deadline):
        self.mp, self.point, self.deadline, self.span, self.quadrature = context(), point, deadline, 0, False

    def __call__(self, tree):
        if time.thread_time() > self.deadline:
            raise Undecided("too slow")
        try:
            return getattr(self, tree[0])(*tree[1:])
        except (AttributeError, ArithmeticError, ValueError, TypeError, NotImplementedError) as error:
            raise Undecided(str(error)) from None

    def sized(self, value):
        if not self.mp.isfinite(value):
            raise Undecided("not finite")
        self.span += abs(int(self.mp.mag(value))) if value else 0
        if self.span > MAX_BITS:
            raise Undecided("too large")
        return value

    def num(self, value):
        return self.sized(self.mp.mpf(value.numerator) / value.denominator)

    def sym(self, name):
        return self.point[name]

    def const(self, name):
        if name == "oo":
            raise Undecided("infinite")
        return {"pi": self.mp.pi, "e": self.mp.e, "i": self.mp.j}[name] * 1

    def add(self, *terms):
        return sum(map(self, terms), self.mp.mpf(0))

    def mul(self, *factors):
        result = self.mp.mpf(1)
        for factor in factors:
            result *= self(factor)
        return result

    def div(self, a, b):
        return self(a) / self(b)

    def pow(self, base, exponent):
        base, exponent = self(base), self(exponent)
        if base == 0:
            if self.mp.re(exponent) > 0:
                return base
            raise Undecided("0^0")
        if abs(exponent) * (abs(self.mp.mag(base)) + 4) > MAX_BITS:
            raise Undecided("too large")
        if self.mp.im(base) == 0 and self.mp.re(base) < 0 and isinstance(exponent, self.mp.mpf):
            third = exponent * 3  # odd roots of negative numbers are real: (-8)^(1/3) = -2
            if abs(third - self.mp.nint(third)) < 1e-20 and self.mp.nint(third) % 3:
                return self.sized(abs(base) ** exponent * (-1) ** int(self.mp.nint(third)))
        return self.sized(base**exponent)

    def call(self, name, *args):
        values = [self(arg) for arg in args]
        if name.startswith("@"):  # an unknown function: any fixed smooth one
            return self.mp.sin(seeded(name) + sum(seeded(name, k) * v for k, v in enumerate(values)))
        if any(self.mp.mag(v) > 40 for v in values if v):
            raise Undecided("too large")
        return self.sized(FUNCTIONS[name](self.mp, *values))

    def big(self, kind, variable, low, high, body):
        return self.sized(getattr(self, kind)(variable, low, high, body))

    def inside(self, variable, body):
        def value(x):
            inner = Evaluator({**self.point, variable: x}, self.deadline)
            result = inner(body)
            self.quadrature |= inner.quadrature
            return result

        return value

    def int(self, variable, low, high, body):
        self.quadrature = True
        return self.mp.quad(self.inside(variable, body), [self.bound(low), self.bound(high)])

    def bound(self, tree):
        sign = {("const", "oo"): 1, ("mul", ("num", Fraction(-1)), ("const", "oo")): -1}.get(tree)
        return sign * self.mp.inf if sign else self(tree)

    def series(self, variable, low, high, body, start, step):
        low, high = self.bound(low), self.bound(high)
        if self.mp.isinf(high):
            self.quadrature = True
            return (self.mp.nsum if start == 0 else self.mp.nprod)(self.inside(variable, body), [low, high])
        if low != self.mp.nint(low) or high != self.mp.nint(high) or high - low > 1000:
            raise Undecided("bounds")
        value, result = self.inside(variable, body), self.mp.mpf(start)
        for k in range(int(low), int(high) + 1):
            result = self.sized(step(result, value(self.mp.mpf(k))))
        return result

    def sum(self, variable, low, high, body):
        return self.series(variable, low, high, body, 0, lambda a, b: a + b)

    def prod(self, variable, low, high, body):
        return self.series(variable, low, high, body, 1, lambda a, b: a * b)


def gamma(mp, z):
    if abs(z) > 2000:
        raise Undecided("too large")
    return mp.gamma(z)


def exponential(mp, z):
    if abs(z) > MAX_BITS:
        raise Undecided("too large")
    return mp.exp(z)


def floor(mp, z):
    """Exactly on an integer, rounding errors must not decide."""
    near = mp.nint(mp.re(z))
    return near if abs(z - near) < mp.mpf(2) ** -60 else mp.floor(z)


FUNCTIONS = {
    "abs": lambda mp, z: abs(z), "floor": floor, "ceil": lambda mp, z: -floor(mp, -z), "exp": exponential,
    "ln": lambda mp, z: mp.log(z), "log10": lambda mp, z: mp.log(z) / mp.log(10),
    "log": lambda mp, z, base=None: mp.log(z) / (mp.log(base) if base is not None else 1),
    "factorial": lambda mp, z: gamma(mp, z + 1), "mod": lambda mp, a, b: a - b * floor(mp, a / b),
    "binom": lambda mp, n, k: gamma(mp, n + 1) / gamma(mp, k + 1) / gamma(mp, n - k + 1),
    "max": lambda mp, *v: max(v), "min": lambda mp, *v: min(v), "cbrt": lambda mp, z: mp.cbrt(z),
    **{name: (lambda mp, z, short=short: getattr(mp, short)(z)) for name, short in {
        "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin",
        "arccos": "acos", "arctan": "atan", "arccot": "acot", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh",
        "coth": "coth", "Re": "re", "Im": "im", "arg": "arg"}.items()},
}  # fmt: skip


def seeded(name, k=0):
    """The same number in (0.2, 1) for the same name, in every process."""
    return 0.2 + 0.8 * random.Random(zlib.crc32(f"{name}/{k}".encode())).random()


def nodes(tree):
    yield tree
    for child in tree[1:]:
        if isinstance(child, tuple):
            yield from nodes(child)


def points(*trees):
    """Where to compare: a dict from variable to value each. Integers where floor, factorial and the like want them; else
    values below, about and above one, and negative ones for the letters that are rarely a length or a mass."""
    every = [node for tree in trees for node in nodes(tree)]
    names = sorted({node[1] for node in every if node[0] == "sym"})
    if not names:
        return [{}]
    if any(node[0] == "call" and node[1] in ("floor", "ceil", "factorial", "binom", "mod", "gcd") or node[0] == "big"
           or node[0] == "pow" and node[1][0] in ("num", "mul") and (exact(node[1]) or 1) < 0 for node in every):
        return [{n: 2 + (k if len(names) == 1 else int(seeded(n, k) * 25)) for n in names} for k in range(12)]
    roots = any(node[0] == "pow" and node[2][0] in ("num", "div") and (exact(node[2]) or Fraction(1)).denominator != 1
                or node[0] == "call" and node[1] in ("ln", "log") for node in every)
    signed = [n for n in names if n in "xyzt" or not roots]
    return [{n: scale * seeded(n, k) * (-1 if k == 2 and n in signed else 1) for n in names}
            for k, scale in enumerate((1, 3, 2, 12, 40))]


def value_pairs(gold, pred, deadline):
    """[(gold value, pred value, tolerance)] at the points where both can be computed, real golds preferred."""
    found, undecided = [], None
    for point in points(gold, pred):
        try:
            found.append(values_at(gold, pred, point, deadline))
        except Undecided as error:
            undecided = error
            if time.thread_time() > deadline:
                raise
        if len(found) >= 12:
            break
    if not found or len(found) < 2 and len(points(gold, pred)) > 1:
        raise undecided or Undecided("nowhere defined")
    real = [pair for pair in found if context().im(pair[0]) == 0]
    return real if len(real) > 1 else found


def values_at(gold, pred, point, deadline):
    mp, precision = context(), 200
    while True:
        mp.prec = precision
        at = {name: mp.mpf(value) for name, value in point.items()}
        left, right = Evaluator(at, deadline), Evaluator(at, deadline)
        a, b = left(gold), right(pred)
        span = left.span + right.span
        if left.quadrature or right.quadrature:
            return a, b, mp.mpf(10) ** -10 * (1 + abs(a))
        if precision >= 120 + 2 * span:
            return a, b, mp.mpf(2) ** (40 + span - precision) * (1 + abs(a))
        precision = 140 + 2 * span


def same_value(gold, pred, state):
    """Are two expressions equal? Exactly if both are rational, else by value."""
    left, right = exact(gold), exact(pred)
    if left is not None and right is not None:
        return left == right
    if any(node[0] in ("word", "base") for tree in (gold, pred) for node in nodes(tree)):
        return False
    if not all(abs(a - b) <= tolerance for a, b, tolerance in value_pairs(gold, pred, state.deadline)):
        return False
    if any(node[0] == "big" and (node[1] == "int" or ("const", "oo") in node[3:5]) for tree in (gold, pred) for node in nodes(tree)):
        return state.prove(gold, pred)
    return True


# -------------------------------------------------------------------------------------------------------- 3 structure
CONTAINERS = {"list", "set", "tuple", "vector", "union", "interval", "matrix", "det", "ratio", "rel", "base", "word"}


def is_name(tree):
    """May `tree = value` be read as "the answer is value"?  x, x_1, f(x), (x, y), AB, A:B, \\angle ABC."""
    if tree[0] in ("sym", "word"):
        return True
    if tree[0] in ("tuple", "ratio") or (tree[0] == "call" and tree[1].startswith("@")):
        return all(is_name(t) or t[0] == "num" for t in tree[1:] if isinstance(t, tuple))
    return tree[0] == "mul" and all(t[0] == "sym" and (t[1].isupper() or "angle" in t[1] or "_" in t[1]) for t in tree[1:])


def unname(tree):
    """(name or None, value): drops `x =` and `x \\in`."""
    if tree[0] == "rel" and len(tree) == 4 and tree[2] in ("=", "in") and is_name(tree[1]):
        return tree[1], tree[3]
    return None, tree


def substitute(tree, sign):
    if tree[0] == "pm":
        return ("num", Fraction(sign * tree[1]))
    return (tree[0], *(substitute(t, sign) if isinstance(t, tuple) else t for t in tree[1:]))


def expand(tree):
    """a \\pm b stands for two answers."""
    if any(node[0] == "pm" for node in nodes(tree)):
        return [substitute(tree, 1), substitute(tree, -1)]
    return [tree]


def as_interval(tree):
    """x < 5, 1 <= x < 2 and x \\ne 3 as intervals; anything else unchanged."""
    minus, plus = ("mul", ("num", Fraction(-1)), ("const", "oo")), ("const", "oo")
    flip = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
    if tree[0] == "tuple" and len(tree) == 3:
        return ("interval", "(", ")", tree[1], tree[2])
    if tree[0] != "rel":
        return tree
    parts = tree[1:]
    if len(parts) == 3 and is_name(parts[2]) and parts[1] in flip:
        parts = (parts[2], flip[parts[1]], parts[0])
    if len(parts) == 3 and is_name(parts[0]):
        name, op, bound = parts
        if op == "!=":
            return ("union", ("interval", "(", ")", minus, bound), ("interval", "(", ")", bound, plus))
        if op in flip:
            close = "]" if op == "<=" else ")"
            open_ = "[" if op == ">=" else "("
            return ("interval", "(", close, minus, bound) if op[0] == "<" else ("interval", open_, ")", bound, plus)
    if len(parts) == 5 and is_name(parts[2]) and parts[1] in flip and parts[3] in flip and parts[1][0] == parts[3][0]:
        low, op1, _, op2, high = parts if parts[1][0] == "<" else (parts[4], flip[parts[3]], parts[2], flip[parts[1]], parts[0])
        return ("interval", "[" if op1 == "<=" else "(", "]" if op2 == "<=" else ")", low, high)
    return tree


def same(gold, pred, state):
    """Two trees, whatever they are."""
    if gold == pred:
        return True
    gold_name, gold_value = unname(gold)
    pred_name, pred_value = unname(pred)
    if (gold_name or pred_name) and not (gold_name and pred_name and gold_name != pred_name):
        return same(gold_value, pred_value, state)
    if {gold[0], pred[0]} & {"list", "set"} or any(node[0] == "pm" for tree in (gold, pred) for node in nodes(tree)):
        return same_items(gold, pred, state)
    if gold[0] == pred[0] == "rel" and same_relation(gold, pred, state):
        return True
    if {gold[0], pred[0]} & {"interval", "union", "rel"}:
        gold, pred = as_interval(gold), as_interval(pred)
        if gold[0] == pred[0] == "union":
            return matched(gold[1:], pred[1:], lambda a, b: same(as_interval(a), as_interval(b), state))
    if gold[0] not in CONTAINERS and pred[0] not in CONTAINERS:
        return same_value(gold, pred, state)
    if gold[0] != pred[0] or len(gold) != len(pred) or gold[0] == "rel":
        return False
    return all(same(a, b, state) if isinstance(a[0], str) and isinstance(b[0], str) and len(a) > 1 and len(b) > 1 else
               same_row(a, b, state) for a, b in zip(gold[1:], pred[1:], strict=True))


def same_row(a, b, state):
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return len(a) == len(b) and all(same(x, y, state) for x, y in zip(a, b, strict=True))


def items(tree):
    """The members of a list or set, \\pm written out, names kept."""
    name, value = unname(tree)
    if value[0] in ("list", "set"):
        return [item for child in value[1:] for item in items(child)]
    return [("rel", name, "=", v) if name else v for v in expand(value)]


def same_items(gold, pred, state):
    """Lists without brackets and sets: any order. Named items (a=2, b=3) against unnamed ones: in order."""
    gold_items, pred_items = items(gold), items(pred)
    names = [unname(item)[0] for item in gold_items]
    if len(set(names)) == len(names) > 1 and not any(unname(item)[0] for item in pred_items):
        return len(pred_items) == len(gold_items) and all(
            same(unname(a)[1], b, state) for a, b in zip(gold_items, pred_items, strict=True))
    return matched(gold_items, pred_items, lambda a, b: same(a, b, state))


def matched(gold_items, pred_items, equal):
    """A one-to-one matching; equality is transitive, so first come first served finds it."""
    left = list(pred_items)
    if len(left) != len(gold_items):
        return False
    for item in gold_items:
        hit = next((i for i, other in enumerate(left) if equal(item, other)), None)
        if hit is None:
            return False
        del left[hit]
    return True


def same_relation(gold, pred, state):
    """One equation or inequality is a constant multiple of the other."""
    if len(gold) != 4 or len(pred) != 4 or {gold[2], pred[2]} & {"in", "->", "~"}:
        return False
    minus = ("num", Fraction(-1))
    left, right = ("add", gold[1], ("mul", minus, gold[3])), ("add", pred[1], ("mul", minus, pred[3]))
    if {n[1] for n in nodes(left) if n[0] == "sym"} != {n[1] for n in nodes(right) if n[0] == "sym"}:
        return False
    pairs = value_pairs(left, right, state.deadline)
    if any(abs(a) <= t or abs(b) <= t for a, b, t in pairs):
        return False
    ratio = pairs[0][0] / pairs[0][1]
    if any(abs(a - ratio * b) > t * (1 + abs(ratio)) * (1 + abs(b)) for a, b, t in pairs):
        return False
    if gold[2] in ("=", "!="):
        return gold[2] == pred[2]
    flip = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
    return context().im(ratio) == 0 and pred[2] == (gold[2] if ratio > 0 else flip[gold[2]])


# ---------------------------------------------------------------------------------------------------------- 5 algebra
def to_sympy(tree, sympy):
    """A tree as a sympy expression, built node by node: no text ever reaches sympify."""
    build = [to_sympy(t, sympy) if isinstance(t, tuple) else t for t in tree[1:]]
    kind = tree[0]
    if kind == "num":
        return sympy.Rational(tree[1].numerator, tree[1].denominator)
    if kind == "sym":
        return sympy.Symbol(tree[1], positive=True)
    if kind == "const":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}[tree[1]]
    if kind == "big":
        how, name, low, high, body = build
        variable = sympy.Symbol(name, positive=True)
        return {"int": sympy.integrate, "sum": sympy.summation, "prod": sympy.product}[how](body, (variable, low, high))
    if kind == "call":
        names = {"ln": "log", "ceil": "ceiling", "abs": "Abs", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "binom": "binomial"}
        return getattr(sympy, names.get(build[0], build[0]))(*build[1:])
    return {"add": sympy.Add, "mul": sympy.Mul, "div": lambda a, b: a / b, "pow": sympy.Pow}[kind](*build)


def serve(stdin, stdout):
    """The sympy process: trees in, one byte out. It cannot outlive its parent (end of file), its memory limit, or an
    answer's time (the kernel's alarm ends it even inside a long multiplication)."""
    import resource
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business: it closes the pipe
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    import sympy

    stdout.write(b"R")
    stdout.flush()
    while True:
        try:
            limit, gold, pred = pickle.load(stdin)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, 2 * limit)
        try:
            difference = sympy.simplify(to_sympy(gold, sympy) - to_sympy(pred, sympy))
            verdict = b"1" if difference == 0 else b"0"
        except Exception:  # sympy raises anything; the parent learns that there is no proof
            verdict = b"?"
        signal.setitimer(signal.ITIMER_REAL, 0)
        stdout.write(verdict)
        stdout.flush()


class Prover:
    """One sympy process, started when first needed, replaced when it was killed."""

    def __init__(self):
        self.process = None

    def start(self):
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--serve"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if self.read(10.0) != b"R":
            raise BrokenPipeError

    def read(self, seconds):
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return os.read(self.process.stdout.fileno(), 1) if ready else b""

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None

    def prove(self, gold, pred, seconds):
        """True or False; Undecided if the time is up or the process dies."""
        try:
            if self.process is None or self.process.poll() is not None:
                self.stop()
                self.start()
            self.process.stdin.write(pickle.dumps((seconds, gold, pred)))
            self.process.stdin.flush()
            verdict = self.read(seconds)
        except OSError:
            verdict = b""
        except BaseException:
            self.stop()
            raise
        if verdict not in (b"0", b"1", b"?"):
            self.stop()
            error = Undecided("sympy")
            error.reason = "timeout"
            raise error
        return verdict == b"1"


_prover, _prover_lock = Prover(), threading.Lock()


def _forget_prover():
    """A forked child must not share its parent's pipe: close its copies and start afresh."""
    global _prover, _prover_lock
    if _prover.process:
        _prover.process.stdin.close()
        _prover.process.stdout.close()
    _prover, _prover_lock = Prover(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_prover)


class State:
    """What one comparison may still spend."""

    def __init__(self, seconds=TIME_LIMIT):
        self.deadline, self.seconds = time.thread_time() + CPU_LIMIT, seconds

    def prove(self, gold, pred):
        with _prover_lock:
            return _prover.prove(gold, pred, self.seconds)


# --------------------------------------------------------------------------------------------------------- the verdict
def truth_strings(truth):
    """Truths as text: str, int, float, or a list of alternatives."""
    if hasattr(truth, "tolist"):  # a numpy scalar or array
        truth = truth.tolist()
    if isinstance(truth, (list, tuple, set)):
        return [text for item in truth for text in truth_strings(item)]
    text = repr(truth) if isinstance(truth, float) else str(truth)
    boxed = last_boxed(text)
    return [boxed if boxed is not None else text]


_INTEGER = re.compile(r"[+-]?\d{1,400}")


def judge(answer, truth, seconds=TIME_LIMIT):
    """The reason for one answer against one truth string: "correct", "wrong", ..."""
    answer, truth = answer.strip(), truth.strip()
    if not answer:
        return "empty"
    if answer == truth:
        return "correct"
    if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(truth) and answer.isascii():
        return "correct" if int(answer) == int(truth) else "wrong"
    if len(answer) > reader.MAX_CHARS:
        return "too_long"
    return compare(answer, truth, seconds)


@lru_cache(maxsize=4096)
def squashed(text):
    return reader.squash(text)


def compare(answer, truth, seconds):
    text = squashed(answer)
    if text and len(truth) <= reader.MAX_CHARS and (text == squashed(truth) or
                                                    len(text) > 2 and text.isalpha() and text.lower() == squashed(truth).lower()):
        return "correct"
    try:
        gold_readings, pred_readings = reader.readings(truth, True), reader.readings(answer)
    except Unreadable:
        return "unreadable"
    state, reason = State(seconds), "wrong"
    for gold, gold_unit in gold_readings:
        for pred, pred_unit in pred_readings:
            if gold_unit and pred_unit and gold_unit != pred_unit:
                continue
            try:
                if same(gold, pred, state):
                    return "correct"
            except Undecided as error:
                reason = error.reason
    return reason


def same_answer(answer, truth, *, time_limit=TIME_LIMIT):
    """Is an answer (text without its box) equal to the truth, or to one of several?"""
    return grade_answer(str(answer), truth, time_limit).correct


def grade_answer(answer, truth, time_limit=TIME_LIMIT):
    reason = "wrong"
    for text in truth_strings(truth):
        reason = judge(answer, text, time_limit)
        if reason == "correct":
            break
    return Grade(reason == "correct", reason, answer)


def grade(response, truth, *, think="last", require_think=True, time_limit=TIME_LIMIT):
    """Grade(correct, reason, answer) of a whole response; reason is a key of REASONS, answer the text in the box or None."""
    answer, reason = extract(response, think, require_think)
    return Grade(False, reason, None) if answer is None else grade_answer(answer, truth, time_limit)


def grade_all(responses, truths, *, think="last", require_think=True, time_limit=TIME_LIMIT):
    """One Grade a response, in order."""
    if len(responses) != len(truths):
        raise ValueError(f"grade_all: {len(responses)} responses but {len(truths)} truths")
    return [grade(r, t, think=think, require_think=require_think, time_limit=time_limit)
            for r, t in zip(responses, truths, strict=True)]


if __name__ == "__main__" and sys.argv[1:] == ["--serve"]:
    serve(sys.stdin.buffer, sys.stdout.buffer)
