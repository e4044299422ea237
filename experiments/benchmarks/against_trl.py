"""against_trl.py - our loop against TRL's GRPOTrainer: the embedded model, the same prompts, one thread, CPU.

    python -m experiments.benchmarks.against_trl                            16 prompts x 8 answers of at most 128 tokens
    python -m experiments.benchmarks.against_trl --prompts 32 --tokens 256  the tiny preset's step
    python -m experiments.benchmarks.against_trl --method drpo              our side trains with DRPO instead of GRPO

TRL is needed beside the project (python -m pip install trl==1.16.0; the project itself never uses it).

Both trainers start from the same weights, take the same problems in the same order, grade with reward.py, sample at
temperature 0.6 until the end token or the limit, and take one AdamW step a batch, in float32 with sdpa attention. The
learning rate is so small that the policy stays the base model: both keep writing answers of the same lengths, so
that the work of every step is alike. Each trainer is a process of its own; they take turns, a step each, so that what
else the machine does meets both. The first steps warm up and are not counted.

Trained tokens are those of answers in groups of which some are right and some wrong, counted alike for both: the other
groups have no gradient (TRL runs them backward all the same). CPU seconds are user + system time of the whole process.
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


def tokens(correct_PG, length_PG):
    """(generated, trained) response tokens of a step; trained: those of groups with something to learn."""
    mixed_P = correct_PG.any(-1) & ~correct_PG.all(-1)
    return int(length_PG.sum()), int(length_PG[mixed_P].sum())


# ------------------------------------------------------------------------------------------------------- the trainers


def ours(turns, args, folder):
    """train.py as anyone runs it, logging included; only its progress bar is replaced, by the turns."""
    from tqdm import tqdm

    import train
    from minidrpo.rundir.report import Run

    batch_numbers, counts = train.batch_numbers, []

    def counting(rollouts, grades, batch, cfg):
        counts.append(tokens(batch.correct_PG, batch.length_PG))
        return batch_numbers(rollouts, grades, batch, cfg)

    def progress(run, steps):
        run.bar = tqdm(disable=True)
        for step in steps:
            turns.begin()
            yield step
            turns.end(*counts.pop())

    train.batch_numbers, Run.progress = counting, progress
    never = str(10**6)
    train.main(
        [
            "tiny",
            f"--method={args.method}",
            f"--prompts-per-step={args.prompts}",
            f"--group-size={args.group}",
            f"--lr={LR}",
            f"--steps={never}",
            f"--max-response-tokens={args.tokens}",
            f"--eval-every={never}",
            f"--save-every={never}",
            "--eval-problems=1",
            "--eval-samples=1",
            f"--show-every={never}",
            f"--run-dir={folder / 'ours'}",
            *args.flags,
        ]
    )


def trl(turns, args, folder):
    """GRPOTrainer with what makes it fast here: whole batch at once, no checkpointing, no KL model, no logs."""
    import torch
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    import reward
    from config import TINY
    from minidrpo.engine import policy
    from minidrpo.tasks import data

    torch.set_num_threads(1)
    tokenizer = policy.load_tokenizer(TINY.model)
    problems = data.load_problems("arithmetic")
    problems, prompts, _ = data.encode_prompts(problems, tokenizer, max_tokens=TINY.max_prompt_tokens, suffix="")
    order = [
        i
        for step in range(args.steps + args.warmup + 1)
        for i in data.batch_indices(TINY.seed, step, len(problems), args.prompts)
    ]
    chats = [
        {"prompt": [{"role": "user", "content": problems[i].prompt}], "truth": str(problems[i].answer)} for i in order
    ]
    first = tokenizer.apply_chat_template(chats[0]["prompt"], add_generation_prompt=True, return_dict=False)
    assert first == prompts[order[0]], "both must see the same token ids"
    counts = []

    def correct(completions, completion_ids, truth, **_):
        grades = reward.grade_all([c[0]["content"] for c in completions], truth)
        finished = [ids[-1] == tokenizer.eos_token_id for ids in completion_ids]
        correct = torch.tensor([g.correct and f for g, f in zip(grades, finished, strict=True)])
        lengths = torch.tensor([len(ids) for ids in completion_ids])
        counts.append(tokens(correct.view(-1, args.group), lengths.view(-1, args.group)))
        return correct.float().tolist()

    class TakeTurns(transformers.TrainerCallback):
        def on_train_begin(self, *_, **__):
            turns.begin()

        def on_step_end(self, *_, **__):
            turns.end(*counts.pop())
            turns.begin()

    batch = args.prompts * args.group
    at_once = args.trl_batch or batch
    config = GRPOConfig(
        output_dir=str(folder / "trl"),
        num_generations=args.group,
        max_completion_length=args.tokens,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=batch // at_once,
        temperature=TINY.temperature,
        top_k=0,
        top_p=1.0,
        beta=0.0,
        loss_type="dapo",
        learning_rate=float(LR),
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=False,
        gradient_checkpointing=False,
        shuffle_dataset=False,
        use_cpu=True,
        max_steps=10**6,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=TINY.seed,
        use_cache=True,
        cache_implementation=args.trl_cache,
    )
    model = policy.load_model(TINY.model)
    assert model.config._attn_implementation == "sdpa" and model.dtype == torch.float32
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=correct,
        args=config,
        train_dataset=Dataset.from_list(chats),
        processing_class=tokenizer,
        callbacks=[TakeTurns()],
    )
    trainer.train()


# ------------------------------------------------------------------------------------------------------------- the run


def child(trainer, pipe, args, folder):
    with open(folder / f"{trainer.__name__}.log", "w") as log:
        os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
        try:
            trainer(Turns(pipe), args, folder)
        except Exception:
            pipe.send({"error": traceback.format_exc()})


def measure(args, folder):
    """{name: [a dict a counted step]}; the two processes take turns."""
    context, workers = multiprocessing.get_context("spawn"), {}
    for trainer in (ours, trl):
        pipe, other = context.Pipe()
        process = context.Process(target=child, args=(trainer, other, args, folder), daemon=True)
        process.start()
        workers[trainer.__name__] = (pipe, process)
    steps = {name: [] for name in workers}
    for step in range(args.warmup + args.steps):
        for name in sorted(workers, reverse=step % 2):  # who goes first alternates too
            pipe, _ = workers[name]
            pipe.send(True)
            result = pipe.recv()
            if "error" in result:
                sys.exit(f"{name} stopped:\n{result['error']}")
            counted = step >= args.warmup
            print(
                f"step {step} {name:4} {result['cpu']:6.2f} CPU s, {result['seconds']:6.2f} s, "
                f"{result['trained']} tokens trained{'' if counted else ' (warm-up)'}",
                file=sys.stderr,
            )
            if counted:
                steps[name].append(result)
    for pipe, process in workers.values():
        pipe.send(False)
        process.join(10)
    return steps


def table(steps):
    def total(name, key):
        return sum(s[key] for s in steps[name])

    rows = {
        "CPU seconds a step, median (least)": lambda n: "{:.2f} ({:.2f})".format(
            statistics.median(s["cpu"] for s in steps[n]), min(s["cpu"] for s in steps[n])
        ),
        "seconds a step, median": lambda n: f"{statistics.median(s['seconds'] for s in steps[n]):.2f}",
        "mean answer, tokens": lambda n: f"{total(n, 'generated') / len(steps[n]) / steps['rows']:.1f}",
        "generated tokens a CPU second": lambda n: f"{total(n, 'generated') / total(n, 'cpu'):,.0f}",
        "trained tokens a CPU second": lambda n: f"{total(n, 'trained') / total(n, 'cpu'):,.0f}",
        "CPU ms a trained token": lambda n: f"{1000 * total(n, 'cpu') / total(n, 'trained'):.4f}",
        "peak memory (RSS), MB": lambda n: f"{max(s['peak_mb'] for s in steps[n]):,.0f}",
    }
    lines = ["| | ours | TRL |", "| --- | --- | --- |"]
    lines += [f"| {label} | {cell('ours')} | {cell('trl')} |" for label, cell in rows.items()]
    for label, key in (("generated", "generated"), ("trained", "trained")):
        cost = {name: total(name, "cpu") / total(name, key) for name in ("ours", "trl")}
        lines.append(f"\nTRL takes {cost['trl'] / cost['ours']:.2f} times the CPU seconds per {label} token.")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--method", default="grpo", help="our --method; TRL's is GRPO")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="limit of an answer")
    parser.add_argument("--steps", type=int, default=8, help="counted steps of each trainer")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--trl-batch", type=int, default=0, help="TRL's per-device batch; 0: all answers at once")
    parser.add_argument("--trl-cache", default=None, help="TRL's cache_implementation, such as static")
    parser.add_argument("flags", nargs="*", help="more flags for our train.py, after --")
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
    print(table(steps | {"rows": args.prompts * args.group}))


if __name__ == "__main__":
    main()
