r"""reward.py - is the final answer of a response correct? No text can make the grader hang or crash.

    grade(response, truth) -> Grade(correct, reason, answer)        same_answer(answer, truth) -> bool
    grade_all(responses, truths) -> [Grade, ...]

Three words: the *response* is all that the model wrote, the *answer* is what stands in its box, the *truth* is what
the answer is compared with. The steps below are tried in this order; each is cheap and decides what it can:
    1 extract    the text after the last </think>, in it the last \boxed{...} with balanced braces   reward.py
    2 strings    equal as they stand, as whole numbers, or after cleaning                            grader/spelling.py
    3 read       both become small trees, to the last character, or the answer is unreadable         grader/grammar.py
    4 structure  units, lists, tuples, intervals, matrices, equations: item by item                  grader/equality.py
    5 numbers    exact fractions; other expressions at several points, guarded                       grader/values.py
    6 algebra    sympy, for sums and integrals whose values agree and want a proof, in a process     grader/prover.py

Text is never evaluated. Steps 1 to 5 are bounded by construction (length, depth, magnitude, number of steps), in any
thread. A wrong yes teaches the model to cheat, a wrong no only wastes a sample: what stays undecided is not correct.
What reading leaves out (units, a modulus, a variable's name) must be able to make an answer wrong:
tests/test_reward_dropped.py.

Why our own and not math-verify? BENCHMARKS.md, "The grader": on the 762 pairs of our table math-verify 0.9.0 is right
on 83.5 % and says yes to 24 wrong answers (here none). It grades 36 of them per CPU second (here 5,000), and one takes
5 s, which is its time limit; that limit is an alarm signal, which only works in the main thread.
"""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from minidrpo.grader import equality
from minidrpo.grader.evaluate import Budget, Undecided
from minidrpo.grader.grammar import read_all
from minidrpo.grader.prover import PROVERS, prove
from minidrpo.grader.spelling import TooLong, Unreadable, clean, squash
from minidrpo.records import Grade, GradedResponse, Problem, Rollout
from minidrpo.tasks.graders import GRADERS

Truth = str | int | float | list  # a list holds alternatives, of which one is enough
Prove = Callable[[tuple, tuple], bool]

REASONS = {  # every value Grade.reason can have, for the training log
    "correct": "equal to the truth",
    "wrong": "read, compared, different",
    "no_think": "no </think>: cut off while thinking, or the model does not think aloud (require_think=False)",
    "no_box": r"no balanced \boxed{} after the thinking",
    "empty": "the box is empty",
    "too_long": "longer than any answer",
    "unreadable": "not an answer the grammar knows, and not the truth's string either",
    "undecided": "too large, too slow or nowhere defined: stopped by a guard",
    "timeout": "sympy did not prove it in time, or its process died",
}

MAX_CHARS = 2000  # of an answer; the longest truth of the usual benchmarks has 171
TIME_LIMIT = 1.0  # seconds a proof may take in sympy, counted in function calls: grader/prover.py


