"""docs/extend.md is true: its code, put where it says, gives a method and a preference that train."""

import importlib
import importlib.util
import multiprocessing
import re
import sys

import torch

from conftest import ROOT

FILES = {"penalties": "ROWS", "discriminative": "PREFERENCES"}  # where the page puts its blocks: the file's table
READERS = (
    "minidrpo.methods.several",
    "minidrpo.methods.table",
    "minidrpo.rundir.card",
    "minidrpo.rundir.outlook",
    "config",
    "minidrpo.setup",
    "train",
    "experiments.credit",
)


def extended():
    """{file: its source with the page's blocks in it}."""
    page = (ROOT / "docs" / "extend.md").read_text()
    blocks, sources = iter(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), {}
    for name, table in FILES.items():
        source = (ROOT / "minidrpo" / "methods" / f"{name}.py").read_text()
        (start,) = re.findall(rf"^{table} = {{.*\n", source, re.MULTILINE)
        function, row = next(blocks), next(blocks)
        sources[name] = source.replace(start, f"{function}\n\n{start}{row}")
    return sources


def use(folder, results):
    """In a process of its own: import the extended files in the place of ours, weigh, train."""
    for name in READERS:
        sys.modules.pop(name, None)
        package, _, last = name.rpartition(".")
        if package in sys.modules:  # else `from package import last` would find the old module there
            vars(sys.modules[package]).pop(last, None)
    for name in reversed(FILES):  # discriminative first: penalties imports it
        spec = importlib.util.spec_from_file_location(f"minidrpo.methods.{name}", folder / f"{name}.py")
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        setattr(sys.modules["minidrpo.methods"], name, module)
    table, config, train = map(importlib.import_module, ("minidrpo.methods.table", "config", "train"))
    credit = importlib.import_module("experiments.credit")
    correct_PG, length_PG = torch.tensor([[True, True, False, False]]), torch.tensor([[10, 30, 20, 10]])
    batch = table.Batch(correct_PG, length_PG, ["a", "a\nb\n", "a", "a"], torch.tensor([0]))
    results.put(table.METHODS["kimi"].reward(batch, config.make("tiny", "kimi"), {}).tolist())
    results.put(sys.modules["minidrpo.methods.discriminative"].PREFERENCES["lines"](batch, config.TINY).tolist())
    results.put(credit.credit_table(credit.figure_1())["kimi"].tolist())
    for flags in (["--method=kimi", "--alpha=0.5"], ["--preference=lines"]):
        small = ["--steps=1", "--prompts-per-step=4", "--group-size=4", "--max-response-tokens=64", "--samples=1"]
        rest = ["--max-problems=1", "--no-eval-start", f"--run-dir={folder}/run{flags[0]}"]
        train.main([*flags, *small, *rest])


def test_the_pages_examples_work(tmp_path):
    for name, source in extended().items():
        (tmp_path / f"{name}.py").write_text(source)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=use, args=(tmp_path, results))
    process.start()
    process.join()
    assert process.exitcode == 0
    torch.testing.assert_close(torch.tensor(results.get()), torch.tensor([[1.1, 0.9, 0, 0]]))  # alpha is .2
    assert results.get() == [[1.0, 0.5, 1.0, 1.0]]
    third = results.get()[0][2]
    assert -2 < third < 2
    for name in ("run--method=kimi", "run--preference=lines"):
        assert (tmp_path / name / "checkpoints" / "step_1" / "model.safetensors").exists()
