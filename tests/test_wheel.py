"""A wheel built from the repository works when installed: the six files, the package, its data. Slow: it builds one."""

import os
import subprocess
import sys
import zipfile

import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel's contents, as pip would put them into site-packages, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", f"-w{folder}", "."]
    source = folder / "source"  # a copy: building in the checkout would leave build/ behind
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, tracked):
        if (ROOT / name).exists() and not name.startswith(("tests/", "notebooks/", "experiments/", "docs/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(build, cwd=source, check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(installed, cwd, *command):
    """A Python command that finds only the wheel's modules."""
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )


def test_the_wheel_holds_the_door_the_package_and_nothing_else(installed):
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"config.py", "drpo.py", "eval.py", "reward.py", "rollout.py", "train.py", "minidrpo"}
    for model in ("tiny", "tiny/thinking", "tiny/programs", "tiny/tools"):
        assert (installed / "minidrpo" / model / "model.safetensors").stat().st_size > 1e6
    assert (installed / "minidrpo/show/page/report.js").exists()


def test_the_tiny_preset_trains_and_writes_its_page(installed, tmp_path):
    small = ["--steps=1", "--prompts-per-step=4", "--max-problems=4", "--samples=1", "--run-dir=run"]
    done = run(installed, tmp_path, "-m", "train", *small)
    assert done.returncode == 0, done.stderr
    assert "boxed" in (tmp_path / "run" / "report.html").read_text()
    where = run(installed, tmp_path, "-c", "import train, minidrpo.tiny; print(train.__file__, minidrpo.tiny.__file__)")
    assert all(path.startswith(str(installed)) for path in where.stdout.split())


def test_the_grader_proves_with_its_own_process(installed, tmp_path):
    code = r"import reward; print(reward.same_answer(r'\sum_{k=1}^{n} k', r'\frac{n(n+1)}{2}'))"
    assert run(installed, tmp_path, "-c", code).stdout.strip() == "True"
