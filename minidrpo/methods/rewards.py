"""rewards.py - rewards by name: what `--rewards` chooses from. Each is a function (batch, cfg) -> (P, G) floats.

A task's own grader measures rewards while it grades (tasks/graders.py); they are in batch.scores and stand here under
the same names. A reward of your own is one function and one row: docs/extend.md.

P prompts | G responses per prompt | K rewards | cfg: the run's Config, with the method's settings among its fields
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from minidrpo.cli import value
from minidrpo.methods import baselines
from minidrpo.methods.discriminative import right
from minidrpo.methods.method import Batch
from minidrpo.records import Problem
from minidrpo.tasks import graders


def within(conditioned: bool):
    """GDPO's length reward: 1 within --length-limit; conditioned: only if correct, too."""
    return lambda batch, cfg: baselines.conditioned_length_reward(
        batch.correct_PG, batch.length_PG, cfg.length_limit, conditioned
    )


def tagged(batch: Batch, cfg) -> Tensor:
    """`format`: what the task's grader measured; where it measures none, the tags of GDPO's GSM8K task."""
    if "format" in batch.scores:
        return batch.scores["format"]
    return baselines.format_reward(["<think>" + text if batch.opened else text for text in batch.texts])


def measured(name: str):
    """What the task's grader measured under this name: `check_data` has made sure that it does."""
    return lambda batch, cfg: batch.scores[name]


REWARDS = {  # name: (batch, cfg) -> P*G rewards
    "correct": lambda batch, cfg: right(batch, cfg, {}),
    "length": within(conditioned=False),
    "conditioned_length": within(conditioned=True),
    "format": tagged,
    "integer": lambda batch, cfg: baselines.integer_reward(batch.texts),
}
MEASURED = [name for name in graders.scores() if name not in REWARDS]  # by a task's own grader alone
REWARDS |= {name: measured(name) for name in MEASURED}

OWN = "own"  # in --rewards: those that the data set names
USUAL = ("correct", "conditioned_length")  # those of a data set that names none


@dataclass(frozen=True)
class Rewards:
    """Settings of the methods that take rewards by name."""

    rewards: tuple[Literal[(*REWARDS, OWN)], ...] = (OWN,)
    """Which rewards. own: those that the data set names, else correct and conditioned_length (only a correct response
    earns it). format and integer look for <answer> tags (GDPO's GSM8K task) unless the task's grader measures them;
    correct wants a box there, too."""
    reward_weights: tuple[float, ...] = ()
    """One weight per reward; none: all 1."""
    length_limit: int = value(4000, "1 or more")
    """Tokens within which the length rewards are earned."""

    def check(self) -> None:
        """ValueError for rewards and weights that do not match."""
        chosen, weights = names(self), self.reward_weights
        if not chosen:
            raise ValueError("--rewards needs at least one")
        if twice := [name for i, name in enumerate(chosen) if name in chosen[:i]]:
            raise ValueError(f"--rewards holds {twice[0]} twice; --reward-weights makes one count more")
        if len(weights) not in (0, len(chosen)):
            said = f"got {len(weights)} for {len(chosen)} ({', '.join(chosen)})"
            raise ValueError(f"--reward-weights must be as many as --rewards, {said}")
        if not all(map(math.isfinite, weights)):
            raise ValueError(f"--reward-weights must be finite, got {weights}")


def names(cfg) -> tuple[str, ...]:
    """The rewards that --rewards chooses, `own` replaced by those of the training data."""
    own = graders.GRADERS.get(cfg.train_data)
    return tuple(n for name in cfg.rewards for n in ((own.REWARDS if own else USUAL) if name == OWN else (name,)))


def check_data(cfg, problems: Sequence[Problem]) -> None:
    """ValueError where --rewards names what the graders of these problems do not measure."""
    for name in names(cfg) if hasattr(cfg, "rewards") else ():
        for grader in {problem.grader for problem in problems} if name in MEASURED else ():
            has = graders.GRADERS[grader].SCORES if grader else ()
            if name not in has:
                said = f"which measures {', '.join(has)}" if has else "which looks for a boxed answer only"
                raise ValueError(f"--rewards {name} is not measured by the grader of {cfg.train_data}, {said}")


def weights(cfg) -> Tensor:
    """(K,): --reward-weights, or all 1."""
    return torch.tensor(cfg.reward_weights or (1.0,) * len(names(cfg)))


def several(batch: Batch, cfg, state: dict) -> Tensor:
    """The rewards that --rewards names, side by side, (P, G, K). FloatingPointError for one that is no finite number:
    it would silently spoil its group, or with GDPO the whole batch."""
    columns = []
    for name in names(cfg):
        reward_PG = REWARDS[name](batch, cfg).view(batch.correct_PG.shape)
        for p, g in (~reward_PG.isfinite()).nonzero().tolist()[:1]:
            raise FloatingPointError(f"reward {name} is {reward_PG[p, g].item()} for response {g} to prompt {p}")
        columns.append(reward_PG)
    return torch.stack(columns, -1)


def summed(batch: Batch, cfg, state: dict) -> Tensor:
    """Their weighted sum, (P, G)."""
    return (several(batch, cfg, state) * weights(cfg)).sum(-1)


def numbers(batch: Batch, cfg) -> dict:
    """For the log: the mean of each reward; the shares of responses above the limit, and right and within it."""
    above_PG = batch.length_PG > cfg.length_limit
    means = {name: REWARDS[name](batch, cfg).mean().item() for name in names(cfg)}
    short = {"exceed": above_PG.float().mean().item()}
    return {"rewards": means, "reward_length": (batch.correct_PG & ~above_PG).float().mean().item()} | short
