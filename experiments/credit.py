"""credit.py - who gets the credit: every response of a group under every method, side by side, as text or as a PNG.

    python -m experiments.credit                          Figure 1 of the DRPO paper: six responses to one question
    python -m experiments.credit --samples runs/NAME/samples.jsonl     those of a run (--step N --problem K to choose)
    python -m experiments.credit --plot credit.png        the same as a picture

The credit is dJ/dscore (methods.credit), how hard a response's mean log-likelihood is pulled up (> 0) or pushed down
(< 0), times the number of responses: so GRPO's column is its advantage. A correct response that is pushed down is red,
with a "!". The shown groups are taken for the whole batch, which matters only for GDPO and for methods that average
over tokens. HAPO's record and LASER-D's targets are computed from the file's earlier steps and these responses.

P prompts | G responses per prompt
"""

import dataclasses
import itertools
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
from minidrpo.files import read_json
from minidrpo.methods import baselines
from minidrpo.methods import table as methods
from minidrpo.rundir import jsonl
from minidrpo.show import plots

# Every method once, and both conventions of GRPO's std: (name of the column, method, settings of its own). Without the
# rows that in a group with right and wrong responses are others again: the ablations, DRPO with solved groups
STDS = (("sample", {"adv_std": "sample"}), ("popul.", {"adv_std": "population"}))
COLUMNS = [
    (f"{name} {short}".strip(), name, own)
    for name in methods.METHODS
    if not name.startswith(("grpo-lp-", "grpo-sum-")) and name != "drpo-solved"
    for short, own in (STDS if name in ("grpo", "grpo-lp") else (("", {}),))
]


@dataclass(frozen=True)
class Config:
    samples: str = ""
    """A run's samples.jsonl; none: Figure 1 of the paper."""
    step: int = cli.value(0, "0 or more")
    """Which training step's groups; 0: the last one in the file."""
    problem: int = -1
    """Which of the step's groups, from 0; -1: all."""
    plot: str = ""
    """Also draw the table into this file: .png (also without an ending), .pdf or .svg."""
    lam: float | None = cli.value(None, "no nan")
    """DRPO's hyperparameter; by default the run's own (its config.json) or, for Figure 1, the paper's."""
    alpha: float | None = cli.value(None, "no nan")
    """The same for grpo-lp and rloo-lp."""

    def __post_init__(self):
        cli.check(self)


@dataclass(frozen=True)
class Groups:
    """Responses to look at, the settings to weigh them with, and what the methods had seen before them.

    score_PG: mean log-likelihoods. settings: of the run and of any method, in place of the preset's. earlier: batches,
    oldest first. own: method -> settings that only it has here.
    """

    title: str
    batch: methods.Batch
    score_PG: torch.Tensor
    preset: str
    settings: dict
    earlier: list = ()
    own: dict = dataclasses.field(default_factory=dict)

    def cfg(self, method: str = "drpo", **changes):
        """The config of one method: the preset, the settings that it reads, its own ones, and changes."""
        known = {field.name for field in dataclasses.fields(config.config_class(method))}
        settings = {k: v for k, v in self.settings.items() if k in known}
        return config.make(self.preset, method, **(settings | changes | self.own.get(method, {})))


def credit_table(groups: Groups, columns=COLUMNS) -> dict[str, torch.Tensor]:
    """{column: credit_PG times the number of responses}, for every method."""
    table = {}
    batches = (*groups.earlier, groups.batch)
    n_problems = 1 + max(int(batch.problem_P.max()) for batch in batches)
    for column, name, changes in columns:
        cfg = groups.cfg(name, **changes)
        state = methods.METHODS[name].new_state(cfg, n_problems)
        for batch in batches:
            state = methods.METHODS[name].remember(state, batch, cfg)
        weight_PG, _ = methods.compute_weights(groups.batch, cfg, state)
        credit_PG = methods.credit(weight_PG, groups.batch, cfg, groups.score_PG)
        table[column] = credit_PG.double() * credit_PG.numel()
    return table


