"""Checks of lesson 5, watch it train."""

import functools
import math
from pathlib import Path

import numpy as np
import pandas as pd

import drpo
from exercises import Say, call, exercise, near, number, unsolved
from minidrpo.rundir import metrics


@exercise("5a", hints=["w is proportional to exp(-|o| / (C lambda))", "take the ratio for |o| = 60 and 100"])
def times_heavier(value):
    return number(
        value,
        math.exp(40 / 25.6),
        "not the ratio of the two weights",
        misses=[(math.exp(-40 / 25.6), "that is the longer one's weight in units of the shorter one's")],
    )


TOKENS = np.array([[61.1, 53.8, 56.4], [66.7, 60.3, 61.2]])  # lambda 0.1 and 0.2 in the study of the habit world


@exercise(
    "5b",
    hints=[
        "the variance of a mean of three runs is their variance (ddof = 1) over 3; those of the two means add up",
        "the difference of the means is 5.63 tokens; divide it by the square root of that sum",
    ],
)
def standard_errors_between(value):
    gap, variance = TOKENS[1].mean() - TOKENS[0].mean(), TOKENS.var(axis=1, ddof=1).sum() / 3
    pairs = TOKENS[1] - TOKENS[0]
    return number(
        value,
        gap / variance**0.5,
        "not the difference of the means in units of its standard error",
        misses=[
            (gap, "that is the difference in tokens, right so far"),
            (variance**0.5, "that is the standard error in tokens, right so far"),
            (gap / (3 * variance) ** 0.5, "that is in standard deviations of one run; asked is the error of means"),
            (gap / (TOKENS.var(axis=1).sum() / 3) ** 0.5, "nearly; but the variance is that of a sample: ddof = 1"),
            (gap / (pairs.var(ddof=1) / 3) ** 0.5, "that takes the runs in pairs; here they are taken as independent"),
        ],
    )


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


@exercise(
    "5d",
    hints=[
        "a seed that is easy for one method is easy for the other: look at the difference within each seed",
        "the standard deviation of the S differences (ddof = 1), over the square root of S",
    ],
)
def paired_difference(function):
    rng = np.random.default_rng(1)
    for size in (3, 8):
        common = 10 * rng.normal(size=size)
        a_S, b_S = 50 + common + rng.normal(size=size), 60 + common + rng.normal(size=size)
        value = call(function, a_S, b_S)
        if np.shape(value) != (2,):
            raise Say("two numbers, please: the difference and its standard error")
        gap, error = map(float, value)
        difference = a_S - b_S
        if not near(gap, difference.mean()):
            return (
                "the sign of the difference is not that of a - b"
                if near(-gap, difference.mean())
                else "not the mean of a - b"
            )
        if not near(error, difference.std(ddof=1) / size**0.5):
            apart = ((a_S.var(ddof=1) + b_S.var(ddof=1)) / size) ** 0.5
            if near(error, apart):
                return (
                    "the difference is right; its error is that of two *independent* sets, and these share their seeds"
                )
            if near(error, difference.std() / size**0.5):
                return "paired, as it should be; but the deviation is that of a sample: ddof = 1"
            return f"the difference is right, its standard error is not {error:.3g}"


@functools.cache
def correlations():
    """Of accuracy with J and with J per mixed group over the steps of `make train`, means over the seeds."""
    file = Path(drpo.__file__).parent / "experiments" / "results" / "lessons.csv"
    log = pd.read_csv(file).query("part == 'watch' and phase == 'train'")
    log = log.assign(per_mixed=log.objective / log.mixed_groups)
    runs = [run for _, run in log.groupby("seed")]
    return [float(np.mean([run[key].corr(run.accuracy) for run in runs])) for key in ("objective", "per_mixed")]


@exercise(
    "5e",
    hints=[
        "divide `objective` by `mixed_groups` for the second; `run.objective.corr(run.accuracy)` gives a correlation",
        "take each seed by itself, then the mean of the three numbers",
    ],
)
def j_and_accuracy(answer):
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise Say("your predicted signs and your two measured numbers, please")
    signs, measured = answer
    if unsolved(measured):
        raise Say("a prediction, good. Now measure it")
    if np.shape(signs) != (2,) or np.shape(measured) != (2,):
        raise Say("two signs and two numbers, please")
    right = [abs(float(value) - target) < 0.02 for value, target in zip(measured, correlations(), strict=True)]
    if all(right):
        return None
    if any(right):
        return f"the {'first' if right[0] else 'second'} number is right, the other is not"
    if all(abs(float(value)) > 1 for value in measured):
        return "a correlation lies between -1 and 1"
    return "neither number is what the file says"
