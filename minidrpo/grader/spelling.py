r"""spelling.py - one spelling for everything an answer can say, before anything is parsed.

    clean(text)        ASCII, no wrappers, no spacing commands; words that stood in \text{...} are marked «so»
    Tokens(cleaned)    numbers, \\commands, «words», runs of letters, single characters, one after the other
    squash(cleaned)    the string that harmless respellings of one answer share
    spellings(cleaned) the texts to parse, each without its unit: "864 «inches»^2" -> ("864", ("inch^2",))

Rewriting only: nothing here knows numbers or equality, and what no rule knows is left alone for grammar.py to refuse.
"""

import re
import unicodedata
from fractions import Fraction

# ---------------------------------------------------------------------------------------------------------- characters
GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega"
).split()
_SCRIPTS = {
    **{c: f"^{{{a}}}" for c, a in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni", strict=True)},
    **{c: f"_{{{a}}}" for c, a in zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)},
}
_SYMBOLS = str.maketrans({
    "π": r"\pi ", "∞": r"\infty ", "√": " sqrt ", "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "⁄": "/", "∕": "/",
    "−": "-", "–": "-", "—": "-", "±": r"\pm ", "∓": r"\mp ", "≤": "<=", "⩽": "<=", "≥": ">=", "⩾": ">=", "≠": r"\ne ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "′": "'", "″": "''", "’": "'",
    "“": "", "”": "", "⟨": r"\langle ", "⟩": r"\rangle ", "∑": r"\sum ", "∫": r"\int ", "€": r"\euro ",
    "£": r"\pounds ", "«": " ", "»": " ", "¶": " ", "∠": r"\angle ", "º": "°",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    **{unicodedata.lookup(f"GREEK {case} LETTER {name.upper().replace('LAMBDA', 'LAMDA')}"): f"\\{spelt} "
       for name in GREEK for case, spelt in (("SMALL", name), ("CAPITAL", name.capitalize()))},
})  # fmt: skip


def to_ascii(text):
    """Fullwidth and foreign digits, fractions such as ½, super- and subscripts, signs; invisible characters go."""
    out = []
    for char in text:
        category, plain = unicodedata.category(char), unicodedata.normalize("NFKC", char)
        if char in _SCRIPTS:
            out.append(_SCRIPTS[char])
        elif category == "Nd":
            out.append(str(unicodedata.digit(char)))
        elif category == "No" and "⁄" in plain:
            out.append(r"\frac{{{}}}{{{}}}".format(*plain.split("⁄")))
        elif category != "Cf":
            out.append(char.translate(_SYMBOLS) if char.translate(_SYMBOLS) != char else plain.translate(_SYMBOLS))
    return "".join(out).replace("}^{", "").replace("}_{", "")  # x^{1}^{2} was x¹²


# --------------------------------------------------------------------------------------------------------------- units
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
UNITS = {alias: line.split()[0] for line in """
cm centimeter centimeters centimetre centimetres | mm millimeter millimeters millimetres | nm | ms | AU | pc | arcsec
km kilometer kilometers kilometre kilometres | m meter meters metre metres | inch inches in | ft foot feet | arcmin
mile miles mi | yard yards yd | kg kilogram kilograms | g gram grams | mg milligrams | lb lbs pound pounds | kJ
ounce ounces oz | ton tons | L liter liters litres l | mL ml milliliters | gallon gallons | cup cups | acre acres
s sec second seconds | minute minutes min mins | hour hours hr hrs h | day days | week weeks | month months | Pa pascals
year years yr yrs | dollar dollars USD usd bucks | cent cents | euro euros | degree degrees deg ° | radian radians rad
unit units | Hz hertz | kHz | MHz | N newton newtons | J joule joules | W watt watts | kW | V volt volts | K kelvin
C celsius Celsius | F fahrenheit Fahrenheit | mol moles | M | eV | kcal | cal calories | erg ergs | A amps | mph | rpm
ways | people | students | points point | square sq | cubic | percent
""".replace("\n", "|").split("|") for alias in line.split()}  # fmt: skip
# Outside \text{...} one letter is a variable (2s, 5m), and so are a few longer names.
_BARE_UNITS = {unit for unit in UNITS if len(unit) > 1 and unit not in ("min", "ms", "pc", "sq", "in")}
_UNIT_AT_END = re.compile(r"(?:/|\*|\\cdot|(?<=[\s»])per(?![a-z])|«per»)? ?"
                          r"(?:«(?P<word>[^«»]*)»|(?P<bare>° ?[CF](?![A-Za-z])|°|(?<![A-Za-z\\_{])[A-Za-z]{2,})) ?"
                          r"(?:\^ ?\{? ?(?P<power>-?\d) ?\}?)?$")  # fmt: skip
