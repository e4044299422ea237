"""html_report.py - report.html: evaluations and training runs as one page that needs nothing but itself.

    python html_report.py DIR [DIR ...] [--out FILE]       DIR: what eval.py or train.py wrote; the first is the base

The page holds the headline, accuracy against length, length histograms, a run's dynamics, and responses to read side by
side with their reflection words marked. This file only gathers numbers and texts; page/ draws them in the browser.

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
from dataclasses import dataclass
from pathlib import Path
from string import Template

from minidrpo import cli
from minidrpo.reflection import REFLECTION, reflection_words
from minidrpo.rundir import jsonl
from minidrpo.rundir.metrics import AES, aes, as_json
from minidrpo.rundir.results import set_name_of
from minidrpo.show.plots import read_run

PAGE = Path(__file__).resolve().parent / "page"
# What is embedded at most. A page of a few MB opens at once, also on a phone; everything is in responses*.jsonl
QUESTIONS, SAMPLES = 240, 4
TEXT = 8_000  # characters of one response; longer ones lose their middle
TEXTS = 6_000_000  # characters of all responses
KEYS = ("source", "index")  # of every record here
BINS = 48  # about; widths are round numbers


@dataclass(frozen=True)
class Config:
    dirs: tuple[str, ...] = ()
    """Directories of evaluations and training runs."""
    out: str = ""
    """The page to write; default: report.html in the first directory if there is one, else here."""


@dataclass
class Result:
    """One model's evaluation: rows of numbers, and where its single responses are."""

    name: str
    rows: dict
    """Row (data set, part of one, average) -> numbers as in results.json."""
    about: str = ""
    problems: Path | None = None
    responses: Path | None = None
    path: tuple = ()
    """(step, rows) of a training run's evaluations on the way to this one."""


# ---------------------------------------------------------------------------------------------------- reading


def read_directory(directory) -> tuple[list[Result], dict | None, Path | None]:
    """(results, dynamics, samples.jsonl) of an evaluation's or a training run's directory, else ValueError."""
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such directory")
    if (directory / "results.json").exists():
        return [read_evaluation(directory)], None, None
    if (directory / "metrics.jsonl").exists() or (directory / "evals.jsonl").exists():
        return read_training(directory)
    if any(directory.glob("responses.part-*.jsonl")):
        raise ValueError(f"{directory}: an evaluation that is not finished; start its command again, it goes on")
    raise ValueError(f"{directory}: neither an evaluation (results.json) nor a training run (metrics.jsonl)")


def read_evaluation(directory) -> Result:
    found = read_json(directory / "results.json")
    if not isinstance(found, dict) or not {"sets", "average", "config"} <= set(found):
        raise ValueError(f"{directory / 'results.json'}: not the results of an evaluation")
    rows = {}
    for name, numbers in found["sets"].items():
        rows[name] = without_parts(numbers) | {"exceed": found.get("exceed", {}).get(name)}
        rows |= {part: without_parts(sub) for part, sub in numbers.get("by_source", {}).items()}
    rows |= {f"average ({kind})": mean for kind, mean in found["average"].items() if mean.get("accuracy") is not None}
    c = found["config"]
    about = (
        f"{c.get('model')}: {c.get('samples')} responses per problem, temperature {c.get('temperature')}, "
        f"top-p {c.get('top_p')}, at most {c.get('max_tokens')} tokens"
    )
    return Result(directory.resolve().name, rows, about, directory / "problems.jsonl", directory / "responses.jsonl")


