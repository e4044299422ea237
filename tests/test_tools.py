"""The tools world: ToolRL's two rewards against cases computed by hand, against brute force and hostile text; its
problems, their truths and mutations; the embedded model."""

import itertools
import json
import random
import re
import time

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import config
from minidrpo.methods import rewards
from minidrpo.tasks import data, tools
from minidrpo.tasks.tools import correctness_reward, format_reward, grade
from minidrpo.tiny import make_base, make_tools


def calls(*lines, thought="a"):
    return f"<think> {thought} </think>\n<tool_call>\n" + "\n".join(lines) + "\n</tool_call>"


def call(name, **parameters):
    return json.dumps({"name": name, "parameters": parameters})


REPLY = "<think> a </think>\n<response> Hello. </response>"
TIMER, WEATHER = call("timer", minutes=15), call("weather", city="Rome", day="Friday")
NO_PARAMETERS = call("stop")

# ---- correctness: by hand, R = 6 S / (1 + sum over true calls of (1 + number of parameters)) - 3 ---------------------

BY_HAND = [  # (truth, response, S, S_max)
    ([TIMER], [TIMER], 3, 3),
    ([TIMER], [call("timer", minutes=20)], 2, 3),  # names 1, keys 1, no value
    ([TIMER], [call("timer", time=15)], 1, 3),  # names 1, keys 0/2
    ([TIMER], [call("timer")], 1, 3),  # the key is missing: 0/1
    ([TIMER], [call("timer", minutes=15, label="tea")], 2.5, 3),  # keys 1/2, value 1
    ([TIMER], [call("clock", minutes=15)], 0, 3),
    ([TIMER], [TIMER, WEATHER], 2.5, 3),  # an extra call costs through the names alone: 1/2
    ([TIMER], [TIMER] * 3, 1 / 3 + 2, 3),
    ([TIMER, WEATHER], [TIMER], 0.5 + 2, 6),
    ([TIMER, WEATHER], [WEATHER, TIMER], 6, 6),  # the order is free
    ([TIMER, TIMER], [TIMER], 0.5 + 2, 5),  # multisets
    ([WEATHER], [call("weather", city="Rome")], 1 + 0.5 + 1, 4),
    ([WEATHER], [call("weather", day="Rome", city="Friday")], 2, 4),  # both keys, no value
    ([NO_PARAMETERS], [NO_PARAMETERS], 2, 2),
    ([NO_PARAMETERS], [call("stop", now=True)], 1, 2),
    ([call("f", x="1")], [call("f", x=1)], 2, 3),  # a number is no text
    ([call("f", x=1)], [call("f", x=1.0)], 3, 3),
    ([call("f", x=1)], [call("f", x=True)], 2, 3),  # to Python they are equal
    ([call("f", x=False)], [call("f", x=0)], 2, 3),
    ([call("f", x={"a": [1, True]})], [call("f", x={"a": [1, 1]})], 2, 3),
    ([call("f", x={"a": [1, True]})], [call("f", x={"a": [1.0, True]})], 3, 3),
    ([call("f", x={"a": [1, None]})], [call("f", x={"a": [1, None]})], 3, 3),
]


@pytest.mark.parametrize("truth, response, score, most", BY_HAND)
@pytest.mark.parametrize("matching", ["greedy", "optimal"])
def test_correctness_by_hand(truth, response, score, most, matching):
    found = correctness_reward(calls(*response), calls(*truth), matching)
    assert found == pytest.approx(6 * score / most - 3, abs=1e-9) and type(found) is float


def test_the_public_code_is_greedy_and_the_paper_optimal():
    """f(x=1) is first and takes the call that f(x=1, y=2) needs: 1 + 1.5 + .5 of 6; the best is 1 + 1 + 3."""
    truth = calls(call("f", x=1), call("f", x=1, y=2))
    response = calls(call("f", x=1, y=2), call("f", x=5))
    assert correctness_reward(response, truth) == pytest.approx(0)
    assert correctness_reward(response, truth, "optimal") == pytest.approx(2)
    with pytest.raises(ValueError, match="unknown matching 'best'"):
        correctness_reward(response, truth, "best")


