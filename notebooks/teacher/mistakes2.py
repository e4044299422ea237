"""Lesson 2, what students get wrong. Per exercise: a near miss with what must be said about it, then other mistakes."""

import torch

import drpo

MISTAKES = {
    "2a": {"near": (1000 / 8192, "e = 2.718"), "wrong": [0.17, 0.1, 0.0, -1]},
    "2b": {
        "near": (lambda weight: 1 / weight.square().sum(-1), "right wherever"),  # inf where no response is correct
        "wrong": [
            lambda weight: weight.square().sum(-1),
            lambda weight: 1 / weight.amax(-1).clamp(min=1e-9) * weight.any(-1),
            lambda weight: 1 / weight.square().sum(),
        ],
    },
    "2c": {
        "near": (  # NaN where no response is correct
            lambda preference, correct, lam: (preference / lam).masked_fill(~correct, -torch.inf).softmax(-1),
            "look right",
        ),
        "wrong": [
            lambda preference, correct, lam: drpo.positive_distribution(preference, correct, 2 * lam),
            lambda preference, correct, lam: drpo.positive_distribution(-preference, correct, lam),
            lambda preference, correct, lam: correct.double(),
        ],
        "bug": "sum|softmax|normal|add up|wrong resp",
    },
}
