"""cli.py - from the command line to a frozen dataclass, and from a user's mistake to one line.

`parse` maps flags to the fields of one flat dataclass (tyro does the work, and `--help`). With presets the first word
may name one, and the flags change it: `train.py r1-1.5b --lam 0.2`. Whatever is wrong with the command ends in one
line on stderr, `error: ...`, and exit code 2. `user_errors` does the same for a ValueError raised while the run is set
up; it is not meant for the run itself, where a ValueError may be our bug and deserves its traceback.
"""

import contextlib
import dataclasses
import difflib
import errno
import io
import math
import os
import re
import sys
import time
import types
import typing
from typing import Literal

# Errors that come in several classes and have only their words in common
OUT_OF_MEMORY = re.compile(r"OutOfMemoryError|MemoryError|out of memory|can't allocate memory")
LESS_MEMORY = (
    "less --micro-batch-tokens helps the update, less --gpu-memory-utilization leaves more to all but vLLM, --shard "
    "splits the model over ranks"
)
LOST_RANK = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|remote process exited|Connection refused|failed to recv|"
    r"Dist(Network|Store|Backend)Error"
)
BAD_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EROFS}
RENAMED = {  # older names of flags: they still work, with a note
    "--max-tokens": "--max-response-tokens",
    "--eval-samples": "--samples",
    "--eval-problems": "--max-problems",
    "--limit": "--max-problems",
    "--eval-top-p": "--top-p",
    "--tensorboard": "--track=tensorboard",
}

# ------------------------------------------------------------------------------------------------------------- values

RULES = {
    "positive": lambda x: x > 0,  # like all of these, false for nan
    "0 or more": lambda x: x >= 0,
    "1 or more": lambda x: x >= 1,
    "2 or more": lambda x: x >= 2,
    "at least 1e-06": lambda x: x >= 1e-6,
    "at most 1e+06": lambda x: x <= 1e6,
    "finite": lambda x: abs(x) <= 1e30,  # in float32, times a length
    "no nan": lambda x: x is None or x == x,
    "a name": lambda x: x is None or x.strip() != "",
    "in (0, 1]": lambda x: 0 < x <= 1,
    "in (0, 1)": lambda x: 0 < x < 1,
}


def value(default, *rules: str):
    """A dataclass field with this default, whose value must obey some of RULES; `check` holds it to them."""
    return dataclasses.field(default=default, metadata={"rules": rules})


KINDS = {  # what an annotation may be made of: (its name for the user, does this value fit)
    bool: ("true or false", lambda x: type(x) is bool),
    int: ("a whole number", lambda x: type(x) is int and abs(x) < 2**63),  # as large as a tensor can hold
    float: ("a number", lambda x: isinstance(x, float) or KINDS[int][1](x)),
    str: ("a text", lambda x: isinstance(x, str)),
    types.NoneType: ("none", lambda x: x is None),
}


def fits(x, kind) -> bool:
    """Is `x` what the annotation `kind` says: one of KINDS, a Literal, tuple[X, ...], dict[X, Y], X | Y?"""
    parts, origin = typing.get_args(kind), typing.get_origin(kind)
    if origin is Literal:
        return x in parts
    if origin is types.UnionType:
        return any(fits(x, part) for part in parts)
    if origin is tuple:
        return isinstance(x, tuple) and all(fits(item, parts[0]) for item in x)
    if origin is dict:
        return isinstance(x, dict) and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in x.items())
    return KINDS[kind][1](x)


def _kind_in_words(kind):
    parts, origin = typing.get_args(kind), typing.get_origin(kind)
    if origin is Literal:
        return f"one of {', '.join(parts)}"
    if origin is types.UnionType:
        return " or ".join(map(_kind_in_words, parts))
    return f"a tuple, each {_kind_in_words(parts[0])}" if origin is tuple else KINDS[kind][0]


def check(cfg) -> None:
    """ValueError for the first field of `cfg` whose value is not of its annotation's kind or breaks one of its rules.
    The command line gives no wrong kinds; a config made in Python may have them."""
    for field in dataclasses.fields(cfg):
        x, rules = getattr(cfg, field.name), field.metadata.get("rules", ())
        if not fits(x, field.type):
            guess = near(x, typing.get_args(field.type)) if typing.get_origin(field.type) is Literal else ""
            raise ValueError(f"{flag_of(field.name)} must be {_kind_in_words(field.type)}, got {_repr(x)}{guess}")
        for rule in rules:
            if not RULES[rule](x):
                raise ValueError(f"{flag_of(field.name)} must be {rule}, got {_repr(x)}")


