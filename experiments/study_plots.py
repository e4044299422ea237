r"""study_plots.py - the habit world's study as figures and as one table: results/study.csv in, PNG and markdown out.

    python -m experiments.study_plots [experiments/results/study.csv]  (`study.py habit` does the same at its end)

    trade_off.png     accuracy against length, one line per method through its strengths (the paper's Figure 3)
    dynamics.png      DRPO's training for several lambda: accuracy, length, entropy, mixed groups (Figure 2)
    difficulty.png    accuracy against length, level by level (Figure 4)
    gdpo.png          GDPO against GRPO on two rewards, over steps, and how many groups each can tell apart
    study.md          per method and strength: accuracy, length, AES, seconds

A run's result is its last held-out evaluation. A point is the mean over the seeds of one method and strength, its bar
the standard error of that mean; with a single seed, the standard error over problems. A method's reference is its own
run without a length penalty: lambda = inf, alpha = 0, beta = 0, w = 0; where the last three make it GRPO, that is GRPO.

P prompts | G responses per prompt | K rewards
"""

import argparse
import itertools
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from minidrpo import cli, markdown
from minidrpo.files import plain_file
from minidrpo.methods import baselines
from minidrpo.rundir.metrics import AES, aes
from minidrpo.show import plots
from minidrpo.show.plots import COLOURS, GREY, INK, NUMBERS, figure

METHODS = {  # in the order of legends: name in the figures, colour, marker
    "drpo": ("DRPO", COLOURS[0], "o"),
    "rloo-lp": ("RLOO-LP", COLOURS[1], "v"),
    "alp": ("ALP", COLOURS[2], "^"),
    "hapo": ("HAPO", COLOURS[3], "D"),
    "grpo-lp": ("GRPO-LP", COLOURS[4], "P"),
    "gdpo": ("GDPO", COLOURS[5], "X"),
    "grpo-sum": ("GRPO, two rewards", "#7A5230", "*"),
    "grpo": ("GRPO", INK, "s"),
}
SPARE = ("#882255", "#117733", "#999933", "#332288")  # for methods that are not in that table
SYMBOL = {"lam": "λ", "alpha": "α", "alp_beta": "β", "hapo_w": "w", "length_limit": "limit"}
NO_PENALTY = {"lam": math.inf, "alpha": 0.0, "alp_beta": 0.0, "hapo_w": 0.0}  # hyperparameter -> its reference strength
LIKE_GRPO = ("grpo-lp", "alp", "hapo")  # at strength 0 their reward and their update are GRPO's
MARKERS = "larger: stronger\nhollow squares: no length penalty\ngrey: the base"
TEXTS = ["method", "hyperparameter", "role", "phase", "group"]  # columns of the file; all others are numbers
NEEDED = ["step", "accuracy", "mean_length"]  # in every row
MEANS = ["accuracy", "accuracy_se", "mean_length", "mean_length_se", "seconds"]
PANELS = ("accuracy", "mean_length", "entropy", "mixed_groups")

# ------------------------------------------------------------------------------------------------------------- reading


def read_study(path: str | Path) -> pd.DataFrame:
    """The rows of role "study", empty numbers as NaN, empty texts as "". ValueError names the file and the line."""
    try:
        with open(plain_file(path), newline="", encoding="utf-8") as file:
            rows = pd.read_csv(file, dtype=str, keep_default_na=False, na_values="")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if missing := {*TEXTS, *NEEDED, "strength", "seed"} - set(rows):
        raise ValueError(f"{path}: has no column {', '.join(sorted(missing))}")
    if rows.empty:
        raise ValueError(f"{path}: holds no rows")
    rows.index += 2  # the line in the file
    study = rows.reindex(columns=rows.columns.union(MEANS)).fillna(dict.fromkeys(TEXTS, ""))
    study = study[(study.role == "study") & (study.phase != "failed")]  # a run without a result has no numbers
    for name in study.columns.difference(TEXTS):
        bad = study[name][study[name].notna() & pd.to_numeric(study[name], errors="coerce").isna()]
        if len(bad):
            raise ValueError(f"{path}: line {bad.index[0]}: {name} is not a number: {bad.iloc[0]!r}")
    study = study.astype(dict.fromkeys(study.columns.difference(TEXTS), float))
    torn = study[study[NEEDED].isna().any(axis=1) | (study.group == "")]
    if len(torn):
        raise ValueError(f"{path}: line {torn.index[0]} has no group, {', '.join(NEEDED)} (half-written?)")
    if study[(study.phase == "held out") & (study.method != "base")].empty:
        raise ValueError(f"{path}: holds no finished run of the study")
    return study


