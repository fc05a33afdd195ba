"""The methods study: its design, shares of parts with a known answer, leaderboards by hand, a page that agrees."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebpo_sim.chains.collect import collect
from ebpo_sim.chains.population import parse_population
from ebpo_sim.chains.rung import TrainingConfig, ask_of, build_method, pool_of
from ebpo_sim.chains.update import layout_of, sample, tokens_of
from ebpo_sim.compare.plan import Job, Series
from ebpo_sim.errors import InputError
from ebpo_sim.methods.recipes import RECIPES
from ebpo_sim.methods.step import start
from ebpo_sim.objectives import Clip
from ebpo_sim.studies.methods import study
from ebpo_sim.studies.methods.arms import PARTS, arms, design, kind, parts, standing
from ebpo_sim.studies.methods.cells import PLACEBO, Cell, Settings, Zoo, cells_of, config, plan
from ebpo_sim.studies.methods.outcomes import MATCHED, Rung, Runs, boards, known_numbers, matched, step_length
from ebpo_sim.studies.methods.page import page
from ebpo_sim.studies.methods.shares import REST, effect_rows, share_rows, shares
from ebpo_sim.studies.methods.text import conclusion, ranked
from ebpo_sim.studies.regimes import Size

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
TINY = Settings(
    worlds=("observed:Qwen2.5-7B",), methods=("dapo", "ebpo"), regimes=("plateau",), group_size=4, staleness=(2, 1),
    mismatch=(0.0, 0.5), swept="plateau", population=48, validation=16, seeds=2, tuning_seeds=1, thin=2, length=0.1,
    design=False,
)  # fmt: skip
CELL = Cell("chain", "noisy", 8, 48, 30.0, 4, 0.0, 0.3, 0.5)
CROSSED = {part: [parts(arm)[part] for arm in design()] for part in PARTS}


def test_the_design_is_balanced() -> None:
    """Guards the design: any two levels of two parts meet equally often, so no part is mixed up with another."""
    counts = {part: Counter(level) for part, level in CROSSED.items()}
    for a, b in combinations(PARTS, 2):
        met = Counter(zip(CROSSED[a], CROSSED[b], strict=True))
        assert all(met[x, y] * len(design()) == counts[a][x] * counts[b][y] for x in counts[a] for y in counts[b])
    assert len(set(design())) == len(design()) == 18


def test_arms_and_their_parts() -> None:
    """Guards what is compared: every recipe stands or is listed with what it needs; parts are read off the text."""
    found, left = standing((*RECIPES, "gdpo"))
    assert set(found) | {x.recipe for x in left} == {*RECIPES, "gdpo"}
    assert "gdpo needs components" in next(x.reason for x in left if x.recipe == "gdpo")
    assert parts("dapo") == {
        "allocation": "shuffled", "selection": "dynamic", "estimator": "grpo", "objective": "clip:high=0.28",
        "aggregation": "token_mean",
    }  # fmt: skip
    assert parts("grpo") == parts("grpo + clip + token_mean")
    assert parts("rloo + variance_aware + clip + kl:coef=0.1")["objective"] == "clip + kl:coef=0.1"
    assert [kind(a) for a in ("grpo", PLACEBO, "gspo", "ebpo", design()[1])] == [
        "reference", "placebo", "recipe", "method", "design",
    ]  # fmt: skip


def test_shares_of_a_known_table() -> None:
    """Guards the analysis of variance: without noise a balanced design gives each part its own variance, to the last
    digit, and nothing to a part that does nothing."""
    weight = dict(zip(PARTS, (0.0, 1.0, 2.0, 0.5, 0.0), strict=True))
    effect = {p: [weight[p] * list(dict.fromkeys(CROSSED[p])).index(x) for x in CROSSED[p]] for p in PARTS}
    y_N = np.sum(list(effect.values()), axis=0)
    found = shares(y_N[None], CROSSED)[0]
    assert found == pytest.approx([*(np.var(effect[p]) / np.var(y_N) for p in PARTS), 0.0], abs=1e-12)


def test_shares_of_confounded_parts() -> None:
    """Guards the mean over orders where parts are confounded: (R2(a) + R2(a, b) - R2(b)) / 2 by hand, corrected for
    degrees of freedom."""
    a, b = ["x", "x", "y", "y", "y", "x", "x", "y"], ["u", "u", "v", "v", "v", "v", "u", "u"]
    y = np.array([0.1, -0.2, 1.3, 0.9, 1.1, 0.6, 0.0, 0.7])

    def explained(*columns: list[str]) -> float:
        x = np.stack([np.ones(8), *(np.array([v == c[0] for v in c], dtype=float) for c in columns)], axis=1)
        return float(1 - np.sum((y - x @ np.linalg.lstsq(x, y)[0]) ** 2) / np.sum((y - y.mean()) ** 2))

    both, lost = explained(a, b), (1 - explained(a, b)) / 5
    first = ((explained(a) - lost) + (both - explained(b) - lost)) / 2
    found = shares(y[None], {"a": a, "b": b})[0]
    assert found[0] == pytest.approx(first) and found[:2].sum() == pytest.approx(both - 2 * lost)
    with pytest.raises(InputError, match="more of them than levels"):
        shares(y[None], {"a": [str(i) for i in range(8)]})


def test_a_part_that_does_nothing_has_no_share() -> None:
    """Guards the correction for levels: pure noise gives every part, six levels or two, a mean share of 0 (4000 draws,
    standard errors below 0.006, bound 5 of them: false-fail rate 3e-6)."""
    found = shares(np.random.default_rng(0).normal(size=(4000, 18)), CROSSED)[:, :5]
    assert np.all(np.abs(found.mean(axis=0)) < 5 * found.std(axis=0) / math.sqrt(4000))
    assert np.all(found.std(axis=0) / math.sqrt(4000) < 0.006)


def test_shares_and_effects_of_runs() -> None:
    """Guards the rows: a part that doubles the rollouts has all of the share, an interval over seeds that holds it, and
    the ratio 2 for its level; a tie where nu/N is below 1 has no resolving power."""
    rng = np.random.default_rng(1)
    base = np.array([math.log(2) if x == "dynamic" else 0.0 for x in CROSSED["selection"]])
    y_NWR = base[:, None, None] + rng.normal(0, 0.02, (18, 2, 8))
    by = {r["part"]: r for r in share_rows(y_NWR, CROSSED, rng)}
    assert by["selection"]["low"] <= by["selection"]["share"] <= by["selection"]["high"]
    assert by["selection"]["low"] > 0.98 and abs(by[REST]["share"]) < 0.02 and by["objective"]["levels"] == 6
    for ratio, tie in ((30.0, "no difference seen"), (0.3, "no resolving power")):
        effects = {r["level"]: r for r in effect_rows(y_NWR, CROSSED, ratio)}
        assert (effects["dynamic"]["verdict"], effects["cispo"]["verdict"]) == ("the opposite", tie)
        assert effects["dynamic"]["value"] == pytest.approx(math.log(2), abs=0.05)


def curve(speed: float, rows: float = 1.0, moved: float = 0.01) -> list[dict[str, float]]:
    """pass@1 that rises from 0.1 to 0.6, linearly until step 10 / speed; 48 rollouts and 48 `rows` rows a step."""
    return [
        {"step": t, "pass1": min(0.6, 0.1 + 0.05 * speed * t), "rollouts": 48.0 * t, "rows": 48.0 * rows * t,
         "kl": moved * speed * t} for t in range(25)
    ]  # fmt: skip


def synthetic(cell: Cell, speeds: dict[str, float], seeds: int = 4, **uneven: tuple[float, ...]) -> Runs:
    """Runs of known speed, a little other by seed; `uneven`: arms with a speed a seed. GRPO's ladder has half its step
    and double it."""
    found, ladder = dict[Any, Series](), dict[Job, dict[str, Any]]()
    for arm, speed in speeds.items():
        curves = {s: curve(speed * (1 + 0.01 * s * (arm != "grpo")), 0.5 if arm == "dapo" else 1) for s in range(seeds)}
        found[arm, cell, "own"] = Series(arm, cell._asdict(), 0.1, False, curves)
    for arm, each in uneven.items():
        curves = {s: curve(speed) for s, speed in enumerate(each)}
        found[arm, cell, "own"] = Series(arm, cell._asdict(), 0.1, False, curves)
    for rate, speed in ((0.05, 0.5), (0.1, 1.0), (0.2, 2.0)):
        ladder |= {Job("grpo", cell, rate, s, 1): {"curve": curve(speed)} for s in range(seeds)}
    return Runs(found, ladder)


def test_a_leaderboard_by_hand() -> None:
    """Guards the leaderboard: mean log ratios by seed, the family's size, who misses the target last, half of the rows
    in trained rows; at GRPO's own step a ratio of 1."""
    settings = Settings(("chain",), ("dapo", "gspo", "sapo"), ("noisy",), seeds=4)
    runs = synthetic(CELL, {"grpo": 1.0, "dapo": 1.25, "gspo": 0.5, "sapo": 0.3})
    told = boards(settings, known_numbers(runs), [CELL])
    rows = {(r["estimator"], r["quantity"]): r for r in told if r["target"] == "far" or not r["target"]}
    first = rows["dapo", "rollouts"]
    assert first["value"] == pytest.approx(-np.mean([math.log(1.25 * (1 + 0.01 * s)) for s in range(4)]))
    assert (first["verdict"], first["comparisons"], first["met"], first["runs"]) == ("appears", 3, 4, 4)
    assert rows["dapo", "rows"]["value"] == pytest.approx(first["value"] - math.log(2))
    assert rows["dapo", "seconds 4:1"]["value"] == pytest.approx(first["value"] + math.log(4.5 / 5))
    assert rows["gspo", "rollouts"]["verdict"] == "the opposite"
    assert (rows["sapo", "rollouts"]["value"], rows["sapo", "rollouts"]["met"]) == (None, 0)
    assert [r["estimator"] for r in ranked(told, ("noisy", 4, 0.0))] == ["dapo", "grpo", "gspo", "sapo"]
    assert rows["gspo", MATCHED]["value"] == pytest.approx(0, abs=0.02)  # half as long steps as GRPO's cost as much
    assert rows["gspo", MATCHED]["verdict"] == "no difference seen"
    assert "1 miss the target" in conclusion(told, [], [{"estimator": PLACEBO, "value": 0.0, "regime": "noisy"}])


