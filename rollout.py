"""rollout.py - the policy answers prompts: token ids in, token ids out, with log-probabilities. No rewards, no methods.

Two samplers with one interface, `sample`, `sync`, `sleep`, `wake`:
  TransformersSampler  any machine: batched decoding of the trainer's own model, which finished answers leave
  VLLMSampler          CUDA, or vLLM's CPU build: one in-process engine a rank, fed with the trainer's weights by `sync`

P prompts | N = P*n responses in prompt order | B responses decoded at once | T tokens | V vocabulary

Both give a response the log-probability with which each token was really drawn (temperature and top_p included). A
response that ended by itself keeps its end-of-sequence token, whose log-probability counts; one cut at `max_tokens`
has `finished=False`.
"""

from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer


@dataclass(frozen=True)
class Rollout:
    """One response to one prompt, as token ids."""

    prompt_ids: list[int]
    response_ids: list[int]
    """Ends with the end-of-sequence token if the response finished."""
    finished: bool
    """Ended by itself; False: cut off at max_tokens."""
    logp: list[float]
    """The sampler's own log-probability (nats) of each response token, under the distribution it was drawn from."""


def eos_token_ids(model, tokenizer=None):
    """Every token id that ends a response, sorted: those of the model's generation config and the tokenizer's."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if named is None:
        named = model.config.eos_token_id
    ids = set(named if isinstance(named, list | tuple) else [named])
    ids.add(getattr(tokenizer, "eos_token_id", None))
    ids = sorted(ids - {None})
    if not ids:
        raise ValueError("rollout: neither the generation config nor the tokenizer names an end-of-sequence token")
    return ids


def check_request(prompt_ids, n, temperature, top_p, max_tokens, seeds, max_model_len):
    """ValueError, one line, for a request that cannot be sampled as asked."""
    if not all(prompt_ids):
        raise ValueError(f"rollout: prompt {[len(ids) for ids in prompt_ids].index(0)} has no tokens")
    if len(seeds) != len(prompt_ids):
        raise ValueError(f"rollout: {len(prompt_ids)} prompts but {len(seeds)} seeds; one seed a prompt")
    if n < 1 or max_tokens < 1:
        raise ValueError(f"rollout: n and max_tokens must be at least 1, got n={n}, max_tokens={max_tokens}")
    if not (temperature >= 0 and 0 < top_p <= 1):
        raise ValueError(f"rollout: need temperature >= 0 and 0 < top_p <= 1, got {temperature} and {top_p}")
    longest = max(map(len, prompt_ids), default=0)
    if max_model_len and longest + max_tokens > max_model_len:
        raise ValueError(
            f"rollout: a prompt of {longest} tokens and {max_tokens} new ones exceed the context of {max_model_len}"
        )


# --- drawing tokens ---------------------------------------------------------------------------------------------------


def uniforms(seed, index, count):
    """The `count` uniform numbers in [0, 1), float32, one a token, of response `index` to the prompt with `seed`.

    Philox is counter-based: the numbers depend on (seed, index) alone, not on how prompts are batched or spread over
    ranks, so a resumed run or another number of ranks draws the same responses (up to float noise in the logits).
    """
    key = np.array([seed % 2**64, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count, dtype=np.float32)


def draw(logits_BV, uniform_B, temperature, top_p=1.0):
    """One token a row by inverse CDF, one uniform number each. Returns (token_B, logp_B), logp_B of what was drawn.

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
        cdf_BV = logp_BV.exp().cumsum(-1)
        last_B = (cdf_BV < top_p).sum(-1, keepdim=True).clamp(max=cdf_BV.shape[-1] - 1)  # the set's last token
        mass_B = cdf_BV.gather(-1, last_B)
    else:
        cdf_BV = logp_BV.exp().cumsum(-1)
        mass_B = cdf_BV[:, -1:]  # 1 up to rounding, and the rounding matters to u near 1
    # The first token whose cdf exceeds u * mass. Kept below mass, so that such a token exists and is a possible one.
    threshold_B = torch.minimum(uniform_B[:, None] * mass_B, torch.nextafter(mass_B, torch.zeros_like(mass_B)))
    token_B = torch.searchsorted(cdf_BV, threshold_B, right=True)
    drawn_B = logp_BV.gather(-1, token_B)
    if top_p < 1:
        return order_BV.gather(-1, token_B)[:, 0], (drawn_B - mass_B.log())[:, 0]
    return token_B[:, 0], drawn_B[:, 0]


