"""Trainers' conventions: names that every method's text takes, tables that are computed, a page that is generated."""

from __future__ import annotations

import csv
import json
from math import comb, sqrt
from pathlib import Path

import numpy as np
import pytest

from ebpo_sim import InputError, make, rungs
from ebpo_sim.conventions import PASS_RATES, advantages, differences, main, rows, weights
from ebpo_sim.estimators import needs_prior
from ebpo_sim.estimators.conventions import CONVENTIONS
from ebpo_sim.methods.method import parse_method
from golden import GOLDEN, spread


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_convention_is_a_method_everywhere(name: str) -> None:
    """Guards the grammar: a dotted name is the preset with its settings, on every rung, beside other parts."""
    assert not needs_prior(name)
    for rung in rungs.RUNGS:
        method = parse_method(f"{name} + cispo" if rung is not rungs.COUNTS else name, None, rung)
        assert method.estimator.name == name
        assert method.estimator.chain == make(CONVENTIONS[name].estimator).chain


def test_settings_follow_and_wrong_names_are_explained() -> None:
    """Guards the text: further settings join those of the convention, which cannot be given again."""
    assert make("verl.grpo:eps=0.001").chain == make("grpo:singleton=raw,eps=0.001").chain
    assert make("tinker.grpo:singleton=raw").name == "tinker.grpo:singleton=raw"
    with pytest.raises(InputError, match="singleton is given twice"):
        make("verl.grpo:singleton=zero")
    for text in ("trl.grpp", "trl.grpp + cispo"):
        with pytest.raises(InputError, match=r"unknown estimator 'trl\.grpp': did you mean 'trl\.grpo'"):
            parse_method(text, None, rungs.CHAINS)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_weights_by_enumeration(size: int) -> None:
    """E[A s]/grad p = sum over k of C(G-1, k) p^k q^(G-1-k) (A of a success beside k others - A of a failure)."""
    for name, scale in (("tinker.grpo", False), ("open_instruct.standard", True)):
        found, fail, passed = weights(name, size, "beta:1,1")
        assert fail == passed == 0
        for weight, p in zip(found, PASS_RATES, strict=True):
            total = 0.0
            for k in range(size):
                chance = comb(size - 1, k) * p**k * (1 - p) ** (size - 1 - k)
                for successes, r, sign in ((k + 1, 1, 1), (k, 0, -1)):
                    mean = successes / size
                    spread = sqrt(mean * (1 - mean)) + 1e-8 if scale else 1.0
                    total += sign * chance * ((r - mean) / spread if 0 < mean < 1 else 0.0)
            assert weight == pytest.approx(total, rel=1e-12)


def test_nemos_scale_takes_the_bonus_of_hard_prompts() -> None:
    """The others' spread at G = 8: weights at p = 0.02 and 0.5 in the order opposite to GRPO's; at G = 2 RLOO's."""
    nemo, grpo = (weights(name, 8, "beta:1,1")[0] for name in ("nemo_rl.grpo", "trl.grpo"))
    np.testing.assert_allclose(nemo, [1.21, 1.77, 2.05, 2.00, 1.77], atol=0.02)
    assert nemo[0] < nemo[3] and grpo[0] > grpo[3]
    np.testing.assert_allclose(weights("nemo_rl.grpo", 2, "beta:1,1")[0], 1.0, rtol=1e-12)


def test_a_second_norm_undoes_the_choice_of_the_mean() -> None:
    """AReaL's rloo and a whitened group mean are one rule; after the group's std it is another."""
    (left, _, _), (right, _, _) = (
        weights(n, 4, "beta:1,1") for n in ("areal.rloo", "verl.reinforce_plus_plus_baseline")
    )
    np.testing.assert_allclose(left, right, rtol=1e-4)
    golden = advantages("areal.grpo", GOLDEN)
    np.testing.assert_allclose(
        golden, spread((1.5, -0.5), (0.5, -1.5), (0, 0), (0.866025, -0.866025)) / sqrt(0.6), atol=1e-4
    )


def test_lone_and_constant_groups() -> None:
    """verl keeps a lone reward, TRL drops it; whitening alone speaks in constant groups."""
    first, _ = rows(("verl.grpo", "trl.grpo", "verl.reinforce_plus_plus"), (2,), "beta:1,1")
    assert [row["lone 1"] for row in first[:2]] == [pytest.approx(1.0, abs=1e-5), 0.0]
    assert [row["all fail"] for row in first] == [0.0, 0.0, pytest.approx(-1.0, abs=1e-6)]


def test_page_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the files: every convention a row, every difference in the page, JSON and tables alike."""
    main(["--out", str(tmp_path), "--json"])
    told = json.loads(capsys.readouterr().out)
    with (tmp_path / "conventions.csv").open(newline="") as file:
        assert [row["convention"] for row in csv.DictReader(file)] == list(CONVENTIONS)
    page = (tmp_path / "conventions.md").read_text()
    assert all(f"`{name}`" in page for name in CONVENTIONS)
    assert told["differences"] == differences("beta:1,1") and page.count("\n| the spread") == 4
    told_apart = ("eps", "groups of one", "the divider")
    assert all(abs(row["value"] - row["its"]) > 1e-9 for row in told["differences"] if row["place"] in told_apart)
    main(["trl.grpo", "rloo", "--group-size", "3"])
    shown = capsys.readouterr().out
    assert "trl.grpo" in shown and "rloo" in shown and "verl.grpo" not in shown
    with pytest.raises(InputError, match=r"unknown convention 'trl\.grop'"):
        main(["trl.grop"])
