"""Checks of lesson 7, how a rule decides."""

import re

import reward
from exercises import Unsolved, exercise, number, unsolved


@exercise(
    "7a", hints=["the trick's advantage is f - R", "R is the average *reward*: the grader refuses some correct ones"]
)
def smallest_f(value):
    return number(
        value,
        0.54,
        "the trick's advantage is its chance to pass minus the average reward",
        misses=[(0.6, "that is the share of right responses; the grader does not accept all of them")],
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
