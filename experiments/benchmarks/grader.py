"""benchmarks/grader.py - accuracy and speed of reward.py, beside math-verify where that is installed.

    python -m experiments.benchmarks.grader            needs nothing else
    pip install math-verify==0.9.0         (in a scratch environment) adds the comparison, same cases, same run

Cases are those of tests/reward_cases.py (hand-written, none from a data set) and easy answers made by rule: integers,
decimals, fractions and lists in the spellings models use, half of them wrong. One process, one thread; rates count
processor seconds, so that a busy machine does not blur the comparison.
"""

import json
import random
import statistics
import time

import reward
from tests import reward_cases


def easy_cases(n, seed=0):
    """(gold, answer, equal): what almost every training answer looks like."""
    rng, cases = random.Random(seed), []
    for _ in range(n):
        value, equal = rng.randint(-2000, 2000), rng.random() < 0.5
        other = value if equal else value + rng.choice((-10, -1, 1, 10, 1000))
        style = rng.choice(
            [
                "{}",
                "{}",
                "{}",
                "${}$",
                "{}.0",
                "x={}",
                r"\frac{{{}}}{{7}}",
                "{}, 5",
                r"{}\sqrt{{2}}",
                r"{}^\circ",
                r"\text{{{}}}",
            ]
        )
        gold = style if "frac" in style or "," in style or "sqrt" in style else "{}"
        cases.append((gold.format(value), style.format(other), equal))
    return cases


def table_cases():
    """(gold, answer, equal) of the test table."""
    rows = [(gold, answer, True) for _, gold, answer in reward_cases.same]
    return rows + [(gold, answer, False) for _, gold, answer in reward_cases.different]


def ours(gold, answer):
    return reward.same_answer(answer, gold)


def math_verify():
    """math-verify as a grader of (gold, answer), or None; its time limits stay on, as its users have them."""
    try:
        from math_verify import parse, verify
    except ImportError:
        return None
    return lambda gold, answer: verify(parse(rf"\boxed{{{gold}}}"), parse(rf"\boxed{{{answer}}}"))


def measure(name, grader, cases):
    """One row: right, wrongly accepted and wrongly refused answers, and the rate."""
    seconds, worst, right, accepted, refused = [], 0.0, 0, 0, 0
    for gold, answer, equal in cases:
        start, begun = time.process_time(), time.perf_counter()
        verdict = bool(grader(gold, answer))
        seconds.append(time.process_time() - start)
        worst = max(worst, time.perf_counter() - begun)
        right, accepted, refused = right + (verdict == equal), accepted + (verdict > equal), refused + (verdict < equal)
    return {
        "grader": name,
        "cases": len(cases),
        "accuracy": round(right / len(cases), 4),
        "false_positives": accepted,
        "false_negatives": refused,
        "per_cpu_second": round(len(cases) / sum(seconds)),
        "median_ms": round(1e3 * statistics.median(seconds), 4),
        "worst_wall_s": round(worst, 3),
    }


def batch(cases, n=1024, seed=1):
    """Seconds for grade_all on one training step's worth of whole responses, table and easy cases mixed."""
    chosen = random.Random(seed).choices(cases, k=n)
    thinking = "so it goes " * 300
    responses = [f"<think>{thinking}</think>\n\nThe answer is $\\boxed{{{answer}}}$." for _, answer, _ in chosen]
    start, begun = time.process_time(), time.perf_counter()
    grades = reward.grade_all(responses, [gold for gold, _, _ in chosen])
    return {
        "grade_all": n,
        "wall_s": round(time.perf_counter() - begun, 3),
        "cpu_s": round(time.process_time() - start, 3),
        "correct": sum(grade.correct for grade in grades),
    }


def main():
    ours("x+1", "1+x")  # imports mpmath
    easy, table, other = easy_cases(5000), table_cases(), math_verify()
    for label, cases, few in (("easy", easy, 500), ("table", table, len(table))):
        print(json.dumps({"cases_of": label} | measure("reward.py", ours, cases)))
        if other:
            print(json.dumps({"cases_of": label} | measure("reward.py, same subset", ours, cases[:few])))
            print(json.dumps({"cases_of": label} | measure("math-verify", other, cases[:few])))
    print(json.dumps({"first": batch(easy + table), "second": batch(easy + table, seed=2)}))


if __name__ == "__main__":
    main()
