"""several_plots.py - several rewards at once: the study of a task that names its rewards, as figures and a table.

    python -m experiments.several_plots experiments/results/programs.csv    (`study.py programs` does it at its end)

    NAME.png            accuracy and what goes with the rewards over steps: GDPO, GRPO on the sum, the same without std
    NAME_weights.png    the end of training against the weight of the length reward, conditioned on passing and not
    NAME.md             the ends of all runs: means over runs, standard errors, and GDPO's differences to the others;
                        and all methods at equal learning rates

Curves are training batches, the mean over the seeds and a band of one standard error; tables and the second figure are
held-out problems after the last step.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from experiments.study_cells import SEVERAL
from minidrpo import cli
from minidrpo.markdown import table as markdown_table
from minidrpo.show import plots
from minidrpo.show.plots import COLOURS, GREY, figure

LOOKS = {  # method: name, colour, marker, line
    "gdpo": ("GDPO", COLOURS[0], "o", "-"),
    "grpo-sum": ("GRPO on the sum", COLOURS[1], "s", "--"),
    "grpo-sum-no-std": ("GRPO on the sum, no std", COLOURS[2], "^", ":"),
}
SHOWN = {  # column: what the axis says, from value to what is drawn; each a panel and a column of the table
    "accuracy": ("correct, %", lambda x: 100 * x),
    "pass_rate": ("tests passed, %", lambda x: 100 * x),
    "format": ("right format, %", lambda x: 100 * x),
    "tool_correct": ("correctness of calls, -3 to 3", lambda x: x),
    "no_bug": ("with a bug, %", lambda x: 100 - 100 * x),
    "exceed": ("longer than the limit, %", lambda x: 100 * x),
    "reward_length": ("correct within the limit, %", lambda x: 100 * x),
    "mean_length": ("mean length, tokens", lambda x: x),
}
SMOOTHED = 5  # training steps

# ------------------------------------------------------------------------------------------------------------- reading


def read(path: str | Path, role="study") -> pd.DataFrame:
    """The study's rows of a role. ValueError if it cannot be read or holds no finished run."""
    try:
        rows = pd.read_csv(path, dtype={"rewarded": str})
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if missing := {"method", "role", "phase", "group", "rewarded", "strength", "seed", "step", "exceed"} - set(rows):
        raise ValueError(f"{path}: has no column {', '.join(sorted(missing))}: not a study of several rewards")
    if rows[(rows.role == "study") & (rows.phase == "held out") & (rows.method != "base")].empty:
        raise ValueError(f"{path}: holds no finished run")
    return rows[rows.role == role].fillna({"rewarded": ""})


def shown(rows: pd.DataFrame) -> list[str]:
    """The columns of SHOWN that the study has numbers for; without the limit's where hardly a response is so long."""
    left_out = ("exceed", "reward_length") if rows.exceed.mean() < 0.1 else ()
    return [key for key in SHOWN if key not in left_out and key in rows and rows[key].notna().any()]


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs on the task's own rewards at equal weights."""
    return rows[(rows.rewarded == "") & rows.strength.isna()]


def ends(rows: pd.DataFrame) -> pd.DataFrame:
    """All held-out problems after the last step, one row per run, as they are shown."""
    found = rows[(rows.phase == "held out") & (rows.group == "all")].copy()
    for key in shown(rows):
        found[key] = SHOWN[key][1](found[key])
    return found


# ------------------------------------------------------------------------------------------------------------- figures


def over_steps(rows: pd.DataFrame, out_png):
    """A panel per number; a line per method, a star where training starts: the base on held-out problems."""
    train, base = compared(rows[rows.phase == "train"]), ends(rows[rows.method == "base"])
    keys = [key for key in shown(rows) if train[key].notna().any()][:6]
    columns = len(keys) if len(keys) <= 4 else 3
    mosaic = [
        [*keys[i : i + columns], *["."] * (columns - len(keys[i : i + columns]))] for i in range(0, len(keys), columns)
    ]
    names = {key: i for i, key in enumerate(keys)}  # `figure` returns the axes in the order of their names
    with figure(out_png, 2.9 * len(mosaic), [[names.get(key, ".") for key in row] for row in mosaic]) as (fig, axes):
        for ax, key in zip(axes, keys, strict=True):
            title, scale = SHOWN[key]
            for method, (name, colour, _, line) in LOOKS.items():
                own = train[train.method == method].pivot_table(index="step", columns="seed", values=key)
                if own.empty:
                    continue
                smooth = scale(own).rolling(SMOOTHED, min_periods=1, center=True).mean()
                mean, se = smooth.mean(axis=1), smooth.sem(axis=1).fillna(0)
                ax.plot(mean.index, mean, color=colour, linestyle=line, linewidth=1.8, label=name)
                ax.fill_between(mean.index, mean - se, mean + se, color=colour, alpha=0.15, linewidth=0)
            ax.plot([0], base[key].head(1), marker="*", color=GREY, markersize=10, linestyle="", label="base, held out")
            plots.label_steps(ax, title)
            ax.set_xlabel("step")
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return fig


