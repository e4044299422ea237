"""toys.py - what several notebooks share: the look of their figures and a made-up batch. Nothing of the method."""

import matplotlib.pyplot as plt
import torch

from minidrpo.show.plots import COLOURS, GREY, INK, STYLE  # noqa: F401  the notebooks take them from here

BLUE, ORANGE, GREEN, PINK, AMBER, SKY = COLOURS


def style():
    """The project's figure style, small enough to commit: 9 inches at 80 dpi."""
    plt.rcParams.update(STYLE | {"figure.dpi": 80, "figure.constrained_layout.use": True})


def batch(seed=0, P=4, G=6, T=12, drift=0.3):
    """(logp_NT, old_logp_NT, mask_NT, correct_PG, length_PG): responses of 1 to T tokens with random log-probabilities.

    The new ones are the old ones plus `drift` times a normal number. Prompt 0 is all right, 1 all wrong, 2 is mixed.
    """
    g = torch.Generator().manual_seed(seed)
    old_NT = -3 * torch.rand(P * G, T, generator=g, dtype=torch.float64)
    logp_NT = old_NT + drift * torch.randn(P * G, T, generator=g, dtype=torch.float64)
    length_N = torch.randint(1, T + 1, (P * G,), generator=g)
    correct_PG = torch.rand(P, G, generator=g) < 0.5
    correct_PG[0], correct_PG[1], correct_PG[2, 0], correct_PG[2, 1] = True, False, True, False
    return logp_NT, old_NT, torch.arange(T) < length_N[:, None], correct_PG, length_N.view(P, G)
