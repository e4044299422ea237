"""methods.py - the third stage, weigh: one table from a method's name to its reward, advantage, surrogate and knob.

    reward(batch, cfg, state)         how good each answer is: (P, G), or (P, G, K) for K rewards
    advantage(reward, batch, cfg)     what the update multiplies with: DRPO's weights, a baseline's advantages, (P, G)
    surrogate                         how it enters the loss: Discriminative (drpo.py) or Clipped (baselines.py)

A new method is one function and one row of METHODS; a new preference for DRPO is one row of PREFERENCES (docs/extend.md
walks through both). The formulas are in drpo.py and baselines.py; here they are only put together.

P prompts | G answers a prompt | N = P*G answers in prompt order | K rewards | D problems of the training set
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

import drpo
from minidrpo.methods import baselines
from minidrpo.rundir.metrics import reflection_words


@dataclass(frozen=True)
class Batch:
    """What a method may look at: one step's graded answers, all ranks together, so that every rank weighs alike."""

    correct_PG: torch.Tensor
    """bool; an answer cut off at the limit is wrong."""
    length_PG: torch.Tensor
    """Response tokens, end token included."""
    texts: list
    """N response texts in prompt order."""
    problem_P: torch.Tensor
    """Which row of the training set each prompt is (HAPO's history)."""
    opened: bool = False
    """Whether the prompt ends in <think>, which the response's text then lacks."""


@dataclass(frozen=True)
class Discriminative:
    """J = pull of the right minus push of the wrong, in a KL trust region. None: what --negatives says."""

    negatives: str | None = None

    @property
    def settings(self):
        return ("score", "beta", "delta", "kl_estimator") + (() if self.negatives else ("negatives", "tau"))


@dataclass(frozen=True)
class Clipped:
    """PPO's clipped ratio, aggregated over tokens; arguments as in baselines.clipped_surrogate."""

    aggregate: str = "sequence"
    clip_low: float = 0.2
    clip_high: float = 0.2
    settings = ()


@dataclass(frozen=True)
class Method:
    about: str
    knob: str
    """The config field that this method is swept over; "" where there is none."""
    reward: Callable
    advantage: Callable
    surrogate: Discriminative | Clipped
    new_state: Callable = lambda cfg, n_problems: {}
    """Tensors to remember from step to step, saved in checkpoints."""
    remember: Callable = lambda state, batch, cfg: state
    """The state after this step; the step itself is weighed with the old one."""
    uses: tuple = ()
    """Config fields beside the knob that only this method, or this one and few others, read."""

    @property
    def discriminative(self):
        return isinstance(self.surrogate, Discriminative)

    @property
    def settings(self):
        """Its own config fields: on the command line, a change of one is a mistake with a method that ignores it."""
        normalised = self.advantage in (group_normalised, summed_then_normalised)
        return {self.knob, *self.uses, *self.surrogate.settings, *("adv_std", "adv_eps") * normalised} - {""}


def weigh(batch, cfg, state):
    """(weight_PG, state after this step) by the method that `cfg` names. Pure: `state` is not changed."""
    method = METHODS[cfg.method]
    reward = method.reward(batch, cfg, state)
    return method.advantage(reward, batch, cfg), method.remember(state, batch, cfg)


def credit(weight_PG, batch, cfg, score_PG=None):
    """dJ/dscore at the policy that sampled, (P, G): how hard an answer's mean log-likelihood is pulled (> 0) or pushed.

    Comparable between methods, for it is the same derivative: a clipped surrogate at ratio 1 has slope A/N by the score
    of an answer (times its share of tokens where tokens are averaged). score_PG: mean log-likelihoods, which only the
    discriminative methods look at, and only for how the push is shared among wrong answers; None: equal ones.
    """
    method = METHODS[cfg.method]
    if method.discriminative:
        if score_PG is None or cfg.score == "likelihood_ratio":  # all ratios are 1 at the policy that sampled
            score_PG = torch.zeros(weight_PG.shape)
        return drpo.drpo_credit(
            score_PG, batch.correct_PG, weight_PG, cfg.tau, method.surrogate.negatives or cfg.negatives
        )
    length_PG = batch.length_PG.float()
    share_PG = {
        "sequence": torch.full_like(length_PG, 1 / length_PG.numel()),
        "token": length_PG / length_PG.sum(),
        "constant": length_PG / cfg.max_response_tokens / length_PG.numel(),
    }[method.surrogate.aggregate]
    return weight_PG * share_PG


# ------------------------------------------------------------------------------------ preferences among correct answers


