"""config.py - every setting of a training run: one flat frozen dataclass, made of a run's settings and its method's.

    make("tiny", "rloo-lp", alpha=0.4)     a preset with a method and changes; the method's settings: minidrpo/methods

The hyperparameter of DRPO is `--lam`; every other method has one of its own. Every default below is the official run's
(github Optimization-AI/DRPO, its 8k scripts), but for evaluation, which samples as the paper's does (top_p 0.95; the
run's own validation has 1), the number of steps (theirs: 1,001) and what memory suits. The `tiny` preset says what it
changes so that a laptop finishes in minutes.
"""

import dataclasses
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import minidrpo.tiny
from minidrpo import cli
from minidrpo.cli import near, value
from minidrpo.methods.table import METHODS
from minidrpo.tasks.data import SUFFIX

TINY_MODEL = str(Path(minidrpo.tiny.__file__).resolve().parent)
THINKING_MODEL = str(Path(TINY_MODEL) / "thinking")
PROGRAMS_MODEL = str(Path(TINY_MODEL) / "programs")
TOOLS_MODEL = str(Path(TINY_MODEL) / "tools")


@dataclass(frozen=True)
class RunConfig:
    """What every run has; `make` adds the settings of its method."""

    # What is trained, on what
    model: str = value("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "a name")
    """A directory or Hub id of a causal LM in safetensors."""
    train_data: str = "deepscaler"
    """A Hub id, a .parquet/.json/.jsonl file, or built in: arithmetic, thinking (thinking@0.9: nine tenths easy),
    tools, programs, knights."""
    eval_data: str = "aime"
    """Held-out problems, named as in train_data or eval.py."""
    suffix: str = SUFFIX
    """Appended to each problem that does not already end with it."""
    skip_unanswered: bool = False
    """Leave out (and count) rows without a truth instead of stopping."""
    template: bool = True
    """Use the tokenizer's chat template; --no-template trains on the bare text."""
    method: Literal[tuple(METHODS)] = "drpo"
    """Who gets how much credit. `--method NAME --help` shows the method's own settings."""

    # One step: sample, grade, weigh, update
    steps: int = value(1000, "1 or more")
    """Rollout batches; each makes `mini_batches` optimizer steps."""
    prompts_per_step: int = value(128, "1 or more")
    """P, over all ranks."""
    group_size: int = value(8, "2 or more", "at most 1e+06")
    """G, responses per prompt."""
    mini_batches: int = value(4, "1 or more")
    """Optimizer steps per rollout batch; the first is on-policy, the trust region holds the others."""
    max_prompt_tokens: int = value(1024, "1 or more")
    """Longer prompts are dropped and counted."""
    max_response_tokens: int = value(8192, "1 or more")
    """C: longer responses are cut off, count as wrong, and are reported as truncated."""
    temperature: float = value(0.6, "positive", "finite")
    """Of sampling, and of the log-probabilities that are trained."""
    sampler: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM where it and a GPU are there, else Transformers."""
    gpu_memory_utilization: float = value(0.5, "in (0, 1)")
    """Share of a GPU that vLLM may take while it samples."""

    # The optimizer
    lr: float = value(2e-6, "0 or more", "finite")
    """AdamW's learning rate, constant after the warm-up."""
    weight_decay: float = value(0.01, "0 or more", "finite")
    """AdamW's."""
    warmup_steps: int = value(0, "0 or more")
    """Steps of linear warm-up, then constant."""
    grad_clip: float = value(1.0, "positive")
    """Largest norm of a mini-batch's gradient."""
    micro_batch_tokens: int = value(16384, "1 or more")
    """Padded tokens per forward pass; changes memory and speed, never the gradient."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass: less memory, more time."""
    shard: bool = False
    """Split weights, gradients and moments over all ranks (FSDP2) instead of replicating them; needs torchrun."""
    compile: bool = False
    """torch.compile each decoder layer; needs a sampler with weights of its own (vLLM)."""

    # Evaluation: same names as in eval.py
    max_problems: int = value(0, "0 or more")
    """Held-out problems per evaluation; 0 takes all."""
    samples: int = value(8, "1 or more", "at most 1e+06")
    """Responses per held-out problem."""
    top_p: float = value(0.95, "in (0, 1]")
    """Nucleus of held-out responses; training samples from the whole distribution."""
    eval_start: bool = True
    """Evaluate the model before the first step, too; without, the run ends without its before/after table."""
    eval_every: int = value(20, "1 or more")
    """Steps between two held-out evaluations."""

    # Watching and keeping
    seed: int = value(0, "0 or more")
    """Of the data's order and of sampling."""
    run_dir: str = ""
    """Default: runs/ and a name made of the model, the method and the seed."""
    save_every: int = value(20, "1 or more")
    """Steps between two checkpoints."""
    keep_checkpoints: int = value(2, "1 or more")
    """Newest checkpoints that stay on disk, the last one included."""
    show_every: int = value(10, "1 or more")
    """Steps between two whole responses printed to read."""
    track: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    """Also show the numbers, settings and samples there (pip install '.[track]')."""
    resume: bool = True
    """Go on from the run directory's newest checkpoint; --no-resume refuses a directory that is not empty."""
    trust_remote_code: bool = False
    """Run code that comes with the model."""

    def __post_init__(self):
        cli.check(self)
        for owner in type(self).__mro__:  # what no rule of a single field can say, here and among the method's settings
            if "check" in vars(owner):
                owner.check(self)

    def check(self):
        if self.prompts_per_step % self.mini_batches:
            raise ValueError(
                f"--prompts-per-step {self.prompts_per_step} must be a multiple of --mini-batches {self.mini_batches}"
            )

    def __reduce__(self):  # the class of a method's config is made on the fly: pickle makes it again by its name
        return _unpickle, ({field.name: getattr(self, field.name) for field in dataclasses.fields(self)},)

    @property
    def title(self) -> str:
        """The method and its hyperparameter, short: "drpo lam=0.1"."""
        name = METHODS[self.method].hyperparameter
        return f"{self.method} {name}={getattr(self, name):g}" if name else self.method

    @property
    def suffixes(self) -> list[str]:
        """What is said after each problem: the instruction, and what the method adds."""
        return [self.suffix, METHODS[self.method].suffix(self)]

    @property
    def directory(self) -> Path:
        """Where this run writes; derived unless given. Another setting in the same directory is refused."""
        words = self.title.removeprefix("drpo ").replace(" ", "-").replace("=", "")
        return Path(self.run_dir or f"runs/{Path(self.model).name}-{words}-seed{self.seed}").expanduser()

    def numbers(self) -> dict:
        """The settings that decide the run's numbers: two configs with equal numbers() may continue each other.
        Those of memory change no gradient, only its rounding: a run that ran out of it may go on with less."""
        free = {"run_dir", "resume", "steps", "save_every", "keep_checkpoints", "show_every", "track"}
        free |= {"micro_batch_tokens", "gradient_checkpointing", "gpu_memory_utilization", "shard", "compile"}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in free}


