"""update.py - the fourth stage: from credit to new weights, streamed in micro-batches, exact for any cut.

A mini-batch (whole groups of answers) makes one optimizer step. Its gradient is that of the method's objective on the
whole mini-batch, whatever the number of ranks and micro-batches: answers are independent once their credit is known.

    discriminative (DRPO, DisCO)   all answers are scored first, as wrong ones share their push among themselves;
                                   then gain = sum_n credit_n s_n - pressure * KL                   (drpo.py)
    clipped (every other method)   an answer's gain needs only its own tokens and its advantage     (baselines.py)

P prompts | G answers a prompt | N answers | T response tokens (padded; masks come from lengths)
"""

import contextlib

import numpy as np
import torch

import drpo
from minidrpo.engine import policy as policies
from minidrpo.engine.distributed import all_sum
from minidrpo.engine.shard import whole
from minidrpo.methods import baselines
from minidrpo.methods.table import METHODS


def update(policy, optimizer, rollouts, correct_PG, weight_PG, cfg, world, exact_sampler=False):
    """`mini_batches` optimizer steps. weight_PG: DRPO's weights or a baseline's advantages. Returns numbers to log.
    exact_sampler: the sampler's log-probabilities are this model's own up to rounding, and need no second pass."""
    minis = [MiniBatch(m, rollouts, correct_PG, weight_PG, cfg, world) for m in range(cfg.mini_batches)]
    step_kind = DiscriminativeStep if minis[0].discriminative else ClippedStep
    with torch.no_grad():  # the policy that sampled, scored by the model being trained: "old"
        for mini in minis[step_kind.first_scored :]:
            for micro in mini.micros:
                micro.old_logp_NT = micro.sampler_logp(policy) if exact_sampler else policy(*micro.inputs)
    objectives, grad_norms, gap = [], [], torch.zeros(2, dtype=torch.float64)
    for mini in minis:
        step = step_kind(mini, policy, mini is minis[0], cfg, world)
        # Forward and backward, micro-batch by micro-batch; ranks exchange gradients in the last one's backward
        optimizer.zero_grad(set_to_none=True)
        # (FSDP knows no such pause: it sums in every backward, for gradients kept whole are what sharding avoids)
        pause = getattr(policy, "no_sync", contextlib.nullcontext)
        for micro in mini.micros:
            with contextlib.nullcontext() if micro is mini.micros[-1] else pause():
                logp_NT = policy(*micro.inputs)
                if mini is minis[0]:  # still the policy that sampled
                    gap += micro.sampler_gap(logp_NT.detach())
                gain = step.gain(micro, logp_NT) if micro.answers else logp_NT.sum()
                (-gain * world.size).backward()  # both average over ranks, the batch's gradient is a sum
        objective, kl = step.objective_and_kl()
        grad_norms.append(whole(torch.nn.utils.clip_grad_norm_(policy.parameters(), cfg.grad_clip)).item())
        if not np.isfinite(grad_norms[-1]):  # the same on all ranks, so all stop, before the weights are spoilt
            raise FloatingPointError(f"the gradient is not finite ({grad_norms[-1]}); the last checkpoint is intact")
        objectives.append(objective)
        optimizer.step()
    gap_sum, gap_tokens = all_sum(gap, world).tolist()
    return {
        "objective": float(np.mean(objectives)),  # J before each optimizer step, averaged
        "kl": kl,  # of the last mini-batch: 0 with a single one, which is on-policy
        "trained_tokens": sum(mini.trained_tokens for mini in minis),  # of answers that teach, all ranks together
        "grad_norm": float(np.max(grad_norms)),  # before clipping; a NaN shows
        "sampler_gap": gap_sum / gap_tokens,  # mean |logp of the trainer - logp of the sampler|, first mini-batch
    }


class DiscriminativeStep:
    """DRPO and DisCO: scores and KL of the whole mini-batch under the current weights, hence credit and pressure."""

    first_scored = 0  # every mini-batch's old log-probabilities are needed; the first one's are its scores, too

    def __init__(self, mini, policy, first, cfg, world):
        self.cfg, self.n_tokens = cfg, mini.n_tokens
        score_N, kl = torch.zeros(mini.n + 1, dtype=torch.float64).split([mini.n, 1])
        with torch.no_grad():
            for micro in mini.micros:
                logp_NT = micro.old_logp_NT if first else policy(*micro.inputs)
                if not micro.answers:
                    continue
                score_N[micro.answers] = micro.score(logp_NT, cfg).double().cpu()
                kl += micro.kl_sum(logp_NT, cfg).double().cpu() / mini.n_tokens
        score_N, kl = all_sum(torch.cat([score_N, kl]), world).split([mini.n, 1])
        negatives = METHODS[cfg.method].surrogate.negatives or cfg.negatives
        groups = (score_N.view(mini.correct_PG.shape), mini.correct_PG, mini.weight_PG.double(), cfg.tau, negatives)
        self.objective, self.kl = drpo.drpo_objective(*groups).item(), kl.item()
        self.credit_N = drpo.drpo_credit(*groups).flatten()
        self.pressure = drpo.trust_region_pressure(kl, cfg.beta, cfg.delta).item()

    def gain(self, micro, logp_NT):
        gain = (self.credit_N[micro.answers].to(logp_NT) * micro.score(logp_NT, self.cfg)).sum()
        if self.pressure > 0:
            gain = gain - self.pressure * micro.kl_sum(logp_NT, self.cfg) / self.n_tokens
        return gain

    def objective_and_kl(self):
        return self.objective, self.kl


