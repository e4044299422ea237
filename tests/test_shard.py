"""--shard: the loss curve of a replicated run, checkpoints that any number of ranks takes up, half the memory on two.

All in float64 on gloo, so that equal means equal; over one mini-batch, tests/test_update.py compares the gradients.
"""

import dataclasses
import os
import resource
import weakref

import pytest
import torch
import torch.multiprocessing as mp
from test_checkpoint import NoTokenizer
from torch.distributed.tensor import DTensor

import drpo
import train
from config import TINY
from conftest import make_rollouts, make_small_model
from minidrpo import setup
from minidrpo.engine import loading, shard
from minidrpo.engine import policy as policies
from minidrpo.engine.distributed import DistContext
from minidrpo.rundir import checkpoint

P, G, STEPS, SAVED = 4, 4, 3, 1
CFG = dataclasses.replace(
    TINY,
    prompts_per_step=P,
    group_size=G,
    mini_batches=2,
    micro_batch_tokens=60,
    max_response_tokens=20,
    lr=1e-3,
    tau=0.5,
    gradient_checkpointing=True,
)


def steps(policy, optimizer, cfg, ctx, first, last):
    """Updates on made-up answers, other ones each step; the numbers logged."""
    logged = []
    for step in range(first, last + 1):
        rollouts = make_rollouts(P, G, seed=step)
        correct_PG = torch.rand(P, G, generator=torch.Generator().manual_seed(step)) < 0.5
        length_PG = torch.tensor([len(r.response_ids) for r in rollouts]).view(P, G)
        weight_PG = drpo.positive_distribution(drpo.length_preference(length_PG, 20), correct_PG, cfg.lam)
        logged.append(train.update(policy, optimizer, rollouts, correct_PG, weight_PG, cfg, ctx))
    return logged


def set_up(model, sharded, ctx):
    cfg = dataclasses.replace(CFG, shard=sharded)
    policy, optimizer = setup.make_policy(model, cfg, ctx)
    optimizer.param_groups[0]["eps"] = 1e-3  # 1e-8 blows up the rounding of gradients that are really 0 (keys' biases)
    getattr(policy, "module", policy).head_chunk_elements = 23 * 5  # five tokens at a time, recomputed in backward
    return policy, optimizer, cfg


def load(folder, sharded, ctx):
    path = checkpoint.newest(folder)
    model = loading.load_model(path, dtype=torch.float64)
    policy, optimizer, cfg = set_up(model, sharded, ctx)
    assert checkpoint.restore_optimizer(path, model, optimizer)[0] == SAVED
    return model, policy, optimizer, cfg


def weights(model):
    return torch.cat([tensor.flatten() for _, tensor in shard.named_weights(model)])


def is_sharded(model):
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def everything(model, optimizer):
    """{name: tensor} of all that a checkpoint must bring back: weights, moments and AdamW's step counters, whole."""
    parts = {
        f"{name} {key}": shard.whole(tensor).clone()
        for name, parameter in model.named_parameters()
        for key, tensor in ({"weight": parameter} | optimizer.state[parameter]).items()
    }
    assert len(parts) == 4 * len(list(model.parameters()))
    return parts


def restored(folder, sharded, ctx):
    model, policy, optimizer, cfg = load(folder, sharded, ctx)
    return everything(model, optimizer)


def bytes_held(model, optimizer):
    states = [value for state in optimizer.state.values() for value in state.values()]
    return sum(getattr(t, "_local_tensor", t).nbytes for t in [*model.parameters(), *states])


def whole_run(folder, sharded, ctx):
    """STEPS updates with a checkpoint on the way: what was logged, the weights at the end, bytes on this rank."""
    model = make_small_model().double()
    policy, optimizer, cfg = set_up(model, sharded, ctx)
    logged = steps(policy, optimizer, cfg, ctx, 1, SAVED)
    checkpoint.save(folder, SAVED, model, NoTokenizer(), optimizer, ctx=ctx)
    saved = everything(model, optimizer)
    logged += steps(policy, optimizer, cfg, ctx, SAVED + 1, STEPS)
    return {"logged": logged, "weights": weights(model), "bytes": bytes_held(model, optimizer), "saved": saved}


