"""The load-bearing wall: the streamed update is the gradient of drpo_loss on the whole batch, however it is cut.

The reference below is written with none of train.py's machinery: one padded forward, drpo_loss, autograd, SGD.
"""

import dataclasses

import pytest
import torch
import torch.multiprocessing as mp
from conftest import make_rollouts, make_small_model

import drpo
import policy as policies
import train
from config import TINY

P, G = 6, 4
LR = 0.5  # large, so that the second mini-batch is far off-policy and feels the trust region


def settings(**changes):
    return dataclasses.replace(
        TINY, prompts_per_step=P, group_size=G, max_response_tokens=20, grad_clip=1e9, tau=0.5, lam=0.1, **changes
    )


def batch():
    rollouts = make_rollouts(P, G)
    correct_PG = torch.rand(P, G, generator=torch.Generator().manual_seed(1)) < 0.5
    correct_PG[0], correct_PG[3] = True, False  # nothing to learn from these two
    correct_PG[1, 0], correct_PG[1, 1] = True, False
    length_PG = torch.tensor([len(r.response_ids) for r in rollouts]).view(P, G)
    return rollouts, correct_PG, drpo.length_preference(length_PG, 20)


def reference(cfg):
    """Weights after the update, by the definition."""
    model, (rollouts, correct_PG, preference_PG) = make_small_model(), batch()
    policy, optimizer = policies.Policy(model, cfg.temperature), torch.optim.SGD(model.parameters(), lr=LR)
    ids, prompt, mask = policies.pad(rollouts)
    with torch.no_grad():
        old = policy(ids, prompt, mask)
    kls = []
    for answers, groups in zip(
        torch.arange(P * G).chunk(cfg.mini_batches), torch.arange(P).chunk(cfg.mini_batches), strict=True
    ):
        logp = policy(ids[answers], prompt[answers], mask[answers])
        loss, metrics = drpo.drpo_loss(
            logp, old[answers], mask[answers], correct_PG[groups], preference_PG[groups],
            lam=cfg.lam, tau=cfg.tau, beta=cfg.beta, delta=cfg.delta, kl_estimator=cfg.kl_estimator,
            score=cfg.score, negatives=cfg.negatives,
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        kls.append(metrics["kl"])
    return flat(model), kls


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def streamed(cfg, world):
    model, (rollouts, correct_PG, preference_PG) = make_small_model(), batch()
    policy, _ = train.set_up(model, cfg, world)
    weight_PG = drpo.positive_distribution(preference_PG, correct_PG, cfg.lam)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    numbers = train.update(policy, optimizer, rollouts, correct_PG, weight_PG, cfg, world)
    return flat(model), numbers


def check(after, cfg, reference_after):
    moved = (reference_after - flat(make_small_model())).norm()
    assert moved > 0.01
    assert (after - reference_after).norm() < 1e-5 * moved


CASES = [
    {"mini_batches": 1},
    {"mini_batches": 2, "kl_estimator": "k3"},
    {"mini_batches": 3, "kl_estimator": "k1"},
    {"mini_batches": 2, "score": "likelihood_ratio", "kl_estimator": "k3"},
    {"mini_batches": 1, "negatives": "mean"},
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("budget", [1, 60, 10**6])
def test_any_micro_batch_budget(case, budget):
    cfg = settings(micro_batch_tokens=budget, **case)
    after, kls = reference(cfg)
    ours, numbers = streamed(cfg, train.World())
    check(ours, cfg, after)
    assert numbers["kl"] == pytest.approx(kls[-1], rel=1e-3, abs=1e-6)
    if cfg.mini_batches > 1 and cfg.kl_estimator == "k3":
        assert kls[-1] > cfg.delta, "this case should press against the trust region"


@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks(ranks, tmp_path):
    """Answers of one group land on different ranks; gloo processes must agree with one process."""
    cases = [settings(micro_batch_tokens=60, **case) for case in CASES[:2]]
    mp.start_processes(_rank, (ranks, tmp_path, cases), nprocs=ranks, start_method="fork")
    for i, cfg in enumerate(cases):
        after, _ = reference(cfg)
        results = [torch.load(tmp_path / f"{i}-{rank}.pt", weights_only=True) for rank in range(ranks)]
        for ours, _ in results:
            check(ours, cfg, after)
        assert all(numbers == results[0][1] for _, numbers in results), "ranks must log the same global numbers"


def _rank(rank, ranks, folder, cases):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    for i, cfg in enumerate(cases):
        torch.save(streamed(cfg, train.World(rank, ranks)), folder / f"{i}-{rank}.pt")
    torch.distributed.destroy_process_group()
