"""The contract of memories: pure, mergeable, picklable, and saved to the last bit, for every registered estimator."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from battery import CASES, assert_same, build, full, history, leaves
from ebpo_sim import InputError, make
from ebpo_sim.estimators import Estimator, dump_state, load_state
from ebpo_sim.estimators.checkpoint import seal
from ebpo_sim.groups import binary_groups

every = pytest.mark.parametrize("estimator", CASES.values(), ids=CASES.keys())
STATEFUL = {name: e for name, e in CASES.items() if leaves(history(e, 1))}
REMEMBERING = (
    "ebpo", "ebpo_within", "ebpo_beta_binomial", "ebpo_debiased", "ebpo_nonparametric", "loo_table", "global_mean",
)  # fmt: skip


def test_settings_are_part_of_equality() -> None:
    """Two estimators are equal exactly when name and all settings are."""
    assert make("ebpo", memory=0.9) == make("ebpo", memory=0.9)
    assert len({make("ebpo"), make("ebpo", memory=0.9), make("ebpo", ddof=1), make("ebpo_within")}) == 4


@pytest.mark.parametrize("estimator", STATEFUL.values(), ids=STATEFUL.keys())
def test_checkpoint_refuses_replicates(estimator: Estimator) -> None:
    """A checkpoint holds one stream; states with a replicate axis are refused, not saved ambiguously."""
    state = estimator.update(estimator.init(), full(np.eye(4)[None].repeat(3, axis=0), clusters=["a", "a", "b", "b"]))
    with pytest.raises(InputError, match="replicate"):
        dump_state(estimator, state)


@pytest.mark.parametrize("name", REMEMBERING)
def test_forgetting_is_counting_for_less(name: str) -> None:
    """After a batch at retention 0.6, the older one counts as if each of its groups were there 0.6 times."""
    estimator = build(name, memory=0.6)
    old, new = ([4, 2, 3], [1, 2, 0]), ([3, 5, 2], [3, 1, 1])
    state = estimator.update(estimator.update(estimator.init(), binary_groups(*old)), binary_groups(*new))
    both = binary_groups(old[0] + new[0], old[1] + new[1], [0.6] * 3 + [1.0] * 3)
    ours, expected = leaves(state), leaves(estimator.update(estimator.init(), both))
    assert ours.keys() == expected.keys()
    squares = {"/0//0/1", "/0//1/1"} if "/0//0/1" in ours else set()  # sums of squared weights: 0.36 a piece, not 0.6
    for path in ours.keys() - squares:
        np.testing.assert_allclose(ours[path], expected[path], rtol=1e-13, atol=1e-15, err_msg=path)
    for path, pieces in zip(sorted(squares), ((9, 10), (3, 3)), strict=False):
        assert ours[path] == pytest.approx(0.36 * pieces[0] + pieces[1], rel=1e-14)


@pytest.mark.parametrize("estimator", [*(build(n, memory="batch") for n in REMEMBERING), build("james_stein")], ids=str)
def test_a_memory_of_one_batch(estimator: Estimator) -> None:
    """memory="batch", and James-Stein always: the state is that of the last batch alone."""
    assert_same(history(estimator, 1, 2), history(estimator, 2))


@pytest.mark.parametrize(
    "settings", [{"memory": 0.9}, {"eps": 1e-3}, {"order": "score_then_update"}, {"ddof": 1}], ids=str
)
def test_checkpoint_of_other_settings_is_refused(settings: dict[str, Any]) -> None:
    """A state resumed under another memory, normalisation, order or convention would be silently wrong."""
    text = dump_state(make("ebpo"), history(make("ebpo"), 1))
    with pytest.raises(InputError, match=r"belongs to 'ebpo' .* not to 'ebpo' .*: resume with the settings"):
        load_state(make("ebpo", **settings), text)
    with pytest.raises(InputError, match=r"belongs to 'ebpo' .* not to 'ebpo_within'"):
        load_state(make("ebpo_within"), text)


def fields(content: dict[str, Any]) -> list[Any]:
    """The numbers of the one bank in a saved `ebpo` state."""
    found: list[Any] = content["state"]["fields"][0]["dict"][""]["fields"]
    return found


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "field lost": lambda c: fields(c).pop(),
    "field added": lambda c: fields(c).append(1.0),
    "nan": lambda c: fields(c).__setitem__(2, float("nan")),
    "text": lambda c: fields(c).__setitem__(2, "1.0"),
    "number for a bank": lambda c: c["state"]["fields"][0]["dict"].__setitem__("", 3.0),
    "no state": lambda c: c.pop("state"),
    "version": lambda c: c.__setitem__("version", 99),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoints_are_refused(damage: str) -> None:
    """What is loaded is what was saved, or an error: a missing number must not become 0 unseen."""
    estimator = make("ebpo")
    content = json.loads(dump_state(estimator, history(estimator, 1)))
    DAMAGE[damage](content)
    content.pop("sha256")
    with pytest.raises(InputError, match="estimator state"):
        load_state(estimator, seal(json.dumps(content)))


@given(data=st.data())
def test_no_flipped_bit_is_read(data: st.DataObject) -> None:
    """Whatever bit of a saved state is flipped, it is refused."""
    estimator = make("ebpo_debiased", per_cluster=True)
    text = bytearray(dump_state(estimator, history(estimator, 1)).encode())
    at = data.draw(st.integers(0, 8 * len(text) - 1))
    text[at // 8] ^= 1 << at % 8
    with pytest.raises(InputError, match="estimator state"):
        load_state(estimator, text.decode(errors="replace"))


NUMBERS = st.one_of(
    st.floats(max_value=-1e-300, allow_nan=False), st.just(10**400), st.booleans(), st.none(), st.text(max_size=3),
    st.recursive(st.lists(st.floats(0, 1), max_size=2), lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    st.just({"dict": {}}), st.just({"tuple": "Moments", "fields": 5}), st.sampled_from([float("inf"), 1e300]),
)  # fmt: skip


@given(data=st.data(), wrong=NUMBERS)
@pytest.mark.parametrize("name", ["ebpo", "james_stein", "ebpo_nonparametric", "loo_table"])
def test_no_impossible_state_is_read(name: str, data: st.DataObject, wrong: Any) -> None:
    """A sealed state with one count, sum of squares, table or array replaced by what no rewards lead to is refused."""
    estimator = make(name)
    content = json.loads(dump_state(estimator, history(estimator, 1)))
    content.pop("sha256")
    places = [p for p in paths(content["state"], []) if not (p[-2:] == ["fields", 2] and isinstance(wrong, float))]
    *way, last = data.draw(st.sampled_from(places))
    inner = content["state"]
    for step in way:
        inner = inner[step]
    inner[last] = wrong
    with pytest.raises(InputError, match="estimator state is damaged"):
        load_state(estimator, seal(json.dumps(content)))


def paths(x: Any, before: list[Any]) -> list[list[Any]]:
    """Where numbers, lists and objects stand inside a saved state."""
    inner = x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list) else ()
    return [path for key, value in inner for path in ([*before, key], *paths(value, [*before, key]))]


@pytest.mark.parametrize(
    "state", ['{"dict": {"1000000000": [1.0]}}', '{"dict": {"x": [1.0]}}', '{"dict": {"2": [1.0, 2.0]}}', "[" * 10**5],
)  # fmt: skip
def test_histograms_of_impossible_sizes_are_refused(state: str) -> None:
    """A group size must be one, and have its number of counts: nothing is allocated by what a key says."""
    estimator = make("ebpo_nonparametric")
    text = dump_state(estimator, history(estimator, 1))
    before = text[: text.index('"state": ')]
    with pytest.raises(InputError, match="estimator state is damaged"):
        load_state(
            estimator, seal(f'{before}"state": {{"tuple": "", "fields": [{state}, {{"tuple": "", "fields": []}}]}}}}')
        )