# ---------------------------------------------------------------------------------------------------------- extraction
_BRACE = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""The content of the last balanced \boxed{...} of a text, the outer one where boxes nest, or None. One pass."""
    start, open_braces, found = text.find("\\boxed"), [], None
    if start < 0:
        return None
    for match in _BRACE.finditer(text, start):
        if match[0] == "{":
            open_braces.append(None)
        elif match[0].startswith("\\boxed"):
            open_braces.append(match.end())
        elif match[0] == "}" and open_braces:
            begin = open_braces.pop()
            if begin is not None:  # the box that closes last is the last one, or contains it
                found = text[begin : match.start()]
    return found


def extract(response: str, think: str = "last", require_think: bool = True) -> tuple[str | None, str | None]:
    """(answer, None) or (None, reason). think="last" looks behind the last </think>; "official" between the first and
    the second, as the DeepScaleR grader of the official DRPO code does; ValueError for anything else."""
    if think not in ("last", "official"):
        raise ValueError(f'think must be "last" or "official", got {think!r}')
    parts = response.split("</think>")
    if len(parts) == 1 and require_think:
        return None, "no_think"
    boxed = last_boxed(parts[1] if think == "official" and len(parts) > 1 else parts[-1])
    if boxed is None:
        return None, "no_box"
    return (boxed.strip(), None) if boxed.strip() else (None, "empty")


# ------------------------------------------------------------------------------------------------------------- verdict
_INTEGER = re.compile(r"[+-]?[0-9]{1,400}")


@lru_cache(maxsize=512)
def understand(truth: str) -> tuple[str, list | None]:
    """(cleaned string, readings or None) of a truth, kept: G responses are compared with each."""
    text = clean(truth)
    try:
        return squash(text), read_all(text, trusted=True)
    except Unreadable:
        return squash(text), None


def judge(answer: str, truth: str, prove: Prove) -> str:
    """The reason for one answer against one truth, both text: "correct", "wrong", ..."""
    answer, truth = answer.strip(), truth.strip()
    if not answer:
        return "empty"
    if answer == truth:
        return "correct"
    if _INTEGER.fullmatch(answer) and _INTEGER.fullmatch(truth):
        return "correct" if int(answer) == int(truth) else "wrong"
    if max(len(answer), len(truth)) > MAX_CHARS:
        return "too_long"
    try:
        return read_and_compare(answer, truth, prove)
    except TooLong:
        return "too_long"
    except Unreadable:
        return "unreadable"
    except RecursionError:  # trees are shallow: the caller's own stack was nearly full
        return "undecided"


def read_and_compare(answer: str, truth: str, prove: Prove) -> str:
    """The reason where strings did not decide; Unreadable where the answer is no notation that the grammar knows."""
    text, (truth_text, truth_readings) = clean(answer), understand(truth)
    short = squash(text)
    if short and (short == truth_text or len(short) > 3 and short.isalpha() and short.lower() == truth_text.lower()):
        return "correct"  # a word in capital letters; abc and ABC are variables
    if not truth_readings:
        return "unreadable"
    reason, budget = "wrong", Budget(prove)
    for truth_tree, truth_unit in truth_readings:  # correct if any reading of the one equals any of the other
        for tree, unit in read_all(text):
            if truth_unit and unit and truth_unit != unit:
                continue
            try:
                if equality.same(truth_tree, tree, budget):
                    return "correct"
            except Undecided as stopped:
                reason = stopped.args[0]
                if reason == "timeout":  # once per answer: the other readings would take as long
                    return reason
    return reason


def truth_strings(truth: Truth) -> list[str]:
    r"""A truth as a list of texts; a \boxed{} in one is opened."""
    if hasattr(truth, "tolist"):  # numpy
        truth = truth.tolist()
    if truth is None or isinstance(truth, bool):  # no truth, so no answer is right; not even the text "None"
        return []
    if isinstance(truth, (list, tuple)):
        return [text for item in truth for text in truth_strings(item)]
    text = repr(truth) if isinstance(truth, float) else str(truth)
    return [last_boxed(text) or text]


def grade_answer(answer: str, truth: Truth, prove: Prove) -> Grade:
    """The Grade of the text of a box. `prove` decides for two trees whether sympy can show that they are equal."""
    reason = "wrong"
    for text in truth_strings(truth):
        reason = judge(answer, text, prove)
        if reason == "correct":
            break
    return Grade(reason == "correct", reason, answer)


def grade_with(response: str, truth: Truth, think: str, require_think: bool, prove: Prove) -> Grade:
    """The Grade of a whole response; `prove` as in `grade_answer`, the rest as in `grade`."""
    answer, reason = extract(response, think, require_think)
    return Grade(False, reason, None) if answer is None else grade_answer(answer, truth, prove)


def within(seconds: float) -> Prove:
    """sympy's proof, given up after so many seconds."""
    return lambda truth, answer: prove(truth, answer, seconds)


def same_answer(answer: str, truth: Truth, *, time_limit: float = TIME_LIMIT) -> bool:
    """Is an answer (without its box) equal to the truth, or to one of several? time_limit: seconds in sympy."""
    return grade_answer(str(answer), truth, within(time_limit)).correct


def grade(
    response: str, truth: Truth, *, think: str = "last", require_think: bool = True, time_limit: float = TIME_LIMIT
) -> Grade:
    """The Grade of a whole response. think: see extract; ValueError if unknown. time_limit: seconds in sympy."""
    return grade_with(response, truth, think, require_think, within(time_limit))


def grade_all(
    responses: Sequence[str],
    truths: Sequence[Truth],
    *,
    think: str = "last",
    require_think: bool = True,
    time_limit: float = TIME_LIMIT,
    graders: Sequence[str] = (),
) -> list[Grade]:
    """One Grade per response, in order; ValueError if the lists differ in length. time_limit: seconds per answer in
    sympy. The few that need sympy are graded last, side by side. graders: who grades each, as in Problem.grader; none:
    the boxed answer."""
    if len(responses) != len(truths) or len(graders) not in (0, len(truths)):
        raise ValueError(f"grade_all: {len(responses)} responses but {len(truths)} truths, {len(graders)} graders")
    pairs = list(zip(responses, truths, strict=True))
    grades = []
    for (response, truth), grader in zip(pairs, graders or [""] * len(pairs), strict=True):
        try:
            own = GRADERS[grader].grade if grader else None
            grades.append(own(response, truth) if own else grade_with(response, truth, think, require_think, _later))
        except _Later:
            grades.append(None)
    hard = [i for i, grade in enumerate(grades) if grade is None]
    if hard:
        with ThreadPoolExecutor(PROVERS) as pool:
            again = pool.map(lambda i: grade_with(*pairs[i], think, require_think, within(time_limit)), hard)
            for i, grade in zip(hard, again, strict=True):
                grades[i] = grade
    return grades


def grade_rollouts(
    problems: Sequence[Problem], rollouts: Sequence[Rollout], texts: Sequence[str], opened: bool = False, **settings
) -> list[GradedResponse]:
    """The graded responses to P problems, in prompt order: N = P*n rollouts and their texts. opened: the prompts end in
    <think>, which the texts then lack and graders want to see. settings: grade_all's."""
    n = len(rollouts) // len(problems) if problems else 1
    owners = [problem for problem in problems for _ in range(n)]
    whole = ["<think>" + text for text in texts] if opened else texts
    truths, graders = [problem.truth for problem in owners], [problem.grader for problem in owners]
    grades = grade_all(whole, truths, graders=graders, **settings)
    rows = zip(owners, rollouts, texts, grades, strict=True)
    return [GradedResponse.of(p, i % n, r, text, grade) for i, (p, r, text, grade) in enumerate(rows)]


class _Later(Exception):
    """This answer needs sympy."""


def _later(truth, answer):
    raise _Later
