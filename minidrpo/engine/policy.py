"""policy.py - the model as the trainer sees it: load it safely, cut a batch into micro-batches, score the answers.

An answer's log-probabilities are those of the distribution it was sampled from: logits divided by the sampling
temperature, before any top-p. Sampled ids are scored as they are (never re-tokenised text), the end token included.

N answers | L prompt + response tokens (right-padded) | T response tokens | M response tokens of all answers, unpadded
V vocabulary | H hidden size
"""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file

HEAD_CHUNK_ELEMENTS = 2**26  # logits in float32 at a time: 256 MB; a whole (8192, 152k) would be 5 GB a copy


# ---------------------------------------------------------------------------------------------------------- loading


def load_tokenizer(path, trust_remote_code=False):
    """The tokenizer beside the model, local directory or Hub id. Raises ValueError in one line."""
    path = os.path.expanduser(path)
    _check_local(path)
    if Path(path).is_dir() and not any(Path(path).glob("tokenizer*")):  # Transformers would make an empty one
        raise ValueError(f"no tokenizer at {path}: the directory holds no tokenizer files")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(f"no tokenizer at {path}: {_first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer at {path} has no end token (eos_token), so no answer could ever end")
    _check_spaces(tokenizer, path)
    return tokenizer


def _check_spaces(tokenizer, path, text="1 + 1"):
    """Transformers 5 takes a byte-level tokenizer.json beside a Llama config for SentencePiece's and loses spaces."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if " " in tokenizer.decode(ids):
        return
    file = cached_file(path, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    if file and ids != Tokenizer.from_file(file).encode(text, add_special_tokens=False).ids:
        raise ValueError(f"{file} is misread: {text!r} comes back without spaces; see tokenizer_class beside it")


def load_model(path, *, dtype=torch.float32, device="cpu", trust_remote_code=False):
    """A causal LM, from safetensors only; remote code stays off unless asked for. On the "meta" device it has shapes
    and no numbers: its weights are not read. Raises ValueError in one line."""
    path = os.path.expanduser(path)
    _check_local(path)
    try:
        if device == "meta":
            config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
        else:
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code
            )
        model.generation_config.do_sample = True  # as we use it; else a temperature there could not be saved again
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"no causal language model at {path}: {_first_line(error)}") from error
    _remove_dropout(model)
    if device != "meta":
        _check_head(model, path)
    return model.to(device)


def _remove_dropout(model):
    """Dropout would make the trained policy another one than the sampled one (and PPO-style ratios differ from 1)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


