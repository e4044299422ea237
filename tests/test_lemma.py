"""The accuracy lemma of experiments/lemma.py: its lines, the statement, counterexamples for others, where it ends."""

import pytest
import torch

import drpo
from experiments import lemma

GROUPS = {"drpo": ("drpo", 0.1), "drpo at 1": ("drpo", 1.0), "grpo": ("grpo-lp", 0.0), "grpo-lp": ("grpo-lp", 1.0)}


def accuracy(pi_BK, right_BK):
    return (pi_BK * right_BK).sum(-1)


def falls(pi_BK, right_BK, gradient_BK, size, natural=False):
    """(B,) bool: the accuracy falls by more than rounding."""
    after_BK = lemma.step(pi_BK, gradient_BK, size, natural)
    return accuracy(after_BK, right_BK) < accuracy(pi_BK, right_BK) - 1e-12


@pytest.mark.parametrize("lam", [0.01, 0.1, 1.0, torch.inf])
@pytest.mark.parametrize("negatives", ["dro", "mean"])
def test_credits_of_a_mixed_group_sum_to_zero_and_have_the_labels_sign(lam, negatives):
    g = torch.Generator().manual_seed(0)
    score_PG, length_PG = -torch.rand(2, 500, 8, generator=g, dtype=torch.float64)
    right_PG = torch.rand(500, 8, generator=g) < torch.rand(500, 1, generator=g)
    weight_PG = drpo.positive_distribution(1 + length_PG, right_PG, lam)
    credit_PG = drpo.drpo_credit(score_PG, right_PG, weight_PG, 0.2, negatives)
    assert (credit_PG[right_PG] >= 0).all() and (credit_PG[~right_PG] <= 0).all()
    assert credit_PG.sum(-1).abs().max() < 1e-15


def test_the_logit_gradient_is_that_of_the_objective():
    pi_BK, right_BK, length_BK = lemma.random_policies(50)
    response_BG = torch.multinomial(pi_BK, 8, replacement=True, generator=torch.Generator().manual_seed(1))
    right_BG, length_BG = right_BK.gather(1, response_BG), length_BK.gather(1, response_BG)
    z_BK = pi_BK.log().requires_grad_()
    score_BG = z_BK.log_softmax(-1).gather(1, response_BG)
    weight_BG = drpo.positive_distribution(1 - length_BG, right_BG, 0.1)
    objective = drpo.drpo_objective(score_BG, right_BG, weight_BG, tau=10.0) * 50
    credit_BG = lemma.group_credit("drpo", right_BG, length_BG, score_BG.detach(), 0.1)
    gradient_BK = lemma.logit_gradient(pi_BK, response_BG, credit_BG)
    torch.testing.assert_close(torch.autograd.grad(objective, z_BK)[0], gradient_BK)


@pytest.mark.parametrize("natural", [False, True])
def test_no_step_of_drpo_lowers_the_accuracy_whatever_its_size(natural):
    for name in ("drpo", "drpo at 1", "grpo"):  # GRPO without a penalty has advantages of the same signs
        pi_BK, right_BK, gradient_BK, _ = lemma.sampled(*GROUPS[name], B=2000)
        assert (lemma.accuracy_change(pi_BK, right_BK, gradient_BK, natural) >= -1e-12).all()
        for size in (1e-3, 1.0, 1e3):
            assert not falls(pi_BK, right_BK, gradient_BK, size, natural).any(), (name, size)


def test_yet_a_single_right_response_may_become_rarer():
    pi_BK, right_BK, gradient_BK, _ = lemma.sampled(*GROUPS["drpo"], B=2000)
    rarer_BK = (lemma.step(pi_BK, gradient_BK, 1e-3) < pi_BK - 1e-12) & right_BK
    assert 0.2 < rarer_BK.any(-1).double().mean() < 0.6


def test_a_length_penalty_in_grpo_has_counterexamples():
    """Most in groups that are all right, where alpha does not matter; with the natural gradient none at alpha <= 1."""
    share = {}
    for alpha in (0.01, 1.0):
        pi_BK, right_BK, gradient_BK, right_BG = lemma.sampled("grpo-lp", alpha)
        change_B = lemma.accuracy_change(pi_BK, right_BK, gradient_BK)
        assert torch.equal(falls(pi_BK, right_BK, gradient_BK, 1e-4), change_B * 1e-4 < -1e-12)
        mixed_B, solved_B = drpo.mixed_groups(right_BG), right_BG.all(-1)
        share[alpha] = [(change_B[rows] < -1e-9).double().mean().item() for rows in (mixed_B, solved_B)]
        assert (lemma.accuracy_change(pi_BK, right_BK, gradient_BK, natural=True) > -1e-9).all()
    assert share[0.01][0] < 1e-3 and 0.005 < share[1.0][0] < 0.02  # mixed groups: 0 and 0.9 %
    assert all(0.44 < solved < 0.51 for _, solved in share.values())  # 47.6 % at either alpha


def test_also_the_expected_gradient_of_a_penalised_reward_may_lower_the_accuracy():
    """No sampling and no std: 2.4 % of the policies at alpha 1, none without a penalty."""
    pi_BK, right_BK, length_BK = lemma.random_policies(20_000)
    share = []
    for alpha in (0.0, 0.1, 1.0):
        gradient_BK = lemma.reward_gradient(pi_BK, right_BK, length_BK, alpha)
        share.append((lemma.accuracy_change(pi_BK, right_BK, gradient_BK) < -1e-12).double().mean().item())
    assert share[0] == 0 < share[1] < 0.005 < share[2] and abs(share[2] - 0.024) < 0.005, share
    z_BK = pi_BK.log().requires_grad_()
    expected = (z_BK.softmax(-1) * right_BK * (1 - length_BK)).sum()
    torch.testing.assert_close(torch.autograd.grad(expected, z_BK)[0], gradient_BK)


def test_where_the_lemma_ends():
    ends = lemma.ends()
    gains = ends.pop("shared parameter, a likely sample, a small step")
    assert gains[1] > gains[0]  # so the large step and the rare sample are to blame for the next two
    assert len(ends) == 4 and all(after < before - 1e-3 for before, after in ends.values())


def test_a_score_per_token_loses_the_lemma_for_the_plain_gradient_and_keeps_it_for_the_natural_one():
    pi_BK, right_BK, gradient_BK, _ = lemma.sampled("drpo", 0.1, per_token=True)
    assert 0.003 < falls(pi_BK, right_BK, gradient_BK, 1e-3).double().mean() < 0.02
    assert not falls(pi_BK, right_BK, gradient_BK, 1e-3, natural=True).any()