# ------------------------------------------------------------------------------------------------------------- presets

TINY_FIELDS = dict(
    model=TINY_MODEL,
    train_data="arithmetic",
    eval_data="arithmetic",
    suffix="",
    steps=30,
    prompts_per_step=32,
    mini_batches=1,
    max_prompt_tokens=256,
    max_response_tokens=256,
    lr=2e-4,
    weight_decay=0.0,
    micro_batch_tokens=4096,  # what a core's caches like
    gradient_checkpointing=False,
    l1_target=64,
    l1_prompt=False,  # it reads nothing but problems
    length_limit=64,
    laser_every=5,
    max_problems=512,
    samples=4,
    top_p=1.0,
    eval_every=10,
    save_every=10,
    show_every=10,
)

PRESETS = {  # name: (what it is for, its fields; those of a method count where that method runs)
    "tiny": ("the embedded model on any machine, minutes on a CPU", TINY_FIELDS),
    "thinking": (
        "the embedded model of a world where thinking pays, on any machine, minutes on a CPU",
        TINY_FIELDS
        | dict(model=THINKING_MODEL, train_data="thinking", eval_data="thinking", prompts_per_step=16, steps=60),
    ),
    "tools": (
        "the embedded model that calls tools: GDPO on ToolRL's two rewards, on any machine, minutes on a CPU",
        TINY_FIELDS
        | dict(model=TOOLS_MODEL, train_data="tools", eval_data="tools", method="gdpo", max_response_tokens=128)
        | dict(steps=40),
    ),
    "programs": (
        "the embedded model that writes programs: GDPO on three rewards, on any machine, minutes on a CPU",
        TINY_FIELDS
        | dict(model=PROGRAMS_MODEL, train_data="programs", eval_data="programs", method="gdpo", length_limit=10)
        | dict(prompts_per_step=16, steps=60, max_response_tokens=64),
    ),
    "small": (
        "Qwen2.5-0.5B-Instruct on GSM8K, one GPU of 16 GB or more by our estimate",
        dict(
            model="Qwen/Qwen2.5-0.5B-Instruct",  # 16 bytes a parameter are 7.4 GiB: it needs no LoRA, no 8-bit moments
            train_data="openai/gsm8k:main@train",
            eval_data="gsm8k",
            steps=200,
            prompts_per_step=64,
            mini_batches=2,
            max_prompt_tokens=512,
            max_response_tokens=1024,
            micro_batch_tokens=8192,
            gpu_memory_utilization=0.4,
            max_problems=256,
            samples=4,
        ),
    ),
    "r1-1.5b": ("DeepSeek-R1-Distill-Qwen-1.5B, one node of 8 x 80 GB", {}),
    "r1-7b": (
        "DeepSeek-R1-Distill-Qwen-7B, sharded over a node of 8 x 80 GB",
        dict(model="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", lr=1e-6, shard=True, gpu_memory_utilization=0.6),
    ),
}
# A method's config takes those fields of a preset that it has: a misspelt one would vanish
SETTINGS = {field.name for field in dataclasses.fields(RunConfig)}.union(*(row.flags for row in METHODS.values()))
assert all(SETTINGS >= fields.keys() for _, fields in PRESETS.values()), "a preset sets what is no setting"


