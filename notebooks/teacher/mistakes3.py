"""Lesson 3, what students get wrong. Per exercise: a near miss with what must be said about it, then other mistakes."""

import math

import torch

import drpo


def scores(score_of, correct, size=2):
    return torch.cat([score_of(rows) for rows in torch.arange(correct.numel()).split(size)]).view(correct.shape)


def whole_batch(score_of, parameter, correct, weight, tau):
    score = scores(score_of, correct, correct.numel())
    (-drpo.drpo_objective(score, correct, weight, tau)).backward()


def pairs(score_of, parameter, correct, weight, tau):
    for rows in torch.arange(correct.numel()).split(2):
        right, w = correct.flatten()[rows][None], weight.flatten()[rows][None]
        (-drpo.drpo_objective(score_of(rows)[None], right, w, tau) / (correct.numel() // 2)).backward()


def streamed(sign=-1.0, factor=1.0):
    def step(score_of, parameter, correct, weight, tau):
        with torch.no_grad():
            credit = drpo.drpo_credit(scores(score_of, correct), correct, weight, tau).flatten()
        for rows in torch.arange(correct.numel()).split(2):
            (sign * factor * credit[rows] * score_of(rows)).sum().backward()

    return step


MISTAKES = {
    "3a": {"near": (math.exp(80 / 25.6), "right so far; now per token"), "wrong": [5, 100, math.exp(-80 / 25.6), 0.0]},
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
        "near": (whole_batch, "the gradient is right, but"),
        "wrong": [pairs, streamed(sign=1.0), streamed(factor=4.0), lambda *args: 1 / 0, lambda *args: args[0]([0])],
    },
    "3d": {
        "near": (([0.5, 0.5], [True, False], [0, 1], [0.5, 0.5]), "the accuracy rises"),
        "wrong": [
            ([0.5, 0.5], [True, True], [0, 1], [0.5, 0.5]),
            ([0.5, 0.6], [True, False], [0, 1], [0.5, 0.5]),
            ([0.5, 0.5], [True, False], [0, 2], [0.5, 0.5]),
        ],
    },
    "3e": {"near": ((0.5, 3 / 14), "right so far"), "wrong": [(0.43, 0.5), (0.43, 43), (0.43, 1.0)]},
}
