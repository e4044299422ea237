"""Knights and knaves: exactly one solution by another way of looking, splits that share no logic, an exact grader, and
the public files."""

import itertools
import json
import random
import re
import time

import pyarrow.parquet
import pytest

from minidrpo.tasks import data, knights
from minidrpo.tasks.knights import grade


def holds(statement, roles):
    """Is the statement true where roles[i] says that i is a knight? In plain words, without truth tables."""
    if len(statement) == 2:
        person, is_knight = statement
        return roles[person] == is_knight
    connective, left, right = statement
    a, b = holds(left, roles), holds(right, roles)
    return {"and": a and b, "or": a or b, "if": b if a else True, "iff": a == b}[connective]


def fitting(statements):
    """Every assignment in which each knight's statement is true and each knave's is false."""
    every = itertools.product([False, True], repeat=len(statements))
    return [roles for roles in every if all(holds(s, roles) == role for s, role in zip(statements, roles, strict=True))]


def check_unique(n):
    rng = random.Random(0)
    for i in range(n):
        statements, solution = knights.drawn(2 + i % 7, rng)
        assert fitting(statements) == [tuple(solution)]


def test_a_puzzle_has_exactly_one_solution():
    check_unique(350)


@pytest.mark.slow
def test_five_thousand_puzzles_have_exactly_one_solution():
    check_unique(5000)


def test_all_solutions_are_counted_also_none_and_several():
    rng = random.Random(1)
    counts = set()
    for _ in range(200):
        n = rng.randint(2, 5)
        statements = [knights.statement(i, n, rng) for i in range(n)]
        fits, brute = knights.solutions(statements), fitting(statements)
        assert {a for a in range(2**n) if fits >> a & 1} == {sum(k << i for i, k in enumerate(r)) for r in brute}
        counts.add(min(len(brute), 2))
    assert counts == {0, 1, 2}


def test_eight_people_come_fast():
    """CPU seconds, the better of two tries: 200 a second is promised."""
    times = []
    for seed in range(2):
        start, rng = time.process_time(), random.Random(seed)
        for _ in range(100):
            knights.drawn(8, rng)
        times.append(time.process_time() - start)
    assert min(times) < 0.5


def test_splits_share_no_logic_and_sets_are_a_pure_function_of_their_arguments(monkeypatch):
    drawn, seen = knights.drawn, []
    monkeypatch.setattr(knights, "drawn", lambda n, rng: seen.append(drawn(n, rng)) or seen[-1])
    logic = {}
    for split in ("train", "test"):
        seen.clear()
        made = knights.problems(140, split=split)
        logic[split] = {repr(statements) for statements, _ in seen if knights.split_of(repr(statements)) == split}
        assert len({text for text, *_ in made}) == 140 and [n for *_, n in made[:8]] == [2, 3, 4, 5, 6, 7, 8, 2]
        assert made[:20] == knights.problems(20, split=split) != knights.problems(20, split=split, seed=1)
    assert not logic["train"] & logic["test"] and len(logic["train"]) > 100
    for bad in ({"n": 3, "split": "dev"}, {"n": -1, "split": "test"}):
        with pytest.raises(ValueError, match="knights: "):
            knights.problems(**bad)


def read_claim(text):
    name, role = re.fullmatch(r"(\w+) is a (knight|knave)", text).groups()
    return name, role == "knight"


def test_the_words_say_what_the_logic_is():
    """Read a puzzle back from its English and solve it by brute force: the truth comes out."""
    forms = (r"if (.+) then (.+)", r"(.+) if and only if (.+)", r"(.+) and (.+)", r"(.+) or (.+)")
    connectives = ("if", "iff", "and", "or")
    for text, truth, _ in knights.problems(210, split="test"):
        people = re.search(r"You meet \d inhabitants: (.*?)\. ", text)[1].replace("and ", "").split(", ")
        body = text.partition("inhabitants: ")[2].partition(". ")[2].partition(" So who is a knight")[0]
        patterns = [r'(\w+) said, "(.+?)\."', r'(\w+) stated: "(.+?)\."', r"(\w+) told you that (.+?)\."]
        patterns += [r"According to (\w+), (.+?)\.", r'"(?P<b>.+?)," claimed (?P<a>\w+)\.']
        statements = {}
        while body := body.strip():
            match = next(filter(None, (re.match(pattern, body) for pattern in patterns)))
            name, claim = (match["a"], match["b"]) if "a" in match.groupdict() else match.groups()
            for connective, form in zip(connectives, forms, strict=True):
                if parts := re.fullmatch(form, claim):
                    left, right = ((people.index(p), k) for p, k in map(read_claim, parts.groups()))
                    statements[name] = (connective, left, right)
                    break
            else:
                person, is_knight = read_claim(claim)
                statements[name] = people.index(person), is_knight
            body = body[match.end() :]
        (roles,) = fitting([statements[name] for name in people])
        assert knights.identities(truth) == dict(zip(people, roles, strict=True))


# ---- grading ---------------------------------------------------------------------------------------------------------

TRUTH = "(1) Zoey is a knight\n(2) Oliver is a knave\n(3) Mia is a knight"


def answered(text, thought="Suppose Zoey lies."):
    return f"<think>{thought}</think>\n<answer>{text}</answer>"


