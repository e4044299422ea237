"""penalties.py - GRPO and the length penalties as rows of the table: settings, reward, advantage.

Formulas: baselines.py.

P prompts | G responses per prompt | M prompts that LASER-D watches | D problems of the training set
cfg: the run's Config, with the method's settings among its fields
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from minidrpo.cli import value
from minidrpo.methods import baselines
from minidrpo.methods.discriminative import right
from minidrpo.methods.method import Batch, Clipped, Method

# ---------------------------------------------------------------------------------------------------- advantages


@dataclass(frozen=True)
class GroupNormalised:
    """Settings of the methods that divide by the group's std."""

    adv_std: Literal["sample", "population"] = "sample"
    """Divide the advantage by this standard deviation of the group ..."""
    adv_eps: float = value(1e-6, "positive", "finite")
    """... plus this. ALP's beta acts through it."""


def group_normalised(reward_PG: Tensor, batch: Batch, cfg) -> Tensor:
    """(reward - mean) / (std + eps) in each group, (P, G)."""
    return baselines.grpo_advantage(reward_PG, cfg.adv_std, cfg.adv_eps)


def group_centred(reward_PG: Tensor, batch: Batch, cfg) -> Tensor:
    """reward - mean in each group, (P, G)."""
    return baselines.grpo_advantage(reward_PG, std=None)


def leave_one_out(reward_PG: Tensor, batch: Batch, cfg) -> Tensor:
    """reward - mean of the others in each group, (P, G)."""
    return baselines.rloo_advantage(reward_PG)


# ------------------------------------------------------------------------------- a penalty over the limit, or the group


@dataclass(frozen=True)
class Alpha:
    """Settings of `rloo-lp` and `grpo-lp-no-std`."""

    alpha: float = value(0.2, "0 or more", "finite")
    """Weight of the length penalty; 0 is none."""


@dataclass(frozen=True)
class LengthPenalty(Alpha, GroupNormalised):
    """Settings of `grpo-lp`."""


def length_penalty(batch: Batch, cfg, state: dict) -> Tensor:
    """Less for each token of a correct response, in shares of the limit, (P, G)."""
    return baselines.length_penalty_reward(batch.correct_PG, batch.length_PG, cfg.max_response_tokens, cfg.alpha)


def rloo_lp(batch: Batch, cfg, state: dict) -> Tensor:
    """Less for a correct response that is long among the prompt's correct ones, (P, G)."""
    return baselines.rloo_lp_reward(batch.correct_PG, batch.length_PG, cfg.alpha)


# -------------------------------------------------------------------------------------------------------------- ALP


@dataclass(frozen=True)
class ALP(GroupNormalised):
    """Settings of `alp`."""

    alp_beta: float = value(1e-7, "0 or more", "finite")
    """Reward lost per token, times the prompt's solve rate."""


def alp(batch: Batch, cfg, state: dict) -> Tensor:
    """Less for each token, the more the easier the prompt, (P, G). float64: at the paper's beta the penalty is finer
    than float32's steps."""
    return baselines.alp_reward(batch.correct_PG, batch.length_PG.double(), cfg.alp_beta)


# -------------------------------------------------------------------------------------------------------------- HAPO


@dataclass(frozen=True)
class HAPO(GroupNormalised):
    """Settings of `hapo`."""

    hapo_w: float = value(1.0, "0 or more", "finite")
    """Weight of the length reward; at most 1 keeps every correct response above every wrong one."""


def hapo(batch: Batch, cfg, state: dict) -> Tensor:
    """Correctness and a length reward against the problem's own record, (P, G)."""
    shortest_P = state["shortest_D"][batch.problem_P]
    return baselines.hapo_reward(batch.correct_PG, batch.length_PG, shortest_P, cfg.hapo_w)


def hapo_history(cfg, n_problems: int) -> dict:
    """Before the first step: no correct response of any problem yet."""
    return {"shortest_D": torch.full((n_problems,), torch.inf)}


def hapo_remember(state: dict, batch: Batch, cfg) -> dict:
    """Each problem's shortest correct response so far, in tokens."""
    history = (state["shortest_D"], batch.problem_P, batch.correct_PG, batch.length_PG)
    return {"shortest_D": baselines.hapo_update_history(*history)}


# -------------------------------------------------------------------------------------------- L1-Max, ShorterBetter


@dataclass(frozen=True)
class L1Max(GroupNormalised):
    """Settings of `l1-max`."""

    l1_target: int = value(4096, "1 or more")
    """Tokens asked for."""
    l1_alpha: float = value(3e-4, "0 or more", "finite")
    """Reward lost per token over the target."""
    l1_slope: Literal["paper", "code"] = "paper"
    """As published, or half as steep as in its repository."""
    l1_prompt: bool = True
    """Tell the model the target ("Think for maximum N tokens.")."""


