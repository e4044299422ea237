"""loading.py - a causal LM and its tokenizer, from safetensors only, or one line that says why not."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file


def load_tokenizer(path: str | Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer beside the model, local directory or Hub id. Raises ValueError in one line."""
    path = os.path.expanduser(path)
    _check_local(path)
    if Path(path).is_dir() and not any(Path(path).glob("tokenizer*")):  # Transformers would make an empty one
        raise ValueError(f"no tokenizer at {path}: the directory holds no tokenizer files")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(f"no tokenizer at {path}: {_first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer at {path} has no end token (eos_token), so no response could ever end")
    _check_spaces(tokenizer, path)
    return tokenizer


def _check_spaces(tokenizer, path, text="1 + 1"):
    """Transformers 5 takes a byte-level tokenizer.json beside a Llama config for SentencePiece's and loses spaces."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if " " in tokenizer.decode(ids):
        return
    file = cached_file(path, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    if file and ids != Tokenizer.from_file(file).encode(text, add_special_tokens=False).ids:
        raise ValueError(f"{file} is misread: {text!r} comes back without spaces; see tokenizer_class beside it")


def load_model(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A causal LM, from safetensors only; remote code stays off unless asked for. On the "meta" device it has shapes
    and no numbers: its weights are not read. Raises ValueError in one line."""
    path = os.path.expanduser(path)
    _check_local(path)
    try:
        if device == "meta":
            config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
        else:
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code
            )
        model.generation_config.do_sample = True  # as we use it; else a temperature there could not be saved again
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"no causal language model at {path}: {_first_line(error)}") from error
    _remove_dropout(model)
    if device != "meta":
        _check_head(model, path)
    return model.to(device)


def _remove_dropout(model):
    """Dropout would make the trained policy another one than the sampled one (and PPO-style ratios differ from 1)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


@torch.no_grad()
def _check_head(model, path):
    """Policy applies the head itself, in chunks; some architectures rescale or cap their logits after it."""
    ids = torch.tensor([[1, 2]])
    ours = model.get_output_embeddings()(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.allclose(ours, model(input_ids=ids, use_cache=False).logits, rtol=1e-2, atol=1e-2):
        raise ValueError(f"the model at {path} changes its logits after the output head, which policy.py does not do")


def _check_local(path):
    looks_local = str(path).startswith((".", "/", "~")) or Path(path).exists() or str(path).count("/") > 1
    if looks_local and not (Path(path) / "config.json").is_file():
        problem = "holds no config.json" if Path(path).is_dir() else "does not exist"
        raise ValueError(f"model directory {path} {problem}")


def _first_line(error):
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
