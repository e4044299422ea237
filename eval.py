"""eval.py - how often a model is right and how long it thinks: k responses to each problem of one or several data sets.

    python eval.py --model PATH_OR_ID --datasets aime math gsm8k --output-dir DIR          (or under torchrun)

Ranks take chunks of problems from one counter, so that none waits while there is work left; each problem has its own
seed, so it does not matter which rank samples it. Left out: sampling (rollout.py), what is correct (reward.py), what
the numbers mean (minidrpo/rundir/metrics.py), tables and the page (minidrpo/show).
"""

import dataclasses
import itertools
import os
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import transformers
from tqdm import tqdm

import reward
import rollout
from config import TINY_MODEL
from minidrpo import cli
from minidrpo.cli import value
from minidrpo.engine import hardware, loading
from minidrpo.engine.distributed import DistContext, init_distributed, shutdown
from minidrpo.records import GradedResponse, Problem
from minidrpo.rundir import jsonl, lock
from minidrpo.rundir.metrics import EvalResult, summarise
from minidrpo.rundir.results import (
    claim_directory,
    first_start,
    read_reference,
    read_responses,
    set_name,
    write_results,
)
from minidrpo.tasks import data

# ---------------------------------------------------------------------------------------------------- evaluate


def evaluate(
    sampler,
    problems: list[Problem],
    prompt_ids: list[list[int]],
    *,
    samples: int,
    temperature: float,
    top_p: float = 1.0,
    max_response_tokens: int,
    seed: int,
    tokenizer,
    ctx: DistContext | None = None,
    grading: dict | None = None,
    features: dict | None = None,
    progress: bool = True,
    chunk: int = 32,
    done: Sequence[GradedResponse] = (),
    save: Callable | None = None,
) -> EvalResult:
    """Sample `samples` responses to every problem, grade, and summarise; every rank returns the same result.

    chunk: problems per call of the sampler. Chunks are cut from the whole list, whoever takes them and whatever is
    done already, so that one rank, two ranks and a restarted run put the same rows into the same batches.
    done: responses of an earlier, interrupted call with the same arguments. save(responses): called as each chunk is
    done. grading: reward.grade_all's settings. features: what to count in the texts (data.features).
    """
    start, ctx = time.monotonic(), ctx or DistContext()
    known = {(r.source, r.index, r.sample): r for r in done}
    chunks = [range(i, min(i + chunk, len(problems))) for i in range(0, len(problems), chunk)]
    missing = [c for c in chunks if any(_key(problems[i], s) not in known for i in c for s in range(samples))]
    bar = tqdm(
        total=sum(map(len, missing)),
        desc="evaluate",
        unit="problem",
        leave=False,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 30,  # seconds; a log file wants a line now and then
        disable=not progress or ctx.rank > 0 or not missing,
    )
    new, opened = [], rollout.opens_thought(prompt_ids[0], tokenizer)
    for c in _claim(missing, ctx.size):
        rollouts = sampler.sample(
            [prompt_ids[i] for i in c],
            n=samples,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_response_tokens,
            seeds=[problem_seed(seed, problems[i]) for i in c],
        )
        texts = [rollout.decode(r, tokenizer) for r in rollouts]
        fresh = reward.grade_rollouts([problems[i] for i in c], rollouts, texts, opened, **(grading or {}))
        fresh = [dataclasses.replace(r, rollout=None) for r in fresh]  # an evaluation needs no token ids
        if save:
            save(fresh)
        new += fresh
        bar.update(len(c))
        bar.set_postfix(
            accuracy=f"{np.mean([r.correct for r in new]):.3f}",
            length=f"{np.mean([r.length for r in new]):.0f}",
            refresh=False,
        )
    bar.close()
    known |= {(r.source, r.index, r.sample): r for r in ctx.gather(new)}
    responses = [known[_key(p, s)] for p in problems for s in range(samples)]
    seconds = time.monotonic() - start
    return summarise(responses, limit=max_response_tokens, features=features, seconds=seconds)


def _key(problem, sample):
    return problem.source, problem.index, sample


def problem_seed(seed: int, problem: Problem) -> int:
    """A seed in [0, 2^31) of the problem itself: it does not depend on what else is evaluated, or in which order."""
    source = zlib.crc32(problem.source.encode())
    return int(np.random.SeedSequence([seed, source, problem.index]).generate_state(1)[0] >> 1)


_calls = itertools.count()  # every rank evaluates in the same order, so the count names the same evaluation on all


