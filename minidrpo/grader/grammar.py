r"""grammar.py - reads a final answer, LaTeX or plain, into a small tree. Nothing is evaluated and nothing is guessed:
text that does not parse to its last character raises Unreadable. What trees mean and when they are equal: equality.py.

    read_all(cleaned) -> [(tree, unit), ...]   more than one where the notation is ambiguous ("1,234": number or list)

A tree is nested tuples, the first entry naming the kind:
    ("num", Fraction)  ("sym", name)  ("const", "pi"|"e"|"i"|"oo")  ("word", text)  ("pm", +1|-1)
    ("add", t, ...)  ("mul", t, ...)  ("div", a, b)  ("pow", a, b)  ("call", name, t, ...)
    ("big", "sum"|"prod"|"int", variable, low, high, body)
    ("rel", a, op, b, op, c ...)  ("ratio", t, ...)  ("list"|"set"|"tuple"|"vector"|"union", t, ...)
    ("interval", "[" or "(", "]" or ")", a, b)  ("matrix"|"det", (row, ...), ...)  ("base", digits, base)

One recursive-descent reader over tokens: answer > relation > union > ratio > sum > term > factor > atom. Length and
depth are limited before anything is built, so the cost is linear in the text, whoever wrote it.
"""

import re
from contextlib import suppress
from fractions import Fraction

from minidrpo.grader.spelling import GREEK, SCALES, UNITS, Tokens, Unreadable, is_number, number, spellings

MAX_DEPTH = 40  # of braces and atoms together; at most 13 Python frames each
MINUS_ONE = ("num", Fraction(-1))
_WORDS = {"yes", "no", "odd", "even", "true", "none", "all", "one", "two", "six", "ten", "red", "am", "pm", "nan"}
_NAMES = (
    set(GREEK)
    | {name.capitalize() for name in GREEK}
    | set("varepsilon vartheta varphi hbar ell mho odot aleph partial nabla max min star".split())
)
FUNCTIONS = set("sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth ln log lg exp sqrt floor ceil "
                "abs gcd lcm max min arg Re Im asin acos atan cbrt".split())  # fmt: skip
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log10"}
_CONSTANTS = {r"\pi": "pi", "pi": "pi", r"\infty": "oo", "infinity": "oo", "inf": "oo", "e": "e", "i": "i"}
_RELATIONS = {"=": "=", "<": "<", ">": ">", "≤": "<=", "≥": ">=", "≠": "!=", r"\in": "in", r"\equiv": "=", r"\to": "->",
              r"\approx": "~", r"\sim": "~"}  # fmt: skip
_TIMES, _OVER, _MODULO = ("*", r"\cdot", r"\times"), ("/", r"\div"), (r"\mod", r"\pmod", r"\bmod")
_SIGNS = ("+", "-", r"\pm", r"\mp")
_NO_FACTOR = {")", "]", "}", r"\}", r"\rangle", r"\rbrace", ",", ";", "|", r"\rvert", r"\vert", r"\mid", r"\rfloor",
              r"\rceil", "&", "¶", r"\end", ":", r"\cup", r"\cap", r"\choose", "^", "_", "!", "'", "%",
              *_TIMES, *_OVER, *_MODULO, *_SIGNS, *_RELATIONS}  # fmt: skip
_FRACTIONS = (r"\frac", r"\dfrac", r"\tfrac", r"\cfrac")
_ACCENTS = {rf"\{name}" for name in ("hat vec bar dot ddot tilde overline widehat mathcal mathbb mathfrak angle "
                                      "triangle overrightarrow underline").split()}  # fmt: skip
_PAIRS = {"|": ("abs", "|"), r"\lvert": ("abs", r"\rvert"), r"\vert": ("abs", r"\vert"), r"\mid": ("abs", r"\mid"),
          r"\lfloor": ("floor", r"\rfloor"), r"\lceil": ("ceil", r"\rceil"), r"\{": ("set", r"\}"),
          r"\lbrace": ("set", r"\rbrace"), r"\langle": ("tuple", r"\rangle")}  # fmt: skip
_MATRICES = ("pmatrix", "bmatrix", "matrix", "Bmatrix", "smallmatrix", "array", "vmatrix")


def product(*parts):
    flat = [factor for part in parts if part for factor in (part[1:] if part[0] == "mul" else [part])]
    return flat[0] if len(flat) == 1 else ("mul", *flat)


def mixed_number(whole, fraction):
    values = top, bottom, _ = fraction[1][1], fraction[2][1], whole[1]
    if whole[0] != "num" or not 0 < top < bottom or any(value.denominator != 1 for value in values):
        raise Unreadable("two numbers side by side")
    return ("num", whole[1] + top / bottom)


