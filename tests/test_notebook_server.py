"""`make notebooks`: the server that it starts can open every link of every notebook."""

import json
import os
import posixpath
import re
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow
TOKEN = "0123456789abcdef"


def links(path):
    """(cell, address relative to the repository's root) of each link and picture in a notebook's texts."""
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"""(?:src|href)=["']([^"']+)""", text):
                if "://" not in target and not target.startswith("#"):
                    inside = posixpath.join("notebooks", target.partition("#")[0])
                    yield cell["id"], posixpath.normpath(inside)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of the server that the Makefile's own command starts, without a browser."""
    pytest.importorskip("jupyterlab", reason="no Jupyter: make test-notebooks installs it")
    shown = subprocess.run(["make", "-n", "notebooks"], capture_output=True, text=True, cwd=ROOT, check=True)
    command = shlex.split(next(line for line in shown.stdout.splitlines() if "jupyter lab" in line))
    home = tmp_path_factory.mktemp("jupyter")
    own = [f"--ServerApp.{key}" for key in ("port=0", "port_retries=0", "open_browser=False", "allow_root=True")]
    jupyter = [str(Path(sys.executable).parent / "jupyter"), *command[1:], *own, f"--IdentityProvider.token={TOKEN}"]
    places = {f"JUPYTER_{key}_DIR": str(home / key) for key in ("RUNTIME", "CONFIG", "DATA")}
    with open(home / "log", "w") as log:
        process = subprocess.Popen(jupyter, cwd=ROOT, stdout=log, stderr=log, env=os.environ | places)
    try:
        deadline = time.time() + 120
        while not (found := list((home / "RUNTIME").glob("jpserver-*.json"))):
            assert process.poll() is None and time.time() < deadline, (home / "log").read_text()[-3000:]
            time.sleep(0.2)
        time.sleep(0.5)  # the file is written whole by then
        yield json.loads(found[0].read_text())["url"].rstrip("/")
    finally:
        process.terminate()
        process.wait(30)


def status(address):
    request = urllib.request.Request(address, headers={"Authorization": f"token {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def test_every_link_of_every_notebook_opens(server):
    dead, asked = [], {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert status(f"{server}/api/contents/notebooks/{path.name}?content=0") == 200, f"{path.name} cannot be opened"
        for cell, target in links(path):
            if target not in asked:
                asked[target] = status(f"{server}/api/contents/{urllib.parse.quote(target)}?content=0")
            if asked[target] != 200:
                dead.append(f"{path.name}, {cell}: {target} gives {asked[target]}")
    assert len(asked) > 20 and not dead, dead
    assert status(f"{server}/api/contents/notebooks/no-such-file.py") == 404
