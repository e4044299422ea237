"""log.py - the fifth stage: what a run leaves while it trains. Numbers as JSON lines, whole responses, lines on screen.

Only rank 0 writes; every rank holds the same numbers. Log lines appear after the step they describe, and a resumed run
first drops the lines its checkpoint does not know.

    config.json        settings, the command, commit and versions, before step 0
    metrics.jsonl      one object per step          evals.jsonl      one object per held-out evaluation
    samples.jsonl      a few whole groups per step  problems.jsonl   the held-out questions and truths
    responses_before.jsonl, responses_after.jsonl   every held-out response, to read side by side
"""

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

import config
from minidrpo.cli import flag_of, visible
from minidrpo.engine import hardware
from minidrpo.files import read_json
from minidrpo.rundir import checkpoint, jsonl, lock, outlook, track
from minidrpo.rundir.metrics import as_json, step_times, time_line

TIME = "%Y-%m-%d %H:%M:%S"
SAMPLED_GROUPS = 2  # whole groups of responses kept per step: credit only makes sense beside the rest of its group


class RunLog:
    """The run directory, and the lines on the screen. Ranks other than 0 stay silent and write nothing."""

    def __init__(self, cfg, ctx):
        self.cfg, self.dir, self.main, self.ctx = cfg, cfg.directory, ctx.is_main, ctx
        self.bar = None
        self.first_step = True  # of this start
        self.about = {}  # what ran: as an earlier start noted, later as this one does
        self._refuse_other_config()
        track.check(cfg.track)
        self.tracker = track.Tracker(cfg.track, self.dir, self.say)
        self.evaluations = jsonl.read(self.dir / "evals.jsonl")

    def _refuse_other_config(self):
        path = self.dir / "config.json"
        if self.dir.exists() and not self.dir.is_dir():
            raise ValueError(f"--run-dir {self.dir} is a file")
        there = next(p for p in (self.dir, *self.dir.absolute().parents) if p.exists())
        if self.main and not os.access(there, os.W_OK):
            raise ValueError(f"--run-dir {self.dir}: no right to write in {there}")
        if not self.cfg.resume and self.dir.exists() and {path.name for path in self.dir.iterdir()} - {lock.NAME}:
            raise ValueError(f"{self.dir} already holds a run and --no-resume was given; choose another --run-dir")
        if not path.exists():
            if checkpoint.list_steps(self.dir):
                raise ValueError(
                    f"{self.dir} holds checkpoints but no config.json that says of which run: move them away"
                )
            return
        try:
            theirs, ours = dict(read_json(path)), json.loads(_to_json(self.cfg.numbers()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} holds no settings: {error}") from error
        if ours.keys() - theirs.keys() and theirs.get("method") == self.cfg.method:
            raise ValueError(f"{self.dir} holds a run of an older version of this code: choose another --run-dir")
        moved = Path(str(theirs.get("run_dir") or self.dir)), self.dir
        other = [
            f"{flag_of(k)} was {theirs.get(k)}, is {v}"
            for k, v in ours.items()
            if not (_same(k, theirs.get(k), v) or _moved_along(k, theirs.get(k), v, *moved))
        ]
        if other:
            raise ValueError(f"{self.dir} holds a run where {'; '.join(other[:3])}: choose another --run-dir")

        self.about = theirs["about"] if isinstance(theirs.get("about"), dict) else {}

    def first_start(self) -> datetime:
        """When the run was started for the first time: the date that a chat template tells, whenever it goes on."""
        noted = self.about.get("first_start") or self.about.get("started")
        with contextlib.suppress(TypeError, ValueError):  # somebody's edit
            return datetime.strptime(noted, TIME)
        return datetime.now()

    def is_finished(self) -> bool:
        """Has this run all its steps and their last evaluation? Then there is nothing to do but to show it again."""
        steps = checkpoint.list_steps(self.dir)
        return bool(steps and self.evaluations) and steps[-1] >= self.cfg.steps <= self.evaluations[-1]["step"]

    def begin(self, done: int, held_out, now: datetime) -> None:
        """Before the first step: forget what the checkpoint (`done` steps) does not know, save what runs on what. now:
        the date that prompts tell."""
        self.evaluations = [e for e in self.evaluations if done and e["step"] <= done]
        if not self.main:
            return
        self.dir.mkdir(parents=True, exist_ok=True)
        for name in ("metrics.jsonl", "evals.jsonl", "samples.jsonl"):
            jsonl.keep_until(self.dir / name, done or -1)
        jsonl.write(self.dir / "problems.jsonl", map(dataclasses.asdict, held_out))
        self.about = _about(self.ctx) | {"first_start": now.strftime(TIME)}
        settings = dataclasses.asdict(self.cfg) | {"about": self.about}
        jsonl.write_text(self.dir / "config.json", _to_json(settings) + "\n")
        self.tracker.begin(settings, done + 1)
        self.say(f"{'going on from step ' + str(done) if done else 'training'} in {self.dir}")

    # ------------------------------------------------------------------------------------------------ while it runs

    def say(self, text: str) -> None:
        if self.main:
            try:
                tqdm.write(visible(text), file=sys.stdout)
                sys.stdout.flush()
            except BrokenPipeError:  # train.py | head: the run goes on without a reader
                sys.stdout = open(os.devnull, "w")

    def progress(self, steps):
        """`steps`, behind a progress bar on rank 0."""
        self.bar = tqdm(steps, "training", unit="step", disable=not self.main, dynamic_ncols=True)
        return self.bar

    def step(self, step: int, numbers: dict) -> None:
        """One step's numbers."""
        if not self.main:
            return
        jsonl.append(self.dir / "metrics.jsonl", [as_json({"step": step} | numbers)])
        keys = {"accuracy": "acc", "mean_length": "len", "kl": "kl", "grad_norm": "grad"}
        self.bar.set_postfix({short: f"{numbers[key]:.3g}" for key, short in keys.items()})
        if self.first_step and step < self.cfg.steps:
            self.say(outlook.time_left(self.cfg, step, numbers, self.evaluations))
        self.first_step = False
        if step % self.cfg.show_every == 0:
            recent = jsonl.read(self.dir / "metrics.jsonl")[-self.cfg.show_every :]
            self.say(f"step {step:>4}  time: {time_line(step_times(recent))}")
        self.tracker.numbers(step, numbers)

    def evaluation(self, step: int, result) -> None:
        """One held-out evaluation (an EvalResult)."""
        record = {"step": step, "seconds": round(result.seconds, 1)} | result.summary()
        self.evaluations.append(record)
        if self.main:
            jsonl.append(self.dir / "evals.jsonl", [record])
            self.tracker.numbers(step, {f"held_out/{key}": value for key, value in record.items() if key != "step"})
            if step == 0 or step >= self.cfg.steps:  # to read side by side, in report.html
                name = f"responses_{'after' if step else 'before'}.jsonl"
                jsonl.write(self.dir / name, (r.as_dict() for r in result.responses))
        self.say(
            f"step {step:>4}  held out: accuracy {result.accuracy:.1%} +- {result.accuracy_se:.1%}, "
            f"mean length {result.mean_length:.1f} tokens, truncated {result.truncated:.1%}  ({result.seconds:.0f} s)"
        )

    def samples(self, step: int, problems, responses, weight_PG) -> None:
        """Keep a few whole groups; now and then print two responses to one question, the most and the least wanted."""
        if not self.main:
            return
        G = self.cfg.group_size
        groups = []
        for p, problem in enumerate(problems[:SAMPLED_GROUPS]):
            about = {"step": step, "prompt": problem.prompt, "truth": problem.truth}
            mine = zip(responses[p * G : (p + 1) * G], weight_PG[p].tolist(), strict=True)
            # logp: the mean over tokens, the response's score when it was sampled
            groups.append(
                [about | r.as_dict() | {"logp": sum(r.rollout.logp) / r.length, "weight": w} for r, w in mine]
            )
        jsonl.append(self.dir / "samples.jsonl", [record for group in groups for record in group])
        if step % self.cfg.show_every == 0:
            self.tracker.table(step, "samples", [record for group in groups for record in group])
            by_weight = (sorted(group, key=lambda r: (-r["weight"], r["length"])) for group in groups)
            shown = max(by_weight, key=lambda group: group[0]["weight"] - group[-1]["weight"])
            for r in (shown[0], shown[-1]):
                verdict = "right" if r["correct"] else f"wrong: {r['reason']}"
                self.say(f"--- {_clip(r['prompt'], 200)}  [{verdict}, {r['length']} tokens, weight {r['weight']:.2f}]")
                self.say(_clip(r["response"], 600))

    def close(self) -> None:
        self.tracker.close()


def _same(name, theirs, ours):
    """Are two values of a setting the same? `m`, `m/`, `./m` and `~/m` may name one model or file."""
    if theirs == ours or not (name in ("model", "train_data", "eval_data") and isinstance(theirs, str)):
        return theirs == ours
    theirs, ours, package = (Path(path).expanduser().resolve() for path in (theirs, ours, config.TINY_MODEL))
    if ours.is_relative_to(package):  # an embedded model, which another checkout has elsewhere
        parts = "minidrpo", "tiny", *ours.relative_to(package).parts
        return theirs.parts[-len(parts) :] == parts
    return theirs == ours


def _moved_along(name, theirs, ours, their_run, our_run):
    """Do two paths lie in the same place as seen from their run directories? A study moves with its data and bases;
    what the files hold is compared beside each checkpoint."""
    if name not in ("model", "train_data", "eval_data") or not isinstance(theirs, str) or not Path(ours).exists():
        return False
    return os.path.relpath(theirs, their_run) == os.path.relpath(ours, our_run)


def _clip(text, limit):
    text = " / ".join(line for line in str(text).strip().splitlines() if line.strip())
    return text if len(text) <= limit else f"{text[: limit // 2]} [...] {text[-limit // 2 :]}"


def git(*words: str) -> str | None:
    """What git says of this code; None where there is no git, or no repository."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _about(ctx):
    """What ran: the command, the code and the versions."""
    return {
        "command": " ".join([os.path.basename(sys.executable), *sys.argv]),
        "commit": git("rev-parse", "HEAD"),
        "uncommitted": bool(git("status", "--porcelain", "--untracked-files=no")),
        "world_size": ctx.size,
        "device": hardware.describe(ctx),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "started": datetime.now().strftime(TIME),
    }


def _to_json(settings):
    """Strict JSON: infinity (lambda of DisCO) becomes the text "inf"."""
    plain = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in settings.items()}
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
