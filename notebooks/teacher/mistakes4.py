"""Lesson 4, what students get wrong. Per exercise: a near miss with what must be said about it, then other mistakes."""

import torch

import drpo

MISTAKES = {
    "4a": {"near": (20_000, "delta itself"), "wrong": [40_000, 8e-4, 0]},
    "4b": {
        "near": (  # over the padded width
            lambda logp, old, mask: drpo.kl_per_token(logp, old, mask, "k3").mean(),
            "each token's value is right",
        ),
        "wrong": [
            lambda *args: drpo.kl_estimate(*args, "k1"),
            lambda logp, old, mask: -drpo.kl_estimate(logp, old, mask, "k3"),
            lambda logp, old, mask: drpo.kl_per_token(logp, old, torch.ones_like(mask), "k3").mean(),  # no mask at all
        ],
        "bug": "ratio|reverse|pi_new|the new policy",
    },
    "4c": {
        "near": (lambda pull, beta, delta: delta + pull / (2 * beta), "beyond delta"),  # the paper's factor
        "wrong": [lambda pull, beta, delta: delta, lambda pull, beta, delta: pull / beta - delta],
    },
    "4d": {"near": (0.8192, "the KL of the response is right"), "wrong": [1.6384, 2e-4**0.5, 0]},
    "4e": {
        "near": (lambda kl, tokens, beta, delta: beta * max(float(kl.mean()) - delta, 0), "equal size"),
        "wrong": [
            lambda kl, tokens, beta, delta: beta * (kl - delta).clamp(min=0).mean(),  # a hinge per micro-batch
            lambda kl, tokens, beta, delta: beta * ((kl * tokens).sum() / tokens.sum() - delta),  # no hinge
        ],
    },
    "4f": {"near": (0.2, "the run gives"), "wrong": [0.0, 0.1, 1.0]},
}