def test_a_tie_without_noise_has_no_resolving_power() -> None:
    """Guards the regime: what is a tie at nu/N = 30 says nothing at 0.3."""
    settings = Settings(("chain",), ("dapo", "gspo"), ("noisy",), seeds=4)
    for ratio, word in ((30.0, "no difference seen"), (0.3, "no resolving power")):
        cell = CELL._replace(noise_ratio=ratio)
        runs = synthetic(cell, {"grpo": 1.0, "gspo": 1 / 1.015})
        told = boards(settings, known_numbers(runs), [cell])
        assert {r["verdict"] for r in told if (r["estimator"], r["quantity"]) == ("gspo", "rollouts")} == {word}


def test_matched_steps_are_interpolated() -> None:
    """Guards the matched control: linear in the log of the step between two rates, nothing outside of the ladder."""
    rungs = [Rung(0.0, (1.0, 2.0)), Rung(2.0, (3.0, 6.0))]
    assert matched([0.4, 0.6], rungs) == pytest.approx([math.exp(1.5), math.exp(3.0)])
    assert matched([2.5, 2.5], rungs) == matched([None, 1.0], rungs) == [None, None]
    assert step_length(curve(1.0), 0.5) == pytest.approx(math.log(0.01))
    assert step_length(curve(0.1), 0.5) is None


