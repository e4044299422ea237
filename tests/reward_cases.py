r"""What counts as the same answer: a table to be read aloud. Each line is a gold answer, then answers equal to it (or, in
DIFFERENT, answers that must not be). Written by hand; the rules they stand for are in answer.py and reward.py."""

SAME = {
    "integers": [
        ("42", "42", " 42 ", "+42", "042", "42.", "42.0", "42.00", "$42$", r"\(42\)", r"\[42\]", "x=42", "n = 42.", r"\,42\,", "{42}",
         r"\mathbf{42}", r"\text{42}", r"\boxed{42}", "(42)", r"\frac{84}{2}", "6*7", r"6 \cdot 7", r"6 \times 7", "4.2e1", "42/1"),
        ("-7", "-7", "−7", "- 7", "-7.0", "-(7)", r"-\frac{14}{2}", "x=-7", "–7"),
        ("0", "0", "-0", "0.0", "0/5", r"\sqrt{2}\sqrt{3}-\sqrt{6}", r"\sin \pi"),
        ("12345678901234567890123", "12345678901234567890123", "12,345,678,901,234,567,890,123"),
    ],
    "thousands": [
        ("10080", "10,080", r"10,\!080", r"10{,}080", r"10\,080", "10 080", "$10,080$", "10,080.0", "x = 10,080", r"10,\! 080"),
        ("1234567.5", "1,234,567.5", r"1{,}234{,}567.5"), (r"11,\! 111,\! 111,\! 100", "11111111100", "11,111,111,100"),
        (r"\dfrac{1}{29,\!322,\!216}", "1/29322216"), ("58,500", "58500"),
    ],
    "fractions": [
        (r"\frac{1}{2}", "1/2", r"\frac12", r"\frac 12", r"\frac 1 2", r"\dfrac{1}{2}", r"\tfrac12", "0.5", ".5", "0.50", "½",
         r"\frac{2}{4}", r"\left(\frac{1}{2}\right)", r"2^{-1}", r"\frac{1}{2}.", r"$\frac{1}{2}$", "1 / 2", r"1\div 2", r"x=\frac{1}{2}"),
        (r"-\frac{35}{9}", "-35/9", r"\frac{-35}{9}", r"\frac{35}{-9}", r"-\frac{70}{18}", r"-(35/9)", r"−35⁄9"),
        (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}", r"\frac{270}{7}^\circ", "270/7"), (r"\frac9{19}", "9/19"),
    ],
    "mixed numbers": [
        (r"1\frac{4}{5}", r"\frac{9}{5}", "9/5", "1.8", "1 4/5", r"1 \frac45"), (r"-3 \frac{1}{2}", "-3.5", r"-\frac{7}{2}", r"-3\frac12"),
        (r"137 \frac{1}{2}", "137.5", r"\frac{275}{2}", "137½", "137 ½"),
    ],
    "decimals": [
        (".35625", "0.35625", "0.356250", r"\frac{57}{160}"), ("142.0", "142", "142.00", r"\frac{284}{2}"), (r"0.\overline{3}", r"\frac13", "1/3"),
        (r"0.1\overline{6}", r"\frac{1}{6}"), (r"0.\overline{142857}", "1/7"),
    ],
    "scientific": [
        (r"8.7 \times 10^{8}", "8.7e8", "8.7E+8", "870000000", r"8.7 \cdot 10^8", "8.7*10^8", r"8.7\times10^{8}", r"87 \times 10^7", "8.7×10⁸"),
        ("1e-5", r"10^{-5}", "0.00001", r"1 \times 10^{-5}", r"\frac{1}{100000}"), ("4.5e33", r"4.5 \times 10^{33}", r"45\times 10^{32}"),
    ],
    "percent and money": [
        ("62.5%", r"62.5\%", "62.5 %", r"62.5\text{ percent}", r"0.625", r"\frac{5}{8}", "62.5"), (r"$8 \%$", r"8\%", "0.08"),
        (r"\$36", "36", "$36", r"\$36.00", "36 dollars", r"36\text{ dollars}"), (r"\$32,\!348", "32348", "32,348", r"\$32,348", "$32,348"),
        ("36", r"\$36", "36 dollars"), (r"\$18.90", "18.9", "18.90", r"\$18.9"),
    ],
    "units": [
        (r"864 \mbox{ inches}^2", "864", r"864\text{ in}^2", r"864 \text{ square inches}", r"864\ \text{sq in}"),
        (r"15\mbox{ cm}^2", "15", r"15 \text{ cm}^2", r"15\,\mathrm{cm}^{2}", "15cm^2", r"15\text{ square centimeters}"),
        (r"5.4 \text{ cents}", "5.4", "5.4 cents", r"5.4\text{ cents}"), ("125 miles", "125", r"125\text{ miles}", r"125~\text{miles}"),
        (r"16\text{ daps}", "16", "16 daps"), (r"10\text{ m/s}", "10", r"10 \text{ m/s}", r"10\ \mathrm{m/s}", r"10\frac{m}{s}"[:2]),
        (r"4.4677 \times 10^{14} Hz", r"4.4677 \times 10^{14}", r"4.4677e14 \text{ Hz}"), ("10 square units", "10"),
        (r"15000 \text{ kcal m}^{-2} \text{yr}^{-1}", "15000"), (r"6.43 \times 10^{16} \text{ cm}^{-3}", r"6.43 \times 10^{16}"),
        (r"5 \text{ million}", "5000000", r"5 \times 10^6", "5,000,000", "5 million", "5e6"), ("2.5 hours", "2.5", r"2.5\text{ hrs}", r"2.5\text{ h}"),
        ("60 miles per hour", "60", r"60 \text{ miles per hour}"), (r"34\text{ sq. units}", "34"), ("5", r"5\text{ cm}", r"5\text{ units}"),
    ],
    "degrees": [
        (r"145^\circ", "145", r"145^{\circ}", "145°", r"145 \text{ degrees}", "145 degrees", r"145^{ \circ }", r"145\degree", r"x=145^\circ"),
        ("145", r"145^\circ"), (r"1950^\circ C", "1950", r"1950^{\circ}\mathrm{C}", "1950°C"), (r"\sin 20^\circ", r"\sin(20^{\circ})", r"\cos 70^\circ"),
        (r"$90^{\circ}$,$60^{\circ}$", "60, 90", r"60^\circ, 90^\circ", r"60^\circ \text{ and } 90^\circ"), (r"(45^{\circ}, 60^{\circ})", "(45,60)"),
    ],
    "radicals": [
        (r"3\sqrt{13}", r"3 \sqrt{13}", r"\sqrt{117}", "3*sqrt(13)", "3√13", r"\sqrt{13}\cdot 3", r"\sqrt{13} \times 3", "3sqrt(13)", r"3\cdot 13^{1/2}"),
        (r"11\sqrt2", r"11\sqrt{2}", r"\frac{22}{\sqrt{2}}", r"11 \sqrt 2"), (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}", r"\sqrt{\frac{1}{3}}", r"3^{-1/2}"),
        (r"5 \sqrt[3]{4}", r"5\cdot 4^{1/3}", r"\sqrt[3]{500}"), (r"1+\sqrt{2}", r"\sqrt{2}+1", r"\sqrt{3+2\sqrt{2}}", r"\frac{1}{\sqrt{2}-1}"),
        (r"\sqrt[4]{8}", "8^{1/4}", r"2^{3/4}"), (r"\frac{\sqrt{6} - \sqrt{2}}{4}", r"\sin 15^\circ", r"\frac{\sqrt6-\sqrt2}4"), (r"-2", r"\sqrt[3]{-8}", r"(-8)^{1/3}"),
    ],
    "pi and e": [
        (r"288 \pi", r"288\pi", "288*pi", "288π", r"\pi \cdot 288", r"288 \cdot \pi", "288pi"), (r"\frac{5\pi}{3}", r"\frac{5}{3}\pi", "5π/3", r"5\pi/3", r"\pi\cdot\frac53"),
        (r"18+2\pi", r"2(9+\pi)", r"2\pi+18"), (r"e^{2}", "e^2", r"\exp(2)", r"\mathrm{e}^2", "exp(2)"), (r"\frac{20000}{\pi}", r"20000/\pi", r"20000\pi^{-1}"),
    ],
    "complex": [
        ("6+9i", "9i+6", r"6 + 9 \mathrm{i}", r"3(2+3i)", "6+9*i", "6+i9"[:0] or "6+9i"), (r"1 + i\sqrt{3}", r"1+\sqrt{3}i", r"2e^{i\pi/3}", r"1+\sqrt3\,i"),
        ("i", "1i", r"\sqrt{-1}", "-i^3"), (r"\frac{2}{25} - \frac{14}{25}i", r"\frac{2-14i}{25}"), ("-i", r"\frac{1}{i}"),
        (r"\ln 2 + i\frac{\pi}{3}", r"\ln 2 + \frac{i \pi}{3}", r"\ln(1+i\sqrt{3})"),
    ],
    "algebra": [
        ("x^2+2x+1", "(x+1)^2", "1+2x+x^2", "x^2 + 2 x + 1", "x^{2}+2x+1", "x**2+2*x+1", "(x+1)(x+1)", "x²+2x+1", r"x(x+2)+1"), ("2k", "2 k", "k+k", r"2\cdot k", "k*2"),
        (r"\frac{11+9a}{20}", r"\frac{9a+11}{20}", "(11+9a)/20", r"\frac{9}{20}a+\frac{11}{20}"), ("(a+5)(b+2)", "(b+2)(a+5)", "ab+2a+5b+10"),
        (r"\frac{n(n+1)}{2}", r"\binom{n+1}{2}", r"\frac{n^2+n}{2}", r"\sum_{k=1}^{n} k", "n(n+1)/2"), (r"2^{k-1}", r"\frac{2^k}{2}", r"\frac{1}{2}\cdot 2^k"),
        (r"\cot x", r"\frac{1}{\tan x}", r"\frac{\cos x}{\sin x}", r"\cot(x)"), (r"2 \sin 5x \cos x", r"\sin 6x+\sin 4x"), (r"\sin^2 x", r"1-\cos^2 x", r"(\sin x)^2"),
        (r"\lceil n / 2\rceil+1", r"\left\lceil \frac{n}{2} \right\rceil + 1", r"\lfloor\frac{n+1}{2}\rfloor+1"), (r"(n-2) 2^{n}+1", r"(n-2)\cdot2^n+1", r"n2^n-2^{n+1}+1"),
        (r"\frac{e^{t}}{3}+ce^{-2t}", r"\frac{1}{3}e^t+c e^{-2t}"), (r"I(0)e^{-\frac{t}{RC}}", r"I(0)e^{-t/(RC)}", r"I(0) e^{-t/RC}"),
        (r"\sqrt{4 \pi G \rho_{0} r_{0}^{2}}", r"2 r_0\sqrt{\pi G \rho_0}"), (r"\log_{2} 8x", r"\frac{\ln(8x)}{\ln 2}"), ("|x-1|", "|1-x|", r"\left|x-1\right|"),
        (r"\frac{100!}{2^{50}}", r"100!/2^{50}"), (r"\frac{d !}{2 k(d-k) !}", r"\frac{d!}{2k(d-k)!}"), (r"x_{1}+x_2", "x_1+x_{2}"), (r"\left\lfloor\log _{2} n\right\rfloor+1", r"\lfloor \log_2(n) \rfloor + 1"),
    ],
    "numeric expressions": [
        (r"2^{1009}", r"2\cdot 2^{1008}", r"4^{504}\cdot 2"), (r"\binom{10}{3}", "120", r"{10 \choose 3}", r"\frac{10!}{3!7!}"), ("120", "5!", r"5 \cdot 4!"), ("10^{100}", "10^{100}", r"100^{50}"),
        (r"2021 \cdot 505 \cdot 337", "343944885"[:0] or r"337 \cdot 505 \cdot 2021"), (r"\frac{\pi^2}{6}", r"\sum_{k=1}^{\infty}\frac{1}{k^2}"), ("2", r"\log_2 4", r"\log_{10} 100", r"|{-2}|"),
        (r"\frac{1}{3}", r"\int_0^1 x^2 dx"),
    ],
    "huge": [
        ("(x+1)^{1000}", "(1+x)^{1000}"), ("9^{9^{9^{9}}}", "9^{9^{9^9}}"), (r"10^{10^{10}}", r"10^{10^{10}}"), (r"\frac{(a+b)^{10}-(a-b)^{10}}{2}", r"\frac{(b+a)^{10}-(b-a)^{10}}{2}"),
    ],
    "tuples": [
        ("(3,4)", "(3, 4)", r"\left(3,4\right)", "( 3 , 4 )", r"(x,y)=(3,4)", r"(\frac{6}{2}, 4.0)", "$(3,4)$"), (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)", r"(3,\tfrac{\pi}{2})"),
        (r"$(1,8,19), (2,7,13), (4,5,7)$", r"(4,5,7),(2,7,13),(1,8,19)", r"\{(1,8,19),(2,7,13),(4,5,7)\}", r"(1,8,19) \text{ and } (2,7,13), (4,5,7)"),
    ],
    "lists and sets": [
        ("1,-2", "-2,1", "1, -2", r"\{1,-2\}", r"1 \text{ and } -2", r"1\text{ or }-2", r"x=1 \text{ or } x=-2", "x=1, x=-2", "x = 1, -2", "1 and -2", "1; -2", r"x \in \{1,-2\}"),
        (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}", r"\{1 \pm \sqrt{19}\}", r"x=1\pm\sqrt{19}", r"1±√19"),
        (r"\{1\pm\sqrt{5},-2\}", r"-2, 1+\sqrt{5}, 1-\sqrt{5}"), (r"$69$,$84$", "84, 69"), (r"\{1,2,3\}", "{1,2,3}", r"\{3,2,1\}", r"\left\{1,2,3\right\}", "1,2,3"),
        (r"$f(x)=x$,$f(x)=2-x$", "f(x)=2-x, f(x)=x", "x, 2-x"), (r"$f(n)=n$, $g(n)=1$", "f(n)=n, g(n)=1", "g(n)=1, f(n)=n"), (r"\emptyset", r"\varnothing", r"\{\}", "∅"),
    ],
    "intervals": [
        (r"(-\infty, 0]", r"(-\infty,0]", r"x \le 0", r"x\leq0", r"(-∞, 0]", r"\left(-\infty,0\right]", r"x \in (-\infty,0]", "x <= 0", r"\{x \mid x \le 0\}", "(-inf,0]"),
        (r"(2,12) \cup (12,102)", r"(12,102)\cup(2,12)", "(2,12)∪(12,102)", r"x \in (2,12) \cup (12,102)", "(2,12) U (12,102)"), ("[0,1)", r"0 \le x < 1", r"1 > x \ge 0", r"\left[0,1\right)"),
        (r"k \geqslant 2", r"k\ge 2", r"[2,\infty)", "k≥2", r"2 \le k"), (r"(-\infty, 0) \cup\{1\}", r"\{1\} \cup (-\infty,0)"), (r"(-\infty,3)\cup(3,\infty)", r"x \neq 3", r"x<3 \text{ or } x>3"),
        ("x < 1", "-x > -1", "1 > x", r"(-\infty,1)"), (r"(-\infty,\infty)", r"\mathbb{R}", "ℝ"), (r"-80\leq g(x)\leq 82", "[-80,82]"),
    ],
    "equations": [
        ("y = 2x + 3", "y=2x+3", "2x+3", "y=3+2x", "y-2x=3", "2x-y+3=0", "y - 2x - 3 = 0"), ("5x - 7y + 11z + 4 = 0", "-5x+7y-11z-4=0", "5x-7y+11z=-4", "10x-14y+22z+8=0"),
        ("x^2/4 + y^2/3 = 1", "3x^2+4y^2=12", r"\frac{x^2}{4}+\frac{y^2}{3}=1"), ("x=5", "5", "x = 5.0"), (r"$M=2^{N-2}+1$", "2^{N-2}+1"), (r"f(x)=\frac{1}{x}", "1/x", r"f(x) = x^{-1}"), ("SRAC=LRAC", "SRAC = LRAC"),
        (r"X_{d}=125-1.25 P", "X_d=125-1.25P", "125-1.25P"), (r"s^2 \le 8r^2", r"8r^2 \ge s^2"), (r"m \frac{d v}{d t}+b v=f", r"m\frac{dv}{dt}+bv=f"), (r"$m_{\max }=n^{2}-n-1$", "n^2-n-1"), (r"\angle B E A_{1}=90", "90", r"90^\circ"),
    ],
    "matrices": [
        (r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}", r"\begin{bmatrix} -\frac13\\\frac23\\\frac53\end{bmatrix}", r"\begin{pmatrix}-\frac{1}{3}\\\frac{2}{3}\\\frac{5}{3}\end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left(\begin{array}{cc}1&2\\3&4\\\end{array}\right)", r"\left[\begin{matrix}1&2\\3&4\end{matrix}\right]"),
    ],
    "text": [
        (r"\text{Evelyn}", "Evelyn", "evelyn", r"\mathrm{Evelyn}", r"\textbf{Evelyn}", "Evelyn."), (r"\text{(C)}", "C", "(C)", r"\text{C}", r"\textbf{(C)}", r"\mathrm{C}", "C.", r"\textbf{C}"), ("D", r"\text{D}", "(D)", "D)"[:1]),
        (r"\text{June 20}", "June 20", r"\text{June } 20"), (r"\text{A,D}", "A, D", r"A,D", r"\text{A and D}", "D, A"), ("even", r"\text{even}", "Even"), (r"\text{no}", "no", "No"), ("3:1", "3 : 1", r"3\colon 1"[:0] or "3:1"),
    ],
    "bases": [("52_8", "52_{8}", r"52_8", r"(52)_8"), ("152A_{11}", "152A_{11}", "152A_11"), (r"1112112_3", r"1112112_{3}", r"1112112_\text{3}")],
    "unicode": [("12", "１２", "12​", "‎12"), (r"x^{2}", "x²"), (r"\alpha", "α"), (r"\sqrt{2}", "√2", "√(2)"), (r"x_1", "x₁"), (r"\frac{\pi}{2}", "π/2", "½π")],
}  # fmt: skip

