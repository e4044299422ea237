"""results.py - the directory of an evaluation: whose it is, its answers as they come, its results. No models.

config.json             what was asked: anything else in the same directory is refused
answers.part-R.jsonl    while it runs: the answers of rank R, appended as they are finished
problems.jsonl          the questions and their true answers, in the order of the answers
answers.jsonl           at the end: one object an answer, in the order of the problems
results.json            the numbers (metrics.py); a function of the answers, so equal answers give an equal file
"""

import dataclasses
import hashlib
import json
import math
import operator
import os
from pathlib import Path
from statistics import fmean

from minidrpo.rundir.metrics import AES, Answer, aes, as_json, exceed, paper_average, summarise


def set_name_of(source):
    """The data set: `arithmetic` of the source `arithmetic/level-3`."""
    return source.split("/")[0]


def set_name(problem_or_answer):
    return set_name_of(problem_or_answer.source)


def claim_directory(output, cfg, max_tokens, problems, prompt_ids):
    """Write config.json, or refuse a directory whose answers another model, data set or sampling setting gave."""
    prompts = json.dumps([[p.source, p.index, p.answer, ids] for p, ids in zip(problems, prompt_ids, strict=True)])
    asked = {
        "model": cfg.model,
        "weights": fingerprint(cfg.model),
        "datasets": list(cfg.datasets),
        "prompts": hashlib.sha256(prompts.encode()).hexdigest(),
        "max_tokens": max_tokens,
    }
    asked |= {name: getattr(cfg, name) for name in ("samples", "temperature", "top_p", "chunk", "seed", "sampler")}
    path = output / "config.json"
    try:
        output.mkdir(parents=True, exist_ok=True)
        found = json.loads(path.read_text()) if path.exists() else {}
        if not found:
            if any(output.glob("answers*.jsonl")):
                raise ValueError(f"{output} holds answers but no config.json to say whose: take another --output-dir")
            write(path, json.dumps(asked, indent=1) + "\n")
            return
        if not isinstance(found, dict):
            raise ValueError(f"{path} is not a configuration")
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"--output-dir {output} cannot be used: {error}") from error
    # Paths may change between two starts as long as what they lead to is the same
    for name, what in {"weights": "model", "prompts": "datasets"}.items():
        if found.get(name) != asked[name]:
            was = f"other {name} ({what} {found.get(what)})"
            raise ValueError(f"{output} holds answers of {was}: take another --output-dir")
    other = [n for n in asked if n not in ("model", "datasets") and found.get(n) != asked[n]]
    if other:
        was = ", ".join(f"--{name.replace('_', '-')} {found.get(name)} (now {asked[name]})" for name in other)
        raise ValueError(f"{output} holds answers with {was}: take another --output-dir")


def fingerprint(model):
    """What tells two models apart without reading them whole: config, and size and both ends of each weight file."""
    digest = hashlib.sha256()
    files = sorted(Path(model).glob("*.safetensors")) + [Path(model) / "config.json"]
    if not files[-1].exists():
        return model  # a Hub id
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as f:
            digest.update(f"{file.name} {size}".encode() + f.read(2**20))
            f.seek(max(0, size - 2**20))
            digest.update(f.read())
    return digest.hexdigest()


def write_problems(path, problems):
    """The questions as text, for those who read the answers (html_report.py); `answer` is the truth."""
    write(path, "".join(json.dumps(dataclasses.asdict(p)) + "\n" for p in problems))


def write_answers(path, answers):
    """One object an answer."""
    write(path, "".join(json.dumps(dataclasses.asdict(a)) + "\n" for a in answers))


def append_answers(output, rank, answers):
    """Save a chunk's answers at once. A kill may tear the last line; then read_answers does not count it."""
    with open(output / f"answers.part-{rank}.jsonl", "a+", encoding="utf-8") as file:
        if file.tell() and not _ends_with_newline(file.name):
            file.write("\n")
        file.write("".join(json.dumps(dataclasses.asdict(a)) + "\n" for a in answers))


def _ends_with_newline(path):
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def read_answers(output) -> list[Answer]:
    """Every whole answer saved in the directory, each once, whichever rank wrote it."""
    found = {}
    for path in [output / "answers.jsonl", *sorted(output.glob("answers.part-*.jsonl"))]:
        for line in path.open(encoding="utf-8", errors="replace") if path.exists() else ():
            try:
                answer = Answer(**json.loads(line))
                operator.index(answer.length)  # TypeError for what is no whole number
            except (json.JSONDecodeError, TypeError):  # torn by a kill: asked again
                continue
            found[answer.source, answer.index, answer.sample] = answer
    return list(found.values())


def read_reference(directory) -> dict:
    """The results.json of another evaluation, for AES. What is wrong with it is said here, before the work starts."""
    path = Path(directory) / "results.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        numbers = [*found["sets"].values(), found["average"]["plain"], found["average"]["paper"]]
        for row in numbers:
            for key in ("accuracy", "mean_length"):
                float(row[key] or 0)  # null: not known
        found["config"]["model"]
        return found
    except FileNotFoundError as error:
        raise ValueError(f"--reference {directory}: no results.json there") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"--reference {path} cannot be read: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--reference {path}: not the results of an evaluation") from error


def write_results(cfg, result, output, max_tokens, notes, reference=None) -> tuple[dict, dict, dict | None]:
    """Write results.json and answers.jsonl; returns (name -> EvalResult, one a data set; their averages; AES)."""
    by_set = {}
    for a in result.answers:
        by_set.setdefault(set_name(a), []).append(a)
    sets = {name: summarise(answers) for name, answers in by_set.items()}
    average = {"plain": {}, "paper": {}}
    for key in ("accuracy", "mean_length"):
        by_name = {name: getattr(r, key) for name, r in sets.items()}
        average["plain"][key], average["paper"][key] = fmean(by_name.values()), paper_average(by_name)
    settings = dataclasses.asdict(cfg) | {"max_tokens": max_tokens}
    del settings["output_dir"]
    results = {
        "config": settings,
        "notes": notes,
        "average": average,
        "sets": sets,
        "exceed": {"tokens": cfg.exceed} | {name: exceed(r.answers, cfg.exceed) for name, r in sets.items()},
    }
    if reference:
        results["aes"] = compare(sets, average, reference)
    write(output / "results.json", json.dumps(as_json(results), indent=1) + "\n")
    write_answers(output / "answers.jsonl", result.answers)
    for part in output.glob("answers.part-*.jsonl"):  # only now: until here they were the only copy
        part.unlink()
    return sets, average, results.get("aes")


def compare(sets, average, reference) -> dict:
    """AES of each set and of both averages against a reference's results.json, with the constants it was made with."""
    pairs = {name: (as_json(r), reference["sets"].get(name)) for name, r in sets.items()}
    pairs |= {f"average ({kind})": (average[kind], reference["average"][kind]) for kind in average}
    scores = {
        name: aes(new["accuracy"], new["mean_length"], old["accuracy"], old["mean_length"])
        for name, (new, old) in pairs.items()
        if old and old["accuracy"] and not math.isnan(new["accuracy"])
    }
    return {"reference": reference["config"]["model"], "constants": AES, **scores}


def write(path, text):
    """The whole file or none of it: a reader never meets a half-written one."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
