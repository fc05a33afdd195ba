"""The diagnosis as one HTML page: advice first, then tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ebpo_sim import html
from ebpo_sim.diagnose.advice import of_limit, span
from ebpo_sim.diagnose.diagnosis import Diagnosis
from ebpo_sim.diagnose.evidence import KEY as EVIDENCE
from ebpo_sim.diagnose.text import CAVEAT, KEY, NOISE, NORMS, described

CAPTIONS = {
    "pass_rates.png": "Pass rates of the log's prompts, and the prior estimated from them",
    "ratio_vs_group_size.png": "Baseline error relative to the group mean's at every G",
    "steps.png": "Mean reward, intra-class correlation, silent groups and errors during training",
}
MARKS = (("shrink", "good"), ("keep", "mixed"), ("undecided", "bad"), ("no signal", "bad"))


def diagnosis_page(found: Sequence[Diagnosis], pictures: Mapping[str, bytes]) -> bytes:
    """Every model's advice, what was estimated, errors and noise. pictures: PNG by file name."""
    first = found[0]
    parts: list[html.Part] = []
    if len(found) > 1:
        rows = [
            (d.name, d.advice.verdict, d.advice.estimator, str(d.current), str(d.prompts), span(d.components.icc))
            for d in found
        ]
        parts.append(
            html.Table("Side by side", ("model or run", "advice", "method", "G", "prompts", "ICC"), rows, marks=MARKS)
        )
    for d in found:
        parts += _one(d, f"{d.name}: " if len(found) > 1 else "")
    parts += [html.Picture(CAPTIONS[name], png, CAPTIONS[name]) for name, png in pictures.items()]
    lead = " ".join(first.advice.sentences[:2]) if len(found) == 1 else f"{len(found)} models or runs, side by side."
    return html.page(f"Diagnosis{': ' + first.name if len(found) == 1 and first.name else ''}", lead, parts)


def _one(d: Diagnosis, name: str) -> list[html.Part]:
    parts: list[html.Part] = [html.Text(f"{name}Advice", (*d.advice.sentences, EVIDENCE))]
    if d.paste:
        parts.append(html.Text(f"{name}Paste", ["\n".join(d.paste)], preformatted=True))
    if d.notes:
        parts.append(html.Text(f"{name}Restrictions", [f"{note}." for note in d.notes]))
    parts.append(html.Table(f"{name}What the log says", ("quantity", "value [95 %]"), described(d)))
    errors = [
        (str(r.group_size), r.estimator, span(r.long_run), span(r.split), str(r.held or "-"), r.why)
        for r in d.table.rows
    ]
    if errors:
        headers = ("G", "method", "long run", "model-free", "prompts of it", "missing")
        parts.append(html.Table(f"{name}Error of the baseline", headers, errors, f"{KEY} {CAVEAT}"))
    if d.answers is not None:
        noise = [
            (str(n.group_size), n.method, model, span(worth), span(n.scale[model]))
            for n in d.answers.noise
            for model, worth in n.effective.items()
            if model in n.scale
        ]
        by = ("G", "method", "scores", "a rollout's worth of GRPO's", "noise at equal rollouts")
        parts.append(html.Table(f"{name}Gradient noise", by, noise, NOISE.format(norms=NORMS[d.answers.norms_of])))
        batches = [(str(b.group_size), str(b.prompts), f"{b.expected:.3g}", str(b.worst)) for b in d.answers.batches]
        of = ("G", "prompts", "mean", "95 % worst")
        parts.append(html.Table(f"{name}Generation batches under dynamic sampling", of, batches))
    if d.steps:
        steps = [(p.name, str(p.groups), span(p.found.mean), span(p.found.icc), span(p.zero_signal)) for p in d.steps]
        limit = of_limit([(p.name, p.found.icc) for p in d.steps], d.current) if d.current > 1 else ""
        parts.append(html.Table(f"{name}During training", ("steps", "groups", "mean", "ICC", "silent"), steps, limit))
    return parts
