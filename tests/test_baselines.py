"""The other methods against independent oracles: published numbers, slow loops, counts, autograd, cut batches."""

import inspect
import itertools
import math
import re
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import drpo
from minidrpo.methods import baselines

close = torch.testing.assert_close
F64 = torch.float64
FIGURE_1 = torch.tensor([[0.73, 0.6, 0.2, 0, 0, 0]], dtype=F64)


def bools(*rows):
    return torch.tensor(rows, dtype=torch.bool)


def doubles(*rows):
    return torch.tensor(rows, dtype=F64)


def near(actual, *rows, digits=4):
    """Equal to numbers that were written down with so many digits."""
    close(actual.to(F64), torch.tensor(rows, dtype=F64), atol=0.51 * 10**-digits, rtol=0)


# --------------------------------------------------------------------------------------------------- advantages: GRPO


def test_figure_1_has_two_conventions_and_no_single_one_gives_both_its_numbers():
    correct = bools([True, True, True, False, False, False])
    length = doubles([0.27, 0.4, 0.8, 0.5, 0.5, 0.5]) * 8192
    close(baselines.length_penalty_reward(correct, length, 8192), FIGURE_1)
    plain = baselines.length_penalty_reward(correct, length, 8192, alpha=0.0)
    near(baselines.grpo_advantage(plain, "population"), [1, 1, 1, -1, -1, -1])  # the figure's 1 ...
    near(baselines.grpo_advantage(plain, "sample"), [0.9129, 0.9129, 0.9129, -0.9129, -0.9129, -0.9129])
    near(baselines.grpo_advantage(FIGURE_1, "population"), [1.5793, 1.1471, -0.1829, -0.8478, -0.8478, -0.8478])
    sample = baselines.grpo_advantage(FIGURE_1)  # the default
    near(sample, [1.4417, 1.0471, -0.1669, -0.7740, -0.7740, -0.7740])
    assert f"{sample[0, 2].item():.2f}" == "-0.17"  # ... and its -0.17


def test_figure_1_without_std_and_leaving_one_out():
    near(baselines.grpo_advantage(FIGURE_1, None), [0.475, 0.345, -0.055, -0.255, -0.255, -0.255])
    near(baselines.rloo_advantage(FIGURE_1), [0.570, 0.414, -0.066, -0.306, -0.306, -0.306])


def slow_standardised(rewards, eps, deviation=statistics.stdev):
    mean, std = statistics.fmean(rewards), deviation(rewards)
    return [(r - mean) / (std + eps) for r in rewards]


