"""Do the hidden objective biases of group-based RL (arXiv 2601.05002) hold, and how large are they?

Three findings, each a closed form beside an independent computation:
  (i)   token weights push a prefix that a group shares, unless they are equal over outputs (P1 to P7);
        the control: over all groups a token that changes nothing does not drift (N1 to N3);
        and the loss at the first step is a length covariance, not progress (L1 to L3);
  (ii)  Adam hides the scale of rewards, as long as eps and KL are small beside it (Q1 to Q7);
  (iii) Adam's momentum carries the ratio past the clip bound (R1 to R9).
The table lists every prediction; "holds" means |computed - predicted| <= tolerance. A last column in table.csv
names the smallest set-up in which what the paper leaves out goes wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim import cli, report
from ebpo_sim.bias import adamw, control, overshoot, prefix
from ebpo_sim.bias.check_overshoot import measured_ratios
from ebpo_sim.bias.predictions import check_predictions
from ebpo_sim.numbers.adam import Adam
from ebpo_sim.studies.base import Rows
from ebpo_sim.studies.hidden_bias.plots import plots

TINY = 1e-12  # stands for eps -> 0
REWARDS = (1, 1, 1, 0, 0, 0, 0, 0)
BETAS = ((0.9, 0.95), (0.9, 0.999), (0.95, 0.9))
EXAMPLE = """example:
  python -m ebpo_sim.hidden_bias_study --quick --json | python -m json.tool
files: table.csv (predictions and curves, one row each), summary.json, prefix.png, adamw.png, overshoot.png"""


class Settings(NamedTuple):
    """What is studied; published numbers keep their own settings."""

    points: int = 25  # of every curve
    steps: int = 200  # optimiser steps on the bandit
    seed: int = 3


@dataclass(frozen=True)
class Options:
    """The command line."""

    quick: bool = cli.option(False, "coarser curves and shorter runs; the predictions are the same")
    seed: int = cli.seed_option("of the bandit's arms and the random histories (default 3, the reference's)", 3)
    out: str = cli.out_option(default="results/hidden_bias_study")
    json: bool = cli.json_option()


QUICK = Settings(points=10, steps=100)


def simulate(settings: Settings) -> Rows:
    """The long table: `part` is "prediction" or the figure a curve belongs to, `id` the prediction or the panel."""
    rows = [
        _row("prediction", x.id, x.statement, None, x.predicted, x.computed)
        | {"tolerance": x.tolerance, "holds": x.holds, "condition": x.condition, "counterexample": x.counterexample}
        for x in check_predictions(settings.seed)
    ]
    return rows + _prefix(settings) + _adamw(settings) + _overshoot()


def _row(part: str, id: str, series: str, x: float | None, predicted: float | None, computed: float) -> dict[str, Any]:
    empty = dict.fromkeys(("tolerance", "holds", "condition", "counterexample"))
    return {"part": part, "id": id, "series": series, "x": x, "predicted": predicted, "computed": computed} | empty


def _prefix(settings: Settings) -> Rows:
    rows = []
    for skew in np.geomspace(0.25, 4, settings.points).tolist():
        lengths = [20.0 if r else 20 * skew for r in REWARDS]
        for method, gamma in (("grpo", 0.0), ("grpo_v3.2", 0.0), ("cppo", 0.5), ("dr_grpo", 0.0), ("dapo", 0.0)):
            W = prefix.aggregate_weight(
                prefix.token_weights(method, lengths, REWARDS, gamma), prefix.advantages(np.array(REWARDS))
            )
            closed = prefix.aggregate_weight_closed_form(method, lengths, REWARDS, gamma)
            rows.append(_row("prefix", "weight", method, skew, closed, float(W)))
        same = control.FirstToken(0.6, (0.4, 0.4), (20, 20 * skew), (20, 20 * skew))
        only_f = same._replace(lengths_g=(20, 20))
        for method in ("grpo", "grpo_v3.2", "dapo", "dr_grpo"):
            shared, drift = control.conditional_drift(same, 4, method), control.expected_drift(same, 4, method)
            rows.append(_row("prefix", "all share f", method, skew, None, shared))
            rows.append(_row("prefix", "all groups", method, skew, 0.0, drift))
            weighted = {"grpo_v3.2": True, "dr_grpo": False}.get(method)
            closed_form = None if weighted is None else control.expected_drift_closed_form(only_f, 4, weighted)
            drift = control.expected_drift(only_f, 4, method)
            rows.append(_row("prefix", "only f", method, skew, closed_form, drift))
    return rows


def _final(optimiser: adamw.Optimiser, scale: float, kl: float, settings: Settings) -> NDArray[np.float64]:
    """The bandit's last logits."""
    run = adamw.run_bandit(optimiser, scale=scale, kl=kl, steps=settings.steps, seed=settings.seed)
    return np.asarray(run.theta_TK[-1])


