"""loading.py - a causal LM and its tokenizer, from safetensors only, or one line that says why not."""

import math
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from minidrpo.engine import probe
from minidrpo.files import check_model_directory

# Tables that older files hold beside the weights
MASKS = re.compile(r"(attn|attention)\.bias$|\.(masked_bias|causal_mask|inv_freq)$")


def load_tokenizer(path: str | Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer beside the model, local directory or Hub id. Raises ValueError in one line."""
    path = os.path.expanduser(path)
    check_model_directory(path)
    if Path(path).is_dir() and not any(Path(path).glob("tokenizer*")):  # Transformers would make an empty one
        raise ValueError(f"no tokenizer at {path}: the directory holds no tokenizer files")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        something = tokenizer("1 + 1", add_special_tokens=False)["input_ids"]
    except Exception as error:  # each kind of tokenizer has errors of its own for files that are not as they should be
        read_config(path, trust_remote_code)  # its fault, maybe: it is read first
        raise ValueError(f"no tokenizer at {path}: {_one_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer at {path} has no end token (eos_token), so no response could ever end")
    if not something:
        raise ValueError(
            f"the tokenizer at {path} makes nothing of a text: is its tokenizer.json or vocabulary missing?"
        )
    _check_spaces(tokenizer, path)
    return tokenizer


def read_config(path: str | Path, trust_remote_code: bool = False) -> PretrainedConfig:
    """What the model's config.json says. Raises ValueError in one line."""
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever Transformers' readers raise
        raise ValueError(f"the config.json of {path} cannot be used: {_one_line(error)}") from error


def check_ids(prompts: Iterable[Sequence[int]], vocabulary: int, path: str | Path) -> None:
    """ValueError for a prompt with a token id that the model has no row for."""
    if max(map(max, prompts)) >= vocabulary:
        raise ValueError(f"the tokenizer of {path} makes ids past the model's vocabulary of {vocabulary}")


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
    check_model_directory(path)
    info = None
    try:
        if device == "meta":
            config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
        else:
            model, info = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # _check_weights names them
            )
    except (
        Exception
    ) as error:  # 180 architectures' readers, each with errors of its own for files that are not its kind
        raise ValueError(f"no causal language model at {path}: {_one_line(error)}") from error
    _remove_dropout(model)
    if info:
        _check_weights(model, info, path)
        if getattr(model.config, "quantization_config", None) is None:
            _check_dtypes(path)
        try:
            probe.check_model(model)
        except ValueError as error:
            raise ValueError(f"the model at {path} cannot be used: {error}") from error
    return model.to(device)


def _check_weights(model, info, path):
    """Transformers makes up what the files lack, and passes over what config.json does not ask for."""
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"the files of {path} lack {len(missing)} of the model's weights: {', '.join(missing[:3])}")
    for name, stored, wanted in sorted(map(tuple, info["mismatched_keys"])):
        raise ValueError(f"{path}: {name} is {tuple(stored)} in the files and {tuple(wanted)} by config.json")
    # A layer more than config.json says, or a bias, a scale, a norm more in a part that the model has. Other extras (a
    # value head, say) do no harm, and Transformers lists them; it passes over rotary tables by itself
    kinds = {re.sub(r"\d+", "N", name) for name in model.state_dict()}
    parts = {
        name
        for name, part in model.named_modules()
        if name and (re.search(r"\d", name) or next(part.parameters(recurse=False), None) is not None)
    }

    def belongs(name):
        words = name.split(".")
        inside = any(".".join(words[:n]) in parts for n in range(1, len(words)))
        return re.sub(r"\d+", "N", name) in kinds or inside and not MASKS.search(name)

    if beyond := sorted(filter(belongs, info["unexpected_keys"])):
        raise ValueError(f"config.json of {path} leaves out {len(beyond)} weights of the files, such as {beyond[0]}")


