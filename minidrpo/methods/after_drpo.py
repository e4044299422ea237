"""after_drpo.py - length rewards published after DRPO, and the ablation of GRPO's length penalty, as rows of the table.

    ddca, gr3, lead              three later answers to the same problem (our reading of their papers)
    grpo-lp-no-std, -mixed-only, -batch-std    GRPO-LP with one thing changed each: what the std in solved groups does
    drpo-solved                                ours: DRPO with a length preference in solved groups, too

P prompts | G responses per prompt | N = P*G responses | n correct responses of a prompt
cfg: the run's Config, with the method's settings among its fields
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

import drpo
from minidrpo.cli import value
from minidrpo.methods import baselines
from minidrpo.methods.discriminative import PREFERENCES, positive_weights, preference, right
from minidrpo.methods.method import Batch, Clipped, Method
from minidrpo.methods.penalties import (
    Alpha,
    GroupNormalised,
    LengthPenalty,
    group_centred,
    group_normalised,
    length_penalty,
)

# ---------------------------------------------------------------------------------------------------------------- DDCA


def ddca_advantage(correct_PG: Tensor, length_PG: Tensor, beta: float = 0.2) -> Tensor:
    r"""DDCA (arXiv 2602.02099): correctness and length are centred apart, and length among correct responses only.

        A_i = A_acc,i - beta (n/G) (s_i - mean s)   correct, s the sigmoid of the length's z-score among the n correct
        A_i = A_acc,i                               wrong;   A_acc: correctness, leave one out

    No std of rewards, so beta keeps its size where all are correct. Lengths in tokens. Returns (P, G) floats.
    """
    right_PG, length_PG = baselines.as_floats(correct_PG, length_PG)
    n_P1 = right_PG.sum(-1, keepdim=True).clamp(min=1)
    mean_P1 = (length_PG * right_PG).sum(-1, keepdim=True) / n_P1
    std_P1 = (((length_PG - mean_P1) * right_PG).square().sum(-1, keepdim=True) / n_P1).sqrt()
    s_PG = torch.sigmoid((length_PG - mean_P1) / (std_P1 + 1e-6))
    centred_PG = (s_PG - (s_PG * right_PG).sum(-1, keepdim=True) / n_P1) * right_PG
    return baselines.rloo_advantage(right_PG) - beta * n_P1 / right_PG.shape[-1] * centred_PG


@dataclass(frozen=True)
class DDCA:
    """Settings of `ddca`."""

    ddca_beta: float = value(0.2, "0 or more", "finite")
    """Weight of the length term among correct responses; 0 is none."""


def ddca(reward_PG: Tensor, batch: Batch, cfg) -> Tensor:
    """DDCA's advantage, (P, G); the reward is in it."""
    return ddca_advantage(batch.correct_PG, batch.length_PG, cfg.ddca_beta)


# ----------------------------------------------------------------------------------------------------------------- GR3


def gr3_reward(correct_PG: Tensor, length_PG: Tensor, alpha: float = 0.33) -> Tensor:
    """GR3 (arXiv 2603.10535): r = 1[correct] / (1 + alpha L / mean L), the mean over the group. A correct response
    always earns more than a wrong one. Lengths in tokens. Returns (P, G) floats."""
    right_PG, length_PG = baselines.as_floats(correct_PG, length_PG)
    return right_PG / (1 + alpha * length_PG / length_PG.mean(-1, keepdim=True))


@dataclass(frozen=True)
class GR3(GroupNormalised):
    """Settings of `gr3`."""

    gr3_alpha: float = value(0.33, "0 or more", "finite")
    """Weight of the relative length; 0 is none."""


def gr3(batch: Batch, cfg, state: dict) -> Tensor:
    """GR3's reward, (P, G), in [0, 1]."""
    return gr3_reward(batch.correct_PG, batch.length_PG, cfg.gr3_alpha)


# ---------------------------------------------------------------------------------------------------------------- LEAD


def lead_length_reward(correct_PG: Tensor, length_PG: Tensor) -> Tensor:
    """LEAD's (arXiv 2605.09806) second reward: max(-1, 1 - |L - L*| / L*), L* the mean length of the prompt's correct
    responses; 0 for all where none is correct. Lengths in tokens. Returns (P, G) floats."""
    right_PG, length_PG = baselines.as_floats(correct_PG, length_PG)
    n_P1 = right_PG.sum(-1, keepdim=True)
    target_P1 = (length_PG * right_PG).sum(-1, keepdim=True) / n_P1.clamp(min=1)
    reward_PG = (1 - (length_PG - target_P1).abs() / target_P1.clamp(min=1)).clamp(min=-1)
    return torch.where(n_P1 > 0, reward_PG, 0.0)


def lead_weights(spread_2: Tensor, potential_2: Tensor, alpha: float = 1.0, least: float = 0.3) -> Tensor:
    """Weights of the two rewards, (correct, length), summing to 1: in proportion to each reward's share of the spread
    (coefficient of variation) times (1 - potential)^alpha, where the potential is how much of it is reached already.
    The weight of correctness is at least `least`."""
    raw_2 = spread_2 / spread_2.sum().clamp(min=1e-6) * (1 - potential_2).clamp(min=0) ** alpha
    correct = (raw_2[0] / raw_2.sum().clamp(min=1e-6)).clamp(min=least, max=1.0)
    return torch.stack([correct, 1 - correct])


@dataclass(frozen=True)
class LEAD(GroupNormalised):
    """Settings of `lead`."""

    lead_alpha: float = value(1.0, "0 or more", "finite")
    """How much a reward that is nearly reached loses its weight."""


