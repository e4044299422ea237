r"""push.py - which groups push the policy towards the short way? The mode model's batches beside the network's own.

    python -m experiments.push        about a minute; writes experiments/results/push.md

The mode model (mode_model.py) predicts 41 of the study's 42 cells on the right side of 50 %. This asks why one differs
(and what explains it moves another one away: the count stays). The push of a response on
z = log pi(short) - log pi(long), at even odds and per token of its score, is

    credit / length * (1[short] - 1/2)

summed over the groups of a step: positive means that the step makes the short way more likely, on easy and on hard
prompts alike, as they share their parameters. Both policies are the ones before training: the model's six modes at even
odds, and the embedded base's own responses to training problems.

P prompts | G responses per prompt
"""

import random
import sys

import pandas as pd
import torch

import config
import reward
import rollout
from experiments import mode_model
from experiments.thinking_tables import NAMES
from minidrpo import cli, markdown
from minidrpo.engine import loading
from minidrpo.methods import table as methods
from minidrpo.records import Problem
from minidrpo.tasks import data, thinking

P, G, STEPS, TRIALS = 16, 8, 60, 5
CELLS = {  # the one that differs, and three that do not: (method, share of easy prompts) -> settings
    ("grpo-lp-batch-std", 0.95): {"alpha": 0.1},
    ("drpo-solved", 0.8): {"solved_mu": 1.0},
    ("grpo-lp", 0.95): {"alpha": 0.1},
    ("drpo", 0.95): {"lam": 0.1},
}
KINDS = ("solved groups", "mixed, easy", "mixed, hard")


def push(batch: methods.Batch, hard_P, short_PG, cfg) -> list[float]:
    """The push of a step by kind of group, times 1,000; groups that are all wrong have none under these methods."""
    weight_PG, _ = methods.compute_weights(batch, cfg, methods.METHODS[cfg.method].new_state(cfg, P * STEPS))
    credit_PG = methods.credit(weight_PG, batch, cfg) / batch.length_PG
    push_P = 1000 * (credit_PG * (short_PG.to(credit_PG) - 0.5)).sum(-1)
    solved_P = batch.correct_PG.all(-1)
    mixed_P = batch.correct_PG.any(-1) & ~solved_P
    return [push_P[kind].sum().item() for kind in (solved_P, mixed_P & ~hard_P, mixed_P & hard_P)]


def model_batches(share: float, world=None) -> list:
    """[(batch, hard_P, short_PG)] of the mode model before training."""
    g, even_2M = torch.Generator().manual_seed(0), torch.full((2, 6), 1 / 6).log()
    made = [mode_model.sample_batch(even_2M, share, P, G, world or mode_model.World(), g) for _ in range(STEPS)]
    return [(batch, hard_P.bool(), mode_PG < 3) for batch, mode_PG, hard_P in made]


def network_batches(share: float) -> list:
    """The same of the embedded base: its responses to training problems at the preset's temperature."""
    cfg = config.make("thinking", "drpo")
    model, tokenizer = loading.load_model(config.THINKING_MODEL), loading.load_tokenizer(config.THINKING_MODEL)
    made = thinking.problems(P * STEPS, split="train", easy_share=share)
    random.Random(0).shuffle(made)
    problems = [Problem(text, truth, str(level), i) for i, (text, truth, level) in enumerate(made)]
    problems, prompts, _ = data.encode_prompts(problems, tokenizer, max_tokens=256, template=True, suffix="")
    rollouts = rollout.TransformersSampler(model, tokenizer).sample(
        prompts,
        n=G,
        temperature=cfg.temperature,
        max_tokens=cfg.max_response_tokens,
        seeds=list(range(len(prompts))),
    )
    texts = [rollout.decode(r, tokenizer) for r in rollouts]
    graded = reward.grade_rollouts(problems, rollouts, texts)
    hard_P = torch.tensor([p.source != "1" for p in problems])
    short_PG = torch.tensor([thinking.is_short(text) for text in texts]).view(-1, G)
    return [
        (methods.Batch.of(graded[b * G : (b + P) * G], G, range(b, b + P)), hard_P[b : b + P], short_PG[b : b + P])
        for b in range(0, len(problems), P)
    ]


