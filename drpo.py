r"""drpo.py - the DRPO objective as pure functions of tensors: preference, positive distribution, score, credit, loss.

    J = (1/P) sum over prompts [ sum_i w_i s_i  -  tau log mean_j exp(s_j / tau) ]    i: correct, j: wrong responses
    loss = -J + (beta/2) [KL(old || new) - delta]_+^2                                 Eq. 7, its constraint as a hinge

lambda (`lam`) is the hyperparameter to turn: w is the closed-form, KL-optimal distribution over a prompt's *correct*
responses, proportional to exp(preference / lambda). The weight of a correct response can be small, but never negative;
that is the paper's point (for the accuracy: experiments/lemma.py). lambda = infinity makes w uniform: DisCO.

`drpo_loss` is the definition, for a whole batch. Training (train.py) calls `drpo_credit` and `micro_batch_loss`, whose
gradients over the micro-batches add up to that of `drpo_loss`: `test_streamed_gradient_is_that_of_drpo_loss` in
tests/test_update.py holds it, for every cut of the batch; `test_any_number_of_ranks` over ranks.

P prompts | G responses per prompt | N = P*G responses in prompt order | T response tokens (padded)
Paper: DRPO, arXiv 2510.04474 (objective: Eq. 7); DisCO, arXiv 2505.12366. No models, files or processes here.
"""

import math

import torch
from torch import Tensor

SMALLEST_LAM = 1e-6  # below it preference / lambda loses the differences to rounding; tau, too
LARGEST_TAU = 1e6  # above it tau log mean exp(s/tau) is the mean of s to 1e-6, and rounding would swallow s

# ------------------------------------------------------------------------------------------- preference and weights


def length_preference(length_PG: Tensor, max_length: int, shape: str = "linear") -> Tensor:
    r"""How much a response of this many tokens is preferred, in [0, 1], higher is better. Returns (P, G) floats.

    With x = |o|/C: "linear" 1 - x (the paper's length reward), "concave" 1 - x^2, "cosine" (1 + cos(pi x))/2.
    `max_length` is C, the response limit in tokens; lengths count the end token. Any other preference over correct
    responses may replace it. Raises ValueError for an unknown shape or a limit that is not positive.
    """
    if not max_length > 0:
        raise ValueError(f"max_length must be positive, got {max_length}")
    length_PG = torch.as_tensor(length_PG)
    ratio_PG = length_PG / max_length if length_PG.is_floating_point() else length_PG.float() / max_length
    if shape == "linear":
        return 1 - ratio_PG
    if shape == "concave":
        return 1 - ratio_PG**2
    if shape == "cosine":
        return 0.5 + 0.5 * torch.cos(math.pi * ratio_PG)
    raise ValueError(f"unknown preference shape {shape!r}, choose one of linear, concave, cosine")


def positive_distribution(preference_PG: Tensor, correct_PG: Tensor, lam: float) -> Tensor:
    r"""The paper's closed form: argmax over distributions w on a prompt's correct responses of

        E_w[preference] - lam * KL(w || uniform over the correct responses)   =   softmax(preference / lam).

    Uniform, because the responses are samples of the old policy: each stands for the same mass. Returns weight_PG;
    rows sum to 1, or are all 0 where no response is correct. omega(o|q) of Eq. 7 is w times the number of correct
    responses. Raises ValueError for lam below 1e-6; inf is DisCO.
    """
    assert preference_PG.shape == correct_PG.shape, f"{tuple(preference_PG.shape)} vs {tuple(correct_PG.shape)}"
    if not lam >= SMALLEST_LAM:
        raise ValueError(f"lambda must be at least {SMALLEST_LAM:g} (inf is DisCO), got {lam}")
    correct_PG = correct_PG.bool()
    weight_PG = (preference_PG / lam).masked_fill(~correct_PG, -torch.inf).softmax(-1)  # exp(r/lambda) / sum, over S+
    return torch.where(correct_PG.any(-1, keepdim=True), weight_PG, 0.0)  # a softmax of nothing is NaN


def mixed_groups(correct_PG: Tensor) -> Tensor:
    """(P,) bool: prompts with at least one correct and one wrong response. The others add zero to J."""
    correct_PG = correct_PG.bool()
    return correct_PG.any(-1) & ~correct_PG.all(-1)


# --------------------------------------------------------------------------------------------- scores, value, credit


