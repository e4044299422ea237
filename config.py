"""config.py - every setting of a training run, one frozen dataclass; the presets are its instances.

The dial is `--lam`; `--method` trains any other method of the papers, which has a knob of its own. Every other default
is the official run's (github Optimization-AI/DRPO, its 8k scripts), but for evaluation, which samples as the paper's
does (top_p 0.95; the run's own validation has 1), the number of steps (theirs: 1,001) and what memory suits. The `tiny`
preset says what it changes so that a laptop finishes in minutes.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import minidrpo.tiny
from minidrpo.methods.table import METHODS, PREFERENCES, REWARDS
from minidrpo.tasks.data import SUFFIX

TINY_MODEL = str(Path(minidrpo.tiny.__file__).parent)


@dataclass(frozen=True)
class Config:
    # What is trained, on what
    model: str = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    """A directory or Hub id of a causal LM in safetensors."""
    train_data: str = "deepscaler"
    """A Hub id, a .parquet/.json/.jsonl file, or built in: arithmetic, thinking (thinking@0.9: nine tenths easy)."""
    eval_data: str = "aime"
    """Held-out problems, named as in train_data or eval.py."""
    suffix: str = SUFFIX
    """Appended to each problem that does not already end with it."""
    skip_unanswered: bool = False
    """Leave out (and count) rows without an answer instead of stopping."""
    template: bool = True
    """Use the tokenizer's chat template; --no-template trains on the bare text."""

    method: Literal[tuple(METHODS)] = "drpo"
    """Who gets how much credit (methods.py)."""

    # DRPO and DisCO (drpo.py)
    lam: float = 0.1
    """lambda, the dial: small favours short correct answers, large ignores length, inf is DisCO."""
    preference: Literal[tuple(PREFERENCES)] = "linear"
    """What is preferred among correct answers: short ones (three shapes), or few reflection words."""
    score: Literal["log_likelihood", "likelihood_ratio"] = "log_likelihood"
    negatives: Literal["dro", "mean"] = "dro"
    """How wrong answers are pushed down: worst case (DisCO, DRPO) or mean (DisCO-b)."""
    tau: float = 10.0
    """Temperature of the DRO over wrong answers; small concentrates on the likeliest one."""
    beta: float = 1e3
    """Weight of the trust region's squared hinge, (beta/2) [KL - delta]_+^2."""
    delta: float = 1e-4
    """Radius of the trust region: KL(old || new) in nats a token that costs nothing."""
    kl_estimator: Literal["k1", "k3"] = "k1"

    # The other methods' own knobs (baselines.py)
    alpha: float = 0.2
    """grpo-lp, rloo-lp: weight of the length penalty; 0 is none."""
    alp_beta: float = 1e-7
    """alp: reward lost a token, times the prompt's solve rate."""
    hapo_w: float = 1.0
    """hapo: weight of the length reward; at most 1 keeps every right answer above every wrong one."""
    l1_target: int = 4096
    """l1-max: tokens asked for."""
    l1_alpha: float = 3e-4
    """l1-max: reward lost a token over the target."""
    l1_slope: Literal["paper", "code"] = "paper"
    """l1-max: as published, or half as steep as in its repository."""
    l1_prompt: bool = True
    """l1-max: tell the model the target ("Think for maximum N tokens.")."""
    sb_a: float = 2.0
    """shorter-better: reward of a right answer."""
    sb_b: float = 1e-3
    """shorter-better: reward lost a token of distance from the group's shortest right answer."""
    laser_bonus: float = 0.5
    """laser-d: reward of a right answer within its target."""
    laser_every: int = 20
    """laser-d: steps between two choices of the targets."""
    rewards: tuple[Literal[tuple(REWARDS)], ...] = ("correct", "conditioned_length")
    """gdpo, grpo-sum: which rewards; conditioned: only a right answer earns it. format and integer look for <answer>
    tags (GDPO's GSM8K task); correct wants a box there, too."""
    reward_weights: tuple[float, ...] = ()
    """gdpo, grpo-sum: one weight a reward; none: all 1."""
    length_limit: int = 4000
    """gdpo, grpo-sum: tokens within which the length rewards are earned."""
    gdpo_over: Literal["sequences", "tokens"] = "sequences"
    """gdpo: normalise the batch over answers (paper) or over tokens."""
    adv_std: Literal["sample", "population"] = "sample"
    """GRPO and what builds on it (not gdpo, which has its own): divide by this standard deviation ..."""
    adv_eps: float = 1e-6
    """... plus this. ALP's beta acts through it."""

    # One step: sample, grade, weigh, update
    steps: int = 1000
    prompts_per_step: int = 128
    """P, over all ranks."""
    group_size: int = 8
    """G, answers a prompt."""
    mini_batches: int = 4
    """Optimizer steps a rollout batch; the first is on-policy, the trust region holds the others."""
    max_prompt_tokens: int = 1024
    """Longer prompts are dropped and counted."""
    max_response_tokens: int = 8192
    """C: longer answers are cut, count as wrong, and are reported as truncated."""
    temperature: float = 0.6
    sampler: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM where it and a GPU are there, else Transformers."""
    gpu_memory_utilization: float = 0.5
    """Share of a GPU that vLLM may take while it samples."""

    # The optimizer
    lr: float = 2e-6
    weight_decay: float = 0.01
    warmup_steps: int = 0
    """Steps of linear warm-up, then constant."""
    grad_clip: float = 1.0
    micro_batch_tokens: int = 16384
    """Padded tokens a forward pass; changes memory and speed, never the gradient."""
    gradient_checkpointing: bool = True
    shard: bool = False
    """Split weights, gradients and moments over all ranks (FSDP2) instead of replicating them; needs torchrun."""
    compile: bool = False
    """torch.compile each decoder layer; needs a sampler with weights of its own (vLLM)."""
    dry_run: bool = False
    """Only print what each GPU must hold and what a step is, or why it cannot fit."""
    gpus: int = 0
    """--dry-run: how many; 0 is what this machine has, or 8."""
    gpu_memory: float = 0.0
    """--dry-run: GiB of each; 0 is what this machine's have, or 80."""

    # Watching and keeping
    seed: int = 0
    run_dir: str = ""
    """Default: runs/ and a name made of the preset's model, lambda and seed."""
    eval_start: bool = True
    """Evaluate the model before the first step, too; without, the run ends without its before/after table."""
    eval_every: int = 20
    eval_problems: int = 0
    """Held-out problems an evaluation; 0 takes all."""
    eval_samples: int = 8
    """Answers a held-out problem."""
    eval_top_p: float = 0.95
    save_every: int = 20
    keep_checkpoints: int = 2
    """Newest checkpoints that stay on disk (beside the last)."""
    show_every: int = 10
    """Steps between two whole answers printed to read."""
    tensorboard: bool = False
    resume: bool = True
    """Go on from the run directory's newest checkpoint; --no-resume refuses a directory that is not empty."""
    trust_remote_code: bool = False

    def __post_init__(self):
        def need(ok, flag, rule):
            if not ok:
                value = getattr(self, flag)
                raise ValueError(f"--{flag.replace('_', '-')} must be {rule}, got {value}")

        for flag in ("lam", "tau", "adv_eps"):
            need(getattr(self, flag) > 0, flag, "positive")  # also catches nan
        for flag in (
            *("beta", "delta", "weight_decay", "warmup_steps", "eval_problems", "lr", "seed", "gpus", "gpu_memory"),
            *("alpha", "alp_beta", "hapo_w", "l1_alpha", "sb_a", "sb_b", "laser_bonus"),
        ):
            need(getattr(self, flag) >= 0, flag, "0 or more")
        for flag in (
            *("tau", "beta", "delta", "lr", "weight_decay"),
            *("alpha", "alp_beta", "hapo_w", "l1_alpha", "sb_a", "sb_b", "laser_bonus", "adv_eps"),
        ):
            need(math.isfinite(getattr(self, flag)), flag, "finite")
        need(0 < self.temperature < math.inf, "temperature", "positive")
        need(0 < self.eval_top_p <= 1, "eval_top_p", "in (0, 1]")
        need(math.isfinite(self.gpu_memory), "gpu_memory", "finite")
        need(0 < self.gpu_memory_utilization < 1, "gpu_memory_utilization", "in (0, 1)")
        need(self.grad_clip > 0, "grad_clip", "positive")
        need(self.group_size >= 2, "group_size", "2 or more: one answer has nothing to be compared with")
        for flag in (
            *("steps", "prompts_per_step", "mini_batches", "max_prompt_tokens", "max_response_tokens"),
            *("micro_batch_tokens", "eval_every", "eval_samples", "save_every", "keep_checkpoints", "show_every"),
            *("l1_target", "laser_every", "length_limit"),
        ):
            need(getattr(self, flag) >= 1, flag, "1 or more")
        if self.prompts_per_step % self.mini_batches:
            raise ValueError(
                f"--prompts-per-step {self.prompts_per_step} must be a multiple of --mini-batches {self.mini_batches}"
            )

        if not self.rewards:
            raise ValueError("--rewards needs at least one")
        if len(self.reward_weights) not in (0, len(self.rewards)):
            raise ValueError(
                f"--reward-weights must be as many as --rewards, got {len(self.reward_weights)} for {len(self.rewards)}"
            )
        need(all(map(math.isfinite, self.reward_weights)), "reward_weights", "finite")

    @property
    def dial(self):
        """The method and its knob, in words and short: "drpo lam=0.1"."""
        knob = METHODS[self.method].knob
        return f"{self.method} {knob}={getattr(self, knob):g}" if knob else self.method

    @property
    def suffixes(self):
        """What is said after each problem: the instruction, and L1-Max's budget."""
        says_budget = self.method == "l1-max" and self.l1_prompt
        return [self.suffix, f"Think for maximum {self.l1_target} tokens." if says_budget else ""]

    @property
    def directory(self):
        """Where this run writes; derived unless given. Another setting in the same directory is refused (report.py)."""
        dial = f"lam{self.lam:g}" if self.method == "drpo" else self.dial.replace(" ", "-").replace("=", "")
        return Path(self.run_dir or f"runs/{Path(self.model).name}-{dial}-seed{self.seed}").expanduser()

    def numbers(self):
        """The settings that decide the run's numbers: two configs with equal numbers() may continue each other.
        Those of memory change no gradient, only its rounding: a run that ran out of it may go on with less."""
        free = {"run_dir", "resume", "steps", "save_every", "keep_checkpoints", "show_every", "tensorboard"}
        free |= {"micro_batch_tokens", "gradient_checkpointing", "gpu_memory_utilization", "shard", "compile"}
        free |= {"dry_run", "gpus", "gpu_memory"}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in free}


