"""thinking_plots.py - the thinking world's study as figures and tables: results/thinking.csv in, PNG, markdown out.

    python -m experiments.thinking_plots [experiments/results/thinking.csv]    (study.py does the same at its end)

    docs/thinking.png       accuracy against length on hard prompts, four methods through their strengths
    map.png                 accuracy on hard prompts, method by share of easy prompts: predicted, measured
    thinking_levels.png     accuracy, length and share of the short way, level by level
    thinking.md             the tables and statements of thinking_tables.py

Bars are 95 % intervals over runs and problems. Collapsed runs are drawn where they are.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from experiments import mode_model, thinking_report, thinking_tables
from experiments.study_cells import MIDDLE
from experiments.thinking_tables import NAMES, Results
from minidrpo import cli
from minidrpo.show import plots
from minidrpo.show.plots import COLOURS, GREY, INK, figure
from minidrpo.tasks.thinking import EASY_SHARE

LOOKS = {  # method: colour, marker
    "drpo": (COLOURS[0], "o"),
    "grpo-lp": (COLOURS[1], "X"),
    "grpo-lp-no-std": (COLOURS[4], "P"),
    "rloo-lp": (COLOURS[2], "v"),
    "disco": (COLOURS[5], "s"),
    "grpo": (INK, "s"),
}
SYMBOLS = {"drpo": "λ", "grpo-lp": "α", "grpo-lp-no-std": "α", "rloo-lp": "α"}
FRONTIER = ("drpo", "grpo-lp", "grpo-lp-no-std", "rloo-lp")
PREDICTED = Path(mode_model.OUT) / "map_predicted.csv"


def frontier(results: Results, cells: pd.DataFrame, out_png, share=EASY_SHARE):
    """Hard prompts: accuracy against length at one share; beside the whole picture its upper part, larger."""
    found = cells[(cells.share == share) & (cells.runs > 0)]
    if found[found.method.isin(FRONTIER)].empty:
        raise ValueError(f"the study holds no run of {', '.join(FRONTIER)} at share {share:g}")
    with figure(out_png, 4.6, [[0, 0, 0, 1, 1]]) as (fig, (whole, upper)):
        for ax in (whole, upper):
            for method in FRONTIER:
                _draw_frontier(ax, found[found.method == method], method)
            _draw_frontier(ax, found[found.method == "disco"], "disco", markerfacecolor="white")
            ax.set_xlabel("mean length, tokens")
        base = results.of("base")
        if len(base):
            point = {"x": thinking_tables.grouped(base, "tokens", "hard").mean()}
            point["accuracy"] = thinking_tables.grouped(base, "right", "hard").mean()
            plots.draw_points(whole, [point], "x", "accuracy", "*", GREY, markersize=11, label="base, before training")
        _name_the_collapsed(whole, found)
        whole.set(ylim=(0, 103), ylabel="accuracy on hard prompts, %")
        whole.set_xlim(left=0)
        whole.set_title(f"hard prompts ({100 * share:.0f} % of training is easy)")
        _look_at_the_top(upper, found[found.method.isin((*FRONTIER, "disco"))])
        fig.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=10)
        return fig


def _draw_frontier(ax, own, method, **style):
    """One line through the strengths, its markers growing with the strength."""
    if own.empty:
        return
    colour, marker = LOOKS[method]
    ax.plot(
        [e.mean for e in own.tokens_hard], [100 * e.mean for e in own.right_hard], color=colour, linewidth=1.2, zorder=2
    )
    for i, row in enumerate(own.itertuples()):
        x, y = row.tokens_hard, row.right_hard
        bars = {"xerr": _around(x), "yerr": _around(y, 100), "capsize": 0, "elinewidth": 1, "ecolor": (colour, 0.5)}
        point = {"x": x.mean, "accuracy": y.mean}
        size = 6 + 4 * i / max(1, len(own) - 1)
        plots.draw_points(ax, [point], "x", "accuracy", marker, colour, **{"markersize": size} | bars | style)
    strengths = _strengths(own)
    name = NAMES[method] + (f", {SYMBOLS[method]} = {strengths}" if strengths else " (no length term)")
    ax.plot([], [], marker=marker, color=colour, linewidth=1.2, label=name, **style)


def _name_the_collapsed(ax, found):
    """Method and strengths beside the points that have collapsed, one line per method: their marks hide each other."""
    collapsed = found[[e.mean < thinking_tables.SURVIVES for e in found.right_hard]]
    for i, method in enumerate(m for m in FRONTIER if m in set(collapsed.method)):
        own = collapsed[collapsed.method == method]
        x, y = max(e.mean for e in own.tokens_hard), min(100 * e.mean for e in own.right_hard)
        text = f"{NAMES[method]}, {SYMBOLS[method]} = {_strengths(own)}"
        place = {"xytext": (12, -4 + 13 * i), "textcoords": "offset points"}
        ax.annotate(text, (x, y), fontsize=9, color=LOOKS[method][0], **place)


def _strengths(own):
    return ", ".join(f"{s:g}".replace("e-0", "e-") for s in own.strength if not np.isnan(s))


def _around(e, factor=1.0):
    """The bars of an estimate; rounding must not make one negative."""
    return factor * np.array([[max(0, e.mean - e.low)], [max(0, e.high - e.mean)]])


def _look_at_the_top(ax, own):
    """The limits around the points that have not collapsed, with a title that says so."""
    alive = own[[e.mean > thinking_tables.SURVIVES - 0.05 for e in own.right_hard]]
    if len(alive):
        ax.set_xlim(min(e.low for e in alive.tokens_hard) - 3, max(e.high for e in alive.tokens_hard) + 3)
        ax.set_ylim(100 * min(e.low for e in alive.right_hard) - 1, 100.5)
    ax.set_title("the upper part")


def by_level(results: Results, cells: pd.DataFrame, out_png, share=EASY_SHARE):
    """Three panels over the levels: accuracy, length, share of the short way; each method at its middle strength."""
    rows = results.rows[(results.rows.phase == "held out") & (results.rows.base == 0)]
    levels = sorted(group for group in set(rows.group) if "level-" in group)
    if not levels:
        raise ValueError("the study holds no held-out rows of single levels")
    keys = {"accuracy": "accuracy, %", "mean_length": "mean length, tokens", "short": "the short way, %"}
    with figure(out_png, 3.9, [[0, 1, 2]]) as (fig, axes):
        for method in ("base", *LOOKS):
            own = rows[rows.method == "base"] if method == "base" else _at_middle(rows, method, share)
            mean = own.groupby("group")[list(keys)].mean().reindex(levels)
            colour, marker = LOOKS.get(method, (GREY, "*"))
            strength = "" if MIDDLE.get(method) is None else f", {SYMBOLS.get(method, '')} = {MIDDLE[method]:g}"
            for ax, key in zip(axes, keys, strict=True):
                factor = 1 if key == "mean_length" else 100
                label = NAMES.get(method, method) + strength
                if len(own):
                    x = [int(level.rpartition("-")[2]) for level in levels]
                    ax.plot(
                        x, factor * mean[key], marker=marker, color=colour, linewidth=1.4, markersize=5, label=label
                    )
        for ax, title in zip(axes, keys.values(), strict=True):
            ax.set_title(title)
            ax.set_ylim(bottom=0)
            ax.set_xlabel("level: operations")
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
        return fig


def _at_middle(rows, method, share):
    own, strength = rows[(rows.method == method) & (rows.share == share)], MIDDLE[method]
    return own[own.strength.isna() if strength is None else own.strength == strength]


def the_map(cells: pd.DataFrame, predicted: pd.DataFrame, out_png):
    """Accuracy on hard prompts, methods down and shares across: what the mode model said beside what came out."""
    both = thinking_tables.compared(cells, predicted)
    if both.empty:
        raise ValueError("the study holds no cell that the mode model predicts")
    methods = [method for method in NAMES if method in set(both.method)]
    with figure(out_png, 1.3 + 0.28 * len(methods), [[0, 1]]) as (fig, axes):
        titles = ("predicted by the mode model", "measured in the study")
        for ax, key, title in zip(axes, ("predicted", "measured"), titles, strict=True):
            grid = 100 * both.pivot(index="method", columns="share", values=key).reindex(methods)
            image = ax.imshow(grid, vmin=0, vmax=100, cmap="RdYlBu", aspect="auto", alpha=0.85)
            for (y, x), value in np.ndenumerate(grid.to_numpy()):
                if not np.isnan(value):
                    ax.text(
                        x,
                        y,
                        f"{value:.0f}",
                        ha="center",
                        va="center",
                        fontsize=10,
                        color="white" if abs(value - 50) > 35 else INK,
                    )
            ax.set_xticks(range(len(grid.columns)), [f"{100 * share:.0f} %" for share in grid.columns])
            ax.set_yticks(range(len(methods)), [_with_strength(method) for method in methods])
            ax.set(title=title, xlabel="easy prompts in training")
            ax.grid(visible=False)
        axes[1].tick_params(left=False, labelleft=False)
        fig.colorbar(image, ax=axes, label="accuracy on hard prompts, %", shrink=0.8)
        return fig


def _with_strength(method):
    return NAMES[method] + ("" if MIDDLE[method] is None else f" {MIDDLE[method]:g}".replace("e-0", "e-"))


def write_all(path: str | Path, out: Path, frontier_png: str | Path):
    """Every figure and the tables that the study's files at `path` have runs for."""
    results, predicted = thinking_tables.read(path), pd.read_csv(PREDICTED)
    cells = thinking_tables.table(results)
    out.mkdir(parents=True, exist_ok=True)
    (out / "thinking.md").write_text(thinking_report.markdown(results, cells, predicted), encoding="utf-8")
    print(out / "thinking.md")
    Path(frontier_png).parent.mkdir(parents=True, exist_ok=True)
    for draw, data, png in (
        (frontier, (results, cells), frontier_png),
        (the_map, (cells, predicted), out / "map.png"),
        (by_level, (results, cells), out / "thinking_levels.png"),
    ):
        try:
            draw(*data, png)
            print(png)
        except ValueError as error:
            print(f"no {png}: {error}")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="thinking_plots.py", description="Figures and tables of the thinking world.")
    parser.add_argument("study", nargs="?", default="experiments/results/thinking.csv", help="what study.py wrote")
    parser.add_argument("--out-dir", help="where map, levels and tables go; default: beside that file")
    parser.add_argument("--figure", default="docs/thinking.png", help="where the README's picture goes")
    args = parser.parse_args(argv)
    with cli.user_errors():
        write_all(args.study, Path(args.out_dir or Path(args.study).parent), args.figure)


if __name__ == "__main__":
    sys.exit(main())
