"""thinking_tables.py and thinking_plots.py on a study that was made up, so that what must come out is known."""

import csv
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import study_rows, thinking_plots, thinking_report, thinking_tables
from experiments.study_cells import MIDDLE, STRENGTHS
from minidrpo.rundir.metrics import aes

RESULTS = Path(thinking_tables.__file__).parent / "results"
LEVEL = np.tile(np.arange(1, 6), 20)
HARD = 0.97, 70  # accuracy on hard prompts, tokens there
COLLAPSED = 0.06, 25


def made_up(path, cells, bases=(0,), seeds=3):
    """Both files of a study. cells: {(method, strength, share): (accuracy on hard prompts, tokens there)}; on easy ones
    .98 and 40 tokens. A run's own accuracy moves by a point or two."""
    rng, rows, problems = np.random.default_rng(0), [], []
    base = {("base", None, None): (0.4, 90)}
    for (method, strength, share), (accuracy, tokens) in (base | cells).items():
        for b, seed in [(b, s) for b in bases for s in range(seeds if method != "base" else 1)]:
            head = {"method": method, "strength": "" if strength is None else strength, "share": share, "base": b}
            head |= {"seed": seed if method != "base" else ""}
            chance = np.where(LEVEL == 1, 0.98, np.clip(accuracy + rng.normal(0, 0.01), 0, 1))
            right = rng.binomial(2, chance) / 2
            length = np.where(LEVEL == 1, 40, tokens) + rng.normal(0, 3, len(LEVEL)).round()
            problems.append(head | {
                "level": " ".join(map(str, LEVEL)),
                "right": " ".join(f"{x:g}" for x in right),
                "tokens": " ".join(f"{x:g}" for x in length),
            })  # fmt: skip
            groups = {"all": LEVEL > 0, "easy": LEVEL == 1, "hard": LEVEL > 1}
            groups |= {f"thinking/level-{i}": LEVEL == i for i in range(1, 6)}
            for group, chosen in groups.items():
                numbers = {"accuracy": right[chosen].mean(), "mean_length": length[chosen].mean()}
                numbers["short"] = 0.9 if accuracy < 0.5 else 0.01
                rows.append(head | {"role": "study", "phase": "held out", "group": group} | numbers)
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, columns, found in (
        (path, study_rows.COLUMNS, rows),
        (study_rows.problems_path(path), study_rows.PROBLEM_COLUMNS, problems),
    ):
        with open(file, "w", newline="") as out:
            writer = csv.DictWriter(out, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)
    return path


def as_hoped():
    """Cells in which all that the study was made to decide comes out as the paper and the mode model say."""
    predicted = {(m, s): x for m, s, x in zip(PREDICTED.method, PREDICTED.share, PREDICTED.accuracy_hard, strict=True)}
    cells = {(m, x, 0.8): HARD for m in STRENGTHS for x in STRENGTHS[m]}
    cells |= {(m, MIDDLE[m], s): HARD if x > 0.5 else COLLAPSED for (m, s), x in predicted.items()}
    cells |= {("grpo-lp", x, 0.8): COLLAPSED for x in STRENGTHS["grpo-lp"]}
    return cells | {("grpo-lp-no-std", 2.0, 0.8): COLLAPSED, ("rloo-lp", 0.8, 0.8): (0.9, 50)}


ALL_PREDICTED = pd.read_csv(thinking_plots.PREDICTED)
PREDICTED = thinking_tables.at_measured_sharing(ALL_PREDICTED)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = made_up(tmp_path_factory.mktemp("study") / "thinking.csv", as_hoped(), bases=(0, 1, 2))
    results = thinking_tables.read(path)
    return results, thinking_tables.table(results)


# ----------------------------------------------------------------------------------------------------------- intervals


def interval(values, bases=None):
    draws = thinking_tables.bootstrap(values, bases or [0] * len(values), draws=4000)
    return draws, *np.percentile(draws, [2.5, 97.5])


def test_an_interval_over_problems_is_the_binomial_s():
    draws, low, high = interval([[1.0] * 180 + [0.0] * 20])
    assert draws.mean() == pytest.approx(0.9, abs=0.002)
    assert draws.std() == pytest.approx(math.sqrt(0.9 * 0.1 / 200), rel=0.05)
    assert low < 0.9 < high