_TRIGONOMETRY = re.compile(r"sin|cos|tan|cot|sec|csc")


def split_unit(text, trusted=False):
    """(text without its unit, unit). Words not in the table are only taken off a trusted text: a gold answer."""
    rest, unit = text, []
    while len(unit) < 5 and (match := _UNIT_AT_END.search(rest, max(0, len(rest) - 40))):
        word, bare, power = match["word"], match["bare"], match["power"]
        known = word in UNITS or trusted if word else bare[0] == "°" or bare in _BARE_UNITS
        if not known or word in ("percent", *SCALES) or bare in ("percent", *SCALES):
            break
        if bare == "°" and _TRIGONOMETRY.search(rest):  # \sin 20° is another number than \sin 20
            break
        name = word or bare.replace(" ", "").lstrip("°") or "°"
        unit.append(UNITS.get(name, name) + (f"^{power}" if power else ""))
        rest = rest[: match.start()].rstrip()
    if not unit or not re.search(r"[\d)}\]A-Za-z%»]$", rest):
        return text, ()
    for word, power in (("square", "^2"), ("cubic", "^3")):
        if word in unit:  # square inches = inches^2
            unit = [name + power for name in unit if name != word]
    return rest, tuple(sorted(unit))


# ------------------------------------------------------------------------------------------------------------ cleaning
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal|sf|tt|sc|up)?|math(?:rm|bf|it|sf|tt)|[mh]box|bf|rm|bold|boldsymbol"
                   r"|operatorname\*?|emph|ensuremath) ?\{([^{}]*)\}")  # fmt: skip
_WORD = re.compile(r"([A-Za-z][A-Za-z'-]*[A-Za-z])\.?")
_SPACES = re.compile(r"(?<!\d) +| +(?!\d)")
_LONE_LETTER = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])")


def _words(match):
    r"""\text{June 20} -> «June» 20: words keep a mark, everything else inside a text wrapper is ordinary notation.
    One letter after a number (5\text{ m}) is a unit, elsewhere (\text{E}, \mathrm{i}) the letter itself."""
    inside, before = match[1], match.string[: match.start()].rstrip(" \\,;!~")
    if before and before[-1] in "0123456789})°/":
        inside = _LONE_LETTER.sub(lambda m: f"«{m[0]}»" if m[0] in UNITS else m[0], inside)
    return " " + _WORD.sub(lambda m: f"«{m[1]}»", inside) + " "


_REWRITES = [(re.compile(pattern), new) for pattern, new in [
    (r"\\(?:left|right) ?\.", ""),
    (r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|limits|mathop|strut)(?![A-Za-z])", " "),
    (r"(?<=\d)(?:,\\!|\{,\}|\\,|,\\,) ?(?=\d{3}(?!\d))", ""),  # 10,\!080   10{,}080   10\,080
    (r"\\phantom ?(?:\{[^{}]*\}|[-+\w])|\\hspace\*?\{[^{}]*\}|\\(?:label|tag)\{[^{}]*\}", " "),
    (r"\\!|\\boxed(?= ?\{)", ""),
    (r"\\[,;:> ]|\\(?:quad|qquad|space|thinspace|enspace)(?![A-Za-z])", " "),
    (r"\\[()\[\]]|\\?\$|\\(?:euro|pounds|textdollar)(?![A-Za-z])", " "),
    (r"\^ ?(?:\\circ|\{ ?\\circ ?\})|\\degree(?![A-Za-z])", "°"),
    (r"\^ ?(?:\{ ?)?((?:\\prime ?)+)\}?", lambda m: "'" * m[1].count("prime")),
    (r"(?<=\d) ?''", " «arcsec» "), (r"(?<=\d) ?'", " «arcmin» "),
    (r"«(?:and|or)»|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:lor|land|vee|wedge)(?![A-Za-z])", ","),
    (r",(?: *,)+", ","),
    (r"\*\*", "^"), (r"<=|\\(?:leq?|leqslant)(?![A-Za-z])", "≤"), (r">=|\\(?:geq?|geqslant)(?![A-Za-z])", "≥"),
    (r"!=|\\(?:neq?|not ?=)(?![A-Za-z])", "≠"), (r"\\lt(?![A-Za-z])", "<"), (r"\\gt(?![A-Za-z])", ">"),
    (r"(?<=[)\]]) ?[uU] ?(?=[(\[])", r"\\cup "), (r"\\%", "%"),
    (r"\\mathbb ?\{?R\}?|\\R(?![A-Za-z])", r"(-\\infty,\\infty)"),
]]  # fmt: skip


