"""sharding.py - memory of a rank, replicated and sharded, on the CPU: one update of 17 million weights, two gloo ranks.
And of starting a sharded run with 222 million: each rank reads them all, or rank 0 alone.

    python -m experiments.benchmarks.sharding

Counted: bytes of the tensors a rank holds. Measured: how far resident memory rises above its level before the model
was made, at its peak. In between: what docs/memory.md's terms say of this model.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from experiments.benchmarks.gpu_parts import make_model
from experiments.benchmarks.logprob_memory import resident
from minidrpo import cli
from minidrpo.engine.memory import Shapes

MODES = ("replicated", "sharded")
READERS = ("each rank", "rank 0")
MB = 2**20


UPDATED = Shapes(vocab=4096, hidden=384, intermediate=1024, layers=8, heads=6, kv_heads=6)
STARTED = Shapes(vocab=8192, hidden=1024, intermediate=2816, layers=16, heads=8, kv_heads=8)


def rank(mode):
    """A line of the first table."""
    import dataclasses

    import torch

    import train
    from config import TINY
    from minidrpo import setup
    from minidrpo.engine.distributed import init_distributed, shutdown
    from minidrpo.records import Rollout

    torch.set_num_threads(1)
    ctx, sharded = init_distributed(), mode == "sharded"
    cfg = dataclasses.replace(TINY, prompts_per_step=4, group_size=2, micro_batch_tokens=64, shard=sharded)
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(4096, (8, 32), generator=g).tolist()
    rollouts = [Rollout([5, 6], response, True, [0.0] * 32) for response in ids]
    correct_PG, weight_PG = torch.tensor([[True, False]] * 4), torch.tensor([[1.0, 0.0]] * 4)
    before = resident("VmRSS")
    model = make_model(UPDATED, "cpu")
    P, layer = sum(p.numel() for p in model.parameters()), sum(p.numel() for p in model.model.layers[0].parameters())
    policy, optimizer = setup.make_policy(model, cfg, ctx)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the whole model
    train.update(policy, optimizer, rollouts, correct_PG, weight_PG, cfg, ctx)
    peak = resident("VmHWM") - before

    def held(tensors):
        return sum(getattr(t, "_local_tensor", t).nbytes for t in tensors if t is not None)

    weights, gradients = held(model.parameters()), held(p.grad for p in model.parameters())
    moments = held(value for state in optimizer.state.values() for value in state.values())
    rest = 2 * 4096 * 384  # the embedding and the head: gathered as a whole, as are their gradients
    terms = 16 * P / 2 + 8 * rest + 2 * 4 * layer + 4 * layer if sharded else 20 * P
    with shutdown(ctx):
        if ctx.rank == 0:
            print(
                f"{mode:<12}{P / 1e6:>8.1f} M",
                *(f"{x / MB:>10.1f}" for x in (weights, gradients, moments, terms, peak)),
            )


def start(reader, folder):
    """A line of the second table: main memory of each rank until the model is split."""
    import dataclasses

    from config import TINY
    from minidrpo import setup
    from minidrpo.engine import loading
    from minidrpo.engine.distributed import init_distributed, shutdown

    ctx, cfg = init_distributed(), dataclasses.replace(TINY, shard=True)
    before = resident("VmRSS")
    model = loading.load_model(folder) if reader == "each rank" else setup.load_model(cfg, folder, ctx)
    setup.make_policy(model, cfg, ctx)
    gib = ctx.gather([((resident("VmHWM") - before) / 2**30, (resident("VmRSS") - before) / 2**30)])
    with shutdown(ctx):
        if ctx.rank == 0:
            print(f"{reader:<12}" + "".join(f"{peak:>16.2f}{after:>9.2f}" for peak, after in gib))


def main(argv=None):
    cli.parse(cli.NoFlags, argv, prog="sharding.py", description="Memory of a rank, replicated and sharded.")
    heads = ("weights", "gradients", "moments", "terms", "peak RSS")
    print(f"{'MiB per rank':<12}{'weights':>10}", *(f"{head:>10}" for head in heads))
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}  # freed memory is given back
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", __spec__.name]
    for mode in MODES:
        subprocess.run([*command, mode], env=environment, check=True)
    print(f"\n{'GiB; reader':<12}" + "".join(f"{f'rank {r}: peak':>16}{'after':>9}" for r in range(2)))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", __spec__.name, "save", folder], check=True)
        for reader in READERS:
            subprocess.run([*command, reader, folder], env=environment, check=True)


if __name__ == "__main__":
    match sys.argv[1:]:  # what main() starts; else its own command line
        case ["save", folder]:
            make_model(STARTED, "cpu").save_pretrained(folder)
        case [reader, folder] if reader in READERS:
            start(reader, folder)
        case [mode] if mode in MODES:
            rank(mode)
        case _:
            main()
