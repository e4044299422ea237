"""html_report.py - report.html: evaluations and training runs as one page that needs nothing but itself.

    python -m minidrpo.show.html_report DIR [DIR ...] [--out FILE]      DIR: what eval.py or train.py wrote

The first directory is the base of every comparison. The page holds the headline, accuracy against length, length
histograms, a run's dynamics, and responses to read side by side with their reflection words marked. This file only
gathers numbers and texts; page/ draws them in the browser.

Model text is from a stranger. It travels as JSON in which no character can end the script element, the page puts it on
the screen as text nodes only, and its content security policy lets no other script run and nothing be loaded.
"""

import base64
import hashlib
import html
import itertools
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from string import Template

from minidrpo import cli
from minidrpo.files import read_json
from minidrpo.reflection import REFLECTION, reflection_words
from minidrpo.rundir import jsonl
from minidrpo.rundir.metrics import AES, aes_of, as_json, is_number
from minidrpo.rundir.results import set_name

PAGE = Path(__file__).resolve().parent / "page"
# What is embedded at most. A page of a few MB opens at once, also on a phone; everything is in responses*.jsonl
QUESTIONS, SAMPLES = 240, 4  # questions, responses to each
ANSWER = 600  # characters of an answer or a truth
TEXT, TEXTS = 8_000, 6_000_000  # characters of one response (longer ones lose their middle), of all
BINS = 48  # of a histogram, about; widths are round numbers
KEYS = ("source", "index")  # of every record here
OUTCOMES = ("right", "wrong", "truncated")  # a truncated response counts as wrong, and is shown apart
# The curves of a training run, as metrics.jsonl calls them; evals.jsonl has the first three
CURVES = ("accuracy", "mean_length", "truncated", "objective", "kl", "grad_norm", "mixed_groups")
SETTINGS = {  # of an evaluation, in a config.json or results.json: how the page says it
    "samples": "{} responses per problem",
    "temperature": "temperature {}",
    "top_p": "top-p {}",
    "max_response_tokens": "at most {} tokens",
}


@dataclass(frozen=True)
class Config:
    dirs: tuple[str, ...] = ()
    """Directories of evaluations and training runs."""
    out: str = ""
    """The page to write; default: report.html in the first directory if there is one, else here."""

    def __post_init__(self):
        cli.check(self)


@dataclass
class Result:
    """One model's evaluation: rows of numbers, and where its single responses are."""

    name: str
    rows: dict
    """Row (data set, part of one, average) -> numbers as in results.json."""
    about: str
    problems: Path
    responses: Path
    path: tuple = ()
    """(step, rows) of a training run's evaluations on the way to this one."""


# ---------------------------------------------------------------------------------------------------- reading


def read_directory(directory: str | Path) -> tuple[list[Result], dict | None]:
    """(results, curves of training or None) of an evaluation's or a training run's directory, else ValueError."""
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such directory")
    if (directory / "results.json").exists():
        return [read_evaluation(directory)], None
    if (directory / "metrics.jsonl").exists() or (directory / "evals.jsonl").exists():
        return read_training(directory)
    if any(directory.glob("responses.part-*.jsonl")):
        raise ValueError(f"{directory}: an evaluation that is not finished; start its command again, it goes on")
    raise ValueError(f"{directory}: neither an evaluation (results.json) nor a training run (metrics.jsonl)")


def read_evaluation(directory: Path) -> Result:
    """What eval.py wrote."""
    found = read_json(directory / "results.json")
    if not isinstance(found, dict) or not {"sets", "average", "config"} <= set(found):
        raise ValueError(f"{directory / 'results.json'}: not the results of an evaluation")
    rows = {}
    for name, numbers in found["sets"].items():
        rows |= with_parts(name, numbers)
        rows[name]["exceed"] = found.get("exceed", {}).get(name)
    rows |= {f"average ({kind})": mean for kind, mean in found["average"].items() if mean.get("accuracy") is not None}
    name, problems, responses = directory.resolve().name, directory / "problems.jsonl", directory / "responses.jsonl"
    return Result(name, rows, about(found["config"]), problems, responses)


