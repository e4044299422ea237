r"""equality.py - are two answer trees (see trees.py) equal? Here their structure; values.py decides what has a value.

    same(truth, answer, budget) -> bool       raises evaluate.Undecided where a guard stopped the comparison

What is said in several ways is compared in all of them: lists without brackets in any order, x = 5 as 5, x < 5 as an
interval, an equation up to a constant factor, a \pm b as two answers. Tuples, intervals and matrices: item by item.
A name, a variable or a unit that only one of the two mentions is no difference; where both do, it must be the same.
"""

import math
from fractions import Fraction

from minidrpo.grader.evaluate import Budget, Undecided, constant, context, exact
from minidrpo.grader.points import symbols
from minidrpo.grader.trees import MINUS_ONE, MINUS_OO, OO, members, nodes
from minidrpo.grader.values import ATOMIC, same_value, value_pairs

INFINITE = {OO: math.inf, MINUS_OO: -math.inf}
FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def same(truth: tuple, answer: tuple, budget: Budget) -> bool:
    """Two trees, whatever they are."""
    budget.spend(5)
    if truth == answer:
        return True
    kinds = {truth[0], answer[0]}
    if kinds <= ATOMIC and not has_plus_minus(truth, answer):
        return not {OO, MINUS_OO} & {truth, answer} and same_value(truth, answer, budget)
    if "mod" in kinds and kinds <= {"mod", *ATOMIC} and not has_plus_minus(truth, answer):
        return same_class(truth, answer, budget)
    if "rel" in kinds and (verdict := same_named(truth, answer, budget)) is not None:
        return verdict
    (truth_name, truth), (answer_name, answer) = as_set(truth), as_set(answer)
    if truth_name and answer_name and truth_name != answer_name:
        return False
    if truth[0] == answer[0] == "union":
        return matched(truth[1:], answer[1:], budget)
    if {truth[0], answer[0]} == {"and", "or"}:
        return False
    if {truth[0], answer[0]} & {"list", "set", "and", "or"} or has_plus_minus(truth, answer):
        return same_items(truth, answer, budget)
    return truth[0] == answer[0] != "rel" and same_parts(truth[1:], answer[1:], budget)


def same_parts(truth, answer, budget):
    """Position by position: coordinates, the ends and brackets of intervals, matrix rows."""
    if is_tree(truth) and is_tree(answer):
        return (truth[0] == "mod") == (answer[0] == "mod") and same(truth, answer, budget)
    if isinstance(truth, str) or isinstance(answer, str) or len(truth) != len(answer):
        return truth == answer
    return all(same_parts(a, b, budget) for a, b in zip(truth, answer, strict=True))


def is_tree(part):
    return isinstance(part, tuple) and part and isinstance(part[0], str) and part[0] not in "(["


def has_plus_minus(*trees):
    return any(node[0] == "pm" for tree in trees for node in nodes(tree))


def same_class(truth, answer, budget):
    r"""3 (mod 7) and 10 (mod 7), but not 3 (mod 8). A class and a number are two things: 3 (mod 7) is many numbers, and
    7 could be any modulus. `10 \bmod 7` is a number, 3; beside a class it is taken for one."""
    truth, answer = (("mod", *tree[2:]) if tree[:2] == ("call", "mod") else tree for tree in (truth, answer))
    if not truth[0] == answer[0] == "mod" or not same(truth[2], answer[2], budget):
        return False
    a, b, modulus = exact(truth[1]), exact(answer[1]), exact(answer[2])
    if None in (a, b, modulus):
        return same(truth[1], answer[1], budget)
    if any(value.denominator != 1 for value in (a, b, modulus)):  # 1/2 (mod 7) is 4
        return a == b
    return modulus > 0 and (a - b) % modulus == 0


# ------------------------------------------------------------------------------------------ names, equations, intervals
def is_name(tree):
    r"""May `tree = value` be read as "the answer is value"?  x, x_1, f(x), (x, y), AB, A:B, \angle ABC."""
    if tree[0] in ("tuple", "ratio") or (tree[0] == "call" and tree[1].startswith("@")):
        return all(is_name(part) or part[0] == "num" for part in tree[1:] if isinstance(part, tuple))
    if tree[0] == "mul":
        return all(t[0] == "sym" and (t[1].isupper() or "_" in t[1] or "angle" in t[1]) for t in tree[1:])
    return tree[0] in ("sym", "word")


def unname(tree):
    r"""(name, value) of `name = value`, or `name \in value` where that is a set; (None, tree) of anything else."""
    if tree[0] == "rel" and len(tree) == 4 and is_name(tree[1]):
        if tree[2] == "=" or tree[2] == "in" and tree[3][0] not in ATOMIC - {"sym"}:
            return tree[1], tree[3]
    return None, tree


