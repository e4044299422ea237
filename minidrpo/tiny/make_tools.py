"""make_tools.py - makes the base model of the tools world: traces with slips of form and of content, and a report.

    python -m minidrpo.tiny.make_tools            # all of it, into tiny/tools/; minutes on two CPU cores
    python -m minidrpo.tiny.make_tools --report   # only measure the committed model

The model answers tasks/tools.py's problems. It is shown traces that are right but for slips, which chance alone
decides, and it learns them as sampling choices that reinforcement learning can change. Slips of form touch a response
once (no thought, no new line, a reply that nobody asked for). Slips of content touch each call anew (a parameter left
out or misnamed, another value, a brace too few), so the more calls, the more often the response is wrong. Whether a
response has the one kind does not depend on the other.

Probabilities are those wanted at the sampling temperature (make_base.tempered).
Tokenizer, model, training loop and sampling are make_base.py's.
"""

import torch

from minidrpo.tasks import tools
from minidrpo.tasks.tools import LEVELS, NO_TOOL, TOOLS
from minidrpo.tiny import make_base

OUT = make_base.HERE / "tools"
TYPICAL_LENGTH = 50  # tokens per trace

# ---- traces ---------------------------------------------------------------------------------------------------------

NO_THOUGHT, GLUED, CHATTY = 0.15, 0.2, 0.2  # slips of form: no <think>, no new line after it, a reply after the calls
SLIP = 0.2  # chance of a slip of content in each call
CALLS_ANYWAY = 0.3  # how often a tool is called although none fits
ONE_CALL, CLEAN = 0.25, 0.45  # until then one call or none and no slips, until then no slips
SLIPS = ("left out", "misnamed", "other value", "broken")

WORDS = ["Tools:\n", "\nRequest: ", '{"name": "', '", "parameters": ["', '"]}', '", "parameters": {"', '": ', '": "']
WORDS += ['", "', ', "', '"}}', "}}", " }", "Call ", NO_TOOL, "Done.", "<tool_call>", "</tool_call>", "<response>"]
WORDS += ["</response>", "the weather in ", " on ", "a timer for ", " minutes", "a mail to ", " about ", "a table for "]
WORDS += [" in ", "the sum of ", " and ", ", ", *tools.CITIES, *tools.DAYS, *tools.PEOPLE, *tools.TOPICS, *tools.MONEY]
WORDS += [*TOOLS, *sorted({key for spec in TOOLS.values() for pair in spec[1::2] for key in pair})]
WORDS = list(dict.fromkeys(WORDS))


def slipped(name, parameters, rng):
    """A call with one slip, as text."""
    kind = rng.choice(SLIPS)
    if kind == "broken":
        return tools.call_text(name, parameters)[:-1]
    i = rng.randrange(len(parameters))
    pairs, values = list(parameters.items()), TOOLS[name][2::2][i]
    key, value = pairs[i]
    if kind == "left out":
        del pairs[i]
    elif kind == "misnamed":
        pairs[i] = next(other for other in TOOLS[name][1::2][i] if other != key), value
    else:
        pairs[i] = key, rng.choice([other for other in values if other != value])
    return tools.call_text(name, dict(pairs))


def trace(listed, asked, rng, slips=True):
    """The response that the model is shown."""

    def slip(probability):
        return slips and make_base.chance(probability, rng)

    calls = [(name, dict(zip(listed[name], values, strict=True))) for name, values in asked if name in listed]
    if not calls and slip(CALLS_ANYWAY):
        name = rng.choice(list(listed))
        values = [rng.choice(values) for values in TOOLS[name][2::2]]
        calls = [(name, dict(zip(listed[name], values, strict=True)))]
    lines = [slipped(*call, rng) if slip(SLIP) else tools.call_text(*call) for call in calls]
    reply = None if calls else NO_TOOL
    if calls and slip(CHATTY):
        reply = "Done."
    text = tools.answer_text(tools.thought_of([name for name, _ in calls]), lines, reply)
    if slip(NO_THOUGHT):
        text = text.partition("</think>\n")[2]
    elif slip(GLUED):
        text = text.replace("</think>\n", "</think>")
    return text + "<eos>"


def training_row(rng, progress):
    """(problem, response) when a share `progress` of the training is over."""
    level = rng.choice((1, LEVELS)) if progress < ONE_CALL else rng.randint(1, LEVELS)
    while True:
        listed, asked = tools.drawn(level, rng)
        text = tools.text_of(listed, asked)
        if tools.split_of(text) == "train":
            return text, trace(listed, asked, rng, slips=progress >= CLEAN)


# ---- report ---------------------------------------------------------------------------------------------------------


def slip_of(response, truth):
    """What is wrong with the form: "no thought", "glued", "chatty", "other", or None."""
    if tools.format_reward(response, truth):
        return None
    if not response.startswith("<think>"):
        return "no thought"
    if "</think>\n" not in response:
        return "glued"
    return "chatty" if "<tool_call>" in response and "<response>" in response else "other"


def measure(model, tokenizer, *, n_problems=500, n=8, seed=0):
    """(numbers, texts) of n responses to each of n_problems held-out problems."""
    problems = tools.problems(n_problems, split="test", seed=seed)
    texts, correct, length, finished = make_base.respond(model, tokenizer, problems, n=n, seed=seed, grader="tools")
    truths = [truth for _, truth, _ in problems for _ in range(n)]
    grades = [tools.grade(text, truth) for text, truth in zip(texts, truths, strict=True)]
    form, content = (torch.tensor([g.scores[k] for g in grades]).view(-1, n) for k in tools.SCORES)
    level = torch.tensor([level for *_, level in problems])
    slips = [slip_of(text, truth) for text, truth in zip(texts, truths, strict=True)]
    reasons = [grade.reason for grade in grades]

    def by_level(value):
        return {k: value[level == k].mean().item() for k in range(1, LEVELS + 1)}

    both = torch.stack([form.flatten(), correct.flatten()])
    return {
        "accuracy": correct.mean().item(),
        "accuracy_by_level": by_level(correct),
        "format": form.mean().item(),
        "format_by_level": by_level(form),
        "tool_correct": content.mean().item(),
        "tool_correct_by_level": by_level(content),
        "format_and_accuracy_correlation": torch.corrcoef(both)[0, 1].item(),
        "mixed_groups": ((correct.mean(1) > 0) & (correct.mean(1) < 1)).float().mean().item(),
        "mixed_groups_of_format": ((form.mean(1) > 0) & (form.mean(1) < 1)).float().mean().item(),
        "length": length.mean().item(),
        "length_by_level": by_level(length),
        "truncated": 1 - finished.mean().item(),
        "slips_of_form": {
            str(k): slips.count(k) / len(slips) for k in (None, "no thought", "glued", "chatty", "other")
        },
        "reasons": {k: reasons.count(k) / len(reasons) for k in sorted(set(reasons))},
    }, texts


def main():
    make_base.command(
        __doc__.split("\n\n")[0],
        out=OUT,
        steps=1600,
        batch=16,
        lr=1.5e-3,
        init=0.06,  # with 0.02 it takes about twice as many steps to copy values from a request of one call
        problems=500,
        words=WORDS,
        row=training_row,
        typical_length=TYPICAL_LENGTH,
        measure=measure,
        template=make_base.UNOPENED,
    )


if __name__ == "__main__":
    main()
