"""arithmetic.py - the built-in task: chains of + and - such as `17+5-8=?`, at five levels of difficulty.

No download, no model, no torch. Train and test are disjoint by construction: the hash of a problem's text decides which
split it belongs to, so no list has to be kept and no seed can mix them. Level L (1 to 5) is a number from 1 to 99 and
then L + 1 operations with 1 to 9, all partial results within 0..99; the levels take turns, in equal shares.
"""

import hashlib
import random

from minidrpo.tasks.distinct import distinct

Steps = list[tuple[str, int]]  # [(sign, operand), ...]

LEVELS = 5
LARGEST_FIRST, LARGEST_OPERAND = 99, 9
MAX_PROBLEMS = 20_000  # 4,000 per level: level 1 of the test split, the smallest room, holds about 6,500


def split_of(text: str) -> str:
    """ "test" for a quarter of all problem texts, "train" for the others; a pure function of the text."""
    return "test" if hashlib.sha256(text.encode()).digest()[0] < 64 else "train"


def chain(level: int, rng: random.Random) -> tuple[int, Steps]:
    """One random chain of level + 1 operations: (first number, [(sign, operand), ...]), partial results in 0..99."""
    first = total = rng.randint(1, LARGEST_FIRST)
    steps = []
    for _ in range(level + 1):
        signed = [s * b for b in range(1, LARGEST_OPERAND + 1) for s in (1, -1) if 0 <= total + s * b <= 99]
        step = rng.choice(signed)
        total += step
        steps.append(("+" if step > 0 else "-", abs(step)))
    return first, steps


def apply(left: int, sign: str, right: int) -> int:
    """left + right or left - right."""
    return left + right if sign == "+" else left - right


def text_of(first: int, steps: Steps) -> str:
    """The problem as the user types it, `17+5-8=?`."""
    return str(first) + "".join(f"{sign}{right}" for sign, right in steps) + "=?"


def truth_of(first: int, steps: Steps) -> int:
    """The exact value of the chain, an int in 0..99."""
    total = first
    for sign, right in steps:
        total = apply(total, sign, right)
    return total


def problems(n: int, *, split: str, seed: int = 0) -> list[tuple[str, int, int]]:
    """n distinct problems of one split as (text, truth, level); a pure function of its arguments.

    Level of problem i is i % LEVELS + 1. A longer list begins with the shorter one of the same seed.
    """

    def draw(i, rng):
        level = i % LEVELS + 1
        first, steps = chain(level, rng)
        text = text_of(first, steps)
        return text, lambda: split_of(text) == split and (truth_of(first, steps), level)

    return distinct("arithmetic", n, draw, split=split, seed=seed, most=MAX_PROBLEMS)
