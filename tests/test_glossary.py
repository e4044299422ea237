"""Every symbol of the lessons and of the docs has a line in docs/glossary.md."""

import json
import re

import pytest

from conftest import ROOT

GREEK = set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi varphi "
    "chi psi omega ell Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split()
)
PAGES = [
    *sorted((ROOT / "notebooks").rglob("*.ipynb")),
    *sorted((ROOT / "notebooks").rglob("*.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.stem != "glossary"),
]
WORDS = r"\\(?:mathrm|text|operatorname|mathbb|mathcal|mathbf|textbf)\s*\{[^{}]*\}"
TEXT_BLOCK, CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE), re.compile(r"`[^`\n]*`")


def formulas(text):
    """The LaTeX between dollars, outside code."""
    text = CODE.sub("", TEXT_BLOCK.sub("", text))
    return [a or b for a, b in re.findall(r"\$\$(.+?)\$\$|(?<!\\)\$([^$\n]+(?:\n[^$\n]+)?)\$", text, re.DOTALL)]


def symbols(latex):
    r"""Single letters and Greek ones; not words (\mathrm{softmax}, _{old}, GRPO) nor operators (\sum)."""
    found = re.findall(r"\\([A-Za-z]+)|(?<![A-Za-z])([A-Za-z])(?![A-Za-z])", re.sub(WORDS, " ", latex))
    return {letter for command, letter in found if letter} | {f"\\{c}" for c, _ in found if c in GREEK}


def markdown(page):
    if page.suffix == ".md":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def defined():
    rows = [line for line in (ROOT / "docs/glossary.md").read_text().splitlines() if line.startswith("| $")]
    return set().union(*(symbols(latex) for row in rows for latex in formulas(row.split("|")[1])))


def test_what_counts_as_a_symbol():
    text = r"so $w_i \propto e^{r_i/\lambda}$ and `$x$`, $\mathrm{softmax}(s)$, $A^{GRPO} = \pi_{old}$"
    assert set().union(*map(symbols, formulas(text))) == {"w", "i", "e", "r", r"\lambda", "s", "A", r"\pi"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_symbol_is_in_the_glossary(page):
    missing = set().union(*map(symbols, formulas(markdown(page))), set()) - defined()
    assert not missing, f"{page.name} uses {', '.join(sorted(missing))}: add a line to docs/glossary.md"


def test_the_glossary_defines_nothing_twice_in_one_table():
    for part in (ROOT / "docs/glossary.md").read_text().split("\n## ")[1:]:
        names = [line.split("|")[1] + line.split("|")[2] for line in part.splitlines() if line.startswith("| ")]
        assert len(set(names)) == len(names)