def test_the_plan_is_one_budget() -> None:
    """Guards the budget: every arm of a cell has the same rates and tuning runs; sweeps one at a time, without placebo
    and design; the placebo is GRPO with its rewards in random order."""
    settings = Settings(("chain", "bandit:beta:2,3"), ("dapo",), ("balanced", "noisy"), staleness=(4, 1),
                        mismatch=(0.0, 0.5), seeds=2)  # fmt: skip
    sizes = [Size(w, r, 96, 1.0, 0.0, 3.0) for w in settings.worlds for r in settings.regimes]
    cells = cells_of(settings, sizes)
    swept = [(c.world, c.regime, c.minibatches, c.mismatch) for c in cells[4:]]
    assert swept == [("chain", "balanced", 1, 0.0), ("chain", "balanced", 4, 0.5)]
    asked = plan(settings, cells, arms(settings))
    assert {len(rates) for rates in asked.rates.values()} == {5}
    assert asked.arms[cells[0]] == tuple(dict.fromkeys(("grpo", "dapo", PLACEBO, *design())))
    assert asked.arms[cells[4]] == ("grpo", "dapo")
    placebo, plain = (config(settings, Job(arm, cells[0], 0.1, 0, 1)) for arm in (PLACEBO, "grpo"))
    assert (placebo.estimator, placebo.placebo, plain.placebo, plain.minibatches) == ("grpo", True, False, 4)