def same_named(truth, answer, budget):
    """Relations: None where neither is one that can be decided here."""
    if answer[0] == "rel" and len(answer) > 4 and set(answer[2::2]) == {"="} and is_name(answer[1]):  # x = 1/2 = 0.5
        return all(same(truth, ("rel", answer[1], "=", value), budget) for value in answer[3::2])
    (truth_name, truth_value), (answer_name, answer_value) = unname(truth), unname(answer)
    kinds = {truth_value[0], answer_value[0]}
    if "mod" in kinds and kinds & ATOMIC:  # x = 3 (mod 7) has more solutions than x = 3
        return False
    if truth_name and truth_name == answer_name:
        return same(truth_value, answer_value, budget)
    if truth[0] == answer[0] == "rel" and len(truth) == len(answer) == 4:
        if not {truth[2], answer[2]} & {"in", "->", "~"}:
            return same_relation(truth, answer, budget)
    if bool(truth_name) != bool(answer_name):
        variable = as_set(truth_value)[0] or as_set(answer_value)[0]  # x < 1 has one, (-oo, 1) has none
        return variable in (None, truth_name or answer_name) and same(truth_value, answer_value, budget)
    return None


def same_relation(truth, answer, budget):
    """One equation or inequality is a constant multiple of the other."""
    left, right = (("add", tree[1], ("mul", MINUS_ONE, tree[3])) for tree in (truth, answer))
    if not all(node[0] in ATOMIC for tree in (left, right) for node in nodes(tree)) or symbols(left) != symbols(right):
        return False
    if not symbols(left):  # f(3) = 5: nothing varies, so any two would be multiples
        return truth[2] == answer[2] and same_parts(truth[1::2], answer[1::2], budget)
    pairs = value_pairs(left, right, budget)
    if not all(abs(a) > tolerance < abs(b) for a, b, tolerance in pairs):
        return False
    ratio = pairs[0][0] / pairs[0][1]
    if not all(abs(a - ratio * b) <= tolerance * (1 + abs(ratio)) * (1 + abs(b)) for a, b, tolerance in pairs):
        return False
    if truth[2] in ("=", "!="):
        return truth[2] == answer[2]
    return context().im(ratio) == 0 and answer[2] == (truth[2] if ratio > 0 else FLIP[truth[2]])


def as_set(tree):
    r"""(variable, interval or union) of x < 5, 1 <= x < 2, x \ne 3, "x < 1 or x = 3", "x > 1 and x < 3", (1, 2) and
    unions; the variable is None where there is none. (None, tree) of anything else."""
    kind, *parts = tree
    if kind == "tuple" and len(parts) == 2:
        return None, ("interval", "(", ")", *parts)
    if kind == "union":
        return joined(tree, [(None, part) for part in parts])
    if kind == "rel" and set(parts[1::2]) <= {*FLIP, "!="}:
        return inequality(tree)
    if kind in ("list", "and", "or") and all(part[0] == "rel" for part in parts):
        if kind != "and" and any(part[2] in FLIP for part in parts):
            named = [(*unname(part), part) for part in parts]
            points = [(name, value if part[2] == "in" else ("set", value)) for name, value, part in named]
            return joined(
                tree, [point if point[0] else as_set(part) for point, part in zip(points, parts, strict=True)]
            )
        (name, one), (other, two), *more = map(as_set, parts)
        if kind == "and" and not more and name == other and one[0] == two[0] == "interval":
            one, two = (two, one) if one[3] == MINUS_OO else (one, two)  # x > 1 and x < 3
            if one[4] == OO and two[3] == MINUS_OO:
                return name, ("interval", one[1], two[2], one[3], two[4])
    return None, tree


def joined(tree, named):
    """The union of (variable, set) pairs, its points one by one; (None, tree) where their variables differ."""
    parts, names = [], {name for name, _ in named}
    for part in (as_set(part)[1] for _, part in named):
        several = {"set": [("set", item) for item in part[1:]], "union": part[1:], "interval": [part], "sym": [part]}
        if len(names) > 1 or part[0] not in several:  # [1, 2] and (3) have no union
            return None, tree if tree[0] != "union" else ("no set", tree)
        parts += several[part[0]]
    if all(part[0] == "set" for part in parts):
        return *names, ("set", *(part[1] for part in parts))
    return *names, merged(parts)


