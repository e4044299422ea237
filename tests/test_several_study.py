"""The study of several rewards: its cells and settings, how a learning rate is judged, its figures and its table."""

import dataclasses
import itertools
from pathlib import Path

import pandas as pd
import pytest

import config
from conftest import ROOT
from experiments import several_plots, study_cells, study_rows
from experiments import study as studies
from experiments.study_cells import SEVERAL, WORLDS, World
from minidrpo.records import GradedResponse
from minidrpo.rundir import jsonl
from minidrpo.tasks import programs

HERE = [name for name, world in WORLDS.items() if world.task]


@pytest.mark.parametrize("name", HERE)
def test_three_methods_are_compared_with_equal_budgets_and_three_seeds(name):
    study = studies.PRESETS[name][1]
    configs = [(c, studies.run_config(study, c, 1e-4, "study")) for c in WORLDS[name].parts["compare"]]
    assert {(c.method, c.seed) for c, _ in configs} == set(itertools.product(SEVERAL, range(3)))
    for _, cfg in configs:
        assert cfg.rewards == WORLDS[name].task.REWARDS and cfg.reward_weights == ()
    free = {"method", "seed", "norm_std", "std", "eps", "gdpo_over", "run_dir"}
    shared = [{k: v for k, v in dataclasses.asdict(cfg).items() if k not in free} for _, cfg in configs]
    common = set.intersection(*(set(own) for own in shared))
    assert all(len({repr(own[key]) for own in shared}) == 1 for key in common)


def test_the_weight_is_that_of_the_length_reward_alone():
    study, world = studies.PRESETS["programs"][1], WORLDS["programs"]
    cells = world.parts["weights"]
    assert {c.method for c in cells} == {"gdpo", "grpo-sum"} and {c.seed for c in cells} == {0, 1}
    for cell in cells:
        cfg = studies.run_config(study, cell, 1e-4, "study")
        kind = "length" if cell.rewards else "conditioned_length"
        assert dict(zip(cfg.rewards, cfg.reward_weights, strict=True)) == {
            "pass_rate": 1, kind: cell.strength, "no_bug": 1,
        }  # fmt: skip
    raw, own = ({c.strength for c in cells if bool(c.rewards) == there} for there in (True, False))
    assert raw == own | {1.0} == set(study_cells.WEIGHTS), "weight 1 of the task's own rewards is compared already"


def response(problem, sample, correct, length, **scores):
    reason = "correct" if correct else "wrong"
    return GradedResponse("validation", problem, sample, "", length, True, correct, reason, "", scores)


