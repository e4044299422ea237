"""cli.py - from the command line to a frozen dataclass, and from a user's mistake to one line.

`parse` maps flags to the fields of one flat dataclass (tyro does the work, and `--help`). With presets the first word
may name one, and the flags change it: `train.py r1-1.5b --lam 0.2`. Whatever is wrong with the command ends in one
line on stderr, `error: ...`, and exit code 2. `user_errors` does the same for a ValueError raised while the run is set
up; it is not meant for the run itself, where a ValueError may be our bug and deserves its traceback.
"""

import contextlib
import dataclasses
import difflib
import io
import re
import sys
import time

# Errors that come in several classes and have only their words in common
OUT_OF_MEMORY = re.compile(r"OutOfMemoryError|MemoryError|out of memory|can't allocate memory")
LESS_MEMORY = (
    "less --micro-batch-tokens helps the update, less --gpu-memory-utilization leaves more to all but vLLM, --shard "
    "splits the model over ranks"
)
LOST_RANK = re.compile(r"Connection (closed|reset) by peer|Broken pipe|remote process exited|Connection refused")


def parse(config, argv=None, *, prog=None, description=None, check=None):
    """The config that `argv` (default: the command's own words) asks for.

    config: a dataclass whose fields all have defaults, an instance of one, or presets {name: (description, instance)},
        of which the first is the default.
    check(config, default): raises ValueError for a combination that is wrong only if the user asked for it.
    """
    import tyro  # here: whoever calls train.train(cfg, world) with a config of their own needs no command line

    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(config, dict):
        name, argv = _preset(config, argv)
        default = config[name][1]
        listed = "\n".join(f"  {key:<{max(map(len, config))}}  {text}" for key, (text, _) in config.items())
        listed = f"presets (the first word, default {next(iter(config))}):\n{listed}"
        description = f"{description}\n\n{listed}" if description else listed
    else:
        default = config() if isinstance(config, type) else config
    _refuse_unknown_flags(default, argv)
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            cfg = tyro.cli(type(default), default=default, args=argv, prog=prog, description=description)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        fail(_first_sentence(stderr.getvalue(), type(default).__name__))
    with user_errors():
        if check:
            check(cfg, default)
    return cfg


def fail(message, rank=0, code=2, patience=10):
    """Leave with one line on stderr and exit code 2, as command-line tools do for a usage error (1: the machine's
    trouble). Ranks above 0 wait a little: usually all meet the same mistake, rank 0 says it and torchrun stops the
    others; one that fails alone still gets to speak, and says who it is."""
    if rank:
        time.sleep(patience)
    where = f" (rank {rank})" if rank else ""
    print(f"error{where}: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
    raise SystemExit(code)


@contextlib.contextmanager
def machine_trouble(rank=0, goes_on="from its last checkpoint, if it has one", less_memory=LESS_MEMORY):
    """Around a whole run: trouble of the machine ends in one line and exit code 1. What may be our bug keeps its
    traceback. goes_on: how the same command, given again, would; less_memory: what helps where that runs out."""
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
        if isinstance(error, RuntimeError) and LOST_RANK.search(str(error)):
            said = f"another rank is gone; the same command goes on {goes_on}"
            fail(said, rank, code=1, patience=0 if rank == 1 else 3)
        if not isinstance(error, OSError | FloatingPointError):
            raise
        fail(error, rank, code=1)


@contextlib.contextmanager
def user_errors(rank=0):
    """Around the set-up of a run (files, names, models): a ValueError is the user's and ends in one line."""
    try:
        yield
    except ValueError as error:
        fail(error, rank)


def _preset(presets, argv):
    if not argv or argv[0].startswith("-"):
        return next(iter(presets)), argv
    if argv[0] not in presets:
        fail(f"unknown preset {argv[0]!r}{_near(argv[0], presets)}; presets: {', '.join(presets)}")
    if argv[1:2] and argv[1] in presets:
        fail(f"{argv[0]} and {argv[1]} are two presets: name one")
    return argv[0], argv[1:]


def _refuse_unknown_flags(default, argv):
    """tyro's own message names the flag and its value alike and knows no nearest name."""
    known = {"--help"}
    for field in dataclasses.fields(default):
        flag = field.name.replace("_", "-")
        known |= {f"--{flag}"} | ({f"--no-{flag}"} if isinstance(getattr(default, field.name), bool) else set())
    for word in argv:
        flag = word.split("=")[0]
        if word.startswith("--") and flag.replace("_", "-") not in known:
            fail(f"unknown flag {flag}{_near(flag, known)}")


def _near(word, known):
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def _first_sentence(box, class_name):
    """The first paragraph of tyro's box, without its frame: of box-drawing characters, or of hyphens where stdout is
    not UTF-8, and then the title is a line above the first rule."""
    paragraphs = []
    for line in box.splitlines():
        line = line.strip("│╭╮╰╯ ")
        if re.fullmatch("─.*|-{5,}", line):
            paragraphs.append([])
        elif line and paragraphs:
            paragraphs[-1].append(line)
    text = " ".join(next(filter(None, paragraphs), ["the command could not be read, see --help"]))
    return text.removeprefix("Error parsing ").removeprefix(f"{class_name}: ")
