"""distinct.py - the loop that built-in tasks share: problems of one split, none twice, from one seeded generator."""

import random
from collections.abc import Callable


def distinct(task: str, n: int, draw: Callable, *, split: str, seed: int, most: int) -> list[tuple]:
    """n distinct problems of one split as (text, truth, level); a pure function of its arguments. A longer list begins
    with the shorter one of the same seed. ValueError, naming the task, for an unknown split or an n above `most`.

    draw(i, rng): what may become problem i, as (text, complete); complete() is its (truth, level), or false if it does
    not belong in the split. It is called only for a text that is new.
    """
    if split not in ("train", "test"):
        raise ValueError(f'{task}: split must be "train" or "test", got {split!r}')
    if not 0 <= n <= most:
        raise ValueError(f"{task}: n must be between 0 and {most} (distinct problems), got {n}")
    rng = random.Random(f"{task} {split} {seed}")  # a string seed is hashed by value, the same in every process
    found, seen = [], set()
    while len(found) < n:
        text, complete = draw(len(found), rng)
        if text not in seen and (rest := complete()):
            seen.add(text)
            found.append((text, *rest))
    return found
