"""cli.py: flags to a frozen config; every mistake is one line and exit code 2."""

import io
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from minidrpo import cli


@dataclass(frozen=True)
class Config:
    lam: float = 0.1
    """Small favours short."""
    group_size: int = 8
    """G."""
    files: tuple[str, ...] = ("a",)
    """Files."""
    kind: Literal["fast", "slow"] = "fast"
    """Kind."""
    resume: bool = True
    """Go on."""

    def __post_init__(self):
        if self.lam <= 0:
            raise ValueError(f"--lam must be positive, got {self.lam}")


PRESETS = {"tiny": ("any machine", Config()), "big": ("8 cards", Config(lam=0.5, group_size=16))}


def mistake(capsys, argv, config=Config):
    with pytest.raises(SystemExit) as stop:
        cli.parse(config, argv, prog="train.py")
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    return err


def test_flags():
    assert cli.parse(Config, []) == Config()
    got = cli.parse(Config, "--lam inf --group_size 4 --files x y --kind slow --no-resume".split())
    assert got == Config(float("inf"), 4, ("x", "y"), "slow", False)
    assert cli.parse(Config, ["--group-size=2"]) == Config(group_size=2)


def test_presets():
    assert cli.parse(PRESETS, []) == PRESETS["tiny"][1]
    assert cli.parse(PRESETS, ["big", "--lam", "0.2"]) == Config(lam=0.2, group_size=16)
    assert cli.parse(PRESETS, ["--lam", "0.2"]) == Config(lam=0.2)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--lmabda", "1"], "unknown flag --lmabda (did you mean --lam?)"),
        (["--gruop-size=3"], "unknown flag --gruop-size (did you mean --group-size?)"),
        (["--no-resum"], "did you mean --no-resume?"),
        (["--no-lam"], "unknown flag --no-lam"),
        (["--xyzzy"], "unknown flag --xyzzy"),
        (["--lam", "0"], "error: --lam must be positive, got 0.0\n"),
        (["--lam", "x"], "error: --lam: could not convert string to float: 'x'\n"),
        (["--lam"], "error: --lam needs a value\n"),
        (["--kind", "odd"], "error: --kind 'odd': choose one of fast, slow\n"),
        (["--lam", "1", "extra"], "error: not a flag: extra\n"),
        (["--lam="], "error: --lam: could not convert string to float: ''\n"),
        (["--group-size", "2.5"], "error: --group-size: invalid literal for int() with base 10: '2.5'\n"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_mistakes_are_one_line(capsys, argv, message, encoding, monkeypatch):
    """tyro frames what it says with other characters, and its titles differently, where stdout is not UTF-8."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert message in mistake(capsys, argv)


def test_unknown_preset(capsys):
    assert "unknown preset 'bgi' (did you mean big?); presets: tiny, big" in mistake(capsys, ["bgi"], PRESETS)
    assert "did you mean --lam?" in mistake(capsys, ["big", "--lmabda", "1"], PRESETS)
    assert "error: big and tiny are two presets: name one\n" == mistake(capsys, ["big", "tiny"], PRESETS)


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse(PRESETS, ["big", "--help"], prog="train.py")
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--group-size" in out and "(default: 16)" in out and "Small favours short." in out and "any machine" in out


def test_user_errors(capsys):
    with pytest.raises(SystemExit) as stop, cli.user_errors():
        raise ValueError("x.json: row 3,\n column 'answer': no truth")
    assert stop.value.code == 2 and capsys.readouterr().err == "error: x.json: row 3, column 'answer': no truth\n"
    with pytest.raises(KeyError), cli.user_errors():
        raise KeyError("ours")


class OutOfMemoryError(RuntimeError):
    """Called as torch's; cli.py itself needs no torch."""


TROUBLE = {
    "engine": (
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB"),
        "error: out of memory: CUDA out of memory. Tried to allocate 2.00 GiB. To go on from its last",
    ),
    "vLLM's allocator": (RuntimeError("CUDA Error: out of memory at /x/cumem.cpp:62"), "error: out of memory: CUDA"),
    "CPU": (RuntimeError("CPUAllocator: can't allocate memory: you tried to allocate 8 bytes."), "out of memory: CPU"),
    "rank": (
        RuntimeError("[/x/gloo/transport/tcp/pair.cc:545] Connection closed by peer [127.0.0.1]:2"),
        "error: another rank is gone; the same command goes on from its last checkpoint, if it has one",
    ),
    "hub": (ConnectionRefusedError(111, "Connection refused"), "error: [Errno 111] Connection refused"),
    "nan": (FloatingPointError("the gradient is not finite"), "error: the gradient is not finite"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_of_the_machine_is_one_line(name, capsys):
    error, words = TROUBLE[name]
    with pytest.raises(SystemExit) as stop, cli.machine_trouble():
        raise error
    err = capsys.readouterr().err
    assert stop.value.code == 1 and words in err and err.count("\n") == 1


def test_our_bugs_keep_their_traceback():
    for bug in (RuntimeError("shapes differ"), ValueError("no"), AssertionError()):
        with pytest.raises(type(bug)), cli.machine_trouble():
            raise bug
