"""The load-bearing wall: the streamed update is the gradient of the objective on the whole batch, however it is cut.

The references below are written with none of the trainer's machinery: one padded forward of the whole mini-batch,
drpo_loss or clipped_surrogate, autograd, SGD.
"""

import dataclasses

import pytest
import torch
import torch.multiprocessing as mp

import config
import drpo
import train
from conftest import make_rollouts, make_small_model
from minidrpo import setup
from minidrpo.engine import batches
from minidrpo.engine import policy as policies
from minidrpo.engine.distributed import DistContext
from minidrpo.engine.shard import whole
from minidrpo.methods import baselines
from minidrpo.methods import table as methods

P, G = 6, 4
LR = 1e-3  # large enough that the second mini-batch is far off-policy and feels the trust region


def settings(method="drpo", **changes):
    shape = dict(prompts_per_step=P, group_size=G, max_response_tokens=20, grad_clip=1e9)
    own = dict(tau=0.5, lam=0.1, sb_b=0.1, l1_target=10, length_limit=10, l1_alpha=0.05)
    own = {name: value for name, value in own.items() if name in methods.METHODS[method].flags}
    return config.make("tiny", method, **(shape | own | changes))


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
    ids, prompt, mask = batches.pad(rollouts)
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
    weights = [whole(p).flatten() for p in model.parameters()]
    gradients = [torch.zeros_like(w) if p.grad is None else whole(p.grad).flatten()
                 for p, w in zip(model.parameters(), weights, strict=True)]  # fmt: skip
    return torch.cat(weights), torch.cat(gradients)


def streamed(cfg, ctx, dtype, exact_sampler=False):
    model, (rollouts, correct_PG, preference_PG) = make_small_model().to(dtype), batch()
    if exact_sampler:
        rollouts = as_sampled(rollouts, model, cfg.temperature)
    policy, _ = setup.make_policy(model, cfg, ctx)
    weight_PG = drpo.positive_distribution(preference_PG, correct_PG, cfg.lam)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    numbers = train.update(policy, optimizer, rollouts, correct_PG, weight_PG, cfg, ctx, exact_sampler)
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
def test_streamed_gradient_is_that_of_drpo_loss(case, budget):
    cfg = settings(micro_batch_tokens=budget, **case)
    theirs = reference(cfg, torch.float64)
    ours = streamed(cfg, DistContext(), torch.float64)
    check(ours, theirs, torch.float64)
    assert ours[2]["kl"] == pytest.approx(theirs[2][-1], rel=1e-6)
    if cfg.mini_batches > 1 and cfg.kl_estimator == "k3":
        assert theirs[2][-1] > cfg.delta, "this case should press against the trust region"


@pytest.mark.parametrize("case", CASES[1:4:2], ids=str)
def test_an_exact_sampler_spares_a_pass_and_changes_nothing(case):
    cfg = settings(micro_batch_tokens=60, **case)
    ours = streamed(cfg, DistContext(), torch.float64, exact_sampler=True)
    check(ours, reference(cfg, torch.float64), torch.float64)
    assert ours[2]["sampler_gap"] < 1e-12 < streamed(cfg, DistContext(), torch.float64)[2]["sampler_gap"]
    check(streamed(cfg, DistContext(), torch.float32, exact_sampler=True), reference(cfg, torch.float32), torch.float32)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sharded", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["replicated", "sharded"])
def test_any_number_of_ranks(ranks, sharded, tmp_path):
    """Answers of one group land on different ranks; gloo processes must agree with one process, whether each holds the
    whole model or a part of it. With an answer a micro-batch some ranks have more of them, others fill up."""
    budgets = [1 if sharded else 60, 60, 60, 60, 1 if sharded else 60]
    cases = [
        (settings(micro_batch_tokens=budget, shard=sharded, **case), dtype)
        for budget, case, dtype in zip(budgets, CASES, DTYPES, strict=True)
    ]
    mp.start_processes(_rank, (ranks, tmp_path, cases), nprocs=ranks, start_method="fork")
    for i, (cfg, dtype) in enumerate(cases):
        theirs = reference(cfg, dtype)
        results = [torch.load(tmp_path / f"{i}-{rank}.pt", weights_only=True) for rank in range(ranks)]
        for ours in results:
            check(ours, theirs, dtype)
        assert all(numbers == results[0][2] for *_, numbers in results), "ranks must log the same global numbers"


def test_float32_gradient():
    cfg = settings(micro_batch_tokens=60)
    check(streamed(cfg, DistContext(), torch.float32), reference(cfg, torch.float32), torch.float32)


def _rank(rank, ranks, folder, cases):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks)
    for i, (cfg, dtype) in enumerate(cases):
        torch.save(streamed(cfg, DistContext(rank, ranks), dtype), folder / f"{i}-{rank}.pt")
    torch.distributed.destroy_process_group()


# ------------------------------------------------------------------------------------------- every method of the table

HOW = {  # what each clipped method promises, written down once more: aggregate, lower and upper clip
    **dict.fromkeys(("grpo", "grpo-lp", "rloo-lp", "alp", "hapo", "l1-max", "shorter-better", "laser-d"),
                    ("sequence", 0.2, 0.2)),
    **dict.fromkeys(("grpo-lp-no-std", "grpo-lp-mixed-only", "grpo-lp-batch-std"), ("sequence", 0.2, 0.2)),
    **dict.fromkeys(("ddca", "gr3", "lead", "drpo-solved"), ("sequence", 0.2, 0.2)),
    "dr-grpo": ("constant", 0.2, 0.2), "grpo-sum": ("token", 0.2, 0.28), "gdpo": ("token", 0.2, 0.28),
    "grpo-sum-no-std": ("token", 0.2, 0.28),
}  # fmt: skip
FAR = 0.1  # a learning rate that takes the second mini-batch's ratios past the clips


