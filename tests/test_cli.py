"""cli.py: flags to a frozen config; every mistake is one line and exit code 2."""

import dataclasses
import io
import math
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

import config
from conftest import ROOT
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
        (["--files", "x", "--files=y"], "error: --files is given twice: give all its values after one --files\n"),
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


@pytest.mark.parametrize(
    "change, message",
    [
        ({"steps": True}, "--steps must be a whole number, got True"),
        ({"steps": 2.0}, "--steps must be a whole number, got 2.0"),
        ({"steps": 2**63}, "--steps must be a whole number, got"),
        ({"lr": "2e-6"}, "--lr must be a number, got '2e-6'"),
        ({"lr": False}, "--lr must be a number, got False"),
        ({"lr": 10**400}, "--lr must be a number, got 1000"),
        ({"shard": 1}, "--shard must be true or false, got 1"),
        ({"model": None}, "--model must be a text, got None"),
        ({"model": " "}, "--model must be a name, got ' '"),
        ({"sampler": "vlm"}, "--sampler must be one of auto, vllm, transformers, got 'vlm' (did you mean vllm?)"),
        ({"sampler": 1}, "--sampler must be one of auto"),
        ({"rewards": "correct"}, "--rewards must be a tuple, each one of correct, "),
        ({"rewards": ("correct", "size")}, "--rewards must be a tuple, each one of correct, "),
        ({"reward_weights": (1, "2")}, "--reward-weights must be a tuple, each a number, got (1, '2')"),
        ({"stpes": 3}, "gdpo has no setting 'stpes' (did you mean steps?)"),
        ({"preset": "tinny"}, "unknown preset 'tinny' (did you mean tiny?); presets: tiny, "),
        ({"method": "disko"}, "unknown method 'disko' (did you mean disco?)"),
    ],
)
def test_a_config_made_in_python_is_checked_as_the_command_line_is(change, message):
    """A preset's text in place of a tuple, a float in place of a whole number: they failed hours later, or never."""
    config.make(method="gdpo", lr=1, reward_weights=(1, 2.5), max_problems=0)  # a whole number is a number
    with pytest.raises(ValueError) as caught:
        config.make(**{"method": "gdpo"} | change)
    assert str(caught.value).startswith(message)


def test_all_kinds_of_all_configs_are_known():
    """`check` knows every annotation in use, those of None and of lists, too."""
    import eval as evaluation
    from experiments import credit, study
    from minidrpo.show import html_report, memory

    kinds = [evaluation.Config, credit.Config, study.Study, html_report.Config, memory.GPUs]
    for made in (*(kind() for kind in kinds), *(config.make("tiny", method) for method in config.METHODS)):
        cli.check(made)
    for wrong in ({"reference": 3}, {"datasets": "aime"}, {"datasets": (1,)}, {"samples": 1.5}, {"exceed": -5}):
        with pytest.raises(ValueError, match=f"--{min(wrong).replace('_', '-')} must be "):
            evaluation.Config(**wrong)
    for wrong in ({"lam": "1"}, {"step": -1}, {"plot": None}):
        with pytest.raises(ValueError, match=f"--{min(wrong)} must be "):
            credit.Config(**wrong)
    assert dataclasses.replace(credit.Config(), lam=math.inf).alpha is None


def test_a_preset_cannot_set_what_nobody_has():
    """It was dropped without a word, as each method takes only its own settings of a preset."""
    source = (ROOT / "config.py").read_text()
    exec(compile(source, "config.py", "exec"), {"__name__": "config"})
    with pytest.raises(AssertionError, match="a preset sets what is no setting"):
        exec(
            compile(source.replace("    laser_every=", "    lazer_every="), "config.py", "exec"), {"__name__": "config"}
        )


def test_a_program_prints_whatever_its_streams_are(monkeypatch):
    """Without UTF-8 a table's lines were an error, and so was a stream that the shell had closed (`2>&-`)."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    cli.parse(Config, [])
    print("\u2500", flush=True)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    cli.parse(Config, [])
    assert not sys.stderr.isatty() and sys.stdout.write("x") and sys.stdout is not sys.stderr


def test_words(capsys):
    assert cli.words(["a", "b"], "prog FILE [FILE]", 1, 2) == ["a", "b"]
    for argv, code, said in (
        (["--help"], 0, "usage: prog FILE [FILE]\n"),
        ([], 2, "error: usage: prog FILE [FILE]\n"),
        (["a", "b", "c"], 2, "error: usage: prog FILE [FILE]\n"),
        (["a", "--bogus"], 2, "error: unknown flag --bogus; usage: prog FILE [FILE]\n"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.words(argv, "prog FILE [FILE]", 1, 2)
        assert stop.value.code == code and "".join(capsys.readouterr()) == said


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
