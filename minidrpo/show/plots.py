"""plots.py - the figures of runs: training curves, before and after, accuracy against length. PNG files, no screen.

    python -m minidrpo.show.plots RUN_DIR [RUN_DIR ...]

writes curves.png into each run directory and, for several runs, trade_off.png of their last evaluations here.

Figures are made from files and plain dicts (metrics.jsonl, evals.jsonl), never from a live run. Lines are training
batches; points with bars are held-out evaluations and their standard errors. Each function also returns its Figure.
"""

import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from minidrpo import cli
from minidrpo.rundir import jsonl
from minidrpo.rundir.metrics import EvalResult, is_number

if TYPE_CHECKING:  # matplotlib takes a second to import: see `figure`
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Png = str | Path | IO[bytes]

# Okabe and Ito's palette is safe for colour-blind readers; the markers differ as well, for paper without colour
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY, INK = "#8A8A8A", "#222222"
WIDTH = 9.0  # inches; at 150 dpi a README column shows it near 1:1
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "legend.frameon": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
    "savefig.dpi": 150,
    "lines.solid_capstyle": "round",
}
NUMBERS = {  # field of metrics.jsonl and evals.jsonl: (factor, what the axis says)
    "accuracy": (100, "accuracy, %"),
    "mean_length": (1, "mean length, tokens"),
    "kl": (1, "KL(old || new), nats per token"),
    "grad_norm": (1, "gradient norm before clipping"),
    "entropy": (1, "entropy, nats per token"),
    "mixed_groups": (100, "groups with correct and wrong, %"),
    "truncated": (100, "truncated at the limit, %"),
    "reward_length": (100, "correct within the limit, %"),
}
SMOOTHED = 3  # training steps

# ---------------------------------------------------------------------------------------------------- reading


def read_lines(path: str | Path) -> list[dict]:
    """The records of a run's .jsonl file, as jsonl.read gives them; ValueError where there are none, too."""
    records = jsonl.read(path)
    if not records:
        raise ValueError(f"{path}: {'holds no steps yet' if Path(path).exists() else 'no such file'}")
    return records


def read_run(run: str | Path) -> tuple[list[dict], list[dict]]:
    """(training records, evaluations) by step of a run directory, or of a metrics.jsonl and the evals.jsonl beside it.
    ValueError for a file that cannot be read."""
    path = Path(run) / "metrics.jsonl" if Path(run).is_dir() else Path(run)
    records, beside = read_lines(path), path.with_name("evals.jsonl")
    evaluations = read_lines(beside) if beside.exists() else []
    return [r for r in records if "mean_length" in r], sorted(evaluations, key=lambda e: e["step"])


# ---------------------------------------------------------------------------------------------------- drawing


