"""The report as text: what was read, what was estimated, what follows."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from ebpo_sim import labels, report
from ebpo_sim.diagnose.advice import of_filtered, span
from ebpo_sim.diagnose.breakdown import Part
from ebpo_sim.diagnose.diagnosis import Diagnosis
from ebpo_sim.diagnose.intervals import Estimate

WIDTH, NAME = 118, 30  # columns of the report, letters of a name in a table
KEY = (
    "Error E (baseline - p)^2 relative to the group mean's w/G. long run: from variance components (lines: any "
    "distribution) or the deconvolved prior (curves); model-free: rollouts held back. ±: half of the 95 % interval "
    "over prompts, whose ends are in ratios.csv."
)
CAVEAT = (
    "The ratios are long-run values on prompts like these; a prior must first be learnt, and forget as fast as the "
    "policy moves. Lower baseline error is not lower gradient variance (for one logit the best baseline is 1 - p)."
)


def full(d: Diagnosis) -> str:
    """The whole report of one model."""
    lines = [*wrapped(f"{d.name or 'diagnosis'}: {d.columns}"), "", *_described(d), ""]
    if d.by_size:
        lines += ["By group size", _by_size(d), ""]
    if d.parts:
        lines += ["By reward", _by_reward(d), ""]
    if d.table.rows:
        lines += [_matrix(d), *wrapped(KEY), ""]
    if d.clusters:
        lines += [f"By cluster, G = {d.current}", _parts("cluster", d.clusters)]
        if d.cluster_gain is not None:
            lines.append(
                f"A prior for each cluster: {span(d.cluster_gain)} of the error with one prior "
                "(without the cost of learning several)."
            )
        lines.append("")
    if d.steps:
        lines += [f"During training, G = {d.current}", _parts("steps", d.steps), ""]
    lines += [line for note in d.notes for line in wrapped(f"Restriction: {note}.")]
    lines += ["", "RECOMMENDATION", *(line for s in d.advice.sentences for line in wrapped(s))]
    lines += ["", *wrapped(CAVEAT)] if d.table.rows else []
    return "\n".join(lines)


def overview(found: Sequence[Diagnosis]) -> str:
    """One line for each model, by intra-class correlation."""
    sizes = {d.current for d in found}
    headers = ("model or run", "rollouts", "prompts", "ICC", "equal", "ebpo", "ebpo_debiased", "advice")
    lines = []
    for d in sorted(found, key=lambda d: d.components.icc.value):
        rows = {r.estimator: r for r in d.table.at(d.current)}
        lines.append(
            (
                _cut(d.name),
                str(d.sizes[2]),
                str(d.prompts),
                near(d.components.icc),
                near(d.zero.get(d.current, (None, ""))[0]),
                *(near(rows[n].best) if n in rows else "-" for n in ("ebpo", "ebpo_debiased")),
                d.advice.verdict + ("" if d.advice.certain else " ?"),
            )
        )
    align = ("left", "right", "right", "right", "right", "right", "right", "left")
    notes = [f"{d.name}: {note}." for d in found for note in d.notes]
    notes += [f"{d.name}: {of_filtered(d.silence)}" for d in found if d.silence is not None and d.silence.filtered]
    if len(notes) > 6:
        kinds = dict.fromkeys(note.split(": ", 1)[1] for note in notes)
        notes = [f"Some models: {k}" for k in list(kinds)[:4]] + ["All restrictions are in diagnosis.json."]
    at = f"G = {found[0].current}" if len(sizes) == 1 else "each one's own G"
    tail = [
        f"Equal rewards, errors and advice at {at}. {KEY}",
        'advice "?": the interval reaches across the limit. --model NAME gives one model in full.',
        *notes,
    ]
    said = [line for text in (*tail, CAVEAT) for line in wrapped(text)]
    return "\n".join([report.text_table(headers, lines, align), *said])


def _described(d: Diagnosis) -> list[str]:
    sizes = f"{d.sizes[0]}" if d.sizes[0] == d.sizes[1] else f"{d.sizes[0]} to {d.sizes[1]} (median {d.sizes[2]})"
    visits = f", {d.groups} groups" if d.groups != d.prompts else ""
    c = d.components
    rows = [
        ("prompts", f"{d.prompts}{visits}"),
        ("rollouts a group", sizes),
        *(
            [("mean pass rate, kept groups", span(d.kept.mean)), ("ICC of kept groups' prompts", span(d.kept.icc))]
            if d.kept is not None
            else [
                ("mean reward", span(c.mean)),
                ("within-prompt variance w", span(c.within)),
                ("between-prompt variance T2", span(c.between)),
                ("intra-class correlation", span(c.icc)),
            ]
        ),
        ("never rewarded" if d.binary else "all rewards equal", span(d.saturated[0])),
    ]
    if d.binary:
        rows.append(("always rewarded", span(d.saturated[1])))
    if d.length is not None:
        rows.append(("length", span(d.length)))
    return [f"{name:<28}{value}" for name, value in rows]


def wrapped(text: str) -> list[str]:
    """Lines of at most `WIDTH` columns."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def near(e: Estimate | None) -> str:
    """`0.745±.006`: half of the interval's width, where there is no room for its ends."""
    if e is None or not math.isfinite(e.value):
        return "-"
    if e.low is None or e.high is None:
        return f"{e.value:.3f}"
    half = f"{(e.high - e.low) / 2:.3f}".removeprefix("0")
    return f"{e.value:.3f}±{half}" if max(abs(e.value), e.high - e.low) < 100 else f"{e.value:.3g}"


