"""data.py - problems with known truths, and their prompts as token ids. No torch, no model.

A problem is a question in plain text and its truth, the answer (or answers) that a grader accepts. Problems come from

* the built-in tasks (BUILT_IN below, any machine, no download),
* a local `.parquet`, `.json` (array or lines) or `.jsonl` file, in the official schema (`prompt` = a chat of one user
  message, `reward_model.ground_truth`) or the plain one (`problem` or `question`, and `answer`),
* the Hugging Face Hub: a name in HUB below, or `OWNER/NAME[:CONFIG][@SPLIT]`.

A file that does not hold what it should stops here, with one ValueError that names the file, the row (counted from 0)
and the column. Left out: grading (reward.py) and batches on devices (minidrpo/engine).
"""

import contextlib
import difflib
import json
import math
import numbers
import re
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np

from minidrpo.records import Problem
from minidrpo.tasks import arithmetic, knights, thinking
from minidrpo.tasks.graders import GRADERS
from minidrpo.tasks.rows import SUFFIXES, TEXT_COLUMNS, TRUTH_COLUMNS, one_line, plain_rows, read_rows, shortest

SUFFIX = r"Let's think step by step and output the final answer within \boxed{}."
r"""The instruction of the official data (its `prompt` column already ends with it; the plain schema does not)."""

HUB = {  # name: id[:config][@split]
    "deepscaler": "agentica-org/DeepScaleR-Preview-Dataset@train",
    "aime": "HuggingFaceH4/aime_2024@train",
    "aime25": "math-ai/aime25@test",
    "amc": "AI-MO/aimo-validation-amc@train",
    "math": "HuggingFaceH4/MATH-500@test",
    "minerva": "math-ai/minervamath@test",
    "olympiad_bench": "math-ai/olympiadbench@test",
    "gsm8k": "openai/gsm8k:main@test",
}
QUESTION = "What is 17 + 25?"
"""What a chat template is tried with."""
BATCH = 1000  # prompts tokenised at once: the tokenizer keeps offsets and more of each, 20 times what is wanted
BUILT_IN = ("arithmetic", "thinking", *GRADERS)
SIZES = {"arithmetic": {"train": 8_000, "test": 512}, "thinking": {"train": 8_000, "test": 500}}  # problems
SIZES |= {name: task.SIZES for name, task in GRADERS.items()}


# ---------------------------------------------------------------------------------------------------- load


def load_problems(
    spec: str, *, split: str = "train", n: int | None = None, skip_unanswered: bool = False
) -> list[Problem]:
    """All problems (or the first `n`) of `spec`: a built-in task, a file, or a Hub data set (see the module docstring).

    `split` chooses among the splits of a built-in task and of a Hub id that names none. A row without a truth is an
    error unless `skip_unanswered`. Raises ValueError with one line on anything a user can get wrong.
    """
    if n is not None and n < 1:
        raise ValueError(f"cannot take {n} problems of {spec}: want at least 1")
    if is_built_in(spec):
        return _built_in(spec, split, n)
    if _looks_local(spec):
        rows, where = read_rows(spec), spec
        source = Path(spec).stem.encode("utf-8", "backslashreplace").decode()  # file names may be any bytes
    else:
        rows, where = hub_rows(spec, split)
        source = spec if spec in HUB else re.split("[:@]", spec)[0].split("/")[-1]
    problems = rows_to_problems(rows, source, where, skip_unanswered=skip_unanswered)
    return problems[:n]


def is_built_in(spec: str) -> bool:
    """Whether `spec` names a task of this package: one of BUILT_IN, or `thinking@0.9`."""
    return spec in BUILT_IN or spec.partition("@")[0] == "thinking"


def thinks_aloud(tokenizer, prompt_ids: list[int] = ()) -> bool:
    """Must a response close its thinking with </think> before it answers? The chat template tells (R1's and Qwen3's
    know the mark, Qwen2.5's does not), or the vocabulary where there is no template. Not if a prompt ends in
    <think></think>: then the template has closed it."""
    if tokenizer.decode(prompt_ids).rstrip().endswith("</think>"):
        return False
    template = getattr(tokenizer, "chat_template", None)
    return "think>" in str(template) if template else "</think>" in tokenizer.get_vocab()


def features(spec) -> dict:
    """{name: function(text of a response) -> bool} that a built-in task wants counted: what evaluations report beside
    accuracy and length. Other data sets have none."""
    return thinking.FEATURES if spec.partition("@")[0] == "thinking" else {}


