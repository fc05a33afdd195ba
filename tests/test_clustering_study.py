"""The clustering study: simulation against exact values, what became of P2 and R3, files and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from ebpo_sim.counts.streams import Design, mean_with_error
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator
from ebpo_sim.groups import group_rewards
from ebpo_sim.studies.base import agreement
from ebpo_sim.studies.clustering.simulation import MEMORIES, Keep, remember, simulate_epochs, walk
from ebpo_sim.studies.clustering.study import (
    FAMILY_WISE,
    QUICK,
    SETTINGS,
    check,
    claim_rows,
    main,
    paths,
    simulate,
    table,
    verdict,
)
from ebpo_sim.worlds.topics import ORDERS, Topics, beta_topics, parse_topics, prior_exact

TINY = ["--prompts", "40", "--steps", "6", "--replicates", "3", "--group-size", "4"]
FILES = {"table.csv", "path.csv", "summary.json", "clustering.png"}
STUDIED = QUICK.__class__(
    ("topics:0.4,0.05,0.8@20", "observed:GPT-4-0613", "drift:0.2,0.02@10"),
    (4,),
    ("ebpo", "ebpo_debiased"),
    Design(prompts=150, steps=18, burn_in=0, replicates=20),
)


@pytest.fixture(scope="module")
def cells():
    return simulate(STUDIED, threads=2)


@pytest.fixture(scope="module")
def rows(cells):
    return table(STUDIED, cells)


def pick(rows, **key):
    (found,) = [r for r in rows if all(r[k] == v for k, v in key.items())]
    return found


def test_simulation_agrees_with_exact_values(rows) -> None:
    """All gains at once, then all prior errors: Bonferroni, t with R - 1 degrees of freedom, false-fail rate 1e-3."""
    joint = agreement(rows, "gain", "gain_exact", STUDIED.design.replicates)
    assert joint["comparisons"] == len(rows) == 2 * (5 * 5 * 2 + 3 * 2)
    assert joint["passes"], joint
    z = [(r["prior_error"] - r["prior_error_exact"]) / r["prior_error_se"] for r in rows]
    assert np.abs(z).max() < student.isf(FAMILY_WISE / 2 / len(z), STUDIED.design.replicates - 1)
    wrong = [{**rows[0], "gain": rows[0]["gain"] + 2 * joint["limit"] * rows[0]["gain_se"]}, *rows[1:]]
    assert not agreement(wrong, "gain", "gain_exact", STUDIED.design.replicates)["passes"]


def test_every_step_of_every_path_agrees(cells) -> None:
    """Prior error and lag batch by batch: all |z| below the Bonferroni limit, false-fail rate 1e-3 each."""
    for name in ("prior_error", "lag"):
        z = [
            (r[name] - r[f"{name}_exact"]) / r[f"{name}_se"]
            for r in paths(cells)
            if r[name] is not None and r[f"{name}_se"] > 0
        ]
        assert len(z) > 1500
        assert np.abs(z).max() < student.isf(FAMILY_WISE / 2 / len(z), STUDIED.design.replicates - 1), name


@pytest.mark.parametrize("world", STUDIED.worlds[:2])
def test_p2_fails_as_published_and_holds_with_other_memories(rows, world: str) -> None:
    """P2: Algorithm 1's cumulative tracker gets under an eighth of the promised gain from topic order at T = 18, and
    with the own batch left out topic order RAISES the prior's error; a memory per topic has it all, shuffled or not;
    one batch of memory has nearly all of it if batches are coherent. Each margin is over 5 standard errors."""
    for order in ORDERS[1:]:
        found = pick(rows, world=world, estimator="ebpo", memory="cumulative", order=order)
        assert found["gain"] + 5 * found["gain_se"] < 0.25
        lagged = pick(rows, world=world, estimator="ebpo_debiased", memory="cumulative", order=order)
        assert lagged["gain_over_shuffled"] + 5 * lagged["gain_over_shuffled_se"] < 0
        assert lagged["verdict"] == "raises"
        batch = pick(rows, world=world, estimator="ebpo", memory="batch", order=order)
        assert batch["gain"] - 5 * batch["gain_se"] > 0.8
        assert batch["verdict"] == "lowers"
    for order in ORDERS:
        for memory in ("per topic, cumulative", "per topic, retention 0.9"):
            found = pick(rows, world=world, estimator="ebpo", memory=memory, order=order)
            assert abs(found["gain"] - 1) < 5 * found["gain_se"] + 0.02
            assert found["verdict"] not in ("lowers", "raises")
    shuffled = pick(rows, world=world, estimator="ebpo", memory="batch", order="shuffled")
    assert abs(shuffled["gain"]) < 5 * shuffled["gain_se"] + 0.03


def test_r3_fails_under_drift(rows) -> None:
    """R3: the cumulative tracker's bias grows with T, c (T-1)/2; retention 0.9 stays within c l/(1-l) = 9 c."""
    drift = {"world": STUDIED.worlds[2], "estimator": "ebpo", "order": "blocked"}
    whole, fading = (pick(rows, memory=m, **drift) for m in ("cumulative", "retention 0.9"))
    assert whole["lag_last_exact"] == pytest.approx(-0.02 * 17 / 2)
    assert abs(whole["lag_last"] - whole["lag_last_exact"]) < 5 * whole["lag_last_se"]
    assert -0.18 < fading["lag_last_exact"] < -0.06
    assert whole["lag_last"] + 5 * whole["lag_last_se"] < fading["lag_last"] - 5 * fading["lag_last_se"]


