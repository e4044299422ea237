"""logprob_memory.py - memory of the answers' log-probabilities: Policy's chunked head against a plain log-softmax.

    python benchmarks/logprob_memory.py                       8,192 tokens, a vocabulary of 151,936
    python benchmarks/logprob_memory.py --plain-tokens 8192   the plain one at full size too: takes 25 GB

Forward and backward through a random head on the CPU, in float32, each in a process of its own; the peak is the
kernel's high-water mark (Linux) above what was resident with the inputs, the head and its gradient's place in it. The
plain form's memory is proportional to the tokens, so it is run on fewer and scaled; on those, values and gradients
of both are compared.

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
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import torch  # noqa: E402
from torch import nn  # noqa: E402

from policy import Policy  # noqa: E402

TEMPERATURE = 0.6


def resident(key):
    """Bytes of this process in memory: VmRSS now, VmHWM the most since the mark was reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key + ":"))
    return 1024 * int(line.split()[1])


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
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # a process of its own: which, tokens, file
    args = parser.parse_args()
    if args.one:
        which, tokens, path = args.one
        start = time.process_time()
        result, peak = forward_backward(globals()[which], int(tokens), args.vocabulary, args.hidden)
        torch.save((result, peak, time.process_time() - start), path)
        return

    def run(which, tokens):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, f"--vocabulary={args.vocabulary}", f"--hidden={args.hidden}"]
            subprocess.run([*command, "--one", which, str(tokens), f"{folder}/result"], check=True)
            return torch.load(f"{folder}/result", weights_only=True)

    runs = {(which, tokens): run(which, tokens) for which, tokens in
            [("plain", args.plain_tokens), ("chunked", args.plain_tokens), ("chunked", args.tokens)]}  # fmt: skip
    print(f"vocabulary {args.vocabulary}, hidden size {args.hidden}, float32, one thread\n")
    print("| log-probabilities | tokens | peak above the inputs, MB | CPU seconds |\n| --- | --- | --- | --- |")
    for (which, tokens), (_, peak, seconds) in runs.items():
        print(f"| {which} | {tokens} | {peak / 2**20:,.0f} | {seconds:.1f} |")
    whole = runs["plain", args.plain_tokens][1] * args.tokens / args.plain_tokens
    scaled = "" if args.tokens == args.plain_tokens else " (scaled)"
    ratio = whole / runs["chunked", args.tokens][1]
    print(f"\nAt {args.tokens} tokens the plain form takes {whole / 2**20:,.0f} MB{scaled}, {ratio:.0f} times as much.")
    ours, theirs = (runs[which, args.plain_tokens][0] for which in ("chunked", "plain"))
    gaps = [error(a, b) for a, b in zip(ours, theirs, strict=True)]
    print("Largest relative difference: values {:.1e}, gradients {:.1e} (inputs) and {:.1e} (head).".format(*gaps))


if __name__ == "__main__":
    main()
