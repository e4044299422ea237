r"""spelling.py - one spelling for everything an answer can say, before anything is parsed.

    clean(text)        ASCII, no wrappers, no spacing commands; words that stood in \text{...} are marked «so»
    Tokens(cleaned)    numbers, \\commands, «words», runs of letters, single characters, one after the other
    squash(cleaned)    the string that harmless respellings of one answer share
    spellings(cleaned) the texts to parse, each without its unit: "864 «inches»^2" -> ("864", (("inch", 2),))

Rewriting only: nothing here knows numbers or equality, and what no rule knows is left alone for grammar.py to refuse.
"""

import re
import unicodedata
from fractions import Fraction

from minidrpo.grader import tables

MAX_CLEANED = 5000  # characters of an answer in our spelling, which is longer than its own


class Unreadable(ValueError):
    """The text is not an answer this grammar knows; it can still be equal as a string."""


class TooLong(Unreadable):
    """There is more text than in any answer."""


# ---------------------------------------------------------------------------------------------------------- characters
def to_ascii(text):
    """Fullwidth and foreign digits, fractions such as ½, super- and subscripts, signs; invisible characters go."""
    out, before = [], None
    for char in text:
        category, plain = unicodedata.category(char), unicodedata.normalize("NFKC", char)
        script = tables.SCRIPTS.get(unicodedata.decomposition(char).partition(" ")[0]) if char != "º" else None
        if script:  # a run of them is one script: x¹² is x^{12}, x₁² is x_{1}^{2}
            out[-1:] = [out[-1][:-1]] if script == before else [*out[-1:], script + "{"]
            out.append(plain.translate(tables.SYMBOLS) + "}")
        elif category == "Nd":
            out.append(str(unicodedata.digit(char)))
        elif category == "No" and "⁄" in plain:
            out.append(r"\frac{{{}}}{{{}}}".format(*plain.split("⁄")))
        elif char.translate(tables.SYMBOLS) != char:
            out.append(char.translate(tables.SYMBOLS))
        elif category != "Cf":
            out.append(plain.translate(tables.SYMBOLS))
        before = script
    return "".join(out)


# --------------------------------------------------------------------------------------------------------------- units
# Outside \text{...} one letter is a variable (2s, 5m), and so are a few longer names.
_BARE_UNITS = {unit for unit in tables.UNITS if len(unit) > 1 and unit not in ("min", "ms", "pc", "sq", "in")}
_MONEY = re.compile(r"«(dollar|textdollar|euro|pounds|yen|cent)»")  # these signs stand before a number or behind it
_UNIT_AT_END = re.compile(
    r"(?:(?P<per>/|(?<=[\s»])per(?![a-z])|«per»)|\*|\\cdot)? ?"
    r"(?:«(?P<word>[^«»]*)»|(?P<bare>° ?[CF](?![A-Za-z])|°|(?<![A-Za-z\\_{])[A-Za-z]{2,})) ?"
    r"(?:\^ ?\{? ?(?P<power>-?\d) ?\}?)?$"
)
RADIANS = re.compile(r"pi|arc|sin|cos|tan|cot|sec|csc")


def split_unit(text, trusted=False):
    """(text without its unit, unit), a unit being sorted pairs of name and power. Words that are not in the table are
    only taken off a trusted text: a truth."""
    money = {tables.UNITS[sign] for sign in _MONEY.findall(text)} if "«" in text else ()
    rest, unit = (_MONEY.sub(" ", text).strip(), [(*money, 1)]) if len(money) == 1 else (text, [])
    while len(unit) < 5 and (match := _UNIT_AT_END.search(rest, max(0, len(rest) - 40))):
        word, bare, power = match["word"], match["bare"], match["power"]
        known = (
            word in tables.UNITS or trusted and word.lower() not in tables.WORDS
            if word
            else bare[0] == "°" or bare in _BARE_UNITS
        )
        if not known or word in tables.SCALES or bare in tables.SCALES:
            break
        name = word or bare.replace(" ", "").lstrip("°") or "°"
        name, power = tables.UNITS.get(name, name), int(power or 1) * (-1 if match["per"] else 1)
        if name == "degree" and RADIANS.search(rest):  # \sin 20° is another number than \sin 20
            break
        if name in ("square", "cubic") and unit:  # square inches = inches^2
            name, power = unit[-1][0], unit.pop()[1] * power * (2 if name == "square" else 3)
        if (name, power) not in unit or name not in money:  # \$5 dollars
            unit.append((name, power))
        rest = rest[: match.start()].rstrip()
    if not unit or not re.search(r"[\d)}\]A-Za-z%»]$", rest):
        return text, ()
    return rest, tuple(sorted(unit))


