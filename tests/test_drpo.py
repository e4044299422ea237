"""The objective against independent oracles: published numbers, slow loops, a generic optimiser, autograd, limits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import drpo

close = torch.testing.assert_close
F64 = torch.float64


def random_batch(seed, P=5, G=6, T=9, dtype=F64):
    """Token log-probabilities of answers of 1..T tokens; groups all right, all wrong and mixed."""
    g = torch.Generator().manual_seed(seed)
    old = -torch.rand(P * G, T, generator=g, dtype=dtype) * 3
    new = old + 0.3 * torch.randn(P * G, T, generator=g, dtype=dtype)
    length_N = torch.randint(1, T + 1, (P * G,), generator=g)
    mask = torch.arange(T) < length_N[:, None]
    correct = torch.rand(P, G, generator=g) < 0.5
    correct[0], correct[1], correct[2, 0], correct[2, 1] = True, False, True, False
    return new, old, mask, correct, drpo.length_preference(length_N.view(P, G).to(dtype), T)


# ------------------------------------------------------------------------------------------- preference and weights


def test_preference_shapes():
    lengths = torch.tensor([[0, 2048, 4096, 8192]])
    close(drpo.length_preference(lengths, 8192), torch.tensor([[1.0, 0.75, 0.5, 0.0]]))
    close(drpo.length_preference(lengths, 8192, "concave"), torch.tensor([[1.0, 0.9375, 0.75, 0.0]]))
    close(drpo.length_preference(lengths, 8192, "cosine"), torch.tensor([[1.0, 0.5 + math.sqrt(2) / 4, 0.5, 0.0]]))
    with pytest.raises(ValueError, match="unknown preference shape 'cubic'"):
        drpo.length_preference(lengths, 8192, "cubic")
    for limit in (0, math.nan):
        with pytest.raises(ValueError, match=f"max_length must be positive, got {limit}"):
            drpo.length_preference(lengths, limit)


@pytest.mark.parametrize(
    "lam, expected",
    [(0.1, [0.7572, 0.2234, 0.0194]), (0.2, [0.5871, 0.3189, 0.0941]), (0.5, [0.4417, 0.3460, 0.2123])],
)
def test_weights_of_the_official_setting(lam, expected):
    """Lengths 1000/2000/4000 at C = 8192, beside a wrong answer that must get nothing."""
    preference = drpo.length_preference(torch.tensor([[1000, 2000, 4000, 10]], dtype=F64), 8192)
    weight = drpo.positive_distribution(preference, torch.tensor([[True, True, True, False]]), lam)
    close(weight, torch.tensor([[*expected, 0.0]], dtype=F64), atol=5e-5, rtol=0)


@pytest.mark.parametrize("lam, ratio", [(0.1, 3.39), (0.2, 1.84), (0.5, 1.28)])
def test_what_lambda_means_in_tokens(lam, ratio):
    """1,000 tokens fewer weigh exp(1000 / (C lambda)) times as much."""
    weight = drpo.positive_distribution(
        drpo.length_preference(torch.tensor([[3000, 4000]], dtype=F64), 8192), torch.ones(1, 2, dtype=torch.bool), lam
    )
    assert (weight[0, 0] / weight[0, 1]).item() == pytest.approx(ratio, abs=5e-3)


def test_closed_form_beats_a_generic_optimiser():
    """The weights maximise E_w[r] - lam KL(w || uniform), found here without knowing the formula."""
    r, lam = torch.tensor([0.9, 0.5, 0.1, 0.3], dtype=F64), 0.3
    z = torch.zeros(4, dtype=F64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=300, tolerance_change=0, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        p = z.softmax(-1)
        loss = -(p @ r) + lam * (p * (4 * p).log()).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    weight = drpo.positive_distribution(r[None], torch.ones(1, 4, dtype=torch.bool), lam)[0]
    close(z.softmax(-1).detach(), weight, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("lam", [1e-6, 1e-3, 0.011, 1.0, 1e30, math.inf])
def test_weights_never_overflow(lam, dtype):
    """The official code's exp((1 - ratio)/lambda) is inf in float32 below lambda = 0.0113."""
    preference = torch.tensor([[1.0, 0.9, 0.9, 0.1], [0.2, 0.3, 0.4, 0.5]], dtype=dtype)
    correct = torch.tensor([[True, True, True, False], [False] * 4])
    weight = drpo.positive_distribution(preference, correct, lam)
    assert torch.isfinite(weight).all() and (weight >= 0).all()
    close(weight.sum(-1), torch.tensor([1.0, 0.0], dtype=dtype))
    if lam == math.inf:
        close(weight[0], torch.tensor([1 / 3, 1 / 3, 1 / 3, 0], dtype=dtype))  # DisCO
    if lam <= 1e-3:
        close(weight[0], torch.tensor([1.0, 0, 0, 0], dtype=dtype))  # only the shortest


