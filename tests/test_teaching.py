"""What teachers and learners are told: the FAQ's examples run, class plans add up, the slides are what they say."""

import doctest
import re
import subprocess

import pytest

from conftest import ROOT


def test_the_answers_of_the_faq_hold():
    result = doctest.testfile(str(ROOT / "docs/faq.md"), module_relative=False)
    assert result.failed == 0 and result.attempted > 15


def test_the_ledger_of_failures_names_commits_that_exist():
    named = set(re.findall(r"\b[0-9a-f]{7}\b", (ROOT / "docs/failed.md").read_text()))
    if subprocess.run(["git", "cat-file", "-e", "82da6e8"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("the history is not here (a shallow clone, or no git)")
    lost = [c for c in named if subprocess.run(["git", "cat-file", "-e", c], cwd=ROOT, capture_output=True).returncode]
    assert len(named) > 8 and not lost, lost
