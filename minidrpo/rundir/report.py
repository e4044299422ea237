"""report.py - what a run leaves for eyes and for plots: config.json, metrics, evaluations, samples, table, figures.

    python report.py RUN_DIR        where a run's time went, also while it runs

Only rank 0 writes; every rank holds the same numbers. Log lines appear after the step they describe, and a resumed run
first drops the lines its checkpoint does not know (checkpoint.py).
"""

import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from minidrpo import cli
from minidrpo.rundir import checkpoint
from minidrpo.rundir.metrics import step_times, time_line, time_table
from minidrpo.rundir.results import write, write_answers, write_problems
from minidrpo.show import html_report, plots

SAMPLED_GROUPS = 2  # whole groups of answers kept a step: credit only makes sense beside the rest of its group


class Run:
    """The run directory, and the lines on the screen. `rank` other than 0 stays silent and writes nothing."""

    def __init__(self, cfg, rank=0):
        self.cfg, self.dir, self.main = cfg, cfg.directory, rank == 0
        self.bar = self.writer = None
        self._refuse_other_config()
        if cfg.tensorboard and not importlib.util.find_spec("tensorboard"):
            raise ValueError("--tensorboard needs the package tensorboard: pip install tensorboard")
        self.evaluations = checkpoint.read_lines(self.dir / "evals.jsonl")

    def _refuse_other_config(self):
        path = self.dir / "config.json"
        if self.dir.exists() and not self.dir.is_dir():
            raise ValueError(f"--run-dir {self.dir} is a file")
        there = next(p for p in (self.dir, *self.dir.absolute().parents) if p.exists())
        if self.main and not os.access(there, os.W_OK):
            raise ValueError(f"--run-dir {self.dir}: no right to write in {there}")
        if not path.exists():
            return
        if not self.cfg.resume:
            raise ValueError(f"{self.dir} already holds a run and --no-resume was given; choose another --run-dir")
        try:
            theirs, ours = dict(json.loads(path.read_text())), json.loads(_to_json(self.cfg.numbers()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is not readable: {error}") from error
        other = [f"--{k.replace('_', '-')} was {theirs.get(k)}, is {v}" for k, v in ours.items() if theirs.get(k) != v]
        if other:
            raise ValueError(f"{self.dir} holds a run where {'; '.join(other[:3])}: choose another --run-dir")

    def is_finished(self):
        """Has this run all its steps and their last evaluation? Then there is nothing to do but to show it again."""
        steps = checkpoint.list_steps(self.dir)
        return bool(steps and self.evaluations) and steps[-1] >= self.cfg.steps <= self.evaluations[-1]["step"]

    def begin(self, done, held_out):
        """Before the first step: forget what the checkpoint (`done` steps) does not know, save what runs on what."""
        self.evaluations = [e for e in self.evaluations if done and e["step"] <= done]
        if not self.main:
            return
        self.dir.mkdir(parents=True, exist_ok=True)
        for name in ("metrics.jsonl", "evals.jsonl", "samples.jsonl"):
            checkpoint.keep_lines_until(self.dir / name, done or -1)
        write_problems(self.dir / "problems.jsonl", held_out)
        write(self.dir / "config.json", _to_json(dataclasses.asdict(self.cfg) | {"about": _about()}) + "\n")
        self.say(f"{'going on from step ' + str(done) if done else 'training'} in {self.dir}")

    # ------------------------------------------------------------------------------------------------ while it runs

    def say(self, text):
        if self.main:
            tqdm.write(text, file=sys.stdout)

    def progress(self, steps):
        """`steps`, behind a progress bar on rank 0."""
        self.bar = tqdm(steps, "training", unit="step", disable=not self.main, dynamic_ncols=True)
        return self.bar

    def log(self, step, numbers):
        if self.main:
            checkpoint.append_lines(self.dir / "metrics.jsonl", [{"step": step} | numbers])
            keys = {"accuracy": "acc", "mean_length": "len", "kl": "kl", "grad_norm": "grad"}
            self.bar.set_postfix({short: f"{numbers[key]:.3g}" for key, short in keys.items()})
            if step % self.cfg.show_every == 0:
                recent = checkpoint.read_lines(self.dir / "metrics.jsonl")[-self.cfg.show_every :]
                self.say(f"step {step:>4}  time: {time_line(step_times(recent))}")
            if self.cfg.tensorboard:
                self._tensorboard(step, numbers)

    def log_evaluation(self, step, result):
        record = {"step": step, "seconds": round(result.seconds, 1)} | result.summary()
        self.evaluations.append(record)
        if self.main:
            checkpoint.append_lines(self.dir / "evals.jsonl", [record])
            if step in (0, self.cfg.steps):  # to read side by side, in report.html
                write_answers(self.dir / f"answers_{'after' if step else 'before'}.jsonl", result.answers)
        self.say(
            f"step {step:>4}  held out: accuracy {result.accuracy:.1%} +- {result.accuracy_se:.1%}, "
            f"mean length {result.mean_length:.1f} tokens, cut off {result.truncated:.1%}  ({result.seconds:.0f} s)"
        )

    def log_samples(self, step, problems, rollouts, texts, grades, weight_PG):
        """Keep a few whole groups; now and then print two answers of one question, the most and the least wanted."""
        if not self.main:
            return
        G, records = self.cfg.group_size, []
        for p in range(min(SAMPLED_GROUPS, len(problems))):
            for g in range(G):
                rollout, grade = rollouts[p * G + g], grades[p * G + g]
                records.append(
                    {
                        "step": step,
                        "source": problems[p].source,
                        "index": problems[p].index,
                        "prompt": problems[p].prompt,
                        "truth": problems[p].answer,
                        "response": texts[p * G + g],
                        "length": len(rollout.response_ids),
                        "finished": rollout.finished,
                        "correct": grade.correct and rollout.finished,
                        "reason": grade.reason if rollout.finished else "truncated",
                        "logp": sum(rollout.logp) / len(rollout.logp),  # the answer's score when it was sampled
                        "weight": weight_PG[p, g].item(),
                    }
                )
        checkpoint.append_lines(self.dir / "samples.jsonl", records)
        if step % self.cfg.show_every == 0:
            groups = (records[k : k + G] for k in range(0, len(records), G))
            by_weight = (sorted(group, key=lambda r: (-r["weight"], r["length"])) for group in groups)
            shown = max(by_weight, key=lambda group: group[0]["weight"] - group[-1]["weight"])
            for r in (shown[0], shown[-1]):
                verdict = "right" if r["correct"] else f"wrong: {r['reason']}"
                self.say(f"--- {_clip(r['prompt'], 200)}  [{verdict}, {r['length']} tokens, weight {r['weight']:.2f}]")
                self.say(_clip(r["response"], 600))

    def _tensorboard(self, step, numbers):
        from torch.utils.tensorboard import SummaryWriter  # optional: __init__ checks that it is there

        if self.writer is None:  # a resumed run writes its steps again: purge_step hides the first writing
            self.writer = SummaryWriter(self.dir / "tensorboard", purge_step=step)
        for key, value in numbers.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(key, value, step)

    # -------------------------------------------------------------------------------------------------- when it ends

    def finish(self):
        """The before/after table and the figures."""
        if self.writer:
            self.writer.close()
        if not self.main:
            return
        if len(self.evaluations) < 2:  # nothing to compare with
            print_times(self.dir)
            self.say(f"model: {checkpoint.newest(self.dir)}   numbers: {self.dir / 'metrics.jsonl'}")
            return
        before, after = self.evaluations[0], self.evaluations[-1]
        print_before_after(before, after, self.cfg.dial)
        print_times(self.dir)
        plots.training_curves(self.dir, self.dir / "curves.png")
        plots.before_after(before, after, self.dir / "before_after.png")
        html_report.write([self.dir], self.dir / "report.html")
        self.say(f"report to open in a browser: {self.dir / 'report.html'}")
        self.say(f"plots: {self.dir / 'before_after.png'}, {self.dir / 'curves.png'}")
        self.say(f"model: {checkpoint.newest(self.dir)}   numbers: {self.dir / 'metrics.jsonl'}")


def print_times(directory):
    """Where the time of the run in `directory` went, as a table. ValueError if there is no run."""
    steps = checkpoint.read_lines(directory / "metrics.jsonl")
    if not steps:
        raise ValueError(f"{directory} holds no metrics.jsonl of a run")
    evaluations = checkpoint.read_lines(directory / "evals.jsonl")
    try:
        times = step_times(steps, evaluations)
    except TypeError as error:
        raise ValueError(f"{directory}: seconds or tokens that are not numbers ({error})") from error
    Console().print(time_table(times))


def print_before_after(before, after, dial):
    """One table: accuracy and length on the same held-out problems, and the change, level by level."""
    table = Table(title=f"Held-out problems before and after {dial}", title_justify="left")
    for column, justify in (("", "left"), ("before", "right"), ("after", "right"), ("change", "right")):
        table.add_column(column, justify=justify)

    def row(name, key, old, new, share):
        if share:
            change = f"{100 * (new[key] - old[key]):+.1f} points"
            table.add_row(name, *(f"{100 * r[key]:.1f} %{_se(r, key, 100)}" for r in (old, new)), change)
        else:
            change = f"{100 * (new[key] / old[key] - 1):+.0f} %" if old[key] else ""
            table.add_row(name, *(f"{r[key]:.1f}{_se(r, key, 1)}" for r in (old, new)), change)

    row("accuracy", "accuracy", before, after, True)
    row("mean length (tokens)", "mean_length", before, after, False)
    row("cut off at the limit", "truncated", before, after, True)
    table.add_section()
    for source in before["by_source"]:
        old, new = before["by_source"][source], after["by_source"].get(source)
        if new and len(before["by_source"]) > 1:
            row(f"{escape(source)}: accuracy", "accuracy", old, new, True)
            row("   mean length", "mean_length", old, new, False)
    Console().print(table)


def _se(record, key, scale):
    error = record.get(f"{key}_se")
    return f" ±{scale * error:.1f}" if error is not None else ""


def _clip(text, limit):
    text = " / ".join(line for line in str(text).strip().splitlines() if line.strip())
    return text if len(text) <= limit else f"{text[: limit // 2]} [...] {text[-limit // 2 :]}"


def git(*words):
    """What git says of this code; None where there is no git, or no repository."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=os.path.dirname(__file__) or ".")
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _about():
    """What ran: the command, the code and the versions."""
    return {
        "command": " ".join([os.path.basename(sys.executable), *sys.argv]),
        "commit": git("rev-parse", "HEAD"),
        "uncommitted": bool(git("status", "--porcelain", "--untracked-files=no")),
        "world_size": int(os.environ.get("WORLD_SIZE", 1)),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _to_json(settings):
    """Strict JSON: infinity (lambda of DisCO) becomes the text "inf"."""
    plain = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in settings.items()}
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 1 or argv[0].startswith("-"):
        cli.fail("usage: python report.py RUN_DIR")
    with cli.user_errors():
        print_times(Path(argv[0]).expanduser())


if __name__ == "__main__":
    main()
