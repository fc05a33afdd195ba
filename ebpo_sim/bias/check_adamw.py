"""Finding (ii) checked: closed forms and published numbers against runs of the optimisers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ebpo_sim.bias import adamw as aw
from ebpo_sim.bias.record import Cases
from ebpo_sim.numbers.adam import Adam, State, direction, init

ADAM, SGD = Adam(), aw.Sgd()
ROUNDED = 1e-12


def apart(a: aw.BanditRun, b: aw.BanditRun) -> float:
    """max |theta| difference after the last step."""
    return float(np.abs(a.theta_TK[-1] - b.theta_TK[-1]).max())


def last_direction(adam: Adam, gradients: tuple[float, ...], state: State | None = None) -> float:
    """The preconditioned last step of a one-parameter run over `gradients`."""
    state = init([0.0]) if state is None else state
    for g in gradients:
        state = aw.update(adam, state, [g])
    return float(direction(adam, state)[0])


def turning_point(gradient: Callable[[float], float]) -> float:
    """The reward scale at which Adam's first step, given gradient(phi) rising in phi, changes sign: by bisection."""
    low, high = 1e-3, 1e3
    for _ in range(80):
        middle = math.sqrt(low * high)
        step = last_direction(Adam(eps=0.0), (gradient(middle),))
        low, high = (middle, high) if step < 0 else (low, middle)
    return math.sqrt(low * high)


def steps_apart(a: aw.BanditRun, b: aw.BanditRun) -> float:
    """max |theta| difference after any step."""
    return float(np.abs(a.theta_TK - b.theta_TK).max())


def check_adamw(seed: int) -> Cases:
    """Q1 to Q7; published numbers are of the set-up of `aw.run_bandit`, 200 steps, seed 3."""
    base, decayed, power = aw.run_bandit(ADAM), Adam(weight_decay=0.1), "phi a power of 2"
    history = tuple(np.random.default_rng(seed).normal(size=40))
    tenfold = last_direction(Adam(eps=1e-3), tuple(10 * g for g in history))
    scaled = aw.run_bandit(decayed._replace(eps=1024e-8), scale=1024.0)
    yield from (
        ("Q1", "phi = 1024, eps scaled: largest difference of any step, bit for bit", 0,
         steps_apart(scaled, aw.run_bandit(decayed)), 0, power),
        ("Q1", "phi = 10: Adam(phi g, eps) = Adam(g, eps/phi), step 40", last_direction(Adam(eps=1e-4), history),
         tenfold, ROUNDED, "one gradient history, zero initial moments"),
    )  # fmt: skip
    for scale, published, rounding in (
        (10, 1.0891, 5e-5),
        (0.1, 0.55, 5e-3),
        (0.01, 0.10, 5e-3),
        (1e-3, 0.01089, 5e-6),
    ):
        adam, root_v, same = Adam(eps=1e-5), 1e-4, "same gradient history"
        ratio = last_direction(adam, (scale * root_v,) * 3) / last_direction(adam, (root_v,) * 3)
        formula = float(aw.update_ratio(scale, root_v, 1e-5))
        yield "Q2", f"update ratio at phi = {scale:g}, sqrt(v) = 1e-4, eps = 1e-5", formula, ratio, ROUNDED, same
        yield "Q2", f"update ratio at phi = {scale:g}, published", published, ratio, rounding, same
    for scale, eps, published, rounding in (
        (1e3, 1e-8, 3.9e-7, 5e-9),
        (1e-3, 1e-8, 3.9e-4, 5e-6),
        (1e-3, 1e-5, 0.226, 5e-4),
    ):
        difference = apart(aw.run_bandit(Adam(eps=eps), scale=scale), aw.run_bandit(Adam(eps=eps)))
        yield (
            "Q3", f"bandit, phi = {scale:g} against 1, eps = {eps:g}, published", published, difference, rounding,
            "mean-centred advantages without std, beta = 0",
        )  # fmt: skip
    ten, one = aw.run_bandit(ADAM, scale=10.0, kl=0.1), aw.run_bandit(ADAM, kl=0.1)
    conjugate = steps_apart(
        aw.run_bandit(ADAM, scale=1024.0, kl=0.1), aw.run_bandit(Adam(eps=1e-8 / 1024), kl=0.1 / 1024)
    )
    plain, tenth = aw.run_bandit(SGD), aw.run_bandit(SGD, scale=10.0)
    normal = [aw.run_bandit(SGD, scale=scale, normalise=True) for scale in (1.0, 10.0)]
    longer = float(np.linalg.norm(tenth.theta_TK[1]) / np.linalg.norm(plain.theta_TK[1]))
    yield from (
        ("Q4", "KL breaks invariance: phi = 10 against 1, published", 0.435, apart(ten, one), 5e-4, "beta = 0.1",
         "softmax bandit, 6 arms, beta = 0.1, phi = 10 against 1"),
        ("Q4", "first step turns at phi* = beta g_R/g_A", aw.kl_threshold(0.3, 2.0, 0.1),
         turning_point(lambda phi: 0.3 * phi - 0.1 * 2.0), ROUNDED, "one parameter, eps -> 0",
         "one parameter, g_A = 0.3, g_R = 2, beta = 0.1: the step turns round at phi = 2/3"),
        ("Q4", "(phi, beta, eps) = (1, beta/phi, eps/phi), phi = 1024, bit for bit", 0, conjugate, 0, power),
        ("Q5", "SGD: first step at phi = 10 over phi = 1", 10, longer, ROUNDED, "same gradient",
         "any gradient that is not 0"),
        ("Q5", "SGD: bandit, phi = 10 against 1, published", 3.70, apart(tenth, plain), 5e-3, "no std"),
        ("Q5", "SGD, std-normalised: bandit, phi = 10 against 1", 0, apart(*normal), 5e-16,
         "eps_std = 0: sigma in alpha cancels phi before any optimiser; published 4e-16"),
    )  # fmt: skip
    yield from _extra_conditions()
    yield from _global_prior(base)


