"""Worlds: distributions of the success probability p over prompts, exactly integrable and exactly sampled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.special import expit, log_expit, roots_jacobi

from ebpo_sim.errors import InputError
from ebpo_sim.numbers import Array
from ebpo_sim.numbers.mixing import Prior

SHARP = 300.0  # a + b of a Beta from which SciPy's Jacobi rule overflows at some degrees


class World(Protocol):
    """A population of prompts. `name` is its text in the world grammar."""

    @property
    def name(self) -> str: ...

    def quadrature(self, degree: int) -> Prior:
        """Nodes and weights with which E f(p) is exact (to rounding) for polynomials up to `degree`."""

    def fine(self) -> Prior:
        """Nodes and weights for integrands with logarithms or roots at 0 and 1, such as p log p: exact to rounding."""

    def sample(self, rng: np.random.Generator, size: int) -> Array:
        """`size` draws of p, as an exchangeable collection (their order carries no information)."""


def intra_class_correlation(world: World) -> float:
    """rho = Var p / (mean (1 - mean)); NaN where every reward is certain to be equal."""
    prior = world.quadrature(2)
    total = prior.within + prior.between
    return prior.between / total if total > 0 else float("nan")


def quantiles(world: World, count: int, edge: float, degree: int = 256) -> Array:
    """The (i + 1/2)/count quantiles of p, i = 0 .. count - 1, within [edge, 1 - edge], on the nodes of `degree`."""
    rule, share = world.quadrature(degree), (np.arange(count) + 0.5) / count
    return np.clip(np.quantile(rule.nodes, share, weights=rule.weights, method="inverted_cdf"), edge, 1 - edge)


@dataclass(frozen=True)
class Beta:
    """p ~ Beta(a, b), a and b from 0.01 (below, quadrature loses its accuracy) to 1e6.

    Intra-class correlation 1/(a + b + 1).
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        if not (0.01 <= self.a <= 1e6 and 0.01 <= self.b <= 1e6):
            raise InputError(
                f"beta:{self.a:g},{self.b:g} needs two parameters between 0.01 and 1e6, for example beta:2,3"
            )

    @property
    def name(self) -> str:
        return f"beta:{_exact(self.a)},{_exact(self.b)}"

    def quadrature(self, degree: int) -> Prior:
        """Gauss-Jacobi: n nodes are exact up to degree 2n - 1."""
        return _jacobi(self.a, self.b, max(2, degree // 2 + 1))

    def fine(self) -> Prior:
        """The trapezoidal rule in z = logit p, where the density p^a (1-p)^b/B(a, b) and log p are analytic for
        |Im z| < pi; cut where p^a or (1-p)^b falls below 1e-17."""
        return _logit_rule(self.a, self.b)

    def sample(self, rng: np.random.Generator, size: int) -> Array:
        return rng.beta(self.a, self.b, size)


@dataclass(frozen=True)
class LogitNormal:
    """p = 1/(1 + exp(-(m + s z))), z standard normal, |m| <= 1000, 0 < s <= 100 (its rule has about 50 s nodes)."""

    m: float
    s: float

    def __post_init__(self) -> None:
        if not (-1000 <= self.m <= 1000 and 0 < self.s <= 100):
            raise InputError(
                f"logitnormal:{self.m:g},{self.s:g} needs a mean between -1000 and 1000, and a spread above 0 "
                "that is at most 100"
            )

    @property
    def name(self) -> str:
        return f"logitnormal:{_exact(self.m)},{_exact(self.s)}"

    def quadrature(self, degree: int) -> Prior:
        """The trapezoidal rule in z on [-9, 9]: for an analytic integrand its error falls like exp(-2 pi d/h), with
        d = pi/s the distance of the logistic's nearest pole; the step h keeps 2 pi d/h above 55 for any s."""
        step = min(0.05, 0.35 / max(1.0, self.s))
        z = np.arange(-np.ceil(9.0 / step), np.ceil(9.0 / step) + 1) * step
        weights = np.exp(-z * z / 2)
        return Prior(tuple(expit(self.m + self.s * z).tolist()), tuple((weights / weights.sum()).tolist()))

    def fine(self) -> Prior:
        return self.quadrature(0)

    def sample(self, rng: np.random.Generator, size: int) -> Array:
        return np.asarray(expit(self.m + self.s * rng.standard_normal(size)))


@dataclass(frozen=True)
class Points:
    """A discrete p: `prior` itself, under the given name."""

    name: str
    prior: Prior

    def quadrature(self, degree: int) -> Prior:
        return self.prior

    def fine(self) -> Prior:
        return self.prior

    def sample(self, rng: np.random.Generator, size: int) -> Array:
        """How many prompts fall on each node is multinomial; their order is immaterial."""
        weights = np.asarray(self.prior.weights)
        return np.repeat(np.asarray(self.prior.nodes), rng.multinomial(size, weights / weights.sum()))


@dataclass(frozen=True)
class Mixture:
    """A share weights[i] of the prompts from parts[i]."""

    weights: tuple[float, ...]
    parts: tuple[World, ...]

    def __post_init__(self) -> None:
        if not self.parts or min(self.weights) <= 0 or abs(sum(self.weights) - 1) > 1e-9:
            raise InputError(f"a mixture needs weights above 0 that sum to 1, got {self.weights}")

    @cached_property
    def name(self) -> str:
        return "mix:" + "+".join(f"{_exact(w)}*{part.name}" for w, part in zip(self.weights, self.parts, strict=True))

    def quadrature(self, degree: int) -> Prior:
        return self._mixed([part.quadrature(degree) for part in self.parts])

    def fine(self) -> Prior:
        return self._mixed([part.fine() for part in self.parts])

    def _mixed(self, rules: list[Prior]) -> Prior:
        nodes = tuple(p for rule in rules for p in rule.nodes)
        weights = tuple(w * v for w, rule in zip(self.weights, rules, strict=True) for v in rule.weights)
        return Prior(nodes, weights)

    def sample(self, rng: np.random.Generator, size: int) -> Array:
        weights = np.asarray(self.weights)
        sizes = rng.multinomial(size, weights / weights.sum())
        return np.concatenate([part.sample(rng, int(n)) for n, part in zip(sizes, self.parts, strict=True)])


@lru_cache(maxsize=64)
def _logit_rule(a: float, b: float) -> Prior:
    step = min(0.2, 0.7 * float(np.sqrt(1 / a + 1 / b)))  # of z's standard deviation, where the density is narrow
    tail = 40.0 / step
    z = np.arange(-np.ceil(39.0 / a / step) - tail, np.ceil(39.0 / b / step) + tail + 1) * step
    log_weight = a * log_expit(z) + b * log_expit(-z)
    weights = np.exp(log_weight - log_weight.max())
    keep = weights > 0
    return Prior(tuple(expit(z[keep]).tolist()), tuple((weights[keep] / weights.sum()).tolist()))


def _exact(x: float) -> str:
    """The shortest of %g and repr that reads back as the same number."""
    return f"{x:g}" if float(f"{x:g}") == x else repr(float(x))


@lru_cache(maxsize=64)
def _jacobi(a: float, b: float, n: int) -> Prior:
    if a + b > SHARP:
        return _golub_welsch(a, b, n)
    with np.errstate(invalid="ignore"):  # SciPy evaluates 0/0 in a branch it throws away when a + b = 1
        x, w = roots_jacobi(n, b - 1, a - 1)
    return Prior(tuple(((1 + x) / 2).clip(0, 1).tolist()), tuple((w / w.sum()).tolist()))


def _golub_welsch(a: float, b: float, n: int) -> Prior:
    """The rule as eigenvalues of the Jacobi matrix on [0, 1], written without cancellation (Golub and Welsch 1969)."""
    k = np.arange(1, n, dtype=np.float64)
    two = 2 * k + a + b
    diagonal = np.concatenate([[a / (a + b)], (2 * k * (k + a + b - 1) + (a + b - 2) * a) / ((two - 2) * two)])
    ratio = np.concatenate([[1.0], (k[1:] + a + b - 2) / (two[1:] - 3)])  # (k + a + b - 2)/(2k + a + b - 3); 1 at k = 1
    square = k * (k + a - 1) * (k + b - 1) * ratio / ((two - 2) ** 2 * (two - 1))
    x, vectors = eigh_tridiagonal(diagonal, np.sqrt(square))
    weights = vectors[0] ** 2
    return Prior(tuple(x.clip(0, 1).tolist()), tuple((weights / weights.sum()).tolist()))
