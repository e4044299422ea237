"""notebooks/pages.py: the lessons as HTML, in order, with links that lead somewhere; the list of lessons in README."""

import re
import sys

import pytest

from conftest import ROOT

FOLDER = ROOT / "notebooks"
sys.path.insert(0, str(FOLDER))
import pages  # noqa: E402


def test_links_of_a_notebook_become_links_of_a_page():
    assert pages.page_link("../drpo.py", "../..") == "../../drpo.py"
    assert pages.page_link("worlds.py", "../..") == "../../notebooks/worlds.py"
    assert (
        pages.page_link("03_objective_credit_independence.ipynb#x", "../..")
        == "03_objective_credit_independence.html#x"
    )
    assert pages.page_link("../BENCHMARKS.md#the-study", "../..") == "../../BENCHMARKS.md#the-study"
    for same in ("https://arxiv.org/abs/2510.04474", "#below"):
        assert pages.page_link(same, "../..") == same


def test_readme_lists_every_lesson_in_order():
    linked = re.findall(r"\(notebooks/(\d\d_\w+\.ipynb)\)", (ROOT / "README.md").read_text("utf-8"))
    assert linked == [path.name for path in pages.lessons()]


@pytest.mark.slow
def test_pages_follow_each_other_and_no_link_of_them_is_dead(tmp_path):
    pytest.importorskip("nbconvert", reason="no Jupyter: make test-notebooks installs it")
    index = pages.write(tmp_path)
    names = re.findall(r'href="([^"]+)"', index.read_text("utf-8"))
    assert names == [f"{path.stem}.html" for path in pages.lessons()]
    for here, after in zip(names, [*names[1:], None], strict=True):
        text = (tmp_path / here).read_text("utf-8")
        links = [link for link in re.findall(r'<a [^>]*href="([^"]+)"', text) if "://" not in link and link[0] != "#"]
        assert "index.html" in links and (after is None or after in links)
        dead = [link for link in links if not (tmp_path / link.partition("#")[0]).exists()]
        assert len(links) > 10 and not dead, (here, dead)
        assert text.count("data:image/png") >= 1