def negative_though_correct(credit_PG: torch.Tensor, correct_PG: torch.Tensor) -> torch.Tensor:
    """(P, G) bool: correct responses with a negative credit, beyond rounding."""
    return correct_PG & (credit_PG < -5e-7)


# --------------------------------------------------------------------------------------------- where responses are from

FIGURE_1 = "Figure 1 of arXiv 2510.04474: six responses to one question, of which three are correct"
WHY = """The paper's figure says that the length penalty takes it from 1 to -0.17. No single convention gives both: 1 \
is from the population std (the sample std gives 0.91), -0.17 from the sample std (the population std gives -0.18).
"""
SHARES = (0.27, 0.4, 0.8, 0.5, 0.5, 0.5)  # of the limit; the figure does not say how long its wrong responses are


def figure_1(**settings) -> Groups:
    """The figure's six responses; with its alpha, 1, GRPO-LP's rewards are .73, .6, .2, 0, 0, 0.
    settings: changes of the r1-1.5b preset."""
    length_PG = torch.tensor([SHARES]) * config.R1_1_5B.max_response_tokens
    correct_PG = torch.tensor([[True] * 3 + [False] * 3])
    batch = methods.Batch(correct_PG, length_PG.round().long(), [""] * 6, torch.tensor([0]))
    own = {} if "alpha" in settings else {"grpo-lp": {"alpha": 1.0}}
    return Groups(FIGURE_1, batch, torch.zeros(1, 6), "r1-1.5b", {"group_size": 6} | settings, own=own)


MUST_BE = {
    "step": (lambda v: type(v) is int, "a whole number"),
    "correct": (lambda v: v in (True, False), "true or false"),
    "length": (lambda v: type(v) is int and 0 < v < 2**31, "1 or more"),
    "logp": (lambda v: type(v) in (int, float) and math.isfinite(v), "a number"),
    "response": (lambda v: type(v) is str, "a text"),
    "scores": (lambda v: cli.fits(v, dict[str, float]), "numbers by name"),
}


def read_groups(path: str | Path, step=0, problem=-1, **settings) -> Groups:
    """Whole groups of responses of one step (0: the last) of a samples.jsonl, all of them or one (problem, from 0).
    settings: changes of the run's own. ValueError, naming the file, for what is not there or not readable."""
    records = jsonl.read(path)
    if not records:
        raise ValueError(f"{path}: {'holds no steps yet' if Path(path).exists() else 'no such file'}")
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
    by_step = {s: {} for s in steps[: steps.index(step) + 1]}  # step -> problem -> its group
    for r in records:
        if r["step"] in by_step:
            problem_key = repr([r.get("source"), r.get("index"), r.get("prompt")])
            by_step[r["step"]].setdefault(problem_key, []).append(r)
    names, batches, sizes = {}, [], set()  # names: problem -> its number, for HAPO's records
    for s, groups in by_step.items():
        sizes |= {len(group) for group in groups.values()}
        if len(sizes) > 1:
            raise ValueError(f"{path}: groups of step {s} have different numbers of responses, or others than before")
        if s == step and problem != -1:
            if not 0 <= problem < len(groups):
                raise ValueError(f"--problem {problem}: step {step} has groups 0 to {len(groups) - 1}")
            groups = dict([list(groups.items())[problem]])
        correct_PG, length_PG, logp_PG = (
            torch.tensor([[r.get(key, 0) for r in group] for group in groups.values()])
            for key in ("correct", "length", "logp")
        )
        texts = [r.get("response", "") for group in groups.values() for r in group]
        problem_P = torch.tensor([names.setdefault(key, len(names)) for key in groups])
        measured = [[r.get("scores", {}) for r in group] for group in groups.values()]
        names_of = [name for name in measured[0][0] if all(name in scores for group in measured for scores in group)]
        scores = {name: torch.tensor([[float(r[name]) for r in group] for group in measured]) for name in names_of}
        batches.append(methods.Batch(correct_PG.bool(), length_PG, texts, problem_P, scores=scores))
    settings = _run_settings(Path(path).with_name("config.json")) | settings | {"group_size": sizes.pop()}
    groups = Groups(f"{path}, step {step}", batches[-1], logp_PG.float(), "tiny", settings, batches[:-1])
    groups.cfg()  # ValueError for a setting out of range
    return groups


