"""experiments/mode_model.py: what the smallest policy says of the methods; its file of predictions is its own."""

import pandas as pd
import pytest

import config
from experiments import mode_model, push


def test_a_std_in_solved_groups_collapses_hard_prompts_and_nothing_else_of_the_penalty_does():
    """80 % easy prompts, almost all parameters shared: the same penalty, with one thing changed each."""
    hard = {
        label: mode_model.train(method, 0.8, 0.98, steps=40, **settings)["accuracy_hard"]
        for label, (method, settings) in mode_model.METHODS.items()
        if label in ("GRPO-LP α .1", "no std", "std, mixed groups only", "batch std", "DRPO λ .1")
    }
    assert hard.pop("GRPO-LP α .1") < 0.4
    assert min(hard.values()) > 0.85, hard


def test_without_shared_parameters_there_is_no_leak():
    apart = mode_model.train("grpo-lp", 0.8, 0.0, steps=40, alpha=0.1)
    assert apart["accuracy_hard"] > 0.9 and apart["short_easy"] > 0.8  # each class gets its own way


def test_the_corner():
    """A zero-sum preference in solved groups tells the classes apart in time; DRPO alone does not."""
    ours = mode_model.train("drpo-solved", 0.8, 0.98, steps=200, solved_mu=1.0)
    assert ours["length_easy"] < 25 and ours["accuracy_hard"] > 0.9
    assert mode_model.train("drpo", 0.8, 0.98, steps=200)["short_easy"] < 0.1


@pytest.mark.parametrize("label", ["GRPO-LP α .1", "DRPO λ .1"])
def test_the_committed_predictions_are_those_of_the_code(label):
    rows = pd.read_csv(mode_model.OUT / "map_predicted.csv").query("label == @label and steps == @mode_model.STEPS")
    row = rows.query("share == 0.8 and sharing == @mode_model.MEASURED").iloc[0]
    again = mode_model.predict({label: mode_model.METHODS[label]}, mode_model.STEPS, (0.8,), (mode_model.MEASURED,))
    again = again.iloc[0]
    assert row["accuracy_hard"] == pytest.approx(again["accuracy_hard"], abs=0.02)


def test_what_the_text_says_of_the_two_cells_that_differ():
    """A batch's std is a group's where no group is mixed; how often that is hangs on how sure the short way is."""
    cfg = config.make("thinking", "grpo-lp-batch-std", alpha=0.1)
    sure = mode_model.World(right=((1.0, 1.0), mode_model.World().right[1]))
    together = {}
    for name, world in (("given", None), ("sure", sure)):
        found = [push.push(*batch, cfg) for batch in push.model_batches(0.95, world)]
        together[name] = sum(map(sum, found)) / len(found)
        assert sum(solved for solved, _, _ in found) > 0, "solved groups push towards the short way"
        assert sum(hard for _, _, hard in found) < 0, "mixed hard groups push towards the long one"
    assert together["given"] < 0 < together["sure"]
    settings = {"alpha": 0.1, "steps": 40}
    ends = [
        mode_model.train("grpo-lp-batch-std", 0.95, mode_model.MEASURED, world=world, **settings)["accuracy_hard"]
        for world in (None, sure)
    ]
    assert ends[1] < 0.5 < ends[0]


def test_the_committed_table_of_pushes_is_that_of_the_code():
    for (method, share), settings in push.CELLS.items():
        row = push.describe(push.model_batches(share), method, settings)
        line = f"| {push.NAMES[method]} | {share:g} | model | {' | '.join(row.values())} |"
        assert line in (mode_model.OUT / "push.md").read_text(), line