def test_only_differences_of_preference_matter():
    """Any preference may be plugged in, of any size; adding a constant changes nothing, and nothing overflows."""
    correct = torch.ones(1, 3, dtype=torch.bool)
    small, large = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1000.0, 1001.0, 1002.0]])
    for lam in (1e-6, 0.5, 10.0):
        weight = drpo.positive_distribution(large, correct, lam)
        close(weight, drpo.positive_distribution(small, correct, lam))
        assert weight.argmax() == 2


@pytest.mark.parametrize("lam", [0.0, -1.0, math.nan, 1e-7])
def test_lambda_must_be_positive(lam):
    with pytest.raises(ValueError, match="lambda must be at least 1e-06"):
        drpo.positive_distribution(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool), lam)


# -------------------------------------------------------------------------------------------- scores, value, credit


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, 1e-7])
def test_tau_must_be_one_that_rounding_allows(tau):
    groups = torch.zeros(1, 2), torch.tensor([[True, False]]), torch.tensor([[1.0, 0.0]])
    for function in (drpo.drpo_objective, drpo.drpo_credit):
        with pytest.raises(ValueError, match="tau must be at least 1e-06"):
            function(*groups, tau)


def test_scores_by_hand():
    logp = torch.tensor([[-1.0, -3.0, -torch.inf], [-2.0, -torch.inf, -5.0]])  # padding may hold anything
    old = torch.tensor([[-1.0, -2.0, 7.0], [-1.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    close(drpo.sequence_score(logp, mask), torch.tensor([-2.0, -2.0]))
    close(
        drpo.sequence_score(logp, mask, old, "likelihood_ratio"),
        torch.tensor([(1 + math.exp(-1)) / 2, math.exp(-1)]),
    )


def test_an_answer_without_tokens_has_no_score():
    mask = torch.tensor([[True, True, False], [False, False, False]])  # one of several is enough
    with pytest.raises(AssertionError, match="without tokens"):
        drpo.sequence_score(torch.zeros(2, 3), mask)


def slow_objective(score, correct, weight, tau):
    """Eq. 7 as nested Python loops over mixed prompts, with log-mean-exp in double precision."""
    total = 0.0
    for s, c, w in zip(score.tolist(), correct.tolist(), weight.tolist(), strict=True):
        wrong = [x for x, right in zip(s, c, strict=True) if not right]
        if wrong and any(c):
            pull = sum(wi * x for wi, x in zip(w, s, strict=True))
            total += pull - tau * math.log(sum(math.exp(x / tau) for x in wrong) / len(wrong))
    return total / len(score)


@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
def test_objective_equals_slow_loops(tau):
    new, _, mask, correct, preference = random_batch(1)
    weight = drpo.positive_distribution(preference, correct, 0.2)
    score = drpo.sequence_score(new, mask).view(correct.shape)
    close(drpo.drpo_objective(score, correct, weight, tau).item(), slow_objective(score, correct, weight, tau))


@pytest.mark.parametrize("negatives", ["dro", "mean"])
@pytest.mark.parametrize("tau", [0.05, 1.0, 10.0])
def test_credit_is_the_gradient_of_the_objective(tau, negatives):
    for seed in range(5):
        new, _, mask, correct, preference = random_batch(seed)
        weight = drpo.positive_distribution(preference, correct, 0.1)
        score = drpo.sequence_score(new, mask).view(correct.shape).requires_grad_()
        J = drpo.drpo_objective(score, correct, weight, tau, negatives)
        credit = drpo.drpo_credit(score.detach(), correct, weight, tau, negatives)
        close(torch.autograd.grad(J, score)[0], credit, rtol=1e-12, atol=1e-15)


def test_credit_balances_in_each_group():
    """A mixed prompt pulls as much as it pushes, 1/P each; the others do nothing."""
    new, _, mask, correct, preference = random_batch(3)
    score = drpo.sequence_score(new, mask).view(correct.shape)
    credit = drpo.drpo_credit(score, correct, drpo.positive_distribution(preference, correct, 0.1), 1.0)
    mixed = drpo.mixed_groups(correct)
    assert not mixed[0] and not mixed[1] and mixed[2]
    close(credit.clamp(min=0).sum(-1), mixed.double() / len(correct))
    close(credit.clamp(max=0).sum(-1), -mixed.double() / len(correct))
    assert (credit[:2] == 0).all()


def test_official_negative_weights_at_tau_10():
    """At the shipped tau the push is almost uniform (published example for four wrong answers)."""
    score = torch.tensor([[-0.4, -0.50, -0.42, -0.36, -0.32]], dtype=F64)
    correct = torch.tensor([[True, False, False, False, False]])
    push = -drpo.drpo_credit(score, correct, correct.double(), 10.0)[0, 1:]
    assert push.sum().item() == pytest.approx(1)
    assert 0.247 < push.min() and push.max() < 0.2525 and push.argmax() == 3


def test_equal_scores_gain_nothing():
    _, _, _, correct, preference = random_batch(4)
    weight = drpo.positive_distribution(preference, correct, 0.1)
    for negatives in ("dro", "mean"):
        J = drpo.drpo_objective(torch.full_like(preference, -0.7), correct, weight, 2.0, negatives)
        assert abs(J.item()) < 1e-12


def test_large_tau_is_the_mean_and_small_tau_the_worst():
    new, _, mask, correct, preference = random_batch(5)
    score = drpo.sequence_score(new, mask).view(correct.shape)
    weight = drpo.positive_distribution(preference, correct, 0.1)
    args = (score, correct, weight)
    close(drpo.drpo_credit(*args, 1e9), drpo.drpo_credit(*args, 1.0, "mean"))
    close(drpo.drpo_objective(*args, 1e5), drpo.drpo_objective(*args, 1.0, "mean"), rtol=0, atol=1e-4)
    worst = score[2].masked_fill(correct[2], -torch.inf).argmax()
    assert drpo.drpo_credit(*args, 1e-4)[2, worst].item() == pytest.approx(-1 / len(correct))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 6), st.integers(2, 9), st.floats(1e-6, 1e6), st.floats(1e-3, 1e3),
    st.floats(0, 1), st.floats(0, 50),
)  # fmt: skip
def test_the_credit_of_a_correct_response_is_never_negative(seed, P, G, lam, tau, rate, spread):
    """The paper's point, for random grades, scores and lengths."""
    g = torch.Generator().manual_seed(seed)
    correct = torch.rand(P, G, generator=g) < rate
    weight = drpo.positive_distribution(torch.rand(P, G, generator=g), correct, lam)
    credit = drpo.drpo_credit(-spread * torch.rand(P, G, generator=g), correct, weight, tau)
    assert torch.isfinite(credit).all()
    assert (credit[correct] >= 0).all() and (credit[~correct] <= 0).all()


# ----------------------------------------------------------------------------------------------------- trust region


def test_kl_estimators_by_hand_and_on_padding():
    old, new = torch.tensor([[-1.0, -2.0, 9.0]], dtype=F64), torch.tensor([[-1.5, -1.0, -torch.inf]], dtype=F64)
    mask = torch.tensor([[True, True, False]])
    assert drpo.kl_estimate(new, old, mask).item() == pytest.approx((0.5 - 1.0) / 2)
    k3 = (math.exp(-0.5) - 1 + 0.5 + math.exp(1.0) - 1 - 1.0) / 2
    assert drpo.kl_estimate(new, old, mask, "k3").item() == pytest.approx(k3)


def test_kl_estimators_are_unbiased_in_value_and_gradient():
    """Exact expectations over a small categorical: both equal KL(old || new) and its gradient."""
    old = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=F64)
    logits = torch.tensor([0.2, -0.4, 0.1, 0.6], dtype=F64, requires_grad=True)
    exact = (old * (old.log() - logits.log_softmax(-1))).sum()
    exact_gradient = torch.autograd.grad(exact, logits)[0]
    for estimator in ("k1", "k3"):
        logp = logits.log_softmax(-1)[:, None]
        value = drpo.kl_per_token(logp, old.log()[:, None], torch.ones(4, 1, dtype=torch.bool), estimator)[:, 0]
        expectation = (old * value).sum()  # samples come from old
        close(expectation, exact)
        close(torch.autograd.grad(expectation, logits)[0], exact_gradient)


