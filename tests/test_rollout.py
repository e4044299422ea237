"""rollout.TransformersSampler against plain full forwards, brute-force counts and its own invariances."""

import importlib.util

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from minidrpo.engine import decoding
from rollout import TransformersSampler, make_sampler

EOS = [1, 5]


def tiny_model(**changes):
    torch.manual_seed(0)
    config = dict(
        vocab_size=32, hidden_size=96, intermediate_size=128, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=False, eos_token_id=EOS, pad_token_id=0,
    )  # fmt: skip
    model = Qwen2ForCausalLM(Qwen2Config(**(config | changes)))
    with torch.no_grad():
        model.lm_head.weight.mul_(8)  # peaked distributions: a wrong mask or position shows
        model.lm_head.weight[EOS] = 0.0  # endings at every length
    return model


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def prompts_of(lengths):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(6, 32, (length,), generator=generator).tolist() for length in lengths]


RAGGED = prompts_of([3, 9, 4, 17, 1, 8, 8])


def full_forward_logp(model, r, temperature):
    """Log-probabilities of a response by one unpadded pass over [prompt, response], without a cache."""
    with torch.no_grad():
        logits_TV = model(torch.tensor([r.prompt_ids + r.response_ids])).logits[0, len(r.prompt_ids) - 1 : -1]
    return (logits_TV / temperature).log_softmax(-1).gather(-1, torch.tensor(r.response_ids)[:, None])[:, 0]


def sample(model, prompts, n=5, temperature=0.7, top_p=1.0, max_tokens=24, seeds=None, **options):
    seeds = list(range(len(prompts))) if seeds is None else seeds
    sampler = TransformersSampler(model, **options)
    return sampler.sample(prompts, n=n, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seeds=seeds)


@pytest.mark.parametrize("max_batch", [16, 512])
@pytest.mark.parametrize("prompts", [RAGGED * 2, prompts_of([6] * 5)], ids=["ragged", "equal"])
def test_logp_is_that_of_an_unpadded_forward(model, prompts, max_batch):
    rollouts = sample(model, prompts, max_batch=max_batch)
    assert len({len(r.response_ids) for r in rollouts}) > 3 and {r.finished for r in rollouts} == {True, False}
    for r in rollouts:
        torch.testing.assert_close(torch.tensor(r.logp), full_forward_logp(model, r, 0.7), rtol=0, atol=1e-4)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_and_tied_embeddings(implementation):
    model = tiny_model(tie_word_embeddings=True, attn_implementation=implementation)
    for r in sample(model, RAGGED, n=2, max_batch=6):
        torch.testing.assert_close(torch.tensor(r.logp), full_forward_logp(model, r, 0.7), rtol=0, atol=1e-4)


def test_order_endings_and_prompts(model):
    rollouts = sample(model, RAGGED)
    assert [r.prompt_ids for r in rollouts] == [ids for ids in RAGGED for _ in range(5)]
    for r in rollouts:
        assert len(r.logp) == len(r.response_ids) <= 24
        assert r.finished == (r.response_ids[-1] in EOS)  # the ending stays in the response
        assert not set(r.response_ids[:-1]) & set(EOS)
        assert r.finished or len(r.response_ids) == 24


def test_a_response_depends_on_its_seed_and_index_alone(model):
    seeds = [70, 71, 72, 73, 74, 75, 76]
    whole = sample(model, RAGGED, seeds=seeds)
    for max_batch in (3, 7):
        again = sample(model, RAGGED, seeds=seeds, max_batch=max_batch)
        assert [r.response_ids for r in again] == [r.response_ids for r in whole]
    ranks = [sample(model, RAGGED[half], seeds=seeds[half]) for half in (slice(3), slice(3, 7))]
    assert [r.response_ids for rank in ranks for r in rank] == [r.response_ids for r in whole]
    more = sample(model, RAGGED, n=7, seeds=seeds)  # a larger group begins with the smaller
    assert [r.response_ids for i, r in enumerate(more) if i % 7 < 5] == [r.response_ids for r in whole]
    other = sample(model, RAGGED, seeds=[seed + 10 for seed in seeds])
    assert sum(a.response_ids == b.response_ids for a, b in zip(whole, other, strict=True)) < 10
    assert len({tuple(r.response_ids) for r in whole[15:20]}) > 1  # nor do the members of a group agree


def test_temperature_zero_is_greedy(model):
    rollouts = sample(model, RAGGED, n=2, temperature=0)
    for r in rollouts:
        logp = full_forward_logp(model, r, 1.0)
        with torch.no_grad():
            best = model(torch.tensor([r.prompt_ids + r.response_ids])).logits[0].argmax(-1)
        assert best[len(r.prompt_ids) - 1 : -1].tolist() == r.response_ids
        torch.testing.assert_close(torch.tensor(r.logp), logp, rtol=0, atol=1e-4)


