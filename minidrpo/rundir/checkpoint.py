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
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from minidrpo import cli
from minidrpo.engine import probe, shard
from minidrpo.engine.distributed import DistContext
from minidrpo.files import plain_file, plain_files, read_json

PREFIX, TRAINER = "step_", "trainer"
STEP = re.compile(rf"{PREFIX}(0|[1-9][0-9]*)")
FAILURES = (OSError, SafetensorError, RuntimeError)  # of a disk, in several libraries' words; others are our bugs


def save(
    run_dir,
    step: int,
    model: nn.Module,
    tokenizer,
    optimizer: Optimizer,
    state=None,
    ctx=None,
    *,
    keep=2,
    about=None,
    card="",
) -> None:
    """Write checkpoints/step_N under another name, flush it to the disk, then rename: readers see all or nothing.

    state: the method's tensors, {name: tensor}. ctx: a DistContext, of one process if None. keep: how many checkpoints
    stay. about: what to note beside the step. card: text of the
    model directory's README.md. Every rank calls this; rank 0 writes, and of a sharded model each rank
    its part of the moments. If any of them cannot (a full disk, say), every rank raises the same OSError, and
    FloatingPointError if weights are not finite: the checkpoints written before are untouched and no half-written one
    is left.
    """
    ctx = ctx or DistContext()
    with ctx.fail_together(FloatingPointError, FloatingPointError):
        _refuse_spoilt(model)
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
                (partial / "README.md").write_text(card, encoding="utf-8")
                save_file(state or {}, partial / TRAINER / "method.safetensors")
                # Parameters that never had a gradient, or a resume would miss what was never written
                bare = [name for name, parameter in model.named_parameters() if not optimizer.state.get(parameter)]
                noted = {"step": step} | ({"without_moments": bare} if bare else {}) | (about or {})
                (partial / "trainer.json").write_text(json.dumps(noted) + "\n")
                for path in (*partial.iterdir(), *(partial / TRAINER).iterdir()):
                    _flush(path)
                _flush(partial)
                _remove(final)
                os.rename(partial, final)
                _flush(final.parent)
    except OSError as error:  # on every rank, so they can meet again: the run ends when rank 0 has cleared up
        with ctx.fail_together(OSError, OSError):
            if ctx.is_main:
                shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"could not write {final}: {error}") from error
    try:  # the new one is there, and that is what counts
        for old in list_steps(run_dir)[:-keep] if ctx.is_main else ():
            _remove(final.with_name(f"{PREFIX}{old}"))
    except (OSError, ValueError) as error:
        cli.say(f"note: an old checkpoint could not be deleted: {error}", file=sys.stderr)


def _refuse_spoilt(model):
    """FloatingPointError if a weight is not finite."""
    if spoilt := probe.not_finite(model):
        raise FloatingPointError(f"{spoilt[0]} is not finite ({spoilt[1]}): not saved; the last checkpoint is intact")


def _remove(directory):
    """Delete a checkpoint so that a kill on the way leaves nothing that looks like one: first take away its name. Of a
    link the link goes and what it leads to stays."""
    doomed = directory.with_name(".doomed")
    _delete(doomed)  # what an earlier kill may have left
    if os.path.lexists(directory):
        os.rename(directory, doomed)
        _delete(doomed)


def _delete(path):
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def list_steps(run_dir: str | Path) -> list[int]:
    """Steps that have a whole checkpoint, ascending. ValueError if that cannot be told: a run that took it for none
    would start over."""
    folder = Path(run_dir) / "checkpoints"
    try:
        names = [name for name in _names_in(folder) if STEP.fullmatch(name)]  # step_9_backup is somebody's copy
        return sorted(int(name.removeprefix(PREFIX)) for name in names if "trainer.json" in _names_in(folder / name))
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be searched for checkpoints: {error.strerror}") from error


def _names_in(folder):
    """Not glob, which takes a folder that one may not read for an empty one."""
    with contextlib.suppress(FileNotFoundError):  # or one that another process has just removed
        return os.listdir(folder)
    return []


def newest(run_dir: str | Path) -> Path | None:
    """The newest whole checkpoint's directory, or None."""
    steps = list_steps(run_dir)
    return Path(run_dir) / "checkpoints" / f"{PREFIX}{steps[-1]}" if steps else None


@contextlib.contextmanager
def naming_the_older(path: Path) -> Iterator[None]:
    """Around reading the newest checkpoint: a ValueError then says what the run can go on from without it."""
    try:
        yield
    except ValueError as error:
        older = [step for step in list_steps(path.parent.parent) if f"{PREFIX}{step}" != path.name]
        hint = f"go on from step {older[-1]}" if older else "start anew"
        raise ValueError(f"{error}. To {hint}, move {path} away") from error


def restore_optimizer(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> tuple[int, dict]:
    """Put AdamW's moments back, bit for bit, however many ranks wrote them, sharded or not. Returns (number of steps
    done, what else was noted about the run). The model's weights are loaded from the same directory as any model's.
    All ranks call this; ValueError in one line if the checkpoint is damaged or of a version that is no longer read."""
    path, folder = checkpoint / "trainer.json", checkpoint / TRAINER
    if not folder.is_dir():
        raise ValueError(f"{checkpoint} has no {TRAINER}/ to go on from: only a model, or of an older version")
    with _readable(path):
        about = read_json(path)
        done, bare = about["step"], about.get("without_moments", [])
        if type(done) is not int or checkpoint.name != f"{PREFIX}{done}":
            raise ValueError(f"its step is {done!r}")
        if not isinstance(bare, list) or not set(bare) < {name for name, _ in model.named_parameters()}:
            raise ValueError(f"without_moments is not some of the model's parameters: {str(bare)[:200]}")
    if (folder / "optimizer").is_dir():  # older versions, not sharded: one file, optimizer.safetensors
        folder = folder / "optimizer"
    if (folder / ".metadata").exists():
        raise ValueError(f"{folder} is an older version's pickle, never read: start anew from its weights, --model")
    for name, parameter in model.named_parameters():  # as AdamW's first step would
        if name in bare:
            continue
        zeros = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        optimizer.state[parameter] = {"step": torch.zeros(())} | zeros
    with _readable(folder):
        plain_files(folder, ["*.safetensors"])
        if stored := _with_moments(folder) & set(bare):
            raise ValueError(f"it has moments of {min(stored)}, which trainer.json says is without")
        shard.load_split(_optimizer_tensors(model, optimizer), folder)
    return done, about


def restore_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """What the method remembered, {name: tensor}. ValueError in one line if it cannot be read."""
    with _readable(path := checkpoint / TRAINER / "method.safetensors"):
        return load_file(plain_file(path))


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


def _with_moments(folder):
    """Names of the parameters of which files in the folder hold moments."""
    found = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            found |= {key.rpartition(".")[0] for key in tensors.keys()}
    return found


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
