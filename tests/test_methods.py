"""The table of methods: each row is the composition its paper says, its credit is a derivative."""

import dataclasses
import math
import re

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import config
import drpo
import train
from config import PRESETS, TINY, RunConfig
from minidrpo import cli, setup
from minidrpo.engine.loading import load_tokenizer
from minidrpo.methods import baselines
from minidrpo.methods import table as methods
from minidrpo.methods.discriminative import PREFERENCES
from minidrpo.methods.penalties import LASER_MONITOR
from minidrpo.methods.rewards import REWARDS
from minidrpo.methods.table import METHODS

C, LIMIT = 256, 100
CLIPPED = [name for name, method in METHODS.items() if not method.discriminative]
close = torch.testing.assert_close


def settings(name, **changes):
    """The tiny preset with this method; changes that other methods' settings have are passed over."""
    ours = {field.name for field in dataclasses.fields(config.config_class(name))}
    changes = {"max_response_tokens": C, "group_size": 6} | {k: v for k, v in changes.items() if k in ours}
    return config.make("tiny", name, **changes)


def graded(correct, length, texts=None, problems=None):
    correct_PG, length_PG = torch.tensor(correct, dtype=torch.bool), torch.tensor(length)
    problem_P = torch.arange(len(correct_PG)) if problems is None else torch.tensor(problems)
    return methods.Batch(correct_PG, length_PG, texts or [""] * correct_PG.numel(), problem_P)


def random_batch(seed, P=5, G=6, solved=0.6):
    g = torch.Generator().manual_seed(seed)
    return graded((torch.rand(P, G, generator=g) < solved).tolist(), torch.randint(1, C, (P, G), generator=g).tolist())


def state_after(cfg, batch):
    """What the method remembers of one batch."""
    return methods.compute_weights(batch, cfg, METHODS[cfg.method].new_state(cfg, len(batch.correct_PG)))[1]


def credit_of(cfg, batch, state=None):
    state = METHODS[cfg.method].new_state(cfg, len(batch.correct_PG)) if state is None else state
    return methods.credit(methods.compute_weights(batch, cfg, state)[0], batch, cfg)


# ------------------------------------------------------------------------------------------------ rows are compositions

KNOBS = {  # none at its default, so that a knob that is not wired shows
    "lam": 0.3, "alpha": 0.7, "alp_beta": 1e-4, "hapo_w": 0.4, "l1_target": 90, "l1_alpha": 2e-3, "l1_slope": "code",
    "sb_a": 1.5, "sb_b": 2e-3, "laser_bonus": 0.3, "length_limit": LIMIT, "reward_weights": (1.0, 0.3),
    "adv_std": "population", "adv_eps": 1e-3, "gdpo_over": "tokens", "ddca_beta": 0.3, "gr3_alpha": 0.5,
    "lead_alpha": 0.0, "solved_mu": 0.7,
}  # fmt: skip


def expected_weights(c, n, history_P, target_3):
    def normalised(reward_PG):
        return baselines.grpo_advantage(reward_PG, "population", 1e-3)

    both = torch.stack([c.float(), (c & (n <= LIMIT)).float()], -1)
    total = both[..., 0] + 0.3 * both[..., 1]
    return {
        "drpo": drpo.positive_distribution(1 - n / C, c, 0.3),
        "disco": drpo.positive_distribution(torch.zeros(n.shape), c, 1.0),
        "disco-b": drpo.positive_distribution(torch.zeros(n.shape), c, 1.0),
        "grpo": normalised(c.float()),
        "dr-grpo": c.float() - c.float().mean(-1, keepdim=True),
        "grpo-lp": normalised(baselines.length_penalty_reward(c, n, C, 0.7)),
        "rloo-lp": baselines.rloo_advantage(baselines.rloo_lp_reward(c, n, 0.7)),
        "alp": normalised(baselines.alp_reward(c, n.double(), 1e-4)),
        "hapo": normalised(baselines.hapo_reward(c, n, history_P, 0.4)),
        "l1-max": normalised(baselines.l1_max_reward(c, n, 90, "code", 2e-3)),
        "shorter-better": normalised(baselines.shorter_better_reward(c, n, 1.5, 2e-3)),
        "laser-d": normalised(baselines.laser_d_reward(c, n, target_3, 0.3)),
        "grpo-sum": normalised(total),
        "grpo-sum-no-std": total - total.mean(-1, keepdim=True),
        "gdpo": baselines.gdpo_advantage(both, [1.0, 0.3], eps=1e-6, over="tokens", length_PG=n),
    } | after_drpo(c, n, normalised)


