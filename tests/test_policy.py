"""Log-probabilities against a plain forward pass; micro-batches and shares cover every answer exactly once."""

import json
from pathlib import Path

import pytest
import torch
import torch._dynamo.testing

from conftest import make_rollouts, make_small_model
from minidrpo.engine import batches, loading
from minidrpo.engine import policy as policies
from minidrpo.records import Rollout


def plain_logp(model, rollout, temperature):
    """One answer at a time, no padding, no chunks: the definition."""
    ids = torch.tensor([rollout.prompt_ids + rollout.response_ids])
    logp = (model(ids).logits[0].double() / temperature).log_softmax(-1)
    first = len(rollout.prompt_ids)
    return torch.stack([logp[first + t - 1, token] for t, token in enumerate(rollout.response_ids)])


@pytest.mark.parametrize("head_chunk_elements", [2**26, 23 * 7, 1])
def test_logp_equals_a_plain_forward(small_model, head_chunk_elements):
    rollouts = make_rollouts(3, 4)
    inputs = batches.pad(rollouts)
    logp_NT = policies.Policy(small_model, 0.6, head_chunk_elements)(*inputs)
    assert logp_NT.dtype == torch.float32 and (logp_NT[~inputs[2]] == 0).all()
    for row, rollout in enumerate(rollouts):
        expected = plain_logp(small_model, rollout, 0.6)
        torch.testing.assert_close(logp_NT[row][inputs[2][row]].double(), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_chunked_head_has_the_same_gradient(small_model, bias):
    if bias:
        small_model.lm_head.bias = torch.nn.Parameter(torch.randn(23))
    inputs, gradients = batches.pad(make_rollouts(3, 4)), []
    for head_chunk_elements in (2**26, 23 * 5):
        small_model.zero_grad()
        (policies.Policy(small_model, 0.6, head_chunk_elements)(*inputs) ** 2).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in small_model.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[0].norm()


@pytest.mark.parametrize("chunk", [2, 100])
def test_gradient_of_a_token_logp(chunk):
    """Closed form against numbers, with a temperature, a bias and a row of huge logits; float64."""
    g = torch.Generator().manual_seed(0)
    h, w, b = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((4, 3), (7, 3), (7,)))
    target = torch.tensor([0, 6, 2, 2])

    def logp(h, w, b):
        return policies.ChunkedLogp.apply(h, w, b, target, 0.6, chunk)

    huge = h * torch.tensor([1, 1, 1, 300.0], dtype=torch.float64)[:, None]
    expected = ((huge @ w.T + b) / 0.6).log_softmax(-1)[range(4), target]
    torch.testing.assert_close(logp(huge, w, b), expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(logp, tuple(x.requires_grad_() for x in (h, w, b)))


def test_chunked_head_sums_in_float32_under_autocast():
    """64 chunks in bfloat16 are no worse than one. Chunk gradients added up by autograd would be: they are bfloat16."""
    torch.manual_seed(0)
    h, w = torch.randn(512, 32), torch.randn(50, 32, requires_grad=True)
    target, gradients = torch.randint(50, (512,)), {}
    for rows, dtype in ((512, torch.float32), (512, torch.bfloat16), (8, torch.bfloat16)):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logp = policies.ChunkedLogp.apply(h, w, None, target, 0.6, rows)
        (gradients[rows, dtype],) = torch.autograd.grad(logp.sum(), w)
    exact = gradients.pop((512, torch.float32))
    one, many = ((g - exact).norm() / exact.norm() for g in gradients.values())
    assert many < 1.05 * one < 0.01


def test_token_ids_decide_nothing(small_model):
    """Id 0 is padding's filler and 1 the end token, yet inside an answer they are tokens like any other."""

    odd = Rollout([1, 0], [0, 1, 0, 1], True, [0.0] * 4)
    inputs = batches.pad([odd, Rollout([3], [4], True, [0.0])])
    assert inputs[2].sum(-1).tolist() == [4, 1]
    logp_NT = policies.Policy(small_model, 1.0)(*inputs)
    torch.testing.assert_close(logp_NT[0].double(), plain_logp(small_model, odd, 1.0), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("budget", [1, 50, 300, 10**9])
def test_micro_batches_cover_all_within_budget(budget):
    length_N = torch.randint(1, 60, (40,), generator=torch.Generator().manual_seed(0)).tolist()
    cut = batches.micro_batches(length_N, budget)
    assert sorted(i for batch in cut for i in batch) == list(range(40))
    for batch in cut:
        assert len(batch) == 1 or len(batch) * max(length_N[i] for i in batch) <= budget
    assert batches.micro_batches([], 10) == []


def run_of_lengths(n, seed):
    """Log-normal lengths up to the limit, as in a real run: mean 2,600 of 8,192 tokens, 7 % at the limit."""
    length_N = torch.randn(n, generator=torch.Generator().manual_seed(seed)).mul(0.8).add(7.6).exp()
    return (length_N.clamp(max=8192) + 150).int().tolist()


def padded(batch, length_N):
    return len(batch) * max(length_N[i] for i in batch)


@pytest.mark.parametrize("n", [256, 1024], ids=["one mini-batch", "one step"])
@pytest.mark.parametrize("budget", [8192, 16384])
def test_ranks_get_equal_work_and_little_padding(n, budget):
    """The r1 presets over 8 ranks: tokens within 1 % of the mean, work (with padding) within 2 %, padding below 4 %,
    and equally many micro-batches."""
    for seed in range(4):
        length_N = run_of_lengths(n, seed)
        shares = batches.shares(length_N, 8, budget)
        assert sorted(i for rank in shares for batch in rank for i in batch) == list(range(n))
        assert all(len(batch) == 1 or padded(batch, length_N) <= budget for rank in shares for batch in rank)
        tokens = [sum(length_N[i] for batch in rank for i in batch) for rank in shares]
        work = [sum(padded(batch, length_N) for batch in rank) for rank in shares]
        assert max(abs(t * 8 / sum(tokens) - 1) for t in tokens) < 0.01
        assert max(abs(w * 8 / sum(work) - 1) for w in work) < 0.02
        assert all(w < t / 0.96 for t, w in zip(tokens, work, strict=True))
        assert len({len(rank) for rank in shares}) == 1


def test_shares_of_few_answers():
    assert batches.shares([5, 9], 3, 100) == [[[1]], [[0]], []]
    assert batches.shares([300, 5, 5, 5], 2, 100) == [[[0]], [[1, 2, 3]]]
    assert batches.shares([300, 300, 5], 2, 100) == [[[0], [2]], [[1]]]  # nothing to halve
    assert batches.shares([300, 100, 100, 100, 1], 2, 300) == [[[0], [4]], [[1], [2, 3]]]  # one pass or two


@pytest.mark.parametrize("seed", range(3))
def test_no_other_cut_of_the_sorted_answers_costs_less(seed):
    """Brute force over all ways to cut eight sorted answers."""
    length_N = torch.randint(1, 60, (8,), generator=torch.Generator().manual_seed(seed)).tolist()
    order = sorted(range(8), key=lambda i: -length_N[i])

    def cost(batches):
        fits = all(len(batch) == 1 or padded(batch, length_N) <= 128 for batch in batches)
        return sum(padded(batch, length_N) + 128 / 32 for batch in batches) if fits else float("inf")

    def cut(places):
        edges = [0, *(k + 1 for k in range(7) if places >> k & 1), 8]
        return [order[a:b] for a, b in zip(edges, edges[1:], strict=False)]

    assert cost(batches.micro_batches(length_N, 128)) == min(cost(cut(places)) for places in range(2**7))


def test_dropout_is_switched_off_and_wrong_paths_say_so(tmp_path, small_model):
    small_model.config.attention_dropout = 0.5
    small_model.save_pretrained(tmp_path / "model")
    model = loading.load_model(tmp_path / "model").train()
    ids = torch.tensor([[2, 3, 4, 5]])
    torch.testing.assert_close(model(ids).logits, model(ids).logits, rtol=0, atol=0)
    for path, words in (("./nowhere", "does not exist"), (str(tmp_path), "holds no config.json")):
        with pytest.raises(ValueError, match=words):
            loading.load_model(path)
    with pytest.raises(ValueError, match="no tokenizer at"):
        loading.load_tokenizer(str(tmp_path / "model"))
    whole = (tmp_path / "model" / "model.safetensors").read_bytes()
    (tmp_path / "model" / "model.safetensors").write_bytes(whole[:1000])  # an interrupted download
    with pytest.raises(ValueError, match="no causal language model at"):
        loading.load_model(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no causal language model at"):
        loading.load_model(tmp_path / "model")


@pytest.mark.parametrize(("model_type", "said"), [("qwen2", None), ("llama", "comes back without spaces")])
def test_a_tokenizer_that_loses_spaces_is_refused(tmp_path, model_type, said):
    """What Transformers 5 makes of DeepSeek-R1-Distill-Llama's files."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = ["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.save(str(tmp_path / "tokenizer.json"))
    about = {"tokenizer_class": "LlamaTokenizerFast", "eos_token": "<eos>", "bos_token": "<eos>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    if said:
        with pytest.raises(ValueError, match=said):
            loading.load_tokenizer(tmp_path)
    else:
        ids = loading.load_tokenizer(tmp_path)("1 + 1", add_special_tokens=False)["input_ids"]
        assert ids == core.encode("1 + 1").ids


def test_a_model_that_caps_its_logits_is_refused(tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=23, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, final_logit_softcapping=0.5, initializer_range=0.3,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="changes its logits after the output head"):
        loading.load_model(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's high-water mark of memory")
def test_log_probabilities_take_an_eighth_of_the_plain_memory():
    """The benchmark at a tenth of its size: 430 MB a copy of the logits, chunks of 48 MB."""
    from experiments.benchmarks.logprob_memory import chunked, error, forward_backward, plain

    sizes = dict(tokens=3072, vocabulary=36_864, hidden_size=8)
    theirs, plain_peak = forward_backward(plain, **sizes)
    assert plain_peak > 2 * 4 * 3072 * 36_864, "the plain form holds two copies at the very least"
    ours, peak = forward_backward(chunked, **sizes, head_chunk_elements=3 * 2**22)  # not smaller: malloc keeps those
    assert peak < plain_peak / 8, f"{peak / 2**20:.0f} MB against {plain_peak / 2**20:.0f} MB"
    assert all(error(a, b) < 1e-5 for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers_compute_the_same(checkpointing):
    """One graph for all layers, lengths and batches; with gradients another. (Without code generation: backends differ
    in speed, what is traced and checked here is the same.)"""
    results = []
    for compiled in (False, True):
        model = make_small_model()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()
        if compiled:
            torch._dynamo.reset()
            counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
            policies.compile_layers(model, backend=counter)
        policy = policies.Policy(model, 0.6)
        for seed in range(3):
            inputs = batches.pad(make_rollouts(2, 2, seed=seed))
            with torch.no_grad():
                first = policy(*inputs)
            logp_NT = policy(*inputs)
            torch.testing.assert_close(first, logp_NT.detach(), atol=1e-6, rtol=1e-6)
            (logp_NT**2).sum().backward()
        results.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (results[0] - results[1]).norm() < 1e-5 * results[0].norm()
    assert 1 <= counter.frame_count <= 4, counter.frame_count  # not one a layer, nor one a length
    torch._dynamo.reset()
