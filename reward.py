r"""reward.py - is the final answer of a response correct? A yes or no that text cannot cheat, hang or crash.

    grade(response, truth) -> Grade(correct, reason, answer)        same_answer(answer, truth) -> bool
    grade_all(responses, truths) -> [Grade, ...]

A ladder; each rung is cheap, and decides what it can:
    1 extract    the text after the last </think>, in it the last \boxed{...} with balanced braces   reward.py
    2 strings    equal as they stand, as whole numbers, or after cleaning                            answer/spelling.py
    3 read       both become small trees, to the last character, or the answer is unreadable         answer/grammar.py
    4 structure  units, lists, tuples, intervals, matrices, equations: item by item                  answer/equality.py
    5 numbers    exact fractions; other expressions at several points, guarded                       answer/values.py
    6 algebra    sympy, for sums and integrals whose values agree and want a proof, in a process one can kill

Text is never evaluated. Rungs 1 to 5 are bounded by construction (length, depth, magnitude, number of steps), in any
thread. A wrong yes teaches the model to cheat, a wrong no only wastes a sample: what stays undecided is not correct.
"""

import atexit
import contextlib
import os
import pickle
import queue
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from multiprocessing.connection import wait

from minidrpo.grader import equality, values
from minidrpo.grader.grammar import read_all
from minidrpo.grader.spelling import Unreadable, clean, squash
from minidrpo.grader.values import Budget, Undecided
from minidrpo.records import Grade, GradedResponse

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

MAX_CHARS = 2000  # of an answer; the longest gold of the usual benchmarks has 171
TIME_LIMIT = 1.0  # seconds one answer may spend in sympy
START_LIMIT = 30.0  # seconds a sympy process may take to start, once
PROVERS = 2  # sympy processes at most
MEMORY_LIMIT = 1 << 30  # bytes of address space of a sympy process


# ---------------------------------------------------------------------------------------------------------- extraction
_BRACE = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def last_boxed(text):
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


def extract(response, think="last", require_think=True):
    """(answer, None) or (None, reason). think="last" looks behind the last </think>; "official" between the first and
    the second, as the DeepScaleR grader of the official DRPO code does."""
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
def understand(truth):
    """(cleaned string, readings) of a truth, kept: G responses are compared with each."""
    text = clean(truth)
    try:
        return squash(text), read_all(text, trusted=True)
    except Unreadable:
        return squash(text), None


def judge(answer, truth, prove):
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
    except Unreadable:
        return "unreadable"
    except RecursionError:  # trees are shallow: the caller's own stack was nearly full
        return "undecided"


def read_and_compare(answer, truth, prove):
    text, (gold_text, gold_readings) = clean(answer), understand(truth)
    short = squash(text)
    if short and (short == gold_text or len(short) > 2 and short.isalpha() and short.lower() == gold_text.lower()):
        return "correct"
    if not gold_readings:
        return "unreadable"
    return compare(gold_readings, read_all(text), Budget(prove))


def compare(gold_readings, pred_readings, budget):
    """Correct if any reading of the one equals any reading of the other; units must agree where both have them."""
    reason = "wrong"
    for gold, gold_unit in gold_readings:
        for pred, pred_unit in pred_readings:
            if gold_unit and pred_unit and gold_unit != pred_unit:
                continue
            try:
                if equality.same(gold, pred, budget):
                    return "correct"
            except Undecided as stopped:
                reason = stopped.args[0]
    return reason


def truth_strings(truth):
    r"""A truth as a list of texts: str, int, float, or a list of alternatives; a \boxed{} in it is opened."""
    if hasattr(truth, "tolist"):  # numpy
        truth = truth.tolist()
    if isinstance(truth, (list, tuple)):
        return [text for item in truth for text in truth_strings(item)]
    text = repr(truth) if isinstance(truth, float) else str(truth)
    return [last_boxed(text) or text]


def grade_answer(answer, truth, prove):
    reason = "wrong"
    for text in truth_strings(truth):
        reason = judge(answer, text, prove)
        if reason == "correct":
            break
    return Grade(reason == "correct", reason, answer)


def same_answer(answer, truth, *, time_limit=TIME_LIMIT):
    """Is an answer (without its box) equal to the truth (str, int, float), or to one of a list of truths?"""
    return grade_answer(str(answer), truth, lambda gold, pred: prove(gold, pred, time_limit)).correct


def grade(response, truth, *, think="last", require_think=True, time_limit=TIME_LIMIT):
    """The Grade of a whole response: reason is a key of REASONS, answer the text of the box or None."""
    answer, reason = extract(response, think, require_think)
    if answer is None:
        return Grade(False, reason, None)
    return grade_answer(answer, truth, lambda gold, pred: prove(gold, pred, time_limit))


