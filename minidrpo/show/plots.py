"""plots.py - the figures: the dynamics of a run, before against after, accuracy against length. PNG files, no screen.

    python plots.py RUN_DIR [RUN_DIR ...]      curves.png of each run; with several, one trade_off.png of their ends

Figures are made from files and plain dicts only (metrics.jsonl, evals.jsonl), never from a live run. Lines are training
batches, points with bars are held-out evaluations and their standard errors. Each function also returns its Figure.
"""

import itertools
import json
import math
import sys
from pathlib import Path

from minidrpo import cli

# Okabe and Ito's palette: told apart with any colour vision; markers differ as well, for paper without colour
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

# ---------------------------------------------------------------------------------------------------- reading


def read_lines(path) -> list[dict]:
    """The objects of a .jsonl file. ValueError naming the file and the line if it is missing, empty or half-written."""
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise ValueError(f"{path}: {reason}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {number} is not valid JSON (half-written?): {error}") from error
        if not isinstance(record, dict) or "step" not in record:
            raise ValueError(f"{path}: line {number} is not an object with a step")
        records.append(record)
    if not records:
        raise ValueError(f"{path}: holds no steps yet")
    return records


def read_run(run) -> tuple[list[dict], list[dict]]:
    """(training records, evaluations) by step of a run directory, a metrics.jsonl, or a list of metrics records.

    Evaluations come from evals.jsonl beside the metrics, and from metrics records that carry `eval_...` fields.
    """
    if isinstance(run, (str, Path)):
        path = Path(run) / "metrics.jsonl" if Path(run).is_dir() else Path(run)
        records, beside = read_lines(path), path.with_name("evals.jsonl")
        evaluations = read_lines(beside) if beside.exists() else []
    else:
        records, evaluations = list(run), []
        if not records:
            raise ValueError("no metrics to plot")
    evaluations += [
        {"step": r["step"]} | {k.removeprefix("eval_"): v for k, v in r.items() if k.startswith("eval_")}
        for r in records
        if "eval_accuracy" in r
    ]
    return ([r for r in records if "mean_length" in r], sorted(evaluations, key=lambda e: e["step"]))


# ---------------------------------------------------------------------------------------------------- figures


SMOOTHED = 3  # batches
DRIFT = {"kl": "KL(old || new), nats a token", "grad_norm": "gradient norm before clipping"}


def training_curves(runs, out_png):
    """Accuracy and length against steps; below them what explains a surprise: KL, mixed groups, cut-off answers.

    runs: a run (see read_run) or {label: run} to compare several. The base that all start from is drawn once.
    """
    runs = {label: read_run(run) for label, run in (runs if isinstance(runs, dict) else {"": runs}).items()}
    # A single update a batch is on-policy: its KL is 0 throughout, and the gradient says more
    drift = "kl" if any(r.get("kl") for train, _ in runs.values() for r in train) else "grad_norm"
    starts = [[e | {"seconds": None} for e in held_out if e["step"] == 0] for _, held_out in runs.values()]
    base = starts[0] if len(runs) > 1 and all(start == starts[0] for start in starts) else []
    with figure(5.4, [[0] * 3 + [1] * 3, [2] * 2 + [3] * 2 + [4] * 2], (2.1, 1.2)) as (fig, axes):
        with_held_out = ((axes[0], "accuracy", 100), (axes[1], "mean_length", 1))
        for (label, (train, held_out)), colour, marker in zip(
            runs.items(), itertools.cycle(COLOURS), itertools.cycle(MARKERS)
        ):
            held_out = [e for e in held_out if e["step"] > 0 or not base]
            for ax, key, scale in with_held_out:
                _curve(ax, train, key, scale, colour, alpha=0.2)
                _curve(
                    ax,
                    _smooth(train, key),
                    key,
                    scale,
                    colour,
                    alpha=0.75,
                    label=f"{label} training".strip() if len(runs) == 1 else None,
                )
                _points(
                    ax,
                    held_out,
                    key,
                    scale,
                    marker,
                    INK if len(runs) == 1 else colour,
                    f"{label} held out, ± s.e.".strip(" ,") if len(runs) == 1 else label,
                )
            for ax, key, scale in ((axes[2], drift, 1), (axes[3], "mixed_groups", 100), (axes[4], "truncated", 100)):
                _curve(ax, train, key, scale, colour)
        for ax, key, scale in with_held_out:
            _points(ax, base, key, scale, "s", INK, "base")
        names = (
            "accuracy, %",
            "mean length, tokens",
            DRIFT[drift],
            "groups with right and wrong, %",
            "cut off at the limit, %",
        )
        for ax, name in zip(axes, names, strict=True):
            ax.set_title(name)
            ax.margins(x=0.02)
            ax.xaxis.get_major_locator().set_params(integer=True)
        for ax in axes[2:]:
            ax.set_xlabel("step")
        axes[1].set_ylim(bottom=0)
        axes[2].ticklabel_format(style="sci", scilimits=(-2, 3))
        for ax in axes[3:]:
            ax.set_ylim(0, max(5, ax.get_ylim()[1]))
        if axes[0].get_legend_handles_labels()[0]:
            about = f"pale: batches, bold: mean of the last {SMOOTHED}"
            axes[0].legend(loc="best", fontsize=9, title=about, title_fontsize=9, alignment="left")
        fig.savefig(out_png)
        return fig


