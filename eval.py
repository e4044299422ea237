"""eval.py - how often a model is right and how long it thinks: k answers to each problem of one or several data sets.

    python eval.py --model PATH_OR_ID --datasets aime math gsm8k --output-dir DIR          (or under torchrun)

Ranks take chunks of problems from one counter, so that none waits while there is work left; each problem has its own
seed, so who answers it does not matter. Left out: sampling (rollout.py), what is correct (reward.py), what the numbers
mean (metrics.py), the page to look at (html_report.py).
"""

import importlib.util
import itertools
import math
import sys
import time
import zlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from config import TINY_MODEL
from minidrpo import cli
from minidrpo.engine.distributed import gather_parts, join_world, parting
from minidrpo.rundir.metrics import Answer, EvalResult, result_table, summarise
from minidrpo.rundir.results import (
    append_answers,
    claim_directory,
    read_answers,
    read_reference,
    set_name,
    write_problems,
    write_results,
)
from minidrpo.show import html_report
from minidrpo.tasks import data

# ---------------------------------------------------------------------------------------------------- evaluate


def evaluate(
    sampler,
    problems,
    prompt_ids,
    *,
    n,
    temperature,
    top_p=1.0,
    max_tokens,
    seed,
    tokenizer,
    rank=0,
    world_size=1,
    grade_kwargs=None,
    progress=True,
    chunk=32,
    done=(),
    save=None,
) -> EvalResult:
    """Answer every problem n times, grade, and summarise; every rank returns the same result.

    chunk: problems a call of the sampler. Chunks are cut from the whole list, whoever answers them and whatever is
    done already, so that one rank, two ranks and a restarted run put the same rows into the same batches.
    done: answers of an earlier, interrupted call with the same arguments. save(answers): called as each chunk is done.
    """
    import reward

    start = time.monotonic()
    known = {(a.source, a.index, a.sample): a for a in done}
    chunks = [range(i, min(i + chunk, len(problems))) for i in range(0, len(problems), chunk)]
    missing = [c for c in chunks if any(_key(problems[i], s) not in known for i in c for s in range(n))]
    bar = tqdm(
        total=sum(map(len, missing)),
        desc="evaluate",
        unit="problem",
        leave=False,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 30,  # seconds; a log file wants a line now and then
        disable=not progress or rank > 0 or not missing,
    )
    new = []
    for c in _claim(missing, world_size):
        rollouts = sampler.sample(
            [prompt_ids[i] for i in c],
            n=n,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            seeds=[problem_seed(seed, problems[i]) for i in c],
        )
        texts = [decode(r, tokenizer) for r in rollouts]
        owners = [problems[i] for i in c for _ in range(n)]
        grades = reward.grade_all(texts, [p.answer for p in owners], **(grade_kwargs or {}))
        fresh = [
            Answer(
                p.source,
                p.index,
                k % n,
                g.correct and r.finished,
                g.reason if r.finished else "truncated",
                g.answer if r.finished else None,
                len(r.response_ids),
                r.finished,
                text,
            )
            for k, (p, r, g, text) in enumerate(zip(owners, rollouts, grades, texts, strict=True))
        ]
        if save:
            save(fresh)
        new += fresh
        bar.update(len(c))
        bar.set_postfix(
            accuracy=f"{np.mean([a.correct for a in new]):.3f}",
            length=f"{np.mean([a.length for a in new]):.0f}",
            refresh=False,
        )
    bar.close()
    known |= {(a.source, a.index, a.sample): a for part in gather_parts(new, world_size) for a in part}
    answers = [known[_key(p, s)] for p in problems for s in range(n)]
    return summarise(answers, seconds=time.monotonic() - start)


def _key(problem, sample):
    return problem.source, problem.index, sample


def problem_seed(seed: int, problem) -> int:
    """A seed in [0, 2^31) of the problem itself: it does not depend on what else is evaluated, or in which order."""
    source = zlib.crc32(problem.source.encode())
    return int(np.random.SeedSequence([seed, source, problem.index]).generate_state(1)[0] >> 1)


def decode(rollout, tokenizer) -> str:
    """The answer as text, without its end token. Other special tokens stay: `</think>` is one in some vocabularies."""
    ids = rollout.response_ids[:-1] if rollout.finished else rollout.response_ids
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


