r"""lemma.py - the accuracy lemma: what one step does to the accuracy of a softmax policy over whole responses.

    python -m experiments.lemma      how often a step lowers the accuracy, by method and kind of step; seconds

**Lemma.** Let pi = softmax(z), one logit per possible response, scores log pi(response), and a mixed group be sampled
from any policy. A step along DRPO's gradient, plain or natural, of any size, does not lower the accuracy.

1. In a mixed group the credits are c >= 0 on right and c <= 0 on wrong responses, and sum to 0 (`drpo.drpo_credit`).
2. d log pi_o / dz_k = 1[o = k] - pi_k, so dJ/dz_k = sum_n c_n (1[o_n = k] - pi_k) = v_k, v_k = sum of c_n over o_n = k.
   The last term is pi_k times the sum of the credits, 0.
3. So v_k >= 0 on right, v_k <= 0 on wrong responses. The natural gradient is v_k / pi_k plus a constant: same signs.
4. A step of size eta > 0 multiplies e^{z_k} by e^{eta v_k}: by 1 or more if k is right, by 1 or less if it is wrong.
5. Accuracy is R / (R + W), R and W the sums of e^z over right and wrong responses. R does not fall, W does not rise.

A sum over several groups of the prompt keeps the signs, so the same holds for the expected gradient. The lemma says
nothing of one right response: its own probability may fall while the others' rise. With a length penalty inside GRPO's
advantage, line 1 fails, as a right response may have a negative advantage, and there are counterexamples for the plain
gradient, most of them in groups that are all right. `ends()` computes where the lemma itself ends.

B policies, each with its own prompt | K possible responses | G sampled ones. Lengths are shares of the limit C.
"""

import torch
from torch import Tensor

import drpo
from minidrpo import cli
from minidrpo.methods import baselines