@pytest.mark.parametrize("kl, expected", [(-1.0, 0.0), (1e-4, 0.0), (3e-4, 2e-5)])
def test_hinge(kl, expected):
    """0.5 * 1000 * (2e-4)^2 = 2e-5; inside the region it costs nothing."""
    assert drpo.trust_region_penalty(torch.tensor(kl, dtype=F64), 1e3, 1e-4).item() == pytest.approx(expected)


def test_hinge_gradient_is_the_official_codes():
    """The code's penalty, detach(beta [KL - delta]_+) * KL, has the gradient of (beta/2) [.]^2, not of beta [.]^2."""
    kl = torch.tensor(5e-3, dtype=F64, requires_grad=True)
    official = torch.autograd.grad((1e3 * (kl - 1e-4)).clamp(min=0).detach() * kl, kl)[0]
    ours = torch.autograd.grad(drpo.trust_region_penalty(kl, 1e3, 1e-4), kl)[0]
    close(ours, official)
    close(drpo.kl_penalty_grad(kl.detach(), 1e3, 1e-4), official)


# --------------------------------------------------------------------------------------------------- the whole loss

SETTINGS = {"lam": 0.1, "tau": 1.0, "beta": 1e3, "delta": 1e-4}


@pytest.mark.parametrize("score", ["log_likelihood", "likelihood_ratio"])
@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_loss_is_minus_objective_plus_penalty(score, estimator):
    new, old, mask, correct, preference = random_batch(7)
    loss, metrics = drpo.drpo_loss(new, old, mask, correct, preference, **SETTINGS, score=score, kl_estimator=estimator)
    s = drpo.sequence_score(new, mask, old, score).view(correct.shape)
    J = slow_objective(s, correct, drpo.positive_distribution(preference, correct, 0.1), 1.0)
    kl = drpo.kl_estimate(new, old, mask, estimator).item()
    assert loss.item() == pytest.approx(-J + 500 * max(kl - 1e-4, 0) ** 2)
    assert metrics["objective"] == pytest.approx(J) and metrics["kl"] == pytest.approx(kl)


