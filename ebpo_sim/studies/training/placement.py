"""Where the paper's set-up stands on the axis of nu/N, as far as its published numbers allow.

Published: GRPO's G = 4, mini-batches of 128 prompts, so N = 512 rollouts an update, DAPO-Math-17k. Unpublished: pass
rates by prompt, norms of the scores, and how much of their gradients prompts share. So nu is computed (`counts.noise`)
for worlds of measured pass rates under every score model, at both ends of sharing: all prompts in one direction, and no
two with anything in common. A learning rate (1e-6) says nothing of nu.
"""

from __future__ import annotations

from typing import Any

from ebpo_sim.counts.exact import rule
from ebpo_sim.counts.noise import MODELS, noise
from ebpo_sim.labels import REFERENCE
from ebpo_sim.studies.noise.study import advantages
from ebpo_sim.worlds import parse_world

WORLDS = tuple(f"observed:{name}" for name in ("Qwen2.5-7B", "Qwen2.5-Math-1.5B", "Qwen2.5-Math-1.5B-Instruct/MATH"))
GROUP_SIZE, PROMPTS, DATA_SET = 4, 128, 17_000


def placement() -> list[dict[str, Any]]:
    """nu/N of GRPO by world and score model: shared, all prompts in one direction; apart, nothing in common."""
    rows, rollouts = [], GROUP_SIZE * PROMPTS
    for text in WORLDS:
        for name, model in MODELS.items():
            table = advantages(REFERENCE, parse_world(text), GROUP_SIZE, model)
            found = noise(table, rule(parse_world(text), 32), model)
            rows.append({
                "world": text, "scores": name, "rollouts": rollouts, "shared": found.nu_together / rollouts,
                "apart": DATA_SET * found.nu_drawn / rollouts,
            })  # fmt: skip
    return rows


def sentence(rows: list[dict[str, Any]]) -> str:
    """The range, in words."""
    low, high = min(r["shared"] for r in rows), max(r["apart"] for r in rows)
    return (
        f"The paper's set-up (mini-batches of {PROMPTS} prompts × {GROUP_SIZE}) has nu/N between {low:.2g} (all "
        f"prompts push in one direction) and {high:.2g} (no two of {DATA_SET:,} share anything) on Qwen's measured "
        "pass rates, by score-norm model: its published numbers do not place it in a regime."
    )
