"""sampler.py - tokens per CPU second: rollout.TransformersSampler against model.generate, on the embedded model.

    python -m experiments.benchmarks.sampler          32 prompts x 8 responses, temperature 0.6, at most 256 tokens

The two take turns, one thread; the first turn of each warms up and is not counted. Tokens are those up to and with the
end token. Both keep the log-probability of each token: generate through its scores.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from config import TINY
from minidrpo.engine import loading
from minidrpo.tasks import data
from rollout import TransformersSampler


def ours(model, tokenizer, prompts, args, turn):
    """(mean length, tokens) of one turn of our sampler."""
    sampler = TransformersSampler(model, tokenizer)
    seeds = [1000 * turn + p for p in range(len(prompts))]
    rollouts = sampler.sample(prompts, n=args.n, temperature=0.6, max_tokens=args.max_tokens, seeds=seeds)
    tokens = sum(len(r.response_ids) for r in rollouts)
    return tokens / len(rollouts), tokens


def theirs(model, tokenizer, prompts, args, turn):
    """The same of model.generate: all rows at once, until the longest has finished."""
    torch.manual_seed(turn)
    width, end = max(map(len, prompts)), model.generation_config.eos_token_id
    end = end if isinstance(end, list) else [end]
    ids = torch.tensor([[end[0]] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(
        ids, attention_mask=mask, do_sample=True, temperature=0.6, top_p=1.0, top_k=0, pad_token_id=end[0],
        max_new_tokens=args.max_tokens, num_return_sequences=args.n, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    ids = out.sequences[:, width:]
    torch.stack([logits.div(0.6).log_softmax(-1).gather(-1, ids[:, t : t + 1]) for t, logits in enumerate(out.logits)])
    ended = torch.isin(ids, torch.tensor(end)).int().cumsum(-1)
    tokens = int(((ended == 0) | ((ended == 1) & torch.isin(ids, torch.tensor(end)))).sum())
    return tokens / len(ids), tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--n", type=int, default=8, help="responses per prompt")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = loading.load_model(TINY.model), loading.load_tokenizer(TINY.model)
    problems = data.load_problems("arithmetic", n=args.prompts)
    prompts = data.encode_prompts(problems, tokenizer, max_tokens=TINY.max_prompt_tokens)[1]
    speeds = {ours: [], theirs: []}
    with torch.no_grad():
        for turn in range(args.turns + 1):
            for sample in speeds:
                start = time.process_time()
                mean_length, tokens = sample(model, tokenizer, prompts, args, turn)
                speeds[sample].append(tokens / (time.process_time() - start))
                speed = f"{speeds[sample][-1]:,.0f} tokens/s"
                print(f"{sample.__name__:6} turn {turn}: mean length {mean_length:5.1f}, {speed}")
    fast, slow = (statistics.median(values[1:]) for values in speeds.values())
    print(f"tokens per CPU second, medians: ours {fast:,.0f}, model.generate {slow:,.0f}, {fast / slow:.1f} times")


if __name__ == "__main__":
    main()