@pytest.mark.parametrize("std, deviation", [("sample", statistics.stdev), ("population", statistics.pstdev)])
@pytest.mark.parametrize("eps", [1e-6, 1e-4])
def test_grpo_equals_a_slow_loop(std, deviation, eps):
    reward = torch.randn(40, 7, dtype=F64, generator=torch.Generator().manual_seed(1))
    expected = doubles(*[slow_standardised(row, eps, deviation) for row in reward.tolist()])
    close(baselines.grpo_advantage(reward, std, eps), expected, atol=1e-12, rtol=1e-9)
    close(baselines.grpo_advantage(reward.float(), std, eps), expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("G", [2, 7])
def test_rloo_equals_a_slow_loop(G):
    reward = torch.randn(40, G, dtype=F64, generator=torch.Generator().manual_seed(2))
    expected = [[r - (sum(row) - r) / (G - 1) for r in row] for row in reward.tolist()]
    close(baselines.rloo_advantage(reward), doubles(*expected))


@pytest.mark.parametrize("G", [1, 3, 6, 7])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_equal_rewards_and_lone_answers_give_exactly_zero(G, dtype):
    """The rounded mean of G equal numbers need not be that number, and a rest over std + 1e-6 is not small."""
    reward = torch.tensor([0.1, 0.3, 0.7, 1 / 3, 0.95])[:, None].repeat(1, G).to(dtype)
    for std in ("sample", "population", None):
        assert (baselines.grpo_advantage(reward, std) == 0).all()
    assert (baselines.rloo_advantage(reward) == 0).all()
    three = torch.stack([reward, 2 * reward, 1 - reward], -1)
    for over in ("sequences", "tokens"):
        advantage = baselines.gdpo_advantage(three, [1.0, 0.3, 0.7], over=over, length_PG=torch.ones(5, G))
        assert (advantage == 0).all() and advantage.shape == (5, G)


# --------------------------------------------------------------------------------------------------- advantages: GDPO


def slow_gdpo(reward, weights, eps, lengths=None):
    """Plain lists, reward by reward; lengths switch to whitening over tokens, each token written out."""
    total = []
    for row in reward:
        normalised = [slow_standardised(column, eps) for column in zip(*row, strict=True)]
        total += [sum(w * a for w, a in zip(weights, answer, strict=True)) for answer in zip(*normalised, strict=True)]
    if lengths is None:
        return slow_standardised(total, eps)
    tokens = [a for a, n in zip(total, lengths, strict=True) for _ in range(n)]
    mean, variance = statistics.fmean(tokens), statistics.variance(tokens)
    return [(a - mean) / math.sqrt(variance + 1e-8) for a in total]


@pytest.mark.parametrize("K", [1, 2, 3])
@pytest.mark.parametrize("over, eps", [("sequences", 1e-4), ("tokens", 1e-6)])
def test_gdpo_equals_a_slow_loop(K, over, eps):
    g = torch.Generator().manual_seed(K)
    reward = torch.rand(12, 6, K, dtype=F64, generator=g)
    length = torch.randint(1, 40, (12, 6), generator=g)
    weights = [1.0, 0.25, -0.5][:K]
    expected = slow_gdpo(reward.tolist(), weights, eps, length.flatten().tolist() if over == "tokens" else None)
    actual = baselines.gdpo_advantage(reward, weights, eps=eps, over=over, length_PG=length)
    close(actual.flatten(), doubles(*expected), atol=1e-6, rtol=0)
    single = baselines.gdpo_advantage(reward.float(), torch.tensor(weights), eps=eps, over=over, length_PG=length)
    close(single.flatten(), doubles(*expected).float(), atol=1e-5, rtol=1e-5)


def test_gdpo_keeps_apart_what_grpo_collapses():
    """The toy figure: two binary rewards, two answers; sample std, no batch normalisation."""
    groups = {(0, 1): [[0, 0], [0, 1]], (0, 2): [[0, 0], [1, 1]], (1, 2): [[1, 0], [1, 1]], (1, 1): [[1, 0], [0, 1]]}
    reward = torch.tensor(list(groups.values()), dtype=F64)
    half, full = 0.7071, 1.4142
    near(
        baselines.gdpo_advantage(reward, [1, 1], batch_norm=False, eps=1e-6),
        [-half, half], [-full, full], [-half, half], [0, 0],
    )  # fmt: skip
    near(baselines.grpo_advantage(reward.sum(-1)), [-half, half], [-half, half], [-half, half], [0, 0])
    near(baselines.grpo_advantage(reward.sum(-1), None), [-0.5, 0.5], [-1, 1], [-0.5, 0.5], [0, 0])
    lone = baselines.gdpo_advantage(reward[:2, :, :], eps=1e-9)
    near(lone[1] / lone[0], 2, 2)  # Eq. 6 keeps groups of one batch apart ...
    near(baselines.gdpo_advantage(reward[1:2], eps=1e-9), [-half, half])  # ... but a batch of one collapses again


def distinct_groups(advantage_PG):
    return len(set(map(tuple, (advantage_PG.sort(-1).values * 1e6).round().tolist())))


@pytest.mark.parametrize(
    "K, G, grpo, no_std, gdpo",
    [
        (2, *row)
        for row in zip(range(2, 8), (2, 4, 7, 11, 16, 22), (3, 6, 10, 15, 21, 28), (3, 6, 14, 26, 38, 59), strict=True)
    ]
    + [(3, 4, 14, 20, 45), (4, 4, 23, 35, 127), (5, 4, 41, 56, 318)],
)
def test_number_of_distinct_advantage_groups(K, G, grpo, no_std, gdpo):
    """Every multiset of G answers with K binary rewards; groups count as equal if their sorted advantages are."""
    answers = list(itertools.product((0.0, 1.0), repeat=K))
    reward = torch.tensor(list(itertools.combinations_with_replacement(answers, G)), dtype=F64)
    total = reward.sum(-1)
    assert distinct_groups(baselines.grpo_advantage(total, eps=1e-12)) == grpo
    assert distinct_groups(baselines.grpo_advantage(total, None)) == no_std
    assert distinct_groups(baselines.gdpo_advantage(reward, batch_norm=False, eps=1e-12)) == gdpo


def test_gdpo_weights_act_after_normalising():
    """The scale of a reward does not matter to GDPO, its weight does; with GRPO it is the other way round."""
    reward = torch.rand(6, 5, 2, dtype=F64, generator=torch.Generator().manual_seed(4))
    scaled = reward * doubles(1, 100)
    close(baselines.gdpo_advantage(scaled, [1, 0.5], eps=1e-9), baselines.gdpo_advantage(reward, [1, 0.5], eps=1e-9))
    one = baselines.gdpo_advantage(reward, [1, 0], batch_norm=False, eps=1e-6)
    close(one, baselines.grpo_advantage(reward[..., 0]))
    assert not torch.allclose(baselines.grpo_advantage(scaled.sum(-1)), baselines.grpo_advantage(reward.sum(-1)))


def test_a_group_of_equal_rewards_amid_others():
    """Exactly 0 over sequences; over tokens, as in the authors' verl code, long answers shift the mean."""
    reward = torch.rand(9, 6, 2, generator=torch.Generator().manual_seed(5))
    reward[3] = 0.3
    length = torch.randint(1, 99, (9, 6), generator=torch.Generator().manual_seed(6))
    assert (baselines.gdpo_advantage(reward)[3] == 0).all()
    by_token = baselines.gdpo_advantage(reward, over="tokens", length_PG=length)
    assert (by_token[3] == by_token[3, 0]).all() and by_token[3, 0] != 0
    close((by_token * length).sum() / length.sum(), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_bad_rewards_and_choices_are_named():
    reward = torch.zeros(4, 3, 2)
    reward[2, 1, 0] = math.nan
    with pytest.raises(ValueError, match="nan at prompt 2, response 1, reward 0"):
        baselines.gdpo_advantage(reward)
    for advantage in (baselines.grpo_advantage, baselines.rloo_advantage):
        with pytest.raises(ValueError, match=r"nan at prompt 2, response 1 \(1 of 12"):
            advantage(reward[..., 0])
    fine = torch.rand(2, 3, 2)
    with pytest.raises(ValueError, match="2 rewards need 2 weights"):
        baselines.gdpo_advantage(fine, [1.0])
    with pytest.raises(ValueError, match="needs length_PG"):
        baselines.gdpo_advantage(fine, over="tokens")
    with pytest.raises(ValueError, match="unknown over 'words'"):
        baselines.gdpo_advantage(fine, over="words")
    with pytest.raises(ValueError, match="unknown std 'half'"):
        baselines.grpo_advantage(fine[..., 0], "half")


# ------------------------------------------------------------------------------------------------------------- rewards


def slow_rloo_lp(lengths, alpha, deviation):
    mean, std = statistics.fmean(lengths), deviation(lengths)
    return [1 - alpha / (1 + math.exp(-(n - mean) / (std + 1e-7))) for n in lengths]


@pytest.mark.parametrize(
    "alpha, expected",
    [(0.1, [0.9744, 0.9566, 0.9208]), (0.2, [0.9489, 0.9133, 0.8416]), (0.4, [0.8978, 0.8266, 0.6832])],
)
def test_rloo_lp(alpha, expected):
    """Wrong answers earn nothing and do not move the correct ones' mean; each row is a prompt of its own."""
    length = torch.tensor([[1000, 2000, 4000, 7, 8192, 9], [1, 5, 700, 1, 1, 1], [9, 9, 9, 3, 3, 3], [9] * 6])
    correct = bools([1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0] * 6)
    reward = baselines.rloo_lp_reward(correct, length.double(), alpha)
    half = 1 - alpha / 2
    near(reward, [*expected, 0, 0, 0], [0, 0, half, 0, 0, 0], [half, half, half, 0, 0, 0], [0] * 6)
    close(reward[0, :3], doubles(*slow_rloo_lp([1000, 2000, 4000], alpha, statistics.pstdev)))
    if alpha == 0.2:
        near(baselines.rloo_advantage(reward)[0], 0.5979, 0.5552, 0.4692, -0.5408, -0.5408, -0.5408)
        # What LASER's port would give: the sample std. Ours is not that.
        near(doubles(*slow_rloo_lp([1000, 2000, 4000], alpha, statistics.stdev)), 0.9411, 0.9109, 0.8503)
        assert abs(reward[0, 0].item() - 0.9411) > 5e-3


def alp_group():
    """Eight correct answers: std 1384 tokens, the shortest 1.2005 std below the mean, the longest 1.688 above."""
    z = [-1.2005, 1.688, *[-0.08125 - 0.6671] * 3, *[-0.08125 + 0.6671] * 3]
    return torch.ones(1, 8, dtype=torch.bool), 3000 + 1384 * doubles(z)


@pytest.mark.parametrize(
    "eps, beta, most, least",
    [(1e-6, 1e-9, 0.70, -0.98), (1e-6, 1e-8, 1.12, -1.57), (1e-6, 1e-7, 1.19, -1.68)]
    + [(1e-4, 1e-9, 0.016, -0.023), (1e-4, 1e-8, 0.146, -0.205), (1e-4, 1e-7, 0.697, -0.980)],
)
def test_alps_beta_acts_through_the_eps_beside_the_std(eps, beta, most, least):
    """In an all-correct group a 100-fold smaller beta still gives advantages of nearly full size with verl's eps. Only
    beta/eps counts: beta 1e-9 with 1e-6 is 1e-7 with 1e-4, to rounding (float32 may show -0.97 for the -0.98)."""
    reward = baselines.alp_reward(*alp_group(), beta)
    advantage = baselines.grpo_advantage(reward, "sample", eps)
    half_a_digit = 0.0051 if eps == 1e-6 else 0.00051
    assert advantage.max().item() == pytest.approx(most, abs=half_a_digit)
    assert advantage.min().item() == pytest.approx(least, abs=half_a_digit)


def test_alp_charges_everyone_and_hides_in_mixed_groups():
    length = torch.tensor([[100, 200, 300, 400]] * 3)
    correct = bools([1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1])
    reward = baselines.alp_reward(correct, length, beta=1e-3)
    close(reward[0], torch.tensor([1 - 0.075, 1 - 0.15, 1 - 0.225, -0.3]))
    close(reward[1], torch.tensor([-0.025, -0.05, -0.075, -0.1]))  # the floor 1/G
    close(reward[2], torch.tensor([0.9, 0.8, 0.7, 0.6]))
    penalised = baselines.grpo_advantage(baselines.alp_reward(correct[:1], 10 * length[:1].double(), 1e-7))
    close(penalised, baselines.grpo_advantage(correct[:1].double()), atol=5e-4, rtol=0)


def test_hapo():
    length = torch.tensor([[1000, 2000, 3000, 4000]] * 4)
    correct = bools([1] * 4, [0] * 4, [1] * 4, [1, 0, 1, 0])
    shortest = torch.tensor([2000.0, 2000.0, math.inf, 2000.0])
    bonus = baselines.hapo_reward(correct, length, shortest) - correct.float()
    near(bonus, [0.7071, 0, -0.7, -0.7], [0, 0, -0.7071, -1], [0] * 4, [0.7071, 0, -0.7, -1])
    near(baselines.hapo_reward(correct, length, shortest, w=0.1)[3], 1.0707, 0, 0.93, -0.1)
    with pytest.raises(ValueError, match="positive"):
        baselines.hapo_reward(correct, length, torch.tensor([2000.0, 0, 2000, 2000]))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9000)), min_size=2, max_size=8), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_hapo_keeps_correct_above_wrong(answers, w):
    correct, length = bools([c for c, _ in answers]), torch.tensor([[n for _, n in answers]])
    reward = baselines.hapo_reward(correct, length, torch.tensor([1500]), w)[0]
    right, wrong = reward[correct[0]], reward[~correct[0]]
    assert not len(right) or not len(wrong) or right.min() > wrong.max()


