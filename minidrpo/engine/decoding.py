"""decoding.py - the parts of batched decoding: requests, drawing tokens, a KV cache that rows join and leave.

B responses decoded at once | T columns of the cache | V vocabulary | K token ids that end a response
`rollout.TransformersSampler` runs the model; nothing here does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from minidrpo.records import Rollout


def check_request(
    prompt_ids: Sequence[list[int]], n: int, temperature: float, top_p: float, max_tokens: int, seeds: list[int],
    max_model_len: int | None,
) -> None:  # fmt: skip
    """ValueError, one line, for a request that cannot be sampled as asked."""
    if not all(prompt_ids):
        raise ValueError(f"rollout: prompt {[len(ids) for ids in prompt_ids].index(0)} has no tokens")
    if len(seeds) != len(prompt_ids):
        raise ValueError(f"rollout: {len(prompt_ids)} prompts but {len(seeds)} seeds; one seed per prompt")
    if n < 1 or max_tokens < 1:
        raise ValueError(f"rollout: n and max_tokens must be at least 1, got n={n}, max_tokens={max_tokens}")
    if not (temperature >= 0 and 0 < top_p <= 1):
        raise ValueError(f"rollout: need temperature >= 0 and 0 < top_p <= 1, got {temperature} and {top_p}")
    longest = max(map(len, prompt_ids), default=0)
    if max_model_len and longest + max_tokens > max_model_len:
        raise ValueError(
            f"rollout: a prompt of {longest} tokens and {max_tokens} new ones exceed the context of {max_model_len}"
        )


def checked(rollouts: list[Rollout]) -> list[Rollout]:
    """`rollouts`, or FloatingPointError if a probability is NaN: the weights have diverged, nothing can go on."""
    if not all(x == x for r in rollouts for x in r.logp):
        raise FloatingPointError("the model's probabilities are not numbers (nan): its weights have diverged")
    return rollouts


def uniforms(seed: int, index: int, count: int) -> np.ndarray:
    """The `count` uniform numbers in [0, 1), float32, one per token, of response `index` to the prompt with `seed`.

    Philox is counter-based: the numbers depend on (seed, index) alone, not on how prompts are batched or spread over
    ranks, so a resumed run or another number of ranks draws the same responses (up to float noise in the logits).
    """
    key = np.array([seed % 2**64, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count, dtype=np.float32)


def draw(logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float = 1.0) -> tuple[Tensor, Tensor]:
    """One token per row by inverse CDF, one uniform number each. Returns (token_B, logp_B), logp_B of what was drawn.

    temperature 0 takes the likeliest token, whose log-probability is then the one at temperature 1. top_p < 1 keeps the
    fewest likeliest tokens whose mass reaches top_p, and log-probabilities are those within that set.
    """
    logits_BV = logits_BV.float()
    if temperature == 0:
        token_B = logits_BV.argmax(-1)
        return token_B, logits_BV.log_softmax(-1).gather(-1, token_B[:, None])[:, 0]
    logp_BV = (logits_BV / temperature).log_softmax(-1)
    if top_p < 1:
        logp_BV, order_BV = logp_BV.sort(-1, descending=True)
    cdf_BV = logp_BV.exp().cumsum(-1, dtype=torch.float64)  # a GPU adds up in pieces: in float32 a sum could fall
    mass_B = cdf_BV[:, -1:]  # 1 up to rounding, and the rounding matters to u near 1
    if top_p < 1:
        last_B = (cdf_BV < top_p).sum(-1, keepdim=True).clamp(max=cdf_BV.shape[-1] - 1)  # the set's last token
        mass_B = cdf_BV.gather(-1, last_B)
    # The first token whose cdf exceeds u * mass. There is one, for u < 1, and it is a possible one.
    token_B = torch.searchsorted(cdf_BV, uniform_B[:, None] * mass_B, right=True)
    token_B = token_B.clamp(max=logp_BV.shape[-1] - 1)  # NaN ends up past the last; `checked` reports it
    drawn_B = logp_BV.gather(-1, token_B)
    if top_p < 1:
        return order_BV.gather(-1, token_B)[:, 0], (drawn_B - mass_B.log())[:, 0].float()
    return token_B[:, 0], drawn_B[:, 0]


class GrowingLayer(DynamicLayer):
    """A cache layer that appends in place: keys and values (B, heads, T, head_dim) are views of buffers with room.

    (torch.cat, as the parent class has it, copies the whole cache for every token.)
    """

    limit = math.inf
    """Columns that can come to be needed."""

    def adopt(self, keys: Tensor, values: Tensor, n_columns: int) -> None:
        """Take over buffers of which the first n_columns columns are filled."""
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.buffers = keys, values
        self.keys, self.values = keys[:, :, :n_columns], values[:, :, :n_columns]

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Append new columns; returns all keys and values. What Transformers' attention calls."""
        key_states = key_states.to(value_states.dtype)  # under autocast rotary embeddings leave the keys in float32
        if not self.is_initialized:
            self.adopt(key_states, value_states, key_states.shape[2])
            return self.keys, self.values
        start, stop = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if stop > self.buffers[0].shape[2]:
            room = min(stop + max(64, stop // 2), self.limit)
            self.adopt(*(right_aligned([(old, None)], start, room) for old in (self.keys, self.values)), start)
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:stop] = new
        self.keys, self.values = (buffer[:, :, :stop] for buffer in self.buffers)
        return self.keys, self.values

    def keep(self, source: Tensor, target: Tensor, n_rows: int, n_columns: int, limit: int) -> None:
        """Copy rows `source` over rows `target`, then keep the first n_rows and the last n_columns, as views."""
        for states in (self.keys, self.values):
            states[target] = states[source]
        first, self.limit = self.keys.shape[2] - n_columns, limit
        self.buffers = tuple(buffer[:n_rows, :, first:] for buffer in self.buffers)
        self.keys, self.values = self.keys[:n_rows, :, first:], self.values[:n_rows, :, first:]


def right_aligned(parts: Sequence[tuple[Tensor, Tensor | None]], n_columns: int, capacity: int) -> Tensor:
    """Stack (states, rows) parts into one buffer (rows, heads, capacity, head_dim), their columns ending at n_columns.

    `rows` picks and repeats the rows of `states`; None takes them all. The rest is zeros, not empty memory: masked
    columns still get multiplied, by a weight of 0, and 0 * NaN is NaN.
    """
    picked = [(states if rows is None else states[rows])[:, :, -n_columns:] for states, rows in parts]
    buffer = picked[0].new_zeros(sum(map(len, picked)), picked[0].shape[1], capacity, picked[0].shape[3])
    for states, out in zip(picked, buffer.split([len(states) for states in picked]), strict=True):
        out[:, :, n_columns - states.shape[2] : n_columns] = states
    return buffer


@dataclass
class DecodingBatch:
    """The rows being decoded. Every row ends at the cache's last column and begins `length` columns before it."""

    rows: dict[str, Tensor]
    """By row: id (2), length (tokens in the cache), count (tokens drawn), finished, done; tokens, logp and uniform are
    (B, max_tokens + 1), the last column being a spare one for what rows draw that are done but not yet removed."""
    cache: Cache
    ragged: bool = True
    """Whether lengths differ, so that attention needs a mask."""

    def __len__(self) -> int:
        return len(self.rows["done"])


def advance(batch: DecodingBatch, logits_BV: Tensor, eos_K: Tensor, temperature: float, top_p: float) -> None:
    """Draw one token per row, in place."""
    rows = batch.rows
    limit = rows["tokens"].shape[1] - 1
    at_B1 = rows["count"].masked_fill(rows["done"], limit)[:, None]
    token_B, logp_B = draw(logits_BV, rows["uniform"].gather(1, at_B1)[:, 0], temperature, top_p)
    rows["tokens"].scatter_(1, at_B1, token_B[:, None])
    rows["logp"].scatter_(1, at_B1, logp_B[:, None])
    rows["last"] = token_B
    rows["count"] += ~rows["done"]
    rows["finished"] |= ~rows["done"] & (token_B[:, None] == eos_K).any(-1)
    rows["done"] = rows["finished"] | (rows["count"] == limit)


def columns(rows: dict[str, Tensor]) -> tuple[int, int, int]:
    """(least, most, limit): the rows' lengths in the cache, and the columns that it can come to need for them."""
    least, most = (int(length) for length in rows["length"].aminmax())
    return least, most, most + rows["tokens"].shape[1] - 1 - int(rows["count"].min())


def remove_done(batch: DecodingBatch) -> dict[tuple[int, int], tuple[list[int], bool, list[float]]]:
    """Take out the rows that are done, in place: the last ones that are not move into their places, so that no more
    rows are copied than leave. Returns {(prompt, index): (response_ids, finished, logp)}."""
    rows, done_B = batch.rows, batch.rows["done"]
    done = done_B.nonzero()[:, 0]
    left = [rows[key][done].tolist() for key in ("id", "count", "finished", "tokens", "logp")]
    n_rows = len(done_B) - len(done)
    target, source = done[done < n_rows], n_rows + (~done_B[n_rows:]).nonzero()[:, 0]
    for value in rows.values():
        value[target] = value[source]
    batch.rows = {key: value[:n_rows] for key, value in rows.items()}
    if len(batch):
        least, most, limit = columns(batch.rows)
        batch.ragged = least < most
        for layer in batch.cache.layers:
            layer.keep(source, target, n_rows, most, limit)
    return {tuple(i): (tokens[:n], finished, logp[:n]) for i, n, finished, tokens, logp in zip(*left, strict=True)}


def merge(parts: Sequence[tuple[dict[str, Tensor], Cache, Tensor | None]], room: int = 64) -> DecodingBatch:
    """Join (rows, cache, cache_rows) parts, one cache row per row, with room for more columns."""
    rows = {key: torch.cat([part[0][key] for part in parts]) for key in parts[0][0]}
    least, most, limit = columns(rows)
    cache = parts[0][1]
    for i, layer in enumerate(cache.layers):  # layer by layer, so that only one layer is ever held twice
        states = [(part[1].layers[i].keys, part[1].layers[i].values, part[2]) for part in parts]
        capacity, layer.limit = min(most + room, limit), limit
        keys = right_aligned([(k, index) for k, _, index in states], most, capacity)
        values = right_aligned([(v, index) for _, v, index in states], most, capacity)
        layer.adopt(keys, values, most)
    return DecodingBatch(rows, cache, ragged=least < most)
