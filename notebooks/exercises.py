"""exercises.py - the exercises of the notebooks mark themselves: each check says "right", or gives a hint.

A check is a function from the student's answer to a hint, or to None if the answer is right; `exercise` makes it print.
Answers are compared with the project's own functions or with numbers worked out apart, never by their text, so any
way of writing them will do. The solutions are in solutions.ipynb; tests/test_notebooks.py runs both, and wrong answers.
"""

import functools
import math
import re

import numpy as np
import torch

import drpo
import reward
from minidrpo.methods import baselines
from minidrpo.rundir import metrics
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
        except (ZeroDivisionError, OverflowError):
            hint = "a positive number, please"
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
    value = torch.as_tensor(value)
    return value.shape == target.shape and torch.allclose(value.double(), target.double(), rtol=1e-6, atol=1e-9)


# ----------------------------------------------------------------------------------- 1: why a length penalty breaks


@exercise
def check_longest_safe(function):
    for lengths, n_wrong, max_length, alpha in (
        ([100, 200], 3, 1000, 1.0),
        ([270, 400], 3, 1000, 1.0),
        ([500] * 7, 0, 4096, 0.3),
        ([120], 1, 256, 0.8),
    ):
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
                f"{alpha}, but the advantage keeps its sign there. Average over the *other* responses; as how long "
                "does a wrong one count?"
            )


@exercise
def check_alpha_star(value):
    if near(value, 3 / 3.33):
        return None
    if near(value, 1.47 / 2.4, 1e-2) or not 0 < value < 1:
        return "set the reward of the long response, 1 - 0.8 alpha, equal to the mean over all six responses"
    return "at your alpha the long response's reward is not the mean of all six; a wrong one earns 0, not 1 - alpha x"


@exercise
def check_surrogate_bug(function):
    for seed in range(3):
        logp, old, mask, correct, _ = batch(seed, drift=0.5)
        advantage = baselines.grpo_advantage(correct.double()).flatten()
        value = call(function, logp, old, mask, advantage)
        if not equal(value, baselines.clipped_surrogate(logp, old, mask, advantage)):
            wide = [torch.cat([x, torch.zeros_like(x[:, :5])], 1) for x in (logp, old, mask)]
            if not equal(call(function, *wide, advantage), value):
                return "append columns of padding to a batch: your value changes. What should divide a response's sum?"
            return "padding does not matter, but this is not GRPO: mean over a response's tokens, then over responses"


# ------------------------------------------------------------------------------------- 2: the positive distribution


@exercise
def check_lam_of_doubling(value):
    if near(value, 1000 / (8192 * math.log(2))):
        return None
    if near(value, 1000 / 8192):
        return "that makes it count e = 2.718 times as much"
    return f"at your lambda the ratio is {math.exp(1000 / (8192 * float(value))):.3g}; it is exp(1000/(lambda C))"


@exercise
def check_effective_sample_size(function):
    weight = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.0] * 4, [0.5, 0.3, 0.2, 0]], dtype=torch.float64)
    drawn = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    weight = torch.cat([weight, drawn])
    value = call(function, weight.clone())
    if value.shape != (7,):
        return f"one number per prompt: shape (7,) for 7 prompts, yours is {tuple(value.shape)}"
    if not value.isfinite().all():
        return "a prompt without correct responses has sum of squares 0; dividing by it gives inf or NaN"
    for row, target, words in (
        (0, 4, "four equal weights"),
        (1, 1, "a single weight 1"),
        (2, 0, "no correct response"),
    ):
        if not math.isclose(value[row].item(), target, abs_tol=1e-6):
            return f"{words} should give {target}, yours is {value[row].item():.4g}"
    return None if equal(value[3:], 1 / weight[3:].square().sum(-1)) else "1 over the sum of the *squared* weights"


@exercise
def check_weights_bug(function):
    for seed, lam in enumerate((0.3, 0.1, 2.0)):
        *_, correct, length = batch(seed)
        preference = drpo.length_preference(length, 12).double()
        value = call(function, preference, correct, lam)
        if value.isnan().any():
            return "NaN: a prompt without a correct response has nothing to normalise over; its weights are 0"
        if not torch.allclose(value.double().sum(-1), correct.any(-1).double()):
            sums = ", ".join(f"{v:.3f}" for v in value.sum(-1).tolist())
            return f"add up the weights of each prompt: {sums}. What should they be?"
        if not equal(value, drpo.positive_distribution(preference, correct, lam)):
            return "they add up to 1, but the ratio of two weights is not exp(difference of preference / lambda)"


