r"""drpo.py - the DRPO objective as pure functions of tensors: preference, positive distribution, scores, credit, KL.

    J = (1/P) sum over prompts [ sum_i w_i s_i  -  tau log mean_j exp(s_j / tau) ]     i: correct, j: wrong answers
    loss = -J + (beta/2) [KL(old || new) - delta]_+^2

The dial is lambda (`lam`): w is the closed-form, KL-optimal distribution over a prompt's *correct* answers,
proportional to exp(preference / lambda). A correct answer's weight can be small, never negative; that is the paper's
point. lambda = infinity makes w uniform and the method DisCO.

P prompts | G answers a prompt | N = P*G answers in prompt order | T response tokens (padded; masks come from lengths)
Paper: DRPO, arXiv 2510.04474 (objective: Eq. 7); DisCO, arXiv 2505.12366. Here are no models, files or processes.
"""

import math

import torch

# ------------------------------------------------------------------------------------------- preference and weights


def length_preference(length_PG, max_length, shape="linear"):
    r"""How much we like an answer of this many tokens, in [0, 1], higher is better. Returns (P, G) floats.

    With x = |o|/C: "linear" 1 - x (the paper's length reward), "concave" 1 - x^2, "cosine" (1 + cos(pi x))/2.
    `max_length` is C, the response limit in tokens; lengths count the end token. Any other preference over correct
    answers may take this one's place: the rest of the file never learns what it means.
    """
    if max_length <= 0:
        raise ValueError(f"max_length must be positive, got {max_length}")
    length_PG = torch.as_tensor(length_PG)
    ratio_PG = length_PG / max_length if length_PG.is_floating_point() else length_PG.float() / max_length
    shapes = {
        "linear": lambda x: 1 - x,
        "concave": lambda x: 1 - x**2,
        "cosine": lambda x: 0.5 + 0.5 * torch.cos(math.pi * x),
    }
    if shape not in shapes:
        raise ValueError(f"unknown preference shape {shape!r}, choose one of {', '.join(shapes)}")
    return shapes[shape](ratio_PG)


def positive_distribution(preference_PG, correct_PG, lam):
    r"""The paper's closed form: argmax over distributions on a prompt's correct answers of

        E_w[preference] - lam * KL(w || uniform over the correct answers)   =   softmax(preference / lam).

    Uniform, because the answers are samples of the old policy: each stands for equal mass. Returns weight_PG; rows sum
    to 1, or are all 0 where no answer is correct. omega(o|q) of Eq. 7 is w times the number of correct answers.
    """
    assert preference_PG.shape == correct_PG.shape, f"{tuple(preference_PG.shape)} vs {tuple(correct_PG.shape)}"
    if not lam > 0:
        raise ValueError(f"lambda must be positive (inf is DisCO), got {lam}")
    correct_PG = correct_PG.bool()
    preference_PG = preference_PG if preference_PG.is_floating_point() else preference_PG.float()
    best_P1 = preference_PG.masked_fill(~correct_PG, -torch.inf).amax(-1, keepdim=True)
    # Subtract the best before dividing: exp(1/lam) alone overflows float32 below lam = 0.0113 (the official code does).
    # The floor keeps a subnormal lam from turning 0/lam into 0/0.
    logit_PG = (preference_PG - best_P1) / max(lam, torch.finfo(preference_PG.dtype).tiny)
    logit_PG = logit_PG.masked_fill(~correct_PG, -torch.inf)
    return torch.where(correct_PG.any(-1, keepdim=True), logit_PG.softmax(-1), 0.0)  # softmax of no logits is NaN


def mixed_groups(correct_PG):
    """(P,) bool: prompts with at least one correct and one wrong answer. Only these teach; the others add zero."""
    correct_PG = correct_PG.bool()
    return correct_PG.any(-1) & ~correct_PG.all(-1)


# --------------------------------------------------------------------------------------------- scores, value, credit


def sequence_score(logp_NT, mask_NT, old_logp_NT=None, kind="log_likelihood"):
    r"""One number an answer, (N,), which the update will raise or lower.

    "log_likelihood" s = (1/|o|) sum_t log pi(o_t); "likelihood_ratio" s = (1/|o|) sum_t pi(o_t)/pi_old(o_t), unclipped
    (DisCO's two scores; DRPO uses the first). The end token counts.
    """
    assert logp_NT.shape == mask_NT.shape, f"{tuple(logp_NT.shape)} vs {tuple(mask_NT.shape)}"
    mask_NT = mask_NT.bool()
    length_N = mask_NT.sum(-1)
    assert (length_N > 0).all(), "an answer without tokens has no score"
    if kind == "likelihood_ratio":
        assert old_logp_NT is not None, "likelihood_ratio needs old_logp_NT"
        value_NT = torch.exp((logp_NT - old_logp_NT).masked_fill(~mask_NT, 0.0))  # fill first: padding may hold -inf
    elif kind == "log_likelihood":
        value_NT = logp_NT
    else:
        raise ValueError(f"unknown score {kind!r}, choose log_likelihood or likelihood_ratio")
    return value_NT.masked_fill(~mask_NT, 0.0).sum(-1) / length_N


