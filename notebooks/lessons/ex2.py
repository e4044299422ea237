"""Checks of lesson 2, the positive distribution."""

import math

import torch

import drpo
from exercises import call, equal, exercise, near, number
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
        "subtract each row's largest preference among the right responses before you divide by lambda and take exp",
        "a wrong response must not give the largest, nor a weight; a row of wrong ones has sum 0: divide by 1 there",
    ],
)
def stable_weights(function):
    for seed, lam in enumerate((1.0, 0.1, math.inf, 0.009, 1e-6)):
        *_, correct, length = batch(seed)
        preference = drpo.length_preference(length, 12)
        value = call(function, preference, correct, lam, shape=correct.shape)
        right = drpo.positive_distribution(preference, correct, lam)
        if torch.allclose(value.float(), right, rtol=1e-4, atol=1e-6):
            continue
        some = correct.any(-1)
        if torch.allclose(value[some].float(), right[some], rtol=1e-4, atol=1e-6):
            return "right wherever a response is right; in a prompt without one the weights are 0"
        if seed >= 2:
            kind = "NaN or infinite" if not value[some].isfinite().all() else "not those of drpo.py"
            return f"right for lambda 1 and 0.1, but at {lam:g} the weights are {kind}"
        if (value[~correct] != 0).any():
            return "wrong responses have weights, too"
        return f"at lambda {lam:g} the weights are not those of drpo.py"


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


@exercise(
    "2d",
    hints=[
        "the proof: J(w) = lambda log Z - lambda KL(w || w*); at w* the second term is 0",
        "lambda * sum of w log(w/w*), with w* = softmax(r/lambda)",
    ],
)
def gap(function):
    g = torch.Generator().manual_seed(0)
    for lam in (0.1, 0.7, 2.0):
        w, r = torch.rand(2, 6, generator=g, dtype=torch.float64)
        w = w / w.sum()
        best = (r / lam).softmax(-1)

        def value(p, r=r, lam=lam):
            return (p @ r - lam * (p * (len(p) * p).log()).sum()).item()

        yours, true = float(call(function, w, r, lam)), value(best) - value(w)
        if near(yours, true, 1e-6):
            continue
        for other, words in (
            (true / lam, "right up to a factor, which depends on lambda"),
            (-true, "the size is right; w* is the best, so the gap is positive"),
            (
                lam * (best * (best / w).log()).sum().item(),
                "a KL between the right two, and its price; but which one is the mean over?",
            ),
            (lam * (w * (len(w) * w).log()).sum().item(), "that is the distance to uniform; the proof has another one"),
        ):
            if near(yours, other, 1e-6):
                return words
        if abs(float(function(best, r, lam))) < 1e-9:
            return f"0 at w*, as it must be; elsewhere J(w*) - J(w) is {true:.4f} where you say {yours:.4f}"
        return f"for random w and r at lambda {lam} the gap is {true:.4f}, you say {yours:.4f}"


@exercise(
    "2e",
    hints=[
        "w_i = lambda / (n (mu - r_i)) with n = 2; the two must sum to 1: a quadratic equation for mu",
        "mu^2 - 1.6 mu + 0.59 = 0, and mu is above 0.9",
    ],
)
def first_weight(value):
    return number(
        value,
        0.1 / (0.05**0.5 - 0.1),
        "with that weight the two do not solve the problem",
        misses=[
            (1 / (1 + math.exp(-2)), "that is DRPO's weight, of the price in the other direction"),
            (1 - 0.1 / (0.05**0.5 - 0.1), "that is the weight of the second"),
            (1.0236, "that is mu, right so far"),
        ],
    )


@exercise(
    "2f",
    hints=[
        "weight = drpo.positive_distribution(drpo.length_preference(lengths(16384, 8), 8192), all True, 0.05)",
        "ESS = 1 / weight.square().sum(-1), and its mean over the groups",
    ],
)
def effective_sample_size(answer):
    predicted, measured = (float(x) for x in answer)
    g = torch.Generator().manual_seed(1)
    length = -750 * torch.rand(16384, 8, 4, generator=g, dtype=torch.float64).log().sum(-1)
    weight = drpo.positive_distribution(drpo.length_preference(length, 8192), torch.ones_like(length).bool(), 0.05)
    true = (1 / weight.square().sum(-1)).mean().item()
    if near(measured, true, 0.03):
        print(f"you were {abs(predicted / true - 1):.0%} off")
        return None
    if near(measured, 1 / weight.square().sum(-1).mean().item(), 0.03):
        return "that is 1 over the mean of the sums of squares; asked is the mean of the ESS, another number: close"
    return "16,384 groups give another mean ESS"


@exercise(
    "2g",
    hints=[
        "E_P*[length] = E_pi+[omega length], and omega = exp(r/lambda) / E_pi+[exp(r/lambda)]",
        "weights 0.2 e^4.5, 0.3 e^4 and 0.5 e^3, divided by their sum",
    ],
)
def mean_length(value):
    def mean(pi, lam=0.2):
        weight = [p * math.exp(-length / 1000 / lam) for p, length in zip(pi, (100, 200, 400), strict=True)]
        return sum(w * length for w, length in zip(weight, (100, 200, 400), strict=True)) / sum(weight)

    return number(
        value,
        mean((0.2, 0.3, 0.5)),
        "under P* the mean length is another",
        misses=[
            (mean((1, 1, 1)), "the factors e^(r/lambda) are right; but the policy's own probabilities are not in it"),
            (280, "that is the policy's own mean"),
        ],
    )
