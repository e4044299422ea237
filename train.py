"""train.py - the loop, readable end to end: sample, grade, weigh, update, log. One process a GPU, or just one.

    python train.py                                          the embedded tiny model on this machine's CPU
    torchrun --nproc_per_node=8 train.py r1-1.5b --lam 0.1   the paper's setting on one node

Every rank samples and grades its own prompts; then all ranks see the whole batch, so the weights, the credits and the
logged numbers are global, and each rank updates on an equal share of *tokens*. What a gradient is never depends on
how many ranks there are or how the batch is cut. A stage a file: rollout.py, reward.py, methods.py (formulas: drpo.py,
baselines.py), update.py, report.py. Settings are in config.py.

P prompts | G answers a prompt | N = P*G answers in prompt order | T response tokens
"""

import functools
import math
import sys
import time
import zlib
from collections import Counter

import numpy as np
import torch
import transformers
from torch.nn.parallel import DistributedDataParallel

import drpo
import reward
import rollout
from config import PRESETS, refuse_ignored
from eval import decode, evaluate
from minidrpo import cli
from minidrpo.engine import memory, shard
from minidrpo.engine import policy as policies
from minidrpo.engine.distributed import gather, join_world, parting, together
from minidrpo.engine.update import update
from minidrpo.methods import table as methods
from minidrpo.rundir import checkpoint, report
from minidrpo.tasks import data


def train(cfg, world):
    """Run (or go on with) the training that `cfg` describes."""
    with cli.user_errors(world.rank):  # what a user can get wrong ends in here, in one line
        run = report.Run(cfg, world.rank)
        if run.is_finished():
            return run.finish()
        if world.device.type == "cuda":
            memory.check(cfg, world.size, gpu_memory(world.device), vllm=rollout.is_vllm(cfg.sampler, world.device))
        path = checkpoint.newest(cfg.directory) or cfg.model
        if len(set(gather([str(path)], world))) > 1:
            raise ValueError(f"ranks see different checkpoints: {cfg.directory} must be on a disk all nodes share")
        tokenizer = policies.load_tokenizer(path, cfg.trust_remote_code)
        problems, prompts = load_prompts(cfg, cfg.train_data, "train", tokenizer, run)
        held_out = load_prompts(cfg, cfg.eval_data, "test", tokenizer, run, limit=cfg.eval_problems)
        model = load_model(cfg, path, world)
        check_sizes(cfg, problems, prompts + held_out[1], model, world)
        if cfg.compile and not rollout.is_vllm(cfg.sampler, world.device):
            raise ValueError("--compile needs vLLM as the sampler: the trainer's model is compiled for training alone")
        policy, optimizer = set_up(model, cfg, world)
        sampler = make_sampler(cfg, model, path, tokenizer, world)
        done, state = 0, methods.METHODS[cfg.method].new_state(cfg, len(problems))
        fingerprint = torch.tensor(zlib.crc32(repr(prompts).encode()))
        if path != cfg.model:
            done, state = checkpoint.restore_optimizer(path, model, optimizer), checkpoint.restore_state(path)
            if state.pop("prompts", fingerprint) != fingerprint:
                raise ValueError(f"{cfg.train_data} has changed since {path}: choose another --run-dir")
        run.begin(done, held_out[0])
    opened = tokenizer.decode(prompts[0]).rstrip().endswith("<think>")

    settings = evaluation_settings(cfg, world, len(held_out[0]))

    def evaluation(step):
        run.log_evaluation(step, evaluate(sampler, *held_out, tokenizer=tokenizer, **settings))

    if done == 0 and cfg.eval_start:
        evaluation(0)
    for step in run.progress(range(done + 1, cfg.steps + 1)):
        clock = Clock(world.device)

        # 1 sample: this step's prompts, G answers each; every rank asks its own part of the prompts
        chosen = data.batch_indices(cfg.seed, step - 1, len(problems), cfg.prompts_per_step)
        mine = np.array_split(np.arange(cfg.prompts_per_step), world.size)[world.rank]
        seeds = np.random.default_rng([cfg.seed, step]).integers(2**31, size=cfg.prompts_per_step)
        sampler.wake()
        rollouts = sampler.sample(
            [prompts[chosen[i]] for i in mine],
            n=cfg.group_size,
            temperature=cfg.temperature,
            max_tokens=cfg.max_response_tokens,
            seeds=[int(seeds[i]) for i in mine],
        )
        sampler.sleep()
        clock.lap("sample")

        # 2 grade: is each answer correct? One that was cut off is not
        texts = [decode(r, tokenizer) for r in rollouts]
        grades = reward.grade_all(texts, [problems[chosen[i]].answer for i in mine for _ in range(cfg.group_size)])
        # From here on, the whole batch on every rank
        rollouts, texts, grades = (gather(part, world) for part in (rollouts, texts, grades))
        correct_PG = in_groups([g.correct and r.finished for g, r in zip(grades, rollouts, strict=True)], cfg)
        clock.lap("grade")

        # 3 weigh: how much each answer is wanted; for DRPO, how a prompt's pull is shared among its correct answers
        length_PG = in_groups([len(r.response_ids) for r in rollouts], cfg)
        batch = methods.Batch(correct_PG, length_PG, texts, torch.as_tensor(chosen), opened)
        weight_PG, state = methods.weigh(batch, cfg, state)
        clock.lap("weigh")

        # 4 update: one optimizer step a mini-batch, then the sampler gets the new weights
        for group in optimizer.param_groups:
            group["lr"] = cfg.lr * min(1.0, step / max(1, cfg.warmup_steps))
        numbers = update(policy, optimizer, rollouts, correct_PG, weight_PG, cfg, world, sampler.exact)
        optimizer.zero_grad(set_to_none=True)  # gradients would take room that the sampler wants
        clock.lap("update")
        sampler.sync(model, shard.forward(policy, model))
        clock.lap("sync")

        # 5 log: numbers for eyes and plots, whole answers to read, a checkpoint now and then
        numbers |= batch_numbers(rollouts, grades, batch, cfg) | clock.seconds
        run.log(step, numbers)
        run.log_samples(step, [problems[i] for i in chosen], rollouts, texts, grades, weight_PG)
        if step % cfg.eval_every == 0 or step == cfg.steps:
            evaluation(step)
        if step % cfg.save_every == 0 or step == cfg.steps:
            kept = state | {"prompts": fingerprint}  # the data's order is a function of the seed, if it is this data
            checkpoint.save(cfg.directory, step, model, tokenizer, optimizer, kept, keep=cfg.keep_checkpoints)

    if max((e["step"] for e in run.evaluations), default=0) < done:  # nothing left to train, its end not yet evaluated
        evaluation(done)
    run.finish()


