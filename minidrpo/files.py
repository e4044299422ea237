"""files.py - what is read from disk: a plain file, and JSON. What is wrong with it is a ValueError in one line.

All readers of this project go through `plain_file`: opening a FIFO would wait for a writer that never comes, and a
device may never end.
"""

import json
import stat
from collections.abc import Iterable
from pathlib import Path

KINDS = {stat.S_ISDIR: "a directory", stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket"}


def plain_file(path: str | Path) -> Path:
    """`path`, if it is a file or nothing is there."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:  # nothing, or what opening it will say
        return Path(path)
    if not stat.S_ISREG(mode):
        what = next((name for is_kind, name in KINDS.items() if is_kind(mode)), "a device")
        raise ValueError(f"{path} is {what}, not a file")
    return Path(path)


def plain_files(directory: str | Path, names: Iterable[str] = ("*",)) -> None:
    """ValueError for anything in a directory that others will read there and that is neither file nor directory."""
    for name in names:
        for path in Path(directory).glob(name):
            if not path.is_dir():
                plain_file(path)


def check_model_directory(path: str | Path) -> None:
    """ValueError if `path` names something on this machine, not a model of the Hub, and it is no model's directory."""
    folder, name = Path(path), str(path)
    if not (folder.exists() or name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1):
        return
    plain_files(path)
    if folder.is_file():
        raise ValueError(f"{path} is a file: a model is named by its directory, {folder.parent}")
    run = (folder / "metrics.jsonl").exists() or (folder / "checkpoints").is_dir()
    if run and not any(folder.glob("*.safetensors")):
        steps = [int(file.parent.name[5:]) for file in folder.glob("checkpoints/step_*/config.json")
                 if file.parent.name[5:].isdecimal()]  # fmt: skip
        what = f"its newest model is {folder}/checkpoints/step_{max(steps)}" if steps else "it has no checkpoint"
        raise ValueError(f"{path} is a run directory, not a model's: {what}")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ValueError(f"{path} is a LoRA adapter, not a model: merge it into its base model and save that")
        raise ValueError(f"model directory {path} {'holds no config.json' if folder.is_dir() else 'does not exist'}")


def read_json(path: str | Path):
    """The value in a JSON file."""
    try:
        return json.loads(plain_file(path).read_text("utf-8"))
    except RecursionError:
        raise ValueError(f"{path} cannot be read: nested too deep") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # also of bytes that are no UTF-8, and of 5,000 digits
        said = str(error) if str(error).startswith(str(path)) else f"{path} cannot be read: {error}"
        raise ValueError(said) from error
