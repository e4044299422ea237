"""reward.py among processes: threads, forks, torchrun, Ctrl-C, and sympy processes that hang, die or eat memory."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import reward
from minidrpo.grader import prover, values
from minidrpo.grader.grammar import read_all

ROOT = os.path.dirname(os.path.abspath(reward.__file__))
EASY = [
    ("5", "5", True),
    ("6", "5", False),
    (r"\frac{2}{4}", "0.5", True),
    ("(x+1)^2", "x^2+2x+1", True),
    ("9^{9^{9^9}}", "5", False),
]
HARD = [(r"\int_0^1 x^2 dx", r"\frac13", True), (r"\int_0^1 x^2 dx", "0.33333333333333", False)]  # sympy must decide
CASES = EASY + HARD
EXPECTED = [equal for _, _, equal in CASES]


def verdicts():
    return [reward.same_answer(answer, truth, time_limit=60) for answer, truth, _ in CASES]


def script(cases=CASES, limit=60):
    """A program that grades the cases and prints the verdicts as JSON, with no `if __name__ == "__main__"`."""
    responses = [rf"</think>\boxed{{{answer}}}" for answer, _, _ in cases]
    truths = [truth for _, truth, _ in cases]
    return "\n".join(
        [
            f"import json, sys; sys.path.insert(0, {ROOT!r})",
            "import reward",
            f"grades = reward.grade_all({responses!r}, {truths!r}, time_limit={limit})",
            "print(json.dumps([grade.correct for grade in grades]))",
        ]
    )


def alive(pid):
    """Running, and not a zombie waiting for its parent."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, seconds=15):
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


def prover_pids():
    return [one.process.pid for one in list(prover._idle.queue) if one.process]


def copied(folder):
    """The grader's files alone, as an installed wheel has them: reward.py beside the package."""
    shutil.copy(reward.__file__, folder)
    shutil.copytree(os.path.join(ROOT, "minidrpo/grader"), folder / "minidrpo/grader")
    for name in ("__init__.py", "records.py"):
        shutil.copy(os.path.join(ROOT, "minidrpo", name), folder / "minidrpo")
    return folder


def children(pid):
    found = []
    for other in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{other}/stat") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(other))
        except OSError:
            pass
    return found


@pytest.fixture
def fresh():
    """No sympy process before the test."""
    stop_provers()


def stop_provers():
    for one in list(prover._idle.queue):
        one.stop()


def test_easy_answers_start_no_process_and_import_nothing_heavy(fresh):
    assert [reward.same_answer(a, t) for a, t, _ in EASY] == [equal for *_, equal in EASY]
    assert prover_pids() == []
    code = (
        f"import sys; sys.path.insert(0, {ROOT!r}); import reward; assert reward.same_answer('5', 5); "
        "print([m for m in ('torch', 'sympy', 'mpmath', 'vllm', 'transformers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_threads_agree():
    results = [None] * 4

    def work(i):
        results[i] = verdicts()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert results == [EXPECTED] * 4


def test_forked_children_agree_and_leave_the_parents_processes_alone():
    assert verdicts() == EXPECTED
    before = prover_pids()
    assert before
    with multiprocessing.get_context("fork").Pool(2) as pool:  # daemonic, like data-loader workers
        assert pool.map(_verdicts_of, range(2)) == [EXPECTED] * 2
    assert all(alive(pid) for pid in before)
    assert verdicts() == EXPECTED and prover_pids() == before


def _verdicts_of(_):
    return verdicts()


SLOW = pytest.mark.slow


@pytest.mark.parametrize("how", ["-c", pytest.param("stdin", marks=SLOW), pytest.param("file", marks=SLOW)])
def test_scripts_without_a_main_guard(how, tmp_path):
    """What multiprocessing's spawn would re-import, and so break."""
    (tmp_path / "script.py").write_text(script())
    command = {"-c": ["-c", script()], "stdin": ["-"], "file": [str(tmp_path / "script.py")]}[how]
    done = subprocess.run(
        [sys.executable, *command], input=script() if how == "stdin" else None, capture_output=True, text=True
    )
    assert json.loads(done.stdout or "null") == EXPECTED, done.stderr


@pytest.mark.parametrize("found_by", ["PYTHONPATH", "sys.path"])
def test_an_installed_grader_works_from_any_folder(found_by, tmp_path):
    """The files of a wheel, started where a stranger left modules with the names that the sympy process imports."""
    site, here = tmp_path / "site", tmp_path / "here"
    site.mkdir()
    here.mkdir()
    copied(site)
    for name in ("sympy", "minidrpo", "mpmath", "pickle"):
        (here / f"{name}.py").write_text("open('canary', 'w')\n")
    (tmp_path / "script.py").write_text(script().replace(ROOT, str(site)) + "\nprint(reward.__file__)")
    environment = {**os.environ, "PYTHONPATH": str(site) if found_by == "PYTHONPATH" else ""}
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here, env=environment)
    assert done.stdout.splitlines() == [json.dumps(EXPECTED), str(site / "reward.py")], done.stderr
    assert "canary" not in os.listdir(here)


