"""rundir/track.py. The trackers themselves, offline, run apart: `make test-track` (they need .[track])."""

import importlib.util
import json
import sqlite3
import subprocess
import sys

import pytest

import config
import train
from conftest import ROOT
from minidrpo.engine.distributed import DistContext
from minidrpo.rundir import jsonl, track

SMALL = dict(prompts_per_step=2, group_size=2, max_response_tokens=16, max_problems=2, samples=1, show_every=1)
SMALL |= dict(save_every=1, eval_every=10, micro_batch_tokens=512)


def run(directory, steps, kind):
    train.train(config.make("tiny", "drpo", **SMALL, steps=steps, track=kind, run_dir=str(directory)), DistContext())


@pytest.mark.parametrize("kind", track.KINDS)
def test_a_package_that_is_not_there_is_one_line_before_anything_is_written(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == kind else True)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "run", 1, kind)
    assert (
        stopped.value.code == 2 and f"--track {kind} needs the package {kind}: pip install" in capsys.readouterr().err
    )
    assert not (tmp_path / "run" / "config.json").exists()


def test_nothing_is_imported_unless_asked(tmp_path):
    run(tmp_path / "run", 1, "none")
    assert not {module.split(".")[0] for module in sys.modules} & set(track.KINDS)


def test_a_tracker_that_fails_does_not_end_the_training(tmp_path, monkeypatch, capsys):
    class Fragile:
        def __init__(self, directory, config, first_step):
            self.steps = []

        def numbers(self, step, numbers):
            if step == 2:
                raise ConnectionError("the server\nhas gone")

        def table(self, step, name, rows): ...

        def close(self): ...

    monkeypatch.setitem(track.KINDS, "tensorboard", Fragile)
    monkeypatch.setattr(track, "check", lambda kind: None)
    run(tmp_path / "run", 3, "tensorboard")
    said = capsys.readouterr().out
    assert (
        said.count("--track tensorboard failed and is left out from here on: ConnectionError: the server has gone") == 1
    )
    assert len(jsonl.read(tmp_path / "run" / "metrics.jsonl")) == 3


def test_a_tracker_that_cannot_start_is_one_line(tmp_path, monkeypatch, capsys):
    def refuse(directory, config, first_step):
        raise RuntimeError("no login")

    monkeypatch.setitem(track.KINDS, "wandb", refuse)
    monkeypatch.setattr(track, "check", lambda kind: None)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "run", 1, "wandb")
    assert (
        stopped.value.code == 2 and "--track wandb could not start: RuntimeError: no login" in capsys.readouterr().err
    )


def test_the_older_flag_still_works(tmp_path, capsys):
    cfg = config.parse(["--tensorboard", "--run-dir", str(tmp_path)], "train.py", "")
    assert cfg.track == "tensorboard" and "--tensorboard is called --track=tensorboard now" in capsys.readouterr().err


# -------------------------------------------------------------------------------------- the real libraries, offline


def read_tensorboard(directory):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    found = {key: {e.step: e.value for e in events.Scalars(key)} for key in events.Tags()["scalars"]}
    texts = events.Tags()["tensors"]
    assert "config/text_summary" in texts and "samples/text_summary" in texts
    return found


def read_trackio(directory):
    (path,) = (directory.parent / "trackio").glob("drpo.db")
    with sqlite3.connect(path) as base:
        rows = base.execute("select run_name, step, metrics from metrics order by id").fetchall()
        ((settings,),) = base.execute("select config from configs").fetchall()
    assert len({name for name, *_ in rows}) == 1, "a resumed run is the same run"
    assert json.loads(settings)["lam"] == 0.1
    found, tables = {}, 0
    for _, step, numbers in rows:
        for key, value in json.loads(numbers).items():
            tables += key == "samples" and len(value["_value"]) == 4
            found.setdefault(key, {})[step] = value
    assert tables == 3
    return found


def read_wandb(directory):
    files = sorted(directory.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1, "a resumed run has the same id"
    text = b"".join(file.read_bytes() for file in files)
    assert b'"lam"' in text or b"lam" in text
    tables = directory.glob("wandb/*/files/media/table/samples_*.table.json")
    assert {table.name.split("_")[1] for table in tables} >= {"1", "2", "3"}  # steps
    return {key: None for key in ("accuracy", "held_out/accuracy", "kl") if key.encode() in text}


READERS = {"tensorboard": read_tensorboard, "trackio": read_trackio, "wandb": read_wandb}


@pytest.mark.track
@pytest.mark.parametrize("kind", track.KINDS)
def test_the_real_tracker_holds_the_numbers_of_the_run_also_after_a_resume(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    # a process per start: as a user's, and trackio reads its folder when it is imported
    for steps in (2, 3):
        words = [word for key, value in SMALL.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        words += ["--steps", str(steps), "--track", kind, "--run-dir", str(tmp_path / "run")]
        done = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    found = READERS[kind](tmp_path / "run")
    assert {"accuracy", "held_out/accuracy", "kl"} <= found.keys()
    if kind != "wandb":
        for record in jsonl.read(tmp_path / "run" / "metrics.jsonl"):
            assert found["mean_length"][record["step"]] == pytest.approx(record["mean_length"], rel=1e-6)
        assert set(found["mean_length"]) == {1, 2, 3}
