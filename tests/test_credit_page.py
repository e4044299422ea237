"""docs/credit.html: its formulas are those of drpo.py and minidrpo/methods, and it works without a network."""

import json
import re
import shutil
import subprocess

import pytest

from experiments import credit_page
from minidrpo.methods.table import METHODS

PAGE = credit_page.PAGE.read_text()


def block(identity):
    return re.search(rf'<script[^>]* id="{identity}">(.*?)</script>', PAGE, re.DOTALL)[1]


def test_the_numbers_in_the_page_are_todays():
    """The page compares its own formulas with these numbers whenever it is opened."""
    there = json.loads(block("data"))
    today = json.loads(json.dumps(credit_page.data(credit_page.random_groups(seed=0))))
    assert there["settings"] == today["settings"]
    assert {name.split()[0] for name in today["cases"][0]["credit"]} == set(METHODS)
    for old, new in zip(there["cases"], today["cases"], strict=True):
        assert old["group"] == new["group"]
        assert old["credit"] == {name: pytest.approx(c, rel=1e-4, abs=1e-5) for name, c in new["credit"].items()}


def test_the_page_is_small_and_loads_nothing():
    assert len(PAGE.encode()) < 200_000
    assert "default-src 'none'" in re.search(r'Content-Security-Policy" content="([^"]*)"', PAGE)[1]
    assert not re.search(r"https?:|<(?:link|img|iframe|base)\b|\bsrc=|@import|url\(|fetch\(|innerHTML", PAGE)


def fresh():
    return credit_page.data(credit_page.random_groups(seed=12345, n=200))


def test_its_formulas_agree_with_python_on_new_groups():
    node = shutil.which("node")
    if not node:
        pytest.skip("no node on this machine; `pytest -m browser` runs the formulas in Chromium")
    script = f"{block('formulas')}\nconst d = {json.dumps(fresh())};\n"
    script += "const wrong = structuredClone(d); wrong.cases[0].credit.drpo[0] += 1e-3;\n"
    script += "console.log(worst(d.cases, d.settings), worst(wrong.cases, d.settings));"
    said = subprocess.run([node, "-"], input=script, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
    off, off_when_wrong = map(float, said.stdout.split())
    assert off < 1e-5 and off_when_wrong > 1e-4


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 390])
def test_in_a_real_browser(browser, width):
    from selenium.webdriver.common.keys import Keys

    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(credit_page.PAGE.as_uri())
    run = browser.execute_script
    assert browser.get_log("browser") == [] and run("return document.documentElement.scrollWidth") <= width
    assert "Checked when this page was opened" in run("return document.getElementById('checked').innerText")
    assert run(f"const d = {json.dumps(fresh())}; return worst(d.cases, d.settings)") < 1e-5

    def cells(method):
        words = run(f"return [...document.querySelectorAll('tr[data-method=\"{method}\"] td')].map(c => c.innerText)")
        return [float(word.replace("−", "-").rstrip("!")) for word in words]

    def expected(method, **changes):
        group = {"length": [2212, 3277, 6554, 4096, 4096, 4096], "correct": [1, 1, 1, 0, 0, 0]}
        group |= {"score": [-0.3, -0.35, -0.45, -0.3, -0.4, -0.6], "lam": 0.1, "tau": 10.0}
        return pytest.approx(credit_page.python_credit(group | {"alpha": 1.0} | changes)[method], abs=0.0051)

    for start in (1, 2, 3, 0):  # every example fits, the longest numbers included
        browser.find_elements("css selector", "#starts button")[start].click()
        assert run("return document.documentElement.scrollWidth") <= width
        cut = (
            "return [...document.querySelectorAll('#credit td')].filter(c => c.scrollWidth > c.clientWidth + 1).length"
        )
        assert run(cut) == 0
    # Figure 1 to begin with; then sliders, a bar and a grade, by keyboard alone
    assert all(cells(method) == expected(method) for method in ("drpo", "grpo-lp sample", "rloo-lp", "gdpo", "lead"))
    pushed = run("return [...document.querySelectorAll('tr[data-method=\"grpo-lp sample\"] td')].map(c => c.className)")
    assert pushed == ["", "", "pushed", "", "", ""]
    length = browser.find_element("css selector", "#responses .length")
    length.send_keys(Keys.ARROW_RIGHT * 5)
    moved = int(length.get_attribute("value"))
    lengths = [moved, 3277, 6554, 4096, 4096, 4096]
    assert moved > 2212 and all(cells(m) == expected(m, length=lengths) for m in ("drpo", "grpo-lp sample", "l1-max"))
    browser.find_elements("css selector", "#responses .flip")[1].send_keys(Keys.SPACE)
    grades = {"correct": [1, 0, 1, 0, 0, 0], "length": lengths}
    assert all(cells(m) == expected(m, **grades) for m in ("drpo", "grpo sample", "hapo", "ddca"))
    browser.find_element("id", "lam").send_keys(Keys.END)
    assert cells("drpo") == cells("disco") == expected("disco", **grades)
    assert "this is DisCO" in run("return document.getElementById('lam-note').innerText")
    assert "sample size of the weights, 1/Σw²: 2 of 2" in run("return document.getElementById('summary').innerText")
    browser.find_element("id", "tau").send_keys(Keys.HOME)
    assert cells("drpo")[3] == pytest.approx(expected("disco", tau=0.01, **grades).expected[3], abs=0.0051)