@pytest.mark.parametrize("score", ["log_likelihood", "likelihood_ratio"])
def test_loss_gradient_by_finite_differences(score):
    new, old, mask, correct, preference = random_batch(8, P=3, G=4, T=3)

    def loss(logp):
        return drpo.drpo_loss(logp, old, mask, correct, preference, **SETTINGS, score=score, kl_estimator="k3")[0]

    assert torch.autograd.gradcheck(loss, new.requires_grad_(), eps=1e-7, atol=1e-5)


def test_stepping_down_the_loss_raises_correct_and_lowers_wrong():
    new, old, mask, correct, preference = random_batch(9)
    new = new.requires_grad_()
    loss, _ = drpo.drpo_loss(new, old, mask, correct, preference, lam=0.1, tau=1.0, beta=0.0, delta=0.0)
    step = -torch.autograd.grad(loss, new)[0].sum(-1).view(correct.shape)
    mixed = drpo.mixed_groups(correct)[:, None]
    assert (step[correct & mixed] > 0).all() and (step[~correct & mixed] < 0).all()


def test_lambda_infinity_is_disco():
    """DisCO by its own definition: mean of positives minus tau log-mean-exp of negatives, written out here."""
    new, old, mask, correct, preference = random_batch(10)
    loss, _ = drpo.drpo_loss(new, old, mask, correct, preference, lam=math.inf, tau=2.0, beta=0.0, delta=0.0)
    s = drpo.sequence_score(new, mask).view(correct.shape)
    total = 0.0
    for row, c in zip(s, correct, strict=True):
        if c.any() and not c.all():
            total += (row[c].mean() - 2.0 * torch.log(torch.exp(row[~c] / 2.0).mean())).item()
    assert loss.item() == pytest.approx(-total / len(s))


