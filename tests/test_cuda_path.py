"""What CUDA will do, as far as a CPU can tell: bfloat16 in the trainer, the engine's options and the order of its sleep
and wake, the kernels that are switched off, what a node without CUDA says. reviews of the path became these tests.
"""

import dataclasses
import json
import subprocess
import sys

import fake_vllm
import pytest
import torch
from test_shard import in_ranks
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.cache_utils import Cache

import config
import drpo
import rollout
import train
from conftest import ROOT, make_small_model
from minidrpo import setup
from minidrpo.engine import arrival, hardware, loading, shard, vllm_engine
from minidrpo.engine import policy as policies
from minidrpo.engine.decoding import GrowingLayer
from minidrpo.engine.distributed import DistContext
from minidrpo.rundir import jsonl
from minidrpo.tasks import data

# --------------------------------------------------------------------------------------------- bfloat16 in the trainer

CFG = dataclasses.replace(config.TINY, prompts_per_step=4, group_size=4, micro_batch_tokens=1024, grad_clip=1e9)
SEEN = {}  # what the embedded model said, made once: ranks are forks


def responses(model):
    """Four prompts' responses, every second one called right."""
    tokenizer = loading.load_tokenizer(config.TINY_MODEL)
    problems, prompts, _ = data.encode_prompts(
        data.load_problems("arithmetic", n=4), tokenizer, max_tokens=64, template=True, suffix=CFG.suffixes
    )
    return rollout.TransformersSampler(model).sample(
        prompts, n=4, temperature=CFG.temperature, max_tokens=96, seeds=[1, 2, 3, 4]
    )


def gradient(folder, sharded, ctx, bf16=True):
    """(the whole gradient of one update, what was logged)."""
    model = loading.load_model(config.TINY_MODEL)
    cfg, ctx = dataclasses.replace(CFG, shard=sharded), dataclasses.replace(ctx, bf16=bf16)
    policy, optimizer = setup.make_policy(model, cfg, ctx)
    correct_PG = torch.tensor([[True, False, True, False]] * 4)
    length_PG = torch.tensor([len(r.response_ids) for r in SEEN["rollouts"]]).view(4, 4)
    weight_PG = drpo.positive_distribution(drpo.length_preference(length_PG, 96), correct_PG, cfg.lam)
    numbers = train.update(policy, optimizer, SEEN["rollouts"], correct_PG, weight_PG, cfg, ctx)
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())
    return torch.cat([shard.whole(p.grad).flatten() for p in model.parameters()]), numbers


def test_bfloat16_gradients_of_two_ranks_are_those_of_float32(tmp_path):
    """Replicated and sharded: 2 % at most along float32's gradient. What bfloat16's rounding adds beside it, at random,
    is 1 to 4 % of a gradient of so few responses (and 2 % of a whole step's, BENCHMARKS.md)."""
    SEEN["rollouts"] = responses(loading.load_model(config.TINY_MODEL))
    exact, _ = gradient(None, False, DistContext(), bf16=False)
    ways = [ranks[0] for ranks in in_ranks(2, tmp_path, (gradient, None, False), (gradient, None, True))]
    for ours, numbers in ways:
        assert abs((ours @ exact) / (exact @ exact) - 1) < 0.02
        assert 1e-3 < (ours - exact).norm() / exact.norm() < 0.05, "and it is bfloat16"
        assert 1e-5 < numbers["sampler_gap"] < 0.01
    (replicated, _), (split, _) = ways
    assert (replicated - split).norm() < 0.05 * exact.norm()


# ------------------------------------------------------------------------------------------------- kernels and the head


def test_cudnn_attention_is_off(small_model):
    """It would plan anew for each (batch, length), four times a micro-batch: the flag works on CPU builds, too."""
    for make in (lambda: policies.Policy(small_model, 1.0), lambda: rollout.TransformersSampler(small_model)):
        torch.backends.cuda.enable_cudnn_sdp(True)
        make()
        assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize("bias", [False, True])
def test_logits_on_cuda_are_not_rounded_to_bfloat16(bias):
    """Tensors without numbers, on a device that is not there: the operation exists for CUDA, and its dtype."""
    with FakeTensorMode(), torch.no_grad():
        h, w, b = (torch.empty(*shape, device="cuda", dtype=torch.bfloat16) for shape in ((6, 8), (40, 8), (40,)))
        logits = policies._logits(h, w, b.float() if bias else None, 0.6)
        assert (logits.dtype, logits.device.type, logits.shape) == (torch.float32, "cuda", (6, 40))


