"""How a task's own grading enters: problems name their grader, grades carry scores, rewards read them. The fake task
here counts vowels; tasks/graders.py's own ones have tests of their own."""

import dataclasses
import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import config
import reward
from conftest import ROOT
from minidrpo import cli
from minidrpo.methods import baselines, rewards
from minidrpo.methods import table as methods
from minidrpo.records import Grade, GradedResponse, Problem, Rollout
from minidrpo.rundir.metrics import summarise
from minidrpo.tasks import data
from minidrpo.tasks.graders import GRADERS

close = torch.testing.assert_close


def grade(response, truth):
    vowels = sum(letter in "aeiou" for letter in response.split("</think>")[-1])
    return Grade(
        vowels == int(truth), "counted", str(vowels), {"vowels": vowels / 2, "opens": float(response[:7] == "<think>")}
    )


VOWELS = SimpleNamespace(
    grade=grade,
    SCORES=("vowels", "opens"),
    REWARDS=("vowels", "conditioned_length"),
    SIZES={"train": 40, "test": 20},
    problems=lambda n, split, seed: [(f"{split} {i}", str(i % 3), 1) for i in range(n)],
)


@pytest.fixture(autouse=True)
def vowels(monkeypatch):
    """The fake task in every table that a row of graders.py fills."""
    monkeypatch.setitem(GRADERS, "vowels", VOWELS)
    monkeypatch.setattr(data, "BUILT_IN", (*data.BUILT_IN, "vowels"))
    monkeypatch.setitem(data.SIZES, "vowels", VOWELS.SIZES)
    for name in VOWELS.SCORES:
        monkeypatch.setitem(rewards.REWARDS, name, rewards.measured(name))
    monkeypatch.setattr(rewards, "MEASURED", [*rewards.MEASURED, *VOWELS.SCORES])


def rollout(n, finished=True):
    return Rollout([1], [2] * n, finished, [-0.5] * n)


def graded(texts, truths=("1", "2"), opened=False, finished=True):
    problems = [Problem("q", truth, "s", i, "vowels") for i, truth in enumerate(truths)]
    rollouts = [rollout(len(text) + 1, finished) for text in texts]
    return reward.grade_rollouts(problems, rollouts, texts, opened)


def test_a_row_is_graded_by_whom_it_names():
    mixed = [Problem("q", "2", "s", 0, "vowels"), Problem("q", "2", "s", 1)]
    boxed = r"</think>\boxed{2}"
    by_vowels, by_box = reward.grade_rollouts(mixed, [rollout(3)] * 2, [boxed] * 2)
    assert by_vowels.correct and by_vowels.reason == "counted" and by_vowels.scores == {"vowels": 1.0, "opens": False}
    assert by_box.correct and by_box.reason == "correct" and by_box.scores == {}
    with pytest.raises(ValueError, match="1 graders"):
        reward.grade_all(["a"] * 2, ["1"] * 2, graders=["vowels"])


def test_graders_see_the_tag_that_the_prompt_holds():
    assert not graded(["a", "ea"])[0].scores["opens"]
    assert graded(["a", "ea"], opened=True)[0].scores["opens"] and graded(["a"], ("1",), opened=True)[0].response == "a"


def test_a_truncated_response_is_wrong_and_keeps_what_was_measured():
    (cut,) = graded(["a"], ("1",), finished=False)
    assert (cut.correct, cut.reason, cut.answer) == (False, "truncated", None) and cut.scores["vowels"] == 0.5


def test_scores_travel_to_the_batch_the_log_and_the_files():
    responses = graded(["a", "e", "xx", "io"])
    batch = methods.Batch.of(responses, 2, [0, 1])
    close(batch.scores["vowels"], torch.tensor([[0.5, 0.5], [0, 1.0]]))
    assert summarise(responses).summary()["vowels"] == 0.5
    again = [GradedResponse(**json.loads(json.dumps(r.as_dict()))) for r in responses]
    assert again == responses and all(cli.fits(r.scores, dict[str, float]) for r in again)
    assert not cli.fits({"a": "1"}, dict[str, float]) and not cli.fits([1], dict[str, float])
    half = [*responses[:2], *(dataclasses.replace(r, scores={}) for r in responses[2:])]
    assert methods.Batch.of(half, 2, [0, 1]).scores == {}, "what only some responses have is no reward"


