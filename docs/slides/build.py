"""build.py - docs/slides/slides.md as one HTML page and as PDF, with and without the speaker's notes: `make slides`.

    python docs/slides/build.py [--out runs/slides]

In slides.md a line of three dashes ends a slide, and an HTML comment is the speaker's note. The pages hold their
pictures and load nothing. In the browser: arrow keys or space go on, `n` shows the notes. The PDF is printed by
Chromium or Chrome; without one, the pages are made and a line says how to print them.
"""

import argparse
import base64
import html
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt

HERE = Path(__file__).resolve().parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")


def read(path: Path = HERE / "slides.md") -> list[tuple[str, str]]:
    """(Markdown, speaker's note) of each slide. ValueError for a slide without a note."""
    slides = []
    for number, text in enumerate(re.split(r"^---$", path.read_text(encoding="utf-8"), flags=re.MULTILINE), start=1):
        notes = re.findall(r"<!--(.*?)-->", text, re.DOTALL)
        if len(notes) != 1:
            raise ValueError(f"{path}: slide {number} has {len(notes)} notes, want one")
        slides.append((re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).strip(), " ".join(notes[0].split())))
    return slides


def picture(match) -> str:
    """An image's address as its content."""
    data = base64.b64encode((HERE / html.unescape(match[1])).read_bytes()).decode()
    return f'src="data:image/png;base64,{data}"'


def page(slides: list[tuple[str, str]], notes: bool) -> str:
    """The whole page; notes: shown from the beginning, and printed below each slide."""
    markdown, parts = MarkdownIt("commonmark").enable("table"), []
    for number, (text, note) in enumerate(slides, start=1):
        body = re.sub(r'src="([^"]+)"', picture, markdown.render(text))
        parts.append(
            f'<section><div class="slide">{body}<div class="number">{number} / {len(slides)}</div></div>'
            f"<aside>{html.escape(note)}</aside></section>"
        )
    style, script = ((HERE / f"slides.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    size = f"@page {{ size: 1280px {970 if notes else 720}px; margin: 0; }}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>DRPO</title><style>{style}{size}</style>'
        f'<body class="{"notes" if notes else ""}">{"".join(parts)}<script>{script}</script></body></html>\n'
    )


def print_pdf(source: Path, out: Path) -> bool:
    """Whether a browser of this machine printed the page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return False
    with tempfile.TemporaryDirectory() as profile:
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={profile}",
        ]
        command = [browser, *options, f"--print-to-pdf={out}", source.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode == 0 and out.exists()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parent.parent / "runs" / "slides")
    out, slides = parser.parse_args(argv).out, read()
    out.mkdir(parents=True, exist_ok=True)
    for name, notes in (("slides", False), ("slides_with_notes", True)):
        path = out / f"{name}.html"
        path.write_text(page(slides, notes), encoding="utf-8")
        print(path)
        pdf = path.with_suffix(".pdf").resolve()
        pdf.unlink(missing_ok=True)
        print(
            pdf
            if print_pdf(path, pdf)
            else "no PDF: no Chromium or Chrome here; open the page above and print it to PDF"
        )


if __name__ == "__main__":
    sys.exit(main())
