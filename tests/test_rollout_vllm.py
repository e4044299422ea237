"""rollout.VLLMSampler on vLLM's CPU build against Transformers. Run with `make test-vllm`; one engine serves all tests.

The two-rank test starts torchrun on this very file, whose `main` is what each rank does.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

import rollout

pytestmark = pytest.mark.vllm
EOS = [1, 5]
PROMPTS = [[7, 8, 9], [10, 11, 12, 13, 14, 15, 16], [20], [7, 8, 9]]


def tiny_model(path, **changes):
    """A random Qwen2 that vLLM serves (head_dim 32, untied), saved at `path`, with answers of many lengths."""
    torch.manual_seed(0)
    config = dict(
        vocab_size=70, hidden_size=96, intermediate_size=128, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=3, max_position_embeddings=256, tie_word_embeddings=False, eos_token_id=EOS, pad_token_id=0,
    )  # fmt: skip
    model = Qwen2ForCausalLM(Qwen2Config(**(config | changes)))
    with torch.no_grad():
        model.lm_head.weight.mul_(6)
        model.lm_head.weight[EOS] = 0.0
    model.save_pretrained(path)
    return model


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def pair(path):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    model = tiny_model(path)
    return model, rollout.make_sampler("vllm", model, path, None, device="cpu", max_model_len=256)


def sample(sampler, prompts=PROMPTS, n=4, temperature=0.7, max_tokens=24, seeds=(1, 2, 3, 4), **options):
    seeds = list(seeds)
    return sampler.sample(prompts, n=n, temperature=temperature, max_tokens=max_tokens, seeds=seeds, **options)


def largest_gap(model, rollouts, temperature=0.7):
    """Sampler's log-probabilities against one plain forward over each [prompt, response]."""
    gaps = []
    for r in rollouts:
        with torch.no_grad():
            logits_TV = model(torch.tensor([r.prompt_ids + r.response_ids])).logits[0, len(r.prompt_ids) - 1 : -1]
        expected_T = (logits_TV / temperature).log_softmax(-1).gather(-1, torch.tensor(r.response_ids)[:, None])[:, 0]
        gaps.append((expected_T - torch.tensor(r.logp)).abs().max().item())
    return max(gaps)


def test_logp_agrees_with_transformers(pair):
    model, sampler = pair
    sampler.update_weights(model)
    assert largest_gap(model, sample(sampler)) < 1e-4
    assert largest_gap(model, sample(sampler, temperature=0), temperature=1.0) < 1e-4


def test_order_endings_and_prompts(pair):
    rollouts = sample(pair[1])
    assert [r.prompt_ids for r in rollouts] == [ids for ids in PROMPTS for _ in range(4)]
    for r in rollouts:
        assert len(r.logp) == len(r.response_ids) <= 24
        assert r.finished == (r.response_ids[-1] in EOS)  # the ending stays in the response
        assert not set(r.response_ids[:-1]) & set(EOS)
        assert r.finished or len(r.response_ids) == 24
    assert {r.finished for r in rollouts} == {True, False} and len({len(r.response_ids) for r in rollouts}) > 3


def test_a_response_depends_on_its_seed_and_index_alone(pair):
    _, sampler = pair
    whole = [r.response_ids for r in sample(sampler)]
    assert [r.response_ids for r in sample(sampler)] == whole  # as after a resume
    alone = [sample(sampler, prompts=[p], seeds=[s]) for p, s in zip(PROMPTS, (1, 2, 3, 4), strict=True)]
    assert [r.response_ids for group in alone for r in group] == whole  # as on other ranks
    assert whole[:4] != whole[12:]  # the same prompt, another seed
    assert whole[:4] != [r.response_ids for r in sample(sampler, prompts=PROMPTS[:1], seeds=[2])]
    assert len(set(map(tuple, whole[:4]))) > 1


def test_neighbouring_seeds_share_no_numbers(pair):
    """vLLM seeds a group with s, s+1, ...: unhashed, prompt 0's second answer would be prompt 1's first."""
    answers = [r.response_ids for r in sample(pair[1], prompts=PROMPTS[:1] * 3, n=6, seeds=[1, 2, 3])]
    assert len(set(map(tuple, answers))) > 14  # 18 draws of at least 24 bits each rarely meet


