"""knights.py - the built-in task of knights and knaves: who always tells the truth, who always lies? No model.

Each of 2 to 8 people is a knight (tells the truth) or a knave (lies) and makes one statement; exactly one assignment of
the roles fits all statements, which a truth table over all 2^n assignments shows. DRPO's second domain is such puzzles
(arXiv 2510.04474v2, Figure 5). **The paper states neither its generator nor its prompt nor its grading: what is here is
our reading**, the form of the public data (K-and-K/knights-and-knaves) with the answer form of Logic-RL
(arXiv 2502.14768). Those files can be trained on directly: `from_public` reads their rows.

Level n has n people. The hash of a puzzle's logic (its statements without names and wording) decides which split it
belongs to, so a test puzzle is not a training puzzle with other names.
"""

import functools
import random
import re

from minidrpo.records import Grade
from minidrpo.tasks.arithmetic import split_of
from minidrpo.tasks.distinct import distinct

SCORES = ("format", "people_right")
REWARDS = ("format", "correct")
SIZES = {"train": 7_000, "test": 700}
FEWEST, MOST = 2, 8  # people
MAX_PROBLEMS = 20_000

# ---------------------------------------------------------------------------------------------------------- the logic

# A statement is a claim (person, True for knight) or two claims and what is between them: (connective, left, right)
CONNECTIVES = {  # name: (its truth as a function of two truth tables and the full one, how it is said)
    "and": (lambda a, b, full: a & b, "{} and {}"),
    "or": (lambda a, b, full: a | b, "{} or {}"),
    "if": (lambda a, b, full: a ^ full | b, "if {} then {}"),
    "iff": (lambda a, b, full: a ^ b ^ full, "{} if and only if {}"),
}


@functools.cache
def tables(n: int) -> tuple[int, list[int]]:
    """(all ones, [a truth table per person]): bit a of person i's is 1 if i is a knight in assignment a, for all 2^n
    assignments; bit i of a says so."""
    return (1 << 2**n) - 1, [sum(1 << a for a in range(2**n) if a >> i & 1) for i in range(n)]


def table_of(statement, n: int) -> int:
    """The assignments, as bits, in which the statement is true."""
    full, knight = tables(n)
    if len(statement) == 2:
        person, is_knight = statement
        return knight[person] if is_knight else knight[person] ^ full
    connective, left, right = statement
    return CONNECTIVES[connective][0](table_of(left, n), table_of(right, n), full)


def solutions(statements: list) -> int:
    """The assignments, as bits, that fit: person i is a knight exactly where statement i is true."""
    n = len(statements)
    fits, knight = tables(n)
    for i, statement in enumerate(statements):
        fits &= ~(knight[i] ^ table_of(statement, n))
    return fits


def drawn(n: int, rng: random.Random) -> tuple[list, list[bool]]:
    """(statements, solution: a list of who is a knight) of a random puzzle for n people with exactly one solution."""
    while True:
        statements = [statement(i, n, rng) for i in range(n)]
        fits = solutions(statements)
        if fits.bit_count() == 1:
            assignment = fits.bit_length() - 1
            return statements, [bool(assignment >> i & 1) for i in range(n)]


def statement(speaker: int, n: int, rng: random.Random):
    """A random statement: of one claim about somebody else, or of two about different people."""
    if rng.random() < 0.3:
        return rng.choice([i for i in range(n) if i != speaker]), rng.random() < 0.5
    left, right = rng.sample(range(n), 2)
    return rng.choice(list(CONNECTIVES)), (left, rng.random() < 0.5), (right, rng.random() < 0.5)


# ------------------------------------------------------------------------------------------------------------ the words

NAMES = """Abigail Aiden Alexander Amelia Aria Asher Ava Benjamin Charlotte Daniel David Elizabeth Ella Emily Emma
Ethan Evelyn Grace Harper Henry Isabella Jack Jackson Jacob James Joseph Liam Lily Logan Lucas Luke Mason Matthew Mia
Michael Noah Olivia Owen Penelope Riley Samuel Scarlett Sebastian Sofia Sophia Theodore Victoria William Zoey""".split()
SAYINGS = ['{} said, "{}."', '{} stated: "{}."', "{} told you that {}.", "According to {}, {}.", '"{1}," claimed {0}.']
INSTRUCTION = (
    "Think inside <think> </think>, then answer inside <answer> </answer>. List the identity of each person one by "
    "one, for example:\n<answer>\n(1) Zoey is a knight\n(2) Oliver is a knave\n</answer>"
)


def said(statement, names: list[str]) -> str:
    """The statement in words."""
    if len(statement) == 2:
        person, is_knight = statement
        return f"{names[person]} is a {'knight' if is_knight else 'knave'}"
    connective, left, right = statement
    return CONNECTIVES[connective][1].format(said(left, names), said(right, names))