def test_hapos_history_updates_by_minimum():
    """A batch in parts, in any order, leaves the history of the whole; nothing is changed in place."""
    start = torch.full((5,), torch.inf)
    start[4] = 10.0
    before = start.clone()
    index = torch.tensor([3, 0, 4, 3])
    correct = bools([1, 0, 1], [0, 0, 0], [1, 1, 1], [1, 1, 0])
    length = torch.tensor([[50, 1, 40], [2, 2, 2], [30, 20, 25], [60, 45, 3]])
    whole = baselines.hapo_update_history(start, index, correct, length)
    assert whole.tolist() == [math.inf, math.inf, math.inf, 40.0, 10.0]
    assert start.equal(before)
    for first, second in ((slice(None, 2), slice(2, None)), (slice(2, None), slice(None, 2))):
        half = baselines.hapo_update_history(start, index[first], correct[first], length[first])
        assert baselines.hapo_update_history(half, index[second], correct[second], length[second]).equal(whole)


def test_l1_max():
    length = torch.tensor([[1000, 2000, 3000, 4000, 9999], [500, 1500, 2500, 3500, 1]])
    correct = torch.ones(2, 5, dtype=torch.bool)
    near(baselines.l1_max_reward(correct, length, 2000)[0], 0.8, 0.5, 0.2, 0, 0)
    near(baselines.l1_max_reward(correct, length, 2000, "code")[0], 0.65, 0.5, 0.35, 0.2, 0)
    by_prompt = baselines.l1_max_reward(correct, length, torch.tensor([2000, 1500]))
    near(by_prompt, [0.8, 0.5, 0.2, 0, 0], [0.8, 0.5, 0.2, 0, 0.9497])
    assert (baselines.l1_max_reward(~correct, length, 2000, "code") == 0).all()
    for slope in ("paper", "code"):  # both are capped at 1
        assert baselines.l1_max_reward(correct[:1, :1], torch.tensor([[1]]), 8000, slope).item() == 1.0
    with pytest.raises(ValueError, match="unknown slope"):
        baselines.l1_max_reward(correct, length, 2000, "steep")