# --- Transformers -----------------------------------------------------------------------------------------------------


class GrowingLayer(DynamicLayer):
    """A cache layer that appends in place: keys and values (B, heads, T, head_dim) are views of buffers with room.

    (torch.cat, as the parent class has it, copies the whole cache for every token.)
    """

    def adopt(self, keys, values, n_columns):
        """Take over buffers of which the first n_columns columns are filled."""
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.buffers = keys, values
        self.keys, self.values = keys[:, :, :n_columns], values[:, :, :n_columns]

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.adopt(key_states, value_states, key_states.shape[2])
            return self.keys, self.values
        start, stop = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if stop > self.buffers[0].shape[2]:
            self.adopt(*(right_aligned([(old, None)], start, 2 * stop) for old in (self.keys, self.values)), start)
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:stop] = new
        self.keys, self.values = (buffer[:, :, :stop] for buffer in self.buffers)
        return self.keys, self.values


def right_aligned(parts, n_columns, capacity):
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
class Batch:
    """The rows being decoded. Every row ends at the cache's last column and begins `length` columns before it."""

    rows: dict[str, torch.Tensor]
    """By row: id (2), length (tokens in the cache), count (tokens drawn), finished, done; tokens, logp and uniform are
    (B, max_tokens + 1), the last column being a spare one for what rows draw that are done but not yet removed."""
    cache: Cache
    ragged: bool = True
    """Whether lengths differ, so that attention needs a mask."""


def advance(batch, logits_BV, eos_K, temperature, top_p):
    """Draw one token a row, in place."""
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


def harvest(batch):
    """{(prompt, index): (response_ids, finished, logp)} of the rows that are done."""
    done = batch.rows["done"].nonzero()[:, 0]
    columns = (batch.rows[key][done].tolist() for key in ("id", "count", "finished", "tokens", "logp"))
    return {tuple(i): (tokens[:n], finished, logp[:n]) for i, n, finished, tokens, logp in zip(*columns, strict=True)}


def merge(parts, room=64):
    """Join (rows, cache, cache_rows) parts, one cache row a row, into a Batch with room for more columns."""
    rows = {key: torch.cat([part[0][key] for part in parts]) for key in parts[0][0]}
    shortest, longest = (int(length) for length in rows["length"].aminmax())
    cache = parts[0][1]
    for i, layer in enumerate(cache.layers):  # layer by layer, so that only one layer is ever held twice
        states = [(part[1].layers[i].keys, part[1].layers[i].values, part[2]) for part in parts]
        keys = right_aligned([(k, index) for k, _, index in states], longest, longest + room)
        values = right_aligned([(v, index) for _, v, index in states], longest, longest + room)
        layer.adopt(keys, values, longest)
    return Batch(rows, cache, ragged=shortest < longest)


