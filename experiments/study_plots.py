r"""study_plots.py - the study's numbers as figures and as one table: results/study.csv in, PNG and markdown out.

    python study_plots.py [results/study.csv]        (study.py does the same at its end)

    trade_off.png     accuracy against length, a line a method through its strengths (the paper's Figure 3)
    dynamics.png      DRPO's training over lambda: accuracy, length, entropy, mixed groups (Figure 2)
    difficulty.png    accuracy against length, level by level (Figure 4)
    gdpo.png          GDPO against GRPO on two rewards, over steps, and how many groups each can tell apart
    study.md          per method and strength: accuracy, length, AES, seconds

A run's result is its last held-out evaluation. A point is the mean over the seeds of one method and strength, its bar
the standard error of that mean; with a single seed, the standard error over problems. A method's reference is its own
run without a length penalty: lambda = inf, alpha = 0, beta = 0, w = 0; where the last three make it GRPO, that is GRPO.
"""

import csv
import itertools
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from minidrpo import cli
from minidrpo.methods import baselines
from minidrpo.rundir.metrics import AES, aes
from minidrpo.show.plots import COLOURS, GREY, INK, figure

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
NO_PENALTY = {"lam": math.inf, "alpha": 0.0, "alp_beta": 0.0, "hapo_w": 0.0}  # knob -> its reference strength
LIKE_GRPO = ("grpo-lp", "alp", "hapo")  # at strength 0 their reward and their update are GRPO's
TEXTS = ("method", "knob", "role", "phase", "group")
MARKERS = "larger: stronger\nhollow squares: no length penalty\ngrey: the base"

# ------------------------------------------------------------------------------------------------------------- reading


def read_study(path) -> list[dict]:
    """The rows of role "study", numbers as floats, empty fields as None. ValueError names the file and the line."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    needed = {*TEXTS, "strength", "seed", "step", "accuracy", "mean_length"}
    if not rows or not needed <= rows[0].keys():
        missing = ", ".join(sorted(needed - (rows[0].keys() if rows else set())))
        raise ValueError(f"{path}: holds no rows" if not rows else f"{path}: has no column {missing}")
    kept = []
    for number, row in enumerate(rows, start=2):
        if row["role"] == "study":
            try:
                numbers = {k: float(v) if v else None for k, v in row.items() if k not in TEXTS}
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}: line {number}: {error}") from error
            if not row["group"] or any(numbers[k] is None for k in ("step", "accuracy", "mean_length")):
                raise ValueError(f"{path}: line {number} has no group, step, accuracy or mean_length (half-written?)")
            kept.append({k: row[k] for k in TEXTS} | numbers)
    if not any(row["phase"] == "held out" and row["method"] != "base" for row in kept):
        raise ValueError(f"{path}: holds no finished run of the study")
    return kept


@dataclass(frozen=True)
class Point:
    """One method at one strength on one group of problems: means over its seeds."""

    method: str
    knob: str
    strength: float | None
    accuracy: float
    mean_length: float
    accuracy_se: float | None
    mean_length_se: float | None
    seconds: float | None
    n_seeds: int

    @property
    def is_reference(self):
        return self.method == "grpo" or NO_PENALTY.get(self.knob) == self.strength

    @property
    def strength_text(self):
        if self.strength is None:
            return ""
        return "∞" if self.strength == math.inf else f"{self.strength:g}".replace("e-0", "e-")


def points(rows, group="all") -> dict[str, list[Point]]:
    """method -> its points from weak to strong, of the last held-out evaluation of every run."""
    runs = {}
    for row in rows:
        if row["phase"] == "held out" and row["group"] == group:
            runs.setdefault((row["method"], row["knob"], row["strength"], row["seed"]), []).append(row)
    cells = {}
    for (*cell, _), evaluations in runs.items():
        cells.setdefault(tuple(cell), []).append(max(evaluations, key=lambda row: row["step"]))
    found = {}
    for (method, knob, strength), ends in cells.items():
        numbers = {"n_seeds": len(ends)}
        for key in ("accuracy", "mean_length"):
            numbers[key], numbers[f"{key}_se"] = mean_and_se([end[key] for end in ends], ends[0].get(f"{key}_se"))
        seconds = [end["seconds"] for end in ends if end.get("seconds") is not None]
        numbers["seconds"] = statistics.fmean(seconds) if seconds else None
        found.setdefault(method, []).append(Point(method, knob, strength, **numbers))
    order = [*METHODS, *sorted(found.keys() - METHODS.keys())]
    return {m: sorted(found[m], key=_weak_to_strong) for m in order if m in found}


def _weak_to_strong(point):
    """A large lambda is weak, and so is a large limit; all other knobs are weak where they are small."""
    return 0 if point.strength is None else point.strength * (-1 if point.knob in ("lam", "length_limit") else 1)


def mean_and_se(values, se_of_one=None):
    """(mean, its standard error over these values); `se_of_one` where there is but one value."""
    n = len(values)
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(n) if n > 1 else se_of_one


def reference(point, all_points) -> Point | None:
    """The method's own run without a length penalty; None where the study has none."""
    own = [p for p in all_points[point.method] if p.is_reference]
    if not own and point.method in LIKE_GRPO:
        own = all_points.get("grpo", [])
    return own[0] if own else None


