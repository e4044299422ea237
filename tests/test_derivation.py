"""docs/derivation.md: every line of the page has a function and a test, and the two lines that no other test holds."""

import re

import torch

import drpo
from conftest import ROOT


def test_every_line_of_the_page_has_a_function_and_a_test():
    lines = re.split(r"^\*\*(\d+)\. ", (ROOT / "docs" / "derivation.md").read_text(), flags=re.MULTILINE)[1:]
    assert lines[::2] == [str(n) for n in range(1, 10)]
    for number, text in zip(lines[::2], lines[1::2], strict=True):
        functions, tests = text.split(" · ")  # test_docs.py checks that each exists
        assert re.search(r"\[`(drpo|lemma|train)\.\w+`\]", functions) and "[`test_" in tests, number


def group(lam, seed=0):
    """Preferences of 50 groups of six right responses, their weights, and the mean of exp(r/lam)."""
    r_PG = torch.rand(50, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return r_PG, drpo.positive_distribution(r_PG, torch.ones(50, 6, dtype=torch.bool), lam), (r_PG / lam).exp().mean(-1)


def test_the_objective_is_lambda_log_z_minus_a_kl():
    for lam in (0.1, 1.0, 5.0):
        r_PG, best_PG, z_P = group(lam)
        torch.testing.assert_close(r_PG, lam * (6 * z_P[:, None] * best_PG).log())  # r = lambda log(n Z w)
        w_PG = torch.rand(50, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        w_PG = w_PG / w_PG.sum(-1, keepdim=True)
        objective_P = (w_PG * r_PG).sum(-1) - lam * (w_PG * (6 * w_PG).log()).sum(-1)
        kl_P = (w_PG * (w_PG / best_PG).log()).sum(-1)
        torch.testing.assert_close(objective_P, lam * z_P.log() - lam * kl_P)


def test_weights_of_a_group_estimate_the_best_distribution():
    """A policy over six responses whose best distribution is known: large groups find it, uniform weights do not."""
    g = torch.Generator().manual_seed(0)
    pi, r = torch.tensor([0.05, 0.1, 0.15, 0.3, 0.3, 0.1]).double(), torch.arange(6, 0, -1).double() / 6
    lam = 0.3
    best = pi * (r / lam).exp()
    best = best / best.sum()
    drawn_PG = torch.multinomial(pi.expand(200, 6), 2000, replacement=True, generator=g)
    weight_PG = drpo.positive_distribution(r[drawn_PG], torch.ones_like(drawn_PG).bool(), lam)
    found = torch.zeros(200, 6, dtype=torch.float64).scatter_add(1, drawn_PG, weight_PG)
    error = found.std(0) / 200**0.5
    assert ((found.mean(0) - best).abs() < 5 * error + 1e-3).all()  # a ratio of two means: biased by about 1/2000
    assert (pi - best).abs().max() > 0.1