def lead_weight(earlier):
    """LEAD's weight of correctness after one batch, at alpha 0: its share of the moving spread, std over mean."""
    c, n = earlier.correct_PG, earlier.length_PG.float()
    mean = torch.stack([group[ok].mean() for group, ok in zip(n, c, strict=True)])[:, None]
    length = (1 - (n - mean).abs() / mean).clamp(min=-1)
    spread = [0.95 + 0.05 * (r.std() / max(abs(r.mean()), 0.1)) for r in (c.float(), length)]
    return max((spread[0] / (spread[0] + spread[1])).item(), 0.3)


def after_drpo(c, n, normalised):
    """The later methods and the ablation, group by group, in plain loops."""
    rows = {name: [] for name in ("ddca", "gr3", "lead", "grpo-lp-no-std", "drpo-solved")}
    penalised = baselines.length_penalty_reward(c, n, C, 0.7)
    for correct, length, reward in zip(c.tolist(), n.tolist(), penalised.tolist(), strict=True):
        G, right = len(correct), [x for x, ok in zip(length, correct, strict=True) if ok]
        mean = sum(right) / max(len(right), 1)
        std = (sum((x - mean) ** 2 for x in right) / max(len(right), 1)) ** 0.5
        s = {x: 1 / (1 + math.exp(-(x - mean) / (std + 1e-6))) for x in right}
        centre = sum(s[x] for x in right) / max(len(right), 1)
        loo = [(ok - (len(right) - ok) / (G - 1)) for ok in map(float, correct)]
        rows["ddca"].append(
            [
                a - (0.3 * len(right) / G * (s[x] - centre) if ok else 0)
                for a, x, ok in zip(loo, length, correct, strict=True)
            ]
        )
        rows["gr3"].append([ok / (1 + 0.5 * x * G / sum(length)) for x, ok in zip(length, correct, strict=True)])
        rows["lead"].append([max(-1.0, 1 - abs(x - mean) / mean) if right else 0.0 for x in length])
        rows["grpo-lp-no-std"].append([r - sum(reward) / G for r in reward])
        total = sum(math.exp(-x / C / 0.3) for x in right)
        w = [math.exp(-x / C / 0.3) / total if ok else 0.0 for x, ok in zip(length, correct, strict=True)]
        solved, wrong = len(right) == G, G - len(right)
        push = [0.0 if ok or not right else -1 / wrong for ok in correct]
        pull = [0.7 * (x - 1 / G) if solved else x if right else 0.0 for x in w]
        rows["drpo-solved"].append([G * (a + b) for a, b in zip(pull, push, strict=True)])
    made = {name: torch.tensor(row) for name, row in rows.items()}
    mixed = torch.tensor([0 < sum(group) < len(group) for group in c.tolist()])
    made["grpo-lp-mixed-only"] = torch.where(mixed[:, None], normalised(penalised), 0.0)
    made["grpo-lp-batch-std"] = made["grpo-lp-no-std"] / (made["grpo-lp-no-std"].std() + 1e-3)
    made["gr3"], weight = normalised(made["gr3"]), lead_weight(random_batch(1))
    made["lead"] = weight * normalised(c.float()) + (1 - weight) * normalised(made["lead"])
    return made