# ------------------------------------------------------------------------------------------------------------- figures


def _style(method):
    if method in METHODS:
        return METHODS[method]
    i = sum(map(ord, method))
    return method, SPARE[i % len(SPARE)], "p"


def _draw_trade_off(ax, found, strengths, size=6):
    """A line a method, its markers growing with the strength; hollow squares where there is no penalty; the base as
    grey lines, if they are in sight. strengths: name them in the legend, for beside the points they hide each other."""
    groups = {method: ps for method, ps in found.items() if method != "base"}
    for method, own in groups.items():
        name, colour, marker = _style(method)
        start = reference(own[0], groups)
        path = own if start is None or start in own else [start, *own]
        ax.plot([p.mean_length for p in path], [100 * p.accuracy for p in path], color=colour, linewidth=1.3, zorder=2)
        for i, p in enumerate(own):
            ax.errorbar(
                p.mean_length,
                100 * p.accuracy,
                xerr=p.mean_length_se or 0,
                yerr=100 * (p.accuracy_se or 0),
                fmt="none",
                ecolor=colour,
                alpha=0.45,
                linewidth=1,
                zorder=2,
            )
            ax.plot(
                p.mean_length,
                100 * p.accuracy,
                "s" if p.is_reference else marker,
                color=colour,
                markersize=size * (1 if p.is_reference or len(own) == 1 else 0.8 + 0.7 * i / (len(own) - 1)),
                markerfacecolor="white" if p.is_reference else colour,
                markeredgewidth=1.2,
                zorder=3,
            )
        symbol, values = SYMBOL.get(own[0].knob), ", ".join(p.strength_text for p in own)
        ax.plot(
            [],
            [],
            color=colour,
            marker="s" if method == "grpo" else marker,
            markersize=size,
            linewidth=1.3,
            markerfacecolor="white" if method == "grpo" else colour,
            label=name + (f", {symbol} = {values}" if strengths and symbol else ""),
        )
    ax.margins(0.08)
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    every = [(p, method) for method, own in groups.items() for p in own]
    floor = _floor([100 * p.accuracy for p, _ in every])
    y0 = max(y0, min(100 * (p.accuracy - (p.accuracy_se or 0)) for p, _ in every if 100 * p.accuracy >= floor) - 1)
    for p, method in every:
        if 100 * p.accuracy < floor:
            text = f"↓ {_style(method)[0]} {p.strength_text}: {100 * p.accuracy:.0f} %"
            ax.annotate(
                text,
                (p.mean_length, y0),
                xytext=(4, 16),
                textcoords="offset points",
                fontsize=8,
                color=_style(method)[1],
            )
    for base in found.get("base", []):
        x1 = max(x1, base.mean_length + 0.03 * (x1 - x0))  # its accuracy may be far from all others
        ax.axvline(base.mean_length, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        ax.axhline(100 * base.accuracy, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        below = "" if y0 < 100 * base.accuracy else ", below"
        ax.text(
            0.985,
            0.02,
            f"base: {100 * base.accuracy:.0f} %{below}",
            transform=ax.transAxes,
            ha="right",
            fontsize=9 if strengths else 8,
            color=GREY,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    ax.set(xlim=(x0, x1), ylim=(y0, y1))


def _floor(values):
    """Where to end the scale, so that one or two collapsed runs do not flatten all others: in the widest gap among the
    lowest tenth (at least one value), if it is wider than all that lies above it."""
    values = sorted(values)
    gaps = [(values[i] - values[i - 1], i) for i in range(1, min(max(1, len(values) // 10) + 1, len(values)))]
    gap, i = max(gaps, default=(0, 0))
    return values[i] if gap > values[-1] - values[i] > 0 else values[0]


def trade_off(rows, out_png):
    """Accuracy against length, all methods in one panel: up and to the left is better."""
    with figure(6.2, [[0]]) as (fig, (ax,)):
        found = points(rows)
        _draw_trade_off(ax, found, strengths=True)
        ax.set(xlabel="mean length, tokens (shorter is better)", ylabel="accuracy, %")
        about = f"{MARKERS.replace(chr(10), '; ')}; {_bars(found)}"
        ax.set_title(about, fontsize=10, color=GREY)
        fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=10)
        fig.savefig(out_png)
        return fig


def difficulty(rows, out_png):
    """The same, level by level; each panel has its own scale of accuracy."""
    levels = sorted({row["group"] for row in rows} - {"all", ""})
    if not levels:
        raise ValueError("the study holds no held-out rows of single levels")
    columns = min(3, len(levels) + 1)
    cells = [*range(len(levels)), -1, *[-2] * (-(len(levels) + 1) % columns)]  # -1 holds the legend
    mosaic = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    with figure(2.7 * len(mosaic), mosaic) as (fig, _):
        axes = {int(ax.get_label()): ax for ax in fig.axes}
        for i, level in enumerate(levels):
            _draw_trade_off(axes[i], points(rows, level), strengths=False, size=4.5)
            axes[i].set_title(level.split("/")[-1].replace("-", " "))
            axes[i].tick_params(labelsize=9)
        for i, ax in axes.items():
            if i < 0:
                ax.axis("off")
        axes[-1].legend(*axes[0].get_legend_handles_labels(), loc="center", fontsize=10, title=MARKERS)
        fig.supxlabel("mean length, tokens (shorter is better)", fontsize=11)
        fig.supylabel("accuracy, %", fontsize=11)
        fig.savefig(out_png)
        return fig


def curves(rows, method, key) -> dict[float, list]:
    """strength -> [(step, mean over seeds, standard error over seeds or 0)] of a training number."""
    values = {}
    for row in rows:
        if row["phase"] == "train" and row["method"] == method and row.get(key) is not None:
            values.setdefault(row["strength"], {}).setdefault(row["step"], []).append(row[key])
    return {s: [(step, *mean_and_se(vs, 0.0)) for step, vs in sorted(by.items())] for s, by in values.items()}


def _draw_curve(ax, curve, scale, colour, label=None, half_window=1, **kwargs):
    """Mean over seeds, smoothed over a few steps, in a band of one standard error over seeds."""
    windows = [curve[max(0, i - half_window) : i + half_window + 1] for i in range(len(curve))]
    steps = [step for step, *_ in curve]
    mean, se = ([scale * statistics.fmean(point[i] for point in window) for window in windows] for i in (1, 2))
    ax.plot(steps, mean, color=colour, label=label, linewidth=1.7, **kwargs)
    ax.fill_between(
        steps,
        [m - s for m, s in zip(mean, se, strict=True)],
        [m + s for m, s in zip(mean, se, strict=True)],
        color=colour,
        alpha=0.15,
        linewidth=0,
    )


PANELS = (
    ("accuracy", 100, "accuracy, %"),
    ("mean_length", 1, "mean length, tokens"),
    ("entropy", 1, "entropy, nats a token"),
    ("mixed_groups", 100, "groups with right and wrong, %"),
)


def dynamics(rows, out_png, method="drpo"):
    """Training over steps, a line a strength: what the dial does, and when."""
    import matplotlib

    by_key = {key: curves(rows, method, key) for key, *_ in PANELS}
    strengths = sorted(by_key["accuracy"], key=lambda s: -math.inf if s is None else -s)
    if not strengths:
        raise ValueError(f"the study holds no training rows of {method}")
    shades = matplotlib.colormaps["viridis"]([0.9 * i / max(1, len(strengths) - 1) for i in range(len(strengths))])
    with figure(5.6, [[0, 1], [2, 3]]) as (fig, axes):
        for ax, (key, scale, name) in zip(axes, PANELS, strict=True):
            for strength, colour, line in zip(strengths, shades, itertools.cycle(("-", "--", "-.", ":"))):
                if curve := by_key[key].get(strength):
                    text = "∞" if strength == math.inf else f"{strength:g}" if strength is not None else ""
                    _draw_curve(ax, curve, scale, colour, f"λ = {text}" if method == "drpo" else text, linestyle=line)
            ax.set_title(name)
            ax.margins(x=0.02)
            ax.xaxis.get_major_locator().set_params(integer=True)
        for ax in axes[2:]:
            ax.set_xlabel("step")
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(strengths))
        fig.savefig(out_png)
        return fig


def distinct_groups(G, K=2, digits=6):
    """How many different groups of advantages K binary rewards and G answers can give, up to the answers' order:
    {"GRPO": of the summed reward, "GRPO without std": the same, "GDPO": of each reward by itself}."""
    answers = list(itertools.product((0.0, 1.0), repeat=K))
    reward_PGK = torch.tensor(list(itertools.combinations_with_replacement(answers, G)), dtype=torch.float64)
    total_PG = reward_PGK.sum(-1)
    advantages = {
        "GRPO": baselines.grpo_advantage(total_PG, eps=1e-12),
        "GRPO without std": baselines.grpo_advantage(total_PG, std=None),
        "GDPO": baselines.gdpo_advantage(reward_PGK, batch_norm=False, eps=1e-12),
    }
    return {name: len((a.sort(-1).values * 10**digits).round().unique(dim=0)) for name, a in advantages.items()}


def gdpo(rows, out_png, groups=range(2, 8)):
    """Right answers, and right answers within the limit, over steps; and why GDPO has more to say: distinct groups."""
    with figure(3.6, [[0, 1, 2]]) as (fig, axes):
        lines = (("grpo-sum", "--"), ("gdpo", "-"))
        keys = {"accuracy": "right, %", "reward_length": "right and within the limit, %"}
        for ax, (key, name) in zip(axes[:2], keys.items(), strict=True):
            for method, line in lines:
                for curve in curves(rows, method, key).values():
                    _draw_curve(ax, curve, 100, _style(method)[1], _style(method)[0], linestyle=line)
            ax.set_title(f"{name} (training)", fontsize=10)
            ax.set_xlabel("step")
            ax.xaxis.get_major_locator().set_params(integer=True)
        counts = [distinct_groups(G) for G in groups]
        for name, colour, marker in (
            ("GDPO", _style("gdpo")[1], "X"),
            ("GRPO without std", GREY, "s"),
            ("GRPO", _style("grpo-sum")[1], "*"),
        ):
            ax = axes[2]
            ax.plot(list(groups), [c[name] for c in counts], marker=marker, color=colour, label=name, linewidth=1.5)
            ax.annotate(
                counts[-1][name],
                (groups[-1], counts[-1][name]),
                xytext=(5, -3),
                textcoords="offset points",
                fontsize=9,
                color=colour,
            )
        axes[2].set_title("distinct groups of advantages", fontsize=10)
        axes[2].set_xlabel("answers a prompt, two 0/1 rewards", fontsize=10)
        axes[2].margins(x=0.12)
        axes[2].legend(fontsize=9, loc="upper left")
        if axes[0].get_legend_handles_labels()[0]:
            axes[0].legend(fontsize=9, loc="lower right")
        fig.savefig(out_png)
        return fig


# --------------------------------------------------------------------------------------------------------- the table


def _bars(found):
    """What the error bars are."""
    seeds = {p.n_seeds for method, ps in found.items() if method != "base" for p in ps}
    if seeds == {1}:
        return "bars: standard error over problems, one seed"
    spread = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    return f"bars: standard error over {spread} seeds" + (" (over problems where there is one)" if 1 in seeds else "")


def study_table(rows) -> str:
    """Markdown: per method and strength accuracy, length, AES against the method's own reference, seconds a run."""
    found = points(rows)
    constants = ", ".join(f"{key} = {value:g}" for key, value in AES.items())
    lines = [
        "| method | strength | seeds | accuracy, % | mean length, tokens | AES | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method, own in [("base", found.get("base", [])), *((m, ps) for m, ps in found.items() if m != "base")]:
        for p in own:
            start = None if method == "base" else reference(p, found)
            score = (
                ""
                if start is None
                else "reference"
                if p.is_reference
                else (f"{aes(p.accuracy, p.mean_length, start.accuracy, start.mean_length):+.3f}")
            )
            strength = f"{SYMBOL.get(p.knob, p.knob)} = {p.strength_text}" if p.strength is not None else ""
            accuracy = _plus_minus(100 * p.accuracy, p.accuracy_se and 100 * p.accuracy_se)
            cells = [
                _style(method)[0] if method != "base" else "base",
                strength,
                f"{p.n_seeds}" if method != "base" else "",
                accuracy,
                _plus_minus(p.mean_length, p.mean_length_se),
                score,
                f"{p.seconds:.0f}" if p.seconds else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    about = f"±: {_bars(found).removeprefix('bars: ')}; the base's over problems. AES ({constants}) against each "
    about += "method's own run without a length penalty, which for GRPO-LP, ALP and HAPO is GRPO."
    return "\n".join(lines) + "\n\n" + about + "\n"


def _plus_minus(value, se):
    return f"{value:.1f}" + (f" ± {se:.1f}" if se is not None else "")


@dataclass(frozen=True)
class Config:
    study: str = "results/study.csv"
    """What study.py wrote."""
    out_dir: str = ""
    """Where the figures and the table go; default: beside that file."""


def main(argv=None):
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words[0] = f"--study={words[0]}"
    cfg = cli.parse(Config, words, prog="study_plots.py", description="Figures and a table of a study.")
    with cli.user_errors():
        write_all(cfg.study, Path(cfg.out_dir or Path(cfg.study).parent))


def write_all(path, out):
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