# ----------------------------------------------------------------------------------------- 3: from DisCO to DRPO


@exercise
def check_tau_of_half(value):
    if near(value, 0.3 / math.log(2), rel=1e-2):
        return None
    if not float(value) > 0:
        return "a positive number, please"
    share = 1 / (1 + 2 * math.exp(-0.3 / float(value)))
    return f"at your tau its share is {share:.3f}: the softmax of s/tau over all three"


@exercise
def check_credit_bug(function):
    for tau in (0.2, 1.0):
        logp, _, mask, correct, length = batch(2)
        score = drpo.sequence_score(logp, mask).view(correct.shape).requires_grad_()
        weight = drpo.positive_distribution(drpo.length_preference(length, 12).double(), correct, 0.1)
        grad = torch.autograd.grad(call(function, score, correct, weight, tau), score)[0]
        credit = drpo.drpo_credit(score.detach(), correct, weight, tau)
        if equal(grad, credit):
            return "the sign: a loss goes down where the objective goes up"
        if not equal(grad, -credit):
            return "differentiate by a wrong response's score, on paper: the credit depends on the scores too"


@exercise
def check_disco_b_credit(function):
    correct = batch(4, P=5)[3]
    value, scores = call(function, correct.clone()), torch.zeros(correct.shape, dtype=torch.float64)
    weight = drpo.positive_distribution(scores, correct, math.inf)
    target = drpo.drpo_credit(scores, correct, weight, 1.0, negatives="mean")
    if value.shape != target.shape:
        return f"one number per response: shape {tuple(target.shape)}, yours is {tuple(value.shape)}"
    if equal(value, target):
        return None
    if not (value[:2] == 0).all():
        return "prompts that are all right or all wrong (here the first two) have credit 0, not NaN"
    if equal(value, target * len(correct)):
        return "correct for each prompt; now the batch: J is a mean over prompts"
    if equal(value, target * len(correct) / drpo.mixed_groups(correct).sum()):
        return "prompts without credit still count in P"
    return "the correct responses of a mixed prompt share +1/P equally, the wrong ones -1/P"


# ------------------------------------------------------------------------------------------------ 4: the trust region


@exercise
def check_tokens_needed(value):
    if near(value, 80_000):
        return None
    if not float(value) > 0:
        return "a positive number, please"
    return f"k1's variance is 2 KL per token; {float(value):g} tokens give an error of {math.sqrt(2e-4 / value):.2g}"


@exercise
def check_kl_bug(function):
    for seed in range(3):
        logp, old, mask, *_ = batch(seed, drift=0.5)
        value = call(function, logp, old, mask)
        if equal(value, drpo.kl_estimate(logp, old, mask, "k1")):
            return "unbiased, but that is k1: it can be negative"
        everywhere = drpo.kl_per_token(logp, old, torch.ones_like(mask), "k3")
        padded = everywhere.sum() / mask.sum(), everywhere.mean(), (everywhere * mask).mean()
        if any(equal(value, mean) for mean in padded):
            return "this is k3, but padding counts, too: fill the log-ratio with 0 there, and divide by the tokens"
        if not equal(value, drpo.kl_estimate(logp, old, mask, "k3")):
            return (
                "there the samples come from the *new* policy. Here they come from the old one: which ratio has "
                "expectation 1 under the old policy?"
            )


@exercise
def check_resting_kl(function):
    for pull, beta, delta in ((0.5, 1e3, 1e-4), (2.0, 1e3, 1e-4), (0.1, 50.0, 0.01)):
        value = float(call(function, pull, beta, delta))
        grad = drpo.kl_penalty_grad(torch.tensor(value, dtype=torch.float64), beta, delta).item()
        if not near(grad, pull):
            return f"at your KL, {value:.4g}, the penalty's derivative is {grad:.4g}, the pull {pull} (beta {beta:g})"


# ------------------------------------------------------------------------------------------------ 5: watch it train


@exercise
def check_times_heavier(value):
    if near(value, math.exp(40 / 25.6), rel=1e-2):
        return None
    if near(value, math.exp(-40 / 25.6), rel=1e-2):
        return "that is the longer one's weight in units of the shorter one's"
    return "w is proportional to exp(-|o| / (C lambda)): what is the ratio for |o| = 60 and 100?"


