"""fuzz_grader.py - mutated answers against mutated truths: no exception, no hang, a reason for every verdict.

    python -m experiments.benchmarks.fuzz_grader [SECONDS] [SEED]

Also checks that every text equals itself, and prints the slowest cases. What it found is now a test.
"""

import random
import time

import reward
from minidrpo import cli
from tests import reward_cases, test_reward

SLOW = 1.0  # processor seconds


def mutate(text: str, rng: random.Random, seeds: list[str]) -> str:
    """A few random edits: delete, repeat, swap, insert a piece, splice another text."""
    for _ in range(rng.randint(0, 4)):
        i, j = sorted(rng.randint(0, len(text)) for _ in range(2))
        kind = rng.randrange(5)
        if kind == 0:
            text = text[:i] + text[j:]
        elif kind == 1:
            text = text[:i] + text[i:j] * rng.choice((2, 2, 3, 50)) + text[j:]
        elif kind == 2:
            text = text[:i] + rng.choice(test_reward.PIECES) + text[i:]
        elif kind == 3:
            text = text[:i] + rng.choice(seeds) + text[j:]
        else:
            code = rng.choice((rng.randrange(32, 127), rng.randrange(0x300, 0x3000), rng.randrange(32)))
            text = text[:i] + chr(code) + text[j:]
    return text[:3000]


def main(argv=None):
    given = cli.words(argv, "python -m experiments.benchmarks.fuzz_grader [SECONDS] [SEED]", 0, 2)
    with cli.user_errors():
        seconds, seed = *map(int, given), *(600, 0)[len(given) :]
    rng, end, n, slowest, proofs = random.Random(seed), time.monotonic() + seconds, 0, [], 0
    seeds = [text for _, truth, answer in reward_cases.same + reward_cases.different for text in (truth, answer)]
    seeds += [attack[:200] for attack in test_reward.ATTACKS]

    def prove(truth, answer):
        nonlocal proofs
        proofs += 1
        return False

    while time.monotonic() < end:
        a, b = mutate(rng.choice(seeds), rng, seeds), mutate(rng.choice(seeds), rng, seeds)
        start = time.process_time()
        try:
            grade = reward.grade_answer(a, b, prove)
            assert grade.reason in reward.REASONS and grade.correct == (grade.reason == "correct")
            itself = reward.grade_answer(a, a, prove)
            assert itself.correct or not a.strip() or "boxed" in a, "not its own equal"
            reward.grade(f"</think>\\boxed{{{a}}}", b)
        except Exception as error:
            print(f"FOUND {type(error).__name__}: {error} answer={a!r} truth={b!r}", flush=True)
        used = time.process_time() - start
        if used > SLOW:
            print(f"SLOW {used:.2f} s answer={a!r} truth={b!r}", flush=True)
        slowest = sorted([*slowest, (used, a[:80], b[:80])], reverse=True)[:5]
        n += 1
    print(f"{n} pairs in {seconds} s, {proofs} wanted sympy; slowest: {slowest}")


if __name__ == "__main__":
    main()
