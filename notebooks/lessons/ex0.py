"""Checks of lesson 0, build it: the gaps, and one experiment. A model that is known exactly stands in for the real."""

import math
from types import SimpleNamespace

import torch

import drpo
from exercises import Say, call, equal, exercise
from toys import batch

TABLE = torch.tensor([[0.0, 1.0, 0.5, -1.0], [0.3, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, -0.5], [0.0, 0.0, 0.0, 0.0]])
END = 3  # of the model below


class Markov(torch.nn.Module):
    """A model with four tokens: the next token's logits are the last token's row of a table."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(TABLE.double())

    def forward(self, input_ids, past_key_values=None, use_cache=None, **others):
        return SimpleNamespace(logits=self.table[input_ids], past_key_values=past_key_values or "what came before")


@exercise(
    "0a",
    hints=[
        "one forward pass per token; keep `ids` (the prompts, later the newest tokens, shape (N, 1)) and the cache",
        "a row's mask is True until it has drawn `end`, and at `end` itself; stop when all rows have, or after C",
    ],
)
def sample(function):
    torch.manual_seed(0)
    rows, C = 20_000, 3
    token, mask = call(function, Markov(), torch.zeros(rows, 2, dtype=torch.long), C, 0.5, END)
    if token.shape != mask.shape or token.shape[0] != rows or token.shape[1] > C:
        return f"for {rows} prompts and C = {C} the shapes are {tuple(token.shape)} and {tuple(mask.shape)}"
    share = torch.bincount(token[:, 0], minlength=4).double() / rows
    true = (TABLE[0].double() / 0.5).softmax(-1)
    spread = 5 * (true * (1 - true) / rows).sqrt()
    warm = TABLE[0].double().softmax(-1)
    if ((share - warm).abs() < spread).all():
        return "the tokens are drawn from the model's softmax; the temperature does not reach them"
    if ((share - true).abs() > spread).any():
        return f"the first token is 0, 1, 2, 3 with shares {share.numpy().round(3)}, not {true.numpy().round(3)}"
    after = token[:, 1][token[:, 0] == 1]
    second, true = torch.bincount(after, minlength=4).double() / len(after), (TABLE[1].double() / 0.5).softmax(-1)
    if ((second - true).abs() > 0.05).any():
        return "the first token is drawn as it should be; the second does not follow from the first"
    ended = (token == END).long().cumsum(-1)
    right = ended - (token == END).long() == 0
    if not torch.equal(mask.bool(), right):
        without = torch.equal(mask.bool(), ended == 0)
        return "the tokens are right" + ("; `end` itself belongs to the response" if without else ", the mask is not")
    short, _ = call(function, Markov(), torch.full((2, 1), 2), 500, 0.5, END)
    if short.shape[1] == 500:
        return "right, but it goes on to C when all responses have ended"


@exercise(
    "0b",
    hints=[
        r'text.split("</think>") tells thinking from answer; the answer stands after the last one',
        r're.findall(r"\\boxed\{(.*?)\}", answer) gives what is boxed, in order',
    ],
)
def grade(function):
    cases = (
        (r"17+5=22.</think> The answer is \boxed{22}.", "22", True),
        (r"17+5=22.</think> The answer is \boxed{22}.", "2", False),
        (r"Is it \boxed{22}? Wait, let me check", "22", False),
        (r"Is it \boxed{22}?</think> The answer is \boxed{21}.", "22", False),
        (r"</think> The answer is 22.", "22", False),
        (r"</think> \boxed{21}, no: \boxed{22}", "22", True),
    )
    said = [call(function, text, truth) for text, truth, _ in cases]
    right = [bool(value) == verdict for value, (*_, verdict) in zip(said, cases, strict=True)]
    if not all(right):
        text, truth, _ = cases[right.index(False)]
        return f"{sum(right)} of {len(cases)} are right. Truth {truth}: you say {said[right.index(False)]!r} to {text}"


@exercise(
    "0c",
    hints=[
        "exp(r / lam), set to 0 where a response is wrong, divided by the row's sum; exp(0/lam) is 1, not 0",
        "a row without correct responses has sum 0: divide by something else there, so that 0 is left",
    ],
)
def positive_distribution(function):
    for seed, lam in ((0, 0.3), (1, 2.0), (2, math.inf), (3, 0.1)):
        *_, correct, length = batch(seed)
        preference = drpo.length_preference(length, 12).double()
        value = call(function, preference, correct, lam, shape=correct.shape).double()
        right = drpo.positive_distribution(preference, correct, lam)
        if equal(value, right):
            continue
        some = correct.any(-1)
        if equal(value[some], right[some]):
            return f"right wherever a response is correct; where none is, the row is {value[~some][0].numpy()}"
        if (value[~correct] != 0).any():
            return "wrong responses have weights, too"
        if not torch.allclose(value[some].sum(-1), torch.ones(int(some.sum())).double()):
            return "wrong responses have weight 0, as they should; the weights of a prompt do not sum to 1"
        return f"the rows sum to 1, as they should; with lambda {lam} it is wrong"


@exercise(
    "0d",
    hints=[
        "the model reads torch.cat([prompt_NL, token_NT], 1); its logits at position L - 1 belong to the first token",
        "log_softmax(-1), then gather(-1, token_NT[..., None])[..., 0]; sum where the mask is, divide by each length",
    ],
)
def sequence_score(function):
    g = torch.Generator().manual_seed(0)
    prompt, token = torch.randint(4, (5, 3), generator=g), torch.randint(4, (5, 6), generator=g)
    mask = torch.arange(6) < torch.tensor([[6], [1], [3], [4], [2]])
    value = call(function, Markov(), prompt, token, mask, 0.5, shape=(5,))

    def scores(temperature, shift=0):
        before = torch.cat([prompt, token], 1)[:, 2 + shift : 8 + shift]
        logp = (TABLE.double()[before] / temperature).log_softmax(-1).gather(-1, token[..., None])[..., 0]
        return logp * mask

    if equal(value.detach(), scores(0.5).sum(-1) / mask.sum(-1)):
        return None if value.requires_grad else "the numbers are right; but no gradient can flow back to the model"
    for other, words in (
        (scores(0.5).sum(-1), "that is the sum over the tokens; the score is their mean"),
        (scores(0.5).sum(-1) / 6, "each sum is right; it is divided by T, not by the response's own length"),
        (scores(1.0).sum(-1) / mask.sum(-1), "right for temperature 1; divide the logits as the sampler did"),
        (scores(0.5, shift=1).sum(-1) / mask.sum(-1), "off by one: the logits at a token belong to the *next* token"),
    ):
        if equal(value.detach(), other):
            return words
    return "on a model that is known exactly the scores are others"


@exercise(
    "0e",
    hints=[
        "the softmax of s/tau over the wrong responses alone: set the others to -inf before you take it",
        "torch.where(correct, weight, -push) / P, times whether the group is mixed; a row of -inf has a softmax of NaN",
    ],
)
def drpo_credit(function):
    for seed, tau in ((0, 0.5), (1, 2.0)):
        logp, _, mask, correct, length = batch(seed)
        score = drpo.sequence_score(logp, mask).view(correct.shape)
        weight = drpo.positive_distribution(drpo.length_preference(length, 12).double(), correct, 0.3)
        value = call(function, score, correct, weight, tau, shape=correct.shape)
        right, mixed = drpo.drpo_credit(score, correct, weight, tau), drpo.mixed_groups(correct)
        if equal(value, right):
            continue
        if value.isnan().any():
            return "NaN: the first prompt has no wrong response, so its softmax is over nothing"
        if equal(value, right * len(correct)):
            return "right for each prompt; J is a mean over the P prompts"
        if equal(value[mixed], right[mixed]):
            return "right for mixed groups; a group that is all right or all wrong has credit 0"
        if equal(value[correct & mixed[:, None]], right[correct & mixed[:, None]]):
            return "the correct responses have their credit; the wrong ones of a prompt must sum to -1/P"
        return "compare with the formula: neither side is right yet"


@exercise(
    "0f",
    hints=[
        "score with gradient; credit from score.detach(); loss = -(credit * score).sum()",
        "optimizer.zero_grad(), loss.backward(), clip the norm of model.parameters() to 1, optimizer.step()",
    ],
)
def step(function):
    g = torch.Generator().manual_seed(1)
    prompt, token = torch.randint(4, (8, 2), generator=g), torch.randint(4, (8, 5), generator=g)
    mask = torch.arange(5) < torch.randint(1, 6, (8, 1), generator=g)
    correct = torch.tensor([[True, True, False, False], [True, False, False, True]])
    weight = drpo.positive_distribution(drpo.length_preference(mask.sum(-1).view(2, 4), 5).double(), correct, 0.2)

    def moved(run):
        model = Markov()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        model.table.grad = torch.full_like(model.table, 9.0)  # left over from an earlier step
        run(model, optimizer)
        return model.table.detach() - TABLE.double()

    def run_theirs(model, optimizer):
        function(model, optimizer, prompt, token, mask, correct, weight, 0.2, 0.5)

    def run_ours(model, optimizer, stop=True, clip=1.0):
        optimizer.zero_grad()
        before = torch.cat([prompt, token], 1)[:, 1:6]
        logp = (model.table[before] / 0.5).log_softmax(-1).gather(-1, token[..., None])[..., 0]
        score = drpo.sequence_score(logp, mask).view(2, 4)
        credit = drpo.drpo_credit(score, correct, weight, 0.2)
        (-(credit.detach() if stop else credit) * score).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    if not callable(function):
        raise Say("hand in the function itself, without calling it")
    right, yours = moved(run_ours), moved(run_theirs)
    if equal(yours, right):
        return None
    if not yours.abs().sum():
        return "unsolved"
    if equal(yours, -right):
        return "the size of the step is right; the optimizer minimises, so it went down the gradient of J"
    if equal(yours, moved(lambda *args: run_ours(*args, clip=1e9))):
        return "the gradient of J is right; its norm is not clipped to 1"
    if equal(yours, moved(lambda *args: run_ours(*args, stop=False))):
        return "a step in about the right direction; but another one than the gradient of J"
    return "the model moves, but not by one step along the gradient of J; was an old gradient still there?"


@exercise(
    "0g",
    hints=[
        "model, _ = train(lam=float('inf')), then rollout(model, held_out, 0.1): the fifth value is length_PG",
        "100 * (1 - mean length after / mean length of the base)",
    ],
)
def without_length(answer):
    predicted, measured = (float(x) for x in answer)
    if not -60 <= measured <= 40:  # three seeds: -28, 13 and -23
        return f"{measured:.3g} % shorter was seen with none of our seeds: in percent, and of the base's length?"
    gap = abs(predicted - measured)
    print(f"you were {gap:.0f} points off" + ("; what did you take length to follow from?" if gap > 15 else ""))
