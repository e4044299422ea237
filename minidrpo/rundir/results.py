"""results.py - the directory of an evaluation: whose it is, its responses as they come, its results. No models.

config.json             what was asked: anything else in the same directory is refused
responses.part-R.jsonl  while it runs: the responses of rank R, appended as they are finished
problems.jsonl          the questions and their truths, in the order of the responses
responses.jsonl         at the end: one object per response, in the order of the problems
results.json            the numbers (metrics.py); a function of the responses, so equal ones give an equal file
"""

import contextlib
import dataclasses
import hashlib
import json
from datetime import datetime
from pathlib import Path
from statistics import fmean

from minidrpo import cli
from minidrpo.files import read_json
from minidrpo.records import GradedResponse, Problem
from minidrpo.rundir import jsonl
from minidrpo.rundir.metrics import AES, aes_of, as_json, exceed, paper_average, summarise

FIELDS = {f.name: f.type for f in dataclasses.fields(GradedResponse) if f.name != "rollout"}


def set_name(source: str) -> str:
    """The data set: `arithmetic` of the source `arithmetic/level-3`."""
    return source.split("/")[0]


def first_start(output: Path) -> datetime:
    """When the evaluation in this directory was started for the first time: the date that a chat template tells."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # there is none, or claim_directory says more
        return datetime.fromisoformat(json.loads((output / "config.json").read_text())["date"])
    return datetime.now()


def claim_directory(
    output: Path, cfg, max_response_tokens: int, problems: list[Problem], prompt_ids: list[list[int]], now: datetime
) -> None:
    """Write config.json, or refuse (ValueError) a directory whose responses another model, data set or sampling
    setting gave, or that holds a model or a run. now: the date that prompts tell."""
    asked_of = [
        [p.source, p.index, p.truth, ids, *([p.grader] if p.grader else [])]
        for p, ids in zip(problems, prompt_ids, strict=True)
    ]
    asked = {
        "model": cfg.model,
        "weights": fingerprint(cfg.model),
        "datasets": list(cfg.datasets),
        "prompts": hashlib.sha256(json.dumps(asked_of).encode()).hexdigest(),
        "max_response_tokens": max_response_tokens,
    }
    asked |= {name: getattr(cfg, name) for name in ("samples", "temperature", "top_p", "chunk", "seed", "sampler")}
    path = output / "config.json"
    try:
        output.mkdir(parents=True, exist_ok=True)
        found = read_json(path) if path.exists() else {}
        started = any(output.glob("responses*.jsonl"))
        if found and not isinstance(found, dict):
            raise ValueError(f"{path} is not a configuration")
        if found and "prompts" not in found:  # a model's, a run's: it would be lost
            raise ValueError(f"{path} is not of an evaluation: take another --output-dir")
        if started and not found:
            raise ValueError(f"{output} holds responses but no config.json to say whose: take another --output-dir")
        if not started:  # nothing came of an earlier start
            jsonl.write_text(path, json.dumps(asked | {"date": now.isoformat()}, indent=1) + "\n")
            return
    except OSError as error:
        raise ValueError(f"--output-dir {output} cannot be used: {error}") from error
    # Paths may change between two starts as long as what they lead to is the same
    for name, what in {"weights": "model", "prompts": "datasets"}.items():
        if found.get(name) != asked[name]:
            was = f"other {name} ({what} {found.get(what)})"
            raise ValueError(f"{output} holds responses of {was}: take another --output-dir")
    other = [n for n in asked if n not in ("model", "datasets") and found.get(n) != asked[n]]
    if other:
        was = ", ".join(f"--{name.replace('_', '-')} {found.get(name)} (now {asked[name]})" for name in other)
        raise ValueError(f"{output} holds responses with {was}: take another --output-dir")


def fingerprint(model: str) -> str:
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


def read_responses(output: Path) -> list[GradedResponse]:
    """Every whole response saved in the directory, each once, whichever rank wrote it. Left out is what a kill tore and
    what is no response: a key too many, a value of another kind, a length below 0."""
    found = {}
    for path in [output / "responses.jsonl", *sorted(output.glob("responses.part-*.jsonl"))]:
        for record in jsonl.lines(path, FIELDS, skip_broken=True):
            kinds_fit = record.keys() == FIELDS.keys() and all(cli.fits(record[k], FIELDS[k]) for k in FIELDS)
            if kinds_fit and record["length"] >= 0:
                response = GradedResponse(**record)
                found[response.source, response.index, response.sample] = response
    return list(found.values())


def read_reference(directory: str | Path) -> dict:
    """The results.json of another evaluation, for AES. ValueError, before the work starts, if it is none."""
    path = Path(directory) / "results.json"
    if not path.exists():
        raise ValueError(f"--reference {directory}: no results.json there")
    try:
        found = read_json(path)
        for row in (*found["sets"].values(), found["average"]["plain"], found["average"]["paper"]):
            float(row["accuracy"] or 0), float(row["mean_length"] or 0)  # null: not known
        found["config"]["model"]
        return found
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"--reference {path}: not the results of an evaluation ({error!r})") from error


def write_results(
    cfg, result, output, max_response_tokens, notes, reference=None, features=None
) -> tuple[dict, dict, dict | None]:
    """Write results.json and responses.jsonl; returns (name -> EvalResult, one per data set; their averages; AES).
    features: data set -> what to count in the texts of its responses."""
    by_set = {}
    for r in result.responses:
        by_set.setdefault(set_name(r.source), []).append(r)
    sets = {
        name: summarise(responses, limit=max_response_tokens, features=(features or {}).get(name))
        for name, responses in by_set.items()
    }
    average = {"plain": {}, "paper": {}}
    for key in ("accuracy", "mean_length"):
        by_name = {name: getattr(r, key) for name, r in sets.items()}
        average["plain"][key], average["paper"][key] = fmean(by_name.values()), paper_average(by_name)
    settings = dataclasses.asdict(cfg) | {"max_response_tokens": max_response_tokens}
    del settings["output_dir"]
    results = {"config": settings, "notes": notes, "average": average, "sets": sets}
    results["exceed"] = {"tokens": cfg.exceed} | {name: exceed(r.responses, cfg.exceed) for name, r in sets.items()}
    if reference:
        results["aes"] = compare(sets, average, reference)
    jsonl.write_text(output / "results.json", json.dumps(as_json(results), indent=1) + "\n")
    jsonl.write_text(output / "results_lm_eval.json", json.dumps(as_lm_eval(cfg, sets), indent=1) + "\n")
    jsonl.write(output / "responses.jsonl", (r.as_dict() for r in result.responses))
    for part in output.glob("responses.part-*.jsonl"):  # only now: until here they were the only copy
        part.unlink()
    return sets, average, results.get("aes")


def as_lm_eval(cfg, sets: dict) -> dict:
    """The same numbers in the form that readers of lm-evaluation-harness's results_*.json know."""

    def row(name, r):
        found = {"exact_match": (r.accuracy, r.accuracy_se), "mean_length": (r.mean_length, r.mean_length_se)}
        numbers = {
            f"{key}{end},none": x for key, pair in found.items() for end, x in zip(("", "_stderr"), pair, strict=True)
        }
        return {"alias": name} | as_json(numbers)

    n = {name: {"original": r.n_problems, "effective": r.n_problems} for name, r in sets.items()}
    about = {"task": "", "num_fewshot": 0, "repeats": cfg.samples, "output_type": "generate_until"}
    return {
        "results": {name: row(name, r) for name, r in sets.items()},
        "configs": {name: about | {"task": name} for name in sets},
        "versions": dict.fromkeys(sets, 0),
        "n-shot": dict.fromkeys(sets, 0),
        "n-samples": n,
        "higher_is_better": dict.fromkeys(sets, {"exact_match": True, "mean_length": False}),
        "config": {"model": "drpo-minimal", "model_args": f"pretrained={cfg.model}", "random_seed": cfg.seed},
    }


def compare(sets: dict, average: dict, reference: dict) -> dict:
    """AES of each set and of both averages against a reference's results.json, with the constants it was made with."""
    pairs = {name: (as_json(r), reference["sets"].get(name)) for name, r in sets.items()}
    if sets.keys() == reference["sets"].keys():  # averages over other sets are no comparison
        pairs |= {f"average ({kind})": (average[kind], reference["average"][kind]) for kind in average}
    scores = {name: aes_of(new, old) for name, (new, old) in pairs.items() if old}
    known = {name: score for name, score in scores.items() if score is not None}
    return {"reference": reference["config"]["model"], "constants": AES, **known}
