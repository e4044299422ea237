"""thinking.py - the task of the thinking world: chains of 1 to 5 operations, easy (one) or hard (more). No torch.

Level L (1 to 5) is a chain of L operations of arithmetic.py, such as `17+5-8=?` at level 2. arithmetic.py draws the
chains, computes the truths and splits them by the hash of the text; here is only which levels a set of problems holds:

* balanced (easy_share=None, the held-out set): all levels equally often, no problem twice;
* for training, a share `easy_share` of level 1 ("easy"), the rest spread evenly over the levels 2 to 5 ("hard").

There are only 1,701 problems of level 1: 1,261 in the train split, 440 in the test split. So a balanced set has at most
5 x 440 = 2,200 held-out problems, and a training set that wants more than 1,261 easy problems repeats them: it goes
through all of them in one seeded order, again and again. Hard problems never repeat.

The embedded model (minidrpo/tiny/thinking) answers in two ways; `way` says which one a response took.
"""

import random
from fractions import Fraction

from minidrpo.tasks import arithmetic

LEVELS = 5
EASY_SHARE = 0.8  # of the training problems, unless asked otherwise
LEAST_EASY, MOST_EASY = 0.5, 0.95  # what may be asked for
SHORT, LONG = "Quickly", "Step by step"  # the words with which the two ways of thinking begin


def way(response):
    """SHORT or LONG by the response's first words; None if it begins otherwise."""
    return next((words for words in (SHORT, LONG) if response.startswith(words)), None)


def is_short(response):
    """Whether a response took the short way."""
    return way(response) == SHORT


FEATURES = {"short_way": is_short}  # of a response's text, for the log


def chain(level, rng):
    """One random chain of `level` operations: (first number, [(sign, operand), ...])."""
    return arithmetic.chain(level - 1, rng)


def easy_chains(split):
    """All chains of level 1 in a split, in a fixed order."""
    found = []
    for first in range(1, arithmetic.LARGEST_FIRST + 1):
        for sign in "+-":
            for right in range(1, arithmetic.LARGEST_OPERAND + 1):
                steps = [(sign, right)]
                if 0 <= arithmetic.truth_of(first, steps) <= 99:
                    if arithmetic.split_of(arithmetic.text_of(first, steps)) == split:
                        found.append((first, steps))
    return found


def level_of(i, easy_share):
    """(level of problem i, number of easy ones before it). Among the first n there are ceil(easy_share n) easy ones."""
    if easy_share is None:
        return i % LEVELS + 1, -(-i // LEVELS)
    share = Fraction(str(easy_share))  # exact: 0.55 * 20 is more than 11 in floating point
    before, after = (-(-share.numerator * k // share.denominator) for k in (i, i + 1))  # ceil(share k)
    return (1 if after > before else 2 + (i - before) % (LEVELS - 1)), before


def problems(n, *, split, seed=0, easy_share=None):
    """n problems of one split as (text, truth, level), a pure function of the arguments; see the module docstring.

    A longer list begins with the shorter one of the same seed and share.
    """
    if split not in ("train", "test"):
        raise ValueError(f'thinking: split must be "train" or "test", got {split!r}')
    if easy_share is not None and split == "test":
        raise ValueError(
            "thinking: the held-out problems are balanced over the levels; only training has an easy share"
        )
    if easy_share is not None and not LEAST_EASY <= easy_share <= MOST_EASY:
        raise ValueError(f"thinking: the share of easy problems is {LEAST_EASY} to {MOST_EASY}, got {easy_share}")
    rng = random.Random(f"thinking {split} {seed}")  # a string seed is hashed by value, the same in every process
    easy = easy_chains(split)
    rng.shuffle(easy)
    most = LEVELS * len(easy) if easy_share is None else arithmetic.MAX_PROBLEMS
    if not 0 <= n <= most:
        raise ValueError(f"thinking: n must be between 0 and {most} for this kind of set, got {n}")
    found, seen = [], set()
    for i in range(n):
        level, easy_before = level_of(i, easy_share)
        if level == 1:
            first, steps = easy[easy_before % len(easy)]
            text = arithmetic.text_of(first, steps)
        else:
            while True:
                first, steps = chain(level, rng)
                text = arithmetic.text_of(first, steps)
                if arithmetic.split_of(text) == split and text not in seen:
                    break
            seen.add(text)
        found.append((text, arithmetic.truth_of(first, steps), level))
    return found