_SIMPLE = re.compile(r"(?:[0-9+\-/=(){}. ^]|(?<![A-Za-z])[A-TV-Za-tv-z](?![A-Za-z])"
                     r"|\\(?:frac|sqrt|pi|cdot)(?![A-Za-z]))*")  # fmt: skip


def clean(text):
    """One spelling for each thing; the rules above, in their order, after the characters and the text wrappers."""
    if _SIMPLE.fullmatch(text):  # most answers: no rule applies
        return text.strip() if text.endswith("..") else text.strip(" ").rstrip(" .")
    if not text.isascii():
        text = to_ascii(text)
    text = re.sub(r"[\s~]+", " ", re.sub(r"[\x00-\x08\x0e-\x1f\x7f]", "", text)).strip()
    for _ in range(3):  # \textbf{\text{...}}
        text, wrappers = _TEXT.subn(_words, text)
        if not wrappers:
            break
    text = text.replace(r"\\", "¶")  # the end of a matrix row, so that no rule mistakes its second half for a command
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    text = re.sub(" +", " ", text).strip()
    return text if text.endswith("..") else text.rstrip(" .,;:")


def squash(cleaned):
    """The string that two spellings share; spaces go, except between digits ("2 10" is not 210)."""
    text = cleaned.replace("«", "").replace("»", "").replace("dfrac", "frac").replace("tfrac", "frac")
    return _SPACES.sub("", text) if " " in text else text


_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])|(?<![\d.,])\d{1,3}(?: \d{3})+(?! ?\d)")


def spellings(text, trusted):
    """(text, unit) pairs to read: without the unit; 10,080 as a number and, unless a group starts with 0, as a list."""
    found = [split_unit(text), split_unit(text.removeprefix(r"\approx"), True)] if trusted else [split_unit(text)]
    if trusted and text.endswith("%"):
        found.append((text[:-1], ()))
    for spelling, unit in dict.fromkeys(found):
        merged = spelling
        if not re.search(r"[(\[]|\\\{", spelling):
            merged = _THOUSANDS.sub(lambda m: re.sub("[, ]", "", m[0]), spelling)
        yield merged, unit
        if merged != spelling and not re.search(",0\\d", spelling):
            yield spelling, unit


# -------------------------------------------------------------------------------------------------------------- tokens
class Unreadable(ValueError):
    """The text is not an answer this grammar knows; it can still be equal as a string."""


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


class Tokens:
    """A text as a list of tokens with a reading position."""

    def __init__(self, text):
        self.tokens, self.at = [match["t"] for match in _TOKEN.finditer(text) if match["t"]], 0

    def peek(self, ahead=0):
        return self.tokens[self.at + ahead] if 0 <= self.at + ahead < len(self.tokens) else None

    def take(self, *wanted):
        token = self.peek()
        if token is None or (wanted and token not in wanted):
            raise Unreadable(f"expected {wanted or 'more'}, found {token!r}")
        self.at += 1
        return token

    def accept(self, *wanted):
        return self.take() if self.peek() in wanted else None

    def raw(self):
        """The text of one argument that is a name, not an expression: the max of m_{max}."""
        start, level = self.at, 0
        while True:
            token = self.take()
            level += (token == "{") - (token == "}")
            if level <= 0:
                return "".join(self.tokens[start : self.at]).strip("{}").replace("«", "").replace("»", "")

    def chain(self, kind, separators, below):
        """below separator below ...: one tree of that kind, or the only one."""
        parts = [below()]
        while self.accept(*separators):
            parts.append(below())
        return parts[0] if len(parts) == 1 else (kind, *parts)