def test_shorter_better():
    length = torch.tensor([[900, 500, 1500, 100], [100, 200, 300, 1400]])
    reward = baselines.shorter_better_reward(bools([1, 1, 0, 0], [0] * 4), length)
    close(reward, torch.tensor([[1.6, 2.0, -1.0, -0.4], [-0.4, -0.3, -0.2, -0.9]]))
    close(baselines.shorter_better_reward(bools([1]), torch.tensor([[7]]), a=1.0), torch.tensor([[1.0]]))


def test_laser_d():
    correct = bools([1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1])  # exactly 2/3, exactly 1/3, nothing, everything
    assert baselines.difficulty_class(correct).tolist() == [0, 1, 2, 0]
    assert baselines.difficulty_class(bools([1] + [0] * 7, [1] * 5 + [0] * 3)).tolist() == [2, 1]
    length = torch.tensor([[100, 101, 1], [200, 1, 1], [1, 1, 1], [99, 100, 500]])
    reward = baselines.laser_d_reward(correct, length, [100, 199, 300])
    assert reward.tolist() == [[1.5, 1, -0.5], [1, -0.5, -0.5], [-0.5] * 3, [1.5, 1.5, 1]]
    with pytest.raises(ValueError, match="three targets"):
        baselines.laser_d_reward(correct, length, [100])


