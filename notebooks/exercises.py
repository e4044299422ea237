"""exercises.py - `check("2b", answer)` marks exercise b of lesson 2; `check("2b", hint=1)` gives a hint, on demand.

A first try that fails says "not yet", and what is right about it if it is near. It does not give a hint away, and does
not name a bug that the exercise asks to find. Answers are compared with the project's own functions or with numbers
worked out apart, never by their text, so any way of writing them will do.

How to add exercise 4d. Nothing in this file changes.

1. lessons/ex4.py        @exercise("4d", hints=["...", "..."]) before a function that takes the answer and returns None
                         if it is right, else a sentence: what is right about it, or what follows from the error.
2. the notebook          a text with **4d (compute).**, (implement) or (experiment), then a cell tagged `exercise` that
                         calls check("4d", ...). With three dots for an answer it prints "4d: not solved yet."
3. teacher/lesson4.md    "## 4d (3 marks)", the reasoning, and a block of Python that ends in check("4d", solution).
4. teacher/mistakes4.py  MISTAKES["4d"]: a near miss with what must be said about it, other wrong answers, and for a
                         seeded bug the words that would name it.

tests/test_exercises.py holds the four together.
"""

import importlib
import math

import torch

CHECKS = {}  # name -> (check, hints), filled as lessons are imported


class Unsolved(Exception):
    """The student's function still returns nothing."""


class Say(Exception):
    """Something to tell the student; raised where a check calls the student's function."""


class Unfinished(Exception):
    """A gap that the cells below need. Jupyter shows its one line, no traceback."""

    def _render_traceback_(self):
        return [str(self)]


def exercise(name, hints):
    """Register a check: a function from an answer to None, if it is right, or to a sentence about it."""

    def register(function):
        CHECKS[name] = function, list(hints)
        return function

    return register


def find(name):
    """(check, hints) of an exercise. ValueError for a name that is none."""
    try:
        importlib.import_module(f"lessons.ex{name[:1]}")
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("lessons"):
            raise
    if name not in CHECKS:
        known = ", ".join(sorted(other for other in CHECKS if other[0] == name[:1])) or "no exercises"
        raise ValueError(f"there is no exercise {name!r}; lesson {name[:1]} has {known}")
    return CHECKS[name]


def verdict(name, answer):
    """(solved, what to print). An error in the student's code is told, not raised: the notebook runs to its end."""
    function, hints = find(name)
    try:
        words = "unsolved" if unsolved(answer) else function(answer)
    except Unsolved:
        words = "unsolved"
    except Say as error:
        words = str(error)
    except (ZeroDivisionError, OverflowError):
        words = "a division by zero, or a number that is too large"
    except Exception as error:
        words = f"your code stops with {type(error).__name__}: {error}"
    if words is None:
        return True, f"{name}: right."
    if words == "unsolved":
        return False, f"{name}: not solved yet."
    return False, f'{name}: not yet. {words[0].upper()}{words[1:]} (Stuck? check("{name}", hint=1))'


def check(name, answer=..., hint=None, needed=False):
    """Print the verdict on an answer, or the hint of this number. `needed`: raise if it is wrong."""
    if hint is not None:
        hints = find(name)[1]
        one = isinstance(hint, int) and 1 <= hint <= len(hints)
        print(f"{name}, hint {hint} of {len(hints)}: {hints[hint - 1]}" if one else f"{name} has {len(hints)} hints.")
        return
    solved, words = verdict(name, answer)
    if needed and not solved:
        raise Unfinished(f"{words} The cells below need it.")
    print(words)


# --------------------------------------------------------------------------------------------- what the checks share


def unsolved(answer):
    """None, three dots, or a tuple or list with one of them inside."""
    if isinstance(answer, tuple | list):
        return any(unsolved(part) for part in answer)
    return answer is None or answer is Ellipsis


def call(function, *args, shape=None):
    """What the student's function returns; with `shape`, a tensor of that shape. Raises Unsolved if it is nothing."""
    if not callable(function):
        raise Say("hand in the function itself, without calling it")
    value = function(*args)
    if unsolved(value):
        raise Unsolved
    if shape is not None:
        value = torch.as_tensor(value)
        if tuple(value.shape) != tuple(shape):
            raise Say(f"expected is a tensor of shape {tuple(shape)}, yours is {tuple(value.shape)}")
    return value


def near(value, target, rel=1e-3):
    """Equal to a relative error of `rel`."""
    return math.isclose(float(value), target, rel_tol=rel)


def equal(value, target):
    """Tensors of one shape, equal to 1e-6."""
    value = torch.as_tensor(value)
    return value.shape == target.shape and torch.allclose(value.double(), target.double(), rtol=1e-6, atol=1e-9)


def number(value, target, otherwise, rel=5e-3, misses=()):
    """None for the right number. Else a sentence: of a known miss (value, words), what is right, or `otherwise`."""
    if isinstance(value, str) or callable(value):
        raise Say("a number, please")
    value = float(value)
    if near(value, target, rel):
        return None
    if not math.isfinite(value):
        return "a finite number, please"
    for miss, words in misses:
        if near(value, miss, 1e-2):
            return words
    ratio = value / target if target else math.inf
    if abs(ratio - 1) < 0.1:
        return f"close: {abs(ratio - 1):.1%} off. Give three digits"
    if abs(ratio + 1) < rel:
        return "the size is right, the sign is not"
    for factor in (2, 0.5, 10, 0.1, 100, 0.01):
        if near(ratio, factor, rel):
            return f"right up to a factor: yours is {factor:g} times the answer"
    if value and near(1 / value, target, rel):
        return "that is one over the answer"
    return otherwise
