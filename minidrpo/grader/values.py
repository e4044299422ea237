r"""values.py - are two answer trees (see trees.py) worth the same? By exact fractions, values at some points, a proof.

    same_value(truth, answer, budget) -> bool         raises Undecided where a guard stopped it

Everything is limited (evaluate.py), and the working precision outgrows the magnitudes met: 1 + 10^-200 is not 1. Values
decide everything but infinite sums and integrals: there they only say "perhaps", and sympy must prove it
(`budget.prove`, a function of two trees; reward.py runs `prove` below in a process that can be killed).
"""

from minidrpo.grader.evaluate import Budget, Evaluator, Undecided, context, exact
from minidrpo.grader.points import INTEGERS, beyond, points
from minidrpo.grader.trees import OO, nodes

ATOMIC = {"num", "sym", "const", "add", "mul", "div", "pow", "call", "big"}  # trees that have a value


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
    if candidates[0] and not approximate(truth, answer):
        further = Budget(None, steps=150_000)
        for point in beyond(truth, answer, further):
            try:
                found.append(values_at(truth, answer, point, further, plain=True))
                if context().im(found[-1][0]) == 0 and enough(*found[-1]):
                    return found[-1:]
            except Undecided:
                further.spend()
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


def values_at(truth, answer, point, budget, plain=False):
    r"""Both values in a precision that covers every magnitude met on the way, and what rounding may have changed.
    plain: Undecided where real numbers have no value, as \sqrt{x-5}\sqrt{x+5} at -9, though complex ones have."""
    mp, precision = context(), 70 if approximate(truth, answer) else 200
    while True:
        mp.prec = precision
        at = {name: mp.mpf(value) for name, value in point.items()}
        left, right = Evaluator(at, budget), Evaluator(at, budget)
        a, b, span = left(truth), right(answer), left.span + right.span
        if not (mp.isfinite(a) and mp.isfinite(b)) or plain and (left.complex or right.complex and mp.im(b) == 0):
            raise Undecided("undecided")
        if precision == 70:
            return a, b, mp.mpf(10) ** -10 * (1 + abs(a))
        if precision >= 120 + 2 * span:
            return a, b, mp.mpf(2) ** (40 + span - precision) * (1 + abs(a))
        precision = 140 + 2 * span


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
