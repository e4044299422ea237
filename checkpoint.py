"""checkpoint.py - a run directory that survives kill -9: checkpoints appear whole or not at all, logs never tear.

    run/config.json            every setting, the command and versions, written before step 0
    run/metrics.jsonl          one JSON object a step
    run/samples.jsonl          a few whole groups of answers with their grades and weights
    run/checkpoints/step_N/    a Hugging Face model directory, beside optimizer.safetensors, method.safetensors (what a
                               method remembers, see methods.py) and trainer.json

There are no random-number states to keep: all randomness in training is a function of (seed, step).
"""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

PREFIX = "step_"


def save(run_dir, step, model, tokenizer, optimizer, state=None, *, keep=2):
    """Write checkpoints/step_N under another name, flush it to the disk, then rename: readers see all or nothing.

    Raises OSError (a full disk, say) with the checkpoints written before it untouched and no half-written one left.
    """
    final = Path(run_dir) / "checkpoints" / f"{PREFIX}{step}"
    partial = final.with_name(f".partial_{step}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        save_file(_optimizer_tensors(model, optimizer), partial / "optimizer.safetensors")
        save_file(state or {}, partial / "method.safetensors")
        (partial / "trainer.json").write_text(json.dumps({"step": step}) + "\n")
        for path in partial.iterdir():
            _flush(path)
        _remove(final)
        os.rename(partial, final)
        _flush(final.parent)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"could not write {final}: {error}") from error  # safetensors has an error of its own, too
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
    """Put AdamW's moments back, bit for bit. Returns the number of steps done. The model's weights are loaded from
    the same directory by policy.load_model, as from any model directory."""
    tensors = load_file(Path(checkpoint) / "optimizer.safetensors")
    for name, parameter in model.named_parameters():
        keys = [key for key in tensors if key.rsplit(".", 1)[0] == name]
        if keys:  # AdamW's own step counter stays a CPU scalar, as torch makes it
            optimizer.state[parameter] = {
                key.rsplit(".", 1)[1]: tensors[key].cpu() if key.endswith(".step") else tensors[key].to(parameter)
                for key in keys
            }
    return json.loads((Path(checkpoint) / "trainer.json").read_text())["step"]


def restore_state(checkpoint):
    """What the method remembered, as methods.weigh returned it."""
    return load_file(Path(checkpoint) / "method.safetensors")


def _optimizer_tensors(model, optimizer):
    return {
        f"{name}.{key}": value.detach().contiguous().cpu()
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


def read_lines(path):
    """The records of a JSON-lines file; a torn last line (killed while writing) is left out."""
    path = Path(path)
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]  # bytes: a kill may cut a character in two
    return [json.loads(line) for line in lines[:-1]]  # what follows the last newline is empty or torn


def keep_lines_until(path, step):
    """Drop records of steps after `step`: a resumed run writes them again. The rewrite is atomic."""
    if not Path(path).exists():
        return
    records = [r for r in read_lines(path) if r["step"] <= step]
    partial = Path(path).with_suffix(".partial")
    partial.unlink(missing_ok=True)
    append_lines(partial, records)
    os.replace(partial, path)
