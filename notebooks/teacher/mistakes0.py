"""Lesson 0, what students get wrong. Per exercise: a near miss with what must be said about it, then other mistakes."""

import re

import torch

import drpo


def sample_with(temperature_counts=True, end_counts=True, stops=True):
    """The solution with one thing left out."""

    def sample(model, prompt_NL, C, temperature, end):
        ids, tokens, masks = prompt_NL, [], []
        running = torch.ones(len(prompt_NL), 1, dtype=torch.bool)
        while len(tokens) < C and (running.any() or not stops):
            logits = model(input_ids=ids).logits[:, -1] / (temperature if temperature_counts else 1.0)
            ids = torch.multinomial(logits.softmax(-1), 1)
            tokens.append(ids)
            masks.append(running & (ids != end) if not end_counts else running)
            running = running & (ids != end)
        return torch.cat(tokens, 1), torch.cat(masks, 1)

    return sample


def greedy(model, prompt_NL, C, temperature, end):
    token_NT = model(input_ids=prompt_NL).logits[:, -1:].argmax(-1).expand(-1, C)
    return token_NT, torch.ones_like(token_NT, dtype=torch.bool)


def score_with(shift=1, mean=True, temperature_counts=True, padded=False, stopped=False):
    def sequence_score(model, prompt_NL, token_NT, mask_NT, temperature):
        ids = torch.cat([prompt_NL, token_NT], 1)
        L, T = prompt_NL.shape[1], token_NT.shape[1]
        logits = model(input_ids=ids).logits[:, L - shift : L - shift + T] / (temperature if temperature_counts else 1)
        logp_NT = logits.log_softmax(-1).gather(-1, token_NT[..., None])[..., 0] * mask_NT
        value = logp_NT.mean(-1) if padded else logp_NT.sum(-1) / (mask_NT.sum(-1) if mean else 1)
        return value.detach() if stopped else value

    return sequence_score


def step_with(sign=-1, stop=True, clip=1.0):
    def step(model, optimizer, prompt_NL, token_NT, mask_NT, correct_PG, weight_PG, tau, temperature):
        score_PG = score_with()(model, prompt_NL, token_NT, mask_NT, temperature).view(correct_PG.shape)
        credit_PG = drpo.drpo_credit(score_PG, correct_PG, weight_PG, tau)
        optimizer.zero_grad()
        (sign * (credit_PG.detach() if stop else credit_PG) * score_PG).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    return step


def plain_softmax(preference, correct, lam):
    return (preference / lam).softmax(-1) * correct


def no_answer_is_nan(preference, correct, lam):
    return (preference / lam).masked_fill(~correct, -torch.inf).softmax(-1)


def unmixed(score, correct, weight, tau):
    """Without the exception for groups that are all right or all wrong."""
    push = (score / tau).masked_fill(correct, -1e9).softmax(-1)
    return torch.where(correct, weight, -push) / len(score)


MISTAKES = {
    "0a": {
        "near": (sample_with(end_counts=False), "the tokens are right; `end` itself"),
        "wrong": [sample_with(temperature_counts=False), greedy, sample_with(stops=False), 3],
    },
    "0b": {
        "near": (lambda text, truth: rf"\boxed{{{truth}}}" in text.split("</think>")[-1], "5 of 6 are right"),
        "wrong": [
            lambda text, truth: truth in text,
            lambda text, truth: re.findall(r"\\boxed\{(.*?)\}", text)[-1:] == [truth],
            lambda text, truth: re.search(r"\\boxed\{(.*?)\}", text)[1] == truth,
        ],
    },
    "0c": {
        "near": (no_answer_is_nan, "right wherever"),
        "wrong": [
            plain_softmax,
            lambda preference, correct, lam: torch.exp(preference / lam) * correct,
            lambda preference, correct, lam: drpo.positive_distribution(preference, correct, 2 * lam),
            lambda preference, correct, lam: (preference / lam).softmax(-1),
        ],
    },
    "0d": {
        "near": (score_with(shift=0), "off by one"),
        "wrong": [
            score_with(mean=False), score_with(padded=True), score_with(stopped=True),
            score_with(temperature_counts=False),
        ],
    },
    "0e": {
        "near": (unmixed, "right for mixed groups"),
        "wrong": [
            lambda score, correct, weight, tau: drpo.drpo_credit(score, correct, weight, tau) * len(score),
            lambda score, correct, weight, tau: drpo.drpo_credit(score, correct, weight, 2 * tau),
            lambda score, correct, weight, tau: -drpo.drpo_credit(score, correct, weight, tau),
            lambda score, correct, weight, tau: drpo.drpo_credit(score, correct, weight, tau) / 0 * 0,
        ],
    },
    "0f": {
        "near": (step_with(sign=1), "size of the step is right"),
        "wrong": [step_with(stop=False), step_with(clip=1e9), lambda *args: 1 / 0, 0.5],
    },
    "0g": {"near": ((10, 80), "80 % shorter"), "wrong": [(10, -90), ("a", "b")]},
}  # fmt: skip
