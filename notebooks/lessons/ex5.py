"""Checks of lesson 5, watch it train."""

import math

import numpy as np
import torch

import drpo
from exercises import call, exercise, near, number
from minidrpo.rundir import metrics


@exercise("5a", hints=["w is proportional to exp(-|o| / (C lambda))", "take the ratio for |o| = 60 and 100"])
def times_heavier(value):
    return number(
        value,
        math.exp(40 / 25.6),
        "not the ratio of the two weights",
        misses=[(math.exp(-40 / 25.6), "that is the longer one's weight in units of the shorter one's")],
    )


@exercise(
    "5b", hints=["the ratio of the two weights is exp(20 / (256 lambda))", "it is 2 where 20/(256 lambda) = log 2"]
)
def lam_for_20_tokens(value):
    if isinstance(value, int | float) and value <= 0:
        return "a positive number, please"
    length_PG = torch.tensor([[100.0, 120.0]], dtype=torch.float64)
    preference_PG = drpo.length_preference(length_PG, 256)
    ratio = 0.0
    if not callable(value):
        weight_PG = drpo.positive_distribution(preference_PG, torch.ones(1, 2, dtype=torch.bool), float(value))
        ratio = (weight_PG[0, 0] / weight_PG[0, 1]).item()
    return number(value, 20 / (256 * math.log(2)), f"with your lambda it weighs {ratio:.4g} times as much", rel=1e-2)


@exercise(
    "5c",
    hints=[
        "copy every response once: nothing new is known, so the error must not shrink",
        "what is independent here? The error of the mean over *problems*, with ddof = 1",
    ],
)
def standard_error(function):
    rng = np.random.default_rng(0)
    for P, n in ((40, 8), (12, 2), (100, 1)):
        value_Pn = (rng.random((P, n)) < rng.random((P, 1))).astype(float)
        value = float(call(function, value_Pn))
        if not near(value, metrics.clustered_se(value_Pn)):
            if not math.isfinite(value) or value <= 0:
                return f"an error is a positive number, yours is {value}"
            doubled = float(call(function, np.concatenate([value_Pn, value_Pn], 1)))
            if not near(doubled, value, 1e-2):
                return "it falls with the number of responses, but a copy of every response makes it smaller, too"
            return "copies of responses change nothing, as it should be, but it is not the standard error of the mean"