@pytest.mark.slow
def test_torchrun_ranks_agree(tmp_path):
    (tmp_path / "script.py").write_text(script())
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *launch, str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.count(json.dumps(EXPECTED)) == 2, done.stderr


HARDER = r"\int_0^1 x^x dx", r"\int_0^1 x^x dx+0"  # 2.4 million calls and returns: 0.5 "seconds"


@SLOW
def test_a_proof_that_has_to_wait_is_no_slower(fresh):
    """Its process stands still for longer than the limit, as on a machine that is busy."""
    truth, answer = (read_all(text)[0][0] for text in HARDER)
    one = prover._idle.queue[-1]
    one.start()
    os.kill(one.process.pid, signal.SIGSTOP)
    later = threading.Timer(1.5, os.kill, (one.process.pid, signal.SIGCONT))
    later.start()
    assert reward.prove(truth, answer, 1.0)
    later.join()


@pytest.mark.slow
def test_a_busy_machine_gives_the_same_verdicts(fresh):
    """Limits around what two proofs take, beside eight busy loops: what decides is counted, not timed."""
    pairs = HARDER, (r"e", r"\sum_{k=0}^\infty \frac{1}{k!}")
    trees = [[read_all(text)[0][0] for text in pair] for pair in pairs]

    def verdicts():
        found = []
        for limit in (0.1, 0.3, 0.4, 0.45, 0.5, 0.6):
            for truth, answer in trees:
                try:
                    found.append(reward.prove(truth, answer, limit))
                except values.Undecided as stopped:
                    found.append(str(stopped))
        return found

    idle = verdicts()
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
    try:
        assert verdicts() == idle
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert True in idle and "timeout" in idle


def test_the_limit_is_a_limit(fresh):
    """sympy would think about this for minutes; another answer is served right after."""
    hang = ("pow", ("sym", "x"), ("num", 1))
    reward.prove(hang, hang, 60)  # start the process: the limit is for the answer
    truth, answer = (read_all(t)[0][0] for t in (r"\int_0^1 x^{x^{x}} dx", r"\int_0^1 x^{x^{x+0}} dx+0"))
    start = time.monotonic()
    with pytest.raises(values.Undecided, match="timeout"):
        reward.prove(
            truth,
            (
                "add",
                answer,
                ("big", "int", "t", ("num", 0), ("num", 1), ("call", "sin", ("pow", ("sym", "t"), answer))),
            ),
            0.5,
        )
    assert time.monotonic() - start < 5
    assert reward.prove(hang, hang, 60)


@pytest.mark.parametrize(
    "crime",
    [
        "os.kill(os.getpid(), 9)",
        "bytearray(1 << 34)",
        pytest.param("os._exit(0)", marks=SLOW),
        pytest.param("os.write(stdout, b'!')", marks=SLOW),
    ],
)
def test_a_process_that_dies_or_eats_memory_is_replaced(crime, fresh, monkeypatch, tmp_path):
    """A copy of the grader whose sympy process commits the crime; the next process is the real thing again."""
    copy = copied(tmp_path) / "minidrpo/grader/prover.py"
    line = "code = os.waitstatus_to_exitcode" if "stdout" in crime else "code = PROVED if values.prove"
    assert line in copy.read_text()
    copy.write_text(copy.read_text().replace(line, f"{crime}; {line}"))
    x = ("sym", "x")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [str(tmp_path), *sys.path])  # a child imports what its parent would
        with pytest.raises(values.Undecided, match="timeout"):
            reward.prove(x, x, 60)
    stop_provers()  # where only a fork of it died, the criminal copy still serves
    assert reward.prove(x, x, 60)


OTHERS = [pytest.param(end, marks=SLOW) for end in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("end", [signal.SIGKILL, *OTHERS])
def test_no_orphans(end, tmp_path):
    """Ctrl-C goes to the whole process group, SIGKILL to the parent alone; the sympy process, busy with an integral it
    cannot do, is gone soon after either."""
    endless = [(r"\int_0^1 x^{x} dx+0", r"\int_0^1 x^{x} dx", True)] * 20
    (tmp_path / "script.py").write_text(script(endless, limit=5))
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where pytest runs in the background
    )
    deadline = time.monotonic() + 30
    while not (workers := children(parent.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers
    time.sleep(0.5)
    workers = children(parent.pid)
    (os.killpg if end == signal.SIGINT else os.kill)(parent.pid, end)
    assert parent.wait(timeout=30) != 0
    assert gone(workers)