def naive_walk(estimator: Estimator, topics: Topics, sums: np.ndarray) -> list[list[float]]:
    """One replicate, every group written out, through the estimator's own `step`: prior and shrinkage by batch."""
    state, found = estimator.init(), []
    size = sums.shape[-1] - 1
    for batch in sums:
        rewards, clusters = [], []
        for topic, row in zip(topics.labels, batch[0], strict=True):
            for k, n in enumerate(row.astype(int)):
                rewards += [[1.0] * k + [0.0] * (size - k)] * n
                clusters += [topic] * n
        _, info, state = estimator.step(state, group_rewards(rewards, clusters=clusters))
        prior = np.broadcast_to(info.prior_mean_P, (len(rewards),))
        found.append([prior.mean(), np.broadcast_to(info.shrinkage_P, prior.shape).mean()])
    return found


@pytest.mark.parametrize("name", ["ebpo", "ebpo_debiased", "ebpo_beta_binomial"])
@pytest.mark.parametrize("keep", MEMORIES, ids=lambda k: k.text)
def test_walk_against_written_out_groups(name: str, keep: Keep) -> None:
    """Guards the G+1 rows with multiplicities and topics: lag and shrinkage equal those of batches written out."""
    topics = beta_topics([0.3, 0.8, 0.5], 4)
    stream = simulate_epochs(topics, ("blocked", "alternating"), 3, Design(12, 5, 0, 2))["alternating"]
    estimator = remember(name, keep)
    exact = prior_exact(topics, "alternating", keep.memory, group_size=3, prompts=12, steps=5)
    cell = walk(estimator, topics, stream, exact, {})
    for r in range(2):
        slow = np.array(naive_walk(estimator, topics, stream[r]))
        mean_p = stream[r, :, 1].sum(axis=(1, 2)) / 12
        first = int(estimator.order == "score_then_update")
        assert cell.lag_RT[r, first:] == pytest.approx((slow[:, 0] - mean_p)[first:], abs=1e-12)
        assert cell.shrinkage_RT[r] == pytest.approx(slow[:, 1], abs=1e-12)


def test_orders_share_prompts_and_rollouts() -> None:
    """Guards pairing: summed over the epoch every order holds the same groups; G, replicates and seeds differ."""
    topics = parse_topics("topics:0.4,0.1,0.8@10", 6)
    design = Design(30, 6, 0, 3)
    streams = simulate_epochs(topics, ORDERS, 4, design)
    whole = streams["shuffled"].sum(axis=1)
    assert whole[:, 0].sum(axis=(1, 2)).tolist() == [180] * 3
    for stream in streams.values():
        assert stream.sum(axis=1) == pytest.approx(whole, abs=1e-9)
        assert np.all(stream[:, :, 0].sum(axis=(2, 3)) == 30)
    assert not np.array_equal(whole[0], whole[1])
    again = simulate_epochs(topics, ("blocked",), 4, design, threads=2)["blocked"]
    assert again.tobytes() == streams["blocked"].tobytes()
    assert again.tobytes() != simulate_epochs(topics, ("blocked",), 4, design._replace(seed=1))["blocked"].tobytes()