def test_a_learning_rate_is_judged_by_the_mean_of_the_rewards(tmp_path):
    study = dataclasses.replace(studies.PRESETS["programs"][1], dir=str(tmp_path))
    limit = studies.run_config(study, WORLDS["programs"].cells()[0], 1e-4, "lr").length_limit
    ends = {1e-4: (1.0, limit + 1, 0.0), 2e-4: (0.5, limit, 1.0), 4e-4: None, 8e-4: None}  # pass rate, length, no bug
    for cfg, _ in studies.tuning(study, ["gdpo"]):
        if end := ends[cfg.lr]:
            rate, length, bug_free = end
            own = [response(i // 2, i % 2, i == 0, length, pass_rate=rate, no_bug=bug_free) for i in range(4)]
            Path(cfg.run_dir).mkdir(parents=True)
            jsonl.write(study_rows.responses_file(cfg), (r.as_dict() for r in own))
            jsonl.write(Path(cfg.run_dir) / "evals.jsonl", [{"step": cfg.steps, "accuracy": 0.25, "mean_length": 9}])
            short = 0.25 if length <= limit else 0  # one of four is right
            assert study_rows.mean_reward(cfg) == pytest.approx((rate + short + bug_free) / 3)
    base = Path(studies.base_config(study, "lr").run_dir)
    base.mkdir()
    jsonl.write(base / "evals.jsonl", [{"step": 0, "accuracy": 0.5, "mean_length": 9}])
    assert studies.choose_lr(study, "gdpo") == 2e-4


# ---- figures and table ----------------------------------------------------------------------------------------------


def rows(weights=True):
    """Three runs per cell: GDPO ends at 90, 91, 92 % correct, the others at 80, 82, 84 and 70, 70, 70 %."""
    ends = {"gdpo": (0.90, 0.91, 0.92), "grpo-sum": (0.80, 0.82, 0.84), "grpo-sum-no-std": (0.70, 0.70, 0.70)}
    cells = [(method, None, "") for method in ends]
    cells += [(m, w, r) for m in ("gdpo", "grpo-sum") for w in (0.5, 2.0) for r in ("", "pass_rate length no_bug")]
    for method, strength, rewarded in cells if weights else cells[:3]:
        for seed in range(3):
            head = {"method": method, "strength": strength, "rewarded": rewarded, "seed": seed, "lr": 2e-4}
            head |= {"role": "study", "group": "all", "exceed": 0.25, "no_bug": 0.9, "mean_length": 11.0}
            for step in range(1, 9):
                yield head | {"phase": "train", "step": step, "accuracy": 0.5 + 0.05 * step}
            yield head | {"phase": "held out", "step": 8, "accuracy": ends[method][seed]}
    for rate, method in itertools.product((1e-4, 2e-4), ends):
        head = {"method": method, "strength": None, "rewarded": "", "seed": 0, "lr": rate, "role": "lr", "group": "all"}
        for step in range(1, 9):
            yield head | {"phase": "train", "step": step, "accuracy": 0.5 + 500 * rate, "exceed": 0.25}
    yield {"method": "base", "role": "study", "group": "all", "phase": "held out", "step": 0, "accuracy": 0.5,
           "exceed": 0.4, "no_bug": 0.8, "mean_length": 12.0}  # fmt: skip


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "programs.csv"
    pd.DataFrame(rows()).to_csv(path, index=False)
    return path


@pytest.mark.slow
def test_figures_and_table_are_written(study_file, tmp_path):
    several_plots.write_all(study_file, tmp_path, tmp_path / "programs.png")
    assert (tmp_path / "programs.png").stat().st_size > 10_000
    assert (tmp_path / "programs_weights.png").stat().st_size > 10_000
    text = (tmp_path / "programs.md").read_text()
    assert "| base |  | 1 |  | 50.0 | 20.0 | 40.0 | 12.0 |" in text
    assert "| GDPO | as the task names it | 3 | 0.0002 | 91.0 ± 0.6 | 10.0 ± 0.0 | 25.0 ± 0.0 | 11.0 ± 0.0 |" in text
    assert "| GRPO on the sum | without a condition, weight 0.5 | 3 |" in text
    assert "| GDPO minus GRPO on the sum |  |  |  | 9.0 ± 0.6 | 0.0 ± 0.0 |" in text
    assert "| 0.0002 | GRPO on the sum | 60.0 | 25.0 |" in text and "| 0.0001 | GDPO | 55.0 | 25.0 |" in text


def test_weight_1_is_the_comparison_s_own_run(study_file):
    fig = several_plots.over_weights(several_plots.read(study_file), study_file.with_suffix(".png"))
    (own,) = [c for c in fig.axes[1].containers if c.get_label() == "GDPO, short and all tests pass"]
    assert list(own.lines[0].get_ydata()) == pytest.approx([91, 91, 91]) and len(own.lines[0].get_xdata()) == 3
    (raw,) = [c for c in fig.axes[1].containers if c.get_label() == "GDPO, every short response"]
    assert len(raw.lines[0].get_xdata()) == 2


def test_without_a_sweep_there_is_one_figure(tmp_path, capsys):
    path = tmp_path / "tools.csv"
    pd.DataFrame(rows(weights=False)).to_csv(path, index=False)
    several_plots.main([str(path)])
    assert "no run with another weight" in capsys.readouterr().out and not (tmp_path / "tools_weights.png").exists()


def test_another_study_is_refused_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        several_plots.main(["experiments/results/study.csv"])
    assert stop.value.code == 2 and "not a study of several rewards" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "experiments/results").glob("*.csv")), ids=lambda path: path.stem)
