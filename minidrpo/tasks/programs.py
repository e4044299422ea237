"""programs.py - the task of the programs world: write a stack program for a formula; tests decide. No torch.

The problem is a formula of the inputs a, b and c, such as `max(a,b-2)*c`; the answer is a program in the language of
stack_language.py, `a b 2 - max c *`: what follows the last </think>, or the whole response if there is none, up to a
semicolon, if there is one. A truth is one line, a reference program and its tests:

    a b 2 - max c * ; 3 5 -4 -> -12 ; ...

Only the tests decide; the reference is for the reader. Three rewards (GDPO's coding task, arXiv 2601.05242, 4.3):
    pass_rate(response, truth)      share of the tests that give the right value
    no_bug(response, truth)         1 if it can be parsed and no test stops at an error, else 0
    short and all tests pass        the method's own `conditioned_length`, since a response is correct if all tests pass

Level L (1 to 4) has L + 1 operations. All problems share their tests' inputs, and a problem is kept only if these tests
can tell its reference from every program made of it by changing one word (`changed`). So no such change passes: those
that would change nothing, as in max(a,a), are excluded with their problems. Splits are by the hash of the *values*: no
function of the test split occurs in the train split in any spelling, as far as the tests can see.
"""

import random
from functools import lru_cache

from minidrpo.records import Grade
from minidrpo.tasks.arithmetic import split_of
from minidrpo.tasks.distinct import distinct
from minidrpo.tasks.stack_language import INPUTS, MAX_CHARS, Bug, ParseError, Program, parse, run

SCORES = ("pass_rate", "no_bug")
REWARDS = ("pass_rate", "conditioned_length", "no_bug")
SIZES = {"train": 4_000, "test": 500}

LEVELS = 4
MAX_PROBLEMS = 20_000
TEST_INPUTS = (
    *((3, 8, -5), (-7, 2, 6), (9, -4, 1), (-2, -9, -6), (5, 12, 15), (-11, 4, -3), (2, -6, 10), (13, 7, 4)),
    *((1, -10, -8), (-5, 11, 14), (8, 3, -12), (-13, -1, 7), (6, 5, 20), (-3, -15, 9), (17, -8, -2), (4, 9, 2)),
)
BINARY = {"+": 4, "-": 4, "*": 2, "max": 3, "min": 3}  # operation: how often it is drawn
UNARY = {"neg": 1, "abs": 2}
NUMBERS = range(1, 10)
# ------------------------------------------------------------------------------------------------------------- grading


@lru_cache(maxsize=4096)
def read_truth(truth: str) -> tuple[str, tuple]:
    """(reference program, ((inputs, value), ...)) of a truth. ValueError where it is not in that form."""
    reference, *tests = (part.strip() for part in str(truth).split(";"))
    try:
        pairs = [test.split("->") for test in tests]
        read = tuple((tuple(map(int, inputs.split())), int(value)) for inputs, value in pairs)
    except ValueError as error:
        raise ValueError(f"not a truth of the programs task: {str(truth)[:80]!r}") from error
    if not read or any(len(inputs) != len(INPUTS) for inputs, _ in read):
        raise ValueError(f"not a truth of the programs task: it needs tests of three inputs: {str(truth)[:80]!r}")
    return reference, read


def program_of(response: str) -> str:
    """The text that is taken for the program."""
    return response.rpartition("</think>")[2].partition(";")[0].strip()


def results(text: str, truth: str) -> tuple[float, str]:
    """(share of the tests passed, reason) of a program: "correct", "wrong", "parse_error" (no program of the language)
    or "runtime_error" (it stopped at an error in one of the tests)."""
    return (0.0, "parse_error") if len(text) > MAX_CHARS else _results(text, truth)


@lru_cache(maxsize=4096)  # three rewards ask for the same response
def _results(text, truth):
    _, tests = read_truth(truth)
    passed, reason = 0, None
    try:
        program = parse(text)
    except ParseError:
        return 0.0, "parse_error"
    for inputs, value in tests:
        try:
            passed += run(program, inputs) == value
        except Bug:
            reason = "runtime_error"
    return passed / len(tests), reason or ("correct" if passed == len(tests) else "wrong")


def pass_rate(response: str, truth: str) -> float:
    """R_pass: the share of the truth's tests for which the response's program gives the right value."""
    return results(program_of(response), truth)[0]