def short_right_on_easy(batches) -> tuple[int, int]:
    """(right, all) short responses to easy prompts: here the two differ most."""
    right = torch.cat([batch.correct_PG[~hard_P][short_PG[~hard_P]] for batch, hard_P, short_PG in batches])
    return int(right.sum()), len(right)


def describe(batches, method: str, settings: dict) -> dict:
    cfg = config.make("thinking", method, group_size=G, **settings)
    found = torch.tensor([push(*batch, cfg) for batch in batches])
    total = found.sum(-1)
    none_mixed = sum(not methods.drpo.mixed_groups(batch.correct_PG).any() for batch, *_ in batches)
    return {
        "steps without a mixed group, %": f"{100 * none_mixed / len(batches):.0f}",
        **{kind: f"{value:+.2f}" for kind, value in zip(KINDS, found.mean(0).tolist(), strict=True)},
        "together": f"{total.mean():+.2f} ± {total.std() / len(total) ** 0.5:.2f}",
    }


def again(method: str, share: float, settings: dict, world) -> str:
    """The prediction with another world: accuracy on hard prompts, %, over seeds."""
    runs = (
        mode_model.train(method, share, mode_model.MEASURED, seed=s, world=world, **settings) for s in range(TRIALS)
    )
    hard = torch.tensor([100 * run["accuracy_hard"] for run in runs])
    return f"{hard.mean():.0f} [{hard.min():.0f}, {hard.max():.0f}]"


def table() -> str:
    measured = pd.read_csv(mode_model.OUT / "thinking.csv").query(
        "phase == 'held out' and role == 'study' and base == 0"
    )
    network = {share: network_batches(share) for share in sorted({share for _, share in CELLS})}
    right, n = short_right_on_easy([batch for batches in network.values() for batch in batches])
    given = mode_model.World()
    told = mode_model.World(right=((right / n, 1.0), given.right[1]))
    rows, ends = [], []
    for (method, share), settings in CELLS.items():
        about = {"method": NAMES[method], "easy share": f"{share:g}"}
        for name, batches in (("model", model_batches(share)), ("network", network[share])):
            rows.append(about | {"batches of the": name} | describe(batches, method, settings))
        (strength,) = settings.values()
        cell = "method == @method and share == @share and strength == @strength and group == 'hard'"
        runs = measured.query(cell).accuracy
        ends.append(
            about
            | {"measured, %": f"{100 * runs.mean():.0f}"}
            | {f"model, {world.right[0][0]:.3f}": again(method, share, settings, world) for world in (given, told)}
        )
    return "\n".join((
        "Push towards the short way in a step before training, times 1,000, by kind of group; ± standard error over",
        f"{STEPS} steps of {P} prompts x {G} responses. `python -m experiments.push`\n",
        _markdown(rows),
        f"Short responses of the base to easy training problems: {right} of {n} are right. The model was given",
        f"{100 * given.right[0][0]:.0f} %. What it predicts with either number: accuracy on hard prompts, mean",
        f"and range of {TRIALS} seeds:\n",
        _markdown(ends),
    ))  # fmt: skip


def _markdown(rows: list[dict]) -> str:
    return markdown.table(rows[0], (row.values() for row in rows)) + "\n"


def main(argv=None):
    cli.parse(cli.NoFlags, argv, prog="push.py", description="Which groups push the policy towards the short way?")
    torch.set_num_threads(1)
    found = table()
    (mode_model.OUT / "push.md").write_text(found, encoding="utf-8")
    print(found)


if __name__ == "__main__":
    sys.exit(main())