LEAD_EMA = 0.95


def lead_rewards(batch: Batch, cfg) -> Tensor:
    """(P, G, 2): correctness, and the length reward."""
    return torch.stack([right(batch, cfg, {}), lead_length_reward(batch.correct_PG, batch.length_PG)], -1)


def lead(batch: Batch, cfg, state: dict) -> Tensor:
    """Each reward normalised in its group by itself, as in GDPO, then summed with the weights of earlier steps."""
    normalised = [group_normalised(r_PG, batch, cfg) for r_PG in lead_rewards(batch, cfg).unbind(-1)]
    weight_2 = lead_weights(state["spread_2"], state["potential_2"], cfg.lead_alpha)
    return weight_2[0] * normalised[0] + weight_2[1] * normalised[1]


def as_it_is(reward_PG: Tensor, batch: Batch, cfg) -> Tensor:
    """The reward is an advantage already."""
    return reward_PG


def lead_state(cfg, n_problems: int) -> dict:
    """Before the first step neither reward counts more, and nothing is reached."""
    return {"spread_2": torch.ones(2), "potential_2": torch.zeros(2)}


def lead_remember(state: dict, batch: Batch, cfg) -> dict:
    """Moving averages of each reward's coefficient of variation and of its mean, mapped to [0, 1]."""
    reward_N2 = lead_rewards(batch, cfg).flatten(0, 1)
    mean_2, std_2 = reward_N2.mean(0), reward_N2.std(0)
    now = {
        "spread_2": std_2 / mean_2.abs().clamp(min=0.1),
        "potential_2": torch.stack([mean_2[0], (mean_2[1] + 1) / 2]).clamp(0, 1),
    }
    return {key: LEAD_EMA * state[key] + (1 - LEAD_EMA) * now[key] for key in now}


# ------------------------------------------------------------------------------- GRPO-LP with one thing changed each


def mixed_only(reward_PG: Tensor, batch: Batch, cfg) -> Tensor:
    """GRPO's advantage in groups with right and wrong responses; 0 where all are right or all are wrong."""
    return group_normalised(reward_PG, batch, cfg) * drpo.mixed_groups(batch.correct_PG)[:, None]


@dataclass(frozen=True)
class BatchStd(Alpha):
    """Settings of `grpo-lp-batch-std`."""

    adv_eps: float = value(1e-6, "positive", "finite")
    """Added to the std of the batch."""


def batch_normalised(reward_PG: Tensor, batch: Batch, cfg) -> Tensor:
    """reward - mean of its group, divided by one std for the whole batch."""
    centred_PG = group_centred(reward_PG, batch, cfg)
    return centred_PG / (centred_PG.std() + cfg.adv_eps)


# ------------------------------------------------------------------------------------------ DRPO in solved groups, too


@dataclass(frozen=True)
class Solved:
    """Settings of `drpo-solved`."""

    preference: Literal[tuple(PREFERENCES)] = "linear"
    """As DRPO's."""
    lam: float = value(0.1, "at least 1e-06")
    """As DRPO's."""
    solved_mu: float = value(1.0, "0 or more", "finite")
    """Strength of the length preference in groups whose responses are all correct; 0 is DRPO."""


def drpo_solved(reward_PG: Tensor, batch: Batch, cfg) -> Tensor:
    """DRPO's credit in mixed groups, and in solved ones mu (w - 1/G): the same weights, against the uniform ones.

    The sum over a solved group is 0: it moves probability between its responses. There is no std, so
    its size is mu times that of a mixed group, and falls as the lengths become alike. As an advantage: N times credit.
    """
    weight_PG, G = positive_weights(reward_PG, batch, cfg), batch.correct_PG.shape[1]
    mixed_PG = drpo.drpo_credit(torch.zeros_like(weight_PG), batch.correct_PG, weight_PG, tau=1.0, negatives="mean")
    solved_PG = cfg.solved_mu * (weight_PG - 1 / G) / len(weight_PG)
    return weight_PG.numel() * torch.where(batch.correct_PG.all(-1, keepdim=True), solved_PG, mixed_PG)


ROWS = {
    "drpo-solved": Method(
        "Ours: DRPO, and a zero-sum preference for short responses in solved groups",
        preference, drpo_solved, Clipped(), Solved, "solved_mu",
    ),
    "grpo-lp-no-std": Method(
        "GRPO-LP without the std: reward minus the group's mean",
        length_penalty, group_centred, Clipped(), Alpha, "alpha",
    ),
    "grpo-lp-mixed-only": Method(
        "GRPO-LP with the std, groups all right or all wrong left out",
        length_penalty, mixed_only, Clipped(), LengthPenalty, "alpha",
    ),
    "grpo-lp-batch-std": Method(
        "GRPO-LP with one std over the whole batch instead of one per group",
        length_penalty, batch_normalised, Clipped(), BatchStd, "alpha",
    ),
    "ddca": Method(
        "DDCA (2602.02099): length centred among the correct responses, scaled by the solve rate",
        right, ddca, Clipped(), DDCA, "ddca_beta",
    ),
    "gr3": Method(
        "GR3 (2603.10535): a correct response's reward divided by its relative length",
        gr3, group_normalised, Clipped(), GR3, "gr3_alpha",
    ),
    "lead": Method(
        "LEAD (2605.09806): correctness and a length target, their weights adapted to what is reached",
        lead, as_it_is, Clipped(), LEAD, "lead_alpha", lead_state, lead_remember,
    ),
}  # fmt: skip
