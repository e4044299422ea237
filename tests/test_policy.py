"""Log-probabilities against a plain forward pass; micro-batches and shares cover every answer exactly once."""

import pytest
import torch

import policy as policies
from conftest import make_rollouts


def plain_logp(model, rollout, temperature):
    """One answer at a time, no padding, no chunks: the definition."""
    ids = torch.tensor([rollout.prompt_ids + rollout.response_ids])
    logp = (model(ids).logits[0].double() / temperature).log_softmax(-1)
    first = len(rollout.prompt_ids)
    return torch.stack([logp[first + t - 1, token] for t, token in enumerate(rollout.response_ids)])


@pytest.mark.parametrize("head_chunk_elements", [2**26, 23 * 7, 1])
def test_logp_equals_a_plain_forward(small_model, head_chunk_elements):
    rollouts = make_rollouts(3, 4)
    inputs = policies.pad(rollouts)
    logp_NT = policies.Policy(small_model, 0.6, head_chunk_elements)(*inputs)
    assert logp_NT.dtype == torch.float32 and (logp_NT[~inputs[2]] == 0).all()
    for row, rollout in enumerate(rollouts):
        expected = plain_logp(small_model, rollout, 0.6)
        torch.testing.assert_close(logp_NT[row][inputs[2][row]].double(), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_chunked_head_has_the_same_gradient(small_model, bias):
    if bias:
        small_model.lm_head.bias = torch.nn.Parameter(torch.randn(23))
    inputs, gradients = policies.pad(make_rollouts(3, 4)), []
    for head_chunk_elements in (2**26, 23 * 5):
        small_model.zero_grad()
        (policies.Policy(small_model, 0.6, head_chunk_elements)(*inputs) ** 2).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in small_model.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[0].norm()


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
    from rollout import Rollout

    odd = Rollout([1, 0], [0, 1, 0, 1], True, [0.0] * 4)
    inputs = policies.pad([odd, Rollout([3], [4], True, [0.0])])
    assert inputs[2].sum(-1).tolist() == [4, 1]
    logp_NT = policies.Policy(small_model, 1.0)(*inputs)
    torch.testing.assert_close(logp_NT[0].double(), plain_logp(small_model, odd, 1.0), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("budget", [1, 50, 300, 10**9])
def test_micro_batches_cover_all_within_budget(budget):
    length_N = torch.randint(1, 60, (40,), generator=torch.Generator().manual_seed(0)).tolist()
    batches = policies.micro_batches(length_N, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(40))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(length_N[i] for i in batch) <= budget
    assert policies.micro_batches([], 10) == []


def test_shares_are_balanced_in_tokens():
    """Log-normal lengths as in a real run, 8 ranks: within 1 % of the mean (counts would differ by far more)."""
    length_N = torch.randn(256, generator=torch.Generator().manual_seed(0)).mul(0.7).add(7).exp().clamp(max=8192)
    length_N = length_N.int().tolist()
    parts = policies.balance(length_N, 8)
    assert sorted(i for part in parts for i in part) == list(range(256))
    loads = [sum(length_N[i] for i in part) for part in parts]
    assert max(loads) < 1.01 * sum(loads) / 8


def test_dropout_is_switched_off_and_wrong_paths_say_so(tmp_path, small_model):
    small_model.config.attention_dropout = 0.5
    small_model.save_pretrained(tmp_path / "model")
    model = policies.load_model(tmp_path / "model").train()
    ids = torch.tensor([[2, 3, 4, 5]])
    torch.testing.assert_close(model(ids).logits, model(ids).logits, rtol=0, atol=0)
    for path, words in (("./nowhere", "does not exist"), (str(tmp_path), "holds no config.json")):
        with pytest.raises(ValueError, match=words):
            policies.load_model(path)
    with pytest.raises(ValueError, match="no tokenizer at"):
        policies.load_tokenizer(str(tmp_path / "model"))
    whole = (tmp_path / "model" / "model.safetensors").read_bytes()
    (tmp_path / "model" / "model.safetensors").write_bytes(whole[:1000])  # an interrupted download
    with pytest.raises(ValueError, match="no causal language model at"):
        policies.load_model(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no causal language model at"):
        policies.load_model(tmp_path / "model")


def test_a_model_that_caps_its_logits_is_refused(tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=23, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, final_logit_softcapping=0.5, initializer_range=0.3,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="changes its logits after the output head"):
        policies.load_model(tmp_path)
