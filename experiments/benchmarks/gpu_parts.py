"""gpu_parts.py - what gpu.py runs: each part yields rows of its table, in under ten minutes on one GPU.

Weights are random and made here, on the device: speed and memory do not depend on their values. A training step is
the whole update: the batch is scored without gradients, then forward and backward in micro-batches, clipping, AdamW.
Responses have mixed lengths, other ones in every step, as in a run: nearly every micro-batch has a shape of its own.

FLOPs are the model's, not the hardware's: a token costs 2 per parameter that a matrix product reads (the head included,
the embedding's look-up not), and its causal attention 2 * layers * width * length; a forward pass is one such unit, a
backward pass two, so a step is four (score 1, train 3). Padding and what checkpointing computes again are not counted.
Peak: the vendor's dense bfloat16 rate.

N responses | L tokens of the longest, prompt included
"""

import dataclasses
import importlib.util
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

import drpo
import train
from config import PRESETS, TINY, TINY_MODEL
from minidrpo import setup
from minidrpo.engine import batches, loading, memory
from minidrpo.engine import policy as policies
from minidrpo.engine.distributed import DistContext
from minidrpo.engine.memory import GIB
from minidrpo.rundir import jsonl, metrics
from rollout import Rollout, VLLMSampler

ROOT = Path(train.__file__).resolve().parent
PEAK = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H200": 989e12, "H100": 989e12, "A100": 312e12}  # first match counts
SIZES = {
    "0.5B": memory.KNOWN["Qwen/Qwen2.5-0.5B-Instruct"],
    "1.5B": memory.KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"],
    "7B": memory.KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"],
    "small": memory.Shapes(hidden=64, layers=2, intermediate=128, heads=2, kv_heads=1, vocab=288),
}
VARIANTS = {
    f"{name}{',compile' * compiled}": {"gradient_checkpointing": name != "plain", "compile": compiled}
    for name in ("checkpointing", "plain", "cudnn")
    for compiled in (False, True)
    if not (compiled and name == "cudnn")
}
# Training: responses per step, the longest, steps timed. vLLM: prompts (8 responses to each), tokens of each at most
FULL = {"responses": 24, "length": 8192, "micro_batch_tokens": 16384, "repeats": 3, "prompts": 32, "new_tokens": 2048}
SMALL = {"responses": 8, "length": 32, "micro_batch_tokens": 64, "repeats": 1, "prompts": 2, "new_tokens": 8}


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


def row(case, *, device, seconds=None, tokens=None, flops=None, peak=None, estimate=None, note="", **facts) -> dict:
    """A line of the table. seconds: of `tokens` tokens and `flops` model FLOPs; peak, estimate: bytes; facts: what the
    checks at the end ask for."""
    best = peak_flops(device_name(device))
    return {
        "case": case,
        "seconds": seconds,
        "tokens_per_second": tokens and tokens / seconds,
        "tflops": flops and flops / seconds / 1e12,
        "share_of_peak": flops and best and flops / seconds / best,
        "peak_gib": peak and peak / GIB,
        "calculated_gib": estimate and estimate / GIB,
        "note": note,
    } | facts


