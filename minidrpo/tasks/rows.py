"""rows.py - the rows of a .parquet, .json or .jsonl file as plain Python values, or one line on what is wrong."""

import json
from pathlib import Path

import numpy as np

from minidrpo.files import plain_file
from minidrpo.tasks.knights import PUBLIC

SUFFIXES = (".parquet", ".json", ".jsonl")
TEXT_COLUMNS = ("prompt", "problem", "question")
TRUTH_COLUMNS = ("reward_model", "answer", "final_answer")
COLUMNS = {*TEXT_COLUMNS, *TRUTH_COLUMNS, "grader", *PUBLIC}  # all that data.py looks at
MAGIC = {  # first bytes of what some name .jsonl
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PAR1": "a Parquet file, which must be named .parquet",
}


def read_rows(path: str) -> list[dict]:
    """The rows of a .parquet, .json or .jsonl file as dicts of plain Python values."""
    file = Path(path).expanduser()
    if not file.exists():
        raise ValueError(f"{path}: no such file")
    if file.is_dir():
        raise ValueError(f"{path}: is a directory, want a {', '.join(SUFFIXES)} file")
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: cannot read {file.suffix or 'a file without extension'}, want {', '.join(SUFFIXES)}")
    plain_file(file)
    try:
        with file.open("rb") as opened:
            begin = opened.read(8)
        for magic, what in MAGIC.items():
            if begin.startswith(magic) and not (suffix == ".parquet" and magic == b"PAR1"):
                raise ValueError(f"{path}: is {what}, and not plain {suffix}")
        rows = _read_parquet(file) if suffix == ".parquet" else _read_json(file.read_text("utf-8-sig"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {one_line(error)}") from error
    return rows


def _read_parquet(file):
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(file).names
        used = [name for name in names if name in COLUMNS]
        known = set(used) & {*TEXT_COLUMNS, *PUBLIC}  # without any of them, all are named
        table = pyarrow.parquet.read_table(file, columns=used if known else None)
        columns = {name: table[name].to_pylist() for name in table.column_names}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:  # the latter two: dates of the year 99999
        raise ValueError(f"{file}: is not a readable parquet file: {one_line(error)}") from error
    return plain_rows(rows, table.schema)


def plain_rows(rows: list[dict], schema) -> list[dict]:
    """The rows of a table with this Arrow schema, 0.1 in float32 as 0.1."""
    kinds = {field.name: field.type for field in schema}
    return [{name: _plain(x, kinds[name]) for name, x in row.items()} for row in rows]


def _plain(x, kind):
    """A value of the Arrow type `kind`, its short floats by their shortest name."""
    from pyarrow import types

    if x is None:
        return None
    if types.is_floating(kind) and kind.bit_width < 64:
        return shortest(x, np.float16 if kind.bit_width == 16 else np.float32)
    if types.is_struct(kind):
        return {field.name: _plain(x[field.name], field.type) for field in kind}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [_plain(item, kind.value_type) for item in x]
    return x


def shortest(x: float, short: type) -> float:
    """0.1 in float32 is meant as 0.1, not as 0.10000000149011612: its shortest name, then. A whole number is what it
    is: beyond 2^24 its shortest name is another one."""
    x = float(x)
    return x if x.is_integer() else float(str(short(x)))


def _read_json(text, path):
    """An array of objects, or one object per line. Empty lines are passed over; rows are counted without them."""
    try:
        if text.lstrip().startswith("["):
            return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also of a number of over 4,300 digits
        raise ValueError(f"{path}: is not valid JSON: {one_line(error)}") from error
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines(): U+2028 is legal inside a JSON string
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}: line {number} is not valid JSON: {one_line(error)}") from error
    return rows


def one_line(error, limit=300):
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
