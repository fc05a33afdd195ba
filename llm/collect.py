"""The answers of one training step, as its method asks for them: planned, sampled, verified, selected, scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ebpo_sim.estimators import Info
from ebpo_sim.groups import Groups, group_rewards
from ebpo_sim.methods.step import State, decide
from ebpo_sim.part import Draw
from ebpo_sim.sampling import Plan, weights_of
from llm import rollouts
from llm.curriculum import Curriculum
from llm.rollouts import Rollouts
from llm.run import Run
from llm.tasks import Problem
from llm.tasks.final_answer import compared


class Batch(NamedTuple):
    """All N answers drawn for a step, rows of a group together: reward_N, length_N (tokens), and advantage_N, 0 where
    an answer is not kept. kept_N: rows that are trained on. groups, info: what the estimator saw, and said of it."""

    rolled: Rollouts
    problems: list[Problem]
    texts: list[str | None]
    reward_N: NDArray[np.float64]
    length_N: NDArray[np.int64]
    advantage_N: NDArray[np.float64]
    kept_N: Tensor
    group_N: NDArray[np.int64]
    groups: Groups
    info: Info | None
    state: State

    def first_rows(self) -> Tensor:
        """Of the kept rows, by their place among them, the first of each group."""
        group_K = self.group_N[self.kept_N.cpu().numpy()]
        return torch.from_numpy(np.flatnonzero(np.diff(group_K, prepend=-1))).to(self.kept_N.device)


def seed_for(seed: int, purpose: str, step: int) -> int:
    """A seed for one purpose at one step."""
    return Draw(seed, purpose, step).number()


def sample(
    run: Run, curriculum: Curriculum, planned: Plan, step: int, attempt: int
) -> tuple[Rollouts, list[Problem], NDArray[np.int64]]:
    """One generation batch: (answers, the problem of each, its group)."""
    problems = [curriculum.problems[i] for i in planned.prompt_P]
    seed = seed_for(run.settings.seed, f"sample {attempt}" if attempt else "sample", step)
    group_N = np.repeat(np.arange(len(problems)), planned.size_P)
    each = [problems[i] for i in group_N]
    equal = bool((planned.size_P == planned.size_P[0]).all())
    asked, size = (problems, int(planned.size_P[0])) if equal else (each, 1)
    return run.engine.sample(asked, size, seed, run.settings.temperature), each, group_N


def answers(run: Run, curriculum: Curriculum, step: int, note: Callable[[str], None] = lambda _: None) -> Batch:
    """Sample, verify and decide; again with other problems while the selection asks for more. `note` is told what has
    just been done: "sample", "verify" or "estimator"."""
    parts: list[Rollouts] = []
    problems: list[Problem] = []
    texts: list[str | None] = []
    rewards: list[float] = []
    weighted = "score_norms" in run.method.needs()
    group_N, plans = np.zeros(0, dtype=np.int64), list[Plan]()
    for attempt in range(run.method.selection.batches):
        plans.append(curriculum.plan(run.state, step, attempt))
        rolled, each, fresh_N = sample(run, curriculum, plans[-1], step, attempt)
        note("sample")
        said = rollouts.answers(rolled, run.engine.tokenizer)
        rewards += run.verifier.scores(said, each)
        note("verify")
        group_N = np.concatenate([group_N, fresh_N + (group_N[-1] + 1 if len(group_N) else 0)])
        parts, problems, texts = [*parts, rolled], problems + each, texts + said
        length_N = np.concatenate([part.mask_NT.sum(dim=1).cpu().numpy() for part in parts])
        groups = group_rewards(
            rewards, group_N, lengths=length_N, clusters=[p.cell.topic for p in problems],
            prompt_ids=[p.id for p in problems],
            score_norms=torch.cat([part.score_norm_N for part in parts]) if weighted else None,
            answers=[compared(text or "") for text in texts] if "answers" in run.method.needs() else None,
        )  # fmt: skip
        asked, seed = curriculum.ask(step), run.settings.seed
        decision = decide(run.method, run.state, groups, asked, seed, weights_of(plans))
        note("estimator")
        if decision.groups >= curriculum.prompts:
            break
    assert groups.flat_index is not None
    keep_N = decision.keep_PG.reshape(-1)[groups.flat_index]
    advantage_N = decision.advantage_PG.reshape(-1)[groups.flat_index]
    rolled = rollouts.join(parts, run.engine.tokenizer.pad_id)
    kept_N = torch.from_numpy(np.flatnonzero(keep_N)).to(rolled.tokens_NT.device)
    return Batch(
        rolled, problems, texts, np.array(rewards), length_N, advantage_N, kept_N, group_N, groups, decision.info,
        decision.state,
    )  # fmt: skip
