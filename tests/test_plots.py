"""plots.py: what the figures show is what the files say; broken files are one clear line."""

import json
import math

import pytest

from minidrpo.records import GradedResponse
from minidrpo.rundir.metrics import summarise
from minidrpo.show import plots


def metrics(steps=12):
    rest = {"truncated": 0.01, "kl": 1e-4, "mixed_groups": 0.6}
    return [
        {"step": step, "accuracy": 0.5 + step / 100, "mean_length": 80.0 - step} | rest for step in range(1, steps + 1)
    ]


def evaluations(steps=12, every=4):
    rest = {"accuracy": 0.6, "accuracy_se": 0.02, "mean_length_se": 1.5, "truncated": 0.0}
    return [{"step": step, "mean_length": 70.0 - step} | rest for step in range(every, steps + 1, every)]


def write(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))


def make_run(directory, train, held_out):
    directory.mkdir(exist_ok=True)
    write(directory / "metrics.jsonl", train)
    write(directory / "evals.jsonl", held_out)
    return directory


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", metrics(), evaluations())


def is_png(path):
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5_000


def held_out(ax):
    """[(step, value, half the bar)] of an axis with one series of points with error bars."""
    (container,) = ax.containers
    points, _, (bars,) = container.lines
    return [
        (x, pytest.approx(y), pytest.approx((s[1][1] - s[0][1]) / 2))
        for x, y, s in zip(*points.get_data(), bars.get_segments(), strict=True)
    ]


def test_training_curves_show_batches_and_held_out_points(run, tmp_path):
    fig = plots.training_curves(run, tmp_path / "c.png")
    accuracy, length = fig.axes[:2]
    assert is_png(tmp_path / "c.png")
    assert held_out(accuracy) == [(s, 60, 2) for s in (4, 8, 12)]
    assert held_out(length) == [(s, 70 - s, 1.5) for s in (4, 8, 12)]
    assert list(length.lines[0].get_ydata()) == [80 - s for s in range(1, 13)]
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles[:3] == ["accuracy, %", "mean length, tokens", "KL(old || new), nats per token"]


def test_bold_lines_are_trailing_means_and_the_legend_says_so(run, tmp_path):
    """A centred window once let the smoothed accuracy start above its data."""
    (accuracy, length), steps = plots.training_curves(run, tmp_path / "c.png").axes[:2], range(1, 13)
    trailing = [80 - sum(range(max(1, s - 2), s + 1)) / len(range(max(1, s - 2), s + 1)) for s in steps]
    pale, bold = length.lines[:2]
    assert list(bold.get_ydata()) == pytest.approx(trailing) and bold.get_ydata()[0] == pale.get_ydata()[0]
    assert pale.get_alpha() < bold.get_alpha()
    assert accuracy.get_legend().get_title().get_text() == "pale: batches, bold: mean of the last 3"