def sequence_score(
    logp_NT: Tensor, mask_NT: Tensor, old_logp_NT: Tensor | None = None, kind: str = "log_likelihood"
) -> Tensor:
    r"""One number per response, (N,), which the update raises or lowers.

    "log_likelihood" s = (1/|o|) sum_t log pi(o_t); "likelihood_ratio" s = (1/|o|) sum_t pi(o_t)/pi_old(o_t), unclipped
    (DisCO's two scores; DRPO uses the first). The end token counts.
    """
    assert logp_NT.shape == mask_NT.shape, f"{tuple(logp_NT.shape)} vs {tuple(mask_NT.shape)}"
    mask_NT = mask_NT.bool()
    length_N = mask_NT.sum(-1)
    assert (length_N > 0).all(), "a response without tokens has no score"
    if kind == "likelihood_ratio":
        assert old_logp_NT is not None, "likelihood_ratio needs old_logp_NT"
        value_NT = torch.exp((logp_NT - old_logp_NT).masked_fill(~mask_NT, 0.0))  # fill first: padding may hold -inf
    elif kind == "log_likelihood":
        value_NT = logp_NT
    else:
        raise ValueError(f"unknown score {kind!r}, choose log_likelihood or likelihood_ratio")
    return value_NT.masked_fill(~mask_NT, 0.0).sum(-1) / length_N


def drpo_objective(
    score_PG: Tensor, correct_PG: Tensor, weight_PG: Tensor, tau: float, negatives: str = "dro"
) -> Tensor:
    r"""The value J of Eq. 7 without its constraint, a scalar to *maximise*; 0 when all scores are equal.

    Wrong responses are pushed down by tau log mean exp(s/tau), the worst case over distributions near uniform
    (distributionally robust, DRO), or by their mean (`negatives="mean"`: DisCO-b, the limit tau = inf).
    ValueError for tau below 1e-6; above 1e6 the mean is taken.
    Prompts that are all right or all wrong add 0, yet count in P, as in the official code.
    """
    mixed_P = _check_groups(score_PG, correct_PG, weight_PG, tau, negatives)
    score_MG, weight_MG = score_PG[mixed_P], weight_PG[mixed_P]  # M: the mixed prompts
    wrong_MG = ~correct_PG.bool()[mixed_P]
    pull_M = (weight_MG * score_MG).sum(-1)  # Eq. 7, first term: E_{S+}[omega s]
    if negatives == "dro" and tau <= LARGEST_TAU:  # Eq. 7, second term: tau log E_{S-}[exp(s / tau)]
        scaled_MG = (score_MG / tau).masked_fill(~wrong_MG, -torch.inf)
        push_M = tau * (scaled_MG.logsumexp(-1) - wrong_MG.sum(-1, dtype=score_PG.dtype).log())
    else:
        push_M = (score_MG * wrong_MG).sum(-1) / wrong_MG.sum(-1)
    return (pull_M - push_M).sum() / len(score_PG)


def drpo_credit(score_PG: Tensor, correct_PG: Tensor, weight_PG: Tensor, tau: float, negatives: str = "dro") -> Tensor:
    r"""dJ/dscore in closed form, (P, G): how strongly each response is pulled up (>= 0) or pushed down (<= 0).

        c_i = w_i / P                          correct: never negative
        c_j = -softmax_j(s / tau) / P          wrong: the more likely it is, the more it is pushed

    The gradient of J is sum_n c_n grad s_n. Once c is known, responses are independent: they may be cut into
    micro-batches and spread over ranks in any way, and the gradient stays exact (`micro_batch_loss`).
    """
    mixed_P = _check_groups(score_PG, correct_PG, weight_PG, tau, negatives)
    correct_PG = correct_PG.bool()
    scaled_PG = score_PG / tau if negatives == "dro" and tau <= LARGEST_TAU else torch.zeros_like(score_PG)
    push_PG = scaled_PG.masked_fill(correct_PG, -torch.inf).softmax(-1)  # NaN where all are correct: replaced below
    credit_PG = torch.where(correct_PG, weight_PG, -push_PG) / len(score_PG)
    return torch.where(mixed_P[:, None], credit_PG, 0.0)


def _check_groups(score_PG, correct_PG, weight_PG, tau, negatives):
    assert score_PG.shape == correct_PG.shape == weight_PG.shape, (
        f"{tuple(score_PG.shape)} vs {tuple(correct_PG.shape)} vs {tuple(weight_PG.shape)}"
    )
    if not tau >= SMALLEST_LAM:
        raise ValueError(f"tau must be at least {SMALLEST_LAM:g}, got {tau}")
    if negatives not in ("dro", "mean"):
        raise ValueError(f"unknown negatives {negatives!r}, choose dro or mean")
    return mixed_groups(correct_PG)


