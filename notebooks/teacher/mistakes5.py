"""Lesson 5, what students get wrong. Per exercise: a near miss with what must be said about it, then other mistakes."""

import math

from lessons import ex5

MISTAKES = {
    "5a": {"near": (4.8, "close"), "wrong": [math.exp(-40 / 25.6), 40 / 25.6, 4, 0]},
    "5b": {"near": (2.0, "close"), "wrong": [5.633, 2.927, 2.36, 1.11, 11.5, "two"]},
    "5c": {
        "near": (lambda value_Pn: value_Pn.mean(1).std() / len(value_Pn) ** 0.5, "as it should be"),
        "wrong": [
            lambda value_Pn: value_Pn.std(ddof=1) / value_Pn.size**0.5,  # responses as if they were independent
            lambda value_Pn: value_Pn.mean(1).std(ddof=1),
            lambda value_Pn: 0.0,
        ],
        "bug": "independent|over problems",
    },
    "5d": {
        "near": (
            lambda a, b: (a.mean() - b.mean(), ((a.var(ddof=1) + b.var(ddof=1)) / len(a)) ** 0.5),
            "the difference is right",
        ),
        "wrong": [
            lambda a, b: (b.mean() - a.mean(), (a - b).std(ddof=1) / len(a) ** 0.5),
            lambda a, b: (a.mean() - b.mean(), (a - b).std() / len(a) ** 0.5),
            lambda a, b: a.mean() - b.mean(),
        ],
    },
    "5e": {
        "near": (((-1, 1), (ex5.correlations()[0], 0.0)), "first number is right"),
        "wrong": [((1, 1), (0.5, -0.5)), ((1, 1), (3.0, 4.0)), (1, 1)],
    },
}
