"""outlook.py - what a run says before it starts: what is trained, on what, how, for how long. Words only."""

import math
from pathlib import Path

from minidrpo.methods.table import METHODS
from minidrpo.rundir.metrics import step_times


def plan(cfg, model, problems, held_out, sampler, done: int) -> str:
    """The block before the first step; `device:` has been said already. done: steps of earlier starts."""
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = f"{parameters:,} parameters" + (f", {trained:,} of them trained" if trained < parameters else "")
    row = METHODS[cfg.method]
    limit = f"at most {cfg.max_response_tokens:,} tokens"
    lines = {
        "model": f"{_short(cfg.model)}, {size}",
        "method": f"{cfg.title}; {row.about}",
        "data": f"{len(problems):,} problems of {_short(cfg.train_data)}; held out: {len(held_out):,} of "
        f"{_short(cfg.eval_data)}, {cfg.samples} response{_s(cfg.samples)} each",
        "a step": f"{cfg.prompts_per_step} prompts x {cfg.group_size} responses of {limit} at temperature "
        f"{cfg.temperature:g} ({type(sampler).__name__}), then {cfg.mini_batches} optimizer step{_s(cfg.mini_batches)} "
        f"at learning rate {cfg.lr:g}",
        "this run": f"steps {done + 1} to {cfg.steps}; held-out evaluation every {cfg.eval_every}, checkpoint every "
        f"{cfg.save_every}; everything in {cfg.directory}",
    }
    if cfg.mini_batches == 1:
        lines["note"] = "kl stays 0: the only optimizer step of a batch starts from the policy that sampled it"
        if {"beta", "delta", "kl_estimator"} <= row.flags:
            lines["note"] += ", so --beta, --delta and --kl-estimator do nothing"
    return "\n".join(f"{name + ':':<10}{text}" for name, text in lines.items())


def time_left(cfg, step: int, numbers: dict, evaluations: list[dict]) -> str:
    """A line after the first step of a start: how long the rest will take, if it goes on like this."""
    seconds = sum(step_times([numbers])["seconds"].values())
    steps = cfg.steps - step
    looks = sum(s % cfg.eval_every == 0 or s == cfg.steps for s in range(step, cfg.steps + 1))  # evaluations
    look = evaluations[-1]["seconds"] if evaluations else None
    left = steps * seconds + looks * (look or 0.0)
    words = (
        f"step {step} took {_time(seconds)}: {steps} more and {looks} evaluation{_s(looks)} take about {_time(left)}"
    )
    return words + ("" if look else ", evaluations not counted") + " at this length of responses"


def _time(seconds):
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"


def _short(name: str) -> str:
    """A path by its last two parts; a name as it is."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if path.is_absolute() else name


def _s(n):
    return "" if n == 1 else "s"
