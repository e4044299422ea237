"""study_cells.py - which runs a study holds: methods x strengths x shares of easy prompts x bases x seeds, in parts.

    thinking    decide   is it the std? GRPO-LP with it, without it, in mixed groups only, and DRPO; three bases
                map      every method of mode_model.py, which predicted it, at three shares of easy prompts
                sweep    the strengths of eight methods
    habit       sweep    the older study, on the first embedded model
    tools       compare  GDPO, GRPO on the sum, the same without std, on the rewards that the task names
    programs    compare  the same
                weights  the length reward's weight, conditioned and not, for GDPO and for GRPO on the sum

Before them comes the part `lr`: each method at its middle strength, with every learning rate of one grid. A cell that
occurs in two parts is one run.
"""

import math
from dataclasses import dataclass

import config
from experiments import mode_model
from minidrpo.methods.table import METHODS
from minidrpo.tasks import arithmetic, thinking
from minidrpo.tasks.graders import GRADERS


@dataclass(frozen=True, order=True)
class Cell:
    """One training run, but for its learning rate, which is its method's."""

    base: int
    """Which base model: the seed of its supervised training. 0 is the embedded one."""
    seed: int
    """Of the run: the order of the problems, and the sampling."""
    method: str
    strength: float | None
    """Of the method's hyperparameter; None where it has none, or is at its default. Where a task names its rewards: the
    weight of the length reward, the others having 1."""
    share: float | None
    """Of easy problems in training; None in a world without that dial."""
    rewards: tuple[str, ...] = ()
    """Other rewards than those that the task names."""


@dataclass(frozen=True)
class World:
    """What is the same for all runs on one base, whatever the budget."""

    preset: str
    """Of config.py."""
    middle: dict
    """method -> the strength at which its learning rates are compared, and which the map shows."""
    share: float | None
    """At which learning rates are compared."""
    parts: dict[str, list[Cell]]
    """In the order in which they run; within a part base by base and seed by seed, so that a study that was stopped is
    a smaller study."""

    def cells(self, parts=None) -> list[Cell]:
        """The distinct cells of some parts (default: all), in order."""
        return list(dict.fromkeys(cell for part in parts or self.parts for cell in self.parts[part]))

    @property
    def task(self):
        """The module of a task that names its own rewards, or None."""
        return GRADERS.get(self.preset)

    def knob(self, cell) -> str:
        """What a cell's strength is the strength of."""
        return "length_weight" if self.task else METHODS[cell.method].hyperparameter

    def settings(self, cell) -> dict:
        """What a cell changes in its method's settings."""
        if "rewards" not in METHODS[cell.method].flags or not self.task:
            return {} if cell.strength is None else {self.knob(cell): cell.strength}
        rewards = cell.rewards or self.task.REWARDS
        weights = (cell.strength if name in ("length", "conditioned_length") else 1.0 for name in rewards)
        return {"rewards": rewards, "reward_weights": () if cell.strength is None else tuple(weights)}

    @property
    def shares(self) -> list:
        return sorted({cell.share for cell in self.cells()}, key=lambda share: share or 0)


def product(methods, strengths, shares, seeds, bases=(0,), rewards=((),)) -> list[Cell]:
    """strengths: {method: its strengths}. Base by base, then seed by seed."""
    return [
        Cell(base, seed, method, strength, share, names)
        for base in bases
        for seed in range(seeds)
        for share in shares
        for method in methods
        for names in rewards
        for strength in strengths[method]
    ]


# ------------------------------------------------------------------------------------------------------------- thinking

MIDDLE = {method: next(iter(settings.values()), None) for method, settings in mode_model.METHODS.values()}
AT_MIDDLE = {method: (strength,) for method, strength in MIDDLE.items()}
ABLATION = ("drpo", "grpo-lp", "grpo-lp-no-std", "grpo-lp-mixed-only")  # what decides, over all bases
STRENGTHS = {  # DRPO at lambda = inf is DisCO, which the map holds; at 0 RLOO-LP is RLOO, a reference
    "drpo": (0.001, 0.01, 0.1, 0.5),
    "grpo-lp": (0.01, 0.1, 1.0),
    "grpo-lp-no-std": (0.1, 0.5, 1.0, 2.0),
    "rloo-lp": (0.0, 0.1, 0.2, 0.4, 0.8),
    "alp": (1e-9, 1e-8, 1e-7),
    "hapo": (0.01, 0.1, 1.0),
    "ddca": (0.2, 0.5, 1.0),
    "drpo-solved": (0.1, 0.3, 1.0),
}