def fewer_reflections(batch, cfg):
    """1/(1 + number of reflection words such as "wait" and "check"): terse reasoning, whatever its length in tokens."""
    counts = [sum(reflection_words(text).values()) for text in batch.texts]
    return 1 / (1 + torch.tensor(counts, dtype=torch.float32).view(batch.correct_PG.shape))


def _length(shape):
    return lambda batch, cfg: drpo.length_preference(batch.length_PG, cfg.max_response_tokens, shape)


PREFERENCES = {  # name: (batch, cfg) -> preference_PG in [0, 1], higher is better
    "linear": _length("linear"),
    "concave": _length("concave"),
    "cosine": _length("cosine"),
    "reflections": fewer_reflections,
}


# ------------------------------------------------------------------------------------------------- rewards, advantages


def preference(batch, cfg, state):
    return PREFERENCES[cfg.preference](batch, cfg)


def right(batch, cfg, state):
    return batch.correct_PG.float()


def length_penalty(batch, cfg, state):
    return baselines.length_penalty_reward(batch.correct_PG, batch.length_PG, cfg.max_response_tokens, cfg.alpha)


def rloo_lp(batch, cfg, state):
    return baselines.rloo_lp_reward(batch.correct_PG, batch.length_PG, cfg.alpha)


def alp(batch, cfg, state):  # float64: at the paper's beta the penalty is finer than float32's steps
    return baselines.alp_reward(batch.correct_PG, batch.length_PG.double(), cfg.alp_beta)


def hapo(batch, cfg, state):
    shortest_P = state["shortest_D"][batch.problem_P]
    return baselines.hapo_reward(batch.correct_PG, batch.length_PG, shortest_P, cfg.hapo_w)


def l1_max(batch, cfg, state):
    return baselines.l1_max_reward(batch.correct_PG, batch.length_PG, cfg.l1_target, cfg.l1_slope, cfg.l1_alpha)


def shorter_better(batch, cfg, state):
    return baselines.shorter_better_reward(batch.correct_PG, batch.length_PG, cfg.sb_a, cfg.sb_b)


def laser_d(batch, cfg, state):
    return baselines.laser_d_reward(batch.correct_PG, batch.length_PG, state["target_3"], cfg.laser_bonus)


def several(batch, cfg, state):
    """The rewards that --rewards names, side by side, (P, G, K)."""
    return torch.stack([REWARDS[name](batch, cfg).view(batch.correct_PG.shape) for name in cfg.rewards], -1)


REWARDS = {  # GDPO's: name: (batch, cfg) -> P*G rewards
    "correct": lambda batch, cfg: batch.correct_PG.float(),
    "length": lambda batch, cfg: _within(batch, cfg, conditioned=False),
    "conditioned_length": lambda batch, cfg: _within(batch, cfg, conditioned=True),
    "format": lambda batch, cfg: baselines.format_reward(["<think>" * batch.opened + text for text in batch.texts]),
    "integer": lambda batch, cfg: baselines.integer_reward(batch.texts),
}


def _within(batch, cfg, conditioned):
    return baselines.conditioned_length_reward(batch.correct_PG, batch.length_PG, cfg.length_limit, conditioned)


def positive_weights(reward_PG, batch, cfg):
    return drpo.positive_distribution(reward_PG, batch.correct_PG, cfg.lam)


def uniform_weights(reward_PG, batch, cfg):
    return drpo.positive_distribution(reward_PG, batch.correct_PG, math.inf)


def group_normalised(reward_PG, batch, cfg):
    return baselines.grpo_advantage(reward_PG, cfg.adv_std, cfg.adv_eps)


def group_centred(reward_PG, batch, cfg):
    return baselines.grpo_advantage(reward_PG, std=None)


def leave_one_out(reward_PG, batch, cfg):
    return baselines.rloo_advantage(reward_PG)


def summed_then_normalised(reward_PGK, batch, cfg):
    return group_normalised((reward_PGK * _weights(cfg)).sum(-1), batch, cfg)


def normalised_then_summed(reward_PGK, batch, cfg):
    eps = 1e-6 if cfg.gdpo_over == "tokens" else 1e-4  # as its two official codes have it
    return baselines.gdpo_advantage(reward_PGK, _weights(cfg), True, eps, cfg.gdpo_over, batch.length_PG)


def _weights(cfg):
    return torch.tensor(cfg.reward_weights or (1.0,) * len(cfg.rewards))


# ------------------------------------------------------------------------------------------- what two of them remember