def test_new_weights_arrive_and_stale_ones_are_caught(pair, monkeypatch):
    model, sampler = pair
    sampler.update_weights(model)
    long = {"prompts": [[7 + i % 60 for i in range(200)]], "seeds": [5]}  # fills blocks that the prefix cache keeps
    before = sample(sampler)
    assert largest_gap(model, sample(sampler, **long) + sample(sampler, **long)) < 1e-4
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    assert largest_gap(model, sample(sampler)) > 0.1  # not yet sent
    sampler.update_weights(model)
    assert largest_gap(model, sample(sampler) + sample(sampler, **long)) < 1e-4
    assert [r.logp for r in sample(sampler)] != [r.logp for r in before]

    real = sampler.llm.collective_rpc
    for name, message in [
        ("model.norm.weight", "old weights in model.norm.weight"),  # compared bit by bit
        ("lm_head.weight", "old weights in lm_head.weight"),
        ("model.layers.2.self_attn.q_proj.bias", "old weights in model.layers.2.self_attn.qkv_proj.bias"),
        ("model.layers.1.mlp.down_proj.weight", "log-probabilities differ"),  # packed by the CPU build: probed
        ("model.layers.0.self_attn.k_proj.weight", "log-probabilities differ"),
    ]:
        with torch.no_grad():
            model.get_parameter(name).flatten()[::3] += 0.05
        # the engine reads what it is given and keeps what it had
        monkeypatch.setattr(sampler.llm, "collective_rpc", lambda *_, kwargs: list(kwargs["weights_iterator"]))
        with pytest.raises(RuntimeError, match=message):
            sampler.update_weights(model)
        monkeypatch.setattr(sampler.llm, "collective_rpc", real)
        sampler.update_weights(model)
    assert largest_gap(model, sample(sampler)) < 1e-4


def test_the_model_comes_back_as_it_was(pair):
    model, sampler = pair
    model.train()
    sampler.update_weights(model)
    assert model.training
    model(torch.tensor([PROMPTS[0]])).logits.sum().backward()
    model.zero_grad()
    sampler.sleep(), sampler._wake()  # nothing on CPU
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # the CPU build would have this refused
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)


def test_mistakes_get_one_line(pair, tmp_path):
    with pytest.raises(ValueError, match="context of 256"):
        sample(pair[1], max_tokens=254)
    tied = tiny_model(tmp_path, tie_word_embeddings=True)
    with pytest.raises(ValueError, match="--sampler transformers"):
        rollout.make_sampler("vllm", tied, tmp_path, None, device="cpu")


@pytest.mark.timeout(900)  # three engines on what may be two busy cores
def test_two_ranks_under_torchrun(pair, path, tmp_path):
    """Each rank answers half of the prompts with an engine of its own, beside the trainer's gloo group: as one does."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        torchrun + [__file__, str(path), str(tmp_path)], capture_output=True, text=True, timeout=800,
        env=os.environ | {"PYTHONPATH": str(Path(rollout.__file__).parent)},
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout[-2000:] + done.stderr[-4000:]
    ranks = [json.loads((tmp_path / f"rank{i}.json").read_text()) for i in range(2)]
    model, sampler = pair
    model.load_state_dict(tiny_model(path).state_dict())
    change(model)
    sampler.update_weights(model)
    assert ranks[0]["answers"] + ranks[1]["answers"] == [r.response_ids for r in sample(sampler)]
    assert max(rank["gap"] for rank in ranks) < 1e-4
    assert [rank["sum"] for rank in ranks] == [3, 3]  # the trainer's own group still works: 1 + 2


def change(model):
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight += 0.03


def main(path, out):
    """What one rank does: as train.py, first torch.distributed, then the engine."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    model = Qwen2ForCausalLM.from_pretrained(path)
    sampler = rollout.make_sampler("vllm", model, path, None, device="cpu", max_model_len=64, seed=rank)
    change(model)
    sampler.update_weights(model)
    mine = slice(2 * rank, 2 * rank + 2)
    if rank == 1:  # ranks take different times and different numbers of steps, and nobody waits
        sample(sampler, prompts=[[9]] * 3, seeds=[5, 6, 7])
    rollouts = sample(sampler, prompts=PROMPTS[mine], seeds=(1, 2, 3, 4)[mine])
    total = torch.tensor(rank + 1)
    torch.distributed.all_reduce(total)
    del sampler  # must leave the trainer's group alone, now and at exit
    gc.collect()
    torch.distributed.barrier()
    result = {"answers": [r.response_ids for r in rollouts], "gap": largest_gap(model, rollouts), "sum": total.item()}
    (Path(out) / f"rank{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
