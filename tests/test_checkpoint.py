"""Checkpoints are whole or absent, whatever happens while they are written."""

import json
import multiprocessing
import os
import pickle
import shutil
import time
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

from conftest import make_small_model
from minidrpo.engine import loading
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


def test_a_parameter_without_a_gradient_does_not_end_the_run(small_model, tmp_path):
    """AdamW keeps nothing of it, so nothing is written and nothing is missed when the run goes on."""
    idle = next(small_model.parameters()).requires_grad_(False)
    optimizer = torch.optim.AdamW(p for p in small_model.parameters() if p is not idle)
    small_model(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path, 1, small_model, NoTokenizer(), optimizer)
    again = torch.optim.AdamW(small_model.parameters())
    assert checkpoint.restore_optimizer(checkpoint.newest(tmp_path), small_model, again)[0] == 1
    assert idle not in again.state or not again.state[idle]


def test_round_trip_is_exact(tmp_path, small_model):
    from transformers import AutoModelForCausalLM

    optimizer = trained(small_model)
    checkpoint.save(tmp_path, 7, small_model, NoTokenizer(), optimizer)
    path = checkpoint.newest(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(path)
    other = torch.optim.AdamW(again.parameters(), lr=1e-2)
    assert checkpoint.restore_optimizer(path, again, other)[0] == 7
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
    for odd in ("step_007", "step_\N{SUPERSCRIPT TWO}"):
        shutil.copytree(tmp_path / "checkpoints" / "step_10", tmp_path / "checkpoints" / odd)
    assert checkpoint.list_steps(tmp_path) == [9, 10]
    assert checkpoint.newest(tmp_path).name == "step_10"
    assert checkpoint.newest(tmp_path / "empty") is None


@pytest.mark.parametrize("kind", ["link", "dangling link", "links of links", "doomed link", "undeletable"])
def test_what_became_of_an_old_checkpoint_never_stops_a_run(tmp_path, small_model, kind, monkeypatch, capsys):
    """Moved to another disk and linked back, say: the link goes and what it leads to stays."""
    optimizer, elsewhere, old = trained(small_model), tmp_path / "elsewhere", tmp_path / "checkpoints" / "step_1"
    checkpoint.save(tmp_path, 1, small_model, NoTokenizer(), optimizer)
    if kind == "undeletable":
        rename = os.rename

        def refusing(source, target):
            if str(target).endswith(".doomed"):
                raise PermissionError(13, "Permission denied", str(source))
            rename(source, target)

        monkeypatch.setattr(os, "rename", refusing)
    else:
        old.rename(elsewhere)
        old.symlink_to(tmp_path / "nowhere" if kind == "dangling link" else elsewhere)
    if kind == "links of links":
        old.rename(tmp_path / "link")
        old.symlink_to(tmp_path / "link")
    if kind == "doomed link":  # left by an older version, which could not delete a link
        (old.parent / ".doomed").symlink_to(elsewhere)
    for step in (2, 3, 4):
        checkpoint.save(tmp_path, step, small_model, NoTokenizer(), optimizer)
    kept = [1, 2, 3, 4] if kind == "undeletable" else [3, 4]
    assert checkpoint.list_steps(tmp_path) == kept
    assert ("could not be deleted" in capsys.readouterr().err) == (kind == "undeletable")
    assert kind == "undeletable" or (elsewhere / "model.safetensors").exists()


def test_a_link_in_the_new_checkpoints_place_makes_way(tmp_path, small_model):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_1").symlink_to(tmp_path / "nowhere")
    checkpoint.save(tmp_path, 1, small_model, NoTokenizer(), trained(small_model))
    assert checkpoint.list_steps(tmp_path) == [1]


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


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_never_become_the_newest_checkpoint(tmp_path, small_model, bad):
    """Review A8: with keep=1 the only good one would be gone, too."""
    optimizer = trained(small_model)
    checkpoint.save(tmp_path, 1, small_model, NoTokenizer(), optimizer)
    name, parameter = list(small_model.named_parameters())[3]
    parameter.data.view(-1)[1] = bad
    with pytest.raises(FloatingPointError, match=f"{name} is not finite .* the last checkpoint is intact"):
        checkpoint.save(tmp_path, 2, small_model, NoTokenizer(), optimizer, keep=1)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_1"]
    parameter.data.view(-1)[1] = 3e38  # large is not infinite
    checkpoint.save(tmp_path, 2, small_model, NoTokenizer(), optimizer, keep=1)


def test_checkpoints_that_cannot_be_seen_are_not_taken_for_none(tmp_path):
    """Review A5: glob swallowed the error, the run started over and cut its logs."""
    assert checkpoint.list_steps(tmp_path / "gone") == []
    folder = tmp_path / "checkpoints"
    folder.symlink_to(folder)  # a loop: also root, whom no mode keeps out, cannot list it
    with pytest.raises(ValueError, match=f"{folder} cannot be searched for checkpoints: Too many levels"):
        checkpoint.list_steps(tmp_path)
    folder.unlink()
    folder.write_text("")
    with pytest.raises(ValueError, match="cannot be searched for checkpoints: Not a directory"):
        checkpoint.newest(tmp_path)
    folder.unlink()
    (folder / "step_3").mkdir(parents=True)
    for hidden in (folder / "step_3", folder):
        hidden.chmod(0)
        if os.geteuid():
            with pytest.raises(ValueError, match=f"{hidden} cannot be searched for checkpoints: Permission denied"):
                checkpoint.list_steps(tmp_path)
        hidden.chmod(0o700)


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
    for step in checkpoint.list_steps(tmp_path):
        folder = tmp_path / "checkpoints" / f"step_{step}"
        assert json.loads((folder / "trainer.json").read_text())["step"] == step
        assert load_file(folder / "model.safetensors") and any((folder / "trainer" / "optimizer").iterdir())
    assert checkpoint.list_steps(tmp_path)


class Payload:
    """Pickled, it makes a file when it is read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def went_on(path):
    """What a resume reads of a checkpoint: everything, or one line that says why not."""
    try:
        model = loading.load_model(path)
        checkpoint.restore_optimizer(path, model, torch.optim.AdamW(model.parameters()))
        checkpoint.restore_state(path)
    except ValueError as error:
        return str(error)


def test_nothing_in_a_checkpoint_is_executed(tmp_path, small_model):
    """Review A1: a pickle in the place of any file, or beside them under any name that some library reads."""
    marker = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists(), "the payload works"
    marker.unlink()
    checkpoint.save(tmp_path, 1, small_model, NoTokenizer(), trained(small_model), {"best": torch.ones(2)})
    path = checkpoint.newest(tmp_path)
    assert went_on(path) is None
    written = [file for file in path.rglob("*") if file.is_file()]
    assert {file.suffix for file in written} == {".json", ".safetensors", ".md"}  # the model card is text
    names = (".metadata", "optimizer.pt", "__0_0.distcp", "pytorch_model.bin", "training_args.bin")
    planted = [path / folder / name for folder in (".", "trainer", "trainer/optimizer") for name in names]
    for file in written + planted:
        before = file.read_bytes() if file.exists() else None
        for dump in (pickle.dump, torch.save):
            with file.open("wb") as stream:
                dump(Payload(marker), stream)
            said = went_on(path)
            assert not marker.exists(), file
            assert said is None or "\n" not in said and str(path) in said, (file, said)
            if file in written and file.name not in ("tokenizer.json", "generation_config.json", "README.md"):
                assert said, f"{file} was not missed"
        file.unlink() if before is None else file.write_bytes(before)
    assert went_on(path) is None


def test_a_damaged_optimizer_is_no_optimizer(tmp_path, small_model):
    """Review A10: what is missing or of another kind is not made up for by zeros or casts."""
    checkpoint.save(tmp_path, 1, small_model, NoTokenizer(), trained(small_model))
    path = checkpoint.newest(tmp_path)
    for file in (path / "trainer" / "optimizer").iterdir():
        whole = file.read_bytes()
        file.unlink()
        assert "is not there whole" in went_on(path)
        for wrong in (b"", whole[: len(whole) // 2], whole.replace(b'"F32"', b'"I32"')):
            file.write_bytes(wrong)
            assert str(path / "trainer" / "optimizer") in went_on(path)
        file.write_bytes(whole)
    assert went_on(path) is None


def rewrite(path, **changes):
    """trainer.json with these in place of what is there."""
    (path / "trainer.json").write_text(json.dumps({"step": 2} | changes))


@pytest.mark.parametrize("step", [-5, 7, 1.7, 2.0, float("inf"), True, "2", None, [2]])
def test_a_step_that_is_not_its_directorys_is_refused(tmp_path, small_model, step):
    """Review A10: -5 cut the logs, 7 in step_2 went on from 7, 1.7 from 1."""
    checkpoint.save(tmp_path, 2, small_model, NoTokenizer(), trained(small_model))
    path = checkpoint.newest(tmp_path)
    rewrite(path, step=step)
    said = went_on(path)
    assert said and said.startswith(f"{path / 'trainer.json'} cannot be read: its step is {step!r}")
    (path / "trainer.json").write_text("[" * 10**5)
    assert went_on(path).startswith(f"{path / 'trainer.json'} cannot be read")


def test_what_is_said_to_be_without_moments_is_checked(tmp_path, small_model):
    """It was believed: with every name in the list all moments vanished, and nobody was told."""
    optimizer = trained(small_model)
    checkpoint.save(tmp_path, 2, small_model, NoTokenizer(), optimizer)
    path = checkpoint.newest(tmp_path)
    names = [name for name, _ in small_model.named_parameters()]
    for wrong in (5, True, "lm_head", {names[0]: 1}, [5], [[names[0]]], ["nobody"], names, None):
        rewrite(path, without_moments=wrong)
        assert "trainer.json cannot be read: " in went_on(path), wrong
    rewrite(path, without_moments=names[1:])
    assert "it has moments of" in went_on(path)
    rewrite(path, without_moments=[])
    assert went_on(path) is None
    for file in (path / "trainer" / "optimizer").iterdir():
        file.unlink()
    rewrite(path, without_moments=names)  # no file contradicts it, but a run that took a step has moments
    assert "trainer.json cannot be read: " in went_on(path)


def test_checkpoints_of_older_versions(tmp_path, small_model):
    """The optimizer in one file is read; a sharded run's was a pickle, which is not."""
    optimizer = trained(small_model)
    checkpoint.save(tmp_path, 2, small_model, NoTokenizer(), optimizer)
    path = checkpoint.newest(tmp_path)
    tensors = checkpoint._optimizer_tensors(small_model, optimizer)
    shutil.rmtree(path / "trainer" / "optimizer")
    save_file(tensors, path / "trainer" / "optimizer.safetensors")
    again = torch.optim.AdamW(small_model.parameters())
    assert checkpoint.restore_optimizer(path, small_model, again) == (2, {"step": 2})
    for name, tensor in checkpoint._optimizer_tensors(small_model, again).items():
        assert torch.equal(tensor, tensors[name]), name
    (path / "trainer" / "optimizer.safetensors").unlink()
    with warnings.catch_warnings(action="ignore"):  # "assuming the intent is to save in a single process"
        dcp.save(tensors, checkpoint_id=path / "trainer" / "optimizer")
    assert "older version" in went_on(path) and "--model" in went_on(path)
    shutil.rmtree(path / "trainer")
    assert "older version" in went_on(path)


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
