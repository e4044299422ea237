"""prover.py - sympy in child processes that can be killed: `prove(truth, answer, seconds)` for two answer trees.

No time limit works inside a process: sympy may be in one long multiplication, in any thread. So the work is done in a
child, which forks for each proof. "Seconds" are counted in function calls: the same verdict on a busy machine.

    python -m minidrpo.grader.prover      is such a child; trees come on stdin, one byte per verdict goes to stdout
"""

import atexit
import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
from fractions import Fraction
from multiprocessing.connection import wait
from pathlib import Path

from minidrpo.grader import values
from minidrpo.grader.evaluate import Undecided

START_LIMIT = 120.0  # seconds a sympy process may take to start, once
CALLS_PER_SECOND = 5_000_000  # calls and returns of functions that count as one second; here they take 0.9
NET = 4  # times the limit in processor time
WALL_NET = 60  # times the limit on the clock, and START_LIMIT: only for a process that hangs
PROVED, NOT_PROVED, GIVEN_UP = 11, 10, 12  # exit codes of a proof
_X, _ONE = ("sym", "x"), ("num", Fraction(1))
WARM_UP = [
    ("big", "int", "x", ("num", Fraction(0)), ("const", "oo"), ("call", "exp", ("mul", ("num", Fraction(-1)), _X))),
    ("big", "sum", "x", _ONE, ("const", "oo"), ("div", _ONE, ("pow", _X, ("num", Fraction(2))))),
    ("big", "prod", "x", _ONE, ("num", Fraction(3)), _X),
]
PROVERS = 2  # sympy processes at most
MEMORY_LIMIT = 1 << 30  # bytes of address space of a sympy process
HOME = str(Path(__file__).resolve().parents[2])  # the folder of the package: a checkout or site-packages


class Prover:
    """A child process that runs values.prove, started when first needed and again whenever it was killed. A plain
    subprocess, not multiprocessing: it never imports __main__, so scripts, notebooks, torchrun ranks, `python -c` and
    daemonic data-loader workers can all have one."""

    process = None

    def start(self):
        """The child imports what its parent would import, from wherever it was started; -P: nothing from the folder
        that it happens to stand in."""
        path = [path or HOME for path in sys.path if path or HOME not in sys.path] + [HOME]  # "" is where it stood
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "minidrpo.grader.prover"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONHASHSEED": "0"},  # equal calls, equal order
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

    def prove(self, truth, answer, seconds):
        """Pickle carries our own trees to our own child, through a pipe that nobody else holds."""
        try:
            if self.process is None or self.process.poll() is not None:
                self.stop()
                self.start()
            self.process.stdin.write(pickle.dumps((seconds, truth, answer)))
            self.process.stdin.flush()
            verdict = self.hear(START_LIMIT + WALL_NET * seconds)
        except OSError:
            verdict = b""
        except BaseException:  # Ctrl-C: leave no process behind, and no half-read pipe
            self.stop()
            raise
        if verdict not in (b"0", b"1"):
            if verdict != b"?":  # the process itself is gone, or hangs
                self.stop()
            raise Undecided("timeout")
        return verdict == b"1"


_idle = queue.LifoQueue()


def _start_afresh():
    """Also in a forked child, which closes its parent's pipes: they would keep those processes alive."""
    global _idle
    provers, _idle = list(_idle.queue), queue.LifoQueue()
    for prover in provers:
        if prover.process:
            prover.close()
    for _ in range(PROVERS):
        _idle.put(Prover())


_start_afresh()
atexit.register(lambda: [prover.stop() for prover in list(_idle.queue)])
os.register_at_fork(after_in_child=_start_afresh)


def prove(truth: tuple, answer: tuple, seconds: float) -> bool:
    """values.prove in another process. Undecided("timeout") if it took longer (prove_and_exit) or the process died."""
    idle = _idle
    prover = idle.get()
    try:
        return prover.prove(truth, answer, seconds)
    finally:
        idle.put(prover)


def serve(stdin, stdout):
    """The child: trees in, one byte out. Each proof is a fork of it, so none depends on what was proved before, and one
    that dies takes nothing along. It does not outlive its parent (end of file) by more than a proof."""
    import resource

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent deals with it
    with contextlib.suppress(ValueError, OSError):  # not every system can limit address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    for tree in WARM_UP:  # sympy loads half of itself when it is first needed; that is no part of a proof
        values.prove(tree, tree)
    os.write(stdout, b"R")
    with contextlib.suppress(EOFError):
        while True:
            seconds, truth, answer = pickle.load(stdin)
            if (child := os.fork()) == 0:
                prove_and_exit(seconds, truth, answer)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os.write(stdout, {PROVED: b"1", NOT_PROVED: b"0"}.get(code, b"?"))


def prove_and_exit(seconds, truth, answer):
    """Ends this process, with PROVED, NOT_PROVED, or another code where there is neither. What limits a proof is its
    number of function calls, which a busy machine does not change. Beyond that it has a limit of processor time, for
    what is one call: the kernel's alarm ends it even inside a long multiplication."""
    left = int(seconds * CALLS_PER_SECOND)

    def count(*_):
        nonlocal left
        left -= 1
        if left < 0:
            os._exit(GIVEN_UP)

    signal.setitimer(signal.ITIMER_PROF, NET * seconds)
    code = GIVEN_UP
    try:
        sys.setprofile(count)
        code = PROVED if values.prove(truth, answer) else NOT_PROVED
    finally:  # whatever sympy raises, there is no proof; a real bug shows as "timeout" in the log
        os._exit(code)


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.fileno())
