"""setup.py - from settings to what the loop works with: data, model, optimizer, sampler, log."""

import contextlib
import functools
import math
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

import config
import drpo
import rollout
from eval import evaluate
from minidrpo import cli
from minidrpo.engine import batches, hardware, loading, memory, probe, shard
from minidrpo.engine.distributed import DistContext
from minidrpo.engine.policy import Policy, compile_layers
from minidrpo.methods import rewards
from minidrpo.methods.table import METHODS, Batch
from minidrpo.records import GradedResponse, Problem
from minidrpo.rundir import card, checkpoint, lock, outlook
from minidrpo.rundir.lock import Lock
from minidrpo.rundir.log import RunLog
from minidrpo.tasks import data


@dataclass
class Run:
    """What train.py's loop works with."""

    cfg: config.RunConfig
    ctx: DistContext
    log: RunLog
    tokenizer: Any
    problems: list[Problem]
    prompts: list[list[int]]
    """Their token ids."""
    held_out: tuple[list[Problem], list[list[int]]]
    model: torch.nn.Module
    policy: torch.nn.Module
    """The model behind Policy, and DDP or FSDP over several ranks."""
    optimizer: torch.optim.Optimizer
    sampler: Any
    done: int
    """Steps done by earlier starts."""
    state: dict[str, torch.Tensor]
    """What the method remembers from step to step."""
    fingerprints: dict[str, int]
    """Of the training problems and the held-out ones."""
    lock: Lock
    """Of the run directory, until `close`."""
    warned: bool = False
    """Of a gap between sampler and trainer."""

    @property
    def opened(self) -> bool:
        """Whether the prompt ends in <think>, which responses then lack."""
        return rollout.opens_thought(self.prompts[0], self.tokenizer)

    @property
    def grading(self) -> dict:
        """reward.grade_all's settings."""
        return {"require_think": data.thinks_aloud(self.tokenizer, self.prompts[0])}

    def check_sampler(self, gap: float) -> None:
        """FloatingPointError if the sampler drew from another distribution than the trainer scores: such a run trains
        on garbage. gap: mean |difference of their log-probabilities| per token. The limits are far above rounding:
        up to 1e-5 in float32 at temperature 1, 0.01 to 0.03 in bfloat16."""
        exact = self.sampler.dtype == torch.float32 and not self.ctx.in_bf16
        limit = 1e-4 / min(1.0, self.cfg.temperature) if exact else 0.3
        if not gap <= limit:
            raise FloatingPointError(
                f"{type(self.sampler).__name__} does not compute what the trainer computes with "
                f"{type(self.model).__name__}: log-probabilities differ by {gap:.2g} per token (limit {limit:.2g})"
            )
        if not exact and gap > 0.05 and not self.warned:
            self.warned = True
            self.log.say(
                f"warning: sampler and trainer differ by {gap:.2g} per token; 0.01 to 0.03 is usual in bfloat16"
            )

    def evaluate(self, step: int) -> None:
        """Held-out accuracy and length, into the log."""
        cfg, problems = self.cfg, self.held_out[0]
        result = evaluate(
            self.sampler,
            *self.held_out,
            tokenizer=self.tokenizer,
            ctx=self.ctx,
            samples=cfg.samples,
            temperature=cfg.temperature,
            top_p=cfg.top_p,
            max_response_tokens=cfg.max_response_tokens,
            seed=cfg.seed,
            grading=self.grading,
            features=data.features(cfg.eval_data),
            chunk=held_out_chunk(problems, self.ctx),
        )
        self.log.evaluation(step, result)

    def save(self, step: int) -> None:
        """A checkpoint from which the same command goes on."""
        keep = {"keep": self.cfg.keep_checkpoints, "about": self.fingerprints}
        keep["card"] = card.write(self.cfg, self.log.about, self.log.evaluations, step)
        directory = self.cfg.directory
        checkpoint.save(directory, step, self.model, self.tokenizer, self.optimizer, self.state, self.ctx, **keep)

    def close(self) -> None:
        """After the last step: evaluate what an earlier start trained and could not evaluate."""
        if max((e["step"] for e in self.log.evaluations), default=0) < self.done:
            self.evaluate(self.done)
        self.log.close()
        self.lock.release()