# --------------------------------------------------------------------------------------------- set-up and numbers


def gpu_memory(device=0):
    return torch.cuda.get_device_properties(device).total_memory


def dry_run(cfg):
    """Print the memory of a rank and the size of a step; ValueError if they cannot fit. Loads nothing."""
    found = torch.cuda.device_count()
    memory_each = cfg.gpu_memory * memory.GIB or (gpu_memory() if found else 80 * memory.GIB)
    gpus = cfg.gpus or found or 8
    if cfg.shard and gpus == 1:
        raise ValueError("--shard splits a model over several ranks and there is one")
    check_work_for(gpus, cfg)
    here = found and not cfg.gpus  # else it is a plan for another machine, which may have what this one lacks
    vllm = rollout.is_vllm(cfg.sampler, torch.device("cuda")) if here else cfg.sampler != "transformers"
    if cfg.sampler == "auto" and here:
        print(f"--sampler auto: {'vLLM' if vllm else 'Transformers, as vLLM is missing'} on this machine")
    elif cfg.sampler == "auto":
        print("--sampler auto: vLLM is assumed; add --sampler transformers for a node without it")
    memory.show(cfg, gpus, memory_each, vllm=vllm)


def load_prompts(cfg, spec, split, tokenizer, run, limit=None):
    """(problems, prompt ids) of a data set, its first `limit` problems; says how many prompts were too long."""
    problems = data.load_problems(spec, split=split, n=limit or None, skip_unanswered=cfg.skip_unanswered)
    problems, prompts, dropped = data.encode_prompts(
        problems, tokenizer, max_tokens=cfg.max_prompt_tokens, template=cfg.template, suffix=cfg.suffixes
    )
    run.say(f"{spec} ({split}): {len(problems)} problems" + (f", {dropped} too long and dropped" if dropped else ""))
    return problems, prompts


def check_sizes(cfg, problems, prompts, model, world):
    context, longest = getattr(model.config, "max_position_embeddings", None), max(map(len, prompts))
    if context and longest + cfg.max_response_tokens > context:
        raise ValueError(
            f"a prompt of {longest} tokens and --max-response-tokens {cfg.max_response_tokens} exceed the context of "
            f"{cfg.model}, {context} tokens"
        )
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if max(map(max, prompts)) >= vocabulary:
        raise ValueError(f"the tokenizer of {cfg.model} makes ids past the model's vocabulary of {vocabulary}")
    if len(problems) < cfg.prompts_per_step:
        raise ValueError(f"{cfg.train_data}: {len(problems)} problems are fewer than one step's {cfg.prompts_per_step}")
    check_work_for(world.size, cfg)