def grade_all(responses, truths, *, think="last", require_think=True, time_limit=TIME_LIMIT):
    """One Grade a response, in order. The few that need sympy wait for it side by side at the end."""
    if len(responses) != len(truths):
        raise ValueError(f"grade_all: {len(responses)} responses but {len(truths)} truths")

    def one(response, truth, later=False):
        answer, reason = extract(response, think, require_think)
        if answer is None:
            return Grade(False, reason, None)
        return grade_answer(answer, truth, _later if later else lambda gold, pred: prove(gold, pred, time_limit))

    grades = []
    for response, truth in zip(responses, truths, strict=True):
        try:
            grades.append(one(response, truth, later=True))
        except _Later:
            grades.append(None)
    hard = [i for i, grade in enumerate(grades) if grade is None]
    if hard:
        with ThreadPoolExecutor(PROVERS) as pool:
            for i, grade in zip(hard, pool.map(lambda i: one(responses[i], truths[i]), hard), strict=True):
                grades[i] = grade
    return grades


def grade_rollouts(problems, rollouts, texts, **settings) -> list[GradedResponse]:
    """The graded responses to P problems, in prompt order: N = P*n rollouts and their texts. settings: grade_all's."""
    n = len(rollouts) // len(problems) if problems else 1
    owners = [problem for problem in problems for _ in range(n)]
    grades = grade_all(texts, [problem.truth for problem in owners], **settings)
    rows = zip(owners, rollouts, texts, grades, strict=True)
    return [GradedResponse.of(p, i % n, r, text, grade) for i, (p, r, text, grade) in enumerate(rows)]


class _Later(Exception):
    """This answer needs sympy."""


def _later(gold, pred):
    raise _Later


# ----------------------------------------------------------------------------------------------------- sympy processes
class Prover:
    """A child process that runs values.prove, started when first needed and again whenever it was killed. A plain
    subprocess, not multiprocessing: it never imports __main__, so scripts, notebooks, torchrun ranks, `python -c` and
    daemonic data-loader workers can all have one."""

    process = None

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--prover"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if self.hear(START_LIMIT) != b"R":
            raise BrokenPipeError("the sympy process did not start")

    def hear(self, seconds):
        """One byte, or b"" when the time is up or the process is gone."""
        pipe = self.process.stdout
        return os.read(pipe.fileno(), 1) if wait([pipe], seconds) else b""

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.close()

    def close(self):
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        self.process = None

    def prove(self, gold, pred, seconds):
        try:
            if self.process is None or self.process.poll() is not None:
                self.stop()
                self.start()
            self.process.stdin.write(pickle.dumps((seconds, gold, pred)))
            self.process.stdin.flush()
            verdict = self.hear(seconds)
        except OSError:
            verdict = b""
        except BaseException:  # Ctrl-C: leave no process behind, and no half-read pipe
            self.stop()
            raise
        if verdict not in (b"0", b"1"):
            self.stop()
            raise Undecided("timeout")
        return verdict == b"1"


_idle = queue.LifoQueue()
for _ in range(PROVERS):
    _idle.put(Prover())


def _after_fork():
    """A forked child closes its parent's pipes, which would keep those processes alive, and starts afresh."""
    global _idle
    provers, _idle = list(_idle.queue), queue.LifoQueue()
    for prover in provers:
        if prover.process:
            prover.close()
    for _ in range(PROVERS):
        _idle.put(Prover())


atexit.register(lambda: [prover.stop() for prover in list(_idle.queue)])
os.register_at_fork(after_in_child=_after_fork)


def prove(gold, pred, seconds):
    """values.prove in another process: True, False, or Undecided("timeout")."""
    idle = _idle
    prover = idle.get()
    try:
        return prover.prove(gold, pred, seconds)
    finally:
        idle.put(prover)


def serve(stdin, stdout):
    """The child: trees in, one byte out. It outlives neither its parent (end of file) nor its memory limit nor an
    answer's time: the kernel's alarm ends it even inside one long multiplication."""
    import resource
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent deals with it
    with contextlib.suppress(ValueError, OSError):  # not every system can limit address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    import sympy  # noqa: F401  (the slow part of a start)

    os.write(stdout, b"R")
    with contextlib.suppress(EOFError):
        while True:
            seconds, gold, pred = pickle.load(stdin)
            signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
            try:
                verdict = b"1" if values.prove(gold, pred) else b"0"
            except Exception:  # whatever sympy raises, there is no proof; a real bug shows as "timeout" in the log
                verdict = b"?"
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.write(stdout, verdict)


if __name__ == "__main__" and sys.argv[1:] == ["--prover"]:
    serve(sys.stdin.buffer, sys.stdout.fileno())
