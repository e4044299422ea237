"""A run that goes on: with the same data, date, model and ranks, or with one line that says what has changed."""

import json
import shutil
from datetime import datetime

import pytest

import config
import train
from minidrpo import setup
from minidrpo.engine.distributed import DistContext
from minidrpo.rundir import checkpoint
from minidrpo.tasks import data

SHORT = ["--prompts-per-step=2", "--group-size=2", "--max-response-tokens=8", "--samples=1", "--no-eval-start",
         "--eval-every=9", "--save-every=1"]  # fmt: skip
ROWS = [{"problem": f"{a}+{a + 1}=?", "answer": 2 * a + 1} for a in range(10, 16)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def refused(capsys, *flags):
    with pytest.raises(SystemExit) as stop:
        train.main([*SHORT, *flags])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert stop.value.code == 2 and len(errors) == 1, errors
    return errors[0]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The flags of a run on files, two steps old; its template tells the date."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(config.TINY_MODEL, folder / "model", ignore=shutil.ignore_patterns("thinking", "*.py", "__*"))
    template = folder / "model" / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %b %Y') }}" + template.read_text())
    write(folder / "train.jsonl", ROWS)
    write(folder / "test.jsonl", ROWS[:4])
    flags = [f"--model={folder}/model", f"--train-data={folder}/train.jsonl", f"--eval-data={folder}/test.jsonl"]
    train.main([*SHORT, *flags, f"--run-dir={folder}/run", "--steps=2"])
    return folder, flags


@pytest.fixture
def run(begun, tmp_path):
    """A copy of it, and its command for one step more."""
    shutil.copytree(begun[0] / "run", tmp_path / "run")
    return tmp_path, [*begun[1], f"--run-dir={tmp_path}/run", "--steps=3"]


CHANGES = {
    "reordered": lambda rows: rows[::-1],
    "shortened": lambda rows: rows[:-1],
    "extended": lambda rows: [*rows, rows[0]],
    "another truth": lambda rows: [rows[0] | {"answer": 7}, *rows[1:]],
    "another question": lambda rows: [rows[0] | {"problem": "1+1=?"}, *rows[1:]],
    "a truth of another kind": lambda rows: [rows[0] | {"answer": str(rows[0]["answer"])}, *rows[1:]],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["train", "test"])
def test_data_that_has_changed_is_noticed(begun, run, name, change, capsys):
    path = begun[0] / f"{name}.jsonl"
    before = path.read_text()
    write(path, CHANGES[change]([json.loads(line) for line in before.splitlines()]))
    try:
        assert f"{name}.jsonl has changed since" in refused(capsys, *run[1])
    finally:
        path.write_text(before)


def test_a_run_goes_on_the_next_day_with_the_first_days_prompts(run):
    path = run[0] / "run" / "config.json"
    settings = json.loads(path.read_text())
    today = f"{datetime.now():%d %b %Y}"
    settings["about"] |= {"first_start": "2001-02-03 04:05:06", "started": "2001-02-04 00:00:00"}
    path.write_text(json.dumps(settings))
    argv = [*SHORT, *run[1]]
    cfg = config.parse(argv, "train.py", "")
    going = setup.start(cfg, DistContext())
    going.lock.release()
    for ids in (*going.prompts, *going.held_out[1]):
        text = going.tokenizer.decode(ids)
        assert "03 Feb 2001" in text and today not in text
    assert json.loads(path.read_text())["about"]["first_start"] == "2001-02-03 04:05:06"  # and so it stays


@pytest.mark.parametrize("write_as", ["{0}/", "{0}/.", "{0}/../model", "{0}"])
def test_a_path_written_otherwise_is_the_same_model(begun, run, write_as, monkeypatch):
    monkeypatch.setenv("HOME", str(begun[0]))
    flags = [f"--model={write_as.format(begun[0] / 'model')}", "--train-data=~/train.jsonl", *run[1][2:]]
    going = setup.start(config.parse([*SHORT, *flags], "train.py", ""), DistContext())
    going.lock.release()
    assert going.done == 2


DAMAGES = {
    "trainer/optimizer": lambda folder: next((folder / "trainer/optimizer").glob("*.safetensors")),
    "method": lambda folder: folder / "trainer/method.safetensors",
    "model": lambda folder: folder / "model.safetensors",
    "config": lambda folder: folder / "config.json",
    "tokenizer": lambda folder: folder / "tokenizer.json",
    "trainer.json": lambda folder: folder / "trainer.json",
}


@pytest.mark.parametrize("part", DAMAGES)
def test_a_damaged_checkpoint_is_one_line_that_names_the_older_one(run, part, capsys):
    newest = checkpoint.newest(run[0] / "run")
    path = DAMAGES[part](newest)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    words = refused(capsys, *run[1])
    assert f"To go on from step 1, move {newest} away" in words
    if part == "model":  # as it says
        shutil.rmtree(newest)
        train.main([*SHORT, *run[1]])
        assert checkpoint.list_steps(run[0] / "run")[-1] == 3


class Others(DistContext):
    """Rank 0 of two, the other of which has read something else."""

    def gather_parts(self, items):
        return [items, {name: number + (name == "eval_data") for name, number in items.items()}]


def test_ranks_that_read_different_problems_stop():
    problems = data.load_problems("arithmetic", n=4)
    assert setup.same_data(config.TINY, problems, problems[:2], DistContext())
    with pytest.raises(ValueError, match="rank 1 reads other problems in arithmetic than rank 0"):
        setup.same_data(config.TINY, problems, problems[:2], Others())
