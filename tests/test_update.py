"""The load-bearing wall: the streamed update is the gradient of drpo_loss on the whole batch, however it is cut.

The reference below is written with none of train.py's machinery: one padded forward, drpo_loss, autograd, SGD.
"""

import dataclasses

import pytest
import torch
import torch.multiprocessing as mp

import drpo
import policy as policies
import train
import update
from config import TINY
from conftest import make_rollouts, make_small_model
from world import World

P, G = 6, 4
LR = 1e-3  # large enough that the second mini-batch is far off-policy and feels the trust region


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


def reference(cfg, dtype):
    """(weights after the update, last gradient, KLs) by the definition."""
    model, (rollouts, correct_PG, preference_PG) = make_small_model().to(dtype), batch()
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
    return *flat(model), kls


def flat(model):
    """(weights, gradient), each one long vector."""
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return weights, torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
                               for p in model.parameters()])  # fmt: skip


def streamed(cfg, world, dtype, exact_sampler=False):
    model, (rollouts, correct_PG, preference_PG) = make_small_model().to(dtype), batch()
    if exact_sampler:
        rollouts = as_sampled(rollouts, model, cfg.temperature)
    policy, _ = train.set_up(model, cfg, world)
    weight_PG = drpo.positive_distribution(preference_PG, correct_PG, cfg.lam)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    numbers = update.update(policy, optimizer, rollouts, correct_PG, weight_PG, cfg, world, exact_sampler)
    return *flat(model), numbers


@torch.no_grad()
def as_sampled(rollouts, model, temperature):
    """The same answers with the log-probabilities an exact sampler would have noted, one answer at a time."""
    noted = []
    for r in rollouts:
        ids, first = torch.tensor([r.prompt_ids + r.response_ids]), len(r.prompt_ids)
        logp_TV = (model(ids).logits[0, first - 1 : -1] / temperature).log_softmax(-1)
        noted.append(dataclasses.replace(r, logp=logp_TV[range(len(r.response_ids)), r.response_ids].tolist()))
    return noted


def relative_error(ours, theirs):
    assert theirs.norm() > 1e-4
    return ((ours - theirs).norm() / theirs.norm()).item()


def check(ours, theirs, dtype):
    """Gradient of the last mini-batch to 1e-5 in float32; in float64 the weights after all mini-batches too."""
    assert relative_error(ours[1], theirs[1]) < (1e-5 if dtype == torch.float32 else 1e-8)
    if dtype == torch.float64:
        before = flat(make_small_model().double())[0]
        assert relative_error(ours[0] - before, theirs[0] - before) < 1e-8


CASES = [
    {"mini_batches": 1},
    {"mini_batches": 2, "kl_estimator": "k3"},
    {"mini_batches": 3, "kl_estimator": "k1"},
    {"mini_batches": 2, "score": "likelihood_ratio", "kl_estimator": "k3"},
    {"mini_batches": 1, "negatives": "mean"},
]
DTYPES = [torch.float32, *[torch.float64] * 4]  # over ranks: float32 for the first case, the exact check for the rest


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("budget", [1, 60, 10**6])
def test_any_micro_batch_budget(case, budget):
    cfg = settings(micro_batch_tokens=budget, **case)
    theirs = reference(cfg, torch.float64)
    ours = streamed(cfg, World(), torch.float64)
    check(ours, theirs, torch.float64)
    assert ours[2]["kl"] == pytest.approx(theirs[2][-1], rel=1e-6)
    if cfg.mini_batches > 1 and cfg.kl_estimator == "k3":
        assert theirs[2][-1] > cfg.delta, "this case should press against the trust region"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_exact_sampler_spares_a_pass_and_changes_nothing(case):
    cfg = settings(micro_batch_tokens=60, **case)
    ours = streamed(cfg, World(), torch.float64, exact_sampler=True)
    check(ours, reference(cfg, torch.float64), torch.float64)
    assert ours[2]["sampler_gap"] < 1e-12 < streamed(cfg, World(), torch.float64)[2]["sampler_gap"]
    check(streamed(cfg, World(), torch.float32, exact_sampler=True), reference(cfg, torch.float32), torch.float32)


@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks(ranks, tmp_path):
    """Answers of one group land on different ranks; gloo processes must agree with one process."""
    cases = [(settings(micro_batch_tokens=60, **c), d) for c, d in zip(CASES, DTYPES, strict=True)]
    mp.start_processes(_rank, (ranks, tmp_path, cases), nprocs=ranks, start_method="fork")
    for i, (cfg, dtype) in enumerate(cases):
        theirs = reference(cfg, dtype)
        results = [torch.load(tmp_path / f"{i}-{rank}.pt", weights_only=True) for rank in range(ranks)]
        for ours in results:
            check(ours, theirs, dtype)
        assert all(numbers == results[0][2] for *_, numbers in results), "ranks must log the same global numbers"


def test_float32_gradient():
    cfg = settings(micro_batch_tokens=60)
    check(streamed(cfg, World(), torch.float32), reference(cfg, torch.float32), torch.float32)


def _rank(rank, ranks, folder, cases):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    for i, (cfg, dtype) in enumerate(cases):
        torch.save(streamed(cfg, World(rank, ranks), dtype), folder / f"{i}-{rank}.pt")
    torch.distributed.destroy_process_group()