def test_the_base_that_runs_share_is_drawn_once(tmp_path):
    base = {"step": 0, "accuracy": 0.5, "accuracy_se": 0.02, "mean_length": 70.0}

    def runs(**bases):
        return {name: make_run(tmp_path / name, metrics(), [e, *evaluations()]) for name, e in bases.items()}

    ax = plots.training_curves(runs(a=base, b=base | {"seconds": 2.5}), tmp_path / "c.png").axes[0]
    at_0 = [c.get_label() for c in ax.containers if 0 in c.lines[0].get_xdata()]
    assert at_0 == ["base"] and [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b", "base"]
    ax = plots.training_curves(runs(a=base, b=base | {"accuracy": 0.4}), tmp_path / "c.png").axes[0]
    assert [c.get_label() for c in ax.containers if 0 in c.lines[0].get_xdata()] == ["a", "b"]


def test_run_directory_with_its_own_file_of_evaluations(tmp_path):
    make_run(tmp_path, metrics(), [{"step": 0, "accuracy": 0.5, "accuracy_se": None, "mean_length": 90.0}])
    fig = plots.training_curves(tmp_path, tmp_path / "c.png")
    assert held_out(fig.axes[0]) == [(0, 50, 0)]
    assert plots.read_run(tmp_path / "metrics.jsonl") == plots.read_run(tmp_path)


def test_several_runs_and_missing_or_nan_fields(run, tmp_path):
    bare = [{"step": s, "accuracy": math.nan if s == 2 else 0.5, "mean_length": 9, "kl": None} for s in range(5)]
    write(tmp_path / "bare.jsonl", bare)
    fig = plots.training_curves({"a": run, "b": tmp_path / "bare.jsonl"}, tmp_path / "c.png")
    assert is_png(tmp_path / "c.png")
    assert list(fig.axes[0].lines[-2].get_xdata()) == [0, 1, 3, 4]  # the step without a number is left out


@pytest.mark.parametrize(
    "content, message",
    [
        (None, ": no such file"),
        ("", ": holds no steps"),
        ('{"step": 1, "mea', ": holds no steps"),  # half-written
        ('{"step": 1, "mean_length": 3}\n{"step": 2, "mea\n', ", line 2: "),
        ('{"step": 1}\n[1]\n', ", line 2: not an object with step"),
    ],
)
def test_broken_metrics_are_one_line(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ValueError, match="metrics.jsonl" + message):
        plots.training_curves(tmp_path, tmp_path / "c.png")
    with pytest.raises(SystemExit) as stop:
        plots.main([str(tmp_path)])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and message in err and err.count("\n") == 1
    assert not (tmp_path / "c.png").exists()


def result(correct, length):
    return summarise(
        [
            GradedResponse(f"set/level-{p % 2}", p, i, "", n, True, c, "", str(c))
            for p, (cs, ns) in enumerate(zip(correct, length, strict=True))
            for i, (c, n) in enumerate(zip(cs, ns, strict=True))
        ]
    )


def test_before_after_from_results_or_their_files(tmp_path):
    before = result([[1, 0], [0, 0], [1, 1]], [[90, 110], [80, 120], [100, 100]])
    after = result([[1, 1], [0, 0], [1, 1]], [[40, 60], [50, 50], [50, 50]])
    fig = plots.before_after(before, after, tmp_path / "b.png")
    assert [ax.get_title(loc="left") for ax in fig.axes] == [
        "accuracy, %: 50.0 to 66.7 (+16.7 points)",
        "mean length, tokens: 100.0 to 50.0 (-50 %)",
    ]
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["all", "level 0", "level 1"]
    saved = json.loads(json.dumps([before.summary(), after.summary()]))
    again = plots.before_after(*saved, tmp_path / "again.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "again.png").read_bytes() and is_png(tmp_path / "b.png")
    # In the length panel the dark "after" point of the first row lies left of the grey one
    xs = [c.lines[0].get_xdata()[0] for c in again.axes[1].containers[:2]]
    assert xs == [100, 50]


def test_trade_off(tmp_path):
    points = [
        {"label": "0.1", "series": "DRPO", "accuracy": 0.624, "mean_length": 1527, "accuracy_se": 0.01},
        {"label": "inf", "series": "DRPO", "accuracy": 0.649, "mean_length": 3494},
        {"label": "base", "accuracy": 0.534, "mean_length": 4698},
    ]
    fig = plots.trade_off(points, tmp_path / "t.png")
    assert is_png(tmp_path / "t.png")
    first, second = (c.lines[0] for c in fig.axes[0].containers)
    assert list(first.get_xdata()) == [1527, 3494] and list(first.get_ydata()) == [62.4, 64.9]
    assert first.get_linestyle() == "-" and second.get_linestyle() == "None"
    with pytest.raises(ValueError, match="no points"):
        plots.trade_off([], tmp_path / "t.png")


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        make_run(tmp_path / name, metrics(), evaluations())
    plots.main(["one", "two"])
    assert is_png(tmp_path / "one" / "curves.png") and is_png(tmp_path / "trade_off.png")
    with pytest.raises(SystemExit) as stop:
        plots.main(["three"])
    assert stop.value.code == 2 and capsys.readouterr().err == "error: three: no such run directory\n"


def test_gradient_takes_the_place_of_a_kl_that_is_always_zero(tmp_path):
    make_run(tmp_path, [r | {"kl": 0.0, "grad_norm": 2.0} for r in metrics()], evaluations())
    fig = plots.training_curves(tmp_path, tmp_path / "c.png")
    assert fig.axes[2].get_title(loc="left") == "gradient norm before clipping"
    assert set(fig.axes[2].lines[0].get_ydata()) == {2.0}
