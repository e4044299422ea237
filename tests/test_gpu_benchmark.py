"""benchmarks/gpu.py at toy shapes: its parts run, a failure costs one row, its FLOPs are what PyTorch counts."""

import dataclasses
import json
import math
import statistics
import subprocess
import sys

import pytest
import torch

from conftest import ROOT
from experiments.benchmarks import gpu, gpu_parts


@pytest.mark.slow
def test_parts_run_at_toy_shapes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu_parts.importlib.util, "find_spec", lambda name: None)  # as where vLLM is not installed
    out = tmp_path / "gpu.json"
    gpu.main(["--small", "--only", "train", "vllm", "--variants", "checkpointing", "plain", f"--out={out}"])
    rows = json.loads(out.read_text())["rows"]
    assert [r["case"] for r in rows] == ["update small checkpointing", "update small plain", "vllm"]
    assert all(r["tokens_per_second"] > 0 and r["tflops"] > 0 for r in rows[:2])
    assert "not installed" in rows[2]["error"]
    printed = capsys.readouterr().out
    assert "| update small plain |" in printed and torch.__version__ in printed
    assert (tmp_path / "gpu.md").read_text() == printed  # what is pasted into BENCHMARKS.md


def test_only_its_own_file_is_written_anew(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    for name in ("config.json", "gpu.md"):
        with pytest.raises(SystemExit) as stop:
            gpu.parse(["--small", f"--out={tmp_path / name}"])
        assert stop.value.code == 2 and "want a new .json file" in capsys.readouterr().err


def test_responses_have_mixed_lengths_and_no_two_steps_alike():
    """With one length, cuDNN would plan once and look fast."""
    steps = [gpu_parts.mixed_lengths(24, 8192, seed) for seed in range(40)]
    assert len({size for step in steps for size in step if size < 8192}) > 800
    every = [size for step in steps for size in step]
    assert 2000 < statistics.mean(every) < 3500 and max(every) == 8192 and 0.02 < every.count(8192) / len(every) < 0.1
    assert min(min(gpu_parts.mixed_lengths(8, 32, seed)) for seed in range(99)) >= 4


@pytest.mark.slow
def test_with_and_without_cudnn(monkeypatch, tmp_path):
    """The part that compares them really switches: seen from inside the update."""
    seen, update = [], gpu_parts.train.update

    def watched(*arguments):
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return update(*arguments)

    monkeypatch.setattr(gpu_parts.train, "update", watched)
    gpu.main(["--small", "--only", "cudnn", f"--out={tmp_path / 'gpu.json'}"])
    assert seen == [True, True, False, False]  # each: one step to warm up, one timed
    checked = json.loads((tmp_path / "gpu.json").read_text())["checks"]
    assert "not measured" in checked[0] and " s against " in checked[1] and "not measured" in checked[2]


GOOD = [
    {"case": "vLLM sleep", "left": 2.5},
    {"case": "freshness", "gap": 0.01},
    {"case": "vLLM sleep", "left": 2.9},
    {"case": "freshness", "gap": 0.02},
    {"case": "end of vllm", "exit": 0},
    {"case": "r1-1.5b, 2 steps on 1 ranks", "gaps": [0.01, 0.02], "exit": 0, "seconds": 200.0},
    {"case": "end of job", "exit": 0},
    {"case": "update 1.5B cudnn", "seconds": 9.0},
    {"case": "update 1.5B checkpointing", "seconds": 3.0},
]


@pytest.mark.parametrize(
    "place, change, which",
    [
        (3, {"gap": 0.06}, 0),  # not the trainer's distribution
        (2, {"left": 3.1}, 0),  # asleep it holds more than assumed
        (4, {"exit": -6}, 0),  # an abort at the end
        (4, {"exit": None}, 0),  # it hung
        (3, {"case": "vllm"}, 0),  # stopped after one cycle
        (5, {"gaps": [0.01, 0.4]}, 2),
        (5, {"gaps": [0.01]}, 2),
        (5, {"exit": 1}, 2),
        (8, {"seconds": 9.9}, 1),
        (7, {"error": "no kernel"}, 1),
    ],
)
def test_the_three_checks_can_fail(place, change, which):
    assert [line.split(":")[0] for line in gpu.checks(GOOD)] == ["passed"] * 3
    rows = [r | change if i == place else r for i, r in enumerate(GOOD)]
    said = [line.split(":")[0] for line in gpu.checks(rows)]
    assert said.pop(which) == "FAILED" and said == ["passed"] * 2


def test_what_was_not_run_is_not_measured():
    assert all(line.startswith("not measured: ") for line in gpu.checks([]))
    crashed = [{"case": "end of vllm", "exit": 1}, {"case": "end of job", "exit": 1}]
    assert [line.split(":")[0] for line in gpu.checks(crashed)] == ["FAILED", "not measured", "FAILED"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_first_hour(tmp_path):
    """Every part in its own process, on the CPU at toy shapes; vLLM is not there, and that costs its rows alone."""
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "experiments.benchmarks.gpu", "--first-hour", "--small", "--out", out]
    flags = ["--variants", "checkpointing"]
    done = subprocess.run(command + flags, capture_output=True, text=True, cwd=ROOT, timeout=1100)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(out.read_text())
    cases = {r["case"]: r for r in result["rows"]}
    ends = [case for case in cases if case.startswith("end of ")]
    assert ends == [f"end of {part}" for part in ("vllm", "job", "cudnn", "train", "tiny")]
    assert all(cases[case]["exit"] == 0 for case in ends)
    job = cases["tiny, 2 steps on 2 ranks"]
    assert job["exit"] == 0 and len(job["gaps"]) == 2 and max(job["gaps"]) < 1e-4 and "device: CPU" in job["note"]
    assert "accuracy" in cases["tiny, 2 steps"]["note"]
    assert result["checks"][2].startswith("passed: ") and " s against " in result["checks"][1]
    assert done.stdout == (tmp_path / "gpu.md").read_text() and done.stdout.count("\n| ") == len(result["rows"]) + 2


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a C++ compiler at work
def test_compiled_layers(tmp_path):
    out = tmp_path / "gpu.json"
    gpu.main(["--small", "--only", "train", "--variants", "checkpointing,compile", f"--out={out}"])
    (r,) = json.loads(out.read_text())["rows"]
    assert r.get("tokens_per_second"), r


@pytest.mark.vllm
def test_the_vllm_part(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "experiments.benchmarks.gpu", "--small", "--only", "vllm", f"--out={out}"]
    # A process of its own: vLLM leaves its process group behind
    subprocess.run(command, check=True, timeout=280, cwd=ROOT)
    rows = json.loads(out.read_text())["rows"]
    assert [r["case"] for r in rows][-1] == "freshness" and not any("error" in r for r in rows), rows
    assert all(math.isnan(r["left"]) for r in rows if r["case"] == "vLLM sleep")


def test_flops_are_those_pytorch_counts():
    """Its counter sees attention's products when they are plain ones, and whole: a causal kernel does half."""
    from torch.utils.flop_counter import FlopCounterMode

    s, lengths = dataclasses.replace(gpu_parts.SIZES["small"], kv_heads=2), [16, 16, 9]
    model = gpu_parts.make_model(s, torch.device("cpu"))
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for length in lengths:
            model(torch.zeros(1, length, dtype=torch.long), use_cache=False)
    attention = sum(length * 2 * s.layers * s.query_width * length for length in lengths)
    assert counter.get_total_flops() == gpu_parts.forward_flops(s, lengths) + attention


def test_chips_by_name():
    names = {"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12}
    names |= {"NVIDIA A100-SXM4-80GB": 312e12, "Tesla T4": None}
    assert {name: gpu_parts.peak_flops(name) for name in names} == names
