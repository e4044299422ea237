"""train.py - the loop, readable end to end: sample, grade, weigh, update, log. One process per GPU, or just one.

    python train.py                                          the embedded tiny model on this machine's CPU
    torchrun --nproc_per_node=8 train.py r1-1.5b --lam 0.1   the paper's setting on one node

Every rank samples and grades its own prompts; then all ranks see the whole batch, so the weights, the credits and the
logged numbers are global, and each rank updates on an equal share of *tokens*. The gradient does not depend on the
number of ranks or on how the batch is cut. What the loop works with is made by minidrpo/setup.py; settings are in
config.py, the methods in minidrpo/methods.

P prompts | G responses per prompt | N = P*G responses in prompt order | T response tokens
"""

import math
import sys

import numpy as np
import torch
import transformers
from torch import Tensor

import config
import drpo
import reward
import rollout
from minidrpo import cli, setup
from minidrpo.engine import batches
from minidrpo.engine.distributed import DistContext, init_distributed, shutdown
from minidrpo.engine.shard import whole
from minidrpo.methods import baselines
from minidrpo.methods import table as methods
from minidrpo.records import Rollout
from minidrpo.rundir import lock
from minidrpo.tasks import data


def train(cfg: config.RunConfig, ctx: DistContext) -> None:
    """Run (or go on with) the training that `cfg` describes; its files are then in cfg.directory."""
    run = setup.start(cfg, ctx)
    if run is None:  # all its steps are done
        return
    if run.done == 0 and cfg.eval_start:
        run.evaluate(0)
    for step in run.log.progress(range(run.done + 1, cfg.steps + 1)):
        clock = setup.Clock(ctx.device)

        # 1 sample: G responses to each of this step's prompts; every rank asks its own part of them
        chosen = data.batch_indices(cfg.seed, step - 1, len(run.problems), cfg.prompts_per_step)
        seeds = np.random.default_rng([cfg.seed, step]).integers(2**31, size=cfg.prompts_per_step)
        mine = np.array_split(np.arange(cfg.prompts_per_step), ctx.size)[ctx.rank]
        own_rollouts = run.sampler.sample(
            [run.prompts[i] for i in chosen[mine]],
            n=cfg.group_size,
            temperature=cfg.temperature,
            max_tokens=cfg.max_response_tokens,
            seeds=seeds[mine].tolist(),
        )
        run.sampler.sleep()
        clock.lap("sample")

        # 2 grade: is each answer correct? From here on, every rank has the whole batch
        texts = [rollout.decode(r, run.tokenizer) for r in own_rollouts]
        problems = [run.problems[i] for i in chosen[mine]]
        responses = ctx.gather(reward.grade_rollouts(problems, own_rollouts, texts, run.opened, **run.grading))
        batch = methods.Batch.of(responses, cfg.group_size, chosen, run.opened)
        clock.lap("grade")

        # 3 weigh: one number per response: DRPO's weight among the prompt's correct ones, or a baseline's advantage
        weight_PG, run.state = methods.compute_weights(batch, cfg, run.state)
        clock.lap("weigh")

        # 4 update: the model's log-probabilities move by these weights; then the sampler gets the new model
        for group in run.optimizer.param_groups:
            group["lr"] = cfg.lr * min(1.0, step / max(1, cfg.warmup_steps))
        rollouts = [r.rollout for r in responses]
        numbers = update(run.policy, run.optimizer, rollouts, batch.correct_PG, weight_PG, cfg, ctx, run.sampler.exact)
        run.check_sampler(numbers["sampler_gap"])  # else it would train on what another model says
        batches.clear_gradients(run.policy, run.optimizer)  # room for the sampler (DDP keeps its buckets)
        clock.lap("update")
        run.sampler.update_weights(run.model, run.policy)
        clock.lap("sync")

        # 5 log: numbers for eyes and plots, whole responses to read, a checkpoint now and then
        run.log.step(step, numbers | setup.batch_numbers(responses, batch, cfg) | clock.seconds)
        run.log.samples(step, [run.problems[i] for i in chosen], responses, weight_PG)
        if step % cfg.eval_every == 0 or step == cfg.steps:
            run.evaluate(step)
        if step % cfg.save_every == 0 or step == cfg.steps:
            run.save(step)
    run.close()