# ------------------------------------------------------------------------------------------------------------ cleaning
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|normal|sf|tt|sc|up)?|math(?:rm|bf|it|sf|tt)|[mh]box|bf|rm|bold|boldsymbol"
    r"|operatorname\*?|emph|ensuremath) ?\{([^{}]*)\}"
)
_WORD = re.compile(r"(?<![\\A-Za-z])([A-Za-z][A-Za-z'-]*[A-Za-z])\.?")
_SPACES = re.compile(r"(?<!\d) +| +(?!\d)")
_LONE_LETTER = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])")


_UNIT_FRACTION = re.compile(  # 5 \frac{\text{m}}{\text{s}^2} at the end
    r"(?<=[\d}])(?:\\[ ,;:]| )*\\[dt]?frac ?"
    + 2 * r"\{ ?(\\(?:text|mathrm) ?\{[^{}]*\}(?: ?\^ ?\{?\d\}?)?) ?\} ?"
    + r"(?=[ .$]*$)"
)


def _words(match):
    r"""\text{June 20} -> «June» 20: words keep a mark, everything else inside a text wrapper is ordinary notation.
    One letter after a number (5\text{ m}) is a unit, elsewhere (\text{E}, \mathrm{i}) the letter itself."""
    inside, before = match[1], match.string[: match.start()].rstrip(" \\,;!~")
    if before and before[-1] in "0123456789})°/":
        inside = _LONE_LETTER.sub(lambda m: f"«{m[0]}»" if m[0] in tables.UNITS else m[0], inside)
    return " " + _WORD.sub(lambda m: f"«{m[1]}»", inside) + " "