def test_an_interval_over_runs_counts_each_run_once():
    """Runs that differ, problems that do not: the spread of a mean of three drawn from three."""
    draws, low, high = interval([[x] * 50 for x in (0.0, 0.3, 0.9)])
    assert draws.std() == pytest.approx(np.std([0.0, 0.3, 0.9]) / math.sqrt(3), rel=0.05)
    assert (low, high) == pytest.approx((0.0, 0.9))


def test_problems_are_shared_by_all_runs():
    """Ten runs that solve the same problems know no more of other problems than one run does."""
    one = [1.0] * 30 + [0.0] * 30
    assert interval([one] * 10)[0].std() == pytest.approx(interval([one])[0].std(), rel=1e-6)
    mixed = np.random.default_rng(0).permuted([one] * 10, axis=1)  # each run solves others
    assert interval(mixed)[0].std() < 0.5 * interval([one])[0].std()


def test_bases_are_drawn_before_their_runs():
    """Fifteen runs on three bases that decide everything: three cases, not fifteen."""
    bases = [b for b in range(3) for _ in range(5)]
    values = [[(0.2, 0.5, 0.8)[b]] * 20 for b in bases]
    assert interval(values, bases)[0].std() == pytest.approx(np.std([0.2, 0.5, 0.8]) / math.sqrt(3), rel=0.05)
    weights = thinking_tables.run_weights(tuple(bases), 100, seed=0)
    assert weights.sum(1) == pytest.approx(1)


def test_equal_seeds_give_equal_intervals_and_apart_means_apart():
    clear, alike = thinking_tables.Estimate(0.9, 0.85, 0.95), thinking_tables.Estimate(0.8, 0.75, 0.86)
    low = thinking_tables.Estimate(0.1, 0.05, 0.2)
    assert clear.apart_from(low) and low.apart_from(clear) and not clear.apart_from(alike)
    assert (interval([[0.0, 1.0]])[0] == interval([[0.0, 1.0]])[0]).all()


# ----------------------------------------------------------------------------------------------------------- statements


def test_all_statements_hold_where_they_should(study):
    found = thinking_tables.statements(*study, ALL_PREDICTED)
    assert len(found) == 6 and all(found.values()), found


@pytest.mark.parametrize("change, word", [
    ({("grpo-lp", 0.1, 0.8): HARD}, "GRPO-LP keeps it at none"),
    ({("drpo", 0.1, 0.8): COLLAPSED}, "DRPO is more accurate"),
    ({("drpo", 0.001, 0.8): (0.5, 50)}, "DRPO keeps its accuracy"),
    ({("grpo-lp-no-std", 0.1, 0.8): COLLAPSED}, "no std is more accurate"),
    ({("grpo-lp-mixed-only", 0.1, 0.8): (0.05, 25)}, "mixed groups only is more accurate"),
    ({(m, MIDDLE[m], 0.95): HARD for m in MIDDLE}, "The mode model"),
])  # fmt: skip
def test_each_statement_fails_on_its_false_version(change, word, tmp_path):
    few = ("drpo", "disco", "grpo-lp", "grpo-lp-no-std", "grpo-lp-mixed-only", "hapo")
    cells = {cell: result for cell, result in (as_hoped() | change).items() if cell[0] in few}
    results = thinking_tables.read(made_up(tmp_path / "thinking.csv", cells))
    found = thinking_tables.statements(results, thinking_tables.table(results), ALL_PREDICTED)
    assert [ok for words, ok in found.items() if word in words] == [False], found


def test_the_ablation_separates_what_differs_and_not_what_is_alike(study, tmp_path):
    decided = thinking_tables.ablation(study[0]).set_index("method")
    assert list(decided.runs) == [9] * 4 and list(decided.apart) == [True, False, True, True]
    assert all(list(by_base) == [0, 1, 2] for by_base in decided.by_base)
    alike = as_hoped() | {("grpo-lp", 0.1, 0.8): (0.96, 70)}
    results = thinking_tables.read(made_up(tmp_path / "thinking.csv", alike, bases=(0, 1, 2)))
    assert not thinking_tables.ablation(results).apart.any()


