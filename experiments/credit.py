r"""credit.py - who gets the credit: every answer of a group under every method, side by side, in a terminal or a PNG.

    python credit.py                                            Figure 1 of the DRPO paper: six answers to one question
    python credit.py --samples runs/NAME/samples.jsonl          the answers of a run (--step N --problem K to choose)
    python credit.py --plot credit.png                          the same as a picture

The credit is dJ/dscore (methods.credit), how hard an answer's mean log-likelihood is pulled (> 0) or pushed (< 0),
times the number of answers: so GRPO's column is its advantage. A right answer that is pushed down is red, with a "!".
The shown groups are taken for the whole batch, which only GDPO and methods that average over tokens notice. HAPO's
record and LASER-D's targets are rebuilt from the file's earlier steps and these very answers.

P prompts | G answers a prompt
"""

import dataclasses
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import config
from minidrpo import cli
from minidrpo.methods import baselines
from minidrpo.methods import table as methods
from minidrpo.show import plots

# Every method once, and both conventions of GRPO's std: (name of the column, method, settings of its own)
COLUMNS = [
    (f"{name} {short}", name, {"adv_std": std}) if std else (name, name, {})
    for name in methods.METHODS
    for short, std in ((("sample", "sample"), ("popul.", "population")) if name in ("grpo", "grpo-lp") else (("", ""),))
]


@dataclass(frozen=True)
class Config:
    samples: str = ""
    """A run's samples.jsonl; none: Figure 1 of the paper."""
    step: int = 0
    """Which training step's groups; 0: the last one in the file."""
    problem: int = -1
    """Which of the step's groups, from 0; -1: all."""
    plot: str = ""
    """Also draw the table into this PNG file."""
    lam: float | None = None
    """DRPO's knob; by default the run's own (its config.json) or, for Figure 1, the paper's."""
    alpha: float | None = None
    """The same for grpo-lp and rloo-lp."""


@dataclass(frozen=True)
class Groups:
    """Answers to look at, the settings to weigh them with, and what the methods had seen before them."""

    title: str
    batch: methods.Batch
    score_PG: torch.Tensor
    cfg: config.Config
    earlier: list = ()  # batches, oldest first
    own: dict = dataclasses.field(default_factory=dict)  # method -> settings that only it has here


def credit_table(groups):
    """{column: credit_PG times the number of answers}, for every method."""
    table = {}
    for column, name, changes in COLUMNS:
        method, own = methods.METHODS[name], groups.own.get(name, {})
        cfg = dataclasses.replace(groups.cfg, method=name, **(changes | own))
        n_problems = 1 + max(int(batch.problem_P.max()) for batch in (*groups.earlier, groups.batch))
        state = method.new_state(cfg, n_problems)
        for batch in (*groups.earlier, groups.batch):
            state = method.remember(state, batch, cfg)
        weight_PG, _ = methods.weigh(groups.batch, cfg, state)
        credit_PG = methods.credit(weight_PG, groups.batch, cfg, groups.score_PG)
        table[column] = credit_PG.double() * credit_PG.numel()
    return table


def unlearned(credit_PG, correct_PG):
    """(P, G) bool: right answers that are pushed down, beyond rounding."""
    return correct_PG & (credit_PG < -5e-7)


# ----------------------------------------------------------------------------------------------- where answers are from

FIGURE_1 = "Figure 1 of arXiv 2510.04474: six answers to one question, of which three are right"
WHY = """The paper's figure says that the length penalty takes it from 1 to -0.17. No single convention gives both: 1 \
is from the population std (the sample std gives 0.91), -0.17 from the sample std (the population std gives -0.18).
"""
SHARES = (0.27, 0.4, 0.8, 0.5, 0.5, 0.5)  # of the limit; the figure does not say how long its wrong answers are


def figure_1(**knobs):
    """The figure's six answers. Its length penalty, alpha = 1, makes the rewards .73, .6, .2, 0, 0, 0."""
    cfg = dataclasses.replace(config.R1_1_5B, group_size=6, **knobs)
    length_PG = torch.tensor([SHARES]) * cfg.max_response_tokens
    correct_PG = torch.tensor([[True] * 3 + [False] * 3])
    batch = methods.Batch(correct_PG, length_PG.round().long(), [""] * 6, torch.tensor([0]))
    own = {} if "alpha" in knobs else {"grpo-lp": {"alpha": 1.0}}
    return Groups(FIGURE_1, batch, torch.zeros(1, 6), cfg, own=own)


MUST_BE = {
    "step": (lambda v: type(v) is int, "a whole number"),
    "correct": (lambda v: v in (True, False), "true or false"),
    "length": (lambda v: type(v) is int and 0 < v < 2**31, "1 or more"),
    "logp": (lambda v: type(v) in (int, float) and math.isfinite(v), "a number"),
    "response": (lambda v: type(v) is str, "a text"),
}