@pytest.mark.parametrize("name", METHODS)
def test_a_row_puts_together_what_its_paper_says(name):
    earlier, batch = random_batch(1), random_batch(2)
    cfg = settings(name, **KNOBS)
    state = state_after(cfg, earlier)
    before = {key: value.clone() for key, value in state.items()}
    weight_PG, _ = methods.compute_weights(batch, cfg, state)
    shortest_P = earlier.length_PG.float().masked_fill(~earlier.correct_PG, math.inf).amin(-1)
    candidates = range(C // 64, C + 1, C // 64)
    target_3 = baselines.laser_d_targets(earlier.correct_PG, earlier.length_PG, candidates, C)
    assert (target_3 < C).any(), "a target that is the limit would not show whether it is used"
    expected = expected_weights(batch.correct_PG, batch.length_PG, shortest_P, target_3)
    assert set(expected) == set(METHODS)
    close(weight_PG, expected[name])
    assert state.keys() == before.keys() and all(state[key].equal(before[key]) for key in before), "weigh is pure"


@pytest.mark.parametrize("name", METHODS)
def test_every_knob_turns_its_method(name):
    """Two strengths of the method's own knob, the same answers: another credit."""
    knob, batch = METHODS[name].hyperparameter, random_batch(3)
    if not knob:
        return
    strengths = {"lam": (0.1, math.inf), "tau": (0.1, 10.0), "l1_target": (20, 200), "length_limit": (20, 200)}
    score_PG = torch.randn(batch.correct_PG.shape, generator=torch.Generator().manual_seed(4))
    found = []
    for strength in strengths.get(knob, (0.01, 0.5)):
        cfg = settings(name, l1_alpha=0.01, adv_eps=1e-3, **{knob: strength})
        before = state_after(settings(name, laser_bonus=0.5), random_batch(1))
        weight_PG, _ = methods.compute_weights(batch, cfg, before)
        found.append(methods.credit(weight_PG, batch, cfg, score_PG))
    assert (found[0] - found[1]).abs().max() > 1e-4 * found[0].abs().max()


def test_states_are_remembered_but_not_yet_used():
    """HAPO weighs with the records of earlier steps; LASER-D chooses targets every `laser_every` steps."""
    batch = graded([[1, 1, 0, 0]], [[50, 90, 20, 60]], problems=[3])
    cfg = settings("hapo")
    state = METHODS["hapo"].new_state(cfg, 5)
    first, state = methods.compute_weights(batch, cfg, state)
    close(first, baselines.grpo_advantage(batch.correct_PG.float()))  # no record yet: plain GRPO
    assert state["shortest_D"].tolist() == [math.inf] * 3 + [50.0, math.inf]
    assert not methods.compute_weights(batch, cfg, state)[0].equal(first)

    cfg = settings("laser-d", laser_every=2, group_size=4)
    state, targets = METHODS["laser-d"].new_state(cfg, 5), []
    for length in (60, 120, 30, 10):
        batch = graded([[1, 1, 1, 0]] * 300, [[length] * 4] * 300)
        _, state = methods.compute_weights(batch, cfg, state)
        targets.append(state["target_3"][0].item())
        assert len(state["correct_MG"]) <= LASER_MONITOR
    assert targets == [60.0, 60.0, 32.0, 32.0]  # after the first step and after the third; in steps of C/64


# --------------------------------------------------------------------------------------------------- credit, defined


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("extra", [{}, {"score": "likelihood_ratio", "tau": 0.5}], ids=["log_likelihood", "ratio"])
def test_credit_is_the_objectives_derivative_by_score(name, extra):
    """Autograd, token by token, at the policy that sampled: each token of an answer gets credit/|o|."""
    batch, cfg = random_batch(7), settings(name, **({"tau": 0.5} | extra))
    weight_PG, _ = methods.compute_weights(batch, cfg, state_after(cfg, random_batch(8)))
    length_N = batch.length_PG.flatten()
    mask = torch.arange(C) < length_N[:, None]
    old = -2 * torch.rand(len(mask), C, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    logp = old.clone().requires_grad_()
    score_PG = drpo.sequence_score(logp, mask, old, getattr(cfg, "score", "log_likelihood")).view(weight_PG.shape)
    surrogate = METHODS[name].surrogate
    if METHODS[name].discriminative:
        groups = batch.correct_PG, weight_PG.double(), cfg.tau, "mean" if name == "disco-b" else "dro"
        objective = drpo.drpo_objective(score_PG, *groups)
    else:
        clips = surrogate.clip_low, surrogate.clip_high, surrogate.aggregate
        objective = baselines.clipped_surrogate(logp, old, mask, weight_PG.flatten(), *clips, max_tokens=C)
    objective.backward()
    mean_logp_PG = drpo.sequence_score(logp.detach(), mask).view(weight_PG.shape)
    credit_N = methods.credit(weight_PG.double(), batch, cfg, mean_logp_PG).flatten()
    close(logp.grad, torch.where(mask, credit_N[:, None] / length_N[:, None], 0.0).double())
    assert credit_N.abs().max() > 0


# ------------------------------------------------------------------------------------ the paper's point, by search


@st.composite
def groups(draw, P=1):
    G = draw(st.integers(2, 8))
    rows = []
    for _ in range(P):
        n_right = draw(st.integers(0, G))
        lengths = draw(st.lists(st.integers(1, C), min_size=G, max_size=G))
        rows.append([(i < n_right, length) for i, length in enumerate(lengths)])
    return graded([[c for c, _ in row] for row in rows], [[n for _, n in row] for row in rows])


def gives_negative_credit(name, batch, mixed):
    """Does the method push a correct answer down, in a group with wrong answers (or in one without)?"""
    cfg = settings(name, alpha=0.4)
    state = {"shortest_D": torch.full((len(batch.correct_PG),), 60.0)} if name == "hapo" else None
    pushed = (credit_of(cfg, batch, state) < 0) & batch.correct_PG
    return bool(pushed[drpo.mixed_groups(batch.correct_PG) == mixed].any())


@given(groups(P=3), st.sampled_from([0.01, 0.1, 0.5, math.inf]), st.sampled_from(list(PREFERENCES)))
@hypothesis.settings(max_examples=60, deadline=None)
def test_no_preference_gives_a_correct_response_negative_credit(batch, lam, preference):
    for name in ("drpo", "disco", "disco-b"):
        credit_PG = credit_of(settings(name, lam=lam, preference=preference), batch)
        assert (credit_PG[batch.correct_PG] >= 0).all() and (credit_PG[~batch.correct_PG] <= 0).all()
        close(credit_PG.sum(-1), torch.zeros(3))  # what is pulled is what is pushed, prompt by prompt


@pytest.mark.parametrize("name, mixed", [("grpo-lp", True), ("rloo-lp", True), ("hapo", True), ("alp", False)])
def test_a_search_finds_correct_responses_with_negative_credit_for_the_others(name, mixed):
    """hypothesis.find stops with NoSuchExample if there is none. ALP at its own beta does it where all are right."""
    options = dict(derandomize=True, database=None, deadline=None, phases=[hypothesis.Phase.generate])
    quick = hypothesis.settings(max_examples=1000, **options)
    found = hypothesis.find(groups(), lambda batch: gives_negative_credit(name, batch, mixed), settings=quick)
    assert gives_negative_credit(name, found, mixed) and not gives_negative_credit("drpo", found, mixed)


# ------------------------------------------------------------------------------------------------ preferences, rewards


def test_fewer_reflections_changes_the_weights_as_it_should():
    """The same answers, equally long: by length all are alike, by reflection words the terse one wins."""
    texts = ["17+5=22.", "Wait, let me check. 17+5=22.", "Wait, wait. Actually, check: 17+5=22.", "Wait: 23."]
    batch = graded([[1, 1, 1, 0]], [[40, 40, 40, 40]], texts)
    by_length, _ = methods.compute_weights(batch, settings("drpo"), {})
    close(by_length, torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0]]))
    by_words, _ = methods.compute_weights(batch, settings("drpo", preference="reflections", lam=0.5), {})
    odds = torch.tensor([1 / 1, 1 / 3, 1 / 5]) / 0.5  # 0, 2 and 4 of the words
    close(by_words, torch.tensor([[*odds.softmax(-1).tolist(), 0]]))


