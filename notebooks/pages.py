"""pages.py - the lessons as HTML pages, in order, to read in a browser without Jupyter.

    python notebooks/pages.py [DIR]     default: runs/pages; open DIR/index.html

They are made from the committed outputs; nothing is run. Links between lessons lead to pages, links to the code to the
files of this checkout. Formulas are drawn by MathJax, which the browser fetches: without a network they stay LaTeX.
(A web host that draws .ipynb files shows the same without this: the list in README.md.)
"""

import argparse
import html
import os
import posixpath
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
LINK = re.compile(r"\]\(([^)\s]+)\)")


def lessons():
    return sorted(HERE.glob("[0-9]*.ipynb"))


def page_link(target, root):
    """Where a link of a notebook leads on a page. root: the way from the pages to the repository."""
    path, mark, anchor = target.partition("#")
    if "://" in target or not path:
        return target
    if "/" not in path and path.endswith(".ipynb"):
        return path.removesuffix(".ipynb") + ".html" + mark + anchor
    return posixpath.join(root, posixpath.normpath(posixpath.join("notebooks", path))) + mark + anchor


def about(notebook):
    """(title, time and needs) of a lesson, from its first cell."""
    text = notebook.cells[0].source
    needs = re.search(r"\*\*Time:\*\* (.*?)(?:\n\n|\Z)", text, re.DOTALL)
    words = re.sub(r"\s+", " ", LINK.sub("", needs[1])) if needs else ""
    return re.match(r"# (.*)", text)[1], re.sub(r"[*`\[]", "", words)


def write(out):
    """All pages and index.html into the directory `out`."""
    import nbformat
    from nbconvert import HTMLExporter

    out.mkdir(parents=True, exist_ok=True)
    root, exporter, paths = os.path.relpath(HERE.parent, out.resolve()), HTMLExporter(), lessons()
    items = []
    for i, path in enumerate(paths):
        notebook = nbformat.read(path, as_version=4)
        title, needs = about(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = LINK.sub(lambda found: f"]({page_link(found[1], root)})", cell.source)
        near = [f"[« {paths[i - 1].stem[:2]}]({paths[i - 1].stem}.html)"] if i else []
        near += ["[all lessons](index.html)"]
        near += [f"[{paths[i + 1].stem[:2]} »]({paths[i + 1].stem}.html)"] if i + 1 < len(paths) else []
        for place, name in ((0, "way-top"), (len(notebook.cells) + 1, "way-end")):
            notebook.cells.insert(place, nbformat.v4.new_markdown_cell(" | ".join(near), id=name))
        body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
        (out / f"{path.stem}.html").write_text(body, encoding="utf-8")
        items.append(f'<h3><a href="{path.stem}.html">{html.escape(title)}</a></h3><p>{html.escape(needs)}</p>')
    style = "body {max-width: 44em; margin: 2em auto; font-family: sans-serif; line-height: 1.4}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>DRPO, lessons</title><style>{style}</style>'
    (out / "index.html").write_text(head + "<h1>DRPO, lessons</h1>" + "\n".join(items) + "</html>\n", encoding="utf-8")
    return out / "index.html"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, metavar="DIR", default=HERE.parent / "runs" / "pages")
    print(write(parser.parse_args().directory))
