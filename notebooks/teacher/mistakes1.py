"""Lesson 1, what students get wrong. Per exercise: a near miss with what must be said about it, then other mistakes."""

import math

import torch

from minidrpo.methods import baselines


def padded_mean(logp, old, mask, advantage):
    return baselines.clipped_surrogate(logp, old, mask, advantage, aggregate="constant")


def token_mean(logp, old, mask, advantage):
    return baselines.clipped_surrogate(logp, old, mask, advantage, aggregate="token")


RLOO = [0.945, 0.936]  # of the three accuracies that the run of 1e gives

MISTAKES = {
    "1b": {
        "near": (
            lambda others, n_wrong, C, alpha: (sum(others) + n_wrong * C) / (len(others) + n_wrong),
            "right at alpha",
        ),
        "wrong": [
            lambda others, n_wrong, C, alpha: (sum(others) + n_wrong * C / alpha) / (len(others) + n_wrong + 1),
            lambda others, n_wrong, C, alpha: sum(others) / len(others),
            lambda others, n_wrong, C, alpha: 1 / 0,
            300.0,
        ],
    },
    "1a": {"near": (0.91, "close"), "wrong": [0.6125, 1.0, -3, math.nan, math.sqrt]},
    "1c": {
        "near": (token_mean, "wider batch"),
        "wrong": [padded_mean, lambda *args: torch.tensor(0.0), lambda *args: 0.0, lambda *args: torch.zeros(24), 0.5],
        "bug": "pad|width|length|divid|mean",
    },
    "1d": {
        "near": (
            lambda length: (length - length.mean(-1, keepdim=True)) / length.std(-1, correction=0, keepdim=True),
            "the size is right",
        ),
        "wrong": [
            lambda length: (length.mean(-1, keepdim=True) - length) / length.std(-1, keepdim=True),
            lambda length: length.mean(-1, keepdim=True) - length,
            lambda length: length / length.std(-1, keepdim=True),
            lambda length: length.mean(-1),
        ],
    },
    "1e": {
        "near": (([True, True, True], [*RLOO, 0.9]), "2 of 3 accuracies"),
        "wrong": [([True, True, True], [90, 90, 90]), ([True], [0.9])],
    },
}