def read_groups(path, step=0, problem=-1, **knobs):
    """Whole groups of answers of one step of a samples.jsonl; ValueError, naming the file, for what is not there."""
    records = plots.read_lines(path)
    for number, r in enumerate(records, start=1):
        if not {"correct", "length"} <= r.keys():
            raise ValueError(f"{path}: line {number} has no correct or no length: not a run's samples.jsonl")
        for key, (is_good, rule) in MUST_BE.items():
            if key in r and not is_good(r[key]):
                raise ValueError(f"{path}: line {number}: {key} must be {rule}, got {r[key]!r}")
    steps = sorted({r["step"] for r in records})
    step = step or steps[-1]
    if step not in steps:
        raise ValueError(f"{path}: holds no step {step}, its steps are {steps[0]} to {steps[-1]}")
    names, batches = {}, []  # names: problem -> its number, for HAPO's records
    for s in steps[: steps.index(step) + 1]:
        groups = {}
        for r in records:
            if r["step"] == s:
                groups.setdefault(repr([r.get("source"), r.get("index"), r.get("prompt")]), []).append(r)
        if len({len(group) for group in groups.values()} | {b.correct_PG.shape[1] for b in batches}) > 1:
            raise ValueError(f"{path}: the groups of step {s} have different numbers of answers, or others than before")
        if s == step and problem != -1:
            if not 0 <= problem < len(groups):
                raise ValueError(f"--problem {problem}: step {step} has groups 0 to {len(groups) - 1}")
            groups = dict([list(groups.items())[problem]])
        batches.append(_batch(list(groups.values()), [names.setdefault(key, len(names)) for key in groups]))
    *earlier, batch = batches
    score_PG = torch.tensor([[float(r.get("logp", 0)) for r in group] for group in groups.values()])
    cfg = dataclasses.replace(_run_settings(Path(path).with_name("config.json")), **knobs)
    cfg = dataclasses.replace(cfg, group_size=batch.correct_PG.shape[1])
    return Groups(f"{path}, step {step}", batch, score_PG, cfg, earlier)


def _batch(groups, problem_P):
    correct_PG = torch.tensor([[bool(r["correct"]) for r in group] for group in groups])
    length_PG = torch.tensor([[int(r["length"]) for r in group] for group in groups])
    texts = [r.get("response", "") for group in groups for r in group]
    return methods.Batch(correct_PG, length_PG, texts, torch.tensor(problem_P))


def _run_settings(path):
    """The settings of the run that wrote `path`; without that file, those of the tiny preset."""
    ours = dataclasses.asdict(config.TINY)
    try:
        saved = json.loads(path.read_text()) if path.exists() else {}
        # JSON has no infinity (it is a text there) and no tuples
        cfg = config.Config(**{key: type(value)(saved.get(key, value)) for key, value in ours.items()})
        unknown = {cfg.preference} - methods.PREFERENCES.keys() | set(cfg.rewards) - methods.REWARDS.keys()
        if unknown:
            raise ValueError(f"methods.py has no {', '.join(sorted(unknown))}")
        return cfg
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the settings of a run: {error}") from error


# ----------------------------------------------------------------------------------------------------- for eyes: words


