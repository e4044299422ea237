"""One writer per directory, and nobody writes on alone: the lock, its holder's death, and workers without a parent."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import eval as evaluation
import train
from conftest import ROOT
from experiments import compare, study
from minidrpo.engine.distributed import end_with_parent
from minidrpo.rundir import lock

HOLDER = """
import sys, time
from minidrpo.rundir import lock
held = [lock.claim(folder) for folder in sys.argv[1:]]
print("held", flush=True)
time.sleep(600)
"""
COMMANDS = {
    "train": (train.main, "--run-dir"),
    "eval": (evaluation.main, "--output-dir"),
    "compare": (compare.main, "--dir"),
    "study": (study.main, "--dir"),
}


@pytest.fixture(scope="module")
def holder(tmp_path_factory):
    """(process, {name: the directory that it holds for that command})"""
    folder = tmp_path_factory.mktemp("held")
    held = {name: folder / name for name in COMMANDS}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, held.values())], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "held\n"
    yield process, held
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_start_is_refused_in_one_line(name, holder, capsys, monkeypatch):
    process, held = holder
    monkeypatch.setattr(lock.claim, "__defaults__", (None, "--run-dir", 0.1))  # seconds of patience
    main, flag = COMMANDS[name]
    with pytest.raises(SystemExit) as stop:
        main([f"{flag}={held[name]}"])
    error = capsys.readouterr().err
    said = f"error: {held[name]} is in use by pid {process.pid} on host {socket.gethostname()} since 2"
    assert stop.value.code == 2 and error.startswith(said) and error.count("\n") == 1
    assert os.listdir(held[name]) == [lock.NAME], "nothing was touched"


def test_a_dead_holder_is_followed_at_once(tmp_path):
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        held = lock.claim(tmp_path)
        os.write(write, b"x")
        time.sleep(600)
        held.release()
    os.read(read, 1)
    with pytest.raises(ValueError, match=f"is in use by pid {child} "):
        lock.claim(tmp_path, patience=0)
    os.kill(child, signal.SIGKILL)
    start = time.monotonic()
    with lock.claim(tmp_path), lock.claim(tmp_path / ".." / tmp_path.name):  # the same directory, the same process
        assert time.monotonic() - start < 4
        assert (tmp_path / lock.NAME).read_text().startswith(f"pid {os.getpid()} on host ")
    assert os.listdir(tmp_path) == []
    os.waitpid(child, 0)


def test_what_was_made_for_the_lock_goes_with_it(tmp_path):
    with lock.claim(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / lock.NAME).exists()
    assert os.listdir(tmp_path) == []
    with lock.claim(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "numbers").touch()
    assert os.listdir(tmp_path / "a" / "b") == ["numbers"]
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="--run-dir .*file is a file"):
            lock.claim(path)


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    held, (read, write) = lock.claim(tmp_path), os.pipe()
    if (child := os.fork()) == 0:
        os.read(read, 1)  # lives until the end of this test
        os._exit(0)
    held.release()
    lock.claim(tmp_path, patience=0).release()
    os.write(write, b"x")
    os.waitpid(child, 0)


def test_two_who_start_at_the_same_moment(tmp_path):
    """Each child takes the directory 40 times and notes when; nobody may be in there beside another."""
    children = []
    for _ in range(3):
        children.append(os.fork())
        if children[-1] == 0:
            code = 0
            for _ in range(40):
                with lock.claim(tmp_path / "run", patience=60):
                    try:
                        os.close(os.open(tmp_path / "inside", os.O_CREAT | os.O_EXCL))
                        os.unlink(tmp_path / "inside")
                    except FileExistsError:
                        code = 1
            os._exit(code)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]


def test_other_hosts_and_disks_without_locks(tmp_path, capsys, monkeypatch):
    words = "pid 1 on host elsewhere since 2026-01-01 00:00:00"
    (tmp_path / lock.NAME).write_text(words)
    lock.claim(tmp_path).release()
    assert f"note: {tmp_path} was left by {words}: if that still runs" in capsys.readouterr().err

    def no_locks(*_):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    here = f"on host {socket.gethostname()} since 2026-01-01 00:00:00"
    dead = subprocess.Popen(["true"])
    dead.wait()
    for words, refused in (
        (f"pid {os.getppid()} {here}", True), ("pid 1 on host elsewhere since 2026", True), ("", False),
        (f"pid {dead.pid} {here}", False),
    ):  # fmt: skip
        (tmp_path / lock.NAME).write_text(words)
        if refused:
            with pytest.raises(ValueError, match="this disk has no locks; if that process is gone, delete "):
                lock.claim(tmp_path)
        else:
            lock.claim(tmp_path).release()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_ends_with_its_parent(end):
    read, write = os.pipe()
    if (parent := os.fork()) == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.fork() == 0:
            end_with_parent()
            os.write(write, b"x")
        time.sleep(600)
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.kill(parent, end)
    os.waitpid(parent, 0)
    assert os.read(read, 1) == b"", "end of file: the worker is gone, too"
    os.close(read)


def children_of(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_alive(pid):
    """Not a zombie either, which a container without an init may leave."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


TRAIN = ["train.py", "--steps=400", "--prompts-per-step=4", "--max-problems=4", "--max-response-tokens=32"]
STUDY = ["-m", "experiments.study", "--parts", "lr", "--lrs", "1e-3", "--steps=400", "--workers=2"]
PARENTS = {
    "torchrun": (["-m", "torch.distributed.run", "--nproc_per_node=2", *TRAIN], "--run-dir", "metrics.jsonl"),
    "torchrun, one rank": (["-m", "torch.distributed.run", *TRAIN], "--run-dir", "metrics.jsonl"),
    "compare": (["-m", "experiments.compare", "--methods", "drpo", "grpo"], "--dir", "*/metrics.jsonl"),
    "study": (STUDY, "--dir", "lr/*/metrics.jsonl"),
}


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("name", PARENTS)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are counted in /proc")
def test_no_command_leaves_writers_behind(name, end, tmp_path):
    """Killed in the middle; the same command right after it goes on alone."""
    words, flag, sign = PARENTS[name]
    command = [sys.executable, *words, f"{flag}={tmp_path / 'run'}"]
    if name == "study":
        command += [f"--out={tmp_path / 'out.csv'}"]
    for _ in range(2):
        sizes = {path: path.stat().st_size for path in tmp_path.glob(f"run/{sign}")}
        with open(tmp_path / "said", "w") as said:
            process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
        deadline = time.monotonic() + 120
        while all(path.stat().st_size == sizes.get(path) for path in tmp_path.glob(f"run/{sign}")):
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "said").read_text()[-2000:]
            time.sleep(0.1)
        workers = children_of(process.pid)
        assert workers
        process.send_signal(end)
        process.wait()
        deadline = time.monotonic() + 10
        while any(map(is_alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(is_alive, workers))
