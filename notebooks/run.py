"""run.py - runs the notebooks from top to bottom, each in a fresh kernel, and keeps their committed outputs current.

    python notebooks/run.py             run all of them and write their outputs back, free of counters and times
    python notebooks/run.py 01 04       only those whose names begin so
    python notebooks/run.py --check     write nothing; fail if one stops, is slow, or prints other than committed

The notebooks themselves are the source: edit them in Jupyter, then run this before you commit. Numbers in printed text
may differ by 1 % from the committed ones (another machine's rounding). Pictures are compared in blocks of 8 x 8 pixels:
text may be drawn a little otherwise, or a pixel further, but no bar or curve may move. What a cell tagged `volatile`
prints or draws is not compared. A cell tagged `gap` is run with its solution from teacher/, and kept as it is. The
claims are held by the cells' own checks. Needs the `notebooks` extra.
"""

import argparse
import base64
import io
import math
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS = {
    "00": 180,
    "05": 180,
}  # limits of processor time, which a busy machine does not stretch; the others have a minute
COLOUR_CODES = re.compile(r"\x1b\[[\d;]*m")
NAME = re.compile(r'check\("(\w+)"')  # of an exercise
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?")


def find(prefixes=()):
    """The notebooks whose names begin with one of these, or all. ValueError for a prefix that names none."""
    paths = sorted(HERE.glob("*.ipynb"))
    lost = [prefix for prefix in prefixes if not any(path.name.startswith(prefix) for path in paths)]
    if lost:
        raise ValueError(f"no notebook begins with {', '.join(lost)}; there are {', '.join(p.stem for p in paths)}")
    return [path for path in paths if not prefixes or path.name.startswith(tuple(prefixes))]


def solutions(path):
    """{exercise: the Python that solves it}, from the teacher's page of this notebook; there may be none."""
    page = HERE / "teacher" / f"lesson{int(path.name[:2])}.md"
    text = page.read_text("utf-8") if page.exists() else ""  # a student's copy has none, and its gaps stay
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return {NAME.search(block)[1]: block.strip() for block in blocks}


def fill(path, cells):
    """Put the solution into each cell tagged `gap`, in place. Returns [(cell, the source it had)]."""
    gaps = [(cell, cell["source"]) for cell in cells if "gap" in cell["metadata"].get("tags", ())]
    for cell, source in gaps:
        cell["source"] = solutions(path).get(NAME.search("".join(source))[1], source)
    return gaps


def execute(path):
    """The notebook with fresh outputs, an nbformat object. A cell that fails raises nbclient's CellExecutionError."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    gaps = fill(path, notebook.cells)
    # Jupyter starts a kernel in its notebook's folder, so this does too
    quiet = {"record_timing": False, "coalesce_streams": True, "extra_arguments": ["--log-level=ERROR"]}
    resources = {"metadata": {"path": str(HERE)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources, **quiet).execute()
    for cell, source in gaps:
        cell.source, cell.outputs = source, []
    notebook.metadata["language_info"] = {"name": "python"}  # no version: it would change with every machine
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = None
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = smaller(output.data["image/png"])
    return notebook


def smaller(png):
    """A picture in base64 with 256 colours instead of millions: a third of the bytes, and no difference to the eye."""
    from PIL import Image  # matplotlib needs it too

    out = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(256).save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def printed(cell):
    """What a code cell prints and shows, as plain text."""
    parts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell["outputs"]]
    return "".join("".join(part) for part in parts)


def same_text(old, new):
    """Equal, but for numbers that differ in their third digit or by less than 0.001."""
    if NUMBER.sub("#", old) != NUMBER.sub("#", new):
        return False
    pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=1e-2, abs_tol=1e-3) for a, b in pairs)


def pictures(cell):
    """The PNGs that a code cell shows, as images."""
    from PIL import Image

    shown = [out["data"]["image/png"] for out in cell["outputs"] if "image/png" in out.get("data", {})]
    return [Image.open(io.BytesIO(base64.b64decode("".join(png)))).convert("RGB") for png in shown]


def same_picture(old, new):
    """Equal, but for what other fonts or a shift by a pixel change: a pixel of 8 moves a block's mean by 255/8 = 32, so
    at most 2 blocks of 1,000 may differ by more than 40 of 255 in one colour."""
    import numpy as np

    if old.size != new.size:
        return False
    gap = np.abs(np.asarray(old.reduce(8), float) - np.asarray(new.reduce(8), float)).max(-1)
    return bool((gap > 40).mean() <= 0.002)


def same_pictures(old, new):
    """For two cells."""
    pairs = pictures(old), pictures(new)
    return len(pairs[0]) == len(pairs[1]) and all(map(same_picture, *pairs))


def differences(old, new):
    """Cells whose committed output is not what they show now: a list of lines for the user."""
    lines = []
    for a, b in zip(old.cells, new.cells, strict=True):
        if a.cell_type == "code" and "volatile" not in a.metadata.get("tags", ()):
            if not same_text(printed(a), printed(b)):
                lines.append(f"cell {a['id']} prints {printed(b)!r}, committed is {printed(a)!r}")
            if not same_pictures(a, b):
                lines.append(f"cell {a['id']} draws another picture than the committed one: run notebooks/run.py")
    return lines


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefixes", nargs="*", metavar="PREFIX", help="beginnings of names, such as 01")
    parser.add_argument("--check", action="store_true", help="write nothing, fail where something is wrong")
    options = parser.parse_args(argv)
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}  # no network is needed; the same sums everywhere
    import nbformat
    from nbclient.exceptions import CellExecutionError

    faults = 0
    for path in find(options.prefixes):
        start = os.times()
        try:
            notebook, complaints = execute(path), []
        except CellExecutionError as error:
            notebook, complaints = None, [COLOUR_CODES.sub("", str(error)).strip()]
        end, limit = os.times(), SECONDS.get(path.name[:2], 60)
        seconds = end.children_user + end.children_system - start.children_user - start.children_system  # the kernel's
        if seconds > limit:
            complaints.append(f"needs more than its {limit} s of CPU")
        if notebook and options.check:
            complaints += differences(nbformat.read(path, as_version=4), notebook)
        elif notebook:
            nbformat.write(notebook, path)
        wall = end.elapsed - start.elapsed
        print(f"{path.name:40} {seconds:5.1f} s of CPU, {wall:5.1f} s  {'FAULT' if complaints else 'ok'}", flush=True)
        print(*complaints, sep="\n", end="\n" if complaints else "", flush=True)
        faults += bool(complaints)
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"run.py: {error}")