def test_runs_end_at_the_target_in_tuning_only() -> None:
    """Guards the runs: rollouts and rows add up to the last record; tuning ends where the far target is met; the key
    knows of what decides the record."""
    zoo, job = Zoo(TINY), Job("grpo", CELL._replace(group_size=4, rollouts=32), 0.05, 0, 1)
    run = zoo.run(job)["curve"]
    assert run[-1]["step"] == 40 and run[-1]["rollouts"] == 32 * 40 and 0 < run[-1]["rows"] < run[-1]["rollouts"]
    assert [row["kl"] for row in run] == sorted(row["kl"] for row in run)
    whole = zoo.run(job._replace(tuning=True))["curve"]
    far = (whole[0]["pass1"] + max(row["pass1"] for row in whole)) / 2
    tuned = zoo.run(job._replace(tuning=True, cell=job.cell._replace(far=far)))
    line = tuned["curve"]
    assert line == whole[: len(line)] and line[-1]["pass1"] >= far > line[-2]["pass1"] and line[-1]["step"] < 40
    assert line[-2]["rollouts"] <= math.exp(-zoo.score(tuned)) <= line[-1]["rollouts"]
    others = [job._replace(tuning=True), job._replace(arm=PLACEBO), job._replace(rate=0.1)]
    others += [job._replace(cell=job.cell._replace(**x)) for x in ({"mismatch": 0.5}, {"minibatches": 1})]
    assert len({zoo.key(x) for x in (job, *others)}) == 6
    assert zoo.key(job) == zoo.key(job._replace(cell=job.cell._replace(far=0.3)))


def test_a_sampler_that_differs() -> None:
    """Guards the mismatch: at 0 the bits are those without it; else weights old/sampler have mean 1 under the sampler
    (20000 tokens, bound 5 standard errors: false-fail rate 6e-7)."""
    chain = parse_population("chain", 500, 0, 4)
    plain, zero = (sample(chain.start_SK, chain.prompts, 16, np.random.default_rng(3), *x) for x in ((), (0.0,)))
    assert np.array_equal(plain.actions_PGL, zero.actions_PGL) and zero.sampler_PLK is None
    rolled = sample(chain.start_SK, chain.prompts, 16, np.random.default_rng(3), 0.5)
    tokens = tokens_of(rolled, layout_of(rolled, (Clip(),)), rolled.reward_PG, (Clip(),))
    weight = np.exp(tokens.old_NT - tokens.behaviour_NT)[tokens.mask_NT]
    assert len(weight) > 20_000 and weight.std() > 0.3
    assert abs(weight.mean() - 1) < 5 * weight.std() / math.sqrt(len(weight))


def test_the_placebo_knows_nothing() -> None:
    """Guards the random reward: as many ones as the answers earned, and groups that spread as binomials of one p (200
    groups, bound four standard errors of a spread: false-fail rate 3e-5), where honest groups spread more."""
    chain, settings = parse_population("chain", 200, 0, 4), TrainingConfig(group_size=8, prompts=200, steps=1)
    method, pool = build_method(chain, settings), pool_of(chain)

    def drawn(*placebo: Any) -> np.ndarray[Any, Any]:
        rng = np.random.default_rng(0)
        batch = collect(chain.start_SK, chain.prompts, pool, method, start(method), ask_of(settings, 0), 0, rng,
                        *placebo)  # fmt: skip
        return np.asarray(batch.groups.rewards_PG)

    honest, random = drawn(), drawn(0.0, True)
    assert honest.sum() == random.sum()
    bound = (1 + 4 / math.sqrt(2 * 200)) * math.sqrt(honest.mean() * (1 - honest.mean()) / 8)
    assert random.mean(axis=1).std() < bound < honest.mean(axis=1).std()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("methods")
    return out, study.results(TINY, study.simulate(TINY, out), [])


