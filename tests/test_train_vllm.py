"""The main job with vLLM as the sampler, on its CPU build: fresh weights each step, one distribution on both sides."""

import subprocess
import sys

import pytest
from test_train import numbers, run

import checkpoint
from conftest import ROOT

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize(("ranks", "flags"), [(1, []), (2, []), (2, ["--shard"])], ids=["one", "two", "sharded"])
def test_training_with_vllm(tmp_path, ranks, flags):
    """Each step, VLLMSampler.sync checks that its engine holds the trainer's new weights; here we check that the next
    step's answers were drawn from them: stale ones would show as a gap, at a learning rate this large."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    done = run(tmp_path, "--sampler=vllm", "--steps=3", "--lr=3e-3", *flags, torchrun=ranks if ranks > 1 else 0)
    records = numbers(tmp_path)
    assert [r["step"] for r in records] == [1, 2, 3] and "before and after" in done.stdout
    assert all(r["sampler_gap"] < 1e-4 for r in records), [r["sampler_gap"] for r in records]
    assert all(r["response_tokens"] > 16 and r["grad_norm"] > 0 for r in records)


def test_checkpoints_are_for_vllm_too(tmp_path):
    """A run goes on from one, and eval.py reads one: what lies beside the weights is not taken for weights."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    for steps in (1, 2):
        run(tmp_path, "--sampler=vllm", f"--steps={steps}", "--no-eval-start")
    assert [r["step"] for r in numbers(tmp_path)] == [1, 2]
    command = [sys.executable, "eval.py", f"--model={checkpoint.newest(tmp_path)}", "--sampler=vllm", "--limit=4",
               "--samples=2", "--max-tokens=16", f"--output-dir={tmp_path / 'eval'}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
