"""make_base.py - makes the embedded base model ("tiny overthinker"): tokenizer, traces, supervised training, report.

    python -m minidrpo.tiny.make_base            # all of it, into tiny/; a few minutes on two CPU cores
    python -m minidrpo.tiny.make_base --report   # only measure the committed model

A Qwen2 of 0.4 million parameters learns to answer arithmetic.py's chains by imitating random traces that think
the way large reasoning models are said to: a first pass, then "Wait, let me check" again and again. Three choices in a
trace are left to chance, and the model learns them as *sampling choices* that reinforcement learning can change:
whether a pass is hasty ("Quickly") or careful ("Step by step"), whether an operation slips (a forgotten carry, a
forgotten borrow, one too many), and whether to check once more. As in the DRPO paper (arXiv 2510.04474), thinking on
buys some accuracy and is mostly needless: a check or two repairs slips, the others repeat.

Probabilities below are those wanted at the sampling temperature; `tempered` turns them into those of the traces.

Tokenizer, model, supervised training and sampling serve make_thinking.py too: what differs there is an argument here.
"""

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path

import torch
from tokenizers import AddedToken, pre_tokenizers
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

from minidrpo import cli
from minidrpo.engine.distributed import end_with_parent
from minidrpo.files import read_json
from minidrpo.tasks import arithmetic
from reward import grade_all
from rollout import TransformersSampler, opens_thought

HERE = Path(__file__).resolve().parent

TEMPERATURE = 0.6
LIMIT = 256
TYPICAL_LENGTH = 100  # tokens per trace
THINK = "<think>\n"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<eos>"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
UNOPENED = CHAT_TEMPLATE.replace("<think>\n", "")  # the model writes <think> itself

# ---- traces ---------------------------------------------------------------------------------------------------------

HASTY_FIRST, HASTY_CHECK = 0.6, 0.2  # how often a pass is done in a hurry
SLIP_HASTY = (0.14, 0.20, 0.26, 0.32, 0.38)  # chance of a slip at each operation, by level
SLIP_CAREFUL = (0.04, 0.06, 0.09, 0.12, 0.15)
STOP = (0.18, 0.32, 0.44, 0.60, 1.0)  # chance to stop after the first pass, the first check, ...
CLEAN = 0.3  # share of the training steps without slips: arithmetic is learned first, bad habits after it
OPENERS = {"Wait, let me check": 0.3, "Let me check again": 0.2, "Alternatively": 0.2, "Hmm, check": 0.2, "Wait": 0.1}


def tempered(probabilities):
    """Probabilities p which, sampled at TEMPERATURE, become q: p ~ q^T, since softmax(log p / T) ~ p^(1/T)."""
    powers = [q**TEMPERATURE for q in probabilities]
    return [p / sum(powers) for p in powers]


def chance(q, rng):
    """True with the tempered probability of q against 1 - q."""
    return rng.random() < tempered([q, 1 - q])[0]


def slip(left, sign, right):
    """The one wrong result of an operation: the carry forgotten, the borrow forgotten, or one too many."""
    if sign == "+":
        return left + right - 10 if left % 10 + right % 10 >= 10 else left + right + 1
    return left - right + 10 if left % 10 < right % 10 else left - right + 1


def one_pass(first, steps, hasty, slips, rng):
    """(text, result) of one pass over the chain, its slips included: `Quickly: 17+5=22 -8=14.`"""
    probability = (SLIP_HASTY if hasty else SLIP_CAREFUL)[len(steps) - 2]
    total, lines = first, []
    for sign, right in steps:
        result = (slip if slips and chance(probability, rng) else arithmetic.apply)(total, sign, right)
        lines.append(f"{sign}{right}={result}")
        total = result
    return f"{'Quickly' if hasty else 'Step by step'}: {first}{' '.join(lines)}.", total


def trace(first, steps, rng, slips=True):
    """(response, checks): what the model is shown as the answer to a chain. The prompt already holds `<think>`."""
    text, result = one_pass(first, steps, chance(HASTY_FIRST, rng), slips, rng)
    results = [result]
    for stop in STOP:
        disagree = len(set(results[-2:])) > 1  # then it is less likely to leave it at that
        if stop == 1 or chance(stop * 0.75 if disagree else stop, rng):
            break
        opener = rng.choices(list(OPENERS), tempered(OPENERS.values()))[0]
        again, result = one_pass(first, steps, chance(HASTY_CHECK, rng), slips, rng)
        text += f"\n{opener}. {again}"
        text += " Same." if result == results[-1] else " Hmm, no."
        results.append(result)
    best = max(results[::-1], key=results.count)  # what most passes say; the latest of equals
    return f"{text}</think>\nThe answer is \\boxed{{{best}}}.<eos>", len(results) - 1


# ---- tokenizer and model --------------------------------------------------------------------------------------------