def thinking_parts() -> dict[str, list[Cell]]:
    usual = thinking.EASY_SHARE
    decide = product(ABLATION, AT_MIDDLE, (usual,), seeds=5, bases=(0, 1, 2))
    decide += product(ABLATION, AT_MIDDLE, (0.95,), seeds=5)
    return {
        "decide": sorted(decide, key=lambda cell: (cell.base, cell.seed)),
        "map": product(MIDDLE, AT_MIDDLE, mode_model.SHARES, seeds=3),
        "sweep": product(STRENGTHS, STRENGTHS, (usual,), seeds=3),
    }


# ---------------------------------------------------------------------------------------------------------------- habit

HABIT_STRENGTHS = {  # weak to strong; a method's first one is its own reference without a length penalty, if it has one
    "drpo": (math.inf, 0.5, 0.2, 0.1, 0.05),
    "grpo": (None,),
    "grpo-lp": (0.1, 0.3, 1.0, 3.0),
    "rloo-lp": (0.0, 0.1, 0.2, 0.4, 0.8),
    "alp": (1e-9, 1e-8, 1e-7, 1e-3),
    "hapo": (0.01, 0.1, 0.3, 1.0),
    "grpo-sum": (64,),
    "gdpo": (64,),
}
HABIT_MIDDLE = {
    **{"drpo": 0.2, "grpo": None, "grpo-lp": 0.3, "rloo-lp": 0.2, "alp": 1e-8, "hapo": 0.1},
    **{"grpo-sum": 64, "gdpo": 64},
}

# ------------------------------------------------------------------------------------------------------ several rewards

SEVERAL = {"gdpo": None, "grpo-sum": None, "grpo-sum-no-std": None}
WEIGHTS = (0.25, 1.0, 4.0)  # of the length reward


def several_parts(rewards: tuple[str, ...]) -> dict[str, list[Cell]]:
    """rewards: the task's own. Where conditioned_length is among them, its weight is swept (1 is compared already), and
    that of `length`, which every short response earns, in its place."""
    parts = {"compare": product(SEVERAL, dict.fromkeys(SEVERAL, (None,)), (None,), seeds=3)}
    if "conditioned_length" in rewards:
        raw = tuple("length" if name == "conditioned_length" else name for name in rewards)
        both = ("gdpo", "grpo-sum")
        cells = product(both, dict.fromkeys(both, [w for w in WEIGHTS if w != 1]), (None,), seeds=2)
        cells += product(both, dict.fromkeys(both, WEIGHTS), (None,), seeds=2, rewards=(raw,))
        parts["weights"] = sorted(cells, key=lambda cell: cell.seed)
    return parts


WORLDS = {
    "thinking": World("thinking", MIDDLE, thinking.EASY_SHARE, thinking_parts()),
    "habit": World("tiny", HABIT_MIDDLE, None, {"sweep": product(HABIT_STRENGTHS, HABIT_STRENGTHS, (None,), seeds=3)}),
    **{
        name: World(name, SEVERAL, None, several_parts(task.REWARDS))
        for name, task in GRADERS.items()
        if name in config.PRESETS  # there is an embedded base
    },
}


# ------------------------------------------------------------------------------------------------------------- problems


def problem_sets(world: World, n_train: int, n_validation: int) -> dict[str, list[tuple[str, int]]]:
    """{name of a file: [(problem, truth)]}: what runs train on, a set per share, and as many problems as an evaluation
    takes for choosing learning rates. All are of the training split; no validation problem is in a training set."""
    if task := world.task or (arithmetic if world.preset == "tiny" else None):
        made = task.problems(n_train + n_validation, split="train")
        sets = {"train": made[:n_train], "validation": made[n_train:]}
    else:
        sets = {train_set(share): thinking.problems(n_train, split="train", easy_share=share) for share in world.shares}
        used = {text for made in sets.values() for text, *_ in made}
        balanced = thinking.problems(2 * n_validation + 5 * n_train, split="train", seed=1)
        by_level = [[p for p in balanced if p[2] == level and p[0] not in used] for level in range(1, 6)]
        sets["validation"] = [by_level[i % 5][i // 5] for i in range(n_validation)]
    return {name: [(text, truth) for text, truth, _ in made] for name, made in sets.items()}


def train_set(share: float | None) -> str:
    """The name of the training set with that share of easy problems."""
    return "train" if share is None else f"train-{share:g}"
