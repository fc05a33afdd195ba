"""The table of names: whole, true to the presets, and with a default for what it does not list."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpo_sim import labels
from ebpo_sim.estimators import make, names, needs_prior
from ebpo_sim.estimators.registry import _PRESETS
from ebpo_sim.numbers.mixing import Prior


def test_every_preset_has_a_row_and_every_row_a_rule() -> None:
    """Guards growth: a new preset is shown under its own name and colour, and no row is left of an old one."""
    assert [rule for rule in labels.LABELS if ":" not in rule] == list(names())
    for rule in labels.LABELS:
        made = make(rule, prior=Prior((0.5,), (1.0,))) if needs_prior(rule) else make(rule)
        assert made.name == rule
    presets = [row for rule, row in labels.LABELS.items() if ":" not in rule]
    assert len({row.name for row in presets}) == len({row.colour for row in presets}) == len(presets)
    assert all(re.fullmatch("#[0-9a-f]{6}", row.colour) for row in labels.LABELS.values())
    assert all(row.kin for row in labels.LABELS.values())


@pytest.mark.parametrize("rule", names())
def test_sources_are_those_of_the_code(rule: str) -> None:
    """Guards citations: the table's number is the one in the preset's own description, and both or neither have one."""
    told = re.findall(r"arXiv (\d{4}\.\d{5})", _PRESETS[rule].__doc__ or "")
    assert [labels.label(rule).source] * bool(labels.label(rule).source) == told


@given(st.text(max_size=20), st.text(max_size=20))
def test_unknown_names_have_a_default(preset: str, settings: str) -> None:
    """Guards a user's own rules: any text has a label, its own; settings follow the preset's short name."""
    if preset not in labels.LABELS and ":" not in preset:
        assert labels.label(preset) == labels.Label(preset, labels.UNNAMED, "", "", "o", preset)
    for known in ("ebpo", "ebpo_debiased", "grpo"):
        rule = f"{known}:{settings}"
        if rule not in labels.LABELS:
            found, plain = labels.label(rule), labels.label(known)
            assert (found.kin, found.source, found.marker) == (plain.kin, plain.source, plain.marker)
            assert found.name == found.short and found.name.startswith(f"{plain.short}, ")


def test_colours_of_one_picture() -> None:
    """Guards pictures: rows by the table, strangers apart from one another, in any company."""
    found = labels.colours(["mine", "ebpo", "mine", "yours", "ebpo:memory=0.9"])
    assert found == {
        "mine": labels.SPARE[0], "ebpo": "#d62728", "yours": labels.SPARE[1], "ebpo:memory=0.9": labels.SPARE[2],
    }  # fmt: skip
    assert len(labels.colours([f"own{i}" for i in range(12)])) == 12 and labels.colours([]) == {}
