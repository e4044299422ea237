r"""trees.py - the small trees that answers become, and what grammar.py, values.py and equality.py do with them alike.

A tree is nested tuples, the first entry naming the kind:
    ("num", Fraction)  ("sym", name)  ("const", "pi"|"e"|"i"|"oo")  ("word", text)  ("pm", +1|-1)
    ("add", t, ...)  ("mul", t, ...)  ("div", a, b)  ("pow", a, b)  ("call", name, t, ...)
    ("big", "sum"|"prod"|"int", variable, low, high, body)
    ("rel", a, op, b, op, c ...)  ("ratio", t, ...)  ("list"|"and"|"or"|"set"|"tuple"|"vector"|"union", t, ...)
    ("interval", "[" or "(", "]" or ")", a, b)  ("matrix"|"det", (row, ...), ...)  ("base", digits, base)
    ("mod", residue, modulus)  ("builder", element, ..., condition)
"""

from fractions import Fraction

MINUS_ONE = ("num", Fraction(-1))
MINUS_OO, OO = ("mul", MINUS_ONE, ("const", "oo")), ("const", "oo")


def product(*parts):
    """Their product, flat; None counts as one."""
    flat = [factor for part in parts if part for factor in (part[1:] if part[0] == "mul" else [part])]
    return flat[0] if len(flat) == 1 else ("mul", *flat)


def mixed_number(whole, fraction):
    """1 4/5, or None where the three numbers make none."""
    values = top, bottom, _ = fraction[1][1], fraction[2][1], whole[1]
    if whole[0] == "num" and 0 < top < bottom and all(value.denominator == 1 for value in values):
        return ("num", whole[1] + top / bottom)
    return None


def determinant(rows):
    """Of one to three rows of short entries as a sum of products; any other is a tree of its own."""
    if not len(rows) == len(rows[0]) <= 3 or max(len(list(nodes(entry))) for row in rows for entry in row) > 9:
        return ("det", *map(tuple, rows))
    first, *below = rows
    if not below:
        return first[0]
    minors = [determinant([row[:k] + row[k + 1 :] for row in below]) for k in range(len(first))]
    return ("add", *(product(MINUS_ONE if k % 2 else None, first[k], minors[k]) for k in range(len(first))))


def members(tree):
    """Of a list; of any other tree itself."""
    return tree[1:] if tree[0] in ("list", "and", "or") else (tree,)


def set_builder(head, condition):
    r"""{x | x < 5} and {x \in R | x < 5} are their condition, any other {2k | k \in Z} is a tree of its own."""
    variable = head[0][1] if head[0][2:] == ("in", ("tuple", MINUS_OO, OO)) else head[0]
    if len(head) == 1 and variable[0] == "sym" and all(variable in part for part in members(condition)):
        return condition
    return ("builder", *head, condition)


def nodes(tree):
    """A tree and all that is in it."""
    yield tree
    for child in tree[1:]:
        if isinstance(child, tuple):
            yield from nodes(child)
