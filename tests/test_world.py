"""The ranks' words to each other that no other test hears: how one that fails alone leaves."""

import subprocess
import sys
import time

import pytest

from conftest import ROOT

RANK = """
import atexit, sys, time
sys.path.insert(0, {root!r})
from world import World, parting
atexit.register(time.sleep, 100)  # as NCCL's farewell, when the others wait in a collective
with parting(World(rank=1, size=2)):
    {fails}
"""


@pytest.mark.parametrize(("fails", "code", "said"), [
    ("sys.exit(print('error: disk full', file=sys.stderr) or 3)", 3, "error: disk full"),
    ("1 / 0", 1, "ZeroDivisionError"),
])  # fmt: skip
def test_a_rank_that_fails_does_not_wait_for_the_others(fails, code, said):
    begin = time.perf_counter()
    script = RANK.format(root=str(ROOT), fails=fails)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90)
    assert done.returncode == code and said in done.stderr and time.perf_counter() - begin < 60