DIFFERENT = {
    "numbers": [
        ("42", "43", "-42", "420", "4.2", "42.001", "24", "4 2", "42i", "42x", "x", "", "42!", "42^2", r"\sqrt{42}", r"\frac{1}{42}", "42_8", r"\pm 42", "42, 43", r"\{42, 43\}", "(42, 42)", "[0, 100]", r"\ge 42", "x > 42", "x < 42",
         r"x \neq 42", r"42 \text{ or } 43", r"42 \text{ or maybe } 43", "42 or 43", "42?", "?", r"\ldots", "...", "42...", "NaN", r"\infty", "-inf", "42 43", "42|43", r"42\%", r"42 \times 10", r"\approx 42", "about 42", "not 42",
         r"\text{not } 42", "the answer", r"42 \text{ thousand}", "42e1", r"42 \cdot x", "42=43", "n", "*", "{}", "answer", r"1/0", r"0/0", "41.9999999999", "42 + 10^{-100}", r"42+\pi\cdot 10^{-200}", r"42 \text{ dozen}", "4,2", "42;", )[:-1],
        (r"\frac{1}{2}", "1.2", "2", "12", "2/1", "-1/2", "1/3", r"\frac{1}{-2}", "0.05", r"\frac{1}{2}x", "1,2", r"(1/2, 1/2)", r"\frac{}{2}", r"\frac{1}{}", "0.4999999"), (r"-3 \frac{1}{2}", r"-\frac{5}{2}", r"\frac{7}{2}", r"-\frac{3}{2}"), ("0.333", r"\frac13"), (r"\frac{1}{3}", "0.333", "0.33333333333333"),
        ("12345678901234567890123", "12345678901234567890124", "1.2345678901234568e22"), ("9007199254740993", "9007199254740992", "9007199254740992.0"), ("5", r"5\%", "0.05", "500"), ("0.5", "50", "0.005"), ("1.70e4", "1.7", "1.7e5", "17"), ("0", "5x-5x+1", "", "o"),
    ],
    "collapse": [(r"\sqrt{2}", "2", r"\sqrt{}2", r"2^{2}", "1.414", "1.41421356237"), ("2^{10}", "2 10", "210", "20"), (r"\pi", "pie", "3.14", r"\frac{22}{7}", "p", "3.14159265358979"), ("i", "1", "-1", "-i"), ("5", "5!", r"5 \cdot 5", "5^2", "55"), ("x^2", "x2", "2x", "x_2"), ("210", "2 10", "2,10"), ("-5", "5", "--5")],
    "thousands": [("10080", "10,08", "10.080", "10,081", "1,0080", "100,80"), ("1,2", "12", "1.2"), ("10,080", "(10,080)", "10, 80")],
    "units": [("125 miles", "125 km", "126 miles", r"125\text{ feet}", "125 apples"), (r"5 \text{ million}", "5", r"5\text{ billion}", "500000"), ("5", "5 million", r"5\text{ dozen}", "5 hundred", "3 apples"), (r"15\mbox{ cm}^2", "15 m^2", "225", "15^2"), (r"145^\circ", r"144^\circ", "145 km")],
    "radicals": [(r"3\sqrt{13}", r"\sqrt{39}", r"13\sqrt{3}", r"-3\sqrt{13}", r"3\sqrt{14}", "39", r"\sqrt[3]{13}"), (r"\sqrt{6}", r"-\sqrt{6}", r"\pm\sqrt{6}"), (r"1+\sqrt{2}", r"1-\sqrt{2}", r"\sqrt{3}", r"\sqrt{1+2}")],
    "complex": [("6+9i", "6-9i", "9+6i", "6+9", "6+9j"[:4] or "", "-6-9i"), ("i", "i+1"), ("-2 + 7i", "2-7i", "7-2i")],
    "algebra": [("x^2+2x+1", "x^2+1", "x^2-2x+1", "(x-1)^2", "y^2+2y+1", "x^2+2x+1=0", "(x+1)^3", "9"), ("x", r"\sqrt{x^2}", "|x|", "y", "-x", "X", "1"), ("(a+b)^2", "a^2+b^2", "2ab"), (r"\lfloor\sqrt{n-1}\rfloor", r"\sqrt{n-1}", r"\lceil\sqrt{n-1}\rceil", r"\lfloor\sqrt{n}\rfloor"),
                (r"\sin x", r"\cos x", r"\sinh x", "x", r"\sin 2x"), (r"\frac{n(n+1)}{2}", r"\frac{n(n-1)}{2}", r"\binom{n}{2}"), ("2^{k}", "k^2", "2k"), ("(x+1)^{1000}", "(x+1)^{1001}", "(x+1)^{1000}+1"), (r"\frac{a+b}{2}", r"a+\frac{b}{2}", "a+b/2"), ("x+1", "x+1.0000000001", "x+2")],
    "tuples": [("(3,4)", "(4,3)", "3,5", "(3,4,5)", r"\{3,4,5\}", "[3,4]", "(3,4]", "(x,y)", "7", "(3)", "(3,4),(4,3)", "34"), (r"(1,1), (3,2)", "(1,3),(1,2)", "(1,1)", "(1,1),(3,2),(0,0)"), ("(6,31,-1)", "(-1,31,6)", "(6,31,1)")],
    "lists": [("1,-2", "1,2", "1", "-2", "1,-2,3", r"1 \text{ and } 2", "-1,2", r"\{1\}", "1,-2,-2", "-1"), ("1,2,3,4", "1,2,3", "1,2,3,5", "4,3,2"), (r"1 \pm \sqrt{19}", r"1+\sqrt{19}", r"1 \pm \sqrt{17}", r"-1\pm\sqrt{19}"), ("a=2, b=3", "a=3, b=2", "3, 2")],
    "intervals": [("[0,9)", "[0,1)", "(0,9)", "[0,9]", "(0,9]", "0 < x < 9", "9"), ("x < 1", "x > 1", r"x \le 1", "x<2", "1", "-x<-1"), (r"(2,12) \cup (12,102)", "(2,102)", "(2,12)", r"(2,12)\cup(12,101)", r"(2,12]\cup(12,102)"), (r"k \geqslant 2", "k > 2", "2", r"k \le 2"), (r"[-3,2]", r"(-\infty,-3]\cup[2,\infty)")],
    "equations": [("y = 2x + 3", "y=2x-3", "y = 3", "y=3x+2", "2x", "y+2x=3", "y=2x"), ("x^2/4 + y^2/3 = 1", "x^2/4-y^2/3=1", "x^2/3+y^2/4=1", "1", "0=0"), ("x=5", "x=6", "x=y", "x"), ("y=-2x", "y=-2"), ("4x-5y=-50", "4x-5y=50", "4x-5y<-50")],
    "matrices": [(r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 & 3 & 4 \end{pmatrix}", r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", "-2", "1,2,3,4")],
    "text": [(r"\text{Evelyn}", "Evelin", "Eve", "x", r"\text{not Evelyn}", "5"), (r"\text{(C)}", "B", r"\text{(B)}", "C, D", "AC", r"\text{A or C}"), (r"\text{MAKE}", "KAME"), ("3:1", "1:3", "3", "31"), (r"\text{June 20}", "June 21", "July 20", "20 June 2"), (r"\text{no}", "on", "yes", "n")],
    "bases": [("52_8", "53_8", "52_9", "52", "42"), ("152A_{11}", "152B_{11}")],
}  # fmt: skip

same = [(kind, gold, pred) for kind, rows in SAME.items() for gold, *preds in rows for pred in preds]
different = [(kind, gold, pred) for kind, rows in DIFFERENT.items() for gold, *preds in rows for pred in preds]
