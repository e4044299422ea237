"""compare.py - DRPO, GRPO with a length penalty and DisCO, side by side, in the world where thinking pays.

    python -m experiments.compare                              minutes on two cores; stopped, the same command goes on
    python -m experiments.compare --methods drpo rloo-lp grpo  any methods, from the same base under the same budget

Each method is one run of train.py's loop with the preset `thinking`, in a process of its own with one thread, in
DIR/METHOD. This process trains nothing: it reads the runs' files and shows them as they grow. At the end: a table by
level, a picture, and two responses of each method to the same hard problem.
"""

import contextlib
import multiprocessing as mp
import multiprocessing.connection
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

import config
from experiments import compare_report as report
from minidrpo import cli
from minidrpo.cli import near, value
from minidrpo.engine.distributed import DistContext, end_with_parent
from minidrpo.methods.table import METHODS
from minidrpo.rundir import lock
from minidrpo.rundir.log import RunLog
from minidrpo.tasks import thinking

SETTINGS = {"drpo": {"lam": 0.1}, "grpo-lp": {"alpha": 0.1}, "disco": {}}  # others have their defaults

TERMINATED = 128 + signal.SIGTERM  # exit code, as shells have it


@dataclass(frozen=True)
class Compare:
    methods: tuple[str, ...] = tuple(SETTINGS)
    """Names as in train.py --method."""
    steps: int = value(60, "1 or more")
    prompts_per_step: int = value(16, "1 or more")
    seed: int = value(0, "0 or more")
    model: str = config.THINKING_MODEL
    """The base that all start from."""
    max_problems: int = 250
    """Held-out problems, a fifth of them on each level."""
    samples: int = value(2, "2 or more")
    """Responses per held-out problem."""
    eval_every: int = value(10, "1 or more")
    dir: str = "runs/compare"
    """Where the runs and the picture go."""
    workers: int = value(3, "1 or more")
    """Methods that train at the same time, one thread each."""

    def __post_init__(self):
        cli.check(self)
        for name in self.methods:
            if name not in METHODS:
                raise ValueError(f"--methods: unknown method {name!r}{near(name, METHODS)}")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"--methods must be names, at least one and none twice, got {' '.join(self.methods)}")
        if self.max_problems < 2 * thinking.LEVELS:  # one problem has no standard error
            raise ValueError(f"--max-problems must be {2 * thinking.LEVELS} or more, got {self.max_problems}")


# ------------------------------------------------------------------------------------------------------------- the runs


def run_config(asked: Compare, method: str) -> config.RunConfig:
    """The training run of one method."""
    shared = ("steps", "prompts_per_step", "seed", "model", "max_problems", "samples", "eval_every")
    own = SETTINGS.get(method, {}) | {"save_every": asked.eval_every, "run_dir": str(Path(asked.dir) / method)}
    return config.make("thinking", method, **{key: getattr(asked, key) for key in shared}, **own)


def is_done(cfg) -> bool:
    """Whether the run has all its steps. ValueError if its directory holds a run of other settings."""
    try:
        log = RunLog(cfg, DistContext())
    except ValueError as error:
        raise ValueError(str(error).replace("--run-dir", "--dir")) from error
    if log.evaluations and log.evaluations[-1]["step"] > cfg.steps:
        trained = log.evaluations[-1]["step"]
        raise ValueError(f"{cfg.directory} was trained for {trained} steps, not {cfg.steps}: choose another --dir")
    return log.is_finished()


def log_of(cfg) -> Path:
    return cfg.directory.with_name(f"{cfg.directory.name}.log")


def run_one(cfg) -> None:
    """One training run in a process of its own: what it says goes to a log beside the run, the error's line last."""
    end_with_parent(mp.parent_process().pid)
    # Leave tidily, or Python warns of what was left behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    log_of(cfg).parent.mkdir(parents=True, exist_ok=True)
    with open(log_of(cfg), "w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            import torch

            import train

            torch.set_num_threads(1)
            train.train(cfg, DistContext())
        except Exception:
            traceback.print_exc()
            raise SystemExit(1) from None


def train_all(configs: list, workers: int, show) -> list[str]:
    """Train what is not done yet, `workers` at a time, and call show() twice a second. Returns a line per error."""
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the processes before they load torch
    waiting, running, reasons = [cfg for cfg in configs if not is_done(cfg)], {}, {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                cfg = waiting.pop(0)
                running[cfg.method] = cfg, start(cfg)
            multiprocessing.connection.wait([process.sentinel for _, process in running.values()], timeout=0.5)
            for cfg, process in [pair for pair in running.values() if not pair[1].is_alive()]:
                del running[cfg.method]
                process.join()
                if process.exitcode or not is_done(cfg):
                    reasons.setdefault(reason_of(cfg, process.exitcode), []).append(cfg)
            show()
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()
    return [
        f"{', '.join(cfg.method for cfg in failed)}: {reason} (see {log_of(failed[0])})"
        for reason, failed in reasons.items()
    ]


def start(cfg) -> mp.Process:
    """The process that trains `cfg`. Ctrl-C is for this process, which then ends the others."""
    process = mp.get_context("spawn").Process(target=run_one, args=(cfg,), daemon=True)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a child inherits what is ignored
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, handler)
    return process


def reason_of(cfg, code: int) -> str:
    """Why a run's process ended too early, in one line."""
    if code == TERMINATED:
        code = -signal.SIGTERM
    if code < 0:
        return f"its process was ended by signal {-code}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    said = log_of(cfg).read_text(errors="replace").strip().splitlines() if log_of(cfg).exists() else []
    return said[-1].strip().removeprefix("error: ") if said else f"its process ended with code {code}"


# -------------------------------------------------------------------------------------------------------- the command


def finish(asked: Compare, configs: list, screen: Console) -> None:
    title = (
        f"Held-out problems after {asked.steps} steps of {asked.prompts_per_step} x {configs[0].group_size} responses"
    )
    print(f"\n{report.responses_to_read(configs)}\n")
    screen.print(report.level_table(configs, title))
    print(f'short way: share that begins with "{thinking.SHORT}" and writes the value at once. ±: standard error')
    print(report.why(configs))
    out_png = Path(asked.dir) / "compare.png"
    report.picture(configs, out_png)
    print(f"picture: {out_png}   runs: {', '.join(str(cfg.directory) for cfg in configs)}")


def main(argv=None):
    about = "Train several methods from the same model under the same budget and show them side by side."
    asked = cli.parse(Compare, argv, prog="compare.py", description=about)
    begun, screen = time.monotonic(), Console(width=None if sys.stdout.isatty() else 110)
    with cli.machine_trouble(goes_on="from the last checkpoints"), lock.held(asked.dir, flag="--dir"):
        with cli.user_errors():
            configs = [run_config(asked, method) for method in asked.methods]
            missing = sum(not is_done(cfg) for cfg in configs)
        if missing:
            easy = f"{100 * thinking.EASY_SHARE:.0f} % of the prompts are easy (1 operation), the others hard"
            names = ", ".join(f"{report.name_of(cfg)} ({cfg.title})" for cfg in configs)
            print(f"{names}: {asked.steps} steps from the same model; {easy}", flush=True)
            with report.Watch(configs, screen) as watch:
                errors = train_all(configs, asked.workers, watch.show)
            if errors:
                cli.fail("; ".join(errors) + "; the same command goes on with what is missing", code=1)
            print(f"trained in {time.monotonic() - begun:.0f} s")
        finish(asked, configs, screen)


if __name__ == "__main__":
    sys.exit(main())
