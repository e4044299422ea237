"""card.py - the README.md of a checkpoint, a model card: what the model is, how it was made, how good it is.

Anyone may upload a checkpoint as it is (README.md has the command); nothing of the machine it was made on is in here.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from minidrpo import markdown
from minidrpo.cli import visible
from minidrpo.methods.table import METHODS

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
CITATION = """@article{drpo,
  title = {DRPO: Efficient Reasoning via Decoupled Reward Policy Optimization},
  journal = {arXiv preprint arXiv:2510.04474},
  year = {2025}
}"""
NOT_SHOWN = {"run_dir", "resume", "track", "trust_remote_code", "show_every", "keep_checkpoints"}


def write(cfg, about: dict, evaluations: Sequence[dict], step: int) -> str:
    """The card's text after `step` steps. about: config.json's, with versions. evaluations: records of evals.jsonl."""
    row, name = METHODS[cfg.method], f"{_public(cfg.model).rpartition('/')[2]}-{cfg.method}"
    model, learned, asked = map(_public, (cfg.model, cfg.train_data, cfg.eval_data))
    known = [e for e in evaluations if e["step"] <= step]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=asked,
            dataset_name=asked,
            metric_type=metric,
            metric_value=round(known[-1][metric], 4),
        )
        for metric in ("accuracy", "mean_length")
        if known and known[-1]["step"] == step and known[-1][metric] is not None
    ]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["reinforcement-learning", "efficient-reasoning", cfg.method],
        base_model=cfg.model if HUB_ID.fullmatch(cfg.model) and not Path(cfg.model).exists() else None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    settings = {k: v for k, v in vars(cfg).items() if k not in NOT_SHOWN}
    settings |= {"model": model, "train_data": learned, "eval_data": asked}
    versions = [f"{key} {about[key]}" for key in ("python", "torch", "transformers") if key in about]
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        f"{model}, trained for {step} of {cfg.steps} steps with `{cfg.title}` on {learned}.",
        f"**Method.** {row.about}.",
        "## Evaluation",
        f"{cfg.samples} responses per problem of {asked}, temperature {cfg.temperature:g}, top_p {cfg.top_p:g}, "
        f"at most {cfg.max_response_tokens} tokens; a rule grades them.",
        _table(("step", "accuracy, %", "± standard error", "mean length, tokens", "truncated, %"), map(_row, known))
        if known
        else "None yet.",
        "## Settings",
        _table(("setting", "value"), [(k, f"`{_no_code(v)}`") for k, v in settings.items()]),
        "## Made with",
        ", ".join(versions) + (f"; commit {about['commit']}" if about.get("commit") else ""),
        "## Citation",
        f"```bibtex\n{CITATION}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _row(e):
    """None, as of the error of a single problem, is an empty cell."""
    percent = {key: 100 * e[key] if e[key] is not None else None for key in ("accuracy", "accuracy_se", "truncated")}
    numbers = (percent["accuracy"], percent["accuracy_se"], e["mean_length"], percent["truncated"])
    return e["step"], *("" if x is None else f"{x:.1f}" for x in numbers)


def _table(heads, rows):
    return markdown.table(heads, ([_plain(str(cell)) for cell in row] for row in rows))


def _public(name: str) -> str:
    """A path without the folders above its last two; a name as it is. What would be Markdown in it is none."""
    path = Path(name)
    name = "/".join(path.parts[-2:]) if path.is_absolute() or path.exists() else name
    return re.sub(r"[`*<>\[\]]", "-", _plain(name))


def _no_code(value) -> str:
    return str(value).replace("`", "-")


def _plain(text: str) -> str:
    """A text as one line that ends no cell of a table."""
    return visible(" ".join(text.split())).replace("|", "/")
