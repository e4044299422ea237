"""batches.py - the update's responses, cut into micro-batches over ranks; the gradient is the same for any cut.

A mini-batch (whole groups of responses) makes one optimizer step. Its responses that have a gradient are shared among
the ranks, near-equal in tokens, and each rank cuts its share into micro-batches of at most `--micro-batch-tokens`.

P prompts | G responses per prompt | N responses | T response tokens (right-padded; masks come from lengths)
"""

import contextlib
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from minidrpo.records import Rollout


def balance(length_N: Sequence[int], n_parts: int) -> list[list[int]]:
    """Response indices for each rank, near-equal in tokens: longest first, each to the part with least so far."""
    parts, load = [[] for _ in range(n_parts)], [0] * n_parts
    for i in sorted(range(len(length_N)), key=lambda i: (-length_N[i], i)):
        lightest = min(range(n_parts), key=lambda k: (load[k], k))
        parts[lightest].append(i)
        load[lightest] += length_N[i]
    return parts


def micro_batches(length_N: Sequence[int], token_budget: int) -> list[list[int]]:
    """Cut responses into batches of at most `token_budget` padded tokens (one may exceed it), at the least cost:
    padded tokens, and for each batch as many as a forward pass costs beside its tokens. Sorted by length, so that a
    batch is a run of neighbours and the best cuts follow one from the other. Returns lists of indices into length_N."""
    order = sorted(range(len(length_N)), key=lambda i: (-length_N[i], i))
    overhead = token_budget / 32  # a guess good enough: a real run's padding is then 2 to 3 % (tests/test_policy.py)
    cost, end = [0.0] * (len(order) + 1), {}  # of order[start:], and where its first batch ends
    for start in reversed(range(len(order))):
        most = max(1, int(token_budget // length_N[order[start]]))
        stops = range(start + 1, min(start + most, len(order)) + 1)
        costs = [(stop - start) * length_N[order[start]] + overhead + cost[stop] for stop in stops]
        cost[start] = min(costs)
        end[start] = stops[costs.index(cost[start])]
    batches, start = [], 0
    while start < len(order):
        batches.append(order[start : end[start]])
        start = end[start]
    return batches


def shares(length_N: Sequence[int], n_parts: int, token_budget: int) -> list[list[list[int]]]:
    """Micro-batches for each rank, [rank][batch] -> response indices: near-equal in tokens over the ranks, and as many
    on each where they have the responses for it, since ranks wait for each other (sharded ones after every layer)."""
    shares = []
    for part in balance(length_N, n_parts):
        shares.append([[part[k] for k in batch] for batch in micro_batches([length_N[i] for i in part], token_budget)])
    most = max(map(len, shares))
    for batches in shares:
        while len(batches) < most and max(map(len, batches), default=0) > 1:  # halve the longest batch: no more padding
            k = max(range(len(batches)), key=lambda k: (len(batches[k]) > 1) * sum(length_N[i] for i in batches[k]))
            half = len(batches[k]) // 2
            batches[k : k + 1] = [batches[k][:half], batches[k][half:]]
    return shares


def pad(rollouts: Sequence[Rollout], device="cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded ids (N, L), prompt lengths (N,), response mask (N, T). Masks come from lengths, never from ids."""
    length_N = [len(r.prompt_ids) + len(r.response_ids) for r in rollouts]
    ids_NL = torch.zeros(len(rollouts), max(length_N), dtype=torch.long)
    for row, r in enumerate(rollouts):
        ids_NL[row, : length_N[row]] = torch.tensor(r.prompt_ids + r.response_ids)
    prompt_N = torch.tensor([len(r.prompt_ids) for r in rollouts])
    response_N = torch.tensor([len(r.response_ids) for r in rollouts])
    mask_NT = torch.arange(int(response_N.max())) < response_N[:, None]
    return ids_NL.to(device), prompt_N.to(device), mask_NT.to(device)


# -------------------------------------------------------------------------------------------- mini- and micro-batches


class MicroBatch:
    """Some of a mini-batch's responses, padded together. `rows`: their positions in the mini-batch; none makes a
    filler, one token without a score, for ranks that must run the model as often as the others."""

    def __init__(self, rows: list[int], rollouts: Sequence[Rollout], device, is_last: bool):
        self.rows, self.rollouts, self.is_last = rows, [rollouts[i] for i in rows], is_last
        self.inputs = pad(self.rollouts, device) if rows else filler(device)
        self.mask_NT = self.inputs[2]
        self.old_logp_NT: Tensor | None = None

    @property
    def is_filler(self) -> bool:
        return not self.rows

    def old_logp(self, logp_NT: Tensor) -> Tensor:
        """Log-probabilities under the policy that sampled; on-policy they are `logp_NT`, the first forward pass's."""
        if self.old_logp_NT is None:
            self.old_logp_NT = logp_NT.detach()
        return self.old_logp_NT

    def gradient_sync(self, policy):
        """Around a forward and backward pass: DDP's ranks exchange gradients in the last one's backward only. (FSDP has
        no such pause: it sums in every backward, as sharding avoids gradients kept whole.)"""
        return getattr(policy, "no_sync", contextlib.nullcontext)() if not self.is_last else contextlib.nullcontext()

    def sampler_logp(self, like: Tensor) -> Tensor:
        """(N, T): the sampler's own log-probabilities, in the dtype and on the device of `like`; 0 on padding."""
        logp_M = torch.tensor([x for r in self.rollouts for x in r.logp], dtype=like.dtype, device=like.device)
        return logp_M.new_zeros(self.mask_NT.shape).masked_scatter(self.mask_NT, logp_M)

    def sampler_gap(self, logp_NT: Tensor) -> Tensor:
        """(sum over tokens of |trainer's logp - sampler's logp|, number of tokens)"""
        trainer = logp_NT[self.mask_NT].double().cpu()
        sampler = torch.tensor([x for r in self.rollouts for x in r.logp], dtype=torch.float64)
        return torch.tensor([(trainer - sampler).abs().sum(), len(sampler)], dtype=torch.float64)


class MiniBatch:
    """Whole groups for one optimizer step: their grades on every rank, and this rank's responses as micro-batches.

    has_gradient_PG: responses with a gradient; the others are left out of the work, not out of the normalisation.
    """

    def __init__(self, rollouts, correct_PG, weight_PG, has_gradient_PG, cfg, ctx):
        self.correct_PG, self.weight_PG = correct_PG, weight_PG
        self.objective = self.kl = self.grad_norm = None
        self.sums = torch.zeros(3, dtype=torch.float64)
        self.n, self.n_tokens = len(rollouts), sum(len(r.response_ids) for r in rollouts)
        rows = has_gradient_PG.flatten().nonzero()[:, 0].tolist()
        others = (i for i in range(self.n) if i not in rows)
        rows = sorted(rows + list(itertools.islice(others, max(0, ctx.size - len(rows)))))  # each rank runs backward
        self.trained_tokens = sum(len(rollouts[i].response_ids) for i in rows)
        lengths = [len(rollouts[i].prompt_ids) + len(rollouts[i].response_ids) for i in rows]
        parts = shares(lengths, ctx.size, cfg.micro_batch_tokens)
        pieces = parts[ctx.rank]
        if cfg.shard:  # running a sharded model takes all ranks, so they must run it equally often
            pieces = pieces + [[]] * (max(map(len, parts)) - len(pieces))
        self.micro_batches = [
            MicroBatch([rows[k] for k in piece], rollouts, ctx.device, i == len(pieces) - 1)
            for i, piece in enumerate(pieces)
        ]

    def add_to_log(self, objective: Tensor, kl_sum: Tensor, n_tokens: Tensor) -> None:
        """Add a micro-batch's part of what `update_numbers` reports."""
        self.sums += torch.stack([x.detach().double().cpu() for x in (objective, kl_sum, n_tokens)])


def update_numbers(minis: Sequence[MiniBatch], gap: Tensor, ctx) -> dict[str, float]:
    """The update's numbers for the log, all ranks together. gap: the sum of `sampler_gap` over the first mini-batch."""
    for mini in minis:
        if mini.objective is None:
            mini.objective, kl_sum, n_tokens = ctx.all_sum(mini.sums).tolist()
            mini.kl = kl_sum / n_tokens  # over the responses with a gradient: the others are not scored
    gap_sum, gap_tokens = ctx.all_sum(gap).tolist()
    return {
        "objective": sum(mini.objective for mini in minis) / len(minis),  # J before each optimizer step, averaged
        "kl": minis[-1].kl,  # of the last mini-batch: 0 with a single one, which is on-policy
        "trained_tokens": sum(mini.trained_tokens for mini in minis),  # of responses with a gradient
        "grad_norm": max(mini.grad_norm for mini in minis),  # before clipping
        "sampler_gap": gap_sum / gap_tokens,  # mean |logp of the trainer - logp of the sampler|, first mini-batch
    }


def mini_batches(rollouts, correct_PG, weight_PG, has_gradient_PG, cfg, ctx) -> list[MiniBatch]:
    """The step's batch as `cfg.mini_batches` MiniBatches of whole groups, in prompt order."""
    P, G = len(correct_PG) // cfg.mini_batches, cfg.group_size
    minis = []
    for first in range(0, P * cfg.mini_batches, P):
        groups = slice(first, first + P)
        parts = (x[groups] for x in (correct_PG, weight_PG, has_gradient_PG))
        minis.append(MiniBatch(rollouts[first * G : (first + P) * G], *parts, cfg, ctx))
    return minis


@torch.no_grad()
def score_old(policy, minis: Sequence[MiniBatch], exact_sampler: bool) -> None:
    """Fill in old_logp_NT: the policy that sampled, scored by the model being trained. exact_sampler: the sampler's
    log-probabilities are this model's own up to rounding, and need no second pass."""
    like = next(policy.parameters())
    for mini in minis:
        for micro in mini.micro_batches:
            micro.old_logp_NT = micro.sampler_logp(like) if exact_sampler else policy(*micro.inputs)


def clear_gradients(policy, optimizer) -> None:
    """Before gradients are summed anew. Under DDP they stay in its buckets, of which they are views: new ones would be
    held beside the buckets until the last micro-batch. (Not where parameters may have none: AdamW steps on a zero.)"""
    in_buckets = isinstance(policy, DistributedDataParallel) and not policy.find_unused_parameters
    optimizer.zero_grad(set_to_none=not in_buckets)


def fill_buckets(policy: DistributedDataParallel, device) -> None:
    """Make all gradients views of DDP's buckets, zeros: it orders the buckets anew after the first of these passes."""
    for _ in range(2):
        policy(*filler(device)).sum().backward()


def filler(device):
    """Inputs of one token that is not scored."""
    one = torch.ones(1, 1, dtype=torch.long, device=device)
    return one, one[0], one < 1