def _repr(x) -> str:
    """repr, of a long one its beginning. Python writes no number of over 4,300 digits."""
    x = repr(x) if not isinstance(x, int) or abs(x) < 10**4000 else "a number of over 4,000 digits"
    return x if len(x) < 200 else f"{x[:40]}..."


def flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def near(word, known) -> str:
    """ " (did you mean X?)", or nothing."""
    found = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f" (did you mean {found[0]}?)" if found else ""


# ----------------------------------------------------------------------------------------------------------- the flags


def parse(config, argv=None, *, prog=None, description=None, foreign=()):
    """The config that `argv` (default: the command's own words) asks for.

    config: a dataclass whose fields all have defaults, an instance of one, or presets {name: (description, instance)},
        of which the first is the default.
    foreign: {flag: why it is not for this command}, for flags that the user may know from elsewhere.
    """
    import tyro  # here: whoever calls train.train(cfg, ctx) with a config of their own needs no command line
    from tyro import _errors  # its structured errors, else it prints a box of lines; pyproject.toml pins the version

    print_anything()
    argv = [_current_name(word) for word in (sys.argv[1:] if argv is None else argv)]
    if isinstance(config, dict):
        listed = "\n".join(f"  {key:<{max(map(len, config))}}  {text}" for key, (text, _) in config.items())
        head = f"{description or ''}\n\npresets (the first word, default {next(iter(config))}):\n{listed}"
        if not argv or argv[0].startswith("-"):
            argv = [next(iter(config)), *argv]
        if argv[0] not in config:
            fail(f"unknown preset {argv[0]!r}{near(argv[0], config)}; presets: {', '.join(config)}")
        if argv[1:2] and argv[1] in config:
            fail(f"{argv[0]} and {argv[1]} are two presets: name one")
        default = config[argv[0]][1]
        choices = {key: (f"{text}\n\n{head}", instance) for key, (text, instance) in config.items()}
    else:
        default = config() if isinstance(config, type) else config
    _refuse_unknown_flags(default, argv, dict(foreign))
    with _errors.on_parse_error(lambda event: fail(_in_words(event))), user_errors():
        if isinstance(config, dict):
            return tyro.extras.overridable_config_cli(choices, args=argv, prog=prog, description=description)
        return tyro.cli(type(default), default=default, args=argv, prog=prog, description=description)


@dataclasses.dataclass(frozen=True)
class NoFlags:
    """Of a program that has only --help: another word is a mistake, not a reason to start."""


def words(argv, usage: str, least: int = 0, most: float = math.inf) -> list[str]:
    """The words of a program without flags. --help prints `usage`; a flag, or too few or too many, is a mistake."""
    print_anything()
    argv = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(argv):
        print(f"usage: {usage}")
        raise SystemExit(0)
    flags = [f"unknown flag {word}; " for word in argv if word.startswith("-")]
    if flags or not least <= len(argv) <= most:
        fail(f"{''.join(flags[:1])}usage: {usage}")
    return argv


def value_of(flag: str, argv, default: str) -> str:
    """The last value of --flag in `argv`, before anything is parsed."""
    for i, word in enumerate(argv):
        if word == flag and i + 1 < len(argv):
            default = argv[i + 1]
        elif word.startswith(f"{flag}="):
            default = word.split("=", 1)[1]
    return default


def _current_name(word):
    flag, equals, value = word.partition("=")
    new = RENAMED.get(flag.replace("_", "-"))
    if new:
        print(f"note: {flag} is called {new} now", file=sys.stderr)
    return f"{new}{equals}{value}" if new else word


def _refuse_unknown_flags(default, argv, foreign):
    """tyro's own message names the flag and its value alike and knows no nearest name."""
    known = {"--help"}
    for field in dataclasses.fields(default):
        flag = flag_of(field.name)
        known |= {flag} | ({f"--no-{flag[2:]}"} if isinstance(getattr(default, field.name), bool) else set())
    for word in argv:
        flag = word.split("=")[0].replace("_", "-")
        if word.startswith("--") and flag not in known:
            bare = flag.replace("--no-", "--", 1)
            reason = foreign.get(flag) or foreign.get(bare)
            fail(f"{flag} {reason}" if reason else f"unknown flag {word.split('=')[0]}{near(flag, known)}")
    given = [word.split("=")[0].replace("_", "-") for word in argv]
    for flag in (flag_of(f.name) for f in dataclasses.fields(default) if isinstance(getattr(default, f.name), tuple)):
        if given.count(flag) > 1:  # the last one would count, and the others be forgotten
            fail(f"{flag} is given twice: give all its values after one {flag}")
        after = argv[given.index(flag) + 1 :] if flag in given and "=" not in argv[given.index(flag)] else ["a value"]
        if not after or after[0].startswith("--"):  # an empty list means all of them to some
            fail(f"{flag} needs a value")