def test_matchings_against_all_of_them():
    rng = random.Random(0)
    for _ in range(400):
        n, m = rng.randint(1, 4), rng.randint(0, 5)
        score = [[rng.choice([0, 0.5, 1, 1.5, 2]) for _ in range(m)] for _ in range(n)]
        ways = set(itertools.permutations([*range(m), *[None] * n], n))
        best = max(sum(score[i][j] for i, j in enumerate(way) if j is not None) for way in ways)
        assert sum(tools.best_in_all(score)) == pytest.approx(best)
        assert sum(tools.best_left(score)) <= best + 1e-9


@pytest.mark.parametrize(
    "response",
    [
        "",
        REPLY,
        calls(TIMER[:-1]),
        calls(TIMER, "", TIMER),
        calls(""),
        calls("[]"),
        calls("3"),
        calls('"timer"'),
        calls("null"),
        calls('{"parameters": {"minutes": 15}}'),
        calls('{"name": "timer"}'),
        calls('{"name": "timer", "parameters": [15]}'),
        calls('{"name": ["timer"], "parameters": {}}'),
        calls('{"name": {}, "parameters": {}}'),
        calls(TIMER.replace('"', "'")),
        calls(f"{TIMER}, {TIMER}"),
        f"<think> a </think>\n<tool_call>\n{TIMER}",
        calls(call("timer", minutes="</tool_call>")),
        calls(TIMER, thought="<tool_call> first"),
    ],
)
def test_what_cannot_be_read_earns_the_least(response):
    assert correctness_reward(response, calls(TIMER)) == -3
    verdict = grade(response, calls(TIMER))
    assert (
        not verdict.correct
        and verdict.scores["tool_correct"] == -3
        and verdict.reason in ("no_call", "unreadable", "wrong")
    )


def test_no_call_in_the_truth_is_worth_nothing_either_way():
    assert correctness_reward(calls(TIMER), REPLY) == correctness_reward("", REPLY) == 0
    with pytest.raises(ValueError, match="the calls of the truth cannot be read"):
        correctness_reward(calls(TIMER), calls("{"))


# ---- format ----------------------------------------------------------------------------------------------------------

BOTH, NEITHER = calls(TIMER) + "\n<response> Hello. </response>", "<think> a </think>"
FORMS = {"call": calls(TIMER), "reply": REPLY, "both": BOTH, "neither": NEITHER}


@pytest.mark.parametrize("truth", FORMS)
def test_the_truth_chooses_the_form(truth):
    for name, response in FORMS.items():
        assert format_reward(response, FORMS[truth]) == (name == truth or 0.0)


@pytest.mark.parametrize("truth", FORMS.values())
def test_slips_of_form(truth):
    assert format_reward(truth.replace(" a ", "\n\na {[ \n"), truth) == 1
    assert format_reward(truth.replace("<think> a ", "<think>"), truth) == 1
    for tag in set(re.findall(r"</?\w+>", truth)):
        assert format_reward(truth.replace(tag, ""), truth) == 0
        assert format_reward(truth.replace(tag, tag * 2), truth) == 0
        assert format_reward(truth.replace(tag, tag[:-1] + " >"), truth) == 0
        assert format_reward(truth.replace(" a ", f" a {tag} "), truth) == 0, "each tag once"
    for wrong in (
        " " + truth,
        truth + " ",
        truth + "\n",
        truth.replace("\n", ""),
        truth.replace("\n", "\n\n", 1),
        truth[1:],
    ):
        assert format_reward(wrong, truth) == 0 or wrong == truth


def test_unreadable_calls_may_be_in_good_form_and_good_calls_in_a_bad_one():
    assert format_reward(calls("{"), calls(TIMER)) == 1
    glued = calls(TIMER).replace("</think>\n", "</think>")
    assert format_reward(glued, calls(TIMER)) == 0 and correctness_reward(glued, calls(TIMER)) == 3
    assert grade(glued, calls(TIMER)).correct


