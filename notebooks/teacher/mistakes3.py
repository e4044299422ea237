"""Lesson 3, what students get wrong. Per exercise: a near miss with what must be said about it, then other mistakes."""

import math

import torch

import drpo


def disco_b(correct):
    scores = torch.zeros(correct.shape, dtype=torch.float64)
    weight = drpo.positive_distribution(scores, correct, math.inf)
    return drpo.drpo_credit(scores, correct, weight, 1.0, "mean")


MISTAKES = {
    "3a": {"near": (0.43, "close"), "wrong": [0.3, 10.0, 0.3 * math.log(2), 0]},
    "3b": {
        "near": (lambda *args: drpo.drpo_objective(*args), "size of every gradient"),
        "wrong": [
            lambda score, *args: -(drpo.drpo_credit(score, *args) * score.detach()).sum(),  # stopped in the wrong place
            lambda score, *args: -(drpo.drpo_credit(score, *args) * score).detach().sum(),
            lambda score, *args: -(drpo.drpo_credit(score, *args) * score),
        ],
        "bug": "detach|autograd|constant|depend",
    },
    "3c": {
        "near": (lambda correct: disco_b(correct) * len(correct) / drpo.mixed_groups(correct).sum(), "right up to"),
        "wrong": [
            lambda correct: disco_b(correct) * len(correct),
            lambda correct: -disco_b(correct),
            lambda correct: disco_b(correct).sum(-1),
            lambda correct: torch.where(correct, 1 / correct.sum(-1, keepdim=True), 0.0) / len(correct),
        ],
    },
}
