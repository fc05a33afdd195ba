"""The report as text: what was read, what was estimated, what follows."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from ebpo_sim import labels, report
from ebpo_sim.diagnose.advice import of_filtered, of_limit, span
from ebpo_sim.diagnose.breakdown import Part
from ebpo_sim.diagnose.diagnosis import Diagnosis
from ebpo_sim.diagnose.evidence import KEY as EVIDENCE
from ebpo_sim.diagnose.intervals import Estimate

WIDTH, NAME = 118, 30  # columns of the report, letters of a name in a table
KEY = (
    "Error E (baseline - p)^2 relative to the group mean's w/G. long run: from variance components (lines: any "
    "distribution) or the deconvolved prior (curves); model-free: rollouts held back. ±: half of the 95 % interval "
    "over prompts, whose ends are in ratios.csv."
)
NOISE = (
    "Noise: gradient noise scale of as many rollouts, relative to GRPO's at the G recommended for; worth of a "
    "rollout: GRPO's noise over the method's. {norms} batches: of a step's generation under dynamic sampling, mean "
    "(95 % worst)."
)
NORMS = {  # by the role of the log's column
    "": "The log has no score norms: equal (long answers, many right ones), one_logit and softmax scores give the "
    "range.",
    "score_norm": "Logged scores: norms of right and wrong answers by pass rate, as the log has them.",
    "log_prob": "Logged scores: a proxy of their norms by pass rate, the sum over tokens of 1 - pi (of a logged sum of "
    "log-probabilities its negative).",
}
CAVEAT = (
    "The ratios are long-run values on prompts like these; a prior must first be learnt, and forget as fast as the "
    "policy moves. Lower baseline error is not lower gradient noise."
)


def full(d: Diagnosis) -> str:
    """The whole report of one model."""
    lines = [
        *wrapped(f"{d.name or 'diagnosis'}: {d.columns}"),
        "",
        *(f"{name:<28}{value}" for name, value in described(d)),
        "",
    ]
    if d.by_size:
        lines += ["By group size", _by_size(d), ""]
    if d.parts:
        lines += ["By reward", _by_reward(d), ""]
    if d.table.rows:
        lines += [_matrix(d), *wrapped(KEY), ""]
    if d.answers is not None:
        lines += [*_answers(d), ""]
    if d.clusters:
        lines += [f"By cluster, G = {d.current}", _parts("cluster", d.clusters)]
        if d.cluster_gain is not None:
            lines.append(
                f"A prior for each cluster: {span(d.cluster_gain)} of the error with one prior "
                "(without the cost of learning several)."
            )
        lines.append("")
    if d.steps:
        limit = wrapped(of_limit([(p.name, p.found.icc) for p in d.steps], d.current)) if d.current > 1 else []
        lines += [f"During training, G = {d.current}", _parts("steps", d.steps), *limit, ""]
    lines += [line for note in d.notes for line in wrapped(f"Restriction: {note}.")]
    lines += ["", "RECOMMENDATION", *(line for s in d.advice.sentences for line in wrapped(s)), EVIDENCE]
    lines += ["", *d.paste] if d.paste else []
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


def described(d: Diagnosis) -> list[tuple[str, str]]:
    """What was estimated: (name, value with its interval)."""
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
    return rows


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


def _answers(d: Diagnosis) -> list[str]:
    found = d.answers
    assert found is not None
    grpo = {n.group_size: n for n in found.noise if n.method == labels.REFERENCE}
    models = found.models
    headers = ("G", "prompts", "batches (95 %)", *(f"GRPO's noise, {m}" for m in models))
    lines = [
        (
            str(b.group_size), str(b.prompts), f"{b.expected:.2f} ({b.worst})",
            *(near(grpo[b.group_size].scale.get(m)) if b.group_size in grpo else "-" for m in models),
        )
        for b in found.batches
    ]  # fmt: skip
    made = [f"At {found.budget} rollouts a step{'' if found.logged else ' (assumed)'}"]
    made.append(report.text_table(headers, lines, ["right"] * len(headers)))
    errors = {r.estimator: r.best for r in d.table.rows if r.group_size == d.current}
    here = [n for n in found.noise if n.group_size == d.current]
    rows = [(n.method, near(errors.get(n.method)), *(near(n.effective.get(m)) for m in models)) for n in here]
    headers = (f"at G = {d.current}", "error / GRPO's", *(f"worth, {m}" for m in models))
    made += ["", report.text_table(headers, rows, ("left", *("right" for _ in headers[1:])))] if rows else []
    past = found.history
    if past is not None:
        told = ", ".join(f"{name} {near(e)}" for name, e in past.ratio.items())
        made += ["", *wrapped(f"History, replayed at G = {past.group_size}, error / group mean's: {told}.")]
    return [*made, *wrapped(NOISE.format(norms=NORMS[found.norms_of]))]


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
