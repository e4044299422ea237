"""study.py - eight methods at several strengths, with several seeds, under equal budgets: the trade-off measured.

    python -m experiments.study                   all of it; start it again and it goes on, finished runs are kept
    python -m experiments.study --methods drpo rloo-lp --seeds 0 --workers 4

First each method's learning rate: one middle strength, every rate of one small grid, judged on validation problems.
Then methods x strengths x seeds at that rate, judged on the test problems. Each run is train.py's
loop in a process of its own with one thread. All numbers go to one tidy file (COLUMNS), and figures are made from it.
"""

import contextlib
import csv
import dataclasses
import json
import math
import multiprocessing as mp
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import config
from experiments import study_plots
from minidrpo import cli
from minidrpo.methods.table import METHODS
from minidrpo.rundir import jsonl, metrics
from minidrpo.tasks import arithmetic

STRENGTHS = {  # weak to strong; a method's first one is its own reference without a length penalty, where it has one
    "drpo": (math.inf, 0.5, 0.2, 0.1, 0.05),
    "grpo": (None,),
    "grpo-lp": (0.1, 0.3, 1.0, 3.0),
    "rloo-lp": (0.0, 0.1, 0.2, 0.4, 0.8),
    "alp": (1e-9, 1e-8, 1e-7, 1e-3),
    "hapo": (0.01, 0.1, 0.3, 1.0),
    "grpo-sum": (64,),
    "gdpo": (64,),
}
MIDDLE = {  # where learning rates are compared
    **{"drpo": 0.2, "grpo": None, "grpo-lp": 0.3, "rloo-lp": 0.2, "alp": 1e-8, "hapo": 0.1},
    **{"grpo-sum": 64, "gdpo": 64},
}
COLUMNS = (
    *("method", "hyperparameter", "strength", "lr", "seed", "role", "phase", "step", "group"),
    *("accuracy", "accuracy_se", "mean_length", "mean_length_se", "truncated", "mixed_groups", "entropy", "kl"),
    *("grad_norm", "reward_length", "seconds"),
)


@dataclass(frozen=True)
class Study:
    methods: tuple[str, ...] = tuple(STRENGTHS)
    """Which rows of STRENGTHS."""
    seeds: tuple[int, ...] = (0, 1, 2)
    lrs: tuple[float, ...] = (1e-4, 2e-4, 4e-4)
    """The grid of learning rates."""
    steps: int = 20
    prompts_per_step: int = 16
    train_problems: int = 80
    """Few enough that every problem comes back four times: HAPO's record of a problem is of no use before."""
    max_problems: int = 512
    samples: int = 2
    dir: str = "runs/study"
    """Where the runs live; a study with another budget needs another one."""
    out: str = "experiments/results/study.csv"
    workers: int = 2
    """Runs at a time, one thread each."""

    def __post_init__(self):
        for name in self.methods:
            if name not in STRENGTHS:
                raise ValueError(f"--methods: {name!r} is not one of {', '.join(STRENGTHS)}")
        for flag in ("steps", "prompts_per_step", "train_problems", "max_problems", "samples", "workers"):
            if getattr(self, flag) < 1:
                raise ValueError(f"--{flag.replace('_', '-')} must be 1 or more, got {getattr(self, flag)}")
        for flag, ok, rule in (
            ("methods", lambda name: True, "names"),
            ("seeds", lambda seed: seed >= 0, "0 or more"),
            ("lrs", lambda lr: 0 < lr < math.inf, "positive"),
        ):
            values = getattr(self, flag)
            if not values or len(set(values)) < len(values) or not all(map(ok, values)):
                raise ValueError(f"--{flag} must be {rule}, at least one and none twice, got {values}")
        if self.train_problems < self.prompts_per_step:
            raise ValueError(f"--train-problems {self.train_problems} are fewer than --prompts-per-step asks for")
        if self.train_problems + self.max_problems > arithmetic.MAX_PROBLEMS:
            raise ValueError(f"--train-problems and --max-problems: at most {arithmetic.MAX_PROBLEMS} together")