def test_a_difference_is_of_the_same_problems(tmp_path):
    """Two methods that solve the same hard problems: each alone is uncertain, their difference is not."""
    cells = {("drpo", 0.1, 0.8): HARD, ("rloo-lp", 0.2, 0.8): HARD, ("ddca", 0.2, 0.8): COLLAPSED}
    path = made_up(tmp_path / "thinking.csv", cells)
    problems = study_rows.problems_path(path)
    rows = pd.read_csv(problems, dtype=str)
    half = " ".join("1" if i % 2 else "0" for i in range(len(LEVEL)))
    rows.loc[rows.method.isin(["drpo", "rloo-lp"]), "right"] = half
    rows.to_csv(problems, index=False)
    results = thinking_tables.read(path)
    gap = thinking_tables.difference(results, "rloo-lp", "drpo")
    alone = thinking_tables.estimate(results.of("drpo"), "right", "hard")
    assert gap.mean == gap.low == gap.high == 0 and alone.high - alone.low > 0.1
    assert thinking_tables.difference(results, "ddca", "drpo").high < -0.3
    assert thinking_tables.difference(results, "lead", "drpo") is None
    text = thinking_report.markdown(results, thinking_tables.table(results), ALL_PREDICTED)
    assert "| RLOO-LP | DRPO | 0.8 | 1 | 0.0 [0.0, 0.0] |" in text


def test_the_range_that_a_method_survives(study):
    ranges = thinking_tables.survival(study[1]).set_index("method").survived
    assert ranges["drpo"] == [0.001, 0.01, 0.1, 0.5] and ranges["grpo-lp"] == []
    assert ranges["grpo-lp-no-std"] == [0.1, 0.5, 1.0] and ranges["rloo-lp"] == [0.1, 0.2, 0.4, 0.8]


def test_two_frontiers_at_a_common_length(study):
    draws = thinking_tables.at_length(*study, "rloo-lp", 60)
    assert draws.mean() == pytest.approx(0.935, abs=0.02) and 0.003 < draws.std() < 0.02
    assert thinking_tables.at_length(*study, "rloo-lp", 20) is None


def test_frontiers_are_compared_where_both_are(tmp_path):
    """DRPO from 50 to 90 tokens at 90 %, RLOO-LP from 60 to 80 at 70 %: 20 points apart at 60, 70 and 80 only."""
    cells = {("drpo", 0.1, 0.8): (0.9, 50), ("drpo", 0.5, 0.8): (0.9, 90)}
    cells |= {("rloo-lp", 0.2, 0.8): (0.7, 84), ("rloo-lp", 0.8, 0.8): (0.7, 56)}
    results = thinking_tables.read(made_up(tmp_path / "thinking.csv", cells, seeds=8))
    table = thinking_tables.table(results)
    shared = thinking_tables.common_lengths(results, table)
    assert list(shared.method) == ["rloo-lp"] * 3 and list(shared.tokens) == [60, 70, 80]
    for row in shared.itertuples():
        assert row.difference.mean == pytest.approx(-0.2, abs=0.02) and row.difference.high < 0
        assert row.difference.mean == pytest.approx(row.other.mean - row.drpo.mean)
    text = thinking_report.markdown(results, table, ALL_PREDICTED)
    assert text.count("| RLOO-LP | 60 |") == 1 and "## At the same length on hard prompts as DRPO" in text


# ------------------------------------------------------------------------------------------------------------ the table


def test_the_table_has_the_numbers_of_the_runs(study):
    results, cells = study
    row = cells[(cells.method == "drpo") & (cells.strength == 0.1) & (cells.share == 0.8)].iloc[0]
    rows = results.rows[(results.rows.method == "drpo") & (results.rows.strength == 0.1) & (results.rows.share == 0.8)]
    rows = rows[rows.base == 0].groupby("group")[["accuracy", "mean_length"]].mean()
    assert row.runs == 3 and row.failed == 0
    for group in thinking_tables.GROUPS:
        mean, length = row[f"right_{group}"], row[f"tokens_{group}"]
        assert mean.mean == pytest.approx(rows.accuracy[group]) and mean.low <= mean.mean <= mean.high
        assert length.mean == pytest.approx(rows.mean_length[group])
    disco = results.of("disco")
    reference = [thinking_tables.grouped(disco, key, "all").mean() for key in ("right", "tokens")]
    assert row.aes == row.aes_own == pytest.approx(aes(row.right_all.mean, row.tokens_all.mean, *reference))
    by_method = cells[cells.share == 0.8].groupby("method").first()
    assert math.isnan(by_method.aes["disco"]) and not math.isnan(by_method.aes["grpo"])
    own = cells[(cells.method == "rloo-lp") & (cells.share == 0.8)].set_index("strength").aes_own
    assert math.isnan(own[0.0]) and not math.isnan(own[0.1])


