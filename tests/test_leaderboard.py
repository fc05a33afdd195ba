"""The leaderboard: noise of a replay against the exact one, held-out errors as the splits have them, ranks, page."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import pages
from ebpo_sim.counts.noise import MODELS, noise
from ebpo_sim.counts.splits import split_ratio
from ebpo_sim.counts.updates import advantages_by_count
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, make, register, registry
from ebpo_sim.estimators.transforms.scale import Scale
from ebpo_sim.groups import count_groups
from ebpo_sim.numbers.mixing import Prior, count_pmf
from ebpo_sim.studies.leaderboard import measure, study, text
from ebpo_sim.studies.recorded import replay
from ebpo_sim.worlds import world_counts

THIRD = 1 / 3
SNAPSHOT = "recorded:qwen3-4b-dapo-math-step-64"


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_polynomials_are_unbiased(model) -> None:
    """Guards the tables: their mean over the successes of 4 and of 7 rollouts is the polynomial, at every p."""
    p = np.array([0.0, 0.2, 0.55, 1.0])
    a, c, apart = model(p)
    want = [apart * (1 - p) ** 2, apart * p * (1 - p), apart * p**2, a - apart * (1 - p) ** 2, c - apart * p**2,
            apart * p * (1 - p) ** 2, apart * p**2 * (1 - p)]  # fmt: skip
    for rest in (4, 7):
        found = measure._tables(model, rest) @ count_pmf(p, rest, np.arange(rest + 1)).T
        np.testing.assert_allclose(found, want, atol=1e-12)


def every_outcome(group_size: int, rest: int) -> replay.Split:
    """All outcomes of rollouts at p = 1/3 as replicates of one prompt and visit: each rollout is one of three cases."""
    outcomes = np.array([*product((0, 0, 1), repeat=group_size + rest)])[:, None, None, :]
    held = outcomes[..., group_size:].mean(axis=-1)
    trained = outcomes[..., :group_size].sum(axis=-1)
    return replay.Split(group_size, trained, held, held * (1 - held) / (rest - 1), np.zeros((1, 1), dtype=np.intp))


@pytest.mark.parametrize("name", ["grpo", "rloo", "reinforce"])
def test_the_noise_of_a_replay_is_the_exact_one(name: str) -> None:
    """Guards nu on a run: over all outcomes |S/G|^2 and S.h/G are those of `counts.noise`, for every score model."""
    estimator, prior = make(name), Prior((THIRD,), (1.0,))
    found_QP = measure.replayed(estimator, every_outcome(2, 3), 3, 128, 0)
    table = advantages_by_count(estimator, estimator.init(), count_groups(2), 2)
    for i, model in enumerate(MODELS.values()):
        known = noise(table, prior, model)
        np.testing.assert_allclose(found_QP[1 + 2 * i : 3 + 2 * i, 0], [known.noise / 2 + known.biased, known.signal])
    assert len(measure.replayed(estimator, every_outcome(2, 2), 2, 128, 0)) == 1  # two rollouts know no cubic


def test_cells_of_counts() -> None:
    """Guards the held-out error: that of `split_ratio`, 1.96 standard errors wide; GRPO is 1, and exact noise is too;
    what cannot stand says why."""
    settings = replace(study.QUICK, estimators=("grpo", "rloo", "ebpo", "spo"))
    grpo, rloo, ebpo, spo = measure.measured(SNAPSHOT, 4, settings)
    counts = world_counts(SNAPSHOT)
    assert counts is not None
    for name, cell in (("rloo", rloo), ("ebpo", ebpo)):
        known = split_ratio(make(name), counts, 4)
        assert known is not None and cell.error is not None
        assert cell.error == pytest.approx(
            (known.ratio, known.ratio - 1.959964 * known.se, known.ratio + 1.959964 * known.se)
        )
    assert grpo.error == (1, 1, 1) and grpo.noise == dict.fromkeys(MODELS, (1, 1, 1)) and grpo.exact == 1
    assert spo == (None, dict.fromkeys(MODELS), None, "needs prompt_ids")


def test_ranks_share_ties() -> None:
    """Guards the ranks: mean of ties, means over score models, none where a number is missing."""
    rows = [
        {"error": e, **{f"noise_{m}": x for m in MODELS}} for e, x in ((1.0, 2.0), (1.0, 1.0), (0.5, None), (None, 3.0))
    ]
    found = study._ranked(rows)
    assert [r["error_rank"] for r in found] == [2.5, 2.5, 1.0, None]
    assert [r["noise_rank"] for r in found] == [2.0, 1.0, None, 3.0]


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards refusals before any work: a rule without a baseline, which is not among the default ones either, and a
    replay without a scored visit."""
    monkeypatch.setattr(registry, "_PRESETS", dict(registry._PRESETS))
    register(bare)
    assert "bare" not in study.standing() and "ebpo" in study.standing()
    run = ["--world", study.SETTINGS.worlds[0], "--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match="bare subtracts no baseline: the leaderboard ranks baselines"):
        study.main(["--estimator", "bare", *run])
    with pytest.raises(InputError, match="--burn-in 46 leaves no visit of 46 to score"):
        study.main(["--burn-in", "46", *run])
    assert not (tmp_path / "out").exists()


def bare() -> Estimator:
    return Estimator("bare", (Scale("group"),))


def test_the_page_is_in_step() -> None:
    """Guards ebpo_sim/leaderboard.md: regenerated on the recorded steps and on MATH, the columns of every method
    and the lines of these worlds are those of the page."""
    page = (pages.ROOT / "ebpo_sim" / "leaderboard.md").read_text(encoding="utf-8")
    worlds = tuple(w for w in study.SETTINGS.worlds if text.boards(w) in ("recorded", "MATH"))
    settings = replace(study.SETTINGS, worlds=worlds)
    rows = study.simulate(settings)
    lines = {line["estimator"]: line for line in text.methods(rows)}
    table = page.partition("```\nmethod")[2].partition("```")[0].splitlines()
    header = ["method", *table[0].split("  ")]
    at = [h.strip() for h in header if h.strip()]
    shown = {cells[0]: dict(zip(at, cells, strict=True)) for cells in map(split_cells, table[2:])}
    assert shown.keys() == lines.keys() == set(study.standing())
    for name, line in lines.items():
        for column in ("error recorded", "noise recorded", "error MATH", "noise MATH"):
            value, rank = line[column], line[f"{column} rank"]
            assert shown[name][column] == ("-" if value is None else f"{value:.3f} ({rank:.1f})")
    assert len(worlds) == 12
    for row in text.worlds_table(text.winners(rows)).splitlines()[2:]:
        assert row.split() in [line.split() for line in page.splitlines()]
    assert page.startswith(text.HEAD.format(sizes="2, 4, 8"))


def split_cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


OWN = """
from ebpo_sim.estimators import Estimator, register
from ebpo_sim.estimators.registry import ebpo, spo


@register
def mine() -> Estimator:
    plain = ebpo()
    return Estimator("mine", plain.chain, plain.order)


@register
def mine_by_prompt() -> Estimator:
    plain = spo()
    return Estimator("mine_by_prompt", plain.chain, plain.order)
"""


def test_a_submission_is_one_file(tmp_path: Path) -> None:
    """Guards --load: rules of a file get their lines, those that remember prompts on the replay alone; the page and the
    table are written beside them."""
    (tmp_path / "mine.py").write_text(OWN, encoding="utf-8")
    command = [sys.executable, "-m", "ebpo_sim.leaderboard", "--quick", "--steps", "3", "--json",
               "--load", str(tmp_path / "mine.py"), "--out", str(tmp_path / "out")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line["estimator"]: line for line in json.loads(done.stdout)["methods"]}
    assert {k: v for k, v in lines["mine"].items() if k != "estimator"} == {
        k: v for k, v in lines["ebpo"].items() if k != "estimator"
    }
    assert lines["mine_by_prompt"]["error MATH"] is None
    assert lines["mine_by_prompt"]["error replayed"] == lines["spo"]["error replayed"] < 1
    assert "\nmine " in (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")


def test_one_world_shows_every_cell(tmp_path: Path) -> None:
    """Guards the text of one world: intervals and ranks of every rule."""
    said = io.StringIO()
    with redirect_stdout(said):
        study.main(["--world", "beta:2,3", "--group-size", "4", "--estimator", "grpo", "--estimator", "ebpo",
                    "--out", str(tmp_path / "out")])  # fmt: skip
    assert "beta:2,3, relative to grpo's" in said.getvalue() and "0.488" in said.getvalue()