def start(cfg: config.RunConfig, ctx: DistContext) -> Run | None:
    """The run that `cfg` describes, ready for its next step; None if it has all its steps. What a user can get wrong
    ends in here, in one line."""
    with cli.user_errors(ctx.rank), contextlib.ExitStack() as at_a_mistake:
        held = at_a_mistake.enter_context(lock.claim(cfg.directory, ctx))
        log = RunLog(cfg, ctx)
        path = checkpoint.newest(cfg.directory) or cfg.model
        if len(set(ctx.gather([(str(path), *(e["step"] for e in log.evaluations))]))) > 1:
            raise ValueError(f"ranks see different checkpoints: {cfg.directory} must be on a disk all nodes share")
        if log.is_finished():
            return None
        log.say(f"device: {hardware.describe(ctx)}")
        if words := hardware.warning(cfg.model, ctx):
            log.say(f"warning: {words}")
        if ctx.device.type == "cuda":
            warn_of_memory(cfg, ctx, log)
        reading = functools.partial(checkpoint.naming_the_older, path) if path != cfg.model else contextlib.nullcontext
        with reading():
            tokenizer = loading.load_tokenizer(path, cfg.trust_remote_code)
        now = ctx.gather_parts(log.first_start())[0]
        problems, prompts = load_prompts(cfg, cfg.train_data, "train", tokenizer, log, now)
        if not data.thinks_aloud(tokenizer, prompts[0]) and not all(problem.grader for problem in problems):
            log.say(f"{cfg.model} does not think aloud: the last box of a whole response is its answer")
        rewards.check_data(cfg, problems)
        held_out = load_prompts(cfg, cfg.eval_data, "test", tokenizer, log, now, limit=cfg.max_problems)
        fingerprints = same_data(cfg, problems, held_out[0], ctx)
        with reading():
            model = load_model(cfg, path, ctx, log)
        with ctx.fail_together(ValueError, ValueError):
            for note in loading.keep_savable(model, tokenizer, path, write=ctx.is_main):
                log.say(f"note: {note}")
        check_sizes(cfg, problems, prompts + held_out[1], model, ctx)
        if cfg.compile and not rollout.is_vllm(cfg.sampler, ctx.device):
            raise ValueError("--compile needs vLLM as the sampler: the trainer's model is compiled for training alone")
        policy, optimizer = make_policy(model, cfg, ctx)
        longest = max(map(len, prompts + held_out[1])) + cfg.max_response_tokens
        sampler = make_sampler(cfg, model, path, tokenizer, longest, held_out_chunk(held_out[0], ctx), ctx)
        if note := getattr(sampler, "note", None):
            log.say(f"note: {note}")
        done, state = 0, METHODS[cfg.method].new_state(cfg, len(problems))
        if path != cfg.model:
            with reading():
                done, about = checkpoint.restore_optimizer(path, model, optimizer)
                state = checkpoint.restore_state(path)
            for name, ours in fingerprints.items():  # the data's order is a function of the seed, if it is this data
                if about.get(name, ours) != ours:
                    raise ValueError(f"{getattr(cfg, name)} has changed since {path}: choose another --run-dir")
            if rollout.is_vllm(cfg.sampler, ctx.device):
                sampler.update_weights(model, policy)
        log.begin(done, held_out[0], now)
        log.say(outlook.plan(cfg, model, problems, held_out[0], sampler, done))
        at_a_mistake.pop_all()  # from here on the run keeps its lock
    data_part, model_part = (tokenizer, problems, prompts, held_out), (model, policy, optimizer, sampler)
    return Run(cfg, ctx, log, *data_part, *model_part, done, state, fingerprints, held)


def warn_of_memory(cfg, ctx, log):
    """Say so if the estimate sees a rank run out of memory. Its constants were never checked on a card: no refusal."""
    total = torch.cuda.get_device_properties(ctx.device).total_memory
    try:
        reason = memory.reason_not_to_fit(cfg, ctx.size, total, vllm=rollout.is_vllm(cfg.sampler, ctx.device))
    except ValueError as error:  # another kind of model
        return log.say(f"note: no memory estimate: {error}")
    if reason:
        log.say(f"warning: by the estimate of `train.py --dry-run` this will not fit: {reason}")


def same_data(cfg, problems, held_out, ctx: DistContext) -> dict[str, int]:
    """{name of the setting: fingerprint} of the two data sets; ValueError if a rank has read others."""
    ours = {"train_data": data.fingerprint(problems), "eval_data": data.fingerprint(held_out)}
    first, *others = ctx.gather_parts(ours)
    for rank, theirs in enumerate(others, 1):
        for name in ours:
            if theirs[name] != first[name]:
                raise ValueError(f"rank {rank} reads other problems in {getattr(cfg, name)} than rank 0")
    return ours


def load_prompts(cfg, spec, split, tokenizer, log, now=None, limit=None):
    """(problems, prompt ids) of a data set, its first `limit` problems; says how many prompts were too long. now: the
    date for a chat template that tells one."""
    problems = data.load_problems(spec, split=split, n=limit or None, skip_unanswered=cfg.skip_unanswered)
    problems, prompts, dropped = data.encode_prompts(
        problems, tokenizer, max_tokens=cfg.max_prompt_tokens, template=cfg.template, suffix=cfg.suffixes, now=now
    )
    counts = {"too long and dropped": dropped, "asked more than once": data.duplicates(problems)}
    if notes := [f"{n} {words}" for words, n in counts.items() if n]:
        log.say(", ".join([f"{spec} ({split}): {len(problems)} problems", *notes]))
    return problems, prompts