def _built_in(spec, split, n):
    """`thinking@0.9`: nine tenths of the training problems are easy. Held-out ones are balanced over the levels."""
    name, at, share = spec.partition("@")
    if split not in SIZES[name]:
        raise ValueError(f"{name} has no split {split!r}: choose from {', '.join(SIZES[name])}")
    task, more = {"arithmetic": arithmetic, "thinking": thinking, **GRADERS}[name], {}
    if name == "thinking":
        if at and not re.fullmatch(r"[0-9]*\.?[0-9]+", share):
            raise ValueError(f"{spec}: the share of easy problems is a number such as thinking@{thinking.EASY_SHARE}")
        more["easy_share"] = float(share) if at else thinking.EASY_SHARE if split == "train" else None
    # One fixed seed: the data set is the same in every run, as a file would be; only the order of batches is seeded.
    made, grader = task.problems(n or SIZES[name][split], split=split, seed=0, **more), name if name in GRADERS else ""
    return [Problem(text, truth, f"{name}/level-{lv}", i, grader) for i, (text, truth, lv) in enumerate(made)]


def _looks_local(spec):
    path = Path(spec)
    if spec in HUB:  # not the folder of that name that may lie here: say ./math for it
        return False
    return path.exists() or path.suffix.lower() in SUFFIXES or spec.startswith((".", "/", "~")) or spec.count("/") > 1


def hub_rows(spec: str, split: str, load: Callable | None = None) -> tuple[list[dict], str]:
    """(rows, where) of a Hub data set; `where` names it for messages. `load` replaces `datasets.load_dataset`."""
    known = HUB.get(spec, spec)
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?(?:@([\w.-]+))?", known)
    if not match:
        near = difflib.get_close_matches(spec, [*BUILT_IN, *HUB], n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join([*BUILT_IN, *HUB])}."
        raise ValueError(f"unknown data set {spec!r}: {hint} Else name a file or a Hub id such as OWNER/NAME")
    hub_id, config, named_split = match.groups()
    split = named_split or split
    where = f"{hub_id}{f' (config {config})' if config else ''}, split {split}"
    if load is None:
        from datasets import load_dataset as load
    try:
        found = load(hub_id, config, split=split)
        features, rows = getattr(found, "features", None), found.to_list()
        return plain_rows(rows, features.arrow_schema) if features else rows, where
    except Exception as error:  # the client has no common base for offline, missing, gated, unknown split
        local = f", and there is no file {spec}" if spec not in HUB else ""
        raise ValueError(f"cannot load {where} from the Hugging Face Hub{local}: {one_line(error)}") from error


# ---------------------------------------------------------------------------------------------------- rows


def rows_to_problems(rows: list[dict], source: str, where: str, *, skip_unanswered: bool = False) -> list[Problem]:
    """Problems of rows in either schema; `where` (a file or a Hub id) starts every message."""
    if not rows:
        raise ValueError(f"{where}: holds no rows")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{where}: row {i} is {_kind(row)}, want an object with a question and a truth")
    if knights.PUBLIC <= rows[0].keys():
        rows = _public_puzzles(rows, where)
    text_column = _choose(rows[0], TEXT_COLUMNS, where, "the question")
    truth_column = _choose(rows[0], TRUTH_COLUMNS, where, "the truth")
    problems, without_truth = [], []
    for i, row in enumerate(rows):
        for column in (text_column, truth_column):
            if column not in row:
                raise ValueError(f"{where}: row {i} has no column {column!r}; it has {', '.join(row) or 'none'}")
        prompt = _prompt_text(row[text_column], f"{where}: row {i}, column {text_column!r}")
        truth, place = row[truth_column], f"{where}: row {i}, column {truth_column!r}"
        if truth_column == "reward_model":
            if isinstance(truth, str) and truth.lstrip().startswith("{"):  # which some tool has written as text
                with contextlib.suppress(ValueError, RecursionError):
                    truth = json.loads(truth)
            if not isinstance(truth, dict) or "ground_truth" not in truth:
                raise ValueError(f"{place}: want an object with 'ground_truth', got {_kind(truth)}")
            truth, place = truth["ground_truth"], f"{where}: row {i}, column 'reward_model.ground_truth'"
        grader = _grader(row, f"{where}: row {i}, column 'grader'")
        truth = _graded_truth(truth, place, GRADERS[grader]) if grader else _plain_truth(truth, place)
        if truth is None:
            without_truth.append(place)
        else:
            problems.append(Problem(prompt, truth, source, i, grader))
    if without_truth and not (skip_unanswered and problems):
        more = f" ({len(without_truth)} of {len(rows)} rows lack one)" if len(without_truth) > 1 else ""
        raise ValueError(f"{without_truth[0]}: no truth{more}; --skip-unanswered leaves such rows out")
    return problems