def over_weights(rows: pd.DataFrame, out_png):
    """The end of training against the weight of the length reward. ValueError if the study did not sweep it."""
    found = ends(rows)
    base, swept = found[found.method == "base"], found.method.isin(found[found.strength.notna()].method)
    found = found[swept].fillna({"strength": 1.0})  # the comparison's own runs have weight 1
    if found.empty:
        raise ValueError("the study holds no run with another weight of the length reward")
    keys = [key for key in ("exceed", "accuracy", "no_bug", "mean_length") if key in shown(rows)]
    weights = sorted(found.strength.unique())
    with figure(out_png, 3.6, [list(range(len(keys)))]) as (fig, axes):
        for ax, key in zip(axes, keys, strict=True):
            for method in SEVERAL:
                name, colour, marker, _ = LOOKS[method]
                for rewarded, own in found[found.method == method].groupby("rewarded"):
                    raw = rewarded != ""
                    by = own.groupby("strength")[key]
                    look = {"linestyle": ":" if raw else "-", "markerfacecolor": "white" if raw else colour}
                    label = f"{name}, {'every short response' if raw else 'short and all tests pass'}"
                    x = [weights.index(w) for w in by.mean().index]
                    ax.errorbar(x, by.mean(), by.sem().fillna(0), color=colour, marker=marker, label=label, **look)
            for value in base[key].head(1):
                ax.axhline(value, color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="base")
            ax.set_xticks(range(len(weights)), [f"{w:g}" for w in weights])
            ax.set_title(SHOWN[key][0], fontsize=10)
            ax.set_xlabel("weight of the length reward", fontsize=9)
            ax.margins(x=0.1)
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
        return fig


# --------------------------------------------------------------------------------------------------------- the table


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """GDPO's end minus each other method's, run by run of equal seed: mean and standard error, per number."""
    found = ends(compared(rows)).set_index("seed")
    keys, own, table = shown(rows), found[found.method == "gdpo"], {}
    for method in LOOKS:
        if method != "gdpo":
            gap = (own[keys] - found[found.method == method][keys]).dropna(how="all")
            table[f"GDPO minus {LOOKS[method][0]}"] = [_plus_minus(gap[key]) for key in keys]
    return pd.DataFrame.from_dict(table, orient="index", columns=keys)


def markdown(rows: pd.DataFrame) -> str:
    """The ends of all runs, one line per cell; then the differences."""
    keys, found = shown(rows), ends(rows)
    head = ["method", "length reward", "runs", "lr", *(SHOWN[key][0] for key in keys)]
    lines = []
    for method in ("base", *LOOKS):
        own = found[found.method == method]
        for (rewarded, weight), cell in own.groupby(["rewarded", "strength"], dropna=False):
            kind = "without a condition" if rewarded else "as the task names it"
            length = f"{kind}, weight {weight:g}" if pd.notna(weight) else "" if method == "base" else kind
            name, rate = LOOKS.get(method, (method,))[0], "" if method == "base" else f"{cell.lr.iloc[0]:g}"
            lines.append([name, length, str(len(cell)), rate, *(_plus_minus(cell[key]) for key in keys)])
    gaps = differences(rows)
    lines += [[name, "", "", "", *gap] for name, gap in zip(gaps.index, gaps.to_numpy().tolist(), strict=True)]
    about = (
        "Held-out problems after the last step: mean over runs ± standard error of that mean. Differences are run by\n"
    )
    about += "run of equal seed, at equal weights. "
    return markdown_table(head, lines) + "\n\n" + about.rstrip() + "\n"


def at_equal_rates(tuning: pd.DataFrame) -> str:
    """The runs that the learning rates were chosen by: means over all training steps, method by method at each rate. A
    method that learns faster is seen here, one whose rate is larger is not."""
    train = compared(tuning[tuning.phase == "train"])
    keys = [key for key in shown(train) if train[key].notna().any()]
    lines = []
    for (rate, method), own in train.groupby(["lr", "method"]):
        lines.append(
            [f"{rate:g}", LOOKS[method][0], *(_plus_minus(SHOWN[key][1](own[key])).split(" ±")[0] for key in keys)]
        )
    about = "One run each (seed 0), the mean over its training steps, at equal learning rates.\n"
    return markdown_table(["lr", "method", *(SHOWN[key][0] for key in keys)], lines) + "\n\n" + about


def _plus_minus(values) -> str:
    mean, se, digits = values.mean(), values.sem(), 2 if values.name == "tool_correct" else 1
    return "" if pd.isna(mean) else f"{mean:.{digits}f}" + (f" ± {se:.{digits}f}" if pd.notna(se) else "")


def write_all(path: str | Path, out: Path, png: str | Path):
    """The figures and the table that the study's file at `path` has runs for."""
    rows, tuning = read(path), read(path, "lr")
    out.mkdir(parents=True, exist_ok=True)
    table = out / f"{Path(path).stem}.md"
    table.write_text(markdown(rows) + ("\n" + at_equal_rates(tuning) if len(tuning) else ""), encoding="utf-8")
    print(table)
    png = Path(png)
    for draw, file in ((over_steps, png), (over_weights, png.with_name(f"{png.stem}_weights.png"))):
        try:
            draw(rows, file)
            print(file)
        except ValueError as error:
            print(f"no {file}: {error}")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="several_plots.py", description="Figures and a table of several rewards.")
    parser.add_argument("study", help="what study.py wrote")
    cli.print_anything()
    args = parser.parse_args(argv)
    with cli.user_errors():
        write_all(args.study, Path(args.study).parent, Path(args.study).with_suffix(".png"))


if __name__ == "__main__":
    sys.exit(main())