# ---------------------------------------------------------------------------------------------------- trust region


def kl_per_token(logp_NT: Tensor, old_logp_NT: Tensor, mask_NT: Tensor, estimator: str = "k1") -> Tensor:
    r"""Unbiased one-sample estimates of KL(old || new) in nats at each token, (N, T), 0 on padding; samples are of old.

    With r = log pi_new - log pi_old: "k1" is -r (may be negative), "k3" is e^r - 1 - r (never negative, less variance).
    Both have the true gradient in expectation, because the sampling distribution, old, does not move.
    """
    assert logp_NT.shape == old_logp_NT.shape == mask_NT.shape
    log_ratio_NT = (logp_NT - old_logp_NT).masked_fill(~mask_NT.bool(), 0.0)
    if estimator == "k1":
        return -log_ratio_NT
    if estimator == "k3":
        return torch.expm1(log_ratio_NT) - log_ratio_NT
    raise ValueError(f"unknown KL estimator {estimator!r}, choose k1 or k3")


def kl_estimate(logp_NT: Tensor, old_logp_NT: Tensor, mask_NT: Tensor, estimator: str = "k1") -> Tensor:
    """KL(old || new) in nats per token, a scalar: the mean over all response tokens, those of all groups."""
    return kl_per_token(logp_NT, old_logp_NT, mask_NT, estimator).sum() / mask_NT.sum()


def trust_region_penalty(kl: Tensor | float, beta: float, delta: float) -> Tensor:
    """(beta/2) [KL - delta]_+^2. With beta = 1e3 its gradient is the official code's; the paper's beta_0 is beta/2."""
    return 0.5 * beta * torch.clamp(torch.as_tensor(kl) - delta, min=0.0) ** 2


def kl_penalty_grad(kl: Tensor | float, beta: float, delta: float) -> Tensor:
    """The penalty's derivative by KL, beta [KL - delta]_+: the factor of grad KL in `micro_batch_loss`."""
    return beta * torch.clamp(torch.as_tensor(kl) - delta, min=0.0)


# ------------------------------------------------------------------------------------------------------------ losses


def drpo_loss(
    logp_NT: Tensor,
    old_logp_NT: Tensor,
    mask_NT: Tensor,
    correct_PG: Tensor,
    preference_PG: Tensor,
    *,
    lam: float,
    tau: float,
    beta: float,
    delta: float,
    kl_estimator: str = "k1",
    score: str = "log_likelihood",
    negatives: str = "dro",
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a whole batch, to *minimise*: -J + penalty (Eq. 7). Returns (scalar loss, metrics)."""
    if not (0 <= beta < math.inf and delta >= 0):
        raise ValueError(f"beta and delta must be 0 or more, beta finite, got {beta} and {delta}")
    weight_PG = positive_distribution(preference_PG, correct_PG, lam)
    score_PG = sequence_score(logp_NT, mask_NT, old_logp_NT, score).reshape(correct_PG.shape)
    objective = drpo_objective(score_PG, correct_PG, weight_PG.to(score_PG), tau, negatives)
    kl = kl_estimate(logp_NT, old_logp_NT, mask_NT, kl_estimator)
    penalty = trust_region_penalty(kl, beta, delta)
    loss = penalty - objective
    metrics = {
        "loss": loss.item(),
        "objective": objective.item(),
        "kl": kl.item(),
        "penalty": penalty.item(),
        "mixed_groups": mixed_groups(correct_PG).float().mean().item(),
    }
    return loss, metrics


def micro_batch_loss(
    logp_NT: Tensor,
    old_logp_NT: Tensor,
    mask_NT: Tensor,
    credit_N: Tensor,
    kl_grad: float,
    n_tokens: int,
    kl_estimator: str = "k1",
    score: str = "log_likelihood",
) -> Tensor:
    """What these N responses contribute to the batch's gradient, as a loss: -sum_n credit_n s_n + kl_grad * KL.

    credit_N (`drpo_credit`) and kl_grad (`kl_penalty_grad`) are numbers of the whole batch, which has n_tokens response
    tokens. The gradients of all micro-batches add up to that of `drpo_loss`; the values do not add up to its value.
    """
    loss = -(credit_N * sequence_score(logp_NT, mask_NT, old_logp_NT, score)).sum()
    if kl_grad > 0:
        loss = loss + kl_grad * kl_per_token(logp_NT, old_logp_NT, mask_NT, kl_estimator).sum() / n_tokens
    return loss
