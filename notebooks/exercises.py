"""exercises.py - the exercises of the notebooks mark themselves: each check says "right", or gives a hint.

A check is a function from the student's answer to a hint, or to None if the answer is right; `exercise` makes it print.
Answers are compared with the project's own functions or with numbers worked out apart, never by their text, so any
way of writing them will do. The solutions are in solutions.ipynb; tests/test_notebooks.py runs both, and wrong answers.
"""

import functools
import math

import torch

import baselines
from toys import batch

UNSOLVED = (None, Ellipsis)  # what a value or a function of three dots gives
CHECKS = {}  # name -> check, for the tests


class Unsolved(Exception):
    """The student's function still returns nothing."""


def exercise(check):
    """Make a check print its verdict; an error in the student's code becomes a hint, for a notebook runs to its end."""

    @functools.wraps(check)
    def verdict(answer):
        name = check.__name__.removeprefix("check_")
        try:
            hint = "unsolved" if answer in UNSOLVED else check(answer)
        except Unsolved:
            hint = "unsolved"
        except Exception as error:  # the student's own: shown, not raised
            hint = f"your code stops with {type(error).__name__}: {error}"
        words = {"unsolved": "not solved yet.", None: "right."}
        print(f"{name}: {words[hint] if hint in words else f'not yet. Hint: {hint}'}")

    CHECKS[check.__name__] = verdict
    return verdict


def call(function, *args):
    """What the student's function returns. Raises Unsolved while that is nothing."""
    value = function(*args)
    if value is None or value is Ellipsis:
        raise Unsolved
    return value


def near(value, target, rel=1e-3):
    return math.isclose(float(value), target, rel_tol=rel)


def equal(value, target):
    """Tensors of one shape, equal to 1e-6."""
    return value.shape == target.shape and torch.allclose(value.double(), target.double(), rtol=1e-6, atol=1e-9)


# ----------------------------------------------------------------------------------- 1: why a length penalty breaks


@exercise
def check_longest_safe(function):
    for lengths, n_wrong, max_length, alpha in (
        ([100, 200], 3, 1000, 1.0), ([270, 400], 3, 1000, 1.0), ([500] * 7, 0, 4096, 0.3), ([120], 1, 256, 0.8),
    ):  # fmt: skip
        value = float(call(function, lengths, n_wrong, max_length, alpha))
        signs = []
        for length in (value * 0.999, value * 1.001):
            length_PG = torch.tensor([[*lengths, length, *[max_length] * n_wrong]], dtype=torch.float64)
            correct_PG = torch.arange(length_PG.shape[1])[None] <= len(lengths)
            reward_PG = baselines.length_penalty_reward(correct_PG, length_PG, max_length, alpha)
            signs.append(baselines.grpo_advantage(reward_PG)[0, len(lengths)].item() > 0)
        if signs != [True, False]:
            return (
                f"you say {value:.6g} for other correct lengths {lengths}, {n_wrong} wrong, C = {max_length}, alpha = "
                f"{alpha}, but the advantage does not change its sign there. Average over the *other* answers; what length "
                "does a wrong one count as?"
            )


@exercise
def check_alpha_star(value):
    if near(value, 3 / 3.33):
        return None
    if near(value, 1.47 / 2.4, 1e-2) or not 0 < value < 1:
        return "set the reward of the long answer, 1 - 0.8 alpha, equal to the mean over all six answers"
    return "at your alpha the long answer's reward is not the mean of all six; a wrong one earns 0, not 1 - alpha x"


@exercise
def check_surrogate_bug(function):
    for seed in range(3):
        logp, old, mask, correct, _ = batch(seed, drift=0.5)
        advantage = baselines.grpo_advantage(correct.double()).flatten()
        value = call(function, logp, old, mask, advantage)
        if not equal(value, baselines.clipped_surrogate(logp, old, mask, advantage)):
            wide = [torch.cat([x, torch.zeros_like(x[:, :5])], 1) for x in (logp, old, mask)]
            if not equal(call(function, *wide, advantage), value):
                return "append columns of padding to a batch: your value changes. What should divide an answer's sum?"
            return "padding does not matter, but this is not GRPO: mean over an answer's tokens, then over answers"