def test_the_committed_table_is_that_of_the_committed_runs(path):
    if path.stem not in HERE:
        return
    rows, tuning = several_plots.read(path), several_plots.read(path, "lr")
    table = path.with_suffix(".md").read_text()
    assert several_plots.markdown(rows) in table
    assert not len(tuning) or several_plots.at_equal_rates(tuning) in table


def test_what_the_page_says_of_programs_is_in_the_file():
    page = (ROOT / "docs/several_rewards.md").read_text().split("## Programs: what came out")[1]
    ends = several_plots.ends(several_plots.read(ROOT / "experiments/results/programs.csv"))
    for method, weight, raw, key in itertools.product(
        ("gdpo", "grpo-sum"), (0.25, 1.0, 4.0), (False, True), ("accuracy",)
    ):
        own = ends[(ends.method == method) & ((ends.rewarded != "") == raw) & (ends.strength.fillna(1.0) == weight)]
        assert several_plots._plus_minus(own[key]) in page, (method, weight, raw)
    for method in SEVERAL:
        own = ends[(ends.method == method) & ends.strength.isna()]
        cells = " | ".join(
            several_plots._plus_minus(own[key]) for key in ("accuracy", "no_bug", "exceed", "reward_length")
        )
        assert f"{cells} |" in page
    raw = ends[(ends.method == "gdpo") & (ends.rewarded != "") & (ends.strength == 4)].accuracy
    own = ends[(ends.method == "gdpo") & (ends.rewarded == "") & (ends.strength == 4)].accuracy
    assert own.min() - raw.max() > 5, "each of the runs without a condition is below each with one"


def test_what_the_page_says_of_tools_is_in_the_file():
    page = (ROOT / "docs/several_rewards.md").read_text().split("## Tools: what came out")[1].split("\n## ")[0]
    path = ROOT / "experiments/results/tools.csv"
    rows, ends = several_plots.read(path), several_plots.ends(several_plots.read(path))
    for method in ("base", *SEVERAL):
        own = ends[ends.method == method]
        assert all(several_plots._plus_minus(own[key]) in page for key in ("format", "tool_correct", "accuracy")), (
            method
        )
    gap = several_plots.differences(rows)
    assert gap.loc["GDPO minus GRPO on the sum", "tool_correct"] in page
    assert gap.loc["GDPO minus GRPO on the sum, no std", "format"] in page
    train = several_plots.read(path, "lr").query("phase == 'train'")
    mean = train.groupby(["lr", "method"])[["format", "tool_correct"]].mean()
    for rate in train.lr.unique():  # the order at equal rates
        form, calls = (mean.loc[rate][key] for key in ("format", "tool_correct"))
        assert form["grpo-sum"] > form["gdpo"] > form["grpo-sum-no-std"]
        assert calls["grpo-sum"] < calls["gdpo"] < calls["grpo-sum-no-std"]


# ---- a whole study, small -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in HERE if Path(config.PRESETS[name][1]["model"]).exists()])
def test_a_small_study_goes_through(name, tmp_path, monkeypatch):
    parts = {part: [c for c in cells if c.seed == 0][:3] for part, cells in WORLDS[name].parts.items()}
    monkeypatch.setitem(WORLDS, name, World(name, SEVERAL, None, parts))
    small = ["--steps=1", "--prompts-per-step=2", "--train-problems=4", "--max-problems=8", "--samples=1", "--lrs=1e-4"]
    out = tmp_path / f"{name}.csv"
    places = [f"--dir={tmp_path / 'runs'}", f"--out={out}", f"--figure={out.with_suffix('.png')}", "--workers=1"]
    assert studies.main([name, *small, *places]) == 0
    found = several_plots.read(out)
    ends = found[(found.phase == "held out") & (found.group == "all")]
    assert set(ends.method) == {"base", *SEVERAL} and len(ends) == 1 + len({c for own in parts.values() for c in own})
    assert ends[[*programs.SCORES] if name == "programs" else ["format"]].notna().all(axis=None)
    assert ends.exceed.notna().all() and found[found.phase == "train"].exceed.notna().all()
    assert out.with_suffix(".png").exists() and out.with_suffix(".md").exists()