def _check_dtypes(path):
    """Integers become floats at load without their scales: numbers of another model. The files' headers alone are read.
    A quantized model that says so in its config.json has a reader of its own."""
    config = cached_file(path, "config.json")
    for file in sorted(Path(config).parent.glob("model*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():
                kind = weights.get_slice(name).get_dtype()
                if name.endswith((".weight", "_proj")) and re.match("[IU]|BOOL", kind):
                    raise ValueError(f"{file}: {name} is stored as {kind}: want a model that is not quantized")


def _remove_dropout(model):
    """Dropout would make the trained policy another one than the sampled one (and PPO-style ratios differ from 1)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _one_line(error, limit=300):
    text = " ".join(str(error).split())
    if not isinstance(error, OSError | ValueError):
        text = f"{type(error).__name__}: {text}"
    return text[:limit]


def context_of(config: PretrainedConfig, model: nn.Module | None = None) -> tuple[float, str]:
    """(tokens that a prompt and its response may have together, inf if there is no limit; what sets the limit).

    Where rotary frequencies change with the length (longrope, dynamic NTK), the context ends at the change: the keys
    in a cache keep the old ones, and a row's numbers would depend on its neighbours' lengths. model: its tables of
    positions count, too, where some rows are taken for padding (RoBERTa's)."""
    text, limits = config.get_text_config(decoder=True), [(math.inf, "")]
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions"):
        if type(size := getattr(text, name, None)) is int and size > 0:
            limits.append((size, "the model's context"))
    rope = getattr(text, "rope_parameters", None) or {}
    for part in (rope, *rope.values()):  # some have one for each type of layer
        kind = str(part.get("rope_type")) if isinstance(part, dict) else ""
        if kind == "longrope" or "dynamic" in kind:
            size = part.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", 0)
            limits += [(size, f"where its rotary frequencies change, {kind}")] if size else []
    for name, module in model.named_modules() if model else ():
        if isinstance(module, nn.Embedding) and module.weight.requires_grad and re.search(r"wpe|(?<!rel_)pos", name):
            taken = getattr(module, "offset", 0) or (0 if module.padding_idx is None else module.padding_idx + 1)
            limits.append((module.num_embeddings - taken, f"the table {name}"))
    return min(limits)


def eos_token_ids(
    config: PretrainedConfig,
    generation_config: GenerationConfig | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> list[int]:
    """Every token id that ends a response, sorted: the generation config's (else the config's), the tokenizer's."""
    named = getattr(generation_config, "eos_token_id", None)
    named = getattr(config, "eos_token_id", None) if named is None else named
    named = list(named) if isinstance(named, list | tuple) else [named]
    ids = [i for i in (*named, getattr(tokenizer, "eos_token_id", None)) if i is not None]
    for i in ids:
        if type(i) is not int or i < 0:
            raise ValueError(f"an end-of-sequence token of the model's files is {i!r}, not a token id")
    if not ids:
        raise ValueError("neither the generation config nor the tokenizer names an end-of-sequence token")
    return sorted(set(ids))


def keep_savable(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str | Path, write: bool = True
) -> list[str]:
    """What is read from a model's files must be writable into a checkpoint and come back the same: tried here, before
    the first step, with all but the weights. Returns notes on what was left out; ValueError if it cannot be written.
    write: try it; among several ranks Transformers writes models on rank 0 alone."""
    notes, ours = [], getattr(model, "generation_config", None)
    if ours is not None:
        ours.do_sample = True  # as we use it; else a temperature there could not be saved again
        try:
            ours.validate(strict=True)
        except ValueError as error:
            ids = {name: getattr(ours, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
            ids = {name: i for name, i in ids.items() if isinstance(i, list) or (type(i) is int and i >= 0)}
            model.generation_config = GenerationConfig(do_sample=True, **ids)
            notes.append(
                f"the generation settings of {path} cannot be saved, token ids alone are kept: {_one_line(error)}"
            )
    if not write:
        return notes
    try:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder, state_dict={})
            tokenizer.save_pretrained(folder)
            AutoConfig.from_pretrained(folder)
            again = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # whatever a checkpoint would meet
        raise ValueError(f"what {path} says could not be saved in a checkpoint: {_one_line(error)}") from error
    text = "What is 1 + 1?\n\\boxed{2}"
    if again(text)["input_ids"] != tokenizer(text)["input_ids"] or again.chat_template != tokenizer.chat_template:
        raise ValueError(f"the tokenizer of {path} comes back as another one when it is saved")
    return notes
