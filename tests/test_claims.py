"""Every claim of every notebook can fail: change its number, its sign or its relation, and the check fires.

Two kinds of checks: claim(...) of notebooks/claims.py, and plain asserts. The fast tests hold the tools; the slow ones
run each notebook once and try all false versions on the way.
"""

import ast
import copy
import json
import math
import os
import sys

import pytest

from conftest import ROOT

FOLDER = ROOT / "notebooks"
sys.path.insert(0, str(FOLDER))
import claims  # noqa: E402
import run  # noqa: E402

LESSONS = sorted(FOLDER.glob("0*.ipynb"))
OPPOSITE = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
CLOSE = ("abs", "isclose", "allclose", "near")  # their numbers are claimed, not bounds


def code_cells(path):
    found = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    run.fill(path, found)
    return ["".join(c["source"]) for c in found]


# ------------------------------------------------------------------------------------------------------------ claim


def fires(*args, **kwargs):
    try:
        claims.claim(*args, **kwargs)
    except AssertionError:
        return True
    return False


def false_versions(measured, relation, claimed, within=None, false=None):
    """(name, arguments of a claim that is wrong) for a claim that holds."""
    if relation == "=":
        if claimed:
            yield "number", (measured, relation, 1.3 * claimed, within, false)
            yield "sign", (measured, relation, -claimed, within, false)
    else:
        yield "relation", (measured, "<>"["><".index(relation)], claimed, within, None if false is None else measured)
    if false is not None:
        yield "false version", (false, relation, claimed, within, measured)
    yield "one run of NaN", ([*claims.flat(measured), math.nan], relation, claimed, within, false)


def surviving(words, measured, relation, claimed, within=None, false=None):
    """The names of the false versions that the check does not notice."""
    cases = false_versions(measured, relation, claimed, within, false)
    return [name for name, (m, r, c, w, f) in cases if not fires(words, m, r, c, within=w, false=f)]


def test_a_claim_holds_and_each_of_its_false_versions_fires(capsys):
    for args in (
        dict(measured=0.302, relation="=", claimed=0.3, within=0.01),
        dict(measured=[0.1, 0.2, 0.3], relation="<", claimed=0.5, false=[0.1, 0.2, 0.7]),
        dict(measured=0.9, relation=">", claimed=0.5, false=0.5),
        dict(measured=1e-9, relation="=", claimed=0, within=1e-6, false=0.2),
    ):
        claims.claim("words", **args)
        assert capsys.readouterr().out.startswith("holds: words. Measured ")
        assert surviving("words", **args) == []
        assert len(list(false_versions(**args))) >= 2
    assert fires("one seed of three", [0.1, 0.2, 0.7], "<", 0.5, false=1.0)


def test_a_claim_that_can_hardly_fail_is_refused():
    for args in (
        dict(measured=0.3, relation="<", claimed=1),  # no false version
        dict(measured=0.0, relation="=", claimed=0, within=1e-6),
        dict(measured=0.3, relation="=", claimed=0.3, within=0.1),  # a third of the number
        dict(measured=0.3, relation="=", claimed=0.3),
        dict(measured=0.3, relation="<", claimed=1, within=0.1, false=2),
        dict(measured=0.3, relation="<=", claimed=1, false=2),
        dict(measured=[], relation="<", claimed=1, false=2),
    ):
        with pytest.raises(ValueError):
            claims.claim("words", **args)
    assert fires("a bound that the false version keeps, too", 0.3, "<", 1, false=0.9)


# ----------------------------------------------------------------------------------------------------------- asserts


class Sites(ast.NodeTransformer):
    """After each assert a call that evaluates its false versions, with the names that it sees."""

    def __init__(self):
        self.lines = {}  # site -> source of the assert

    def visit_Assert(self, node):
        site = len(self.lines)
        self.lines[site] = ast.unparse(node)
        changed = [ast.Lambda(ast.arguments([], [], None, [], [], None, []), test) for test in changes(node.test)]
        names = ast.List([ast.Constant(ast.unparse(test.body)) for test in changed], ast.Load())
        call = ast.Call(ast.Name("_try", ast.Load()), [ast.Constant(site), names, ast.List(changed, ast.Load())], [])
        return [node, ast.Expr(call)]


