"""train.py as its users meet it: a run, a kill, two ranks, and every mistake in one line."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import config
import rollout
import train
from conftest import ROOT, make_small_model
from minidrpo.rundir import checkpoint, jsonl

SHORT = [
    "--steps=4", "--prompts-per-step=4", "--group-size=4", "--mini-batches=2", "--max-response-tokens=48",
    "--max-problems=8", "--samples=2", "--eval-every=2", "--save-every=1", "--show-every=2", "--lr=1e-3",
]  # fmt: skip
SCRIPT = str(ROOT / "train.py")


def run(folder, *flags, check=True, torchrun=0):
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={torchrun}"] if torchrun else []
    command = [sys.executable, *launcher, SCRIPT, *SHORT, f"--run-dir={folder}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


def in_process(folder, *flags):
    train.main([*SHORT, f"--run-dir={folder}", *flags])


def weights(folder):
    return (checkpoint.newest(folder) / "model.safetensors").read_bytes()


def numbers(folder, name="metrics.jsonl"):
    return [{k: v for k, v in record.items() if not k.startswith("seconds")} for record in jsonl.read(folder / name)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    in_process(folder)
    return folder


def test_a_run_leaves_what_it_promises(finished):
    records = jsonl.read(finished / "metrics.jsonl")
    assert [r["step"] for r in records] == [1, 2, 3, 4]
    promised = {
        "step", "accuracy", "mean_length", "truncated", "mixed_groups", "kl", "objective", "grad_norm",
        "seconds_sample", "seconds_grade", "seconds_weigh", "seconds_update", "response_tokens",
    }  # fmt: skip
    assert all(promised <= set(r) for r in records)
    assert all(r["sampler_gap"] < 1e-4 for r in records), "sampler and trainer must agree on log-probabilities"
    assert all(sum(r["reasons"].values()) == 16 for r in records)
    evaluations = jsonl.read(finished / "evals.jsonl")
    assert [e["step"] for e in evaluations] == [0, 2, 4]
    saved = json.loads((finished / "config.json").read_text())
    assert saved["steps"] == 4 and saved["about"]["torch"] == torch.__version__
    assert checkpoint.list_steps(finished) == [3, 4]
    for name in ("curves.png", "before_after.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    page = (finished / "report.html").read_text()
    assert "<html" in page and "boxed" in page
    for name in ("problems", "responses_before", "responses_after"):  # read so by notebooks/05_watch_it_train.ipynb
        assert jsonl.read(finished / f"{name}.jsonl", "index")
    samples = jsonl.read(finished / "samples.jsonl")
    assert len(samples) == 4 * 2 * 4 and all(s["weight"] == 0 for s in samples if not s["correct"])
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(checkpoint.newest(finished))
    AutoModelForCausalLM.from_pretrained(checkpoint.newest(finished))


def test_training_changes_the_weights_as_adamw_would(finished):
    before = (ROOT / "minidrpo" / "tiny" / "model.safetensors").read_bytes()
    assert weights(finished) != before


@pytest.mark.slow  # tests/test_methods_train.py has a kill at a fixed moment for every day
def test_killed_at_a_random_moment_and_resumed(finished, tmp_path):
    """kill -9 somewhere, start again: the same weights bit for bit, the same log lines."""
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *SHORT, f"--run-dir={tmp_path}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT,
    )  # fmt: skip
    deadline = time.time() + 120
    while not (tmp_path / "metrics.jsonl").exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    time.sleep(random.random() * 2)  # any moment will do: the assertion below must hold for all of them
    process.send_signal(signal.SIGKILL)
    process.wait()
    in_process(tmp_path)
    assert weights(tmp_path) == weights(finished)
    for name in ("metrics.jsonl", "evals.jsonl", "samples.jsonl"):
        assert numbers(tmp_path, name) == numbers(finished, name)


@pytest.mark.slow
def test_a_finished_run_can_be_extended(finished, tmp_path):
    """Three steps, then four: as if it had been four from the start."""
    in_process(tmp_path, "--steps=3")
    in_process(tmp_path)
    assert weights(tmp_path) == weights(finished)
    assert numbers(tmp_path) == numbers(finished)


def test_finished_runs_show_their_table_again(finished, capsys):
    before = weights(finished)
    in_process(finished)
    out = capsys.readouterr().out
    assert "before and after" in out and weights(finished) == before


@pytest.mark.slow  # two ranks without torchrun: tests/test_methods_train.py
def test_two_ranks_by_torchrun(finished, tmp_path):
    """The same prompts and seeds on two gloo ranks: the first step, before weights drift by rounding, is the same."""
    done = run(tmp_path, "--steps=2", torchrun=2)
    assert "mean length" in done.stdout
    two, one = numbers(tmp_path), numbers(finished)
    assert [r["step"] for r in two] == [1, 2]
    for key in ("accuracy", "mean_length", "response_tokens", "truncated", "mixed_groups", "reasons"):
        assert two[0][key] == one[0][key], key
    for key in ("objective", "grad_norm"):
        assert two[0][key] == pytest.approx(one[0][key], rel=1e-4), key
    ours, theirs = numbers(tmp_path, "evals.jsonl")[0], numbers(finished, "evals.jsonl")[0]
    assert ours["accuracy"] == theirs["accuracy"] and ours["mean_length"] == theirs["mean_length"]


# ---------------------------------------------------------------------------------------------- one line, exit code 2


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


MISTAKES = {
    "lambda": (["--lam=0"], "--lam must be at least 1e-06, got 0.0"),
    "lambda nan": (["--lam=nan"], "--lam must be at least 1e-06, got nan"),
    "group of one": (["--group-size=1"], "--group-size must be 2 or more"),
    "seed": (["--seed=-1"], "--seed must be 0 or more, got -1"),
    "context": (["--max-response-tokens=2000"], "exceed the context of"),
    "unknown flag": (["--lmabda=1"], "unknown flag --lmabda"),
    "not a number": (["--lr=fast"], "--lr"),
    "indivisible": (["--prompts-per-step=5", "--mini-batches=2"], "multiple of --mini-batches 2"),
    "preset": (["r1-2b"], "unknown preset 'r1-2b'"),
    "model": (["--model=./no/such/model"], "model directory ./no/such/model does not exist"),
    "data": (["--train-data=./none.jsonl"], "./none.jsonl: no such file"),
    "sampler": (["--sampler=vllm"], "vllm"),
    "gpus": (["--gpus=8"], "--gpus is for --dry-run"),
    "run dir": ([f"--run-dir={ROOT / 'LICENSE'}"], "is a file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_line(name, tmp_path, capsys, monkeypatch):
    flags, words = MISTAKES[name]
    monkeypatch.setitem(sys.modules, "vllm", None)  # as on a machine without it
    with pytest.raises(SystemExit) as stop:
        train.main([*(f for f in flags if not f.startswith("-")), *SHORT, f"--run-dir={tmp_path}/run",
                    *(f for f in flags if f.startswith("-"))])  # fmt: skip
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("error")]
    assert stop.value.code == 2 and len(lines) == 1 and words in lines[0] and "Traceback" not in err
    assert not (tmp_path / "run").exists(), "a mistake must not leave a run directory behind"


def test_bad_rows_and_an_untemplated_tokenizer(tmp_path, capsys):
    from transformers import AutoTokenizer

    def error_of(*flags):
        with pytest.raises(SystemExit) as stop:
            in_process(tmp_path / "run", *flags)
        assert stop.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    rows = write_rows(tmp_path / "rows.jsonl", [{"problem": "1+1=?", "answer": "2"}, {"problem": "2+2=?"}])
    assert f"{rows}: row 1 has no column 'answer'" in error_of(f"--train-data={rows}")
    empty = write_rows(tmp_path / "empty.jsonl", [])
    assert f"{empty}: holds no rows" in error_of(f"--train-data={empty}")
    few = write_rows(tmp_path / "few.jsonl", [{"problem": "1+1=?", "answer": "2"}])
    assert "1 problems are fewer than one step's 4" in error_of(f"--train-data={few}")

    tokenizer = AutoTokenizer.from_pretrained(config.TINY_MODEL)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "bare")
    make_small_model(vocabulary=len(tokenizer)).save_pretrained(tmp_path / "bare")
    assert "--no-template" in error_of(f"--model={tmp_path / 'bare'}")


def test_another_config_in_the_same_directory_is_refused(finished, capsys):
    with pytest.raises(SystemExit) as stop:
        in_process(finished, "--lam=0.3")
    assert stop.value.code == 2 and "lam was 0.1, is 0.3" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        in_process(finished, "--no-resume")
    assert "already holds a run" in capsys.readouterr().err
    in_process(finished, "--micro-batch-tokens=100")  # memory is not part of what was asked for


def test_a_run_of_an_older_version_gets_one_line(tmp_path, capsys):
    """Before the package there were other names of settings, and the embedded model lay in tiny/ at the top."""
    (tmp_path / "run").mkdir()
    old = {"model": "/somewhere/tiny", "method": "drpo", "lam": 0.1, "eval_samples": 4, "eval_problems": 512}
    (tmp_path / "run" / "config.json").write_text(json.dumps(old))
    with pytest.raises(SystemExit) as stop:
        in_process(tmp_path / "run")
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and "holds a run of an older version of this code: choose another --run-dir" in error


def test_a_run_whose_files_somebody_changed(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    for file, text, said in (
        ("evals.jsonl", '{"step": "1"}\n', "evals.jsonl, line 1: step is '1', not a whole number"),
        ("checkpoints/step_4/trainer.json", "[]", "trainer.json cannot be read"),
    ):
        whole = (tmp_path / "run" / file).read_text()
        (tmp_path / "run" / file).write_text(text)
        with pytest.raises(SystemExit) as stop:
            in_process(tmp_path / "run", "--steps=5")
        assert stop.value.code == 2 and said in capsys.readouterr().err.strip().splitlines()[-1]
        (tmp_path / "run" / file).write_text(whole)


def test_diverged_weights_and_a_full_disk_end_in_one_line(tmp_path, capsys, monkeypatch):
    def error_of(*flags):
        with pytest.raises(SystemExit) as stop:
            in_process(*flags)
        assert stop.value.code == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "(nan)" in error_of(tmp_path / "nan", "--lr=1e30", "--save-every=4", "--steps=3", "--no-eval-start")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert "step_1: [Errno 28] No space left" in error_of(tmp_path / "full", "--no-eval-start")
    assert checkpoint.newest(tmp_path / "full") is None


def test_an_engine_out_of_memory_ends_in_one_line(tmp_path, capsys, monkeypatch):
    """In the second step, as it would: the answers have grown. The first step's checkpoint is there to go on from."""
    real, calls = rollout.TransformersSampler.sample, []

    def sample(*args, **kwargs):
        calls.append(1)
        if len(calls) > 2:  # the evaluation before, the first step
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has ...")
        return real(*args, **kwargs)

    monkeypatch.setattr(rollout.TransformersSampler, "sample", sample)
    with pytest.raises(SystemExit) as stop:
        in_process(tmp_path)
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("error")]
    assert stop.value.code == 1 and len(lines) == 1 and "Traceback" not in err
    assert "out of memory: CUDA out of memory. Tried to allocate 9.00 GiB. To go on from its last" in lines[0]
    assert checkpoint.newest(tmp_path) is not None


