"""claims.py - how a lesson states a claim: words, what was measured, what is claimed, and a false version that fails.

    claim("k3 is unbiased", measured=mean / kl, relation="=", claimed=1, within=1e-9)
    claim("DRPO is shorter than DisCO, in each seed", drpo / disco, "<", 0.8, false=disco / disco_again)

`false` is the same measurement of something for which the claim is not true: another formula, the mechanism taken away,
the control runs. It shows that the check can fail, each time the lesson runs. tests/test_claims.py also changes every
claimed number and relation of every notebook, and the check must fail.
"""

import math

RELATIONS = ("=", "<", ">")


def claim(words, measured, relation, claimed, within=None, false=None):
    """Print a claim and check it. AssertionError if it does not hold, or if its false version does, too.

    measured, false: a number, or several that must all satisfy it, such as one per seed. within: how far "=" may be.
    ValueError for a claim that could not fail: an inequality, or a 0, without `false`; a tolerance wider than a fifth.
    """
    if relation not in RELATIONS or (relation == "=") == (within is None):
        raise ValueError(f"{words}: say =, < or >, and `within` for = alone")
    if false is None and (relation != "=" or claimed == 0 or not within <= abs(claimed) / 5):
        raise ValueError(f"{words}: a check that can hardly fail; measure a `false` version, too")
    numbers = flat(measured)
    ways = f"{relation} {claimed:.4g}" + (f" ± {within:.2g}" if within else "")
    assert holds(numbers, relation, claimed, within), f"{words}: measured {shown(numbers)}, claimed {ways}"
    line = f"holds: {words}. Measured {shown(numbers)}, claimed {ways}"
    if false is not None:
        others = flat(false)
        assert not holds(others, relation, claimed, within), (
            f"{words}: holds for the false version, too: {shown(others)}"
        )
        line += f"; the false version has {shown(others)}"
    print(line)


def holds(numbers, relation, claimed, within=None):
    """Whether all numbers satisfy the relation; NaN never does. ValueError for no numbers at all."""
    if not numbers:
        raise ValueError("nothing was measured")
    if relation == "=":
        return all(abs(number - claimed) <= within for number in numbers)
    return all(number < claimed if relation == "<" else number > claimed for number in numbers)


def flat(value):
    """A list of floats: of a number, a tensor, an array, a series, or nested lists of them."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [x for part in value for x in flat(part)] if isinstance(value, list | tuple) else [float(value)]


def shown(numbers):
    """Up to six numbers, or the smallest and the largest."""
    if len(numbers) > 6:
        return f"{rounded(min(numbers))} to {rounded(max(numbers))} ({len(numbers)} numbers)"
    return ", ".join(map(rounded, numbers))


def rounded(number):
    return "0" if abs(number) < 1e-12 else f"{number:.3g}" if math.isfinite(number) else str(number)