def test_the_page_says_what_holds_and_counts_what_failed(study, tmp_path):
    text = thinking_report.markdown(*study, ALL_PREDICTED)
    assert text.count("- holds: ") == 6 and "does not hold" not in text
    assert "| DRPO | 0.001, 0.01, 0.1, 0.5 | 0.001, 0.01, 0.1, 0.5 |" in text
    assert "| GRPO-LP | 0.01, 0.1, 1 |  |" in text and "| ALP | 1e-8 | 3 |" in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in tables if line.startswith(("| base", "| DisCO", "| LEAD"))}) == 1

    path = made_up(tmp_path / "thinking.csv", {("drpo", 0.1, 0.8): HARD})
    with open(path, "a") as file:
        failed = {"method": "drpo", "strength": 0.5, "share": 0.8, "base": 0, "role": "study", "phase": "failed"}
        csv.DictWriter(file, study_rows.COLUMNS).writerow(failed)
    results = thinking_tables.read(path)
    cells = thinking_tables.table(results)
    assert list(thinking_tables.survival(cells).survived) == [[0.1]]
    assert "| DRPO | 0.5 | 0 (1 failed) |" in thinking_report.markdown(results, cells, ALL_PREDICTED)


def test_the_page_shows_every_learning_rate_and_the_one_used(tmp_path):
    path = made_up(tmp_path / "thinking.csv", {("drpo", 0.1, 0.8): HARD, ("grpo-lp", 0.1, 0.8): COLLAPSED})
    rows = pd.read_csv(path, dtype=str)
    rows.loc[rows.method == "drpo", "lr"] = "0.0004"
    tried = [("drpo", 2e-4, 0.81, 70), ("drpo", 4e-4, 0.96, 78), ("grpo-lp", 2e-4, 0.33, 30)]
    about = {"role": "lr", "phase": "held out", "group": "all"}
    more = [about | {"method": m, "lr": lr, "accuracy": right, "mean_length": n} for m, lr, right, n in tried]
    more.append(about | {"method": "grpo-lp", "lr": 4e-4, "phase": "failed"})
    pd.concat([rows, pd.DataFrame(more)]).to_csv(path, index=False)
    results = thinking_tables.read(path)
    text = thinking_report.markdown(results, thinking_tables.table(results), ALL_PREDICTED)
    assert "| DRPO | 81.0 (70) | **96.0 (78)** |\n| GRPO-LP | 33.0 (30) | failed |" in text


# ------------------------------------------------------------------------------------------------------------- figures


def test_the_frontier_draws_collapsed_runs_where_they_are(study, tmp_path):
    fig = thinking_plots.frontier(*study, tmp_path / "f.png")
    whole, upper = fig.axes
    (line,) = [
        line for line in whole.lines
        if line.get_color() == thinking_plots.LOOKS["grpo-lp-no-std"][0] and len(line.get_xdata()) == 4
    ]  # fmt: skip
    assert list(line.get_ydata())[-1] == pytest.approx(6, abs=5) and list(line.get_ydata())[0] > 90
    assert [text.get_text() for text in whole.texts] == ["GRPO-LP, α = 0.01, 0.1, 1", "GRPO-LP, no std, α = 2"]
    assert whole.get_ylim()[0] == 0 and upper.get_ylim()[0] > 70
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert {"DRPO, λ = 0.5, 0.1, 0.01, 0.001", "GRPO-LP, α = 0.01, 0.1, 1", "DisCO (no length term)"} <= set(legend)
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_the_map_shows_the_prediction_beside_the_measurement(study, tmp_path):
    fig = thinking_plots.the_map(study[1], ALL_PREDICTED, tmp_path / "m.png")
    predicted, measured = (
        np.array([text.get_text() for text in ax.texts], float).reshape(-1, 3) for ax in fig.axes[:2]
    )
    names = [text.get_text() for text in fig.axes[0].get_yticklabels()]
    assert len(names) == len(MIDDLE) and names[0] == "DRPO 0.1"
    expected = PREDICTED[PREDICTED.method == "grpo-lp"].accuracy_hard * 100
    assert predicted[names.index("GRPO-LP 0.1")] == pytest.approx(expected.round(), abs=0.51)
    assert ((predicted > 50) == (measured > 50)).all()