def method_settings(name, mini_batches=2, budget=60):
    return settings(name, mini_batches=mini_batches, micro_batch_tokens=budget)


def weights_of(cfg):
    """What the method says of `batch`, after it has seen as much before: HAPO has records, LASER-D has targets."""
    rollouts, correct_PG, _ = batch()
    length_PG = torch.tensor([len(r.response_ids) for r in rollouts]).view(P, G)
    graded = methods.Batch(correct_PG, length_PG, ["wait"] * P * G, torch.arange(P))
    state = methods.METHODS[cfg.method].new_state(cfg, P)
    _, state = methods.compute_weights(dataclasses.replace(graded, length_PG=length_PG.flip(1)), cfg, state)
    return rollouts, correct_PG, methods.compute_weights(graded, cfg, state)[0]


def method_reference(cfg):
    """(weights after the update, last gradient, the last ratios, the last KL) by the definition."""
    rollouts, correct_PG, weight_PG = weights_of(cfg)
    model = make_small_model().double()
    policy, optimizer = policies.Policy(model, cfg.temperature), torch.optim.SGD(model.parameters(), lr=FAR)
    ids, prompt, mask = batches.pad(rollouts)
    with torch.no_grad():
        old = policy(ids, prompt, mask)
    for m in range(cfg.mini_batches):
        groups = slice(m * P // cfg.mini_batches, (m + 1) * P // cfg.mini_batches)
        answers = slice(groups.start * G, groups.stop * G)
        logp = policy(ids[answers], prompt[answers], mask[answers])
        if cfg.method in HOW:
            aggregate, low, high = HOW[cfg.method]
            weight_N = weight_PG[groups].flatten().to(logp)
            objective = baselines.clipped_surrogate(
                logp, old[answers], mask[answers], weight_N, low, high, aggregate, max_tokens=cfg.max_response_tokens
            )
        else:
            score_PG = drpo.sequence_score(logp, mask[answers]).view(-1, G)
            negatives = "mean" if cfg.method == "disco-b" else "dro"
            weight = weight_PG[groups].to(logp)
            kl = drpo.kl_estimate(logp, old[answers], mask[answers])
            objective = drpo.drpo_objective(score_PG, correct_PG[groups], weight, cfg.tau, negatives)
            objective = objective - drpo.trust_region_penalty(kl, cfg.beta, cfg.delta)
        optimizer.zero_grad()
        (-objective).backward()
        optimizer.step()
    # What is logged is the KL of the answers that were scored: clipped methods leave those without advantage out
    scored = mask[answers] & (weight_PG[groups].flatten() != 0)[:, None] if cfg.method in HOW else mask[answers]
    log_ratio = (logp.detach() - old[answers])[scored]
    return *flat(model), log_ratio.exp(), -log_ratio.mean().item()


def method_streamed(cfg, ctx):
    rollouts, correct_PG, weight_PG = weights_of(cfg)
    model = make_small_model().double()
    policy, _ = setup.make_policy(model, cfg, ctx)
    optimizer = torch.optim.SGD(model.parameters(), lr=FAR)
    numbers = train.update(policy, optimizer, rollouts, correct_PG, weight_PG, cfg, ctx)
    return *flat(model), numbers


OF_A_KIND = (
    "disco",
    "grpo-lp",
    "alp",
    "l1-max",
    "shorter-better",
    "laser-d",
    "grpo-sum",
    "grpo-lp-no-std",
    "gr3",
    "grpo-lp-mixed-only",
    "grpo-lp-batch-std",
    "ddca",
)  # as others, by their update


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in OF_A_KIND)) for name in methods.METHODS]
)
def test_every_method_for_any_cut(name):
    for mini_batches, budgets in ((1, [10**6]), (3, [1, 100])):
        theirs = method_reference(method_settings(name, mini_batches))
        for budget in budgets:
            ours = method_streamed(method_settings(name, mini_batches, budget), DistContext())
            check(ours, theirs, torch.float64)
            assert ours[2]["kl"] == pytest.approx(theirs[3], abs=1e-9)
        if name in HOW:
            clipped = (theirs[2] < 0.8) | (theirs[2] > 1.2)
            assert clipped.any() == (mini_batches > 1), "the last of several mini-batches should meet the clips"


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_every_method_on_any_number_of_ranks(ranks, tmp_path):
    cases = [method_settings(name, budget=200) for name in methods.METHODS]
    mp.start_processes(_method_rank, (ranks, tmp_path, cases), nprocs=ranks, start_method="fork")
    for cfg in cases:
        theirs = method_reference(cfg)
        results = [torch.load(tmp_path / f"{cfg.method}-{rank}.pt", weights_only=True) for rank in range(ranks)]
        for ours in results:
            check(ours, theirs, torch.float64)
        assert all(numbers == results[0][2] for *_, numbers in results), "ranks must log the same global numbers"
        alone = method_streamed(cfg, DistContext())[2]
        assert results[0][2] == pytest.approx(alone, rel=1e-9), cfg.method


def _method_rank(rank, ranks, folder, cases):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    for cfg in cases:
        torch.save(method_streamed(cfg, DistContext(rank, ranks)), folder / f"{cfg.method}-{rank}.pt")
    torch.distributed.destroy_process_group()
