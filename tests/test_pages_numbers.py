"""Numbers of the pages that were measured once: they are those of the files beside them."""

from __future__ import annotations

import csv
import json
import re

import pages


def test_group_sizes_are_those_of_the_captions() -> None:
    """Guards the table of regimes, its bold cells and the sentences below it: each is a verdict line of the gallery."""
    text = pages.page("paper_figures")
    captions = (pages.ROOT / "paper_figures" / "gallery" / "captions.md").read_text(encoding="utf-8")
    section = captions.partition("## Table 2. Group sizes")[2].partition("\n## ")[0]
    known = {
        (where, int(size)): (value, word)
        for where, size, word, value in re.findall(r"^- (.*), G = (\d+), points: (.*) \((.*)\)$", section, flags=re.M)
    }
    table = text.partition("<!-- group sizes -->")[2].partition("<!-- /group sizes -->")[0].strip().splitlines()
    sizes = [int(size) for size in re.findall(r"G = (\d+)", table[0])]
    for line in table[2:]:
        where, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for size, cell in zip(sizes, cells, strict=True):
            value, word = known[where, size]
            assert cell.strip("*") == value
            assert cell.startswith("**") == (word in ("appears", "the opposite")), (where, size, word)
    assert len(table) == 8 and sizes == [2, 4, 16]
    below = text.partition("<!-- /group sizes -->")[2]
    stated = re.findall(r"[+−]\d+\.\d+ ± \d+\.\d+", below)
    assert len(stated) == 6 and all(f"({value})" in captions for value in stated)


def test_the_packed_step_against_trl() -> None:
    """Guards the speeds of the packed forward: medians and intervals of the committed rounds, and the goal of 2.0."""
    found = json.loads((pages.ROOT / "llm" / "measured" / "benchmark_trl_packed.json").read_text(encoding="utf-8"))
    text = pages.words(pages.page("llm"))
    for size in ("64x2", "128x4"):
        ratios = found[size]["cells"][0]["ratios"]
        every, skipped = ratios["step, every row"], ratios["step, zero rows skipped"]
        assert every["low"] > 2.0
        assert f"{every['median']:.2f} [{every['low']:.2f}, {every['high']:.2f}]" in text
        assert f"{skipped['median']:.2f}" in text


def test_recipes_are_those_of_the_study() -> None:
    """Guards the recipes' page: each ratio, bold after correction, and each share is a cell of the study's own text."""
    section = pages.page("ebpo_sim/methods").partition("<!-- methods -->")[2].partition("<!-- /methods -->")[0]
    text = pages.words(section)
    study = (pages.ROOT / "paper_figures" / "gallery" / "methods.txt").read_text(encoding="utf-8")
    ratios = re.findall(r"(\*\*)?(\w+) (\d\.\d\d \[\d\.\d\d, \d\.\d\d\])", text)
    shares = re.findall(r"-?\d+% \[-?\d+%, -?\d+%\]", text)
    for bold, name, ratio in ratios:
        rows = [row for row in study.splitlines() if re.search(rf"\b{name}\b", row)] if name != "needs" else [study]
        assert any(f" {ratio}{'!' if bold else ''}" in row for row in rows), (name, ratio)
    assert len(ratios) == 16 and len(shares) == 12 and all(f" {share}" in study for share in shares)
    for count in (
        "of 36 methods 3 need fewer rollouts than GRPO", "8 more, 7 miss", "6 more, 2 miss", "1 more, 12 miss",
    ):  # fmt: skip
        assert count in study


def test_allocations_are_those_measured() -> None:
    """Guards the sentence about allocations: each ratio is a row of the table that the claims read."""
    text = pages.page("ebpo_sim/methods").partition("<!-- allocation -->")[2].partition("<!-- /allocation -->")[0]
    with (pages.ROOT / "ebpo_sim" / "claims" / "allocation.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["value"] and row["low"]]
    known = {f"{float(r['value']):.2f} [{float(r['low']):.2f}, {float(r['high']):.2f}]": r for r in rows}
    stated = re.findall(r"\d\.\d\d \[\d\.\d\d, \d\.\d\d\]", pages.words(text))
    assert len(stated) == 2 and set(stated) <= set(known)
