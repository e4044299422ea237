r"""mode_model.py - a small policy on which a length penalty can cost accuracy: a choice of way per class.

    python -m experiments.mode_model              the predictions, as tables and as results/map_predicted.csv
    python -m experiments.mode_model --measure    the sharing of the embedded base

A response is one of six modes: the short or the long way, with no, one or two needless re-checks. Easy prompts are
answered right in either way; hard ones only in the long way. The policy has logits for the modes; a part of them is
shared by easy and hard prompts (`sharing`), as the weights of a network are:

    logit_m(class) = sqrt(sharing) shared_m + sqrt(1 - sharing) own_m(class)

How much a network shares can be measured before any reinforcement learning: here the gradients of a log-odds, such as
short against long, on an easy and on a hard prompt have the cosine `sharing`; `measured_sharing` takes the cosine of
the same gradients in the base model. Its value for the embedded base, MEASURED, is the column that predicts the study.

Everything else is the project's: a step samples P groups of G, `compute_weights` and `credit` say what each method does
with them, and the gradient of a mode's log-probability is taken with that credit, divided by the response's length, as
the first tokens of a response get it (a score is a mean over tokens). Adam takes the step, as in training.

P prompts | G responses per prompt | M modes
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

import config
from minidrpo import cli
from minidrpo.engine import loading
from minidrpo.methods import table as methods
from minidrpo.records import Problem
from minidrpo.tasks import data, thinking

OUT = Path(__file__).parent / "results"
STEPS = 40  # of the study's runs
MEASURED = 0.997
"""measured_sharing() of the embedded base. Fixed before the study ran: nothing in the map is fitted to its results."""
SHARES, SHARINGS = (0.5, 0.8, 0.95), (0.5, 0.9, MEASURED)


@dataclass(frozen=True)
class World:
    """The base model's card (minidrpo/tiny/thinking/README.md), rounded. Rows: easy (level 1), hard (2 to 5)."""

    right: tuple = ((0.98, 1.0), (0.08, 0.95))
    """Chance that the answer is right, (short, long)."""
    tokens: tuple = ((20, 32, 45, 46, 65, 83), (25, 43, 60, 74, 119, 165))
    """Length of each mode: the short way with 0, 1, 2 re-checks, then the long way."""
    limit: int = 256


def sample_batch(logp_2M, share: float, P: int, G: int, world: World, g: torch.Generator):
    """One step's graded responses of the policy logp_2M: (Batch, mode_PG, hard_P); hard_P is 1 for hard prompts."""
    length_2M, chance_2M = torch.tensor(world.tokens), torch.tensor(world.right).repeat_interleave(3, 1)
    hard_P = (torch.rand(P, generator=g) > share).long()
    mode_PG = torch.multinomial(logp_2M.detach().exp()[hard_P], G, replacement=True, generator=g)
    chance_PG, length_PG = chance_2M[hard_P].gather(1, mode_PG), length_2M[hard_P].gather(1, mode_PG)
    correct_PG = torch.rand(P, G, generator=g) < chance_PG
    noise_PG = torch.randint(-3, 4, (P, G), generator=g)  # numbers have one or two digits
    length_PG = (length_PG + noise_PG).clamp(max=world.limit).long()
    return methods.Batch(correct_PG, length_PG, [""] * P * G, torch.arange(P)), mode_PG, hard_P


def train(method: str, share: float, sharing: float, *, steps=STEPS, P=16, G=8, lr=0.1, seed=0, world=None, **settings):
    """Accuracy, length and share of the short way after training, by class: a dict of floats."""
    world, g = world or World(), torch.Generator().manual_seed(seed)
    cfg = config.make("tiny", method, max_response_tokens=world.limit, group_size=G, **settings)
    length_2M, chance_2M = torch.tensor(world.tokens), torch.tensor(world.right).repeat_interleave(3, 1)
    shared_M, own_2M = torch.zeros(6, requires_grad=True), torch.zeros(2, 6, requires_grad=True)
    optimizer, state = torch.optim.Adam([shared_M, own_2M], lr=lr), methods.METHODS[method].new_state(cfg, 10**4)

    def logp():
        return (sharing**0.5 * shared_M + (1 - sharing) ** 0.5 * own_2M).log_softmax(-1)

    for step in range(steps):
        logp_2M = logp()
        batch, mode_PG, hard_P = sample_batch(logp_2M, share, P, G, world, g)
        problem_P = torch.arange(P) + P * (step % 5)  # problems come back every fifth step, for HAPO's records
        batch = replace(batch, problem_P=problem_P)
        weight_PG, state = methods.compute_weights(batch, cfg, state)
        credit_PG = methods.credit(weight_PG, batch, cfg) / batch.length_PG
        optimizer.zero_grad()
        (-(credit_PG * logp_2M[hard_P].gather(1, mode_PG)).sum()).backward()
        optimizer.step()
    p_2M = logp().detach().exp()
    accuracy, length = (p_2M * chance_2M).sum(-1).tolist(), (p_2M * length_2M).sum(-1).tolist()
    numbers = {"accuracy": accuracy, "length": length, "short": p_2M[:, :3].sum(-1).tolist()}
    return {f"{key}_{name}": x[i] for i, name in enumerate(("easy", "hard")) for key, x in numbers.items()}


