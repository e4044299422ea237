"""memory.py - what a run needs of a GPU, term by term, from the model's shapes and the settings alone.

Weights, gradients and AdamW's moments are float32 and exact. Activations are counted as autograd keeps them for a
Qwen2-like layer under bfloat16 autocast (tests/test_memory.py compares them with a measured case). What CUDA, NCCL and
a sleeping vLLM hold is an assumption, named as such. 1 GiB = 2**30 bytes.

    python train.py r1-7b --dry-run --gpus 8 --gpu-memory 80       the table, and why a run cannot fit
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from minidrpo import cli
from minidrpo.engine.policy import HEAD_CHUNK_ELEMENTS
from minidrpo.files import check_model_directory, read_json

GIB = 2**30
CUDA_RESERVE = 1.5 * GIB  # assumed: CUDA context, cuBLAS and NCCL buffers, what the allocator rounds up
VLLM_ASLEEP = 1.5 * GIB  # assumed: CUDA graphs and workspaces that sleep does not hand back
DECODED_ROWS = 512  # TransformersSampler decodes at most so many responses at once


@dataclass(frozen=True)
class Shapes:
    """A Qwen2 or Llama-like decoder, as its config.json tells it."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool = False
    head_dim: int = 0
    """0: hidden / heads."""
    qkv_bias: bool = True
    """Qwen2's; Llama has none."""

    @property
    def query_width(self) -> int:
        """Numbers per token in the queries of all heads."""
        return self.heads * (self.head_dim or self.hidden // self.heads)

    @property
    def key_width(self) -> int:
        """Numbers per token in the keys of all heads."""
        return self.kv_heads * (self.head_dim or self.hidden // self.heads)

    @property
    def layer_matrices(self) -> int:
        """Parameters of one layer that a matrix product reads, biases included: autocast casts these."""
        attention = 2 * self.hidden * (self.query_width + self.key_width)
        bias = self.query_width + 2 * self.key_width if self.qkv_bias else 0
        return attention + bias + 3 * self.hidden * self.intermediate

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        return self.layer_matrices + 2 * self.hidden  # two norms

    @property
    def embedding(self) -> int:
        """Parameters of the embedding; the head has as many."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """Of the whole model; a tied head counts once."""
        return self.layers * self.layer + self.hidden + self.embedding * (1 if self.tied else 2)


KNOWN = {  # so that the presets need no network
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Shapes(1536, 28, 8960, 12, 2, 151936),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": Shapes(3584, 28, 18944, 28, 4, 152064),
    "Qwen/Qwen2.5-0.5B-Instruct": Shapes(896, 24, 4864, 14, 2, 151936, tied=True),
    "Qwen/Qwen2.5-1.5B-Instruct": Shapes(1536, 28, 8960, 12, 2, 151936, tied=True),
}


def read_shapes(model: str) -> Shapes | None:
    """Shapes of a model directory or a Hub id known here; None where they cannot be told without the network."""
    check_model_directory(Path(model).expanduser() if model.startswith("~") else model)
    path = Path(model).expanduser() / "config.json"
    if not path.is_file():
        return KNOWN.get(model)
    try:
        c = {name: x for name, x in dict(read_json(path)).items() if x is not None}  # null: as if left out
        hidden, heads = c["hidden_size"], c["num_attention_heads"]
        sizes = hidden, c["num_hidden_layers"], c["intermediate_size"], heads
        sizes += c.get("num_key_value_heads", heads), c["vocab_size"], c.get("head_dim", hidden // heads)
        tied, bias = c.get("tie_word_embeddings", False), c.get("attention_bias", c.get("model_type") == "qwen2")
        s = Shapes(*sizes[:-1], tied, sizes[-1], bias)
        if not (cli.fits((tied, bias), tuple[bool, ...]) and cli.fits(sizes, tuple[int, ...]) and 0 < min(sizes)):
            raise ValueError(s)
        return s
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError, OSError) as error:
        raise ValueError(f"{path} does not tell the shapes of a decoder: {error}") from error


# ------------------------------------------------------------------------------------------------------------ the terms


@dataclass(frozen=True)
class Plan:
    """What of a run's settings decides its memory."""

    gpus: int
    sharded: bool
    tokens: int
    """Padded tokens of the largest micro-batch; one response may exceed the budget."""
    checkpointing: bool
    context: int
    """Longest prompt and response together, tokens."""
    responses: int
    """Responses a rank samples in a step."""
    vllm_share: float | None
    """Share of the GPU that vLLM takes while it samples; None: the trainer's own model samples."""
    head_chunk: int = HEAD_CHUNK_ELEMENTS

    @property
    def replicated(self) -> bool:
        """Does each of several ranks hold the whole model (DDP)?"""
        return self.gpus > 1 and not self.sharded

    @classmethod
    def of(cls, cfg, gpus: int, vllm: bool = True) -> "Plan":
        """From a run's Config; vllm: whether vLLM samples."""
        context = cfg.max_prompt_tokens + cfg.max_response_tokens
        mini = cfg.prompts_per_step // cfg.mini_batches * cfg.group_size  # responses: no micro-batch holds more
        return cls(
            gpus,
            bool(cfg.shard) and gpus > 1,
            max(context, min(cfg.micro_batch_tokens, context * math.ceil(mini / gpus))),
            cfg.gradient_checkpointing,
            context,
            math.ceil(cfg.prompts_per_step / gpus) * cfg.group_size,
            cfg.gpu_memory_utilization if vllm else None,
        )


@dataclass(frozen=True)
class Term:
    """One line of a rank's memory."""

    name: str
    bytes: float
    phase: str
    """resident | update | sample: always there, or beside what is always there in that stage."""
    how: str


def layer_activations(s: Shapes) -> int:
    """Bytes per token that autograd keeps of one layer under autocast: the residual stream and the norms are float32,
    every matrix product keeps its bfloat16 input (cast anew for each of q, k, v and for gate, up)."""
    norms = 2 * (4 * s.hidden + 4 * s.hidden)  # the norm's input, which is the residual stream, and x / rms
    casts = 5 * 2 * s.hidden  # inputs of q, k, v, gate, up
    attention = 2 * 2 * s.query_width + 2 * 2 * s.key_width + 4 * s.heads  # q and output, k and v, log-sum-exp
    mlp = 4 * 2 * s.intermediate  # gate, silu(gate), up, their product
    return norms + casts + attention + mlp


def around_head(s: Shapes) -> int:
    """Bytes per token of what the last norm and the head keep, and backward lets go of first."""
    return 4 * 4 * s.hidden


def working_memory(s: Shapes, plan: Plan, kept: float = 0) -> tuple[float, str]:
    """(bytes, when) of the worst moment of a micro-batch, beside gradients and the activations that are kept."""
    logits = 4 * s.vocab * min(max(1, plan.head_chunk // s.vocab), plan.tokens)  # float32, a chunk of rows
    layer = plan.tokens * layer_activations(s)
    if plan.sharded:  # gathered in bfloat16: embedding and head throughout, two layers in turn
        before = after = 2 * ((1 if s.tied else 2) * s.embedding + 2 * s.layer)
    else:  # autocast keeps what it casts until the forward pass ends; so does the graph what it was not told to forget
        before = 2 * (s.layers * s.layer_matrices + s.embedding)
        after = 0 if plan.checkpointing else 2 * s.layers * s.layer_matrices
    again = layer + 2 * s.layer_matrices if plan.checkpointing else 0  # a layer's forward pass, repeated
    inside = plan.tokens * (2 * s.intermediate + 6 * s.hidden)  # gradients on their way through a layer
    split = 6 * s.layer if plan.sharded else 0  # a layer's gradients, and their float32 copy, before they are scattered
    head = (6 if plan.sharded else 8) * s.embedding  # W cast, its gradient in float32, a chunk's
    moments = {
        "end of the forward pass": before + 1.5 * logits,
        "backward through the head": after + head + 0.5 * logits,
        "backward through a layer": after + again + inside + split - plan.tokens * around_head(s),
        # Square roots of the moments; activations are gone by then
        "AdamW's step": 4 * s.parameters / (plan.gpus if plan.sharded else 1) - kept,
    }
    when = max(moments, key=moments.get)
    return moments[when], when


def terms(s: Shapes, plan: Plan, gpu_memory: float) -> list[Term]:
    """Every term of one rank's memory, in bytes. gpu_memory: bytes of one GPU."""
    part = plan.gpus if plan.sharded else 1
    over = f" over {plan.gpus} ranks" if plan.sharded else ""
    n_parameters = s.parameters
    kept = plan.tokens * s.layers * (4 * s.hidden if plan.checkpointing else layer_activations(s))
    kept += plan.tokens * around_head(s)
    work, when = working_memory(s, plan, kept)
    rows = [
        Term("weights", 4 * n_parameters / part, "resident", f"4 bytes per parameter{over}"),
        Term("AdamW's moments", 8 * n_parameters / part, "resident", f"8 bytes per parameter{over}"),
    ]
    if plan.replicated:  # DDP's buckets, which stay
        rows.append(Term("gradients", 4 * n_parameters, "resident", "4 bytes: in DDP's buckets"))
    else:
        rows.append(Term("gradients", 4 * n_parameters / part, "update", f"4 bytes{over}"))
    rows += [
        Term("CUDA, NCCL", CUDA_RESERVE, "resident", "assumed"),
        Term("activations kept", kept, "update", "each layer's input" if plan.checkpointing else "of every layer"),
        Term("working memory", work, "update", when),
    ]
    if plan.vllm_share is None:
        if plan.sharded:
            rows.append(Term("the sampler's weights", 2 * n_parameters, "resident", "bfloat16, 2 bytes per parameter"))
        n = min(DECODED_ROWS, plan.responses)
        cache = n * plan.context * cache_bytes(s)
        return rows + [
            Term("keys and values", cache, "sample", f"at most: {n} responses of {plan.context:,} tokens"),
            Term("drawing a token", 20 * n * s.vocab, "sample", "20 bytes per logit"),  # 3 float32, 1 float64
        ]
    parcel = (8 if plan.sharded else 4) * s.embedding  # gathered in float32, in bfloat16, and vLLM's own copy
    return rows + [
        Term("vLLM asleep", VLLM_ASLEEP, "update", "assumed"),
        Term("vLLM", plan.vllm_share * gpu_memory, "sample", f"{plan.vllm_share:.0%} of the GPU"),
        Term("a weight on its way", parcel, "sample", "the largest, in sync"),
    ]


def cache_bytes(s: Shapes) -> int:
    """Of a token's keys and values in all layers, bfloat16."""
    return 2 * 2 * s.key_width * s.layers


def peaks(rows: list[Term]) -> dict[str, float]:
    """{stage: bytes} of the two stages that fill a GPU."""
    resident = sum(t.bytes for t in rows if t.phase == "resident")
    return {p: resident + sum(t.bytes for t in rows if t.phase == p) for p in ("sample", "update")}


def vllm_responses(s: Shapes, plan: Plan, gpu_memory: float) -> int:
    """How many responses of full length vLLM's cache holds at once, after its weights and 2 GiB to compute in."""
    room = plan.vllm_share * gpu_memory - 2 * s.parameters - 2 * GIB
    return max(0, math.floor(room / (plan.context * cache_bytes(s))))


# ----------------------------------------------------------------------------------------------------- does it fit, why


def trouble(s: Shapes, plan: Plan, gpu_memory: float) -> str | None:
    """None if the run fits, else the reason in one line, with what would help."""
    problem = _problem(s, plan, gpu_memory)
    if not problem:
        return None
    ways = [
        ("--gradient-checkpointing", {"checkpointing": True}, not plan.checkpointing),
        ("--shard", {"sharded": True}, plan.replicated),
        (f"--micro-batch-tokens {plan.context}", {"tokens": plan.context}, plan.tokens > plan.context),
        ("--gpu-memory-utilization 0.3", {"vllm_share": 0.3}, (plan.vllm_share or 0) > 0.3),
    ]
    ways = [(flag, change) for flag, change, possible in ways if possible]
    ways += [(f"{a} {b}", x | y) for i, (a, x) in enumerate(ways) for b, y in ways[i + 1 :]]
    for flag, change in ways:
        if not _problem(s, dataclasses.replace(plan, **change), gpu_memory):
            return f"{problem}; {flag} fits"
    return f"{problem}; more or larger GPUs{'' if plan.sharded else ' and --shard'} are needed"


def _problem(s, plan, gpu_memory):
    rows = terms(s, plan, gpu_memory)
    for stage, need in peaks(rows).items():
        if need > gpu_memory:
            largest = sorted((t for t in rows if t.phase in ("resident", stage)), key=lambda t: -t.bytes)[:3]
            parts = ", ".join(f"{t.name} {t.bytes / GIB:.0f}" for t in largest)
            whole = ", each with a whole copy" if plan.replicated else ""
            return (
                f"{stage} needs {need / GIB:.0f} GiB per GPU ({parts} ...) of {gpu_memory / GIB:.0f} GiB, "
                f"{plan.gpus} GPUs{', sharded' if plan.sharded else whole}"
            )
    if plan.vllm_share is not None and not vllm_responses(s, plan, gpu_memory):
        return f"vLLM's share, {plan.vllm_share:.0%} of {gpu_memory / GIB:.0f} GiB, cannot hold one response's cache"
    return None


def reason_not_to_fit(cfg, gpus: int, gpu_memory: float, vllm: bool = True) -> str | None:
    """Why, by this estimate, the run that `cfg` describes would not fit on GPUs of `gpu_memory` bytes; None if it
    would, or if the model's shapes are not known."""
    s = read_shapes(cfg.model)
    return s and trouble(s, Plan.of(cfg, gpus, vllm), gpu_memory)


def check_work_for(ranks: int, cfg) -> None:
    """ValueError if a step has less work than ranks."""
    if min(cfg.prompts_per_step, cfg.prompts_per_step // cfg.mini_batches * cfg.group_size) < ranks:
        raise ValueError(f"--prompts-per-step {cfg.prompts_per_step} is too few for {ranks} ranks")