def _extra_conditions() -> Cases:
    """Q6: two gradients (1, 4) and a clip at 2 leave (1, 2) at phi = 1 and (2, 2) at phi = 10."""
    adam, b1, b2 = Adam(eps=0.0), 0.9, 0.999

    def second(x: float, y: float) -> float:
        return (b1 * x + y) / (1 + b1) / math.sqrt((b2 * x * x + y * y) / (1 + b2))

    def clipped(scale: float, limit: float) -> float:
        return last_direction(adam, tuple(float(aw.clip_by_norm([scale * g], limit)[0]) for g in (1.0, 4.0)))

    def warm(scale: float, m: float = 0.0) -> float:
        return last_direction(adam, (scale,), State(np.zeros(1), np.array([m]), np.zeros(1), 0))

    restored = clipped(10, 20) / clipped(1, 2)
    warmed = aw.run_bandit(ADAM._replace(eps=1024e-8), scale=1024.0, warmup=50)
    gap = steps_apart(warmed, aw.run_bandit(ADAM, warmup=50))
    yield from (
        ("Q6", "clipping on some steps: second step, phi = 10 over phi = 1", second(2, 2) / second(1, 2),
         clipped(10, 2) / clipped(1, 2), ROUNDED, "clip norm not scaled with phi",
         "one parameter, gradients 1, 4, clip norm 2: 1.036 instead of 1"),
        ("Q6", "clip norm scaled with phi: the same ratio", 1, restored, ROUNDED, "clip norm proportional to phi"),
        ("Q6", "m_0 = 0.1: first step, phi = 10 over phi = 1", (0.09 + 1) / (10 * (0.09 + 0.1)),
         warm(10, 0.1) / warm(1, 0.1), ROUNDED, "eps = 0, v_0 = 0",
         "one parameter, one gradient, initial first moment 0.1"),
        ("Q6", "learning-rate warm-up keeps Q1, phi = 1024, bit for bit", 0, gap, 0, "phi a power of 2"),
    )  # fmt: skip


def _global_prior(base: aw.BanditRun) -> Cases:
    prior, r, c, scale = aw.GlobalPrior(0.5, 0.25, 0.05), np.array([1.0, 0, 0, 1, 1, 0, 0, 0]), 2.0, 1024.0
    S, A = aw.prior_shrinkage(prior, 8), aw.shrinkage_advantages(r, prior)
    example = "S = 0.38, prior mean 0.5 left where it was"
    more = float((aw.shrinkage_advantages(r + c, prior) - A)[0])
    moved = float(np.abs(aw.shrinkage_advantages(r + c, aw.rescaled(prior, 1, c)) - A).max())
    scaled = aw.run_bandit(ADAM._replace(eps=scale * 1e-8), scale=scale, prior=aw.rescaled(prior, scale))
    gap = steps_apart(scaled, aw.run_bandit(ADAM, prior=prior))
    batch = np.stack([r, 1 - r, r * r[::-1]])
    yield from (
        ("Q7", "group-centred: bandit, rewards + 2 against rewards", 0, apart(aw.run_bandit(ADAM, shift=c), base), 1e-9,
         "rounding of r + c - mean, magnified by Adam"),
        ("Q7", "constant prior: advantage of r + 2 minus that of r = 2 S", c * S, more, ROUNDED, "prior not shifted",
         example),
        ("Q7", "shifted prior: largest change of an advantage", 0, moved, ROUNDED, "prior shifted with the rewards"),
        ("Q7", "constant prior: A(phi r)/phi - A(r) = S mu (1 - 1/phi), phi = 10", S * 0.5 * 0.9,
         float((aw.shrinkage_advantages(10 * r, prior) / 10 - A)[0]), ROUNDED, "prior not scaled", example),
        ("Q7", "scaled prior, Adam: phi = 1024, bit for bit", 0, gap, 0, "prior and eps scaled with the rewards"),
        ("Q7", "constant prior, all-correct group: Adam's first step turns round at phi = mu", 0.5,
         turning_point(lambda phi: float(aw.shrinkage_advantages(np.full(8, phi), prior)[0])), ROUNDED,
         "prior not scaled, eps -> 0", example),
        ("Q7", "pseudo-count in an estimated prior: mean moves by w/(1+w) (phi-1) mu_0, w = 1/2", 9 * 0.5 / 3,
         10 * aw.estimate_prior(batch, prior, 0.5).mean - aw.estimate_prior(10 * batch, prior, 0.5).mean, ROUNDED,
         "initial mean not scaled", "initial prior mean 0.5 with half a batch's weight, phi = 10"),
    )  # fmt: skip