def show(groups, console):
    """The table, in as many parts as the terminal needs for its columns."""
    table, batch = credit_table(groups), groups.batch
    fits = max(1, (console.width - 20) // 9)
    columns = list(table)
    for first in range(0, len(columns), fits):
        part = _table(escape(groups.title) if first == 0 else None)
        part.add_column("answer")
        part.add_column("tokens", justify="right")
        for column in columns[first : first + fits]:
            part.add_column(_lines(column), justify="right", min_width=7)
        for p in range(len(batch.correct_PG)):
            for g, right in enumerate(batch.correct_PG[p].tolist()):
                cells = [_cell(table[column][p, g].item(), right) for column in columns[first : first + fits]]
                part.add_row("right" if right else "[dim]wrong", f"{batch.length_PG[p, g]:,}", *cells)
            part.add_section()
        console.print(part)
    counts = {column: int(unlearned(table[column], batch.correct_PG).sum()) for column in columns}
    pushed = ", ".join(f"{column} {n}" for column, n in counts.items() if n) or "none"
    console.print(f"[red]![/red] of {int(batch.correct_PG.sum())} right answers pushed down: {pushed}", highlight=False)
    knobs = [f"{name} {getattr(groups.cfg, name):g}" for name in ("lam", "alpha", "alp_beta", "hapo_w", "l1_target")]
    knobs += [f"{key} {value:g} for {name}" for name, own in groups.own.items() for key, value in own.items()]
    about = f"Credit times the number of answers. {', '.join(knobs)}, limit {groups.cfg.max_response_tokens}. HAPO's "
    about += "records are as after an earlier look at these answers, LASER-D's targets of its last choice: at the "
    about += f"file's first step, then every {groups.cfg.laser_every} steps."
    console.print(about, highlight=False, style="dim")


def _table(title):
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _lines(column):
    """A column's name in lines of 8 letters, which is the width of a column."""
    return "\n".join(word if len(word) <= 8 else word.replace("-", "-\n", 1) for word in column.split())


def _cell(credit, right):
    text = "0" if abs(credit) < 5e-7 else f"{credit:+.2f}" if abs(credit) >= 0.095 else f"{credit:+.2g}"
    return f"[bold red]{text}![/]" if right and credit < -5e-7 else f"[dim]{text} [/]" if not right else f"{text} "


def show_conventions(console):
    """Figure 1's rewards as advantages, in every convention: its two numbers are not of one of them."""
    batch, limit = figure_1().batch, config.R1_1_5B.max_response_tokens
    table = _table("The advantage of its third answer: right, and .8 of the limit long")
    for column in ("rewards", "population std", "sample std", "no std (Dr. GRPO)", "leave one out (RLOO)"):
        table.add_column(column, justify="left" if column == "rewards" else "right")
    for alpha in (0.0, 1.0):
        reward_PG = baselines.length_penalty_reward(batch.correct_PG, batch.length_PG.double(), limit, alpha)
        advantages = [baselines.grpo_advantage(reward_PG, std) for std in ("population", "sample", None)]
        third = [_cell(a[0, 2].item(), True) for a in (*advantages, baselines.rloo_advantage(reward_PG))]
        table.add_row(" ".join(f"{r:.2g}" for r in reward_PG[0].tolist()), *third)
    console.print(table)
    console.print(WHY, highlight=False)


# -------------------------------------------------------------------------------------------------- for eyes: a picture


def plot(groups, out_png):
    """A heat map: answers down, methods across; a right answer's negative credit is framed and has a "!"."""
    from matplotlib.patches import Rectangle

    table, batch = credit_table(groups), groups.batch
    P, G = batch.correct_PG.shape
    with plots.figure(out_png, 1.9 + 0.34 * P * G, [[0]]) as (fig, (ax,)):
        values = torch.stack([credit_PG.flatten() for credit_PG in table.values()], 1)
        ax.imshow(values.numpy(), cmap="RdBu", vmin=-3, vmax=3, aspect="auto")
        pushed = torch.stack([unlearned(c, batch.correct_PG).flatten() for c in table.values()], 1)
        for row in range(P * G):
            for column in range(len(table)):
                value, bad = values[row, column].item(), bool(pushed[row, column])
                text = "0" if abs(value) < 5e-7 else f"{value:+.2f}" if abs(value) >= 0.005 else f"{value:+.0e}"
                ax.text(
                    column,
                    row,
                    text + "!" * bad,
                    ha="center",
                    va="center",
                    fontsize=8,
                    fontweight="bold" if bad else None,
                    color="white" if abs(value) > 1.9 else plots.INK,
                )
                if bad:
                    corner = column - 0.47, row - 0.45
                    ax.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, edgecolor=plots.INK, linewidth=1.6))
        ax.set_xticks(range(len(table)), table, fontsize=9, rotation=35, ha="left", rotation_mode="anchor")
        ax.xaxis.tick_top()
        answers = zip(batch.correct_PG.flatten().tolist(), batch.length_PG.flatten().tolist(), strict=True)
        ax.set_yticks(range(P * G), [f"{'right' if right else 'wrong'}, {length:,}" for right, length in answers])
        ax.tick_params(length=0)
        ax.grid(visible=False)
        for p in range(1, P):
            ax.axhline(p * G - 0.5, color="white", linewidth=5)
        ax.set_xlabel("credit times answers: blue is pulled up, red pushed down; framed: right, yet pushed down")
        return fig


def main(argv=None):
    cfg = cli.parse(Config, argv, prog="credit.py", description="Each answer's credit under every method.")
    console = Console()
    with cli.user_errors():
        knobs = {name: getattr(cfg, name) for name in ("lam", "alpha") if getattr(cfg, name) is not None}
        if not cfg.samples and (cfg.step or cfg.problem != -1):
            raise ValueError("--step and --problem choose among --samples, and there are none")
        groups = read_groups(cfg.samples, cfg.step, cfg.problem, **knobs) if cfg.samples else figure_1(**knobs)
        if not cfg.samples:
            show_conventions(console)
        show(groups, console)
        if cfg.plot:
            try:
                plot(groups, cfg.plot)
            except OSError as error:
                raise ValueError(f"--plot {cfg.plot}: {error.strerror}") from error
            console.print(cfg.plot, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