def l1_max(batch: Batch, cfg, state: dict) -> Tensor:
    """Less for each token of a correct response, around the target, (P, G) in [0, 1]."""
    return baselines.l1_max_reward(batch.correct_PG, batch.length_PG, cfg.l1_target, cfg.l1_slope, cfg.l1_alpha)


def l1_suffix(cfg) -> str:
    """The target in words, for the prompt; "" where it is not told."""
    return f"Think for maximum {cfg.l1_target} tokens." if cfg.l1_prompt else ""


@dataclass(frozen=True)
class ShorterBetter(GroupNormalised):
    """Settings of `shorter-better`."""

    sb_a: float = value(2.0, "0 or more", "finite")
    """Reward of a correct response."""
    sb_b: float = value(1e-3, "0 or more", "finite")
    """Reward lost per token of distance from the group's shortest correct response."""


def shorter_better(batch: Batch, cfg, state: dict) -> Tensor:
    """Less for each token of distance from the group's shortest correct response, (P, G)."""
    return baselines.shorter_better_reward(batch.correct_PG, batch.length_PG, cfg.sb_a, cfg.sb_b)


# -------------------------------------------------------------------------------------------------------------- LASER-D

LASER_MONITOR = 500  # prompts; the authors sample as many anew, here they are the latest ones of the training itself


@dataclass(frozen=True)
class LaserD(GroupNormalised):
    """Settings of `laser-d`."""

    laser_bonus: float = value(0.5, "0 or more", "finite")
    """Reward of a correct response within its target."""
    laser_every: int = value(20, "1 or more")
    """Steps between two choices of the targets."""


def laser_d(batch: Batch, cfg, state: dict) -> Tensor:
    """Correctness, and a bonus within the target of the prompt's difficulty, (P, G)."""
    return baselines.laser_d_reward(batch.correct_PG, batch.length_PG, state["target_3"], cfg.laser_bonus)


def laser_targets(cfg, n_problems: int) -> dict:
    """No target yet: the limit, within which every finished response is."""
    return {
        "target_3": torch.full((3,), float(cfg.max_response_tokens)),
        "correct_MG": torch.zeros(0, cfg.group_size, dtype=torch.bool),
        "length_MG": torch.zeros(0, cfg.group_size, dtype=torch.long),
        "steps": torch.zeros((), dtype=torch.long),
    }


def laser_remember(state: dict, batch: Batch, cfg) -> dict:
    """Keep the latest prompts' responses; choose new targets after the first step and every `laser_every` steps."""
    correct_MG = torch.cat([state["correct_MG"], batch.correct_PG])[-LASER_MONITOR:]
    length_MG = torch.cat([state["length_MG"], batch.length_PG])[-LASER_MONITOR:]
    target_3, limit = state["target_3"], cfg.max_response_tokens
    if state["steps"] % cfg.laser_every == 0:
        candidates = range(max(1, limit // 64), limit + 1, max(1, limit // 64))
        target_3 = baselines.laser_d_targets(correct_MG, length_MG, candidates, limit)
    return {"target_3": target_3, "correct_MG": correct_MG, "length_MG": length_MG, "steps": state["steps"] + 1}


# ------------------------------------------------------------------------------------------------------------- the rows

ROWS = {
    "grpo": Method("GRPO (2402.03300)", right, group_normalised, Clipped(), GroupNormalised),
    "dr-grpo": Method(
        "Dr. GRPO (2503.20783): GRPO without std and without length bias", right, group_centred, Clipped("constant")
    ),
    "grpo-lp": Method(
        "GRPO with a length penalty (Figure 1 of the DRPO paper)",
        length_penalty, group_normalised, Clipped(), LengthPenalty, "alpha",
    ),
    "rloo-lp": Method(
        "RLOO-LP (2502.04463): lengths standardised among the correct responses, then penalised",
        rloo_lp, leave_one_out, Clipped(), Alpha, "alpha",
    ),
    "alp": Method(
        "ALP (2506.05256): a penalty that grows with the prompt's solve rate",
        alp, group_normalised, Clipped(), ALP, "alp_beta",
    ),
    "hapo": Method(
        "HAPO (2505.11225): compared with each problem's shortest correct response so far",
        hapo, group_normalised, Clipped(), HAPO, "hapo_w", hapo_history, hapo_remember,
    ),
    "l1-max": Method(
        "L1-Max (2503.04697): a budget, stated in the prompt",
        l1_max, group_normalised, Clipped(), L1Max, "l1_target", suffix=l1_suffix,
    ),
    "shorter-better": Method(
        "ShorterBetter (2504.21370): distance from the group's shortest correct response",
        shorter_better, group_normalised, Clipped(), ShorterBetter, "sb_b",
    ),
    "laser-d": Method(
        "LASER-D (2505.15612): a bonus within a target that depends on the prompt's difficulty",
        laser_d, group_normalised, Clipped(), LaserD, "laser_bonus", laser_targets, laser_remember,
    ),
}  # fmt: skip
