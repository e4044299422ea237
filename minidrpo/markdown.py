"""markdown.py - tables in Markdown, for reports and results."""

from collections.abc import Iterable


def table(head: Iterable, rows: Iterable[Iterable], align: Iterable[str] = ()) -> str:
    """Lines of a table, without a line break at the end. A cell is written as str(cell): what holds a | or a line break
    must be made plain before. align: "---" or "---:" by column; default "---"."""
    head = list(head)
    lines = [head, list(align) or ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
