"""Lesson 7, what students get wrong. Per exercise: a near miss with what must be said about it, then other mistakes."""

import math

import reward

MISTAKES = {
    "7a": {"near": (0.7, "share of right responses"), "wrong": [0.5, 0.8, 0]},
    "7b": {
        "near": (r"</think> \boxed{17}", "as it should"),
        "wrong": ["42", r"\boxed{17}, not 42", r"</think> \boxed{42}", r"</think> 42", r"</think> \boxed{(} 42"],
    },
    "7c": {
        "near": (lambda response: reward.last_boxed(response.split("</think>")[-1]), "of 9 are right"),
        "wrong": [
            lambda response: reward.last_boxed(response),  # also while thinking
            lambda response: response.split("\\boxed{")[-1].split("}")[0] if "</think>" in response else None,
            lambda response: 1 / 0,
        ],
        "bug": "nest|brace|while thinking|cut off",
    },
    "7d": {
        "near": (lambda pi, r: pi * (r - pi @ r), "logits' changes are right"),
        "wrong": [
            lambda pi, r: r - pi @ r,  # the natural gradient
            lambda pi, r: pi * r,
            lambda pi, r: pi * (pi * (r - pi @ r) - pi @ (pi * (r - pi @ r))),  # of the share, not of its logarithm
        ],
    },
    "7e": {"near": (math.inf, "true of infinity"), "wrong": [0.1, 0.2, 0.7]},
}