def resumed_run(folder, sharded, ctx):
    model, policy, optimizer, cfg = load(folder, sharded, ctx)
    logged = steps(policy, optimizer, cfg, ctx, SAVED + 1, STEPS)
    return {"logged": logged, "weights": weights(model), "bytes": bytes_held(model, optimizer)}


def sampled(folder, sharded, ctx):
    """A sampler with its own weights gets the trainer's; a plain forward of the sharded model agrees with it."""
    import rollout

    model, policy, optimizer, cfg = load(folder, sharded, ctx)
    sampler = rollout.make_sampler("transformers", make_small_model, None, None, device="cpu")
    seen = []
    for _, tensor in shard.named_weights(model):
        assert not any(weak() is not None for weak in seen), "a full tensor outlives the next one's gathering"
        seen.append(weakref.ref(tensor))
    del tensor
    forward, names = shard.forward_of(policy, model), [name for name, _ in model.named_parameters()]
    sampler.update_weights(model, policy)
    answers = sampler.sample([[5, 6, 7]], n=ctx.rank + 1, temperature=1.0, max_tokens=6, seeds=[1])  # not in step
    ids = torch.tensor([[5, 6, 7, *answers[0].response_ids]])
    with torch.no_grad():
        ours = forward(ids, logits_to_keep=2).logits
    assert not is_sharded(sampler.model) and is_sharded(model)
    assert names == [name for name, _ in model.named_parameters()]
    return {"weights": weights(sampler.model), "logits": ours, "expected": sampler.model(ids, logits_to_keep=2).logits}


def held_once(folder, sharded, ctx):
    """Where the gradients of a replicated model live, at every forward pass of two updates."""
    model, places = make_small_model().double(), []
    policy, optimizer, cfg = set_up(model, sharded, ctx)
    policy.register_forward_pre_hook(lambda *_: places.append([p.grad.data_ptr() for p in model.parameters()]))
    steps(policy, optimizer, cfg, ctx, 1, 2)
    return places


def full_disk(folder, sharded, ctx):
    """Rank 1 may write no file of more than 4 kB: what both ranks then say."""
    model, policy, optimizer, cfg = load(folder, sharded, ctx)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if ctx.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        checkpoint.save(folder, 9, model, NoTokenizer(), optimizer, ctx=ctx)
    except OSError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def in_ranks(ranks, tmp_path, *jobs, start_method="fork"):
    """[(job, folder, sharded), ...] on gloo ranks; for each job, the results of all ranks."""
    folder = tmp_path / f"ranks-{ranks}"
    folder.mkdir()
    mp.start_processes(_rank, (ranks, folder, jobs), nprocs=ranks, start_method=start_method)
    return [[torch.load(folder / f"{i}-{rank}.pt") for rank in range(ranks)] for i in range(len(jobs))]


