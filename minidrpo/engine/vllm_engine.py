"""vllm_engine.py - one vLLM engine in this process: its options, how it starts, how it hands over memory and weights.

Written against vLLM 0.32.0. Tested on its CPU build, and the CUDA options against its own argument class; what CUDA
alone does (sleep, graphs, bfloat16, NCCL) follows its documentation and source, unproven (BENCHMARKS.md).
"""

import gc
import os

import torch
from torch import nn

from minidrpo.engine import arrival

BATCHED_TOKENS = 8192
"""Tokens of one engine step. vLLM's own 16,384 and 1,024 rows reserve GiB that hold long responses here."""


def options(
    model_path: str, *, cuda: bool, max_model_len: int, seed: int, gpu_memory_utilization: float, rows: int | None,
    trust_remote_code: bool,
) -> dict:  # fmt: skip
    """Keyword arguments of vllm.LLM. rows: responses that the sampler is asked for at once; None: vLLM's default."""
    asked = {
        "model": model_path,
        "skip_tokenizer_init": True,
        "trust_remote_code": trust_remote_code,
        "dtype": torch.bfloat16 if cuda else torch.float32,
        "max_model_len": max_model_len,
        "seed": seed,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if not cuda:
        return asked | {"enforce_eager": True, "kv_cache_memory_bytes": 2**30}
    asked |= {"enable_sleep_mode": True, "gpu_memory_utilization": gpu_memory_utilization}
    # Logits in float32 from bfloat16 weights, as the trainer's (policy.py): rounded ones differ by 0.05 a token
    asked |= {"hf_overrides": {"head_dtype": "float32"}, "max_num_batched_tokens": BATCHED_TOKENS}
    return asked | ({"max_num_seqs": min(rows, 1024)} if rows else {})


def start(asked: dict, cuda: bool):
    """A vllm.LLM with these options, beside the trainer and its process group."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in this process: weights go over by reference
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM
    from vllm.platforms import current_platform

    if not cuda:
        current_platform.simple_compile_backend = "eager"  # or 20 s of C++ compilation for one small function
    # torchrun's ranks, each an engine: use the trainer's process group (an earlier engine's own has no RANK)
    if torch.distributed.is_initialized() and "RANK" in os.environ:
        asked = asked | {"distributed_executor_backend": "external_launcher"}
    set_num_threads = torch.set_num_threads  # the CPU build replaces it by a function that refuses
    llm = LLM(**asked)
    torch.set_num_threads = set_num_threads
    # At its end the engine would destroy every process group, the trainer's too; those are the trainer's to end.
    # What else it undoes there is undone here: it had hidden all objects so far from the garbage collector.
    llm.llm_engine.engine_core._finalizer.detach()
    gc.unfreeze()
    return llm


def reload(llm, model: nn.Module, dtype: torch.dtype) -> list[str]:
    """Overwrite the engine's weights with those of `model`. Names of its parameters that could not be compared with
    what was sent; RuntimeError if one that could be is another."""
    sent = {}
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": arrival.noted(model, dtype, sent)})
    if not llm.reset_prefix_cache():
        raise RuntimeError("vLLM kept the keys and values of the old weights: responses would be stale")
    return arrival.check(llm, sent)
