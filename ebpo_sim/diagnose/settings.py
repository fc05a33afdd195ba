"""The answers in words: what error says, what noise says, and the lines to paste into TRL and verl."""

from __future__ import annotations

from collections.abc import Sequence

from ebpo_sim.diagnose.advice import span
from ebpo_sim.diagnose.answers import Answers, History, Noise
from ebpo_sim.diagnose.intervals import Estimate
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import make
from ebpo_sim.labels import REFERENCE, label

MATTERS = 0.02  # of a rollout: methods whose noise differs by less are told to be equal


def of_noise(found: Answers, current: int, by_error: str) -> tuple[str, ...]:
    """Which method and which G the noise of the gradient prefers, beside the one of least error; as a range over the
    score models where the log has no score norms."""
    here = [n for n in found.noise if n.group_size == current and n.effective]
    if not here:
        return ()
    models = list(here[0].effective)
    best = {m: max(here, key=lambda n: n.effective[m].value if m in n.effective else 0.0) for m in models}
    names = list(dict.fromkeys(label(n.method).short for n in best.values()))
    named = found.at(current, by_error)
    said = f"Noise says: at G = {current}, {' or '.join(names)} makes the least gradient noise"
    by_model = " under every score model" if len(names) == 1 else " by the score model"
    said += " under the log's own score norms" if found.norms_of else by_model
    said += f"; its rollouts are worth {_range(list(best.values()), models)} of GRPO's."
    worse = [m for m in models if named is None or m not in named.effective or _less(named.effective[m], best[m], m)]
    told = label(by_error).short
    if worse:
        others = dict.fromkeys(label(best[m].method).short for m in worse)
        verdict = f"Error says {told}, noise says {' or '.join(others)} ({', '.join(worse)} scores)"
        verdict += ": compare both in a short run"
    else:
        verdict = f"Error and noise agree on {told}"
    worth = f"; a rollout of {told} is worth {_range([named] * len(models), models)} of GRPO's" if named else ""
    return (said, f"{verdict}{worth}.", *_size(found, current, models))


def _less(mine: Estimate, best: Noise, model: str) -> bool:
    return mine.value < best.effective[model].value - MATTERS


def _range(cells: Sequence[Noise], models: Sequence[str]) -> str:
    values = [c.effective[m].value for c, m in zip(cells, models, strict=True) if m in c.effective]
    if len(models) == 1 and values:
        return span(cells[0].effective[models[0]])
    return f"{min(values):.2f} to {max(values):.2f}" if values else "-"


def _size(found: Answers, current: int, models: Sequence[str]) -> list[str]:
    """The best G at the budget, for GRPO, by score model."""
    cells = [n for n in found.noise if n.method == REFERENCE]
    best = {m: min((c for c in cells if m in c.scale), key=lambda c: c.scale[m].value) for m in models}
    told = ", ".join(
        f"G = {c.group_size} and {found.budget // c.group_size} prompts ({m}: {c.scale[m].value:.2f} of the noise at "
        f"G = {current})"
        for m, c in best.items()
    )
    logged = "" if found.logged else ", assumed"
    return [f"Budget: with {found.budget} rollouts a step{logged} GRPO has the least noise at {told}."]


def of_history(found: History | None) -> tuple[str, ...]:
    """What the prompts' own past would save."""
    if found is None:
        return ()
    name, ratio = min(found.ratio.items(), key=lambda item: item[1].value)
    return (
        f"History: prompts recur ({found.prompts} with {found.visits} visits, replayed at G = {found.group_size}): "
        f"{label(name).short} leaves {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] of the group mean's error.",
    )


def of_batches(found: Answers, current: int) -> tuple[str, ...]:
    """The cost of dynamic sampling at the current G."""
    return tuple(
        f"Dynamic sampling: {b.prompts} groups of {current} with different rewards take {b.expected:.2f} generation "
        f"batches of {b.prompts} prompts on average, and at most {b.worst} in 95 % of the steps."
        for b in found.batches
        if b.group_size == current
    )


def paste(estimator: str, group_size: int, steps: bool) -> tuple[str, ...]:
    """Lines for TRL and verl; a rule with a memory is told to forget where the log shows training."""
    text, memory = estimator, ""
    if steps and ":" not in estimator:
        try:
            make(f"{estimator}:memory=0.95")
            text, memory = f"{estimator}:memory=0.95", "+algorithm.ebpo.memory=0.95"
        except InputError:
            pass
    trl = ["# TRL", f"args = GRPOConfig(num_generations={group_size})"]
    trl += ["from ebpo_sim.integrations.trl import EBPOTrainer", f'trainer = EBPOTrainer(..., estimator="{text}")']
    if estimator == REFERENCE:
        trl = trl[:2]
    verl = ["# verl", f"algorithm.adv_estimator={estimator}", f"actor_rollout_ref.rollout.n={group_size}"]
    if estimator != REFERENCE:
        verl += [memory] if memory else []
        verl.append("trainer.checkpoint_callback_class=ebpo_sim.integrations.verl.StateCallback")
    return (*trl, *verl)
