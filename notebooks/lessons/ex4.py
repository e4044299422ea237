"""Checks of lesson 4, the trust region."""

import torch

import drpo
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
