"""History of the same prompt: when it beats the group mean, how long a frozen anchor lasts, how fast to forget.

Exact on a world whose prompts jump between 1/2 - s and 1/2 + s from visit to visit (as long as jumps are rare, like a
random walk), and on the recorded run that ships.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ebpo_sim.claims.base import Case, Check, Context, Finding, claim, presumed
from ebpo_sim.counts.streams import mean_with_error, stream_seed
from ebpo_sim.estimators import make
from ebpo_sim.groups import group_rewards
from ebpo_sim.labels import REFERENCE
from ebpo_sim.numbers import Array
from ebpo_sim.studies.recorded import replay
from ebpo_sim.studies.recorded.study import EARLY
from ebpo_sim.worlds import recorded

RUN = "qwen2.5-math-1.5b-grpo"
SIZES = (1, 2, 4)
RETENTIONS = (0.2, 0.4, 0.6, 0.875)
GRID = np.arange(1, 20) / 20  # of retentions
PAPERS = 0.4
DRIFTS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.49, 0.51, 0.6, 0.7, 0.8, 0.9, 0.99, 1.19, 1.5, 2.0, 4.0)  # x p(1-p)/G
SWINGS = (0.1, 0.2, 0.3, 0.4)  # s
VISITS = 64


def jumping_error(retention: float, prior: float, own: bool, group_size: int, swing: float, drift: float) -> float:
    """E (b - p)^2 / (p(1-p)/G) of `Discounted` after VISITS visits, of this one too where `own`; drift: E of the square
    of p's move between visits, in units of p(1-p)/G.

    b - 1/2 = sum_j c_j x_j + noise, j visits ago, x = p - 1/2 and E x_i x_j = s^2 rho^|i-j|, so the error is
    sum_j c_j^2 p(1-p)/G + s^2 (sum_ij c_i c_j rho^|i-j| - 2 sum_i c_i rho^i + 1)."""
    ago = np.arange(0 if own else 1, VISITS + 1)
    seen = group_size * retention ** (ago - ago[0])
    c = seen / (seen.sum() + 2 * prior * retention ** len(ago))
    noise = (0.25 - swing**2) / group_size
    rho = 1 - drift * noise / (2 * swing**2)
    away = c @ rho ** np.abs(np.subtract.outer(ago, ago)) @ c - 2 * c @ rho**ago + 1
    return float(c @ c + swing**2 * away / noise)


def jumping_cells() -> Iterator[tuple[int, float, float]]:
    """(G, s, drift) where jumps have a probability of at most 1/2."""
    for group_size in (1, 2, 4, 8):
        for swing in SWINGS:
            for drift in DRIFTS:
                if drift * (0.25 - swing**2) / group_size <= 2 * swing**2:
                    yield group_size, swing, drift


def simulated(context: Context, name: str, group_size: int, swing: float, drift: float) -> Check:
    """`jumping_error` of a preset, and from the estimator itself on a sampled stream."""
    estimator, noise = make(name), (0.25 - swing**2) / group_size
    jump = drift * noise / (4 * swing**2)
    prompts, replicates = 128, context.design.replicates
    rng = np.random.default_rng(stream_seed(context.design.seed, f"jumping {name}", group_size))
    state, up_RP = estimator.init(), rng.random((replicates, prompts)) < 0.5
    for _ in range(VISITS + 1):
        up_RP = up_RP ^ (rng.random(up_RP.shape) < jump)
        p_RP1 = np.where(up_RP, 0.5 + swing, 0.5 - swing)[..., None]
        rewards_RPG = (rng.random((*up_RP.shape, group_size)) < p_RP1) * 1.0
        groups = group_rewards(rewards_RPG, prompt_ids=range(prompts))
        scoring, state = estimator.turn(state, groups)
    evaluation = estimator.baseline_of(scoring, groups)
    assert evaluation is not None
    found = mean_with_error(((evaluation.baseline_PG - p_RP1) ** 2).mean(axis=(1, 2)) / noise)
    settings = estimator.baseline
    own = estimator.order == "update_then_score"
    exact = jumping_error(settings.retention, settings.prior, own, group_size, swing, drift)  # type: ignore[union-attr]
    return Check(exact, found.value, found.se, replicates - 1)


@lru_cache(maxsize=64)
def replayed(name: str, group_size: int) -> Array:
    """(P, V) errors on the recorded run, of a rule that looks at one prompt at a time: all are met in one batch."""
    run = recorded(RUN)
    parts = replay.split(run, group_size, run.successes_PV.shape[1], 2, 0)
    return replay.errors(replay.bound(name), parts, len(run.prompts))


def recorded_cases(claim: str, variant: str, name: str, sizes: tuple[int, ...]) -> list[Case]:
    """1 - error/group mean's, by G: after the first visit over all, and over the first three."""
    weights_BP = replay.resampled(len(recorded(RUN).prompts), 0)
    cases = []
    for size in sizes:
        for last in (None, 1 + EARLY):
            mine_P, plain_P = (replayed(n, size)[:, 1:last].sum(axis=1) for n in (name, REFERENCE))
            value = replay.ratio(weights_BP, mine_P, plain_P)
            spread = (value.high - value.low) / 3.92
            cases.append(Case(f"claims {claim}: {variant}", 1 - value.value, True, size, spread))
    return cases


