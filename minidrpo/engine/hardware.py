"""hardware.py - what a run computes on, in words: the first line of its output, and what it should have had."""

import torch

from minidrpo.engine import memory
from minidrpo.engine.distributed import DistContext


def describe(ctx: DistContext) -> str:
    """This rank's device, how it computes and how many ranks there are, in one line."""
    if ctx.device.type == "cuda":
        about = torch.cuda.get_device_properties(ctx.device)
        name = f"{about.name}, {about.total_memory / memory.GIB:.0f} GiB"
    else:
        n = torch.get_num_threads()
        name = f"CPU, {n} thread{'s' if n > 1 else ''} a rank, {missing_cuda()}"
    how = "bfloat16 with float32 weights" if ctx.in_bf16 else "float32"
    return f"{name}; {how}; {ctx.size} rank{'s' if ctx.size > 1 else ''}"


def missing_cuda() -> str:
    """Why a process that wants a GPU has none."""
    if not torch.version.cuda:
        return "as this PyTorch is built without CUDA"
    need = " and needs an NVIDIA driver of version 580 or newer" if torch.version.cuda.startswith("13.") else ""
    return f"no usable CUDA: this PyTorch is built for CUDA {torch.version.cuda}{need} (nvidia-smi shows yours)"


def warning(model: str, ctx: DistContext) -> str | None:
    """One line if this device is too little for `model`, a directory or Hub id; else None. In doubt it warns."""
    if ctx.device.type == "cuda":
        if torch.cuda.get_device_capability(ctx.device) >= (8, 0):
            return None
        return "this GPU has no bfloat16 (compute capability below 8.0): PyTorch emulates it and vLLM refuses"
    try:
        shapes = memory.read_shapes(model)
    except ValueError:  # another kind of model
        shapes = None
    if shapes and shapes.parameters < 1e8:
        return None
    size = f"{shapes.parameters / 1e9:.2f} billion parameters" if shapes else "parameters that are not known here"
    return f"{model}, {size}, would run on the CPU, which takes hours a step: {missing_cuda()}"
