"""several.py - GDPO and its baselines as rows of the table: several named rewards at once.

Formulas: baselines.py. The rewards by name, and their settings: rewards.py.

P prompts | G responses per prompt | K rewards | cfg: the run's Config, with the method's settings among its fields
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from minidrpo.methods import baselines
from minidrpo.methods.method import Batch, Clipped, Method
from minidrpo.methods.penalties import GroupNormalised, group_centred, group_normalised
from minidrpo.methods.rewards import REWARDS, Rewards, numbers, several, summed, weights

__all__ = ["REWARDS", "ROWS", "several"]


@dataclass(frozen=True)
class GrpoSum(Rewards, GroupNormalised):
    """Settings of `grpo-sum`."""


@dataclass(frozen=True)
class GDPO(Rewards):
    """Settings of `gdpo`."""

    gdpo_over: Literal["sequences", "tokens"] = "sequences"
    """Normalise the batch over responses (paper) or over tokens."""


def normalised_then_summed(reward_PGK: Tensor, batch: Batch, cfg) -> Tensor:
    """GDPO's, (P, G): each reward normalised in its group, then summed, then normalised over the batch."""
    eps = 1e-6 if cfg.gdpo_over == "tokens" else 1e-4  # as its two official codes have it
    return baselines.gdpo_advantage(reward_PGK, weights(cfg), True, eps, cfg.gdpo_over, batch.length_PG)


ROWS = {
    "grpo-sum": Method(
        "GRPO on the weighted sum of --rewards: what GDPO is measured against",
        summed, group_normalised, Clipped("token", 0.2, 0.28), GrpoSum, "length_limit", numbers=numbers,
    ),
    "grpo-sum-no-std": Method(
        "the same without std: the advantage is as large as the rewards make it",
        summed, group_centred, Clipped("token", 0.2, 0.28), Rewards, "length_limit", numbers=numbers,
    ),
    "gdpo": Method(
        "GDPO (2601.05242): each of --rewards normalised by itself, then summed",
        several, normalised_then_summed, Clipped("token", 0.2, 0.28), GDPO, "length_limit", numbers=numbers,
    ),
}  # fmt: skip
