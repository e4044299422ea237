"""Checks of lesson 6, the others and GDPO."""

import functools

import torch

from exercises import Say, call, equal, exercise, near, number, unsolved
from experiments import mode_model
from minidrpo.methods import baselines
from minidrpo.rundir import metrics


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


@exercise("6d", hints=["AES against each of the two references; accuracy rose in both cases", "0.82 and 0.74"])
def aes_fall(value):
    own, common = (metrics.aes(0.884, 43.3, *reference) for reference in ((0.817, 101.9), (0.850, 113.3)))
    return number(
        value,
        own - common,
        "not the difference of the two scores",
        rel=0.02,
        misses=[
            (own, "that is the score against its own run; asked for is how much it falls"),
            (common, "that is the score against GRPO; asked for is how much it falls"),
            (common - own, "the size is right; a fall is positive"),
        ],
    )


ALPHAS = (0.1, 0.5, 1, 2, 5)


@functools.cache
def hard_without_std(alpha):
    """Accuracy on hard prompts in the mode model, three seeds."""
    rule = {"steps": mode_model.STEPS, "alpha": alpha}
    runs = [mode_model.train("grpo-lp-no-std", 0.8, mode_model.MEASURED, seed=seed, **rule) for seed in range(3)]
    return [run["accuracy_hard"] for run in runs]


@exercise(
    "6e",
    hints=[
        "train with each alpha and read accuracy_hard of the three seeds",
        "in a solved group the push is alpha times the difference in length over C, however small the group's std is",
    ],
)
def strongest_without_std(answer):
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise Say("two numbers, please: what you predicted, and what the run says")
    if unsolved(answer[1]):
        raise Say("a prediction, good. Now run it")
    predicted, measured = map(float, answer)
    collapsed = next(alpha for alpha in ALPHAS if max(hard_without_std(alpha)) < 0.5)
    if predicted not in ALPHAS:
        return f"your prediction must be one of {', '.join(map(str, ALPHAS))}"
    if not near(measured, collapsed):
        at = hard_without_std(measured) if measured in ALPHAS else []
        numbers = f": at alpha = {measured:g} the three seeds have {', '.join(f'{x:.0%}' for x in at)}" if at else ""
        good = "the right neighbourhood, but " if measured in (1, 5) else ""
        return f"{good}the run says otherwise{numbers}"