def test_only_the_conditioned_length_reward_asks_for_a_right_answer():
    """GDPO's Eq. 8: short and wrong earns the plain one, not the conditioned one."""
    batch, cfg = graded([[1, 1, 0]], [[10, 99, 10]]), settings("gdpo", length_limit=64)
    assert REWARDS["length"](batch, cfg).tolist() == [[1, 0, 1]]
    assert REWARDS["conditioned_length"](batch, cfg).tolist() == [[1, 0, 0]]


def test_a_thought_that_the_prompt_opens_counts_for_the_format():
    """Templates that end in <think> leave it out of the response: the tiny model's does, and R1's."""
    batch = methods.Batch(torch.ones(1, 2).bool(), torch.ones(1, 2).long(), ["a</think>\n<answer>7</answer>", "7"],
                          torch.tensor([0]), opened=True)  # fmt: skip
    assert REWARDS["format"](batch, None).tolist() == [1, 0]
    assert REWARDS["format"](dataclasses.replace(batch, opened=False), None).tolist() == [0, 0]


def test_format_and_integer_rewards():
    texts = ["<think>a</think>\n<answer>7</answer>", "<think>a</think>\n<answer>x</answer>", "<answer>7</answer>", "x"]
    batch = graded([[1, 0, 1, 0]], [[9, 9, 9, 9]], texts)
    several = dict(rewards=("correct", "format", "integer"), reward_weights=(1.0, 0.5, 0.25))
    cfg = settings("gdpo", **several)
    rewards = torch.tensor([[[1, 1, 1], [0, 1, 0], [1, 0, 1], [0, 0, 0]]])
    close(methods.compute_weights(batch, cfg, {})[0], baselines.gdpo_advantage(rewards, [1.0, 0.5, 0.25]))
    total = torch.tensor([[1.75, 0.5, 1.25, 0.0]])
    close(methods.compute_weights(batch, settings("grpo-sum", **several), {})[0], baselines.grpo_advantage(total))