_REWRITES = [(re.compile(pattern), new) for pattern, new in [
    (r"\\(?:left|right) ?\.", ""),
    (r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|limits|mathop|strut)(?![A-Za-z])", " "),
    (r"(?<![\d.])[1-9]\d{0,2}(?:(?:,\\!|\{,\}|\\,) ?\d{3})+(?!\d)", lambda m: re.sub(r"\D", "", m[0])),  # 10{,}080
    (r"\\(?:text)?color ?\{[A-Za-z][\w!]*\}|\\underline ?(?=\{ ?(?:[-.(\d«]|\\[dt]?frac|\\sqrt|\\pi))", " "),
    (r"\\phantom ?(?:\{[^{}]*\}|[-+\w])|\\hspace\*?\{[^{}]*\}|\\label\{[^{}]*\}|\\tag\{[\d.]*\}", " "),
    (r"(?:«mod»|\\(?:mod|pod|pmod)(?![A-Za-z])|(?<![A-Za-z\\])mod(?![A-Za-z]))", r"\\pmod "),
    (r"\( ?\\pmod ([^()]*)\)", r"\\pmod {\1}"),
    (r"(?<=[\w})]) ?\\q?quad ?(?!\\pmod)(?=[\w({\\-])", ", "),  # two answers, not a product
    (r"\\!|\\boxed(?= ?\{)", ""),
    (r"\\[,;:> ]|\\(?:quad|qquad|space|thinspace|enspace)(?![A-Za-z])", " "),
    (r"\\\$", " «dollar» "), (r"^(-?) ?\$(?=[^$]*$)", r"\1 «dollar» "), (r"\$|\\[()\[\]]", " "),
    (r"\\(euro|pounds|yen|cent|textdollar)(?![A-Za-z])", r" «\1» "),
    (r"\^ ?(?:\\circ|\{ ?\\circ ?\})|\\degree(?![A-Za-z])", "°"),
    (r"\^ ?(?:\{ ?)?((?:\\prime ?)+)\}?", lambda m: "'" * m[1].count("prime")),
    (r"(?<=\d) ?''", " «arcsec» "), (r"(?<=\d) ?'", " «arcmin» "),
    (r"(?:, ?)?(?:«and»|(?<![A-Za-z\\])and(?![A-Za-z])|\\(?:land|wedge)(?![A-Za-z]))(?: ?,)?", "∧"),
    (r"(?:, ?)?(?:«or»|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z]))(?: ?,)?", "∨"),
    (r"\*\*", "^"), (r"<=|\\(?:leq?|leqslant)(?![A-Za-z])", "≤"), (r">=|\\(?:geq?|geqslant)(?![A-Za-z])", "≥"),
    (r"!=|\\(?:neq?|not ?=)(?![A-Za-z])", "≠"), (r"\\lt(?![A-Za-z])", "<"), (r"\\gt(?![A-Za-z])", ">"),
    (r"(?<=[)\]]) ?[uU] ?(?=[(\[])", r"\\cup "), (r"\\%", "%"),
    (r"\\mathbb ?\{?R\}?|\\R(?![A-Za-z])", r"(-\\infty,\\infty)"),
]]  # fmt: skip
_PLAIN_REWRITES = [rule for rule in _REWRITES if not rule[0].pattern.startswith(r"\\")]  # for texts without commands
_SIMPLE = re.compile(
    r"(?:[0-9+\-/=(){}. ^]|,(?!\})|(?<![A-Za-z])[A-TV-Za-tv-z](?![A-Za-z])|\\(?:frac|sqrt|pi|cdot)(?![A-Za-z]))*"
)


def bounded(text):
    """Each rewriting can make a text longer: one character of Unicode stands for eighteen."""
    if len(text) > MAX_CLEANED:
        raise TooLong("longer than any answer")
    return text


def clean(text):
    """One spelling for each thing; the rules above, in their order, after the characters and the text wrappers."""
    if _SIMPLE.fullmatch(text):  # most answers: no rule applies
        return text.strip() if text.endswith("..") else text.strip(" ").rstrip(" .,")
    if not text.isascii():
        text = bounded(to_ascii(text))
    if "~" in text:  # ~42 is about 42; elsewhere it is a space of TeX
        text = re.sub(r"^\s*~+|(?<![\w})\].,])~+(?=\s?[-+]?(?:[.\d(]|\\(?:[dt]?frac|sqrt|pi)))", r"\\sim ", text)
    text = re.sub(r"[\s~]+", " ", re.sub(r"[\x00-\x08\x0e-\x1f\x7f]", "", text)).strip()
    if "frac" in text:
        text = _UNIT_FRACTION.sub(r" \1/\2", text)
    wrappers = 3  # \textbf{\text{...}}
    while wrappers and _TEXT.search(text):
        text, wrappers = _TEXT.sub(_words, text), wrappers - 1
    text = text.replace(r"\\", "¶")  # the end of a matrix row, so that no rule mistakes its second half for a command
    for pattern, new in _REWRITES if "\\" in text else _PLAIN_REWRITES:
        text = pattern.sub(new, text)
    text = bounded(re.sub(" +", " ", text).strip())
    return text if text.endswith("..") else text.rstrip(" .,;:")


def squash(cleaned):
    """The string that two spellings share; spaces go, except between digits ("2 10" is not 210)."""
    text = cleaned.replace("«", "").replace("»", "").replace("dfrac", "frac").replace("tfrac", "frac")
    return _SPACES.sub("", text) if " " in text else text


_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])|(?<![\d.,])[1-9]\d{0,2}(?: \d{3})+(?! ?\d)")


