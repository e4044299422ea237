"""Checks of lesson 6, the others and GDPO."""

import torch

from exercises import call, equal, exercise, number
from minidrpo.methods import baselines


@exercise(
    "6a",
    hints=[
        "look for totals that differ by a factor or a shift only",
        "let the two rewards move together in one group, and alone in the other",
    ],
)
def collapsed(groups):
    reward = torch.tensor(groups, dtype=torch.float64)
    if reward.shape != (2, 3, 2) or not set(reward.flatten().tolist()) <= {0, 1}:
        return "each group is three pairs of 0 and 1"
    by_sum = baselines.grpo_advantage(reward.sum(-1)).sort(-1).values
    by_reward = baselines.gdpo_advantage(reward, batch_norm=False).sort(-1).values
    same, apart = torch.allclose(by_sum[0], by_sum[1], atol=1e-5), not torch.allclose(*by_reward, atol=1e-3)
    if same and not apart:
        return "to GRPO the two are the same, as asked; but to GDPO, too"
    if apart and not same:
        return "GDPO tells the two apart, as asked; but GRPO does, too"
    return None if same else "GRPO tells them apart, and GDPO does not: it must be the other way round"


@exercise(
    "6b",
    hints=[
        "a wrong response of the shortest length earns 0",
        "a correct one earns 2 - 0.001 for each token of distance",
    ],
)
def no_better_than_wrong(value):
    return number(value, 2000, "at that distance a correct response does not earn what a short wrong one earns")


@exercise(
    "6c",
    hints=[
        "try weights that are not equal, and compare with equal ones",
        "what is left of a weight after you normalise?",
    ],
)
def gdpo_bug(function):
    reward = torch.rand(5, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for weights in ([1.0, 1.0], [1.0, 0.25], [0.5, 2.0]):
        weight_K = torch.tensor(weights, dtype=torch.float64)
        value = call(function, reward, weight_K, shape=(5, 6))
        if not equal(value, baselines.gdpo_advantage(reward, weight_K)):
            if weights == [1.0, 1.0]:
                sums = baselines.gdpo_advantage(reward, weight_K, batch_norm=False)
                near = "the part within the groups is right, the rest is not" if equal(value, sums) else ""
                return near or "already with equal weights it is not GDPO's advantage"
            return f"right with equal weights; with weights {weights} it is not GDPO's advantage"
