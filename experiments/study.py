"""study.py - methods x strengths x shares of easy prompts x bases x seeds, under equal budgets, into one tidy file.

    python -m experiments.study                       the thinking world; start it again and it goes on
    python -m experiments.study --parts lr decide     only these parts (study_cells.py says what they hold)
    python -m experiments.study habit                 the older study, on the first embedded model
    python -m experiments.study programs              several rewards at once; tools likewise

First each method's learning rate: one middle strength, every rate of one small grid, judged on validation problems of
the training split. Then the cells at that rate, judged on the test problems. Each run is train.py's loop in a process
of its own with one thread. All numbers go to one tidy file (COLUMNS), and to one with the results problem by problem,
for intervals; tables and figures are made from these two.
"""

import contextlib
import dataclasses
import json
import math
import multiprocessing as mp
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import config
from experiments import several_plots, study_plots, study_rows, thinking_plots
from experiments.study_cells import WORLDS, Cell, World, problem_sets, train_set
from minidrpo import cli
from minidrpo.engine.distributed import end_with_parent
from minidrpo.files import read_json
from minidrpo.rundir import jsonl, lock, metrics

BUDGET = ("steps", "prompts_per_step", "train_problems", "max_problems", "samples")


@dataclass(frozen=True)
class Study:
    world: str = "thinking"
    """Which row of study_cells.WORLDS."""
    parts: tuple[str, ...] = ()
    """Which parts run now, in the world's order; none: all. `lr` comes first."""
    methods: tuple[str, ...] = ()
    """Only these; none: all."""
    seeds: tuple[int, ...] = ()
    """Only these; none: all."""
    bases: tuple[int, ...] = ()
    """Only these; none: all."""
    lrs: tuple[float, ...] = (1e-4, 2e-4, 4e-4, 8e-4)
    """The grid of learning rates."""
    steps: int = 40
    prompts_per_step: int = 16
    train_problems: int = 160
    """Few enough that every problem comes back four times: HAPO's record of a problem is of no use before."""
    max_problems: int = 250
    samples: int = 2
    dir: str = "runs/study-thinking"
    """Where the runs live; a study with another budget needs another one."""
    out: str = "experiments/results/thinking.csv"
    figure: str = "docs/thinking.png"
    """Where the README's picture goes; the others lie beside `out`, and with "" all do."""
    workers: int = 2
    """Runs at a time, one thread each."""

    def __post_init__(self):
        cli.check(self)
        if self.world not in WORLDS:
            raise ValueError(f"--world {self.world!r} is not one of {', '.join(WORLDS)}")
        world = WORLDS[self.world]
        for flag, known in (("parts", ["lr", *world.parts]), ("methods", world.middle)):
            if wrong := [name for name in getattr(self, flag) if name not in known]:
                raise ValueError(f"--{flag}: {wrong[0]!r} is not one of {', '.join(known)}")
        for flag, name, suffix in (("--out", self.out, ".csv"), ("--figure", self.figure or ".png", ".png")):
            if not name.endswith(suffix) or Path(name).is_dir():  # known now, not after all runs
                raise ValueError(f"{flag} names a {suffix} file, got {name}")
        for flag in (*BUDGET, "workers"):
            if getattr(self, flag) < 1:
                raise ValueError(f"--{flag.replace('_', '-')} must be 1 or more, got {getattr(self, flag)}")
        if not self.lrs or len(set(self.lrs)) < len(self.lrs) or not all(0 < lr < math.inf for lr in self.lrs):
            raise ValueError(f"--lrs must be positive, at least one and none twice, got {self.lrs}")
        if self.train_problems < self.prompts_per_step:
            raise ValueError(f"--train-problems {self.train_problems} are fewer than --prompts-per-step asks for")

    @property
    def rules(self) -> World:
        return WORLDS[self.world]

    def cells(self, part) -> list[Cell]:
        """Those that this command asks for."""
        return list(filter(self.wants, self.rules.cells([part])))

    def wants(self, cell) -> bool:
        """Does this command ask for it?"""
        asked = {"method": self.methods, "seed": self.seeds, "base": self.bases}
        return all(not chosen or getattr(cell, key) in chosen for key, chosen in asked.items())

    def path(self, *parts) -> Path:
        return Path(self.dir, *map(str, parts))


