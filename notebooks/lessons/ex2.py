"""Checks of lesson 2, the positive distribution."""

import math

import torch

import drpo
from exercises import call, equal, exercise, number
from toys import batch


@exercise(
    "2a",
    hints=["the ratio of two weights is exp(difference of preference / lambda)", "solve exp(1000/(lambda C)) = 2"],
)
def lam_of_doubling(value):
    return number(
        value,
        1000 / (8192 * math.log(2)),
        "at your lambda a response that is 1,000 tokens shorter does not count twice as much",
        misses=[(1000 / 8192, "that makes it count e = 2.718 times as much")],
    )


@exercise(
    "2b",
    hints=[
        "1 over the sum of the *squared* weights, for each row",
        "a prompt without correct responses has sum of squares 0; dividing by it gives inf or NaN",
    ],
)
def effective_sample_size(function):
    weight = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.0] * 4, [0.5, 0.3, 0.2, 0]], dtype=torch.float64)
    drawn = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    weight = torch.cat([weight, drawn])
    value = call(function, weight.clone(), shape=(7,))
    target = torch.where(weight.any(-1), 1 / weight.square().sum(-1), 0.0)
    if equal(value[[0, 1, 3, 4, 5, 6]], target[[0, 1, 3, 4, 5, 6]]) and not equal(value, target):
        return f"right wherever there is a correct response; without one it gives {value[2].item()}"
    for row, words in ((0, "four equal weights"), (1, "a single weight 1"), (2, "no correct response")):
        if not math.isclose(value[row].item(), target[row].item(), abs_tol=1e-6):
            return f"{words} should give {target[row].item():g}, yours is {value[row].item():.4g}"
    return None if equal(value, target) else "equal and single weights are right, uneven ones are not"


@exercise(
    "2c",
    hints=["add up the weights of each prompt: what should the sums be?", "over which responses does the softmax run?"],
)
def weights_bug(function):
    for seed, lam in enumerate((0.3, 0.1, 2.0)):
        *_, correct, length = batch(seed)
        preference = drpo.length_preference(length, 12).double()
        value = call(function, preference, correct, lam, shape=correct.shape).double()
        if value.isnan().any():
            return "prompts with a correct response look right, but a prompt without one has NaN; its weights are 0"
        right = drpo.positive_distribution(preference, correct, lam)
        ratio = torch.where(correct, (value / right.clamp(min=1e-300)), torch.nan)
        if equal(value, right):
            continue
        if all(equal(row[~row.isnan()] / row[~row.isnan()][0], torch.ones(int(c.sum())).double())
               for row, c in zip(ratio, correct, strict=True) if c.any()):  # fmt: skip
            return "the ratio of any two weights of a prompt is right, but they are not the weights of `drpo.py`"
        return "the ratio of two weights of a prompt is not exp(difference of preference / lambda)"
