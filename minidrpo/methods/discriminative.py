"""discriminative.py - DRPO and DisCO as rows of the table: settings, preferences, weights. Formulas: drpo.py.

P prompts | G responses per prompt | cfg: the run's Config, with the method's settings among its fields
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

import drpo
from minidrpo.cli import value
from minidrpo.methods.method import Batch, Discriminative, Method
from minidrpo.reflection import reflection_words


def _length(shape):
    return lambda batch, cfg: drpo.length_preference(batch.length_PG, cfg.max_response_tokens, shape)


def fewer_reflections(batch: Batch, cfg) -> Tensor:
    """1/(1 + number of reflection words such as "wait" and "check"): terse reasoning, whatever its length in tokens.
    (P, G), in (0, 1]."""
    counts = [sum(reflection_words(text).values()) for text in batch.texts]
    return 1 / (1 + torch.tensor(counts, dtype=torch.float32).view(batch.correct_PG.shape))


PREFERENCES = {  # name: (batch, cfg) -> preference_PG in [0, 1], higher is better
    "linear": _length("linear"),
    "concave": _length("concave"),
    "cosine": _length("cosine"),
    "reflections": fewer_reflections,
}


@dataclass(frozen=True)
class TrustRegion:
    """Settings of all discriminative methods."""

    score: Literal["log_likelihood", "likelihood_ratio"] = "log_likelihood"
    """What is pulled and pushed: mean log-likelihood per token, or mean likelihood ratio (DisCO's other form)."""
    beta: float = value(1e3, "0 or more", "finite")
    """Weight of the trust region's squared hinge, (beta/2) [KL - delta]_+^2."""
    delta: float = value(1e-4, "0 or more", "finite")
    """Radius of the trust region: KL(old || new) in nats per token that costs nothing."""
    kl_estimator: Literal["k1", "k3"] = "k1"
    """Per-token estimate of KL: log-ratio, or the one that is never negative."""


@dataclass(frozen=True)
class DisCO(TrustRegion):
    """Settings of `disco`."""

    negatives: Literal["dro", "mean"] = "dro"
    """How wrong responses are pushed down: worst case (DisCO, DRPO) or mean (DisCO-b)."""
    tau: float = value(10.0, "at least 1e-06")
    """Temperature of the DRO over wrong responses; small concentrates on the likeliest one, inf is the mean."""
    lam: ClassVar[float] = math.inf


@dataclass(frozen=True)
class DRPO(DisCO):
    """Settings of `drpo`."""

    lam: float = value(0.1, "at least 1e-06")
    """lambda: small favours short correct responses, large ignores length, inf is DisCO."""
    preference: Literal[tuple(PREFERENCES)] = "linear"
    """What is preferred among correct responses: short ones (three shapes), or few reflection words."""


@dataclass(frozen=True)
class DisCOb(TrustRegion):
    """Settings of `disco-b`, which has no temperature."""

    lam: ClassVar[float] = math.inf
    negatives: ClassVar[str] = "mean"
    tau: ClassVar[float] = 1.0  # not read


def preference(batch: Batch, cfg, state: dict) -> Tensor:
    """DRPO's: how much each response is preferred among the correct ones, (P, G) in [0, 1]."""
    return PREFERENCES[cfg.preference](batch, cfg)


def right(batch: Batch, cfg, state: dict) -> Tensor:
    """1 for a correct response, 0 for a wrong one, (P, G) floats."""
    return batch.correct_PG.float()


def positive_weights(reward_PG: Tensor, batch: Batch, cfg) -> Tensor:
    """The closed form of the paper, (P, G); uniform over the correct responses at lambda = inf."""
    # float64: a small lambda makes the exponents large, and float32 would round their differences
    return drpo.positive_distribution(reward_PG.double(), batch.correct_PG, cfg.lam).float()


ROWS = {
    "drpo": Method(
        "DRPO (arXiv 2510.04474): length decides among the correct responses only",
        preference,
        positive_weights,
        Discriminative(),
        DRPO,
        "lam",
    ),
    "disco": Method(
        "DisCO (2505.12366): DRPO at lambda = infinity; --score likelihood_ratio --tau 1 is its other form",
        right,
        positive_weights,
        Discriminative(),
        DisCO,
        "tau",
    ),
    "disco-b": Method(
        "DisCO-b: wrong responses are pushed by their mean, not by the worst case",
        right,
        positive_weights,
        Discriminative(),
        DisCOb,
    ),
}
