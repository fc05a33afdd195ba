"""The diagnosis' numbers: unbiased components, exact ratios, intervals that cover, and different advice for worlds."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from ebpo_sim.counts.exact import limit_risk
from ebpo_sim.counts.splits import split_ratio
from ebpo_sim.diagnose import coverage
from ebpo_sim.diagnose.__main__ import main, read
from ebpo_sim.diagnose.advice import advise
from ebpo_sim.diagnose.diagnosis import Diagnosis, Plan, diagnose
from ebpo_sim.diagnose.intervals import Components, components
from ebpo_sim.diagnose.linear import linear_ratio, long_run_line
from ebpo_sim.diagnose.population import Population
from ebpo_sim.diagnose.ratios import selection
from ebpo_sim.diagnose.shape import zero_signal
from ebpo_sim.diagnose.splits import split
from ebpo_sim.estimators import make, names, needs_prior
from ebpo_sim.numbers.mixing import Prior
from ebpo_sim.worlds import Counts, observed_counts, parse_world, variance_components

LEARNT = [n for n in names() if not needs_prior(n) and make(n).exchangeable]


def written(path: Path, counts: Counts) -> str:
    rows = zip(counts.rollouts, counts.successes, counts.prompts, strict=True)
    path.write_text("rollouts,successes,prompts\n" + "".join(f"{n},{s},{c}\n" for n, s, c in rows), encoding="utf-8")
    return str(path)


def population_of(path: Path, counts: Counts) -> Population:
    return read([written(path, counts)])[1][0]


def diagnosed(path: Path, name: str, **plan: object) -> Diagnosis:
    population = population_of(path, observed_counts(name))
    settings = Plan(draws=300, fits=20, **plan)  # type: ignore[arg-type]
    return diagnose(population, "", settings, selection(settings.estimators))


@pytest.mark.parametrize("world", ["beta:2,3", "observed:Qwen2.5-7B", "points:0.1,0.9"])
@pytest.mark.parametrize("group_size", [2, 3, 8])
def test_lines_agree_with_the_exact_limit(world: str, group_size: int) -> None:
    """Guards the moment route: for binary rewards every linear preset's ratio is that of the enumeration."""
    truth = parse_world(world)
    prior = truth.quadrature(4)
    for name in LEARNT:
        line = long_run_line(make(name), prior.mean, prior.within, prior.between, group_size)
        assert (line is None) == (make(name).domain == "binary")
        if line is not None:
            found = linear_ratio(line, prior.mean, prior.within, prior.between, group_size)
            exact = limit_risk(make(name), truth, group_size).mse / (prior.within / group_size)
            assert found == pytest.approx(exact, rel=1e-6), name


def test_components_equal_the_worlds(tmp_path: Path) -> None:
    """Guards the estimates on counts: those of `variance_components`, whatever the layout of the file."""
    counts = observed_counts("GPT-4-0613/LiveCodeBench")
    found = components(population_of(tmp_path / "c.csv", counts), 200, 0)
    expected = variance_components(counts)
    for name in ("mean", "within", "between", "icc"):
        assert getattr(found, name).value == pytest.approx(getattr(expected, name), rel=1e-10)
    assert found.icc.low is not None and found.icc.high is not None
    # A bootstrap interval is about as wide as the delta method's.
    assert 0.7 < (found.icc.high - found.icc.low) / (2 * 1.96 * expected.icc_se) < 1.4


def test_components_of_real_rewards_are_unbiased(tmp_path: Path) -> None:
    """Guards real rewards by enumeration: over all outcomes of a tiny world within and between average to the truth."""
    low, high = (0.0, 1.0, 3.0), (2.0, 5.0, 5.0)  # a prompt's equally likely rewards
    within = float(np.mean([np.var(low), np.var(high)]))
    between = float(np.var([np.mean(low), np.mean(high)]))
    total = np.zeros(2)
    weight = 0.0
    for kinds in product((low, high), repeat=2):
        for a in product(kinds[0], repeat=2):
            for b in product(kinds[1], repeat=2):
                x = np.array([np.mean(a), np.mean(b)])
                w = np.array([np.var(a, ddof=1), np.var(b, ddof=1)])
                total += (w.mean(), np.var(x, ddof=1) - w.mean() / 2)
                weight += 1
    np.testing.assert_allclose(total / weight, [within, between], rtol=1e-12)
    # And the tool computes exactly these.
    path = tmp_path / "r.csv"
    path.write_text("prompt_id,reward\n" + "".join(f"a,{r}\n" for r in low) + "".join(f"b,{r}\n" for r in high))
    population = read([str(path)])[1][0]
    assert population.successes is None and not population.unit
    found = components(population, 50, 0)
    w = np.mean([np.var(low, ddof=1), np.var(high, ddof=1)])
    assert found.within.value == pytest.approx(w)
    assert found.between.value == pytest.approx(np.var([np.mean(low), np.mean(high)], ddof=1) - w / 3)