def test_laser_ds_targets_are_the_smallest_that_leave_one_correct_answer():
    """G = 6: easy prompts get at least 4 right, so a quarter of their answers must fit; medium 2: half; hard 1: all."""
    correct = bools([1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 0, 0])
    length = torch.tensor([[1, 2, 5, 6, 7, 8], [1, 2, 4, 5, 6, 7], [3, 3, 3, 3, 3, 9], [3, 9, 9, 9, 9, 9]])
    targets = baselines.laser_d_targets(correct, length, range(1, 20), 100)
    assert targets.tolist() == [3, 4, 9]  # easy: 3 of 12 answers are within 3
    assert baselines.laser_d_targets(correct, length, [8, 2, 4], 100).tolist() == [4, 4, 100]
    assert baselines.laser_d_targets(correct, length, [8, 20], 10).tolist() == [8, 8, 10]
    assert baselines.laser_d_targets(correct[:1], length[:1], range(1, 20), 50).tolist() == [2, 50, 50]  # empty classes
    pair = bools([1, 0], [1, 1], [0, 0]), torch.tensor([[3, 4], [5, 6], [7, 8]])
    assert baselines.laser_d_targets(*pair, range(1, 20), 100).tolist() == [6, 4, 8]  # never less than one right
    assert baselines.laser_d_targets(correct, length, range(1, 20), 100, expected=2).tolist() == [7, 7, 100]


