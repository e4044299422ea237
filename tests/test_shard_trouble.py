"""What goes wrong on one rank is said by all: no rank waits for one that has left, and the last checkpoint is whole."""

import contextlib
import os
import resource
import subprocess
import time
from unittest import mock

import pytest
import torch
from test_checkpoint import NoTokenizer
from test_shard import SAVED, in_ranks, set_up, steps

from conftest import make_small_model
from minidrpo.rundir import checkpoint

pytestmark = pytest.mark.slow


class Refuses(NoTokenizer):
    def save_pretrained(self, path):
        raise RuntimeError("no room for a tokenizer")  # safetensors and others raise what is no OSError


def too_large(*_, **__):
    """What this rank writes from here on may not be longer than 4 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    return mock.DEFAULT


PLACES = {  # where rank 0 fails, and what all then say
    "mkdir": (mock.patch("pathlib.Path.mkdir", side_effect=PermissionError(13, "Permission denied")), "Permission"),
    "moments": (mock.patch("shutil.rmtree", side_effect=too_large, wraps=checkpoint.shutil.rmtree), "File too large"),
    "weights": (
        mock.patch("minidrpo.engine.shard.whole_state", side_effect=too_large, wraps=checkpoint.shard.whole_state),
        "too large",
    ),
    "tokenizer": (mock.patch.object(NoTokenizer, "save_pretrained", Refuses.save_pretrained), "no room for a tok"),
    "method": (
        mock.patch("minidrpo.rundir.checkpoint.save_file", side_effect=OSError(28, "No space left on device")),
        "No space left",
    ),
    "rename": (mock.patch("os.rename", side_effect=OSError(30, "Read-only file system")), "Read-only"),
}


def refused(folder, sharded, ctx):
    """[(what save raised, seconds)] as rank 0 fails in each place; then a checkpoint that nothing disturbs."""
    model = make_small_model().double()
    policy, optimizer, cfg = set_up(model, sharded, ctx)
    steps(policy, optimizer, cfg, ctx, 1, SAVED)
    checkpoint.save(folder, SAVED, model, NoTokenizer(), optimizer, ctx=ctx)
    said = {}
    for place, (failure, _) in PLACES.items():
        if place == "weights" and not sharded:
            continue
        limits, begin = resource.getrlimit(resource.RLIMIT_FSIZE), time.perf_counter()
        try:
            with failure if ctx.rank == 0 else contextlib.nullcontext():
                checkpoint.save(folder, 9, model, NoTokenizer(), optimizer, ctx=ctx)
        except OSError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            left = sorted(path.name for path in (folder / "checkpoints").iterdir())
            said[place] = str(error), time.perf_counter() - begin, left
            torch.distributed.barrier()  # both have looked before rank 0 goes on to write
    checkpoint.save(folder, 9, model, NoTokenizer(), optimizer, ctx=ctx)
    return said


def full(disk, sharded, ctx):
    """What save raises, and what is left, as the disk has room for ever more of a second checkpoint."""
    folder, said = disk / str(sharded), []
    model = make_small_model().double()
    policy, optimizer, cfg = set_up(model, sharded, ctx)
    steps(policy, optimizer, cfg, ctx, 1, SAVED)
    checkpoint.save(folder, SAVED, model, NoTokenizer(), optimizer, ctx=ctx)
    while len(said) < 99:  # 8 kB more each time
        if ctx.rank == 0:
            (disk / "filler").unlink(missing_ok=True)
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            (disk / "filler").write_bytes(bytes(max(0, free - (len(said) + 2) * 8192)))
        torch.distributed.barrier()
        try:
            checkpoint.save(folder, 9, model, NoTokenizer(), optimizer, ctx=ctx)
            (disk / "filler").unlink(missing_ok=True)
            return said
        except OSError as error:
            said.append((str(error), sorted(path.name for path in (folder / "checkpoints").iterdir())))
            torch.distributed.barrier()


def diverged(_, sharded, ctx):
    """One weight of rank 1's is NaN: what the next update raises, and whether the other weights are still numbers."""
    model = make_small_model().double()
    policy, optimizer, cfg = set_up(model, sharded, ctx)
    weight = model.model.layers[1].mlp.up_proj.weight.data
    if ctx.rank == 1:
        getattr(weight, "_local_tensor", weight)[-1, -1] = torch.nan
    try:
        steps(policy, optimizer, cfg, ctx, 1, 1)
    except FloatingPointError as error:
        others = [p for p in model.parameters() if p.data_ptr() != weight.data_ptr()]
        return str(error), all(getattr(p, "_local_tensor", p).isfinite().all().item() for p in others)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trouble")
    results = in_ranks(2, folder, (refused, folder / "split", True), (refused, folder / "copied", False))
    return dict(zip((True, False), results, strict=True)), folder


@pytest.mark.parametrize("sharded", [True, False])
def test_rank_0_cannot_write(said, sharded):
    results, folder = said
    for place, (words, seconds, left) in results[sharded][0].items():
        assert results[sharded][1][place][0] == words, "ranks say different things"
        assert PLACES[place][1] in words and "could not write" in words and "step_9" in words and len(words) < 400
        assert max(seconds, results[sharded][1][place][1]) < 30, "a rank waited"
        assert left == [f"step_{SAVED}"] == results[sharded][1][place][2]
    assert results[sharded][0].keys() == PLACES.keys() - ({"weights"} if not sharded else set())
    assert checkpoint.list_steps(folder / ("split" if sharded else "copied")) == [SAVED, 9]


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("a disk of its own needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up(small_disk, tmp_path):
    """Whichever file no longer fits: both ranks say so alike, and the next try with more room is none the worse."""
    for ranks in in_ranks(2, tmp_path, (full, small_disk, True), (full, small_disk, False)):
        assert ranks[0] == ranks[1] and 5 < len(ranks[0]) < 99
        for words, left in ranks[0]:
            assert "step_9: " in words and "No space left on device" in words and left == [f"step_{SAVED}"], words


def test_a_loss_that_is_nan(tmp_path):
    for ranks in in_ranks(2, tmp_path, (diverged, None, True), (diverged, None, False)):
        assert ranks[0] == ranks[1] == ("the gradient is not finite (nan); the last checkpoint is intact", True)