def _rank(rank, ranks, folder, jobs):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    for i, (job, job_folder, sharded) in enumerate(jobs):
        torch.save(job(job_folder, sharded, DistContext(rank, ranks)), folder / f"{i}-{rank}.pt")
    torch.distributed.destroy_process_group()
    os._exit(0)  # as minidrpo.engine.distributed.shutdown() does


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two ranks came to, and where their checkpoints are."""
    folder = tmp_path_factory.mktemp("two")
    split, copied = folder / "sharded", folder / "replicated"
    names = ("sharded", "replicated", "resumed", "sampled", "full", "places")
    results = in_ranks(
        2,
        folder,
        (whole_run, split, True),
        (whole_run, copied, False),
        (resumed_run, split, True),
        (sampled, split, True),
        (full_disk, split, True),
        (held_once, None, False),
    )
    return dict(zip(names, results, strict=True)) | {"split": split, "copied": copied}


def close(ours, theirs, tolerance=1e-8):
    start = weights(make_small_model().double())
    assert (ours["weights"] - theirs["weights"]).norm() < tolerance * (theirs["weights"] - start).norm()
    for a, b in zip(ours["logged"][::-1], theirs["logged"][::-1], strict=False):  # from the end: a resumed one is short
        assert a == pytest.approx(b, rel=100 * tolerance, abs=1e-12)


def test_the_loss_curve_of_a_replicated_run(two):
    replicated, sharded = two["replicated"][0], two["sharded"]
    assert len({n["objective"] for n in replicated["logged"]}) == STEPS and replicated["logged"][-1]["kl"] != 0
    for rank in sharded:
        close(rank, replicated)
    assert sharded[0]["logged"] == sharded[1]["logged"], "ranks must log the same numbers"


def test_two_ranks_hold_half_each(two):
    whole, halves = two["replicated"][0]["bytes"], [rank["bytes"] for rank in two["sharded"]]
    counters = 8 * len(list(make_small_model().parameters()))
    assert sum(halves) <= whole + counters and max(halves) < 0.52 * whole, (halves, whole)


def test_replicated_gradients_stay_in_their_buckets(two):
    """From the first micro-batch on, and between updates: new ones beside the buckets would be held twice."""
    for places in two["places"]:
        assert len(places) > 8 and all(at == places[0] for at in places)


def test_resumed_bit_for_bit(two):
    for ours, theirs in zip(two["resumed"], two["sharded"], strict=True):
        assert torch.equal(ours["weights"], theirs["weights"]) and ours["logged"] == theirs["logged"][SAVED:]


@pytest.mark.slow
@pytest.mark.parametrize("written", ["sharded", "replicated"])
def test_any_number_of_ranks_reads_the_same_bits(two, tmp_path, written):
    """What two ranks wrote, one, two and three ranks read, sharded (three cut unevenly) and replicated."""
    folder, saved = two["split" if written == "sharded" else "copied"], two[written][0]["saved"]
    jobs = (restored, folder, True), (restored, folder, False)
    read = [rank for ranks in (2, 3) for job in in_ranks(ranks, tmp_path, *jobs) for rank in job]
    for tensors in (*read, restored(folder, False, DistContext())):
        assert tensors.keys() == saved.keys()
        assert all(torch.equal(tensors[name], tensor) for name, tensor in saved.items())
    counters = [tensor for name, tensor in saved.items() if name.endswith(" step")]
    assert counters and all(counter == CFG.mini_batches * SAVED for counter in counters)


@pytest.mark.slow
def test_another_number_of_ranks_goes_on(two, tmp_path):
    """Two sharded ranks wrote; one process, and three ranks (which cut unevenly), take over. And the other way. Other
    micro-batches meet the float32 inside Qwen's norms and rotary tables otherwise, three replicated ranks just so."""
    theirs = two["replicated"][0]
    close(resumed_run(two["split"], False, DistContext()), theirs)
    for three in in_ranks(3, tmp_path, (resumed_run, two["split"], True), (resumed_run, two["copied"], True)):
        for rank in three:
            close(rank, theirs, 1e-6)


def test_a_full_disk_of_one_rank(two):
    """Every rank hears of it, and the checkpoint before stays the newest."""
    assert all("step_9" in said and "rank 1" in said and len(said) < 400 for said in two["full"])
    assert [path.name for path in (two["split"] / "checkpoints").iterdir()] == [f"step_{SAVED}"]


def test_new_weights_reach_a_sampler(two):
    for rank in two["sampled"]:
        model = loading.load_model(checkpoint.newest(two["split"]), dtype=torch.float64)
        torch.testing.assert_close(rank["weights"], weights(model).float())
        torch.testing.assert_close(rank["logits"].float(), rank["expected"], rtol=1e-4, atol=1e-4)


def test_tied_weights_are_saved_as_one(small_model):
    small_model.lm_head.weight = small_model.model.embed_tokens.weight
    assert small_model.state_dict().keys() - shard.whole_state(small_model).keys() == {"lm_head.weight"}


def test_what_cannot_be_split(small_model):
    with pytest.raises(ValueError, match="start with torchrun"):
        shard.shard(policies.Policy(small_model, 1.0), DistContext())
    with pytest.raises(ValueError, match="does not say what its layers are"):
        shard.shard(policies.Policy(torch.nn.Linear(2, 2), 1.0), DistContext(0, 2))
