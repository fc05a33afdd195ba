"""The committed measurements say what the README says of them, and meet the bounds that were set before."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import pages

pytest.importorskip("transformers")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # llm runs from the checkout; it is not installed

from llm import compare  # noqa: E402
from llm import compare_measures as analysis  # noqa: E402

README = pages.page("llm")
MEASURED = ROOT / "llm" / "measured"


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def test_the_comparison_table() -> None:
    """Guards the README's table and its sentences: recomputed from the committed runs, to the printed digit."""
    runs, curves = compare.stored(MEASURED / "compare")
    found = analysis.findings(runs, curves)
    told = {(r["group_size"], r["arm"], r["measure"], r["reference"]): r for r in found}
    table = re.search(r"<!-- llm -->\n(.*?)<!-- /llm -->", README, flags=re.S)[1].splitlines()[2:]
    lines = {
        cells[0].strip(): [c.strip() for c in cells[1:]] for cells in (line.strip("|").split("|") for line in table)
    }
    arms = {"EBPO": "ebpo", "EBPO, S = 0": "ebpo:shrinkage=0", "EBPO, S = 1": "ebpo:shrinkage=1",
            "EBPO debiased, memory 0.95": "ebpo_debiased:memory=0.95"}  # fmt: skip
    assert len(lines) == len(arms) + 2
    for place, size in enumerate((2, 4, 8)):
        level = told[size, "grpo", "final", ""]
        assert level["seeds"] == 5
        assert lines["GRPO"][place] == f"{100 * level['value']:.2f} ± {100 * level['se']:.2f}"
        for name, arm in arms.items():
            row = told[size, arm, "final", "grpo"]
            low, high = signed(100 * row["low"]), signed(100 * row["high"])
            assert lines[name][place] == f"{signed(100 * row['value'])} [{low}, {high}]"
            assert row["learning_rate"] == 6e-4 and not row["edge"]
        ratio = (
            told[size, "grpo", "seconds_per_step", ""]["value"] / told[size, "ebpo", "seconds_per_step", ""]["value"]
        )
        assert lines["a step of GRPO's time / EBPO's"][place] == f"{ratio:.2f}"
    resolved = [r for r in found if r["measure"] == "final" and r["verdict"] in ("appears", "the opposite")]
    assert [(r["group_size"], r["arm"], r["reference"]) for r in resolved] == [(2, "ebpo", "ebpo:shrinkage=0")]
    assert resolved[0]["comparisons"] == 24 and f"at G = 2, {signed(100 * resolved[0]['value'])})" in README
    later = told[2, "ebpo", "equal_time", "grpo"]
    assert later["verdict"] == "before correction only" and later["seeds"] == 3 and later["comparisons"] == 24
    assert (
        f"{-100 * later['value']:.1f} points ahead\n([{-100 * later['high']:.1f}, {-100 * later['low']:.1f}]" in README
    )


def test_the_orders() -> None:
    """Guards the sentence on topic and easy-to-hard order: both recomputed, no difference seen in either."""
    found = analysis.findings(*compare.stored(MEASURED / "orders"))
    said = " ".join(README.split())
    for order, words in (("alternating", "by topic"), ("easy_to_hard", "from easy to hard")):
        told = {(r["order"], r["arm"], r["measure"], r["reference"]): r for r in found}
        row = told[order, "ebpo", "final", "grpo"]
        numbers = [signed(100 * row[name]) for name in ("value", "low", "high")]
        assert f"{numbers[0]} [{numbers[1]}, {numbers[2]}] {words}" in said and row["verdict"] == "no difference seen"


