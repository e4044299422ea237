"""grader.py - accuracy and speed of reward.py, beside math-verify where that is installed.

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
from minidrpo import cli
from tests import reward_cases

STYLES = r"{}|{}|{}|${}$|{}.0|x={}|\frac{{{}}}{{7}}|{}, 5|{}\sqrt{{2}}|{}^\circ|\text{{{}}}".split("|")


def easy_cases(n: int, seed=0) -> list[tuple]:
    """[(truth, answer, equal)]: what almost every training answer looks like."""
    rng, cases = random.Random(seed), []
    for _ in range(n):
        value, equal = rng.randint(-2000, 2000), rng.random() < 0.5
        other = value if equal else value + rng.choice((-10, -1, 1, 10, 1000))
        style = rng.choice(STYLES)
        truth = style if "frac" in style or "," in style or "sqrt" in style else "{}"
        cases.append((truth.format(value), style.format(other), equal))
    return cases


def table_cases() -> list[tuple]:
    """[(truth, answer, equal)] of the test table."""
    cases = ((reward_cases.same, True), (reward_cases.different, False))
    return [(truth, answer, equal) for rows, equal in cases for _, truth, answer in rows]


def ours(truth, answer):
    return reward.same_answer(answer, truth)


def math_verify():
    """math-verify as a grader of (truth, answer), or None; its time limits stay on, as its users have them."""
    try:
        from math_verify import parse, verify
    except ImportError:
        return None
    return lambda truth, answer: verify(parse(rf"\boxed{{{truth}}}"), parse(rf"\boxed{{{answer}}}"))


def measure(name, grader, cases):
    """One row: correct, wrongly accepted and wrongly refused answers, and the rate."""
    seconds, worst, verdicts = [], 0.0, []
    for truth, answer, equal in cases:
        start, begun = time.process_time(), time.perf_counter()
        verdicts.append((bool(grader(truth, answer)), equal))
        seconds.append(time.process_time() - start)
        worst = max(worst, time.perf_counter() - begun)
    return {
        "grader": name,
        "cases": len(cases),
        "accuracy": round(sum(verdict == equal for verdict, equal in verdicts) / len(cases), 4),
        "false_positives": verdicts.count((True, False)),
        "false_negatives": verdicts.count((False, True)),
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
    grades = reward.grade_all(responses, [truth for truth, _, _ in chosen])
    wall, cpu = time.perf_counter() - begun, time.process_time() - start
    correct = sum(grade.correct for grade in grades)
    return {"grade_all": n, "wall_s": round(wall, 3), "cpu_s": round(cpu, 3), "correct": correct}


def main(argv=None):
    cli.parse(cli.NoFlags, argv, prog="grader.py", description="Accuracy and speed of reward.py.")
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