def test_conditioned_length():
    correct, length = bools([1, 1, 0, 0]), torch.tensor([[4000, 4001, 10, 9000]])
    assert baselines.conditioned_length_reward(correct, length).tolist() == [[1, 0, 0, 0]]
    assert baselines.conditioned_length_reward(correct, length, conditioned=False).tolist() == [[1, 0, 1, 0]]
    assert baselines.conditioned_length_reward(correct, length, limit=9000).tolist() == [[1, 1, 0, 0]]


PIECES = ["<think>", "</think>", "\n", "<answer>", "</answer>", "7", " "]


@given(st.lists(st.sampled_from(PIECES), max_size=9))
@settings(max_examples=200, deadline=None)
def test_format_equals_the_regular_expression(pieces):
    for text in ("".join(pieces), "<think>" + "".join(pieces) + "</think>\n<answer>7</answer>"):
        match = re.match(r"^<think>.*?</think>\n<answer>.*?</answer>$", text, re.DOTALL)
        expected = bool(match) and text.count("<answer>") == text.count("</answer>") == 1
        assert baselines.format_reward([text]).tolist() == [float(expected)]


def test_format_and_integer_rewards():
    texts = ["<think>a\nb</think>\n<answer>12</answer>", "a</think>\n<answer> 12 </answer>", "<answer>1.5</answer>"]
    assert baselines.format_reward(texts).tolist() == [1, 0, 0]
    assert baselines.integer_reward(texts).tolist() == [1, 1, 0]
    assert baselines.integer_reward(["<answer>-3</answer>", "", "<answer>²</answer>"]).tolist() == [0, 0, 0]


def test_integer_lengths_give_float32_and_nothing_is_changed_in_place():
    correct, length = bools([1, 1, 0, 0], [1, 0, 0, 0]), torch.tensor([[5, 9, 4, 3], [7, 8, 9, 1]])
    for reward in every_reward(8192).values():
        correct_before, length_before = correct.clone(), length.clone()
        assert reward(correct, length).dtype == torch.float32 and reward(correct, length.double()).dtype == F64
        assert correct.equal(correct_before) and length.equal(length_before)
    with pytest.raises(ValueError, match="max_length must be positive"):
        baselines.length_penalty_reward(correct, length, 0)


@pytest.mark.parametrize("dtype", [torch.long, torch.uint8, torch.float32])
def test_masks_may_be_numbers(dtype):
    correct, length = bools([1, 1, 0, 0], [1, 0, 0, 0]), torch.tensor([[5, 9, 4, 3], [7, 8, 9, 1]])
    for reward in every_reward(8192).values():
        close(reward(correct.to(dtype), length), reward(correct, length))
    history = (torch.full((2,), torch.inf), torch.tensor([1, 0]))
    new = baselines.hapo_update_history(*history, correct.to(dtype), length)
    close(new, baselines.hapo_update_history(*history, correct, length))
    new, old, mask, advantage = random_tokens(6)
    surrogate = baselines.clipped_surrogate(new, old, mask.to(dtype), advantage)
    close(surrogate, baselines.clipped_surrogate(new, old, mask, advantage))


