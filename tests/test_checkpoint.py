"""Checkpoints are whole or absent, whatever happens while they are written."""

import json
import multiprocessing
import shutil
import time

import pytest
import torch

from conftest import make_small_model
from minidrpo.rundir import checkpoint, jsonl


class NoTokenizer:
    def save_pretrained(self, path):
        (path / "tokenizer.json").write_text("{}")


def trained(model, steps=2):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        model(torch.tensor([[2, 3, 4]])).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def test_round_trip_is_exact(tmp_path, small_model):
    from transformers import AutoModelForCausalLM

    optimizer = trained(small_model)
    checkpoint.save(tmp_path, 7, small_model, NoTokenizer(), optimizer)
    path = checkpoint.newest(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(path)
    other = torch.optim.AdamW(again.parameters(), lr=1e-2)
    assert checkpoint.restore_optimizer(path, again, other) == (7, {"step": 7})
    assert [p.name for p in path.glob("*.safetensors")] == ["model.safetensors"]  # vLLM reads all of them as weights
    for model, opt in ((small_model, optimizer), (again, other)):  # the next step must be the same, bit for bit
        model(torch.tensor([[5, 6]])).logits.square().mean().backward()
        opt.step()
    for a, b in zip(small_model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_old_ones_are_pruned_and_partial_ones_ignored(tmp_path, small_model):
    optimizer = trained(small_model, 0)
    for step in (2, 10, 9):
        checkpoint.save(tmp_path, step, small_model, NoTokenizer(), optimizer, keep=2)
    (tmp_path / "checkpoints" / ".partial_99").mkdir()
    (tmp_path / "checkpoints" / "step_99").mkdir()  # not ours: nothing in it
    shutil.copytree(tmp_path / "checkpoints" / "step_10", tmp_path / "checkpoints" / "step_10_backup")
    assert checkpoint.list_steps(tmp_path) == [9, 10]
    assert checkpoint.newest(tmp_path).name == "step_10"
    assert checkpoint.newest(tmp_path / "empty") is None


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, small_model, monkeypatch):
    optimizer = trained(small_model)
    checkpoint.save(tmp_path, 1, small_model, NoTokenizer(), optimizer)

    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 2, small_model, NoTokenizer(), optimizer)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_1"]


def test_killed_while_writing(tmp_path):
    """A process that writes checkpoints without pause is killed; what is found is always loadable."""

    def write_on():
        model = make_small_model()
        optimizer = trained(model)
        for step in range(10**6):
            checkpoint.save(tmp_path, step, model, NoTokenizer(), optimizer)

    process = multiprocessing.get_context("fork").Process(target=write_on, daemon=True)
    process.start()
    deadline = time.time() + 120
    while len(checkpoint.list_steps(tmp_path)) < 2 and time.time() < deadline:
        time.sleep(0.05)
    process.kill()
    process.join()
    from safetensors.torch import load_file

    for step in checkpoint.list_steps(tmp_path):
        folder = tmp_path / "checkpoints" / f"step_{step}"
        assert json.loads((folder / "trainer.json").read_text()) == {"step": step}
        assert load_file(folder / "model.safetensors") and load_file(folder / "trainer" / "optimizer.safetensors")
    assert checkpoint.list_steps(tmp_path)


def test_lines_after_a_kill(tmp_path):
    path = tmp_path / "metrics.jsonl"
    jsonl.append(path, [{"step": s} for s in range(1, 6)])
    with open(path, "a") as file:
        file.write('{"step": 6, "accu')  # torn
    assert [r["step"] for r in jsonl.read(path)] == [1, 2, 3, 4, 5]
    with open(path, "ab") as file:
        file.write(b'{"step": 7, "response": "caf\xc3')  # torn inside a character
    assert len(jsonl.read(path)) == 5
    for wrong, said in (("{}", "not an object with step"), ("[1]", "not an object"), ("{", "Expecting")):
        (tmp_path / "wrong.jsonl").write_text('{"step": 1}\n' + wrong + "\n")
        with pytest.raises(ValueError, match=f"wrong.jsonl, line 2: {said}"):
            jsonl.read(tmp_path / "wrong.jsonl")
    jsonl.keep_until(path, 3)
    jsonl.append(path, [{"step": 4}])
    assert [r["step"] for r in jsonl.read(path)] == [1, 2, 3, 4]
