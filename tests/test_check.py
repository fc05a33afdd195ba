"""`python -m ebpo_sim.check`: a sound rule passes, each kind of fault is seen by the law that forbids it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebpo_sim import plugins
from ebpo_sim.check.__main__ import main
from ebpo_sim.check.batches import build
from ebpo_sim.check.laws import LAWS, broken
from ebpo_sim.errors import InputError
from ebpo_sim.estimators import Estimator, registry

FILE = """
from ebpo_sim.estimators import Estimator, register
from ebpo_sim.estimators.registry import grpo


class Forward(Estimator):
    def score(self, state, groups):
        advantages, info = super().score(state, groups)
        return advantages + {shift}, info


@register
def mine(*, eps: float = 1e-6) -> Estimator:
    plain = grpo(eps=eps)
    return Forward("mine", plain.chain, plain.order)
"""


class Impure(Estimator):
    """Changes the batch it is given."""

    def score(self, state: Any, groups: Any) -> Any:
        groups.rewards_PG[...] = 0.5
        return super().score(state, groups)


class Greedy(Estimator):
    """Gives masked rollouts an advantage."""

    def score(self, state: Any, groups: Any) -> Any:
        advantages, info = super().score(state, groups)
        return advantages + 0.1, info


class Ordered(Estimator):
    """Weighs rollouts by their place."""

    def score(self, state: Any, groups: Any) -> Any:
        advantages, info = super().score(state, groups)
        return advantages * np.arange(np.asarray(advantages).size).reshape(np.shape(advantages)), info


class Endless(Estimator):
    """Divides by the spread of a batch, which may be 0."""

    def score(self, state: Any, groups: Any) -> Any:
        advantages, info = super().score(state, groups)
        return advantages / np.std(advantages), info


class Lazy(Estimator):
    """Forgets the second of two workers."""

    def merge(self, a: Any, b: Any) -> Any:
        return a


class Taking(Estimator):
    """Says that it is for 0 and 1, and takes anything."""

    domain = "binary"  # type: ignore[assignment]

    def score(self, state: Any, groups: Any) -> Any:
        return np.zeros(groups.rewards_PG.shape), None


def made(kind: type[Estimator], preset: str = "ebpo_debiased") -> Estimator:
    plain = build(preset)
    return kind(plain.name, plain.chain, plain.order)


@pytest.mark.parametrize(
    ("kind", "law"),
    [(Impure, "purity"), (Greedy, "masked rollouts"), (Ordered, "permutations"), (Endless, "thin batches"),
     (Lazy, "two workers"), (Taking, "refusals")],
)  # fmt: skip
def test_a_fault_is_seen(kind: type[Estimator], law: str) -> None:
    """Guards each law: the rule it is made from keeps it, the broken one does not, in one line."""
    assert broken(build("ebpo_debiased"), law) == ""
    said = broken(made(kind), law)
    assert said and "\n" not in said


@pytest.mark.parametrize("shift", ["0.0", "1.0"])
def test_a_file_is_checked(
    shift: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards the command: a line a law and code 0 for a sound file, 1 for one that moves masked rollouts."""
    monkeypatch.setattr(registry, "_PRESETS", dict(registry._PRESETS))
    monkeypatch.setattr(plugins, "_loaded", dict(plugins._loaded))
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(shift=shift), encoding="utf-8")
    code = 0
    try:
        main([str(path)])
    except SystemExit as left:
        code = int(str(left.code))
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["mine"] * len(LAWS)
    bad = [line for line in lines if "BROKEN" in line]
    assert code == (shift == "1.0") and any("masked rollouts" in line for line in bad) == bool(code)
    assert last == f"{len(LAWS) - len(bad)} of {len(LAWS)} laws hold."


def test_a_file_without_an_estimator_is_refused(tmp_path: Path) -> None:
    """Guards the remedy, also for a name that nothing has."""
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="registers no estimator: decorate"):
        main([str(tmp_path / "empty.py")])
    with pytest.raises(InputError, match="unknown estimator 'epbo': did you mean 'ebpo'"):
        main(["epbo"])