class TransformersSampler:
    """Samples from the trainer's own model, on any machine. There are no second weights: `sync` has nothing to send.

    Up to `max_batch` responses are decoded at once. Each prompt is read once and its cache copied n times. Rows end
    at a common column (left padding) and count positions from their own beginning. Whenever a quarter of the rows
    have finished, the others move together and waiting prompts take the free places.

    max_batch: rows decoded at once, which bounds memory. autocast: dtype for torch.autocast; None: the weights' own.
    Not for a model sharded over ranks (FSDP): the ranks would have to decode in step.
    """

    def __init__(self, model, tokenizer=None, *, max_batch=512, max_model_len=None, autocast=None):
        self.model, self.max_batch, self.autocast = model, max_batch, autocast
        self.max_model_len = max_model_len or getattr(model.config, "max_position_embeddings", None)
        self.eos_ids = eos_token_ids(model, tokenizer)

    def sync(self, model):
        """Nothing to send: the trainer's weights are the sampler's."""
        assert model is self.model, "this sampler reads the model it was built on; build one for this model"

    def sleep(self):
        """Nothing to free: the cache lives only inside `sample`."""

    def wake(self):
        """Nothing to load."""

    @torch.no_grad()  # not inference_mode: a tensor that a module kept from it (rotary tables) would break training
    def sample(self, prompt_ids, *, n, temperature, top_p=1.0, max_tokens, seeds):
        """Answer every prompt n times: N = P*n Rollouts in prompt order. seeds: one a prompt, see `uniforms`."""
        check_request(prompt_ids, n, temperature, top_p, max_tokens, seeds, self.max_model_len)
        training, device = self.model.training, self.model.device
        eos_K = torch.tensor(self.eos_ids, device=device)
        # Longest first: neighbours then need little padding, and what does not fit in memory shows at once.
        order = sorted(range(len(prompt_ids)), key=lambda p: -len(prompt_ids[p]))
        queue = deque((p, range(i, min(i + self.max_batch, n))) for p in order for i in range(0, n, self.max_batch))
        responses, batch = {}, None
        self.model.eval()
        try:
            with torch.autocast(device.type, self.autocast) if self.autocast else nullcontext():
                while queue or batch:
                    if batch and 4 * int(batch.rows["done"].sum()) < len(batch.rows["done"]):
                        advance(batch, self._next_logits(batch), eos_K, temperature, top_p)
                        continue
                    parts, free = [], self.max_batch
                    if batch:
                        responses |= harvest(batch)
                        keep = (~batch.rows["done"]).nonzero()[:, 0]
                        free -= len(keep)
                        if len(keep):
                            parts.append(({key: value[keep] for key, value in batch.rows.items()}, batch.cache, keep))
                    group = []
                    while queue and len(queue[0][1]) <= free:
                        group.append(queue.popleft())
                        free -= len(group[-1][1])
                    if group:
                        new, index, logits_BV = self._read(group, prompt_ids, seeds, max_tokens)
                        advance(new, logits_BV, eos_K, temperature, top_p)
                        parts.append((new.rows, new.cache, index))
                    batch = merge(parts) if parts else None
        finally:
            self.model.train(training)
        return [Rollout(prompt_ids[p], *responses[p, i]) for p in range(len(prompt_ids)) for i in range(n)]

    def _read(self, group, prompt_ids, seeds, max_tokens):
        """Run the prompts of `group`, [(prompt, indices)], once each. Returns their rows as a Batch whose cache has one
        row a prompt, the cache row of each row, and the logits of the first token, (B, V)."""
        device = self.model.device
        prompts = [prompt_ids[p] for p, _ in group]
        width = max(map(len, prompts))
        ids_QT = torch.tensor([[0] * (width - len(ids)) + ids for ids in prompts], device=device)
        length_Q = torch.tensor([len(ids) for ids in prompts], device=device)
        position_QT = torch.arange(width, device=device) - (width - length_Q[:, None])
        cache = Cache(layer_class_to_replicate=GrowingLayer)
        mask_QT = (position_QT >= 0).long() if min(map(len, prompts)) < width else None
        logits_QV = self._forward(ids_QT, mask_QT, position_QT.clamp(min=0), cache)
        index = torch.tensor([q for q, (_, indices) in enumerate(group) for _ in indices], device=device)
        ids = [(p, i) for p, indices in group for i in indices]
        uniform = np.stack([uniforms(seeds[p], i, max_tokens + 1) for p, i in ids])
        zero_B = torch.zeros_like(index)
        rows = {
            "id": torch.tensor(ids, device=device),
            "length": length_Q[index],
            "count": zero_B,
            "finished": zero_B.bool(),
            "done": zero_B.bool(),
            "last": zero_B,
            "tokens": torch.zeros(len(ids), max_tokens + 1, dtype=torch.long, device=device),
            "logp": torch.zeros(len(ids), max_tokens + 1, device=device),
            "uniform": torch.from_numpy(uniform).to(device),
        }
        return Batch(rows, cache), index, logits_QV[index]

    def _next_logits(self, batch):
        """Feed each row's last token; returns (B, V)."""
        length_B = batch.rows["length"]
        mask_BT = None
        if batch.ragged:
            n_columns = batch.cache.get_seq_length() + 1
            column_T = torch.arange(n_columns, device=length_B.device)
            mask_BT = (column_T >= n_columns - 1 - length_B[:, None]).long()
        position_B = length_B.masked_fill(batch.rows["done"], 0)  # a row that is done could leave the position table
        logits_BV = self._forward(batch.rows["last"][:, None], mask_BT, position_B[:, None], batch.cache)
        batch.rows["length"] = length_B + 1
        return logits_BV

    def _forward(self, ids_BT, mask_BT, position_BT, cache):
        output = self.model(
            input_ids=ids_BT, attention_mask=mask_BT, position_ids=position_BT, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        return output.logits[:, -1]
