"""arrival.py - did the trainer's new weights arrive in vLLM? Bit by bit where it can be seen, else by what it says.

L tokens of a prompt and its response | T response tokens | V vocabulary
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from minidrpo.engine.shard import named_weights
from minidrpo.records import Rollout


def noted(model: nn.Module, dtype: torch.dtype, sent: dict) -> Iterator[tuple[str, Tensor]]:
    """(name, weight in `dtype`) of every parameter, for vLLM to load; {name: bit_sum} is noted in `sent`."""
    for name, tensor in named_weights(model):
        tensor = tensor.to(dtype)
        sent[name] = bit_sum(tensor)
        yield name, tensor


def bit_sum(tensor: Tensor) -> int:
    """The sum of a tensor's bit patterns as integers: exact, and of a concatenation the sum of the parts' sums.
    Padding with zeros, as vLLM pads vocabularies, leaves it unchanged."""
    return int(tensor.contiguous().view({2: torch.int16, 4: torch.int32}[tensor.element_size()]).sum(dtype=torch.int64))


def engine_bit_sums(model: nn.Module) -> tuple[dict[str, int | None], dict[str, list[str]]]:
    """Runs in vLLM on its model: ({parameter: bit_sum, None if packed away}, {fused name: names of its parts})."""
    sums = {name: bit_sum(p.detach()) if p.numel() else None for name, p in model.named_parameters()}
    return sums, getattr(model, "packed_modules_mapping", {})


def check(llm, sent: dict[str, int]) -> list[str]:
    """Names of the parameters of the engine, a vllm.LLM, that cannot be compared with those `sent`; RuntimeError if one
    that can be still holds old weights."""
    ((arrived, fused),) = llm.apply_model(engine_bit_sums)
    unseen = []
    for name, got in arrived.items():
        parts = [name]
        for whole, of in fused.items():
            if f".{whole}." in name:
                parts = [name.replace(f".{whole}.", f".{part}.") for part in of]
                break
        if got is None or not all(part in sent for part in parts):
            unseen.append(name)
        elif got != sum(sent[part] for part in parts):
            raise RuntimeError(f"vLLM still holds old weights in {name} after an update: responses would be stale")
    return unseen


def probe_prompt(vocabulary: int, max_model_len: int) -> list[int]:
    """A fixed prompt of up to 24 tokens."""
    return [(3 + 7 * i * i) % vocabulary for i in range(min(24, max_model_len - 2))]


@torch.no_grad()
def compare(rollouts: Sequence[Rollout], model: nn.Module, forward: Callable, dtype: torch.dtype, example: str) -> None:
    """RuntimeError if the engine's log-probabilities of its `rollouts` are not the model's.

    dtype: of the engine. In float32 no token may differ by 1e-4. In bfloat16 a token differs by 0.01 to 0.03 on
    average and some by more than 0.1, so the mean has the limit: it tells garbage from weights, not an update from the
    one before. forward: what calls `model` for logits, where that is sharded. example: a parameter to name."""
    training, gaps = model.training, []
    model.eval()
    for r in rollouts:
        ids_1L = torch.tensor([r.prompt_ids + r.response_ids], device=model.device)
        logp_TV = forward(ids_1L, logits_to_keep=len(r.response_ids) + 1).logits[0, :-1].float().log_softmax(-1)
        expected_T = logp_TV.gather(-1, ids_1L[0, len(r.prompt_ids) :, None])[:, 0]
        gaps.append((expected_T.cpu() - torch.tensor(r.logp)).abs())
    model.train(training)
    gaps = torch.cat(gaps)
    gap, limit = (gaps.max().item(), 1e-4) if dtype == torch.float32 else (gaps.mean().item(), 0.1)
    if not gap < limit:
        raise RuntimeError(
            f"vLLM's log-probabilities differ by {gap:.1e} from the trainer's after an update (limit {limit}): "
            f"its weights are stale or in another layout (such as {example})"
        )
