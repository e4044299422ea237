"""experiments/mode_model.py: what the smallest policy says of the methods; its file of predictions is its own."""

import pandas as pd
import pytest

from experiments import mode_model


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