def _run_settings(path) -> dict:
    """What decides the weights among the settings of the run that wrote `path`; {} without that file."""
    flags = {name: {"max_response_tokens", "train_data"} | method.flags for name, method in methods.METHODS.items()}
    try:
        saved = read_json(path) if path.exists() else {}
        settings = {key: value for key, value in saved.items() if any(key in known for known in flags.values())}
        for key, value in settings.items():  # JSON has no infinity (it is a text there) and no tuples
            settings[key] = math.inf if value == "inf" else tuple(value) if isinstance(value, list) else value
        for name, known in flags.items():
            config.make("tiny", name, **{key: settings[key] for key in known & settings.keys()})
        return settings
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not the settings of a run: {error}") from error


# ----------------------------------------------------------------------------------------------------- for eyes: words


def show(groups: Groups, console: Console):
    """The table, in as many parts as the terminal needs for its columns."""
    table, batch = credit_table(groups), groups.batch
    fits = max(1, (console.width - 20) // 9)
    columns = list(table)
    for first in range(0, len(columns), fits):
        shown = columns[first : first + fits]
        part = _table(escape(groups.title) if first == 0 else None)
        part.add_column("response")
        part.add_column("tokens", justify="right")
        for column in shown:
            part.add_column(_lines(column), justify="right", min_width=7)
        for p in range(len(batch.correct_PG)):
            for g, correct in enumerate(batch.correct_PG[p].tolist()):
                cells = [_cell(table[column][p, g].item(), correct) for column in shown]
                part.add_row("correct" if correct else "[dim]wrong", f"{batch.length_PG[p, g]:,}", *cells)
            part.add_section()
        console.print(part)
    counts = {column: int(negative_though_correct(table[column], batch.correct_PG).sum()) for column in columns}
    pushed = ", ".join(f"{column} {n}" for column, n in counts.items() if n) or "none"
    about = f"[red]![/red] of {int(batch.correct_PG.sum())} correct responses pushed down: {pushed}"
    console.print(about, highlight=False)
    own = {"lam": "drpo", "alpha": "rloo-lp", "alp_beta": "alp", "hapo_w": "hapo", "l1_target": "l1-max"}
    used = [f"{name} {getattr(groups.cfg(method), name):g}" for name, method in own.items()]
    used += [f"{key} {value:g} for {name}" for name, own in groups.own.items() for key, value in own.items()]
    about = (
        f"Credit times the number of responses. {', '.join(used)}, limit {groups.cfg().max_response_tokens}. HAPO's "
    )
    about += "records are as after an earlier look at these responses, LASER-D's targets of its last choice: at the "
    about += f"file's first step, then every {groups.cfg('laser-d').laser_every} steps."
    console.print(about, highlight=False, style="dim")


def _table(title):
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _lines(column):
    """A column's name in lines of 8 letters, which is the width of a column."""
    return "\n".join(word if len(word) <= 8 else word.replace("-", "-\n", 1) for word in column.split())


def _cell(credit, correct):
    if correct and credit < -5e-7:
        return f"[bold red]{_number(credit, 0.095)}![/]"
    return f"{_number(credit, 0.095)} " if correct else f"[dim]{_number(credit, 0.095)} [/]"


def _number(credit, coarse):
    """Two decimals from `coarse` on, below it two digits (for a cell of a picture: one)."""
    small = f"{credit:+.2g}" if coarse > 0.01 else f"{credit:+.0e}"
    return "0" if abs(credit) < 5e-7 else f"{credit:+.2f}" if abs(credit) >= coarse else small


def show_conventions(console: Console):
    """Figure 1's rewards as advantages, in every convention: no single one gives both of its numbers."""
    batch, limit = figure_1().batch, config.R1_1_5B.max_response_tokens
    table = _table("The advantage of its third response: correct, and .8 of the limit long")
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


def plot(groups: Groups, out_png):
    """A heat map: responses down, methods across; a correct response's negative credit is framed and has a "!"."""
    from matplotlib.patches import Rectangle

    table, batch = credit_table(groups), groups.batch
    P, G = batch.correct_PG.shape
    with plots.figure(out_png, 1.9 + 0.34 * P * G, [[0]]) as (fig, (ax,)):
        values = torch.stack([credit_PG.flatten() for credit_PG in table.values()], 1)
        ax.imshow(values.numpy(), cmap="RdBu", vmin=-3, vmax=3, aspect="auto")
        pushed = torch.stack(
            [negative_though_correct(c, batch.correct_PG).flatten() for c in table.values()], 1
        ).tolist()
        for row, column in itertools.product(range(P * G), range(len(table))):
            value, bad = values[row, column].item(), pushed[row][column]
            style = {"ha": "center", "va": "center", "fontsize": 8, "fontweight": "bold" if bad else None}
            style["color"] = "white" if abs(value) > 1.9 else plots.INK
            ax.text(column, row, _number(value, 0.005) + "!" * bad, **style)
            if bad:
                corner = column - 0.47, row - 0.45
                ax.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, edgecolor=plots.INK, linewidth=1.6))
        ax.set_xticks(range(len(table)), table, fontsize=9, rotation=35, ha="left", rotation_mode="anchor")
        ax.xaxis.tick_top()
        rows = zip(batch.correct_PG.flatten().tolist(), batch.length_PG.flatten().tolist(), strict=True)
        ax.set_yticks(range(P * G), [f"{'correct' if correct else 'wrong'}, {length:,}" for correct, length in rows])
        ax.tick_params(length=0)
        ax.grid(visible=False)
        for p in range(1, P):
            ax.axhline(p * G - 0.5, color="white", linewidth=5)
        ax.set_xlabel("credit times responses: blue is pulled up, red pushed down; framed: correct, yet pushed down")
        return fig


