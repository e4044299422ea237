"""benchmarks/gpu.py at toy shapes: its sections run, a failure costs one row, its FLOPs are what PyTorch counts."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from conftest import ROOT
from experiments.benchmarks import gpu


def test_sections_run_at_toy_shapes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)  # as where vLLM is not installed
    out = tmp_path / "gpu.json"
    gpu.main(["--small", "--only", "train", "vllm", "--variants", "checkpointing", "plain", f"--out={out}"])
    rows = json.loads(out.read_text())["rows"]
    assert [r["case"] for r in rows] == ["update small checkpointing", "update small plain", "vllm"]
    assert all(r["tokens_per_second"] > 0 and r["tflops"] > 0 for r in rows[:2])
    assert "not installed" in rows[2]["error"]
    printed = capsys.readouterr().out
    assert "| update small plain |" in printed and torch.__version__ in printed


@pytest.mark.slow
def test_the_tiny_job(tmp_path):
    out = tmp_path / "gpu.json"
    gpu.main(["--small", "--only", "tiny", f"--out={out}"])
    (r,) = json.loads(out.read_text())["rows"]
    assert "accuracy" in r["note"], r


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a C++ compiler at work
def test_compiled_layers(tmp_path):
    out = tmp_path / "gpu.json"
    gpu.main(["--small", "--only", "train", "--variants", "checkpointing,compile", f"--out={out}"])
    (r,) = json.loads(out.read_text())["rows"]
    assert r.get("tokens_per_second"), r


@pytest.mark.vllm
def test_the_vllm_section(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "experiments.benchmarks.gpu", "--small", "--only", "vllm", f"--out={out}"]
    # A process of its own: vLLM leaves its process group behind
    subprocess.run(command, check=True, timeout=280, cwd=ROOT)
    rows = json.loads(out.read_text())["rows"]
    assert [r["case"] for r in rows][-1] == "freshness" and not any("error" in r for r in rows), rows


def test_flops_are_those_pytorch_counts():
    """Its counter sees attention's products when they are plain ones, and whole: a causal kernel does half."""
    from torch.utils.flop_counter import FlopCounterMode

    s, n, length = dataclasses.replace(gpu.SIZES["small"], kv_heads=2), 3, 16
    model = gpu.make_model(s, torch.device("cpu"))
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(n, length, dtype=torch.long), use_cache=False)
    attention = n * length * 2 * s.layers * s.query_width * length
    assert counter.get_total_flops() == gpu.forward_flops(s, n, length) + attention


def test_chips_by_name():
    names = {"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12}
    names |= {"NVIDIA A100-SXM4-80GB": 312e12, "Tesla T4": None}
    assert {name: gpu.peak_flops(name) for name in names} == names
