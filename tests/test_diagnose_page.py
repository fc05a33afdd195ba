"""`diagnose --html` and `--library`: one page that holds the advice first, and what a library's "grpo" gives."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ebpo_sim.diagnose.__main__ import main, read
from ebpo_sim.diagnose.libraries import convention_of, difference, sentence
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make
from ebpo_sim.groups import group_rewards

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
GROUPS = [[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]
LIBRARIES = ("trl", "verl", "nemo_rl", "openrlhf", "open_instruct", "tinker", "areal")


def written(path: Path, groups: list[list[int]]) -> str:
    rows = [f"q{i},{r}\n" for i, group in enumerate(groups) for r in group]
    path.write_text("prompt_id,reward\n" + "".join(rows), encoding="utf-8")
    return str(path)


def test_a_librarys_grpo_on_ones_own_groups(tmp_path: Path) -> None:
    """Guards --library: the largest difference is that of the advantages of the groups themselves.

    verl's equals ours; Tinker's is the plain r - mean: in a group with 1 of 4, 3/4 beside (3/4)/(1/2 + 1e-6).
    """
    (population,) = read([written(tmp_path / "r.csv", GROUPS)])[1]
    assert difference(population, "verl").largest == 0
    assert "gives the advantages of our grpo" in sentence(difference(population, "verl"))
    found = difference(population, "tinker")
    assert (found.successes, found.reward, found.theirs) == (1, 1, pytest.approx(0.75))
    assert found.ours == pytest.approx(1.5, rel=1e-5) and found.share == 0.75
    rewards = np.array(GROUPS, dtype=np.float64)
    ours, theirs = (
        np.asarray(make(text).score(make(text).init(), group_rewards(rewards))[0])
        for text in ("grpo", "grpo_leave_one_out")
    )
    assert difference(population, "nemo_rl").largest == pytest.approx(float(np.abs(theirs - ours).max()), rel=1e-9)
    for library in LIBRARIES:
        assert convention_of(library).startswith(f"{library}.") and sentence(difference(population, library))


def test_libraries_that_cannot_be_compared(tmp_path: Path) -> None:
    """Guards refusals: unknown names before any work, rewards that are no counts."""
    with pytest.raises(InputError, match="did you mean 'verl'"):
        main([written(tmp_path / "r.csv", GROUPS), "--library", "vrl", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out" / "diagnosis.json").exists()
    (population,) = read([written(tmp_path / "r.csv", [[1, 2, 3], [3, 2, 2]])])[1]
    with pytest.raises(InputError, match="two values"):
        difference(population, "verl")


def test_the_page_holds_the_diagnosis(tmp_path: Path) -> None:
    """Guards --html: advice first, then the lines to paste, tables of every G and the pictures; one file, no request;
    in a browser, where there is one, the words after # leave the rows that have them."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 0.7, 60)
    path = written(tmp_path / "r.csv", [[int(x) for x in rng.random(8) < q] for q in p])
    out = tmp_path / "out"
    main([path, "--quick", "--html", "--library", "trl", "--estimator", "ebpo", "--estimator", "ebpo_debiased",
          "--out", str(out)])  # fmt: skip
    text = (out / "diagnosis.html").read_text(encoding="utf-8")
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings[:3] == ["Advice", "Paste", "Restrictions"]
    assert headings[3:6] == ["What the log says", "Error of the baseline", "Gradient noise"]
    assert text.count("data:image/png;base64,") == 2 and not re.findall(r"https?:|<link|@import", text)
    assert "Noise says" in text and "Library: trl.grpo" in text and "algorithm.adv_estimator=" in text
    for g in (2, 4, 8, 16, 32):
        assert f"<tr><td>{g}</td><td>ebpo_debiased</td>" in text
    if BROWSER is None:
        return
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--dump-dom", f"file://{out}/diagnosis.html#one_logit ebpo_debiased"]  # fmt: skip
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    shown = re.findall(r"<tr><td>(\d+)</td><td>(\w+)</td><td>(\w+)</td>", seen)
    assert shown == [(str(g), "ebpo_debiased", "one_logit") for g in (2, 4, 8, 16, 32)]
