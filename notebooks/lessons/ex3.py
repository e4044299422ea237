"""Checks of lesson 3, objective, credit, independence."""

import math

import torch

import drpo
from exercises import call, equal, exercise, number
from toys import batch


@exercise("3a", hints=["the share is a softmax of s/tau over all three", "solve 1/(1 + 2 exp(-0.3/tau)) = 1/2"])
def tau_of_half(value):
    def share(tau):
        return 1 / (1 + 2 * math.exp(-0.3 / tau))

    if isinstance(value, int | float) and value <= 0:
        return "a positive number, please"
    words = "" if callable(value) else f"at your tau its share is {share(float(value)):.3f}"
    return number(value, 0.3 / math.log(2), words)


@exercise(
    "3b",
    hints=[
        "differentiate it by a wrong response's score, on paper",
        "the credit depends on the scores too: what does autograd do with that?",
    ],
)
def credit_bug(function):
    for tau in (0.2, 1.0):
        logp, _, mask, correct, length = batch(2)
        score = drpo.sequence_score(logp, mask).view(correct.shape).requires_grad_()
        weight = drpo.positive_distribution(drpo.length_preference(length, 12).double(), correct, 0.1)
        value = call(function, score, correct, weight, tau, shape=())
        if not value.requires_grad:
            return "nothing reaches the scores: the gradient is gone"
        grad = torch.autograd.grad(value, score)[0]
        credit = drpo.drpo_credit(score.detach(), correct, weight, tau)
        if equal(grad, credit):
            return "the size of every gradient is right; a loss goes down where the objective goes up"
        if not equal(grad, -credit):
            if equal(grad[correct], -credit[correct]):
                return f"at tau {tau} the correct responses have their gradient, the wrong ones have another"
            return f"at tau {tau} no gradient is minus the credit"


@exercise(
    "3c",
    hints=[
        "the correct responses of a mixed prompt share +1/P equally, the wrong ones -1/P",
        "prompts that are all right or all wrong have credit 0, and count in P",
    ],
)
def disco_b_credit(function):
    correct = batch(4, P=5)[3]
    scores = torch.zeros(correct.shape, dtype=torch.float64)
    value = call(function, correct.clone(), shape=correct.shape)
    weight = drpo.positive_distribution(scores, correct, math.inf)
    target = drpo.drpo_credit(scores, correct, weight, 1.0, negatives="mean")
    mixed = drpo.mixed_groups(correct)
    if equal(value, target):
        return None
    if equal(value[mixed], target[mixed]):
        return "mixed prompts are right; prompts that are all right or all wrong (here the first two) have credit 0"
    if equal(value, target * len(correct)):
        return "correct for each prompt; now the batch: J is a mean over prompts"
    if equal(value, target * len(correct) / mixed.sum()):
        return "right up to a factor: prompts without credit still count in P"
    if equal(value, -target):
        return "the sizes are right, the signs are not"
    return "add up a mixed prompt's credits over its correct responses, and over its wrong ones: 1/P and -1/P"