def _adamw(settings: Settings) -> Rows:
    rows = []
    # Not eps = 0: arms not drawn have a gradient of rounding size, which eps = 0 would turn into whole steps.
    limit = adamw.run_bandit(Adam(eps=TINY), steps=settings.steps, seed=settings.seed)
    root_v = float(np.median(limit.root_v_TK))
    cases: tuple[tuple[str, adamw.Optimiser, float], ...] = (
        ("Adam, eps = 1e-8", Adam(eps=1e-8), 0.0),
        ("Adam, eps = 1e-5", Adam(eps=1e-5), 0.0),
        ("Adam, eps = 1e-3", Adam(eps=1e-3), 0.0),
        ("Adam, eps = 1e-8, KL 0.1", Adam(eps=1e-8), 0.1),
        ("SGD", adamw.Sgd(), 0.0),
    )
    for name, optimiser, kl in cases:
        base = _final(optimiser, 1.0, kl, settings)
        for scale in np.geomspace(1.5e-8, 1.5e3, settings.points).tolist():
            theta = _final(optimiser, scale, kl, settings)
            rows.append(_row("adamw", "phi", name, scale, None, float(np.abs(theta - base).max())))
            if isinstance(optimiser, Adam) and not kl:
                away = float(np.abs(theta - limit.theta_TK[-1]).max())
                rows.append(_row("adamw", "eps/phi", name, optimiser.eps / scale, None, away))
        if isinstance(optimiser, Adam) and not kl:
            rows.append(_row("adamw", "edge", name, optimiser.eps / root_v, None, root_v))
    return rows


def _overshoot() -> Rows:
    rows = []
    cases: list[tuple[str, adamw.Optimiser]] = [(f"Adam {b}", Adam(0.01, *b, 0.0)) for b in BETAS]
    for name, optimiser in (*cases, ("SGD", adamw.Sgd(0.05))):
        run = overshoot.run_logit(optimiser, overshoot.start(0.3))
        stop = run.stop or 1
        logit = run.logit_T[stop - 1]
        if isinstance(optimiser, Adam):
            logit += overshoot.total_overshoot(optimiser, run.direction_T[stop - 2], stop, 81 - stop)
        end = 1 / (1 + np.exp(-logit)) / 0.3
        for t, ratio in enumerate(run.ratio_T.tolist()):
            rows.append(_row("overshoot", "ratio", name, t, float(end) if t == 80 else None, ratio))
    for stop in (2, 5, 30, 1000):
        measured = measured_ratios(Adam(0.01, 0.9, 0.95, 0.0), np.ones((stop - 1, 1)), 40)[:, 0]
        formula = overshoot.step_ratio(0.9, 0.95, stop, np.arange(40))
        for k, (x, y) in enumerate(zip(formula.tolist(), measured.tolist(), strict=True)):
            rows.append(_row("overshoot", "step", f"T = {stop}", k, x, y))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Every prediction."""
    columns: report.Columns = (
        "id", ("prediction", "series"), ("predicted", lambda r: f"{r['predicted']:.6g}"),
        ("computed", lambda r: f"{r['computed']:.6g}"),
        ("tolerance", lambda r: f"{r['tolerance']:.0e}"),
        ("verdict", lambda r: "holds" if r["holds"] else "FAILS"),
    )  # fmt: skip
    return report.columns_table(
        (r for r in rows if r["part"] == "prediction"), columns, ("tolerance", "computed", "predicted")
    )


def main(argv: Sequence[str]) -> None:
    args = cli.parse(Options, "python -m ebpo_sim.hidden_bias_study", __doc__, argv, EXAMPLE)
    settings = (QUICK if args.quick else Settings())._replace(seed=args.seed)
    out = report.writable_folder(args.out)
    with report.locked(out):
        rows = simulate(settings)
        summary = report.to_json({"settings": settings._asdict(), "rows": rows})
        report.write_files(out, {"table.csv": rows, "summary.json": summary, **plots(rows)})
    if args.json:
        report.say(summary)
        return
    report.say(table(rows))
    report.say(f"\nConditions, counterexamples, curves: {out / 'table.csv'}")
    report.say(f"Figures: {', '.join(str(out / name) for name in ('prefix.png', 'adamw.png', 'overshoot.png'))}")
    report.say(conclusion(rows))


def conclusion(rows: Sequence[dict[str, Any]]) -> str:
    """How many predictions hold, and which do not."""
    found = [r for r in rows if r["part"] == "prediction"]
    failed = ", ".join(dict.fromkeys(r["id"] for r in found if not r["holds"]))
    but = f"; not {failed}" if failed else ""
    return f"Conclusion: {sum(r['holds'] for r in found)} of {len(found)} predictions hold{but}."


if __name__ == "__main__":
    cli.run(main)
