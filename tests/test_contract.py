"""The contract: one battery for every registered estimator, so that a new one is covered by registering it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from battery import CASES, PRIOR, assert_close, build, full
from ebpo_sim import InputError, group_rewards, make, names
from ebpo_sim.check.laws import LAWS, scored
from ebpo_sim.estimators import Estimator
from ebpo_sim.estimators.shrinkage import Shrinkage
from strategies import BINARY, UNIT, Batch, batches

every = pytest.mark.parametrize("estimator", CASES.values(), ids=CASES.keys())
ORDERED = {n: e for n, e in CASES.items() if "rollout_order" in e.needs}
UNORDERED = {n: e for n, e in CASES.items() if n not in ORDERED}
COUNTED = {n: e for n, e in CASES.items() if e.exchangeable}
ZERO = ("grpo", "dr_grpo", "rloo", "opo", "optimal_token_baseline", "grpo_leave_one_out", "gpg", "adora")
LEARNT = {n: e for n, e in CASES.items() if isinstance(e.baseline, Shrinkage) and e.baseline.prior is None}


@every
@pytest.mark.parametrize("law", LAWS)
def test_the_laws_hold(estimator: Estimator, law: str) -> None:
    """Every law of `python -m ebpo_sim.check`, for every preset and some settings of it."""
    LAWS[law](estimator)


@pytest.mark.parametrize("estimator", UNORDERED.values(), ids=UNORDERED.keys())
@settings(max_examples=15)
@given(data=st.data())
def test_row_order_does_not_matter(estimator: Estimator, data: st.DataObject) -> None:
    """Permuting rows together with their ids permutes the advantages and leaves the next state alone."""
    past, now = (data.draw(batches(BINARY if estimator.domain == "binary" else UNIT)) for _ in range(2))
    order = np.array(data.draw(st.permutations(range(len(now.rewards)))))
    clusters = {f"p{i}": f"c{i % 2}" for i in range(5)}

    def arranged(b: Batch) -> Any:
        return full(b.rewards, b.ids, clusters=[clusters[i] for i in b.ids.tolist()])

    state = estimator.update(estimator.init(), arranged(past))
    plain, _, after = estimator.step(state, arranged(now))
    shuffled, _, after_shuffled = estimator.step(state, arranged(Batch(now.rewards[order], now.ids[order])))
    np.testing.assert_allclose(shuffled, plain[order], rtol=1e-9, atol=1e-9)
    assert_close(after, after_shuffled)


@pytest.mark.parametrize("estimator", ORDERED.values(), ids=ORDERED.keys())
def test_rules_that_need_the_order_depend_on_it(estimator: Estimator) -> None:
    """KRPO, RiskPO: the same rollouts in another order get other advantages, so the need is no formality."""
    assert {e.name for e in ORDERED.values()} == {"krpo", "riskpo"}
    rewards, shuffled = [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]], [1, 0, 2, 3]
    plain = scored(estimator, (), rewards=rewards)
    other = scored(estimator, (), rewards=[rewards[0], [rewards[1][i] for i in shuffled]])
    assert np.max(np.abs(np.sort(plain, axis=1) - np.sort(other, axis=1))) > 0.05


@pytest.mark.parametrize("estimator", LEARNT.values(), ids=LEARNT.keys())
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 3, 5), (4, 4, 4)], ids=str)
def test_a_constant_history_has_no_spread(estimator: Estimator, sizes: tuple[int, ...]) -> None:
    """Ten batches of 0.1 only teach what ten batches of 0 teach; rounding is neither a variance nor a divisor."""
    ids, found = np.repeat(np.arange(len(sizes)), sizes), []
    now = np.array([0.0, 0.25, 0.5, 0.25, 0.25, 0.0])
    for value in (0.0, 0.1):
        state = estimator.init()
        for end in (1, 2, 3) * 3 + (3,):  # batches of different lengths
            seen = ids < end
            groups = group_rewards(np.full(seen.sum(), value), ids[seen], clusters=["a"] * seen.sum())
            state = estimator.update(state, groups)
        found.append(scored(estimator, state, rewards=now + value, group_ids=[0, 0, 0, 1, 1, 2], clusters=["a"] * 6))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [*ZERO])
@pytest.mark.parametrize("value", [0.1, 0.35, 0.95, 1 / 3, -1e8 / 3])
def test_degenerate_groups_are_exactly_zero(name: str, value: float) -> None:
    """No group-relative signal without a difference: 0 and not rounding noise, even at eps 0."""
    estimator = make(name, eps=0.0) if name in ("grpo", "grpo_leave_one_out") else make(name)
    for size in range(1, 12):
        weights = {name: np.arange(1.0, size + 3) for name in ("lengths", "score_norms")}
        groups = full([value] * size + [0.0, 1.0], ["same"] * size + ["mixed"] * 2, **weights)
        advantages, info = estimator.score((), groups)
        assert advantages[:size].tolist() == [0.0] * size
        assert np.all(advantages[size:] != 0)
        assert info.degenerate_P.tolist() == [True, False]


def test_unknown_names_and_settings_are_explained() -> None:
    """Typing errors get near names; oracles say what they need."""
    with pytest.raises(InputError, match="unknown estimator 'grpp': did you mean 'grpo'"):
        make("grpp")
    with pytest.raises(InputError, match="'RLOO': did you mean 'rloo'"):
        make("RLOO")
    with pytest.raises(InputError, match=r"known: .*dr_grpo"):
        make("zzzzzz")
    with pytest.raises(InputError, match="unknown setting of ebpo 'memroy': did you mean 'memory'"):
        make("ebpo", memroy=0.9)
    for name in ("oracle_linear", "oracle_bayes"):
        with pytest.raises(InputError, match=f"'{name}' needs prior"):
            make(name)
    assert {"grpo", "rloo", "ebpo", "ebpo_debiased", "oracle_linear"} <= set(names())


@pytest.mark.parametrize("name", [n for n in names() if build(n).domain != "real"])
def test_rewards_outside_the_domain_are_refused(name: str) -> None:
    """By scoring and by learning, naming the estimator, the value and a way out; masked values may be anything."""
    estimator = build(name)
    bad = 0.5 if estimator.domain == "binary" else 1.5
    needs = r"\{0, 1\}" if estimator.domain == "binary" else r"\[0, 1\]"
    for method in (estimator.score, estimator.update):
        with pytest.raises(InputError, match=rf"{name} needs rewards in {needs}, got .*{bad}.*: .* ebpo_debiased"):
            method(estimator.init(), full([[1.0, bad]]))
        method(estimator.init(), full([[1.0, bad]], mask=[[True, False]]))


def test_the_battery_covers_every_domain() -> None:
    """The skips and parameter lists above are not empty by accident."""
    assert {e.domain for e in CASES.values()} == {"real", "unit", "binary"}
    assert PRIOR.between > 0
