"""compare_report.py - what `make compare` shows: the runs as they grow; at the end a table, a picture, responses.

All of it is made from the files of finished and of growing runs (evals.jsonl, metrics.jsonl, responses_*.jsonl).
"""

import itertools
import math
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from minidrpo.rundir import jsonl
from minidrpo.show import plots, tables
from minidrpo.tasks import thinking

NAMES = {"drpo": "DRPO", "grpo-lp": "GRPO-LP", "disco": "DisCO"}
EASY, HARD = (1,), tuple(range(2, thinking.LEVELS + 1))  # levels: operations of a problem
SHOWN_LEVEL, SHOWN = 4, 2  # the responses to read: to the first problem of this level, and how many
ROWS = {"accuracy": "accuracy, %", "mean_length": "length, tokens", "short_way": "short way, %"}

# ---------------------------------------------------------------------------------------------------------- the numbers


def evaluations(cfg) -> list[dict]:
    return jsonl.read(cfg.directory / "evals.jsonl")


def pooled(evaluation: dict, levels) -> dict:
    """The numbers of a line of evals.jsonl over some levels together, in which no problem is twice."""
    parts = [evaluation["by_source"][f"thinking/level-{level}"] for level in levels]
    n, made = sum(part["n_problems"] for part in parts), {"step": evaluation["step"]}
    for key in ROWS:
        made[key] = sum(part["n_problems"] * part[key] for part in parts) / n
    for key in ("accuracy_se", "mean_length_se"):
        made[key] = math.sqrt(sum((part["n_problems"] * part[key]) ** 2 for part in parts)) / n
    return made


def name_of(cfg) -> str:
    return NAMES.get(cfg.method, cfg.method)


# ----------------------------------------------------------------------------------------------------- while they train


class Watch:
    """The runs while they grow: one table that is drawn anew on a terminal, one line per evaluation elsewhere."""

    def __init__(self, configs: list, screen: Console):
        self.configs, self.screen, self.told = configs, screen, set()
        self.live = Live(self.table(), console=screen, auto_refresh=False) if screen.is_terminal else None

    def __enter__(self):
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error):
        self.show()
        if self.live:
            self.live.stop()

    def show(self):
        if self.live:
            return self.live.update(self.table(), refresh=True)
        for cfg in self.configs:
            for e in evaluations(cfg):
                if (cfg.method, e["step"]) not in self.told:
                    self.told.add((cfg.method, e["step"]))
                    easy, hard = (self.numbers(pooled(e, levels)) for levels in (EASY, HARD))
                    words = "easy: {:>3} % right, {:>3} tokens   hard: {:>3} % right, {:>3} tokens"
                    when = f"{name_of(cfg):<8}  step {e['step']:>3}/{cfg.steps}"
                    print(f"{when}   {words.format(*easy, *hard)}", flush=True)

    @staticmethod
    def numbers(record):
        return f"{100 * record['accuracy']:.0f}", f"{record['mean_length']:.0f}"

    def table(self):
        numbers = [f"{what}\n{number}" for what in ("batch", "easy", "hard") for number in ("right %", "tokens")]
        table = tables.plain(
            None, "", "step", "", *numbers, caption="batch: the last 5 steps; easy, hard: held-out problems"
        )
        for cfg in self.configs:
            steps, evals = jsonl.read(cfg.directory / "metrics.jsonl")[-5:], evaluations(cfg)
            mean = {key: sum(s[key] for s in steps) / max(1, len(steps)) for key in ("accuracy", "mean_length")}
            done = steps[-1]["step"] if steps else 0
            bar = "━" * round(20 * done / cfg.steps)
            cells = [*(self.numbers(mean) if steps else ["", ""])]
            for levels in (EASY, HARD):
                cells += self.numbers(pooled(evals[-1], levels)) if evals else ["", ""]
            table.add_row(name_of(cfg), f"{done}/{cfg.steps}", f"{bar:<20}", *cells)
        return table


# ----------------------------------------------------------------------------------------------------------- at the end


def level_table(configs: list, title: str) -> Table:
    """Accuracy, length and the share of the short way by level: the base, and every method after its last step."""
    ends = {"base": evaluations(configs[0])[0]} | {name_of(cfg): evaluations(cfg)[-1] for cfg in configs}
    table = tables.plain(escape(title), "", *map(escape, ends))
    levels = {"easy (1 operation)": EASY} | {f"{level} operations": (level,) for level in HARD}
    for key, words in ROWS.items():
        scale = 1 if key == "mean_length" else 100
        table.add_row(words, style="bold")
        for name, some in (levels | {f"hard ({HARD[0]} to {HARD[-1]})": HARD}).items():
            cells = []
            for evaluation in ends.values():
                record = pooled(evaluation, some)
                error = f" ±{scale * record[key + '_se']:.1f}" if some is HARD and key + "_se" in record else ""
                cells.append(f"{scale * record[key]:.1f}{error}")
            table.add_row(f"  {name}", *cells, end_section=some is HARD)
    return table


