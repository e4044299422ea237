"""The main job with vLLM as the sampler, on its CPU build: fresh weights each step, one distribution on both sides."""

import pytest
from test_train import numbers, run

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize(("ranks", "flags"), [(1, []), (2, []), (2, ["--shard"])], ids=["one", "two", "sharded"])
def test_training_with_vllm(tmp_path, ranks, flags):
    """Each step, VLLMSampler.sync checks that its engine holds the trainer's new weights; here we check that the next
    step's answers were drawn from them: stale ones would show as a gap, at a learning rate this large."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    for steps in (2, 3) if ranks == 1 else (3,):  # one goes on from its checkpoint, which vLLM then has to read
        vllm = f"--steps={steps}", "--sampler=vllm", "--lr=3e-3", *flags
        done = run(tmp_path, *vllm, torchrun=ranks if ranks > 1 else 0)
    records = numbers(tmp_path)
    assert [r["step"] for r in records] == [1, 2, 3] and "before and after" in done.stdout
    assert all(r["sampler_gap"] < 1e-4 for r in records), [r["sampler_gap"] for r in records]
    assert all(r["response_tokens"] > 16 and r["grad_norm"] > 0 for r in records)
