"""What does a group get when all its rollouts fail?

GRPO gives it nothing. EBPO's Theorem 3.2 gives it the raw advantage -S mu_glob, and Corollary 3.5 says that the
penalty grows with mu_glob. Here for each world (its mean success rate is the history's mu_glob): the advantage
before normalisation; after it, in a batch from the same world; after it in a fixed reference batch (half the
groups failed, half mixed), so that only the history differs; and in a batch without a single success. Then how
much of such a penalty is direction: its signal-to-noise ratio against the prompt's p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ebpo_sim import report
from ebpo_sim.counts.exact import limit_state, rule
from ebpo_sim.counts.streams import Design, mean_with_error, simulate_stream, walk
from ebpo_sim.counts.updates import advantages_by_count, limit_advantages
from ebpo_sim.estimators import Estimator, baseline_table
from ebpo_sim.groups import count_groups
from ebpo_sim.methods.selected import counted, is_oracle
from ebpo_sim.plots import Figure, curve, panels, points
from ebpo_sim.studies import costs
from ebpo_sim.studies.base import Rows, Settings, Study, run, z_scores
from ebpo_sim.worlds import World, intra_class_correlation, parse_world

ARMS = 20
SNR_P = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
DRAWS = 4000  # groups behind each simulated signal-to-noise ratio, twice

SETTINGS = Settings(
    worlds=tuple(f"beta:{5 * m:g},{5 * (1 - m):g}" for m in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)),
    group_sizes=(2, 4, 8, 16),
    estimators=("grpo", "ebpo", "ebpo_released", "ebpo_within", "ebpo_debiased", "ebpo_nonparametric"),
    design=Design(prompts=2048, steps=4, burn_in=2, replicates=16),
)
QUICK = Settings(
    worlds=tuple(f"beta:{5 * m:g},{5 * (1 - m):g}" for m in (0.05, 0.3, 0.7, 0.95)),
    group_sizes=(4,),
    estimators=("grpo", "ebpo", "ebpo_debiased"),
    design=Design(prompts=1024, steps=4, burn_in=2, replicates=8),
)


def simulate(settings: Settings, threads: int = 1) -> Rows:
    """Rows of part "signal" for every world, G and estimator, and of part "direction" for every p and G."""
    for name in settings.estimators:
        is_oracle(name)
    worlds = [(text, parse_world(text)) for text in settings.worlds]
    rows: Rows = []
    with report.progress(len(worlds) * len(settings.group_sizes), "failure_study") as bar:
        for group_size in settings.group_sizes:
            for text, world in worlds:
                rows += _cell(text, world, group_size, settings, threads)
                bar.update()
            rows += [direction(p, group_size, ARMS, settings.design) for p in SNR_P]
    return rows


COLUMNS = (
    "part", "world", "icc", "mu_glob", "p", "group_size", "estimator", "raw_exact", "normalised_exact", "normalised_mc",
    "normalised_mc_se", "reference_batch", "no_success_batch", "snr_exact", "snr_mc", "snr_mc_se",
)  # fmt: skip


def _cell(text: str, world: World, group_size: int, settings: Settings, threads: int) -> Rows:
    prior = rule(world, group_size)
    stream = simulate_stream(world, group_size, settings.design, threads)
    icc = intra_class_correlation(world)
    rows = []
    for name in settings.estimators:
        estimator = counted(name, prior)
        state = limit_state(estimator, world, group_size)
        seen = all_fail_advantages(estimator, stream, group_size, settings.design.burn_in)
        values = {
            "part": "signal",
            "world": text,
            "icc": report.exists(icc),
            "mu_glob": prior.mean,
            "group_size": group_size,
            "estimator": name,
            "raw_exact": 0.0 - float(baseline_table(estimator, state, group_size)[0, 0]),
            "normalised_exact": float(limit_advantages(estimator, world, group_size)[0, 0]),
            **mean_with_error(seen).columns("normalised_mc"),
            "reference_batch": after_history(estimator, state, reference_batch(group_size), group_size),
            "no_success_batch": after_history(estimator, state, [8.0] + [0.0] * group_size, group_size),
        }
        rows.append({column: values.get(column) for column in COLUMNS})
    return rows


def reference_batch(group_size: int) -> list[float]:
    """Groups with k successes, k = 0..G, in a fixed small batch: 8 that failed, and 8 with about half right."""
    counts = [0.0] * (group_size + 1)
    counts[0] += 8.0
    counts[max(1, group_size // 2)] += 8.0
    return counts


def after_history(estimator: Estimator, state: Any, counts: Sequence[float], group_size: int) -> float:
    """Advantage of an all-fail group in the batch `counts`, scored in the estimator's order after a long history."""
    batch = count_groups(group_size, counts)
    scoring, _ = estimator.turn(state, batch)
    return float(advantages_by_count(estimator, scoring, batch, group_size)[0, 0])