def quiz_of(statements: list, names: list[str], rng: random.Random) -> str:
    """The puzzle in the words of the public data, without an instruction."""
    people = ", ".join(names[:-1]) + f", and {names[-1]}"
    lines = [rng.choice(SAYINGS).format(name, said(s, names)) for name, s in zip(names, statements, strict=True)]
    return (
        "A very special island is inhabited only by knights and knaves. Knights always tell the truth, and knaves "
        f"always lie. You meet {len(names)} inhabitants: {people}. {' '.join(lines)} "
        "So who is a knight and who is a knave?"
    )


def prompt_of(quiz: str) -> str:
    """What the model is asked: the puzzle and how to answer it."""
    return f"{quiz} {INSTRUCTION}"


def truth_of(names: list[str], solution: list[bool]) -> str:
    """The identities, one a line: `(1) Zoey is a knight`."""
    pairs = zip(names, solution, strict=True)
    return "\n".join(f"({i}) {name} is a {'knight' if k else 'knave'}" for i, (name, k) in enumerate(pairs, 1))


def problems(n: int, *, split: str, seed: int = 0) -> list[tuple[str, str, int]]:
    """n distinct problems of one split as (text, truth, number of people), 2 to 8 people in turn; a pure function of
    its arguments. A longer list begins with the shorter one of the same seed."""

    def draw(i, rng):
        people = FEWEST + i % (MOST - FEWEST + 1)
        statements, solution = drawn(people, rng)
        names = rng.sample(NAMES, people)
        text = prompt_of(quiz_of(statements, names, rng))
        return text, lambda: split_of(repr(statements)) == split and (truth_of(names, solution), people)

    return distinct("knights", n, draw, split=split, seed=seed, most=MAX_PROBLEMS)


PUBLIC = {"quiz", "names", "solution"}  # columns of the public files


def from_public(row: dict) -> dict:
    """A row of the public files as one of ours. ValueError, saying why, for one that is none."""
    if not row.keys() >= PUBLIC or not isinstance(row["quiz"], str):
        raise ValueError(f"want the columns {', '.join(sorted(PUBLIC))}")
    names, solution = row["names"], row["solution"]
    if not all(isinstance(value, list) for value in (names, solution)) or len(names) != len(solution):
        raise ValueError("want a list of names and, as long, one of the solution")
    if not all(isinstance(name, str) for name in names) or not all(isinstance(knight, bool) for knight in solution):
        raise ValueError("want names as texts, and true (a knight) or false in the solution")
    return {"problem": prompt_of(row["quiz"]), "answer": truth_of(names, solution), "grader": "knights"}


# ---------------------------------------------------------------------------------------------------------- the grader

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
IDENTITY = re.compile(r"(\w[\w'-]*) is an? (knight|knave)", re.IGNORECASE)
BETWEEN = re.compile(r"[\n,;]|\band\b|\.(?=\s|$)")
NUMBER = re.compile(r"^[-*\s]*(?:\(?\d{1,3}\)|\d{1,3}\.)?", re.MULTILINE)
MAX_CHARS = 2000  # of an answer; the longest truth has about 200


def identities(text: str) -> dict[str, bool]:
    """{name: is a knight} of `(1) Zoey is a knight`, one a line or between commas. ValueError for a word too many, or a
    name that is there twice: an answer may not hedge."""
    if len(text) > MAX_CHARS:
        raise ValueError(f"{len(text)} characters are no list of identities")
    found = {}
    for part in BETWEEN.split(NUMBER.sub("", text.replace("*", ""))):  # Markdown's bold, and its bullets
        part = NUMBER.sub("", part).strip(" \t.")
        if part:
            match = IDENTITY.fullmatch(part)
            if not match or match[1] in found:
                raise ValueError(f"no identity, or one that is there twice: {part[:80]!r}")
            found[match[1]] = match[2].lower() == "knight"
    return found


def read_truth(truth: str) -> dict[str, bool]:
    """The identities of a truth. ValueError for a text that is none."""
    found = identities(truth)
    if not found:
        raise ValueError(f"no identities in the truth {truth[:80]!r}")
    return found


def grade(response: str, truth: str) -> Grade:
    """Correct: the four tags once each and in their order, and between the last two everybody's identity, in any order.
    The answer is that list, sorted by name."""
    places = [response.find(tag) for tag in TAGS]
    form = all(response.count(tag) == 1 for tag in TAGS) and places == sorted(places)
    wanted, scores = read_truth(truth), {"format": float(form), "people_right": 0.0}
    _, opening, text = response.rpartition("<answer>")
    if not opening or "</answer>" not in text:
        return Grade(False, "no_answer", None, scores)
    try:
        found = identities(text.partition("</answer>")[0])
    except ValueError:
        return Grade(False, "unreadable", None, scores)
    answer = ", ".join(f"{name} {'knight' if found[name] else 'knave'}" for name in sorted(found)) or None
    scores["people_right"] = sum(found.get(name) == k for name, k in wanted.items()) / len(wanted)
    if not form:
        return Grade(False, "format", answer, scores)
    return Grade(found == wanted, "correct" if found == wanted else "wrong", answer, scores)
