"""Answers in rollouts: noise of methods and group sizes, batches of dynamic sampling, history, lines to paste."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import nbinom

from ebpo_sim.counts.noise import MODELS, noise
from ebpo_sim.counts.updates import limit_advantages
from ebpo_sim.diagnose.__main__ import read
from ebpo_sim.diagnose.answers import Answers, Noise, answers, batches, history
from ebpo_sim.diagnose.diagnosis import Diagnosis, Plan, diagnose
from ebpo_sim.diagnose.intervals import Estimate
from ebpo_sim.diagnose.ratios import selection
from ebpo_sim.diagnose.settings import of_noise, paste
from ebpo_sim.diagnose.shape import shape
from ebpo_sim.diagnose.text import full
from ebpo_sim.estimators import make
from ebpo_sim.worlds import Points


def written(path: Path, steps: int = 4, prompts: int = 120, rollouts: int = 8) -> str:
    rng, p = np.random.default_rng(0), np.random.default_rng(1).beta(0.5, 0.7, prompts)
    rows = [
        f"{step},q{q},{int(r)}\n" for step in range(steps) for q in range(prompts) for r in rng.random(rollouts) < p[q]
    ]
    path.write_text("step,prompt_id,reward\n" + "".join(rows), encoding="utf-8")
    return str(path)


def diagnosed(path: str, **plan: object) -> Diagnosis:
    settings = Plan(draws=100, fits=10, **plan)  # type: ignore[arg-type]
    return diagnose(read([path])[1][0], "", settings, selection(("ebpo", "ebpo_debiased")))


def test_noise_is_that_of_the_exact_sums(tmp_path: Path) -> None:
    """Guards the numbers: each is a quotient of `counts.noise` on the prior behind the log."""
    (population,) = read([written(tmp_path / "r.csv")])[1]
    found = shape(population.counts, 4, 0) if population.counts else None
    assert found is not None
    told = answers(population, found, (2, 8), 8, ("ebpo_debiased",), 4, 0)
    assert (told.budget, told.logged) == (960, True)
    world = Points("deconvolved", found.prior)

    def scale(name: str, g: int, model: str) -> float:
        return noise(limit_advantages(make(name), world, g), found.prior, MODELS[model]).nu_drawn

    for model in MODELS:
        for g in (2, 8):
            cell = told.at(g, "ebpo_debiased")
            assert cell is not None
            grpo, mine, base = scale("grpo", g, model), scale("ebpo_debiased", g, model), scale("grpo", 8, model)
            assert cell.effective[model].value == pytest.approx(grpo / mine, rel=1e-9)
            assert cell.scale[model].value == pytest.approx(mine / base, rel=1e-9)
            assert cell.effective[model].low is not None
    assert told.at(8, "grpo") is not None and told.at(4, "grpo") is None


@pytest.mark.parametrize(("silent", "prompts"), [(0.0, 5), (0.37, 1), (0.5, 16), (0.9, 3)])
def test_batches_are_the_negative_binomial(silent: float, prompts: int) -> None:
    """Guards dynamic sampling: prompts needed until enough are kept are negative binomial; batches round them up."""
    mean, worst = batches(silent, prompts)
    if silent == 0:
        assert (mean, worst) == (1.0, 1)
        return
    failures = np.arange(4000)
    pmf = nbinom.pmf(failures, prompts, 1 - silent)
    needed = np.ceil((failures + prompts) / prompts)
    assert mean == pytest.approx(float(pmf @ needed), rel=1e-9)
    assert pmf[needed <= worst].sum() >= 0.95 > pmf[needed < worst].sum()


def test_history_needs_prompts_that_recur(tmp_path: Path) -> None:
    """Guards the replay: on a policy that does not move a memory of the prompt beats the group mean and shrinkage;
    without visits there is none."""
    (population,) = read([written(tmp_path / "r.csv", steps=6)])[1]
    found = history(population, 8, 0)
    assert found is not None and (found.group_size, found.prompts, found.visits) == (4, 120, 6)
    assert found.ratio["spo"].high is not None and found.ratio["spo"].high < found.ratio["ebpo_debiased"].value < 1
    (once,) = read([written(tmp_path / "o.csv", steps=1)])[1]
    assert history(once, 8, 0) is None


def cell(name: str, *worth: float) -> Noise:
    values = {m: Estimate(w, w, w) for m, w in zip(MODELS, worth, strict=True)}
    return Noise(8, name, values, values)


def test_error_and_noise_may_differ() -> None:
    """Guards the sentence: agreement where one method is best by both, else both are named with the models."""
    grpo = cell("grpo", 1, 1, 1)
    one = of_noise(Answers(512, False, (grpo, cell("ebpo", 1.2, 1.1, 1.3)), (), None), 8, "ebpo")
    assert "Error and noise agree on EBPO" in one[1] and "under every score model" in one[0]
    two = of_noise(Answers(512, False, (grpo, cell("ebpo", 1.2, 1.1, 1), cell("rloo", 1, 1, 2)), (), None), 8, "ebpo")
    assert "Error says EBPO, noise says RLOO (softmax scores)" in two[1]
    assert "512 rollouts a step, assumed" in two[2]


def test_lines_to_paste() -> None:
    """Guards the settings: the memory forgets where the log trains, GRPO needs nothing of ours."""
    lines = paste("ebpo_debiased", 4, True)
    assert 'trainer = EBPOTrainer(..., estimator="ebpo_debiased:memory=0.95")' in lines
    assert {"algorithm.adv_estimator=ebpo_debiased", "+algorithm.ebpo.memory=0.95"} <= set(lines)
    assert not any("memory" in x for x in (*paste("james_stein", 4, True), *paste("ebpo_debiased", 4, False)))
    assert not any("ebpo" in x for x in paste("grpo", 8, True))


def test_every_group_size_is_printed_and_drawn(tmp_path: Path) -> None:
    """Guards --group-size: it names the G recommended for; the table and the picture have every usual one."""
    path = written(tmp_path / "r.csv")
    found = diagnosed(path, group_sizes=(6,))
    assert (found.current, found.group_sizes) == (6, (2, 4, 6, 8, 16, 32))
    from ebpo_sim.diagnose.diagnosis_plots import ratio_vs_group_size

    (axis,) = ratio_vs_group_size(found).axes
    lines = [line for line in axis.get_lines() if line.get_label() == "ebpo"]
    assert list(lines[0].get_xdata()) == [2, 4, 6, 8, 16, 32] and lines[0].get_marker() == "o"
    said = full(found).splitlines()
    assert max(map(len, said)) <= 120
    for part in ("G = 2 ", "G = 6 ", "G = 32", "Noise says", "Dynamic sampling", "History", "# TRL", "# verl"):
        assert any(part in line for line in said), part
