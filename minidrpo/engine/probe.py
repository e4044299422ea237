"""probe.py - does this model compute as the trainer and the sampler take it to? A few tokens through it tell.

The trainer takes a causal LM for a body and a linear head (policy.py), the sampler gives it a cache of keys and values
that grows (decoding.py). About 180 architectures come under one class of Transformers, and some are otherwise: they
look ahead, cap or scale what the head says, or keep a state of their own. Asked once, where the model is loaded.

N texts | L tokens of each | V vocabulary
"""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

NO_CACHE = "the cache of {} is not of our sampler's kind: each token reads the whole text again, which is slow"
LOUD = 100.0  # the largest logit that the head is tried with: caps are at 15 to 50, whatever the weights are now


def hidden_states(model: nn.Module, ids_NL: Tensor) -> Tensor:
    """(N, L, H): what the output head reads. Right padding and causal attention: a real token never sees padding, so no
    attention mask is needed."""
    return body(model)(input_ids=ids_NL, use_cache=False).last_hidden_state


def body(model: nn.Module) -> nn.Module:
    """The model without its output head."""
    if model.base_model is not model:
        return model.base_model
    head = model.get_output_embeddings()  # Llama 4 has a prefix that is not the name of its body
    return next(part for part in model.children() if part is not head)


def last_logits(model: nn.Module, text_NL: Tensor, length_N: Tensor, tokens: int = 2**15) -> Tensor:
    """(N, V): what the model says after the first length_N tokens of each text, in passes of about `tokens` tokens."""
    ids_NL, head, logits = text_NL[:, : int(length_N.max())], model.get_output_embeddings(), []
    n_rows = max(1, tokens // ids_NL.shape[1])
    for ids, length in zip(ids_NL.split(n_rows), length_N.split(n_rows), strict=True):
        logits.append(head(hidden_states(model, ids)[torch.arange(len(ids), device=ids.device), length - 1]))
    return torch.cat(logits)


def probe_ids(model: nn.Module, length: int = 6) -> Tensor:
    """(1, L): some token ids."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    return torch.tensor([[(3 + 7 * i * i) % vocabulary for i in range(length)]], device=model.device)


def not_finite(model: nn.Module) -> tuple[str, float] | None:
    """(name, size) of the first parameter that holds nan or infinity, or None. One look at each where it lives, and one
    wait for the device."""
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.is_floating_point()}
    mine = {name: p.to_local() if isinstance(p, DTensor) else p for name, p in parameters.items()}
    mine = {name: p for name, p in mine.items() if p.numel()}  # a rank's part of a small one may be empty
    largest = [torch.linalg.vector_norm(p, torch.inf) for p in mine.values()]  # largest |x|; nan stays nan
    sizes = torch.stack(largest).tolist() if largest else ()
    return next(((name, size) for name, size in zip(mine, sizes, strict=True) if not abs(size) < torch.inf), None)


@torch.no_grad()
def check_model(model: nn.Module) -> None:
    """ValueError, without the model's name, where the model is not a causal one whose logits are a linear head's."""
    if spoilt := not_finite(model):
        raise ValueError(f"the weight {spoilt[0]} is not finite ({spoilt[1]})")
    ids_1L, kind, limit = probe_ids(model), type(model).__name__, tolerance(model.dtype)
    try:
        head, (ours, theirs) = model.get_output_embeddings(), _heads(model, ids_1L)
        whole = head(hidden_states(model, ids_1L))[:, :-2]
        part = head(hidden_states(model, ids_1L[:, :-2]))
    except Exception as error:  # any of 180 architectures' own, IndexError and AttributeError among them
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{kind} cannot be run on plain token ids ({reason})") from error
    # In float32 both heads are the same product; texts of two lengths may be rounded differently
    if not relative_gap(ours, theirs) < min(limit, 1e-4 if limit < 0.1 else limit):
        raise ValueError(
            f"{kind} caps, scales or changes its logits after the output head, which policy.py does not do"
        )
    if not relative_gap(part, whole) < limit:
        raise ValueError(f"{kind} is not causal as configured: a later token changes what it says of earlier ones")


def tolerance(dtype: torch.dtype) -> float:
    """By how much two ways to compute the same logits may differ, in units of their spread over the vocabulary."""
    return 1e-3 if torch.finfo(dtype).bits >= 32 else 0.2


def relative_gap(a: Tensor, b: Tensor) -> float:
    """The largest difference between logits (..., V), in standard deviations over the vocabulary."""
    return ((a - b).float().abs().amax(-1) / b.float().std(-1).clamp(min=1e-12)).max().item()


@torch.no_grad()
def cached_gap(rollouts, model: nn.Module, autocast) -> float:
    """By how much the log-probabilities of `rollouts` differ from those of whole texts without a cache, in standard
    deviations of the logits over the vocabulary: the largest of all tokens."""
    training, gaps = model.training, []
    model.eval()
    with autocast:
        for r in rollouts:
            ids_L = torch.tensor(r.prompt_ids + r.response_ids, device=model.device)
            hidden_TH = hidden_states(model, ids_L[None])[0, len(r.prompt_ids) - 1 : -1]
            logits_TV = model.get_output_embeddings()(hidden_TH).float()
            logp_T = logits_TV.log_softmax(-1).gather(-1, ids_L[len(r.prompt_ids) :, None])[:, 0]
            gap_T = (logp_T - torch.tensor(r.logp, device=model.device)).abs() / logits_TV.std(-1).clamp(min=1e-12)
            gaps.append(gap_T.max().item())
    model.train(training)
    return max(gaps)


def _heads(model, ids_1L):
    """Logits (1, L, V) twice, by the head alone and by the model, for hidden states so large that a cap would show."""
    seen, head = [], model.get_output_embeddings()

    def louder(module, args, output):
        largest = head(output.last_hidden_state).abs().max()
        output.last_hidden_state = output.last_hidden_state * (LOUD / largest.clamp(min=1e-6))
        seen.append(output.last_hidden_state)
        return output

    hook = body(model).register_forward_hook(louder)
    try:
        theirs = model(input_ids=ids_1L, use_cache=False).logits
    finally:
        hook.remove()
    return head(seen[-1] if seen else hidden_states(model, ids_1L)), theirs  # some do not call their body as a whole


def unreached(model: nn.Module) -> set[str]:
    """Names of the parameters that a text's logits do not depend on: a vision tower's, or those of experts that these
    few tokens were not sent to. Walks autograd's graph; there is no backward pass."""
    with torch.enable_grad():
        logits = model.get_output_embeddings()(hidden_states(model, probe_ids(model)))
    stack, seen, found = [logits.grad_fn], set(), set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        stack += [parent for parent, _ in node.next_functions]
    return {name for name, p in model.named_parameters() if p.requires_grad and id(p) not in found}


def freeze_unused_parts(model: nn.Module) -> list[str]:
    """Take whole parts of the model (a vision tower) that no text reaches out of training: they have no gradient, and
    DDP would wait for one. Returns the parts' names."""
    names, frozen, inner = unreached(model), [], body(model)
    where = next(name for name, module in model.named_modules() if module is inner)
    for prefix, owner in (("", model), (f"{where}.", inner)):
        for part, module in owner.named_children() if names else ():
            inside = [f"{prefix}{part}.{name}" for name, _ in module.named_parameters()]
            if inside and names.issuperset(inside):
                module.requires_grad_(False)
                frozen.append(prefix + part)
    return frozen
