"""table.py - the third stage, weigh: the table from a method's name to its row, and the two functions that read it.

A new method is one function and one row, and a new preference for DRPO as well (docs/extend.md). The rows stand beside
their functions and settings: discriminative.py (DRPO, DisCO), penalties.py (GRPO and length penalties), several.py
(GDPO), after_drpo.py (later methods, and an ablation); rewards by name: rewards.py. The formulas themselves are in
drpo.py and baselines.py.

P prompts | G responses per prompt
"""

import torch
from torch import Tensor

import drpo
from minidrpo.methods import after_drpo, baselines, discriminative, penalties, several
from minidrpo.methods.method import Batch, Clipped, Discriminative, Method

__all__ = ["METHODS", "Batch", "Clipped", "Discriminative", "Method", "compute_weights", "credit"]

METHODS: dict[str, Method] = discriminative.ROWS | penalties.ROWS | several.ROWS | after_drpo.ROWS


def compute_weights(batch: Batch, cfg, state: dict) -> tuple[Tensor, dict]:
    """(weight_PG, state after this step) by the method that `cfg` names. Pure: `state` is not changed."""
    method = METHODS[cfg.method]
    reward = method.reward(batch, cfg, state)
    return method.advantage(reward, batch, cfg), method.remember(state, batch, cfg)


def credit(weight_PG: Tensor, batch: Batch, cfg, score_PG: Tensor | None = None) -> Tensor:
    """dJ/dscore at the policy that sampled, (P, G): how strongly a response's mean log-likelihood is pulled or pushed.

    Comparable between methods, for it is the same derivative: a clipped surrogate at ratio 1 has slope A/N by the score
    of a response (times its share of tokens where tokens are averaged). score_PG: mean log-likelihoods, which only the
    discriminative methods read, and only to share the push among wrong responses; None: equal ones.
    """
    method = METHODS[cfg.method]
    if method.discriminative:
        if score_PG is None or cfg.score == "likelihood_ratio":  # all ratios are 1 at the policy that sampled
            score_PG = torch.zeros(weight_PG.shape)
        return drpo.drpo_credit(score_PG, batch.correct_PG, weight_PG, cfg.tau, cfg.negatives)
    length_PG = batch.length_PG.float()
    token_PG = baselines.token_share(length_PG, method.surrogate.aggregate, cfg.max_response_tokens)
    return weight_PG * (length_PG * token_PG)  # the mean log-likelihood rises by 1 if each token's does
