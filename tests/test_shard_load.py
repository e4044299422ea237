"""A sharded run's weights are read once, by rank 0; the other ranks start from shapes and come to the same numbers."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from test_shard import CFG, SAVED, STEPS, in_ranks, is_sharded, set_up, steps, weights, whole_run
from transformers import Qwen2Config, Qwen2ForCausalLM

from conftest import make_small_model
from minidrpo import setup
from minidrpo.engine import loading
from minidrpo.rundir import checkpoint

pytestmark = pytest.mark.slow


def seen_by(ctx, path):
    """`path` for rank 0; for another rank a directory of its own that has no weights at all."""
    if ctx.rank == 0:
        return path
    alone = path.with_name(f"{path.name}-{ctx.rank}")
    alone.mkdir(exist_ok=True)
    shutil.copy(path / "config.json", alone)
    return alone


def load(path, ctx):
    model = loading.load_model(seen_by(ctx, path), dtype=torch.float64, device="meta" if ctx.rank else "cpu")
    assert all(p.is_meta == bool(ctx.rank) for p in [*model.parameters(), *model.buffers()])
    return model


def going_on(folder, sharded, ctx):
    """From the checkpoint of whole_run to its end."""
    path = checkpoint.newest(folder)
    model = load(path, ctx)
    policy, optimizer, cfg = set_up(model, sharded, ctx)
    assert checkpoint.restore_optimizer(path, model, optimizer)[0] == SAVED
    logged = steps(policy, optimizer, cfg, ctx, SAVED + 1, STEPS)
    return {"logged": logged, "weights": weights(model), "buffers": [b.clone() for b in model.buffers()]}


def tied(folder, sharded, ctx):
    """Embedding and head are one, and stay one. Replicated: every rank with all weights, by DDP."""
    model = load(folder, ctx) if sharded else loading.load_model(folder, dtype=torch.float64)
    policy, optimizer, cfg = set_up(model, sharded, ctx)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    begin = weights(model).clone()
    steps(policy, optimizer, cfg, ctx, 1, 1)
    return {"begin": begin, "weights": weights(model)}


def untied(folder, sharded, ctx):
    """config.json says tied, the file holds a head of its own: what each rank says."""
    try:
        set_up(load(folder, ctx), sharded, ctx)
    except ValueError as error:
        return str(error)


def unreadable(folder, sharded, ctx):
    """The weights are missing: what each rank says."""
    try:
        setup.load_model(dataclasses.replace(CFG, shard=sharded), folder, ctx)
    except ValueError as error:
        return str(error)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load")
    model = make_small_model()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder / "tied")
    shutil.copytree(folder / "tied", folder / "empty", ignore=shutil.ignore_patterns("*.safetensors"))
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(2 * model.lm_head.weight.detach())
    model.save_pretrained(folder / "untied")
    shutil.copy(folder / "tied" / "config.json", folder / "untied")
    jobs = {
        "untied": (untied, folder / "untied", True),
        "whole": (whole_run, folder / "run", True),
        "went on": (going_on, folder / "run", True),
        "tied": (tied, folder / "tied", True),
        "tied, replicated": (tied, folder / "tied", False),
        "empty": (unreadable, folder / "empty", True),
    }
    return dict(zip(jobs, in_ranks(2, folder, *jobs.values()), strict=True))


def test_one_rank_reads_and_all_go_on_bit_for_bit(two):
    inv_freq = [b for b in make_small_model().buffers()]
    for ours, theirs in zip(two["went on"], two["whole"], strict=True):
        assert torch.equal(ours["weights"], theirs["weights"]) and ours["logged"] == theirs["logged"][SAVED:]
        assert len(inv_freq) == len(ours["buffers"]) > 0  # rotary tables are in no checkpoint
        assert all(torch.equal(a, b) for a, b in zip(ours["buffers"], inv_freq, strict=True))


def test_tied_weights_stay_one(two):
    for ours, theirs in zip(two["tied"], two["tied, replicated"], strict=True):
        assert torch.equal(ours["begin"], theirs["begin"])
        moved = theirs["weights"] - theirs["begin"]
        assert moved.norm() > 0 and (ours["weights"] - theirs["weights"]).norm() < 1e-8 * moved.norm()


def test_weights_that_are_not_what_config_json_says(two):
    assert two["untied"][0] == two["untied"][1] and "tie_word_embeddings" in two["untied"][0]


def test_weights_that_rank_0_cannot_read(two):
    assert two["empty"][0] == two["empty"][1] and "no causal language model at" in two["empty"][0]


def test_rank_0_s_numbers_win(tmp_path):
    """As with DDP: whatever other ranks hold, training starts from rank 0's."""
    for rank in in_ranks(2, tmp_path, (started, None, True))[0]:
        assert torch.equal(rank, weights(make_small_model(seed=0).double()))


def started(_, sharded, ctx):
    model = make_small_model(seed=ctx.rank).double()
    set_up(model, sharded, ctx)
    assert is_sharded(model)
    return weights(model)


def memory(_, sharded, ctx):
    """(bytes of the weights, how far main memory rose above its level before them) until the model is split."""
    config = Qwen2Config(
        vocab_size=1024,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=12,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    before = resident("VmRSS")
    with torch.device("meta" if ctx.rank else "cpu"):
        model = Qwen2ForCausalLM(config)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    set_up(model, sharded, ctx)
    return sum(p.numel() for p in model.parameters()) * 4, resident("VmHWM") - before


def resident(key):
    """VmRSS (now) or VmHWM (the highest so far) of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def test_main_memory_of_ranks_that_read_nothing(tmp_path):
    """Rank 1 needs room for its half of the weights, one layer and one tensor on its way."""
    # spawn: in a fork, what earlier tests left free would hold the weights unseen
    (_, first), (whole, second) = in_ranks(2, tmp_path, (memory, None, True), start_method="spawn")[0]
    assert second < 0.75 * whole < first, (first / whole, second / whole)