def update(
    policy: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rollouts: list[Rollout],
    correct_PG: Tensor,
    weight_PG: Tensor,
    cfg: config.RunConfig,
    ctx: DistContext,
    exact_sampler: bool = False,
) -> dict[str, float]:
    """Stage 4: one optimizer step per mini-batch, streamed in micro-batches. Returns numbers to log.

    weight_PG: DRPO's weights or a baseline's advantages. exact_sampler: the sampler's log-probabilities are the
    trainer's own up to rounding, so the responses need not be scored a second time.
    """
    method = methods.METHODS[cfg.method]
    P = len(correct_PG)
    on_policy_P = torch.arange(P) < P // cfg.mini_batches  # prompts of the first mini-batch: there KL is 0
    has_gradient_PG = method.surrogate.has_gradient(correct_PG, weight_PG, on_policy_P)
    minis = batches.mini_batches(rollouts, correct_PG, weight_PG, has_gradient_PG, cfg, ctx)
    # A clipped surrogate's first mini-batch gets its old log-probabilities from its own forward pass, below
    batches.score_old(policy, minis if method.discriminative else minis[1:], exact_sampler)
    gap = torch.zeros(2, dtype=torch.float64)
    for mini in minis:
        if method.discriminative:  # DRPO, DisCO: a response's credit depends on the scores of its whole group
            credit_N, kl_grad = score_and_credit(policy, mini, cfg, ctx, on_policy=mini is minis[0])
        batches.clear_gradients(policy, optimizer)
        for micro in mini.micro_batches:
            with micro.gradient_sync(policy):
                logp_NT = policy(*micro.inputs)
                logps = logp_NT, micro.old_logp(logp_NT), micro.mask_NT
                if micro.is_filler:
                    loss = logp_NT.sum()  # no gradient, but all ranks must run a sharded model
                elif method.discriminative:
                    credit = credit_N[micro.rows].to(logp_NT)
                    loss = drpo.micro_batch_loss(*logps, credit, kl_grad, mini.n_tokens, cfg.kl_estimator, cfg.score)
                else:  # GRPO and the others: it needs only its own advantage
                    surrogate, advantage_N = method.surrogate, mini.weight_PG.flatten()[micro.rows].to(logp_NT)
                    loss = -baselines.clipped_surrogate(
                        *logps, advantage_N, surrogate.clip_low, surrogate.clip_high, surrogate.aggregate,
                        n_sequences=mini.n, n_tokens=mini.n_tokens, max_tokens=cfg.max_response_tokens,
                    )  # fmt: skip
                    mini.add_to_log(-loss, drpo.kl_per_token(*logps).sum(), micro.mask_NT.sum())
                (loss * ctx.size).backward()  # DDP and FSDP average over ranks; the batch's gradient is a sum
            if mini is minis[0]:  # still the policy that sampled
                gap += micro.sampler_gap(logp_NT.detach())
        mini.grad_norm = whole(torch.nn.utils.clip_grad_norm_(policy.parameters(), cfg.grad_clip)).item()
        if not math.isfinite(mini.grad_norm):  # the same on all ranks, so all stop, before the weights are spoilt
            raise FloatingPointError(f"the gradient is not finite ({mini.grad_norm}); the last checkpoint is intact")
        optimizer.step()
    return batches.update_numbers(minis, gap, ctx)


@torch.no_grad()
def score_and_credit(policy, mini, cfg, ctx, on_policy: bool) -> tuple[Tensor, float]:
    """(credit_N, factor of grad KL) of DRPO and DisCO: from the scores and the KL of the whole mini-batch under the
    current weights. on_policy: these are the weights that sampled, whose log-probabilities are there already."""
    score_N, kl = torch.zeros(mini.n, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for micro in mini.micro_batches:
        logp_NT = micro.old_logp_NT if on_policy else policy(*micro.inputs)
        if not micro.is_filler:
            score_N[micro.rows] = (
                drpo.sequence_score(logp_NT, micro.mask_NT, micro.old_logp_NT, cfg.score).double().cpu()
            )
            kl_NT = drpo.kl_per_token(logp_NT, micro.old_logp_NT, micro.mask_NT, cfg.kl_estimator)
            kl += kl_NT.sum().double().cpu() / mini.n_tokens
    score_PG, kl = ctx.all_sum(score_N).view(mini.correct_PG.shape), ctx.all_sum(kl)
    of_J = score_PG, mini.correct_PG, mini.weight_PG.double(), cfg.tau, cfg.negatives
    mini.objective, mini.kl = drpo.drpo_objective(*of_J).item(), kl.item()
    return drpo.drpo_credit(*of_J).flatten(), drpo.kl_penalty_grad(kl, cfg.beta, cfg.delta).item()


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--dry-run" in argv:  # what a GPU must hold, without loading anything: a command of its own
        from minidrpo.show import memory

        return memory.main([word for word in argv if word != "--dry-run"])
    about = "Train a reasoning model to think shorter with DRPO. --dry-run beside other flags: what each GPU must hold."
    cfg = config.parse(argv, "train.py", about)
    transformers.utils.logging.disable_progress_bar()
    ctx = init_distributed()
    with shutdown(ctx), cli.machine_trouble(ctx.rank, gone=ctx.gone), lock.held(cfg.directory, ctx):
        train(cfg, ctx)
        if ctx.is_main:
            from minidrpo.show import run_report

            run_report.show(cfg)


if __name__ == "__main__":
    sys.exit(main())