# --------------------------------------------------------------------------------------------------- as a user meets it

MISTAKES = {
    ("--method=grop",): "grop",
    (
        "--method=grpo-lp",
        "--alpha=-1",
    ): "--alpha must be 0 or more, got -1.0",
    (
        "--method=rloo-lp",
        "--alpha=nan",
    ): "--alpha must be 0 or more, got nan",
    (
        "--method=alp",
        "--alp-beta=inf",
    ): "--alp-beta must be finite",
    (
        "--method=hapo",
        "--hapo-w=-0.1",
    ): "--hapo-w must be 0 or more",
    (
        "--method=l1-max",
        "--l1-target=0",
    ): "--l1-target must be 1 or more",
    (
        "--method=l1-max",
        "--l1-slope=steep",
    ): "steep",
    (
        "--method=shorter-better",
        "--sb-b=-1",
    ): "--sb-b must be 0 or more",
    (
        "--method=laser-d",
        "--laser-bonus=inf",
    ): "--laser-bonus must be finite",
    (
        "--method=laser-d",
        "--laser-every=0",
    ): "--laser-every must be 1 or more",
    (
        "--method=gdpo",
        "--length-limit=0",
    ): "--length-limit must be 1 or more",
    (
        "--method=grpo",
        "--adv-eps=0",
    ): "--adv-eps must be positive, got 0.0",  # equal rewards would be 0/0
    ("--method=gdpo", "--rewards", "correct", "beauty"): "beauty",
    ("--method=gdpo", "--reward-weights", "1"): "--reward-weights must be as many as --rewards, got 1 for 2",
    ("--method=gdpo", "--reward-weights", "1", "nan"): "--reward-weights must be finite",
    ("--preference=beauty",): "beauty",
    (
        "--method=gdpo",
        "--rewards",
    ): "--rewards needs a value",
    ("--method=grpo", "--lam=0.2"): "--lam does nothing with --method grpo, it is for drpo, drpo-solved\n",
    ("--alp-beta=1e-8",): "--alp-beta does nothing with --method drpo, it is for alp\n",
    ("r1-1.5b", "--alpha=0"): "--alpha does nothing with --method drpo, it is for grpo-lp, rloo-lp, grpo-lp-no-std",
    ("--method=disco-b", "--tau=1"): "--tau does nothing with --method disco-b, it is for drpo, disco\n",
    ("--method=l1-max", "--sb-a=1"): "--sb-a does nothing with --method l1-max, it is for shorter-better\n",
}