def check_work_for(ranks, cfg):
    if min(cfg.prompts_per_step, cfg.prompts_per_step // cfg.mini_batches * cfg.group_size) < ranks:
        raise ValueError(f"--prompts-per-step {cfg.prompts_per_step} is too few for {ranks} ranks")


def load_model(cfg, path, world):
    """What is trained. To be split, rank 0 alone reads the weights, into main memory: the others take them from it."""
    device = world.device
    if cfg.shard:
        device = "meta" if world.rank else "cpu"
    with together(world.size, ValueError, ValueError):
        return policies.load_model(path, device=device, trust_remote_code=cfg.trust_remote_code)


def set_up(model, cfg, world):
    """(policy, optimizer): the model behind Policy (and DDP or FSDP over several ranks), AdamW on fp32 weights."""
    model.eval()  # no dropout anywhere; gradient checkpointing alone needs train mode
    if cfg.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    if cfg.compile:
        policies.compile_layers(model)
    policy = policies.Policy(model, cfg.temperature)
    if cfg.shard:
        policy = shard.shard(policy, world)
    elif world.size > 1:
        ids = [world.device.index] if world.device.type == "cuda" else None
        policy = DistributedDataParallel(policy, device_ids=ids, gradient_as_bucket_view=True)
    return policy, torch.optim.AdamW(model.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)


def make_sampler(cfg, model, path, tokenizer, world):
    dtype = torch.bfloat16 if world.device.type == "cuda" else torch.float32
    own = functools.partial(  # a sharded model cannot be lent
        policies.load_model, path, dtype=dtype, device=world.device, trust_remote_code=cfg.trust_remote_code
    )
    return rollout.make_sampler(
        cfg.sampler,
        own if cfg.shard else model,
        str(path),
        tokenizer,
        device=world.device,
        max_model_len=cfg.max_prompt_tokens + cfg.max_response_tokens,
        seed=cfg.seed + world.rank,
        gpu_memory_utilization=cfg.gpu_memory_utilization,
        trust_remote_code=cfg.trust_remote_code,
    )


def evaluation_settings(cfg, world, n_problems):
    return {
        "n": cfg.eval_samples,
        "temperature": cfg.temperature,
        "top_p": cfg.eval_top_p,
        "max_tokens": cfg.max_response_tokens,
        "seed": cfg.seed,
        "rank": world.rank,
        "world_size": world.size,
        "chunk": math.ceil(min(128, n_problems) / world.size),  # many rows at once, yet work for every rank
    }


def in_groups(values, cfg):
    return torch.tensor(values).view(-1, cfg.group_size)


def batch_numbers(rollouts, grades, batch, cfg):
    """What the batch looked like, all ranks together: the numbers to watch first."""
    correct_PG, length_PG = batch.correct_PG, batch.length_PG
    reasons = Counter(g.reason if r.finished else "truncated" for g, r in zip(grades, rollouts, strict=True))
    right = length_PG[correct_PG].float()
    return {
        "accuracy": correct_PG.float().mean().item(),
        "mean_length": length_PG.float().mean().item(),  # tokens, end token included
        "mean_length_correct": right.mean().item() if len(right) else None,
        "truncated": float(np.mean([not r.finished for r in rollouts])),
        "mixed_groups": drpo.mixed_groups(correct_PG).float().mean().item(),
        "entropy": float(-np.mean([x for r in rollouts for x in r.logp])),  # nats a token, estimated by the sample
        "reward_length": (correct_PG & (length_PG <= cfg.length_limit)).float().mean().item(),  # GDPO's, conditioned
        "response_tokens": int(length_PG.sum()),
        "reasons": dict(sorted(reasons.items())),
    }


class Clock:
    """Wall seconds of each stage. CUDA runs behind Python's back, so a lap waits for it."""

    def __init__(self, device):
        self.device, self.seconds, self.last = device, {}, time.perf_counter()

    def lap(self, stage):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[f"seconds_{stage}"], self.last = now - self.last, now


def main(argv=None):
    about = "Train a reasoning model to think shorter with DRPO."
    cfg = cli.parse(PRESETS, argv, prog="train.py", description=about, check=refuse_ignored)
    if cfg.dry_run:
        with cli.user_errors():
            return dry_run(cfg)
    transformers.utils.logging.disable_progress_bar()
    sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 still gets its table
    world = join_world()
    with parting(world), cli.machine_trouble(world.rank):
        train(cfg, world)


if __name__ == "__main__":
    sys.exit(main())