@dataclass(frozen=True)
class Point:
    """One method at one strength on one group of problems: means over its seeds. None: the file has no such number."""

    method: str
    hyperparameter: str
    strength: float | None
    accuracy: float
    mean_length: float
    accuracy_se: float | None
    mean_length_se: float | None
    seconds: float | None
    n_seeds: int

    @property
    def is_reference(self) -> bool:
        return self.method == "grpo" or NO_PENALTY.get(self.hyperparameter) == self.strength

    @property
    def strength_text(self) -> str:
        return _text(self.strength).replace("e-0", "e-")

    @property
    def weak_to_strong(self) -> float:
        """For sorting: a large lambda or limit is weak; all other hyperparameters are weak where they are small."""
        return (self.strength or 0) * (-1 if self.hyperparameter in ("lam", "length_limit") else 1)


def points(rows: pd.DataFrame, group="all") -> dict[str, list[Point]]:
    """method -> its points from weak to strong, of the last held-out evaluation of every run."""
    held_out = rows[(rows.phase == "held out") & (rows.group == group)].sort_values("step", kind="stable")
    cell = ["method", "hyperparameter", "strength"]
    cells = held_out.drop_duplicates([*cell, "seed"], keep="last").groupby(cell, dropna=False)
    table = cells[MEANS].mean().assign(n_seeds=cells.size())
    for key in ("accuracy", "mean_length"):  # of a single seed remains the standard error over problems
        table[f"{key}_se"] = cells[key].sem().fillna(table[f"{key}_se"])
    table = table.reset_index().astype(object)
    found = [Point(**row) for row in table.where(table.notna(), None).to_dict("records")]
    order = [*METHODS, *sorted({p.method for p in found} - METHODS.keys())]
    by_method = {m: sorted((p for p in found if p.method == m), key=lambda p: p.weak_to_strong) for m in order}
    return {method: own for method, own in by_method.items() if own}


def reference(point: Point, all_points: dict[str, list[Point]]) -> Point | None:
    """The method's own run without a length penalty; None where the study has none."""
    own = [p for p in all_points[point.method] if p.is_reference]
    if not own and point.method in LIKE_GRPO:
        own = all_points.get("grpo", [])
    return own[0] if own else None


def curves(rows: pd.DataFrame, method: str, key: str) -> dict[float | None, list[tuple]]:
    """strength -> [(step, mean over seeds, standard error over seeds or 0)] of a training number, weak lambda first."""
    train = rows[(rows.phase == "train") & (rows.method == method)]
    if key not in train or train[key].isna().all():
        return {}
    cells = train.dropna(subset=key).groupby(["strength", "step"], dropna=False)[key]
    table = pd.DataFrame({"mean": cells.mean(), "se": cells.sem().fillna(0.0)}).reset_index("step")
    by_strength = table.groupby("strength", dropna=False, sort=False)
    found = {None if math.isnan(s) else s: list(own.itertuples(index=False, name=None)) for s, own in by_strength}
    return dict(sorted(found.items(), key=lambda item: -(item[0] or 0)))


def _text(strength):
    return "" if strength is None else "∞" if strength == math.inf else f"{strength:g}"


# ------------------------------------------------------------------------------------------------------------- figures


def _style(method):
    """(name in the figures, colour, marker)"""
    return METHODS.get(method) or (method, SPARE[sum(map(ord, method)) % len(SPARE)], "p")