@pytest.mark.parametrize("whole", [False, True], ids=["autocast", "weights"])
def test_a_sampler_in_bfloat16_uses_the_trainer_s_head(small_model, whole):
    """On CUDA it is the product above; on the CPU it gives what the model's own head does, in float32."""
    model = small_model.bfloat16() if whole else small_model
    sampler = rollout.TransformersSampler(model, autocast=None if whole else torch.bfloat16)
    ids, cache = torch.tensor([[3, 4, 5], [6, 7, 8]]), Cache(layer_class_to_replicate=GrowingLayer)
    with torch.no_grad(), sampler._autocast():
        ours = sampler._forward(ids, None, torch.arange(3)[None].expand(2, 3), cache)
        theirs = model(ids).logits[:, -1]
    assert ours.dtype == torch.float32 and theirs.dtype == torch.bfloat16 and torch.equal(ours, theirs.float())


# ---------------------------------------------------------------------------------------------------------- the engine

ENGINE = dict(max_model_len=9216, seed=3, gpu_memory_utilization=0.4, rows=128, trust_remote_code=False)


def test_options_of_the_engine_on_cuda():
    asked = vllm_engine.options("model", cuda=True, **ENGINE)
    assert asked["max_num_seqs"] == 128 and asked["max_num_batched_tokens"] == 8192
    assert asked["hf_overrides"] == {"head_dtype": "float32"} and asked["dtype"] == torch.bfloat16
    assert asked["enable_sleep_mode"] and asked["gpu_memory_utilization"] == 0.4
    assert "max_num_seqs" not in vllm_engine.options("model", cuda=True, **ENGINE | {"rows": None})
    assert vllm_engine.options("model", cuda=True, **ENGINE | {"rows": 5000})["max_num_seqs"] == 1024
    assert not {"enable_sleep_mode", "hf_overrides"} & vllm_engine.options("model", cuda=False, **ENGINE).keys()


@pytest.mark.vllm
def test_vllm_knows_these_options(tmp_path):
    """Its own argument class takes them all, and makes of them what is meant."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.engine.arg_utils import EngineArgs

    model = make_small_model()
    model.config.max_position_embeddings = 16384
    model.save_pretrained(tmp_path)
    asked = vllm_engine.options(str(tmp_path), cuda=True, **ENGINE)
    args = EngineArgs(**asked)  # a dataclass: a name it lacks is a TypeError
    assert {name: getattr(args, name) for name in asked} == asked
    asked["enable_sleep_mode"] = False  # which the CPU build refuses
    made = EngineArgs(**asked).create_engine_config()
    assert (made.model_config.dtype, made.model_config.head_dtype) == (torch.bfloat16, torch.float32)
    assert made.model_config.logprobs_mode == "processed_logprobs"
    sizes = made.scheduler_config  # longer prompts than a step's tokens are read in parts
    assert (sizes.max_num_seqs, sizes.max_num_batched_tokens, sizes.enable_chunked_prefill) == (128, 8192, True)
    del asked["hf_overrides"]
    assert EngineArgs(**asked).create_model_config().head_dtype == torch.bfloat16  # what it would be without


RUN = dict(sampler="vllm", prompts_per_step=2, group_size=2, max_problems=2, samples=1, max_response_tokens=24)
RUN |= dict(eval_every=1, save_every=1, warmup_steps=0, lr=1e-4)


def test_sleep_wake_and_new_weights_come_in_order(tmp_path, monkeypatch):
    """Three steps of a whole run, the last after a resume, against an engine that raises on any wrong order."""
    built = fake_vllm.install(monkeypatch)
    ctx = DistContext(bf16=True)
    for steps in (2, 3):
        train.train(dataclasses.replace(config.TINY, **RUN, steps=steps, run_dir=str(tmp_path)), ctx)
    step = ["generate", "sleep", "wake", "reload", "generate"]  # the last: held-out problems
    assert built[0].calls == ["generate", *step, *step]
    assert built[1].calls == ["reload", *step]  # built from the base model again, so that vLLM's compiler cache fits
    assert [engine.arguments["model"] for engine in built] == [config.TINY_MODEL] * 2
    assert built[0].arguments["max_num_seqs"] == 4
    gaps = [r["sampler_gap"] for r in jsonl.read(tmp_path / "metrics.jsonl")]
    assert len(gaps) == 3 and all(0 < gap < 0.02 for gap in gaps), gaps


def test_an_engine_that_computes_something_else_stops_the_first_step(tmp_path, monkeypatch):
    """All its weights are the trainer's, and what it says is not: one line, and nothing saved."""
    fake_vllm.install(monkeypatch)
    monkeypatch.setattr(fake_vllm.LLM, "shift", -0.5)
    cfg = dataclasses.replace(config.TINY, **RUN, steps=1, eval_start=False, run_dir=str(tmp_path))
    with pytest.raises(FloatingPointError, match="OnCuda does not compute what the trainer computes"):
        train.train(cfg, DistContext(bf16=True))
    assert not list(tmp_path.glob("checkpoints/*"))


