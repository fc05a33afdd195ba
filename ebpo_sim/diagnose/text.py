"""The report as text: what was read, what was estimated, what follows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ebpo_sim import labels, report
from ebpo_sim.diagnose.advice import span
from ebpo_sim.diagnose.breakdown import Part
from ebpo_sim.diagnose.diagnosis import Diagnosis

KEY = (
    "Error E (baseline - p)^2 relative to the group mean's w/G. long run: from variance components (lines: any\n"
    "distribution) or the deconvolved prior (curves); model-free: rollouts held back. [95 % interval over prompts]"
)
CAVEAT = (
    "The ratios are long-run values on prompts like these; a prior must first be learnt, and forget as fast as the\n"
    "policy moves. Lower baseline error is not lower gradient variance (for one logit the best baseline is 1 - p)."
)


def full(d: Diagnosis) -> str:
    """The whole report of one model."""
    lines = [f"{d.name or 'diagnosis'}: {d.columns}", "", *_described(d), ""]
    lines += [_matrix(d), KEY, ""]
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
    lines += [f"Restriction: {note}." for note in d.notes]
    lines += ["", "RECOMMENDATION", *(_wrapped(s) for s in d.advice.sentences), "", CAVEAT]
    return "\n".join(lines)


def overview(found: Sequence[Diagnosis]) -> str:
    """One line for each model, by intra-class correlation."""
    current = found[0].current
    headers = ("model", "prompts", "ICC", f"equal, G = {current}", "ebpo", "ebpo_debiased", "advice", "named")
    lines = []
    for d in sorted(found, key=lambda d: d.components.icc.value):
        rows = {r.estimator: r for r in d.table.at(d.current)}
        lines.append(
            (
                d.name,
                str(d.prompts),
                span(d.components.icc),
                span(d.zero.get(d.current, (None, ""))[0]),
                *(span(rows[n].best) if n in rows else "-" for n in ("ebpo", "ebpo_debiased")),
                d.advice.verdict + ("" if d.advice.certain else " ?"),
                d.advice.estimator,
            )
        )
    align = ("left", "right", "right", "right", "right", "right", "left", "left")
    notes = [f"{d.name}: {note}." for d in found for note in d.notes]
    if len(notes) > 6:
        kinds = dict.fromkeys(note.split(": ", 1)[1] for note in notes)
        notes = [f"Some models: {k}" for k in list(kinds)[:4]] + ["All restrictions are in diagnosis.json."]
    tail = [KEY, 'advice "?": the interval reaches across the limit. --model NAME gives one model in full.', *notes]
    return "\n".join([report.text_table(headers, lines, align), *tail, CAVEAT])


def _described(d: Diagnosis) -> list[str]:
    sizes = f"{d.sizes[0]}" if d.sizes[0] == d.sizes[1] else f"{d.sizes[0]} to {d.sizes[1]} (median {d.sizes[2]})"
    visits = f", {d.groups} groups" if d.groups != d.prompts else ""
    c = d.components
    rows = [
        ("prompts", f"{d.prompts}{visits}"),
        ("rollouts a group", sizes),
        ("mean reward", span(c.mean)),
        ("within-prompt variance w", span(c.within)),
        ("between-prompt variance T2", span(c.between)),
        ("intra-class correlation", span(c.icc)),
        ("never rewarded" if d.binary else "all rewards equal", span(d.saturated[0])),
    ]
    if d.binary:
        rows.append(("always rewarded", span(d.saturated[1])))
    if d.length is not None:
        rows.append(("length", span(d.length)))
    return [f"{name:<28}{value}" for name, value in rows]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 118, subsequent_indent="  ", break_on_hyphens=False)


def _matrix(d: Diagnosis) -> str:
    sizes = d.group_sizes
    lines: list[tuple[str, ...]] = []
    zero = [d.zero.get(g) for g in sizes]
    if any(zero):
        lines.append(("P(all rewards equal)", "", *(span(z[0]) if z else "-" for z in zero)))
    same: dict[tuple[tuple[str, ...], ...], list[str]] = {}  # baselines that agree to all printed digits share a row
    for name in dict.fromkeys(r.same_as for r in d.table.rows):
        cells = {r.group_size: r for r in d.table.rows if r.estimator == name}
        found = [("long run", *(span(cells[g].long_run) for g in sizes))]
        if any(r.split for r in cells.values()):
            found.append(("model-free", *(span(cells[g].split) for g in sizes)))
        elif all(r.why for r in cells.values()):
            found = [(cells[sizes[0]].why, *found[0][1:])]
        same.setdefault(tuple(found), []).append(name)
    for cell, names in same.items():
        if labels.REFERENCE not in names:
            shown = [*names, ""] if len(names) > 1 else [names[0], ""]
            lines += [(shown[min(i, len(shown) - 1)], *row) for i, row in enumerate(cell)]
    headers = ("", "", *(f"G = {g}" for g in sizes))
    return report.text_table(headers, lines, ("left", "left", *("right" for _ in sizes)))


def _parts(title: str, parts: Sequence[Part]) -> str:
    headers = (title, "groups", "mean", "ICC", "all rewards equal", "ebpo", "ebpo_debiased")
    lines = [
        (
            p.name,
            str(p.groups),
            span(p.found.mean),
            span(p.found.icc),
            span(p.zero_signal),
            *map(span, p.ratio.values()),
        )
        for p in parts
    ]
    return report.text_table(headers, lines, ("left", *("right" for _ in headers[1:])))