METHODS = {  # in the order of the map: label -> (method, settings)
    "DRPO λ .1": ("drpo", {"lam": 0.1}),
    "DisCO": ("disco", {}),
    "GRPO": ("grpo", {}),
    "GRPO-LP α .1": ("grpo-lp", {"alpha": 0.1}),
    "no std": ("grpo-lp-no-std", {"alpha": 0.1}),
    "std, mixed groups only": ("grpo-lp-mixed-only", {"alpha": 0.1}),
    "batch std": ("grpo-lp-batch-std", {"alpha": 0.1}),
    "RLOO-LP α .2": ("rloo-lp", {"alpha": 0.2}),
    "ALP β 1e-8": ("alp", {"alp_beta": 1e-8}),
    "HAPO w .1": ("hapo", {"hapo_w": 0.1}),
    "DDCA β .2": ("ddca", {"ddca_beta": 0.2}),
    "GR3 α .33": ("gr3", {}),
    "LEAD": ("lead", {}),
    "DRPO, solved too μ 1": ("drpo-solved", {"solved_mu": 1.0}),
}


LONG_RUNS = {  # the corner: short on easy prompts and careful on hard ones, after 200 steps
    "DRPO λ .1": ("drpo", {"lam": 0.1}),
    "no std α .5": ("grpo-lp-no-std", {"alpha": 0.5}),
    "RLOO-LP α .1": ("rloo-lp", {"alpha": 0.1}),
    "RLOO-LP α .2": ("rloo-lp", {"alpha": 0.2}),
    "DDCA β .2": ("ddca", {"ddca_beta": 0.2}),
    "ours, solved μ .3": ("drpo-solved", {"solved_mu": 0.3}),
    "ours, solved μ .6": ("drpo-solved", {"solved_mu": 0.6}),
    "ours, solved μ 1": ("drpo-solved", {"solved_mu": 1.0}),
}
CELL = ["label", "method", "steps", "share", "sharing"]


def measured_sharing(model, tokenizer, n=100) -> float:
    """Cosine of the gradients of log pi(short) - log pi(long), by all weights of the base, between the mean easy and
    the mean hard prompt among n. The way is chosen with the first token, so that one forward pass per prompt is enough.
    """
    made = thinking.problems(n, split="train")
    problems = [Problem(text, truth, f"{level}", i) for i, (text, truth, level) in enumerate(made)]
    problems, prompts, _ = data.encode_prompts(problems, tokenizer, max_tokens=256, template=True, suffix="")
    short, long = (tokenizer.encode(words, add_special_tokens=False)[0] for words in (thinking.SHORT, thinking.LONG))
    mean = {}
    for is_easy in (True, False):
        model.zero_grad()
        for problem, ids in zip(problems, prompts, strict=True):
            if (problem.source == "1") == is_easy:
                logits_V = model(input_ids=torch.tensor([ids])).logits[0, -1]
                (logits_V[short] - logits_V[long]).backward()  # gradients add up; a cosine needs no mean
        mean[is_easy] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return torch.nn.functional.cosine_similarity(mean[True], mean[False], dim=0).item()


def predict(rows: dict, steps: int, shares=SHARES, sharings=SHARINGS, seeds=(0, 1, 2)) -> pd.DataFrame:
    """One row per method, share of easy prompts and sharing: means over seeds."""
    found = [
        dict(zip(CELL, (label, method, steps, share, sharing), strict=True))
        | train(method, share, sharing, steps=steps, seed=seed, **settings)
        for label, (method, settings) in rows.items()
        for share in shares
        for sharing in sharings
        for seed in seeds
    ]
    return pd.DataFrame(found).groupby(CELL, sort=False).mean().reset_index()


@dataclass(frozen=True)
class Flags:
    measure: bool = False
    """Only measure how far the network shares its parameters between prompts."""


def main(argv=None):
    asked = cli.parse(Flags, argv, prog="mode_model.py", description="What the mode model predicts of the study.")
    torch.set_num_threads(1)
    if asked.measure:
        model, tokenizer = loading.load_model(config.THINKING_MODEL), loading.load_tokenizer(config.THINKING_MODEL)
        return print(f"sharing {measured_sharing(model, tokenizer):.4f}")
    found = pd.concat([predict(METHODS, STEPS), predict(LONG_RUNS, 200, (0.8,))])
    OUT.mkdir(exist_ok=True)
    found.round(4).to_csv(OUT / "map_predicted.csv", index=False, lineterminator="\n")
    print(f"Accuracy on hard prompts, %, after {STEPS} steps: share of easy prompts, sharing")
    hard = found[found.steps == STEPS].set_index(CELL)["accuracy_hard"].unstack(["share", "sharing"])
    print(hard.mul(100).round(0).astype(int).droplevel(["method", "steps"]).to_string())
    print("After 200 steps, 80 % easy: who is short on easy prompts and right on hard ones?")
    print(found[found.steps == 200].drop(columns=["method", "steps", "share"]).round(2).to_string(index=False))


if __name__ == "__main__":
    sys.exit(main())