@claim(
    "M1",
    "SPO, DBB (2509.13232, 2603.18444)",
    "A prompt's own history has a lower error than its group's mean",
    "drift between visits is small (how small is not stated)",
    "Remember every prompt: one run of 46 visits leaves an eighth to a sixth of the group mean's error, its first "
    "three revisits a third to three fifths. Past visits alone need a drift below half of the group's noise.",
    presumed(
        "recorded run, spo = holds; recorded run, dbb:retention=0.875 = holds; "
        "jumping prompts, past visits, best retention, drift below p(1-p)/G = holds_if; "
        "jumping prompts, this visit too, best retention = holds"
    ),
)
def history(context: Context) -> list[Finding]:
    """M1: 1 - error / the group mean's."""
    sizes, findings = SIZES[-1:] if context.quick else SIZES, []
    for name in ("spo", "dbb:retention=0.875"):
        variant = f"recorded run, {name}"
        cases = recorded_cases("M1", variant, name, sizes)
        effect = 1 - cases[-2].effect
        findings.append(Finding(variant, cases, "", f"error / group mean's, G={sizes[-1]}, all visits", effect))
    best = {own: [
        (size, swing, drift, min(jumping_error(x, 0.5, own, size, swing, drift) for x in GRID))
        for size, swing, drift in jumping_cells()
    ] for own in (False, True)}  # fmt: skip
    variant = "jumping prompts, past visits, best retention, drift below p(1-p)/G"
    cases = [Case(f"claims M1: {variant}", 1 - e, d < 0.5, d) for _, _, d, e in best[False] if d < 1]
    named, condition = "error / group mean's, retention 0.875, G=4, s=0.3, drift 0.1", "drift < p(1-p)/(2G)"
    check = simulated(context, "spo", 4, 0.3, 0.1)
    findings.append(Finding(variant, cases, condition, named, check.exact, check))
    variant = "jumping prompts, this visit too, best retention"
    cases = [Case(f"claims M1: {variant}", 1 - e, True, d) for _, _, d, e in best[True]]
    check = simulated(context, "dbb:retention=0.875", 4, 0.3, 0.1)
    findings.append(Finding(variant, cases, "", named, check.exact, check))
    return findings


