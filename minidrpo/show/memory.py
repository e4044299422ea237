"""memory.py - what each GPU of a run must hold, as a table. Loads nothing; estimates and warns, refuses nothing.

    python -m minidrpo.show.memory r1-7b --gpus 8 --gpu-memory 80       or: train.py r1-7b --dry-run ...
    python -m minidrpo.show.memory --cards          single GPUs of 16 to 80 GiB, the table of docs/memory.md

The terms and what they assume: minidrpo/engine/memory.py.
"""

import sys
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

import config
import rollout
from minidrpo import cli, markdown
from minidrpo.engine import memory
from minidrpo.engine.memory import GIB
from minidrpo.show.tables import plain


@dataclass(frozen=True)
class GPUs:
    gpus: int = cli.value(0, "0 or more")
    """How many; 0 is what this machine has, or 8."""
    gpu_memory: float = cli.value(0.0, "0 or more", "at most 1e+06")
    """GiB of each; 0 is what this machine's have, or 80."""
    cards: bool = False
    """Only the table of single GPUs that docs/memory.md has."""


def show(cfg) -> None:
    """Print the memory of a rank and the size of a step. ValueError for a run that cannot be at all."""
    found = torch.cuda.device_count()
    total = cfg.gpu_memory * GIB or (torch.cuda.get_device_properties(0).total_memory if found else 80 * GIB)
    gpus = cfg.gpus or found or 8
    if cfg.shard and gpus == 1:
        raise ValueError("--shard splits a model over several ranks and there is one")
    memory.check_work_for(gpus, cfg)
    s = memory.read_shapes(cfg.model)
    if s is None:
        raise ValueError(f"{cfg.model}: its shapes are not known here; download it and give the directory as --model")
    here = found and not cfg.gpus  # else it is a plan for another machine, which may have what this one lacks
    vllm = rollout.is_vllm(cfg.sampler, torch.device("cuda")) if here else cfg.sampler != "transformers"
    if cfg.sampler == "auto" and here:
        print(f"--sampler auto: {'vLLM' if vllm else 'Transformers, as vLLM is missing'} on this machine")
    elif cfg.sampler == "auto":
        print("--sampler auto: vLLM is assumed; add --sampler transformers for a node without it")
    plan = memory.Plan.of(cfg, gpus, vllm)
    size = f"{s.parameters / 1e9:.2f} billion" if s.parameters > 1e8 else f"{s.parameters / 1e6:.2f} million"
    cli.say(f"{cfg.model}: {size} parameters, {plan.gpus} x {total / GIB:.0f} GiB")
    Console().print(table(s, plan, total))
    print_step(cfg, s, plan, total)
    if reason := memory.reason_not_to_fit(cfg, gpus, total, vllm):
        cli.say(f"warning: by this estimate it will not fit: {cfg.model}: {reason}")


def table(s: memory.Shapes, plan: memory.Plan, total: float) -> Table:
    """One row per term of a rank's memory, one column per stage. total: bytes of one GPU."""
    rows = memory.terms(s, plan, total)
    made = plain(None, "GiB per GPU", "always", "sample", "update", "how")
    made.columns[-1].justify = "left"
    for t in rows:
        cells = (f"{t.bytes / GIB:.1f}" if t.phase == p else "" for p in ("resident", "sample", "update"))
        made.add_row(t.name, *cells, t.how)
    made.add_section()
    made.add_row("needed", "", *(f"{n / GIB:.1f}" for n in memory.peaks(rows).values()), "with what is always there")
    return made


def print_step(cfg, s: memory.Shapes, plan: memory.Plan, total: float) -> None:
    """The size of a step in sentences."""
    n = cfg.prompts_per_step * cfg.group_size
    print(
        f"A step: {cfg.prompts_per_step} prompts x {cfg.group_size} responses = {n:,}, {plan.responses:,} per GPU, at "
        f"most {n * cfg.max_response_tokens / 1e6:.1f} million tokens; "
        f"{cfg.mini_batches} optimizer step{'s' if cfg.mini_batches > 1 else ''}; "
        f"micro-batches of at most {plan.tokens:,} tokens."
    )
    if plan.vllm_share is not None:
        n = memory.vllm_responses(s, plan, total)
        print(f"vLLM's cache holds {n:,} responses of {plan.context:,} tokens at once; more wait for their turn.")
    who = "Rank 0, alone," if plan.sharded else "Each process"
    own = f", then each {2 * s.parameters / GIB:.0f} GiB to sample" if plan.sharded and plan.vllm_share is None else ""
    print(f"{who} reads {4 * s.parameters / GIB:.0f} GiB of weights into main memory when it starts{own}.")


CARDS = (16, 24, 40, 80)
RUNS = {  # on one GPU: what is typed, its config
    "small": config.make("small"),
    "small --model Qwen/Qwen2.5-1.5B-Instruct": config.make("small", model="Qwen/Qwen2.5-1.5B-Instruct"),
    "r1-1.5b": config.make("r1-1.5b"),
}


def cards() -> str:
    """Markdown: what single GPUs of several sizes must hold in some runs, with vLLM."""
    lines = []
    for name, cfg in RUNS.items():
        s, plan = memory.read_shapes(cfg.model), memory.Plan.of(cfg, 1)
        for gib in CARDS:
            need = memory.peaks(memory.terms(s, plan, gib * GIB))
            reason = memory.trouble(s, plan, gib * GIB)
            fits = "yes" if not reason else f"no; {reason.rpartition('; ')[2]}"
            held = f"{memory.vllm_responses(s, plan, gib * GIB):,} x {plan.context:,} tokens"
            lines.append([f"{gib} GiB", name, *(f"{need[p] / GIB:.1f}" for p in ("sample", "update")), held, fits])
    head = ["one GPU of", "`train.py ...`", "sample", "update", "vLLM holds", "fits"]
    return markdown.table(head, lines, align=["---:", "---", "---:", "---:", "---:", "---"])


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    cfg = config.parse(argv, "memory", "What each GPU of a run must hold, by an estimate.", extra=GPUs)
    with cli.user_errors():
        print(cards()) if cfg.cards else show(cfg)


if __name__ == "__main__":
    sys.exit(main())