def _in_words(event):
    """tyro's description of a mistake as one sentence."""
    argument = getattr(event, "argument", None)
    flag = argument.lowered.name_or_flags[-1] if argument else ""
    if hasattr(event, "choices"):
        return f"{flag} {event.value!r}{near(event.value, event.choices)}: choose one of {', '.join(event.choices)}"
    if hasattr(event, "tokens"):
        switch = any(word.lower() in ("true", "false", "yes", "no") for word in event.tokens)
        return f"not a flag: {' '.join(event.tokens)}" + (": a switch is --NAME or --no-NAME" if switch else "")
    if getattr(event, "reason", "") == "too_few_values":
        return f"{flag} needs a value"
    message = getattr(event, "message", "the command could not be read, see --help")
    message = message if isinstance(message, str) else " ".join(map(str, message))
    return message if message.startswith("--") or not flag else f"{flag}: {message}"


# ------------------------------------------------------------------------------------------------------------- mistakes


def visible(text: str) -> str:
    """For a terminal: what would steer it or hide in it (escapes, direction marks) as <1b>; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else f"<{ord(c):02x}>" for c in text)


def say(text: str, file=None) -> None:
    """print, for lines that hold names: of files, of models, of what strangers wrote."""
    print(visible(text), file=file)


def print_anything() -> None:
    """From now on a standard output without UTF-8 gets "?" for what it cannot hold, not an error; where a shell has
    closed it, or standard error (`2>&-`), Python has None, and what is said there goes nowhere."""
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))
    if isinstance(sys.stdout, io.TextIOWrapper):  # not where a caller has put something else
        sys.stdout.reconfigure(errors="replace")


def fail(message, rank=0, code=2, patience=10):
    """Leave with one line on stderr and exit code 2, as command-line tools do for a usage error (1: the machine's
    trouble). Ranks above 0 wait a little: usually all meet the same mistake, rank 0 says it and torchrun stops the
    others; one that fails alone still gets to speak, and says who it is."""
    if rank:
        time.sleep(patience)
    where = f" (rank {rank})" if rank else ""
    print(f"error{where}: {visible(' '.join(str(message).split()))}", file=sys.stderr, flush=True)
    raise SystemExit(code)


@contextlib.contextmanager
def machine_trouble(rank=0, goes_on="from its last checkpoint, if it has one", less_memory=LESS_MEMORY, gone=None):
    """Around a whole run: trouble of the machine ends in one line and exit code 1. What may be our bug keeps its
    traceback. goes_on: how the same command, given again, would; less_memory: what helps where that runs out; gone():
    which other rank is gone."""
    try:
        yield
    except KeyboardInterrupt:
        if rank:  # it reaches all ranks, and rank 0 speaks
            raise SystemExit(130) from None
        fail(f"stopped; the same command goes on {goes_on}", code=130)
    except Exception as error:
        if OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}"):
            said = str(error).strip().split("\n")[0].split(". ")[:2]  # what, and how much; then follow tables
            what = ". ".join(said).rstrip(".") or type(error).__name__
            fail(f"out of memory: {what}. To go on {goes_on}: {less_memory}", rank, code=1)
        # The lost rank may have had no time to speak, and it may be rank 0 who waits for nobody
        if isinstance(error, RuntimeError) and LOST_RANK.search(f"{type(error).__name__}: {error}"):
            said = f"{gone and gone() or 'another rank'} is gone; the same command goes on {goes_on}"
            fail(said, rank, code=1, patience=0 if rank == 1 else 3)
        if not isinstance(error, OSError | FloatingPointError):
            raise
        fail(error, rank, code=1)


@contextlib.contextmanager
def user_errors(rank=0):
    """Around the set-up of a run (files, names, models): a ValueError is the user's and ends in one line; so is a path
    that nothing can be read from, or written to."""
    try:
        yield
    except ValueError as error:
        fail(error, rank)
    except OSError as error:
        if error.errno not in BAD_PATH:
            raise
        fail(f"{str(error.filename)[:200]}: {error.strerror}" if error.filename else error, rank)
