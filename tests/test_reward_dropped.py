r"""What reading leaves out must be able to make an answer wrong.

spelling.py and grammar.py drop text in many places: units, currency, brackets, names, a modulus. Each row holds one
place: a truth, answers that say the same, and answers that differ only in the part that is dropped.
"""

import pytest

import reward

FAR = "".join(f"(n-{k})" for k in range(2, 91))  # 0 at each whole number from 2 to 90
ROWS = [
    # place, truth, same, changed
    ("modulus", r"x \equiv 3 \pmod{7}",
     [r"x \equiv 3 \pmod 7", r"x = 3 (mod 7)", r"x ≡ 3 (mod 7)", r"3 \pmod{7}", r"x \equiv 10 \pmod 7", "3 mod 7",
      r"x \equiv 3 \text{ (mod } 7)", r"x\equiv3\mod 7", r"x \equiv 3 \; (\text{mod } 7)"],
     [r"x \equiv 3 \pmod{8}", "x = 3 (mod 8)", r"3 \pmod{14}", r"x \equiv 4 \pmod 7", "x = 3", "3", "10",
      r"y \equiv 3 \pmod 7", r"x \equiv 3 \bmod 8", r"x \equiv 3 \pmod n", "3 mod 8"]),
    ("modulus of a list", r"x \equiv 1, 3 \pmod 8", [r"x \equiv 3, 1 \pmod 8", r"1, 3 \pmod 8",
     r"x \equiv 1 \pmod 8 \text{ or } x \equiv 3 \pmod 8"], [r"x \equiv 1, 3 \pmod 9", r"x \equiv 1, 3",
     r"x \equiv 1 \pmod 4, x \equiv 3 \pmod 8"]),
    ("modulus of two residues", r"n \equiv \pm 1 \pmod 6",
     [r"n \equiv 1, 5 \pmod 6", r"n \equiv 5 \text{ or } 1 \pmod 6"],
     [r"n \equiv 1, 5 \pmod 8", r"n = \pm 1", r"n \equiv 1 \pmod 6"]),
    ("modulus, the truth has none", "3", [r"10 \bmod 7", r"3 \bmod 7"],
     [r"3 \pmod 7", "3 (mod 7)", r"3 \pmod{8}", r"10 \pmod 7", r"4 \pmod 7", r"x \equiv 3 \pmod 7", r"4 \bmod 7"]),
    ("a number beside a class", r"3 \pmod 7", [r"3 \bmod 7", r"10 \bmod 7"], [r"3 \bmod 8", r"4 \bmod 7", "3"]),
    ("what vanishes at all small whole numbers", r"\binom{n}{2}",
     [r"\frac{n!}{2(n-2)!}", r"\frac{n(n-1)}{2}"],
     [r"\binom{n}{2}+\binom{n}{91}", r"\binom{n}{2}+\lfloor\frac{n}{91}\rfloor", r"\frac{n(n-1)}{2}+n!" + FAR]),
    ("what vanishes, beside a factorial", "n!", ["n(n-1)!", r"\prod_{k=1}^{n} k"],
     ["n!+n!" + FAR, r"n!(1+\lfloor\frac{n}{400}\rfloor)"]),
    ("what vanishes where the answer is too large", "n^2", [r"n\frac{n!}{(n-1)!}"], ["n^2+n!" + FAR]),
    ("what vanishes, beside a power", "(-1)^n", ["(-1)^{n+2}"], [r"(-1)^n+\lfloor\frac{n}{400}\rfloor"]),
    ("modulus, the truth is a solution", "x = 3", [], [r"x \equiv 3 \pmod 7"]),
    ("order of a union", r"(-\infty,1)\cup(2,3)", [r"(2,3)\cup(-\infty,1)", r"x \in (2,3) \cup (-\infty,1)",
     r"x < 1 \text{ or } 2 < x < 3"], [r"(2,3]\cup(-\infty,1)", r"(2,3)\cup(-\infty,1]", r"(2,3)\cup(\infty,1)",
     r"(2,3)\cup(-\infty,1)\cup(5,6)", r"(2,3)"]),
    ("infinite ends", r"(-\infty,-1]\cup[1,\infty)", [r"[1,\infty)\cup(-\infty,-1]", r"[1,+\infty) \cup (-\infty,-1]"],
     [r"(-\infty,1]\cup[-1,\infty)", r"[1,\infty)\cup(-\infty,-1)"]),
    ("points in a union", r"\{-5\}\cup[1,\infty)\cup\{0, 1/2\}",
     [r"[1,\infty)\cup\{0\}\cup\{-5\}\cup\{0.5\}", r"\{0.5,-5,0\}\cup[1,\infty)"],
     [r"\{0\}\cup\{-5\}\cup[1,\infty)", r"[1,\infty)\cup\{0\}\cup\{5\}\cup\{0.5\}"]),
    ("a union of points", r"\{1\}\cup\{2,3\}", [r"\{3,2,1\}", r"\{2\}\cup\{3\}\cup\{1\}"], [r"\{1,2\}"]),
    ("the braces of a point", r"[1,2]\cup\{3\}", [r"\{3\}\cup[1,2]"], [r"[1,2]\cup(3)", r"[1,2]\cup 3", r"[1,2], 3"]),
    ("a point beside an inequality", r"\{3\}\cup(-\infty,1]", [r"x \le 1 \text{ or } x = 3"], [r"x \le 1, x = 4"]),
    ("and, or", r"x < 1 \text{ or } x > 3", [r"x > 3 \text{ or } x < 1", r"x<1 \lor x>3"],
     [r"x < 1 \text{ and } x > 3", r"x<1 \land x>3"]),
    ("and", "1 < x < 3", [r"x > 1 \text{ and } x < 3", r"x < 3 \land 1 < x"],
     [r"x > 1 \text{ or } x < 3", r"y > 1 \text{ and } y < 3"]),
    ("and, or between variables", r"x > 1 \text{ and } y < 3", ["y < 3 and x > 1", "x>1, y<3"],
     ["x > 1 or y < 3", "y > 1 and x < 3"]),
    ("the variable of an interval", "x < 1", [r"x \in (-\infty,1)", r"(-\infty,1)"],
     [r"y \in (-\infty,1)", "y < 1"]),
    ("the variable of a double inequality", "0 < x < 1", [r"1 > x > 0", r"0 < x < \frac22", "(0,1)"],
     ["0 < y < 1", r"0 < x \le 1"]),
    ("variables of a union", r"(-\infty,1)\cup(3,\infty)", ["x<1 or x>3"], ["x<1 or y>3"]),
    ("the relation", r"\{5\}", [r"x \in \{5\}", "x=5"], [r"x > 5", r"x \notin \{5\}"]),
    ("member of a number", "5", ["x = 5"], [r"x \in 5"]),
    ("the name's argument", "f(3)=5", ["f(3) = 5.0", "5"], ["f(4)=5", "f(3)=6", "g(3)=5"]),
    ("the name", "x=5", ["5", "x = 5"], ["y=5", "x_1=5"]),
    ("the element of a set", r"\{x \mid x < 5\}", [r"(-\infty,5)", r"\{x \in \mathbb{R} | x<5\}"],
     [r"\{x^2 \mid x < 5\}", r"\{x \in \mathbb{Z} | x<5\}", r"\{x | y<5\}", r"\{(x,y) | x<5\}"]),
    ("the element of a family", r"\{2k \mid k \in \mathbb{Z}\}", [r"\{2 k | k \in \mathbb{Z}\}"],
     [r"\{3k \mid k \in \mathbb{Z}\}", r"\mathbb{Z}", r"\{2k \mid k \in \mathbb{N}\}"]),
    ("nested sets", r"\{\{1,2\},3\}", [r"\{3,\{2,1\}\}"], [r"\{1,\{2,3\}\}", "1,2,3", r"\{1,2,3\}"]),
    ("sets in a list", r"\{1,2\},\{3\}", [r"\{3\},\{2,1\}"], [r"\{1\},\{2,3\}", "1,2,3"]),
    ("empty cells", r"\begin{pmatrix}1&2\end{pmatrix}", [r"\begin{bmatrix}1&2\end{bmatrix}"],
     [r"\begin{pmatrix}1&&2\end{pmatrix}", r"\begin{pmatrix}1 2\end{pmatrix}", r"\begin{pmatrix}1&2&\end{pmatrix}",
      r"\begin{pmatrix}12\end{pmatrix}"]),
    ("empty rows", r"\begin{pmatrix}1\\2\end{pmatrix}", [r"\begin{pmatrix}1\\2\\\end{pmatrix}"],
     [r"\begin{pmatrix}1\\\\2\end{pmatrix}"]),
    ("empty items", "1,2", ["1, 2", "1, and 2", "1 and 2"], ["1,,2", ",1,2", "1, ,2"]),
    ("currency", r"\$36", ["36", "$36", "36 dollars", r"\text{\$}36", r"\$ 36.00"],
     [r"\pounds 36", "£36", "€36", "36 euros", "36 cents", "36¢", r"\euro 36", "¥36"]),
    ("currency, others", "36 euros", ["€36", "36€", r"\euro 36"], [r"\$36", "$36", "£36"]),
    ("currency in a list", r"\$5, \$6", ["5, 6", r"\$6 \text{ and } \$5"], ["€5, €6", r"\$5, €6"]),
    ("per", r"10\text{ m/s}", ["10", r"10\ \mathrm{m}/\mathrm{s}", r"10\text{ m}\text{ s}^{-1}",
     r"10\text{ meters per second}"], [r"10\text{ m s}", r"10\text{ s/m}", r"10\text{ m}\cdot\text{s}",
      r"10\text{ m/s}^2"]),
    ("square", r"3\text{ square meters per second}", ["3", r"3\text{ m}^2/\text{s}"],
     [r"3\text{ meters per square second}", r"3\text{ square meters}", r"3\text{ cubic meters per second}"]),
    ("the first unit of a list", "5 km, 6 km", ["5, 6", "6 km, 5 km"], ["5 cm, 6 km", "5 km, 6 cm", "5 cm, 6 cm"]),
    ("units inside brackets", r"(5\text{ cm}, 6\text{ cm})", ["(5,6)"],
     [r"(5\text{ km}, 6\text{ km})", r"(5\text{ cm}, 6\text{ km})"]),
    ("units of a sum", "8 km", ["5 km + 3 km"], ["5 cm + 3 km"]),
    ("units of a product", "15 cm", [r"5 \cdot 3\text{ cm}"], [r"5\text{ cm} \cdot 3\text{ cm}"]),
    ("the power of a unit", "15 cm^2", ["15"], ["15 cm", "15 cm^3"]),
    ("units in brackets", "15 cm", ["(15 cm)"], ["(5 cm)(3 cm)"]),
    ("currency and per", r"\$5", ["5 dollars"], ["5 dollars per hour", r"\$5/\text{hour}"]),
    ("hours", "1 minute, 30 minutes", ["1, 30"], ["1 hour, 30 minutes"]),
    ("degrees of a radian measure", r"\frac{\pi}{3}", [r"\frac{\pi}{3}\text{ rad}", "π/3"],
     [r"\frac{\pi}{3}^\circ", r"\frac{\pi}{3}\text{ degrees}", "(π/3)°"]),
    ("scale of degrees", "20°C", ["20", r"20^\circ\text{C}"], ["20°F", "20 K"]),
    ("degrees in a list", r"60^\circ, 90^\circ", ["60, 90", "90°, 60°"], [r"60^\circ, 90\text{ km}"]),
    ("percent", "0.05", ["5%", "5 percent"], ["5", r"0.05\%"]),
    ("percent of the truth", r"12\%", ["12", "0.12", "12 percent"], [r"\$12", r"12\text{ cm}", "12°"]),
    ("half of the day", r"7:30\text{ am}", ["7:30 am"], [r"7:30\text{ pm}", "7:30"]),
    ("percent of a whole number", "5", [], [r"5\%", r"5\text{ percent}", "5‰"]),
    ("separators of thousands", "1234", ["1,234", "1 234", r"1\,234", "1{,}234"], ["1, 234", r"(1,\,234)", "1,2,34"]),
    ("a comma after zero", "123", ["123"], ["0,123", "0 123"]),
    ("coordinates", "(1,234)", [r"(1,\,234)", "(1, 234)"], ["1234", "(1234)"]),
    ("approximately", "42", ["x = 42"],
     ["~42", "≈42", r"\approx 42", "x ≈ 42", r"\sim 42", "about 42", "x = ~42", "∼42"]),
    ("superscripts", "2^x", ["2ˣ", "2^{x}"], ["2x"]),
    ("superscripts that are letters", "2x", ["2·x"], ["2ˣ", "2ₓ"]),
    ("runs of scripts", r"a_{12}\pi", ["a₁₂π"], ["a_{1}^{2}π", "a₁²π"]),
    ("scripts beside symbols", r"\sum_{k=1}^{3} k\pi", ["6π", r"\sum_{k=1}^{3} kπ"], ["3π"]),
    ("invisible operators", "42", ["4\u200b2"], ["4\u20622", "4\u20632", "4\u20642"]),
    ("a recurring digit", "0", ["0.0"], [r"0.\bar{3}", r"0.\dot{3}", r"0.\overline{3}"]),
    ("recurring digits", r"\frac13", [r"0.\bar{3}", r"0.\overline{3}"], ["0.3", r"0.\bar{4}"]),
    ("scripts written twice", r"\log_2 8", ["3"], [r"\log_3_2 8"]),
    ("limits written twice", r"\sum_{k=1}^{3} k", ["6"], [r"\sum_{k=0}_{k=1}^{3} k"]),
    ("the base of a logarithm", r"\log_2 3", [r"\frac{\ln 3}{\ln 2}"], [r"\log_5 3", r"\log 3"]),
    ("the base of a numeral", "52_8", ["52_{8}"], ["52_9", "52", "5 2_8"]),
    ("a subscript", "x_1", ["x_{1}"], ["x_2", "x"]),
    ("a subscript in two parts", "x_{12}", ["x_{12}"], ["x_{1 2}", "x_{1,2}"]),
    ("accents", r"\vec{v}", [r"\vec v"], [r"\hat{v}", "v"]),
    ("capital letters", "abc", ["cba"], ["ABC", "Abc"]),
    ("capital letters of words", r"\text{Evelyn}", ["EVELYN", "evelyn"], ["Evelin"]),
    ("braces between digits", "6", [r"2 \cdot 3"], ["2{3}", "{2}{3}", r"\boxed{2}\boxed{3}", r"2\text{3}"]),
    ("tags", "5", [r"5\tag{1}", r"5\label{eq}", r"5\phantom{7}", r"\phantom{-}5", r"\hspace{2cm}5"],
     [r"5\tag{or 6}", r"-5\phantom{7}", r"5\tag{mod 7}"]),
    ("words before", "42", [], ["not 42", r"\text{not } 42", "at least 42", "minus 42", r"\text{less than }42"]),
    ("words after", "42", [], [r"42\text{ or more}", r"42\text{ is wrong}", r"42\text{ million}", "42 apples"]),
    ("conditions", "x+1", [], ["x+1, x>0", r"x+1 \text{ if } x>0", r"x+1 \quad (x>0)"]),
    ("a wide space", "ab", ["a b"], [r"a \quad b", r"a \qquad b"]),
    ("bars", "5", ["|5|"], ["5|", r"\left.5\right|_0^1"]),
    ("strokes", "5", [], [r"\cancel{5}", "5\u0338", r"\sout{5}"]),
    ("transposed", r"\begin{pmatrix}1&2\end{pmatrix}", [], [r"\begin{pmatrix}1&2\end{pmatrix}^T",
     r"2\begin{pmatrix}1&2\end{pmatrix}", r"-\begin{pmatrix}1&2\end{pmatrix}", r"|\begin{matrix}1&2\end{matrix}|"]),
    ("what is undecided in one order", r"9^{9^{9^9}}, 1", [r"1, 9^{9^{9^9}}"], [r"1, 9^{9^{9^8}}"]),
    ("half open", "(0,1]", [r"0 < x \le 1"], ["(0,1)", "[0,1]", r"0 \le x \le 1"]),
    ("approximately, of what is no decimal", r"\frac12", ["1/2"], [r"~\frac12", "~1/2", r"x = ~\frac12"]),
    ("approximately, of a variable", "5x", [], ["~5x", "~ 5x"]),
    ("a dot without decimals", "-7", ["-7.", "-7.0"], ["0.-7"]),
    ("a dot before a fraction", r"\frac12", [r"0\frac12"], [r"0.\frac12"]),
    ("dots of a list", "3,4", ["3., 4."], ["3.4"]),
    ("one bracket of a numeral", "52_8", ["(52)_8", "(52)_{8}"], ["(52_8", "52)_8", "52_{8"]),
    ("modulus of a fraction", r"\frac12", [], [r"\frac12 \pmod 7", r"\frac12 \bmod 7 \pmod 7"]),
    ("modulus of a coordinate", "(2,12)", [], [r"(2 \pmod 7, 12)", r"(2, 12 \pmod{13})"]),
    ("modulus of an end", "[2,12)", [], [r"[2 \pmod 7, 12)"]),
    ("a condition inside braces", "5", [], [r"\{7 \mid 5\}", r"\{5 \mid 7\}", r"\{5 : 7\}"]),
    ("what a floor takes away", "2", [r"\lfloor 3-10^{-30}\rfloor", r"\lfloor \sqrt{9}-10^{-40}\rfloor"],
     [r"\lfloor \sqrt{9}\rfloor", r"\lfloor 3+10^{-30}\rfloor"]),
    ("what a floor does not take away", "3", [r"\lfloor \sqrt{9}\rfloor", r"\lfloor \sqrt{3}\cdot\sqrt{3}\rfloor"],
     [r"\lfloor 3-10^{-30}\rfloor", r"\lfloor \sqrt{9}-10^{-400}\rfloor", r"\lceil 3+10^{-300}\rceil"]),
    ("what vanishes at small whole numbers", "n", [r"\frac{n!}{(n-1)!}", r"\sum_{k=1}^{n} 1"],
     [r"n+\binom{n}{2}" + "".join(f"(n-{k})" for k in range(2, 14)), r"n+\prod_{k=2}^{300}(n-k)",
      r"n+2^{2^n}\prod_{k=2}^{300}(n-k)"]),
    ("and of two variables", "a+b", [r"a+b+\prod_{k=0}^{3} 0"], [r"a+b+\prod_{k=0}^{40}(a-k)"]),
    ("a remainder of text", "5", [], ["5 6", "5;6", "5=6", "5:6", "5 x", "5 \\cap 6"]),
]  # fmt: skip


