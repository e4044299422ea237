"""html_report.py: the numbers on the page are those of the responses; hostile text stays text; nothing is loaded."""

import dataclasses
import itertools
import json
import re
import time
from pathlib import Path

import pytest

import eval as evaluation
from minidrpo.records import GradedResponse, Problem
from minidrpo.reflection import reflection_words
from minidrpo.rundir import jsonl, results
from minidrpo.rundir.metrics import aes, summarise
from minidrpo.show import html_report

EVIL = [
    "</script><script>window.hacked = 1</script>",
    '<img src=x onerror="window.hacked = 1">',
    "<!--<script>",
    "]]>",
    "&lt;b&gt;",
    "line\u2028paragraph\u2029",
    "\u202eturned",
    "${data} $script $$",
    "\ud800 alone",
    "\0\x1b[31m",
    "Wait, 2 < 3 & \\boxed{1}",
    "javascript:window.hacked=1",
    "{{7*7}}",
    "' onmouseover='window.hacked=1",
]


def responses_to(problems, lengths, right, words="Wait. Hmm"):
    """Response s to problem p has length lengths[p][s], is correct if right(p, s); its text holds something evil."""
    evil = itertools.cycle(EVIL)
    return [
        GradedResponse(
            source=p.source,
            index=p.index,
            sample=s,
            response=f"{words} {next(evil)}",
            length=length,
            finished=True,
            correct=right(i, s),
            reason="correct" if right(i, s) else "wrong",
            answer=str(p.truth),
        )
        for i, p in enumerate(problems)
        for s, length in enumerate(lengths[i])
    ]


def write_problems(directory):
    jsonl.write(directory / "problems.jsonl", map(dataclasses.asdict, PROBLEMS))


PROBLEMS = [Problem(f"What is {i}? {evil}", f"{i}\u202e", f"set/level-{i % 2}", i) for i, evil in enumerate(EVIL)]


def make_evaluation(directory, lengths, right, name="model", **kwargs):
    directory.mkdir()
    result = summarise(responses_to(PROBLEMS, lengths, right, **kwargs))
    cfg = evaluation.Config(model=f"</title><script>\u202e{name}", samples=len(lengths[0]))
    results.write_results(cfg, result, directory, 100, [])
    write_problems(directory)
    return result


def make_training(directory, before, after):
    directory.mkdir()
    evaluations = [{"step": step} | r.summary() for step, r in ((0, before), (5, before), (10, after))]
    metrics = [{"step": s, "accuracy": 0.5, "mean_length": 50.0 - s, "kl": 0.0, "grad_norm": 1.0} for s in range(1, 11)]
    sample = before.responses[0].as_dict() | {"prompt": EVIL[0], "truth": 1, "weight": 0.25, "response": EVIL[1]}
    for name, records in (
        ("evals", evaluations),
        ("metrics", metrics),
        ("samples", [sample | {"step": s, "index": s} for s in (1, 10)]),
    ):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (directory / "config.json").write_text(json.dumps({"model": "<b>m</b>", "lam": 0.1}))
    write_problems(directory)
    jsonl.write(directory / "responses_before.jsonl", (r.as_dict() for r in before.responses))
    jsonl.write(directory / "responses_after.jsonl", (r.as_dict() for r in after.responses))


@pytest.fixture
def directories(tmp_path):
    """Two evaluations of the same questions and a training run; also their results."""
    n = len(PROBLEMS)
    old = make_evaluation(tmp_path / "old", [[40, 60]] * n, lambda p, s: p % 2 == 0, "old", words="Wait, wait. Recheck")
    new = make_evaluation(tmp_path / "new<script>&", [[20, 30]] * n, lambda p, s: s == 0 or p == 1, "new")
    make_training(tmp_path / "run", old, new)
    return [tmp_path / "old", tmp_path / "new<script>&", tmp_path / "run"], old, new


def data_of(page):
    """What the page's script parses, as a browser finds it: everything up to the first `</script`."""
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script', page, re.DOTALL)
    return json.loads(block), block


def test_hostile_text_cannot_leave_its_string(directories):
    page = html_report.render(html_report.collect(directories[0]), "<script>title")
    data, block = data_of(page)
    assert block.isascii() and not set(block) & set("<>&\n") and page.count("</script") == 2
    assert "&lt;script&gt;title" in page and "<script>title" not in page
    texts = {r["response"] for part in data["responses"]["lists"] for r in part["responses"]}
    assert {f"Wait. Hmm {evil}" for evil in EVIL} <= texts  # every character arrives
    assert {q["prompt"] for q in data["responses"]["questions"]} >= {p.prompt for p in PROBLEMS}


def test_the_page_loads_nothing_and_writes_no_markup(directories):
    page = html_report.render(html_report.collect(directories[0]), "title")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    skeleton = page.replace(data_of(page)[1], "")
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+\.[\w/]+", skeleton)) - {"http://www.w3.org/2000/svg"}  # a name
    assert not addresses and not re.search(r"<(?:link|img|iframe|base|object)|\bsrc=|@import|url\(", skeleton)
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "fetch("):
        assert way not in skeleton, way


