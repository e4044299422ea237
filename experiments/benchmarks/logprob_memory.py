"""logprob_memory.py - memory of the responses' log-probabilities: Policy's chunked head against a plain log-softmax.

    python -m experiments.benchmarks.logprob_memory                       8,192 tokens, a vocabulary of 151,936
    python -m experiments.benchmarks.logprob_memory --plain-tokens 8192   the plain one at full size too: takes 25 GB

Forward and backward through a random head on the CPU, in float32, each in a process of its own; the peak is the
kernel's high-water mark (Linux) above what was resident with the inputs and the head. The plain form's memory is
proportional to the tokens, so it is run on fewer and scaled; on those, values and gradients of both are compared.

M response tokens | V vocabulary | H hidden size
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch
from torch import nn

TEMPERATURE = 0.6
VOCABULARY, HIDDEN = 151_936, 32  # Qwen2's V; the memory in question hardly depends on H


def resident(key: str) -> int:
    """Bytes of this process in memory: VmRSS now, VmHWM the most since the mark was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def peak_above(work):
    """(result, bytes): what work() returns, and how far memory rose while it ran."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = resident("VmRSS")
    return work(), resident("VmHWM") - before


class Head(nn.Module):
    """A language model of nothing but its output layer."""

    def __init__(self, hidden_size, vocabulary):
        super().__init__()
        self.head = nn.Linear(hidden_size, vocabulary, bias=False)
        nn.init.normal_(self.head.weight)

    def get_output_embeddings(self):
        return self.head


def plain(head, hidden_MH, target_M):
    return (head.head(hidden_MH) / TEMPERATURE).log_softmax(-1).gather(-1, target_M[:, None])[:, 0]


def chunked(head, hidden_MH, target_M, **options):
    from minidrpo.engine.policy import Policy  # here, as it takes seconds, of which the plain form needs none

    return Policy(head, TEMPERATURE, **options)._token_logp(hidden_MH, target_M)


def forward_backward(logp_of, tokens, vocabulary, hidden_size, **options):
    """((logp_M, gradients of hidden_MH and of the head), peak bytes) for random inputs."""
    torch.manual_seed(0)
    hidden_MH = torch.randn(tokens, hidden_size, requires_grad=True)
    target_M, weight_M = torch.randint(vocabulary, (tokens,)), torch.randn(tokens)
    head = Head(hidden_size, vocabulary)

    def work():
        logp_M = logp_of(head, hidden_MH, target_M, **options)
        (weight_M * logp_M).sum().backward()
        return logp_M.detach(), hidden_MH.grad, head.head.weight.grad

    return peak_above(work)


def error(ours, theirs):
    """Largest difference, relative to the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--plain-tokens", type=int, default=1024)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # in a process of its own: which, where to write
    args = parser.parse_args()
    if args.one:
        torch.save(measure(args.one[0], args), args.one[1])
        return

    def run(which):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, *sys.argv, "--one", which, f"{folder}/result"], check=True)
            return torch.load(f"{folder}/result")

    rows = {which: run(which) for which in ("plain", "chunked")}
    print(f"vocabulary {VOCABULARY}, hidden size {HIDDEN}, float32, one thread\n")
    print("| log-probabilities | tokens | peak above the inputs, MB | CPU seconds |\n| --- | --- | --- | --- |")
    for which, row in rows.items():
        print(f"| {which} | {row['tokens']} | {row['peak'] / 2**20:,.0f} | {row['seconds']:.1f} |")
    whole = rows["plain"]["peak"] * args.tokens / args.plain_tokens
    scaled = "" if args.tokens == args.plain_tokens else " (scaled)"
    times = whole / rows["chunked"]["peak"]
    print(f"\nAt {args.tokens} tokens the plain form takes {whole / 2**20:,.0f} MB{scaled}, {times:.0f} times as much.")
    values, inputs, head = rows["plain"]["errors"]
    print(f"Largest relative difference: values {values:.1e}, gradients {inputs:.1e} (inputs) and {head:.1e} (head).")


def measure(which, args):
    """A row of the table; the plain form's also says how far the chunked one's results on the same tokens are off."""
    tokens, errors = args.tokens if which == "chunked" else args.plain_tokens, None
    if which == "chunked":
        from minidrpo.engine import policy  # noqa: F401  its own memory is not what is measured
    start = time.process_time()
    results, peak = forward_backward(globals()[which], tokens, VOCABULARY, HIDDEN)
    seconds = time.process_time() - start
    if which == "plain":
        ours, _ = forward_backward(chunked, tokens, VOCABULARY, HIDDEN)
        errors = [error(a, b) for a, b in zip(ours, results, strict=True)]
    return {"tokens": tokens, "peak": peak, "seconds": seconds, "errors": errors}


if __name__ == "__main__":
    main()
