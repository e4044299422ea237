"""rows.py - the rows of a .parquet, .json or .jsonl file as plain Python values, or one line on what is wrong."""

import json
from pathlib import Path

import numpy as np

from minidrpo.files import plain_file

SUFFIXES = (".parquet", ".json", ".jsonl")
TEXT_COLUMNS = ("prompt", "problem", "question")
TRUTH_COLUMNS = ("reward_model", "answer", "final_answer")


def read_rows(path: str) -> list[dict]:
    """The rows of a .parquet, .json or .jsonl file as dicts of plain Python values."""
    file = Path(path).expanduser()
    if not file.exists():
        raise ValueError(f"{path}: no such file")
    if file.is_dir():
        raise ValueError(f"{path}: is a directory, want a {', '.join(SUFFIXES)} file")
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{path}: cannot read {file.suffix or 'a file without extension'}, want {', '.join(SUFFIXES)}")
    plain_file(file)
    try:
        rows = _read_parquet(file) if file.suffix == ".parquet" else _read_json(file.read_text("utf-8-sig"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {one_line(error)}") from error
    return rows


def _read_parquet(file):
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(file).names
        used = [name for name in names if name in (*TEXT_COLUMNS, *TRUTH_COLUMNS, "grader")]
        known = set(used) & set(TEXT_COLUMNS)  # without any of them, all are named
        table = pyarrow.parquet.read_table(file, columns=used if known else None)
        columns = {name: _plain_column(table[name]) for name in table.column_names}
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:  # the latter two: dates of the year 99999
        raise ValueError(f"{file}: is not a readable parquet file: {one_line(error)}") from error
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain_column(column):
    """A column's values. 0.1 in float32 is meant as 0.1, not as 0.10000000149011612: its shortest name, then."""
    values, kind = column.to_pylist(), str(column.type)
    short = np.float16 if "halffloat" in kind else np.float32 if "float" in kind else None  # float64 is "double"
    if short is None:
        return values

    def shortest(x):
        if isinstance(x, float) and short(x) == x:
            return float(str(short(x)))
        if isinstance(x, dict):
            return {key: shortest(value) for key, value in x.items()}
        return [shortest(item) for item in x] if isinstance(x, list) else x

    return [shortest(x) for x in values]


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