def picture(configs: list, out_png: Path):
    """Accuracy and length on hard prompts over steps; where each method ends, on easy and on hard prompts."""
    with plots.figure(out_png, 3.9, [[0, 1, 2]]) as (fig, axes):
        looks = itertools.cycle(zip(plots.COLOURS, plots.MARKERS, strict=True))
        for cfg, (colour, marker) in zip(configs, looks, strict=False):
            hard = [pooled(e, HARD) for e in evaluations(cfg)]
            for ax, key in zip(axes, ("accuracy", "mean_length"), strict=False):
                curve = [(r["step"], r[key], r[f"{key}_se"]) for r in hard]
                plots.draw_curve(ax, curve, key, colour, smoothed=False)
                plots.draw_points(ax, hard[1:], "step", key, marker, colour, markersize=5, label=name_of(cfg))
            easy, end = pooled(evaluations(cfg)[-1], EASY), hard[-1]
            draw_end(axes[2], easy, end, marker, colour)
        base = evaluations(configs[0])[0]
        for ax, key in zip(axes, ("accuracy", "mean_length"), strict=False):
            plots.draw_points(ax, [pooled(base, HARD)], "step", key, "X", plots.INK, label="base")
            plots.label_steps(ax, f"hard prompts: {plots.NUMBERS[key][1].removeprefix('mean ')}")
            ax.set(xlabel="step", ylim=(0, 103 if key == "accuracy" else None))
        draw_end(axes[2], pooled(base, EASY), pooled(base, HARD), "X", plots.INK)
        axes[2].set_title("at the end: accuracy, %")
        note = {"ha": "right", "fontsize": 10, "color": plots.GREY, "transform": axes[2].transAxes}
        axes[2].text(0.98, 0.04, "hollow: easy prompts\nfilled: hard prompts", **note)
        axes[2].set(xlabel="mean length, tokens", xlim=(0, None), ylim=(0, 103))
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(configs) + 1)
        return fig


def draw_end(ax, easy: dict, hard: dict, marker, colour):
    """Two joined points of one model: easy prompts hollow, hard ones filled."""
    path = [(r["mean_length"], 100 * r["accuracy"]) for r in (easy, hard)]
    ax.plot(*zip(*path, strict=True), color=colour, linewidth=1, alpha=0.5)
    plots.draw_points(ax, [easy], "mean_length", "accuracy", marker, colour, markerfacecolor="white", markersize=7)
    plots.draw_points(ax, [hard], "mean_length", "accuracy", marker, colour, markersize=7)


def responses_to_read(configs: list) -> str:
    """The first responses of the base and of every method to the same hard problem, whatever they are."""
    source = f"thinking/level-{SHOWN_LEVEL}"
    problem = next(p for p in jsonl.lines(configs[0].directory / "problems.jsonl", ["source"]) if p["source"] == source)
    files = {"base": configs[0].directory / "responses_before.jsonl"}
    files |= {name_of(cfg): cfg.directory / "responses_after.jsonl" for cfg in configs}
    heading = f"To read: the first held-out problem of level {SHOWN_LEVEL}, {SHOWN} responses of each"
    said = [heading, f"{problem['prompt']} (truth {problem['truth']})"]
    for name, path in files.items():
        mine = (r for r in jsonl.lines(path, ["source", "index"]) if r["index"] == problem["index"])
        for r in [r for r in mine if r["source"] == source][:SHOWN]:
            said.append(f"\n{name}: {'right' if r['correct'] else r['reason']}, {r['length']} tokens")
            said += [f"    {line}" for line in r["response"][:1000].splitlines() if line.strip()]
    return "\n".join(said)


def why(configs: list) -> str:
    """How often each way is right on hard problems before training: what makes it a mistake to unlearn the long one."""
    right = {thinking.SHORT: [], thinking.LONG: []}
    hard = {f"thinking/level-{level}" for level in HARD}
    for r in jsonl.lines(configs[0].directory / "responses_before.jsonl", ["source", "correct"]):
        if r["source"] in hard and thinking.way(r["response"]):
            right[thinking.way(r["response"])].append(r["correct"])
    shares = [f'"{way}" {100 * sum(of) / len(of):.0f} %' for way, of in right.items() if of]
    return f"right on hard problems, by the base's way of thinking: {', '.join(shares)}" if shares else ""