@contextlib.contextmanager
def figure(
    out_png: Png, height: float, mosaic: list, height_ratios: Sequence[float] | None = None
) -> Iterator[tuple["Figure", list["Axes"]]]:
    """`with figure(...) as (fig, axes)`: a figure in this file's style, saved to out_png at the end of the block.

    height: inches. mosaic: rows of axis names, as in Figure.subplot_mosaic; `axes` are in the order of their names.
    Matplotlib is imported here because it takes a second, and pyplot, which needs a display, is not used.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = fig.subplot_mosaic(mosaic, height_ratios=height_ratios)
        yield fig, [axes[key] for key in sorted(axes)]
        fig.savefig(out_png)


def draw_curve(
    ax: "Axes", curve: list[tuple], key: str, colour: str, smoothed: bool = True, ahead: int = 0, **style
) -> None:
    """A line through [(step, value)]; for [(step, value, se)] also a band of one standard error. key: of NUMBERS.

    smoothed: each value is the mean of SMOOTHED steps that end at its own step, or `ahead` steps later. Without
    `ahead` the line starts where its data start.
    """
    if not curve:
        return
    steps, values = np.array(curve)[:, 0], NUMBERS[key][0] * np.array(curve)[:, 1:]
    if smoothed:
        ends = np.arange(len(values)) + 1 + ahead
        values = np.array([values[max(0, end - SMOOTHED) : end].mean(0) for end in ends])
    mean, *bands = values.T
    ax.plot(steps, mean, color=colour, **{"linewidth": 1.6} | style)
    for se in bands:
        ax.fill_between(steps, mean - se, mean + se, color=colour, alpha=0.15, linewidth=0)


def draw_points(ax: "Axes", records: list[dict], x: str, y: str, marker: str, colour: str, **style) -> None:
    """A marker per record at its fields x and y, with bars of their standard errors (fields `x_se`, `y_se`), if any.
    Records in which x or y is not a number are left out."""
    records = [r for r in records if is_number(r.get(x)) and is_number(r.get(y))]
    if not records:
        return

    def column(key, suffix=""):
        return [NUMBERS.get(key, (1,))[0] * (r.get(key + suffix) or 0) for r in records]

    for axis, key in (("x", x), ("y", y)):
        if any(f"{key}_se" in r for r in records):
            style[f"{axis}err"] = column(key, "_se")
    ax.errorbar(column(x), column(y), fmt=marker, color=colour, **{"markersize": 6, "capsize": 3, "zorder": 3} | style)


def label_steps(ax: "Axes", title: str) -> None:
    """The title of an axis over training steps, which are whole numbers."""
    ax.set_title(title)
    ax.margins(x=0.02)
    ax.xaxis.get_major_locator().set_params(integer=True)


def _series(records, key):
    return [(r["step"], r[key]) for r in records if is_number(r.get(key))]


# ---------------------------------------------------------------------------------------------------- figures


def training_curves(runs: str | Path | dict[str, str | Path], out_png: Png) -> "Figure":
    """Accuracy and length over steps; below them what explains a surprise: KL, mixed groups, truncated responses.

    runs: a run (see read_run) or {label: run} to compare several. The base that all start from is drawn once.
    """
    runs = {label: read_run(run) for label, run in (runs if isinstance(runs, dict) else {"": runs}).items()}
    alone = len(runs) == 1
    # One update per batch is on-policy: its KL is 0 throughout, and the gradient says more
    drift = "kl" if any(r.get("kl") for train, _ in runs.values() for r in train) else "grad_norm"
    starts = [[e | {"seconds": None} for e in held_out if e["step"] == 0] for _, held_out in runs.values()]
    base = starts[0] if not alone and all(start == starts[0] for start in starts) else []
    above, below = ("accuracy", "mean_length"), (drift, "mixed_groups", "truncated")
    with figure(out_png, 5.4, [[0] * 3 + [1] * 3, [2] * 2 + [3] * 2 + [4] * 2], (2.1, 1.2)) as (fig, axes):
        looks = itertools.cycle(zip(COLOURS, MARKERS, strict=True))
        for (label, (train, held_out)), (colour, marker) in zip(runs.items(), looks, strict=False):
            held_out = [e for e in held_out if e["step"] > 0 or not base]
            names = (f"{label} training".strip(), f"{label} held out, ± s.e.".strip()) if alone else (None, label)
            for ax, key in zip(axes, above, strict=False):
                draw_curve(ax, _series(train, key), key, colour, smoothed=False, alpha=0.2)
                draw_curve(ax, _series(train, key), key, colour, alpha=0.75, label=names[0])
                draw_points(ax, held_out, "step", key, marker, INK if alone else colour, label=names[1])
            for ax, key in zip(axes[2:], below, strict=True):
                draw_curve(ax, _series(train, key), key, colour, smoothed=False)
        for ax, key in zip(axes, above, strict=False):
            draw_points(ax, base, "step", key, "s", INK, label="base")
        for ax, key in zip(axes, above + below, strict=True):
            label_steps(ax, NUMBERS[key][1])
        for ax in axes[2:]:
            ax.set_xlabel("step")
        axes[1].set_ylim(bottom=0)
        axes[2].ticklabel_format(style="sci", scilimits=(-2, 3))
        for ax in axes[3:]:
            ax.set_ylim(0, max(5, ax.get_ylim()[1]))
        if axes[0].get_legend_handles_labels()[0]:
            about = f"pale: batches, bold: mean of the last {SMOOTHED}"
            axes[0].legend(loc="best", fontsize=9, title=about, title_fontsize=9, alignment="left")
        return fig


def before_after(
    before: EvalResult | dict, after: EvalResult | dict, out_png: Png, labels: Sequence[str] = ("before", "after")
) -> "Figure":
    """Accuracy and mean length of the same problems before and after, with standard errors, and for each source
    (level) where there are several. before, after: EvalResult, or its summary() as read from a file."""
    before, after = (r if isinstance(r, dict) else r.summary() for r in (before, after))
    rows = [("all", before, after)]
    for source, old in (before.get("by_source") or {}).items():
        if new := (after.get("by_source") or {}).get(source):
            rows.append((source.split("/")[-1].replace("-", " "), old, new))
    with figure(out_png, 1.5 + 0.42 * len(rows), [[0, 1]]) as (fig, axes):
        for ax, key in zip(axes, ("accuracy", "mean_length"), strict=True):
            factor, title = NUMBERS[key]
            for y, (_, old, new) in enumerate(rows):
                ax.plot([factor * old[key], factor * new[key]], [y, y], color="#C8C8C8", linewidth=2, zorder=1)
                for r, colour, marker, label in ((old, GREY, "s", labels[0]), (new, COLOURS[0], "o", labels[1])):
                    style = {"markersize": 8, "label": label} if y == 0 else {}
                    draw_points(ax, [r | {"row": y}], key, "row", marker, colour, zorder=2, **style)
            old, new = before[key], after[key]
            change = f"{100 * (new - old):+.1f} points" if factor == 100 else f"{100 * (new / old - 1):+.0f} %"
            ax.set_title(f"{title}: {factor * old:.1f} to {factor * new:.1f} ({change})")
            ax.set_yticks(range(len(rows)), [row[0] for row in rows])
            ax.set_ylim(len(rows) - 0.5, -0.6)
            ax.grid(axis="y", visible=False)
            ax.set_xlim(left=0)
        axes[0].set_xlim(0, 100)
        fig.get_layout_engine().set(w_pad=0.15)  # inches: the ends of the two scales would touch
        axes[1].tick_params(labelleft=False)
        axes[0].get_yticklabels()[0].set_fontweight("bold")
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return fig


def trade_off(points: list[dict], out_png: Png) -> "Figure":
    """Accuracy against mean length, one marker per model; up and to the left is better.

    points: dicts with `accuracy` (in [0, 1]), `mean_length` (tokens), `label` beside the marker; optionally their
    standard errors `accuracy_se`, `mean_length_se`, a `series` (a method: its points share a colour), and within it a
    `path`: points of one path are joined in the order given. A series without paths is one path.
    """
    if not points:
        raise ValueError("no points to plot")
    series = {}
    for point in points:
        series.setdefault(point.get("series", ""), {}).setdefault(point.get("path", 0), []).append(point)
    with figure(out_png, 4.6, [[0]]) as (fig, (ax,)):
        looks = itertools.cycle(zip(COLOURS, MARKERS, strict=True))
        for (name, paths), (colour, marker) in zip(series.items(), looks, strict=False):
            style = {"linestyle": "-" if name else "none", "linewidth": 1.3, "markersize": 8 if len(paths) == 1 else 6}
            for i, path in enumerate(paths.values()):
                label = name if name and i == 0 else None
                draw_points(ax, path, "mean_length", "accuracy", marker, colour, label=label, **style)
                box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
                for p in path:
                    place = {"xy": (p["mean_length"], 100 * p["accuracy"]), "xytext": (7, 6)}
                    text = {"textcoords": "offset points", "fontsize": 10, "color": colour, "bbox": box}
                    ax.annotate(p.get("label", ""), **place, **text)
        label_trade_off(ax)
        ax.margins(0.12)
        ax.set_xlim(left=0)
        if any(series):
            ax.legend(loc="lower left")
        return fig


def label_trade_off(ax: "Axes") -> None:
    """The axes' names of accuracy against length."""
    ax.set(xlabel="mean length, tokens (shorter is better)", ylabel="accuracy, %")


def main(argv: list[str] | None = None) -> None:
    """The command line; exit code 2 and one line for what cannot be drawn."""
    words = cli.words(argv, "python -m minidrpo.show.plots RUN_DIR [RUN_DIR ...]", 1)
    with cli.user_errors():
        for run in words:
            if not Path(run).is_dir():
                raise ValueError(f"{run}: no such run directory")
            training_curves(run, Path(run) / "curves.png")
            print(Path(run) / "curves.png")
        if len(words) > 1:
            points = []
            for run in words:
                evaluations = read_run(run)[1]
                if not evaluations:
                    raise ValueError(f"{run}: holds no evaluation to compare")
                points.append(evaluations[-1] | {"label": Path(run).name})
            trade_off(points, "trade_off.png")
            print("trade_off.png")


if __name__ == "__main__":
    sys.exit(main())