def random_policies(B: int, K: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(pi_BK, right_BK, length_BK): Dirichlet(1) policies, random labels with both kinds, lengths uniform in (0, 1)."""
    g = torch.Generator().manual_seed(seed)
    u_BK = torch.rand(B, K, generator=g, dtype=torch.float64)
    right_BK = torch.rand(B, K, generator=g) < torch.rand(B, 1, generator=g)
    right_BK[:, 0], right_BK[:, 1] = True, False
    pi_BK = -u_BK.log()  # exponential numbers, normalised, are Dirichlet(1)
    return pi_BK / pi_BK.sum(-1, keepdim=True), right_BK, torch.rand(B, K, generator=g, dtype=torch.float64)


def group_credit(method: str, right_BG: Tensor, length_BG: Tensor, logp_BG: Tensor, strength: float) -> Tensor:
    """Each group by itself, as if P = 1: DRPO at lambda = strength, or GRPO with a length penalty alpha = strength."""
    if method == "drpo":
        weight_BG = drpo.positive_distribution(1 - length_BG, right_BG, strength)
        return drpo.drpo_credit(logp_BG, right_BG, weight_BG, tau=10.0) * len(right_BG)
    reward_BG = baselines.length_penalty_reward(right_BG, length_BG, 1, strength)
    return baselines.grpo_advantage(reward_BG) / right_BG.shape[1]


def logit_gradient(pi_BK: Tensor, response_BG: Tensor, credit_BG: Tensor) -> Tensor:
    """sum_n credit_n d log pi(o_n) / dz, (B, K)."""
    v_BK = torch.zeros_like(pi_BK).scatter_add(1, response_BG, credit_BG)
    return v_BK - pi_BK * v_BK.sum(-1, keepdim=True)


def reward_gradient(pi_BK: Tensor, right_BK: Tensor, length_BK: Tensor, alpha: float) -> Tensor:
    """dE[reward]/dz for reward = 1[right] (1 - alpha length): pi_k (r_k - mean r), as GRPO-LP without std."""
    reward_BK = right_BK * (1 - alpha * length_BK)
    return pi_BK * (reward_BK - (pi_BK * reward_BK).sum(-1, keepdim=True))


def step(pi_BK: Tensor, gradient_BK: Tensor, size: float, natural: bool = False) -> Tensor:
    """The policies after z <- z + size * gradient; natural: the gradient by z, times the inverse Fisher matrix."""
    return (pi_BK.log() + size * (gradient_BK / pi_BK if natural else gradient_BK)).softmax(-1)


def accuracy_change(pi_BK: Tensor, right_BK: Tensor, gradient_BK: Tensor, natural: bool = False) -> Tensor:
    """The accuracy's derivative along a step, (B,): sum over right responses of pi_k (dz_k - sum_m pi_m dz_m)."""
    dz_BK = gradient_BK / pi_BK if natural else gradient_BK
    return (right_BK * pi_BK * (dz_BK - (pi_BK * dz_BK).sum(-1, keepdim=True))).sum(-1)


def sampled(method: str, strength: float, B: int = 20_000, K: int = 6, G: int = 8, seed: int = 0, per_token=False):
    """(pi_BK, right_BK, gradient_BK, right_BG), one sampled group per policy; `per_token` divides scores by length."""
    pi_BK, right_BK, length_BK = random_policies(B, K, seed)
    response_BG = torch.multinomial(pi_BK, G, replacement=True, generator=torch.Generator().manual_seed(seed))
    right_BG, length_BG = right_BK.gather(1, response_BG), length_BK.gather(1, response_BG)
    credit_BG = group_credit(method, right_BG, length_BG, pi_BK.log().gather(1, response_BG), strength)
    if per_token:
        credit_BG = credit_BG / length_BG
    return pi_BK, right_BK, logit_gradient(pi_BK, response_BG, credit_BG), right_BG


# ----------------------------------------------------------------------------------------------- where the lemma ends


def ends() -> dict[str, tuple[float, float]]:
    """Examples with DRPO itself: name -> (accuracy before, after). In all but the second the accuracy falls.

    In the first four all responses share one parameter theta, z_k = z0_k + phi_k theta: pulling one response up moves
    others, too. The last is the policy of notebook 1, a logit for each response, but with the score divided by the
    length: then the credits, as they reach the logits, no longer sum to 0.
    """
    pi, right, slope = _row([0.05, 0.75, 0.2]), torch.tensor([[True, True, False]]), _row([1.0, 0.0, 0.5])
    everything = torch.arange(3)[None]  # a group of one short right, one long right and one short wrong response
    shared = _shared_step(pi, right, slope, everything, _row([0.1, 0.9, 0.1]), 0.1)

    pi, right, slope = _row([0.3, 0.699, 0.001]), torch.tensor([[True, False, False]]), _row([1.0, 0.0, 2.0])
    length = _row([0.5, 0.5, 0.5])
    common, rare = torch.tensor([[0, 1]]), torch.tensor([[0, 2]])  # the right response, and either wrong one
    return {
        "shared parameter, short ways alike, a small step": shared,
        "shared parameter, a likely sample, a small step": _shared_step(pi, right, slope, common, length, 0.1),
        "shared parameter, a likely sample, a large step": _shared_step(pi, right, slope, common, length, 10.0),
        "shared parameter, a rare sample, a small step": _shared_step(pi, right, slope, rare, length, 0.1),
        "score per token, a small step": _per_token_step(),
    }


def _row(values):
    return torch.tensor([values], dtype=torch.float64)


def _shared_step(pi, right, slope, group, length, size):
    logp = pi.log().gather(1, group)
    credit = group_credit("drpo", right.gather(1, group), length.gather(1, group), logp, 0.1)
    theta = (logit_gradient(pi, group, credit) * slope).sum()  # dJ/dtheta by the chain rule
    after = (pi.log() + size * theta * slope).softmax(-1)
    return (pi * right).sum().item(), (after * right).sum().item()


def _per_token_step():
    pi, length = _row([0.05, 0.75, *[0.01] * 20]), _row([0.1, *[0.9] * 21])
    right = torch.arange(22)[None] < 2
    group = torch.tensor([[0, 1, 1, 1, 1, 1, 5, 9]])
    credit = group_credit("drpo", right.gather(1, group), length.gather(1, group), pi.log().gather(1, group), 0.1)
    after = step(pi, logit_gradient(pi, group, credit / length.gather(1, group)), 0.01)
    return (pi * right).sum().item(), (after * right).sum().item()


def main(argv=None):
    cli.parse(cli.NoFlags, argv, prog="lemma.py", description="How often a step lowers the accuracy.")
    print("share of sampled groups whose small step lowers the accuracy; 20,000 random policies, K = 6, G = 8")
    print(f"{'':34} {'mixed':>8} {'all right':>10}  natural gradient, all groups")
    for name, method, strength, per_token in (
        ("DRPO, lambda 0.1", "drpo", 0.1, False),
        ("GRPO, no penalty", "grpo-lp", 0.0, False),
        ("GRPO-LP, alpha 0.1", "grpo-lp", 0.1, False),
        ("GRPO-LP, alpha 1", "grpo-lp", 1.0, False),
        ("DRPO, lambda 0.1, score per token", "drpo", 0.1, True),
    ):
        pi_BK, right_BK, gradient_BK, right_BG = sampled(method, strength, per_token=per_token)
        falls_B = accuracy_change(pi_BK, right_BK, gradient_BK) < -1e-12
        natural_B = accuracy_change(pi_BK, right_BK, gradient_BK, natural=True) < -1e-9
        mixed_B, solved_B = drpo.mixed_groups(right_BG), right_BG.all(-1)
        shares = (falls_B[mixed_B], falls_B[solved_B], natural_B)
        print(f"{name:34}", *(f"{share.double().mean():9.1%}" for share in shares))
    pi_BK, right_BK, length_BK = random_policies(20_000)
    for alpha in (0.0, 0.1, 1.0):
        change_B = accuracy_change(pi_BK, right_BK, reward_gradient(pi_BK, right_BK, length_BK, alpha))
        print(f"expected gradient of the penalised reward, alpha {alpha}: {(change_B < -1e-12).double().mean():.2%}")
    print("\nwhere the lemma ends, with DRPO: accuracy before and after")
    for name, (before, after) in ends().items():
        print(f"{name:58} {before:.4f} {after:.4f}")


if __name__ == "__main__":
    main()
