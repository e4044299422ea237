"""tools.py - the built-in task of calling tools, and ToolRL's two rewards for it. No model, no torch.

A problem lists tools and makes a request; a response thinks, then calls tools or replies:

    <think> ... </think>                                      <think> ... </think>
    <tool_call>                                               <response> ... </response>
    {"name": "timer", "parameters": {"minutes": 15}}
    </tool_call>

Rewards: those of ToolRL (arXiv 2504.13958), which GDPO's tool experiment (arXiv 2601.05242, 4.1) takes over:
format_reward in {0, 1}, correctness_reward in [-3, 3]. Both compare whole texts, a response and a truth in this form.
JSON is parsed and compared, never executed; no text raises an exception or takes long (bounds: MAX_PARTS, MAX_PAIRS).

Levels 1 to 3 ask for that many calls. At level 4 no listed tool fits, and the answer is a reply. The hash of a
problem's text decides which split it belongs to, as for arithmetic.py.
"""

import heapq
import json
import math
import random
import re
from collections import Counter, defaultdict

from minidrpo.records import Grade
from minidrpo.tasks.arithmetic import split_of
from minidrpo.tasks.distinct import distinct

SCORES = REWARDS = ("format", "tool_correct")
SIZES = {"train": 8_000, "test": 500}
LEVELS = 4
MAX_PROBLEMS = 20_000
LEAST, MOST = -3.0, 3.0  # of correctness_reward

# ------------------------------------------------------------------------------------------------------------ rewards

FORMS = {  # (the truth holds calls, it holds a reply): what a response must be, from its first character to its last
    (False, False): r"<think>.*</think>",
    (True, False): r"<think>.*</think>\n<tool_call>\n.*\n</tool_call>",
    (False, True): r"<think>.*</think>\n<response>.*</response>",
    (True, True): r"<think>.*</think>\n<tool_call>\n.*\n</tool_call>\n<response>.*</response>",
}
MAX_PARTS = 50_000  # brackets, commas and colons of a response's calls; with more they count as unreadable
MAX_PAIRS = 10_000  # of a true and a predicted call of the same name that are compared; later ones are not looked at
MAX_DIGITS = 4300  # of a whole number: the limit of Python's own int()


class Unreadable(Exception):
    """The response has no calls that can be read and compared."""


def format_reward(response: str, truth: str) -> float:
    """1.0 if the whole response has the form that the truth has (call, reply, both, neither), each tag once; else 0.0.

    The response's text is not looked at between the tags: its calls need not be readable.
    """
    form = FORMS["<tool_call>" in truth, "<response>" in truth]
    once = all(response.count(tag) == 1 for tag in re.findall(r"</?\w+>", form))
    return float(once and re.fullmatch(form, response, re.DOTALL) is not None)


def correctness_reward(response: str, truth: str, matching: str = "greedy") -> float:
    r"""ToolRL's reward for the calls, in [-3, 3]: 6 S / S_max - 3, with S the sum of

        the names     multiset Jaccard of the true and the predicted calls' names, at most 1
        each call     with the predicted call matched to it: Jaccard of the parameters' keys + number of equal values

    and S_max what the truth itself has, 1 + sum over true calls of (1 + number of parameters). No call in the truth: 0.
    Calls that cannot be read: -3. Each true call is matched with one predicted call of its name, or none: "greedy", as
    the public code does, takes the best one left for each true call in turn, the first of equals; "optimal", as the
    paper writes, maximises the total. ValueError for another matching, or a truth whose calls cannot be read.
    """
    if matching not in ("greedy", "optimal"):
        raise ValueError(f"unknown matching {matching!r}, choose greedy or optimal")
    if "<tool_call>" not in truth:
        return 0.0
    try:
        wanted = calls_of(truth)
        most = 1.0 + sum(1 + len(call["parameters"]) for call in wanted)
    except (Unreadable, TypeError, KeyError) as error:
        raise ValueError(f"the calls of the truth cannot be read: {truth[:200]!r}") from error
    try:
        calls = calls_of(response)
        names = jaccard([call["name"] for call in wanted], [call["name"] for call in calls])
        score = names + sum(matched(wanted, calls, best_left if matching == "greedy" else best_in_all))
    except (Unreadable, TypeError, KeyError, AttributeError, RecursionError):
        return LEAST
    return (MOST - LEAST) * score / most + LEAST


def calls_of(text: str) -> list:
    """The JSON of each line between the first <tool_call> and the </tool_call> after it. Raises Unreadable."""
    _, opening, block = text.partition("<tool_call>")
    if not opening or "</tool_call>" not in text:
        raise Unreadable
    block = block.partition("</tool_call>")[0].strip()
    if sum(map(block.count, "[{,:\n")) > MAX_PARTS:
        raise Unreadable
    try:
        return [json.loads(line, parse_int=whole_number) for line in block.split("\n")]
    except (ValueError, RecursionError) as error:  # broken, a number of thousands of digits; nested too deep
        raise Unreadable from error