def test_a_data_set_names_its_own_rewards():
    cfg = config.make("tiny", "gdpo", train_data="vowels", length_limit=2)
    assert rewards.names(cfg) == VOWELS.REWARDS and rewards.names(config.make("tiny", "gdpo")) == rewards.USUAL
    mixed = dataclasses.replace(cfg, rewards=("own", "correct"), reward_weights=(1.0, 0.5, 2.0))
    assert rewards.names(mixed) == (*VOWELS.REWARDS, "correct")
    with pytest.raises(ValueError, match=r"as many as --rewards, got 2 for 3 \(vowels, conditioned_length, correct\)"):
        dataclasses.replace(mixed, reward_weights=(1, 1))
    batch = methods.Batch.of(graded(["a", "e", "xx", "io"]), 2, [0, 1])
    close(rewards.several(batch, cfg, {})[..., 0], batch.scores["vowels"])
    close(rewards.several(batch, cfg, {})[..., 1], torch.tensor([[1.0, 1.0], [0, 0]]))
    assert methods.METHODS["gdpo"].numbers(batch, cfg)["rewards"] == {"vowels": 0.5, "conditioned_length": 0.5}


@pytest.mark.parametrize("name", ["grpo-sum", "grpo-sum-no-std", "gdpo"])
def test_any_of_these_methods_takes_any_rewards(name):
    cfg = config.make("tiny", name, rewards=("correct", "format"), reward_weights=(1.0, 3.0))
    texts = ["<think>a</think>\n<answer>7</answer>", "x", "y", "z"]
    batch = methods.Batch(torch.tensor([[0, 1, 0, 0]]).bool(), torch.ones(1, 4).long(), texts, torch.tensor([0]))
    weight_PG, _ = methods.compute_weights(batch, cfg, {})
    order = weight_PG[0].argsort(descending=True, stable=True).tolist()
    assert order[0] == (0 if name != "gdpo" else order[0]) and set(order[:2]) == {0, 1}
    only = methods.compute_weights(batch, config.make("tiny", name, rewards=("correct",)), {})[0]
    assert only[0].argmax() == 1


def test_rewards_that_the_data_do_not_have_are_one_clear_line():
    cfg = config.make("tiny", "gdpo", train_data="vowels")
    rewards.check_data(cfg, data.load_problems("vowels"))
    rewards.check_data(config.make("tiny", "drpo"), data.load_problems("arithmetic", n=3))
    for spec in ("arithmetic", "thinking"):
        with pytest.raises(ValueError, match=f"--rewards vowels is not measured by the grader of {spec}, which looks"):
            wrong = SimpleNamespace(rewards=("vowels",), train_data=spec)
            rewards.check_data(wrong, data.load_problems(spec, n=3))