@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_draw_takes_each_token_as_often_as_it_should(top_p):
    """A grid of uniforms makes the counts exact: no false alarms."""
    logits = torch.tensor([2.0, -1.0, 0.5, -torch.inf, 1.5])
    p = (logits.double() / 0.8).softmax(-1)
    if top_p < 1:  # brute force: add the likeliest until the mass is reached
        kept, mass = [], 0.0
        for i in p.argsort(descending=True).tolist():
            if mass < top_p:
                kept, mass = kept + [i], mass + p[i].item()
        p = torch.tensor([p[i].item() / mass if i in kept else 0.0 for i in range(5)])
    u = (torch.arange(10_000) + 0.5) / 10_000
    token, logp = decoding.draw(logits.expand(10_000, 5), u, 0.8, top_p)
    counts = token.bincount(minlength=5)
    assert ((counts - 10_000 * p).abs() <= 1).all(), (counts, p)
    torch.testing.assert_close(logp, p.log()[token].float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_draw_never_takes_an_impossible_token(top_p):
    """u = 0 must skip leading zero-mass tokens and u just below 1 trailing ones, whatever the rounding of the sum."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2_000, 301, generator=generator) * 3
    logits[:, :3] = logits[:, -3:] = -torch.inf
    for u in (0.0, 1 - 2**-24):
        token, logp = decoding.draw(logits, torch.full((2_000,), u), 0.6, top_p)
        assert ((token >= 3) & (token < 298)).all() and logp.isfinite().all()


def test_uniforms_are_counter_based():
    assert (decoding.uniforms(3, 1, 5) == decoding.uniforms(3, 1, 9)[:5]).all()
    assert (decoding.uniforms(3, 1, 5) != decoding.uniforms(3, 2, 5)).all()
    assert (decoding.uniforms(-3, 1, 5) != decoding.uniforms(3, 1, 5)).all()  # any int is a seed


def test_the_model_comes_back_as_it_was(model):
    model.train()
    sample(model, RAGGED[:2])
    assert model.training
    loss = model(torch.tensor([RAGGED[0]])).logits.sum()
    loss.backward()  # nothing the sampler left behind stops autograd
    model.zero_grad()
    model.eval()
    sample(model, RAGGED[:2])
    assert not model.training


def test_each_prompt_is_read_once_and_finished_rows_leave(model):
    calls, sampler = [], TransformersSampler(model)
    hook = model.register_forward_pre_hook(lambda m, a, k: calls.append(k["input_ids"].shape), with_kwargs=True)
    rollouts = sampler.sample(RAGGED, n=5, temperature=0.7, max_tokens=24, seeds=list(range(len(RAGGED))))
    hook.remove()
    assert calls[0] == (7, 17) and all(width == 1 for _, width in calls[1:])
    decoded = sum(rows for rows, _ in calls[1:])
    needed = sum(len(r.response_ids) - 1 for r in rollouts)
    assert needed <= decoded < needed * 4 / 3


def test_mistakes_get_one_line(model):
    for changes, message in [
        (dict(seeds=[1]), "1 seeds"),
        (dict(temperature=-1), "temperature"),
        (dict(top_p=0), "top_p"),
        (dict(n=0), "n and max_tokens"),
        (dict(max_tokens=250), "context of 256"),
        (dict(prompts=[[3], []], seeds=[1, 2]), "prompt 1 has no tokens"),
    ]:
        with pytest.raises(ValueError, match=message):
            sample(model, **(dict(prompts=RAGGED) | changes))
    with pytest.raises(ValueError, match="end-of-sequence"):
        TransformersSampler(tiny_model(eos_token_id=None))


def test_diverged_weights_are_named():
    """NaN weights end in one clear error, not in an index out of range."""
    broken = tiny_model()
    with torch.no_grad():
        broken.lm_head.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="weights have diverged"):
        sample(broken, RAGGED[:2])


def test_a_sampler_with_weights_of_its_own_gets_the_trainers():
    trained, own = tiny_model(), tiny_model()
    with torch.no_grad():
        trained.lm_head.weight.add_(1.0)
    make_sampler("transformers", lambda: own, "nowhere", None, device="cpu").update_weights(trained)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), trained.parameters(), strict=True))
    assert own.lm_head.weight is not trained.lm_head.weight


def test_make_sampler(model):
    sampler = make_sampler("auto", model, "nowhere", None, device="cpu", max_model_len=99)
    assert isinstance(sampler, TransformersSampler) and sampler.max_model_len == 99 and sampler.eos_ids == EOS
    sampler.sleep(), sampler.update_weights(model)
    assert sampler.model is model
    with pytest.raises(ValueError, match="sampler 'sglang'"):
        make_sampler("sglang", model, "nowhere", None, device="cpu")
    if importlib.util.find_spec("vllm") is None:
        with pytest.raises(ValueError, match="vLLM is not installed"):
            make_sampler("vllm", model, "nowhere", None, device="cpu")