# ------------------------------------------------------------------------------------------------------------- the runs


def run_config(study, method, strength, lr, seed, role):
    """The training run of one cell: the tiny preset with this budget. role: "lr" (validation) or "study" (test)."""
    hyperparameter = METHODS[method].hyperparameter
    name = "-".join(
        [method, *([f"{hyperparameter}{strength:g}"] if strength is not None else []), f"lr{lr:g}", f"seed{seed}"]
    )
    return config.make(
        "tiny",
        method,
        **({hyperparameter: strength} if strength is not None else {}),
        lr=lr,
        seed=seed,
        steps=study.steps,
        prompts_per_step=study.prompts_per_step,
        train_data=str(Path(study.dir) / "train.jsonl"),
        eval_data=str(Path(study.dir) / "validation.jsonl") if role == "lr" else "arithmetic",
        max_problems=study.max_problems,
        samples=study.samples,
        eval_start=False,  # all runs start from the same base, which is evaluated once
        eval_every=study.steps,
        save_every=study.steps,
        run_dir=str(Path(study.dir) / role / name),
    )


def claim_directory(study):
    """Write down the budget that all runs in this directory share; ValueError if they had another one."""
    shared = ("steps", "prompts_per_step", "train_problems", "max_problems", "samples")
    ours, path = {key: getattr(study, key) for key in shared}, Path(study.dir) / "study.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    theirs = json.loads(path.read_text()) if path.exists() else ours
    if theirs != ours:
        raise ValueError(f"{study.dir} holds a study with {theirs}, this one has {ours}: choose another --dir")
    path.write_text(json.dumps(ours) + "\n")
    write_problems(study)


def write_problems(study):
    """Two files: the problems that every run trains on, and as many as an evaluation takes for choosing learning rates.
    Both are of the training split; the test split is for the results alone."""
    made = arithmetic.problems(study.train_problems + study.max_problems, split="train")
    for name, part in ("train", made[: study.train_problems]), ("validation", made[study.train_problems :]):
        path = Path(study.dir) / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"problem": text, "answer": answer}) + "\n" for text, answer, _ in part))


def is_done(cfg):
    evaluations = jsonl.read(Path(cfg.run_dir) / "evals.jsonl")
    return bool(evaluations) and evaluations[-1]["step"] == cfg.steps


def run_one(cfg):
    """One training run in this process, its output in a log beside the run; the error's text, or None."""
    import torch

    import train
    from minidrpo.engine.distributed import DistContext

    torch.set_num_threads(1)
    log_path = Path(f"{cfg.run_dir}.log")
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with open(log_path, "w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            train.train(cfg, DistContext())
        except KeyboardInterrupt:
            os._exit(130)  # a pool that has lost a worker starts nothing more
        except SystemExit:  # a clear line, in the log
            pass
        except Exception as error:  # one bad cell must not end the night's work
            print(f"{type(error).__name__}: {error}")
    if is_done(cfg):
        return None
    lines = log_path.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    return f"{cfg.run_dir}: {lines[-1]} (see {log_path})"


def run_all(configs, workers, title):
    """Train what is not done yet, `workers` at a time. Returns the errors' lines."""
    missing = [cfg for cfg in configs if not is_done(cfg)]
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the workers before they load torch
    errors = []
    bar = tqdm(total=len(configs), initial=len(configs) - len(missing), desc=title, unit="run", dynamic_ncols=True)
    with bar, ProcessPoolExecutor(workers, mp_context=mp.get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(run_one, cfg) for cfg in missing]):
                if error := future.result():
                    errors.append(error)
                    tqdm.write(f"failed: {error}")
                bar.update()
        except BrokenProcessPool as error:
            raise ChildProcessError("a worker was lost (out of memory?); the same command goes on") from error
    return errors


