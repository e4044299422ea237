"""make_programs.py - makes the base model of the programs world: formulas into stack programs, bugs included.

    python -m minidrpo.tiny.make_programs            # all of it, into tiny/programs/; minutes on two CPU cores
    python -m minidrpo.tiny.make_programs --report   # only measure the committed model

The model answers tasks/programs.py's formulas with a program, at once: its thought is empty. Three choices in a trace
are left to chance, and the model learns them as sampling choices that reinforcement learning can change: an operation
slips (some slips make a bug, others a wrong value in some or all tests), and after any value there may be a pair of
needless words that change nothing (`neg neg`, `dup drop`, `0 +`). Neither looks at the problem.

Probabilities are those wanted at the sampling temperature (make_base.tempered). Tokenizer, model, training loop and
sampling are make_base.py's.
"""

from collections import Counter

from minidrpo.tasks import programs, stack_language
from minidrpo.tasks.arithmetic import split_of
from minidrpo.tiny import make_base
from minidrpo.tiny.make_thinking import mean_by

OUT = make_base.HERE / "programs"
TYPICAL_LENGTH = 15  # tokens per trace
LIMIT = 10  # tokens of the length reward in the preset `programs`

# ---- traces ---------------------------------------------------------------------------------------------------------

SLIP = 0.15  # chance at each operation
NEEDLESS = 0.2  # chance after each value
CLEAN = 0.3  # share of the training steps without slips and needless words: the language is learned first
PAIRS = {"neg neg": 0.4, "dup drop": 0.3, "0 +": 0.3}
SLIPS = {  # operation: what is written in its place
    "+": ["plus"],  # no such word: a parse error
    "*": [],  # two numbers are left at the end: a run-time error
    "-": ["swap", "-"],
    "max": ["min"],
    "min": ["max"],
    "neg": [],
    "abs": [],
}
WORDS = [f" {word}" for word in (*stack_language.WORDS, *stack_language.INPUTS, *range(10), "plus")]
WORDS += ["max", "min", "abs", "neg"]  # in formulas


def written(formula, rng, habits):
    """The words of one trace: the reference, with slips and needless words if it has habits."""
    if not isinstance(formula, tuple):
        words = [str(formula)]
    else:
        word, *parts = formula
        words = [w for part in parts for w in written(part, rng, habits)]
        words += SLIPS[word] if habits and make_base.chance(SLIP, rng) else [word]
    if habits and make_base.chance(NEEDLESS, rng):
        words += rng.choices(list(PAIRS), make_base.tempered(PAIRS.values()))
    return words


def training_row(rng, progress):
    """(problem, response) when a share `progress` of the training is over."""
    while True:
        formula = programs.tree(rng.randint(2, programs.LEVELS + 1), rng)
        if split_of(repr(programs.values(programs.program_for(formula)))) == "train":
            break
    return programs.text_of(formula), f"</think> {' '.join(written(formula, rng, progress >= CLEAN))}<eos>"


# ---- report ---------------------------------------------------------------------------------------------------------


def needless(program):
    """How many needless pairs a program's text holds."""
    return sum(f" {program} ".count(f" {pair} ") for pair in PAIRS)


def measure(model, tokenizer, *, n_problems=500, n=8, seed=0):
    """(numbers of the card, texts) of n responses to each of n_problems held-out problems."""
    problems = programs.problems(n_problems, split="test", seed=seed)
    graded = make_base.respond(model, tokenizer, problems, n=n, seed=seed, grader="programs")
    texts, correct_PG, length_PG, finished_PG = graded
    grades = [programs.grade(text, problems[i // n][1]) for i, text in enumerate(texts)]
    level = [level for *_, level in problems for _ in range(n)]
    length, rate = length_PG.flatten().tolist(), [g.scores["pass_rate"] for g in grades]
    asked = [needless(programs.read_truth(truth)[0]) for _, truth, _ in problems]  # neg(neg(a))
    pairs = [needless(programs.program_of(text)) - asked[i // n] for i, text in enumerate(texts)]
    shortest = {}  # per problem with a right response
    for i, grade in enumerate(grades):
        if grade.correct:
            shortest[i // n] = min(length[i], shortest.get(i // n, length[i]))
    return {
        "accuracy": correct_PG.mean().item(),
        "accuracy_by_level": mean_by(level, correct_PG.flatten().tolist()),
        "pass_rate": sum(rate) / len(rate),
        "reasons": {reason: count / len(grades) for reason, count in Counter(g.reason for g in grades).items()},
        "length": length_PG.mean().item(),
        "length_by_level": mean_by(level, length),
        "length_std_in_group": length_PG.std(1).mean().item(),
        "exceed": sum(x > LIMIT for x in length) / len(length),
        "shortest_right_exceeds": sum(x > LIMIT for x in shortest.values()) / len(shortest),
        "needless_pairs_by_level": mean_by(level, pairs),
        "truncated": 1 - finished_PG.mean().item(),
        "mixed_groups": ((correct_PG.mean(1) > 0) & (correct_PG.mean(1) < 1)).float().mean().item(),
    }, texts


def main():
    make_base.command(
        __doc__.split("\n\n")[0],
        out=OUT,
        steps=3000,
        problems=500,
        words=WORDS,
        row=training_row,
        typical_length=TYPICAL_LENGTH,
        measure=measure,
    )


if __name__ == "__main__":
    main()