def read_training(directory):
    """A run's first and last evaluations as results, its curves, its samples.

    Their responses come from responses_before.jsonl and responses_after.jsonl, the questions from problems.jsonl
    (rundir/log.py); without them the page has no histograms of this run and no pairs.
    """
    config = read_json(directory / "config.json") if (directory / "config.json").exists() else {}
    # A run stopped early has evaluations alone
    training, evaluations = read_run(directory) if (directory / "metrics.jsonl").exists() else ([], [])
    if not evaluations and (directory / "evals.jsonl").exists():
        evaluations = read_run(directory / "evals.jsonl")[0]
    name, results = directory.resolve().name, []
    path = tuple((e["step"], evaluation_rows(e)) for e in evaluations)
    for which, e, step_path in (("before", evaluations[:1], ()), ("after", evaluations[1:][-1:], path)):
        for record in e:
            about = (
                f"{config.get('model')} after {record['step']} steps: {record.get('n_samples')} responses per problem,"
                f" temperature {config.get('temperature')}, at most {config.get('max_response_tokens')} tokens"
            )
            results.append(
                Result(
                    f"{name}, step {record['step']}",
                    evaluation_rows(record),
                    about,
                    directory / "problems.jsonl",
                    directory / f"responses_{which}.jsonl",
                    step_path,
                )
            )
    keys = ("accuracy", "mean_length", "objective", "kl", "grad_norm", "mixed_groups", "truncated")
    dynamics = {
        "name": name,
        "about": ", ".join(
            f"{key} {config[key]}" for key in ("lam", "lr", "prompts_per_step", "group_size", "seed") if key in config
        ),
        "training": {key: [[r["step"], r[key]] for r in training if is_number(r.get(key))] for key in keys},
        "held_out": {
            key: [[e["step"], e[key], e.get(f"{key}_se")] for e in evaluations if is_number(e.get(key))]
            for key in ("accuracy", "mean_length", "truncated")
        },
    }
    return results, dynamics, directory / "samples.jsonl"


def evaluation_rows(record) -> dict:
    """The rows of one line of evals.jsonl: the whole, its parts."""
    parts = record.get("by_source") or {}
    sets = {set_name_of(part) for part in parts}
    whole = without_parts(record)
    name = sets.pop() if len(sets) == 1 else "held out"
    return {name: whole} | {part: without_parts(sub) for part, sub in parts.items()} | {"average (plain)": whole}


def without_parts(numbers):
    return {k: v for k, v in numbers.items() if k != "by_source"}


def read_json(path):
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error