def merged(parts):
    """The union of intervals and points, those that overlap or touch being one: [0, 1) and {1}. As it was where an end
    is no rational number."""
    spans = [part[1:] if part[0] == "interval" else ("[", "]", part[1], part[1]) for part in parts if part[0] != "sym"]
    ends = [tuple(INFINITE.get(end) or constant(end) for end in span[2:]) for span in spans]
    if len(spans) < len(parts) or any(None in pair or pair[0] > pair[1] for pair in ends):
        return ("union", *parts)
    found = []  # (highest, is it in, tree)
    for (low, high), span in sorted(zip(ends, spans, strict=True), key=lambda pair: (pair[0][0], pair[1][0] == "(")):
        top = (high, span[1] == "]")
        most, inside, tree = found[-1] if found else (low, False, None)
        if tree and (low < most or low == most and (inside or span[0] == "[")):
            if top > (most, inside):
                found[-1] = (*top, ("interval", tree[1], span[1], tree[3], span[3]))
        else:
            found.append((*top, ("interval", *span)))
    if len(found) == len(parts):
        return ("union", *parts)
    trees = [("set", tree[3]) if tree[3] == tree[4] else tree for _, _, tree in found]
    return trees[0] if len(trees) == 1 else ("union", *trees)


def inequality(tree):
    r"""as_set of x < 5, 5 > x, x \ne 3, 1 <= x < 2."""
    parts = tree[1:]
    if len(parts) == 3:
        low, op, high = parts if is_name(tree[1]) else (tree[3], FLIP.get(tree[2], ""), tree[1])
        if op == "!=":
            return low, ("union", ("interval", "(", ")", MINUS_OO, high), ("interval", "(", ")", high, OO))
        parts = (MINUS_OO, "<", low, op, high) if op[:1] == "<" else (OO, ">", low, op, high)
    low, op1, name, op2, high = parts if len(parts) == 5 else (None, "", None, "", None)
    if {op1[:1], op2[:1]} == {">"}:
        low, op1, op2, high = high, FLIP[op2], FLIP[op1], low
    elif {op1[:1], op2[:1]} != {"<"}:
        return None, tree
    ends = ("[" if op1 == "<=" else "(", "]" if op2 == "<=" else ")")
    return (name, ("interval", *ends, low, high)) if is_name(name) else (None, tree)


# ------------------------------------------------------------------------------------------------------- lists and sets
def items(tree):
    r"""The members of a list or set, names kept; a \pm b is two of them, a modulus behind a list is that of each."""
    name, value = unname(tree)
    found = value[1:] if value[0] == "set" else members(value)
    if found and (last := unname(found[-1])[1])[0] == "mod":
        found = [with_modulus(item, last[2]) for item in found]
    found = [
        copy for item in found for copy in ([substitute(item, s) for s in (1, -1)] if has_plus_minus(item) else [item])
    ]
    return [("rel", name, "=", item) if name else item for item in found]


def with_modulus(tree, modulus):
    if tree[0] == "rel":
        return (*tree[:-1], with_modulus(tree[-1], modulus))
    return tree if tree[0] == "mod" else ("mod", tree, modulus)


def substitute(tree, sign):
    if tree[0] == "pm":
        return ("num", Fraction(sign * tree[1]))
    return (tree[0], *(substitute(part, sign) if isinstance(part, tuple) else part for part in tree[1:]))


def same_items(truth, answer, budget):
    """Lists without brackets and sets: any order. Differently named items (a=2, b=3) against unnamed ones: in order."""
    truth_items, answer_items = items(truth), items(answer)
    if unname(truth)[1][0] == unname(answer)[1][0] == "set":  # {1, 2, 2} is {1, 2}; a list without braces may repeat
        truth_items, answer_items = list(dict.fromkeys(truth_items)), list(dict.fromkeys(answer_items))
    names = [unname(item)[0] for item in truth_items]
    if len(truth_items) != len(answer_items):
        return False
    if len(set(names)) == len(names) > 1 and not any(unname(item)[0] for item in answer_items):
        return all(same(a, b, budget) for a, b in zip(truth_items, answer_items, strict=True))
    return matched(truth_items, answer_items, budget)


def matched(truth_items, answer_items, budget):
    """A one-to-one matching; equality is transitive, so first come first served finds it. A pair that stays undecided
    is no match, but leaves the whole undecided unless another item matches."""
    left, rest, stopped = list(answer_items), [], None
    for item in truth_items:  # first what is spelled alike, which costs next to nothing
        if item in left:
            left.remove(item)
        else:
            rest.append(item)
    for item in rest:
        for i, other in enumerate(left):
            try:
                if same(item, other, budget):
                    del left[i]
                    break
            except Undecided as reason:
                if reason.args[0] == "timeout":
                    raise
                stopped = reason
        else:
            if stopped:
                raise stopped
            return False
    return not left