WORDS = ["Quickly", " Quickly", "Step by step", " Step by step", "Wait", "Hmm", " Hmm", "Alternatively", "Let"]
WORDS += [" let", " me", " check", " again", " Same", " no", "The", " answer", " is", "\\boxed{"]
# True: left out by decode(skip_special_tokens=True). As in R1, <think> and </think> stay, for the grader to see.
MARKERS = {"<pad>": True, "<eos>": True, "<|user|>": True, "<|assistant|>": True, "<think>": False, "</think>": False}


def make_tokenizer(words=WORDS, template=CHAT_TEMPLATE):
    """One token a byte, one a word of the traces, six markers; no merges. Text (NFC) comes back exactly.

    It is a Qwen2Tokenizer because AutoTokenizer insists on that class for a Qwen2 model, whatever the files say.
    """
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + words + list(MARKERS)
    tokenizer = Qwen2Tokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=[],
        unk_token="<pad>",  # no byte is unknown; named only so that the class adds no token of its own
        pad_token="<pad>",
        eos_token="<eos>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    tokenizer.add_tokens([AddedToken(m, special=special, normalized=False) for m, special in MARKERS.items()])
    assert len(tokenizer) == len(pieces)
    return tokenizer


def make_model(tokenizer, hidden, layers, init=0.02):
    """An untrained Qwen2 with its own head (untied) and head_dim 32, which vLLM serves on CPU and CUDA. init: std of
    its weights; the usual one is that of wide models."""
    config = Qwen2Config(
        vocab_size=math.ceil(len(tokenizer) / 32) * 32,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=1024,
        initializer_range=init,
        tie_word_embeddings=False,
        use_cache=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


# ---- supervised training --------------------------------------------------------------------------------------------


def training_chain(rng):
    """A random chain of the train split, all levels equally often."""
    level = rng.randint(1, arithmetic.LEVELS)
    while True:
        first, steps = arithmetic.chain(level, rng)
        if arithmetic.split_of(arithmetic.text_of(first, steps)) == "train":
            return first, steps


def training_row(rng, progress):
    """(problem, response) when a share `progress` of the training is over: at first without slips."""
    first, steps = training_chain(rng)
    return arithmetic.text_of(first, steps), trace(first, steps, rng, slips=progress >= CLEAN)[0]


def prompts_of(tokenizer, texts):
    """The token ids that the model reads for each problem's text."""
    chats = [[{"role": "user", "content": text}] for text in texts]
    texts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def training_batches(tokenizer, steps, batch, rng, row=training_row):
    """Yields (ids_NT, labels_NT) of fresh rows, right-padded; labels are -100 outside the response.

    Eight batches are drawn at once and sorted by length, so that little is padded.
    """
    for start in range(0, steps, 8):
        rows = [row(rng, start / steps) for _ in range(8 * batch)]
        prompts = prompts_of(tokenizer, [text for text, _ in rows])
        responses = tokenizer([response for _, response in rows], add_special_tokens=False)["input_ids"]
        rows = sorted(zip(prompts, responses, strict=True), key=lambda pair: len(pair[0]) + len(pair[1]))
        groups = [rows[i : i + batch] for i in range(0, len(rows), batch)]
        rng.shuffle(groups)
        for group in groups[: steps - start]:
            width = max(len(p) + len(a) for p, a in group)
            ids = torch.tensor([p + a + [tokenizer.pad_token_id] * (width - len(p) - len(a)) for p, a in group])
            labels = torch.tensor([[-100] * len(p) + a + [-100] * (width - len(p) - len(a)) for p, a in group])
            yield ids, labels


def train(model, tokenizer, *, steps, batch, lr, seed, row=training_row, typical_length=TYPICAL_LENGTH):
    """Supervised training with AdamW, linear warm-up and cosine decay. Returns the last mean loss (nats per token)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * i / steps)))
    )
    bar, smooth = tqdm(total=steps, desc="supervised", unit="step", mininterval=1 if sys.stderr.isatty() else 20), None
    model.train()
    for ids, labels in training_batches(tokenizer, steps, batch, random.Random(f"traces {seed}"), row):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # right padding: causal attention never sees it
        # Divided by a constant, not by this batch's tokens: batches are sorted by length, and a mean would give the
        # decision to stop more weight in the short ones, so that the model would stop too early.
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
        loss = nats / (batch * typical_length)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        bar.set_postfix(loss=f"{smooth:.3f}", refresh=False)
        bar.update()
    bar.close()
    model.eval()
    return smooth


# ---- report ---------------------------------------------------------------------------------------------------------


def respond(model, tokenizer, problems, *, n, seed, grader=""):
    """n sampled responses per problem: (texts, correct_PG, length_PG, finished_PG), texts in prompt order. grader: who
    grades, as in Problem."""
    prompts = prompts_of(tokenizer, [text for text, _, _ in problems])
    rollouts = TransformersSampler(model, tokenizer).sample(
        prompts, n=n, temperature=TEMPERATURE, max_tokens=LIMIT, seeds=[10**6 * seed + i for i in range(len(prompts))]
    )
    texts = tokenizer.batch_decode([r.response_ids for r in rollouts], skip_special_tokens=True)
    truths = [truth for _, truth, _ in problems for _ in range(n)]
    whole = [THINK + text for text in texts] if opens_thought(prompts[0], tokenizer) else texts
    grades = grade_all(whole, truths, graders=[grader] * len(truths))
    table = [[g.correct for g in grades], [len(r.response_ids) for r in rollouts], [r.finished for r in rollouts]]
    return texts, *torch.tensor(table, dtype=torch.float).view(3, len(problems), n)


def measure(model, tokenizer, *, n_problems=512, n=8, seed=0):
    """Numbers of the card: accuracy, lengths and how they go together inside a group of n responses to one problem."""
    problems = arithmetic.problems(n_problems, split="test", seed=seed)
    texts, correct, length, finished = respond(model, tokenizer, problems, n=n, seed=seed)
    checks = torch.tensor([t.partition("</think>")[0].count("\n") for t in texts]).view(n_problems, n)
    level = torch.tensor([p[2] for p in problems])
    mixed = (correct.mean(1) > 0) & (correct.mean(1) < 1)
    dl = length[mixed] - length[mixed].mean(1, keepdim=True)
    dc = correct[mixed] - correct[mixed].mean(1, keepdim=True)
    first_hasty = torch.tensor([t.startswith("Quickly") for t in texts]).view(n_problems, n)
    return {
        "accuracy": correct.mean().item(),
        "mean_length": length.mean().item(),
        "truncated": 1 - finished.mean().item(),
        "mixed_groups": mixed.float().mean().item(),
        "length_std_in_group": length.std(1).mean().item(),
        "length_correct_correlation_in_group": (
            (dl * dc).sum() / (dl.square().sum() * dc.square().sum()).sqrt()
        ).item(),
        "accuracy_by_level": {k: correct[level == k].mean().item() for k in range(1, arithmetic.LEVELS + 1)},
        "length_by_level": {k: length[level == k].mean().item() for k in range(1, arithmetic.LEVELS + 1)},
        "accuracy_by_checks": {k: correct[checks == k].mean().item() for k in range(len(STOP)) if (checks == k).any()},
        "share_by_checks": {k: (checks == k).float().mean().item() for k in range(len(STOP))},
        "hasty_first": first_hasty.float().mean().item(),
    }, texts


def report(folder, measure=measure, *, n_problems, n):
    """Prints and returns `measure` of the model in `folder`."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    start = time.time()
    numbers, texts = measure(model, tokenizer, n_problems=n_problems, n=n)
    rounded = json.loads(json.dumps(numbers), parse_float=lambda x: round(float(x), 3))
    for name, value in rounded.items():
        print(f"{name:36s} {value}")
    print(
        f"{n_problems} held-out problems x {n}, temperature {TEMPERATURE}, limit {LIMIT}, {time.time() - start:.0f} s"
    )
    print("\n--- two responses ---\n" + texts[n] + "\n---\n" + texts[3 * n])
    return rounded


def make(out, *, words, template, hidden, layers, seed, init, practice=None, **training):
    """Trains a fresh model and writes it with its tokenizer into the folder `out`. practice: called with the trained
    model, the tokenizer and the training's arguments; those of a second training of it, or None for no second one."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(words, template)
    model = make_model(tokenizer, hidden, layers, init)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, vocabulary {model.config.vocab_size}")
    train(model, tokenizer, seed=seed, **training)
    if practice and (more := practice(model, tokenizer, training)):
        train(model, tokenizer, seed=f"{seed} practice", **more)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=TEMPERATURE,
        max_new_tokens=LIMIT,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def command(
    description, *, out, steps, problems, words, row, typical_length, measure,
    template=CHAT_TEMPLATE, batch=32, lr=3e-3, init=0.02, practice=None,
):  # fmt: skip
    """The command line of every embedded model: make one, unless --report, and measure it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--report", action="store_true", help="measure the model in --out, train nothing")
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--problems", type=int, default=problems, help="held-out problems measured, 8 responses each")
    parser.add_argument("--parent", type=int, default=0, help="a process id: end when that process does")
    cli.print_anything()
    args = parser.parse_args()
    if args.parent:
        end_with_parent(args.parent)
    if not args.report:
        there = args.out / "config.json"
        if there.exists() and "model_type" not in read_json(there):
            parser.error(f"--out {args.out} holds a config.json that is not a model's")
        size = {"hidden": args.hidden, "layers": args.layers, "words": words, "template": template, "init": init}
        training = {"steps": args.steps, "batch": args.batch, "lr": args.lr, "row": row}
        make(args.out, seed=args.seed, typical_length=typical_length, practice=practice, **size, **training)
    report(args.out, measure, n_problems=args.problems, n=8)


def main():
    command(
        __doc__.split("\n\n")[0],
        out=HERE,
        steps=2000,
        problems=512,
        words=WORDS,
        row=training_row,
        typical_length=TYPICAL_LENGTH,
        measure=measure,
    )


if __name__ == "__main__":
    main()