class _Reader(Tokens):
    def __init__(self, text, tight):
        super().__init__(text)
        self.depth = self.wraps = self.in_trigonometry = self.open_bars = 0
        self.tight = tight  # 1/2x is 1/(2x) where True, (1/2)x where False

    def nest(self, levels=0):
        """Entered by atom and group (levels=1), one of which is in every cycle of the grammar, and by the loops that
        nest the tree without recursion (a/b/c, 5!%): no tree is too deep to walk."""
        self.depth, self.wraps = self.depth + levels, self.wraps + 1 - levels
        if self.depth > MAX_DEPTH or self.wraps > 2 * MAX_DEPTH:
            raise Unreadable("nested too deeply")

    def answer(self):
        """The whole text; several items without brackets are a ("list", ...)."""
        tree = self.chain("list", (",", ";"), self.relation)
        if self.peek() is not None:
            raise Unreadable(f"left over: {self.peek()!r}")
        return tree

    def items(self):
        tree = self.chain("list", (",", ";"), self.relation)
        return tree[1:] if tree[0] == "list" else (tree,)

    def relation(self):
        parts = [self.union()]
        while self.peek() in _RELATIONS:
            parts += [_RELATIONS[self.take()], self.union()]
        return parts[0] if len(parts) == 1 else ("rel", *parts)

    def union(self):
        return self.chain("union", (r"\cup",), lambda: self.chain("ratio", (":",), self.sum))

    def sum(self):
        terms = []
        while not terms or self.peek() in _SIGNS:
            sign = {None: None, "+": None, "-": MINUS_ONE, r"\pm": ("pm", 1), r"\mp": ("pm", -1)}[self.accept(*_SIGNS)]
            term = self.term()
            terms.append(("num", -term[1]) if sign == MINUS_ONE and term[0] == "num" else product(sign, term))
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def term(self):
        result = self.factor()
        while True:
            token = self.peek()
            if self.accept(*_TIMES):
                result = product(result, MINUS_ONE if self.accept("-") else None, self.factor())
            elif self.accept(*_OVER):
                self.nest()
                below = self.factor()
                while self.tight and self.starts_factor():
                    below = product(below, self.factor())
                result = ("div", result, below)
            elif self.accept(*_MODULO):
                self.nest()
                result = ("call", "mod", result, self.factor())
            elif self.starts_factor() or (token and result[0] == "word" and is_number(token)):  # «june» 20
                result = self.beside(result)
            elif is_number(token) and is_number(self.peek(-1)) and self.peek(1) == "/" and is_number(self.peek(2)):
                top, _, bottom = number(self.take()), self.take(), number(self.take())
                result = mixed_number(result, ("div", ("num", top), ("num", bottom)))  # 1 4/5
            else:
                return result

    def starts_factor(self):
        r"""May the next token be multiplied without a sign? A number hardly ever: (n-2)2^n and n2^{n-1}, but neither
        "2 10" nor x2 nor \sqrt{3}4."""
        token, before = self.peek(), self.peek(-1)
        if is_number(token):
            return not is_number(before) and (before == ")" or self.peek(1) in ("^", "!"))
        return token is not None and (token not in _NO_FACTOR or token == "|" and not self.open_bars)

    def beside(self, left):
        r"""Juxtaposition: a product, except 1\frac45 (mixed), 5 million, 5 percent and units inside a list."""
        token, literal = self.peek(), left[0] == "num" and is_number(self.peek(-1))
        right = self.factor()
        if literal and token in _FRACTIONS and right[0] == "div" and right[1][0] == right[2][0] == "num":
            with suppress(Unreadable):
                return mixed_number(left, right)
        if right[0] == "word" and left[0] != "word":
            if right[1] in SCALES:
                return product(left, ("num", Fraction(10) ** SCALES[right[1]]))
            if right[1] == "percent":
                return ("div", left, ("num", Fraction(100)))
            if token.strip("«»") in UNITS and self.peek(-2)[0] != "«":  # 5 cm, 6 cm: split_unit took the last one
                return left
        return product(left, right)

    def factor(self):
        start = self.at
        result = self.atom()
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
            elif token == "_":
                if result[0] != "num" or result[1].denominator != 1 or self.at - start not in (2, 4):
                    raise Unreadable("subscript")
                result = ("base", str(result[1]), self.raw())
        return result

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
        elif token in _PAIRS:
            result = self.paired()
        elif token.lstrip("\\") in FUNCTIONS:
            result = self.function(self.take().lstrip("\\"))
        elif token[0].isalpha():
            result = self.letters()
        elif token[0] == "\\":
            result = self.command(self.take())
        else:
            raise Unreadable(f"unexpected {token!r}")
        self.depth -= 1
        return result

    def decimal(self, token):
        r"""A number; 0.1\overline{6} is 1/6."""
        value = number(token)
        if "." in token and self.accept(r"\overline"):
            digits, places = self.raw(), len(token.partition(".")[2])
            if not digits.isdigit():
                raise Unreadable("overline")
            value += Fraction(int(digits), (10 ** len(digits) - 1) * 10**places)
        return ("num", value)

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
        kind, close = _PAIRS[self.take()]
        if kind == "set" and self.accept(close):
            return ("set",)
        self.open_bars += 1  # the next bar closes; elsewhere it opens: |x||y|
        found = self.items()
        self.open_bars -= 1
        if kind == "set" and self.accept("|", r"\mid"):
            found = self.items()
            self.take(close)
            return found[0] if len(found) == 1 else ("set", *found)
        self.take(close)
        if kind in ("set", "tuple"):
            return (kind, *found)
        if len(found) != 1:
            raise Unreadable(kind)
        return ("call", kind, found[0])

    def letters(self):
        """A run of letters: a constant, a word, or one-letter variables side by side (abc = a*b*c)."""
        token = self.take()
        if token in _CONSTANTS and self.peek() != "_":
            return ("const", _CONSTANTS[token])
        if len(token) > 3 or token.lower() in _WORDS or (token in UNITS and token[1:] and is_number(self.peek(-2))):
            return ("word", token.lower())
        self.at -= 1
        self.tokens[self.at : self.at + 1] = list(token)
        name = self.take()
        return ("const", name) if len(token) > 1 and name in _CONSTANTS else self.symbol(name)

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
        name, power, base = _ALIASES.get(name, name), None, None
        if name == "sqrt":
            return self.root()
        while mark := self.accept("^", "_"):
            power, base = (self.exponent(), base) if mark == "^" else (power, self.argument())
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

    def function_arguments(self):
        r"""(...) or {...}, else the factors up to the next function, sign or bracket: \sin 2x \cos x."""
        if self.peek() == "(":
            return self.arguments()
        if self.peek() == "{":
            return [self.group()]
        result = self.factor()
        while self.starts_factor() and self.peek() != "(" and self.peek().lstrip("\\") not in FUNCTIONS:
            result = product(result, self.factor())
        return [result]

    def root(self):
        latex, degree = self.peek(-1) == r"\sqrt", ("num", Fraction(2))
        if latex and self.accept("["):
            degree = self.sum()
            self.take("]")
        return ("pow", self.argument() if latex else self.atom(), ("div", ("num", Fraction(1)), degree))

    def command(self, token):
        if token in _FRACTIONS:
            return ("div", self.argument(), self.argument())
        if token in (r"\binom", r"\dbinom", r"\tbinom"):
            return ("call", "binom", self.argument(), self.argument())
        if token in _CONSTANTS:
            return ("const", _CONSTANTS[token])
        if token in (r"\sum", r"\prod", r"\int"):
            return self.big(token[1:])
        if token in (r"\emptyset", r"\varnothing"):
            return ("set",)
        if token == r"\begin":
            return self.matrix()
        if token in _ACCENTS:
            return self.symbol(token[1:] + self.raw())
        if token[1:] in _NAMES:
            return self.symbol(token[1:])
        raise Unreadable(f"unknown command {token}")

    def big(self, kind):
        r"""\sum_{k=1}^{n} term, or \int_0^1 body dx, whose body ends at the first token like a differential."""
        low = high = None
        while mark := self.accept("_", "^"):
            low, high = (self.argument(), high) if mark == "_" else (low, self.exponent())
        if low is None or high is None:
            raise Unreadable("no limits")
        if kind != "int":
            if low[0] != "rel" or len(low) != 4 or low[2] != "=" or low[1][0] != "sym":
                raise Unreadable(kind)
            return ("big", kind, low[1][1], low[3], high, self.term())
        end = next((i for i in range(self.at, len(self.tokens)) if re.fullmatch(r"d[a-z]", self.tokens[i])), None)
        if end is None:
            raise Unreadable("no differential")
        variable, self.tokens[end] = self.tokens[end][1], ")"
        body = self.sum() if self.peek() != ")" else ("num", Fraction(1))
        self.take(")")
        return ("big", "int", variable, low, high, body)

    def matrix(self):
        name, rows = self.raw(), [[]]
        if name not in _MATRICES:
            raise Unreadable(f"environment {name}")
        if name == "array" and self.peek() == "{":
            self.raw()  # column alignment
        while not self.accept(r"\end"):
            if self.accept("¶"):
                rows.append([])
            elif not self.accept("&"):
                rows[-1].append(self.relation())
        self.raw()
        rows = tuple(tuple(row) for row in rows if row)
        if len({len(row) for row in rows}) != 1:
            raise Unreadable("matrix")
        return ("det" if name == "vmatrix" else "matrix", *rows)


_BASE = re.compile(r"\(?([0-9A-Z]+)\)?_\{?(\d{1,2})\}?")


def read_all(text, trusted=False):
    """Every sensible (tree, unit) of a cleaned answer, best first; Unreadable where there is none. A trusted text (the
    gold answer) may drop its percent sign, an "approximately" and words the unit table does not know."""
    if based := _BASE.fullmatch(text.replace(" ", "")):
        return [(("base", based[1], based[2]), ())]
    found = {}
    for spelling, unit in spellings(text, trusted):
        for tight in (False, True) if "/" in spelling else (False,):
            try:
                found[_Reader(spelling, tight).answer(), unit] = None
            except Unreadable as error:
                reason = error
    if not found:
        raise Unreadable(str(reason))
    return list(found)
