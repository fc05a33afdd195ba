"""The claims about gradient noise: verdicts move with the rules, counterexamples show what they say, repairs repair."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ebpo_sim.claims import claims, default_context, noise_methods, noise_rules
from ebpo_sim.claims.base import Context, Finding
from ebpo_sim.claims.baseline_error import estimator_name
from ebpo_sim.claims.noise_methods import found, table_of
from ebpo_sim.counts.noise import MODELS, softmax
from ebpo_sim.counts.sampled_noise import sampled_noise
from ebpo_sim.counts.streams import Design
from ebpo_sim.studies.base import Settings
from ebpo_sim.studies.noise.study import TABLES, simulate
from ebpo_sim.worlds import parse_world

WORLDS = ("points:0,0.5", "points:0.25,0.5", "points:0,0.9", "beta:1,1", "beta:0.1,0.1")
NAMES = tuple(f"N{i}" for i in range(1, 9))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Rules that a test breaks are forgotten with it."""
    yield
    noise_rules.found.cache_clear()
    noise_rules._table.cache_clear()


def small() -> Context:
    context = default_context(quick=True, seed=0, threads=1)
    design = context.design._replace(prompts=256, replicates=4)
    return replace(context, worlds=WORLDS, group_sizes=(2, 4), reference="beta:1,1", design=design)


def words(name: str) -> dict[str, str]:
    return {f.variant: f.verdict.word for f in claims()[name].check(small())}


def test_the_verdicts() -> None:
    """Guards what each claim's computation says in five worlds: it is what the full ledger says."""
    assert set(words("N2").values()) == {"holds"}
    three = {"equal norms": "holds", "one logit": "fails", "softmax": "fails"}
    assert words("N3") == three
    assert words("N8") == three
    first = words("N1")
    assert {v for k, v in first.items() if "score_table" not in k} == {"holds"}
    assert [first[f"score_table, noise, {n}"] for n in three] == list(three.values())
    assert words("N4")["algorithm-1, equal norms"] == "holds_if"
    assert words("N4")["ebpo_debiased, equal norms"] == "holds"
    fifth = words("N5")
    assert (fifth["unbiased"], fifth["score_table, one logit"], fifth["ebpo, equal norms"]) == (
        "holds",
        "holds",
        "fails",
    )
    assert words("N6")["rloo, equal norms, all budgets"] == "fails"
    assert words("N6")["rloo, one logit, all budgets"] == "holds"
    assert words("N7") == {"group's spread": "holds_if", "batch's spread": "holds"}


def test_the_verdicts_move_with_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against verdicts that cannot fall: with a constant for the table, p for b*, updates that skip without
    weights, and a group's spread in place of the batch's, N1, N2 and N5 fail and N7 holds no more everywhere."""
    monkeypatch.setitem(TABLES, "table", "constant")
    monkeypatch.setattr(noise_rules, "best_baseline", lambda p, model: p)
    assert words("N1")["table, error"] == "fails"
    assert words("N2")["softmax"] == "fails"
    true = noise_methods.sampled_noise

    def unweighted(*arguments: Any) -> Any:
        return [x._replace(signal_R=x.signal_R * arguments[-1]) for x in true(*arguments)]

    monkeypatch.setattr(noise_methods, "sampled_noise", unweighted)
    assert words("N5")["unbiased"] == "fails"
    exact = noise_rules._table

    def by_group(name: str, *place: Any) -> Any:
        return exact("grpo" if name == "grpo_batch_norm" else name, *place)

    with monkeypatch.context() as broken:
        broken.setattr(noise_rules, "_table", by_group)
        noise_rules.found.cache_clear()
        assert words("N7")["batch's spread"] == "holds_if"


def rows_of(command: str) -> list[dict[str, Any]]:
    """What the noise study's table says, from the command as it is printed up to the colon."""
    words = shlex.split(command.partition(": ")[0])
    given: dict[str, list[str]] = {"--world": [], "--group-size": [], "--estimator": ["rloo"]}
    for flag, value in zip(words[1::2], words[2::2], strict=True):
        given[flag].append(value)
    sizes = tuple(map(int, given["--group-size"] or ["2"]))
    design = Design(prompts=2, steps=1, burn_in=0, replicates=2)
    return simulate(Settings(tuple(given["--world"]), sizes, tuple(given["--estimator"]), design))


def violated(name: str) -> Iterator[tuple[Finding, list[dict[str, Any]]]]:
    """The counterexamples of a claim with the rows of their score model."""
    for finding in claims()[name].check(small()):
        command = finding.verdict.counterexample
        if command:
            scores = next(s for s in MODELS if f", {s}" in command)
            yield finding, [r for r in rows_of(command) if r["scores"] == scores]


def value(rows: list[dict[str, Any]], name: str, column: str = "nu_ratio") -> float:
    return float(next(r[column] for r in rows if r["estimator"] == name))


def test_counterexamples_show_their_violation() -> None:
    """Guards the printed commands: the named column of the noise study contradicts the claim, claim by claim."""
    seen = 0
    for finding, rows in violated("N4"):
        name = estimator_name(finding.variant)
        assert value(rows, name) >= min(1, value(rows, "rloo")) - 1e-12
        seen += 1
    for finding, rows in violated("N5"):
        assert value(rows, finding.variant.partition(",")[0], "nu_ratio_same_rows") >= 1
        seen += 1
    for _, rows in violated("N7"):
        assert value(rows, "grpo", "cosine") < 1 - 1e-9
        seen += 1
    for _, rows in violated("N1"):
        assert value(rows, "best_table") < value(rows, "score_table")
        seen += 1
    for finding, rows in violated("N6"):
        name = finding.variant.partition(",")[0]
        nu = [r["nu_drawn"] for r in rows if r["estimator"] == name and r["world"] == rows[0]["world"]]
        assert len(nu) == 2 and nu[0] < nu[1], "the first G has the lower noise, the other trains fewer rows"
        seen += 1
    assert seen >= 10


def test_the_repair_repairs() -> None:
    """Guards N4's repair: the score-weighted table has less noise than GRPO and RLOO in every cell of its search."""
    for scores in MODELS:
        for text in WORLDS:
            for size in (2, 3, 4, 8):
                rivals = min(found(name, text, size, scores).nu for name in ("grpo", "rloo"))
                assert found("score_table", text, size, scores).nu < rivals


def test_sampled_noise_is_unbiased() -> None:
    """Guards the confirmations themselves: mean noise and signal of sampled groups against the exact ones, all rows and
    a part of them, |z| below 4.5 with 63 degrees of freedom (false-fail rate 3e-5 each)."""
    world = parse_world("beta:1,1")
    for rows in (1.0, 0.4):
        drawn = sampled_noise(world, [table_of("ebpo", world.name, 3, "softmax")], softmax, 2000, 64, 5, rows)[0]
        exact = found("ebpo", world.name, 3, "softmax", rows=rows)
        for sample, truth in ((drawn.noise_R, exact.noise), (drawn.signal_R, exact.signal)):
            assert abs(sample.mean() - truth) < 4.5 * sample.std(ddof=1) / np.sqrt(len(sample))
            assert sample.std(ddof=1) / np.sqrt(len(sample)) < 0.02 * truth