def test_the_split_is_that_of_the_core() -> None:
    """Guards the copy: all baselines at once give `splitcheck.split_ratio`, one by one."""
    counts = observed_counts("CodeLlama-7b-Base/LiveCodeBench")
    made = [make(n) for n in LEARNT]
    found = split(made, counts, 4, 30, 0)
    assert found is not None
    for i, estimator in enumerate(made):
        expected = split_ratio(estimator, counts, 4)
        assert expected is not None
        assert found.ratio(i).value == pytest.approx(expected.ratio, rel=1e-10)
    assert found.gain(0, 0).value == 0
    assert split(made, counts, 10, 30, 0) is None


def test_the_model_free_difference_is_unbiased() -> None:
    """Guards the claim by enumeration: for a given rule, over all outcomes of 5 prompts with 3 rollouts of a two-point
    world, the split's difference averages to the true one exactly."""
    prior = Prior((0.2, 0.9), (0.5, 0.5))
    world = parse_world("points:0.2,0.9")
    rule = make("oracle_linear", prior=prior)
    marginal = 0.5 * binom.pmf(np.arange(4), 3, 0.2) + 0.5 * binom.pmf(np.arange(4), 3, 0.9)
    average = within = 0.0
    for outcome in product(range(4), repeat=5):
        chance = float(np.prod(marginal[list(outcome)]))
        own = float(np.mean([s * (3 - s) / 6 for s in outcome])) / 2
        within += chance * own
        cells = sorted(set(outcome))
        counts = Counts((3,) * len(cells), tuple(cells), tuple(outcome.count(s) for s in cells))
        found = split([rule], counts, 2, 1, 0)
        if found is not None:
            average += chance * float(found.slope[0]) * own
        else:  # no noise among the five: the ratio does not exist, but the difference does
            exact = [_plain_difference(s, prior) for s in outcome]
            average += chance * float(np.mean(exact))
    truth = limit_risk(rule, world, 2).mse - prior.within / 2
    assert within == pytest.approx(prior.within / 2, rel=1e-12)
    assert average == pytest.approx(truth, rel=1e-10)


def _plain_difference(s: int, prior: Prior) -> float:
    """A saturated prompt's term: group mean and rest are both 0 or both 1."""
    assert s in (0, 3)
    shrinkage = (prior.within / 2) / (prior.within / 2 + prior.between)
    return float((shrinkage * (prior.mean - s / 3)) ** 2)


@given(st.integers(2, 6), st.floats(0.05, 0.95))
def test_zero_signal_is_unbiased(group_size: int, p: float) -> None:
    """Guards the count of equal groups: averaged over s of n = 6 it is p^G + (1-p)^G."""
    total = 0.0
    for s in range(7):
        found = zero_signal(Counts((6,), (s,), (2,)), None, group_size)
        assert found is not None
        total += binom.pmf(s, 6, p) * found[0].value
    assert total == pytest.approx(p**group_size + (1 - p) ** group_size, rel=1e-9)


@given(st.floats(-5, 5), st.floats(0.1, 10), st.integers(0, 10**6))
def test_affine_rewards_change_no_ratio(shift: float, scale: float, seed: int) -> None:
    """Guards equivariance: ratios and the intra-class correlation do not depend on the unit of the reward."""
    rng = np.random.default_rng(seed)
    mean, within, between = rng.uniform(0, 1), rng.uniform(0.05, 1), rng.uniform(0, 1)
    for name in ("ebpo", "ebpo_debiased", "james_stein", "rloo", "global_mean"):
        found = []
        for a, b in ((0.0, 1.0), (shift, scale)):
            moments = a + b * mean, b * b * within, b * b * between
            line = long_run_line(make(name), *moments, 4)
            assert line is not None
            found.append(linear_ratio(line, *moments, 4))
        assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_intervals_cover() -> None:
    """Guards the intervals on simulated worlds: 60 data sets each, 95 % nominal.

    Were coverage 0.95, 51 or fewer of 60 would be seen with probability 2.8e-3: over nine comparisons false fails stay
    below 2.6 % for a new seed. The given rule's model-free difference must lie within 4.5 standard errors of the
    truth (false fails 7e-6 each).
    """
    assert binom.cdf(51, 60, coverage.NOMINAL) == pytest.approx(2.8e-3, rel=0.02)
    design = coverage.Design(sets=60, prompts=150, rollouts=12, group_size=4, draws=300)
    for world in ("beta:2,3", "points:0.2,0.7", "beta:0.5,0.7"):
        for row in coverage.study(world, design):
            if (row["quantity"], row["kind"]) in {
                ("icc", "bootstrap"),
                ("ebpo_debiased", "long run"),
                ("oracle_linear", "model-free"),
            }:
                assert row["sets"] == 60
                assert row["coverage"] > 51 / 60, row
            if row["quantity"] == "oracle_linear":
                assert abs(row["mean_error"]) < 4.5 * row["mean_error_se"], row


