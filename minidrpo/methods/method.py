"""method.py - what a method is: a reward, an advantage, a surrogate and its own settings. The rows are in table.py.

    reward(batch, cfg, state)       how good each response is: (P, G), or (P, G, K) for K rewards
    advantage(reward, batch, cfg)   what the update multiplies with: DRPO's weights, a baseline's advantages, (P, G)
    surrogate                       how it enters the loss: Discriminative (drpo.py) or Clipped (baselines.py)

P prompts | G responses per prompt | N = P*G responses in prompt order
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import drpo
from minidrpo.records import GradedResponse


@dataclass(frozen=True)
class Batch:
    """What a method may look at: one step's graded responses, all ranks together, so that every rank weighs alike."""

    correct_PG: Tensor
    """bool"""
    length_PG: Tensor
    """Response tokens, end token included."""
    texts: Sequence[str]
    """N response texts."""
    problem_P: Tensor
    """Which row of the training set each prompt is (HAPO's history)."""
    opened: bool = False
    """Whether the prompt ends in <think>, which the response's text then lacks."""
    scores: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    """name -> (P, G) floats: what the task's own grader measured in every response (Grade.scores)."""

    @classmethod
    def of(cls, responses: Sequence[GradedResponse], group_size: int, problem_P, opened: bool = False):
        """From graded responses in prompt order."""

        def groups(values):
            return torch.tensor(values).view(-1, group_size)

        correct_PG, length_PG = groups([r.correct for r in responses]), groups([r.length for r in responses])
        measured = [name for name in responses[0].scores if all(name in r.scores for r in responses)]
        scores = {name: groups([float(r.scores[name]) for r in responses]) for name in measured}
        texts = [r.response for r in responses]
        return cls(correct_PG, length_PG, texts, torch.as_tensor(problem_P), opened, scores)


@dataclass(frozen=True)
class Discriminative:
    """J = weighted scores of the right responses minus a soft maximum (or the mean) of the wrong ones, in a
    KL trust region."""

    def has_gradient(self, correct_PG: Tensor, weight_PG: Tensor, on_policy_P: Tensor) -> Tensor:
        """(P, G) bool: responses with a gradient. While KL is 0, as on-policy, groups all right or all wrong have none;
        later the trust region's penalty depends on every token."""
        return (drpo.mixed_groups(correct_PG) | ~on_policy_P)[:, None].expand_as(correct_PG)


@dataclass(frozen=True)
class Clipped:
    """PPO's clipped ratio, aggregated over tokens; arguments as in baselines.clipped_surrogate."""

    aggregate: str = "sequence"
    clip_low: float = 0.2
    clip_high: float = 0.2

    def has_gradient(self, correct_PG: Tensor, weight_PG: Tensor, on_policy_P: Tensor) -> Tensor:
        """(P, G) bool: responses with a gradient, those whose advantage is not 0."""
        return weight_PG != 0


@dataclass(frozen=True)
class NoSettings:
    """Of a method without settings of its own."""


@dataclass(frozen=True)
class Method:
    about: str
    reward: Callable
    advantage: Callable
    surrogate: Discriminative | Clipped
    settings: type = NoSettings
    """A frozen dataclass: its fields become fields of the run's Config, and flags, for this method only."""
    hyperparameter: str = ""
    """The setting that this method is swept over; "" where there is none."""
    new_state: Callable = lambda cfg, n_problems: {}
    """Tensors to remember from step to step, saved in checkpoints."""
    remember: Callable = lambda state, batch, cfg: state
    """The state after this step; the step itself is weighed with the old one."""
    numbers: Callable = lambda batch, cfg: {}
    """Numbers of its own for the log."""
    suffix: Callable = lambda cfg: ""
    """What it says to the model after each problem."""

    @property
    def discriminative(self) -> bool:
        return isinstance(self.surrogate, Discriminative)

    @property
    def flags(self) -> set[str]:
        """Names of its own settings."""
        return {field.name for field in dataclasses.fields(self.settings)}