def before_after(before, after, out_png, labels=("before", "after")):
    """Accuracy and mean length of the same problems before and after, with standard errors, and for each source
    (level) where there are several. before, after: EvalResult, or its summary() as read from a file."""
    before, after = (r if isinstance(r, dict) else r.summary() for r in (before, after))
    parts = [name for name in before.get("by_source") or {} if name in (after.get("by_source") or {})]
    rows = [("all", before, after)] + [
        (name.split("/")[-1].replace("-", " "), before["by_source"][name], after["by_source"][name]) for name in parts
    ]
    with figure(1.5 + 0.42 * len(rows), [[0, 1]]) as (fig, axes):
        for ax, key, scale, name in (
            (axes[0], "accuracy", 100, "accuracy, %"),
            (axes[1], "mean_length", 1, "mean length, tokens"),
        ):
            for y, (_, old, new) in enumerate(rows):
                ax.plot([scale * old[key], scale * new[key]], [y, y], color="#C8C8C8", linewidth=2, zorder=1)
                for r, colour, marker, label in ((old, GREY, "s", labels[0]), (new, COLOURS[0], "o", labels[1])):
                    ax.errorbar(
                        scale * r[key],
                        y,
                        xerr=scale * (r.get(f"{key}_se") or 0),
                        fmt=marker,
                        color=colour,
                        markersize=8 if y == 0 else 6,
                        capsize=3,
                        label=label if y == 0 else None,
                        zorder=2,
                    )
            old, new = rows[0][1][key], rows[0][2][key]
            change = f"{100 * (new - old):+.1f} points" if scale == 100 else f"{100 * (new / old - 1):+.0f} %"
            ax.set_title(f"{name}: {scale * old:.1f} to {scale * new:.1f} ({change})")
            ax.set_yticks(range(len(rows)), [row[0] for row in rows])
            ax.set_ylim(len(rows) - 0.5, -0.6)
            ax.grid(axis="y", visible=False)
            ax.set_xlim(left=0)
        axes[0].set_xlim(0, 100)
        fig.get_layout_engine().set(w_pad=0.15)  # inches: the ends of the two scales would touch
        axes[1].tick_params(labelleft=False)
        axes[0].get_yticklabels()[0].set_fontweight("bold")
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        fig.savefig(out_png)
        return fig