def test_the_page_shows_the_numbers_of_the_responses(directories):
    data = html_report.collect(directories[0])
    _, old, new = directories
    assert [r["name"] for r in data["results"]] == ["old", "new<script>&", "run, step 0", "run, step 10"]
    assert data["headline"] == "set" and data["results"][1]["rows"]["set"]["accuracy"] == new.accuracy
    assert data["results"][0]["rows"]["set/level-1"]["mean_length"] == old.by_source["set/level-1"].mean_length
    assert data["aes"]["scores"][1][0]["set"] == aes(new.accuracy, new.mean_length, old.accuracy, old.mean_length)
    assert data["aes"]["scores"][0][1]["set"] == aes(old.accuracy, old.mean_length, new.accuracy, new.mean_length)
    assert [step for step, _ in data["results"][3]["path"]] == [0, 5, 10]
    assert [h["group"] for h in data["histograms"]] == ["set", "set/level-0", "set/level-1"]
    bins = data["histograms"][0]["results"]
    assert [sum(bins[i]["right"]) for i in (0, 1)] == [sum(a.correct for a in r.responses) for r in (old, new)]
    assert [sum(bins[i]["wrong"]) for i in (0, 1)] == [sum(not a.correct for a in r.responses) for r in (old, new)]
    width = data["histograms"][0]["width"]
    at = -(-40 // width) - 1  # seven right responses have 40 tokens, seven 60
    assert bins[0]["right"][at] == 7 and sum(bins[0]["right"][:at]) == 0
    assert bins[0]["words"]["wait"] == pytest.approx(2 + 2 / 28)  # two in each text, one more in one of the evil ones
    assert bins[0]["words"]["check"] == 1 and bins[0]["words"]["hmm"] == 0 and bins[1]["words"]["hmm"] == 1
    (dynamics,) = data["dynamics"]
    assert dynamics["training"]["mean_length"] == [[s, 50.0 - s, None] for s in range(1, 11)]
    assert dynamics["held_out"]["accuracy"][2] == [10, new.accuracy, new.accuracy_se]


def test_reflection_words():
    text = "Wait, waiting? WAIT. Hmmm, recheck: checking... Actually await hold on, verified, un-check"
    counts = {"wait": 2, "hmm": 1, "check": 3, "actually": 1, "hold on": 1, "verify": 1}
    assert reflection_words(text) == counts


def test_equal_directories_give_an_equal_page_and_the_command_writes_it(directories, capsys):
    old, new, run = map(str, directories[0])
    before = Path(run, "config.json").read_text()
    with pytest.raises(SystemExit) as stop:
        html_report.main([old, run, "--out", f"{run}/config.json"])
    assert stop.value.code == 2 and Path(run, "config.json").read_text() == before
    html_report.main([old, run, "--out", f"{run}/both.html"])
    first = Path(f"{run}/both.html").read_bytes()
    html_report.main(["--dirs", old, run, "--out", f"{run}/both.html"])
    assert Path(f"{run}/both.html").read_bytes() == first
    html_report.main([new])
    assert capsys.readouterr().out.splitlines()[-1] == f"{new}/report.html" and Path(f"{new}/report.html").exists()


def test_a_page_of_many_long_responses_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(html_report, "TEXTS", 50_000)
    monkeypatch.setattr(html_report, "TEXT", 3_000)
    problems = [Problem("q", 1, "a" if i < 300 else "b", i) for i in range(400)]
    many = [
        GradedResponse(p.source, p.index, s, "x" * 5_000 + f"{p.index}", 9, True, True, "correct", "1")
        for p in problems
        for s in range(5)
    ]
    (tmp_path / "e").mkdir()
    results.write_results(evaluation.Config(), summarise(many), tmp_path / "e", 100, [])
    jsonl.write(tmp_path / "e" / "problems.jsonl", map(dataclasses.asdict, problems))
    found = html_report.collect([tmp_path / "e"])["responses"]
    rows = found["lists"][0]["responses"]
    texts = [r["response"] for r in rows]
    assert 40_000 < sum(map(len, texts)) <= 50_000 and "[... 2,0" in texts[0] and texts[0].endswith("x0")
    kept = [q["source"] for q in found["questions"]]
    assert abs(kept.count("a") - kept.count("b")) <= 1 and f"{len(kept)} of 400 questions" in found["note"]
    assert [r["sample"] for r in rows] == sorted([0, 1, 2, 3] * len(kept))


EMPTY = '{"sets": {}, "average": {}, "config": {}}'


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, "neither an evaluation (results.json) nor a training run (metrics.jsonl)"),
        ({"responses.part-0.jsonl": ""}, "not finished"),
        ({"results.json": "{"}, "results.json cannot be read"),
        ({"results.json": "[]"}, "not the results of an evaluation"),
        ({"metrics.jsonl": '{"step": 1}\n{"st\n'}, "line 2"),
        ({"results.json": EMPTY, "responses.jsonl": '{"so\n'}, "responses.jsonl, line 1: "),
        ({"results.json": EMPTY, "responses.jsonl": '{"index": 1}\n'}, "line 1: not an object with index and source"),
        (
            {"results.json": EMPTY, "responses.jsonl": '{"source": "a", "index": 1}\n'},
            "a file there is not as it was written (KeyError('response'))",
        ),
        ({"results.json": '{"sets": 3, "average": {}, "config": {}}'}, "not as it was written"),
    ],
)
def test_mistakes_get_one_line(tmp_path, capsys, content, message):
    (tmp_path / "d").mkdir()
    for name, text in content.items():
        (tmp_path / "d" / name).write_text(text)
    for words in ([str(tmp_path / "d")], [str(tmp_path / "d" / "gone")], []):
        with pytest.raises(SystemExit) as stop:
            html_report.main(words)
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.startswith("error: ") and err.count("\n") == 1
        assert (message if words == [str(tmp_path / "d")] else "no such directory" if words else "at least one") in err


