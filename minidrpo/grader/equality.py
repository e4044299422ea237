r"""equality.py - are two answer trees (see grammar.py) equal? Here their structure; values.py decides what has a value.

    same(gold, pred, budget) -> bool       raises values.Undecided where a guard stopped the comparison

What is said in several ways is compared in all of them: lists without brackets in any order, x = 5 as 5, x < 5 as an
interval, an equation up to a constant factor, a \pm b as two answers. Tuples, intervals and matrices: item by item.
"""

from fractions import Fraction

from minidrpo.grader.grammar import MINUS_ONE
from minidrpo.grader.values import ATOMIC, MINUS_OO, OO, context, nodes, same_value, symbols, value_pairs

FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def same(gold, pred, budget):
    """Two trees, whatever they are."""
    budget.spend(5)
    if gold == pred:
        return True
    kinds = {gold[0], pred[0]}
    if kinds <= ATOMIC and not has_plus_minus(gold, pred):
        return same_value(gold, pred, budget)
    if "rel" in kinds and (verdict := same_named(gold, pred, budget)) is not None:
        return verdict
    if kinds & {"interval", "union"}:
        gold, pred = as_interval(gold), as_interval(pred)
    if gold[0] == pred[0] == "union":
        return matched(gold[1:], pred[1:], lambda a, b: same(as_interval(a), as_interval(b), budget))
    if {gold[0], pred[0]} & {"list", "set"} or has_plus_minus(gold, pred):
        return same_items(gold, pred, budget)
    return gold[0] == pred[0] != "rel" and same_parts(gold[1:], pred[1:], budget)


def same_parts(gold, pred, budget):
    """Position by position: coordinates, the ends and brackets of intervals, matrix rows."""
    if is_tree(gold) and is_tree(pred):
        return same(gold, pred, budget)
    if isinstance(gold, str) or isinstance(pred, str) or len(gold) != len(pred):
        return gold == pred
    return all(same_parts(a, b, budget) for a, b in zip(gold, pred, strict=True))


def is_tree(part):
    return isinstance(part, tuple) and part and isinstance(part[0], str) and part[0] not in "(["


def has_plus_minus(*trees):
    return any(node[0] == "pm" for tree in trees for node in nodes(tree))


def is_name(tree):
    r"""May `tree = value` be read as "the answer is value"?  x, x_1, f(x), (x, y), AB, A:B, \angle ABC."""
    if tree[0] in ("tuple", "ratio") or (tree[0] == "call" and tree[1].startswith("@")):
        return all(is_name(part) or part[0] == "num" for part in tree[1:] if isinstance(part, tuple))
    if tree[0] == "mul":
        return all(t[0] == "sym" and (t[1].isupper() or "_" in t[1] or "angle" in t[1]) for t in tree[1:])
    return tree[0] in ("sym", "word")


def unname(tree):
    r"""(name, value) of `name = value` and `name \in value`; (None, tree) of anything else."""
    if tree[0] == "rel" and len(tree) == 4 and tree[2] in ("=", "in") and is_name(tree[1]):
        return tree[1], tree[3]
    return None, tree


def same_named(gold, pred, budget):
    """Relations: None where neither is one that can be decided here."""
    if pred[0] == "rel" and len(pred) > 4 and set(pred[2::2]) == {"="} and is_name(pred[1]):  # x = 1/2 = 0.5
        return all(same(gold, ("rel", pred[1], "=", value), budget) for value in pred[3::2])
    (gold_name, gold_value), (pred_name, pred_value) = unname(gold), unname(pred)
    if gold_name and gold_name == pred_name:
        return same(gold_value, pred_value, budget)
    if gold[0] == pred[0] == "rel" and len(gold) == len(pred) == 4 and not {gold[2], pred[2]} & {"in", "->", "~"}:
        return same_relation(gold, pred, budget)
    if bool(gold_name) != bool(pred_name):
        return same(gold_value, pred_value, budget)
    if gold[0] != pred[0] and (as_interval(gold), as_interval(pred)) != (gold, pred):
        return same(as_interval(gold), as_interval(pred), budget)
    return None


