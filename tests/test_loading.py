"""Models as users bring them: what is missing, extra, spoilt or of another kind is named in one line at load, what
cannot be saved again is mended there, and a sampler that disagrees with the trainer stops the run."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GenerationConfig,
    MambaConfig,
    MambaForCausalLM,
    Phi3Config,
    RobertaConfig,
    RobertaForCausalLM,
)

import config
import eval as evaluation
import rollout
import train
from conftest import make_small_model
from minidrpo.engine import loading, probe

SIZES = dict(vocab_size=23, hidden_size=32, num_hidden_layers=2, eos_token_id=1, bos_token_id=None, pad_token_id=0)
HEADS = dict(
    intermediate_size=48, num_attention_heads=2, max_position_embeddings=64, head_dim=16, num_key_value_heads=1
)


@pytest.fixture
def copied(tmp_path):
    """The embedded model, to be spoilt."""
    folder = tmp_path / "model"
    shutil.copytree(config.TINY_MODEL, folder, ignore=shutil.ignore_patterns("thinking", "*.py", "__pycache__"))
    return folder


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(call, *args):
    with pytest.raises(ValueError) as caught:
        call(*args)
    assert "\n" not in str(caught.value), caught.value
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- weights


def test_weights_that_the_files_lack_are_named(copied):
    weights = load_file(copied / "model.safetensors")
    for lost in ("lm_head.weight", "model.norm.weight", "model.layers.1.mlp.up_proj.weight"):
        save_file({k: v for k, v in weights.items() if k != lost}, copied / "model.safetensors", {"format": "pt"})
        assert f"lack 1 of the model's weights: {lost}" in refusal(loading.load_model, copied)


def test_weights_of_a_layer_too_many_or_of_another_shape_are_named(copied):
    change(copied / "config.json", num_hidden_layers=2, layer_types=["full_attention"] * 2)
    assert "leaves out 12 weights of the files, such as model.layers.2." in refusal(loading.load_model, copied)
    change(copied / "config.json", num_hidden_layers=3, layer_types=["full_attention"] * 3, vocab_size=300)
    words = refusal(loading.load_model, copied)
    assert "lm_head.weight is (288, 96) in the files and (300, 96) by config.json" in words


def test_a_weight_beside_the_models_own_does_no_harm(copied):
    weights = load_file(copied / "model.safetensors") | {"v_head.summary.weight": torch.zeros(1, 96)}
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    loading.load_model(copied)


@pytest.mark.parametrize("extra", ["mlp.up_proj.weight_scale", "self_attn.o_proj.bias", "self_attn.q_norm.weight"])
def test_a_weight_more_in_a_part_of_the_model_is_named(copied, extra):
    """It was passed over: a bias that config.json forgets, the scales of a quantized model."""
    name = f"model.layers.1.{extra}"
    save_file(load_file(copied / "model.safetensors") | {name: torch.ones(1)}, copied / "model.safetensors")
    assert f"leaves out 1 weights of the files, such as {name}" in refusal(loading.load_model, copied)


def test_tables_of_older_files_do_no_harm(copied):
    inside = ("self_attn.rotary_emb.inv_freq", "self_attn.masked_bias", "attention.bias", "attn.causal_mask")
    tables = {f"model.layers.1.{name}": torch.ones(8) for name in inside}
    save_file(load_file(copied / "model.safetensors") | tables, copied / "model.safetensors")
    loading.load_model(copied)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool, torch.int64])
def test_weights_stored_as_integers_are_refused(copied, kind):
    """They became floats without their scales."""
    weights = load_file(copied / "model.safetensors")
    changed = {name: w.to(kind) for name, w in weights.items() if kind != torch.uint8 or "proj" in name}
    save_file(weights | changed, copied / "model.safetensors")
    assert ".weight is stored as " in refusal(loading.load_model, copied)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(copied, bad):
    weights = load_file(copied / "model.safetensors")
    weights["model.embed_tokens.weight"][287, 3] = bad  # of a token that no text has
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    assert "model.embed_tokens.weight is not finite" in refusal(loading.load_model, copied)


@pytest.mark.parametrize("fields", [{"hidden_act": "nope"}, {"rope_scaling": {"type": "bogus"}}, {"id2label": 3},
                                    {"layer_types": ["x"] * 3}, {"model_type": "bogus"}])  # fmt: skip
def test_a_config_that_makes_no_model_is_one_line(copied, fields):
    change(copied / "config.json", **fields)
    assert f"no causal language model at {copied}" in refusal(loading.load_model, copied)


@pytest.mark.parametrize("fields, words", [({"dtype": "nope"}, "'nope'"), ({"vocab_size": "100"}, "'vocab_size'")])
def test_a_wrong_config_is_not_laid_upon_the_tokenizer(copied, fields, words):
    change(copied / "config.json", **fields)
    said = refusal(loading.load_tokenizer, copied)
    assert f"the config.json of {copied} cannot be used" in said and words in said


def test_directories_that_are_no_models_are_named(copied, tmp_path):
    assert f"a model is named by its directory, {copied}" in refusal(loading.load_tokenizer, copied / "config.json")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "is a LoRA adapter, not a model: merge it" in refusal(loading.load_tokenizer, tmp_path)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    assert "is a run directory, not a model's: it has no checkpoint" in refusal(loading.load_tokenizer, run)
    for step in ("step_9", "step_10", "step_11_copy"):
        shutil.copytree(copied, run / "checkpoints" / step)
    assert f"its newest model is {run}/checkpoints/step_10" in refusal(loading.load_model, run)


def test_ids_past_the_vocabulary_are_one_line_in_an_evaluation(copied, tmp_path, capsys):
    tokenizer = loading.load_tokenizer(copied)
    tokenizer.add_tokens([*(f"<{i}>" for i in range(20)), "knight"])  # the model has some rows more
    tokenizer.save_pretrained(copied)
    with pytest.raises(SystemExit) as stop:
        evaluation.main(
            ["--datasets=knights", "--max-problems=1", f"--model={copied}", f"--output-dir={tmp_path / 'out'}"]
        )
    assert stop.value.code == 2 and "makes ids past the model's vocabulary of 288" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- what it computes


def test_a_cap_on_the_logits_is_seen_whatever_the_weights_are():
    for std in (0.02, 3.0):
        model = Gemma2ForCausalLM(Gemma2Config(**SIZES, **HEADS, initializer_range=std, final_logit_softcapping=30.0))
        assert "Gemma2ForCausalLM caps, scales" in refusal(probe.check_model, model.eval())
    probe.check_model(Gemma2ForCausalLM(Gemma2Config(**SIZES, **HEADS, final_logit_softcapping=None)).eval())


def test_a_small_scale_on_the_logits_is_seen(small_model):
    probe.check_model(small_model)
    forward = small_model.forward

    def scaled(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = output.logits * 1.0005
        return output

    small_model.forward = scaled
    assert "Qwen2ForCausalLM caps, scales" in refusal(probe.check_model, small_model)


def test_a_model_that_looks_ahead_is_refused():
    sizes = SIZES | {"intermediate_size": 48, "num_attention_heads": 2, "initializer_range": 0.1}
    both = RobertaForCausalLM(RobertaConfig(**sizes, is_decoder=False)).eval()
    both.lm_head = torch.nn.Linear(32, 23)  # RoBERTa's own has a layer more
    both.get_output_embeddings = lambda: both.lm_head
    assert "not causal as configured" in refusal(probe.check_model, both)
    assert "BertLMHeadModel" in refusal(probe.check_model, BertLMHeadModel(BertConfig(**sizes)).eval())


def full_forward_logp(model, r):
    ids_L = torch.tensor(r.prompt_ids + r.response_ids)
    with torch.no_grad():
        logp_TV = model(input_ids=ids_L[None], use_cache=False).logits[0, len(r.prompt_ids) - 1 : -1].log_softmax(-1)
    return logp_TV.gather(-1, torch.tensor(r.response_ids)[:, None])[:, 0]


def test_a_recurrent_model_is_sampled_without_a_cache(small_model):
    torch.manual_seed(0)
    mamba = MambaForCausalLM(MambaConfig(**SIZES, state_size=4, time_step_rank=2, initializer_range=0.5)).eval()
    sampler = rollout.TransformersSampler(mamba, max_batch=4)  # the last prompts have to wait
    assert not sampler.cached and "MambaForCausalLM" in sampler.note
    prompts = [[5, 6, 7, 8, 9], [3], [4, 4], [7, 8, 2]]
    rollouts = sampler.sample(prompts, n=2, temperature=1.0, max_tokens=12, seeds=[0, 1, 2, 3])
    assert len({len(r.response_ids) for r in rollouts}) > 1
    for r in rollouts:
        torch.testing.assert_close(torch.tensor(r.logp), full_forward_logp(mamba, r), atol=1e-4, rtol=0)
    cached = rollout.TransformersSampler(small_model)
    assert cached.cached and cached.note is None


def test_memory_that_runs_out_says_nothing_of_the_cache(small_model, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(rollout.TransformersSampler, "_read", full)
    with pytest.raises(torch.OutOfMemoryError):
        rollout.TransformersSampler(small_model)


def test_without_a_cache_the_responses_are_the_same(small_model):
    prompts = [[5, 6, 7, 8, 9], [3], [4, 4], [7, 8, 2]]
    request = dict(n=3, temperature=1.0, top_p=0.9, max_tokens=16, seeds=[0, 1, 2, 3])
    cached, whole = rollout.TransformersSampler(small_model), rollout.TransformersSampler(small_model, max_batch=4)
    whole.cached = False
    assert [r.response_ids for r in cached.sample(prompts, **request)] == [
        r.response_ids for r in whole.sample(prompts, **request)
    ]


def test_a_sampler_that_computes_something_else_stops_the_run(tmp_path, monkeypatch, capsys):
    def shifted(self, ids, mask, position, cache):  # as a wrong kernel would: the logits of the next token are off
        output = self.model(input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=cache)
        return output.logits[:, -1] * 1.05

    monkeypatch.setattr(rollout.TransformersSampler, "_cache_works", lambda self: True)
    monkeypatch.setattr(rollout.TransformersSampler, "_forward", shifted)
    flags = ["--steps=2", "--prompts-per-step=2", "--group-size=2", "--max-response-tokens=16", "--no-eval-start"]
    with pytest.raises(SystemExit) as stop:
        train.main([f"--run-dir={tmp_path}", *flags])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert stop.value.code == 1 and len(errors) == 1
    assert "TransformersSampler does not compute what the trainer computes with Qwen2ForCausalLM" in errors[0]
    assert not (tmp_path / "metrics.jsonl").exists() and not (tmp_path / "checkpoints").exists()


def test_a_part_that_no_text_reaches_is_not_trained(small_model):
    small_model.model.vision_tower = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Linear(32, 32))
    assert probe.freeze_unused_parts(small_model) == ["model.vision_tower"]
    trained = {name for name, p in small_model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in small_model.named_parameters() if "vision" not in name}
    assert probe.unreached(small_model) == set()


# ---------------------------------------------------------------------------------------------------- lengths

LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 1e4}


def test_the_context_ends_where_rotary_frequencies_change():
    phi3 = Phi3Config(**(SIZES | HEADS), rope_parameters=LONGROPE, original_max_position_embeddings=32)
    assert loading.context_of(phi3) == (32, "where its rotary frequencies change, longrope")
    assert loading.context_of(Phi3Config(**(SIZES | HEADS)))[0] == 64
    layers = {"sliding_attention": LONGROPE | {"original_max_position_embeddings": 16}, "full_attention": {}}
    small = make_small_model().config
    assert loading.context_of(small)[0] == 128
    small.rope_parameters = layers
    assert loading.context_of(small)[0] == 16
    small.rope_parameters = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    assert loading.context_of(small)[0] == 128  # its frequencies stay


def test_a_table_of_positions_counts_from_behind_the_padding():
    model = RobertaForCausalLM(RobertaConfig(**(SIZES | {"pad_token_id": 5}), num_attention_heads=2, is_decoder=True))
    assert loading.context_of(model.config, model)[0] == 512 - 6


# ---------------------------------------------------------------------------------------------------- settings

UNSAVABLE = [
    {"pad_token_id": -1}, {"length_penalty": 0.8}, {"return_dict_in_generate": False, "output_scores": True},
    {"early_stopping": True}, {"num_beam_groups": 3, "diversity_penalty": 0.5}, {"pad_token_id": -100, "top_k": 5},
]  # fmt: skip


@pytest.mark.parametrize("fields", UNSAVABLE)
def test_generation_settings_that_cannot_be_saved_are_left_out(copied, tmp_path, fields):
    change(copied / "generation_config.json", **fields)
    model, tokenizer = loading.load_model(copied), loading.load_tokenizer(copied)
    notes = loading.keep_savable(model, tokenizer, copied)
    model.save_pretrained(tmp_path / "saved")
    again = GenerationConfig.from_pretrained(tmp_path / "saved")
    assert again.eos_token_id == 276 and again.do_sample
    if fields.keys() & {"pad_token_id", "length_penalty"}:
        assert len(notes) == 1 and "cannot be saved, token ids alone are kept" in notes[0], notes
    loading.load_model(tmp_path / "saved")


@pytest.mark.parametrize("fields", [{"max_new_tokens": "x"}, {"cache_implementation": "y"},
                                    {"pad_token_id": "x"}, {"watermarking_config": {"a": 1}}])  # fmt: skip
def test_generation_settings_that_cannot_be_read_are_one_line(copied, fields):
    change(copied / "generation_config.json", **fields)
    assert str(copied) in refusal(loading.load_model, copied)


@pytest.mark.parametrize("eos", ["276", [[276]], -1, 276.0, [276, "x"], True, {"a": 1}, [276, None, -3]])
def test_an_end_token_that_is_no_id_is_refused(copied, eos):
    change(copied / "generation_config.json", eos_token_id=eos)
    try:
        model = loading.load_model(copied)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert "not a token id" in refusal(rollout.TransformersSampler, model)


def test_a_tokenizer_that_makes_nothing_is_refused(copied):
    (copied / "tokenizer.json").unlink()
    assert "is its tokenizer.json or vocabulary missing?" in refusal(loading.load_tokenizer, copied)


def test_a_tokenizer_that_comes_back_as_another_is_refused(copied, monkeypatch):
    model, tokenizer = loading.load_model(copied), loading.load_tokenizer(copied)
    assert loading.keep_savable(model, tokenizer, copied) == []
    other = AutoModelForCausalLM  # anything that is no tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", {"default": other})
    assert "could not be saved in a checkpoint" in refusal(loading.keep_savable, model, tokenizer, copied)
