"""jsonl.py - JSON-lines files that survive kills, and whole files that appear at once. The only reader and writer.

A process that is killed while it appends leaves at worst a torn last line. `read` leaves that out.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from minidrpo.files import plain_file

# UTF-8 has no bytes for half of a surrogate pair, which "\\ud800" in a data file gives; written as this escape it is
# valid JSON and is read back as it was
UTF_8 = ("utf-8", "backslashreplace")


def _line(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def append(path: str | Path, records: Iterable[dict]) -> None:
    """Append records, one JSON object per line; after a torn last line, on a line of their own. OSError names the
    file."""
    try:
        with open(path, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.write(b"\n")
            file.writelines(_line(record).encode(*UTF_8) for record in records)
    except OSError as error:
        raise OSError(f"could not write {path}: {error}") from error


def write(path: Path, records: Iterable[dict]) -> None:
    """The whole file or none of it."""
    write_text(path, "".join(map(_line, records)))


def write_text(path: Path, text: str) -> None:
    """The whole file or none of it: a reader never meets a half-written one."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, *UTF_8)
    os.replace(part, path)


def lines(path: str | Path, keys: Iterable[str] = ("step",), skip_broken: bool = False) -> Iterator[dict]:
    """The objects of a file one at a time, as files may be larger than memory. No file: nothing.

    Each must hold `keys`; ValueError names the line that does not, or that is not JSON (skip_broken: it is left out),
    and a file that cannot be read. A last line without its newline was cut off by a kill and is always left out.
    """
    keys = set(keys)
    try:
        file = open(plain_file(path), "rb")  # bytes: a kill may cut a character in two
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
                if not isinstance(record, dict) or not keys <= record.keys():
                    raise ValueError(f"not an object with {' and '.join(sorted(keys))}")
            except (ValueError, RecursionError) as error:  # nested too deep
                if not skip_broken:
                    raise ValueError(f"{path}, line {number}: {error}") from error
            else:
                yield record


def read(path: str | Path, key: str = "step") -> list[dict]:
    """All records of a log, each an object with the whole number `key`; a torn last line is left out."""
    records = list(lines(path, [key]))
    for number, record in enumerate(records, 1):
        if type(record[key]) is not int:  # true is an int, too
            raise ValueError(f"{path}, line {number}: {key} is {record[key]!r}, not a whole number")
    return records


def keep_until(path: str | Path, step: int) -> None:
    """Drop records of steps after `step`: a resumed run writes them again. The rewrite is atomic."""
    if Path(path).exists():
        write(Path(path), [r for r in read(path) if r["step"] <= step])