HABIT = dict(world="habit", lrs=(1e-4, 2e-4, 4e-4), steps=20, train_problems=80, max_problems=512, dir="runs/study")
SHORT = {"tools": dict(steps=25, train_problems=400, max_problems=200)}  # responses are longer


def several(world):
    """A study of a task that names its rewards: no problem comes twice."""
    budget = dict(train_problems=640) | SHORT.get(world, {})
    return Study(world=world, **budget, dir=f"runs/study-{world}", out=f"experiments/results/{world}.csv", figure="")


PRESETS = {
    "thinking": ("the world where thinking pays", Study()),
    "habit": ("the first embedded model", Study(**HABIT, out="experiments/results/study.csv")),
    **{name: ("several rewards: GDPO beside GRPO on their sum", several(name)) for name in WORLDS if WORLDS[name].task},
}


# ------------------------------------------------------------------------------------------------------------- the runs


def run_config(study, cell: Cell, lr, role):
    """The training run of one cell: the world's preset with this budget. role: "lr" (validation) or "study" (test)."""
    name = "-".join((cell.method, *cell.rewards))
    name += f"-{study.rules.knob(cell)}{cell.strength:g}" if cell.strength is not None else ""
    name += (f"-share{cell.share:g}" if cell.share is not None else "") + f"-lr{lr:g}-base{cell.base}-seed{cell.seed}"
    preset = config.PRESETS[study.rules.preset][1]
    return config.make(
        study.rules.preset,
        cell.method,
        **study.rules.settings(cell),
        model=str(study.path("bases", cell.base)) if cell.base else preset["model"],
        lr=lr,
        seed=cell.seed,
        steps=study.steps,
        prompts_per_step=study.prompts_per_step,
        train_data=str(study.path(f"{train_set(cell.share)}.jsonl")),
        eval_data=str(study.path("validation.jsonl")) if role == "lr" else preset["eval_data"],
        max_problems=study.max_problems,
        samples=study.samples,
        eval_start=False,  # all runs start from the same base, which is evaluated once
        eval_every=study.steps,
        save_every=study.steps,
        run_dir=str(study.path(role, name)),
    )


def base_config(study, role, base=0):
    """A run of one step at learning rate 0: its evaluation before that step is the base's."""
    method, strength = ("gdpo", None) if study.rules.task else ("drpo", math.inf)
    cfg = run_config(study, Cell(base, 0, method, strength, study.rules.share), 0.0, role)
    return dataclasses.replace(cfg, eval_start=True, steps=1, run_dir=str(study.path(role, f"base{base}")))


