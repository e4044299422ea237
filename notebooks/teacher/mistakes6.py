"""Lesson 6, what students get wrong. Per exercise: a near miss with what must be said about it, then other mistakes."""

from minidrpo.methods import baselines

MISTAKES = {
    "6a": {
        "near": (([(0, 0), (0, 0), (0, 1)], [(0, 0), (0, 0), (1, 0)]), "as asked; but to GDPO, too"),
        "wrong": [
            ([(0, 0), (0, 0), (0, 1)], [(0, 0), (0, 1), (0, 1)]),  # GRPO tells them apart
            ([(0, 0), (0, 1)], [(0, 0), (1, 1)]),
            ([(0, 0), (0, 0), (0, 1)], [(0, 0), (0, 0), (2, 2)]),
        ],
    },
    "6b": {"near": (1000, "right up to a factor"), "wrong": [0.002, 2001 * 8, 1.0]},
    "6c": {
        "near": (
            lambda reward, weight: baselines.gdpo_advantage(reward, weight, batch_norm=False),
            "within the groups",
        ),
        "wrong": [
            lambda reward, weight: baselines.gdpo_advantage(reward),  # no weights
            lambda reward, weight: baselines.gdpo_advantage(reward * weight),
            lambda reward, weight: baselines.grpo_advantage((reward * weight).sum(-1)),
        ],
        "bug": "normalis|divid|before",
    },
    "6d": {"near": (0.74, "against GRPO"), "wrong": [0.82, -0.081, 0.5]},
    "6e": {"near": ((0.5, 1), "right neighbourhood"), "wrong": [(2, 0.1), (3, 2), 2, (2, 7)]},
}
