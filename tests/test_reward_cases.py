"""The table of tests/reward_cases.py, and two rules that hold for every row of it."""

import pytest
from reward_cases import DIFFERENT, SAME

import reward

PATIENT = 60  # seconds for sympy: the limit itself is tested elsewhere, and machines are busy


@pytest.mark.parametrize("kind", SAME)
def test_same(kind):
    refused = [(gold, answer) for gold, *answers in SAME[kind] for answer in answers
               if not reward.same_answer(answer, gold, time_limit=PATIENT)]  # fmt: skip
    assert refused == []


@pytest.mark.parametrize("kind", DIFFERENT)
def test_different(kind):
    accepted = [(gold, answer) for gold, *answers in DIFFERENT[kind] for answer in answers
                if reward.same_answer(answer, gold)]  # fmt: skip
    assert accepted == []


@pytest.mark.parametrize("table", [SAME, DIFFERENT])
def test_every_gold_equals_itself_in_a_box(table):
    golds = [row[0] for rows in table.values() for row in rows]
    responses = [rf"<think>so \boxed{{0}}</think> It is \boxed{{{gold}}}." for gold in golds]
    assert [grade.answer for grade in reward.grade_all(responses, golds) if not grade.correct] == []


@pytest.mark.parametrize("kind", sorted(set(DIFFERENT) - {"units", "thousands", "text", "numbers", "lists"}))
def test_different_is_symmetric(kind):
    """A wrong answer as gold makes the gold a wrong answer; golds alone are trusted with words and name lists."""
    accepted = [(gold, answer) for gold, *answers in DIFFERENT[kind] for answer in answers
                if answer and reward.same_answer(gold, answer)]  # fmt: skip
    assert accepted == []
