"""Settings are of the type they declare or are refused, for every preset and setting, as text and as keywords."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from battery import PRIOR, build
from ebpo_sim import InputError, Prior, make, names, typed
from ebpo_sim.estimators import Estimator, needs_prior
from ebpo_sim.estimators.registry import _PRESETS

SETTINGS = [(name, s, kind) for name in names() for s, kind in typed.parameters(_PRESETS[name]).items()]
EACH = pytest.mark.parametrize(("name", "setting", "kind"), SETTINGS, ids=[f"{n}-{s}" for n, s, _ in SETTINGS])
WORDS = [
    "positive",
    "true",
    "True",
    "false",
    "FALSE",
    "no",
    "off",
    "on",
    "1",
    "0",
    "0.5",
    "65.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "a",
]
WORDS += [
    "zero",
    "raw",
    "none",
    "None",
    "cumulative",
    "batch",
    "prior",
    "update_then_score",
    "1_000",
    "٣",
    " 1",
    "",
    "[1]",
    "()",
    "0x10",
    "nonzero",
    "fewer",
    "rollouts",
    "code",
]


def of_kind(value: Any, kind: Any) -> bool:
    """Whether `value` is of the declared type: an independent reading of it."""
    if get_origin(kind) is Literal:
        return any(value == a and type(value) is type(a) for a in get_args(kind))
    if get_args(kind):
        return any(of_kind(value, k) for k in get_args(kind))
    if kind in (float, int, bool, str):
        return type(value) is kind and (kind is not float or math.isfinite(value))
    return isinstance(value, kind)


def values(made: Estimator) -> set[Any]:
    """Every setting that an estimator ended with."""
    parts = (made, made.baseline, *made.chain)
    return {getattr(p, f.name) for p in parts for f in dataclasses.fields(p)}  # type: ignore[arg-type]


@EACH
def test_text_is_the_declared_type_or_refused(name: str, setting: str, kind: Any) -> None:
    """No text is taken for a value of another type, whichever words it is made of."""
    accepted = 0
    for word in WORDS:
        try:
            value = typed.parse(setting, kind, word)
        except InputError as error:
            assert setting in str(error) and repr(word) in str(error) and "\n" not in str(error)
            continue
        accepted += 1
        assert of_kind(value, kind)
        assert str(value).lower() == word.strip().lower() or float(value) == float(word)
    assert accepted or kind is Prior or get_origin(kind) is tuple  # pairs are no single word


@pytest.mark.parametrize("name", [n for n in names() if not needs_prior(n)])
@given(text=st.text(alphabet="tfrueals01.5-+en,=_: ", max_size=12))
@example(text="false")
def test_any_text_after_a_colon_makes_an_estimator_or_one_line(name: str, text: str) -> None:
    """No other exception than InputError, for any settings text at all."""
    for setting in (*typed.parameters(_PRESETS[name]), ""):
        whole = f"{name}:{setting}={text}" if setting else f"{name}:{text}"
        try:
            made = make(whole)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert made.name == whole


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.integers(10**300, 10**320), st.floats(), st.text(max_size=3),
    st.sampled_from(["batch", "true", np.float64(0.5), np.bool_(True), np.int64(1), PRIOR, [1], {}, np.zeros(2)]),
)  # fmt: skip


@EACH
@given(value=ODD)
def test_keywords_are_of_the_declared_type_or_refused(name: str, setting: str, kind: Any, value: Any) -> None:
    """A keyword ends up in the estimator as the declared type, or the call is refused naming it."""
    try:
        checked = typed.check(setting, kind, value)
    except InputError as error:
        assert setting in str(error) and "\n" not in str(error)
        with pytest.raises(InputError):
            build(name, **{setting: value})
        return
    assert of_kind(checked, kind)
    try:
        build(name, **{setting: value})
    except InputError:  # of the right type and out of range
        assert kind is not bool


BOOLEANS = [(n, s) for n, s, kind in SETTINGS if kind is bool]


@pytest.mark.parametrize(("name", "setting"), BOOLEANS, ids=str)
@pytest.mark.parametrize("word", ["false", "False", "FALSE"])
def test_false_is_false(name: str, setting: str, word: str) -> None:
    """The text false switches off whatever the default is; what only looks like it is refused."""
    plain, spelt = build(name, **{setting: False}), make(f"{name}:{setting}={word}")
    assert (plain.chain, plain.order) == (spelt.chain, spelt.order)
    assert plain != build(name, **{setting: True})
    for other in ("no", "off", "0", "", "fals"):
        with pytest.raises(InputError, match="true or false"):
            make(f"{name}:{setting}={other}")


def test_there_are_booleans_to_test() -> None:
    assert len(BOOLEANS) >= 5


def test_an_oracle_is_given_a_prior() -> None:
    """No text and no None stands for the true prior."""
    for call in (lambda: make("oracle_linear:prior=1"), lambda: make("oracle_linear", prior=None)):
        with pytest.raises(InputError, match="a Prior given in Python"):
            call()


@pytest.mark.parametrize("text", ["ebpo:memory=0.9,memory=0.8", "ebpo:memory = 0.9 , memory=cumulative"])
def test_a_setting_given_twice_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="memory is given twice"):
        make(text)


def test_a_keyword_wins_over_the_text() -> None:
    assert values(make("ebpo:memory=0.9", memory=0.5)) >= {0.5}


def test_whole_numbers_are_floats_where_a_float_is_declared() -> None:
    """So eps=0 and eps=0.0 are one estimator, with one fingerprint."""
    assert make("grpo", eps=0) == make("grpo", eps=0.0) == make("grpo", eps=np.float32(0))


@pytest.mark.parametrize("name", [123, None, b"ebpo", ["ebpo"]])
def test_a_name_is_text(name: Any) -> None:
    with pytest.raises(InputError, match="estimator must be a name"):
        make(name)


def test_unions_say_all_that_they_accept() -> None:
    kind: Any = Union[Literal["a", "b"], float, None]  # noqa: UP007
    assert typed.describe(kind) == "a, b, a finite number or none"
    assert typed.parse("x", kind, "none") is None
    assert typed.parse("x", kind, "b") == "b"
    assert typed.parse("x", kind, "2") == 2.0