def read_training(directory: Path) -> tuple[list[Result], dict]:
    """A run's first and last evaluations as results, and its curves.

    Their responses come from responses_before.jsonl and responses_after.jsonl, the questions from problems.jsonl;
    without them the page has no histograms of this run and no pairs."""
    config = read_json(directory / "config.json") if (directory / "config.json").exists() else {}
    training, evaluations = jsonl.read(directory / "metrics.jsonl"), jsonl.read(directory / "evals.jsonl")
    name, results = directory.resolve().name, []
    path = tuple((e["step"], evaluation_rows(e)) for e in evaluations)
    for which, ends in (("before", path[:1]), ("after", path[1:][-1:])):
        for step, rows in ends:
            files = directory / "problems.jsonl", directory / f"responses_{which}.jsonl"
            words = about(config, f" after {step} steps")
            results.append(Result(f"{name}, step {step}", rows, words, *files, path if which == "after" else ()))
    known = [key for key in ("lam", "lr", "prompts_per_step", "group_size", "seed") if key in config]
    return results, {
        "name": name,
        "about": ", ".join(f"{key} {config[key]}" for key in known),
        "training": {key: curve(training, key) for key in CURVES},
        "held_out": {key: curve(evaluations, key) for key in CURVES[:3]},
    }


def curve(records: list[dict], key: str) -> list:
    """[step, value, its standard error or None] of the records that hold a number."""
    return [[r["step"], r[key], r.get(f"{key}_se")] for r in records if is_number(r.get(key))]


def about(config: dict, when: str = "") -> str:
    """The settings of an evaluation in one line; a file of an older version may lack some."""
    said = ", ".join(text.format(config[key]) for key, text in SETTINGS.items() if key in config)
    return f"{config.get('model')}{when}: {said}"


def with_parts(name: str, numbers: dict) -> dict:
    """{row: numbers} of a data set and of its parts."""
    rows = {name: numbers} | (numbers.get("by_source") or {})
    return {row: {k: v for k, v in of.items() if k != "by_source"} for row, of in rows.items()}


def evaluation_rows(record: dict) -> dict:
    """The rows of one line of evals.jsonl: the whole, its parts."""
    sets = {set_name(part) for part in record.get("by_source") or {}}
    name = sets.pop() if len(sets) == 1 else "held out"
    rows = with_parts(name, record)
    return rows | {"average (plain)": rows[name]}


# ---------------------------------------------------------------------------------------------------- numbers


def survey(result: Result) -> tuple[dict, list]:
    """One pass over a result's responses: ({group of them: Counters of its lengths by outcome and of its reflection
    words}, the questions answered). A response belongs to the groups "all", its data set, and its part of that."""
    groups, questions = defaultdict(lambda: {key: Counter() for key in (*OUTCOMES, "words")}), {}
    for r in jsonl.lines(result.responses, KEYS):
        words = reflection_words(r["response"])
        questions[key_of(r)] = None
        outcome = "right" if r["correct"] else "wrong" if r["finished"] else "truncated"
        for name in dict.fromkeys(("all", set_name(r["source"]), r["source"])):
            groups[name][outcome][r["length"]] += 1
            groups[name]["words"] += words
    return groups, list(questions)


def key_of(record: dict) -> tuple:
    """(source, index): what names a question."""
    return record["source"], record["index"]


def histograms(groups: list[dict]) -> list[dict]:
    """Of each result's groups (`survey`), one object per name of a group: {group, width, results: [bins or None]}."""
    made = []
    for name in dict.fromkeys(itertools.chain.from_iterable(groups)):
        found = [of.get(name) for of in groups]
        longest = max(1, *(length for group in found if group for key in OUTCOMES for length in group[key]))
        width = nice(longest / BINS)
        results = [group and binned(group, width, math.ceil(longest / width)) for group in found]
        made.append({"group": name, "width": width, "results": results})
    # one data set makes "all", and one part makes its data set, the same again
    return [h for i, h in enumerate(made) if not any(h["results"] == other["results"] for other in made[i + 1 :])]


def binned(group: dict, width: int, n_bins: int) -> dict:
    """{right, wrong, truncated, n, words}: bin i counts the lengths in (i * width, (i + 1) * width] tokens; n
    responses in all; words: of each kind of reflection word, per response."""
    bins = {outcome: [0] * n_bins for outcome in OUTCOMES}
    for outcome in OUTCOMES:
        for length, count in group[outcome].items():
            bins[outcome][max(0, math.ceil(length / width) - 1)] += count
    n = sum(map(sum, bins.values()))
    return bins | {"n": n, "words": {word: group["words"][word] / n for word in REFLECTION}}


def nice(width: float) -> int:
    """The least of 1, 2, 5, 10, 20, 50, ... that is not below `width`."""
    return next(m * 10**e for e in range(12) for m in (1, 2, 5) if m * 10**e >= width)


