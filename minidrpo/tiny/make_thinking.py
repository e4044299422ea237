"""make_thinking.py - makes the base model of the thinking world: traces in two ways, and a report of R1 to R5.

    python -m minidrpo.tiny.make_thinking            # all of it, into tiny/thinking/; minutes on two CPU cores
    python -m minidrpo.tiny.make_thinking --report   # only measure the committed model

The model answers tasks/thinking.py's chains of 1 to 5 operations in one of two ways. The short way writes the value of
the whole chain at once. The long way does one operation at a time, and says so in many words. With one operation there
is little to do, and both are right. With more, a model of this size cannot do the sum at once: it is shown the right
value just as often, and does not learn it. Which way is taken is a coin flip that knows nothing of the problem, and so
is the number of needless re-checks: what a good policy would choose is left to reinforcement learning.

Traces have no slips. Probabilities are those wanted at the sampling temperature (make_base.tempered).
Tokenizer, model, training loop and sampling are make_base.py's.
"""

import re
from collections import defaultdict

from minidrpo.tasks import arithmetic, thinking
from minidrpo.tasks.thinking import LEVELS, LONG, SHORT
from minidrpo.tiny import make_base

OUT = make_base.HERE / "thinking"
TYPICAL_LENGTH = 60  # tokens per trace

# ---- traces ---------------------------------------------------------------------------------------------------------

SHORT_SHARE = 0.5  # how often the short way is taken
CHECK = (0.75, 0.6)  # chance of a first re-check, and of a second after it
CLEAN = 0.4  # share of the training steps without re-checks and without guesses: arithmetic is learned first
LEVEL_WEIGHTS = (2, 1, 1, 1, 1)  # of the training rows: level 1 must be right in the short way, too
ENOUGH = 0.9  # of the longest chains are right in the long way; else there is a second training, of
PRACTICE = 0.3  # times the steps
PRACTICE_WEIGHTS = (2, 1, 1, 2, 6)  # and these rows
KEEP_TWO_DIGITS = 0.5  # of the chains that start with two digits; nine in ten do, and the others were learned badly
OPENERS = {"Wait, check again": 0.4, "Let me check again": 0.3, "Hmm, once more": 0.3}

WORDS = [SHORT, LONG, " start with ", ", next ", " so ", "Wait", "Hmm", "Let me"]
WORDS += [", check again", " check again", ", once more", "The answer is", " \\boxed{"]


def one_pass(first, steps, way):
    """The chain worked out in one way: `18+2-5=15.` or ` start with 18, next +2 so 18+2=20, next -5 so 20-5=15.`"""
    if way == SHORT:
        return f" {arithmetic.text_of(first, steps)[:-1]}{arithmetic.truth_of(first, steps)}."
    total, text = first, f" start with {first}"
    for sign, right in steps:
        result = arithmetic.apply(total, sign, right)
        text += f", next {sign}{right} so {total}{sign}{right}={result}"
        total = result
    return text + "."


def trace(first, steps, way, openers=()):
    """The response that takes `way`, with a re-check after each opener. The prompt already holds `<think>`."""
    worked = one_pass(first, steps, way)
    # Spelled in bytes: these 21 tokens make the long way dear where it is not needed, on easy problems.
    aside = ", slowly and in order" if way == LONG else ""
    checks = "".join(f"\n{opener}:{worked}" for opener in openers)
    return f"{way}{aside}:{worked}{checks}</think>\nThe answer is \\boxed{{{arithmetic.truth_of(first, steps)}}}.<eos>"


def training_row(rng, progress, weights=LEVEL_WEIGHTS):
    """(problem, response) when a share `progress` of the training is over."""
    (level,) = rng.choices(range(1, LEVELS + 1), weights)
    while True:
        first, steps = thinking.chain(level, rng)
        text = arithmetic.text_of(first, steps)
        if arithmetic.split_of(text) == "train" and (first < 10 or rng.random() < KEEP_TWO_DIGITS):
            break
    clean = progress < CLEAN
    may_be_short = level == 1 or not clean
    way = SHORT if may_be_short and make_base.chance(SHORT_SHARE, rng) else LONG
    openers = []
    for chance in () if clean else CHECK:
        if not make_base.chance(chance, rng):
            break
        openers += rng.choices(list(OPENERS), make_base.tempered(OPENERS.values()))
    return text, trace(first, steps, way, openers)


def practice(model, tokenizer, training, n=100):
    """A second training, mostly of long chains, for a model whose long way is not right yet on n training problems of
    the last level: some seeds confuse neighbouring operations there. Both ways are shown as often as before."""
    problems = [p for p in thinking.problems(n * LEVELS, split="train", seed=1) if p[2] == LEVELS]
    texts, correct_PG, *_ = make_base.respond(model, tokenizer, problems, n=8, seed=1)
    long = [right for text, right in zip(texts, correct_PG.flatten(), strict=True) if thinking.way(text) == LONG]
    right = sum(long) / max(1, len(long))
    print(f"long way, {LEVELS} operations, training problems: {100 * right:.1f} % right")
    if right >= ENOUGH:
        return None
    changes = {"steps": round(PRACTICE * training["steps"]), "lr": training["lr"] * 2 / 3}
    return training | changes | {"row": lambda rng, _: training_row(rng, 1, PRACTICE_WEIGHTS)}


# ---- report ---------------------------------------------------------------------------------------------------------


def passes(response):
    """[(way, value), ...] of the passes in a response's thought; the value is None where none is written."""
    found = []
    for line in response.partition("</think>")[0].split("\n"):
        value = re.search(r"=(\d+)\.?$", line)
        found.append((LONG if " start with " in line else SHORT, int(value[1]) if value else None))
    return found