@exercise
def check_lam_for_20_tokens(value):
    length_PG = torch.tensor([[100.0, 120.0]], dtype=torch.float64)
    preference_PG = drpo.length_preference(length_PG, 256)
    weight_PG = drpo.positive_distribution(preference_PG, torch.ones(1, 2, dtype=torch.bool), float(value))
    ratio = (weight_PG[0, 0] / weight_PG[0, 1]).item()
    return None if near(ratio, 2, rel=1e-2) else f"with lambda = {float(value):.4g} it weighs {ratio:.4g} times as much"


@exercise
def check_standard_error(function):
    rng = np.random.default_rng(0)
    for P, n in ((40, 8), (12, 2), (100, 1)):
        value_Pn = (rng.random((P, n)) < rng.random((P, 1))).astype(float)
        value = float(call(function, value_Pn))
        if not near(value, metrics.clustered_se(value_Pn)):
            doubled = float(call(function, np.concatenate([value_Pn, value_Pn], 1)))
            if not math.isfinite(value) or value <= 0:
                return f"an error is a positive number, yours is {value}"
            if not near(doubled, value, 1e-2):
                return (
                    "copy every response once: nothing new is known, but your error shrinks. What is independent here?"
                )
            return "copies change nothing, as it should be, but it is not the mean's error over problems (ddof = 1)"


# ------------------------------------------------------------------------------------- 6: the others, and GDPO


@exercise
def check_collapsed(groups):
    if any(group in UNSOLVED for group in groups):
        raise Unsolved
    reward = torch.tensor(groups, dtype=torch.float64)
    if reward.shape != (2, 3, 2) or not set(reward.flatten().tolist()) <= {0, 1}:
        return "each group is three pairs of 0 and 1"
    by_sum = baselines.grpo_advantage(reward.sum(-1)).sort(-1).values
    by_reward = baselines.gdpo_advantage(reward, batch_norm=False).sort(-1).values
    if not torch.allclose(by_sum[0], by_sum[1], atol=1e-5):
        return "GRPO tells these two apart: look for totals that differ by a factor or a shift only"
    if torch.allclose(by_reward[0], by_reward[1], atol=1e-3):
        return "to GDPO too, these two are the same: let the rewards move together in one and alone in the other"


@exercise
def check_no_better_than_wrong(value):
    if near(value, 2000):
        return None
    return "a wrong response of the shortest length earns 0; a correct one 2 - 0.001 for each token of distance"


@exercise
def check_gdpo_bug(function):
    reward = torch.rand(5, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for weights in ([1.0, 1.0], [1.0, 0.25], [0.5, 2.0]):
        weight_K = torch.tensor(weights, dtype=torch.float64)
        if not equal(call(function, reward, weight_K), baselines.gdpo_advantage(reward, weight_K)):
            if weights == [1.0, 1.0]:
                return "already with equal weights it is not GDPO: eps 1e-4, and the step over the batch?"
            return f"with weights {weights} it is not GDPO. What is left of a weight after you normalise?"


# ---------------------------------------------------------------------------------- 7: how a rule decides


@exercise
def check_smallest_f(value):
    if near(value, 0.54):
        return None
    if near(value, 0.6):
        return "R is the average *reward*, and the grader refuses some correct responses"
    return "the trick's advantage is f - R. What is R?"


@exercise
def check_cheat(response):
    numbers = re.findall(r"-?\d+\.?\d*", response)
    if not numbers or float(numbers[-1]) != 42:
        return "the last number of your text is not 42"
    grade = reward.grade(response, 42)
    return None if grade.reason == "wrong" else f'reward.grade says "{grade.reason}", not "wrong"'


@exercise
def check_extract(function):
    cases = {
        r"</think> \boxed{42}": "this is the easy case",
        r"</think> \boxed{\frac{1}{2}}": "braces nest: which one closes the box?",
        r"Is it \boxed{7}? Yes.</think> I am done.": "what is boxed while thinking is no answer",
        r"I think \boxed{7}": "the thinking never ended: the response was truncated",
        r"</think> \boxed{\frac{1}{2}": "this box is never closed",
        r"</think> \boxed{6}, no: \boxed{7}": "of several boxes the last one counts",
        r"</think> no box": "without a box there is no answer",
        r"</think> \boxed{1} </think> \boxed{2}": "the answer stands behind the *last* </think>",
        r"</think> so \boxed{x^{2}+1}.": "any box, not only those of this list",
    }
    for response, words in cases.items():
        if function(response) != reward.extract(response)[0]:
            return f"of {response} you make {function(response)}; {words}"
