r"""baselines.py - every other method of the papers as three pure functions: a reward, an advantage, a token surrogate.

    reward(correct, length) -> advantage over the group or the batch -> clipped surrogate over tokens

GRPO (arXiv 2402.03300, DeepSeekMath) with or without a length penalty, Dr. GRPO (2503.20783), RLOO-LP (2502.04463),
ALP (2506.05256), HAPO (2505.11225), L1-Max (2503.04697), ShorterBetter (2504.21370), LASER-D (2505.15612) and GDPO
(2601.05242). What they share, and DRPO (drpo.py) does not: a response is compared with *all* responses to its prompt,
so a correct but long one can fall below the mean and be pushed down. HAPO's history and LASER-D's targets are states:
they go in as tensors and come out as new tensors, which the trainer keeps.

P prompts | G responses per prompt | K rewards | N = P*G responses in prompt order | T response tokens
D problems of the data set | C responses of one difficulty class. Lengths are in tokens, end token included (the authors
of RLOO-LP and HAPO leave it out: one token less). A truncated response is a wrong one. Integer lengths give float32
rewards; float lengths keep their type. Masks (correct, and of tokens) are bools, or 0/1 in another type.
"""

import math

import torch
from torch import Tensor

# ------------------------------------------------------------------------ rewards: correct and length to reward, (P, G)


def length_penalty_reward(correct_PG: Tensor, length_PG: Tensor, max_length: int, alpha: float = 1.0) -> Tensor:
    r"""GRPO with a length penalty, as in Figure 1 of DRPO (arXiv 2510.04474): 1[correct] (1 - alpha |o|/C).

    alpha = 0 is plain GRPO's 0/1 reward; alpha = 1 gives the figure's .73, .6, .2 for responses of .27 C, .4 C, .8 C.
    The figure's advantages mix two conventions: 1 is from the population std, -0.17 from the sample std.
    """
    if max_length <= 0:
        raise ValueError(f"max_length must be positive, got {max_length}")
    correct_PG, length_PG = as_floats(correct_PG, length_PG)
    return correct_PG * (1 - alpha * length_PG / max_length)


def rloo_lp_reward(correct_PG: Tensor, length_PG: Tensor, alpha: float = 0.2) -> Tensor:
    r"""RLOO-LP (Arora and Zanette, arXiv 2502.04463): 1[correct] (1 - alpha sigmoid((|o| - mean)/(std + 1e-7))).

    Mean and *population* std are over the prompt's correct responses, as in the authors' code; a lone correct response
    earns 1 - alpha/2. LASER's port takes the sample std, and for a lone response mean 0, std 1: its sigmoid is then 1.
    Goes with `rloo_advantage`. The authors sweep alpha in .05, .1, .2, .4.
    """
    correct_PG, length_PG = as_floats(correct_PG, length_PG)
    n_correct_P1 = correct_PG.sum(-1, keepdim=True).clamp(min=1)
    mean_P1 = (length_PG * correct_PG).sum(-1, keepdim=True) / n_correct_P1
    excess_PG = (length_PG - mean_P1) * correct_PG
    std_P1 = (excess_PG.square().sum(-1, keepdim=True) / n_correct_P1).sqrt()
    return correct_PG * (1 - alpha * torch.sigmoid(excess_PG / (std_P1 + 1e-7)))


def alp_reward(correct_PG: Tensor, length_PG: Tensor, beta: float = 1e-7) -> Tensor:
    r"""ALP (Xiang et al., arXiv 2506.05256): 1[correct] - beta |o| max(share of correct responses, 1/G).

    Charged to correct and wrong responses alike; easy prompts pay most, unsolved ones the floor 1/G. No official code
    is known. At the paper's beta the term is invisible in mixed groups; where all responses are right (or all wrong) it
    is the whole spread, and GRPO's std blows it up to full size: there beta acts only through the eps beside that std
    (1e-6 in verl, 1e-4 in TRL). Hand it float64 lengths for beta < 1e-8: float32's steps near 1 are 6e-8.
    """
    correct_PG, length_PG = as_floats(correct_PG, length_PG)
    solved_P1 = correct_PG.mean(-1, keepdim=True).clamp(min=1 / correct_PG.shape[-1])
    return correct_PG - beta * length_PG * solved_P1