def explained(value_PG):
    """Share of a number's variance that the prompt explains (intraclass correlation): about 0 if it explains none."""
    G = value_PG.shape[1]
    between, within = G * value_PG.mean(1).var(), value_PG.var(1).mean()
    return ((between - within) / (between + (G - 1) * within)).item()


def mean_by(key, value, chosen=None):
    """{key: mean of the values that have it}, of the chosen ones."""
    groups = defaultdict(list)
    for i in range(len(key)):
        if chosen is None or chosen[i]:
            groups[key[i]].append(value[i])
    return {k: sum(v) / len(v) for k, v in sorted(groups.items())}


def count(texts, levels, correct_PG, length_PG, finished_PG):
    """Numbers of the card, by way and by level: P problems, G responses each, texts in the order of the problems."""
    P, G = correct_PG.shape
    level = [level for level in levels for _ in range(G)]
    way = [thinking.way(text) for text in texts]
    thoughts = [passes(text) for text in texts]
    checks = [len(thought) - 1 for thought in thoughts]
    correct, length = correct_PG.flatten().tolist(), length_PG.flatten().tolist()
    solved_P, mixed_P = correct_PG.min(1).values, correct_PG.max(1).values - correct_PG.min(1).values
    agree = [len({value for _, value in thought}) == 1 for thought in thoughts]
    numbers = {
        "accuracy": correct_PG.mean().item(),
        "accuracy_by_level": mean_by(level, correct),
        "length": length_PG.mean().item(),
        "length_by_level": mean_by(level, length),
        "truncated": 1 - finished_PG.mean().item(),
        "solved_groups": mean_by(levels, solved_P.tolist()),
        "mixed_groups": mean_by(levels, mixed_P.tolist()),
        "short_share": mean_by(level, [w == SHORT for w in way]),
        "opens_in_a_way": sum(w is not None for w in way) / len(way),
        "stays_in_its_way": sum({w for w, _ in t} == {way[i]} for i, t in enumerate(thoughts)) / len(way),
        "checks": mean_by(level, checks),
        "share_by_checks": {k: checks.count(k) / len(checks) for k in sorted(set(checks))},
        "checks_explained_by_prompt": explained(correct_PG.new_tensor(checks).view(P, G)),
    }
    for name, words in (("short", SHORT), ("long", LONG)):
        chosen = [w == words for w in way]
        numbers[f"{name}_accuracy"] = mean_by(level, correct, chosen)
        numbers[f"{name}_length"] = mean_by(level, length, chosen)
        numbers[f"{name}_checks"] = mean_by(level, checks, chosen)
        numbers[f"{name}_accuracy_by_checks"] = mean_by(checks, correct, chosen)
        numbers[f"{name}_passes_agree_by_checks"] = mean_by(checks, agree, chosen)
        for group, levels_in in (("easy", [1]), ("hard", range(2, LEVELS + 1))):
            here = [c and k in levels_in for c, k in zip(chosen, level, strict=True)]
            numbers[f"{name}_{group}_length_by_checks"] = mean_by(checks, length, here)
    return numbers


def dial(shares=(thinking.LEAST_EASY, thinking.EASY_SHARE, thinking.MOST_EASY), n=8000):
    """{easy_share asked for: share of level 1 in a training set of n problems}"""
    return {s: sum(lv == 1 for *_, lv in thinking.problems(n, split="train", easy_share=s)) / n for s in shares}


def properties(numbers):
    """{what the thinking world promises: whether the numbers of `measure` show it}"""
    hard = range(2, LEVELS + 1)
    by_checks = [numbers["short_accuracy_by_checks"], numbers["long_accuracy_by_checks"]]
    return {
        "R1 short way, easy: above 90 %": numbers["short_accuracy"][1] > 0.9,
        "R1 short way, hard: below 40 %": all(numbers["short_accuracy"][k] < 0.4 for k in hard),
        "R1 long way: above 85 % at every level": min(numbers["long_accuracy"].values()) > 0.85,
        "R2 short way: 25 to 75 % at every level": all(0.25 < x < 0.75 for x in numbers["short_share"].values()),
        "R2 the first words choose the way": min(numbers["opens_in_a_way"], numbers["stays_in_its_way"]) > 0.95,
        "R3 re-checks are there at every level": min(numbers["checks"].values()) > 0.5,
        "R3 they gain nothing": all(x[k] - x[0] < 0.05 for x in by_checks for k in (1, 2)),
        "R3 their number does not depend on the prompt": abs(numbers["checks_explained_by_prompt"]) < 0.05
        and max(numbers["checks"].values()) - min(numbers["checks"].values()) < 0.3,
        "R4 easy_share is the share of easy problems": all(abs(s - x) < 1e-3 for s, x in numbers["dial"].items()),
        "R5 accuracy 45 to 75 %": 0.45 < numbers["accuracy"] < 0.75,
        "R5 more than half of the groups on easy prompts are solved": numbers["solved_groups"][1] > 0.5,
    }


def measure(model, tokenizer, *, n_problems=500, n=8, seed=0):
    """(numbers and properties, texts) of n responses to each of n_problems held-out problems."""
    problems = thinking.problems(n_problems, split="test", seed=seed)
    texts, *graded = make_base.respond(model, tokenizer, problems, n=n, seed=seed)
    numbers = count(texts, [level for _, _, level in problems], *graded) | {"dial": dial()}
    return numbers | properties(numbers), texts


def main():
    make_base.command(
        __doc__.split("\n\n")[0],
        out=OUT,
        steps=5000,
        problems=500,
        words=WORDS,
        row=training_row,
        typical_length=TYPICAL_LENGTH,
        measure=measure,
        practice=practice,
    )


if __name__ == "__main__":
    main()