def test_own_batch_covariance_is_simulated_too() -> None:
    """R3 by simulation, stationary: Cov(mu_glob, batch mean)/Var(batch mean) after T batches is 1/T for the cumulative
    tracker and 1 - l for retention l. 5 standard errors over 4000 streams each (false-fail rate 6e-7 a number)."""
    topics, steps = beta_topics([0.5], 4), 10
    stream = simulate_epochs(topics, ("blocked",), 4, Design(20, steps, 0, 4000))["blocked"]
    k = np.arange(5) / 4
    mean_RT = (stream[:, :, 0, 0] * k).sum(axis=2) / 20
    for memory, share in (("cumulative", 1 / steps), (0.5, 0.5 / (1 - 0.5**steps))):
        estimator = remember("ebpo", Keep(memory, False))
        exact = prior_exact(topics, "blocked", memory, group_size=4, prompts=20, steps=steps)
        cell = walk(estimator, topics, stream, exact, {})
        prior_R = cell.lag_RT[:, -1] + stream[:, -1, 1].sum(axis=(1, 2)) / 20
        x = mean_RT[:, -1] - mean_RT[:, -1].mean()
        found = mean_with_error((prior_R - prior_R.mean()) * x / np.mean(x**2) - share * (x**2 / np.mean(x**2) - 1))
        assert abs(found.value - share) < 5 * found.se, memory
        assert found.se < share / 5


def study(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ebpo_sim.clustering_study", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_files_rows_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the outputs: four files, rows for every order and memory of both kinds of world, and the text."""
    worlds = ["--world", "topics:0.3,0.7@10", "--world", "drift:0.3,0.01@10"]
    main([*worlds, *TINY, "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "gain of the prior" in shown and str(tmp_path / "path.csv") in shown
    assert {p.name for p in tmp_path.iterdir()} == FILES
    assert len(json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["rows"]) == 2 * (5 * 5 + 3 * 2)


def test_one_topic_has_nothing_to_gain(tmp_path: Path) -> None:
    """Guards Var_k = 0: the gain does not exist, and nothing is NaN."""
    settings = QUICK.__class__(("topics:0.4@5",), (1, 2), ("ebpo", "ebpo_within"), Design(10, 2, 0, 2))
    found = claim_rows(settings)
    assert {r["gain"] for r in found} == {None}
    assert all(not (isinstance(v, float) and np.isnan(v)) for r in found for v in r.values())
    main(["--world", "topics:0.4@5", *TINY, "--out", str(tmp_path)])


BAD = [
    (["--world", "beta:2,3"], "unknown topic world 'beta'"),
    (["--world", "topics:0.2,1.5@3"], "topic means must lie in"),
    (["--world", "drift:0.3,0.5@3"], "drift more slowly"),
    (["--estimator", "grpo"], "'grpo' has no running prior"),
    (["--estimator", "oracle_linear"], "'oracle_linear' has no running prior"),
    (["--steps", "1"], "steps must be at least 2, got 1"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda x: " ".join(x) if isinstance(x, list) else None)
def test_bad_input_is_refused_before_anything_is_written(arguments: list[str], message: str, tmp_path: Path) -> None:
    """Guards refusals: one line that names value and remedy, and no folder left behind."""
    with pytest.raises(InputError, match=message) as refusal:
        main([*arguments, "--out", str(tmp_path / "out")])
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_verdicts_and_settings() -> None:
    """Guards the verdict's edges, and that default and quick settings can be studied."""
    assert verdict("shuffled", 0.0, 0.0, 4.0) == "reference"
    assert verdict("blocked", 0.5, 0.1, 4.0) == "lowers"
    assert verdict("blocked", -0.5, 0.1, 4.0) == "raises"
    assert verdict("blocked", 0.5, 0.2, 4.0) == verdict("blocked", float("nan"), 0.1, 4) == "no difference seen"
    assert verdict("blocked", 0.01, 0.0001, 4.0) == "less than 2% of P2's gain"
    assert all(check(s) for s in (SETTINGS, QUICK))
