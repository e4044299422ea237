r"""grammar.py - reads a final answer, LaTeX or plain, into a small tree. Nothing is evaluated and nothing is guessed:
text that does not parse to its last character raises Unreadable. What trees are: trees.py.

    read_all(cleaned) -> [(tree, unit), ...]   more than one where the notation is ambiguous ("1,234": number or list)

One recursive-descent reader over tokens: list > relation > union > ratio > sum > term > factor > atom. Length and
depth are limited before anything is built, so the cost is linear in the text, whoever wrote it.
"""

import re
from fractions import Fraction

from minidrpo.grader import tables
from minidrpo.grader.spelling import RADIANS, Tokens, Unreadable, is_number, number, spellings, squash
from minidrpo.grader.trees import MINUS_ONE, determinant, members, mixed_number, product, set_builder

MAX_DEPTH = 40  # of braces and atoms together; at most 13 Python frames each
_SIGNS = {None: None, "+": None, "-": MINUS_ONE, r"\pm": ("pm", 1), r"\mp": ("pm", -1)}
_DEGREE = (("degree", 1),)


class _Reader(Tokens):
    def __init__(self, text, tight):
        super().__init__(text)
        self.text, self.depth, self.wraps, self.in_trigonometry, self.open_bars = text, 0, 0, 0, 0
        # units: of all items but the last, whose unit spelling.py took off; tight: 1/2x is 1/(2x), else (1/2)x
        self.units, self.tight = set(), tight

    def nest(self, levels=0):
        """Entered by atom and group (levels=1), one of which is in every cycle of the grammar, and by the loops that
        nest the tree without recursion (a/b/c, 5!%): no tree is too deep to walk."""
        self.depth, self.wraps = self.depth + levels, self.wraps + 1 - levels
        if self.depth > MAX_DEPTH or self.wraps > 2 * MAX_DEPTH:
            raise Unreadable("nested too deeply")

    def whole(self, unit):
        """(tree, unit) of the whole text, its last unit being known: other items have the same one or none."""
        tree = self.listed()
        if self.peek() is not None:
            raise Unreadable(f"left over: {self.peek()!r}")
        if not self.units:
            return tree, unit
        units = {*self.units, unit or min(self.units)}
        if (
            len(units) > 1
            or tree[0] in ("mul", "div", "pow", "call")
            or units == {_DEGREE}
            and RADIANS.search(self.text)
        ):
            raise Unreadable("several units, a product of units, or degrees of a measure in radians")
        return tree, *units

    def listed(self):
        """A relation, or several side by side: a list, or inequalities that are all joined by "and", or all by "or"."""
        start, tree = self.at, self.chain("list", tables.LIST, self.relation)
        if tree[0] == "list" and all(part[0] == "rel" and {*part[2::2]} <= tables.INEQUALITIES for part in tree[1:]):
            joints = {*self.tokens[start : self.at]}.intersection(tables.LIST)
            return ("and" if joints == {"∧"} else "or" if joints == {"∨"} else "list", *tree[1:])
        return tree

    def items(self):
        return members(self.listed())

    def relation(self):
        r"""union = union = ... and for all of it a modulus: x = 3 \pmod 7, 3 (mod 7)."""
        parts = [self.union()]
        while self.peek() in tables.RELATIONS:
            parts += [tables.RELATIONS[self.take()], self.union()]
        if self.accept(r"\pmod"):
            parts[-1] = ("mod", parts[-1], self.sum())
        elif self.depth == 0 and len(parts) > 1 and parts[-1][:2] == ("call", "mod"):
            parts[-1] = ("mod", *parts[-1][2:])
        return parts[0] if len(parts) == 1 else ("rel", *parts)

    def union(self):
        return self.chain("union", (r"\cup",), lambda: self.chain("ratio", (":",), self.sum))

    def sum(self):
        terms = []
        while not terms or self.peek() in tables.SIGNS:
            sign = _SIGNS[self.accept(*tables.SIGNS)]
            term = self.term()
            terms.append(("num", -term[1]) if sign == MINUS_ONE and term[0] == "num" else product(sign, term))
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def term(self):
        result = self.factor()
        while True:
            token = self.peek()
            if token in tables.TIMES:
                self.take()
                result = product(result, MINUS_ONE if self.accept("-") else None, self.factor())
            elif token in tables.OVER:
                self.take()
                self.nest()
                below = self.factor()
                while self.tight and self.starts_factor():
                    below = product(below, self.factor())
                result = ("div", result, below)
            elif token == r"\bmod":
                self.take()
                self.nest()
                result = ("call", "mod", result, self.factor())
            elif self.starts_factor() or (token and result[0] == "word" and is_number(token)):  # «june» 20
                result = self.beside(result)
            else:
                return result

    def starts_factor(self):
        r"""May the next token be multiplied without a sign? A number hardly ever: (n-2)2^n and n2^{n-1}, but neither
        "2 10" nor x2 nor \sqrt{3}4."""
        token, before = self.peek(), self.peek(-1)
        if token == "{" and is_number(self.peek(1 + (self.peek(1) == "{"))):
            return before == ")"  # 2{3} looks like 23
        if is_number(token):
            return not is_number(before) and (before == ")" or self.peek(1) in ("^", "!"))
        return token is not None and (token not in tables.NO_FACTOR or token == "|" and not self.open_bars)

    def beside(self, left):
        r"""Juxtaposition: a product, except 5 million, 5 percent and units inside a list."""
        token, right = self.peek(), self.factor()
        if right[0] == "word" and left[0] != "word":
            if right[1] in tables.SCALES:
                return product(left, ("num", Fraction(10) ** tables.SCALES[right[1]]))
            unit = tables.UNITS.get(token.strip("«»"))
            if unit and self.peek(-2)[0] != "«" and self.peek() in tables.ITEM_ENDS:
                self.units.add(((unit, 1),))  # 5 cm, 6 cm
                return left
        return product(left, right)

    def factor(self):
        start = self.at
        result = self.atom()
        if self.peek() and self.at == start + 1 and is_number(self.peek(-1)):
            result = self.mixed(result)
        while token := self.accept("^", "!", "°", "%", "_"):
            self.nest()
            if token == "^":
                result = ("pow", result, self.exponent())
            elif token == "!":
                result = ("call", "factorial", result)
                if self.peek() == "!":
                    raise Unreadable("double factorial")
            elif token == "%":
                result = ("div", result, ("num", Fraction(100)))
            elif token == "°" and self.in_trigonometry:
                result = ("div", product(result, ("const", "pi")), ("num", Fraction(180)))
            elif token == "°":
                self.units.add(_DEGREE)
            elif token == "_":
                if result[0] != "num" or result[1].denominator != 1 or self.at - start not in (2, 4):
                    raise Unreadable("subscript")
                result = ("base", str(result[1]), self.raw())
        return result

    def mixed(self, whole):
        r"""Of 1\frac45 and 1 4/5 the mixed number, before % and ° behind it; of any other number itself."""
        start, kind = self.at, self.plain_fraction()
        if not kind or kind == "/" and self.peek(-2) in tables.OVER:
            return whole
        if kind == "/":
            top, _, bottom = number(self.take()), self.take(), number(self.take())
            fraction = ("div", ("num", top), ("num", bottom))
        else:
            fraction = self.atom()
        result = mixed_number(whole, fraction)
        if result is None:
            self.at = start
        elif self.peek() in ("^", "!"):  # of the fraction or of all?
            raise Unreadable("a power of a mixed number")
        return result or whole

    def exponent(self):
        """After ^: {...}, or a signed number or atom (plain text writes 2^10 and 10^-3)."""
        if self.peek() == "{":
            return self.group()
        self.nest()
        if sign := self.accept("-", "+"):
            return product(MINUS_ONE, self.exponent()) if sign == "-" else self.exponent()
        base = self.atom()
        return ("pow", base, self.exponent()) if self.accept("^") else base

    def argument(self):
        """A LaTeX argument: {...}, or one digit, letter or command."""
        token = self.peek()
        if token and token[0].isalnum() and len(token) > 1:
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
        return self.group() if token == "{" else self.atom()

    def group(self):
        """{...}; several items in bare braces are a set whose backslashes were forgotten."""
        self.take("{")
        self.nest(1)
        found = self.items()
        if self.accept(r"\choose"):
            found = [("call", "binom", found[0], self.sum())]
        self.take("}")
        self.depth -= 1
        return found[0] if len(found) == 1 else ("set", *found)

    def atom(self):
        self.nest(1)
        token = self.peek() or self.take()
        if is_number(token):
            result = self.decimal(self.take())
        elif token[0] == "«":
            result = ("word", self.take()[1:-1].lower())
        elif token == "{":
            result = self.group()
        elif token in ("(", "["):
            result = self.bracket()
        elif token in tables.PAIRS:
            result = self.paired()
        elif token.lstrip("\\") in tables.FUNCTIONS:
            result = self.function(self.take().lstrip("\\"))
        elif token[0].isalpha():
            result = self.letters()
        elif token[0] == "\\":
            result = self.command(self.take())
        else:
            raise Unreadable(f"unexpected {token!r}")
        self.depth -= 1
        return result

    def bracket(self):
        open_, found, close = self.take(), self.items(), self.take(")", "]")
        alike = (open_ == "(") == (close == ")")
        if len(found) == 1 and alike:
            return found[0]
        if len(found) == 2 and (open_, close) != ("(", ")"):
            return ("interval", open_, close, *found)
        if not alike:
            raise Unreadable("brackets")
        return ("tuple" if open_ == "(" else "vector", *found)

    def paired(self):
        """|x|, floor, ceiling, {set}, {x | condition}, <tuple>."""
        kind, close = tables.PAIRS[self.take()]
        if kind == "set" and self.accept(close):
            return ("set",)
        self.open_bars += 1  # the next bar closes; elsewhere it opens: |x||y|
        found = self.items()
        self.open_bars -= 1
        if kind == "set" and self.accept("|", r"\mid"):
            condition = self.listed()
            self.take(close)
            return set_builder(found, condition)
        self.take(close)
        if kind in ("set", "tuple"):
            return (kind, *found)
        if len(found) != 1:
            raise Unreadable(kind)
        return ("call", kind, found[0])

    def letters(self):
        """A run of letters: a constant, a word, or one-letter variables side by side (abc = a*b*c)."""
        token = self.take()
        if token in tables.CONSTANTS and self.peek() != "_":
            return tables.CONSTANTS[token]
        unit = token in tables.UNITS and len(token) > 1 and is_number(self.peek(-2))
        if unit or len(token) > 3 or token.lower() in tables.WORDS:
            return ("word", token.lower())
        self.at -= 1
        self.tokens[self.at : self.at + 1] = list(token)
        name = self.take()
        return tables.CONSTANTS[name] if len(token) > 1 and name in tables.CONSTANTS else self.symbol(name)

    def symbol(self, name):
        """A variable with its subscript; f(x) and y(0) are values of functions, n(n+1) is a product."""
        if self.accept("_"):
            name += "_" + self.raw()
        while self.accept("'"):
            name += "'"
        inside, single = self.peek(1) or "", self.peek(2) == ")"
        if self.peek() == "(" and (name[0] in "fgh" or single and (inside == "0" or inside.isalpha())):
            return ("call", "@" + name, *self.arguments())
        return ("sym", name)

    def arguments(self):
        self.take("(")
        found = self.items()
        self.take(")")
        return found

    def function(self, name):
        r"""sin(x), \sin x, \sin^2 x, \sin^{-1} x, \log_2 x, \sqrt[3]{x}; and \max as a mere name in m_{\max}."""
        name = tables.ALIASES.get(name, name)
        if name == "sqrt":
            return self.root()
        base, power = self.scripts()
        if base is not None and name != "log":
            raise Unreadable("subscript")
        trigonometric = name in ("sin", "cos", "tan", "cot", "sec", "csc")
        self.in_trigonometry += trigonometric
        args = self.function_arguments()
        self.in_trigonometry -= trigonometric
        if power == MINUS_ONE and name in ("sin", "cos", "tan"):
            return ("call", "arc" + name, *args)
        call = ("call", name, *args) if base is None else ("call", name, *args, base)
        return ("pow", call, power) if power else call

    def scripts(self):
        """What stands below and above a function or a big operator, or None."""
        found = {}
        while mark := self.accept("^", "_"):
            if mark in found:
                raise Unreadable("a script twice")
            found[mark] = self.exponent() if mark == "^" else self.argument()
        return found.get("_"), found.get("^")

    def function_arguments(self):
        r"""(...) or {...}, else the factors up to the next function, sign or bracket: \sin 2x \cos x."""
        if self.peek() == "(":
            return self.arguments()
        if self.peek() == "{":
            return [self.group()]
        result = self.factor()
        while self.starts_factor() and self.peek() != "(" and self.peek().lstrip("\\") not in tables.FUNCTIONS:
            result = product(result, self.factor())
        return [result]

    def root(self):
        latex, degree = self.peek(-1) == r"\sqrt", ("num", Fraction(2))
        if latex and self.accept("["):
            degree = self.sum()
            self.take("]")
        return ("pow", self.argument() if latex else self.atom(), ("div", ("num", Fraction(1)), degree))

    def command(self, token):
        if token in tables.FRACTIONS:
            return ("div", self.argument(), self.argument())
        if token in (r"\binom", r"\dbinom", r"\tbinom"):
            return ("call", "binom", self.argument(), self.argument())
        if token in tables.CONSTANTS:
            return tables.CONSTANTS[token]
        if token in (r"\sum", r"\prod", r"\int"):
            return self.big(token[1:])
        if token == r"\begin":
            return self.matrix()
        if token in tables.ACCENTS and not is_number(self.peek(1)):  # 0.\dot{3} is not 0 times something
            return self.symbol(token[1:] + self.raw())
        if token[1:] in tables.NAMES:
            return self.symbol(token[1:])
        raise Unreadable(f"unknown command {token}")

    def big(self, kind):
        r"""\sum_{k=1}^{n} term, or \int_0^1 body dx, whose body ends at the first token like a differential."""
        low, high = self.scripts()
        if low is None or high is None:
            raise Unreadable("no limits")
        if kind != "int":
            if low[0] != "rel" or len(low) != 4 or low[2] != "=" or low[1][0] != "sym":
                raise Unreadable(kind)
            return ("big", kind, low[1][1], low[3], high, self.term())
        end = next((i for i in range(self.at, len(self.tokens)) if re.fullmatch("d[a-z]", self.tokens[i] or "")), None)
        if end is None:
            raise Unreadable("no differential")
        variable, self.tokens[end] = self.tokens[end][1], ")"
        body = self.sum() if self.peek() != ")" else ("num", Fraction(1))
        self.take(")")
        return ("big", "int", variable, low, high, body)

    def matrix(self):
        name, rows = self.raw(), []
        if name not in tables.MATRICES:
            raise Unreadable(f"environment {name}")
        if name == "array" and self.peek() == "{":
            self.raw()  # column alignment
        while not self.accept(r"\end"):
            rows.append([self.relation()])
            while self.accept("&"):
                rows[-1].append(self.relation())
            if self.peek() != r"\end":
                self.take("¶")
        self.raw()
        if len({len(row) for row in rows}) != 1:
            raise Unreadable("matrix")
        return determinant(rows) if name == "vmatrix" else ("matrix", *map(tuple, rows))


_BASE = re.compile(r"(\()?(?P<digits>[0-9A-Z]+)(?(1)\))_(\{)?(?P<base>\d{1,2})(?(3)\})")


def read_all(text, trusted=False):
    """Every sensible (tree, unit) of a cleaned answer, best first; Unreadable where there is none. A trusted text (the
    truth) may drop its percent sign, an "approximately" and words the unit table does not know."""
    if "_" in text and (based := _BASE.fullmatch(squash(text))):
        return [(("base", based["digits"], based["base"]), ())]
    found = {}
    for spelling, unit in spellings(text, trusted):
        for tight in (False, True) if "/" in spelling else (False,):
            try:
                reader = _Reader(spelling, tight)
                found[reader.whole(unit)] = None
            except Unreadable as error:
                reason = error
    if not found:
        raise Unreadable(str(reason))
    return list(found)
