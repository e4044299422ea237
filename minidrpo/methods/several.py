"""several.py - GDPO and its baseline as rows of the table: several named rewards at once. Formulas: baselines.py.

P prompts | G responses per prompt | K rewards | cfg: the run's Config, with the method's settings among its fields
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from minidrpo.cli import value
from minidrpo.methods import baselines
from minidrpo.methods.discriminative import right
from minidrpo.methods.method import Batch, Clipped, Method
from minidrpo.methods.penalties import GroupNormalised, group_normalised


def _within(batch, cfg, conditioned):
    return baselines.conditioned_length_reward(batch.correct_PG, batch.length_PG, cfg.length_limit, conditioned)


def _format(batch, cfg):
    return baselines.format_reward(["<think>" + text if batch.opened else text for text in batch.texts])


REWARDS = {  # name: (batch, cfg) -> P*G rewards
    "correct": lambda batch, cfg: right(batch, cfg, {}),
    "length": lambda batch, cfg: _within(batch, cfg, conditioned=False),
    "conditioned_length": lambda batch, cfg: _within(batch, cfg, conditioned=True),
    "format": _format,
    "integer": lambda batch, cfg: baselines.integer_reward(batch.texts),
}


@dataclass(frozen=True)
class Several:
    """Settings of both."""

    rewards: tuple[Literal[tuple(REWARDS)], ...] = ("correct", "conditioned_length")
    """Which rewards; conditioned: only a correct response earns it. format and integer look for <answer> tags (GDPO's
    GSM8K task); correct wants a box there, too."""
    reward_weights: tuple[float, ...] = ()
    """One weight per reward; none: all 1."""
    length_limit: int = value(4000, "1 or more")
    """Tokens within which the length rewards are earned."""

    def check(self) -> None:
        """ValueError for rewards and weights that do not match."""
        if not self.rewards:
            raise ValueError("--rewards needs at least one")
        if len(self.reward_weights) not in (0, len(self.rewards)):
            raise ValueError(
                f"--reward-weights must be as many as --rewards, got {len(self.reward_weights)} for {len(self.rewards)}"
            )
        if not all(map(math.isfinite, self.reward_weights)):
            raise ValueError(f"--reward-weights must be finite, got {self.reward_weights}")


@dataclass(frozen=True)
class GrpoSum(Several, GroupNormalised):
    """Settings of `grpo-sum`."""


@dataclass(frozen=True)
class GDPO(Several):
    """Settings of `gdpo`."""

    gdpo_over: Literal["sequences", "tokens"] = "sequences"
    """Normalise the batch over responses (paper) or over tokens."""


def several(batch: Batch, cfg, state: dict) -> Tensor:
    """The rewards that --rewards names, side by side, (P, G, K)."""
    return torch.stack([REWARDS[name](batch, cfg).view(batch.correct_PG.shape) for name in cfg.rewards], -1)


def summed_then_normalised(reward_PGK: Tensor, batch: Batch, cfg) -> Tensor:
    """GRPO's advantage of the weighted sum of rewards, (P, G)."""
    return group_normalised((reward_PGK * _weights(cfg)).sum(-1), batch, cfg)


def normalised_then_summed(reward_PGK: Tensor, batch: Batch, cfg) -> Tensor:
    """GDPO's, (P, G): each reward normalised in its group, then summed, then normalised over the batch."""
    eps = 1e-6 if cfg.gdpo_over == "tokens" else 1e-4  # as its two official codes have it
    return baselines.gdpo_advantage(reward_PGK, _weights(cfg), True, eps, cfg.gdpo_over, batch.length_PG)


def _weights(cfg):
    return torch.tensor(cfg.reward_weights or (1.0,) * len(cfg.rewards))


def reward_length(batch: Batch, cfg) -> dict[str, float]:
    """For the log: the share of responses that are right and within the limit."""
    return {"reward_length": (batch.correct_PG & (batch.length_PG <= cfg.length_limit)).float().mean().item()}


ROWS = {
    "grpo-sum": Method(
        "GRPO on the weighted sum of --rewards: what GDPO is measured against",
        several, summed_then_normalised, Clipped("token", 0.2, 0.28), GrpoSum, "length_limit", numbers=reward_length,
    ),
    "gdpo": Method(
        "GDPO (2601.05242): each of --rewards normalised by itself, then summed",
        several, normalised_then_summed, Clipped("token", 0.2, 0.28), GDPO, "length_limit", numbers=reward_length,
    ),
}  # fmt: skip
