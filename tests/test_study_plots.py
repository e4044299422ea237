"""study_plots.py on a study that was made up, so that every number in a figure or the table is known."""

import csv
import math
import random
import statistics

import pytest

from experiments import study_plots
from minidrpo.rundir.metrics import aes
from minidrpo.show import plots

COLUMNS = (
    "method,hyperparameter,strength,lr,seed,role,phase,step,group,accuracy,accuracy_se,mean_length,mean_length_se,truncated,"
    "mixed_groups,entropy,kl,grad_norm,reward_length,seconds"
).split(",")
STRENGTHS = {
    "drpo": ("lam", ["inf", 0.5, 0.2, 0.1, 0.05]),
    "rloo-lp": ("alpha", [0, 0.1, 0.2, 0.4, 0.8]),
    "alp": ("alp_beta", [1e-9, 1e-8, 1e-7, 1e-3]),
    "hapo": ("hapo_w", [0.01, 0.1, 0.3, 1]),
    "grpo-lp": ("alpha", [0.1, 0.3, 1, 3]),
    "grpo": ("", [""]),
    "gdpo": ("length_limit", [64]),
    "grpo-sum": ("length_limit", [64]),
}
LEVELS = [f"arithmetic/level-{i}" for i in range(1, 6)]


def made_up(seeds=(0, 1, 2), steps=8, methods=STRENGTHS, levels=LEVELS):
    """Rows as study.py writes them."""
    draw = random.Random(0)
    rows = []

    def held_out(head, step, accuracy, length, seconds):
        for i, group in enumerate(["all", *levels]):
            harder = 0 if group == "all" else 0.04 * (3 - i)
            rows.append(
                head
                | dict(
                    phase="held out",
                    step=step,
                    group=group,
                    accuracy=accuracy + harder,
                    accuracy_se=0.011,
                    mean_length=length * (1 - harder),
                    mean_length_se=1.5,
                    truncated=0.0,
                    seconds=seconds,
                )
            )

    for role in ("lr", "study"):
        held_out({"method": "base", "role": role}, 0, 0.52, 117.0, "")
    for method, (hyperparameter, strengths) in methods.items():
        for n, strength in enumerate(strengths):
            for seed in seeds:
                head = {
                    "method": method,
                    "hyperparameter": hyperparameter,
                    "strength": strength,
                    "seed": seed,
                    "lr": 2e-4,
                }
                start, end = 115, 112 - 14 * (n + (len(strengths) < 5) * (method != "grpo")) + draw.gauss(0, 2)
                accuracy = 0.87 - 0.012 * n * (method != "drpo") + draw.gauss(0, 0.006)
                for step in range(1, steps + 1):
                    part = step / steps
                    rows.append(
                        head
                        | dict(
                            role="study",
                            phase="train",
                            step=step,
                            group="all",
                            entropy=0.3 - 0.1 * part,
                            kl=0.0,
                            accuracy=0.5 + (accuracy - 0.5) * part + draw.gauss(0, 0.02),
                            seconds=2.0,
                            grad_norm=1.0,
                            mean_length=start + (end - start) * part,
                            truncated=0.0,
                            mixed_groups=0.8 - 0.4 * part,
                            reward_length=0.1 + 0.5 * part if "limit" in hyperparameter else "",
                        )
                    )
                held_out(head | {"role": "study"}, steps // 2, 0.1, 1.0, steps)  # on the way: not the result
                held_out(head | {"role": "study"}, steps, accuracy, end, 2.0 * steps + seed)
        held_out(head | {"role": "lr", "lr": 4e-4}, steps, 0.01, 1.0, 1.0)  # must be looked past
    return rows


def write(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return study_plots.read_study(write(tmp_path_factory.mktemp("study") / "study.csv", made_up()))


def results(method, strength, key, group="all", rows=None):
    rows = rows or made_up()
    return [
        r[key]
        for r in rows
        if (r["method"], r.get("strength"), r["group"]) == (method, strength, group)
        and r["role"] == "study"
        and r["phase"] == "held out"
        and r["step"] == 8
    ]


def test_points_are_means_over_seeds_of_the_last_evaluation(study):
    found = study_plots.points(study)
    assert list(found) == ["drpo", "rloo-lp", "alp", "hapo", "grpo-lp", "gdpo", "grpo-sum", "grpo", "base"]
    point = found["drpo"][2]
    accuracies = results("drpo", 0.2, "accuracy")
    assert point.strength == 0.2 and point.n_seeds == len(accuracies) == 3
    assert point.accuracy == pytest.approx(statistics.fmean(accuracies))
    assert point.accuracy_se == pytest.approx(statistics.stdev(accuracies) / math.sqrt(3))
    assert point.mean_length == pytest.approx(statistics.fmean(results("drpo", 0.2, "mean_length")))
    assert point.seconds == 17
    hard = study_plots.points(study, "arithmetic/level-5")["drpo"][2]
    assert hard.accuracy == pytest.approx(point.accuracy - 0.08)


def test_points_go_from_weak_to_strong_and_know_their_reference(study):
    found = study_plots.points(study)
    assert [p.strength for p in found["drpo"]] == [math.inf, 0.5, 0.2, 0.1, 0.05]
    assert [p.strength for p in found["alp"]] == [1e-9, 1e-8, 1e-7, 1e-3]
    assert [p.strength_text for p in found["alp"]] == ["1e-9", "1e-8", "1e-7", "0.001"]
    references = {m: study_plots.reference(ps[-1], found) for m, ps in found.items() if m != "base"}
    assert references["drpo"] is found["drpo"][0] and references["rloo-lp"] is found["rloo-lp"][0]
    assert all(references[m] is found["grpo"][0] for m in ("alp", "hapo", "grpo-lp", "grpo"))
    assert references["gdpo"] is None and references["grpo-sum"] is None


def test_one_seed_has_the_standard_error_over_problems(tmp_path):
    rows = study_plots.read_study(write(tmp_path / "s.csv", made_up(seeds=[0])))
    point = study_plots.points(rows)["hapo"][0]
    assert point.n_seeds == 1 and point.accuracy_se == 0.011 and point.mean_length_se == 1.5
    assert "standard error over problems, one seed" in study_plots.study_table(rows)


def test_the_table(study):
    table = study_plots.study_table(study)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    assert len(rows) == 2 + 1 + 25 and all(len(row) == 7 for row in rows)
    by_name = {tuple(row[:2]): row for row in rows}
    assert by_name["base", ""][2:] == ["", "52.0 ± 1.1", "117.0 ± 1.5", "", ""]
    weak, strong = (study_plots.points(study)["drpo"][i] for i in (0, 3))
    row = by_name["DRPO", "λ = 0.1"]
    assert row[2] == "3" and row[3] == f"{100 * strong.accuracy:.1f} ± {100 * strong.accuracy_se:.1f}"
    assert row[4] == f"{strong.mean_length:.1f} ± {strong.mean_length_se:.1f}" and row[6] == "17"
    score = aes(strong.accuracy, strong.mean_length, weak.accuracy, weak.mean_length, a=1, b=3, c=10)
    assert row[5] == f"{score:+.3f}"
    assert by_name["DRPO", "λ = ∞"][5] == by_name["RLOO-LP", "α = 0"][5] == by_name["GRPO", ""][5] == "reference"
    assert by_name["GDPO", "limit = 64"][5] == ""
    assert "standard error over 3 seeds" in table and "c = 10" in table


def series(ax):
    """{colour: [(x, y)]} of the lines that hold data."""
    return {
        line.get_color(): list(zip(*line.get_data(), strict=True))
        for line in ax.lines
        if len(line.get_xdata()) > 1 and line.get_linestyle() == "-"
    }


def test_trade_off_shows_the_points_and_hollow_squares(study, tmp_path):
    fig = study_plots.trade_off(study, tmp_path / "t.png")
    (ax,), found = fig.axes, study_plots.points(study)
    lines = series(ax)
    colour = study_plots.METHODS["alp"][1]
    path = [found["grpo"][0], *found["alp"]]  # from its reference on
    assert lines[colour] == [(p.mean_length, pytest.approx(100 * p.accuracy)) for p in path]
    marks = [line for line in ax.lines if line.get_linestyle() == "None"]
    squares = [line for line in marks if line.get_marker() == "s"]
    assert len(squares) == 3 and all(line.get_markerfacecolor() == "white" for line in squares)
    assert len(marks) == len(ax.containers) == 25
    sizes = [line.get_markersize() for line in marks if line.get_color() == colour]
    assert sizes == sorted(set(sizes)) and len(sizes) == 4  # larger: stronger
    assert [t.get_text() for t in ax.texts] == ["base: 52 %, below"]  # strengths are in the legend, not on each other
    legend = [t.get_text() for t in fig.legends[0].get_texts()]
    assert {"ALP, β = 1e-9, 1e-8, 1e-7, 0.001", "DRPO, λ = ∞, 0.5, 0.2, 0.1, 0.05", "GRPO"} <= set(legend)
    greys = [line.get_xdata()[0] for line in ax.lines if line.get_color() == study_plots.GREY]
    assert 117.0 in greys and len(greys) == 2
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_a_collapsed_run_does_not_flatten_the_others(tmp_path):
    assert study_plots._floor([10, 80, 81, 85]) == 80 and study_plots._floor([70, 80, 85, 95]) == 70
    assert study_plots._floor([5]) == 5 and study_plots._floor([5, 5]) == 5
    rows = made_up()
    for row in rows:
        if row["method"] == "hapo" and row["strength"] == 1:
            row["accuracy"] = 0.3
    fig = study_plots.trade_off(study_plots.read_study(write(tmp_path / "s.csv", rows)), tmp_path / "t.png")
    (ax,) = fig.axes
    assert ax.get_ylim()[0] > 75 and any(t.get_text() == "↓ HAPO 1: 30 %" for t in ax.texts)


def test_dynamics_have_a_line_per_lambda_and_a_band_over_seeds(study, tmp_path):
    fig = study_plots.dynamics(study, tmp_path / "d.png")
    accuracy, length, entropy, mixed = fig.axes
    assert [ax.get_title(loc="left") for ax in fig.axes] == [plots.NUMBERS[key][1] for key in study_plots.PANELS]
    assert [line.get_label() for line in accuracy.lines] == ["λ = ∞", "λ = 0.5", "λ = 0.2", "λ = 0.1", "λ = 0.05"]
    first, last = (line.get_ydata() for line in (length.lines[0], length.lines[-1]))
    assert first[0] == pytest.approx(last[0], abs=15) and last[-1] < first[-1] - 30
    steps = study_plots.curves(study, "drpo", "accuracy")[0.1]
    values = [
        r["accuracy"]
        for r in made_up()
        if (r["method"], r.get("strength"), r["phase"], r["step"]) == ("drpo", 0.1, "train", 3)
    ]
    assert steps[2] == (
        3,
        pytest.approx(statistics.fmean(values)),
        pytest.approx(statistics.stdev(values) / math.sqrt(3)),
    )
    assert len(accuracy.collections) == 5
    assert entropy.lines[0].get_ydata()[0] > entropy.lines[0].get_ydata()[-1]
    assert max(mixed.lines[0].get_ydata()) < 100


def test_difficulty_has_a_panel_per_level(study, tmp_path):
    fig = study_plots.difficulty(study, tmp_path / "f.png")
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles[:5] == [f"level {i}" for i in range(1, 6)] and fig.axes[5].get_legend()
    point = study_plots.points(study, LEVELS[4])["hapo"][3]
    assert series(fig.axes[4])[study_plots.METHODS["hapo"][1]][-1] == (
        point.mean_length,
        pytest.approx(100 * point.accuracy),
    )


def test_distinct_groups_equal_the_published_counting():
    """METHODS' table: two binary rewards, G = 2 .. 7; and G = 4 with three rewards."""
    counts = [study_plots.distinct_groups(G) for G in range(2, 8)]
    assert [c["GRPO"] for c in counts] == [2, 4, 7, 11, 16, 22]
    assert [c["GRPO without std"] for c in counts] == [3, 6, 10, 15, 21, 28]
    assert [c["GDPO"] for c in counts] == [3, 6, 14, 26, 38, 59]
    assert study_plots.distinct_groups(4, K=3) == {"GRPO": 14, "GRPO without std": 20, "GDPO": 45}


def test_gdpo_against_grpo(study, tmp_path):
    fig = study_plots.gdpo(study, tmp_path / "g.png")
    right, within, counts = fig.axes
    assert len(right.lines) == len(within.lines) == 2
    assert within.lines[0].get_ydata()[-1] == pytest.approx(60, abs=6)
    assert [list(line.get_ydata())[-1] for line in counts.lines] == [59, 28, 22]


def test_a_part_of_a_study_and_an_unknown_method(tmp_path):
    """Whatever is there is drawn: a study that was stopped, or one with another method of the table."""
    some = {"drpo": ("lam", ["inf", 0.1]), "laser-d": ("laser_bonus", [0.5])}
    rows = study_plots.read_study(write(tmp_path / "s.csv", made_up([0], methods=some, levels=[])))
    study_plots.trade_off(rows, tmp_path / "t.png")
    study_plots.gdpo(rows, tmp_path / "g.png")
    assert "| laser-d | laser_bonus = 0.5 | 1 |" in study_plots.study_table(rows)
    with pytest.raises(ValueError, match="no held-out rows of single levels"):
        study_plots.difficulty(rows, tmp_path / "f.png")
    with pytest.raises(ValueError, match="no training rows of hapo"):
        study_plots.dynamics(rows, tmp_path / "d.png", "hapo")


@pytest.mark.slow
def test_command_line(tmp_path, capsys):
    path = write(tmp_path / "study.csv", made_up(seeds=[0, 1]))
    study_plots.main([str(path), f"--out-dir={tmp_path / 'out'}"])
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["difficulty.png", "dynamics.png", "gdpo.png", "study.md", "trade_off.png"]
    assert capsys.readouterr().out.count("\n") == 5

    def mistake(text):
        path.write_text(text)
        with pytest.raises(SystemExit) as stop:
            study_plots.main([str(path)])
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.count("\n") == 1
        return err

    head = ",".join(COLUMNS)
    assert "holds no rows" in mistake(head + "\n")
    assert "has no column accuracy" in mistake(head.replace("accuracy,", "") + "\n" + "," * 18 + "\n")
    row = "drpo,lam,0.1,1,0,study,held out,8,all,much,,9" + "," * 8
    assert "line 2: accuracy is not a number: 'much'" in mistake(f"{head}\n{row}\n")
    assert "line 3 has no group, step, accuracy" in mistake(
        f"{head}\n{row.replace('much', '1')}\ndrpo,lam,0.1,1,0,study\n"
    )
    assert "holds no finished run" in mistake(f"{head}\n{row.replace('study', 'lr')}\n")