def test_advice_differs_across_the_shipped_worlds(tmp_path: Path) -> None:
    """Guards the recommendation: shrink on a base model, a little and not as published on an instruct model, keep the
    group mean where pass rates are 0 or 1."""
    base = diagnosed(tmp_path / "a.csv", "Qwen2-1.5B")
    instruct = diagnosed(tmp_path / "b.csv", "Qwen2.5-Math-1.5B-Instruct/MATH")
    code = diagnosed(tmp_path / "c.csv", "GPT-4-0613/LiveCodeBench")
    assert [d.advice.verdict for d in (base, instruct, code)] == ["shrink", "shrink a little", "keep the group mean"]
    assert [d.advice.estimator for d in (base, instruct, code)] == ["ebpo_debiased", "ebpo_nonparametric", "grpo"]
    assert all(d.advice.certain for d in (base, instruct, code))
    said = [" ".join(d.advice.sentences) for d in (base, instruct, code)]
    assert "EBPO as published also beats" in said[0]
    assert all("Do not use EBPO as published" in text for text in said[1:])
    assert all("What would change it" in text and "Confidence" in text for text in said)
    # w/G' <= ratio w/G, and one rollout fewer is too few
    matching = base.advice.matching_size
    assert matching is not None and base.advice.ratio is not None
    assert 8 / matching.value <= base.advice.ratio.value < 8 / (matching.value - 1)


def test_rare_successes_have_no_interval(tmp_path: Path) -> None:
    """Guards honesty: a handful of mixed groups gives numbers without intervals and no recommendation."""
    population = population_of(tmp_path / "c.csv", Counts((8, 8), (0, 1), (200, 3)))
    found = diagnose(population, "", Plan(draws=100, fits=10), selection(()))
    assert found.components.icc.low is None
    assert (found.advice.verdict, found.advice.certain) == ("undecided", False)
    assert any("no intervals" in note for note in found.notes)


def test_saturated_logs_have_no_signal(tmp_path: Path) -> None:
    """Guards the extreme: without two different rewards in any group nothing is divided by zero."""
    for counts in (Counts((8, 8), (0, 8), (5, 5)), Counts((8,), (0,), (5,))):
        found = diagnose(population_of(tmp_path / "c.csv", counts), "", Plan(draws=100, fits=10), selection(()))
        assert found.advice.verdict == "no signal"
        assert found.table.rows == ()


def log_of_steps(path: Path) -> str:
    """A policy that learns: pass rates and their spread grow over six steps; two clusters."""
    rng = np.random.default_rng(0)
    rows = []
    for step in range(6):
        for prompt in range(40):
            p = rng.beta(1 + step, 3) if prompt % 2 else rng.beta(0.3, 0.3)
            name = "odd" if prompt % 2 else "even"
            rows += [f"{step},q{prompt},{name},{int(rng.random() < p)},{rng.integers(10, 90)}\n" for _ in range(8)]
    path.write_text("step,prompt_id,topic,reward,response_length\n" + "".join(rows), encoding="utf-8")
    return str(path)


def test_everything_is_written_and_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the outputs: text, JSON, table and figures; the same seed gives the same bytes; --json prints the file."""
    path = log_of_steps(tmp_path / "r.csv")
    for out in ("one", "two"):
        main([path, "--quick", "--out", str(tmp_path / out)])
    text = capsys.readouterr().out
    for part in ("By cluster", "A prior for each cluster", "During training", "RECOMMENDATION", "length", "G = 8"):
        assert part in text
    names = {p.name for p in (tmp_path / "one").iterdir()}
    assert names == {"diagnosis.json", "ratios.csv", "pass_rates.png", "ratio_vs_group_size.png", "steps.png"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    main([path, "--quick", "--json", "--by", "step", "--out", str(tmp_path / "three")])
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "three" / "diagnosis.json").read_text())
    assert printed["models"][0]["clusters"] == [] and len(printed["models"][0]["steps"]) == 6
    main([path, "--quick", "--by", "cluster", "--columns", "step=", "--out", str(tmp_path / "four")])
    assert "During training" not in capsys.readouterr().out


def test_several_models_and_real_rewards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the overview, --model, and that rules for binary rewards say so on others."""
    rng = np.random.default_rng(1)
    rows = [
        f"{m},q{q},{q % 5 + rng.normal():.4f}\n" for m in ("one", "two") for q in range(60) for _ in range(5)
    ]  # fmt: skip
    path = tmp_path / "r.csv"
    path.write_text("model,prompt,reward\n" + "".join(rows), encoding="utf-8")
    main([str(path), "--quick", "--out", str(tmp_path / "all")])
    assert "--model NAME" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "all").iterdir()} == {"diagnosis.json", "ratios.csv"}
    main([str(path), "--quick", "--model", "two", "--group-size", "4", "--out", str(tmp_path / "two")])
    text = capsys.readouterr().out
    assert "needs rewards in {0, 1}" in text and "needs rewards in [0, 1]" in text
    assert "more than two values" in text


def test_advice_without_a_usable_estimator() -> None:
    """Guards the empty case: nothing suits, nothing is recommended."""
    from ebpo_sim.diagnose.intervals import Estimate
    from ebpo_sim.diagnose.ratios import Table

    one = Estimate(0.5, 0.4, 0.6)
    found = Components(one, one, one, one, np.zeros((0, 4)))
    advice = advise(Table((), {}), found, 8, 100, None, [], ())
    assert (advice.verdict, advice.estimator) == ("undecided", "")
