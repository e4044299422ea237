"""distributed.py - who we are among the ranks, and what ranks exchange. One process per GPU, or just one process.

torchrun tells each process its place through the environment; plain python is rank 0 of 1. Everything that a step
decides (weights, credits, logged numbers) is computed from gathered data, so that it is the same on every rank.
"""

import atexit
import contextlib
import dataclasses
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from minidrpo import cli


@dataclass(frozen=True)
class DistContext:
    """This process's place among the ranks. Every rank calls the same methods in the same order."""

    rank: int = 0
    size: int = 1
    """Number of ranks."""
    device: torch.device = torch.device("cpu")
    bf16: bool | None = None
    """Compute in bfloat16 with float32 weights; None: on CUDA. A CPU can, too, slowly: tests do."""

    processes: tuple[tuple[str, int], ...] = ()
    """(host, process id) of each rank."""

    @property
    def in_bf16(self) -> bool:
        """Does the model's forward pass run in bfloat16?"""
        return self.device.type == "cuda" if self.bf16 is None else self.bf16

    @property
    def is_main(self) -> bool:
        """Rank 0 alone writes files and prints."""
        return self.rank == 0

    def gone(self) -> str:
        """Those ranks of this host whose process has ended: "rank 1 (process 4242)"; "" if there is none, or no way to
        see it."""
        host = socket.gethostname()
        ended = [(r, pid) for r, (at, pid) in enumerate(self.processes) if at == host and not _lives(pid)]
        return ", ".join(f"rank {r} (process {pid})" for r, pid in ended)

    def gather_parts(self, items) -> list:
        """[rank 0's items, rank 1's, ...], on every rank."""
        if self.size == 1:
            return [items]
        parts = [None] * self.size
        dist.all_gather_object(parts, items)
        return parts

    def gather(self, items: Iterable) -> list:
        """Every rank's items, concatenated in rank order (and so in prompt order)."""
        return [item for part in self.gather_parts(items) for item in part]

    def all_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over ranks, on the CPU. Collectives need the device that the process group was made for."""
        if self.size == 1:
            return tensor
        tensor = tensor.to(self.device, copy=True)
        dist.all_reduce(tensor)
        return tensor.cpu()

    @contextlib.contextmanager
    def fail_together(self, caught: type | tuple, raised: type) -> Iterator[None]:
        """Around what each rank does by itself, such as writing a file. If it fails on one rank with `caught`, then all
        ranks raise `raised` with the same words at the end of the block: no rank waits for one that has left."""
        problem = None
        try:
            yield
        except caught as error:
            problem = error
        said = self.gather_parts(problem and (str(problem) or type(problem).__name__))
        for rank, words in enumerate(said):
            if words is not None:
                raise raised(f"rank {rank}: {words}" if rank else words) from problem


def place() -> tuple[int, int, int]:
    """(rank, ranks, rank on this node), from torchrun's environment; (0, 1, 0) without it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    try:
        rank, size, local = (int(os.environ.get(name, default)) for name, default in zip(names, "010", strict=True))
    except ValueError as error:
        cli.fail(f"{', '.join(names)} in the environment must be whole numbers: {error}")
    needed = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if size > 1 and needed:
        cli.fail(f"the environment says WORLD_SIZE={size} but no {', '.join(needed)}: start with torchrun, or unset it")
    if size > 1 and not re.fullmatch("[0-9]{1,5}", os.environ["MASTER_PORT"]):
        cli.fail(f"MASTER_PORT in the environment must be the number of a port, got {os.environ['MASTER_PORT']!r}")
    if not 0 <= rank < size or local < 0:
        cli.fail(f"the environment says rank {rank} (LOCAL_RANK {local}) of {size} ranks: start with torchrun")
    return rank, size, local


def init_distributed(backend: str | None = None, patience: timedelta = timedelta(hours=2)) -> DistContext:
    """This process's DistContext, once the process group stands (NCCL on GPUs, gloo on CPUs) where there are several.

    patience: how long ranks wait for the slowest one's responses; NCCL's usual ten minutes may be too short.
    """
    rank, size, local = place()
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            cli.fail(f"process {local + 1} of this node finds only {torch.cuda.device_count()} GPUs, one each", rank)
        torch.cuda.set_device(device)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # a rank of torchrun, which ends ranks unless it is killed itself
        end_with_parent()
    if size > 1:
        try:
            dist.init_process_group(backend or ("nccl" if device.type == "cuda" else "gloo"), timeout=patience)
        except (RuntimeError, ValueError) as error:  # the latter: what the environment says
            hint = "; for --max-restarts set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 (docs/nodes.md)"
            cli.fail(f"the ranks could not meet: {error}{hint}", rank, code=1, patience=0)
    ctx = DistContext(rank, size, device)
    return dataclasses.replace(ctx, processes=tuple(ctx.gather_parts((socket.gethostname(), os.getpid()))))


def _lives(pid):
    """False for a process that has ended, also while its parent has not looked yet."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:
        return False
    except OSError:  # another user's; no /proc here
        return True


def end_with_parent(parent: int | None = None) -> None:
    """From now on this process ends when its parent is gone, however that ended: a rank or a worker left alone would go
    on writing beside the next start. parent: its process id, if this one may have been left already."""
    parent = parent or os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def shutdown(ctx: DistContext) -> Iterator[None]:
    """Around all that a rank does, the process's last words: at its end all ranks meet, the process group is destroyed,
    and one of several ranks leaves here. A rank that fails leaves at once with os._exit, because
    destroy_process_group() would wait for the other ranks; torchrun sees it gone and stops them."""
    try:
        yield
    except BaseException as error:
        if ctx.size == 1:
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(error.code if isinstance(getattr(error, "code", None), int) else 1)
    if ctx.size > 1:
        with contextlib.suppress(RuntimeError):  # a rank that is gone has said why
            # Rank 0 may still draw: another that left now, and crashed on its way out, would have torchrun end it
            ctx.gather_parts(None)
            dist.destroy_process_group()
        # Not through the interpreter's own end: gloo's threads outlive the group (sharded parameters refer to it), and
        # one that then lets go of a tensor aborts the process when all is done
        if not (ctx.device.type == "cuda" and "vllm" in sys.modules):  # whose teardown may abort, too
            atexit._run_exitfuncs()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(0)