def test_a_built_in_task_and_a_file_may_name_the_grader(tmp_path):
    held_out = data.load_problems("vowels", split="test")
    assert len(held_out) == 20 and held_out[1] == Problem("test 1", "1", "vowels/level-1", 1, "vowels")
    path = tmp_path / "mine.jsonl"
    rows = [{"problem": "1+1?", "answer": 2}, {"problem": "say a", "answer": "1 #### 2", "grader": "vowels"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [(p.grader, p.truth) for p in data.load_problems(str(path))] == [("", 2), ("vowels", "1 #### 2")]
    for grader, truth, said in (
        ("vowel", "1", "no grader 'vowel', choose from"),
        ("vowels", 1, "wants a text, got int"),
    ):
        path.write_text(json.dumps({"problem": "p", "answer": truth, "grader": grader}))
        with pytest.raises(ValueError, match=f"mine.jsonl: row 0, column .*{said}"):
            data.load_problems(str(path))
    path.write_text('{"problem": "p", "answer": "1", "grader": ["vowels"]}')
    with pytest.raises(ValueError, match="no grader"):
        data.load_problems(str(path))


def test_only_boxed_answers_are_asked_to_be_boxed():
    class Tokenizer:
        bos_token_id, chat_template, name_or_path = None, "", "none"

        def __call__(self, texts, **_):
            return {"input_ids": [list(text.encode()) for text in texts]}

    problems = [Problem("a", "1", "s", 0, "vowels"), Problem("b", "1", "s", 1)]
    suffix = [data.SUFFIX, "Think for maximum 9 tokens."]
    _, ids, _ = data.encode_prompts(problems, Tokenizer(), max_tokens=999, template=False, suffix=suffix)
    said = [bytes(row).decode() for row in ids]
    assert said == ["a Think for maximum 9 tokens.", f"b {data.SUFFIX} Think for maximum 9 tokens."]


# ------------------------------------------------------------------------------------------ what is defined for rewards

NAMES = ["grpo-sum", "grpo-sum-no-std", "gdpo"]


def weigh(name, *scores, **settings):
    """The advantages of this method for a batch whose rewards are `scores`, each (P, G)."""
    cfg = SimpleNamespace(**vars(config.make("tiny", name, **settings)) | {"method": name})
    cfg.rewards = VOWELS.SCORES[: len(scores)]
    scores = {name: torch.tensor(score) for name, score in zip(VOWELS.SCORES, scores, strict=False)}
    shape = next(iter(scores.values())).shape
    nothing = torch.zeros(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.long), [""] * math.prod(shape)
    return methods.compute_weights(methods.Batch(*nothing, torch.arange(shape[0]), scores=scores), cfg, {})[0]


@pytest.mark.parametrize("name", NAMES)
def test_constant_rewards_and_groups_of_one_earn_exactly_nothing(name):
    close(weigh(name, [[0.1] * 4], [[-3.0] * 4]), torch.zeros(1, 4), rtol=0, atol=0)
    close(weigh(name, [[0.7], [0.1]], [[1.0], [-3.0]]), torch.zeros(2, 1), rtol=0, atol=0)
    constant_beside = weigh(name, [[0.0, 1.0, 1.0]], [[0.3] * 3])
    close(constant_beside, weigh(name, [[0.0, 1.0, 1.0]], [[0.0] * 3]))
    assert constant_beside.isfinite().all() and constant_beside.abs().max() > 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_stops_and_says_which(name, bad):
    """Not a silent NaN in the whole batch; a FloatingPointError ends the run in one line with its checkpoint intact."""
    with pytest.raises(FloatingPointError, match=f"reward opens is {bad} for response 1 to prompt 0"):
        weigh(name, [[0.0, 1.0], [1.0, 0.0]], [[0.0, bad], [1.0, 1.0]])


def test_a_presets_method_is_its_own_unless_another_is_named(monkeypatch):
    fields = config.TINY_FIELDS | {"method": "gdpo"}
    monkeypatch.setitem(config.PRESETS, "several", ("a preset with a method", fields))
    assert config.make("several").method == "gdpo" and config.make("several", "drpo").method == "drpo"
    assert config.parse(["several"], "", "").method == "gdpo" and config.parse(["several"], "", "").length_limit == 64
    assert config.parse(["several", "--method", "grpo"], "", "").method == "grpo"
    assert config.parse(["tiny"], "", "").method == config.parse([], "", "").method == "drpo"


@pytest.mark.slow
def test_a_run_with_measured_rewards_on_one_rank_and_on_two(tmp_path):
    """The scores of all ranks reach every rank: the same batch numbers, the same update, whoever graded."""
    code = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import test_own_graders as t
from minidrpo.methods import baselines, rewards
from minidrpo.tasks import data
rewards.REWARDS["vowels"] = rewards.measured("vowels"); t.GRADERS["vowels"] = t.VOWELS
data.BUILT_IN += ("vowels",); data.SIZES["vowels"] = t.VOWELS.SIZES
t.VOWELS.problems = lambda n, split, seed: [(f"{{i}}+1=?", str(i % 3), 1) for i in range(n)]
import train
train.main(sys.argv[1:])
"""
    (tmp_path / "go.py").write_text(code)
    small = ["--method=gdpo", "--train-data=vowels", "--eval-data=vowels", "--steps=1", "--prompts-per-step=4"]
    small += ["--group-size=4", "--max-problems=2", "--samples=1", "--max-response-tokens=32", "--no-eval-start"]
    found = []
    for ranks in (1, 2):
        run = tmp_path / f"run{ranks}"
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
        command = [sys.executable, *launch, str(tmp_path / "go.py"), *small, f"--run-dir={run}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(json.loads((run / "metrics.jsonl").read_text()))
        assert json.loads((run / "evals.jsonl").read_text())["vowels"] > 0
        assert all(set(json.loads(line)["scores"]) == set(VOWELS.SCORES) for line in open(run / "samples.jsonl"))
    assert found[0]["rewards"] == found[1]["rewards"] and found[0]["rewards"]["vowels"] > 0
    assert found[0]["grad_norm"] == pytest.approx(found[1]["grad_norm"], rel=1e-4) and found[0]["grad_norm"] > 0


# ---------------------------------------------------------------------- what GDPO keeps, and what it does not
# docs/several_rewards.md says these; the norm over the batch is one factor for all


def test_two_rewards_whose_sum_is_constant_cancel_under_gdpo_too():
    """z2 = -z1: each reward has the other's spread. In whole numbers exactly, else to rounding."""
    first = [[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]]
    second = [[1 - x for x in row] for row in first]
    for name in ("gdpo", "grpo-sum", "grpo-sum-no-std"):
        close(weigh(name, first, second), torch.zeros(2, 4), rtol=0, atol=0)
    fractions = [[0.3, 0.9, 0.45, 0.0]]
    close(weigh("gdpo", fractions, [[7 - x for x in fractions[0]]]), torch.zeros(1, 4), rtol=0, atol=1e-2)
    raw = baselines.gdpo_advantage(
        torch.tensor([fractions[0], [1 - x for x in fractions[0]]]).T[None], batch_norm=False
    )
    close(raw, torch.zeros(1, 4), rtol=0, atol=1e-6)


def test_with_other_weights_or_three_rewards_they_need_not_cancel():
    first, second = [[1.0, 0.0, 0.0, 1.0]], [[0.0, 1.0, 1.0, 0.0]]
    assert (weigh("gdpo", first, second, reward_weights=(1.0, 0.5)) * torch.tensor(first) > 0).any()
    three = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]).T[None]
    assert (three.sum(-1) == 2).all(), "GRPO on the sum sees nothing, and a filter on its variance drops the group"
    assert baselines.grpo_advantage(three.sum(-1)).abs().max() == 0
    assert baselines.gdpo_advantage(three).abs().max() > 0.5