class ClippedStep:
    """Every other method: nothing has to be known of the other answers but how many there are."""

    first_scored = 1  # the first mini-batch is on-policy: its old log-probabilities are those of its own forward pass

    def __init__(self, mini, policy, first, cfg, world):
        self.mini, self.cfg, self.world = mini, cfg, world
        self.sums = torch.zeros(3, dtype=torch.float64)

    def gain(self, micro, logp_NT):
        if micro.old_logp_NT is None:
            micro.old_logp_NT = logp_NT.detach()
        surrogate = METHODS[self.cfg.method].surrogate
        gain = baselines.clipped_surrogate(
            logp_NT,
            micro.old_logp_NT,
            micro.inputs[2],
            self.mini.weight_PG.flatten()[micro.answers].to(logp_NT),
            surrogate.clip_low,
            surrogate.clip_high,
            surrogate.aggregate,
            n_sequences=self.mini.n,
            n_tokens=self.mini.n_tokens,
            max_tokens=self.cfg.max_response_tokens,
        )
        numbers = gain.detach(), micro.kl_sum(logp_NT.detach(), self.cfg), micro.inputs[2].sum()
        self.sums += torch.stack([x.double().cpu() for x in numbers])
        return gain

    def objective_and_kl(self):
        objective, kl_sum, n_tokens = all_sum(self.sums, self.world).tolist()
        return objective, kl_sum / n_tokens  # over the answers that teach: the others are not scored


class MiniBatch:
    """Whole groups for one optimizer step: their grades on every rank, and this rank's answers as micro-batches."""

    def __init__(self, m, rollouts, correct_PG, weight_PG, cfg, world):
        P, G = len(correct_PG) // cfg.mini_batches, cfg.group_size
        self.correct_PG, self.weight_PG = (x[m * P : (m + 1) * P] for x in (correct_PG, weight_PG))
        rollouts = rollouts[m * P * G : (m + 1) * P * G]
        self.n, self.n_tokens = P * G, sum(len(r.response_ids) for r in rollouts)
        self.discriminative = METHODS[cfg.method].discriminative
        answers = self._that_teach(first=m == 0).nonzero()[:, 0].tolist()
        if len(answers) < world.size:  # each rank must have something to run backward
            answers = list(range(self.n))
        self.trained_tokens = sum(len(rollouts[i].response_ids) for i in answers)
        lengths = [len(rollouts[i].prompt_ids) + len(rollouts[i].response_ids) for i in answers]
        shares = policies.shares(lengths, world.size, cfg.micro_batch_tokens)
        pieces = shares[world.rank]
        if cfg.shard:  # to run a sharded model takes all ranks, so they must run it equally often
            pieces = pieces + [[]] * (max(map(len, shares)) - len(pieces))
        self.micros = [MicroBatch([answers[k] for k in piece], rollouts, world.device) for piece in pieces]

    def _that_teach(self, first):
        """(N,) bool: answers with a gradient; the others are left out of the work, not out of the normalisation.
        While KL is 0, as it is in the first mini-batch, groups all right or all wrong give none; a clipped surrogate's
        gradient is 0 where the advantage is. Later the trust region feels every token."""
        G = self.correct_PG.shape[1]
        if not self.discriminative:
            return self.weight_PG.flatten() != 0
        return drpo.mixed_groups(self.correct_PG).repeat_interleave(G) | torch.tensor(not first)


class MicroBatch:
    """Some of a mini-batch's answers, padded together. `answers` are their positions in the mini-batch; none makes a
    filler, one token that is not scored."""

    def __init__(self, answers, rollouts, device):
        self.answers, self.rollouts, self.old_logp_NT = answers, [rollouts[i] for i in answers], None
        one = torch.ones(1, 1, dtype=torch.long, device=device)
        self.inputs = policies.pad(self.rollouts, device) if answers else (one, one[0], one < 1)  # ids, prompt, mask

    def score(self, logp_NT, cfg):
        return drpo.sequence_score(logp_NT, self.inputs[2], self.old_logp_NT, cfg.score)

    def kl_sum(self, logp_NT, cfg):
        return drpo.kl_per_token(logp_NT, self.old_logp_NT, self.inputs[2], cfg.kl_estimator).sum()

    def sampler_logp(self, policy):
        """(N, T): what the sampler says, in the dtype of the policy's parameters; 0 on padding."""
        mask_NT, like = self.inputs[2], next(policy.parameters())
        logp_M = torch.tensor([x for r in self.rollouts for x in r.logp], dtype=like.dtype, device=like.device)
        return logp_M.new_zeros(mask_NT.shape).masked_scatter(mask_NT, logp_M)

    def sampler_gap(self, logp_NT):
        """(sum over tokens of |trainer's logp - sampler's logp|, number of tokens)"""
        trainer = logp_NT[self.inputs[2]].double().cpu()
        sampler = torch.tensor([x for r in self.rollouts for x in r.logp], dtype=torch.float64)
        return torch.tensor([(trainer - sampler).abs().sum(), len(sampler)], dtype=torch.float64)
