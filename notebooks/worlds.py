"""worlds.py - small worlds in which experiments of the lessons run, in seconds. The method itself is drpo.py's."""

import torch

import drpo


def trick_shares(f=1.0, false_no=0.0, trick_length=0.1, lam=0.1, care=0.7, steps=400, seeds=5, lr=0.5):
    """(steps + 1, seeds, 3): how often a policy responds with care, in a hurry, with a trick, as DRPO trains it.

    The policy is a softmax over these three ways. A response with care is correct with probability `care`, in a hurry
    with 0.3, and both have half the limit's length. The trick is never correct, has `trick_length` times the limit, and
    is tried once in a hundred at the start. The grader accepts a trick with probability f, and refuses a correct
    response with probability false_no. A step has 64 prompts x 8 responses per seed and goes down the plain gradient.
    """
    draw = torch.Generator().manual_seed(0)
    accepted = torch.tensor([care * (1 - false_no), 0.3 * (1 - false_no), f], dtype=torch.float64)
    z_SW = torch.tensor([0.49, 0.50, 0.01], dtype=torch.float64).log().repeat(seeds, 1)
    path = []
    for _ in range(steps + 1):
        path.append(z_SW.softmax(-1))
        z_SW.requires_grad_()
        way_SN = torch.multinomial(path[-1], 64 * 8, replacement=True, generator=draw)
        logp = z_SW.log_softmax(-1).gather(1, way_SN).view(-1, 1)  # a response is one "token": log pi of the whole
        graded = torch.rand(way_SN.shape, generator=draw, dtype=torch.float64) < accepted[way_SN]
        length = torch.where(way_SN == 2, trick_length, 0.5)
        loss, _ = drpo.drpo_loss(
            logp,
            logp.detach(),
            torch.ones_like(logp, dtype=torch.bool),
            graded.view(-1, 8),
            drpo.length_preference(length, 1.0).view(-1, 8),
            lam=lam,
            tau=10.0,
            beta=0.0,
            delta=0.0,
        )
        z_SW = (z_SW - lr * seeds * torch.autograd.grad(loss, z_SW)[0]).detach()  # the loss is a mean over all prompts
    return torch.stack(path)


def first_step_above(share_TS, bound=0.5):
    """Per seed, the first step at which a share is above the bound; the number of steps where it never is."""
    above_TS = torch.cat([share_TS > bound, torch.ones_like(share_TS[:1], dtype=torch.bool)])
    return above_TS.long().argmax(0)


def lone_trick_credit(f, lam=0.1, trick_length=0.1, care=0.7, size=8):
    """The expected credit of one trick in a group of `size` whose other responses are given with care. Exact."""
    rows, chance = [], []
    others = torch.arange(size)[:, None] > torch.arange(size - 1)  # 0 to size - 1 of the others are accepted
    binomial = torch.distributions.Binomial(size - 1, torch.tensor(care, dtype=torch.float64))
    weight_of_count = binomial.log_prob(torch.arange(size, dtype=torch.float64)).exp()
    for accepted, probability in ((True, f), (False, 1 - f)):
        rows.append(torch.cat([torch.full((size, 1), accepted), others], 1))
        chance.append(probability * weight_of_count)
    correct_PG = torch.cat(rows)
    length_PG = torch.full(correct_PG.shape, 0.5, dtype=torch.float64)
    length_PG[:, 0] = trick_length
    weight_PG = drpo.positive_distribution(drpo.length_preference(length_PG, 1.0), correct_PG, lam)
    credit_PG = drpo.drpo_credit(torch.zeros_like(weight_PG), correct_PG, weight_PG, 10.0) * len(correct_PG)
    return (torch.cat(chance) * credit_PG[:, 0]).sum().item()


def scale_for(old_V, direction_V, kl):
    """How far to move old_V (log-probabilities) in this direction for a small KL(old || new), to second order."""
    pi_V = old_V.exp()
    variance = (pi_V * (direction_V - (pi_V * direction_V).sum()) ** 2).sum()
    return (2 * kl / variance).sqrt()


def one_batch_again(estimator, beta, seed=0, steps=60, size=2000):
    """(2, steps): the estimated and the true KL while DRPO's loss is lowered on one fixed batch of 64 responses, out of
    `size` possible ones, of which half are correct. delta = 0.01."""
    draw = torch.Generator().manual_seed(seed)
    old_V = torch.randn(size, generator=draw, dtype=torch.float64).log_softmax(-1)
    responses = torch.multinomial(old_V.exp(), 64, replacement=True, generator=draw)
    correct_PG = (torch.rand(size, generator=draw) < 0.5)[responses].view(8, 8)
    before, mask = old_V[responses][:, None], torch.ones(64, 1, dtype=torch.bool)
    rules = dict(lam=torch.inf, tau=10.0, beta=beta, delta=0.01, kl_estimator=estimator)
    z_V, seen = old_V.clone(), []
    for _ in range(steps):
        new_V = z_V.requires_grad_().log_softmax(-1)
        preference_PG = torch.zeros(8, 8, dtype=torch.float64)
        loss, metrics = drpo.drpo_loss(new_V[responses][:, None], before, mask, correct_PG, preference_PG, **rules)
        seen.append((metrics["kl"], (old_V.exp() * (old_V - new_V)).sum().item()))
        z_V = (z_V - 0.5 * torch.autograd.grad(loss, z_V)[0]).detach()
    return torch.tensor(seen).T