def _draw_trade_off(ax, found, strengths, size=6):
    """One line per method, its markers growing with the strength; hollow squares where there is no penalty; the base as
    grey lines. strengths: whether the legend names them; beside the points they would hide each other."""
    methods = {method: own for method, own in found.items() if method != "base"}
    for method, own in methods.items():
        name, colour, marker = _style(method)
        start = reference(own[0], methods)
        path = own if start is None or start in own else [start, *own]
        ax.plot([p.mean_length for p in path], [100 * p.accuracy for p in path], color=colour, linewidth=1.3, zorder=2)
        white = {"markerfacecolor": "white"}
        bars = {"ecolor": (colour, 0.45), "elinewidth": 1, "capsize": 0}
        for i, p in enumerate(own):
            grown = size * (1 if p.is_reference or len(own) == 1 else 0.8 + 0.7 * i / (len(own) - 1))
            shape, fill = ("s", white) if p.is_reference else (marker, {})
            style = {"markersize": grown, "markeredgewidth": 1.2} | bars | fill
            plots.draw_points(ax, [vars(p)], "mean_length", "accuracy", shape, colour, **style)
        if strengths and own[0].hyperparameter in SYMBOL:
            name += f", {SYMBOL[own[0].hyperparameter]} = {', '.join(p.strength_text for p in own)}"
        shape, fill = ("s", white) if method == "grpo" else (marker, {})
        ax.plot([], [], marker=shape, markersize=size, linewidth=1.3, color=colour, label=name, **fill)
    ax.margins(0.08)
    _frame(ax, methods, found.get("base", []), fontsize=9 if strengths else 8)