def all_fail_advantages(estimator: Estimator, stream: Any, group_size: int, burn_in: int) -> Any:
    """The all-fail advantage of each replicate, averaged over its scored batches (stateful, transient included)."""
    seen = [
        np.broadcast_to(advantages_by_count(estimator, state, batch, group_size)[..., 0, 0], stream.shape[:1])
        for state, batch, _ in walk(estimator, stream, group_size, burn_in)
    ]
    return np.mean(seen, axis=0)


def signal_to_noise(p: float, group_size: int, arms: int) -> float:
    """|E dz| / sqrt(tr Cov dz) of a constant penalty -c on an all-fail group: p sqrt(K/(K-2)) sqrt(G), any c.

    The mean over the group of -c (e_a - pi), a uniform on the K-1 wrong arms: the right logit rises by c p, each
    wrong one falls by c p/(K-1) on average, and the wrong arms that happened to be drawn fall with variance
    (1/(K-1))(1 - 1/(K-1)) c^2/G each. Needs K >= 3. As p -> 0 the noise stays: an entropy push, not a direction.
    """
    return float(p * np.sqrt(arms / (arms - 2)) * np.sqrt(group_size))


def direction(p: float, group_size: int, arms: int, design: Design) -> dict[str, Any]:
    """A row with the exact signal-to-noise ratio and a simulated one, from replicates of sampled wrong answers."""
    rng = np.random.default_rng([design.seed, group_size, round(p * 1e6)])
    found = []
    for _ in range(design.replicates):
        drawn = rng.multinomial(group_size, np.full(arms - 1, 1 / (arms - 1)), size=2 * DRAWS) / group_size
        wrong = -(drawn - (1 - p) / (arms - 1))  # the wrong logits' moves at c = 1; the right one moves by p
        halves = wrong[:DRAWS].mean(axis=0), wrong[DRAWS:].mean(axis=0)
        # The product of two independent means estimates the squared mean without bias.
        found.append((p * p + float(halves[0] @ halves[1])) / float(np.sum(np.var(wrong, axis=0, ddof=1))))
    square = mean_with_error(np.asarray(found))
    value = np.sqrt(max(square.value, 0.0))
    values = {
        "part": "direction",
        "p": p,
        "group_size": group_size,
        "estimator": "constant penalty",
        "snr_exact": signal_to_noise(p, group_size, arms),
        "snr_mc": float(value),
        "snr_mc_se": float(square.se / (2 * value)) if value > 0 else None,
    }
    return {column: values.get(column) for column in COLUMNS}


def score(settings: Settings, rows: Rows) -> dict[str, Any]:
    """Simulated against exact advantages, jointly; and for which estimators the history reaches the penalty."""
    z = z_scores(rows, "normalised_mc", "normalised_exact")
    spans = {}
    for name in settings.estimators:
        mine = [r for r in rows if r["part"] == "signal" and r["estimator"] == name]
        spans[name] = {
            "all-fail advantage, batch without a success, closest to 0": max(r["no_success_batch"] for r in mine),
            "range over histories, same batch": max(r["reference_batch"] for r in mine)
            - min(r["reference_batch"] for r in mine),
        }
    return {"comparisons": len(z), "max_abs_z": max(map(abs, z), default=None), "estimators": spans}