def hapo_reward(correct_PG: Tensor, length_PG: Tensor, shortest_P: Tensor, w: float = 1.0) -> Tensor:
    r"""HAPO (Huang et al., arXiv 2505.11225): 1[correct] + w * length reward, against the prompt's own record h.

    With f = cos(min(pi/2 |o|/h, pi)): a correct response's length reward is max(f, -0.7), a wrong one's min(f, 0), and
    0 for all where `shortest_P`, the shortest correct response of *earlier* steps, is inf (none yet; the authors' code
    marks that by 100000). So w <= 1 keeps every correct response above every wrong one. Their mean-of-history mode,
    linear shape and repetition penalty, all off by default, are left out.
    """
    correct_PG, length_PG = as_floats(correct_PG, length_PG)
    shortest_P1 = torch.as_tensor(shortest_P).to(length_PG)[:, None]
    if not (shortest_P1 > 0).all():
        raise ValueError("HAPO's shortest lengths must be positive (inf: none yet)")
    f_PG = torch.cos((math.pi / 2 * length_PG / shortest_P1).clamp(max=math.pi))
    bonus_PG = torch.where(correct_PG > 0, f_PG.clamp(min=-0.7), f_PG.clamp(max=0.0))
    return correct_PG + w * torch.where(shortest_P1.isinf(), 0.0, bonus_PG)


def hapo_update_history(history_D: Tensor, index_P: Tensor, correct_PG: Tensor, length_PG: Tensor) -> Tensor:
    """HAPO's history after a batch: each problem's shortest correct response so far (inf: none). A new (D,) tensor.

    `index_P` says which problem a row is; one problem may fill several rows. Weigh first, with the old history, then
    update: the order of the authors' code. That code merges the histories of its ranks by minimum afterwards; here a
    batch is the whole one, gathered from all ranks, so every rank computes the same history.
    """
    shortest_PG = torch.as_tensor(length_PG).to(history_D).masked_fill(~correct_PG.bool(), torch.inf)
    return history_D.scatter_reduce(0, torch.as_tensor(index_P), shortest_PG.amin(-1), "amin")  # out of place


def l1_max_reward(
    correct_PG: Tensor, length_PG: Tensor, target_length: float | Tensor, slope: str = "paper", alpha: float = 3e-4
) -> Tensor:
    r"""L1-Max (Aggarwal and Welleck, arXiv 2503.04697), with n the length and n* the target stated in the prompt:

        "paper"  1[correct] clip(alpha (n* - n) + 1/2, 0, 1)
        "code"   1[correct] (clip(alpha (n* - n), -1, 1) + 1)/2      the repository's: half the slope, twice as wide

    `target_length` is a number or (P,): the budget may differ by prompt.
    """
    correct_PG, length_PG = as_floats(correct_PG, length_PG)
    target = torch.as_tensor(target_length).to(length_PG)
    room_PG = alpha * ((target[:, None] if target.ndim else target) - length_PG)
    if slope == "paper":
        return correct_PG * (room_PG + 0.5).clamp(0, 1)
    if slope == "code":
        return correct_PG * (room_PG.clamp(-1, 1) + 1) / 2
    raise ValueError(f"unknown slope {slope!r}, choose paper or code")


def shorter_better_reward(correct_PG: Tensor, length_PG: Tensor, a: float = 2.0, b: float = 1e-3) -> Tensor:
    r"""ShorterBetter (Yi et al., arXiv 2504.21370): a 1[correct] - b | |o| - L |, for correct and wrong alike.

    L, the sample optimal length, is the shortest correct response of the group, or the mean length if none is correct.
    The paper's experiments use b = 0.001, and a = 2 or 1.
    """
    correct_PG, length_PG = as_floats(correct_PG, length_PG)
    shortest_P1 = length_PG.masked_fill(correct_PG == 0, torch.inf).amin(-1, keepdim=True)
    optimal_P1 = torch.where(shortest_P1.isinf(), length_PG.mean(-1, keepdim=True), shortest_P1)
    return a * correct_PG - b * (length_PG - optimal_P1).abs()


def difficulty_class(correct_PG: Tensor) -> Tensor:
    """LASER-D's classes, (P,) ints: 0 easy (at least 2/3 correct), 1 medium (at least 1/3), 2 hard. In whole numbers:
    2/3 is no binary fraction. The authors' monitor statistics use > where their reward uses >=; here both use >=."""
    tripled_P = 3 * correct_PG.sum(-1)
    return (tripled_P < 2 * correct_PG.shape[-1]).long() + (tripled_P < correct_PG.shape[-1]).long()


