"""Tiny random models of the architectures that users bring: two steps of training, a resume and an evaluation of each
end as docs/models.md says, right or refused in one line, none in a traceback. The page's table is what is tested."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import config
import eval as evaluation
import reward
import train
from conftest import ROOT
from minidrpo.engine.distributed import DistContext
from minidrpo.rundir import jsonl

pytestmark = pytest.mark.slow

ROWS = re.findall(
    r"^\| `([^`]+)` \|.*\| (right|right, slow|refused)(?:: [^|]*)? \|$", (ROOT / "docs/models.md").read_text(), re.M
)
SMALL = {  # what names of settings are set to, where a family has them
    64: "hidden_size d_model n_embd n_embed embed_dim embedding_size word_embed_proj_dim emb_dim lru_width project_dim "
        "attention_hidden_size embedding_dim",
    96: "intermediate_size ffn_dim d_ff ffn_hidden_size decoder_ffn_dim n_inner dff shared_intermediate_size "
        "block_ff_dim intermediate_size_mlp",
    48: "moe_intermediate_size shared_expert_intermediate_size",
    2: "num_hidden_layers n_layer num_layers n_layers decoder_layers num_key_value_heads num_kv_heads "
       "num_experts_per_tok n_mamba_heads linear_num_key_heads index_n_heads mamba_expand expand",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads num_experts num_local_experts "
       "n_routed_experts moe_num_experts mamba_n_heads mamba_num_heads linear_num_value_heads",
    1: "encoder_layers n_group topk_group mamba_n_groups n_groups first_k_dense_replace num_dense_layers",
    16: "head_dim q_lora_rank kv_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim mamba_d_state state_size "
        "ssm_state_size chunk_size mamba_chunk_size linear_key_head_dim linear_value_head_dim rotary_dim "
        "hidden_size_per_layer_input",
    32: "mamba_d_head mamba_head_dim index_head_dim",
    8: "sliding_window index_topk time_step_rank",
    128: "mamba_d_ssm",
    1024: "max_position_embeddings n_positions max_seq_len n_ctx",
    288: "vocab_size vocab_size_per_layer_input",
    0.1: "initializer_range init_std",
    275: "pad_token_id", 276: "eos_token_id", 0: "bos_token_id",
}  # fmt: skip
SMALL = {name: value for value, names in SMALL.items() for name in names.split()}
SMALL |= {"is_decoder": True, "tie_word_embeddings": False}
BOTH = {"layer_types": ["linear_attention", "full_attention"]}
WINDOW = {"layer_types": ["sliding_attention", "full_attention"]}
VISION = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
)
OWN = {  # what a family wants otherwise; None: its own default
    **dict.fromkeys(
        "deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa minicpm3".split(), {"num_key_value_heads": 4}
    ),
    **dict.fromkeys("qwen3_next qwen3_5_text qwen3_5_moe_text minimax olmo_hybrid".split(), BOTH),
    **dict.fromkeys("gemma2 gemma3_text cohere2 gpt_oss ministral exaone4 olmo3".split(), WINDOW),
    "bamba": {"attn_layer_indices": [1]},
    "gemma3": WINDOW | {"vision_config": VISION | {"model_type": "siglip_vision_model"}, "mm_tokens_per_image": 4},
    "gemma3n_text": WINDOW | {"num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0, 0.0]},
    "gemma4_text": WINDOW | {"head_dim": None},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    **dict.fromkeys("granite granitemoe".split(), {"logits_scaling": 8.0}),  # as published
    "falcon_h1": {"lm_head_multiplier": 0.02},  # likewise
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"head_dim": 32},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"]},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "xlstm": {"v_head_dim": None},
    "zamba": {"num_hidden_layers": 3, "attn_layer_period": 2, "attn_layer_offset": 1, "attention_hidden_size": 128},
    "falcon": {"head_dim": None},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1, "n_mamba_heads": 4,
               "attention_hidden_size": 128, "attention_head_dim": 32},
}  # fmt: skip
SHORT = dict(
    train_data="arithmetic", eval_data="arithmetic", prompts_per_step=2, group_size=2, max_response_tokens=8,
    max_problems=2, samples=1, eval_start=False, eval_every=9, save_every=1, show_every=9, lr=1e-3,
)  # fmt: skip


def make(family, folder):
    """A tiny random model of the family beside the embedded tokenizer."""
    torch.manual_seed(0)
    kind = CONFIG_MAPPING[family]
    default = kind()
    nested = "text_config" in kind.sub_configs
    text = default.get_text_config(decoder=True) if nested else default
    own = OWN.get(family, {})
    keep = {name for name, value in own.items() if value is None}
    plain = {k: v for k, v in SMALL.items() if k not in keep and isinstance(getattr(text, k, ()), int | float | None)}
    settings = plain | {
        k: v for k, v in own.items() if v is not None and k not in ("vision_config", "mm_tokens_per_image")
    }
    if nested:
        settings = {"text_config": settings} | {k: own[k] for k in ("vision_config", "mm_tokens_per_image") if k in own}
        settings |= {k: SMALL[k] for k in ("pad_token_id", "eos_token_id", "bos_token_id", "tie_word_embeddings")}
    model = AutoModelForCausalLM.from_config(kind(**settings)).float()
    assert sum(p.numel() for p in model.parameters()) < 5e6
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(config.TINY_MODEL).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family, expected", ROWS)
def test_a_family_ends_as_the_page_says(family, expected, tmp_path, capsys, monkeypatch):
    path, run_dir = str(make(family, tmp_path / "model")), str(tmp_path / "run")
    transformers.utils.logging.set_verbosity_error()
    grade = reward.grade_rollouts

    def half_right(*args, **settings):  # a random model is never right, and would have no gradient
        return [dataclasses.replace(r, correct=r.sample % 2 == 0) for r in grade(*args, **settings)]

    monkeypatch.setattr(reward, "grade_rollouts", half_right)
    capsys.readouterr()
    try:
        for steps in (2, 3):  # the second start goes on from a checkpoint
            train.train(config.make("tiny", model=path, run_dir=run_dir, steps=steps, **SHORT), DistContext())
        asked = dict(datasets=("arithmetic",), max_problems=2, samples=1, max_response_tokens=8)
        saved = f"{run_dir}/checkpoints/step_3"
        evaluation.run(evaluation.Config(model=saved, output_dir=f"{run_dir}/eval", **asked), DistContext())
    except FloatingPointError as error:  # found by the first step alone
        assert expected == "refused" and "does not compute what the trainer computes" in str(error)
        return
    except SystemExit as stop:
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert expected == "refused" and stop.code == 2 and len(errors) == 1, errors
        assert "ForCausalLM" in errors[0] or "LMHead" in errors[0] or "ForConditional" in errors[0], errors
        return
    records = jsonl.read(f"{run_dir}/metrics.jsonl")
    assert [r["step"] for r in records] == [1, 2, 3] and all(r["sampler_gap"] < 1e-4 for r in records), records
    assert all(r["grad_norm"] > 0 for r in records)
    slow = "each token reads the whole text again" in capsys.readouterr().out
    assert expected == ("right, slow" if slow else "right")


def test_the_page_names_at_least_forty_families():
    assert len(dict(ROWS)) == len(ROWS) >= 40
    assert len([outcome for _, outcome in ROWS if outcome != "refused"]) >= 40


HALF_RIGHT = """
import dataclasses, sys
import reward, train
grade = reward.grade_rollouts
def half_right(*args, **settings):  # a random model is never right, and would have no gradient
    return [dataclasses.replace(r, correct=r.sample % 2 == 0) for r in grade(*args, **settings)]
reward.grade_rollouts = half_right
if __name__ == "__main__":
    train.main(sys.argv[1:])
"""


@pytest.mark.parametrize("family", ["gemma3", "qwen3_moe"])
def test_parts_without_a_gradient_do_not_stop_two_ranks(family, tmp_path):
    """Gemma 3's vision tower, which no text reaches, and experts, which some texts do not: two ranks train as one."""
    model, steps = make(family, tmp_path / "model"), []
    (tmp_path / "half_right.py").write_text(HALF_RIGHT)
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in SHORT.items() if k != "eval_start"]
    for ranks in (1, 2):
        launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}"]
        command = [
            *launcher,
            str(tmp_path / "half_right.py"),
            *flags,
            "--no-eval-start",
            f"--model={model}",
            "--steps=2",
        ]
        command.append(f"--run-dir={tmp_path}/{ranks}")
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        assert ("model.vision_tower has no part" in done.stdout) == (family == "gemma3")
        steps.append(jsonl.read(tmp_path / str(ranks) / "metrics.jsonl"))
    assert len(steps[0]) == 2 and steps[0][0]["grad_norm"] > 0
    for one, two in zip(*steps, strict=True):
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-3)