def base_config(study, role):
    """A run of one step at learning rate 0: its evaluation before that step is the base's."""
    cfg = run_config(study, "drpo", math.inf, 0.0, 0, role)
    return dataclasses.replace(cfg, eval_start=True, steps=1, run_dir=str(Path(study.dir) / role / "base"))


def evaluation(cfg, step=-1):
    return jsonl.read(Path(cfg.run_dir) / "evals.jsonl")[step]


def choose_lr(study, method):
    """The grid's best rate for a method by its accuracy-efficiency score against the base, on validation problems."""
    base = evaluation(base_config(study, "lr"), 0)

    def score(lr):
        cfg = run_config(study, method, MIDDLE[method], lr, 0, "lr")
        if not is_done(cfg):  # diverged: its log says how
            return -math.inf
        end = evaluation(cfg)
        return metrics.aes(end["accuracy"], end["mean_length"], base["accuracy"], base["mean_length"])

    return max(study.lrs, key=score)


# ---------------------------------------------------------------------------------------------------------- the numbers


def rows_of(cfg, strength, role):
    """All rows of one finished run, as dicts with the keys of COLUMNS."""
    hyperparameter = METHODS[cfg.method].hyperparameter if strength is not None else ""
    head = {
        "method": cfg.method,
        "hyperparameter": hyperparameter,
        "strength": strength,
        "lr": cfg.lr,
        "seed": cfg.seed,
        "role": role,
    }
    train = jsonl.read(Path(cfg.run_dir) / "metrics.jsonl")
    total = 0.0
    for record in train:
        seconds = sum(v for k, v in record.items() if k.startswith("seconds_"))
        total += seconds
        yield head | record | {"phase": "train", "group": "all", "seconds": seconds}
    for record in jsonl.read(Path(cfg.run_dir) / "evals.jsonl"):
        for group, numbers in {"all": record, **record["by_source"]}.items():
            yield head | numbers | {"phase": "held out", "step": record["step"], "group": group, "seconds": total}


def collect(cells, study):
    """Write the one tidy file. cells: (config, strength, role) of every run; runs that failed are left out."""
    rows = []
    for role in ("lr", "study"):
        base = rows_of(base_config(study, role), None, role)
        blank = {"method": "base", "hyperparameter": None, "lr": None, "seed": None, "seconds": None}
        rows += [row | blank for row in base if row["phase"] == "held out" and row["step"] == 0]
    for cfg, strength, role in cells:
        rows += rows_of(cfg, strength, role) if is_done(cfg) else []
    path = Path(study.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return path


def main(argv=None):
    study = cli.parse(Study, argv, prog="study.py", description="Methods x strengths x seeds on the embedded model.")
    start = time.time()
    with cli.user_errors(), cli.machine_trouble():
        claim_directory(study)
    with cli.machine_trouble():
        return run_study(study, start)


def run_study(study, start):
    grid = [(m, MIDDLE[m], lr) for m in study.methods for lr in study.lrs]
    tuning = [(run_config(study, m, strength, lr, 0, "lr"), strength, "lr") for m, strength, lr in grid]
    errors = run_all([base_config(study, "lr"), *(cfg for cfg, *_ in tuning)], study.workers, "learning rates")
    if not is_done(base_config(study, "lr")):
        cli.fail(f"the base could not be evaluated: {errors[0]}", code=1)
    lr = {method: choose_lr(study, method) for method in study.methods}
    print("learning rates chosen on validation problems:", ", ".join(f"{m} {rate:g}" for m, rate in lr.items()))
    cells = [
        (run_config(study, m, strength, lr[m], seed, "study"), strength, "study")
        for seed in study.seeds  # seed by seed, so that an unfinished study is a smaller study
        for m in study.methods
        for strength in STRENGTHS[m]
    ]
    errors += run_all([base_config(study, "study"), *(cfg for cfg, *_ in cells)], study.workers, "study")
    path = collect(tuning + cells, study)
    print(f"{path}: {len(tuning + cells) - len(errors)} runs, {(time.time() - start) / 3600:.2f} hours of this command")
    study_plots.write_all(path, path.parent)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
