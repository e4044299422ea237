"""checkpoint.py - a run directory that survives kill -9: checkpoints appear whole or not at all.

    run/config.json            every setting, the command and versions, written before step 0
    run/metrics.jsonl          one JSON object per step
    run/samples.jsonl          a few whole groups of responses with their grades and weights
    run/checkpoints/step_N/    a Hugging Face model directory, trainer.json (the step, the data's fingerprint) and
        trainer/               method.safetensors: what a method remembers; optimizer/: AdamW's moments, in parts if the
                               run is sharded. Apart, because vLLM takes all .safetensors beside the model's for weights

Tensors are in safetensors files, all else is JSON or text: a resume unpickles nothing. There are no random-number
states to keep: all randomness in training is a function of (seed, step).
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from minidrpo.engine import shard
from minidrpo.engine.distributed import DistContext

PREFIX, TRAINER = "step_", "trainer"
FAILURES = (OSError, SafetensorError, RuntimeError)  # of a disk, in several libraries' words; others are our bugs


def save(
    run_dir, step: int, model: nn.Module, tokenizer, optimizer: Optimizer, state=None, ctx=None, *, keep=2, about=None
) -> None:
    """Write checkpoints/step_N under another name, flush it to the disk, then rename: readers see all or nothing.

    state: the method's tensors, {name: tensor}. ctx: a DistContext, of one process if None. keep: how many checkpoints
    stay. about: what to note beside the step. Every rank calls this; rank 0 writes, and of a sharded model each rank
    its part of the moments. If any of them cannot (a full disk, say), every rank raises the same OSError: the
    checkpoints written before are untouched and no half-written one is left.
    """
    ctx = ctx or DistContext()
    final = Path(run_dir) / "checkpoints" / f"{PREFIX}{step}"
    partial = final.with_name(".partial")
    try:
        with ctx.fail_together(FAILURES, OSError):
            if ctx.is_main:
                shutil.rmtree(partial, ignore_errors=True)  # what an earlier kill may have left
                (partial / TRAINER).mkdir(parents=True)
        shard.save_split(_optimizer_tensors(model, optimizer), partial / TRAINER / "optimizer")
        weights = shard.whole_state(model)
        with ctx.fail_together(FAILURES, OSError):  # after it, the checkpoint is there for every rank
            if ctx.is_main:
                model.save_pretrained(partial, state_dict=weights)
                tokenizer.save_pretrained(partial)
                save_file(state or {}, partial / TRAINER / "method.safetensors")
                # Parameters that never had a gradient, or a resume would miss what was never written
                bare = [name for name, parameter in model.named_parameters() if not optimizer.state.get(parameter)]
                noted = {"step": step} | ({"without_moments": bare} if bare else {}) | (about or {})
                (partial / "trainer.json").write_text(json.dumps(noted) + "\n")
                for path in (*partial.iterdir(), *(partial / TRAINER).iterdir()):
                    _flush(path)
                _remove(final)
                os.rename(partial, final)
                _flush(final.parent)
    except OSError as error:  # on every rank, so they can meet again: the run ends when rank 0 has cleared up
        with ctx.fail_together(OSError, OSError):
            if ctx.is_main:
                shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"could not write {final}: {error}") from error
    if ctx.is_main:
        for old in list_steps(run_dir)[:-keep]:
            _remove(final.with_name(f"{PREFIX}{old}"))


def _remove(directory):
    """Delete a checkpoint so that a kill on the way leaves nothing that looks like one: first take away its name."""
    doomed = directory.with_name(".doomed")
    shutil.rmtree(doomed, ignore_errors=True)  # what an earlier kill may have left
    if directory.exists():
        os.rename(directory, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def list_steps(run_dir: str | Path) -> list[int]:
    """Steps that have a whole checkpoint, ascending."""
    found = (Path(run_dir) / "checkpoints").glob(f"{PREFIX}*/trainer.json")
    steps = (path.parent.name.removeprefix(PREFIX) for path in found)
    return sorted(int(step) for step in steps if step.isdigit())  # step_9_backup is somebody's copy


def newest(run_dir: str | Path) -> Path | None:
    """The newest whole checkpoint's directory, or None."""
    steps = list_steps(run_dir)
    return Path(run_dir) / "checkpoints" / f"{PREFIX}{steps[-1]}" if steps else None


def restore_optimizer(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> tuple[int, dict]:
    """Put AdamW's moments back, bit for bit, however many ranks wrote them, sharded or not. Returns (number of steps
    done, what else was noted about the run). The model's weights are loaded from the same directory as any model's.
    All ranks call this; ValueError in one line if the checkpoint is damaged or of a version that is no longer read."""
    path, folder = checkpoint / "trainer.json", checkpoint / TRAINER
    if not folder.is_dir():
        raise ValueError(f"{checkpoint} has no {TRAINER}/ to go on from: only a model, or of an older version")
    with _readable(path):
        about = json.loads(path.read_text())
        done = int(about["step"])
    if (folder / "optimizer").is_dir():  # older versions, not sharded: one file, optimizer.safetensors
        folder = folder / "optimizer"
    if (folder / ".metadata").exists():
        raise ValueError(f"{folder} is an older version's pickle, never read: start anew from its weights, --model")
    for name, parameter in model.named_parameters():  # as AdamW's first step would
        if name in about.get("without_moments", ()):
            continue
        zeros = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        optimizer.state[parameter] = {"step": torch.zeros(())} | zeros
    with _readable(folder):
        shard.load_split(_optimizer_tensors(model, optimizer), folder)
    return done, about


def restore_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """What the method remembered, {name: tensor}. ValueError in one line if it cannot be read."""
    with _readable(path := checkpoint / TRAINER / "method.safetensors"):
        return load_file(path)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Around reading `path`: what is wrong with the file is the user's ValueError, in one line."""
    try:
        yield
    except (*FAILURES, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _optimizer_tensors(model, optimizer):
    """{parameter's name.key: tensor}. Not get_optimizer_state_dict: before the first step it takes one of its own,
    which leaves AdamW's counter at 1 and needs room for gradients (measured: 3 times the weights instead of 2)."""
    named = [(name, optimizer.state[parameter]) for name, parameter in model.named_parameters()]
    return {f"{name}.{key}": tensor for name, moments in named for key, tensor in moments.items()}


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
