"""against_trl.py - our loop against TRL's GRPOTrainer: the embedded model, the same prompts, one thread, CPU.

    python -m experiments.benchmarks.against_trl                            16 prompts x 8 responses, at most 128 tokens
    python -m experiments.benchmarks.against_trl --prompts 32 --tokens 256  the tiny preset's step
    python -m experiments.benchmarks.against_trl --method drpo              our side trains with DRPO instead of GRPO

TRL is needed beside the project (python -m pip install trl==1.16.0; the project itself never uses it).

Both trainers start from the same weights, take the same problems in the same order, grade with reward.py, sample at
temperature 0.6 until the end token or the limit, and take one AdamW step per batch, in float32 with sdpa attention. The
learning rate is so small that the policy stays the base model: both keep writing responses of the same lengths, so
that the work of every step is alike. Each trainer is a process of its own; they take turns, one step each, so that
other work on the machine slows both alike. The first steps warm up and are not counted.

Trained tokens are those of responses in groups of which some are correct and some wrong, counted alike for both: the
other groups have no gradient (TRL runs them backward all the same). CPU seconds are user + system time of the whole
process.
"""

import argparse
import importlib.util
import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # before torch
LR = "1e-9"
GROUP, WARM_UP = 8, 2  # responses per prompt, steps that are not counted


class Turns:
    """A trainer's end of the pipe: every step waits for its turn and reports what it took."""

    def __init__(self, pipe):
        self.pipe, self.start = pipe, None

    def begin(self):
        if not self.pipe.recv():
            raise SystemExit
        self.start = time.perf_counter(), time.process_time()

    def end(self, generated, trained):
        seconds, cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.pipe.send({"seconds": seconds, "cpu": cpu, "generated": generated, "trained": trained, "peak_mb": peak})


def tokens(correct_PG, length_PG) -> tuple[int, int]:
    """(generated, trained) response tokens of a step; trained: those of groups with something to learn."""
    mixed_P = correct_PG.any(-1) & ~correct_PG.all(-1)
    return int(length_PG.sum()), int(length_PG[mixed_P].sum())


# ------------------------------------------------------------------------------------------------------- the trainers


def ours(turns, args, folder):
    """train.py as anyone runs it, logging included; only its progress bar is replaced, by the turns."""
    from tqdm import tqdm

    import train
    from minidrpo import setup
    from minidrpo.rundir.log import RunLog

    batch_numbers, counts = setup.batch_numbers, []

    def counting(responses, batch, cfg):
        counts.append(tokens(batch.correct_PG, batch.length_PG))
        return batch_numbers(responses, batch, cfg)

    def progress(run, steps):
        run.bar = tqdm(disable=True)
        for step in steps:
            turns.begin()
            yield step
            turns.end(*counts.pop())

    setup.batch_numbers, RunLog.progress = counting, progress
    flags = {"method": args.method, "prompts-per-step": args.prompts, "max-response-tokens": args.tokens}
    flags |= {"group-size": GROUP, "lr": LR, "max-problems": 1, "samples": 1, "run-dir": folder / "ours"}
    flags |= dict.fromkeys(("steps", "eval-every", "save-every", "show-every"), 10**6)  # never
    train.main(["tiny", *(f"--{flag}={value}" for flag, value in flags.items())])


def trl(turns, args, folder):
    """GRPOTrainer with what makes it fast here: whole batch at once, no checkpointing, no KL model, no logs."""
    import torch
    import transformers
    from trl import GRPOConfig, GRPOTrainer

    import reward
    from config import TINY
    from minidrpo.engine import loading

    torch.set_num_threads(1)
    tokenizer, counts = loading.load_tokenizer(TINY.model), []

    def correct(completions, completion_ids, truth, **_):
        grades = reward.grade_all([c[0]["content"] for c in completions], truth)
        finished = [ids[-1] == tokenizer.eos_token_id for ids in completion_ids]
        correct = torch.tensor([g.correct and f for g, f in zip(grades, finished, strict=True)])
        lengths = torch.tensor([len(ids) for ids in completion_ids])
        counts.append(tokens(correct.view(-1, GROUP), lengths.view(-1, GROUP)))
        return correct.float().tolist()

    class TakeTurns(transformers.TrainerCallback):
        def on_train_begin(self, *_, **__):
            turns.begin()

        def on_step_end(self, *_, **__):
            turns.end(*counts.pop())
            turns.begin()

    sampling = {"temperature": TINY.temperature, "top_k": 0, "top_p": 1.0, "max_completion_length": args.tokens}
    batch = {"num_generations": GROUP, "per_device_train_batch_size": args.prompts * GROUP, "shuffle_dataset": False}
    objective = {"beta": 0.0, "loss_type": "dapo", "max_grad_norm": 1.0, "max_steps": 10**6, "seed": TINY.seed}
    optimizer = {"learning_rate": float(LR), "lr_scheduler_type": "constant", "weight_decay": 0.0}
    machine = {"bf16": False, "gradient_checkpointing": False, "use_cpu": True, "use_cache": True}
    quiet = {"logging_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    settings = sampling | batch | objective | optimizer | machine | quiet
    model = loading.load_model(TINY.model)
    assert model.config._attn_implementation == "sdpa" and model.dtype == torch.float32
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=correct,
        args=GRPOConfig(output_dir=str(folder / "trl"), **settings),
        train_dataset=same_problems(tokenizer, args),
        processing_class=tokenizer,
        callbacks=[TakeTurns()],
    )
    trainer.train()


