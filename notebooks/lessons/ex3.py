"""Checks of lesson 3, objective, credit, independence."""

import math

import torch

import drpo
from exercises import Say, call, equal, exercise, number
from experiments import lemma
from toys import batch


@exercise(
    "3a",
    hints=[
        "the weights: w is proportional to exp(-|o|/(C lambda)); then each is divided by its own length",
        "exp(80/25.6) from the weights, and a factor from the mean over tokens",
    ],
)
def times_per_token(value):
    return number(
        value,
        5 * math.exp(80 / 25.6),
        "not the ratio of the two credits per token",
        misses=[
            (math.exp(80 / 25.6), "that is the ratio of the two credits, right so far; now per token"),
            (5, "that is the part of the mean over tokens, right so far; the weights differ, too"),
        ],
    )


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
        "two passes: first all scores without gradient (torch.no_grad), which give the credit of the whole batch",
        "then, two rows at a time: loss = -(credit[rows] * score_of(rows)).sum(), and backward() adds up the gradients",
    ],
)
def streamed_step(function):
    g = torch.Generator().manual_seed(0)
    *_, correct, length = batch(3)
    feature = torch.randn(correct.numel(), 5, generator=g, dtype=torch.float64)
    weight = drpo.positive_distribution(drpo.length_preference(length, 12).double(), correct, 0.1)

    def run(compute):
        parameter = torch.ones(5, dtype=torch.float64, requires_grad=True)
        largest = []

        def score_of(rows):
            largest.append(len(rows))
            return torch.nn.functional.logsigmoid(feature[rows] @ parameter)

        compute(score_of, parameter)
        return parameter.grad, max(largest, default=0)

    def whole(score_of, parameter):
        score = score_of(torch.arange(correct.numel())).view(correct.shape)
        (-drpo.drpo_objective(score, correct, weight, 0.2)).backward()

    def cut(score_of, parameter):
        """Pairs as groups of their own."""
        for rows in torch.arange(correct.numel()).split(2):
            pair = correct.flatten()[rows][None]
            (-drpo.drpo_objective(score_of(rows)[None], pair, weight.flatten()[rows][None], 0.2) / 12).backward()

    if not callable(function):
        raise Say("hand in the function itself, without calling it")
    grad, largest = run(lambda *args: function(*args, correct, weight, 0.2))
    right = run(whole)[0]
    if grad is None:
        return "unsolved" if not largest else "the scores are used, but no gradient has reached the parameter"
    if largest > 2:
        exact = "the gradient is right, but " if equal(grad, right) else ""
        return f"{exact}score_of was called with {largest} rows: more than memory holds"
    if equal(grad, right):
        return None
    if equal(grad, -right):
        return "the size is right; a loss goes down where J goes up"
    if equal(grad, right * len(correct)):
        return "right for each prompt; J is a mean over the P prompts"
    if equal(grad, run(cut)[0]):
        return "two rows at a time, as asked; but each pair is treated as a group of its own"
    return "two rows at a time, as asked; the sum of their gradients is not the gradient of -J of the whole batch"


@exercise(
    "3d",
    hints=[
        "a common long right response loses to a short right one: sample each of them, and a wrong one",
        "d log pi_k = v_k - sum_m pi_m v_m, v_k the credit of k's samples: make the second term large, v_k small",
    ],
)
def counterexample(answer):
    pi, right, group, length = (torch.as_tensor(part)[None] for part in answer)
    pi, length = pi.double(), length.double()
    if not pi.shape == right.shape == length.shape or group.max() >= pi.shape[1]:
        return "pi, right and length need one entry per possible response, group their indices"
    if (
        not torch.isclose(pi.sum(), torch.tensor(1.0).double())
        or (pi <= 0).any()
        or not ((length > 0) & (length <= 1)).all()
    ):
        return "pi must be positive and sum to 1, lengths lie between 0 and 1"
    right = right.bool()
    sampled = right.gather(1, group)
    if sampled.all() or not sampled.any():
        return "the group is not mixed, so nothing moves"
    logp = pi.log().gather(1, group)
    credit = lemma.group_credit("drpo", sampled, length.gather(1, group), logp, 0.1)
    change = lemma.step(pi, lemma.logit_gradient(pi, group, credit), 1e-3) - pi
    gain = (change * right).sum().item()
    if (change[right] < -1e-9).any():
        return None if gain > 0 else "a right response becomes rarer, but the accuracy does not rise"
    return f"the accuracy rises, by {gain:.1e}, but every right response gains"


@exercise(
    "3e",
    hints=[
        "a half has no credit if both wrong responses are in the other one",
        "wherever the first wrong one is, the second has 3 of the 7 other places in the same half",
    ],
)
def cut_groups(answer):
    predicted, measured = (float(x) for x in answer)
    if abs(measured - 3 / 7) > 0.02:
        if abs(measured - 3 / 14) < 0.02:
            return "that is the share of such halves, right so far; asked is the share of orders that have one"
        return "10,000 random orders give another share, to two digits"
    print(f"you were {abs(predicted - measured):.0%} off")