def spellings(text, trusted):
    """(text, unit) pairs to read: without the unit; 10,080 as a number and, unless a group starts with 0, as a list."""
    found = [split_unit(text), split_unit(text.removeprefix(r"\approx"), True)] if trusted else [split_unit(text)]
    if trusted and text.endswith("%"):
        found.append((text[:-1], (("percent", 1),)))
    for spelling, unit in dict.fromkeys(found):
        merged = spelling
        if not re.search(r"[(\[]|\\\{", spelling):
            merged = _THOUSANDS.sub(lambda m: re.sub("[, ]", "", m[0]), spelling)
        yield merged, unit
        if merged != spelling and not re.search(",0\\d", spelling):
            yield spelling, unit


# -------------------------------------------------------------------------------------------------------------- tokens
MAX_EXPONENT = 999  # of 1e999: larger ones are written to hurt
_TOKEN = re.compile(
    r"\s+|(?P<t>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\d.])"
    r"|\\[A-Za-z]+|\\.|«[^«»]*»|[A-Za-z]+|[^\s])",
    re.ASCII,
)


def is_number(token):
    return token is not None and (token[0] in "0123456789" or (token[0] == "." and len(token) > 1))


def number(token):
    """An exact Fraction: 0.1 is 1/10."""
    if token.isdigit():
        return Fraction(int(token))
    mantissa, _, exponent = token.lower().partition("e")
    if len(exponent) > 5 or abs(int(exponent or 0)) > MAX_EXPONENT:
        raise Unreadable("exponent too large")
    return Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** int(exponent or 0)


_PLAIN_FRACTION = re.compile(r"\d\d(?!\d)|(?:\d|\{ \d+ \}) (?:\d|\{ \d+ \})(?!\d)", re.ASCII)  # what follows \frac


class Tokens:
    """A text as a list of tokens with a reading position."""

    def __init__(self, text):
        self.tokens, self.at = [match["t"] for match in _TOKEN.finditer(text) if match["t"]], 0
        self.tokens += [None] * 3  # as far as anybody looks ahead, or back from the first token

    def peek(self, ahead=0):
        return self.tokens[self.at + ahead]

    def take(self, *wanted):
        token = self.peek()
        if token is None or (wanted and token not in wanted):
            raise Unreadable(f"expected {wanted or 'more'}, found {token!r}")
        self.at += 1
        return token

    def accept(self, *wanted):
        return self.take() if self.peek() in wanted else None

    def decimal(self, token):
        r"""A number; 0.1\overline{6} is 1/6."""
        value = number(token)
        if token.endswith(".") and self.peek() not in tables.DOT_ENDS:  # 0.-7, 0.\frac12
            raise Unreadable("a number without its decimals")
        if "." in token and self.accept(r"\overline", r"\bar"):
            digits, places = self.raw(), len(token.partition(".")[2])
            if not digits.isdigit():
                raise Unreadable("overline")
            value += Fraction(int(digits), (10 ** len(digits) - 1) * 10**places)
        return ("num", value)

    def plain_fraction(self):
        r"""What writes a fraction of whole numbers that stands next: \frac, \dfrac ..., "/", or None."""
        if self.peek() in tables.FRACTIONS:
            ahead = " ".join(token or "" for token in self.tokens[self.at + 1 : self.at + 7])
            return self.peek() if _PLAIN_FRACTION.match(ahead) else None
        return "/" if is_number(self.peek()) and self.peek(1) == "/" and is_number(self.peek(2)) else None

    def raw(self):
        """The text of one argument that is a name, not an expression: the max of m_{max}."""
        start, level = self.at, 0
        while True:
            token = self.take()
            level += (token == "{") - (token == "}")
            if level <= 0:
                parts = (f" {part}" if is_number(part) else part.strip("«»") for part in self.tokens[start : self.at])
                return "".join(parts).strip("{} ")  # x_{1 2} is not x_{12}

    def chain(self, kind, separators, below):
        """below separator below ...: one tree of that kind, or the only one."""
        parts = [below()]
        while self.peek() in separators:
            self.take()
            parts.append(below())
        return parts[0] if len(parts) == 1 else (kind, *parts)