RIGHT = [
    TRUTH,
    "\n(3) Mia is a knight\n(1) Zoey is a knight\n(2) Oliver is a knave\n",
    "Zoey is a knight, Oliver is a knave, and Mia is a knight.",
    "1. Zoey is a Knight\n2. Oliver is a Knave\n3. Mia is a Knight",
    "(1) **Zoey** is a knight\n* **Oliver** is a **knave**\n**(3) Mia** is a *knight*.",
    "- **Zoey is a knight**\n- **Oliver is a knave**\n- **Mia is a knight**",
    "(1) Zoey is a knight (2) Oliver is a knave (3) Mia is a knight".replace(" (", "; ("),
]
WRONG = {
    "wrong": [
        TRUTH.replace("knave", "knight"),
        TRUTH.rpartition("\n")[0],
        TRUTH + "\n(4) Ava is a knight",
        TRUTH.replace("Mia", "mia"),
        "",
    ],
    "unreadable": [
        TRUTH + "\n(4) Zoey is a knave",
        TRUTH + "\n(4) Zoey is a knight",
        TRUTH.replace("a knave", "a knave or a knight"),
        TRUTH.replace("is a knave", "is not a knight"),
        "One of these: " + TRUTH,
        "a" * 10**6,
        "\n" * 3000 + "x",
    ],
}


@pytest.mark.parametrize("text", RIGHT)
def test_right_answers_in_any_order(text):
    verdict = grade(answered(text), TRUTH)
    assert verdict.correct and verdict.reason == "correct" and verdict.scores == {"format": 1, "people_right": 1}
    assert verdict.answer == "Mia knight, Oliver knave, Zoey knight"


@pytest.mark.parametrize("reason, text", [(reason, text) for reason, texts in WRONG.items() for text in texts])
def test_wrong_answers_and_hedges(reason, text):
    verdict = grade(answered(text), TRUTH)
    assert not verdict.correct and verdict.reason == reason and 0 <= verdict.scores["people_right"] <= 1


def test_the_tags_once_and_in_order():
    for broken in (
        answered(TRUTH)[len("<think>") :],
        answered(TRUTH).replace("</think>", ""),
        answered(TRUTH, "<answer> I am not sure"),
        answered(TRUTH) + answered(TRUTH),
        f"<answer>{TRUTH}</answer><think></think>",
    ):
        verdict = grade(broken, TRUTH)
        assert (verdict.correct, verdict.reason, verdict.scores["format"]) == (False, "format", 0)
        assert verdict.scores["people_right"] == 1, "the last answer is read all the same"
    for none in ("", "<think></think>", answered(TRUTH).replace("</answer>", ""), f"<think></think>{TRUTH}"):
        assert grade(none, TRUTH).reason == "no_answer"


def test_every_truth_is_right_and_every_other_assignment_wrong():
    for _, truth, n in knights.problems(140, split="train"):
        assert grade(answered(truth), truth).correct
        names = list(knights.identities(truth))
        for roles in itertools.product([True, False], repeat=n):
            other = knights.truth_of(names, list(roles))
            assert grade(answered(other), truth).correct == (other == truth)


def test_hostile_text_is_graded_at_once():
    for text in ("<answer>" * 10**5, "(1) " * 10**5, answered("Zoey is a knight, " * 10**5), answered("(" * 10**6)):
        start = time.process_time()
        assert not grade(text, TRUTH).correct
        assert time.process_time() - start < 0.1, text[:20]


# ---- data ------------------------------------------------------------------------------------------------------------

QUIZ = "You meet 2 inhabitants: Zoey, and Mia. ... So who is a knight and who is a knave?"
ROW = {"quiz": QUIZ, "names": ["Zoey", "Mia"], "solution": [False, True], "index": 3, "solution_text": "..."}


def test_a_copy_of_the_public_files_is_read_as_it_is(tmp_path):
    path = tmp_path / "people2_num100.jsonl"
    path.write_text(json.dumps(ROW))
    (problem,) = data.load_problems(str(path))
    assert problem.prompt == f"{QUIZ} {knights.INSTRUCTION}" and problem.source == "people2_num100"
    assert problem.truth == "(1) Zoey is a knave\n(2) Mia is a knight" and problem.grader == "knights"
    for change, said in (
        ({"solution": [True]}, "as long"),
        ({"solution": [1, 0]}, "true (a knight) or false"),
        ({"names": "Zoey"}, "a list of names"),
        ({"names": [1, 2]}, "names as texts"),
        ({"quiz": None}, "want the columns names, quiz, solution"),
    ):
        path.write_text("\n".join(map(json.dumps, (ROW, ROW | change))))
        with pytest.raises(ValueError, match="people2_num100.jsonl: row 1 is no puzzle: ") as caught:
            data.load_problems(str(path))
        assert said in str(caught.value)
    path.write_text('{"problem": "p", "answer": "Zoey lies", "grader": "knights"}')
    with pytest.raises(ValueError, match="row 0, column 'answer': no identity"):
        data.load_problems(str(path))


def test_the_column_grader_is_read_from_parquet_too(tmp_path):
    row = {"problem": "p", "answer": "Zoey is a knave", "grader": "knights", "unused": 1}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "own.parquet")
    (problem,) = data.load_problems(str(tmp_path / "own.parquet"))
    assert problem.grader == "knights"


def test_the_task_is_loaded_by_name_for_any_model():
    train, test = (data.load_problems("knights", split=split, n=14) for split in ("train", "test"))
    assert {p.grader for p in train + test} == {"knights"} and train[6].source == "knights/level-8"
    assert all(p.prompt.endswith("</answer>") and "boxed" not in p.prompt for p in train)
    assert len(data.load_problems("knights", split="test")) == knights.SIZES["test"]
