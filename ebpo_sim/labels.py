"""How every rule is shown and what family it is of: one table for all texts and pictures.

A row a preset, or a preset with settings where a comparison gives that one a name of its own. What has no row is
shown by its preset's short name and its settings, in the colour of unnamed ones, and is of its preset's kin; a preset
without a row (a user's own) by its text, of no kin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Kin = Literal["group mean", "ebpo", "shrinkage", "reference", ""]
REFERENCE, SUBJECT = "grpo", "ebpo"  # what the others are compared with, and the rule that the comparisons are about
NO_SHRINKAGE, FULL_SHRINKAGE = "ebpo:shrinkage=0", "ebpo:shrinkage=1"  # the subject with its weight fixed
UNNAMED = "#666666"
SPARE = ("#542788", "#8c564b", "#7f7f7f", "#bcbd22", "#17becf")  # for several without a row in one picture


@dataclass(frozen=True)
class Label:
    """name: in pictures and tables. short: in sentences, where settings may follow (default the name). colour: six
    hexadecimal digits. kin: the family. source: the arXiv number, empty where there is none. marker: of single points.
    """

    name: str
    colour: str = UNNAMED
    kin: Kin = ""
    source: str = ""
    marker: str = "o"
    short: str = ""


LABELS = {
    "grpo": Label("GRPO", "#222222", "group mean", "2402.03300"),
    "dr_grpo": Label("Dr. GRPO", "#4c78a8", "group mean", "2503.20783"),
    "rloo": Label("RLOO", "#72b7b2", "group mean", "2402.14740"),
    "grpo_batch_norm": Label("GRPO, batch std", "#b279a2", "group mean"),
    "reinforce_pp_baseline": Label("REINFORCE++ baseline", "#e45756", "group mean", "2501.03262"),
    "james_stein": Label("James-Stein", "#9467bd", "shrinkage", "2511.03710"),
    "ebpo": Label("EBPO", "#d62728", "ebpo", "2602.05165"),
    "ebpo_released": Label("EBPO, released code", "#f58518", "ebpo"),
    "ebpo_within": Label("EBPO-G", "#ff7f0e", "ebpo"),
    "ebpo_beta_binomial": Label("EBPO-BB", "#8c564b", "ebpo"),
    "ebpo_debiased": Label("EBPO, debiased (ours)", "#00bf7d", "ebpo", short="EBPO debiased"),
    "ebpo_nonparametric": Label("EBPO, nonparametric", "#1f77b4", "ebpo", marker="D", short="EBPO nonparametric"),
    "loo_table": Label("leave-one-out table", "#0b6e4f", "reference", marker="s"),
    "optimal": Label("optimal, by history", "#7b4173", "reference", marker="s"),
    "regression": Label("regression", "#8ca252", "reference", marker="s"),
    "spo": Label("SPO", "#3182bd", "reference", "2509.13232", marker="s"),
    "dbb": Label("DBB", "#e6550d", "reference", "2603.18444", marker="s"),
    "anchor": Label("first-visit anchor", "#756bb1", "reference", "2508.21104", marker="s"),
    "v05": Label("V0.5", "#31a354", "reference", "2603.10848"),
    "opo": Label("OPO", "#ffbf79", "group mean", "2505.23585"),
    "optimal_token_baseline": Label("optimal token baseline", "#a0cbe8", "group mean", "2602.07078"),
    "reinforce": Label("REINFORCE", "#bab0ac", "reference"),
    "raft": Label("RAFT", "#d37295", "reference", "2504.11343"),
    "global_mean": Label("running mean", "#17becf", "reference"),
    "oracle_linear": Label("best line", "#54a24b", "reference"),
    "oracle_bayes": Label("best baseline", "#9d755d", "reference"),
    "grpo_leave_one_out": Label("GRPO, leave-one-out std", "#5254a3", "group mean"),
    "lite_ppo": Label("Lite PPO", "#cedb9c", "group mean", "2508.08221"),
    "grpo_whitened": Label("GRPO, whitened twice", "#e7ba52", "group mean"),
    "reinforce_pp": Label("REINFORCE++", "#ad494a", "reference", "2501.03262"),
    "gpg": Label("GPG", "#6b6ecf", "group mean", "2504.02546"),
    "maxrl": Label("MaxRL", "#bd9e39", "group mean", "2602.02710"),
    "passk": Label("pass@k", "#637939", "group mean", "2505.15201"),
    "grpo_passk": Label("GRPO pass@k", "#b5cf6b", "group mean", "2503.19595"),
    "bnpo": Label("BNPO", "#843c39", "group mean", "2506.02864"),
    "ha_dw": Label("HA-DW", "#d6616b", "group mean", "2601.08521"),
    "remax": Label("ReMax", "#e7969c", "reference", "2310.10505"),
    "adora": Label("ADORA", "#a55194", "group mean"),
    "copo": Label("COPO", "#ce6dbd", "group mean", "2508.04138"),
    "gdpo": Label("GDPO", "#de9ed6", "group mean", "2601.05242"),
    "riskpo": Label("RiskPO", "#5b6abf", "reference", "2510.00911"),
    "krpo": Label("KRPO", "#9ecae1", "group mean", "2505.07527"),
    NO_SHRINKAGE: Label("EBPO, S = 0", "#8c564b", "ebpo"),
    FULL_SHRINKAGE: Label("EBPO, S = 1", "#d8b2ff", "ebpo"),
    "ebpo_debiased:memory=0.95": Label(
        "EBPO, debiased (ours)", "#00bf7d", "ebpo", short="EBPO debiased, memory 0.95"
    ),
}  # fmt: skip


def label(rule: str) -> Label:
    """The label of a preset, with its settings where it has some, as in "ebpo:memory=0.9"; every field is filled."""
    if rule in LABELS:
        found = LABELS[rule]
        return replace(found, short=found.short or found.name)
    preset, colon, settings = rule.partition(":")
    known = LABELS.get(preset, Label(preset))
    text = (known.short or known.name) + (f", {settings.replace('=', ' ').replace(',', ', ')}" if colon else "")
    return replace(known, name=text, short=text, colour=UNNAMED)


def colours(rules: Iterable[str]) -> dict[str, str]:
    """A colour for each rule: its label's, and for those without a row the spare ones that no label has here."""
    listed = list(dict.fromkeys(rules))
    others = [rule for rule in listed if rule not in LABELS]
    taken = {LABELS[rule].colour for rule in listed if rule in LABELS}
    free = [colour for colour in SPARE if colour not in taken] or SPARE
    spare = {rule: free[i % len(free)] for i, rule in enumerate(others)}
    return {rule: spare.get(rule) or LABELS[rule].colour for rule in listed}
