"""rundir/outlook.py: what a run says before it starts, and how long it says that it will take."""

import pytest

import config
from minidrpo.rundir import outlook


class Sampler: ...


def plan(small_model, method="drpo", done=0, **changes):
    cfg = config.make("tiny", method, run_dir="runs/x", **changes)
    return outlook.plan(cfg, small_model, range(8000), range(512), Sampler(), done)


def test_it_says_model_method_data_step_and_run(small_model):
    said = plan(small_model, lam=0.2)
    n = sum(p.numel() for p in small_model.parameters())
    for words in (f"{n:,} parameters", "drpo lam=0.2; DRPO (arXiv 2510.04474)", "8,000 problems of arithmetic"):
        assert words in said
    for words in (
        "512 of arithmetic, 4 responses each",
        "32 prompts x 8 responses of at most 256 tokens",
        "steps 1 to 30",
    ):
        assert words in said
    assert "1 optimizer step at learning rate 0.0002" in said and "everything in runs/x" in said
    assert "steps 11 to 30" in plan(small_model, done=10)


def test_kl_zero_is_explained_where_it_is_zero_and_only_there(small_model):
    assert "kl stays 0" in plan(small_model) and "--beta, --delta and --kl-estimator do nothing" in plan(small_model)
    grpo = plan(small_model, "grpo")
    assert "kl stays 0" in grpo and "--beta" not in grpo
    assert "kl" not in plan(small_model, mini_batches=2)


def test_frozen_weights_are_named(small_model):
    for parameter in small_model.get_input_embeddings().parameters():
        parameter.requires_grad_(False)
    n = sum(p.numel() for p in small_model.parameters() if p.requires_grad)
    assert f"{n:,} of them trained" in plan(small_model)


@pytest.mark.parametrize(
    "step, seconds, evaluations, words",
    [
        (1, 3.0, [{"seconds": 11.0}], "step 1 took 3.0 s: 29 more and 3 evaluations take about 2 min"),  # 87 + 33 s
        (29, 3.0, [{"seconds": 11.0}], "step 29 took 3.0 s: 1 more and 1 evaluation take about 14 s"),
        (1, 240.0, [], "29 more and 3 evaluations take about 1.9 h, evaluations not counted"),
    ],
)
def test_the_time_left(step, seconds, evaluations, words):
    numbers = {"seconds_sample": 2 * seconds / 3, "seconds_update": seconds / 3}
    assert words in outlook.time_left(config.make("tiny"), step, numbers, evaluations)