def hapo_history(cfg, n_problems):
    return {"shortest_D": torch.full((n_problems,), torch.inf)}


def hapo_remember(state, batch, cfg):
    history = (state["shortest_D"], batch.problem_P, batch.correct_PG, batch.length_PG)
    return {"shortest_D": baselines.hapo_update_history(*history)}


LASER_MONITOR = 500  # prompts; the authors sample as many anew, here they are the latest ones of the training itself


def laser_targets(cfg, n_problems):
    """No target yet: the limit, within which every finished answer is."""
    return {
        "target_3": torch.full((3,), float(cfg.max_response_tokens)),
        "correct_MG": torch.zeros(0, cfg.group_size, dtype=torch.bool),
        "length_MG": torch.zeros(0, cfg.group_size, dtype=torch.long),
        "steps": torch.zeros((), dtype=torch.long),
    }


def laser_remember(state, batch, cfg):
    """Keep the latest prompts' answers; choose the targets anew after the first step and every `laser_every` steps."""
    correct_MG = torch.cat([state["correct_MG"], batch.correct_PG])[-LASER_MONITOR:]
    length_MG = torch.cat([state["length_MG"], batch.length_PG])[-LASER_MONITOR:]
    target_3, limit = state["target_3"], cfg.max_response_tokens
    if state["steps"] % cfg.laser_every == 0:
        candidates = range(max(1, limit // 64), limit + 1, max(1, limit // 64))
        target_3 = baselines.laser_d_targets(correct_MG, length_MG, candidates, limit)
    return {"target_3": target_3, "correct_MG": correct_MG, "length_MG": length_MG, "steps": state["steps"] + 1}


# ------------------------------------------------------------------------------------------------------------ the table

METHODS = {
    "drpo": Method(
        "DRPO (arXiv 2510.04474): length decides among the correct answers only",
        "lam", preference, positive_weights, Discriminative(), uses=("preference",),
    ),
    "disco": Method(
        "DisCO (2505.12366): DRPO at lambda = infinity; --score likelihood_ratio --tau 1 is its other form",
        "tau", right, uniform_weights, Discriminative(),
    ),
    "disco-b": Method(
        "DisCO-b: wrong answers are pushed by their mean, not by the worst case",
        "", right, uniform_weights, Discriminative("mean"),
    ),
    "grpo": Method("GRPO (2402.03300)", "", right, group_normalised, Clipped()),
    "dr-grpo": Method(
        "Dr. GRPO (2503.20783): GRPO without std and without length bias",
        "", right, group_centred, Clipped("constant"),
    ),
    "grpo-lp": Method(
        "GRPO with a length penalty (Figure 1 of the DRPO paper)",
        "alpha", length_penalty, group_normalised, Clipped(),
    ),
    "rloo-lp": Method(
        "RLOO-LP (2502.04463): lengths standardised among the correct answers, then penalised",
        "alpha", rloo_lp, leave_one_out, Clipped(),
    ),
    "alp": Method(
        "ALP (2506.05256): a penalty that grows with the prompt's solve rate",
        "alp_beta", alp, group_normalised, Clipped(),
    ),
    "hapo": Method(
        "HAPO (2505.11225): each problem's shortest correct answer so far is the mark to beat",
        "hapo_w", hapo, group_normalised, Clipped(), hapo_history, hapo_remember,
    ),
    "l1-max": Method(
        "L1-Max (2503.04697): a budget, stated in the prompt",
        "l1_target", l1_max, group_normalised, Clipped(), uses=("l1_alpha", "l1_slope", "l1_prompt"),
    ),
    "shorter-better": Method(
        "ShorterBetter (2504.21370): distance from the group's shortest correct answer",
        "sb_b", shorter_better, group_normalised, Clipped(), uses=("sb_a",),
    ),
    "laser-d": Method(
        "LASER-D (2505.15612): a bonus within a target that depends on the prompt's difficulty",
        "laser_bonus", laser_d, group_normalised, Clipped(), laser_targets, laser_remember, ("laser_every",),
    ),
    "grpo-sum": Method(
        "GRPO on the weighted sum of --rewards: what GDPO is measured against",
        "length_limit", several, summed_then_normalised, Clipped("token", 0.2, 0.28),
        uses=("rewards", "reward_weights"),
    ),
    "gdpo": Method(
        "GDPO (2601.05242): each of --rewards normalised by itself, then summed",
        "length_limit", several, normalised_then_summed, Clipped("token", 0.2, 0.28),
        uses=("rewards", "reward_weights", "gdpo_over"),
    ),
}  # fmt: skip
