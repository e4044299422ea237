"""Lesson 5, what students get wrong. Per exercise: a near miss with what must be said about it, then other mistakes."""

import math

MISTAKES = {
    "5a": {"near": (4.8, "close"), "wrong": [math.exp(-40 / 25.6), 40 / 25.6, 4, 0]},
    "5b": {"near": (0.11, "close"), "wrong": [20 / 256, math.log(2) * 20 / 256, -1.0]},
    "5c": {
        "near": (lambda value_Pn: value_Pn.mean(1).std() / len(value_Pn) ** 0.5, "as it should be"),
        "wrong": [
            lambda value_Pn: value_Pn.std(ddof=1) / value_Pn.size**0.5,  # responses as if they were independent
            lambda value_Pn: value_Pn.mean(1).std(ddof=1),
            lambda value_Pn: 0.0,
        ],
        "bug": "independent|over problems",
    },
}