def test_levels(study, tmp_path):
    fig = thinking_plots.by_level(*study, tmp_path / "l.png")
    assert all(len(ax.lines) == 7 and list(ax.lines[0].get_xdata()) == [1, 2, 3, 4, 5] for ax in fig.axes)


def test_what_is_not_there_is_said(tmp_path, capsys):
    path = made_up(tmp_path / "thinking.csv", {("alp", 1e-8, 0.5): HARD})
    thinking_plots.main([str(path), f"--out-dir={tmp_path / 'out'}", f"--figure={tmp_path / 'out' / 'f.png'}"])
    assert "f.png: the study holds no run of drpo" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["map.png", "thinking.md", "thinking_levels.png"]
    with pytest.raises(SystemExit) as stop:
        thinking_plots.main([str(tmp_path / "no.csv")])
    assert stop.value.code == 2 and "no.csv: cannot be read" in capsys.readouterr().err


STARTS = {  # of the sweep's rows in docs/thinking.md
    "drpo": "DRPO, λ |", "grpo-lp": "GRPO-LP, α |", "grpo-lp-no-std": "GRPO-LP without", "rloo-lp": "RLOO-LP, α |",
    "alp": "ALP, β |", "ddca": "DDCA, β |", "hapo": "HAPO, w |", "drpo-solved": "`drpo-solved`, μ (",
}  # fmt: skip


def same_side(cells, predicted):
    both = thinking_tables.compared(cells, predicted)
    return (both.predicted > 0.5) == (both.measured > 0.5)


def test_the_committed_results_say_what_the_page_says():
    """docs/thinking.md: the statements, the ablation's numbers, and who reaches the corner after 300 steps."""
    results = thinking_tables.read(RESULTS / "thinking.csv")
    cells, predicted = thinking_tables.table(results), pd.read_csv(RESULTS / "map_predicted.csv")
    found = thinking_tables.statements(results, cells, predicted)
    assert len(found) == 6 and all(found.values()), found
    page = (RESULTS.parents[1] / "docs" / "thinking.md").read_text()
    for row in thinking_tables.ablation(results).itertuples():
        e = row.hard
        assert f"{100 * e.mean:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]" in page, row
    for method, own in cells[cells.share == thinking_plots.EASY_SHARE].groupby("method"):
        ends = [e.mean for e in own.right_hard]
        if method in STRENGTHS:  # "88.4, 91.4", bold from the first or up to the last that has collapsed
            shown = next(line for line in page.splitlines() if line.startswith(f"| {STARTS[method]}"))
            numbers = [float(x) for x in re.findall(r"\d+\.\d", shown.split("|")[3])]
            assert numbers == pytest.approx([100 * x for x in ends], abs=0.051), shown
            bold = re.findall(r"\d+\.\d", "".join(re.findall(r"\*\*(.*?)\*\*", shown)))
            assert len(bold) == sum(x < thinking_tables.SURVIVES for x in ends), shown
    for method, other, share, bases in thinking_report.DIFFERENCES:
        assert thinking_tables.difference(results, method, other, share, bases).text() in page, (method, other)
    assert f"in {sum(same_side(cells, predicted))} of the 42" in page
    corner = pd.read_csv(RESULTS / "corner_300.csv").query("set == 'fresh'")
    corner = corner.set_index(["method", "strength", "seed", "group"]).sort_index()
    easy, hard = corner.xs("easy", level="group"), corner.xs("hard", level="group")
    there = (easy.mean_length <= 25) & (hard.accuracy > 0.95)
    assert there.loc["drpo-solved", 0.6].sum() == there.loc["rloo-lp", 0.2].sum() == 2
    for method, strength in (("drpo-solved", 0.6), ("rloo-lp", 0.2)):
        assert ", ".join(f"{100 * a:.1f}" for a in hard.loc[method, strength].accuracy) in page