def test_padding_does_not_matter():
    new, old, mask, correct, preference = random_batch(11)
    pad = torch.full((len(new), 4), -torch.inf, dtype=F64)
    wide = [torch.cat([x, filler], 1) for x, filler in ((new, pad), (old, pad), (mask, pad > 0))]
    narrow_loss, _ = drpo.drpo_loss(new, old, mask, correct, preference, **SETTINGS)
    wide_loss, _ = drpo.drpo_loss(*wide, correct, preference, **SETTINGS)
    close(wide_loss, narrow_loss)


def test_no_mixed_group_gives_zero_loss_and_zero_gradient():
    new, old, mask, _, preference = random_batch(12)
    correct = torch.zeros_like(preference, dtype=torch.bool)
    correct[::2] = True
    logp = old.clone().requires_grad_()
    loss, metrics = drpo.drpo_loss(logp, old, mask, correct, preference, **SETTINGS)
    assert loss.item() == 0 and metrics["mixed_groups"] == 0
    assert (torch.autograd.grad(loss, logp)[0] == 0).all()


@pytest.mark.parametrize("change", [{"beta": -1}, {"beta": math.inf}, {"delta": -1e-9}, {"delta": math.nan}])
def test_a_trust_region_that_is_none_is_refused(change):
    """A negative beta would reward leaving it; nan made the loss nan without a word."""
    batch = random_batch(14)
    assert drpo.drpo_loss(*batch, **SETTINGS | {"delta": math.inf})[1]["penalty"] == 0
    for wrong in (change, dict.fromkeys(change, math.nan)):
        with pytest.raises(ValueError, match="beta and delta must be 0 or more"):
            drpo.drpo_loss(*batch, **SETTINGS | wrong)


def test_other_types_at_the_door():
    """Float masks (the usual convention), 0/1 grades, integer preferences, tau = infinity: the same values."""
    new, old, mask, correct, preference = random_batch(13)
    settings = {"lam": 0.1, "tau": 1.0, "beta": 1e3, "delta": 1e-4}
    expected, _ = drpo.drpo_loss(new, old, mask, correct, preference, **settings)
    loss, _ = drpo.drpo_loss(new, old, mask.double(), correct.int(), preference, **settings)
    close(loss, expected)
    weight = drpo.positive_distribution(torch.tensor([[-10, -20]]), torch.tensor([[1, 1]]), 10.0)
    close(weight, torch.tensor([[10.0, 0.0]]).div(10).softmax(-1))
    score = drpo.sequence_score(new, mask).view(correct.shape)
    args = (score, correct, drpo.positive_distribution(preference, correct, 0.1))
    for function in (drpo.drpo_objective, drpo.drpo_credit):
        close(function(*args, math.inf), function(*args, 1.0, "mean"))
