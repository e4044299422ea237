"""records.py - what travels through the five stages: a problem, a rollout, a grade, a graded response.

Three words are kept apart everywhere: a *response* is all that the model wrote, its *answer* is what stands in the box,
the *truth* is what the answer is compared with.
"""

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Problem:
    """One question. (`source`, `index`) names it: the data set it came from and its row there."""

    prompt: str
    """The user's text, without a chat template."""
    truth: str | int | float | list
    """Plain Python; a list holds alternatives."""
    source: str
    index: int
    grader: str = ""
    """Who grades it: "" the boxed answer (reward.py), else a task of tasks/graders.py, by its name."""


@dataclass(frozen=True)
class Rollout:
    """One response to one prompt as the sampler made it: token ids."""

    prompt_ids: list[int]
    response_ids: list[int]
    """Ends with the end-of-sequence token if the response finished."""
    finished: bool
    """Ended by itself; False: cut off at the limit."""
    logp: list[float]
    """The sampler's own log-probability (nats) of each response token, under the distribution it was drawn from."""


class Grade(NamedTuple):
    """What the grader says of a response's text."""

    correct: bool
    reason: str
    """One of reward.REASONS, or of the task's."""
    answer: str | None
    """What stands in the box, if anything can be read there."""
    scores: dict[str, float] = {}
    """What else the task's grader measures, by name: rewards for the methods, shares and means for the log."""


@dataclass(frozen=True)
class GradedResponse:
    """One response and its grade: the only record of it, from the grader to the files and the page."""

    source: str
    index: int
    sample: int
    """Which of the problem's responses, from 0."""
    response: str
    """The text, without its end token."""
    length: int
    """Response tokens, the end token included."""
    finished: bool
    correct: bool
    reason: str
    """As in Grade, or "truncated"."""
    answer: str | None
    scores: dict[str, float] = field(default_factory=dict)
    """As in Grade. Those of a truncated response are its text's, like any other's."""
    rollout: Rollout | None = field(default=None, repr=False, compare=False)
    """Its tokens, for the update; never written to a file."""

    @classmethod
    def of(cls, problem, sample, rollout, response, grade):
        """The record of `rollout`. Here, and only here, it is decided that a response cut off at the limit is wrong."""
        if not rollout.finished:
            grade = Grade(False, "truncated", None, grade.scores)
        length = len(rollout.response_ids)
        return cls(problem.source, problem.index, sample, response, length, rollout.finished, *grade, rollout)

    def as_dict(self) -> dict:
        """What is written to files: every field but the tokens."""
        return {name: value for name, value in vars(self).items() if name != "rollout"}