def refuse_ignored(cfg, preset):
    """ValueError for a setting that is not the preset's and that nothing reads: only other methods, only a dry run."""
    if (cfg.gpus or cfg.gpu_memory) and not cfg.dry_run:
        raise ValueError("--gpus and --gpu-memory are for --dry-run: torchrun says how many ranks there are")
    for field in dataclasses.fields(cfg):
        users = [name for name, method in METHODS.items() if field.name in method.settings]
        value, ignored = getattr(cfg, field.name), users and cfg.method not in users
        if cfg.method.startswith("disco") and (field.name, value) in (("lam", math.inf), ("negatives", "mean")):
            continue  # says what it does anyway
        # --length-limit is also the limit of reward_length, which is logged for every method
        if ignored and field.name != "length_limit" and value != getattr(preset, field.name):
            flag = f"--{field.name.replace('_', '-')}"
            raise ValueError(f"{flag} does nothing with --method {cfg.method}, it is for {', '.join(users)}")


TINY = Config(
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
    eval_problems=512,
    eval_samples=4,
    eval_top_p=1.0,
    eval_every=10,
    save_every=10,
    show_every=10,
)
R1_1_5B = Config()
R1_7B = dataclasses.replace(
    R1_1_5B, model="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", lr=1e-6, shard=True, gpu_memory_utilization=0.6
)

PRESETS = {
    "tiny": ("the embedded model on any machine, minutes on a CPU", TINY),
    "r1-1.5b": ("DeepSeek-R1-Distill-Qwen-1.5B, one node of 8 x 80 GB", R1_1_5B),
    "r1-7b": ("DeepSeek-R1-Distill-Qwen-7B, sharded over a node of 8 x 80 GB", R1_7B),
}