def claim_directory(study):
    """Write down the world and the budget that all runs in this directory share; ValueError if they had another one.
    Then the problems, as files."""
    ours, path = {key: getattr(study, key) for key in ("world", *BUDGET)}, study.path("study.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    theirs = read_json(path) if path.exists() else ours
    if theirs != ours:
        raise ValueError(f"{study.dir} holds a study with {theirs}, this one has {ours}: choose another --dir")
    sets = problem_sets(study.rules, study.train_problems, study.max_problems)
    grader = {"grader": study.rules.preset} if study.rules.task else {}
    for name, problems in sets.items():
        lines = ({"problem": text, "answer": truth} | grader for text, truth in problems)
        jsonl.write(study.path(f"{name}.jsonl"), lines)
    jsonl.write_text(path, json.dumps(ours) + "\n")


MAKE_BASE = (sys.executable, "-m", "minidrpo.tiny.make_thinking")


def make_bases(study, bases, command=MAKE_BASE):
    """The base models that are not there yet, all at once: supervised training with other seeds, minutes each."""
    jobs = {}
    for base in bases:
        out, part = study.path("bases", base), study.path("bases", f"{base}.part")
        if base and not out.exists():
            shutil.rmtree(part, ignore_errors=True)
            part.parent.mkdir(parents=True, exist_ok=True)
            with open(study.path("bases", f"{base}.log"), "w") as log:
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                jobs[out] = subprocess.Popen(
                    [*command, "--seed", str(base), "--out", str(part), "--parent", str(os.getpid())],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                )
            print(f"making base {base}, minutes: {log.name}", flush=True)
    for out, job in jobs.items():
        if job.wait():
            raise ChildProcessError(f"{out}: could not be made, {out}.log says why")
        out.with_name(out.name + ".part").rename(out)


def is_done(cfg):
    evaluations = jsonl.read(Path(cfg.run_dir) / "evals.jsonl")
    return bool(evaluations) and evaluations[-1]["step"] == cfg.steps and study_rows.responses_file(cfg).exists()


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
    failed = study_rows.failure_file(cfg)
    if is_done(cfg):
        failed.unlink(missing_ok=True)
        return None
    lines = log_path.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    failed.write_text(lines[-1] + "\n")  # a run that diverged stays in the results, as one that failed
    return f"{cfg.run_dir}: {lines[-1]} (see {log_path})"


def run_all(configs, study, title, later=0):
    """Train what is not done yet, `workers` at a time. later: runs that come after these. Returns the errors' lines."""
    missing = [cfg for cfg in configs if not is_done(cfg)]
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the workers before they load torch
    errors, start = [], time.time()
    bar = tqdm(total=len(configs), initial=len(configs) - len(missing), desc=title, unit="run", dynamic_ncols=True)
    alone = {"initializer": end_with_parent, "initargs": (os.getpid(),)}
    with bar, ProcessPoolExecutor(study.workers, mp_context=mp.get_context("spawn"), **alone) as pool:
        try:
            for n, future in enumerate(as_completed([pool.submit(run_one, cfg) for cfg in missing]), 1):
                if error := future.result():
                    errors.append(error)
                    tqdm.write(f"failed: {error}")
                bar.update()
                if n in (2 * study.workers, 10 * study.workers):
                    seconds = (time.time() - start) / n
                    left = seconds * (len(missing) - n + later) / 60
                    tqdm.write(
                        f"a run every {seconds:.0f} s with {study.workers} workers: about {left:.0f} minutes more"
                    )
        except BrokenProcessPool as error:
            raise ChildProcessError("a worker was lost (out of memory?); the same command goes on") from error
    return errors


# ------------------------------------------------------------------------------------------------------- learning rates


def tuning(study, methods):
    """[(config, cell)] of the part `lr`."""
    rules = study.rules
    cells = [Cell(0, 0, method, rules.middle[method], rules.share) for method in methods]
    return [(run_config(study, cell, lr, "lr"), cell) for cell in cells for lr in study.lrs]


def choose_lr(study, method):
    """The grid's best rate for a method, on validation problems: by its accuracy-efficiency score against the base, or
    by the mean of the rewards that a task names."""
    base = jsonl.read(Path(base_config(study, "lr").run_dir) / "evals.jsonl")[0]

    def score(cfg):
        if not is_done(cfg):  # diverged: its log says how
            return -math.inf
        if study.rules.task:
            return study_rows.mean_reward(cfg)
        end = jsonl.read(Path(cfg.run_dir) / "evals.jsonl")[-1]
        return metrics.aes(end["accuracy"], end["mean_length"], base["accuracy"], base["mean_length"])

    return max((cfg for cfg, _ in tuning(study, [method])), key=score).lr


def tune(study, methods, later):
    """The part `lr`: the chosen rates into lr.json, beside those that are there. Returns the errors' lines."""
    base = base_config(study, "lr")
    errors = run_all([base, *(cfg for cfg, _ in tuning(study, methods))], study, "lr", later)
    if not is_done(base):
        cli.fail(f"the base could not be evaluated: {errors[0]}", code=1)
    rates = chosen(study) | {method: choose_lr(study, method) for method in methods}
    jsonl.write_text(study.path("lr.json"), json.dumps(rates, indent=1) + "\n")
    print("learning rates chosen on validation problems:", ", ".join(f"{m} {rates[m]:g}" for m in methods))
    return errors


def chosen(study) -> dict[str, float]:
    """method -> its learning rate."""
    path = study.path("lr.json")
    return read_json(path) if path.exists() else {}


def run_part(study, part, cells, later):
    """All cells of a part at the chosen rates; those on the embedded base first, as the others may have to be made."""
    rates, errors = chosen(study), []
    embedded = [cell for cell in cells if cell.base == 0]
    others = [cell for cell in cells if cell.base > 0]
    for own, waiting in (embedded, len(others)), (others, 0):
        bases = sorted({cell.base for cell in own})
        make_bases(study, bases)
        configs = [base_config(study, "study", base) for base in bases]
        configs += [run_config(study, cell, rates[cell.method], "study") for cell in own]
        errors += run_all(configs, study, part, later + waiting) if own else []
    return errors


# ---------------------------------------------------------------------------------------------------------- the numbers


def collect(study):
    """Write both files from all runs of the world that are there, whatever this command asked for."""
    rates, methods = chosen(study), list(study.rules.middle)
    runs = [(cfg, cell, "lr") for cfg, cell in tuning(study, methods)]
    runs += [
        (run_config(study, cell, rates[cell.method], "study"), cell, "study")
        for cell in study.rules.cells() if cell.method in rates
    ]  # fmt: skip
    rows, problems = [], []
    bases = sorted({cell.base for cell in study.rules.cells()})
    for cfg, base, role in [
        (base_config(study, "lr"), 0, "lr"),
        *((base_config(study, "study", b), b, "study") for b in bases),
    ]:
        if is_done(cfg):
            rows += study_rows.of_base(cfg, base, role)
            problems += [study_rows.by_problem(cfg, None, base)] if role == "study" else []
    for cfg, cell, role in runs:
        if is_done(cfg):
            rows += study_rows.of_run(cfg, cell, role)
            problems += [study_rows.by_problem(cfg, cell)] if role == "study" else []
        elif study_rows.failure_file(cfg).exists():
            rows.append(study_rows.of_failure(cfg, cell, role))
    path = Path(study.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, columns, found in (
        (path, study_rows.COLUMNS, rows),
        (study_rows.problems_path(path), study_rows.PROBLEM_COLUMNS, problems),
    ):
        study_rows.write(file, columns, found)
    return path


def main(argv=None):
    about = "Methods x strengths x shares of easy prompts x bases x seeds on an embedded model."
    study = cli.parse(PRESETS, argv, prog="study.py", description=about)
    with cli.machine_trouble(), lock.held(study.dir, flag="--dir"):
        return run_command(study)


def run_command(study):
    with cli.user_errors():
        claim_directory(study)
        parts = [part for part in ("lr", *study.rules.parts) if part in study.parts or not study.parts]
        cells = {part: study.cells(part) for part in parts if part != "lr"}
        methods = [m for m in study.rules.middle if m in study.methods or not study.methods]
        known = chosen(study).keys() | set(methods if "lr" in parts else ())
        if missing := {cell.method for own in cells.values() for cell in own} - known:
            raise ValueError(f"no learning rate of {', '.join(sorted(missing))} is chosen yet: --parts lr comes first")
    return run_study(study, parts, cells, methods)


def run_study(study, parts, cells, methods):
    start, errors = time.time(), []
    left = {cell for own in cells.values() for cell in own}  # a cell of two parts is one run
    n_lr = len(methods) * len(study.lrs) if "lr" in parts else 0
    print(
        f"{study.world}: {n_lr} runs for learning rates, {len(left)} in {', '.join(cells) or 'no other part'}",
        flush=True,
    )
    for part in parts:
        if part == "lr":
            errors += tune(study, methods, later=len(left))
        else:
            left -= set(cells[part])
            errors += run_part(study, part, cells[part], later=len(left))
        path = collect(study)  # after every part: a study that is stopped leaves what it has
    print(f"{path}: {len(errors)} runs failed, {(time.time() - start) / 3600:.2f} hours of this command")
    if parts == ["lr"]:
        return 1 if errors else 0  # no test problem was looked at: there is nothing to draw
    if study.world == "habit":
        study_plots.write_all(path, path.parent)
    elif study.rules.task:
        several_plots.write_all(path, path.parent, study.figure or path.with_suffix(".png"))
    else:
        thinking_plots.write_all(path, path.parent, study.figure or path.with_suffix(".png"))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
