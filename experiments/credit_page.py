"""credit_page.py - the numbers inside docs/credit.html: what this project's formulas give for random groups.

    python -m experiments.credit_page        computes them anew and writes them into the page

The page has the formulas once more, in JavaScript, so that it needs no kernel. When it is opened it computes these
groups and says whether it agrees. tests/test_credit_page.py checks that the numbers are today's, and runs the
JavaScript.
"""

import json
import math
import random
import re
import sys
from pathlib import Path

import torch

import config
from experiments import credit
from minidrpo import cli
from minidrpo.methods import table as methods

PAGE = Path(__file__).resolve().parent.parent / "docs" / "credit.html"
BLOCK = re.compile(r'(?<=<script type="application/json" id="data">).*?(?=</script>)', re.DOTALL)
CASES = 40
REST = set(methods.METHODS) - {name for _, name, _ in credit.COLUMNS}
COLUMNS = credit.COLUMNS + [(name, name, {}) for name in sorted(REST)]
SETTINGS = (
    "adv_eps alp_beta hapo_w l1_target l1_alpha sb_a sb_b laser_bonus length_limit ddca_beta gr3_alpha lead_alpha "
    "solved_mu"
).split()


def settings() -> dict:
    """What the page's formulas take from the preset r1-1.5b: the limit, and the methods' own defaults."""
    found = {"limit": config.R1_1_5B.max_response_tokens}
    for name in methods.METHODS:
        cfg = config.make("r1-1.5b", name)
        found |= {key: getattr(cfg, key) for key in SETTINGS if key in methods.METHODS[name].flags}
    return found


def random_groups(seed: int, n: int = CASES) -> list[dict]:
    """Groups of six responses as the page has them, hard corners among them: solved, unsolved, lone, equal lengths."""
    draw = random.Random(seed)
    groups = []
    for i in range(n):
        right = draw.choice([0, 1, 2, 3, 4, 5, 6, 6])
        group = {
            "length": [16 * draw.randint(1, 512) for _ in range(6)],
            "correct": draw.sample([1] * right + [0] * (6 - right), 6),
            "score": [round(-draw.random() * 2, 2) for _ in range(6)],
            "lam": draw.choice([math.inf, 10 ** draw.uniform(-2, 1)]),
            "tau": draw.choice([math.inf, 10 ** draw.uniform(-2, 2)]),
            "alpha": draw.choice([0, 0.05, 0.2, 1, 3]),
        }
        groups.append(group | {"length": [group["length"][0]] * 6} if i % 8 == 7 else group)
    return groups


def python_credit(group: dict) -> dict[str, list[float]]:
    """{column: credit of the six responses, times 6} by drpo.py and minidrpo/methods."""
    batch = methods.Batch(
        torch.tensor([group["correct"]]).bool(), torch.tensor([group["length"]]), [""] * 6, torch.tensor([0])
    )
    own = {"group_size": 6} | {key: group[key] for key in ("lam", "tau", "alpha")}
    groups = credit.Groups("", batch, torch.tensor([group["score"]]), "r1-1.5b", own)
    return {column: c.flatten().tolist() for column, c in credit.credit_table(groups, COLUMNS).items()}


def data(groups: list[dict]) -> dict:
    """What the page's script reads. Infinity is a text, as JSON has none."""
    cases = [
        {
            "group": {k: "Infinity" if v == math.inf else v for k, v in group.items()},
            "credit": {name: [float(f"{c:.7g}") for c in values] for name, values in python_credit(group).items()},
        }
        for group in groups
    ]
    return {"settings": settings(), "cases": cases}


def main(argv=None):
    cli.parse(cli.NoFlags, argv, prog="credit_page.py", description="Compute the numbers of docs/credit.html anew.")
    text = json.dumps(data(random_groups(seed=0)), separators=(",", ":"))
    PAGE.write_text(BLOCK.sub(lambda _: text, PAGE.read_text()))
    print(PAGE)


if __name__ == "__main__":
    sys.exit(main())