def scores(results: list[Result]) -> list:
    """AES of every result against every other as the reference: scores[i][j][row]; None where it is not known."""

    def of(r, base):
        rows = [row for row in r.rows if row in base.rows]
        alike = sets_of(r) == sets_of(base)
        return {row: aes_of(r.rows[row], base.rows[row]) for row in rows if alike or not row.startswith("average")}

    return [[of(r, base) for base in results] for r in results]


def sets_of(result: Result) -> tuple:
    """The names of its data sets, sorted: averages over others are no comparison."""
    return tuple(sorted(row for row in result.rows if "/" not in row and not row.startswith("average")))


def headline(results: list[Result]) -> str | None:
    """The row that says most about all results: the only data set, else the paper's average, else the plain one."""
    sets = {sets_of(r) for r in results}
    only = [row for rows in sets for row in rows if len(sets) == len(rows) == 1]
    candidates = [*only, *(["average (paper)", "average (plain)"] if len(sets) == 1 else [])]
    return next((row for row in candidates if results and all(row in r.rows for r in results)), None)


# ---------------------------------------------------------------------------------------------------- responses to read


def choose_questions(asked: list[list]) -> list:
    """Up to QUESTIONS questions, those that all results answered if there are any, in turn from each source and evenly
    spread within it: a picture of the whole, chosen without looking at the responses."""
    asked = [questions for questions in asked if questions]
    if not asked:
        return []
    shared = set(asked[0]).intersection(*asked[1:]) or set().union(*asked)
    by_source = defaultdict(list)
    for key in dict.fromkeys(itertools.chain.from_iterable(asked)):
        if key in shared:
            by_source[key[0]].append(key)
    per_source = math.ceil(QUESTIONS / len(by_source))
    spread = [keys[:: max(1, len(keys) // per_source)] for keys in by_source.values()]
    return [key for turn in itertools.zip_longest(*spread) for key in turn if key is not None][:QUESTIONS]


def question_of(record: dict) -> dict:
    """A question as the page has it; prompt and truth are None where no file tells them."""
    prompt, truth = record.get("prompt"), record.get("truth")
    return {key: record.get(key) for key in KEYS} | {"prompt": prompt and cut(str(prompt)), "truth": cut_truth(truth)}


def row_of(question: int, record: dict, remark: str = "") -> dict:
    """A graded response (minidrpo/records.py) as the page has it: `question` instead of its source and index."""
    row = {"question": question, "remark": remark, "response": cut(record["response"])}
    answer = record["answer"] and cut(str(record["answer"]), ANSWER)
    return (
        row | {key: record[key] for key in ("sample", "correct", "reason", "length", "finished")} | {"answer": answer}
    )


def cut(text: str, limit: int | None = None) -> str:
    """Its beginning and its end, if it is longer than `limit` (default: TEXT) characters."""
    limit = limit or TEXT
    if len(text) <= limit:
        return text
    return f"{text[: limit * 2 // 3]}\n[... {len(text) - limit:,} characters left out ...]\n{text[-limit // 3 :]}"


def cut_truth(truth):
    """A truth, or each of several."""
    if isinstance(truth, list):
        return [cut_truth(item) for item in truth[:20]]
    return cut(truth, ANSWER) if isinstance(truth, str) else truth


def gather_responses(results: list[Result], samples: list[tuple[str, Path]], asked: list[list]) -> dict:
    """{questions, lists, note}: for each result, and for each samples.jsonl of `samples` (name of the run, path), a
    list of `row_of` its responses. asked: the questions of each result."""
    chosen = {key: question_of(dict(zip(KEYS, key, strict=True))) for key in choose_questions(asked)}
    numbers = {key: number for number, key in enumerate(chosen)}
    lists, size = [], Counter()
    for result in results:
        for problem in jsonl.lines(result.problems, KEYS):
            if key_of(problem) in chosen:
                chosen[key_of(problem)] = question_of(problem)
        rows = [
            row_of(numbers[key_of(r)], r)
            for r in jsonl.lines(result.responses, KEYS)
            if key_of(r) in numbers and r["sample"] < SAMPLES
        ]
        # other questions before other responses to the same
        rows.sort(key=lambda row: (row["sample"], row["question"]))
        for row in rows:
            size[row["question"]] += len(row["response"])
        lists.append({"name": result.name, "responses": rows})
    # whole questions, in the order chosen, until the page is full
    kept = sum(used <= TEXTS for used in itertools.accumulate(size[number] for number in range(len(chosen))))
    for part in lists:
        part["responses"] = [row for row in part["responses"] if row["question"] < kept]
    questions = list(chosen.values())[:kept]
    note = "{} of {} questions, spread evenly over the data sets; of each the first {} responses"
    note = note.format(kept, len(asked[0]), SAMPLES) if kept else ""
    lists += [read_samples(name, path, questions) for name, path in samples]
    return {"questions": questions, "lists": [part for part in lists if part["responses"]], "note": note}


def read_samples(name: str, path: Path, questions: list[dict]) -> dict:
    """The training samples of a run as a list of responses, whole groups, spread evenly; adds to `questions`."""
    groups = defaultdict(list)
    for r in jsonl.lines(path, KEYS):
        groups[r["step"], *key_of(r)].append(r)
    rows, used = [], 0
    for group in list(groups.values())[:: max(1, len(groups) // 50)]:
        questions.append(question_of(group[0]))
        rows += [row_of(len(questions) - 1, r, f"step {r['step']}, weight {r['weight']:.2f}") for r in group]
        used += sum(len(r["response"]) for r in rows[-len(group) :])
        if used > TEXTS / 4:
            break
    return {"name": f"{name}, training samples", "responses": rows}


# ---------------------------------------------------------------------------------------------------- the page


def collect(directories: Iterable[str | Path]) -> dict:
    """Everything the page shows, as plain JSON data."""
    results, dynamics, samples = [], [], []
    for directory in directories:
        found, curves = read_directory(directory)
        results += found
        if curves:
            dynamics.append(curves | {"result": len(results) - 1 if found else None})  # the result whose colour it has
            samples.append((curves["name"], Path(directory) / "samples.jsonl"))
    for name, count in Counter(r.name for r in results).items():
        for number, r in enumerate([r for r in results if r.name == name and count > 1], start=1):
            r.name = f"{name} ({number})"
    groups, asked = zip(*map(survey, results), strict=True) if results else ((), ())
    return {
        "results": [{"name": r.name, "about": r.about, "rows": r.rows, "path": r.path} for r in results],
        "headline": headline(results),
        "aes": {"constants": AES, "scores": scores(results)},
        "histograms": histograms(groups),
        "reflection": REFLECTION,
        "dynamics": dynamics,
        "responses": gather_responses(results, samples, asked),
    }


def render(data: dict, title: str) -> str:
    """The page as text. Equal data gives an equal page."""
    style = (PAGE / "report.css").read_text("utf-8")
    script = "".join((PAGE / name).read_text("utf-8") for name in ("charts.js", "responses.js", "report.js"))
    assert "</s" not in style + script, "would end its element"
    # In JSON only strings hold < > & or U+2028, and there \uXXXX says the same; ASCII also carries lone surrogates
    payload = json.dumps(as_json(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    payload = payload.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})

    def digest(text):
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    policy = f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}"
    policy += "; base-uri 'none'; form-action 'none'"
    return Template((PAGE / "report.html").read_text("utf-8")).substitute(
        title=html.escape(cli.visible(title)), policy=policy, style=style, script=script, data=payload
    )


def write(directories: Iterable[str | Path], out_html: str | Path) -> Path:
    """Write the page of these directories (the first is the base) to `out_html`; the whole file or none of it."""
    directories = list(directories)
    if not directories:
        raise ValueError("name at least one directory of an evaluation or a training run")
    title = ", ".join(Path(directory).resolve().name for directory in directories)
    jsonl.write_text(Path(out_html), render(collect(directories), title))
    return Path(out_html)


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and not argv[0].startswith("-"):
        argv.insert(0, "--dirs")
    cfg = cli.parse(Config, argv, prog="html_report.py", description="One page for evaluations and training runs.")
    with cli.user_errors():
        out = Path(cfg.out or (Path(cfg.dirs[0]) / "report.html" if len(cfg.dirs) == 1 else "report.html"))
        if out.suffix.lower() not in (".html", ".htm"):  # what is there may be one of a run's own files
            raise ValueError(f"--out {out}: the page is a file named .html")
        try:
            write(cfg.dirs, out)
        except OSError as error:
            raise ValueError(f"{out} cannot be written: {error}") from error
        except (AttributeError, KeyError, TypeError) as error:  # what eval.py and train.py write has its keys and types
            raise ValueError(f"{', '.join(cfg.dirs)}: a file there is not as it was written ({error!r})") from error
    print(cli.visible(str(out)))


if __name__ == "__main__":
    sys.exit(main())