@pytest.mark.parametrize("flags", MISTAKES, ids=" ".join)
def test_a_knob_out_of_range_gets_one_line(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(list(flags))
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and err.startswith("error: ") and MISTAKES[flags] in err


class Watched:
    """A config that remembers which of its fields were read."""

    def __init__(self, cfg):
        self.cfg, self.seen = cfg, set()

    def __getattr__(self, name):
        self.seen.add(name)
        return getattr(self.cfg, name)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_reads_the_settings_that_its_row_says(name):
    """Independent of the table: weigh one batch and watch. What the update alone reads is said here."""
    cfg = Watched(settings(name, rewards=("correct", "length")))
    state = METHODS[name].new_state(cfg, 9)
    weight_PG, _ = methods.compute_weights(random_batch(1), cfg, state)
    methods.credit(weight_PG, random_batch(1), cfg, torch.zeros(weight_PG.shape))
    RunConfig.suffixes.fget(cfg)
    METHODS[name].numbers(random_batch(1), cfg)
    everyones = set().union(*(method.flags for method in METHODS.values()))
    said, fixed = METHODS[name].flags - {"beta", "delta", "kl_estimator"}, {"lam", "tau", "negatives"}
    assert said <= cfg.seen & everyones and cfg.seen & everyones - said <= fixed  # fixed: a method's constants
    assert METHODS[name].discriminative == ({"beta", "delta", "kl_estimator"} <= METHODS[name].flags)


def parse(argv):
    return config.parse(argv, "train.py", "")


def test_presets_and_shared_settings_are_for_every_method():
    for name in METHODS:
        for preset in PRESETS:
            assert parse([preset, f"--method={name}", "--lr=1"]).method == name
        own = METHODS[name].hyperparameter
        assert not own or getattr(parse([f"--method={name}", f"--{own}=3"]), own) == 3


@pytest.mark.parametrize("name", METHODS)
def test_help_of_a_method_shows_what_it_reads(name, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--method", name, "--help"])
    words = set(re.findall(r"[\w.-]+", capsys.readouterr().out))
    assert not stop.value.code and {*METHODS, *PRESETS} <= words
    everyones = set().union(*(method.flags for method in METHODS.values()))
    assert {flag for flag in everyones if cli.flag_of(flag) in words} == METHODS[name].flags
    assert name != "drpo" or {*PREFERENCES} <= words
    assert name != "gdpo" or {*REWARDS} <= words


def test_run_directories_of_methods_do_not_meet():
    names = {name: settings(name).directory.name for name in METHODS}
    assert len(set(names.values())) == len(METHODS) and names["drpo"] == "tiny-lam0.1-seed0"
    assert names["alp"] == "tiny-alp-alp_beta1e-07-seed0"


class Quiet:
    def say(self, text):
        pass


def test_l1_max_tells_the_model_its_budget():
    tokenizer = load_tokenizer(TINY.model)
    cfg = settings("l1-max", l1_prompt=True, l1_target=77, max_problems=2)
    _, prompts = setup.load_prompts(cfg, "arithmetic", "test", tokenizer, Quiet(), limit=2)
    assert all("=? Think for maximum 77 tokens.<" in tokenizer.decode(ids) for ids in prompts)
    for other in (dataclasses.replace(cfg, l1_prompt=False), settings("grpo")):
        _, prompts = setup.load_prompts(other, "arithmetic", "test", tokenizer, Quiet(), limit=2)
        assert not any("Think for" in tokenizer.decode(ids) for ids in prompts)