def test_mismatched_shapes_and_grades_that_are_not_0_or_1_are_refused():
    correct, length = bools([1, 0, 1]), torch.tensor([[5, 9, 4]])
    for bad in ((length, correct), (correct / 2, length), (correct, length[:, :2])):
        with pytest.raises(AssertionError, match=r"torch\.\w+ \(1, 3\) vs torch\.\w+ \(1, \d\)"):
            baselines.alp_reward(*bad)
    new, old, mask, advantage = random_tokens(6)
    for bad in ((new[:, :-1], old, mask, advantage), (new, old, mask, advantage[:-1])):
        with pytest.raises(AssertionError, match="vs"):
            baselines.clipped_surrogate(*bad)


def test_defaults_are_their_authors_own():
    expected = dict(
        length_penalty_reward=(1.0,), rloo_lp_reward=(0.2,), alp_reward=(1e-7,), hapo_reward=(1.0,),
        l1_max_reward=("paper", 3e-4), shorter_better_reward=(2.0, 1e-3), laser_d_reward=(0.5, -0.5),
        conditioned_length_reward=(4000, True), grpo_advantage=("sample", 1e-6),
        gdpo_advantage=(None, True, 1e-4, "sequences", None),
    )  # fmt: skip
    for name, defaults in expected.items():
        parameters = inspect.signature(getattr(baselines, name)).parameters.values()
        assert tuple(p.default for p in parameters if p.default is not p.empty) == defaults, name


# ---------------------------------------------------------------------------------- the paper's point, method by method


def every_reward(max_length):
    return {
        "GRPO-LP": lambda c, n: baselines.length_penalty_reward(c, n, max_length),
        "RLOO-LP": lambda c, n: baselines.rloo_lp_reward(c, n, 0.4),
        "ALP": lambda c, n: baselines.alp_reward(c, n, 1e-7),
        "HAPO": lambda c, n: baselines.hapo_reward(c, n, torch.full((len(c),), 300.0)),
        "L1-Max": lambda c, n: baselines.l1_max_reward(c, n, 2000),
        "ShorterBetter": baselines.shorter_better_reward,
        "LASER-D": lambda c, n: baselines.laser_d_reward(c, n, [500, 1000, 2000]),
        "GDPO": baselines.conditioned_length_reward,
    }


@given(st.integers(0, 2**31), st.integers(2, 9), st.sampled_from([0.01, 0.1, 0.5, math.inf]))
@settings(max_examples=100, deadline=None)
def test_drpo_gives_no_correct_response_negative_credit(seed, G, lam):
    g = torch.Generator().manual_seed(seed)
    correct = torch.rand(6, G, generator=g) < torch.rand(6, 1, generator=g)
    preference = drpo.length_preference(torch.randint(1, 8193, (6, G), generator=g), 8192)
    weight = drpo.positive_distribution(preference, correct, lam)
    credit = drpo.drpo_credit(-3 * torch.rand(6, G, generator=g), correct, weight, tau=10.0)
    assert (credit[correct] >= 0).all() and (credit[~correct] <= 0).all()


@pytest.mark.parametrize("name", ["GRPO-LP", "RLOO-LP", "ALP", "HAPO"])
def test_the_others_give_correct_responses_negative_credit(name):
    """Random grades: each method gives some correct answer a negative gradient. All but ALP do so in mixed groups too;
    ALP at its own beta does it where every answer is right."""
    g = torch.Generator().manual_seed(0)
    correct = torch.rand(200, 8, generator=g) < 0.8
    length = torch.randint(50, 8193, (200, 8), generator=g).double()
    reward = every_reward(8192)[name](correct, length)
    advantage = baselines.rloo_advantage(reward) if name == "RLOO-LP" else baselines.grpo_advantage(reward)
    logp = torch.full((1600, 3), -1.0, dtype=F64, requires_grad=True)
    mask = torch.ones(1600, 3, dtype=torch.bool)
    baselines.clipped_surrogate(logp, logp.detach(), mask, advantage.flatten()).backward()
    negative = (logp.grad[:, 0].reshape(200, 8) < 0) & correct
    mixed = drpo.mixed_groups(correct)
    assert negative[mixed].any() == (name != "ALP")
    assert negative[~mixed].any()


