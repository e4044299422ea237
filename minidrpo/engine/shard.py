"""shard.py - models too large for one card: FSDP2 splits weights, gradients and AdamW's moments over all ranks.

`--shard` changes where numbers live, not what they are. A decoder layer's weights are gathered when it runs, forward
and backward, and let go again; its gradients leave the backward pass summed over ranks and split. What is outside the
layers (embedding, last norm, head) is gathered by the policy as a whole and kept until its backward pass ends, because
the chunked head runs again in there (policy.py).

Running the model is then something that all ranks do together, equally often: the update fills up with empty
micro-batches, and a sampler has weights of its own, to which `named_weights` brings the new ones, one at a time.
Measured and worked out: docs/memory.md.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from minidrpo.engine.distributed import DistContext


def shard(policy: nn.Module, ctx: DistContext) -> nn.Module:
    """Split policy.model's weights over all ranks, in place, moving them to this rank's device one layer at a time.

    The numbers are rank 0's, as with DDP: other ranks' models may be on the meta device, shapes without memory, so that
    a node's main memory holds the model once and not once per process. The weights that AdamW steps stay in their
    dtype, float32; in bfloat16 (on CUDA) layers compute, and gradients are summed in float32. Raises ValueError where
    there is nothing to split, or only one rank.
    """
    if ctx.size == 1:
        raise ValueError("--shard splits a model over several ranks and there is one: start with torchrun")
    kinds = set(getattr(policy.model, "_no_split_modules", None) or ())
    layers = [module for module in policy.model.modules() if type(module).__name__ in kinds]
    if not layers:
        raise ValueError(f"--shard: {type(policy.model).__name__} does not say what its layers are (_no_split_modules)")
    held = [(name, tuple(t.shape), t.dtype) for name, t in (*policy.named_parameters(), *policy.named_buffers())]
    if any(theirs != held for theirs in ctx.gather_parts(held)):
        raise ValueError("--shard: the model's weights are not those of its config.json (tie_word_embeddings?)")
    options = {"mesh": init_device_mesh(ctx.device.type, (ctx.size,))}
    if ctx.in_bf16:
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    numbers = policy.state_dict() if ctx.is_main else {}
    for module in (*layers, policy):
        for part in module.modules():
            if any(t.is_meta for t in (*part.parameters(recurse=False), *part.buffers(recurse=False))):
                part.to_empty(device=ctx.device, recurse=False)
        policy.model.tie_weights()  # to_empty unties, as set_model_state_dict does with meta weights (tried)
        fully_shard(module, **options)  # a layer is split again after its forward pass, the root after its backward
    set_model_state_dict(policy, numbers, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    for buffer in policy.buffers():  # rotary tables, for example: they are in no state_dict
        dist.broadcast(buffer, src=0)
    return policy


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor, detached. Of a sharded one all ranks must ask together."""
    return tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def named_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, full tensor) of each parameter, gathered one at a time, so that no rank holds the model twice."""
    for name, parameter in model.named_parameters():
        yield name, whole(parameter)


def forward_of(policy: nn.Module | None, model: nn.Module) -> Callable:
    """What calls the plain `model`, logits and all, inside a policy that may be sharded. All ranks call together."""
    if not isinstance(policy, FSDPModule):
        return model

    def call(*args, **kwargs):
        policy.unshard()  # the weights outside the layers, as policy's own forward would
        try:
            return model(*args, **kwargs)
        finally:
            policy.reshard()  # else model.parameters() would go on to be the gathered ones

    return call


# ------------------------------------------------------------------------------------------------------- checkpoints


def whole_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """model.state_dict() with full tensors on the CPU, on rank 0; {} on other ranks. All ranks must ask together."""
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    once = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    return {name: tensor for name, tensor in state.items() if name in once}  # a tied weight has come under two names


def save_split(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Write safetensors files: each rank its parts, rank 0 what all ranks have alike. If any fails, all raise the same
    OSError. Not torch's own format: its index, `.metadata`, is a pickle, which can run code when it is read."""
    files = {name: i // 32 + 1 for i, name in enumerate(tensors)}  # some layers each: a file is put together in memory
    writer = HuggingFaceStorageWriter(str(folder), files, save_distributed=True)
    with _same_error(OSError):
        dcp.save(tensors, storage_writer=writer, planner=dcp.DefaultSavePlanner(dedup_save_to_lowest_rank=True))


def load_split(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Fill the tensors with what save_split wrote, by any number of ranks, sharded or not. All ranks call this;
    ValueError if one is not there whole, in its shape and dtype."""
    reader = HuggingFaceStorageReader(str(folder))
    stored = reader.read_metadata().state_dict_metadata
    for name, tensor in tensors.items():  # dcp.load would not miss a part, and would cast
        parts = stored[name].chunks if name in stored else ()
        if sum(part.sizes.numel() for part in parts) != tensor.numel() or stored[name].properties.dtype != tensor.dtype:
            raise ValueError(f"{name} is not there whole, as {tensor.dtype}")
    with _same_error(ValueError):
        dcp.load(tensors, storage_reader=reader)


@contextlib.contextmanager
def _same_error(raised: type) -> Iterator[None]:
    """Around torch.distributed.checkpoint, which fails on all ranks together: one line instead of all tracebacks."""
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # "assuming ... a single process"
            yield
    except CheckpointException as error:  # not an Exception
        rank, (reason, _) = min(error.failures.items())
        raise raised(f"rank {rank}: {reason}" if rank else str(reason)) from error
