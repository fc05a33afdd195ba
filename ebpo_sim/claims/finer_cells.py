"""What finer baselines could save of the noise on the chains, exactly: cells by topic, by pass rate, a token each.

A step's scores are orthogonal to another's where no chain needs a skill twice, so for baselines b of what does not
depend on the scored step's action the noise of an answer is the sum over steps of E W (r - b)^2, W the step's squared
score norm. Where b is one number in a cell, the least is x y/(x + y), x = E W r and y = E W (1-r) summed over the cell:
concave, so finer cells never have more. That is less than any rule can reach that has to learn its cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebpo_sim.chains.policy import Prompts, right_probabilities, step_distributions
from ebpo_sim.chains.population import parse_population, success_gradient
from ebpo_sim.claims.base import Case, Context, Finding, Word, claim
from ebpo_sim.numbers import Array

Cells = Callable[["Weights"], NDArray[np.int64]]
PROMPTS = 256  # of a world
ASCENT = {"at the start": 0, "trained": 60}  # steps of the exact gradient, at RATE
RATE = 64.0
WORTH = 0.1  # of the noise: a saving worth the trouble


class Weights(NamedTuple):
    """By prompt and step, (P, L): E W r, and E W (1-r) of steps after right steps alone (inside) and after a wrong one
    (after); p_P and the prompts."""

    right_PL: Array
    inside_PL: Array
    after_PL: Array
    p_P: Array
    prompts: Prompts


def weights(theta_SK: Array, prompts: Prompts) -> Weights:
    """Exact; W = 1 - 2 pi(a) + sum pi^2 of a step that takes action a."""
    live_PL, pi_PL = prompts.live_PL, right_probabilities(theta_SK, prompts)
    squares_PL = np.sum(step_distributions(theta_SK, prompts) ** 2, axis=-1)
    own_PL = np.where(live_PL, 1 - 2 * pi_PL + squares_PL, 0.0)  # W of the right action
    all_PL = np.where(live_PL, 1 - squares_PL, 0.0)  # E W
    before_PL = np.cumprod(pi_PL, axis=1) / pi_PL
    p_P = before_PL[:, -1] * pi_PL[:, -1]
    later_PL = p_P[:, None] / (before_PL * pi_PL)  # all steps after this one are right
    inside_PL = before_PL * (all_PL - pi_PL * own_PL * later_PL)
    return Weights(p_P[:, None] * own_PL, inside_PL, (1 - before_PL) * all_PL, p_P, prompts)


def noise(x_PL: Array, y_PL: Array, cell_PL: NDArray[np.int64]) -> float:
    """Sum over cells of x y/(x + y)."""
    x, y = (np.bincount(cell_PL.ravel(), part.ravel()) for part in (x_PL, y_PL))
    return float(np.sum(x * y / np.where(x + y > 0, x + y, 1.0)))


def _of_prompts(values_P: NDArray[np.int64], of: Weights) -> NDArray[np.int64]:
    return np.repeat(values_P[:, None], of.right_PL.shape[1], axis=1)


def _one(of: Weights) -> NDArray[np.int64]:
    return np.zeros(of.right_PL.shape, dtype=np.int64)


def _topics(of: Weights) -> NDArray[np.int64]:
    return _of_prompts(of.prompts.topic_P, of)


def _tenths(of: Weights) -> NDArray[np.int64]:
    return _of_prompts(np.minimum((of.p_P * 10).astype(np.int64), 9), of)


def _prompts(of: Weights) -> NDArray[np.int64]:
    return _of_prompts(np.arange(len(of.p_P)), of)


def _positions(of: Weights) -> NDArray[np.int64]:
    return _one(of) + np.arange(of.right_PL.shape[1])


def _steps(of: Weights) -> NDArray[np.int64]:
    return np.arange(of.right_PL.size).reshape(of.right_PL.shape)


def saved(of: Weights, cells: Cells, than: Cells, prefix: bool = False) -> float:
    """The share of the noise with one number in each cell of `than` that is saved by one in each of `cells`; prefix:
    which is 0 after a wrong step, where the answer has failed."""
    y_PL = of.inside_PL + of.after_PL
    return 1 - noise(of.right_PL, of.inside_PL if prefix else y_PL, cells(of)) / noise(of.right_PL, y_PL, than(of))


@lru_cache(maxsize=64)
def policies(text: str) -> dict[str, Weights]:
    """A world's policies by their name in ASCENT."""
    people, found = parse_population(text, PROMPTS, 0, 4), dict[str, Weights]()
    theta_SK = people.start_SK.copy()
    for step in range(max(ASCENT.values()) + 1):
        found |= {name: weights(theta_SK, people.prompts) for name, at in ASCENT.items() if at == step}
        theta_SK = theta_SK + RATE * success_gradient(theta_SK, people.prompts)
    return found


def _findings(context: Context, id: str, variants: dict[str, Callable[[Weights], float]]) -> Iterator[Finding]:
    texts = ("chain", *(text for text in context.worlds if text.startswith("observed:")))
    for variant, saving in variants.items():
        for policy in ASCENT:
            shares = {text: saving(policies(text)[policy]) for text in texts}
            rates = {text: float(policies(text)[policy].p_P.mean()) for text in texts}
            cases = [
                Case(f"claims {id}: {variant}, {policy}, {text}", share - WORTH, x=rates[text])
                for text, share in shares.items()
            ]
            mean = float(np.mean(list(shares.values())))
            yield Finding(f"{variant}, {policy}", cases, "", "mean share of the noise that is saved", mean)


def _failing(*variants: str) -> tuple[tuple[str, Word], ...]:
    return tuple((f"{variant}, {policy}", "fails") for variant in variants for policy in ASCENT)


@claim(
    "E10",
    "this project",
    "A score-weighted baseline saves a tenth of its noise by cells of its own for topics or pass rates",
    "skill chains, against one score-weighted constant; cells and their numbers known exactly",
    "Topics save nothing, tenths of the pass rate 3 % at the start, later 6, each prompt's own 5 and 15: one will do.",
    _failing("topics", "tenths of the pass rate", "prompts"),
)
def cells_of_prompts(context: Context) -> list[Finding]:
    """E10: the share saved less WORTH."""
    variants: dict[str, Cells] = {"topics": _topics, "tenths of the pass rate": _tenths, "prompts": _prompts}
    return list(_findings(context, "E10", {n: lambda of, c=c: saved(of, c, _one) for n, c in variants.items()}))  # type: ignore[misc]


@claim(
    "E11",
    "optimal token baselines (arXiv 2602.07078) as they are read",
    "A baseline for each token saves a tenth of the noise of one for the answer",
    "as E10; a prefix that is known to be wrong needs a check of steps, which rewards of answers do not give",
    "By position 2 % at most; a check of each step would save 2 % at the start and 5 later: one a rollout will do.",
    _failing("by position", "by prompt and position", "prefix right or wrong", "by prompt and prefix"),
)
def cells_of_tokens(context: Context) -> list[Finding]:
    """E11: the share saved less WORTH."""
    return list(_findings(context, "E11", {
        "by position": lambda of: saved(of, _positions, _one),
        "by prompt and position": lambda of: saved(of, _steps, _prompts),
        "prefix right or wrong": lambda of: saved(of, _one, _one, prefix=True),
        "by prompt and prefix": lambda of: saved(of, _steps, _prompts, prefix=True),
    }))  # fmt: skip