def _claim(chunks, world_size):
    """The chunks this rank takes: the next one nobody has taken yet, from a counter that all ranks share."""
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
    model: str = value(TINY_MODEL, "a name")
    """Directory or Hub id of a causal language model in safetensors."""
    datasets: tuple[str, ...] = ("arithmetic",)
    """Built in: arithmetic, thinking, tools, programs, knights. On the Hub: aime, aime25, amc, math, minerva,
    olympiad_bench, gsm8k, or OWNER/NAME[:CONFIG][@SPLIT]. Or a file."""
    output_dir: str = value("runs/eval", "a name")
    """Gets results.json, responses.jsonl and report.html; started again, only what is missing is done."""
    reference: str | None = value(None, "a name")
    """Output directory of another evaluation: adds AES against it, and its responses beside these in report.html."""
    exceed: int = value(4000, "0 or more")
    """Also give the share of responses longer than this (GDPO's Exceed)."""
    data_dir: str | None = value(None, "a name")
    """Directory of NAME.parquet files to take instead of the Hub."""
    samples: int = value(16, "1 or more", "at most 1e+06")
    """Responses per problem."""
    temperature: float = value(0.6, "0 or more", "finite")
    top_p: float = value(0.95, "in (0, 1]")
    max_response_tokens: int = value(8192, "1 or more")
    """Limit of a response in tokens; one that is cut off there is wrong."""
    max_prompt_tokens: int = value(1536, "1 or more")
    """Longer prompts are dropped and counted."""
    max_problems: int = value(0, "0 or more")
    """Only the first problems of each data set; 0 takes all."""
    template: bool = True
    """Put problems into the tokenizer's chat template."""
    skip_unanswered: bool = False
    """Leave out (and count) rows without a truth instead of stopping."""
    suffix: str = data.SUFFIX
    """Instruction appended to problems that lack it (never to those of a built-in task)."""
    sampler: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM where it and a GPU are there."""
    chunk: int = value(32, "1 or more")
    """Problems per call of the sampler."""
    seed: int = value(0, "0 or more")
    trust_remote_code: bool = False
    """Run code that comes with the model."""

    def __post_init__(self):
        cli.check(self)
        for name in ("model", "output_dir", "reference", "data_dir"):  # a shell expands no `~` behind `=`
            if path := getattr(self, name):
                object.__setattr__(self, name, os.path.expanduser(path))
        if not self.datasets:
            raise ValueError("--datasets names no data set")


def load_sets(cfg, tokenizer, now=None):
    """(problems, prompt ids, notes) of all data sets of `cfg`, one after the other. now: the date for a chat template
    that tells one."""
    problems, prompt_ids, notes = [], [], []
    for spec in cfg.datasets:
        path = Path(cfg.data_dir or "") / f"{spec}.parquet"
        found = data.load_problems(
            str(path) if cfg.data_dir and spec in data.HUB else spec,
            split="test",
            n=cfg.max_problems or None,
            skip_unanswered=cfg.skip_unanswered,
        )
        if {set_name(p.source) for p in found} & {set_name(p.source) for p in problems}:
            name = set_name(found[0].source)
            raise ValueError(f"two of the data sets are called {name!r}: rename a file or drop one")
        if gaps := found[-1].index + 1 - len(found):  # only --skip-unanswered leaves any
            notes.append(f"{spec}: {gaps} rows without a truth (or more, at its end) are left out")
        suffix = "" if data.is_built_in(spec) else cfg.suffix
        kept, ids, dropped = data.encode_prompts(
            found, tokenizer, max_tokens=cfg.max_prompt_tokens, template=cfg.template, suffix=suffix, now=now
        )
        if dropped:
            notes.append(f"{spec}: {dropped} of {len(found)} prompts are longer than {cfg.max_prompt_tokens} tokens")
        problems, prompt_ids = problems + kept, prompt_ids + ids
    return problems, prompt_ids, notes


def run(cfg: Config, ctx: DistContext) -> tuple | None:
    """Load, sample, grade and write; the whole of `python eval.py` but what is looked at. On rank 0 it returns (sets,
    averages, AES scores, seconds)."""
    transformers.utils.logging.disable_progress_bar()  # of loading weights; ours is the one to watch
    output = Path(cfg.output_dir)
    with cli.user_errors(ctx.rank):
        tokenizer = loading.load_tokenizer(cfg.model, cfg.trust_remote_code)
        now = ctx.gather_parts(first_start(output))[0]
        problems, prompt_ids, notes = load_sets(cfg, tokenizer, now)
        if len(set(ctx.gather_parts(data.fingerprint(problems)))) > 1:
            raise ValueError(f"ranks read different problems: {', '.join(cfg.datasets)} must be the same on all nodes")
        if ctx.is_main and (words := hardware.warning(cfg.model, ctx)):
            cli.say(f"warning: {words}", file=sys.stderr)
        grading = {"require_think": data.thinks_aloud(tokenizer, prompt_ids[0])}
        if not grading["require_think"] and not all(problem.grader for problem in problems):
            notes.append(f"{cfg.model} does not think aloud: the last box of a whole response is its answer")
        config = loading.read_config(cfg.model, cfg.trust_remote_code)
        vocabulary = getattr(config.get_text_config(decoder=True), "vocab_size", None) or float("inf")
        loading.check_ids(prompt_ids, vocabulary, cfg.model)
        max_response_tokens, note = room_for_responses(cfg, config, max(map(len, prompt_ids)))
        reference = read_reference(cfg.reference) if cfg.reference else None
        if ctx.is_main:
            claim_directory(output, cfg, max_response_tokens, problems, prompt_ids, now)
            jsonl.write(output / "problems.jsonl", map(dataclasses.asdict, problems))
        # One reader for all: a rank that read later would also see what others have begun to write
        done = ctx.gather_parts(read_responses(output) if ctx.is_main else None)[0]
        wanted = {_key(p, s) for p in problems for s in range(cfg.samples)}
        done = [r for r in done if (r.source, r.index, r.sample) in wanted]  # the files may hold others
        missing = len(wanted) - len(done)
        longest = max(map(len, prompt_ids)) + max_response_tokens
        sampler = make_sampler(cfg, tokenizer, longest, ctx) if missing else None
    notes += [line for line in (note, getattr(sampler, "note", None)) if line]
    already = [f"{len(done)} of {len(problems) * cfg.samples} responses are there already"] if done else []
    for line in notes + already if ctx.is_main else ():
        cli.say(f"note: {line}", file=sys.stderr)
    result = evaluate(
        sampler,
        problems,
        prompt_ids,
        samples=cfg.samples,
        temperature=cfg.temperature,
        top_p=cfg.top_p,
        max_response_tokens=max_response_tokens,
        seed=cfg.seed,
        tokenizer=tokenizer,
        ctx=ctx,
        grading=grading,
        chunk=cfg.chunk,
        done=done,
        save=lambda new: jsonl.append(output / f"responses.part-{ctx.rank}.jsonl", (r.as_dict() for r in new)),
    )
    if ctx.is_main:
        features = {spec.partition("@")[0]: data.features(spec) for spec in cfg.datasets}
        return *write_results(cfg, result, output, max_response_tokens, notes, reference, features), result.seconds


def make_sampler(cfg: Config, tokenizer, max_model_len: int, ctx: DistContext):
    """The sampler that `cfg` names; vLLM loads its weights by itself."""
    model, dtype = None, torch.bfloat16 if ctx.device.type == "cuda" else torch.float32
    if not rollout.is_vllm(cfg.sampler, ctx.device):
        model = loading.load_model(cfg.model, dtype=dtype, device=ctx.device, trust_remote_code=cfg.trust_remote_code)
    return rollout.make_sampler(
        cfg.sampler,
        model,
        cfg.model,
        tokenizer,
        device=ctx.device,
        seed=cfg.seed,
        gpu_memory_utilization=0.85,
        rows=cfg.chunk * cfg.samples,
        max_model_len=max_model_len,
        trust_remote_code=cfg.trust_remote_code,
    )


def room_for_responses(cfg: Config, config, longest_prompt: int) -> tuple[int, str | None]:
    """(tokens a response may have, a note or None): --max-response-tokens, or what the model's context leaves."""
    context, why = loading.context_of(config)
    if context <= longest_prompt:
        raise ValueError(f"a prompt of {longest_prompt} tokens leaves no room in {context} tokens ({why})")
    room, wanted = context - longest_prompt, cfg.max_response_tokens
    if room >= wanted:
        return wanted, None
    return room, f"responses end at {room} tokens, not {wanted}: prompt and response have {context} ({why})"


def main(argv=None):
    cfg = cli.parse(Config, argv, prog="eval.py", description="Accuracy and length of a model over data sets.")
    # Ranks exchange only responses, which are text: no GPU collective is needed
    ctx = init_distributed("gloo", patience=timedelta(days=1))
    trouble = cli.machine_trouble(ctx.rank, "with the responses it has", "a smaller --chunk takes less", ctx.gone)
    with shutdown(ctx), trouble, lock.held(cfg.output_dir, ctx, "--output-dir"):
        results = run(cfg, ctx)
        if ctx.is_main:
            from minidrpo.show import eval_report

            eval_report.show(cfg, *results)


if __name__ == "__main__":
    sys.exit(main())
