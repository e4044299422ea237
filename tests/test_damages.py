"""About 250 damages of a checkpoint's files, one at a time: each is read right or refused in one line."""

import json
import shutil

import pytest
import torch

from conftest import ROOT
from minidrpo.engine import loading
from minidrpo.records import Problem
from minidrpo.rundir import checkpoint
from minidrpo.tasks import data

OTHERS = [b"", b"[]", b"{}", b"null", b"3", b'"x"', b"{", b"\xff\xfe", b"[" * 10**5, b"1" * 5001, b"\0" * 100]


def damages(path):
    """{name: other bytes for the file}"""
    raw = path.read_bytes()
    found = {f"other {i}": other for i, other in enumerate(OTHERS)}
    found |= {"half": raw[: len(raw) // 2], "less": raw[:-1], "more": raw + b"x"}
    if path.suffix == ".safetensors":
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + size])
        name = next((name for name in header if name != "__metadata__"), None)
        own = header.get(name)
        changes = (
            {"shape": {name: own | {"shape": [*own["shape"][::-1], 1]}}, "dtype": {name: own | {"dtype": "I32"}}}
            if own
            else {}
        )
        for key, change in (changes | {"format": {"__metadata__": {"format": "xx"}}}).items():
            text = json.dumps(header | change).encode()
            found[key] = len(text).to_bytes(8, "little") + text + raw[8 + size :]
        found["size"] = (2**60).to_bytes(8, "little") + raw[8:]
    elif path.suffix == ".json":
        values = json.loads(raw)
        for i, key in enumerate(values):
            x = (None, [], {}, "x", -1, 1e30, True)[i % 7]
            found[f"{key} is {x}"] = json.dumps(values | {key: x}).encode()
    return found


@pytest.mark.slow
def test_every_damage_is_one_line(tmp_path):
    tiny, problem = ROOT / "minidrpo" / "tiny", Problem("1+1=?", "2", "own", 0)
    model = loading.load_model(tiny)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoint.save(tmp_path, 1, model, loading.load_tokenizer(tiny), optimizer, {"a": torch.zeros(3)})
    whole, damaged = checkpoint.newest(tmp_path), tmp_path / "copy" / "step_1"
    wrong, tried = [], 0
    for path in sorted(path for path in whole.rglob("*") if path.is_file()):
        for name, content in damages(path).items():
            shutil.rmtree(damaged, ignore_errors=True)
            shutil.copytree(whole, damaged)
            (damaged / path.relative_to(whole)).write_bytes(content)
            tried += 1
            try:
                data.encode_prompts([problem], loading.load_tokenizer(damaged), max_tokens=99)
                again = loading.load_model(damaged)
                checkpoint.restore_optimizer(damaged, again, torch.optim.AdamW(again.parameters()))
                checkpoint.restore_state(damaged)
            except ValueError as error:
                if "\n" in str(error).strip():
                    wrong.append((path.name, name, str(error)))
            except Exception as error:  # a traceback for the user
                wrong.append((path.name, name, repr(error)))
    assert wrong == [] and tried > 100
