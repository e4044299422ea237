"""vLLM's interface as far as rollout.py uses it, on the CPU: a model in bfloat16 that loses its weights in sleep, and
raises where the real one would compute with nothing, with old keys, or hang. For the order of calls, not for numbers.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import torch

from minidrpo.engine import loading


class LLM:
    """One engine; `built` holds all, with the arguments of each."""

    built = []
    shift = 0.0  # of every log-probability it tells

    def __init__(self, **arguments):
        self.arguments, self.calls = arguments, []
        self.model = loading.load_model(arguments["model"], dtype=arguments["dtype"])
        self.asleep = self.empty = self.old_keys = self.frees_nothing = False
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(_finalizer=SimpleNamespace(detach=lambda: None)))
        LLM.built.append(self)

    def sleep(self, level):
        assert level == 2 and self.arguments["enable_sleep_mode"] and not self.asleep, "asleep already"
        self.calls.append("sleep")
        self.asleep = self.empty = True
        with torch.no_grad():
            for p in self.model.parameters():
                p.fill_(torch.nan)

    def wake_up(self):
        assert self.asleep, "awake already"
        self.calls.append("wake")
        self.asleep = False

    def collective_rpc(self, name, kwargs):
        assert name == "reload_weights" and not self.asleep, "weights into memory that is handed out"
        self.calls.append("reload")
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in kwargs["weights_iterator"]:
                assert tensor.dtype == own[name].dtype
                own.pop(name).copy_(tensor)
        assert not own, f"no weights for {list(own)}"
        self.empty, self.old_keys = False, True

    def reset_prefix_cache(self):
        self.old_keys = self.frees_nothing
        return not self.frees_nothing

    def apply_model(self, function):
        assert not self.asleep and not self.empty
        return [function(self.model)]

    def generate(self, prompts, params, use_tqdm):
        from rollout import TransformersSampler

        assert not self.asleep and not self.empty and not self.old_keys, "asked without weights or with old keys"
        self.calls.append("generate")
        sampler, outputs = TransformersSampler(self.model), []
        for prompt, p in zip(prompts, params, strict=True):
            drawn = sampler.sample(
                [prompt["prompt_token_ids"]],
                n=p.n,
                temperature=p.temperature,
                top_p=p.top_p,
                max_tokens=p.max_tokens,
                seeds=[p.seed],
            )
            outputs.append(SimpleNamespace(outputs=[completion(r) for r in drawn]))
        return outputs


def completion(r):
    flat = SimpleNamespace(
        logprobs=[x + LLM.shift for x in r.logp], start_indices=range(len(r.logp)), token_ids=r.response_ids
    )
    reason = "stop" if r.finished else "length"
    return SimpleNamespace(token_ids=r.response_ids, logprobs=flat, finish_reason=reason)


def install(monkeypatch):
    """`import vllm` gives this file's LLM, and rollout.py takes its machine for one with CUDA."""
    import rollout

    class OnCuda(rollout.VLLMSampler):
        def __init__(self, *arguments, device, **options):
            super().__init__(*arguments, device="cuda", **options)

    vllm, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    vllm.__spec__ = ModuleSpec("vllm", None)
    vllm.LLM, vllm.SamplingParams, platforms.current_platform = LLM, SimpleNamespace, SimpleNamespace()
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    monkeypatch.setattr(rollout, "VLLMSampler", OnCuda)
    monkeypatch.setattr(LLM, "built", [])
    monkeypatch.setattr(LLM, "shift", 0.0)
    return LLM.built
