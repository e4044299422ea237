"""docs/extend.md is true: its code, put where it says, gives a method and a preference that train."""

import importlib
import importlib.util
import multiprocessing
import re
import sys

import torch

from conftest import ROOT

# What reads the tables, and its readers
AFTER_METHODS = ("minidrpo.engine.update", "config", "minidrpo.rundir.report", "train", "experiments.credit")


def extended_methods():
    """methods.py with the page's four blocks in it."""
    page = (ROOT / "docs" / "extend.md").read_text()
    reward, row, preference, preference_row = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    source = (ROOT / "minidrpo" / "methods" / "table.py").read_text()
    for table, function, line in (("METHODS", reward, row), ("PREFERENCES", preference, preference_row)):
        (start,) = re.findall(rf"^{table} = {{.*\n", source, re.MULTILINE)
        source = source.replace(start, f"{function}\n\n{start}{line}")
    return source


def use(folder, results):
    """In a process of its own: import the extended file in the place of ours, weigh, train."""
    spec = importlib.util.spec_from_file_location("minidrpo.methods.table", folder / "table.py")
    methods = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(methods)
    sys.modules["minidrpo.methods"].table = methods
    for name in AFTER_METHODS:
        sys.modules.pop(name, None)
    config, credit, train = map(importlib.import_module, ("config", "experiments.credit", "train"))
    correct_PG, length_PG = torch.tensor([[True, True, False, False]]), torch.tensor([[10, 30, 20, 10]])
    batch = methods.Batch(correct_PG, length_PG, ["a", "a\nb\n", "a", "a"], torch.tensor([0]))
    cfg = config.TINY
    results.put(methods.METHODS["kimi"].reward(batch, cfg, {}).tolist())
    results.put(methods.PREFERENCES["lines"](batch, cfg).tolist())
    results.put(credit.credit_table(credit.figure_1())["kimi"].tolist())
    train.report.Run.finish = lambda self: None  # no figures
    for flags in (["--method=kimi", "--alpha=0.5"], ["--preference=lines"]):
        train.main([*flags, "--steps=1", "--prompts-per-step=4", "--group-size=4", "--max-response-tokens=64",
                    "--max-problems=1", "--samples=1", "--no-eval-start",
                    f"--run-dir={folder}/run{flags[0]}"])  # fmt: skip


def test_the_pages_examples_work(tmp_path):
    (tmp_path / "table.py").write_text(extended_methods())
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
