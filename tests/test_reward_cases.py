"""The table of tests/reward_cases.py, and two rules that hold for every row of it."""

import pytest
from reward_cases import DIFFERENT, SAME

import reward

PATIENT = 60  # seconds for sympy: the limit itself is tested elsewhere, and machines are busy


@pytest.mark.parametrize("kind", SAME)
def test_same(kind):
    refused = [
        (truth, answer)
        for truth, *answers in SAME[kind]
        for answer in answers
        if not reward.same_answer(answer, truth, time_limit=PATIENT)
    ]
    assert refused == []


@pytest.mark.parametrize("kind", DIFFERENT)
def test_different(kind):
    accepted = [
        (truth, answer)
        for truth, *answers in DIFFERENT[kind]
        for answer in answers
        if reward.same_answer(answer, truth)
    ]
    assert accepted == []


@pytest.mark.parametrize("table", [SAME, DIFFERENT])
def test_every_truth_equals_itself_in_a_box(table):
    truths = [row[0] for rows in table.values() for row in rows]
    responses = [rf"<think>so \boxed{{0}}</think> It is \boxed{{{truth}}}." for truth in truths]
    assert [grade.answer for grade in reward.grade_all(responses, truths) if not grade.correct] == []


@pytest.mark.parametrize("kind", sorted(set(DIFFERENT) - {"units", "thousands", "text", "numbers", "lists"}))
def test_different_is_symmetric(kind):
    """A wrong answer as truth makes the truth a wrong answer; truths alone are trusted with words and name lists."""
    accepted = [
        (truth, answer)
        for truth, *answers in DIFFERENT[kind]
        for answer in answers
        if answer and reward.same_answer(truth, answer)
    ]
    assert accepted == []