def test_gdpo_keeps_the_size_of_a_groups_signal():
    """Totals 0 and 2 are twice the signal of totals 0 and 1; divided by its own std, GRPO's is the same in both."""
    one, both = [[0.0, 1.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]]  # group 1: one reward moves, group 2: both do
    strong = {name: weigh(name, one, both).abs().amax(-1) for name in NAMES}
    close(strong["grpo-sum"][0], strong["grpo-sum"][1], rtol=1e-5, atol=0)
    close(strong["gdpo"][1] / strong["gdpo"][0], torch.tensor(2.0), rtol=1e-4, atol=0)
    close(strong["grpo-sum-no-std"][1] / strong["grpo-sum-no-std"][0], torch.tensor(2.0))


def test_gdpo_does_not_depend_on_the_scales_of_the_rewards():
    """GRPO on correct in {0, 1} and minus the length in tokens ranks the one correct response last: it is the longest.
    GDPO puts it beside the shortest, whatever the unit of length."""
    correct, length = [[1.0, 0.0, 0.0, 0.0]], [[-300.0, -290.0, -280.0, -10.0]]
    summed, gdpo = weigh("grpo-sum", correct, length)[0], weigh("gdpo", correct, length)[0]
    assert summed.argsort().tolist() == [0, 1, 2, 3] and summed[0] < 0 < gdpo[0] and gdpo[0] > 0.9 * gdpo[3]
    for unit in (1e-3, 1e3):
        other = [[unit * x for x in length[0]]]
        close(weigh("gdpo", correct, other)[0], gdpo, rtol=1e-2, atol=1e-2)
    assert weigh("grpo-sum", correct, [[1e-3 * x for x in length[0]]])[0].argmax() == 0, (
        "in other units GRPO turns round"
    )