def same_relation(gold, pred, budget):
    """One equation or inequality is a constant multiple of the other."""
    left, right = (("add", tree[1], ("mul", MINUS_ONE, tree[3])) for tree in (gold, pred))
    if not all(node[0] in ATOMIC for tree in (left, right) for node in nodes(tree)) or symbols(left) != symbols(right):
        return False
    pairs = value_pairs(left, right, budget)
    if not all(abs(a) > tolerance < abs(b) for a, b, tolerance in pairs):
        return False
    ratio = pairs[0][0] / pairs[0][1]
    if not all(abs(a - ratio * b) <= tolerance * (1 + abs(ratio)) * (1 + abs(b)) for a, b, tolerance in pairs):
        return False
    if gold[2] in ("=", "!="):
        return gold[2] == pred[2]
    return context().im(ratio) == 0 and pred[2] == (gold[2] if ratio > 0 else FLIP[gold[2]])


def as_interval(tree):
    r"""x < 5, 1 <= x < 2, x \ne 3, and (1, 2), as intervals; anything else unchanged."""
    if tree[0] == "tuple" and len(tree) == 3:
        return ("interval", "(", ")", *tree[1:])
    if tree[0] == "list" and all(part[0] == "rel" for part in tree[1:]):  # x < 1 or x > 3
        parts = [as_interval(part) for part in tree[1:]]
        return ("union", *parts) if all(part[0] == "interval" for part in parts) else tree
    if tree[0] != "rel" or not set(tree[2::2]) <= {*FLIP, "!="}:
        return tree
    low, *middle, high = tree[1:]
    if len(middle) == 1:
        op = middle[0]
        if op == "!=" and is_name(low):
            return ("union", ("interval", "(", ")", MINUS_OO, high), ("interval", "(", ")", high, OO))
        if is_name(high) and op != "!=":
            low, op, high = high, FLIP[op], low
        if op == "!=" or not is_name(low):
            return tree
        return interval(MINUS_OO, "<", op, high) if op[0] == "<" else interval(high, FLIP[op], "<", OO)
    op1, name, op2 = middle if len(middle) == 3 else (None, None, None)
    if name is None or not is_name(name) or {op1[0], op2[0]} not in ({"<"}, {">"}):
        return tree
    return interval(low, op1, op2, high) if op1[0] == "<" else interval(high, FLIP[op2], FLIP[op1], low)


def interval(low, op1, op2, high):
    return ("interval", "[" if op1 == "<=" else "(", "]" if op2 == "<=" else ")", low, high)


def items(tree):
    r"""The members of a list or set, names kept; a \pm b is two of them."""
    name, value = unname(tree)
    if value[0] in ("list", "set"):
        return [item for child in value[1:] for item in items(child)]
    both = [substitute(value, 1), substitute(value, -1)] if has_plus_minus(value) else [value]
    return [("rel", name, "=", item) if name else item for item in both]


def substitute(tree, sign):
    if tree[0] == "pm":
        return ("num", Fraction(sign * tree[1]))
    return (tree[0], *(substitute(part, sign) if isinstance(part, tuple) else part for part in tree[1:]))


def same_items(gold, pred, budget):
    """Lists without brackets and sets: any order. Differently named items (a=2, b=3) against unnamed ones: in order."""
    gold_items, pred_items = items(gold), items(pred)
    names = [unname(item)[0] for item in gold_items]
    if len(gold_items) != len(pred_items):
        return False
    if len(set(names)) == len(names) > 1 and not any(unname(item)[0] for item in pred_items):
        return all(same(a, b, budget) for a, b in zip(gold_items, pred_items, strict=True))
    return matched(gold_items, pred_items, lambda a, b: same(a, b, budget))


def matched(gold_items, pred_items, equal):
    """A one-to-one matching; equality is transitive, so first come first served finds it."""
    left = list(pred_items)
    for item in gold_items:
        hit = next((i for i, other in enumerate(left) if equal(item, other)), None)
        if hit is None:
            return False
        del left[hit]
    return not left