# ---- hostile text ----------------------------------------------------------------------------------------------------

HOSTILE = {
    "deep": calls('{"name": "timer", "parameters": ' + "[" * 10**6),
    "deep, closed": calls('{"name": "timer", "parameters": {"minutes": ' + "[" * 900 + "]" * 900 + "}}"),
    "long": "a" * 10**6,
    "long thought": calls(TIMER, thought="a" * 10**6),
    "long value": calls(call("timer", minutes="a" * 10**6)),
    "digits": calls(call("timer", minutes="?").replace('"?"', "9" * 10**6)),
    "many digits": calls(call("timer", minutes="?").replace('"?"', str(["9" * 4000] * 250).replace("'", ""))),
    "many objects": calls(call("timer", minutes=[{"a": 1}] * 10**5)),
    "many keys": calls(call("timer", **{str(i): 1 for i in range(7 * 10**4)})),
    "many calls": calls(*(call("timer", minutes=i + 16) for i in range(7000))),
    "more calls": calls(*(call("timer", minutes=i) for i in range(25000))),
    "many names": calls(*(call(f"t{i}", minutes=i) for i in range(7000))),
    "tags": "<tool_call>" * 90000,
    "openings": "<think>" + "</think>\n<tool_call>\n" * 45000,
    "replies": "<response>" * 10**5,
    "new lines": calls("\n" * 10**6),
    "nan": calls('{"name": "timer", "parameters": {"minutes": NaN}}'),
    "huge": calls('{"name": "timer", "parameters": {"minutes": 1e999}}'),
    "twice": calls('{"name": "timer", "name": "clock", "parameters": {"minutes": 15}}'),
    "surrogate": calls('{"name": "timer", "parameters": {"minutes": "\\ud800"}}'),
    "tags in strings": calls(call("timer", minutes="</think>\n<tool_call>\n<response>")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_graded_at_once(name):
    """CPU seconds, the better of two tries: other work on the machine is not the grader's fault."""
    best = 9
    for _ in range(2):
        start = time.process_time()
        verdict = grade(HOSTILE[name], calls(TIMER))
        best = min(best, time.process_time() - start)
    assert best < 0.1, best
    for truth in (REPLY, BOTH):
        start = time.process_time()
        scores = grade(HOSTILE[name], truth).scores
        assert scores["format"] in (0, 1) and -3 <= scores["tool_correct"] <= 3 and time.process_time() - start < 1
    assert -3 <= correctness_reward(HOSTILE[name], calls(TIMER), "optimal") <= 3
    assert verdict.correct == (name == "long thought")
    json.dumps(verdict.scores, allow_nan=False)


def test_hostile_values_are_compared_as_they_stand():
    assert correctness_reward(HOSTILE["many calls"], calls(TIMER)) == pytest.approx(6 * (1 / 7000 + 1) / 3 - 3)
    for name in ("nan", "huge", "long value", "surrogate", "deep, closed"):
        assert correctness_reward(HOSTILE[name], calls(TIMER)) == pytest.approx(1), name
    long = '{"name": "timer", "parameters": {"minutes": %s}}' % ("7" * 4000)
    assert correctness_reward(calls(long), calls(long)) == 3 > correctness_reward(calls(long[:-3] + "8}}"), calls(long))
    same_key_twice = '{"name": "timer", "parameters": {"minutes": 1, "minutes": 15}}'
    assert correctness_reward(calls(same_key_twice), calls(TIMER)) == 3, "the last one counts, as in Python's json"


# ---- problems --------------------------------------------------------------------------------------------------------


def mutations(truth, rng):
    """20 texts that are near the truth and wrong: in the calls, or else in the form."""
    for tag in sorted(set(re.findall(r"</?\w+>", truth))):
        yield truth.replace(tag, "")
        yield truth.replace(tag, tag * 2)
    if "<tool_call>" not in truth:
        yield from (calls(TIMER), truth.replace("response", "tool_call"), calls(TIMER) + "\n<response> b </response>")
        yield from (truth.replace("\n", end) for end in ("", " ", "\n\n"))
        yield from ("", truth[1:], truth[:-1], truth + ".", " " + truth, truth.upper())
        return
    lines = truth.split("\n")[2:-1]
    while True:
        i = rng.randrange(len(lines))
        made = json.loads(lines[i])
        key = rng.choice(list(made["parameters"]))
        value = made["parameters"][key]
        kind = rng.randrange(8)
        if kind == 0:
            made["parameters"][key] = value + 1 if isinstance(value, int) else value + "s"
        elif kind == 1:
            del made["parameters"][key]
        elif kind == 2:
            made["parameters"][key + "s"] = made["parameters"].pop(key)
        elif kind == 3:
            made["name"] += "s"
        elif kind == 4:
            made["parameters"]["more"] = 1
        elif kind == 5:
            made["parameters"][key] = str(value) if isinstance(value, int) else [value]
        new = [*lines[:i], json.dumps(made), *lines[i + 1 :]]
        if kind == 6:
            new = [*lines, lines[i]]
        elif kind == 7:
            new = [*lines[:i], lines[i][:-1], *lines[i + 1 :]]
        yield calls(*new)


def check_problems(n, mutated):
    rng = random.Random(1)
    for split in ("train", "test"):
        made = tools.problems(n, split=split)
        assert len({text for text, *_ in made}) == n
        for i, (text, truth, level) in enumerate(made):
            verdict = grade(truth, truth)
            assert verdict.correct and verdict.scores == {"format": 1, "tool_correct": 3 * (level < tools.LEVELS)}
            assert truth.count('"name"') == level % tools.LEVELS and tools.split_of(text) == split
            if i % (n // mutated) == 0:
                wrong = list(itertools.islice(mutations(truth, rng), 20))
                assert len(wrong) == 20 and truth not in wrong
                for other in wrong:
                    verdict = grade(other, truth)
                    assert not (verdict.correct and verdict.scores["format"]), other


def test_truths_are_right_and_mutations_wrong():
    check_problems(500, 100)


@pytest.mark.slow
def test_all_truths_are_right_and_all_mutations_wrong():
    check_problems(20_000, 20_000)


def test_a_truth_follows_from_its_problem():
    """Read the problem as a person would: every call's keys are listed, every value is in the request, in its order."""
    for text, truth, level in tools.problems(300, split="test"):
        *listed, request = text.split("\n")[1:]
        listed = {tool["name"]: tool["parameters"] for tool in map(json.loads, listed)}
        assert len(listed) == tools.LISTED and request.startswith("Request: ")
        words, place = re.findall(r"\w+", request), 0
        for made in tools.calls_of(truth) if level < tools.LEVELS else ():
            assert list(made["parameters"]) == listed[made["name"]]
            values = [str(value) for value in made["parameters"].values()]
            for value in values:
                place = words.index(value, place) + 1
        if level == tools.LEVELS:
            forms = {name: spec[0].replace("{}", r"\w+") for name, spec in tools.TOOLS.items()}
            (asked,) = [name for name, form in forms.items() if re.fullmatch(f"Request: {form}.", request)]
            assert asked not in listed


def test_problems_are_a_pure_function_of_their_arguments():
    longer = tools.problems(60, split="train", seed=1)
    assert longer[:20] == tools.problems(20, split="train", seed=1) != tools.problems(20, split="train", seed=2)
    assert [level for *_, level in longer[:5]] == [1, 2, 3, 4, 1]
    for bad in ({"n": 3, "split": "dev"}, {"n": -1, "split": "test"}):
        with pytest.raises(ValueError, match="tools: "):
            tools.problems(**bad)


def test_the_task_is_loaded_by_name_and_grades_itself():
    found = data.load_problems("tools", split="test", n=10)
    assert {p.grader for p in found} == {"tools"} and found[3].source == "tools/level-4"
    assert len(data.load_problems("tools")) == tools.SIZES["train"]


# ---- the base --------------------------------------------------------------------------------------------------------


def traces(progress, n=600):
    """(truth, grade, response) of n training rows."""
    rng = random.Random(1)
    for _ in range(n):
        text, response = make_tools.training_row(rng, progress)
        assert tools.split_of(text) == "train" and response.endswith("<eos>")
        truth = truth_by_reading(text)
        yield truth, grade(response[: -len("<eos>")], truth), response[: -len("<eos>")]


def truth_by_reading(text):
    """The right response to a problem, from its words alone."""
    *listed, request = text.split("\n")[1:]
    listed = {tool["name"]: tool["parameters"] for tool in map(json.loads, listed)}
    found = []
    for part in request.removeprefix("Request: ").removesuffix(".").split(", "):
        for name, spec in tools.TOOLS.items():
            if match := re.fullmatch(spec[0].replace("{}", r"(\w+)"), part):
                found.append((name, [int(v) if v.isdigit() else v for v in match.groups()]))
    return tools.truth_of(listed, found)


def test_the_first_traces_are_right_and_later_ones_slip_in_form_and_content_independently():
    assert all(
        g.correct and g.scores["format"]
        for progress in (0, make_tools.CLEAN - 0.01)
        for _, g, _ in traces(progress, 100)
    )
    assert {truth.count('"name"') for truth, *_ in traces(0, 50)} == {0, 1}
    found = list(traces(1, 2000))
    form = [make_tools.slip_of(response, truth) for truth, _, response in found]
    assert set(form) == {None, "no thought", "glued", "chatty", "other"}, "other: called although no tool fits"
    right = [(g.correct, g.scores["format"] == 1) for truth, g, _ in found if "<tool_call>" in truth]
    ok = sum(a for a, _ in right) / len(right), sum(b for _, b in right) / len(right)
    both = sum(a and b for a, b in right) / len(right)
    assert 0.3 < ok[0] < 0.75 and 0.3 < ok[1] < 0.75 and abs(both - ok[0] * ok[1]) < 0.05
    assert {g.reason for _, g, _ in found} == {"correct", "wrong", "unreadable"}


def test_traces_come_back_exactly_from_the_tokenizer_and_fit_the_limit():
    tokenizer = make_base.make_tokenizer(make_tools.WORDS, make_base.UNOPENED)
    rng, longest = random.Random(2), 0
    for _ in range(200):
        text, response = make_tools.training_row(rng, 1)
        ids = tokenizer(response, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == response and ids.count(tokenizer.eos_token_id) == 1
        longest = max(longest, len(ids))
    assert 55 < longest < config.make("tools").max_response_tokens
    chat = tokenizer.decode(make_base.prompts_of(tokenizer, [text])[0])
    assert chat == f"<|user|>{text}<|assistant|>", "the model writes <think> itself: it is a part of the format"


def test_the_preset_needs_no_flags():
    cfg = config.make("tools")
    assert (cfg.method, cfg.train_data, rewards.names(cfg)) == ("gdpo", "tools", ("format", "tool_correct"))
    assert (make_tools.OUT / "model.safetensors").stat().st_size <= 2e6
    for name in ("grpo-sum", "grpo-sum-no-std", "drpo"):
        assert config.make("tools", name).method == name


@pytest.mark.slow
def test_the_committed_base_is_wrong_in_form_and_content():
    tokenizer = AutoTokenizer.from_pretrained(make_tools.OUT)
    model = AutoModelForCausalLM.from_pretrained(make_tools.OUT).eval()
    numbers, _ = make_tools.measure(model, tokenizer, n_problems=150, n=4)
    assert 0.25 < numbers["accuracy"] < 0.75 and 0.25 < numbers["format"] < 0.75 and numbers["truncated"] < 0.02
    assert numbers["mixed_groups"] > 0.4 and numbers["mixed_groups_of_format"] > 0.6
    by_level = list(numbers["accuracy_by_level"].values())
    assert by_level[0] > by_level[2] + 0.15, "more calls are harder; the form is not"
