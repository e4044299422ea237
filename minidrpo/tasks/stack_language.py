"""stack_language.py - a tiny stack language and its interpreter. It can compute with bounded integers, nothing else.

A program is a line of words, done from left to right: `a b 2 - max` is max(a, b - 2). `a`, `b`, `c` push the inputs, a
whole number pushes itself; all other words (WORDS) take numbers from the stack and put their result there. At the end
exactly one number must be left, the program's value.

There are no loops, jumps, names or definitions, so a program of n words takes n steps. Everything is bounded before it
is used: characters, words, digits, the size of a number and the height of the stack. No word reaches Python.
"""

import re

INPUTS = ("a", "b", "c")
MAX_CHARS, MAX_WORDS, MAX_HEIGHT, MAX_NUMBER = 2000, 200, 50, 10**9

WORDS = {  # word: (numbers it takes, the function from them to the numbers it puts back)
    "+": (2, lambda x, y: (x + y,)),
    "-": (2, lambda x, y: (x - y,)),
    "*": (2, lambda x, y: (x * y,)),
    "max": (2, lambda x, y: (max(x, y),)),
    "min": (2, lambda x, y: (min(x, y),)),
    "neg": (1, lambda x: (-x,)),
    "abs": (1, lambda x: (abs(x),)),
    "dup": (1, lambda x: (x, x)),
    "drop": (1, lambda x: ()),
    "swap": (2, lambda x, y: (y, x)),
    "over": (2, lambda x, y: (x, y, x)),
}
_NUMBER = re.compile(r"-?[0-9]{1,9}")


class Bug(Exception):
    """The program cannot be run to its end: what is wrong, and at which word."""


class ParseError(Bug):
    """It is no program: empty, too long, or with a word that the language does not have."""


class RunTimeError(Bug):
    """It stopped at a word: too few numbers, too many, one too large; or it did not end with one number."""


Program = list[int | str]


def parse(text: str) -> Program:
    """The words of a program, numbers as int. ParseError if it is none."""
    if len(text) > MAX_CHARS:  # before anything is done with each character
        raise ParseError(f"{len(text)} characters are more than {MAX_CHARS}")
    words = text.split()
    if not 0 < len(words) <= MAX_WORDS:
        raise ParseError(f"{len(words)} words, want 1 to {MAX_WORDS}")
    program = []
    for word in words:
        if word in WORDS or word in INPUTS:
            program.append(word)
        elif _NUMBER.fullmatch(word):
            program.append(int(word))
        else:
            raise ParseError(f"unknown word {word[:20]!r}")
    return program


def run(program: Program, inputs: tuple[int, ...]) -> int:
    """The value of a parsed program for the inputs a, b, c. RunTimeError where it cannot go on."""
    stack, given = [], dict(zip(INPUTS, inputs, strict=True))
    for i, word in enumerate(program, start=1):
        if isinstance(word, int):
            stack.append(word)
        elif word in given:
            stack.append(given[word])
        else:
            takes, function = WORDS[word]
            if len(stack) < takes:
                raise RunTimeError(f"word {i}, {word}: needs {takes} numbers, the stack holds {len(stack)}")
            stack[-takes:] = function(*stack[-takes:])
            if stack and abs(stack[-1]) > MAX_NUMBER:  # what a word computes is on top
                raise RunTimeError(f"word {i}, {word}: a number larger than {MAX_NUMBER}")
        if len(stack) > MAX_HEIGHT:
            raise RunTimeError(f"word {i}: more than {MAX_HEIGHT} numbers on the stack")
    if len(stack) != 1:
        raise RunTimeError(f"at the end the stack holds {len(stack)} numbers, want 1")
    return stack[0]