@claim(
    "M2",
    "PVPO, A*-PO (2508.21104, 2505.20686)",
    "A value of the starting policy, frozen, has a lower error than the group's mean",
    "the policy stays near its start (not stated)",
    "An anchor pays while its drift is below the difference of two noises, p(1-p)/G - p(1-p)/n for n rollouts at "
    "the start: never with as many rollouts as a group has.",
    presumed(
        "recorded run, 8 rollouts at the start, G = 1 = holds; "
        "recorded run, 8 rollouts at the start, G = 4 = holds_if; "
        "recorded run, as many rollouts at the start as a group has = fails"
    ),
)
def anchors(context: Context) -> list[Finding]:
    """M2: 1 - error of the first visit's mean / the group mean's, by visit; of all recorded rollouts or of G of them.
    The condition: visits before the first at which the error itself, not its interval, is above."""
    sizes, found = SIZES[-1:] if context.quick else SIZES, []
    for size in sizes:
        variant = f"recorded run, 8 rollouts at the start, G = {size}"
        cases = anchor_cases(variant, size, recorded(RUN).rollouts)
        last = min((c.x for c in cases if c.effect < 0), default=np.inf) - 1
        cases = [c._replace(expected=c.x <= last) for c in cases]
        found.append((variant, cases, f"at most {last:.0f} visits" if np.isfinite(last) else ""))
    variant = "recorded run, as many rollouts at the start as a group has"
    found.append((variant, [c for size in sizes for c in anchor_cases(variant, size, size)], ""))
    return [
        Finding(
            variant, cases, condition, f"error / group mean's at visit {cases[-1].x}", 1 - cases[-1].effect,
            strict=False,
        )
        for variant, cases, condition in found
    ]  # fmt: skip


def anchor_cases(variant: str, group_size: int, offline: int) -> list[Case]:
    """Every visit after the first: (m_0 - m_v)^2 less the noise of m_v is unbiased for E (m_0 - p_v)^2; the mean of
    fewer rollouts at the start is noisier."""
    run = recorded(RUN)
    weights_BP = replay.resampled(len(run.prompts), 0)
    mean_PV = run.successes_PV / run.rollouts
    noise_PV = mean_PV * (1 - mean_PV) / (run.rollouts - 1)
    more_P, cases = noise_PV[:, 0] * (run.rollouts / offline - 1), []
    for visit in range(1, mean_PV.shape[1]):
        away_P = (mean_PV[:, 0] - mean_PV[:, visit]) ** 2 - noise_PV[:, visit] + more_P
        value = replay.ratio(weights_BP, away_P, noise_PV[:, visit] * run.rollouts / group_size)
        cases.append(Case(f"claims M2: {variant}", 1 - value.value, True, visit, (value.high - value.low) / 3.92))
    return cases


@claim(
    "M3",
    "DBB (2603.18444)",
    "DBB's error is lowest at a retention of about 0.4",
    "drift of the paper's runs (not stated)",
    "0.4 is right where a prompt moves by as much as a group's noise between visits; the recorded run moves by "
    "a hundredth of it: forget far more slowly.",
    presumed("random walk = holds_if; recorded run = fails"),
)
def forgetting(context: Context) -> list[Finding]:
    """M3: the least error of the other retentions over that of 0.4, less 1."""
    findings = []
    variant = "random walk"
    tenths, u = np.arange(1, 10) / 10, np.array(DRIFTS)[:, None]
    error = (1 - tenths) / (1 + tenths) + u * tenths**2 / (1 - tenths**2)  # over p(1-p)/G, after many visits
    mine = np.isclose(tenths, PAPERS)
    effects = error[:, ~mine].min(axis=1) / error[:, mine][:, 0] - 1
    cases = [
        Case(f"claims M3: {variant}", float(e), 2 / 3 < d < 6 / 5, d) for d, e in zip(DRIFTS, effects, strict=True)
    ]
    check = simulated(context, f"dbb:retention={PAPERS}", 4, 0.3, 0.1)
    named = "error / group mean's, retention 0.4, jumping prompts, G=4, s=0.3, drift 0.1"
    condition = "2/3 < drift G/(p(1-p)) < 6/5"
    findings.append(Finding(variant, cases, condition, named, check.exact, check))
    variant, cases = "recorded run", []
    for size in SIZES[-1:] if context.quick else SIZES:
        total = {x: float(replayed(f"dbb:retention={x}", size)[:, 1:].sum()) for x in RETENTIONS}
        least = min(value for x, value in total.items() if x != PAPERS)
        cases.append(Case(f"claims M3: {variant}", least / total[PAPERS] - 1, True, size))
    named = f"error of the best of {', '.join(map(str, RETENTIONS))} / of 0.4, G=4"
    findings.append(Finding(variant, cases, "", named, 1 + cases[-1].effect))
    return findings