def test_wrong_orders_and_what_is_stale_raise(small_model, tmp_path, monkeypatch):
    fake_vllm.install(monkeypatch)
    small_model.save_pretrained(tmp_path)
    sampler = rollout.make_sampler("vllm", small_model, tmp_path, None, device="cpu", max_model_len=64)
    ask = dict(n=2, temperature=1.0, max_tokens=4, seeds=[1])
    sampler.sample([[3, 4]], **ask)
    sampler.sleep(), sampler.sleep(), sampler._wake()  # awake, but what it held is gone
    with pytest.raises(AssertionError, match="holds no weights"):
        sampler.sample([[3, 4]], **ask)
    sampler.update_weights(small_model)
    sampler.sample([[3, 4]], **ask)
    sampler.llm.frees_nothing = True
    with pytest.raises(RuntimeError, match="keys and values of the old weights"):
        sampler.update_weights(small_model)


def test_a_probe_in_bfloat16_has_a_limit_for_the_mean(small_model):
    """One token off by 0.2 is bfloat16's noise; all of them are not. In float32 nothing may be off."""
    rollouts = rollout.TransformersSampler(small_model).sample([[3, 4]], n=4, temperature=1.0, max_tokens=2, seeds=[0])
    noisy = [dataclasses.replace(r, logp=[x + 0.2 * (i == 0) for x in r.logp]) for i, r in enumerate(rollouts)]
    wrong = [dataclasses.replace(r, logp=[x + 0.2 for x in r.logp]) for r in rollouts]

    def caught(rollouts, dtype):
        try:
            arrival.compare(rollouts, small_model, small_model, dtype, "a weight")
        except RuntimeError as error:
            assert "differ by" in str(error) and "a weight" in str(error)
            return True

    assert not caught(noisy, torch.bfloat16) and caught(wrong, torch.bfloat16)
    assert caught(noisy, torch.float32) and not caught(rollouts, torch.float32)


# ------------------------------------------------------------------------------------------- nodes, first line and last


def test_a_node_without_usable_cuda_says_so(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")  # this PyTorch's build on a node with GPUs and an old driver
    said = hardware.describe(DistContext(size=8))
    assert said.startswith("CPU, ") and "no usable CUDA" in said and "580 or newer" in said and said.endswith("8 ranks")
    assert hardware.warning(config.TINY_MODEL, DistContext()) is None
    for preset, size in (("r1-1.5b", "1.78 billion"), ("r1-7b", "7.62 billion")):
        words = hardware.warning(config.make(preset).model, DistContext())
        assert size in words and "580 or newer" in words and "\n" not in words
    assert "not known here" in hardware.warning("someone/unknown", DistContext())
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in hardware.describe(DistContext())


def test_the_first_line_is_the_device(tmp_path, capsys):
    setup.start(dataclasses.replace(config.TINY, run_dir=str(tmp_path), max_problems=2), DistContext())
    said = capsys.readouterr().out.splitlines()[0]
    assert said == f"device: {hardware.describe(DistContext())}" and "CPU" in said
    about = json.loads((tmp_path / "config.json").read_text())["about"]
    assert about["device"] == hardware.describe(DistContext())


SCRIPT = """
import atexit, os, sys, time, types
from pathlib import Path
import torch
from minidrpo.engine.distributed import DistContext, init_distributed, shutdown

ctx = init_distributed()
if sys.argv[2] == "cuda":  # as where vLLM has run
    sys.modules["vllm"], ctx = types.ModuleType("vllm"), DistContext(ctx.rank, ctx.size, torch.device("cuda"))
class Aborts:  # as a thread of gloo may that lets go of a sharded tensor while the interpreter ends
    def __del__(self, abort=os.abort):
        abort()


with shutdown(ctx):
    if sys.argv[2] == "finalizing":
        aborts = Aborts()
    elif ctx.rank == 1 or sys.argv[2] == "cuda":
        atexit.register(os.abort)  # as an engine's teardown may
    if ctx.rank == 0:
        time.sleep(3)
        Path(sys.argv[1], "report").write_text("drawn")
"""


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "cuda", "finalizing"])
def test_a_rank_that_crashes_on_its_way_out_takes_no_report_along(tmp_path, device):
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, tmp_path / "script.py", tmp_path, device], capture_output=True, text=True, timeout=200, cwd=ROOT
    )
    assert (tmp_path / "report").exists(), done.stderr[-2000:]
    assert (done.returncode == 0) == (device != "cpu"), done.stderr[-2000:]