# ----------------------------------------------------------------------------------------------------- token surrogate


def random_tokens(seed, N=7, T=9):
    g = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(N, T, dtype=F64, generator=g)
    new = (old + 0.3 * torch.randn(N, T, dtype=F64, generator=g)).requires_grad_()
    length = torch.randint(1, T + 1, (N,), generator=g)
    return new, old, torch.arange(T) < length[:, None], torch.randn(N, dtype=F64, generator=g)


def slow_surrogate(new, old, mask, advantage, low, high, aggregate, constant):
    """Value and gradient, token by token: a clipped token has none."""
    value, grad = 0.0, torch.zeros_like(new)
    for n, t in mask.nonzero().tolist():
        ratio, A = math.exp(new[n, t] - old[n, t]), advantage[n].item()
        share = {
            "sequence": 1 / (len(new) * mask[n].sum().item()),
            "token": 1 / mask.sum().item(),
            "constant": 1 / (len(new) * constant),
        }[aggregate]
        clipped = (A > 0 and ratio > 1 + high) or (A < 0 and ratio < 1 - low)
        value += share * A * ((1 + high if A > 0 else 1 - low) if clipped else ratio)
        grad[n, t] = 0.0 if clipped else share * A * ratio
    return value, grad


@pytest.mark.parametrize("aggregate", ["sequence", "token", "constant"])
@pytest.mark.parametrize("low, high", [(0.2, 0.2), (0.2, 0.28), (0.1, math.inf), (math.inf, math.inf)])
def test_surrogate_value_and_gradient_equal_a_slow_loop(aggregate, low, high):
    new, old, mask, advantage = random_tokens(3)
    objective = baselines.clipped_surrogate(new, old, mask, advantage, low, high, aggregate, max_tokens=16)
    value, grad = slow_surrogate(new.detach(), old, mask, advantage, low, high, aggregate, 16)
    assert objective.item() == pytest.approx(value, rel=1e-12)
    close(torch.autograd.grad(objective, new)[0], grad)


@pytest.mark.parametrize("aggregate", ["sequence", "token", "constant"])
def test_the_parts_of_a_batch_add_up_to_the_batch(aggregate):
    """However it is cut, and though each part is padded to its own width."""
    new, old, mask, advantage = random_tokens(4)
    whole = baselines.clipped_surrogate(new, old, mask, advantage, aggregate=aggregate)
    expected = torch.autograd.grad(whole, new)[0]
    counts = dict(n_sequences=7, n_tokens=mask.sum(), max_tokens=9)
    for cuts in ([0, 1, 7], [0, 3, 4, 7], list(range(8))):
        total = 0.0
        for a, b in itertools.pairwise(cuts):
            width = int(mask[a:b].sum(-1).max())
            part = [x[a:b, :width] for x in (new, old, mask)]
            total = total + baselines.clipped_surrogate(*part, advantage[a:b], 0.2, 0.2, aggregate, **counts)
        close(total, whole)
        close(torch.autograd.grad(total, new)[0], expected)


def test_padding_may_hold_anything():
    new, old, mask, advantage = random_tokens(5)
    dirty_new = new.detach().masked_fill(~mask, -torch.inf).requires_grad_()
    dirty_old = old.masked_fill(~mask, -torch.inf)
    for aggregate in ("sequence", "token", "constant"):
        clean = baselines.clipped_surrogate(new, old, mask, advantage, aggregate=aggregate)
        dirty = baselines.clipped_surrogate(dirty_new, dirty_old, mask, advantage, aggregate=aggregate)
        close(dirty, clean)
        close(torch.autograd.grad(dirty, dirty_new)[0], torch.autograd.grad(clean, new)[0])
    with pytest.raises(ValueError, match="unknown aggregate 'mean'"):
        baselines.clipped_surrogate(new, old, mask, advantage, aggregate="mean")
    mask[2] = False
    with pytest.raises(AssertionError, match="without tokens"):
        baselines.clipped_surrogate(new, old, mask, advantage)