def drpo_objective(score_PG, correct_PG, weight_PG, tau, negatives="dro"):
    r"""The true value of Eq. 7 without its constraint, a scalar to *maximise*; 0 when all scores are equal.

    Wrong answers are pushed down by tau log mean exp(s/tau): the worst case over distributions near uniform
    (distributionally robust, DRO), or by their mean (`negatives="mean"`, DisCO-b, the limit tau -> infinity).
    Prompts that are all right or all wrong add 0, yet count in P, as in the official code.
    """
    mixed_P = _check_groups(score_PG, correct_PG, weight_PG, tau, negatives)
    correct_PG, wrong_PG = correct_PG.bool(), ~correct_PG.bool()
    pull_P = (weight_PG * score_PG).sum(-1)
    n_wrong_P = wrong_PG.sum(-1).clamp(min=1)  # a prompt without wrong answers is left out below
    if negatives == "dro" and tau < math.inf:
        # tau log mean exp(s/tau), as top + tau log(1 + mean(exp((s - top)/tau) - 1)): nothing overflows at a small tau,
        # nothing cancels at a large one. `top` is a constant to the gradient: its two appearances cancel.
        top_P1 = score_PG.detach().masked_fill(correct_PG, -torch.inf).amax(-1, keepdim=True)
        excess_PG = torch.expm1((score_PG - top_P1).masked_fill(correct_PG, 0.0) / tau)  # 0 for correct answers
        push_P = top_P1[:, 0] + tau * torch.log1p(excess_PG.sum(-1) / n_wrong_P)
    else:
        push_P = (score_PG * wrong_PG).sum(-1) / n_wrong_P
    return (pull_P - push_P)[mixed_P].sum() / len(score_PG)


def drpo_credit(score_PG, correct_PG, weight_PG, tau, negatives="dro"):
    r"""dJ/dscore in closed form, (P, G): how hard each answer is pulled (>= 0) or pushed (<= 0).

        c_i = w_i / P                          correct: never negative
        c_j = -softmax_j(s / tau) / P          wrong: the more likely it is, the harder it is pushed

    Because J's gradient is sum_n c_n grad s_n, answers become independent once c is known: they may be cut into
    micro-batches and spread over ranks in any way, and the gradient stays exact. train.py is built on this line.
    """
    mixed_P = _check_groups(score_PG, correct_PG, weight_PG, tau, negatives)
    correct_PG = correct_PG.bool()
    scaled_PG = score_PG / tau if negatives == "dro" else torch.zeros_like(score_PG)
    push_PG = scaled_PG.masked_fill(correct_PG, -torch.inf).softmax(-1)  # NaN where all are correct: replaced below
    credit_PG = torch.where(correct_PG, weight_PG, -push_PG) / len(score_PG)
    return torch.where(mixed_P[:, None], credit_PG, 0.0)


def _check_groups(score_PG, correct_PG, weight_PG, tau, negatives):
    assert score_PG.shape == correct_PG.shape == weight_PG.shape, (
        f"{tuple(score_PG.shape)} vs {tuple(correct_PG.shape)} vs {tuple(weight_PG.shape)}"
    )
    if not tau > 0:
        raise ValueError(f"tau must be positive, got {tau}")
    if negatives not in ("dro", "mean"):
        raise ValueError(f"unknown negatives {negatives!r}, choose dro or mean")
    return mixed_groups(correct_PG)


# ---------------------------------------------------------------------------------------------------- trust region


def kl_per_token(logp_NT, old_logp_NT, mask_NT, estimator="k1"):
    r"""Unbiased one-sample estimates of KL(old || new) at each token, 0 on padding; the samples come from old.

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


def kl_estimate(logp_NT, old_logp_NT, mask_NT, estimator="k1"):
    """KL(old || new) in nats a token: the mean over every response token of the batch, all groups included. Scalar."""
    return kl_per_token(logp_NT, old_logp_NT, mask_NT, estimator).sum() / mask_NT.sum()


def trust_region_penalty(kl, beta, delta):
    """(beta/2) [KL - delta]_+^2. With beta = 1e3 its gradient is the official code's; the paper's beta_0 is beta/2."""
    return 0.5 * beta * torch.clamp(torch.as_tensor(kl) - delta, min=0.0) ** 2


def trust_region_pressure(kl, beta, delta):
    """The penalty's derivative by KL, beta [KL - delta]_+: what multiplies grad KL in the streamed update."""
    return beta * torch.clamp(torch.as_tensor(kl) - delta, min=0.0)


# ------------------------------------------------------------------------------------------------ the whole, readable


def drpo_loss(
    logp_NT,
    old_logp_NT,
    mask_NT,
    correct_PG,
    preference_PG,
    *,
    lam,
    tau,
    beta,
    delta,
    kl_estimator="k1",
    score="log_likelihood",
    negatives="dro",
):
    """The whole-batch loss, to *minimise*: -J + penalty. Its gradient is the definition that train.py's streamed
    update must equal (a test). Returns (scalar loss, metrics: dict of floats).
    """
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
