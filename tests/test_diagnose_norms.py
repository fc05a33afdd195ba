"""Score norms in a log: read, fitted by pass rate, used for the noise; what is said of it, and of the critical ICC."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ebpo_sim.diagnose.__main__ import read
from ebpo_sim.diagnose.advice import of_error, of_limit
from ebpo_sim.diagnose.answers import LOGGED, answers
from ebpo_sim.diagnose.diagnosis import Plan, diagnose
from ebpo_sim.diagnose.diagnosis_plots import steps
from ebpo_sim.diagnose.intervals import Estimate
from ebpo_sim.diagnose.norms import fitted
from ebpo_sim.diagnose.page import diagnosis_page
from ebpo_sim.diagnose.ratios import selection
from ebpo_sim.diagnose.shape import shape
from ebpo_sim.diagnose.text import full
from ebpo_sim.errors import InputError
from ebpo_sim.numbers.formulas import critical_icc
from ebpo_sim.numbers.mixing import Prior, count_pmf

THREE = Prior((0.1, 0.4, 0.8), (0.3, 0.5, 0.2))


def written(path: Path, header: str, value: str, steps: int = 2, prompts: int = 60) -> str:
    """A log of groups of 8; value: of the extra column, from the reward r."""
    rng, p = np.random.default_rng(0), np.random.default_rng(1).beta(0.5, 0.7, prompts)
    lines = [f"step,prompt_id,reward{header}"]
    for step in range(steps):
        for q in range(prompts):
            lines += [f"{step},q{q},{int(r)}{value.format(r=int(r))}" for r in rng.random(8) < p[q]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_norms_by_pass_rate_are_recovered(tmp_path: Path) -> None:
    """Guards the fit: groups whose norms are exactly E[a(p) | k] give back a(p) and c(p) at every pass rate, where the
    line through k/n would not; of bootstrap samples too."""
    (population,) = read([written(tmp_path / "r.csv", "", "", steps=1)])[1]
    joint = np.asarray(THREE.weights)[:, None] * count_pmf(np.array(THREE.nodes), 8, np.arange(9))
    posterior = joint / joint.sum(axis=0)
    a, c = np.array([5.0, 2.0, 3.0]), np.array([1.0, 4.0, 6.0])
    k = np.arange(60) % 9
    norms_P2 = np.stack([(8 - k) * (c @ posterior)[k], k * (a @ posterior)[k]], axis=1)
    population = replace(population, successes=k.astype(float), norms_P2=norms_P2, norms_of="score_norm")
    found = fitted(population, THREE, 3, 0)
    assert found is not None and found.of == "score_norm" and len(found.drawn) == 3
    for model in (found.model, *found.drawn):
        scores = model(THREE.nodes)
        np.testing.assert_allclose((scores.right_J, scores.wrong_J), (a, c), rtol=1e-6)
    np.testing.assert_allclose(found.model(0.5).apart_J, 0.01 * norms_P2.sum() / 480)
    assert fitted(replace(population, norms_P2=None), THREE, 3, 0) is None
    assert fitted(population.select(k < 1), THREE, 3, 0) is None  # no right answer


def test_equal_norms_make_the_noise_of_equal_scores(tmp_path: Path) -> None:
    """Guards the use: with every norm 7 the log's own model is that of equal scores, which is in its place alone."""
    (population,) = read([written(tmp_path / "r.csv", ",score_norm", ",7")])[1]
    assert population.counts is not None
    found = shape(population.counts, 2, 0)
    assert found is not None
    logged = answers(population, found, (4, 8), 8, ("ebpo_debiased",), 2, 0)
    plain = answers(replace(population, norms_P2=None), found, (4, 8), 8, ("ebpo_debiased",), 2, 0)
    assert (logged.models, logged.norms_of, plain.norms_of) == ((LOGGED,), "score_norm", "")
    for mine, other in zip(logged.noise, plain.noise, strict=True):
        assert mine.scale[LOGGED] == pytest.approx(other.scale["equal"], rel=1e-6)
        assert mine.effective[LOGGED] == pytest.approx(other.effective["equal"], rel=1e-6)


def test_log_probabilities_are_a_proxy(tmp_path: Path) -> None:
    """Guards the proxy: of tokens sum 1 - pi, of a sum its negative; empty cells leave their group out; a column of the
    name that holds words is none; what no norm and no log-probability can be is refused."""
    rows = [{"prompt": f"q{i % 2}", "reward": i // 2 % 2, "log_probs": [float(np.log(0.5)), float(np.log(0.9))]}
            for i in range(8)]  # fmt: skip
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (population,) = read([str(tmp_path / "t.jsonl")])[1]
    assert population.norms_P2 is not None and population.norms_of == "log_prob"
    np.testing.assert_allclose(population.norms_P2, [[1.2, 1.2]] * 2)
    (population,) = read([written(tmp_path / "s.csv", ",logprob", ",-{r}.5", steps=1)])[1]
    assert population.norms_P2 is not None and population.successes is not None
    np.testing.assert_allclose(population.norms_P2[:, 1], 1.5 * population.successes)
    np.testing.assert_allclose(population.norms_P2[:, 0], 0.5 * (8 - population.successes))
    (population,) = read([written(tmp_path / "w.csv", ",logprob", ",high", steps=1)])[1]
    assert population.norms_P2 is None
    for header, value, says in ((",logprob", ",0.5", "at most 0"), (",score_norm", ",-1", "at least 0")):
        with pytest.raises(InputError, match=says):
            read([written(tmp_path / "bad.csv", header, value, steps=1)])


def test_what_is_said(tmp_path: Path) -> None:
    """Guards the words: which norms the noise rests on, and the critical ICC in text, picture and page."""
    columns, (population,) = read([written(tmp_path / "r.csv", ",score_norm", ",7", steps=3)])
    found = diagnose(population, columns.said(), Plan(draws=60, fits=5), selection(("ebpo", "ebpo_debiased")))
    said = " ".join(full(found).split())
    assert "norms of right and wrong answers by pass rate, as the log has them" in said
    assert "under the log's own score norms" in said and "score_norm = score_norm" in said
    limit = f"ritical ICC at G = 8: {critical_icc(8):.3f}"
    assert limit in said and limit in diagnosis_page([found], {}).decode()
    above = steps(found).axes[0]
    assert any(str(line.get_label()) == f"c{limit}" for line in above.get_lines())


def test_windows_against_the_critical_icc() -> None:
    """Guards the count: windows whose interval lies above, below or across the limit."""
    icc = [("0", Estimate(0.3, 0.2, 0.4)), ("1", Estimate(0.65, 0.5, 0.7)), ("2", Estimate(0.8, 0.7, 0.9))]
    assert of_limit(icc, 4).startswith("Critical ICC at G = 4: 0.629")
    assert of_limit(icc, 4).endswith(
        "Of 3 windows 1 above, 1 below, 1 not told apart; above it for certain first in steps 2."
    )
    assert "above it" not in of_limit(icc[:2], 4)


def test_the_bound_from_error() -> None:
    """Guards logs without success counts: G/(G-1)/(1 + ratio/G), 1 for RLOO, whose error is G/(G-1) of the mean's."""
    assert "at most 1.00 of" in of_error(Estimate(4 / 3, 1, 2), 4) and "at most 1.33 of" in of_error(
        Estimate(0, 0, 0), 4
    )
    assert of_error(None, 4) == of_error(Estimate(0.5, 0, 1), 1) == ""
