"""checkpoint.py - a run directory that survives kill -9: checkpoints appear whole or not at all, logs never tear.

    run/config.json            every setting, the command and versions, written before step 0
    run/metrics.jsonl          one JSON object a step
    run/samples.jsonl          a few whole groups of answers with their grades and weights
    run/checkpoints/step_N/    a Hugging Face model directory, trainer.json (the step) and
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
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from minidrpo.engine import shard
from minidrpo.engine.distributed import together

PREFIX, TRAINER = "step_", "trainer"
FAILURES = (OSError, SafetensorError, RuntimeError)  # of a disk, in several libraries' words; others are our bugs


def save(run_dir, step, model, tokenizer, optimizer, state=None, *, keep=2):
    """Write checkpoints/step_N under another name, flush it to the disk, then rename: readers see all or nothing.

    Every rank calls this; rank 0 writes, and of a sharded model each rank its part of the moments. If any of them
    cannot (a full disk, say), every rank raises the same OSError: the checkpoints written before are untouched and no
    half-written one is left.
    """
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    first, sharded = ranks == 1 or dist.get_rank() == 0, shard.is_sharded(model)
    final = Path(run_dir) / "checkpoints" / f"{PREFIX}{step}"
    partial = final.with_name(".partial")
    try:
        with together(ranks, FAILURES, OSError):
            if first:
                shutil.rmtree(partial, ignore_errors=True)  # what an earlier kill may have left
                (partial / TRAINER).mkdir(parents=True)
        moments, weights = _optimizer_tensors(model, optimizer), None
        if sharded:
            shard.save_split(moments, partial / TRAINER / "optimizer")
            weights = shard.whole_state(model, keep=first)
        with together(ranks, FAILURES, OSError):  # after it, the checkpoint is there for every rank
            if first:
                model.save_pretrained(partial, state_dict=weights)
                tokenizer.save_pretrained(partial)
                if not sharded:
                    moments = {key: value.cpu() for key, value in moments.items()}
                    save_file(moments, partial / TRAINER / "optimizer.safetensors")
                save_file(state or {}, partial / TRAINER / "method.safetensors")
                (partial / "trainer.json").write_text(json.dumps({"step": step}) + "\n")
                for path in (*partial.iterdir(), *(partial / TRAINER).iterdir()):
                    _flush(path)
                _remove(final)
                os.rename(partial, final)
                _flush(final.parent)
    except OSError as error:  # on every rank, so they can meet again: the run ends when rank 0 has cleared up
        with together(ranks, OSError, OSError):
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


def restore_optimizer(checkpoint, model, optimizer):
    """Put AdamW's moments back, bit for bit, however many ranks wrote them, sharded or not. Returns the number of steps
    done. The model's weights are loaded from the same directory by policy.load_model, as from any model directory."""
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
        return int(json.loads(path.read_text())["step"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} does not say the step: {error}") from error


def restore_state(checkpoint):
    """What the method remembered, as methods.weigh returned it."""
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


# ------------------------------------------------------------------------------------------------------- JSON lines


def append_lines(path, records):
    """Append records, one JSON object a line, and flush. A torn last line is the worst a kill can leave."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    except OSError as error:
        raise OSError(f"could not write {path}: {error}") from error


def read_lines(path, key="step"):
    """The records of a JSON-lines file, each an object with the whole number `key`; a torn last line (killed while
    writing) is left out. ValueError names the line that is not one."""
    path = Path(path)
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]  # bytes: a kill may cut a character in two
    records = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is empty or torn
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if not isinstance(record, dict) or not isinstance(record.get(key), int):
            raise ValueError(f"{path}, line {number}: not an object with a number called {key}")
        records.append(record)
    return records


def keep_lines_until(path, step):
    """Drop records of steps after `step`: a resumed run writes them again. The rewrite is atomic."""
    if not Path(path).exists():
        return
    records = [r for r in read_lines(path) if r["step"] <= step]
    partial = Path(path).with_suffix(".partial")
    partial.unlink(missing_ok=True)
    append_lines(partial, records)
    os.replace(partial, path)