def check_sizes(cfg, problems, prompts, model, ctx):
    """ValueError where prompts, vocabulary, data or ranks do not fit together."""
    (context, why), longest = loading.context_of(model.config, model), max(map(len, prompts))
    if longest + cfg.max_response_tokens > context:
        raise ValueError(
            f"a prompt of {longest} tokens and --max-response-tokens {cfg.max_response_tokens} exceed the context of "
            f"{cfg.model}, {context} tokens ({why})"
        )
    loading.check_ids(prompts, model.get_input_embeddings().weight.shape[0], cfg.model)
    if len(problems) < cfg.prompts_per_step:
        raise ValueError(f"{cfg.train_data}: {len(problems)} problems are fewer than one step's {cfg.prompts_per_step}")
    memory.check_work_for(ctx.size, cfg)


def load_model(cfg, path: str | Path, ctx: DistContext, log: RunLog | None = None):
    """What is trained. To be split, rank 0 alone reads the weights, into main memory: the others take them from it."""
    device = ctx.device
    if cfg.shard:
        device = "meta" if ctx.rank else "cpu"
    frozen = None
    with ctx.fail_together(ValueError, ValueError):
        model = loading.load_model(path, device=device, trust_remote_code=cfg.trust_remote_code)
        if device != "meta":
            frozen = probe.freeze_unused_parts(model)
    for part in ctx.gather_parts(frozen)[0]:
        model.get_submodule(part).requires_grad_(False)
        if log:
            log.say(f"note: {part} has no part in what the model says to a text: it is not trained")
    return model


def make_policy(model, cfg, ctx: DistContext):
    """(policy, optimizer): the model behind Policy (and DDP or FSDP over several ranks), AdamW on fp32 weights."""
    # Experts: a rank's tokens may not need all of them
    some = ctx.size > 1 and not cfg.shard and any(ctx.gather(probe.unreached(model)))
    model.eval()  # no dropout anywhere; gradient checkpointing alone needs train mode
    if cfg.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    if cfg.compile:
        compile_layers(model)
    policy = Policy(model, cfg.temperature, bf16=ctx.bf16)
    if cfg.shard:
        policy = shard.shard(policy, ctx)
    elif ctx.size > 1:
        ids = [ctx.device.index] if ctx.device.type == "cuda" else None
        policy = DistributedDataParallel(
            policy, device_ids=ids, gradient_as_bucket_view=True, find_unused_parameters=some
        )
        if not some:
            batches.fill_buckets(policy, ctx.device)
    return policy, torch.optim.AdamW(model.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)


def held_out_chunk(problems, ctx: DistContext) -> int:
    """Held-out problems per call of a rank's sampler: many rows at once, yet work for every rank."""
    return math.ceil(min(128, len(problems)) / ctx.size)


def make_sampler(cfg, model, path, tokenizer, max_model_len: int, held_out: int, ctx: DistContext):
    """The sampler that `cfg` names, for this rank's prompts, or so many held-out ones. vLLM begins with the base model
    even if the run goes on from `path`: a new path would have it compile anew. `start` brings it the weights."""
    dtype = torch.bfloat16 if ctx.device.type == "cuda" else torch.float32
    own = functools.partial(  # a sharded model cannot be lent
        loading.load_model, path, dtype=dtype, device=ctx.device, trust_remote_code=cfg.trust_remote_code
    )
    return rollout.make_sampler(
        cfg.sampler,
        own if cfg.shard else model,
        os.path.expanduser(cfg.model),
        tokenizer,
        device=ctx.device,
        rows=max(math.ceil(cfg.prompts_per_step / ctx.size) * cfg.group_size, held_out * cfg.samples),
        max_model_len=max_model_len,
        seed=cfg.seed + ctx.rank,
        gpu_memory_utilization=cfg.gpu_memory_utilization,
        trust_remote_code=cfg.trust_remote_code,
    )


def batch_numbers(responses: list[GradedResponse], batch: Batch, cfg) -> dict:
    """What the batch looked like, all ranks together: the numbers to watch first. docs/metrics.md explains each."""
    correct_PG, length_PG = batch.correct_PG, batch.length_PG
    right, wrong = length_PG[correct_PG].float(), length_PG[~correct_PG].float()
    logp = [x for r in responses for x in r.rollout.logp]
    return {
        "accuracy": correct_PG.float().mean().item(),
        "mean_length": length_PG.float().mean().item(),  # tokens, end token included
        "mean_length_correct": right.mean().item() if len(right) else None,
        "mean_length_wrong": wrong.mean().item() if len(wrong) else None,
        "truncated": sum(not r.finished for r in responses) / len(responses),
        "mixed_groups": drpo.mixed_groups(correct_PG).float().mean().item(),
        "entropy": -sum(logp) / len(logp),  # nats per token, estimated by the sample
        "response_tokens": int(length_PG.sum()),
        "reasons": dict(sorted(Counter(r.reason for r in responses).items())),
    } | METHODS[cfg.method].numbers(batch, cfg)


class Clock:
    """Wall seconds of each stage. CUDA runs behind Python's back, so a lap waits for it."""

    def __init__(self, device):
        self.device, self.seconds, self.last = device, {}, time.perf_counter()

    def lap(self, stage):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[f"seconds_{stage}"], self.last = now - self.last, now
