"""Checks of lesson 7, how a rule decides."""

import functools
import math
import re

import torch

import reward
import worlds
from exercises import Unsolved, call, equal, exercise, number, unsolved


@exercise(
    "7a", hints=["the trick's advantage is f - R", "R is the average *reward*: the grader refuses some correct ones"]
)
def smallest_f(value):
    return number(
        value,
        0.56,
        "the trick's advantage is its chance to pass minus the average reward",
        misses=[(0.7, "that is the share of right responses; the grader does not accept all of them")],
    )


@exercise(
    "7b",
    hints=["the grader reads the box, a lazy rule the last number", "box a wrong number, and end the text with 42"],
)
def cheat(response):
    numbers = re.findall(r"-?\d+\.?\d*", response)
    grade = reward.grade(response, 42)
    if not numbers or float(numbers[-1]) != 42:
        good = "the grader calls it wrong, as it should, but " if grade.reason == "wrong" else ""
        return f"{good}the last number of your text is not 42"
    if grade.reason != "wrong":
        return f'the last number is 42, but reward.grade says "{grade.reason}", not "wrong"'


@exercise(
    "7c",
    hints=[
        "try nested braces; a box while thinking; a response that was cut off before it stopped thinking",
        "`reward.last_boxed` finds the last box with balanced braces; which part of the response may it see?",
    ],
)
def extract(function):
    cases = (
        r"</think> \boxed{42}",
        r"</think> \boxed{\frac{1}{2}}",
        r"Is it \boxed{7}? Yes.</think> I am done.",
        r"I think \boxed{7}",
        r"</think> \boxed{\frac{1}{2}",
        r"</think> \boxed{6}, no: \boxed{7}",
        r"</think> no box",
        r"</think> \boxed{1} </think> \boxed{2}",
        r"</think> so \boxed{x^{2}+1}.",
    )
    made = [function(response) for response in cases]
    if all(unsolved(answer) for answer in made):
        raise Unsolved
    for response, answer in zip(cases, made, strict=True):
        if answer != reward.extract(response)[0]:
            right = sum(a == reward.extract(r)[0] for a, r in zip(made, cases, strict=True))
            return f"{right} of {len(cases)} are right. Of {response} you make {answer}"


@exercise(
    "7d",
    hints=[
        "the plain gradient of the expected reward by a logit is pi_i (r_i - R), R the expected reward",
        "log pi_i = z_i - log sum exp z, so its change is dz_i minus the mean of dz under pi",
    ],
)
def share_change(function):
    for pi, r in (([0.6, 0.39, 0.01], [0.9, 0.0, 1.0]), ([0.2, 0.5, 0.2, 0.1], [0.3, 0.1, 0.0, 1.0])):
        pi, r = (torch.tensor(x, dtype=torch.float64) for x in (pi, r))
        advantage = r - pi @ r
        logit = pi * advantage
        value = call(function, pi, r, shape=pi.shape)
        if equal(value, logit - pi @ logit):
            continue
        if equal(value, logit):
            return "the logits' changes are right; the shares must add up to 1, so there is more to say about a share"
        if equal(value, advantage):
            return "that is the change under the natural gradient; the plain one weighs each kind with its share"
        if equal(value, pi * (logit - pi @ logit)):
            return "right for the shares themselves; asked for is the change of their logarithms"
        return f"for pi = {pi.tolist()} and r = {r.tolist()} it is not what a small step of ascent gives"


@functools.cache
def takes_over(lam):
    """Per seed, the step at which the trick of 7e has more than half; 501 where it never has."""
    return worlds.first_step_above(worlds.trick_shares(f=0.6, lam=lam, steps=500)[..., 2]).tolist()


@exercise(
    "7e",
    hints=[
        "the trick gains where f is above f*; read f* off the right picture, at each of the four lambda",
        "f is 0.6, and f* rises with lambda, to 0.7; at 0.2 it is 0.41",
    ],
)
def smallest_lam(value):
    lams = (0.1, 0.2, 1.0, math.inf)
    if isinstance(value, str) or callable(value) or float(value) not in lams:
        return "one of 0.1, 0.2, 1 and infinity (math.inf), please"
    first = {lam: takes_over(lam) for lam in (0.2, 1.0)}
    ran = ", ".join(str(step) for step in first[0.2])
    stays = sum(step > 500 for step in first[1.0])
    if value < 1:
        return f"the run says otherwise: at lambda = 0.2 the trick has more than half at step {ran} (five seeds)"
    if value > 1:
        return (
            f"true of infinity, but not the smallest: the run at lambda = 1 keeps the trick rare in {stays} of 5 seeds"
        )
    return None if stays == 5 else "this machine's run contradicts the lesson: tell your teacher"
