"""shard.py - models too large for one card: FSDP2 splits weights, gradients and AdamW's moments over all ranks.

`--shard` changes where numbers live, not what they are. A decoder layer's weights are gathered when it runs, forward
and backward, and let go again; its gradients leave the backward pass summed over ranks and split. What is outside the
layers (embedding, last norm, head) is gathered by the policy as a whole and kept until its backward pass ends, because
the chunked head runs again in there (policy.py).

Running the model is then something that all ranks do together, equally often: the update fills up with empty
micro-batches, and a sampler has weights of its own, to which `named_weights` brings the new ones, one at a time.
Measured and worked out: docs/memory.md.
"""

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(policy, ctx):
    """Split policy.model's weights over all ranks, in place, moving them to this rank's device a layer at a time.

    The numbers are rank 0's, as with DDP: other ranks' models may be on the meta device, shapes without memory, so that
    a node's main memory holds the model once and not once a process. The weights that AdamW steps stay in their dtype,
    float32; on CUDA layers compute in bfloat16 and gradients are summed in float32. Raises ValueError where there is
    nothing to split, or over nothing.
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
    if ctx.device.type == "cuda":
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in layers:
        _take_from_rank_0(layer, ctx.device)
        fully_shard(layer, **options)
    _take_from_rank_0(policy, ctx.device)
    return fully_shard(policy, reshard_after_forward=False, **options)


@torch.no_grad()
def _take_from_rank_0(module, device):
    """Replace what `module` holds and is not yet split, buffers included, by rank 0's, on `device`."""
    arrived = {}  # so that tied weights stay one
    for owner in module.modules():
        for kept in (owner._parameters, owner._buffers):
            for name, old in kept.items():
                if old is None or isinstance(old, DTensor):
                    continue
                if id(old) not in arrived:
                    new = torch.empty_like(old, device=device) if old.is_meta else old.detach().to(device).contiguous()
                    dist.broadcast(new, src=0)
                    new = torch.nn.Parameter(new, old.requires_grad) if isinstance(old, torch.nn.Parameter) else new
                    arrived[id(old)] = new, old  # kept: else its id could come again
                kept[name] = arrived[id(old)][0]


def is_sharded(model):
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole(tensor):
    """The full tensor, detached. Of a sharded one all ranks must ask together."""
    return tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def named_weights(model):
    """(name, full tensor) of each parameter, gathered one at a time, so that no rank holds the model twice."""
    for name, parameter in model.named_parameters():
        yield name, whole(parameter)


def forward_of(policy, model):
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


def whole_state(model, keep):
    """model.state_dict() with full tensors on the CPU, gathered one at a time; {} on ranks that do not `keep` them."""
    state, seen = {}, {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:  # tied weights stay one
            seen[id(tensor)] = full = whole(tensor)
            if keep:
                seen[id(tensor)] = full.cpu()
        if keep:
            state[name] = seen[id(tensor)]
    return state


class Writer(dcp.FileSystemWriter):
    """Says why a disk refuses: torch.save covers the system's words with its surprise at the file's length."""

    def write_data(self, plan, planner):
        try:
            return super().write_data(plan, planner)
        except RuntimeError as error:
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def save_split(tensors, folder):
    """Write {name: tensor} by torch.distributed.checkpoint: each rank its own part, at once. Raises OSError everywhere
    if any rank could not."""
    try:
        dcp.save(tensors, storage_writer=Writer(folder, sync_files=True))
    except CheckpointException as error:  # not an Exception, and its text holds every rank's traceback
        raise OSError(_first_failure(error)) from error


def load_split(folder, like):
    """What save_split wrote, by any number of ranks, cut as this run is. like: name -> tensor to be filled."""
    names = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    tensors = {name: like(name) for name in names}
    try:
        dcp.load(tensors, checkpoint_id=folder, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        raise OSError(_first_failure(error)) from error
    return tensors


def _first_failure(error):
    rank, (reason, _) = min(error.failures.items())
    return f"rank {rank}: {reason}"


def placed(tensor, parameter):
    """`tensor` where and as `parameter` is: on its device, cut over ranks if that is."""
    if isinstance(parameter, DTensor) and not isinstance(tensor, DTensor):
        return distribute_tensor(tensor.to(parameter), parameter.device_mesh, parameter.placements)
    return tensor.to(parameter)