def laser_d_reward(
    correct_PG: Tensor, length_PG: Tensor, target_3: Tensor | list[float], bonus: float = 0.5, wrong: float = -0.5
) -> Tensor:
    r"""LASER-D (Liu et al., arXiv 2505.15612): a correct response earns 1, and `bonus` more if it is no longer than the
    target of its prompt's difficulty class (easy, medium, hard; the class from this very group); a wrong one -1/2.

    The authors' code has a third score for responses cut off at the limit; here they are wrong ones.
    """
    correct_PG, length_PG = as_floats(correct_PG, length_PG)
    target_3 = torch.as_tensor(target_3).to(length_PG)
    if target_3.shape != (3,):
        raise ValueError(f"LASER-D needs three targets (easy, medium, hard), got shape {tuple(target_3.shape)}")
    within_PG = (length_PG <= target_3[difficulty_class(correct_PG)][:, None]).to(length_PG)
    return torch.where(correct_PG > 0, 1 + bonus * within_PG, torch.full_like(length_PG, wrong))


def laser_d_targets(
    correct_PG: Tensor, length_PG: Tensor, candidates: range | list[int], max_length: float, expected: float = 1
) -> Tensor:
    r"""LASER-D's adaptive targets from responses to a monitor set (theirs: 500 problems, every 20 steps). (3,) floats.

    A class's target is the smallest candidate length l with coverage(l) * n >= `expected`: coverage is the share of
    the class's responses, right or wrong, within l; n is how many of G a prompt of the class gets right at least (2G/3,
    G/3, 1, rounded down). `max_length` where no candidate will do; the authors' code has the batch's longest there.
    """
    class_P, length_PG = difficulty_class(correct_PG), torch.as_tensor(length_PG)
    G = correct_PG.shape[-1]
    target_3 = [float(max_length)] * 3
    for level, n_right in enumerate((max(2 * G // 3, 1), max(G // 3, 1), 1)):
        length_C = length_PG[class_P == level].flatten()
        for candidate in sorted(candidates, reverse=True):
            if len(length_C) and (length_C <= candidate).sum() * n_right >= expected * len(length_C):
                target_3[level] = min(float(candidate), float(max_length))
    return torch.tensor(target_3)


def conditioned_length_reward(
    correct_PG: Tensor, length_PG: Tensor, limit: float = 4000, conditioned: bool = True
) -> Tensor:
    r"""GDPO's length reward (arXiv 2601.05242): 1 if |o| <= limit, and, conditioned (Eq. 8), only if correct too.

    Conditioning lets an easy reward count only where the harder one is reached, so it cannot be farmed by itself.
    """
    correct_PG, length_PG = as_floats(correct_PG, length_PG)
    within_PG = (length_PG <= limit).to(length_PG)
    return within_PG * correct_PG if conditioned else within_PG


def format_reward(texts: list[str]) -> Tensor:
    r"""GDPO's GSM8K task: 1 for each text `<think>...</think>\n<answer>...</answer>` with one answer pair. (N,).

    A chat template that ends in <think> puts it into the prompt: hand in that tail with the response, or all are 0.
    """
    return torch.tensor([float(_well_formed(text)) for text in texts])


def integer_reward(texts: list[str]) -> Tensor:
    """GDPO's GSM8K task: 1 for each text whose answer is all digits (so not -3 or 1,000, as in its code). (N,)."""
    answers = [text.split("<answer>")[-1].split("</answer>")[0].strip() for text in texts]
    return torch.tensor([float(answer.isascii() and answer.isdigit()) for answer in answers])


def _well_formed(text):
    text = text.removesuffix("\n")
    one_pair = text.count("<answer>") == text.count("</answer>") == 1
    return (
        one_pair
        and text.startswith("<think>")
        and "</think>\n<answer>" in text.removeprefix("<think>")
        and text.endswith("</answer>")
    )


def as_floats(correct_PG: Tensor, length_PG: Tensor) -> tuple[Tensor, Tensor]:
    """Correct as 0/1 and lengths in tokens, both (P, G), in one floating type: that of the lengths, else float32."""
    length_PG = torch.as_tensor(length_PG)
    assert correct_PG.shape == length_PG.shape and correct_PG.equal(correct_PG.bool().to(correct_PG)), (
        f"want 0/1 and lengths of one shape, got {correct_PG.dtype} {tuple(correct_PG.shape)}"
        f" vs {length_PG.dtype} {tuple(length_PG.shape)}"
    )
    length_PG = length_PG if length_PG.is_floating_point() else length_PG.float()
    return correct_PG.to(length_PG), length_PG


# ------------------------------------------------------------------------------------- advantages: rewards to (P, G)


def grpo_advantage(reward_PG: Tensor, std: str | None = "sample", eps: float = 1e-6) -> Tensor:
    r"""A = (r - mean)/(std + eps) over the group (GRPO, arXiv 2402.03300); std=None: r - mean (Dr. GRPO, 2503.20783).

    "sample" divides by G - 1 under the root, as verl (eps 1e-6) and TRL (eps 1e-4) do; "population" by G. Equal rewards
    and G = 1 give exactly 0; verl's code gives a lone response its reward as advantage, TRL's gives NaN.
    """
    return _standardised(_checked(reward_PG), std, eps)


def rloo_advantage(reward_PG: Tensor) -> Tensor:
    r"""Leave one out (Ahmadian et al., arXiv 2402.14740): A_i = r_i - mean of the others = G/(G - 1) (r_i - mean).

    No std, as in RLOO-LP's code. G = 1 gives 0: a lone response has nothing to be compared with.
    """
    G = reward_PG.shape[-1]
    return _centred(_checked(reward_PG)) * (G / max(G - 1, 1))


def gdpo_advantage(
    reward_PGK: Tensor,
    weight_K: Tensor | list[float] | None = None,
    batch_norm: bool = True,
    eps: float = 1e-4,
    over: str = "sequences",
    length_PG: Tensor | None = None,
) -> Tensor:
    r"""GDPO (arXiv 2601.05242): normalise each reward over its group, add up with weights, normalise over the batch.

        A = sum_k w_k (r_k - mean_k)/(std_k + eps)   (Eq. 7)        A <- (A - mean)/(std + eps) over the batch   (Eq. 6)

    GRPO adds first and normalises the total, so that (1, 0) and (0, 1) are one; here they need not be. P is the *whole*
    batch: gather rewards from all ranks first. `batch_norm=False` is what the paper's toy figure shows.

    over="sequences" is the paper and its TRL code (sample std, eps 1e-4; that code turns NaN rewards into 0, here they
    are refused, and falls back to GRPO for one reward). over="tokens" is its verl code: long responses weigh more
    (needs `length_PG`), the batch step divides by sqrt(variance + 1e-8), and eps is 1e-6 there. By tokens the batch
    mean is not 0: even a group of equal rewards gets an advantage, except where the whole batch is equal.
    """
    reward_PKG = _checked(reward_PGK).transpose(1, 2)
    K = reward_PKG.shape[1]
    weight_K = torch.ones(K) if weight_K is None else torch.as_tensor(weight_K)
    if weight_K.shape != (K,):
        raise ValueError(f"{K} rewards need {K} weights, got shape {tuple(weight_K.shape)}")
    advantage_PG = (weight_K.to(reward_PKG)[:, None] * _standardised(reward_PKG, "sample", eps)).sum(1)
    if not batch_norm:
        return advantage_PG
    if over == "sequences":
        # Eq. 6 subtracts the batch mean: it is 0, because each group's advantages add up to 0. Left out, rounding
        # cannot give a group of equal rewards anything but 0.
        variance = advantage_PG.square().sum() / max(advantage_PG.numel() - 1, 1)
        return advantage_PG / (variance.sqrt() + eps)
    if over == "tokens":
        if length_PG is None:
            raise ValueError("GDPO over tokens needs length_PG, the responses' lengths")
        length_PG = torch.as_tensor(length_PG).to(advantage_PG)
        n_tokens = length_PG.sum()
        centred_PG = advantage_PG - (length_PG * advantage_PG).sum() / n_tokens
        variance = (length_PG * centred_PG.square()).sum() / (n_tokens - 1).clamp(min=1)
        return centred_PG * torch.rsqrt(variance + 1e-8)
    raise ValueError(f"unknown over {over!r}, choose sequences or tokens")


def _checked(reward):
    """The rewards as floats; a NaN or infinite one is refused, for it would silently spoil a whole group or batch."""
    reward = reward if reward.is_floating_point() else reward.float()
    bad = (~reward.isfinite()).nonzero().tolist()
    if bad:
        first = ", ".join(map(" ".join, zip(("prompt", "response", "reward"), map(str, bad[0]), strict=False)))
        value = reward[tuple(bad[0])].item()
        raise ValueError(f"reward is {value} at {first} ({len(bad)} of {reward.numel()} are not finite numbers)")
    return reward


def _centred(reward):
    """Rewards, (P, G) or (P, K, G), minus their group's mean. The first reward is taken off beforehand: equal ones then
    give exactly 0 (their rounded mean need not equal them), and differences of 1e-6 between rewards near 1 keep their
    digits (ALP)."""
    shifted = reward - reward[..., :1]
    return shifted - shifted.mean(-1, keepdim=True)


def _standardised(reward, std, eps):
    if std not in ("sample", "population", None):
        raise ValueError(f"unknown std {std!r}, choose sample, population or None")
    centred = _centred(reward)
    if std is None:
        return centred
    G = reward.shape[-1]
    variance = centred.square().sum(-1, keepdim=True) / (max(G - 1, 1) if std == "sample" else G)
    return centred / (variance.sqrt() + eps)


# ---------------------------------------------------------------------------------------- token surrogate: to a scalar


def clipped_surrogate(
    logp_NT: Tensor,
    old_logp_NT: Tensor,
    mask_NT: Tensor,
    advantage_N: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    aggregate: str = "sequence",
    *,
    n_sequences: int | None = None,
    n_tokens: int | None = None,
    max_tokens: int | None = None,
) -> Tensor:
    r"""PPO's clipped objective (arXiv 1707.06347), a scalar to *maximise*: with r = pi/pi_old at each token,

        min(r A, clip(r, 1 - clip_low, 1 + clip_high) A),  aggregated as
        "sequence"  mean over a response's tokens, then over responses            (GRPO)
        "token"     mean over all tokens: a long response weighs more            (DAPO, arXiv 2503.14476; GDPO: .2, .28)
        "constant"  sum over tokens / max_tokens, then mean over responses       (Dr. GRPO: no length bias)

    For a part of a batch hand in the whole batch's `n_sequences`, `n_tokens` and `max_tokens` (the response limit): the
    parts then add up to the batch. By default they are this batch's own: N, its tokens, its padded width T. math.inf
    turns a clip off.
    """
    assert logp_NT.shape == old_logp_NT.shape == mask_NT.shape and advantage_N.shape == logp_NT.shape[:1], (
        f"{tuple(logp_NT.shape)} vs {tuple(old_logp_NT.shape)} vs {tuple(mask_NT.shape)}, {tuple(advantage_N.shape)}"
    )
    mask_NT = mask_NT.bool()
    length_N = mask_NT.sum(-1)
    assert (length_N > 0).all(), "a response without tokens has no surrogate"
    max_tokens = logp_NT.shape[1] if max_tokens is None else max_tokens
    share_N = token_share(length_N.to(logp_NT), aggregate, max_tokens, n_sequences, n_tokens)
    ratio_NT = torch.exp((logp_NT - old_logp_NT).masked_fill(~mask_NT, 0.0))  # fill first: padding may hold -inf
    advantage_N1 = advantage_N.to(logp_NT)[:, None]
    gain_NT = torch.minimum(ratio_NT * advantage_N1, ratio_NT.clamp(1 - clip_low, 1 + clip_high) * advantage_N1)
    return (gain_NT.masked_fill(~mask_NT, 0.0).sum(-1) * share_N).sum()


def token_share(
    length: Tensor, aggregate: str, max_tokens: int, n_sequences: int | None = None, n_tokens: int | None = None
) -> Tensor:
    """How much each token of a response counts in `clipped_surrogate`, whose arguments these are: 1/(N |o|), 1/(tokens
    of all) or 1/(N max_tokens). length: float tokens, (N,) or (P, G), the shape of what is returned."""
    one, n_sequences = torch.ones_like(length), length.numel() if n_sequences is None else n_sequences
    if aggregate == "sequence":
        return one / n_sequences / length
    if aggregate == "token":
        return one / (length.sum() if n_tokens is None else n_tokens)
    if aggregate == "constant":
        return one / n_sequences / max_tokens
    raise ValueError(f"unknown aggregate {aggregate!r}, choose sequence, token or constant")
