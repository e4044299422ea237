"""checkpoint.py - a run directory that survives kill -9: checkpoints appear whole or not at all, logs never tear.

    run/config.json            every setting, the command and versions, written before step 0
    run/metrics.jsonl          one JSON object a step
    run/samples.jsonl          a few whole groups of answers with their grades and weights
    run/checkpoints/step_N/    a Hugging Face model directory, trainer.json (the step, the data's fingerprint) and
        trainer/               optimizer.safetensors, and method.safetensors: what a method remembers, see methods.py.
                               A sharded run writes its moments as optimizer/ instead (torch.distributed.checkpoint,
                               each rank its own part). Apart, for vLLM takes every .safetensors beside the model's
                               for weights

There are no random-number states to keep: all randomness in training is a function of (seed, step).
"""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from minidrpo.engine import shard
from minidrpo.engine.distributed import DistContext

PREFIX, TRAINER = "step_", "trainer"
FAILURES = (OSError, SafetensorError, RuntimeError)  # of a disk, in several libraries' words; others are our bugs


def save(run_dir, step, model, tokenizer, optimizer, state=None, ctx=None, *, keep=2, about=None):
    """Write checkpoints/step_N under another name, flush it to the disk, then rename: readers see all or nothing.

    state: the method's tensors. about: numbers of the run to be remembered beside the step. Every rank calls this; rank
    0 writes, and of a sharded model each rank its part of the moments. If any of them
    cannot (a full disk, say), every rank raises the same OSError: the checkpoints written before are untouched and no
    half-written one is left.
    """
    ctx = ctx or DistContext()
    first, sharded = ctx.is_main, shard.is_sharded(model)
    final = Path(run_dir) / "checkpoints" / f"{PREFIX}{step}"
    partial = final.with_name(".partial")
    try:
        with ctx.fail_together(FAILURES, OSError):
            if first:
                shutil.rmtree(partial, ignore_errors=True)  # what an earlier kill may have left
                (partial / TRAINER).mkdir(parents=True)
        moments, weights = _optimizer_tensors(model, optimizer), None
        if sharded:
            shard.save_split(moments, partial / TRAINER / "optimizer")
            weights = shard.whole_state(model, keep=first)
        with ctx.fail_together(FAILURES, OSError):  # after it, the checkpoint is there for every rank
            if first:
                model.save_pretrained(partial, state_dict=weights)
                tokenizer.save_pretrained(partial)
                if not sharded:
                    moments = {key: value.cpu() for key, value in moments.items()}
                    save_file(moments, partial / TRAINER / "optimizer.safetensors")
                save_file(state or {}, partial / TRAINER / "method.safetensors")
                (partial / "trainer.json").write_text(json.dumps({"step": step} | (about or {})) + "\n")
                for path in (*partial.iterdir(), *(partial / TRAINER).iterdir()):
                    _flush(path)
                _remove(final)
                os.rename(partial, final)
                _flush(final.parent)
    except OSError as error:  # on every rank, so they can meet again: the run ends when rank 0 has cleared up
        with ctx.fail_together(OSError, OSError):
            if first:
                shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"could not write {final}: {error}") from error
    if first:
        for old in list_steps(run_dir)[:-keep]:
            _remove(final.with_name(f"{PREFIX}{old}"))


def _remove(directory):
    """Delete a checkpoint so that a kill on the way leaves nothing that looks like one: first take away its name."""
    doomed = directory.with_name(".doomed")
    shutil.rmtree(doomed, ignore_errors=True)  # what an earlier kill may have left
    if directory.exists():
        os.rename(directory, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def list_steps(run_dir):
    """Steps that have a whole checkpoint, ascending."""
    found = (Path(run_dir) / "checkpoints").glob(f"{PREFIX}*/trainer.json")
    steps = (path.parent.name.removeprefix(PREFIX) for path in found)
    return sorted(int(step) for step in steps if step.isdigit())  # step_9_backup is somebody's copy


def newest(run_dir):
    """The newest whole checkpoint's directory, or None."""
    steps = list_steps(run_dir)
    return Path(run_dir) / "checkpoints" / f"{PREFIX}{steps[-1]}" if steps else None


def restore_optimizer(checkpoint, model, optimizer) -> tuple[int, dict]:
    """Put AdamW's moments back, bit for bit, however many ranks wrote them, sharded or not. Returns (number of steps
    done, what else was noted about the run). The model's weights are loaded from the same directory as any model's."""
    parameters = dict(model.named_parameters())

    def like(key):  # AdamW's own step counter stays a CPU scalar, as torch makes it
        return torch.zeros(()) if key.endswith(".step") else torch.zeros_like(parameters[key.rsplit(".", 1)[0]])

    folder = Path(checkpoint) / TRAINER
    if not folder.is_dir():
        raise ValueError(f"{checkpoint} has no {TRAINER}/ to go on from: only a model, or of an older version")
    if (folder / "optimizer").is_dir():
        tensors = shard.load_split(folder / "optimizer", like)
    else:
        tensors = load_file(folder / "optimizer.safetensors")
    for key, tensor in tensors.items():
        name, kind = key.rsplit(".", 1)
        optimizer.state[parameters[name]][kind] = tensor if kind == "step" else shard.placed(tensor, parameters[name])
    path = Path(checkpoint) / "trainer.json"
    try:
        about = json.loads(path.read_text())
        return int(about["step"]), about
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} does not say the step: {error}") from error


def restore_state(checkpoint):
    """What the method remembered, as compute_weights returned it."""
    return load_file(Path(checkpoint) / TRAINER / "method.safetensors")


def _optimizer_tensors(model, optimizer):
    return {
        f"{name}.{key}": value.detach().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if torch.is_tensor(value)
    }


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