def _public_puzzles(rows, where):
    """Rows of the public knights-and-knaves files as rows with a question, a truth and their grader."""
    puzzles = []
    for i, row in enumerate(rows):
        try:
            puzzles.append(knights.from_public(row))
        except ValueError as error:
            raise ValueError(f"{where}: row {i} is no puzzle: {error}") from error
    return puzzles


def _choose(row, columns, where, what):
    found = [column for column in columns if column in row]
    if not found:
        raise ValueError(
            f"{where}: row 0 has no column for {what} ({' or '.join(map(repr, columns))}); "
            f"it has {', '.join(map(str, row)) or 'none'}"
        )
    return found[0]


def _grader(row, place):
    """The row's grader by name, "" for the boxed answer."""
    grader = row.get("grader") or ""
    if not isinstance(grader, str) or grader and grader not in GRADERS:
        raise ValueError(f"{place}: no grader {grader!r}, choose from {', '.join(GRADERS)}; empty: the boxed answer")
    return grader


def _graded_truth(value, place, task):
    """The truth of a task with its own grader: a text that it can read, as it stands; None if there is none."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{place}: this grader wants a text, got {_kind(value)}")
    if not value or not value.strip():
        return None
    try:
        getattr(task, "read_truth", str)(value)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    return value


def _prompt_text(value, place):
    """The user's text: a string, or the official schema's chat of one user message (a list, or numpy's array)."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str) and re.match(r"\s*\[?\s*\{\s*['\"](role|content)['\"]\s*:", value):
        try:  # a chat that some tool has written as text
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(
                f"{place}: a chat written as text, and not as JSON: write it as a list of messages"
            ) from None
        value = [value] if isinstance(value, dict) else value
    if isinstance(value, list):
        one_user = len(value) == 1 and isinstance(value[0], dict) and value[0].get("role") == "user"
        if not one_user:
            raise ValueError(
                f"{place}: want one message of the user, got {len(value)} message(s)"
                f" {[m.get('role') if isinstance(m, dict) else _kind(m) for m in value[:3]]}"
            )
        value = value[0].get("content")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{place}: want a question as text, got {_kind(value)}")
    return _writable(value, place)


