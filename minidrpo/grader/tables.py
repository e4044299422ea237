r"""tables.py - the names that answers use: characters, units, functions, relations, brackets. No rules, only tables."""

import unicodedata

# ---------------------------------------------------------------------------------- characters and units (spelling.py)
GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega"
).split()
SYMBOLS = str.maketrans({
    "π": r"\pi ", "∞": r"\infty ", "√": " sqrt ", "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "⁄": "/", "∕": "/",
    "−": "-", "–": "-", "—": "-", "±": r"\pm ", "∓": r"\mp ", "≤": "<=", "⩽": "<=", "≥": ">=", "⩾": ">=", "≠": r"\ne ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "′": "'", "″": "''", "’": "'",
    "“": "", "”": "", "⟨": r"\langle ", "⟩": r"\rangle ", "∑": r"\sum ", "∫": r"\int ", "€": r"\euro ",
    "£": r"\pounds ", "¥": r"\yen ", "¢": r"\cent ", "«": " ", "»": " ", "¶": " ", "∠": r"\angle ", "º": "°",
    "∧": r"\land ", "∨": r"\lor ", "≡": r"\equiv ", "≈": r"\approx ", "∼": r"\sim ",
    "\u2062": "*", "\u2063": ",", "\u2064": "+",  # invisible times, comma and plus
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    **{unicodedata.lookup(f"GREEK {case} LETTER {name.upper().replace('LAMBDA', 'LAMDA')}"): f"\\{spelt} "
       for name in GREEK for case, spelt in (("SMALL", name), ("CAPITAL", name.capitalize()))},
})  # fmt: skip
SCRIPTS = {"<super>": "^", "<sub>": "_"}  # by unicode's decomposition
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "percent": -2}  # powers of 10
UNITS = {alias: line.split()[0] for line in """
cm centimeter centimeters centimetre centimetres | mm millimeter millimeters millimetres | nm | ms | AU | pc | arcsec
km kilometer kilometers kilometre kilometres | m meter meters metre metres | inch inches in | ft foot feet | arcmin
mile miles mi | yard yards yd | kg kilogram kilograms | g gram grams | mg milligrams | lb lbs | kJ
ounce ounces oz | ton tons | L liter liters litres l | mL ml milliliters | gallon gallons | cup cups | acre acres
s sec second seconds | minute minutes min mins | hour hours hr hrs h | day days | week weeks | month months | Pa pascals
year years yr yrs | dollar dollars USD usd bucks textdollar | cent cents | degree degrees deg ° | radian radians rad
unit units | Hz hertz | kHz | MHz | N newton newtons | J joule joules | W watt watts | kW | V volt volts | K kelvin
C celsius Celsius | F fahrenheit Fahrenheit | mol moles | M | eV | kcal | cal calories | erg ergs | A amps | mph | rpm
euro euros EUR | pound pounds GBP | yen | ways | people | students | points point | square sq | cubic | percent
""".replace("\n", "|").split("|") for alias in line.split()}  # fmt: skip

# ------------------------------------------------------------------------------------------------ notation (grammar.py)
WORDS = {"yes", "no", "odd", "even", "true", "none", "all", "one", "two", "six", "ten", "red", "am", "pm", "nan"}
NAMES = (
    set(GREEK)
    | {name.capitalize() for name in GREEK}
    | set("varepsilon vartheta varphi hbar ell mho odot aleph partial nabla max min star".split())
)
FUNCTIONS = set(
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth ln log lg exp sqrt floor ceil abs gcd lcm "
    "max min arg Re Im asin acos atan cbrt".split()
)
ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log10"}
CONSTANTS = {r"\pi": "pi", "pi": "pi", r"\infty": "oo", "infinity": "oo", "inf": "oo", "e": "e", "i": "i"}
CONSTANTS = {name: ("const", value) for name, value in CONSTANTS.items()}
CONSTANTS |= {r"\emptyset": ("set",), r"\varnothing": ("set",)}
RELATIONS = {"=": "=", "<": "<", ">": ">", "≤": "<=", "≥": ">=", "≠": "!=", r"\in": "in", r"\equiv": "=", r"\to": "->",
             r"\approx": "~", r"\sim": "~"}  # fmt: skip
INEQUALITIES = {"<", ">", "<=", ">=", "!="}
TIMES, OVER, LIST = ("*", r"\cdot", r"\times"), ("/", r"\div"), (",", ";", "∧", "∨")
SIGNS = ("+", "-", r"\pm", r"\mp")
DOT_ENDS = (None, ")", "]", r"\}", "}", r"\overline", r"\bar", "°", *LIST)  # what may follow "3."
ITEM_ENDS = (None, ")", "]", r"\}", *LIST, *SIGNS)
NO_FACTOR = {")", "]", "}", r"\}", r"\rangle", r"\rbrace", "|", r"\rvert", r"\vert", r"\mid", r"\rfloor",
             r"\rceil", "&", "¶", r"\end", ":", r"\cup", r"\cap", r"\choose", "^", "_", "!", "'", "%",
             r"\pmod", r"\bmod", *TIMES, *OVER, *LIST, *SIGNS, *RELATIONS}  # fmt: skip
FRACTIONS = (r"\frac", r"\dfrac", r"\tfrac", r"\cfrac")
ACCENTS = set(
    r"\hat \vec \bar \dot \ddot \tilde \overline \widehat \mathcal \mathbb \mathfrak \angle \triangle "
    r"\overrightarrow \underline".split()
)
PAIRS = {"|": ("abs", "|"), r"\lvert": ("abs", r"\rvert"), r"\vert": ("abs", r"\vert"), r"\mid": ("abs", r"\mid"),
         r"\lfloor": ("floor", r"\rfloor"), r"\lceil": ("ceil", r"\rceil"), r"\{": ("set", r"\}"),
         r"\lbrace": ("set", r"\rbrace"), r"\langle": ("tuple", r"\rangle")}  # fmt: skip
MATRICES = ("pmatrix", "bmatrix", "matrix", "Bmatrix", "smallmatrix", "array", "vmatrix")