@pytest.mark.parametrize("place, truth, same, changed", ROWS, ids=[row[0] for row in ROWS])
def test_what_is_dropped_can_make_an_answer_wrong(place, truth, same, changed):
    assert [answer for answer in [truth, *same] if not reward.same_answer(answer, truth)] == []
    assert [answer for answer in changed if reward.same_answer(answer, truth)] == []


MEANINGFUL = [  # parts that change what is said, whatever stands before them
    r"\text{ or } 5", ", 5", "; 5", r"\pm 1", " + C", r"+ 2\pi k", r"^{-1}", "_2", r"\%", "‰", "!", "i", "e", "x",
    r"\pi",
    r"\times 10^{3}", r"\text{ million}", r"\text{ dozen}", r"\text{ if } x>0", r", x \neq 2", r" (x \neq 2)",
    r", n \in \mathbb{Z}", r"\cup [7,8)", r"\cup \{99\}", r"\setminus \{2\}", r"\text{ and } 7", "...", r"\ldots", "?",
    r"\approx 3", "=7", "<7", r"\le 7", "(7)", "/7", "-7", "*7", r"\sqrt2", " 7", ":7", r"\mid 7", r"\to \infty",
    r"\text{ not}", r"\overline{3}", r"\dot{3}", "e-3", "E5", r"\text{ remainder } 3", " R 3", r"^T", r"^{c}", r"\\ 7",
    r"\quad 7", r"\text{ am}", r"\text{ BC}", r"\text{ east}", r"\text{ less}", r"\text{ times}", "th", "k", "M",
    "\u0338", "²", "⁻¹", "½", "∞", "†", "*", "#", "&7", "~7", "^", "_",
]  # fmt: skip


@pytest.mark.parametrize(
    "truth", ["42", r"\frac{3}{2}", "(3,4)", "[0,7)", r"\{1,7\}", "a+2b", r"\sqrt{3}", "7,8", "y<2"]
)
def test_a_part_that_is_added_makes_an_answer_wrong(truth):
    assert [part for part in MEANINGFUL if reward.same_answer(truth + part, truth)] == []


def test_no_point_is_known_beforehand():
    """A polynomial that vanished at the five points where every pair with an x was once compared."""
    from minidrpo.grader.points import points

    pairs = [(("sym", "x"), ("add", ("sym", "x"), ("num", k))) for k in range(3)]
    drawn = {point["x"] for pair in pairs for point in points(*pair)}
    assert len(drawn) == 15
