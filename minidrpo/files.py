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