def same_problems(tokenizer, args):
    """TRL's data set: the problems in the order in which train.py takes them, one row per prompt."""
    from datasets import Dataset

    from config import TINY
    from minidrpo.tasks import data

    problems = data.load_problems("arithmetic")
    problems, prompts, _ = data.encode_prompts(problems, tokenizer, max_tokens=TINY.max_prompt_tokens, suffix="")
    steps = range(args.steps + WARM_UP + 1)
    order = [i for s in steps for i in data.batch_indices(TINY.seed, s, len(problems), args.prompts)]
    chats = [[{"role": "user", "content": problems[i].prompt}] for i in order]
    first = tokenizer.apply_chat_template(chats[0], add_generation_prompt=True, return_dict=False)
    assert first == prompts[order[0]], "both must see the same token ids"
    return Dataset.from_dict({"prompt": chats, "truth": [str(problems[i].answer) for i in order]})


# ------------------------------------------------------------------------------------------------------------- the run


def child(trainer, pipe, args, folder):
    with open(folder / f"{trainer.__name__}.log", "w") as log:
        os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
        try:
            trainer(Turns(pipe), args, folder)
        except Exception:
            pipe.send({"error": traceback.format_exc()})


def measure(args, folder) -> dict[str, list[dict]]:
    """trainer -> a dict for each counted step; the two processes take turns."""
    context, workers = multiprocessing.get_context("spawn"), {}
    for trainer in (ours, trl):
        pipe, other = context.Pipe()
        process = context.Process(target=child, args=(trainer, other, args, folder), daemon=True)
        process.start()
        workers[trainer.__name__] = (pipe, process)
    steps = {name: [] for name in workers}
    for step in range(WARM_UP + args.steps):
        for name in sorted(workers, reverse=step % 2):  # who goes first alternates too
            pipe, _ = workers[name]
            pipe.send(True)
            result = pipe.recv()
            if "error" in result:
                sys.exit(f"{name} stopped:\n{result['error']}")
            about = f"{result['cpu']:6.2f} CPU s, {result['seconds']:6.2f} s, {result['trained']} tokens trained"
            print(f"step {step} {name:4} {about}{' (warm-up)' * (step < WARM_UP)}", file=sys.stderr)
            if step >= WARM_UP:
                steps[name].append(result)
    for pipe, process in workers.values():
        pipe.send(False)
        process.join(10)
    return steps


def table(steps, responses):
    """Markdown; responses: per step."""
    rows = {}
    for name, own in steps.items():
        cpu, seconds = ([s[key] for s in own] for key in ("cpu", "seconds"))
        generated, trained = (sum(s[key] for s in own) for key in ("generated", "trained"))
        rows[name] = {
            "CPU seconds per step, median (least)": f"{statistics.median(cpu):.2f} ({min(cpu):.2f})",
            "seconds per step, median": f"{statistics.median(seconds):.2f}",
            "mean response, tokens": f"{generated / len(own) / responses:.1f}",
            "generated tokens per CPU second": f"{generated / sum(cpu):,.0f}",
            "trained tokens per CPU second": f"{trained / sum(cpu):,.0f}",
            "CPU ms per generated token": f"{1000 * sum(cpu) / generated:.4f}",
            "CPU ms per trained token": f"{1000 * sum(cpu) / trained:.4f}",
            "peak memory (RSS), MB": f"{max(s['peak_mb'] for s in own):,.0f}",
        }
    lines = ["| | ours | TRL |", "| --- | --- | --- |"]
    lines += [f"| {label} | {cell} | {rows['trl'][label]} |" for label, cell in rows["ours"].items()]
    for kind in ("generated", "trained"):
        ours, theirs = (float(rows[name][f"CPU ms per {kind} token"]) for name in ("ours", "trl"))
        lines.append(f"\nTRL takes {theirs / ours:.2f} times the CPU seconds per {kind} token.")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=16, help="per step")
    parser.add_argument("--tokens", type=int, default=128, help="limit of a response")
    parser.add_argument("--method", default="grpo", help="our --method; TRL's is GRPO")
    parser.add_argument("--steps", type=int, default=8, help="counted steps of each trainer")
    args = parser.parse_args()
    if importlib.util.find_spec("trl") is None:
        sys.exit("TRL is not installed: python -m pip install trl==1.16.0 (only this benchmark uses it)")
    folder = Path(tempfile.mkdtemp())
    try:
        steps = measure(args, folder)
    except EOFError:
        sys.exit("a trainer died:\n" + "\n".join(log.read_text()[-2000:] for log in folder.glob("*.log")))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table(steps, args.prompts * GROUP))


if __name__ == "__main__":
    main()
