"""The calculator against what is really allocated: a small Qwen2's tensors, counted as they come and go."""

import dataclasses
import json
import re
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from config import R1_1_5B, R1_7B, TINY
from conftest import ROOT
from minidrpo.engine import loading, memory
from minidrpo.engine import policy as policies
from minidrpo.engine.memory import GIB
from minidrpo.show import memory as shown

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
        vocab_size=s.vocab,
        hidden_size=s.hidden,
        intermediate_size=s.intermediate,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        num_key_value_heads=s.kv_heads,
        tie_word_embeddings=s.tied,
    )
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
    # the safetensors' own counts on their model pages
    assert sizes == [1_777_088_000, 7_615_616_512, 494_032_768, 1_543_714_304]
    s = memory.read_shapes(TINY.model)
    assert (s.hidden, s.layers, s.vocab, s.tied) == (96, 3, 288, False)
    assert s.parameters == sum(p.numel() for p in loading.load_model(TINY.model).parameters())
    assert memory.read_shapes("someone/unknown") is None
    assert memory.HEAD_CHUNK_ELEMENTS == policies.HEAD_CHUNK_ELEMENTS


DECODER = {
    "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "num_attention_heads": 4, "vocab_size": 50,
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 0},
        {"num_attention_heads": 128},  # heads of width 0
        {"num_key_value_heads": 0},
        {"head_dim": 0},
        {"hidden_size": "64"},
        {"hidden_size": 64.0},
        {"hidden_size": [64]},
        {"num_hidden_layers": True},
        {"vocab_size": -50},
        {"vocab_size": 10**400},
        {"intermediate_size": None},
        {"tie_word_embeddings": "no"},
        {"attention_bias": 3},
        [DECODER],
        [],
        3,
    ],
)
def test_a_config_that_tells_no_shapes_is_refused_in_one_line(tmp_path, change):
    def read(content):
        (tmp_path / "config.json").write_text(json.dumps(content))
        return memory.read_shapes(str(tmp_path))

    same = {"num_key_value_heads": 4, "head_dim": 16, "attention_bias": False, "tie_word_embeddings": False}
    assert read(DECODER) == read(DECODER | same) == read(DECODER | dict.fromkeys(same))  # null is as good as nothing
    with pytest.raises(ValueError, match="config.json does not tell the shapes of a decoder") as caught:
        read(DECODER | change if isinstance(change, dict) else change)
    assert "\n" not in str(caught.value)


def test_what_is_no_model_is_named_without_loading_anything_too(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "config.json").write_text("{}")
    for path, words in ((tmp_path, "is a run directory"), (tmp_path / "config.json", "named by its directory"),
                        ("gone/", "gone/ does not exist")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            memory.read_shapes(str(path))


def test_what_fits_and_what_does_not():
    def reason(cfg, gpus, gib, vllm=True, **changes):
        return memory.reason_not_to_fit(dataclasses.replace(cfg, **changes), gpus, gib * GIB, vllm)

    assert reason(R1_1_5B, 8, 80) is reason(R1_7B, 8, 80) is reason(TINY, 1, 8, vllm=False) is None
    assert reason(R1_7B, 1, 1, model="someone/unknown") is None  # nothing known, nothing to warn of
    assert re.search(r"GiB per GPU .* each with a whole copy; --shard", reason(R1_7B, 8, 80, shard=False))
    assert "larger GPUs" in reason(R1_7B, 1, 80)
    assert "; --gradient-checkpointing fits" in reason(R1_1_5B, 8, 80, gradient_checkpointing=False)
    assert "cannot hold one response's cache" in reason(R1_1_5B, 8, 80, gpu_memory_utilization=0.06)


def test_the_table_of_single_cards_is_the_documented_one(capsys):
    shown.main(["--cards"])
    table = capsys.readouterr().out
    assert table in (ROOT / "docs" / "memory.md").read_text() and table.count("\n") == 2 + 3 * 4


def test_a_step_needs_work_for_every_rank():
    memory.check_work_for(TINY.prompts_per_step, TINY)
    with pytest.raises(ValueError, match=f"--prompts-per-step {TINY.prompts_per_step} is too few for 99 ranks"):
        memory.check_work_for(99, TINY)


def test_the_table_is_printed_and_what_does_not_fit_is_a_warning(capsys):
    """The estimate has never been checked on a card, so it warns and refuses nothing; both commands say the same."""
    import train

    train.main(["r1-1.5b", "--dry-run", "--gpus=8", "--gpu-memory=80"])
    out = capsys.readouterr().out
    assert "1.78 billion parameters, 8 x 80 GiB" in out and "AdamW's moments" in out and "68.9" in out
    assert "warning" not in out
    assert train.main(["r1-1.5b", "--dry-run", "--gpus=8", "--gpu-memory=40"]) is None  # exit code 0
    said = capsys.readouterr()
    (warning,) = [line for line in said.out.splitlines() if line.startswith("warning: ")]
    assert warning.startswith("warning: by this estimate it will not fit: ") and said.err == ""
    assert "sample needs" in warning and "--shard" in warning
    shown.main(["r1-1.5b", "--gpus=8", "--gpu-memory=40"])
    assert capsys.readouterr() == said


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--gpus=1", "--shard"], "--shard splits a model over several ranks and there is one"),
        (["--gpus=-1"], "--gpus must be 0 or more, got -1"),
        (["--gpu-memory=inf"], "--gpu-memory must be at most 1e+06, got inf"),
        (["--gpu-memory=1e308"], "--gpu-memory must be at most 1e+06, got 1e+308"),
        (["--gpus=8", "--prompts-per-step=4"], "--prompts-per-step 4 is too few for 8 ranks"),
        (["--model=someone/unknown"], "someone/unknown: its shapes are not known here"),
        (["--gpu=8"], "unknown flag --gpu (did you mean --gpus?)"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_line(capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        shown.main(["r1-1.5b", *flags])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith(f"error: {message}") and err.count("\n") == 1


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
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    for installed in (True, False):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, there=installed: there or None)
        (line,), vllm = dry_run()
        assert vllm == installed and line.endswith("on this machine")
        assert line.startswith(f"--sampler auto: {'vLLM' if installed else 'Transformers'}")
    assert dry_run("--gpus=8")[1]