def test_a_run_just_begun_and_one_without_responses(tmp_path, directories):
    old, _, run = directories[0]
    for name in ("responses_before.jsonl", "responses_after.jsonl", "samples.jsonl", "problems.jsonl"):
        (run / name).unlink()
    (old / "problems.jsonl").unlink()
    data = html_report.collect([run, old])
    assert len(data["results"]) == 3 and data["histograms"][0]["results"][:2] == [None, None]
    assert data["responses"]["questions"][0]["prompt"] is None and len(data["responses"]["lists"]) == 1
    (run / "evals.jsonl").unlink()
    data = html_report.collect([run])
    assert data["results"] == [] and data["dynamics"][0]["training"]["accuracy"]
    json.dumps(dataclasses.asdict(html_report.Config()))


# ---------------------------------------------------------------------------------------------------- in a browser


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 390])
def test_in_a_real_browser(browser, directories, width):
    page = html_report.write(directories[0], directories[0][2] / "report.html")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get(page.as_uri())
    run = browser.execute_script
    deadline = time.monotonic() + 30
    while run("return document.querySelectorAll('.chart svg').length") < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert browser.get_log("browser") == []  # neither an error nor something the policy stopped
    assert run("return window.hacked") is None and run("return document.images.length") == 0
    assert run("return document.documentElement.scrollWidth") <= width
    assert run("return [...document.querySelectorAll('main > section')].map(s => s.id)") == [
        "result",
        "trade-off",
        "lengths",
        "training",
        "numbers",
        "responses",
    ]
    assert run("return [...document.querySelectorAll('tbody')].map(body => body.children.length > 1)") == [True] * 3
    assert "[object" not in run("return document.body.innerText")
    assert "NaN" not in run("return document.documentElement.outerHTML.split('application/json')[0]")
    assert "50.0 %" in run("return document.querySelector('#result').innerText")
    # names, truths and settings as much as texts: what would turn or hide others is shown by its name
    assert not set(run("return document.body.innerText")) & set("\u202e\u2028\u200b\x1b\0")
    assert "set\u202e" not in run("return document.documentElement.innerHTML.split('application/json')[0]")

    def filtered(**choices):
        """Choose in the controls of the responses by their names; returns the line that counts."""
        for name, value in choices.items():
            run(
                """const label = [...document.querySelectorAll('#responses label')]
                .find(l => l.textContent.startsWith(arguments[0]));
                const box = label.querySelector('select, input'); box.value = arguments[1];
                box.dispatchEvent(new Event(box.tagName == 'SELECT' ? 'change' : 'input'))""",
                name,
                value,
            )
        return run("return document.querySelector('#responses .count').innerText")

    pairs = [(a.correct, b.correct) for a, b in zip(directories[1].responses, directories[2].responses, strict=True)]
    assert filtered(read="0", against="1") == "28 pairs: 50.0 → 25.0 tokens on average"
    assert filtered(outcome="wrong right").startswith(f"{pairs.count((False, True))} pairs")
    assert filtered(outcome="right wrong").startswith(f"{pairs.count((True, False))} pairs")
    assert filtered(outcome="", length="longer") == "0 pairs"
    assert filtered(length="shorter").startswith("28 pairs")
    assert filtered(search="<img src").startswith(f"{sum('<img src' in p.prompt for p in PROBLEMS) * 2 + 2} pairs")
    texts = run("return [...document.querySelectorAll('#responses pre')].map(p => p.innerText).join()")
    assert '<img src=x onerror="window.hacked = 1">' in texts
    assert filtered(search="", against="-1", outcome="right", length="") == "14 responses: 50.0 tokens on average"
    assert filtered(length="shorter") == "7 responses: 40.0 tokens on average"
    filtered(length="", outcome="")
    marked = run(
        "return [...document.querySelector('#responses pre').querySelectorAll('mark')].map(m => m.textContent)"
    )
    assert marked[:3] == ["Wait", "wait", "Recheck"]
    assert run("return window.hacked") is None