def file_to_draw(name: str) -> Path:
    """The file that `--plot name` writes. ValueError, before anything is drawn, if it cannot be."""
    path = Path(name)
    path = path if path.suffix else path.with_name(f"{path.name}.png")
    if Path(name).is_dir() or path.is_dir():
        raise ValueError(f"--plot {name} is a directory")
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--plot {name}: {path.suffix} is not supported, choose .png, .pdf or .svg")
    if not path.parent.is_dir():
        raise ValueError(f"--plot {name}: no such directory: {path.parent}")
    return path


def main(argv=None):
    cfg = cli.parse(Config, argv, prog="credit.py", description="Each response's credit under every method.")
    console = Console()
    with cli.user_errors():
        out = file_to_draw(cfg.plot) if cfg.plot else None
        settings = {name: getattr(cfg, name) for name in ("lam", "alpha") if getattr(cfg, name) is not None}
        if cfg.samples:
            groups = read_groups(cfg.samples, cfg.step, cfg.problem, **settings)
        elif cfg.step or cfg.problem != -1:
            raise ValueError("--step and --problem choose among --samples, and there are none")
        else:
            groups = figure_1(**settings)
            credit_table(groups)  # a wrong setting is found before anything is said
            show_conventions(console)
        show(groups, console)
        if out:
            try:
                plot(groups, out)
            except OSError as error:
                raise ValueError(f"--plot {out}: {error.strerror}") from error
            console.print(str(out), highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