def whole_number(digits: str) -> int | str:
    """int(digits); beyond 400 digits the text, which is equal to the same number's, as int() takes quadratic time."""
    if len(digits) > MAX_DIGITS:
        raise ValueError("too many digits")
    return int(digits) if len(digits) <= 400 else digits


def jaccard(left: list, right: list) -> float:
    """Size of the intersection over size of the union, as multisets; two empty ones are equal."""
    if left == right:
        return 1.0
    a, b = Counter(left), Counter(right)
    common = (a & b).total()
    return common / (len(left) + len(right) - common)


def matched(wanted: list, calls: list, match) -> list[float]:
    """The scores of the pairs that `match` makes, name by name: calls of different names are never matched."""
    by_name = defaultdict(list)
    for call in calls:
        by_name[call["name"]].append(call)
    scores, pairs = [], MAX_PAIRS
    groups = defaultdict(list)
    for call in wanted:
        groups[call["name"]].append(call["parameters"])
    for name, group in groups.items():
        seen = by_name[name][: pairs // len(group)]
        pairs -= len(group) * len(seen)
        scores += match([[pair_score(true, call["parameters"]) for call in seen] for true in group])
    return scores


def pair_score(true: dict, found: dict) -> float:
    """Jaccard of the parameters' keys, plus the number of true parameters that are there with an equal value."""
    equal = sum(1 for key, value in true.items() if key in found and same(found[key], value))
    return jaccard(list(true.keys()), list(found.keys())) + equal


def same(a, b) -> bool:
    """Equal values of equal JSON types. To Python, and to the public code, true is 1; here it is not. 1 is 1.0."""
    return a == b and same_kinds(a, b)


def same_kinds(a, b) -> bool:
    """For two values that are equal to Python."""
    if isinstance(a, dict):
        return all(same_kinds(value, b[key]) for key, value in a.items())
    if isinstance(a, list):
        return all(map(same_kinds, a, b))
    return isinstance(a, bool) == isinstance(b, bool)


def best_left(score: list[list[float]]) -> list[float]:
    """score[true][found]: each true call in turn takes the best one left, the first of equals; 0 if none is left."""
    taken, chosen = set(), []
    for row in score:
        best = max((j for j in range(len(row)) if j not in taken), key=row.__getitem__, default=None)
        if best is not None and row[best] > 0:
            taken.add(best)
        chosen.append(0.0 if best is None else row[best])
    return chosen


def best_in_all(score: list[list[float]]) -> list[float]:
    """[the largest total of any matching]: the Hungarian method, one true call after another along a shortest path."""
    n = len(score)
    kept = sorted({j for row in score for j in heapq.nlargest(n, range(len(row)), key=row.__getitem__)})
    cost = [[-row[j] for j in kept] + [0.0] * n for row in score]  # the last n columns: not matched
    m = len(kept) + n
    row_price, column_price, owner = [0.0] * n, [0.0] * (m + 1), [None] * (m + 1)  # column m: where a path begins
    for new in range(n):
        owner[m], here, seen = new, m, []
        distance, came_from = [math.inf] * m, [m] * m
        while owner[here] is not None:
            seen.append(here)
            i, free = owner[here], [j for j in range(m) if j not in seen]
            for j in free:
                reduced = cost[i][j] - row_price[i] - column_price[j]
                if reduced < distance[j]:
                    distance[j], came_from[j] = reduced, here
            nearest = min(free, key=distance.__getitem__)
            step = distance[nearest]
            for j in seen:
                row_price[owner[j]] += step
                column_price[j] -= step
            for j in free:
                distance[j] -= step
            here = nearest
        while here != m:
            owner[here] = owner[came_from[here]]
            here = came_from[here]
    return [-sum(cost[i][j] for j, i in enumerate(owner[:m]) if i is not None)]


def read_truth(truth: str) -> list:
    """The calls of a truth. ValueError for a text that is none: no thought, or calls that cannot be read."""
    if not truth.startswith("<think>") or not format_reward(truth, truth):
        raise ValueError(f"a truth is <think>..</think> and then calls or a reply, got {truth[:80]!r}")
    if "<tool_call>" in truth and correctness_reward(truth, truth) != MOST:  # NaN, names that are lists, too many calls
        raise ValueError(f"the calls of the truth are not equal to themselves: {truth[:80]!r}")
    return calls_of(truth) if "<tool_call>" in truth else []


def grade(response: str, truth: str) -> Grade:
    """Correct: the calls are those of the truth, in any order and whatever the format. Where the truth calls nothing: a
    reply, and no call. The answer is the calls, as one line each, in a fixed order."""
    scores = {"format": format_reward(response, truth), "tool_correct": correctness_reward(response, truth)}
    if "<tool_call>" not in truth:
        reply, closing, _ = response.partition("<response>")[2].partition("</response>")
        right = bool(closing) == ("<response>" in truth) and "<tool_call>" not in response
        return Grade(right, "correct" if right else "wrong", reply.strip() if closing else None, scores)
    if "<tool_call>" not in response:
        return Grade(False, "no_call", None, scores)
    try:
        answer = "\n".join(sorted(json.dumps(call, sort_keys=True) for call in calls_of(response)))
    except (Unreadable, RecursionError):
        return Grade(False, "unreadable", None, scores)
    correct = scores["tool_correct"] == MOST
    return Grade(correct, "correct" if correct else "wrong", answer, scores)


# ----------------------------------------------------------------------------------------------------------- problems

CITIES = "Rome Paris Oslo Cairo Lima Delhi Tokyo Berlin".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
PEOPLE = "Anna Ben Clara David Emma Felix".split()
TOPICS = "lunch sales travel music".split()
MONEY = "euro dollar yen rupee".split()
NUMBERS = range(2, 100)

TOOLS = {  # name: (how a request asks for it, a parameter's name in either spelling, its values, the next one, ...)
    "weather": ("the weather in {} on {}", ("city", "place"), CITIES, ("day", "date"), DAYS),
    "timer": ("a timer for {} minutes", ("minutes", "time"), NUMBERS),
    "mail": ("a mail to {} about {}", ("to", "person"), PEOPLE, ("about", "topic"), TOPICS),
    "table": ("a table for {} on {}", ("guests", "people"), NUMBERS, ("day", "date"), DAYS),
    "convert": ("{} {} in {}", ("amount", "sum"), NUMBERS, ("from", "source"), MONEY, ("into", "target"), MONEY),
    "sum": ("the sum of {} and {}", ("left", "first"), NUMBERS, ("right", "second"), NUMBERS),
}
LISTED = 3  # tools of a problem


def call_text(name: str, parameters: dict) -> str:
    """A call as the truth writes it, in one line."""
    return json.dumps({"name": name, "parameters": parameters})


def answer_text(thought: str, calls: list[str], reply: str | None = None) -> str:
    """A whole response in the required form."""
    block = "\n<tool_call>\n" + "\n".join(calls) + "\n</tool_call>" if calls else ""
    return f"<think> {thought} </think>{block}" + ("" if reply is None else f"\n<response> {reply} </response>")


NO_TOOL = "No tool fits."


def thought_of(names: list[str]) -> str:
    """What the truth thinks: which tools it will call."""
    return "Call " + ", ".join(names) + "." if names else NO_TOOL


def drawn(level: int, rng: random.Random) -> tuple[dict, list]:
    """(listed: {name: its parameters' names here}, asked: [(name, values), ...]) of one random problem. Its parameters
    are spelled in one of two ways, which only its list of tools shows."""
    names, spelling = rng.sample(list(TOOLS), LISTED), rng.randrange(2)
    listed = {name: [pair[spelling] for pair in TOOLS[name][1::2]] for name in names}
    if level == LEVELS:
        wanted = [rng.choice([name for name in TOOLS if name not in listed])]
    else:
        wanted = rng.choices(names, k=level)
    return listed, [(name, [rng.choice(values) for values in TOOLS[name][2::2]]) for name in wanted]


def text_of(listed: dict, asked: list) -> str:
    """The problem as the user types it: a line of JSON for each tool, then the request."""
    lines = [json.dumps({"name": name, "parameters": keys}) for name, keys in listed.items()]
    request = ", ".join(TOOLS[name][0].format(*values) for name, values in asked)
    return "\n".join(["Tools:", *lines, f"Request: {request}."])


def truth_of(listed: dict, asked: list) -> str:
    """The whole right response: the calls in the order of the request, or the reply that no tool fits."""
    calls = [(name, dict(zip(listed[name], values, strict=True))) for name, values in asked if name in listed]
    thought = thought_of([name for name, _ in calls])
    return answer_text(thought, [call_text(*call) for call in calls], None if calls else NO_TOOL)


def problems(n: int, *, split: str, seed: int = 0) -> list[tuple[str, str, int]]:
    """n distinct problems of one split as (text, truth, level), the levels in turn; a pure function of its arguments.

    A longer list begins with the shorter one of the same seed.
    """

    def draw(i, rng):
        level = i % LEVELS + 1
        listed, asked = drawn(level, rng)
        text = text_of(listed, asked)
        return text, lambda: split_of(text) == split and (truth_of(listed, asked), level)

    return distinct("tools", n, draw, split=split, seed=seed, most=MAX_PROBLEMS)