def show(settings: Settings, rows: Rows, summary: Mapping[str, Any]) -> str:
    """The advantage of an all-fail group at one G (4 where studied), and the signal-to-noise ratios."""
    size = min(settings.group_sizes, key=lambda g: abs(g - 4))
    signal = [r for r in rows if r["part"] == "signal" and r["group_size"] == size]
    penalties = (
        "mu_glob", "estimator", ("raw", "raw_exact"), ("normalised", "normalised_exact"),
        ("simulated", "±normalised_mc"), ("same batch", "reference_batch"),
        ("batch without success", "no_success_batch"),
    )  # fmt: skip
    signals: report.Columns = (
        "p", ("exact", lambda r: report.number(r["snr_exact"], 4)), ("simulated", "±snr_mc")
    )  # fmt: skip
    directions = [r for r in rows if r["part"] == "direction" and r["group_size"] == size]
    return "\n".join(
        (
            f"Advantage of an all-fail group, G = {size}",
            report.columns_table(signal, penalties),
            f"\nSignal-to-noise ratio of a constant penalty on an all-fail group, {ARMS} arms, G = {size}",
            report.columns_table(directions, signals),
            conclusion(rows),
        )
    )


def conclusion(rows: Rows) -> str:
    """How far histories move an all-fail group's advantage: raw, and once the same batch is normalised."""
    spans = []
    for name in dict.fromkeys(r["estimator"] for r in rows if r["part"] == "signal"):
        mine = [r for r in rows if r["part"] == "signal" and r["estimator"] == name]
        raw, seen = ([r[what] for r in mine] for what in ("raw_exact", "reference_batch"))
        spans.append(f"{name} raw {min(raw):.3f} to {max(raw):.3f}, normalised by {max(seen) - min(seen):.3f}")
    return f"Conclusion: over histories an all-fail group's advantage moves: {'; '.join(spans)}."


def plot(rows: Rows) -> dict[str, Figure]:
    """The paper's figure 2 and its two tests: another batch, a batch without success; and signal to noise."""
    signal = [r for r in rows if r["part"] == "signal"]
    size = min({r["group_size"] for r in signal}, key=lambda g: abs(g - 4))
    figure, axes = panels(17, 4.4, 4)
    views = (
        ("raw_exact", "raw advantage (the paper's figure 2)"),
        ("reference_batch", "normalised, same batch after each history"),
        ("no_success_batch", "normalised, batch without a success"),
    )
    for panel, (what, title) in zip(axes, views, strict=False):
        for i, name in enumerate(dict.fromkeys(r["estimator"] for r in signal)):
            mine = sorted(
                (r for r in signal if r["estimator"] == name and r["group_size"] == size), key=lambda r: r["mu_glob"]
            )
            curve(panel, mine, "mu_glob", what, label=name, lw=5 - 0.7 * i, alpha=0.8)
        panel.set(title=f"{title}", xlabel="mu_glob of the history")
        panel.axhline(0, color="black", lw=0.8)
    axes[0].set_ylabel(f"advantage of an all-fail group, G = {size}")
    axes[0].legend(fontsize=8, frameon=False)
    for group_size in dict.fromkeys(r["group_size"] for r in rows):
        mine = [r for r in rows if r["part"] == "direction" and r["group_size"] == group_size]
        line = curve(axes[3], mine, "p", "snr_exact", label=f"G = {group_size}")
        points(axes[3], mine, "p", "snr_mc", fmt="o", ms=3, color=line.get_color())
    axes[3].set(xscale="log", yscale="log", xlabel="p of the prompt", title="signal to noise of the penalty")
    axes[3].legend(fontsize=8, frameon=False)
    return {"failure.png": figure}


STUDY = Study(
    "failure_study",
    __doc__ or "",
    SETTINGS,
    QUICK,
    lambda s, t: costs.failure(s, t, 2 * DRAWS, ARMS, len(SNR_P)),
    simulate,
    score,
    show,
    plot,
)
main = partial(run, STUDY)
