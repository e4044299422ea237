"""policy.py - the model as the trainer sees it: the log-probabilities of given responses, in chunks of the head.

A response's log-probabilities are those of the distribution it was sampled from: logits divided by the sampling
temperature, before any top-p. Sampled ids are scored as they are (never re-tokenised text), the end token included.

N responses | L prompt + response tokens (right-padded) | T response tokens | M response tokens of all, unpadded
C of them in one chunk | V vocabulary | H hidden size
"""

import torch
from torch import Tensor, nn

from minidrpo.engine.probe import body, hidden_states

HEAD_CHUNK_ELEMENTS = 2**26  # logits in float32 at a time: 256 MB; a whole (8192, 152k) would be 5 GB per copy


class Policy(nn.Module):
    """A Hugging Face causal LM whose forward returns log-probabilities of given responses. DDP wraps this."""

    def __init__(
        self,
        model: nn.Module,
        temperature: float,
        head_chunk_elements: int = HEAD_CHUNK_ELEMENTS,
        bf16: bool | None = None,
    ):
        """bf16: compute in bfloat16; None: on CUDA."""
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.head_chunk_elements = head_chunk_elements
        self.bf16 = bf16
        torch.backends.cuda.enable_cudnn_sdp(False)  # it would plan anew for nearly every micro-batch's shape

    def forward(self, ids_NL: Tensor, prompt_N: Tensor, mask_NT: Tensor) -> Tensor:
        """log pi(o_t | q, o_<t) at the sampling temperature, (N, T) float32 or wider; 0 on padding.
        prompt_N: tokens of each prompt."""
        bf16 = ids_NL.is_cuda if self.bf16 is None else self.bf16
        with torch.autocast(ids_NL.device.type, torch.bfloat16, enabled=bf16):  # weights stay float32
            hidden_NLH = hidden_states(self.model, ids_NL)
            row_M, t_M = mask_NT.nonzero(as_tuple=True)
            position_M = prompt_N[row_M] + t_M
            logp_M = self._token_logp(hidden_NLH[row_M, position_M - 1], ids_NL[row_M, position_M])  # t-1 predicts t
        return logp_M.new_zeros(mask_NT.shape).masked_scatter(mask_NT, logp_M)

    def _token_logp(self, hidden_MH, target_M):
        """The head, in chunks, so that (M, V) logits never exist at once."""
        head = self.model.get_output_embeddings()
        chunk = max(1, self.head_chunk_elements // head.weight.shape[0])
        return ChunkedLogp.apply(hidden_MH, head.weight, head.bias, target_M, self.temperature, chunk)


def head_logits(head: nn.Module, hidden_BH: Tensor) -> Tensor:
    """(B, V) logits in float32 of a bfloat16 product, at temperature 1: what `Policy` scores, for one token each."""
    return _logits(hidden_BH, head.weight.to(torch.bfloat16), head.bias, 1.0)


def compile_layers(model: nn.Module, backend: str = "inductor") -> None:
    """torch.compile every decoder layer, in place, for any batch and length. Layer by layer and not the whole model:
    traced as a whole, Transformers would make an (L, L) mask and attention would lose its fast kernel; and checkpoints
    stay between layers. Raises ValueError for a model whose layers are not where most have them."""
    layers = getattr(body(model), "layers", None)
    if layers is None:
        raise ValueError(f"--compile: {type(model).__name__} has no list of layers at .layers")
    torch._dynamo.config.optimize_ddp = False  # it would cut graphs at buckets; layers are small enough already
    torch._dynamo.config.recompile_limit = 32  # one row, several, a filler, each with and without gradient: more than 8
    for layer in layers:
        layer.compile(dynamic=True, backend=backend)


class ChunkedLogp(torch.autograd.Function):
    """The same as these three lines, `chunk` rows at a time; the backward pass makes the logits again:

        logits_MV = (hidden_MH @ weight_VH.T + bias_V).float() / temperature
        logp_MV = logits_MV.log_softmax(-1)
        return logp_MV.gather(-1, target_M[:, None])[:, 0]

    Our own and not autograd, which would hold four arrays of the logits' size where one is enough and add up the
    chunks' gradients in bfloat16; and not Liger's kernel, which needs a GPU. Here products are in autocast's dtype and
    sums over chunks in float32 or wider. Measured: 325 MB where the plain form needs 14 GB (BENCHMARKS.md)."""

    @staticmethod
    def forward(
        ctx,
        hidden_MH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        target_M: Tensor,
        temperature: float,
        chunk: int,
    ) -> Tensor:
        """(M,) log-probabilities of the target tokens, in nats."""
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
    def backward(ctx, grad_M: Tensor) -> tuple[Tensor | None, ...]:
        """One gradient per argument of `forward`."""
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
    hidden_CH = hidden_CH.to(weight_VH.dtype)
    with torch.autocast(hidden_CH.device.type, enabled=False):
        if hidden_CH.is_cuda and weight_VH.dtype == torch.bfloat16:  # the sum is not rounded to bfloat16; CUDA can
            logits_CV = torch.mm(hidden_CH, weight_VH.T, out_dtype=torch.float32)
            logits_CV = logits_CV if bias_V is None else logits_CV.add_(bias_V)
        else:
            logits_CV = nn.functional.linear(hidden_CH, weight_VH, None if bias_V is None else bias_V.to(weight_VH))
    return logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32)).div_(temperature)