@torch.no_grad()
def _check_head(model, path):
    """Policy applies the head itself, in chunks; some architectures rescale or cap their logits after it."""
    ids = torch.tensor([[1, 2]])
    ours = model.get_output_embeddings()(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.allclose(ours, model(input_ids=ids, use_cache=False).logits, rtol=1e-2, atol=1e-2):
        raise ValueError(f"the model at {path} changes its logits after the output head, which policy.py does not do")


def _check_local(path):
    looks_local = str(path).startswith((".", "/", "~")) or Path(path).exists() or str(path).count("/") > 1
    if looks_local and not (Path(path) / "config.json").is_file():
        problem = "holds no config.json" if Path(path).is_dir() else "does not exist"
        raise ValueError(f"model directory {path} {problem}")


def _first_line(error):
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


# --------------------------------------------------------------------------------------- cutting a batch into pieces


def balance(length_N, n_parts):
    """Answer indices for each rank, near-equal in tokens: longest first, each to the part with least so far."""
    parts, load = [[] for _ in range(n_parts)], [0] * n_parts
    for i in sorted(range(len(length_N)), key=lambda i: (-length_N[i], i)):
        lightest = min(range(n_parts), key=lambda k: (load[k], k))
        parts[lightest].append(i)
        load[lightest] += length_N[i]
    return parts


def micro_batches(length_N, token_budget):
    """Cut answers into batches of at most `token_budget` padded tokens (one answer may exceed it), at the least cost:
    padded tokens, and for each batch as many as a forward pass costs beside its tokens. Sorted by length, so that a
    batch is a run of neighbours and the best cuts follow one from the other. Returns lists of indices into length_N."""
    order = sorted(range(len(length_N)), key=lambda i: (-length_N[i], i))
    overhead = token_budget / 32  # a guess good enough: a real run's padding is then 2 to 3 % (tests/test_policy.py)
    cost, end = [0.0] * (len(order) + 1), {}  # of order[start:], and where its first batch ends
    for start in reversed(range(len(order))):
        most = max(1, int(token_budget // length_N[order[start]]))
        stops = range(start + 1, min(start + most, len(order)) + 1)
        costs = [(stop - start) * length_N[order[start]] + overhead + cost[stop] for stop in stops]
        cost[start] = min(costs)
        end[start] = stops[costs.index(cost[start])]
    batches, start = [], 0
    while start < len(order):
        batches.append(order[start : end[start]])
        start = end[start]
    return batches


def shares(length_N, n_parts, token_budget):
    """Micro-batches for each rank, [rank][batch] -> answer indices: near-equal in tokens over the ranks, and as many on
    each where they have the answers for it, since ranks wait for each other (sharded ones after every layer)."""
    shares = []
    for part in balance(length_N, n_parts):
        shares.append([[part[k] for k in batch] for batch in micro_batches([length_N[i] for i in part], token_budget)])
    most = max(map(len, shares))
    for batches in shares:
        while len(batches) < most and max(map(len, batches), default=0) > 1:  # halve the longest batch: no padding more
            k = max(range(len(batches)), key=lambda k: (len(batches[k]) > 1) * sum(length_N[i] for i in batches[k]))
            half = len(batches[k]) // 2
            batches[k : k + 1] = [batches[k][:half], batches[k][half:]]
    return shares


def pad(rollouts, device="cpu"):
    """Right-padded ids (N, L), prompt lengths (N,), response mask (N, T). Masks come from lengths, never from ids."""
    length_N = [len(r.prompt_ids) + len(r.response_ids) for r in rollouts]
    ids_NL = torch.zeros(len(rollouts), max(length_N), dtype=torch.long)
    for row, r in enumerate(rollouts):
        ids_NL[row, : length_N[row]] = torch.tensor(r.prompt_ids + r.response_ids)
    prompt_N = torch.tensor([len(r.prompt_ids) for r in rollouts])
    response_N = torch.tensor([len(r.response_ids) for r in rollouts])
    mask_NT = torch.arange(int(response_N.max())) < response_N[:, None]
    return ids_NL.to(device), prompt_N.to(device), mask_NT.to(device)


# ---------------------------------------------------------------------------------------------------------- scoring


class Policy(nn.Module):
    """A Hugging Face causal LM whose forward returns log-probabilities of given answers. DDP wraps this."""

    def __init__(self, model, temperature, head_chunk_elements=HEAD_CHUNK_ELEMENTS):
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.head_chunk_elements = head_chunk_elements

    def forward(self, ids_NL, prompt_N, mask_NT):
        """log pi(o_t | q, o_<t) at the sampling temperature, (N, T) float32 or wider; 0 on padding."""
        with torch.autocast(ids_NL.device.type, torch.bfloat16, enabled=ids_NL.is_cuda):  # weights stay float32
            # Right padding and causal attention: a real token never sees padding, so no attention mask is needed.
            hidden_NLH = self.model.base_model(input_ids=ids_NL, use_cache=False).last_hidden_state
            row_M, t_M = mask_NT.nonzero(as_tuple=True)
            position_M = prompt_N[row_M] + t_M
            logp_M = self._token_logp(hidden_NLH[row_M, position_M - 1], ids_NL[row_M, position_M])  # t-1 predicts t
        return logp_M.new_zeros(mask_NT.shape).masked_scatter(mask_NT, logp_M)

    def _token_logp(self, hidden_MH, target_M):
        """The head, in chunks, so that (M, V) logits never exist at once."""
        head = self.model.get_output_embeddings()
        chunk = max(1, self.head_chunk_elements // head.weight.shape[0])
        return ChunkedLogp.apply(hidden_MH, head.weight, head.bias, target_M, self.temperature, chunk)


def compile_layers(model, backend="inductor"):
    """torch.compile every decoder layer, in place, for any batch and length. Layer by layer and not the whole model:
    traced as a whole, Transformers would make an (L, L) mask and attention would lose its fast kernel; and checkpoints
    stay between layers. Raises ValueError for a model whose layers are not where most have them."""
    layers = getattr(model.base_model, "layers", None)
    if layers is None:
        raise ValueError(f"--compile: {type(model).__name__} has no list of layers at .layers")
    torch._dynamo.config.optimize_ddp = False  # it would cut graphs at buckets; layers are small enough already
    torch._dynamo.config.recompile_limit = 32  # one row, several, a filler, each with and without gradient: more than 8
    for layer in layers:
        layer.compile(dynamic=True, backend=backend)


class ChunkedLogp(torch.autograd.Function):
    """log softmax(h W^T + b, / temperature) at the target, `chunk` rows at a time; the backward pass makes the logits
    again. Written by hand for what autograd would do: hold four arrays of the logits' size where one is enough, cast W
    for each chunk, and add up the chunks' gradients in bfloat16. Here products are in autocast's dtype, and sums over
    chunks in float32 or wider."""

    @staticmethod
    def forward(ctx, hidden_MH, weight_VH, bias_V, target_M, temperature, chunk):
        device = hidden_MH.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VH.dtype
        weight, pieces = weight_VH.to(dtype), []
        for h, target in zip(hidden_MH.split(chunk), target_M.split(chunk), strict=True):
            logits_CV = _logits(h, weight, bias_V, temperature)
            chosen_C, max_C1 = logits_CV.gather(-1, target[:, None])[:, 0], logits_CV.amax(-1, keepdim=True)
            lse_C = logits_CV.sub_(max_C1).exp_().sum(-1).log_() + max_C1[:, 0]
            pieces.append(torch.stack([chosen_C - lse_C, lse_C]))
            del logits_CV  # or it would live beside the next ones
        logp_M, lse_M = torch.cat(pieces, dim=1)
        ctx.save_for_backward(hidden_MH, weight_VH, bias_V, target_M, lse_M)
        ctx.temperature, ctx.chunk, ctx.dtype = temperature, chunk, dtype
        return logp_M

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_M):
        hidden_MH, weight_VH, bias_V, target_M, lse_M = ctx.saved_tensors
        weight = weight_VH.to(ctx.dtype)
        grad_hidden_MH = torch.empty_like(hidden_MH)
        wide = torch.promote_types(weight_VH.dtype, torch.float32)  # a sharded model's gathered weights are bfloat16
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=wide)
        grad_bias_V = None if bias_V is None else torch.zeros_like(bias_V)
        for first in range(0, len(target_M), ctx.chunk):
            rows = slice(first, first + ctx.chunk)
            g = grad_M[rows, None] / ctx.temperature
            # d logp(target) / d logits = onehot(target) - softmax, times g; in place, in the logits' own memory
            d = _logits(hidden_MH[rows], weight, bias_V, ctx.temperature)
            d = d.sub_(lse_M[rows, None]).exp_().mul_(-g).scatter_add_(1, target_M[rows, None], g).to(ctx.dtype)
            grad_hidden_MH[rows] = d @ weight
            grad_weight_VH += d.mT @ hidden_MH[rows].to(ctx.dtype)
            if bias_V is not None:
                grad_bias_V += d.sum(0, dtype=bias_V.dtype)
            del d
        return grad_hidden_MH, grad_weight_VH.to(weight_VH.dtype), grad_bias_V, None, None, None


def _logits(hidden_CH, weight_VH, bias_V, temperature):
    """(C, V) in float32 or wider, / temperature; a tensor of the caller's own, to be changed in place."""
    with torch.autocast(hidden_CH.device.type, enabled=False):
        bias_V = None if bias_V is None else bias_V.to(weight_VH)
        logits_CV = nn.functional.linear(hidden_CH.to(weight_VH.dtype), weight_VH, bias_V)
    return logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32)).div_(temperature)
