"""Checks of lesson 4, the trust region."""

import functools
import math

import torch

import drpo
import worlds
from exercises import call, equal, exercise, near, number
from toys import batch


@exercise(
    "4a", hints=["k1's variance is 2 KL per token", "the error of n tokens is sqrt(2 delta / n); set it to delta/2"]
)
def tokens_needed(value):
    return number(
        value,
        80_000,
        "with that many tokens the standard error of k1 is not delta/2",
        misses=[(20_000, "that makes the error delta itself; asked for is half of it")],
    )


@exercise(
    "4b",
    hints=[
        "there the samples come from the *new* policy, here from the old one",
        "which ratio has expectation 1 under the old policy? On padding the log-ratio is 0; divide by the tokens",
    ],
)
def kl_bug(function):
    for seed in range(3):
        logp, old, mask, *_ = batch(seed, drift=0.5)
        value = call(function, logp, old, mask, shape=())
        if equal(value, drpo.kl_estimate(logp, old, mask, "k3")):
            continue
        if equal(value, drpo.kl_estimate(logp, old, mask, "k1")):
            return "unbiased, but that is k1: it can be negative"
        everywhere = drpo.kl_per_token(logp, old, torch.ones_like(mask), "k3")
        padded = everywhere.sum() / mask.sum(), everywhere.mean(), (everywhere * mask).mean()
        if any(equal(value, mean) for mean in padded):
            return "each token's value is right; the mean is not over the response tokens alone"
        if not torch.equal(
            call(function, torch.where(mask, logp, -9.0), old, mask, shape=()),
            call(function, logp, old, mask, shape=()),
        ):
            return "what stands in the padding changes your value"
        return "0 for equal policies, as it must be; but its mean over samples of old is not KL(old || new)"


@exercise("4c", hints=["the penalty's derivative by KL is beta (KL - delta) beyond delta", "set it equal to the pull"])
def resting_kl(function):
    for pull, beta, delta in ((0.5, 1e3, 1e-4), (2.0, 1e3, 1e-4), (0.1, 50.0, 0.01)):
        value = float(call(function, pull, beta, delta))
        grad = drpo.kl_penalty_grad(torch.tensor(value, dtype=torch.float64), beta, delta).item()
        if not near(grad, pull):
            beyond = "it is beyond delta, as it must be, but " if value > delta else ""
            return f"{beyond}at your KL, {value:.4g}, the penalty's derivative is {grad:.4g}, the pull is {pull}"


@exercise("4d", hints=["the KL of the response is the sum over its tokens", "the variance of a log-ratio is 2 KL"])
def log_ratio_deviation(value):
    return number(
        value,
        math.sqrt(2 * 0.8192),
        "not the square root of the log-ratio's variance",
        misses=[
            (
                0.8192,
                "the KL of the response is right, which is the mean of minus the log-ratio; asked for is its spread",
            ),
            (2 * 0.8192, "that is the variance"),
            (math.sqrt(2e-4), "right for one token; a response has 8,192"),
        ],
    )


@exercise(
    "4e",
    hints=["first the KL of the mini-batch, then its hinge", "the mini-batch's KL is the mean over *tokens*"],
)
def penalty_factor(function):
    cases = (
        ([3e-4, 1e-4], [500, 1500], 1e3, 1e-4),
        ([2e-4, -1e-4, 0.0], [100, 100, 100], 1e3, 1e-4),
        ([4e-4, 2e-4], [100, 900], 500.0, 1e-4),
    )
    for kl, tokens, beta, delta in cases:
        kl_M, tokens_M = torch.tensor(kl, dtype=torch.float64), torch.tensor(tokens)
        whole = (kl_M * tokens_M).sum() / tokens_M.sum()
        value = float(call(function, kl_M, tokens_M, beta, delta))
        if math.isclose(value, drpo.kl_penalty_grad(whole, beta, delta).item(), rel_tol=1e-5, abs_tol=1e-9):
            continue
        if near(value, drpo.kl_penalty_grad(kl_M.mean(), beta, delta).item()):
            return "one hinge, and right for micro-batches of equal size; these have different numbers of tokens"
        if near(value, drpo.kl_penalty_grad(kl_M, beta, delta).mean().item()):
            return "that is the mean of the micro-batches' own hinges, which depends on the cut"
        return f"for KLs {kl} of {tokens} tokens you say {value:.4g}, and the whole batch's KL is {whole:.3g}"


@functools.cache
def cut_fine():
    """The mean hinge over parts of 250 tokens at a true KL of 5e-5, sampled: 40 mini-batches of 64 x 1,000 tokens."""
    draw = torch.Generator().manual_seed(1)
    old = torch.randn(2000, generator=draw, dtype=torch.float64).log_softmax(-1)
    direction = torch.randn(2000, generator=draw, dtype=torch.float64)
    new = (old + worlds.scale_for(old, direction, 5e-5) * direction).log_softmax(-1)
    tokens = torch.multinomial(old.exp(), 40 * 64 * 1000, replacement=True, generator=draw).view(-1, 250)
    return drpo.kl_penalty_grad((old - new)[tokens].mean(-1), 1e3, 1e-4).mean().item()


@exercise(
    "4f",
    hints=[
        "a part's k1 is nearly normal: its mean is 5e-5, its variance 2 x 5e-5 / 250",
        "average max(x - 1e-4, 0) over draws of such a normal number, and multiply by beta",
    ],
)
def predicted_hinge(value):
    ran = cut_fine()
    words = f"the run gives {ran:.3f}, your prediction is {float(value):.3g}" if isinstance(value, int | float) else ""
    misses = [(0.0, "a part's KL is noisy, and some parts are outside although the true KL is inside")]
    return number(value, ran, words, rel=0.1, misses=misses) and (words if value else misses[0][1])