def test_resumed_gives_the_same(done: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Guards resumption: from half of the files the same tables, and nothing whole is done again; two cells of sweeps
    beside the first, each with its own leaderboard."""
    out, found = done
    kept = sorted((out / "cells").iterdir())[::2]
    (tmp_path / "cells").mkdir()
    for path in kept:
        (tmp_path / "cells" / path.name).write_bytes(path.read_bytes())
    before = [(tmp_path / "cells" / path.name).stat().st_mtime_ns for path in kept]
    assert study.results(TINY, study.simulate(TINY, tmp_path), []) == found
    assert [(tmp_path / "cells" / path.name).stat().st_mtime_ns for path in kept] == before
    assert len({(r["minibatches"], r["mismatch"]) for r in found["leaderboard"]}) == 3
    assert {r["estimator"] for r in found["table"]} == {"grpo", "dapo", "ebpo", PLACEBO}


@pytest.mark.skipif(BROWSER is None, reason="no headless browser")
@pytest.mark.parametrize(
    ("width", "place", "query", "quantity"),
    [(1280, 0, "currency=rollouts", "rollouts"), (390, 1, "currency=seconds&ratio=2", "seconds 4:1")],
)
def test_the_page_computes_the_leaderboard(width: int, place: int, query: str, quantity: str, tmp_path: Path) -> None:
    """Guards --html, in a browser: ratios, intervals and words, corrected, of the controls' regime and currency are the
    leaderboard's, and nothing is wider than the window."""
    settings = Settings(("chain",), ("dapo", "gspo", "sapo"), ("noisy",), seeds=4)
    cells = [CELL, CELL._replace(regime="plateau", noise_ratio=0.3)]
    speeds, uneven = {"grpo": 1.0, "dapo": 1.25, "gspo": 0.5, "sapo": 0.3, "mhpo": 0.985}, (1.02, 1.05, 1.03, 1.08)
    both = [synthetic(cell, speeds, rloo=uneven) for cell in cells]
    runs = Runs({**both[0].found, **both[1].found}, {**both[0].ladder, **both[1].ladder})
    told = boards(settings, known_numbers(runs), cells)
    assert "before correction only" in {r["verdict"] for r in told if r["quantity"] == quantity}
    text = page(settings, runs, {"leaderboard": told, "shares": []}, "lead <&", {}).decode()
    assert not re.findall(r"https?:|<link|@import|url\(", text) and "lead &lt;&amp;" in text
    fits = "<script>document.body.dataset.fits=document.documentElement.scrollWidth<=innerWidth</script></body>"
    (tmp_path / "page.html").write_text(text.replace("</body>", fits), encoding="utf-8")
    address = f"file://{tmp_path}/page.html?place={place}&{query}"
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               f"--window-size={width},900", "--dump-dom", address]  # fmt: skip
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert 'data-fits="true"' in seen
    body = seen[seen.index('<table id="board"') : seen.index("</table>")]
    lines = [re.findall(r"<td.*?>(.*?)</td>", line, re.S) for line in re.findall(r"<tr>(.*?)</tr>", body, re.S)]
    words = {"appears": "fewer", "the opposite": "more", "not studied": ""}
    rows = ranked(told, (cells[place].regime, 4, 0.0), quantity)
    assert [line[1] for line in lines[1:]] == [r["estimator"] for r in rows]
    for line, r in zip(lines[1:], rows, strict=True):
        if r["value"] is not None and r["estimator"] != "grpo":
            value, low, high = (f"{math.exp(r[k]):.2f}" for k in ("value", "low", "high"))
            assert (line[2], line[4], line[5]) == (value, f"{low} to {high}", words.get(r["verdict"], r["verdict"]))
        assert line[6] == ("" if r["estimator"] == "grpo" else f"{r['met']} of {r['runs']}")