def changes(test):
    """False versions of an assert's condition: each comparison reversed, each claimed number changed."""
    nodes = list(ast.walk(test))
    claimed = set()
    for node in nodes:
        is_close = isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in CLOSE
        if is_close or (isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq)):
            parts = node.args[:2] if is_close else node.comparators
            claimed |= {id(part) for whole in parts for part in literals(whole)}
    for i, node in enumerate(nodes):
        if isinstance(node, ast.Compare) or id(node) in claimed:
            other = copy.deepcopy(test)
            twin = list(ast.walk(other))[i]
            if isinstance(node, ast.Compare):
                twin.ops[0] = OPPOSITE[type(node.ops[0])]()
            else:
                twin.value = node.value * 1.3 + (node.value == 0)
            yield other


def literals(node):
    """The numbers in an expression of literals and arithmetic: no arguments of calls, no subscripts."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        yield node
    elif isinstance(node, ast.BinOp | ast.UnaryOp | ast.List | ast.Tuple):
        for child in ast.iter_child_nodes(node):
            yield from literals(child)


def run_asserts(sources):
    """{assert: [false versions that no execution of it noticed]}; an assert that never ran has [None]."""
    caught, tried, survivors = {}, {}, {}

    def attempt(site, names, tests):
        for name, test in zip(names, tests, strict=True):
            try:
                noticed = not bool(test())
            except Exception:
                noticed = True  # it cannot even be evaluated
            tried.setdefault(site, {})[name] = caught.setdefault(site, {}).get(name, False) or noticed
            caught[site][name] = tried[site][name]
        tried.setdefault(site, {})

    sites = Sites()
    namespace = {"_try": attempt, "__name__": "__main__"}
    trees = [sites.visit(ast.parse(source)) for source in sources]
    for tree in trees:
        exec(compile(ast.fix_missing_locations(tree), "cell", "exec"), namespace)
    for site, line in sites.lines.items():
        left = [name for name, noticed in tried.get(site, {None: False}).items() if not noticed]
        if left:
            survivors[line] = left
    return survivors


def test_the_false_versions_of_an_assert_are_tried():
    good = ["x = 0.3", "assert abs(x - 0.3) < 0.01 and x < 1", "assert [1, 2] == sorted([2, 1])"]
    good += ["for y in (1, 2):\n    assert all(z >= y for z in (3, 4))"]
    assert run_asserts(good) == {}
    assert run_asserts(["assert all(z > 0 for z in ())"]) == {
        "assert all((z > 0 for z in ()))": ["all((z <= 0 for z in ()))"]
    }
    assert run_asserts(["for y in ():\n    assert y > 1"]) == {"assert y > 1": [None]}
    assert "abs(0.3 - 0.39) < 0.2" in str(run_asserts(["assert abs(0.3 - 0.3) < 0.2"]))  # too wide to mean 0.3


# ----------------------------------------------------------------------------------------------------- the notebooks


@pytest.fixture
def shell():
    """What a notebook's display(...) writes to."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    yield InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    InteractiveShell.clear_instance()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_check_of_a_notebook_fires_on_the_false_version(path, monkeypatch, shell):
    import matplotlib

    matplotlib.use("agg")
    monkeypatch.chdir(FOLDER)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    original, seen = claims.claim, []

    def claim(*args, **kwargs):
        original(*args, **kwargs)
        monkeypatch.setattr(claims, "claim", original)  # the copies below
        seen.append((args[0], surviving(*args, **kwargs)))
        monkeypatch.setattr(claims, "claim", claim)

    monkeypatch.setattr(claims, "claim", claim)
    with matplotlib.rc_context():
        survivors = run_asserts(code_cells(path))
    assert survivors == {}
    assert [(words, left) for words, left in seen if left] == []
    asserts = sum("assert " in source for source in code_cells(path))
    assert len(seen) + asserts >= 5, "a lesson has claims, and checks them"