def test_the_gpu_check() -> None:
    """Guards the GPU's numbers: correct, under eight minutes, more than 100M weights, the estimator below 0.1 %."""
    found = json.loads((MEASURED / "gpu_check.json").read_text(encoding="utf-8"))
    assert found["correctness"]["passed"] and found["machine"]["date"] and found["machine"]["device"] == "NVIDIA H200"
    assert (
        found["correctness"]["fp32_log_prob_max_difference"]
        < 1e-6
        > found["correctness"]["fp32_gradient_relative_error"]
    )
    assert found["wall_seconds"] < 480 and found["model"]["parameters"] > 100e6
    ebpo, grpo = found["speed"]["ebpo/bf16"], found["speed"]["grpo/bf16"]
    assert all(part["estimator_share_of_a_step"] < 1e-3 for part in (ebpo, grpo))
    assert f"EBPO's estimator takes {100 * ebpo['estimator_share_of_a_step']:.2f} % of a step" in README
    assert f"peak memory {ebpo['peak_memory_bytes'] / 1e9:.0f} GB" in README
    assert f"A step of GRPO takes {ebpo['answers_per_second'] / grpo['answers_per_second']:.2f} of" in README
    assert f"{round(ebpo['sampled_tokens_per_second'], -3):,.0f} answer tokens" in README
    assert f"{round(ebpo['trained_tokens_per_second'], -2):,.0f} trained" in README
    ends = [run["trained"] for run in found["comparison"]["runs"]]
    assert (
        f"one base ({found['comparison']['runs'][0]['base']:.2f}) end between {min(ends):.3f} and {max(ends):.3f}"
        in README
    )


def test_the_speed_against_trl() -> None:
    """Guards the claim: sampling 1.5 and a whole step 1.3 times TRL's speed, at the sizes of the default run."""
    cells = json.loads((MEASURED / "benchmark_trl.json").read_text(encoding="utf-8"))["cells"]
    assert {(c["prompts"], c["group_size"]) for c in cells} == {(16, 8), (64, 4)}
    for cell in cells:
        sampling, step = cell["ratios"]["sampling"], cell["ratios"]["step, every row"]
        assert sampling["low"] > 1.5 and step["low"] > 1.3
        for found in (sampling, step, cell["ratios"]["step, zero rows skipped"]):
            assert f"{found['median']:.2f} [{found['low']:.2f}, {found['high']:.2f}]" in README


def test_steps_to_a_target_against_their_prediction() -> None:
    """Guards llm/measured/noise: ratios of steps to 34 and 36 % with their intervals, and the differences at the end,
    recomputed from the runs; the predictions from the noise scales in the same file."""
    folder = ROOT / "llm" / "measured" / "noise"
    text = (folder / "README.md").read_text(encoding="utf-8")
    runs = {row["run"]: row for row in csv.DictReader((folder / "runs.csv").read_text(encoding="utf-8").splitlines())}
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in csv.DictReader((folder / "curves.csv").read_text(encoding="utf-8").splitlines()):
        run = runs[row["run"]]
        curves.setdefault((run["arm"], run["seed"]), []).append((float(row["step"]), float(row["validation_pass1"])))

    def steps(arm: str, seed: str, target: float) -> float:
        curve = sorted(curves[arm, seed])
        place = next(i for i, (_, value) in enumerate(curve) if value >= target)
        (s0, p0), (s1, p1) = curve[place - 1 : place + 1]
        return s0 + (target - p0) / (p1 - p0) * (s1 - s0)

    table = "loo_table:weights=score,memory=0.95"
    scales = {"grpo": 782.0, "reinforce": 196.0, table: 195.0, f"{table} + keep_rows:share=0.15": 343.0}
    skipped, measured = f"{table} + keep_rows:share=0.15", text.partition("**Measured**")[2]
    for arm, start in {"reinforce": "| `reinforce` ", table: "| score-weighted ", skipped: "| the same,"}.items():
        line = next(x for x in measured.splitlines() if x.startswith(start))
        for target in (0.34, 0.36):
            logs = np.log([steps(arm, s, target) / steps("grpo", s, target) for s in map(str, range(5))])
            half = 2.776 * logs.std(ddof=1) / np.sqrt(5)
            low, mean, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
            assert f"{mean:.2f} [{low:.2f}, {high:.2f}]" in line, (arm, target)
        assert f"{(1 + scales[arm] / 256) / (1 + scales['grpo'] / 256):.2f}" in line
        ends = np.array([100 * (curves[arm, s][-1][1] - curves["grpo", s][-1][1]) for s in map(str, range(5))])
        assert f"+{ends.mean():.2f}" in line


