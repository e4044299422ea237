"""world.py - who we are among the ranks, and the few words that ranks exchange. One process a GPU, or just one.

torchrun tells each process its place through the environment; plain python is rank 0 of 1. Everything a step decides
(weights, credits, logged numbers) is computed from gathered data, so that it is the same on every rank.
"""

import contextlib
import os
import sys
import traceback
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from minidrpo import cli


@dataclass(frozen=True)
class World:
    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")


def join_world(backend=None, patience=timedelta(hours=2)):
    """This process's World, after the process group stands (NCCL on GPUs, gloo on CPUs) where there are several.
    patience: how long ranks wait for the slowest one's answers; NCCL's usual ten minutes may be too short."""
    rank, size, local = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            cli.fail(f"process {local + 1} of this node finds only {torch.cuda.device_count()} GPUs, one each", rank)
        torch.cuda.set_device(device)
    if size > 1:
        try:
            dist.init_process_group(backend or ("nccl" if device.type == "cuda" else "gloo"), timeout=patience)
        except RuntimeError as error:
            hint = "; for --max-restarts set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 (docs/nodes.md)"
            cli.fail(f"the ranks could not meet: {error}{hint}", rank, code=1, patience=0)
    return World(rank, size, device)


@contextlib.contextmanager
def parting(world):
    """Around all that a rank does: at the end of it ranks part. One that fails goes at once, without NCCL's farewell,
    which would wait for ranks that wait for it; torchrun sees it gone and stops them."""
    try:
        yield
    except BaseException as error:
        if world.size == 1:
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(error.code if isinstance(getattr(error, "code", None), int) else 1)
    if world.size > 1:
        dist.destroy_process_group()


def gather_parts(items, world_size):
    """[rank 0's items, rank 1's, ...], on every rank."""
    if world_size == 1:
        return [items]
    parts = [None] * world_size
    dist.all_gather_object(parts, items)
    return parts


def gather(items, world):
    """Every rank's items, concatenated in rank order (and so in prompt order)."""
    return [item for part in gather_parts(items, world.size) for item in part]


@contextlib.contextmanager
def together(world_size, caught, raised):
    """Around what ranks do each for itself, such as to write a file. If it fails on one, with `caught`, then all raise
    `raised` with the same words, once all are through: nobody waits for a rank that has left."""
    problem = None
    try:
        yield
    except caught as error:
        problem = error
    said = gather_parts(problem and (str(problem) or type(problem).__name__), world_size)
    for rank, words in enumerate(said):
        if words is not None:
            raise raised(f"rank {rank}: {words}" if rank else words) from problem


def all_sum(tensor, world):
    """The sum over ranks, on the CPU. Collectives need the device that the process group was made for."""
    if world.size == 1:
        return tensor
    tensor = tensor.to(world.device)
    dist.all_reduce(tensor)
    return tensor.cpu()
