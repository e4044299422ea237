"""Every method trains, on one rank and on two alike, and goes on after a kill with what it remembered."""

import contextlib
import json
import math
import multiprocessing
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

import config
import train
from minidrpo import setup
from minidrpo.engine.distributed import DistContext
from minidrpo.methods.table import METHODS
from minidrpo.records import GradedResponse
from minidrpo.rundir import checkpoint, jsonl, log
from minidrpo.rundir.metrics import summarise
from minidrpo.tasks import arithmetic


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """As many problems as a step asks: each is seen in every step, so records and targets are used in the second."""
    path = tmp_path_factory.mktemp("data") / "four.jsonl"
    rows = [(text, answer) for text, answer, level in arithmetic.problems(40, split="train", seed=0) if level == 1][:4]
    path.write_text("".join(json.dumps({"problem": text, "answer": answer}) + "\n" for text, answer in rows))
    return str(path)


def short(name, problems, folder, **changes):
    shape = dict(prompts_per_step=4, group_size=4, max_response_tokens=48, mini_batches=1, steps=2, seed=3)
    rest = dict(max_problems=1, eval_every=99, eval_start=False, save_every=1, keep_checkpoints=9, lr=1e-3)
    knobs = dict(alp_beta=1e-4, alpha=0.5, length_limit=50, l1_target=50, laser_every=1)
    files = dict(train_data=problems, eval_data=problems, run_dir=str(folder))
    own = {name_: value for name_, value in knobs.items() if name_ in METHODS[name].flags}
    return config.make("tiny", name, **(shape | rest | own | files | changes))


@contextlib.contextmanager
def training_alone():
    """Evaluations, figures and the page cost more than such a run's steps; test_train.py looks at them."""
    nothing = summarise([GradedResponse("none", 0, 0, "", 1, True, True, "correct", "1")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "evaluate", lambda *args, **kwargs: nothing)
        yield


def in_other_processes(function, n, *args):
    """n forked processes, one rank each; their exit codes."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=function, args=(rank, *args), daemon=True) for rank in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def train_all(rank, size, store, configs):
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    with training_alone():
        for cfg in configs:
            train.train(cfg, DistContext(rank, size))
    if size > 1:
        torch.distributed.destroy_process_group()


def tensors(folder, step, name):
    return load_file(folder / "checkpoints" / f"step_{step}" / f"{name}.safetensors")


KINDS = ("drpo", "hapo", "gdpo")  # a surrogate, a memory, an advantage of their own
OTHERS = tuple(name for name in METHODS if name not in KINDS)


@pytest.mark.parametrize("names", [KINDS, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["kinds", "others"])
def test_every_method_trains_and_two_ranks_equal_one(names, problems, tmp_path):
    for size in (1, 2):
        configs = [short(name, problems, tmp_path / f"{size}" / name) for name in names]
        assert in_other_processes(train_all, size, size, tmp_path / "store", configs) == [0] * size
    start = tensors_of_base()
    for name in names:
        one, two = (tmp_path / f"{size}" / name for size in (1, 2))
        first, same = (jsonl.read(folder / "metrics.jsonl")[0] for folder in (one, two))
        for key in ("accuracy", "mean_length", "response_tokens", "mixed_groups", "reasons"):
            assert same[key] == first[key], (name, key)
        for key in ("objective", "grad_norm"):
            assert same[key] == pytest.approx(first[key], rel=1e-4, abs=1e-7), (name, key)
        after = [tensors(folder, 1, "model") for folder in (one, two)]
        moved, apart = (math.sqrt(sum((a[k] - b[k]).square().sum() for k in a)) for a, b in (
            (after[0], start), (after[0], after[1])))  # fmt: skip
        assert first["mixed_groups"] > 0, "this seed should teach something in the first step"
        assert first["grad_norm"] > 0 and moved > 0 and apart < 0.01 * moved, (name, apart, moved)
        memory = [tensors(folder, 1, "trainer/method") for folder in (one, two)]
        assert memory[0].keys() == memory[1].keys() and all(memory[0][k].equal(memory[1][k]) for k in memory[0]), name


def tensors_of_base():
    return load_file(f"{config.TINY_MODEL}/model.safetensors")


def train_until_killed(rank, cfg):
    """kill -9 in the second step, after its update and before its checkpoint."""

    def kill(self, step, numbers):
        if step == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    with training_alone(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(log.RunLog, "step", kill)
        train.train(cfg, DistContext())


@pytest.mark.parametrize(
    "name, key", [("hapo", "shortest_D"), pytest.param("laser-d", "target_3", marks=pytest.mark.slow)]
)
def test_what_a_method_remembers_survives_kill_and_resume(name, key, problems, tmp_path):
    whole, killed = (short(name, problems, tmp_path / part, steps=3) for part in ("whole", "killed"))
    assert in_other_processes(train_until_killed, 1, killed) == [-signal.SIGKILL]
    assert checkpoint.list_steps(killed.directory) == [1]
    with training_alone():
        train.train(whole, DistContext())
        train.train(killed, DistContext())
    ends = [cfg.directory / "checkpoints" / "step_3" for cfg in (whole, killed)]
    files = sorted(path.relative_to(ends[0]) for path in ends[0].rglob("*.safetensors"))
    assert len(files) >= 3  # the model, what the method remembers, the moments
    for file in files:  # tensors, bit for bit; DCP's headers may list them in another order
        one, two = (load_file(end / file) for end in ends)
        assert one.keys() == two.keys() and all(one[name].equal(two[name]) for name in one), file
    remembered = tensors(whole.directory, 3, "trainer/method")[key]
    assert remembered.isfinite().any() and not remembered.equal(METHODS[name].new_state(whole, 4)[key])
