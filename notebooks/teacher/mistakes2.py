"""Lesson 2, what students get wrong. Per exercise: a near miss with what must be said about it, then other mistakes."""

import torch

import drpo


def naive(preference, correct, lam):
    """Right until exp overflows."""
    weight = torch.exp(preference / lam) * correct
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-30)


def no_answer_is_nan(preference, correct, lam):
    return (preference / lam).masked_fill(~correct, -torch.inf).softmax(-1)


MISTAKES = {
    "2a": {"near": (1000 / 8192, "e = 2.718"), "wrong": [0.17, 0.1, 0.0, -1]},
    "2b": {
        "near": (naive, "right for lambda 1 and 0.1"),
        "wrong": [
            no_answer_is_nan,
            lambda preference, correct, lam: (preference / lam).softmax(-1),
            lambda preference, correct, lam: drpo.positive_distribution(preference, correct, 2 * lam),
            lambda preference, correct, lam: correct.float(),
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
    "2d": {
        "near": (lambda w, r, lam: (w * (w / (r / lam).softmax(-1)).log()).sum(), "right up to a factor"),
        "wrong": [
            lambda w, r, lam: lam * ((r / lam).softmax(-1) * ((r / lam).softmax(-1) / w).log()).sum(),
            lambda w, r, lam: -lam * (w * (w / (r / lam).softmax(-1)).log()).sum(),
            lambda w, r, lam: lam * (w * (len(w) * w).log()).sum(),
            lambda w, r, lam: (w - (r / lam).softmax(-1)).abs().sum(),
            lambda w, r, lam: 0.5,
        ],
    },
    "2e": {"near": (1.0236, "right so far"), "wrong": [0.881, 0.191, 0.5, 2]},
    "2f": {"near": ((3, 2.005), "close"), "wrong": [(3, 0.92), (3, 8), (3, 1.0)]},
    "2g": {"near": (169.7, "the factors"), "wrong": [280, 100, 0.8, 233.3]},
}
