"""track.py - a run's numbers where people look for them: TensorBoard, trackio or Weights & Biases. Optional.


Names are those of metrics.jsonl; a held-out evaluation's begin with `held_out/`. The run's files stay the record: a
tracker that fails is noted once and left out, and the training goes on.
"""

import contextlib
import importlib.util
import math
import zlib
from collections.abc import Callable
from pathlib import Path

from minidrpo import markdown

PROJECT = "drpo"
SAMPLE = ("step", "prompt", "response", "truth", "answer", "correct", "length", "weight")  # columns of a sample table


class TensorBoard:
    """Event files in DIRECTORY/tensorboard: `tensorboard --logdir runs`."""

    def __init__(self, directory: Path, config: dict, first_step: int):
        from torch.utils.tensorboard import SummaryWriter

        # a resumed run writes its steps again: purge_step hides the first writing
        self.writer = SummaryWriter(directory / "tensorboard", purge_step=first_step)
        self.writer.add_text("config", _markdown(("setting", "value"), [(k, str(v)) for k, v in config.items()]))

    def numbers(self, step: int, numbers: dict):
        for key, value in numbers.items():
            self.writer.add_scalar(key, value, step)

    def table(self, step: int, name: str, rows: list[dict]):
        self.writer.add_text(name, _markdown(SAMPLE, [[row[key] for key in SAMPLE] for row in rows]), step)

    def close(self):
        self.writer.close()


class Runs:
    """Trackio and Weights & Biases, which have the same calls. A resumed run goes on as the same run."""

    def __init__(self, module: str, directory: Path, config: dict, first_step: int):
        self.module = importlib.import_module(module)
        name = f"{directory.name}-{zlib.crc32(str(directory.resolve()).encode()):08x}"
        more = {"id": name, "dir": directory, "group": directory.name} if module == "wandb" else {}
        # trackio knows a run by its name, wandb by its id
        self.module.init(project=PROJECT, name=name, config=config, resume="allow", **more)

    def numbers(self, step: int, numbers: dict):
        self.module.log(numbers, step=step)

    def table(self, step: int, name: str, rows: list[dict]):
        made = self.module.Table(columns=list(SAMPLE), data=[[_cell(row[key]) for key in SAMPLE] for row in rows])
        self.module.log({name: made}, step=step)

    def close(self):
        self.module.finish()


KINDS: dict[str, Callable] = {
    "tensorboard": TensorBoard,
    "trackio": lambda *where: Runs("trackio", *where),
    "wandb": lambda *where: Runs("wandb", *where),
}


def check(kind: str):
    """ValueError if the package of --track is not installed; imports nothing."""
    if kind != "none" and not importlib.util.find_spec(kind):
        raise ValueError(f"--track {kind} needs the package {kind}: pip install {kind}")


class Tracker:
    """What log.py writes to: one of KINDS, or nothing. say(text): where to note that it failed."""

    def __init__(self, kind: str, directory: Path, say: Callable):
        self.kind, self.directory, self.say, self.inner = kind, directory, say, None

    def begin(self, config: dict, first_step: int):
        """ValueError in one line if it cannot start (no login, say)."""
        if self.kind == "none":
            return
        try:
            self.inner = KINDS[self.kind](self.directory, config, first_step)
        except Exception as error:  # a library's own classes
            raise ValueError(f"--track {self.kind} could not start: {_line(error)}") from error

    def numbers(self, step: int, numbers: dict):
        """Those that are finite numbers, under their names; of a table of numbers each as name/key."""
        tables = {
            f"{k}/{key}": v for k, table in numbers.items() if isinstance(table, dict) for key, v in table.items()
        }
        plain = {k: v for k, v in (numbers | tables).items() if isinstance(v, int | float) and math.isfinite(v)}
        self._call("numbers", step, plain)

    def table(self, step: int, name: str, rows: list[dict]):
        self._call("table", step, name, rows)

    def close(self):
        self._call("close")

    def _call(self, name, *arguments):
        if self.inner:
            try:
                getattr(self.inner, name)(*arguments)
            except Exception as error:  # its disk, its server: not a reason to end a training
                inner, self.inner = self.inner, None
                self.say(f"--track {self.kind} failed and is left out from here on: {_line(error)}")
                with contextlib.suppress(Exception):
                    inner.close()


def _line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _cell(value):
    """A table's column has one type: truths are text, numbers or lists."""
    return value if isinstance(value, bool | int | float) else str(value)


def _markdown(heads, rows):
    def cell(value):
        return str(value).replace("|", "\\|").replace("\n", "<br>")

    return markdown.table(heads, (map(cell, row) for row in rows))