_calls = itertools.count()  # every rank evaluates in the same order, so the count names the same evaluation on all


def _claim(chunks, world_size):
    """The chunks this rank answers: the next one nobody has taken yet, from a counter that all ranks share."""
    if world_size == 1:
        yield from chunks
        return
    from torch.distributed.distributed_c10d import _get_default_store

    store, name = _get_default_store(), f"evaluate/{next(_calls)}"
    while (i := store.add(name, 1) - 1) < len(chunks):
        yield chunks[i]


# ---------------------------------------------------------------------------------------------------- command line


@dataclass(frozen=True)
class Config:
    model: str = TINY_MODEL
    """Directory or Hub id of a causal language model in safetensors."""
    datasets: tuple[str, ...] = ("arithmetic",)
    """Built in: arithmetic, thinking. On the Hub: aime, aime25, amc, math, minerva, olympiad_bench, gsm8k, or
    OWNER/NAME[:CONFIG][@SPLIT]. Or a file."""
    output_dir: str = "runs/eval"
    """Gets results.json, answers.jsonl and report.html; started again, only what is missing is done."""
    reference: str | None = None
    """Output directory of another evaluation: adds AES against it, and its answers beside these in report.html."""
    exceed: int = 4000
    """Also give the share of answers longer than this (GDPO's Exceed)."""
    data_dir: str | None = None
    """Directory of NAME.parquet files to take instead of the Hub."""
    samples: int = 16
    """Answers a problem."""
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 8192
    """Limit of an answer in tokens; an answer cut off there is wrong."""
    max_prompt_tokens: int = 1536
    """Longer prompts are dropped and counted."""
    limit: int | None = None
    """Only the first problems of each data set."""
    template: bool = True
    """Put problems into the tokenizer's chat template."""
    skip_unanswered: bool = False
    """Leave out (and count) rows without an answer instead of stopping."""
    suffix: str = data.SUFFIX
    """Instruction appended to problems that lack it (never to those of a built-in task)."""
    sampler: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM where it and a GPU are there."""
    chunk: int = 32
    """Problems a call of the sampler."""
    seed: int = 0
    trust_remote_code: bool = False
    """Run code that comes with the model."""

    def __post_init__(self):
        for name in ("samples", "max_tokens", "max_prompt_tokens", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"--temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"--top-p must be above 0 and at most 1, got {self.top_p}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit must be at least 1, got {self.limit}")
        if self.seed < 0:
            raise ValueError(f"--seed must be 0 or more, got {self.seed}")
        if not self.datasets:
            raise ValueError("--datasets names no data set")


def load_sets(cfg, tokenizer):
    """(problems, prompt ids, notes) of all data sets of `cfg`, one after the other."""
    problems, prompt_ids, notes = [], [], []
    for spec in cfg.datasets:
        path = Path(cfg.data_dir or "") / f"{spec}.parquet"
        found = data.load_problems(
            str(path) if cfg.data_dir and spec in data.HUB else spec,
            split="test",
            n=cfg.limit,
            skip_unanswered=cfg.skip_unanswered,
        )
        if {set_name(p) for p in found} & {set_name(p) for p in problems}:
            raise ValueError(f"two of the data sets are called {set_name(found[0])!r}: rename a file or drop one")
        if gaps := found[-1].index + 1 - len(found):  # only --skip-unanswered leaves any
            notes.append(f"{spec}: {gaps} rows without an answer (or more, at its end) are left out")
        suffix = "" if data.is_built_in(spec) else cfg.suffix
        kept, ids, dropped = data.encode_prompts(
            found, tokenizer, max_tokens=cfg.max_prompt_tokens, template=cfg.template, suffix=suffix
        )
        if dropped:
            notes.append(f"{spec}: {dropped} of {len(found)} prompts are longer than {cfg.max_prompt_tokens} tokens")
        problems, prompt_ids = problems + kept, prompt_ids + ids
    return problems, prompt_ids, notes


def run(cfg, rank, world_size, device):
    """Load, answer, grade, print and write; the whole of `python eval.py`."""
    import torch
    import transformers
    from rich.console import Console

    import rollout
    from minidrpo.engine import policy

    transformers.utils.logging.disable_progress_bar()  # of loading weights; ours is the one to watch
    output = Path(cfg.output_dir)
    with cli.user_errors(rank):
        tokenizer = policy.load_tokenizer(cfg.model, cfg.trust_remote_code)
        problems, prompt_ids, notes = load_sets(cfg, tokenizer)
        max_tokens, note = room_for_answers(cfg, max(map(len, prompt_ids)))
        reference = read_reference(cfg.reference) if cfg.reference else None
        if rank == 0:
            claim_directory(output, cfg, max_tokens, problems, prompt_ids)
            write_problems(output / "problems.jsonl", problems)
        # One reader for all: a rank that read later would also see what others have begun to write
        done = gather_parts(read_answers(output) if rank == 0 else None, world_size)[0]
        sampler = None
        if len(done) < len(problems) * cfg.samples:
            model = None
            if cfg.sampler == "transformers" or cfg.sampler == "auto" and not vllm_is_used(device):
                dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
                model = policy.load_model(
                    cfg.model, dtype=dtype, device=device, trust_remote_code=cfg.trust_remote_code
                )
            sampler = rollout.make_sampler(
                cfg.sampler,
                model,
                cfg.model,
                tokenizer,
                device=device,
                seed=cfg.seed,
                gpu_memory_utilization=0.85,
                max_model_len=max(map(len, prompt_ids)) + max_tokens,
                trust_remote_code=cfg.trust_remote_code,
            )
    notes += [note] if note else []
    already = [f"{len(done)} of {len(problems) * cfg.samples} answers are there already"] if done else []
    for line in notes + already if rank == 0 else ():
        print(f"note: {line}", file=sys.stderr)
    result = evaluate(
        sampler,
        problems,
        prompt_ids,
        n=cfg.samples,
        temperature=cfg.temperature,
        top_p=cfg.top_p,
        max_tokens=max_tokens,
        seed=cfg.seed,
        tokenizer=tokenizer,
        rank=rank,
        world_size=world_size,
        chunk=cfg.chunk,
        done=done,
        save=lambda answers: append_answers(output, rank, answers),
    )
    if rank == 0:
        sets, averages, scores = write_results(cfg, result, output, max_tokens, notes, reference)
        screen = Console(width=None if sys.stdout.isatty() else 110)  # a log file has no width to fit in
        screen.print(
            result_table(
                sets, f"{cfg.model}: {cfg.samples} answers a problem, {result.seconds:.0f} s", averages, scores
            )
        )
        print(f"results and answers: {output}/")
        try:
            print(html_report.write([*([cfg.reference] if cfg.reference else []), output], output / "report.html"))
        except ValueError as error:  # of a reference's files; the numbers are safe by now
            print(f"note: no report.html: {error}", file=sys.stderr)


def vllm_is_used(device):
    """Will sampler "auto" be vLLM? Then the weights need not be loaded here as well."""
    return device.type == "cuda" and importlib.util.find_spec("vllm") is not None


def room_for_answers(cfg, longest_prompt):
    """(tokens an answer may have, a note or None): --max-tokens, or what the model's context leaves if that is less."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(cfg.model, trust_remote_code=cfg.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"no model config at {cfg.model}: {error}") from error
    context = getattr(config, "max_position_embeddings", None) or math.inf
    if context <= longest_prompt:
        raise ValueError(f"a prompt of {longest_prompt} tokens leaves no room in the model's context of {context}")
    if context - longest_prompt >= cfg.max_tokens:
        return cfg.max_tokens, None
    room = context - longest_prompt
    return room, f"answers end at {room} tokens, not {cfg.max_tokens}: the model's context is {context}"


def main(argv=None):
    cfg = cli.parse(Config, argv, prog="eval.py", description="Accuracy and length of a model over data sets.")
    # Ranks exchange only answers, which are text: no GPU collective is needed
    world = join_world("gloo", patience=timedelta(days=1))
    with parting(world), cli.machine_trouble(world.rank, "with the answers it has", "a smaller --chunk takes less"):
        run(cfg, world.rank, world.size, world.device)


if __name__ == "__main__":
    sys.exit(main())
