"""What objectives do to given tokens: the push and the value of each, for one group of answers written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ebpo_sim import rungs
from ebpo_sim.errors import InputError
from ebpo_sim.methods.method import PLUS, parse_method
from ebpo_sim.objectives import Tokens, total_push
from ebpo_sim.objectives.corrections import corrected


def group_of(answers: Sequence[str], old: float) -> Tokens:
    """The tokens of one group from texts "ratio,ratio,...:advantage", every one of probability `old` under the policy
    that drew it. Raises InputError for other texts, and for ratios that are no ratios of probabilities."""
    if not 0 < old < 1:
        raise InputError(f"--old must lie in (0, 1), got {old}: the probability of every token before")
    read: list[tuple[list[float], float]] = []
    for text in answers:
        ratios, colon, advantage = text.partition(":")
        try:
            read.append(([float(x) for x in ratios.split(",")], float(advantage)))
        except ValueError as error:
            raise InputError(f"--answer {text!r} is no ratio,ratio,...:advantage, as in 1.5,0.9:-1") from error
        if not colon or not all(0 < x * old <= 1 for x in read[-1][0]) or not np.isfinite(read[-1][1]):
            raise InputError(f"--answer {text!r}: ratios must lie in (0, {1 / old:g}], 1/--old; name one advantage")
    if not read:
        raise InputError("--push needs --answer ratio,ratio,...:advantage, as in --answer 1.5,0.9:-1")
    width = max(len(ratios) for ratios, _ in read)
    mask = np.array([[t < len(ratios) for t in range(width)] for ratios, _ in read])
    ratio = np.array([ratios + [1.0] * (width - len(ratios)) for ratios, _ in read])
    before = np.full(ratio.shape, np.log(old))
    now, advantage_N1 = np.log(ratio) + before, np.array([[a] for _, a in read])
    return Tokens(now, before, mask, advantage_N1, np.zeros(len(read), int), before, -before, before)


def pushes(text: str, answers: Sequence[str], old: float = 0.1) -> list[dict[str, Any]]:
    """A row a token: its answer and place, ratio, advantage, the push of the objectives and their value.

    text: objectives as in a method, "clip:high=0.28 + kl_old". The reference policy and the sampler are the old policy.
    """
    tokens = group_of(answers, old)
    objectives = parse_method(f"grpo{PLUS}{text}", None, rungs.CHAINS).objectives
    if not objectives:
        raise InputError(f"--push {text!r} names no objective: write clip:high=0.28, say")
    states = [o.init() for o in objectives]
    push, seen = total_push(objectives, states, tokens).log_prob_NT, corrected(objectives, tokens)
    value = sum(o.value(s, seen, seen) for o, s in zip(objectives, states, strict=True))
    ratio = np.exp(tokens.log_prob_NT - tokens.old_NT)
    return [
        {"answer": int(n), "token": int(t), "ratio": float(ratio[n, t]), "advantage": float(tokens.advantage_NT[n, 0]),
         "push": float(push[n, t]), "value": float(value[n, t])}
        for n, t in np.argwhere(tokens.mask_NT)
    ]  # fmt: skip