def test_any_model_and_any_file(tmp_path):
    """A model directory of another shape and a parquet file in the official schema, mixed answer types."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(config.TINY_MODEL)
    tokenizer.save_pretrained(tmp_path / "model")
    make_small_model(vocabulary=len(tokenizer)).save_pretrained(tmp_path / "model")
    rows = [
        {"prompt": [{"role": "user", "content": f"{i}+1=?"}], "reward_model": {"ground_truth": str(i + 1)}}
        for i in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mine.parquet")
    data = tmp_path / "mine.parquet"
    in_process(tmp_path / "run", f"--model={tmp_path / 'model'}", f"--train-data={data}", f"--eval-data={data}",
               "--steps=1")  # fmt: skip
    assert len(numbers(tmp_path / "run")) == 1


def test_changed_data_and_a_run_without_a_first_evaluation(tmp_path, capsys):
    rows = [{"problem": f"{i}+1=?", "answer": i + 1} for i in range(9)]
    data = write_rows(tmp_path / "mine.jsonl", rows[:4])
    flags = [f"--train-data={data}", "--method=hapo", "--no-eval-start", "--eval-every=99"]
    in_process(tmp_path / "run", *flags, "--steps=1")
    in_process(tmp_path / "run", *flags, "--steps=1")
    assert capsys.readouterr().out.count("\nmodel: /") == 2, "a finished run says where its model is, again and again"
    write_rows(tmp_path / "mine.jsonl", rows)
    with pytest.raises(SystemExit) as stop:
        in_process(tmp_path / "run", *flags, "--steps=2")
    assert stop.value.code == 2 and "mine.jsonl has changed since" in capsys.readouterr().err


def test_help_names_the_dial(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--help"])
    out = capsys.readouterr().out
    assert not stop.value.code and "--lam" in out and "r1-1.5b" in out