def no_bug(response: str, truth: str) -> float:
    """R_bug: 1.0 if the response's program can be parsed and runs through all tests, right or wrong; else 0.0."""
    return float(results(program_of(response), truth)[1] in ("correct", "wrong"))


def grade(response: str, truth: str) -> Grade:
    """Correct if all tests pass. The answer is the program, None if it is none."""
    text = program_of(response)
    _, reason = results(text, truth)
    scores = {"pass_rate": pass_rate(response, truth), "no_bug": no_bug(response, truth)}
    return Grade(reason == "correct", reason, None if reason == "parse_error" else text, scores)


# ------------------------------------------------------------------------------------------------------------ problems

Tree = str | int | tuple  # an input, a number, (operation, tree) or (operation, tree, tree)


def tree(operations: int, rng: random.Random) -> Tree:
    """A random formula with so many operations; no operation has numbers alone."""
    if operations == 0:
        return rng.choice(INPUTS) if rng.random() < 0.75 else rng.choice(NUMBERS)
    (word,) = rng.choices([*BINARY, *UNARY], [*BINARY.values(), *UNARY.values()])
    if word in UNARY:
        return word, tree(operations - 1, rng) if operations > 1 else rng.choice(INPUTS)
    left = rng.randint(0, operations - 1)
    sides = tree(left, rng), tree(operations - 1 - left, rng)
    return (word, rng.choice(INPUTS), sides[1]) if all(isinstance(side, int) for side in sides) else (word, *sides)


def text_of(formula: Tree) -> str:
    """As the user reads it: `max(a,b-2)*c`, `(a-b)*c`, `abs(a)`."""
    if not isinstance(formula, tuple):
        return str(formula)
    word, *parts = formula
    if word.isalpha():
        return f"{word}({','.join(map(text_of, parts))})"
    return word.join(
        f"({text_of(part)})" if isinstance(part, tuple) and part[0] in "+-*" else text_of(part) for part in parts
    )


def program_for(formula: Tree) -> Program:
    """The reference program: operands first."""
    if not isinstance(formula, tuple):
        return [formula]
    return [word for part in formula[1:] for word in program_for(part)] + [formula[0]]


def values(program: Program) -> list[int]:
    """What a program gives for the tests' inputs."""
    return [run(program, inputs) for inputs in TEST_INPUTS]


def spelled(program: Program) -> str:
    """A program's text."""
    return " ".join(map(str, program))


def changed(program: Program):
    """All programs that differ from a reference in one word and use the stack as it does: another input or number for
    an input or number; another operation of as many operands, `drop` for one of two, nothing for one of one. All other
    exchanges of a word for an input, a number or an operation, and all deletions, end in a run-time error."""
    for i, word in enumerate(program):
        others = next(kind for kind in ((*BINARY, "drop"), UNARY, (*INPUTS, *NUMBERS)) if word in kind)
        for other in others:
            if other != word:
                yield [*program[:i], other, *program[i + 1 :]]
        if word in UNARY:
            yield program[:i] + program[i + 1 :]


def is_told_apart(program: Program, expected: list[int]) -> bool:
    """Whether each changed program fails a test; expected: the program's own values."""
    tests = list(zip(TEST_INPUTS, expected, strict=True))
    return not any(all(run(other, inputs) == value for inputs, value in tests) for other in changed(program))


def problems(n: int, *, split: str, seed: int = 0) -> list[tuple[str, str, int]]:
    """n distinct problems of one split as (text, truth, level); a pure function of its arguments.

    Level of problem i is i % LEVELS + 1. A longer list begins with the shorter one of the same seed.
    """

    def draw(i, rng):
        level = i % LEVELS + 1
        formula = tree(level + 1, rng)
        program = program_for(formula)

        def complete():
            expected = values(program)
            fits = split_of(repr(expected)) == split and is_told_apart(program, expected)
            return fits and (truth_of(program, expected), level)

        return text_of(formula), complete

    return distinct("programs", n, draw, split=split, seed=seed, most=MAX_PROBLEMS)


def truth_of(program: Program, expected: list[int]) -> str:
    """The truth's line: a reference and its tests."""
    tests = (f"{spelled(inputs)} -> {value}" for inputs, value in zip(TEST_INPUTS, expected, strict=True))
    return " ; ".join([spelled(program), *tests])