def trade_off(points, out_png):
    """Accuracy against mean length, one marker a model; up and to the left is better.

    points: dicts with `accuracy` (in [0, 1]), `mean_length` (tokens), `label` beside the marker; optionally their
    standard errors `accuracy_se`, `mean_length_se`, a `series` (a method: its points share a colour), and within it a
    `path`: points of one path are joined in the order given. A series without paths is one path.
    """
    if not points:
        raise ValueError("no points to plot")
    series = {}
    for point in points:
        series.setdefault(point.get("series", ""), {}).setdefault(point.get("path", 0), []).append(point)
    with figure(4.6, [[0]]) as (fig, (ax,)):
        for (name, paths), colour, marker in zip(series.items(), itertools.cycle(COLOURS), itertools.cycle(MARKERS)):
            for i, group in enumerate(paths.values()):
                ax.errorbar(
                    [p["mean_length"] for p in group],
                    [100 * p["accuracy"] for p in group],
                    xerr=[p.get("mean_length_se") or 0 for p in group],
                    yerr=[100 * (p.get("accuracy_se") or 0) for p in group],
                    fmt=marker,
                    linestyle="-" if name else "none",
                    color=colour,
                    capsize=3,
                    linewidth=1.3,
                    markersize=8 if len(paths) == 1 else 6,
                    label=name if name and i == 0 else None,
                )
                for p in group:
                    ax.annotate(
                        p.get("label", ""),
                        (p["mean_length"], 100 * p["accuracy"]),
                        xytext=(7, 6),
                        textcoords="offset points",
                        fontsize=10,
                        color=colour,
                        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
                    )
        ax.set(xlabel="mean length, tokens (shorter is better)", ylabel="accuracy, %")
        ax.margins(0.12)
        ax.set_xlim(left=0)
        if any(series):
            ax.legend(loc="lower left")
        fig.savefig(out_png)
        return fig


# ---------------------------------------------------------------------------------------------------- drawing


class figure:
    """`with figure(height, mosaic) as (fig, axes)`: a figure of this file's style, without pyplot's global state."""

    def __init__(self, height, mosaic, height_ratios=None):
        self.height, self.mosaic, self.height_ratios = height, mosaic, height_ratios

    def __enter__(self):
        import matplotlib
        from matplotlib.figure import Figure  # its own canvas is Agg: no display is needed

        self.style = matplotlib.rc_context(STYLE)
        self.style.__enter__()
        fig = Figure(figsize=(WIDTH, self.height), layout="constrained")
        axes = fig.subplot_mosaic(self.mosaic, height_ratios=self.height_ratios)
        return fig, [axes[key] for key in sorted(axes)]

    def __exit__(self, *error):
        self.style.__exit__(*error)


def _curve(ax, records, key, scale, colour, **kwargs):
    pairs = [(r["step"], scale * r[key]) for r in records if _is_number(r.get(key))]
    if pairs:
        ax.plot(*zip(*pairs, strict=True), color=colour, linewidth=1.6, **kwargs)


def _points(ax, evaluations, key, scale, marker, colour, label):
    found = [e for e in evaluations if _is_number(e.get(key))]
    if found:
        ax.errorbar(
            [e["step"] for e in found],
            [scale * e[key] for e in found],
            yerr=[scale * (e.get(f"{key}_se") or 0) for e in found],
            fmt=marker,
            color=colour,
            markersize=6,
            capsize=3,
            label=label,
            zorder=3,
        )


def _smooth(records, key):
    """Mean of the latest SMOOTHED steps: a trailing one, so that a line starts where its data start."""
    records = [r for r in records if _is_number(r.get(key))]
    windows = [records[max(0, end - SMOOTHED) : end] for end in range(1, len(records) + 1)]
    return [{"step": w[-1]["step"], key: sum(r[key] for r in w) / len(w)} for w in windows]


def _is_number(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


def main(argv=None):
    words = sys.argv[1:] if argv is None else argv
    if not words or any(word.startswith("-") for word in words):
        print("usage: python plots.py RUN_DIR [RUN_DIR ...]", file=sys.stderr)
        raise SystemExit(0 if {"-h", "--help"} & set(words) else 2)
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