def is_number(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


# ---------------------------------------------------------------------------------------------------- numbers


def groups_of(source):
    """The rows a response belongs to: all, its data set, its part of it."""
    return dict.fromkeys(("all", set_name_of(source), source))


def survey(result) -> dict:
    """One pass over a result's responses: for each group of them the lengths by outcome and the reflection words."""
    groups, questions = {}, {}
    for a in jsonl.lines(result.responses, KEYS):
        words = reflection_words(a["response"])
        questions.setdefault((a["source"], a["index"]), None)
        outcome = "right" if a["correct"] else "wrong" if a["finished"] else "cut"
        for name in groups_of(a["source"]):
            group = groups.setdefault(
                name, {"right": Counter(), "wrong": Counter(), "cut": Counter(), "n": 0, "words": Counter()}
            )
            group[outcome][a["length"]] += 1
            group["n"] += 1
            group["words"] += words
    return {"groups": groups, "questions": list(questions)}


def histograms(surveys) -> list:
    """For each group of responses {group, width, results: [{right, wrong, cut, n, words} | None]}, in bins of
    one width: bin i counts the lengths in (i * width, (i + 1) * width]. words: of each kind, per response."""
    names = dict.fromkeys(itertools.chain.from_iterable(s["groups"] for s in surveys))
    made = []
    for name in names:
        found = [s["groups"].get(name) for s in surveys]
        longest = max(max(g[outcome], default=1) for g in found if g for outcome in ("right", "wrong", "cut"))
        width = nice(longest / BINS)
        results = []
        for g in found:
            if g is None:
                results.append(None)
                continue
            bins = {outcome: [0] * math.ceil(longest / width) for outcome in ("right", "wrong", "cut")}
            for outcome, counts in bins.items():
                for length, count in g[outcome].items():
                    counts[max(0, math.ceil(length / width) - 1)] += count
            words = {word: g["words"][word] / g["n"] for word in REFLECTION}
            results.append(bins | {"n": g["n"], "words": words})
        made.append({"group": name, "width": width, "results": results})
    # one data set makes "all", and one part makes its data set, the same again
    return [h for i, h in enumerate(made) if not any(h["results"] == other["results"] for other in made[i + 1 :])]


def nice(width) -> int:
    """The least of 1, 2, 5, 10, 20, 50, ... that is not below `width`."""
    return next(m * 10**e for e in range(12) for m in (1, 2, 5) if m * 10**e >= width)


def scores(results) -> list:
    """AES of every result against every other as the reference: scores[i][j][row], nan left out."""

    def of(new, old):
        if not old.get("accuracy") or not old.get("mean_length") or not is_number(new.get("accuracy")):
            return None
        return aes(new["accuracy"], new["mean_length"], old["accuracy"], old["mean_length"])

    return [
        [{row: of(r.rows[row], base.rows[row]) for row in r.rows if row in base.rows} for base in results]
        for r in results
    ]


def headline(results) -> str | None:
    """The row that says most about all results: the only data set, else the paper's average, else the plain one."""
    rows = [[row for row in r.rows if "/" not in row and not row.startswith("average")] for r in results]
    candidates = (rows[0] if all(r == rows[0] and len(r) == 1 for r in rows) else []) if rows else []
    candidates = [*candidates, "average (paper)", "average (plain)"]
    return next((row for row in candidates if results and all(row in r.rows for r in results)), None)


# ---------------------------------------------------------------------------------------------------- responses to read


def choose_questions(surveys) -> list:
    """Up to QUESTIONS questions, those that all results answered if there are any, in turn from each source and evenly
    spread within it: a picture of the whole, chosen without looking at the responses."""
    asked = [s["questions"] for s in surveys if s["questions"]]
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


def shortened(text) -> str:
    if len(text) <= TEXT:
        return text
    return f"{text[: TEXT * 2 // 3]}\n[... {len(text) - TEXT:,} characters left out ...]\n{text[-TEXT // 3 :]}"


def row_of(question: int, record: dict, remark: str = "") -> dict:
    """A graded response (minidrpo/records.py) as the page has it: `question` instead of its source and index."""
    row = {"question": question, "remark": remark, "response": shortened(record["response"])}
    return row | {key: record[key] for key in ("sample", "correct", "reason", "answer", "length", "finished")}


def gather_responses(results, samples, surveys) -> dict:
    """{questions, lists, note}: questions [source, index, prompt, truth]; for each result and each samples.jsonl a list
    of `row_of` its responses."""
    chosen = choose_questions(surveys)
    numbers = {key: i for i, key in enumerate(chosen)}
    questions = [[*key, None, None] for key in chosen]
    lists, asked = [], sum(len(s["questions"]) for s in surveys[:1])
    for result in results:
        for p in jsonl.lines(result.problems, KEYS):
            if (i := numbers.get((p["source"], p["index"]))) is not None:
                questions[i][2:] = p["prompt"], p["truth"]
        rows = [
            row_of(numbers[r["source"], r["index"]], r)
            for r in jsonl.lines(result.responses, KEYS)
            if r["sample"] < SAMPLES and (r["source"], r["index"]) in numbers
        ]
        rows.sort(
            key=lambda row: (row["sample"], row["question"])
        )  # other questions before other responses to the same
        lists.append({"name": result.name, "responses": rows})
    kept, used = 0, 0  # whole questions, in the order chosen, until the page is full
    size = Counter()
    for row in itertools.chain.from_iterable(part["responses"] for part in lists):
        size[row["question"]] += len(row["response"])
    while kept < len(chosen) and used + size[kept] <= TEXTS:
        used, kept = used + size[kept], kept + 1
    for part in lists:
        part["responses"] = [row for row in part["responses"] if row["question"] < kept]
    questions = questions[:kept]
    note = f"{kept} of {asked} questions, spread evenly over the data sets; of each the first {SAMPLES} responses"
    for name, path in samples:
        part = read_samples(name, path, questions)
        lists += [part] if part["responses"] else []
    return {
        "questions": questions,
        "lists": [part for part in lists if part["responses"]],
        "note": note if kept else "",
    }


def read_samples(name, path, questions) -> dict:
    """The training samples of a run as a list of responses, whole groups, spread evenly; adds to `questions`."""
    groups = defaultdict(list)
    for r in jsonl.lines(path, KEYS):
        groups[r["step"], r["source"], r["index"]].append(r)
    rows, used = [], 0
    for group in list(groups.values())[:: max(1, len(groups) // 50)]:
        questions.append([group[0]["source"], group[0]["index"], group[0]["prompt"], group[0]["truth"]])
        for r in group:
            rows.append(row_of(len(questions) - 1, r, f"step {r['step']}, weight {r['weight']:.2f}"))
            used += len(rows[-1]["response"])
        if used > TEXTS / 4:
            break
    return {"name": f"{name}, training samples", "responses": rows}


# ---------------------------------------------------------------------------------------------------- the page


def collect(directories) -> dict:
    """Everything the page shows, as plain JSON data."""
    results, dynamics, samples = [], [], []
    for directory in directories:
        found, curves, path = read_directory(directory)
        results += found
        dynamics += [curves | {"result": len(results) - 1 if found else None}] if curves else []  # whose colour it has
        samples += [(curves["name"], path)] if curves else []
    for name, count in Counter(r.name for r in results).items():
        same = [r for r in results if r.name == name]
        for number, r in enumerate(same if count > 1 else [], start=1):
            r.name = f"{name} ({number})"
    surveys = [survey(r) for r in results]
    return {
        "results": [{"name": r.name, "about": r.about, "rows": r.rows, "path": r.path} for r in results],
        "headline": headline(results),
        "aes": {"constants": AES, "scores": scores(results)},
        "histograms": histograms(surveys),
        "reflection": REFLECTION,
        "dynamics": dynamics,
        "responses": gather_responses(results, samples, surveys),
    }


def render(data, title) -> str:
    """The page as text. Equal data gives an equal page."""
    style, script = (
        (PAGE / "report.css").read_text("utf-8"),
        "".join((PAGE / name).read_text("utf-8") for name in ("charts.js", "responses.js", "report.js")),
    )
    for text in (style, script):
        assert "</s" not in text, "would end its element"
    # In JSON only strings hold < > & or U+2028, and there \uXXXX says the same; ASCII also carries lone surrogates
    payload = json.dumps(as_json(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    payload = payload.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})

    def digest(text):
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; base-uri 'none'; "
        "form-action 'none'"
    )
    return Template((PAGE / "report.html").read_text("utf-8")).substitute(
        title=html.escape(title), policy=policy, style=style, script=script, data=payload
    )


def write(directories, out_html) -> Path:
    """Write the page of these directories (the first is the base) to `out_html`; the whole file or none of it."""
    directories = [directories] if isinstance(directories, (str, Path)) else list(directories)
    if not directories:
        raise ValueError("name at least one directory of an evaluation or a training run")
    names = [Path(d).resolve().name for d in directories]
    out = Path(out_html)
    jsonl.write_text(out, render(collect(directories), ", ".join(names)))
    return out


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    argv = (["--dirs", *words] if words else []) + argv[len(words) :]
    cfg = cli.parse(Config, argv, prog="html_report.py", description="One page for evaluations and training runs.")
    with cli.user_errors():
        out = Path(cfg.out or (Path(cfg.dirs[0]) / "report.html" if len(cfg.dirs) == 1 else "report.html"))
        try:
            write(cfg.dirs, out)
        except OSError as error:
            raise ValueError(f"{out} cannot be written: {error}") from error
        except (AttributeError, KeyError, TypeError) as error:  # what eval.py and train.py write has its keys and types
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"{', '.join(cfg.dirs)}: a file there is not as it was written ({what})") from error
    print(out)


if __name__ == "__main__":
    sys.exit(main())