def test_every_currency_to_a_target() -> None:
    """Guards the table of currencies: rollouts, trained rows and seconds to 34 and 36 % over GRPO's, by seed."""
    folder = ROOT / "llm" / "measured" / "noise"
    text = (folder / "README.md").read_text(encoding="utf-8").partition("**In every currency**")[2]
    runs = {row["run"]: row for row in csv.DictReader((folder / "runs.csv").read_text(encoding="utf-8").splitlines())}
    curves: dict[tuple[str, str], list[list[float]]] = {}
    for row in csv.DictReader((folder / "curves.csv").read_text(encoding="utf-8").splitlines()):
        curve = curves.setdefault((runs[row["run"]]["arm"], runs[row["run"]]["seed"]), [])
        step, before = float(row["step"]), curve[-1] if curve else [0.0, 0.0]
        rows = before[1] + float(row["rows_trained"] or 0) * (step - before[0]) * 256
        curve.append([step, rows, float(row["seconds"]), float(row["validation_pass1"])])

    def spent(arm: str, seed: str, target: float) -> np.ndarray:
        curve = np.array(curves[arm, seed])
        place = int(np.argmax(curve[:, 3] >= target))
        share = (target - curve[place - 1, 3]) / (curve[place, 3] - curve[place - 1, 3])
        return curve[place - 1, :3] + share * (curve[place, :3] - curve[place - 1, :3])

    table = "loo_table:weights=score,memory=0.95"
    starts = {
        "reinforce": "| `reinforce` ",
        table: "| score-weighted ",
        f"{table} + keep_rows:share=0.15": "| the same,",
    }
    for arm, start in starts.items():
        cells = [cell.strip() for cell in next(x for x in text.splitlines() if x.startswith(start)).split("|")[2:8]]
        for target, shown in ((0.34, cells[:3]), (0.36, cells[3:])):
            logs = np.log([spent(arm, s, target) / spent("grpo", s, target) for s in map(str, range(5))])
            mean, half = logs.mean(axis=0), 2.776 * logs.std(axis=0, ddof=1) / np.sqrt(5)
            ends = np.exp([mean, mean - half, mean + half]).T
            assert shown == [f"{m:.2f} [{low:.2f}, {high:.2f}]" for m, low, high in ends]


def shown(value: str, error: str) -> str:
    return "-" if not value else f"{float(value):.2f}" + (f" ± {float(error):.2f}" if error else "")


def excess(p: float, a: float, c: float) -> float:
    """Noise p a (1 - b)^2 + (1 - p) c b^2 of the baseline b = p over that of the best one."""
    noise = [p * a * (1 - b) ** 2 + (1 - p) * c * b * b for b in (p, p * a / (p * a + (1 - p) * c))]
    return noise[0] / noise[1]


def test_score_norms_of_the_tasks() -> None:
    """Guards the table of tasks with working or many right answers: every line is of the committed measurement."""
    folder = MEASURED / "score_norms"
    lines = (folder / "tasks.md").read_text(encoding="utf-8").splitlines()
    told = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    expected = []
    for name in ("sums", "chain", "swaps", "addition"):
        with (folder / f"{name}.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                values = [shown(row[x], row[f"{x} se"]) for x in ("right", "wrong", "best_baseline")]
                p = float(row["mean_pass_rate"])
                ratio = (
                    f"{excess(p, float(row['right']), float(row['wrong'])):.2f}"
                    if values[0] != "-" != values[1]
                    else "-"
                )
                expected.append([f"`{name}`", row["prompts"], f"{p:.2f}", *values, ratio])
    assert [cells for cells in told if len(cells) == 7] == expected and len(expected) > 20


def test_the_bases() -> None:
    """Guards the table of warm starts: mean pass rates and ICCs that are near what was wanted, or said not to be."""
    folder = MEASURED / "bases"
    with (folder / "bases.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    text = (folder / "bases.md").read_text(encoding="utf-8")
    for wanted in ("0.15", "0.4", "0.75"):
        own = [row for row in rows if row["icc_wanted"] == wanted]
        assert len(own) == 3 and f"| {wanted} | {own[0]['sft_steps']} | {own[0]['level_shares']} |" in text
        assert all(abs(float(row["rate"]) - 0.4) < 0.1 for row in own)
        near = [abs(float(row["icc"]) - float(wanted)) < 0.1 for row in own]
        assert all(near) if wanted != "0.75" else not any(near)
