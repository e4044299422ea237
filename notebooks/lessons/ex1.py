"""Checks of lesson 1, why a length penalty breaks."""

import torch

from exercises import call, equal, exercise, number
from experiments import mode_model
from minidrpo.methods import baselines
from toys import batch


@exercise(
    "1a",
    hints=[
        "at this alpha the response's reward is equal to the mean reward of the group",
        "set 1 - 0.8 alpha equal to the mean over all six responses; a wrong one earns 0",
    ],
)
def alpha_star(value):
    return number(
        value,
        3 / 3.33,
        "at your alpha the long response's reward is not the mean of its group",
        misses=[(1.47 / 2.4, "that is where it falls below the mean of the correct ones; the group has six responses")],
    )


@exercise(
    "1b",
    hints=[
        "the advantage changes its sign where the reward equals the mean; move this response's own part to one side",
        "average over the *other* responses; as how long does a wrong one count?",
    ],
)
def longest_safe(function):
    for lengths, n_wrong, max_length, alpha in (
        ([100, 200], 3, 1000, 1.0),
        ([270, 400], 3, 1000, 1.0),
        ([500] * 7, 0, 4096, 0.3),
        ([120], 1, 256, 0.8),
    ):
        value = float(call(function, lengths, n_wrong, max_length, alpha))
        signs = []
        for length in (value * 0.999, value * 1.001):
            length_PG = torch.tensor([[*lengths, length, *[max_length] * n_wrong]], dtype=torch.float64)
            correct_PG = torch.arange(length_PG.shape[1])[None] <= len(lengths)
            reward_PG = baselines.length_penalty_reward(correct_PG, length_PG, max_length, alpha)
            signs.append(baselines.grpo_advantage(reward_PG)[0, len(lengths)].item() > 0)
        if signs != [True, False]:
            right = "it is right at alpha 1, but " if alpha < 1 else ""
            return (
                f"{right}you say {value:.6g} for other correct lengths {lengths}, {n_wrong} wrong, C = {max_length}, "
                f"alpha = {alpha}, and the advantage keeps its sign there"
            )


@exercise(
    "1c",
    hints=[
        "append columns of padding to a batch: your value changes",
        "what should divide the sum over a response's tokens?",
    ],
)
def surrogate_bug(function):
    for seed in range(3):
        logp, old, mask, correct, _ = batch(seed, drift=0.5)
        advantage = baselines.grpo_advantage(correct.double()).flatten()
        value = call(function, logp, old, mask, advantage, shape=())
        if not equal(value, baselines.clipped_surrogate(logp, old, mask, advantage)):
            token = baselines.clipped_surrogate(logp, old, mask, advantage, aggregate="token")
            if equal(value, token):
                return "the same for a wider batch, as it must be; but here each token counts alike, not each response"
            return f"on a batch of 24 responses it gives {float(value):.4f}, GRPO's objective is another number"


@exercise(
    "1d",
    hints=[
        "in a solved group the reward is 1 - alpha |o|/C; what are its mean and its std?",
        "both the difference to the mean and the std carry the factor alpha/C: it cancels",
    ],
)
def solved_advantage(function):
    g = torch.Generator().manual_seed(0)
    length = torch.randint(50, 1000, (5, 6), generator=g).double()
    value = call(function, length, shape=length.shape)
    solved = torch.ones(5, 6, dtype=torch.bool)
    for alpha in (0.01, 1.0):
        rewards = baselines.length_penalty_reward(solved, length, 1000, alpha)
        advantage = baselines.grpo_advantage(rewards, "population", eps=0.0)
        if equal(value, advantage):
            continue
        if equal(value, -advantage):
            return "the size is right; but who gets the positive ones?"
        if equal(value, baselines.grpo_advantage(rewards, "sample", eps=0.0)):
            return "right up to a factor: the std is the population's, divided by G"
        if equal(value.sum(-1), torch.zeros(5).double()):
            return "the sum of each group is 0, as it must be; the sizes are not GRPO's"
        return "the advantages of a group must sum to 0"


@exercise(
    "1e",
    hints=[
        'rows = {"RLOO-LP": ("rloo-lp", {"alpha": 0.2})}, then the same three lines as above',
        "without a std the push of one solved group is small; how many solved groups does a step hold at each share?",
    ],
)
def leak(answer):
    predicted, measured = answer
    if len(predicted) != 3 or len(measured) != 3:
        return "three predictions and three accuracies, for 0.5, 0.8 and 0.95"
    rows = {"RLOO-LP": ("rloo-lp", {"alpha": 0.2})}
    found = mode_model.predict(rows, 40, sharings=(mode_model.MEASURED,), seeds=(0,))
    true = found.sort_values("share")["accuracy_hard"].tolist()
    right = [abs(float(a) - b) < 0.02 for a, b in zip(measured, true, strict=True)]
    if not all(right):
        return f"{sum(right)} of 3 accuracies are those that this run gives here, as shares between 0 and 1"
    hits = sum(bool(p) == (t > 0.5) for p, t in zip(predicted, true, strict=True))
    print(f"{hits} of your 3 predictions came true")
