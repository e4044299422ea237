"""The calculator against what is really allocated: a small Qwen2's tensors, counted as they come and go."""

import dataclasses
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from config import R1_1_5B, R1_7B, TINY
from minidrpo.engine import loading, memory
from minidrpo.engine import policy as policies
from minidrpo.engine.memory import GIB

SMALL = memory.Shapes(hidden=64, layers=3, intermediate=160, heads=2, kv_heads=2, vocab=500)


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages made inside, now and at most."""

    def __init__(self, known=()):
        super().__init__()
        self.seen = weakref.WeakSet(t.untyped_storage() for t in known)
        self.now = self.peak = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self.seen:
                storage = tensor.untyped_storage()
                self.seen.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, storage.nbytes())
        return out

    def _freed(self, n):
        self.now -= n


def make_model(s):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=s.vocab, hidden_size=s.hidden, intermediate_size=s.intermediate, num_hidden_layers=s.layers,
        num_attention_heads=s.heads, num_key_value_heads=s.kv_heads, tie_word_embeddings=s.tied,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).train()


def measure(s, checkpointing, head_chunk, N=2, L=256):
    """(bytes kept after the forward pass, peak of forward and backward) of Policy's work under autocast on the CPU,
    gradients there beforehand."""
    model = make_model(s)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    policy = policies.Policy(model, 0.6, head_chunk)
    live = LiveBytes([*model.parameters(), *(p.grad for p in model.parameters())])
    with live:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.base_model(input_ids=torch.zeros(N, L, dtype=torch.long), use_cache=False).last_hidden_state
            hidden = hidden[:, :-1].reshape(-1, s.hidden)
            logp = policy._token_logp(hidden, torch.zeros(len(hidden), dtype=torch.long))
        del hidden
        kept = live.now
        logp.sum().backward()
    return kept, live.peak


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("where", ["layer", "head"])
def test_activations_are_as_measured(checkpointing, where):
    s = SMALL if where == "layer" else dataclasses.replace(SMALL, vocab=12000, layers=1)
    head_chunk = s.vocab * 32
    plan = memory.Plan(1, False, 512, checkpointing, 256, 2, None, head_chunk)
    kept, peak = measure(s, checkpointing, head_chunk)
    rows = {t.name: t.bytes for t in memory.terms(s, plan, 80 * GIB)}
    weights_in_graph = 0 if checkpointing else 2 * s.layers * s.layer_matrices
    assert kept - weights_in_graph == pytest.approx(rows["activations kept"], rel=0.15)
    assert peak == pytest.approx(rows["activations kept"] + rows["working memory"], rel=0.12)


@pytest.mark.parametrize("tied", [False, True])
def test_weights_gradients_and_moments_are_exact(tied):
    s = dataclasses.replace(SMALL, kv_heads=1, tied=tied)
    model = make_model(s)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    moments = [v for state in optimizer.state.values() for k, v in state.items() if k != "step"]
    measured = {
        "weights": sum(p.nbytes for p in model.parameters()),
        "gradients": sum(p.grad.nbytes for p in model.parameters()),
        "AdamW's moments": sum(v.nbytes for v in moments),
    }
    for sharded, gpus in ((False, 1), (True, 8)):
        plan = memory.Plan(gpus, sharded, 512, True, 256, 2, None)
        rows = {t.name: t.bytes for t in memory.terms(s, plan, 80 * GIB)}
        assert {name: rows[name] * (gpus if sharded else 1) for name in measured} == measured


def test_published_sizes_and_config_files():
    sizes = [s.parameters for s in memory.KNOWN.values()]
    assert sizes == [1_777_088_000, 7_615_616_512]  # the safetensors' own counts on their model pages
    s = memory.read_shapes(TINY.model)
    assert (s.hidden, s.layers, s.vocab, s.tied) == (96, 3, 288, False)
    assert s.parameters == sum(p.numel() for p in loading.load_model(TINY.model).parameters())
    assert memory.read_shapes("someone/unknown") is None
    assert memory.HEAD_CHUNK_ELEMENTS == policies.HEAD_CHUNK_ELEMENTS


def test_what_fits_and_what_does_not():
    memory.check(R1_1_5B, 8, 80 * GIB)
    memory.check(TINY, 1, 8 * GIB, vllm=False)
    memory.check(dataclasses.replace(R1_7B, model="someone/unknown"), 1, GIB)  # nothing known, nothing refused
    with pytest.raises(ValueError, match=r"GiB a GPU .* each with a whole copy; --shard"):
        memory.check(dataclasses.replace(R1_7B, shard=False), 8, 80 * GIB)
    memory.check(R1_7B, 8, 80 * GIB)
    with pytest.raises(ValueError, match="larger GPUs"):
        memory.check(R1_7B, 1, 80 * GIB)
    with pytest.raises(ValueError, match="; --gradient-checkpointing fits"):
        memory.check(dataclasses.replace(R1_1_5B, gradient_checkpointing=False), 8, 80 * GIB)
    with pytest.raises(ValueError, match="no room for one answer"):
        memory.check(dataclasses.replace(R1_1_5B, gpu_memory_utilization=0.06), 8, 80 * GIB)


def test_dry_run_prints_the_table_and_refuses_in_one_line(capsys):
    import train

    train.main(["r1-1.5b", "--dry-run", "--gpus=8", "--gpu-memory=80"])
    out = capsys.readouterr().out
    assert "1.78 billion parameters, 8 x 80 GiB" in out and "AdamW's moments" in out and "68.4" in out
    with pytest.raises(SystemExit) as stop:
        train.main(["r1-1.5b", "--dry-run", "--gpus=8", "--gpu-memory=40"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "sample needs" in error and "--shard" in error


def test_dry_run_says_which_sampler_it_assumes(capsys, monkeypatch):
    """A plan for another machine takes vLLM; one for this machine's GPUs takes what training here would."""
    import train

    def dry_run(*flags):
        train.main(["r1-1.5b", "--dry-run", "--gpu-memory=80", *flags])
        out = capsys.readouterr().out
        return [line for line in out.splitlines() if "--sampler" in line], "vLLM asleep" in out

    (line,), vllm = dry_run("--gpus=8")
    assert vllm and "vLLM is assumed" in line and "--sampler transformers" in line
    assert dry_run("--gpus=8", "--sampler=vllm") == ([], True)
    assert dry_run("--gpus=8", "--sampler=transformers") == ([], False)
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 8)
    for installed in (True, False):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, there=installed: there or None)
        (line,), vllm = dry_run()
        assert vllm == installed and line.endswith("on this machine")
        assert line.startswith(f"--sampler auto: {'vLLM' if installed else 'Transformers'}")
    assert dry_run("--gpus=8")[1]