def _frame(ax, methods, bases, fontsize):
    """The limits of both axes: collapsed runs become arrows at the lower edge, the base grey lines and a text."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    every = [p for own in methods.values() for p in own]
    floor = _floor([100 * p.accuracy for p in every])
    y0 = max(y0, min(100 * (p.accuracy - (p.accuracy_se or 0)) for p in every if 100 * p.accuracy >= floor) - 1)
    for p in every:
        if 100 * p.accuracy < floor:
            name, colour, _ = _style(p.method)
            text, place = f"↓ {name} {p.strength_text}: {100 * p.accuracy:.0f} %", (p.mean_length, y0)
            ax.annotate(text, place, xytext=(4, 16), textcoords="offset points", fontsize=8, color=colour)
    for base in bases:
        x1 = max(x1, base.mean_length + 0.03 * (x1 - x0))  # its accuracy may be far from all others
        dashed = {"color": GREY, "linewidth": 1, "linestyle": (0, (4, 3)), "zorder": 1}
        ax.axvline(base.mean_length, **dashed)
        ax.axhline(100 * base.accuracy, **dashed)
        text = f"base: {100 * base.accuracy:.0f} %" + (", below" if y0 >= 100 * base.accuracy else "")
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        ax.text(0.985, 0.02, text, transform=ax.transAxes, ha="right", fontsize=fontsize, color=GREY, bbox=box)
    ax.set(xlim=(x0, x1), ylim=(y0, y1))


def _floor(values):
    """Where to end the scale, so that one or two collapsed runs do not flatten all others: in the widest gap among the
    lowest tenth (at least one value), if it is wider than all that lies above it."""
    values = sorted(values)
    gaps = [(values[i] - values[i - 1], i) for i in range(1, min(max(1, len(values) // 10) + 1, len(values)))]
    gap, i = max(gaps, default=(0, 0))
    return values[i] if gap > values[-1] - values[i] > 0 else values[0]


def trade_off(rows: pd.DataFrame, out_png):
    """Accuracy against length, all methods in one panel: up and to the left is better."""
    with figure(out_png, 6.2, [[0]]) as (fig, (ax,)):
        found = points(rows)
        _draw_trade_off(ax, found, strengths=True)
        plots.label_trade_off(ax)
        ax.set_title(f"{MARKERS.replace(chr(10), '; ')}; {_bars(found)}", fontsize=10, color=GREY)
        fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=10)
        return fig


def difficulty(rows: pd.DataFrame, out_png):
    """The same, level by level; each panel has its own scale of accuracy. ValueError if the study has no levels."""
    levels = sorted(set(rows.group) - {"all"})
    if not levels:
        raise ValueError("the study holds no held-out rows of single levels")
    columns = min(3, len(levels) + 1)
    cells = [*range(len(levels) + 1), *["."] * (-(len(levels) + 1) % columns)]  # the last number holds the legend
    mosaic = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    with figure(out_png, 2.7 * len(mosaic), mosaic) as (fig, (*axes, last)):
        for ax, level in zip(axes, levels, strict=True):
            _draw_trade_off(ax, points(rows, level), strengths=False, size=4.5)
            ax.set_title(level.split("/")[-1].replace("-", " "))
            ax.tick_params(labelsize=9)
        last.axis("off")
        last.legend(*axes[0].get_legend_handles_labels(), loc="center", fontsize=10, title=MARKERS)
        fig.supxlabel("mean length, tokens (shorter is better)", fontsize=11)
        fig.supylabel("accuracy, %", fontsize=11)
        return fig


def dynamics(rows: pd.DataFrame, out_png, method="drpo"):
    """Training over steps, one line per strength. ValueError if the method was not trained."""
    import matplotlib

    by_key = {key: curves(rows, method, key) for key in PANELS}
    strengths = list(by_key["accuracy"])
    if not strengths:
        raise ValueError(f"the study holds no training rows of {method}")
    shades = matplotlib.colormaps["viridis"]([0.9 * i / max(1, len(strengths) - 1) for i in range(len(strengths))])
    with figure(out_png, 5.6, [[0, 1], [2, 3]]) as (fig, axes):
        for ax, key in zip(axes, PANELS, strict=True):
            for strength, colour, line in zip(strengths, shades, itertools.cycle(("-", "--", "-.", ":"))):
                style = {"label": f"λ = {_text(strength)}" if method == "drpo" else _text(strength), "linestyle": line}
                plots.draw_curve(ax, by_key[key].get(strength), key, colour, ahead=1, **style)
            plots.label_steps(ax, NUMBERS[key][1])
        for ax in axes[2:]:
            ax.set_xlabel("step")
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(strengths))
        return fig


def distinct_groups(G: int, K=2, digits=6) -> dict[str, int]:
    """How many different groups of advantages K binary rewards and G responses can give, up to the responses' order:
    {"GRPO": of the summed reward, "GRPO without std": the same, "GDPO": of each reward by itself}."""
    outcomes = list(itertools.product((0.0, 1.0), repeat=K))
    reward_PGK = torch.tensor(list(itertools.combinations_with_replacement(outcomes, G)), dtype=torch.float64)
    total_PG = reward_PGK.sum(-1)
    advantages = {
        "GRPO": baselines.grpo_advantage(total_PG, eps=1e-12),
        "GRPO without std": baselines.grpo_advantage(total_PG, std=None),
        "GDPO": baselines.gdpo_advantage(reward_PGK, batch_norm=False, eps=1e-12),
    }
    return {name: len((a.sort(-1).values * 10**digits).round().unique(dim=0)) for name, a in advantages.items()}


def gdpo(rows: pd.DataFrame, out_png, groups=range(2, 8)):
    """Correct, and correct within the limit, over steps; and why GDPO can tell more apart: distinct groups."""
    with figure(out_png, 3.6, [[0, 1, 2]]) as (fig, (*axes, last)):
        for ax, key, name in zip(
            axes, ("accuracy", "reward_length"), ("correct, %", NUMBERS["reward_length"][1]), strict=True
        ):
            for method, line in (("grpo-sum", "--"), ("gdpo", "-")):
                label, colour, _ = _style(method)
                for curve in curves(rows, method, key).values():
                    plots.draw_curve(ax, curve, key, colour, ahead=1, label=label, linestyle=line)
            plots.label_steps(ax, "")
            ax.set_title(f"{name} (training)", fontsize=10)
            ax.set_xlabel("step")
        counts = [distinct_groups(G) for G in groups]
        colours = {
            "GDPO": (_style("gdpo")[1], "X"),
            "GRPO without std": (GREY, "s"),
            "GRPO": (_style("grpo-sum")[1], "*"),
        }
        for name, (colour, marker) in colours.items():
            count = [c[name] for c in counts]
            last.plot(list(groups), count, marker=marker, color=colour, label=name, linewidth=1.5)
            place = {"xy": (groups[-1], count[-1]), "xytext": (5, -3), "textcoords": "offset points"}
            last.annotate(count[-1], **place, fontsize=9, color=colour)
        last.set_title("distinct groups of advantages", fontsize=10)
        last.set_xlabel("responses per prompt, two rewards", fontsize=10)
        last.margins(x=0.12)
        last.legend(fontsize=9, loc="upper left")
        if axes[0].get_legend_handles_labels()[0]:
            axes[0].legend(fontsize=9, loc="lower right")
        return fig


# --------------------------------------------------------------------------------------------------------- the table


def _bars(found):
    """What the error bars are."""
    seeds = {p.n_seeds for method, own in found.items() if method != "base" for p in own}
    if seeds == {1}:
        return "bars: standard error over problems, one seed"
    spread = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    return f"bars: standard error over {spread} seeds" + (" (over problems where there is one)" if 1 in seeds else "")


def study_table(rows: pd.DataFrame) -> str:
    """Markdown: per method and strength accuracy, length, AES against the method's own reference, seconds per run."""
    found = points(rows)
    head = ("method", "strength", "seeds", "accuracy, %", "mean length, tokens", "AES", "seconds")
    lines = []
    for p in itertools.chain(found.pop("base", []), *found.values()):
        start = None if p.method == "base" else reference(p, found)
        if start is None or p.is_reference:
            score = "reference" if start else ""
        else:
            score = f"{aes(p.accuracy, p.mean_length, start.accuracy, start.mean_length):+.3f}"
        strength = "" if p.strength is None else f"{SYMBOL.get(p.hyperparameter, p.hyperparameter)} = {p.strength_text}"
        accuracy = _plus_minus(100 * p.accuracy, p.accuracy_se and 100 * p.accuracy_se)
        length, seconds = _plus_minus(p.mean_length, p.mean_length_se), f"{p.seconds:.0f}" if p.seconds else ""
        seeds = "" if p.method == "base" else f"{p.n_seeds}"
        lines.append([_style(p.method)[0], strength, seeds, accuracy, length, score, seconds])
    about = f"±: {_bars(found).removeprefix('bars: ')}; the base's over problems. "
    about += f"AES ({', '.join(f'{key} = {value:g}' for key, value in AES.items())}) against each "
    about += "method's own run without a length penalty, which for GRPO-LP, ALP and HAPO is GRPO."
    return markdown.table(head, lines) + "\n\n" + about + "\n"


def _plus_minus(value, se):
    return f"{value:.1f}" + (f" ± {se:.1f}" if se is not None else "")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="study_plots.py", description="Figures and a table of a study.")
    parser.add_argument("study", nargs="?", default="experiments/results/study.csv", help="what study.py wrote")
    parser.add_argument("--out-dir", help="where figures and table go; default: beside that file")
    args = parser.parse_args(argv)
    with cli.user_errors():
        write_all(args.study, Path(args.out_dir or Path(args.study).parent))


def write_all(path: str | Path, out: Path):
    """Every figure and the table that the study's file at `path` has rows for, into the directory `out`."""
    rows = read_study(path)
    out.mkdir(parents=True, exist_ok=True)
    (out / "study.md").write_text(study_table(rows), encoding="utf-8")
    print(out / "study.md")
    for draw in (trade_off, dynamics, difficulty, gdpo):
        try:
            draw(rows, out / f"{draw.__name__}.png")
            print(out / f"{draw.__name__}.png")
        except ValueError as error:
            print(f"no {draw.__name__}.png: {error}")


if __name__ == "__main__":
    sys.exit(main())