@functools.cache
def config_class(method: str) -> type[RunConfig]:
    """The frozen dataclass of a run with this method: a run's settings and the method's own, side by side."""
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}{near(method, METHODS)}; methods: {', '.join(METHODS)}")
    fields = [("method", Literal[tuple(METHODS)], method)]
    return dataclasses.make_dataclass("Config", fields, bases=(METHODS[method].settings, RunConfig), frozen=True)


def make(preset: str = "tiny", method: str | None = None, **changes) -> RunConfig:
    """A preset's config for one method, with changes. ValueError for an unknown name or a value out of range.
    method: by default the preset's own, which is DRPO where it names none."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}{near(preset, PRESETS)}; presets: {', '.join(PRESETS)}")
    cls = config_class(method or method_of(preset))
    known = {field.name for field in dataclasses.fields(cls)} - {"method"}
    for name in changes.keys() - known:
        raise ValueError(f"{cls.method} has no setting {name!r}{near(name, known)}")
    return cls(**{k: v for k, v in PRESETS[preset][1].items() if k in known} | changes)


def method_of(preset: str) -> str:
    """The method that a preset runs unless another one is named."""
    return PRESETS[preset][1].get("method", "drpo")


def presets(method: str = "drpo") -> dict[str, tuple[str, RunConfig]]:
    """{name: (what it is for, config)}, for the command line."""
    return {name: (about, make(name, method)) for name, (about, _) in PRESETS.items()}


def parse(argv: list[str], prog: str, description: str, extra: type | None = None) -> RunConfig:
    """The config that a command line asks for: a preset, `--method`, whose settings are flags, and changes.

    extra: a dataclass of further flags. A flag of another method is a mistake, as it would do nothing."""
    with cli.user_errors():
        named = argv[0] if argv and argv[0] in PRESETS else next(iter(PRESETS))
        method = cli.value_of("--method", argv, method_of(named))
        ours = presets(method)
    foreign, users = {}, {}
    if extra:
        cls = dataclasses.make_dataclass("Config", [], bases=(extra, config_class(method)), frozen=True)
        ours = {name: (about, cls(**dataclasses.asdict(cfg))) for name, (about, cfg) in ours.items()}
    else:
        words = "is for --dry-run: torchrun says how many ranks there are"
        foreign |= dict.fromkeys(("--gpus", "--gpu-memory"), words)
    for other, row in METHODS.items():
        for name in row.flags - METHODS[method].flags:
            users.setdefault(cli.flag_of(name), []).append(other)
    foreign |= {k: f"does nothing with --method {method}, it is for {', '.join(v)}" for k, v in users.items()}
    if argv and argv[0].startswith("-") and any(word.split("=")[0] == "--model" for word in argv):
        words = f"lr {TINY.lr:g}, {TINY.max_response_tokens} tokens"
        print(f"note: no preset is named, so this model gets the settings of `tiny` ({words})", file=sys.stderr)
    cfg = cli.parse(ours, argv, prog=prog, description=description, foreign=foreign)
    given = {word.split("=")[0].replace("_", "-") for word in argv} & {"--beta", "--delta", "--kl-estimator"}
    if given and cfg.mini_batches == 1:
        why = "the policy that is updated is then the one that sampled, and the KL between them is 0"
        print(f"note: {', '.join(sorted(given))} do nothing with --mini-batches 1: {why}", file=sys.stderr)
    return cfg


def _unpickle(fields):
    return config_class(fields["method"])(**fields)


TINY, R1_1_5B, R1_7B = make("tiny"), make("r1-1.5b"), make("r1-7b")
