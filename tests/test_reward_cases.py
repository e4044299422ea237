"""The table of tests/reward_cases.py, line by line."""

import pytest
from reward_cases import different, same

import reward


@pytest.mark.parametrize("kind, gold, pred", same)
def test_same(kind, gold, pred):
    assert reward.same_answer(pred, gold, time_limit=30)  # the limit is tested elsewhere, and machines are busy


@pytest.mark.parametrize("kind, gold, pred", different)
def test_different(kind, gold, pred):
    assert not reward.same_answer(pred, gold)


@pytest.mark.parametrize("gold", sorted({gold for _, gold, _ in same + different}))
def test_every_gold_equals_itself(gold):
    assert reward.same_answer(gold, gold)
    assert reward.grade(rf"<think>hm</think> So it is \boxed{{{gold}}}.", gold).correct
