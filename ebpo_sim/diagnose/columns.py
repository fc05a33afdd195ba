"""Which column of a log plays which role: found by name, said in the report, and overridable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ebpo_sim import report
from ebpo_sim.errors import InputError

Kind = Literal["rollouts", "prompts", "histogram"]

NAMES: dict[str, tuple[str, ...]] = {  # role -> names it goes by, the first found is taken
    "prompt": ("prompt_id", "uid", "question_id", "problem_id", "task_id", "example_id", "prompt", "input", "question"),
    "reward": ("reward", "score", "rewards", "correct", "is_correct", "success"),
    "rollouts": ("rollouts", "num_rollouts", "n_rollouts", "num_samples", "attempts", "trials"),
    "successes": ("successes", "num_correct", "n_correct", "num_successes", "passes", "solved"),
    "prompts": ("prompts",),
    "step": ("step", "global_step", "training_step"),
    "cluster": ("cluster", "topic", "subject", "category", "difficulty", "level", "data_source"),
    "model": ("model", "model_name", "policy"),
    "benchmark": ("benchmark", "dataset"),
    "length": ("length", "response_length", "completion_length", "num_tokens", "completion_tokens"),
    "score_norm": ("score_norm", "score_norms"),  # |grad log pi|^2 of the whole answer
    "log_prob": ("token_log_probs", "log_probs", "logprobs", "log_prob", "logprob"),  # of tokens (a list) or their sum
}
VERL = {"input", "output", "score"}  # what verl writes under trainer.rollout_data_dir, one JSON object a rollout
TRL = {"prompt", "completion", "advantage"}  # log_completions=True: reward functions stand between the last two


@dataclass(frozen=True)
class Columns:
    """The columns to read. kind: a row is a rollout, a prompt, or a cell of a histogram of prompts.

    role: column of each role. rewards: the columns that are summed to a rollout's reward (usually one).
    """

    kind: Kind
    role: Mapping[str, str]
    rewards: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every column that has to be read, once."""
        return tuple(dict.fromkeys((*self.role.values(), *self.rewards)))

    def said(self) -> str:
        """The choice in words."""
        parts = [f"{role} = {name}" for role, name in self.role.items()]
        if self.rewards:
            parts.insert(1, f"reward = {' + '.join(self.rewards)}")
        return report.printable(", ".join(parts))


def overrides(texts: Sequence[str]) -> dict[str, str]:
    """`reward=score,prompt=input` as a mapping; a role may be given as nothing (`cluster=`) to leave it out."""
    chosen: dict[str, str] = {}
    for part in (p for text in texts for p in text.split(",")):
        role, equals, name = part.partition("=")
        if not equals or role not in NAMES:
            raise InputError(f"--columns {part!r} must be ROLE=COLUMN with ROLE one of {', '.join(NAMES)}")
        chosen[role] = name
    return chosen


def detect(names: Sequence[str], sample: Mapping[str, Any], given: Mapping[str, str], path: str) -> Columns:
    """Roles of the columns `names` of the file `path`; `sample` is its first row, `given` overrides.

    Raises InputError when a needed role has no column, listing what is there and how to name one.
    """
    lower = {name.lower(): name for name in reversed(names)}
    found = {role: next((lower[n] for n in known if n in lower), "") for role, known in NAMES.items()}
    if set(names) >= VERL:  # its extra columns (acc, reward, ...) must not displace the score that was trained on
        found |= {"prompt": "uid" if "uid" in names else "input", "reward": "score"}
    for role, name in given.items():
        for part in name.split("+") if role == "reward" else [name]:
            if part and part not in names:
                raise InputError(f"--columns {role}={name}: {path} has no column {part!r}, it has {', '.join(names)}")
        found[role] = name
    if found["model"] == found["benchmark"]:
        found["benchmark"] = ""
    optional = ("step", "cluster", "model", "benchmark")
    counts = found["rollouts"] and found["successes"] and not given.get("reward")
    rewards: tuple[str, ...] = ()
    roles: tuple[str, ...]
    kind: Kind = "rollouts"
    if counts:
        kind = "histogram" if found["prompts"] else "prompts"
        roles = ("rollouts", "successes", *(("prompts",) if found["prompts"] else ("prompt",)), *optional)
    else:
        rewards = tuple(part for part in found["reward"].split("+") if part) or _trl(names, sample)
        if not found["prompt"] or not rewards:
            raise InputError(
                f"{path} has no column for the {'reward' if found['prompt'] else 'prompt id'}, it has "
                f"{', '.join(names) or 'none'}: name it with "
                "--columns reward=NAME,prompt=NAME (or rollouts=NAME,successes=NAME)"
            )
        weighs = next((role for role in ("score_norm", "log_prob") if found[role]), "")
        if weighs and weighs not in given and not _known(sample.get(found[weighs])):
            weighs = ""  # a column of that name that holds something else
        roles = ("prompt", *optional, "length", *([weighs] if weighs else []))
    return Columns(kind, {role: found[role] for role in roles if found[role]}, rewards)


def _known(value: Any) -> bool:
    """A number, or a list of numbers."""
    return all(map(_numeric, value)) if isinstance(value, list) else value is not None and _numeric(value)


def _trl(names: Sequence[str], sample: Mapping[str, Any]) -> tuple[str, ...]:
    """TRL's table: the numeric columns between completion and advantage, one for each reward function."""
    if not set(names) >= TRL:
        return ()
    between = list(names)[names.index("completion") + 1 : names.index("advantage")]
    return tuple(name for name in between if _numeric(sample.get(name)))


def _numeric(value: Any) -> bool:
    try:
        float(value)
    except OverflowError:
        return True
    except (TypeError, ValueError):
        return value is None
    return True
