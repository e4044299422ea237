r"""answer.py - reads a final answer, LaTeX or plain, into a small tree. Nothing is evaluated and nothing is guessed:
text that does not parse to its last character raises Unreadable. What two trees mean, and when they are equal, is
reward.py's business.

    readings(text) -> [(tree, unit), ...]      more than one where the notation is ambiguous ("1,234": number or list)

A tree is nested tuples, the first entry naming the kind:
    ("num", Fraction)  ("sym", name)  ("const", "pi"|"e"|"i"|"oo")  ("word", text)  ("pm", +1|-1)
    ("add", t, ...)  ("mul", t, ...)  ("div", a, b)  ("pow", a, b)  ("call", name, t, ...)
    ("big", "sum"|"prod"|"int", variable, low, high, body)
    ("rel", a, op, b, op, c ...)  ("ratio", t, ...)  ("list"|"set"|"tuple"|"vector"|"union", t, ...)
    ("interval", "[" or "(", "]" or ")", a, b)  ("matrix", (row, ...), ...)  ("det", ...)  ("base", digits, base)

The stages, in order: clean (characters and wrappers), split_unit, tokens, one recursive-descent reader. Depth and
length are limited before anything is built, so the cost is linear in the text whoever wrote it.
"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

MAX_CHARS = 2000  # the longest gold answer of the usual benchmarks has 171 characters
MAX_DEPTH = 40  # nesting; about six Python frames a level
MAX_EXPONENT = 999  # of 1e999: larger ones are written to hurt


class Unreadable(ValueError):
    """The text is not an answer this grammar knows; it can still be equal as a string."""


# ---------------------------------------------------------------------------------------------- characters, wrappers
_SUPERSCRIPT = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni", strict=True))
_SUBSCRIPT = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_UNICODE = {ord(a): b for a, b in {
    "π": r"\pi ", "∞": r"\infty ", "√": " sqrt ", "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "⁄": "/", "∕": "/",
    "−": "-", "–": "-", "—": "-", "﹣": "-", "±": r"\pm ", "∓": r"\mp ", "≤": "<=", "⩽": "<=", "≥": ">=", "⩾": ">=",
    "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "′": "'",
    "″": "''", "’": "'", "“": "", "”": "", "⟨": r"\langle ", "⟩": r"\rangle ", "∑": r"\sum ", "∫": r"\int ",
    "€": r"\euro ", "£": r"\pounds ", "«": " ", "»": " ", "，": ",", "∠": r"\angle ", "ı": "i", "º": "°", "⌊": r"\lfloor ",
    "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
}.items()}
_GREEK = ("alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
          "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega hbar ell mho "
          "odot aleph partial nabla max min star").split()
_UNICODE |= {ord(unicodedata.lookup(f"GREEK {case} LETTER {name.upper().replace('LAMBDA', 'LAMDA')}")): f"\\{spelt} "
             for name in _GREEK[:24] if not name.startswith("var") and name != "pi"
             for case, spelt in (("SMALL", name), ("CAPITAL", name.capitalize()))}


def _ascii(text):
    """Fullwidth and other digits, fractions such as ½, super- and subscripts, signs; invisible characters go."""
    out = []
    for char in text:
        if char in _SUPERSCRIPT:
            out.append("^{" + _SUPERSCRIPT[char] + "}")
        elif char in _SUBSCRIPT:
            out.append("_{" + _SUBSCRIPT[char] + "}")
        elif unicodedata.category(char) == "Nd":
            out.append(str(unicodedata.digit(char)))
        elif unicodedata.category(char) == "No" and "⁄" in unicodedata.normalize("NFKC", char):
            out.append(r"\frac{%s}{%s}" % tuple(unicodedata.normalize("NFKC", char).split("⁄")))
        elif unicodedata.category(char) not in ("Cf", "Cc"):
            out.append(char)
        elif char in "\n\t\r":
            out.append(" ")
    text = "".join(out).replace("}^{", "").replace("}_{", "")
    text = text.translate(_UNICODE)
    return unicodedata.normalize("NFKC", text).translate(_UNICODE)


_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal|sf|tt|sc|up)?|mathrm|mathbf|mathit|mathsf|mathtt|mbox|hbox|bf|rm|bold"
                   r"|boldsymbol|textnormal|operatorname\*?|emph|ensuremath)\s*\{([^{}]*)\}")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*[A-Za-z]")
_REWRITES = [(re.compile(a), b) for a, b in [
    (r"\\(?:left|right)\s*\.", ""),
    (r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|mathop|mathstrut|strut|hfill)(?![A-Za-z])",
     " "),
    (r"(?<=\d)(?:,\\!|\{,\}|\\,|,\\,)\s*(?=\d{3}(?!\d))", ""),  # 10,\!080   10{,}080   10\,080
    (r"\\(?:phantom)\s*(?:\{[^{}]*\}|[-+\w])|\\hspace\*?\{[^{}]*\}|\\label\{[^{}]*\}|\\tag\{[^{}]*\}", " "),
    (r"\\(?:[!,;:> ]|quad|qquad|space|thinspace|enspace)(?![A-Za-z])|~", " "),
    (r"\\[()\[\]](?![a-z])|\\?\$|\\(?:euro|pounds|textdollar)(?![A-Za-z])", " "),
    (r"\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree(?![A-Za-z])", "°"),
    (r"\^\s*(?:\{\s*)?((?:\\prime\s*)+)\}?", lambda m: "'" * m[1].count("prime")),
    (r"(?<=\d)\s*''", " «arcsec» "), (r"(?<=\d)\s*'", " «arcmin» "),
    (r"«(?:and|or)»|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:lor|land|vee|wedge|text\{\s*(?:and|or)\s*\})(?![A-Za-z])", ","),
    (r",(?:\s*,)+", ","),
    (r"\*\*", "^"), (r"<=|\\(?:leq?|leqslant)(?![A-Za-z])", "≤"), (r">=|\\(?:geq?|geqslant)(?![A-Za-z])", "≥"),
    (r"!=|\\(?:neq?|not\s*=)(?![A-Za-z])", "≠"), (r"\\lt(?![A-Za-z])", "<"), (r"\\gt(?![A-Za-z])", ">"),
    (r"(?<=[)\]])\s*[uU]\s*(?=[(\[])", r"\\cup "), (r"\\%", "%"),
    (r"\\mathbb\s*\{?R\}?|\\R(?![A-Za-z])", r"(-\\infty,\\infty)"),
]]


def _words(match):
    """\\text{June 20} -> «June» 20: words keep a mark, everything else inside a text wrapper is ordinary notation.
    One letter after a number (5\\text{ m}) is a unit, elsewhere (\\text{E}, \\mathrm{i}) the letter itself."""
    inside, before = match[1].replace("~", " "), match.string[: match.start()].rstrip(" \\,;!~")
    if re.fullmatch(r"\s*[A-Za-z]\s*", inside) and before[-1:] and before[-1] in "0123456789})" and inside.strip() != "i":
        return f" «{inside.strip()}» "
    return " " + _WORD.sub(lambda m: f"«{m[0]}»", inside) + " "


def clean(text):
    """One spelling for each thing: ASCII, no wrappers, no spacing commands, words marked «so»."""
    if not text.isascii() or "\x00" in text:
        text = _ascii(text)
    text = text.strip()
    while text.startswith(r"\boxed{") and text.endswith("}") and "{" not in text[7:]:
        text = text[7:-1].strip()
    for _ in range(3):  # \textbf{\text{...}}
        text, n = _TEXT.subn(_words, text)
        if not n:
            break
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    text = text.strip()
    return text if text.endswith("..") else text.rstrip(" .,;:")


def squash(text):
    """The string two spellings share; spaces go, except between digits ("2 10" is not 210)."""
    text = clean(text).replace("«", "").replace("»", "").replace("dfrac", "frac").replace("tfrac", "frac")
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)


# --------------------------------------------------------------------------------------------------------------- units
_UNITS = {alias: names.split()[0] for names in """
cm centimeter centimeters centimetre centimetres | mm millimeter millimeters | km kilometer kilometers kilometre
| m meter meters metre metres | inch inches | ft foot feet | mile miles mi | yard yards yd | light-years
| kg kilogram kilograms | g gram grams | mg milligrams | lb lbs pound pounds | ounce ounces oz | ton tons | liter liters L
| ml mL milliliters | gallon gallons | cup cups | acre acres | s sec second seconds | minute minutes min mins
| hour hours hr hrs h | day days | week weeks | month months | year years yr yrs | dollar dollars USD usd bucks
| cent cents | euro euros | degree degrees deg ° | radian radians rad | unit units | Hz hertz | kHz | MHz | N newton newtons
| J joule joules kJ | W watt watts | kW | V volt volts | K kelvin kelvins | C celsius Celsius | F fahrenheit Fahrenheit
| Pa pascals | mol moles | M | eV | kcal cal calories | erg ergs | A amps | nm | ms | AU | pc | arcsec | arcmin | bits bytes
| mph | rpm | ways | people students | points | square sq | cubic | percent | square-units
""".replace("\n", " ").split("|") for alias in names.split()}
_BARE = {unit for unit in _UNITS if len(unit) > 1 and unit not in ("min", "deg", "rad", "ms", "pc", "cal", "sq")} | {"°"}
_UNIT_AT_END = re.compile(r"(?:/|\*|\\cdot|(?<=[\s»])per(?![a-z])|«per»|«in»)?\s*"
                          r"(?:«(?P<word>[^«»]*)»|(?P<bare>°\s*[CF](?![A-Za-z])|°|(?<![A-Za-z\\_{])[A-Za-z]{2,}))\s*"
                          r"(?:\^\s*\{?\s*(?P<power>-?\d)\s*\}?)?\s*$")


def split_unit(text, trusted=False):
    """("864 «inches»^2") -> ("864", ("inch^2",)). Unknown words are only taken off a trusted text (a gold answer)."""
    rest, unit = text, []
    while match := _UNIT_AT_END.search(rest):
        word = match["word"] or match["bare"].replace(" ", "")
        known = word in _UNITS if match["word"] is not None else word[0] == "°" or word in _BARE
        if word == "percent" or word in _SCALES or not (known or (trusted and match["word"] is not None)):
            break
        unit.append((_UNITS.get(word) or {"°C": "C", "°F": "F"}.get(word, word)) + (f"^{match['power']}" if match["power"] else ""))
        rest = rest[: match.start()].rstrip()
    if not unit or not rest or not re.search(r"[\d)}\]A-Za-z%»]$", rest):
        return text, ()
    if "square" in unit or "cubic" in unit:  # square inches = inches^2
        power = "^2" if "square" in unit else "^3"
        unit = [u + power for u in unit if u not in ("square", "cubic")]
    return rest, tuple(sorted(unit))


# -------------------------------------------------------------------------------------------------------------- tokens
_TOKEN = re.compile(r"\s+|(?P<t>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\d.])|\\[A-Za-z]+|\\.|«[^«»]*»|[A-Za-z]+|[^\s])")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SHORT_WORDS = {"yes", "no", "odd", "even", "true", "none", "all", "one", "two", "six", "ten", "red", "am", "pm", "nan"}
_FUNCTIONS = set("sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth ln log lg exp sqrt floor ceil "
                 "abs gcd lcm max min det arg Re Im deg asin acos atan cbrt binom sgn".split())
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log10"}
_CONSTANTS = {r"\pi": "pi", "pi": "pi", "Pi": "pi", r"\infty": "oo", "infinity": "oo", "inf": "oo", "infty": "oo", "e": "e", "i": "i",
              r"\imath": "i", r"\mathrm{e}": "e"}
_RELATIONS = {"=": "=", "<": "<", ">": ">", "≤": "<=", "≥": ">=", "≠": "!=", r"\in": "in", r"\equiv": "=", r"\to": "->",
              r"\rightarrow": "->", r"\approx": "~", r"\sim": "~"}
_CLOSERS = {")", "]", "}", r"\}", r"\rangle", ",", ";", "|", r"\rvert", r"\vert", r"\mid", r"\rfloor", r"\rceil", "&", r"\\",
            r"\end", ":", r"\cup", r"\cap", r"\setminus", r"\choose", r"\mod", r"\pmod", r"\bmod", "+", "-", r"\pm", r"\mp"}
_FRACTIONS = {r"\frac", r"\dfrac", r"\tfrac", r"\cfrac"}
_ACCENTS = {r"\hat", r"\vec", r"\bar", r"\dot", r"\ddot", r"\tilde", r"\overline", r"\widehat", r"\mathcal", r"\mathbb",
            r"\overrightarrow", r"\angle", r"\triangle", r"\widetilde", r"\mathfrak", r"\underline"}
_MINUS_ONE = ("num", Fraction(-1))


def tokens(text):
    """Numbers, \\commands, «words», letter runs, single characters."""
    return [m["t"] for m in _TOKEN.finditer(text) if m["t"]]


def number(token):
    """An exact Fraction: 0.1 is 1/10."""
    mantissa, _, exponent = token.lower().partition("e")
    if len(exponent) > 5 or abs(int(exponent or 0)) > MAX_EXPONENT:
        raise Unreadable("exponent too large")
    return Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** int(exponent or 0)


def _is_number(token):
    return token is not None and (token[0].isdigit() or (token[0] == "." and len(token) > 1))


class _Reader:
    """Recursive descent over tokens: answer > relation > union > ratio > sum > term > factor > atom. Every cycle of
    the grammar passes through atom, which counts the depth."""

    def __init__(self, token_list, tight):
        self.tokens, self.at, self.depth, self.trig = token_list, 0, 0, 0
        self.tight = tight  # 1/2x is 1/(2x) where True, (1/2)x where False

    def peek(self, ahead=0):
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else None

    def take(self, *wanted):
        token = self.peek()
        if token is None or (wanted and token not in wanted):
            raise Unreadable(f"expected {wanted or 'more'}, found {token!r}")
        self.at += 1
        return token

    def items(self):
        found = [self.relation()]
        while self.peek() in (",", ";"):
            self.take()
            found.append(self.relation())
        return found

    def relation(self):
        parts = [self.union()]
        while self.peek() in _RELATIONS:
            parts += [_RELATIONS[self.take()], self.union()]
        return parts[0] if len(parts) == 1 else ("rel", *parts)

    def union(self):
        parts = [self.ratio()]
        while self.peek() == r"\cup":
            self.take()
            parts.append(self.ratio())
        return parts[0] if len(parts) == 1 else ("union", *parts)

    def ratio(self):
        parts = [self.sum()]
        while self.peek() == ":":
            self.take()
            parts.append(self.sum())
        return parts[0] if len(parts) == 1 else ("ratio", *parts)

    def sum(self):
        terms = []
        while not terms or self.peek() in ("+", "-", r"\pm", r"\mp"):
            sign = None
            while self.peek() in ("+", "-", r"\pm", r"\mp"):
                factor = {"+": None, "-": _MINUS_ONE, r"\pm": ("pm", 1), r"\mp": ("pm", -1)}[self.take()]
                if factor and sign:  # --5 and +-5 are not answers anybody writes on purpose, but -(-5) is
                    raise Unreadable("two signs")
                sign = factor or sign
            term = self.term()
            if sign == _MINUS_ONE and term[0] == "num":
                terms.append(("num", -term[1]))
            else:
                terms.append(("mul", sign, term) if sign else term)
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def term(self):
        result = self.factor()
        while True:
            token = self.peek()
            if token in ("*", r"\cdot", r"\times", r"\ast"):
                self.take()
                sign = _MINUS_ONE if self.peek() == "-" and self.take() else None
                result = _mul(result, sign, self.factor())
            elif token in ("/", r"\div"):
                self.take()
                below = self.factor()
                while self.tight and self.starts_factor():
                    below = _mul(below, self.factor())
                result = ("div", result, below)
            elif self.starts_factor(after_word=result[0] == "word"):
                result = self.beside(result)
            elif _is_number(token) and _is_number(self.peek(-1)) and self.peek(1) == "/" and _is_number(self.peek(2)):
                whole, top, _, bottom = number(self.peek(-1)), number(self.take()), self.take(), number(self.take())
                if result != ("num", whole) or not 0 < top < bottom:  # 1 4/5
                    raise Unreadable("two numbers side by side")
                result = ("num", whole + top / bottom)
            elif token in (r"\mod", r"\pmod", r"\bmod"):
                self.take()
                result = ("call", "mod", result, self.factor())
            else:
                return result

    def beside(self, left):
        """Juxtaposition: a product, except 1\\frac45 (mixed number) and 5 «million»."""
        literal = left[0] == "num" and left[1].denominator == 1 and _is_number(self.peek(-1))
        token = self.peek()
        right = self.factor()
        if literal and token in _FRACTIONS and right[0] == "div" and right[1][0] == right[2][0] == "num":
            top, bottom = right[1][1], right[2][1]
            if 0 < top < bottom and top.denominator == bottom.denominator == 1:
                return ("num", left[1] + top / bottom)
        if right[0] == "word" and left[0] != "word":
            if right[1] in _SCALES:
                return _mul(left, ("num", Fraction(10) ** _SCALES[right[1]]))
            if right[1] == "percent":
                return ("div", left, ("num", Fraction(100)))
            if token[1:-1] in _UNITS:  # inside a tuple or list; at the end of the answer split_unit has taken it
                return left
        return _mul(left, right)

    def starts_factor(self, after_word=False):
        """May the next token be multiplied without a sign? Never a number: "5 5", "x2" and "\\sqrt{3}4" are unreadable."""
        token = self.peek()
        if token is None or token in _CLOSERS or token in _RELATIONS or token in ("/", r"\div", "*", "^", "_", "!", "'", "%"):
            return False
        if token in (r"\cdot", r"\times", r"\ast"):
            return False
        return after_word or not _is_number(token)

    def factor(self):
        start = self.at
        result = self.atom()
        while (token := self.peek()) in ("^", "!", "°", "%", "'", "_"):
            self.take()
            if token == "^":
                result = ("pow", result, self.exponent())
            elif token == "!":
                if self.peek() == "!":
                    raise Unreadable("double factorial")
                result = ("call", "factorial", result)
            elif token == "%":
                result = ("div", result, ("num", Fraction(100)))
            elif token == "°" and self.trig:
                result = ("div", _mul(result, ("const", "pi")), ("num", Fraction(180)))
            elif token == "'":
                result = self.primed(result)
            elif token == "_":
                if self.at != start + 2 and self.peek(-2) != ")" or result[0] != "num":
                    raise Unreadable("subscript")
                result = ("base", str(result[1]), self.arg())
        return result

    def primed(self, tree):
        if tree[0] != "sym":
            raise Unreadable("prime")
        return ("sym", tree[1] + "'")

    def exponent(self):
        if self.peek() in ("-", "+"):
            sign = self.take()
            inner = self.exponent()
            return _mul(_MINUS_ONE, inner) if sign == "-" else inner
        if self.peek() == "{":
            return self.group()
        base = self.atom()
        if self.peek() == "^":
            self.take()
            return ("pow", base, self.exponent())
        return base

    def arg(self):
        """A LaTeX argument: {...}, or one digit, letter or command."""
        token = self.peek()
        if token == "{":
            return self.group()
        if _is_number(token) or (token and token.isalpha()):
            self.tokens[self.at : self.at + 1] = [token[0], *filter(None, [token[1:]])]
        return self.atom()

    def group(self):
        """{...}; several items in bare braces are a set whose backslashes were forgotten."""
        self.take("{")
        found = self.items()
        if self.peek() == r"\choose":
            self.take()
            found = [("call", "binom", found[0], self.sum())]
        self.take("}")
        return found[0] if len(found) == 1 else ("set", *found)

    def atom(self):
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        token = self.peek()
        if token is None:
            raise Unreadable("ends too early")
        if _is_number(token):
            result = self.repeating(self.take())
        elif token[0] == "«":
            result = ("word", self.take()[1:-1].lower())
        elif token == "{":
            result = self.group()
        elif token in ("(", "["):
            result = self.bracket()
        elif token in _PAIRS:
            result = self.paired()
        elif token.lstrip("\\") in _FUNCTIONS and token != r"\binom" and not self.is_name(token):
            result = self.function(self.take().lstrip("\\"))
        elif token[0].isalpha():
            result = self.letters()
        elif token[0] == "\\" and len(token) > 1:
            result = self.command(self.take())
        else:
            raise Unreadable(f"unexpected {token!r}")
        self.depth -= 1
        return result

    def is_name(self, token):
        return token in ("max", "min", "deg", "arg", "det") or (token in (r"\max", r"\min") and self.peek(1) in ("}", None))

    def repeating(self, token):
        """0.1\\overline{6} is 1/6."""
        value = number(token)
        if self.peek() == r"\overline" and "." in token:
            self.take()
            self.take("{")
            digits = self.take()
            self.take("}")
            if not digits.isdigit():
                raise Unreadable("overline")
            places = len(token.partition(".")[2])
            value += Fraction(int(digits), (10 ** len(digits) - 1) * 10**places)
        return ("num", value)

    def bracket(self):
        open_, found = self.take(), self.items()
        close = self.take(")", "]")
        if len(found) == 1 and (open_ == "(") == (close == ")"):
            return found[0]
        if len(found) == 2 and (open_, close) != ("(", ")"):
            return ("interval", open_, close, *found)
        if (open_ == "(") != (close == ")"):
            raise Unreadable("brackets")
        return ("tuple" if open_ == "(" else "vector", *found)

    def paired(self):
        """|x|, floor, ceiling, set, angle brackets."""
        open_ = self.take()
        kind, closers = _PAIRS[open_]
        if kind == "set" and self.peek() == r"\}":
            self.take()
            return ("set",)
        found = self.items()
        if kind == "set" and self.peek() in ("|", r"\mid"):  # set builder: { x | condition }
            self.take()
            found = self.items()
            self.take(r"\}")
            return found[0] if len(found) == 1 else ("set", *found)
        self.take(*closers)
        if kind in ("set", "tuple"):
            return (kind, *found)
        if len(found) != 1:
            raise Unreadable(kind)
        return ("call", kind, found[0])

    def letters(self):
        """A run of letters: a constant, a word, or one-letter variables side by side (abc = a*b*c)."""
        token = self.take()
        if token.lower() in _SCALES or token in _BARE and self.at > 1 and _is_number(self.peek(-2)):
            return ("word", token.lower())
        if token in _CONSTANTS and not self.peek() == "_":
            return ("const", _CONSTANTS[token])
        if len(token) > 3 or token.lower() in _SHORT_WORDS:
            return ("word", token.lower())
        if len(token) > 1:
            self.at -= 1
            self.tokens[self.at : self.at + 1] = list(token)
            self.take()
            if token[0] in _CONSTANTS:
                return ("const", _CONSTANTS[token[0]])
        return self.symbol(token[0])

    def symbol(self, name):
        """A variable with its subscript; f(x) and y(0) are values of functions, n(n+1) is a product."""
        if self.peek() == "_":
            self.take()
            start = self.at
            if self.peek() == "{":
                self.skip_group()
            else:
                self.arg()
            name += "_" + "".join(self.tokens[start : self.at]).strip("{}").replace("«", "").replace("»", "")
        while self.peek() == "'":
            name += self.take()
        inside = self.peek(1)
        if self.peek() == "(" and inside and (name[0] in "fgh" or self.peek(2) == ")" and (inside == "0" or inside.isalpha())):
            return ("call", "@" + name, *self.arguments())
        return ("sym", name)

    def skip_group(self):
        level = 0
        while True:
            token = self.take()
            level += (token == "{") - (token == "}")
            if level == 0:
                return

    def arguments(self):
        self.take("(")
        found = self.items()
        self.take(")")
        return found

    def function(self, name):
        name = _ALIASES.get(name, name)
        power = base = None
        if name == "sqrt":
            return self.root()
        while self.peek() in ("^", "_"):
            if self.take() == "^":
                power = self.exponent()
            else:
                base = self.arg()
        self.trig += name in ("sin", "cos", "tan", "cot", "sec", "csc")
        args = self.function_args()
        self.trig -= name in ("sin", "cos", "tan", "cot", "sec", "csc")
        if base is not None:
            if name != "log":
                raise Unreadable("subscript")
            args = [*args, base]
        if power == _MINUS_ONE and name in ("sin", "cos", "tan"):
            return ("call", "arc" + name, *args)
        return ("pow", ("call", name, *args), power) if power else ("call", name, *args)

    def function_args(self):
        """(...) or {...}, else the factors up to the next function, sign or bracket: \\sin 2x \\cos x."""
        if self.peek() == "(":
            return self.arguments()
        if self.peek() == "{":
            return [self.group()]
        result = self.factor()
        while self.starts_factor() and self.peek() != "(" and self.peek().lstrip("\\") not in _FUNCTIONS:
            result = _mul(result, self.factor())
        return [result]

    def root(self):
        degree = Fraction(2)
        latex = self.peek(-1) == r"\sqrt"
        if self.peek() == "[" and latex:
            self.take()
            degree_tree = self.sum()
            self.take("]")
            return ("pow", self.arg(), ("div", ("num", Fraction(1)), degree_tree))
        inner = self.arg() if latex else self.atom()
        return ("pow", inner, ("num", 1 / degree))

    def command(self, token):
        if token in _FRACTIONS:
            return ("div", self.arg(), self.arg())
        if token in (r"\binom", r"\dbinom", r"\tbinom"):
            return ("call", "binom", self.arg(), self.arg())
        if token in _CONSTANTS:
            return ("const", _CONSTANTS[token])
        if token in (r"\sum", r"\prod", r"\int"):
            return self.big(token[1:])
        if token in (r"\emptyset", r"\varnothing"):
            return ("set",)
        if token == r"\begin":
            return self.matrix()
        if token in _ACCENTS:
            start = self.at
            if self.peek() == "{":
                self.skip_group()
            else:
                self.take()
            return self.symbol(token[1:] + "".join(self.tokens[start : self.at]).strip("{}"))
        if token[1:] in _GREEK:
            return self.symbol(token[1:])
        raise Unreadable(f"unknown command {token}")

    def big(self, kind):
        """\\sum_{k=1}^{n} body, \\int_0^1 body dx."""
        low = high = None
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                low = self.arg()
            else:
                high = self.exponent()
        if kind == "int":
            ends = [i for i in range(self.at, len(self.tokens)) if re.fullmatch(r"d[a-z]", self.tokens[i])]
            if low is None or high is None or not ends:
                raise Unreadable("integral")
            variable, self.tokens[ends[0] : ends[0] + 1] = self.tokens[ends[0]][1], [")"]
            body = self.sum() if self.peek() != ")" else ("num", Fraction(1))
            self.take(")")
            return ("big", kind, variable, low, high, body)
        if low is None or high is None or low[0] != "rel" or len(low) != 4 or low[2] != "=" or low[1][0] != "sym":
            raise Unreadable(kind)
        return ("big", kind, low[1][1], low[3], high, self.term())

    def matrix(self):
        name, rows = self.environment(), [[]]
        if name == "array" and self.peek() == "{":
            self.skip_group()
        while self.peek() != r"\end":
            if self.peek() == r"\\":
                self.take()
                rows.append([])
            elif self.peek() == "&":
                self.take()
            else:
                rows[-1].append(self.relation())
        self.take()
        self.environment()
        rows = tuple(tuple(row) for row in rows if row)
        if not rows or len({len(row) for row in rows}) != 1:
            raise Unreadable("matrix")
        return ("det" if name == "vmatrix" else "matrix", *rows)

    def environment(self):
        self.take("{")
        name = self.take()
        self.take("}")
        if name not in ("pmatrix", "bmatrix", "matrix", "vmatrix", "array", "Bmatrix", "smallmatrix"):
            raise Unreadable(f"environment {name}")
        return name


_PAIRS = {"|": ("abs", ("|",)), r"\lvert": ("abs", (r"\rvert",)), r"\vert": ("abs", (r"\vert",)), r"\mid": ("abs", (r"\mid",)),
          r"\lfloor": ("floor", (r"\rfloor",)), r"\lceil": ("ceil", (r"\rceil",)), r"\{": ("set", (r"\}",)),
          r"\lbrace": ("set", (r"\rbrace",)), r"\langle": ("tuple", (r"\rangle",))}


def _mul(*parts):
    flat = []
    for part in parts:
        if part is not None:
            flat += part[1:] if part[0] == "mul" else [part]
    return flat[0] if len(flat) == 1 else ("mul", *flat)


def read(text, tight=False):
    """The whole of a cleaned text as one tree; several items without brackets are a ("list", ...)."""
    reader = _Reader(tokens(text), tight)
    found = reader.items()
    if reader.peek() is not None:
        raise Unreadable(f"left over: {reader.peek()!r}")
    return found[0] if len(found) == 1 else ("list", *found)


_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])|(?<![\d.,])\d{1,3}(?: \d{3})+(?! ?\d)")
_BASE = re.compile(r"\(?([0-9A-Z]+)\)?_\{?(\d{1,2})\}?")


@lru_cache(maxsize=4096)
def readings(text, trusted=False):
    """Every sensible (tree, unit) of an answer, best first; Unreadable where there is none. A trusted text (the gold
    answer) may also drop its percent sign and words the unit table does not know."""
    if len(text) > MAX_CHARS:
        raise Unreadable("too long")
    text = clean(text)
    if based := _BASE.fullmatch(text.replace(" ", "")):
        return [(("base", based[1], based[2]), ())]
    spellings = [split_unit(text), split_unit(text, trusted)]
    if trusted and text.endswith("%"):
        spellings.append((text[:-1], ()))
    found = []
    for spelling, unit in dict.fromkeys(spellings):
        merged = _THOUSANDS.sub(lambda m: re.sub(r"[, ]", "", m[0]), spelling) if not re.search(r"[(\[]|\\\{", spelling) else spelling
        for variant in dict.fromkeys((merged, spelling)):
            for tight in (False, True) if "/" in variant else (False,):
                try:
                    found.append((read(variant, tight), unit))
                except Unreadable:
                    continue
    if not found:
        raise Unreadable("no reading")
    return list(dict.fromkeys(found))