def _writable(text, place):
    """`text`, unless it holds half of a surrogate pair, which no tokenizer and no file takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place}: {text[error.start]!a} is half a character (a lone surrogate): mend the text"
        ) from None
    return text


def _plain_truth(value, place):
    """`value` as plain str, int, float or a list of those; None if there is no truth in it (0 is one)."""
    if isinstance(value, (np.float16, np.float32)):
        value = shortest(value, type(value))
    if isinstance(value, (np.ndarray, np.generic)):
        value = [*value] if getattr(value, "ndim", 0) else value.item()
    if isinstance(value, (list, tuple)):
        items = [_plain_truth(item, place) for item in value]
        if any(isinstance(item, list) for item in items):
            raise ValueError(f"{place}: a list of truths may not hold another list")
        return items if items and None not in items else None
    if value is None or isinstance(value, str):
        value = (value or "").split("####")[-1]  # GSM8K keeps its truth behind a worked solution and this mark
        return _writable(value, place) if value.strip() else None
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() else None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):  # bool is an int to Python, not to a grader
        raise ValueError(f"{place}: want text, a number or a list of those, got {_kind(value)}")
    if isinstance(value, numbers.Integral):  # however long: math.isfinite would make a float of it
        return int(value)
    return float(value) if math.isfinite(value) else None


def _kind(value):
    if value is None:
        return "nothing"
    return "empty text" if isinstance(value, str) and not value.strip() else type(value).__name__


# ---------------------------------------------------------------------------------------------------- prompts


def encode_prompts(
    problems: list[Problem],
    tokenizer,
    *,
    max_tokens: int,
    template: bool = True,
    suffix: str | Sequence[str] = (),
    now: datetime | None = None,
) -> tuple[list[Problem], list[list[int]], int]:
    """Prompts as token ids: (kept problems, their ids, number dropped for being longer than `max_tokens`).

    With `template`, the tokenizer's own chat template with the generation prompt, tokenised without special tokens (the
    template holds them); without, the bare text with whatever special tokens the tokenizer adds. `suffix`, one text or
    several, is appended to prompts that do not hold it yet; one that asks for a box is not where a task has a grader
    of its own. now: the date for a template that tells one. Raises ValueError for a template that is missing, refuses
    or drops the question, or if no prompt is short enough.
    """
    if not problems:
        raise ValueError("no problems to encode")
    name = getattr(tokenizer, "name_or_path", "") or "this tokenizer"
    if template and not tokenizer.chat_template:
        raise ValueError(f"{name} has no chat template: pass --no-template to prompt with the bare text")
    words = [_writable(text, "--suffix") for text in ([suffix] if isinstance(suffix, str) else suffix) if text.strip()]
    if template and QUESTION not in _writable(_templated(QUESTION, tokenizer, name, now), f"the template of {name}"):
        raise ValueError(f"the chat template of {name} leaves the question out of the prompt: see --no-template")
    kept, prompts, shortest = [], [], math.inf
    shared = {}  # one object per id, however many prompts hold it: a quarter of the memory
    for first in range(0, len(problems), BATCH):
        texts = [_with_suffixes(problem, words) for problem in problems[first : first + BATCH]]
        if template:
            texts = [_templated(text, tokenizer, name, now) for text in texts]
        for problem, ids in zip(
            problems[first:], tokenizer(texts, add_special_tokens=not template)["input_ids"], strict=False
        ):
            ids = [shared.setdefault(i, i) for i in _single_bos(ids, tokenizer.bos_token_id)]
            shortest = min(shortest, len(ids))
            if 0 < len(ids) <= max_tokens:
                kept.append(problem)
                prompts.append(ids)
    if not kept:
        raise ValueError(f"none of {len(problems)} prompts fits in {max_tokens} tokens, the shortest has {shortest}")
    return kept, prompts, len(problems) - len(kept)


def _with_suffixes(problem, suffixes):
    """The problem's text and those of the suffixes that it does not hold yet."""
    text = problem.prompt
    for words in suffixes:
        if words.strip() not in text and not (problem.grader and r"\boxed" in words):
            text += words if words[0].isspace() else " " + words
    return text


def _templated(text, tokenizer, name, now):
    chat, tells_date = [{"role": "user", "content": text}], "strftime_now" in str(tokenizer.chat_template)
    # A run that goes on tomorrow asks what it asked today
    date = {"strftime_now": now.strftime} if now and tells_date else {}
    try:
        return tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False, **date)
    except Exception as error:  # a template is a program, in a sandbox, and may fail in any way
        raise ValueError(f"the chat template of {name} refuses a single user message: {one_line(error)}") from error


def fingerprint(problems: Sequence[Problem]) -> int:
    """Of questions, truths, graders and their order: equal for equal data, on every rank and at every start."""
    total = 0
    for p in problems:
        known = (p.index, p.prompt, p.truth, *([p.grader] if p.grader else []))
        total = zlib.crc32(repr(known).encode("utf-8", "backslashreplace"), total)
    return total


def duplicates(problems: Sequence[Problem]) -> int:
    """How many problems ask what an earlier one asks."""
    return len(problems) - len({p.prompt for p in problems})


def _single_bos(ids, bos):
    """Some tokenizers add a BOS however they are asked; two of them are an input no model was trained on."""
    first = 0
    while bos is not None and ids[first : first + 2] == [bos, bos]:
        first += 1
    return list(ids[first:])


def batch_indices(seed: int, step: int, n_problems: int, batch_size: int) -> np.ndarray:
    """Which problems step `step` (from 0) trains on, (batch_size,): each epoch is its own permutation and drops the
    remainder. A pure function, so every rank computes the same and a resumed run replays nothing."""
    if not 0 < batch_size <= n_problems:
        raise ValueError(f"a batch of {batch_size} prompts does not fit {n_problems} problems")
    epoch, position = divmod(step, n_problems // batch_size)
    order = np.random.default_rng([seed, epoch]).permutation(n_problems)
    return order[position * batch_size : (position + 1) * batch_size]