def _by_size(d: Diagnosis) -> str:
    headers = ("rollouts", "groups", "of all rollouts", "mean", "ICC", "all rewards equal")
    lines = [
        (str(s.rollouts), str(s.groups), f"{s.share:.1%}", near(s.mean), near(s.icc), near(s.silent)) for s in d.by_size
    ]
    return report.text_table(headers, lines, ["right"] * len(headers))


def _by_reward(d: Diagnosis) -> str:
    headers = ("reward", "groups in which it is constant", "of all groups: it is, and the others are not")
    lines = [(_cut(c.name), near(c.silent), near(c.others)) for c in d.parts]
    return report.text_table(headers, lines, ("left", "right", "right"))


def _cut(name: str) -> str:
    return name if len(name) <= NAME else name[: NAME - 3] + "..."


def _matrix(d: Diagnosis) -> str:
    sizes = d.group_sizes
    lines: list[tuple[str, ...]] = []
    zero = [d.zero.get(g) for g in sizes]
    if any(zero):
        lines.append(("P(all rewards equal)", "", *(near(z[0]) if z else "-" for z in zero)))
    missing: dict[str, list[str]] = {}
    same: dict[tuple[tuple[str, ...], ...], list[str]] = {}  # baselines that agree to all printed digits share a row
    for name in dict.fromkeys(r.same_as for r in d.table.rows):
        cells = {r.group_size: r for r in d.table.rows if r.estimator == name}
        found = [("long run", *(near(cells[g].long_run) for g in sizes))]
        if any(r.split for r in cells.values()):
            found.append(("model-free", *(near(cells[g].split) for g in sizes)))
        elif all(r.why for r in cells.values()):
            missing.setdefault(cells[sizes[0]].why, []).append(name)
            continue
        same.setdefault(tuple(found), []).append(name)
    for cell, names in same.items():
        if labels.REFERENCE not in names:
            shown = [*names, ""] if len(names) > 1 else [names[0], ""]
            lines += [(shown[min(i, len(shown) - 1)], *row) for i, row in enumerate(cell)]
    headers = ("", "", *(f"G = {g}" for g in sizes))
    table = report.text_table(headers, lines, ("left", "left", *("right" for _ in sizes)))
    return "\n".join(
        (table, *(line for why, names in missing.items() for line in wrapped(f"{', '.join(names)}: {why}.")))
    )


def _parts(title: str, parts: Sequence[Part]) -> str:
    headers = (title, "groups", "mean", "ICC", "all rewards equal", "ebpo", "ebpo_debiased")
    lines = [
        (
            _cut(p.name),
            str(p.groups),
            near(p.found.mean),
            near(p.found.icc),
            near(p.zero_signal),
            *map(near, p.ratio.values()),
        )
        for p in parts
    ]
    return report.text_table(headers, lines, ("left", *("right" for _ in headers[1:])))
