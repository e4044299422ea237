"""main_job.py - the main job again and again: seeds x lambda on the embedded model, as one table and one picture.

    python -m experiments.benchmarks.main_job --seeds 0 1 2 --lams 0.1 inf --out runs/main_job

Each run is `python train.py tiny --lam L --seed S`, a process of its own, one after the other. Finished runs are not
repeated, interrupted ones go on. Prints Markdown; numbers are held-out, before and after, with standard errors.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from minidrpo import markdown
from minidrpo.show import plots


def run(out: Path, lam: float, seed: int) -> dict:
    """One training run; returns its record with the seconds the whole command took."""
    folder = out / f"lam{lam:g}-seed{seed}"
    record = folder / "main_job.json"
    if not record.exists():
        command = [sys.executable, "train.py", "tiny", f"--lam={lam}", f"--seed={seed}", f"--run-dir={folder}"]
        start = time.time()
        with open(out / f"{folder.name}.log", "w") as log:
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
        evaluations = plots.read_lines(folder / "evals.jsonl")
        keys = ("accuracy", "accuracy_se", "mean_length", "mean_length_se", "truncated")
        before, after = ({k: evaluations[i][k] for k in keys} for i in (0, -1))
        seconds = round(time.time() - start)
        record.write_text(json.dumps({"lam": lam, "seed": seed, "seconds": seconds, "before": before, "after": after}))
    return json.loads(record.read_text())


def table(records: list[dict]) -> str:
    head = ("lambda", "seed", "accuracy before, %", "after, %", "mean length before", "after", "change", "seconds")
    lines = []
    for r in records:
        old, new = r["before"], r["after"]
        accuracies = (f"{100 * e['accuracy']:.1f} ± {100 * e['accuracy_se']:.1f}" for e in (old, new))
        lengths = (f"{e['mean_length']:.1f}" for e in (old, new))
        change = f"{100 * (new['mean_length'] / old['mean_length'] - 1):+.0f} %"
        lines.append([f"{r['lam']:g}", str(r["seed"]), *accuracies, *lengths, change, str(r["seconds"])])
    return markdown.table(head, lines)


def picture(records, out, path):
    """Accuracy against length: each run's held-out evaluations, from the base model on the right to its end."""
    points = []
    for r in records:
        name = "DisCO (λ = inf)" if r["lam"] == float("inf") else f"DRPO, λ = {r['lam']:g}"
        evaluations = plots.read_lines(out / f"lam{r['lam']:g}-seed{r['seed']}" / "evals.jsonl")
        points += [e | {"series": name, "path": r["seed"], "label": ""} for e in evaluations]
    plots.trade_off(points, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--lams", type=float, nargs="+", default=[0.1, float("inf")])
    parser.add_argument("--out", type=Path, default=Path("runs/main_job"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    records = [run(args.out.resolve(), lam, seed) for lam in args.lams for seed in args.seeds]
    print(table(records))
    picture(records, args.out, args.out / "trade_off.png")


if __name__ == "__main__":
    main()