def failure(case, error) -> dict:
    return {"case": case, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def forward_flops(s: memory.Shapes, lengths: list[int]) -> int:
    """Model FLOPs of one forward pass over responses of these lengths, see the top of this file."""
    matrices = s.layers * dataclasses.replace(s, qkv_bias=False).layer_matrices + s.embedding
    return sum(n * (2 * matrices + 2 * s.layers * s.query_width * n) for n in lengths)


def make_model(s: memory.Shapes, device) -> Qwen2ForCausalLM:
    """A Qwen2 of random float32 weights, made on the device."""
    sizes = {"vocab_size": s.vocab, "hidden_size": s.hidden, "intermediate_size": s.intermediate}
    sizes |= {"num_hidden_layers": s.layers, "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads}
    tokens = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    config = Qwen2Config(**sizes, **tokens, tie_word_embeddings=s.tied, max_position_embeddings=131072)
    torch.manual_seed(0)
    with torch.device(device):
        return Qwen2ForCausalLM(config)


# ---------------------------------------------------------------------------------------------------------- the update


def train_part(args, device):
    """The update on synthetic responses of mixed lengths, for each size and variant."""
    if device.type == "cuda":
        yield matmul_ceiling(device)
    for size in args.models:
        for variant in args.variants:
            case = f"update {size} {variant}"
            try:
                yield training_case(case, SIZES[size], variant, args, device)
            except Exception as error:  # out of memory, say: the next variant may fit
                yield failure(case, error)
            args.clean(device)


def cudnn_part(args, device):
    """The same update with PyTorch's default, cuDNN's attention first, and without it, as the trainer runs."""
    args.variants = ["cudnn", "checkpointing"]
    args.models = args.models[:1]
    yield from train_part(args, device)


def matmul_ceiling(device):
    """What a plain bfloat16 product reaches here: the practical ceiling of any share of peak."""
    n = 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    _, seconds = timed(lambda: [a @ b for _ in range(10)], device)
    return row(f"matrix product {n}^3", seconds=seconds / 10, flops=2 * n**3, device=device)


def mixed_lengths(n: int, longest: int, seed: int) -> list[int]:
    """Log-normal, as in a run of the paper's 1.5B model at 8,192 tokens: the mean near a third of `longest`, 7 % at
    it; no two steps alike."""
    g = torch.Generator().manual_seed(seed)
    share_N = torch.randn(n, generator=g).mul(0.8).add(7.6).exp() / 8192
    return share_N.clamp(max=1).mul(longest).clamp(min=4).int().tolist()


def training_case(case, s, variant, args, device):
    n, length = args.responses, args.length
    cfg = dataclasses.replace(
        TINY,
        **{"method": "drpo", "prompts_per_step": n // 2, "group_size": 2, "mini_batches": 1},
        **{"max_prompt_tokens": 64, "max_response_tokens": length, "micro_batch_tokens": args.micro_batch_tokens},
        **{"weight_decay": 0.01, "lr": 1e-6} | VARIANTS[variant],
    )
    s, cfg = shrink(s, cfg, length, device)
    model, ctx = make_model(s, device), DistContext(device=device)
    policy, optimizer = setup.make_policy(model, cfg, ctx)
    torch.backends.cuda.enable_cudnn_sdp(variant == "cudnn")
    correct_PG = torch.tensor([[True, False]] * (n // 2))  # every group mixed: every response teaches

    def step(seed):
        lengths = mixed_lengths(n, length, seed)
        rollouts = [synthetic(i, min(64, size // 2), size, s.vocab) for i, size in enumerate(lengths)]
        length_PG = torch.tensor([len(r.response_ids) for r in rollouts]).view(-1, 2)
        weight_PG = drpo.positive_distribution(drpo.length_preference(length_PG, length), correct_PG, cfg.lam)
        call = lambda: train.update(policy, optimizer, rollouts, correct_PG, weight_PG, cfg, ctx)  # noqa: E731
        numbers, seconds = timed(call, device)
        optimizer.zero_grad(set_to_none=True)
        return numbers, seconds, lengths

    numbers, first, _ = step(0)  # allocates AdamW's moments, and compiles
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    steps = [step(seed)[1:] for seed in range(1, 1 + args.repeats)]
    seconds, lengths = sorted(steps)[len(steps) // 2]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    note = f"{s.layers} layers, {n} responses of {min(lengths):,} to {max(lengths):,} tokens, micro-batches of "
    note += f"{cfg.micro_batch_tokens:,}, {attention_kernel(s, length, device)} attention, first step {first:.1f} s, "
    note += f"spread {max(x for x, _ in steps) - min(x for x, _ in steps):.2g} s, gradient {numbers['grad_norm']:.2g}"
    work = {"tokens": sum(lengths), "flops": 4 * forward_flops(s, lengths)}
    estimate = calculated(s, cfg, cfg.micro_batch_tokens)
    return row(case, device=device, seconds=seconds, **work, peak=peak, estimate=estimate, note=note)


def attention_kernel(s, length, device):
    """Which of PyTorch's attention kernels this shape gets, under autocast."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    q, k = (torch.empty(1, h, length, s.hidden // s.heads, dtype=dtype, device=device) for h in (s.heads, s.kv_heads))
    choice = torch._fused_sdp_choice(q, k, k, is_causal=True, enable_gqa=s.heads != s.kv_heads)
    return {0: "math", 1: "flash", 2: "efficient", 3: "cudnn"}.get(int(choice), str(choice))


def calculated(s, cfg, tokens):
    """The memory estimate's bytes for the update on one GPU, without what it only assumes."""
    plan = dataclasses.replace(memory.Plan.of(cfg, 1, vllm=False), tokens=tokens)
    return memory.peaks([t for t in memory.terms(s, plan, 0) if t.how != "assumed"])["update"]


def shrink(s, cfg, length, device):
    """(shapes, settings) that fit: first fewer tokens per micro-batch, down to one response, then fewer layers."""
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


# ---------------------------------------------------------------------------------------------------------- the engine


def vllm_part(args, device):
    """The engine in this process beside the trainer's model: speed, sleep, wake and sync, freshness, the gap."""
    if importlib.util.find_spec("vllm") is None:
        raise RuntimeError("vLLM is not installed here")
    s = SIZES[args.models[0]]
    model = make_model(s, device).eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer = loading.load_tokenizer(TINY_MODEL)
        tokenizer.save_pretrained(folder)
        limits = {"max_model_len": args.new_tokens + 64, "gpu_memory_utilization": 0.5, "rows": 8 * args.prompts}
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
    yield row("gap to the trainer", device=device, note=note, gap=mean)
    for _ in range(2):  # the second cycle shows what lasts
        before = used(device)
        _, seconds = timed(sampler.sleep, device)
        asleep = used(device)
        note = (
            f"GPU in use {before:.1f} -> {asleep:.1f} GiB, of which the trainer's weights {4 * s.parameters / GIB:.1f}"
        )
        yield row("vLLM sleep", seconds=seconds, device=device, note=note, left=asleep - 4 * s.parameters / GIB)
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
        note = f"gap {fresh:.2g}; {stale:.2g} with old weights; {old:.2g} before"
        yield row("freshness", device=device, note=note, gap=fresh)


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


# ---------------------------------------------------------------------------------------------------------- whole jobs


def job_part(args, device):
    """Two steps of the real job under torchrun, one process per GPU, vLLM beside it: the whole chain, and how it ends.
    Built-in problems, so that only the model comes from the Hub, or from --model."""
    ranks = torch.cuda.device_count() or 2
    room = torch.cuda.get_device_properties(device).total_memory / GIB if device.type == "cuda" else 0
    preset = "tiny" if args.small else "r1-1.5b" if room > 60 else "small"
    sizes = {"prompts_per_step": 4, "max_response_tokens": 16} if args.small else {}
    sizes = {"prompts_per_step": 16 * ranks, "max_response_tokens": 2048, "mini_batches": 2} | sizes
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in sizes.items()]
    flags += ["--steps=2", "--train-data=arithmetic", "--eval-data=arithmetic", "--no-eval-start", "--max-problems=16"]
    flags += ["--samples=1", *([f"--model={args.model}"] if args.model else [])]
    with tempfile.TemporaryDirectory() as folder:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        command = [*torchrun, str(ROOT / "train.py"), preset, *flags, f"--run-dir={folder}/run"]
        start = time.perf_counter()
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
        try:
            said, _ = job.communicate(timeout=54 * args.minutes)  # of 60: what ran into it can still be told
        except subprocess.TimeoutExpired:
            job.terminate()  # torchrun then stops its ranks
            said, _ = job.communicate()
        seconds, steps = time.perf_counter() - start, jsonl.read(Path(folder) / "run" / "metrics.jsonl")
    said = [line for line in said.splitlines() if line.startswith(("device", "error", "warning"))]
    gaps = [r["sampler_gap"] for r in steps]
    note = f"{args.model or PRESETS[preset][1].get('model', 'DeepSeek-R1-Distill-Qwen-1.5B')}, exit code "
    note += f"{job.returncode}, gap {', '.join(f'{x:.2g}' for x in gaps) or 'none'}; {'; '.join(said)[:300]}"
    note += f"; {metrics.time_line(metrics.step_times(steps))}" if steps else ""
    facts = {"gaps": gaps, "exit": job.returncode}
    yield row(f"{preset}, 2 steps on {ranks} ranks", device=device, seconds=seconds, note=note, **facts)


def tiny_part(args, device):
    """The embedded model's whole job, as `python train.py` runs it."""
    with tempfile.TemporaryDirectory() as folder:
        small = {"steps": 2, "prompts_per_step": 4, "max_problems": 8, "samples": 1} if args.small else {}
        cfg = dataclasses.replace(TINY, run_dir=folder, sampler="transformers", **small)
        _, seconds = timed(lambda: train.train(cfg, DistContext(device=device)), device)
        steps = jsonl.read(Path(folder) / "metrics.jsonl")
        before, *_, after = jsonl.read(Path(folder) / "evals.jsonl")
    tokens = sum(r["response_tokens"] for r in steps)
    note = f"accuracy {before['accuracy']:.1%} -> {after['accuracy']:.1%}, length {before['mean_length']:.1f} -> "
    note += f"{after['mean_length']:.1f}, gap {steps[-1]['sampler_gap']:.1e}; "
    note += metrics.time_line(metrics.step_times(steps))
    yield row(f"tiny, {len(steps)} steps", seconds=seconds, tokens=tokens, device=device, note=note)


PARTS = {  # the most uncertain first: the order of --first-hour, one process each
    "vllm": vllm_part,
    "job": job_part,
    "cudnn": cudnn_part,
    "train": train_part,
    "tiny": tiny_part,
}
